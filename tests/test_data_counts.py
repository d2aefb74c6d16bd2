import json

import h5py
import numpy as np
import pytest

from twotime.data.readers.aps import read_counts
from twotime.errors import DataError


def test_the_known_file_says_its_pixels_and_photons(shared):
    truth = json.loads((shared / "data/laminar_truth.json").read_text())
    counts = read_counts(shared / "data/laminar_boost_corr_results.hdf")
    np.testing.assert_array_equal(counts.pixels, list(truth["npix"].values()))
    expected = [truth["nbar_photons_per_pixel_frame"][b // 12] for b in truth["natural_bins"]]
    np.testing.assert_allclose(counts.photons, expected, rtol=0.05)


def test_bins_follow_the_order_of_the_matrices_and_the_mask(tmp_path):
    path = tmp_path / "a.h5"
    regions = np.repeat([[0, 1, 2, 2]], 4, axis=0)
    mask = np.ones((4, 4), bool)
    mask[0] = False
    with h5py.File(path, "w") as f:
        f["xpcs/qmap/dynamic_roi_map"] = regions
        f["xpcs/qmap/mask"] = mask
        f["xpcs/temporal_mean/scattering_2d"] = regions[None] * 0.5
        f["xpcs/twotime/processed_bins"] = [2, 1]
    counts = read_counts(path)
    assert counts.pixels.tolist() == [6, 3]
    assert counts.photons.tolist() == [1.0, 0.5]


def test_a_file_without_them_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        f["c2"] = np.eye(3)
    with pytest.raises(DataError, match="dynamic_roi_map"):
        read_counts(path)
