"""Containers are told from their content, and damage is one sentence."""

import io
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from twotime.data import containers
from twotime.data.containers import container, open_arrays
from twotime.data.source import Bin
from twotime.errors import DataError, DataNotFoundError


def opened(path):
    with open_arrays(path) as arrays:
        return {name: np.asarray(arrays[name]) for name in arrays}


def test_content_decides_not_the_name(tmp_path):
    path = tmp_path / "data.h5"
    with path.open("wb") as file:
        np.save(file, np.ones((2, 2)))
    assert container(path) == "npy"
    assert opened(path)["array"].shape == (2, 2)
    with path.open("wb") as file:
        np.savez(file, c2=np.ones((3, 3)))
    assert container(path) == "npz"
    assert opened(path)["c2"].shape == (3, 3)


def test_missing_file(tmp_path):
    with pytest.raises(DataNotFoundError, match="gone.h5: there is no such data file") as caught:
        container(tmp_path / "gone.h5")
    assert isinstance(caught.value, FileNotFoundError) and isinstance(caught.value, ValueError)


def test_folder(tmp_path):
    with pytest.raises(DataError, match="got a folder"):
        container(tmp_path)


def test_text_called_h5(tmp_path):
    (tmp_path / "notes.h5").write_text("q phi c2\n")
    with pytest.raises(DataError, match="begins with b'q phi c2'; expected HDF5, npz or npy"):
        container(tmp_path / "notes.h5")


@pytest.mark.parametrize("suffix", ["h5", "npz", "npy"])
def test_truncated(tmp_path, suffix):
    path = tmp_path / f"data.{suffix}"
    if suffix == "h5":
        with h5py.File(path, "w") as file:
            file["c2"] = np.ones((64, 64))
    else:
        (np.save if suffix == "npy" else np.savez)(path, np.ones((64, 64)))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="cannot be read") as caught:
        opened(path)
    assert str(path) in str(caught.value)


def test_damaged_compressed_block(tmp_path):
    path = tmp_path / "data.h5"
    noise = np.random.default_rng(0).normal(size=(64, 64))
    with h5py.File(path, "w") as file:
        node = file.create_dataset("c2", data=noise, compression="gzip", chunks=(64, 64))
        where = node.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[where : where + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        opened(path)


def test_pickled_objects_are_not_loaded(tmp_path):
    np.save(tmp_path / "data.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="without pickled objects"):
        opened(tmp_path / "data.npy")


def test_a_bin_says_what_it_is():
    assert str(Bin(0.01, 30.0, "c2", 4)) == "q = 0.01 1/Å, phi = 30 degree (c2[4])"
    assert str(Bin(None, None, "array")) == "q not given, phi not given (array)"


def test_a_device_is_not_read(tmp_path):
    with pytest.raises(DataError, match="expected a data file, got a device or pipe"):
        container(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"MATLAB 5.0 MAT-file", "MATLAB file before version 7.3.*save.*-v7.3"),
        (b"CDF\x01", "NetCDF 3.*NetCDF 4"),
        (b"\x1f\x8b\x08", "compressed by gzip.*unpack"),
    ],
)
def test_files_of_other_programs_are_named(tmp_path, head, words):
    (tmp_path / "a.mat").write_bytes(head + bytes(200))
    with pytest.raises(DataError, match=words):
        container(tmp_path / "a.mat")


def test_a_configuration_is_named(tmp_path):
    (tmp_path / "run.yaml").write_text("analysis_mode: static")
    with pytest.raises(DataError, match="this is a configuration.*`twotime validate`"):
        container(tmp_path / "run.yaml")


def test_a_huge_shape_is_not_read(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("c2", (2**20, 2**20), "f4", chunks=(64, 64))
    with pytest.raises(DataError, match="4.4e.03 GB, of which the file stores 0 bytes"):
        opened(path)


def test_an_npz_member_larger_than_its_file_is_not_read(tmp_path):
    path = tmp_path / "a.npz"
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (2**16, 2**16)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c2.npy", head.getvalue() + bytes(64))
    with pytest.raises(DataError, match="c2 of the npz file has the shape .*bytes, but the file"):
        opened(path)


def test_zeros_that_compress_too_well_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "_LARGE", 2**20)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive, archive.open("c2.npy", "w") as f:
        np.lib.format.write_array(f, np.zeros((3000, 3000)))
    with pytest.raises(DataError, match="0.072 GB, of which the file stores"):
        opened(path)


def test_an_array_twice_in_an_npz_file_is_refused(tmp_path):
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            with archive.open("c2.npy", "w") as stream:
                np.lib.format.write_array(stream, np.ones((2, 2)))
    with pytest.raises(DataError, match="holds an array twice"):
        opened(tmp_path / "a.npz")
