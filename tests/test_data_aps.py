"""APS layouts: which matrix is which bin, with and without masked bins."""

import json

import h5py
import numpy as np
import pytest

from twotime.data import load_file
from twotime.data.readers import open_source
from twotime.data.readers.aps import read_counts
from twotime.data.selection import Selection
from twotime.errors import DataError

Q, PHI = [0.002, 0.003], [0.0, 30.0, 60.0]


def apsu(path, *, mapping=(0, 1, 3, 5), processed=(1, 3, 4), changes=(), removed=()):
    """Two wavevectors, three angles; bins 2 and 4 of the map have no pixels, bin 1 is skipped."""
    with h5py.File(path, "w") as file:
        values = {
            "xpcs/qmap/dynamic_v_list_dim0": Q,
            "xpcs/qmap/dynamic_v_list_dim1": PHI,
            "xpcs/qmap/dynamic_index_mapping": mapping,
            "xpcs/qmap/map_names": [b"q", b"phi"],
            "xpcs/qmap/map_units": ["Å⁻¹".encode(), b"deg"],
            "xpcs/twotime/processed_bins": processed,
            "xpcs/twotime/config/stride_frame": [[2]],
            "xpcs/twotime/config/avg_frame": [[3]],
            "xpcs/twotime/config/begin_frame": 12,
            "entry/instrument/detector_1/frame_time": [[0.5]],
        } | dict(changes)
        for name, value in values.items():
            if name not in removed:
                file[name] = value
        for k in range(3):
            matrix = np.triu(np.full((4, 4), k + 1, np.float32))
            name = f"xpcs/twotime/correlation_map/c2_{k + 1:05d}"
            file.create_dataset(name, data=matrix, compression="lzf")
    return path


def axes(file):
    return [(b.q, b.phi) for b in file.bins]


def test_apsu_follows_processed_bins_and_the_index_mapping(tmp_path):
    file = open_source(apsu(tmp_path / "a.hdf"))
    assert file.layout == "aps-u"
    assert axes(file) == [(0.002, 0.0), (0.003, 0.0), (0.003, 60.0)]
    assert [b.dataset[-8:] for b in file.bins] == ["c2_00001", "c2_00002", "c2_00003"]
    assert file.missing == 3
    assert file.n_frames == 4


def test_apsu_time_step_counts_stride_and_average(tmp_path):
    file = open_source(apsu(tmp_path / "a.hdf"))
    assert file.dt == pytest.approx(3.0)
    assert file.skipped == pytest.approx(2.0)


def test_apsu_without_mapping_or_processed_bins_is_the_identity(tmp_path):
    absent = ("xpcs/qmap/dynamic_index_mapping", "xpcs/twotime/processed_bins")
    file = open_source(apsu(tmp_path / "a.hdf", removed=absent))
    assert axes(file) == [(0.002, 0.0), (0.002, 30.0), (0.002, 60.0)]


def test_apsu_units_are_read(tmp_path):
    units = {"xpcs/qmap/map_units": [b"nm^-1", b"rad"]}
    file = open_source(apsu(tmp_path / "a.hdf", changes=units))
    assert file.bins[2].q == pytest.approx(0.0003)
    assert file.bins[2].phi == pytest.approx(np.rad2deg(60.0))


@pytest.mark.parametrize("unit", ["1/Å", "Å^{-1}", "A^-1", "angstrom^-1", "1/Angstrom", "Å⁻¹"])
def test_spellings_of_the_unit(tmp_path, unit):
    units = {"xpcs/qmap/map_units": [unit.encode(), b"deg"]}
    file = open_source(apsu(tmp_path / "a.hdf", changes=units))
    assert file.bins[2].q == 0.003 and file.notes == ()


def test_an_unknown_unit_is_noted(tmp_path):
    units = {"xpcs/qmap/map_units": [b"furlong", b"deg"]}
    file = open_source(apsu(tmp_path / "a.hdf", changes=units))
    assert file.bins[2].q == 0.003 and "'furlong'" in file.notes[0]


def test_apsu_without_angles(tmp_path):
    absent = ("xpcs/qmap/dynamic_v_list_dim1", "xpcs/qmap/dynamic_index_mapping")
    changes = {"xpcs/qmap/dynamic_v_list_dim0": [*Q, 0.004]}
    path = apsu(tmp_path / "a.hdf", removed=absent, processed=(1, 2, 3), changes=changes)
    file = open_source(path)
    assert axes(file) == [(0.002, 0.0), (0.003, 0.0), (0.004, 0.0)]
    assert "no angles" in file.notes[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"processed": (1, 2)}, "3 matrices but .* lists 2"),
        ({"processed": (1, 2, 7)}, "from 1 to 7 but .* has 4 entries"),
        ({"mapping": (0, 1, 3, 6)}, "points to bin 7; expected at most 6"),
        ({"changes": {"xpcs/qmap/map_names": [b"x", b"y"]}}, "ordered by x, y"),
        ({"changes": {"xpcs/qmap/map_units": [b"1/nm", b"gon"]}}, "unit 'gon'"),
        ({"changes": {"xpcs/twotime/correlation_map/c2_00009": np.ones((4, 5))}}, "4 matrices"),
        ({"changes": {"xpcs/twotime/config/stride_frame": 0}}, "stride_frame is 0; expected"),
        ({"processed": (1, 3, 3)}, "processed_bins lists a bin twice"),
        ({"mapping": (0, 1, 3, 3)}, "gives two bins the same place"),
        ({"mapping": (0, 1, -1, 5)}, "holds -1 for a bin with a matrix"),
        ({"processed": (1, 2.5, 4)}, "processed_bins holds other than whole numbers"),
        ({"processed": (1, 3, np.nan)}, "processed_bins holds other than whole numbers"),
    ],
)
def test_apsu_that_contradicts_itself_is_refused(tmp_path, given, words):
    with pytest.raises(DataError, match=words):
        open_source(apsu(tmp_path / "a.hdf", **given))


@pytest.mark.parametrize(("shape", "words"), [((4, 5), "square"), ((5, 5), "4 to 5 frames")])
def test_apsu_matrices_must_agree_in_size(tmp_path, shape, words):
    path = apsu(tmp_path / "a.hdf")
    with h5py.File(path, "a") as file:
        del file["xpcs/twotime/correlation_map/c2_00002"]
        file["xpcs/twotime/correlation_map/c2_00002"] = np.ones(shape)
    with pytest.raises(DataError, match=words):
        open_source(path)


def test_apsu_with_a_matrix_missing_shifts_no_angle(tmp_path):
    absent = ("xpcs/qmap/dynamic_index_mapping", "xpcs/twotime/processed_bins")
    for name, removed in (("a.hdf", absent), ("b.hdf", ())):
        path = apsu(tmp_path / name, removed=removed)
        with h5py.File(path, "a") as file:
            del file["xpcs/twotime/correlation_map/c2_00002"]
        if not removed:  # names 1 and 3 may be places in (1, 3, 4), or bins: it is not said
            with pytest.raises(DataError, match="holds 2 matrices but .* lists 3"):
                open_source(path)
            continue
        found = open_source(path)
        assert axes(found) == [(0.002, 0.0), (0.002, 60.0)]
        assert found.notes[0] == "there is no matrix of bins 2"
        assert "there is no xpcs/qmap/dynamic_index_mapping" in found.notes[1]


def test_apsu_names_that_are_bins(tmp_path):
    path = apsu(tmp_path / "a.hdf", processed=(1, 3, 4))
    with h5py.File(path, "a") as file:
        maps = file["xpcs/twotime/correlation_map"]
        maps.move("c2_00003", "c2_00004")
        maps.move("c2_00002", "c2_00003")
    found = open_source(path)
    assert axes(found) == [(0.002, 0.0), (0.003, 0.0), (0.003, 60.0)]
    assert "names of the matrices are bins" in found.notes[0]


@pytest.mark.parametrize(("unit", "scale"), [("ms", 1e-3), ("us", 1e-6), ("s", 1.0), ("min", 60.0)])
def test_apsu_frame_time_has_a_unit(tmp_path, unit, scale):
    path = apsu(tmp_path / "a.hdf")
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector_1/frame_time"].attrs["units"] = unit
    assert open_source(path).dt == pytest.approx(3.0 * scale)


def test_a_frame_time_of_unknown_unit_is_refused(tmp_path):
    path = apsu(tmp_path / "a.hdf")
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector_1/frame_time"].attrs["units"] = "Ms"
    with pytest.raises(DataError, match="frame_time has the unit 'Ms'; expected s, ms"):
        open_source(path)


def test_apsu_entry_of_another_name(tmp_path):
    path = apsu(tmp_path / "a.hdf")
    with h5py.File(path, "a") as file:
        file.move("entry", "scan_12")
    assert open_source(path).dt == pytest.approx(3.0)


def test_apsu_begin_frame_from_the_end_asks_for_t0(tmp_path):
    path = apsu(tmp_path / "a.hdf", changes={"xpcs/twotime/config/begin_frame": -24})
    file = open_source(path)
    assert file.skipped is None and "counted from the end" in file.notes[0]
    with pytest.raises(DataError, match="set analyzer_parameters.t0"):
        load_file(path, Selection(q=0.002))
    assert load_file(path, Selection(q=0.002, t0=7.0))[0].t[0] == 7.0


def test_apsu_bin_at_an_angle_of_nan_is_left_out_with_a_note(tmp_path):
    angles = {"xpcs/qmap/dynamic_v_list_dim1": [0.0, 30.0, np.nan]}
    file = open_source(apsu(tmp_path / "a.hdf", changes=angles))
    assert axes(file) == [(0.002, 0.0), (0.003, 0.0)]
    assert "left out, as q or phi is no number: q = 0.003" in file.notes[0]
    assert "c2_00003" in file.notes[0]


def test_an_angle_that_cannot_be_is_left_out(tmp_path):
    angles = {"xpcs/qmap/dynamic_v_list_dim1": [0.0, 30.0, 1e8]}
    assert len(open_source(apsu(tmp_path / "a.hdf", changes=angles)).bins) == 2


def test_apsu_first_q_of_nan_does_not_hide_the_others(tmp_path):
    lists = {"xpcs/qmap/dynamic_v_list_dim0": [np.nan, 0.003]}
    path = apsu(tmp_path / "a.hdf", changes=lists)
    assert axes(open_source(path)) == [(0.003, 0.0), (0.003, 60.0)]
    assert load_file(path, Selection(q=0.003))[1].q == 0.003


def test_angles_given_twice_are_told(tmp_path):
    angles = {"xpcs/qmap/dynamic_v_list_dim1": [0.0, 30.0, 360.0]}
    file = open_source(apsu(tmp_path / "a.hdf", changes=angles))
    assert "several matrices have q = 0.003 1/Å and phi = 0 degree" in file.notes[0]


def test_a_link_to_nothing_leaves_other_bins_readable(tmp_path):
    path = apsu(tmp_path / "a.hdf")
    with h5py.File(path, "a") as file:
        maps = file["xpcs/twotime/correlation_map"]
        del maps["c2_00001"]
        maps["c2_00001"] = h5py.ExternalLink("gone.h5", "/deep")
    assert "it is a link to /deep in gone.h5" in open_source(path).notes[0]
    assert load_file(path, Selection(q=0.003))[0].phi.tolist() == [0.0, 60.0]
    with pytest.raises(DataError, match=f"{path}: .*c2_00001 cannot be read: it is a link"):
        load_file(path, Selection(q=0.002))


def test_a_virtual_matrix_whose_parts_are_gone_is_no_empty_bin(tmp_path):
    path = apsu(tmp_path / "a.hdf")
    with h5py.File(path, "a") as file:
        maps = file["xpcs/twotime/correlation_map"]
        del maps["c2_00001"]
        layout = h5py.VirtualLayout((4, 4), "f4")
        layout[:] = h5py.VirtualSource("part.h5", "c2", (4, 4))
        maps.create_virtual_dataset("c2_00001", layout)
    with pytest.raises(DataError, match="parts in other files, of which part.h5 cannot be found"):
        load_file(path, Selection(q=0.002))
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["c2"] = np.triu(np.ones((4, 4)))
    assert load_file(path, Selection(q=0.002))[0].phi.tolist() == [0.0]


def old(path, numbers=(2, 5), *, group="xpcs", output="exchange", listed=None, named=None):
    with h5py.File(path, "a") as file:
        file[f"{group}/dqlist"] = [np.repeat(Q, 3)]
        file[f"{group}/dphilist"] = [np.tile(PHI, 2)]
        file[f"{group}/stride_frames"] = [[1]]
        file[f"{group}/avg_frames"] = [[2]]
        if listed is not None:
            file[f"{group}/qphi_bin_to_process"] = np.reshape(listed, (-1, 1))
        if named is not None:
            file[f"{group}/output_data"] = named
        for number in numbers:
            file[f"{output}/C2T_all/g2_{number:05d}"] = np.triu(np.full((4, 4), float(number)))
        file.require_group("measurement/instrument/detector")
        clock = "measurement/instrument/detector/exposure_period"
        if clock not in file:
            file[clock] = [[0.25]]
    return path


def test_old_layout_takes_the_bin_from_the_name(tmp_path):
    file = open_source(old(tmp_path / "a.hdf"))
    assert file.layout == "aps-old"
    assert axes(file) == [(0.002, 30.0), (0.003, 30.0)]
    assert file.dt == pytest.approx(0.5)
    assert file.missing == 4


def test_old_layout_output_data_names_the_exchange_group(tmp_path):
    path = old(tmp_path / "a.hdf", (6,), group="xpcs_2", output="exchange_7", named=b"/exchange_7")
    assert axes(open_source(path)) == [(0.003, 60.0)]


def test_old_layout_with_several_analyses_says_which_was_read(tmp_path):
    path = old(tmp_path / "a.hdf", (1,), group="xpcs", named="/exchange")
    old(path, (2,), group="xpcs_1", output="exchange_1")
    file = open_source(path)
    assert axes(file) == [(0.002, 0.0)]
    assert "xpcs_1" in file.notes[0]


def test_old_layout_names_that_count_the_processed_bins(tmp_path):
    file = open_source(old(tmp_path / "a.hdf", (1, 2), listed=(2, 5)))
    assert axes(file) == [(0.002, 30.0), (0.003, 30.0)]
    assert "count the bins" in file.notes[0]


def test_old_layout_that_contradicts_itself_is_refused(tmp_path):
    with pytest.raises(DataError, match="numbered 3 to 4 .*lists 3 other bins"):
        open_source(old(tmp_path / "a.hdf", (3, 4), listed=(1, 2, 5)))
    with pytest.raises(DataError, match="go up to bin 9"):
        open_source(old(tmp_path / "b.hdf", (9,)))


@pytest.fixture
def matlab(tmp_path):
    """Bin 3 of the map has no pixels: its entries are NaN, and labels count the others."""
    path = old(tmp_path / "a.hdf", (1, 2, 3, 4, 5), listed=(1, 2, 3, 4, 5))
    with h5py.File(path, "a") as file:
        for name in ("dqlist", "dphilist"):
            values = file[f"xpcs/{name}"][()]
            values[0, 2] = np.nan
            file[f"xpcs/{name}"][...] = values
    return path


def test_old_map_of_matlab_takes_the_kth_entry_that_is_a_number(matlab):
    file = open_source(matlab)
    rest = [(0.003, phi) for phi in PHI]
    assert axes(file) == [(0.002, 0.0), (0.002, 30.0), *rest]
    assert "bin k is their k-th number" in file.notes[0]


def test_old_matrix_at_nan_is_an_error(matlab):
    with h5py.File(matlab, "a") as file:
        del file["xpcs/qphi_bin_to_process"]
        file["exchange/C2T_all/g2_00006"] = np.triu(np.ones((4, 4)))
    with pytest.raises(DataError, match="hold 5 bins with numbers but matrices go up to bin 6"):
        open_source(matlab)


def test_old_layout_frames_before_the_first(tmp_path):
    path = old(tmp_path / "a.hdf", (2,))
    with h5py.File(path, "a") as file:
        file["xpcs/data_begin_todo"] = [[101]]
    assert open_source(path).skipped == 50.0
    assert load_file(path, Selection(q=0.002))[0].t[0] == pytest.approx(51 * 0.5)


def test_old_exposure_period_of_zero_leaves_dt_to_the_configuration(tmp_path):
    path = old(tmp_path / "a.hdf", (2,))
    with h5py.File(path, "a") as file:
        file["measurement/instrument/detector/exposure_period"][...] = 0
    with pytest.raises(DataError, match="dt from the file is 0 s.*dt_source: config"):
        load_file(path, Selection(q=0.002))
    given = Selection(q=0.002, dt=0.5, dt_source="config")
    assert load_file(path, given)[1].dt == 0.5


def test_known_truth_bins(shared):
    file = open_source(shared / "data" / "laminar_boost_corr_results.hdf")
    first, second = sorted({b.q for b in file.bins})
    rest = [0, 30, 60, 90, 120, 150, 210, 240, 270, 300, 330]
    assert [b.phi for b in file.bins if b.q == first] == rest
    assert [b.phi for b in file.bins if b.q == second] == [*rest[:6], 180, *rest[6:]]
    assert (first, second) == pytest.approx((0.002144980658731057, 0.0034082290706818714))
    assert (file.n_frames, file.dt, file.skipped, file.missing) == (240, 0.0125, 0.0, 1)


def test_known_truth_in_the_old_layout(shared):
    new = open_source(shared / "data" / "laminar_boost_corr_results.hdf")
    old_file = open_source(shared / "data" / "laminar_aps_old_layout.hdf")
    by_number = {b.dataset[-5:]: (b.q, b.phi) for b in new.bins}
    assert len(old_file.bins) == 10
    assert all(by_number[b.dataset[-5:]] == (b.q, b.phi) for b in old_file.bins)
    assert (old_file.dt, old_file.missing) == (0.0125, 13)


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


def test_relative_intensities_are_no_photons(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        f["xpcs/qmap/dynamic_roi_map"] = np.ones((2, 2))
        f["xpcs/temporal_mean/scattering_2d"] = np.ones((1, 2, 2))
        f["xpcs/temporal_mean/scattering_2d"].attrs["units"] = "relative"
    with pytest.raises(DataError, match="relative units, as in simulated files"):
        read_counts(path)


def test_a_file_without_them_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        f["c2"] = np.eye(3)
    with pytest.raises(DataError, match="dynamic_roi_map"):
        read_counts(path)
