"""NXxpcs files."""

import h5py
import numpy as np
import pytest

from twotime.data import load_file
from twotime.data.inspect import inspect_file
from twotime.data.readers import open_source
from twotime.data.selection import Selection
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


def test_nxxpcs_numbered_matrices_may_be_fewer_than_the_regions(tmp_path):
    file = open_source(nxxpcs(tmp_path / "a.nxs", {"roi_2": np.ones((4, 4))}))
    assert np.allclose(axes(file), [(0.003, 20.0)])


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
        (np.ones((1, 4, 4)), {}, "1 matrices up to region 1 but a list of 2 entries.*layout"),
        (np.ones((4, 4)), {}, "but a list of 2 entries"),
        ({"average": np.ones((4, 4))}, {}, "holds average"),
        (np.ones((2, 4, 4)), {"baseline_reference": 2}, "baseline_reference .* is '2'; expected 0"),
    ],
)
def test_nxxpcs_that_cannot_be_read_is_refused(tmp_path, value, attributes, words):
    with pytest.raises(DataError, match=words):
        open_source(nxxpcs(tmp_path / "a.nxs", value, **attributes))


def changed(path, *, values=(), units=()):
    nxxpcs(path, np.triu(np.arange(1.0, 33.0).reshape(2, 4, 4)), baseline_reference=1.0)
    with h5py.File(path, "a") as file:
        for name, value in dict(values).items():
            if name in file:
                del file[name]
            file[name] = value
        for name, unit in dict(units).items():
            file[name].attrs["units"] = unit
    return path


PHI_LIST = "entry/instrument/masks/dynamic_phi_list"
Q_LIST = "entry/instrument/masks/dynamic_q_list"
FRAME_TIME = "entry/instrument/detector_1/frame_time"


def test_nxxpcs_angles_in_radians(tmp_path):
    path = changed(tmp_path / "a.nxs", values={PHI_LIST: [0, np.pi / 3]}, units={PHI_LIST: "rad"})
    assert [b.phi for b in open_source(path).bins] == pytest.approx([0.0, 60.0])


def test_angles_that_overflow_in_degrees_are_left_out(tmp_path):
    path = changed(tmp_path / "a.nxs", values={PHI_LIST: [1e308, 1.0]}, units={PHI_LIST: "rad"})
    file = open_source(path)
    assert axes(file) == [(pytest.approx(0.003), pytest.approx(57.29578))]
    assert "left out, as q or phi is no number" in file.notes[0]


def test_nxxpcs_angles_in_a_unit_of_q_are_degrees_with_a_note(tmp_path):
    file = open_source(changed(tmp_path / "a.nxs", units={PHI_LIST: "1/angstrom"}))
    assert [b.phi for b in file.bins] == [10.0, 20.0]
    assert "unit '1/angstrom', which is none of an angle" in file.notes[0]


@pytest.mark.parametrize(("unit", "dt"), [("ms", 1e-4), ("us", 1e-7), ("s", 0.1)])
def test_nxxpcs_frame_time_has_a_unit(tmp_path, unit, dt):
    path = changed(tmp_path / "a.nxs", units={FRAME_TIME: unit})
    assert open_source(path).dt == pytest.approx(dt)


def test_nxxpcs_takes_the_time_of_the_detector_not_of_a_monitor(tmp_path):
    other = "entry/instrument/a_monitor/frame_time"
    assert open_source(changed(tmp_path / "a.nxs", values={other: 7.0})).dt == 0.1


def test_nxxpcs_with_two_detectors_asks_for_dt(tmp_path):
    other = "entry/instrument/detector_2/frame_time"
    path = changed(tmp_path / "a.nxs", values={other: 7.0})
    assert open_source(path).dt is None
    with pytest.raises(DataError, match="0.1 s .*detector_1.*7 s .*detector_2.*analyzer_param"):
        load_file(path, Selection(q=0.002))
    assert load_file(path, Selection(q=0.002, dt=7.0))[1].dt == 7.0
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector_2"].attrs["NX_class"] = "NXdetector"
    assert open_source(path).dt == 7.0


@pytest.mark.parametrize("width", [2, 3])
def test_nxxpcs_q_list_of_tuples(tmp_path, width):
    pairs = np.array([[0.02, 10.0, 0], [0.03, 20.0, 0]])[:, :width]
    path = changed(tmp_path / "a.nxs", values={Q_LIST: pairs}, units={Q_LIST: "1/nm"})
    assert np.allclose(axes(open_source(path)), [(0.002, 10.0), (0.003, 20.0)])


def test_nxxpcs_entry_of_another_name(tmp_path):
    path = changed(tmp_path / "a.nxs")
    with h5py.File(path, "a") as file:
        file.move("entry", "scan_7")
    file = open_source(path)
    assert file.layout == "nxxpcs" and file.dt == 0.1 and len(file.bins) == 2


def test_nxxpcs_stored_from_below(tmp_path):
    c2 = np.triu(np.random.default_rng(3).normal(1.2, 0.1, (2, 6, 6)))
    above = nxxpcs(tmp_path / "a.nxs", c2)
    below = nxxpcs(tmp_path / "b.nxs", c2[:, ::-1], time_origin_location="lower_left")
    cut = Selection(q=0.002, start_frame=2, end_frame=5)
    for selection in (Selection(q=0.002), cut):
        first, second = (load_file(path, selection)[0] for path in (above, below))
        assert np.array_equal(first.c2, second.c2)
    assert str(inspect_file(below)).count("upper") == 2


def test_missing_regions_leave_the_others_readable(tmp_path):
    path = nxxpcs(tmp_path / "a.nxs", {"roi_1": np.ones((4, 4)), "roi_2": np.ones((4, 4))})
    with h5py.File(path, "a") as file:
        del file["entry/twotime/two_time_corr_func/roi_1"]
        file["entry/twotime/two_time_corr_func/roi_1"] = h5py.SoftLink("/no/where")
    assert load_file(path, Selection(q=0.003))[0].phi.tolist() == [20.0]
    with pytest.raises(DataError, match="roi_1 cannot be read: it is a link to /no/where"):
        load_file(path, Selection(q=0.002))
