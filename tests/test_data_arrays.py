"""Plain arrays: npy, npz and HDF5 files with arrays at the root."""

import h5py
import numpy as np
import pytest

from twotime.data.containers import open_arrays
from twotime.data.readers import open_source
from twotime.data.source import Bin
from twotime.errors import DataError

C2 = np.ones((3, 5, 5))
AXES = {"q": 0.01, "phi": np.array([0.0, 45.0, 90.0])}


def save(path, **arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, value in arrays.items():
                file[name] = value
    return path


@pytest.fixture(params=["run.npz", "run.h5"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_named_arrays(path):
    file = open_source(save(path, c2=C2, t=0.1 * np.arange(1, 6), **AXES))
    assert file.layout == ("npz" if path.suffix == ".npz" else "hdf5")
    assert [(b.q, b.phi) for b in file.bins] == [(0.01, 0.0), (0.01, 45.0), (0.01, 90.0)]
    assert file.n_frames == 5
    assert file.dt == pytest.approx(0.1)
    assert file.times == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_only_c2(path):
    file = open_source(save(path, c2=C2[0]))
    assert file.bins == (Bin(None, None, "c2"),)
    assert file.dt is None and file.times is None


def test_one_wavevector_per_matrix(path):
    file = open_source(save(path, c2=C2, q=[0.01, 0.01, 0.02], phi=np.zeros(3), dt=0.5))
    assert [b.q for b in file.bins] == [0.01, 0.01, 0.02]
    assert file.dt == 0.5


def test_single_precision_times_are_still_equal_steps(path):
    times = (0.0125 * np.arange(1000)).astype(np.float32)
    file = open_source(save(path, c2=np.ones((1000, 1000), np.float32), t=times))
    assert file.dt == pytest.approx(0.0125, rel=1e-6)


def test_unequal_steps_have_no_dt(path):
    file = open_source(save(path, c2=C2, t=[0.0, 1.0, 2.0, 4.0, 8.0], **AXES))
    assert file.dt is None
    assert file.times == (0.0, 1.0, 2.0, 4.0, 8.0)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"g2": C2}, r"layout .* is not known, its root holds g2 \(3x5x5\)"),
        ({"c2": np.ones((3, 5, 4))}, "has shape"),
        ({"c2": np.ones(5)}, "has shape"),
        ({"c2": C2, "q": [0.1, 0.2]}, "q has 2 entries and c2 has 3"),
        ({"c2": C2, "phi": np.zeros(4)}, "phi has 4 entries and c2 has 3"),
        ({"c2": C2, "t": np.arange(4.0)}, "t has 4 entries and c2 has 5"),
        ({"c2": C2, "t": np.zeros(5)}, "do not increase"),
        ({"c2": C2, "t": np.arange(5.0), "dt": 2.0}, "leave one of them out"),
        ({"c2": C2, "mask": np.ones((5, 5))}, "mask has shape"),
        ({"c2": C2, "sigma": np.ones(3)}, "sigma has shape"),
        ({"c2": C2, "dt": [0.1, 0.2]}, "dt holds 2 numbers from 0.1 to 0.2; expected one"),
        ({"c2": C2, "q": 1 + 2j}, "q holds complex numbers"),
        ({"c2": C2, "phi": "text"}, "phi cannot be read: it holds no real numbers"),
        ({"c2": C2, "phi": np.full(3, np.nan)}, "no matrix has a q and an angle"),
        ({"c2": C2, "t": [0.0, 1.0, 2.0, 3.0, np.inf]}, "do not increase"),
    ],
)
def test_contradictions_are_named(tmp_path, arrays, words):
    with pytest.raises(DataError, match=words):
        open_source(save(tmp_path / "run.npz", **arrays))


def test_npy_has_nothing_but_c2(tmp_path):
    np.save(tmp_path / "c2.npy", C2)
    file = open_source(tmp_path / "c2.npy")
    assert file.layout == "npy"
    assert [b.position for b in file.bins] == [0, 1, 2]


def test_angle_last_has_to_be_said(tmp_path):
    np.save(tmp_path / "c2.npy", np.ones((5, 5, 3)))
    with pytest.raises(DataError, match="looks like \\(time, time, angle\\)"):
        open_source(tmp_path / "c2.npy")
    file = open_source(tmp_path / "c2.npy", angle_last=True)
    assert file.n_frames == 5
    np.save(tmp_path / "c2.npy", np.arange(75.0).reshape(5, 5, 3))
    with open_arrays(tmp_path / "c2.npy") as stored:
        found = file.bins[2].cut(stored, slice(0, 2), slice(0, 2))
    assert found.tolist() == [[2.0, 5.0], [17.0, 20.0]]
