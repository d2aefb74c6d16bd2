"""NXxpcs files."""

import h5py
import numpy as np
import pytest

from twotime.data.readers import open_source
from twotime.errors import DataError


def axes(file):
    return [(b.q, b.phi) for b in file.bins]


def nxxpcs(path, value, **attributes):
    with h5py.File(path, "w") as file:
        name = "entry/twotime/two_time_corr_func"
        if isinstance(value, dict):
            for key, matrix in value.items():
                file[f"{name}/{key}"] = matrix
        else:
            file[name] = value
        file[name].attrs.update(attributes)
        file["entry/instrument/detector_1/frame_time"] = 0.1
        file["entry/instrument/masks/dynamic_q_list"] = [0.02, 0.03]
        file["entry/instrument/masks/dynamic_q_list"].attrs["units"] = "1/nm"
        file["entry/instrument/masks/dynamic_phi_list"] = [10.0, 20.0]
    return path


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        (np.ones((2, 4, 4)), "one_array_q_first"),
        (np.ones((4, 4, 2)), "one_array_q_last"),
        ({"roi_1": np.ones((4, 4)), "roi_2": np.ones((4, 4))}, "data_exchange_keys"),
    ],
)
def test_nxxpcs_storage_modes(tmp_path, value, mode):
    file = open_source(nxxpcs(tmp_path / "a.nxs", value, storage_mode=mode, baseline_reference=1))
    assert file.layout == "nxxpcs"
    assert np.allclose(axes(file), [(0.002, 10.0), (0.003, 20.0)])
    assert file.n_frames == 4
    assert file.dt == 0.1
    assert file.notes == ()


@pytest.mark.parametrize("said", [0, 1.0, b"1", "0.0"])
def test_nxxpcs_says_its_baseline(tmp_path, said):
    file = open_source(nxxpcs(tmp_path / "a.nxs", np.ones((2, 4, 4)), baseline_reference=said))
    assert file.baseline == float(said)
    assert file.notes == ()


@pytest.mark.parametrize(
    ("value", "attributes", "words"),
    [
        (
            np.ones((2, 4, 4)),
            {"time_origin_location": "centre"},
            "centre.*upper_left or",
        ),
        (np.ones((3, 4, 4)), {"storage_mode": "one_array_q_first"}, "up to region 3"),
        ({"average": np.ones((4, 4))}, {}, "holds average"),
        (np.ones((2, 4, 4)), {"baseline_reference": 2}, "baseline_reference .* is '2'; expected 0"),
    ],
)
def test_nxxpcs_that_cannot_be_read_is_refused(tmp_path, value, attributes, words):
    with pytest.raises(DataError, match=words):
        open_source(nxxpcs(tmp_path / "a.nxs", value, **attributes))
