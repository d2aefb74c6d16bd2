"""Containers are told from their content, and damage is one sentence."""

import h5py
import numpy as np
import pytest

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
