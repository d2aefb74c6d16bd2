"""Recognising layouts, and the summary of `inspect_file`."""

import h5py
import numpy as np
import pytest

from twotime.data.inspect import inspect_file
from twotime.data.readers import open_source
from twotime.errors import DataError, DataNotFoundError


def test_summary_of_arrays(tmp_path):
    c2 = np.triu(np.random.default_rng(0).normal(1, 0.1, (4, 9, 9)))
    c2[1], c2[3] = -1.0, np.nan
    np.savez(tmp_path / "a.npz", c2=c2, q=[0.01, 0.01, 0.01, 0.02], phi=[0, 45, 90, 0], dt=0.5)
    summary = inspect_file(tmp_path / "a.npz")
    assert summary.q == (0.01, 0.02)
    assert summary.phi(0.01) == (0.0, 45.0, 90.0)
    assert [(b.q, b.phi) for b in summary.empty] == [(0.01, 45.0), (0.02, 0.0)]
    text = str(summary)
    assert "layout  npz" in text and "frames  9" in text and "dt      0.5 s" in text
    assert "bins    4 with a matrix, 0 masked or not processed, 2 empty" in text
    assert "q       0.01 1/Å, phi 0 45 90 degree" in text


def test_summary_of_a_bare_matrix(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 4)))
    text = str(inspect_file(tmp_path / "a.npy"))
    assert "dt      not in the file" in text
    assert "give q, phi and dt in the configuration" in text


def test_lower_halves_are_not_taken_for_empty(tmp_path):
    np.save(tmp_path / "a.npy", np.tril(np.full((8, 8), 1.2)))
    assert inspect_file(tmp_path / "a.npy").empty == ()


def test_angle_last(tmp_path):
    c2 = np.full((5, 5, 2), 1.2)
    c2[..., 1] = 0
    np.save(tmp_path / "a.npy", c2)
    assert [b.position for b in inspect_file(tmp_path / "a.npy", angle_last=True).empty] == [1]


def test_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(DataNotFoundError, match="no such data file"):
        inspect_file(tmp_path / "a.npy")


def test_empty_files_links_to_nothing_and_single_frames_are_told(tmp_path):
    (tmp_path / "a.h5").touch()
    with pytest.raises(DataError, match="a.h5: this file is empty"):
        inspect_file(tmp_path / "a.h5")
    (tmp_path / "b.h5").symlink_to("gone.h5")
    with pytest.raises(DataNotFoundError, match="b.h5: this is a link to gone.h5, which does not"):
        inspect_file(tmp_path / "b.h5")
    np.save(tmp_path / "a.npy", np.ones((3, 1, 1)))
    with pytest.raises(DataError, match="matrices have 1 frame; expected at least 2"):
        inspect_file(tmp_path / "a.npy")


def test_known_truth(shared):
    text = str(inspect_file(shared / "data" / "laminar_boost_corr_results.hdf"))
    assert "bins    23 with a matrix, 1 masked or not processed, 0 empty" in text
    assert "q       0.00214498 1/Å, phi 0 30 60 90 120 150 210 240 270 300 330 degree" in text


def test_esrf_results_without_ages_and_lags_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry_0000/correlations/full/twotime/ttcf"] = np.ones((1, 4, 3))
    with pytest.raises(DataError, match="shape .1, 4, 3. and no ages and lags"):
        open_source(tmp_path / "a.h5")


def test_unknown_layout_lists_the_root(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.ones(3)
    with pytest.raises(DataError, match=r"root holds images \(3\); expected APS-U"):
        open_source(tmp_path / "a.h5")
