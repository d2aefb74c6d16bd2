"""From a file and a selection to data: q, angles, frames, times."""

import json

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.data import load_file
from twotime.data.selection import PhiFilter, Selection
from twotime.errors import DataError
from twotime.models.correlation import correlation
from twotime.models.laminar_flow import LaminarFlow

N = 6
_NOISE = np.random.default_rng(1).normal(1.2, 0.1, (4, N, N))
C2 = np.triu(_NOISE) + np.swapaxes(np.triu(_NOISE, 1), 1, 2)
AXES = {"q": [0.01, 0.01, 0.01, 0.02], "phi": [0.0, 170.0, 210.0, 0.0]}


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "a.npz", c2=C2, dt=0.5, **AXES)
    return tmp_path / "a.npz"


def bare(tmp_path, count=1):
    np.save(tmp_path / "a.npy", C2[:count])
    return tmp_path / "a.npy"


def test_nearest_wavevector_and_all_its_angles(path):
    data, report = load_file(path, Selection(q=0.0102))
    assert data.q == 0.01
    assert data.phi.tolist() == [0.0, 170.0, 210.0]
    assert np.array_equal(data.c2, C2[:3])
    assert (report.n_angles, report.n_points, report.n_masked) == (3, 3 * 15, 0)
    assert "nearest to the selected 0.0102" in report.notes[0]
    assert load_file(path, Selection(q=0.01009))[1].notes == ()  # 1 % is not worth a word


def test_a_wavevector_that_is_not_there_lists_those_that_are(path):
    with pytest.raises(
        DataError, match=r"within 5.00% of q = 0.015 1/Å; the file holds 0.01, 0.02"
    ):
        load_file(path, Selection(q=0.015))
    data, _ = load_file(path, Selection(q=0.015, q_tolerance=0.5))
    assert data.q == 0.01


def test_phi_filter_of_the_selection(path):
    data, _ = load_file(path, Selection(q=0.01, phi=PhiFilter(ranges=((160.0, -140.0),))))
    assert data.phi.tolist() == [170.0, 210.0]
    with pytest.raises(DataError, match="keeps none of the angles .* 0, 170, 210 degree"):
        load_file(path, Selection(q=0.01, phi=PhiFilter(ranges=((20.0, 30.0),))))


def test_angles_that_are_named_must_be_there(path):
    data, _ = load_file(path, Selection(q=0.01, phi_angles=(-150.5, 0.0)))
    assert data.phi.tolist() == [0.0, 210.0]
    with pytest.raises(DataError, match="phi = 45 degree .* file holds 0, 170, 210 degree"):
        load_file(path, Selection(q=0.01, phi_angles=(0.0, 45.0)))


@pytest.mark.parametrize(
    ("frames", "t0", "first"),
    [((1, -1), None, 0.5), ((3, 5), None, 1.5), ((3, 5), 0.0, 0.0), ((1, 6), 7.25, 7.25)],
)
def test_times_count_from_the_acquisition_unless_t0_says_otherwise(path, frames, t0, first):
    start, end = frames
    data, report = load_file(path, Selection(q=0.01, start_frame=start, end_frame=end, t0=t0))
    last = N if end == -1 else end
    assert data.t == pytest.approx(first + 0.5 * np.arange(last - start + 1))
    assert np.array_equal(data.c2, C2[:3, start - 1 : last, start - 1 : last])
    assert report.frames == (start, last)


def test_times_listed_in_a_file_are_used_as_they_stand(tmp_path):
    times = np.array([0.0, 1.0, 3.0, 4.0, 5.0, 9.0])
    np.savez(tmp_path / "a.npz", c2=C2, t=times, **AXES)
    data, report = load_file(tmp_path / "a.npz", Selection(q=0.01, start_frame=2))
    assert data.t.tolist() == [1.0, 3.0, 4.0, 5.0, 9.0]
    assert report.dt is None
    data, _ = load_file(tmp_path / "a.npz", Selection(q=0.01, start_frame=2, t0=0.5))
    assert data.t.tolist() == [0.5, 2.5, 3.5, 4.5, 8.5]
    with pytest.raises(DataError, match="not equally spaced, dt = 1 s contradicts"):
        load_file(tmp_path / "a.npz", Selection(q=0.01, dt=1.0))
    data, _ = load_file(tmp_path / "a.npz", Selection(q=0.01, dt=1.0, dt_source="config"))
    assert data.t.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    data, _ = load_file(tmp_path / "a.npz", Selection(q=0.01, dt=1.0, dt_source="file"))
    assert data.t.tolist() == times.tolist()


def test_frames_before_the_first_shift_the_times(tmp_path):
    with h5py.File(tmp_path / "a.hdf", "w") as file:
        file["xpcs/qmap/dynamic_v_list_dim0"] = [0.01]
        file["xpcs/qmap/dynamic_v_list_dim1"] = [0.0]
        file["xpcs/twotime/config/begin_frame"] = 10
        file["xpcs/twotime/config/avg_frame"] = 2
        file["entry/instrument/detector_1/frame_time"] = 0.1
        file["xpcs/twotime/correlation_map/c2_00001"] = np.triu(C2[0])
    data, report = load_file(tmp_path / "a.hdf", Selection(q=0.01))
    assert data.t == pytest.approx(1.0 + 0.2 * np.arange(1, 7))
    assert "preceded by 5 frames" in report.notes[0]


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ((1, 7), "end_frame is 7 but the file has 6 frames"),
        ((0, 3), "frames 0 to 3"),
        ((4, 4), "frames 4 to 4"),
        ((5, 3), "frames 5 to 3"),
        ((1, -2), "frames 1 to -2"),
    ],
)
def test_frames_outside_the_file(path, frames, words):
    with pytest.raises(DataError, match=words):
        load_file(path, Selection(q=0.01, start_frame=frames[0], end_frame=frames[1]))


def test_a_contradicting_dt_is_refused_unless_told_who_wins(path):
    with pytest.raises(DataError, match=r"dt is 0.4 s in the configuration and 0.5 s in the file"):
        load_file(path, Selection(q=0.01, dt=0.4))
    data, report = load_file(path, Selection(q=0.01, dt=0.4, dt_source="config"))
    assert (data.t[0], report.dt) == pytest.approx((0.4, 0.4))
    assert "dt of the config is used" in report.notes[0]
    _, report = load_file(path, Selection(q=0.01, dt=0.4, dt_source="file"))
    assert report.dt == 0.5
    _, report = load_file(path, Selection(q=0.01, dt=0.5 * (1 + 1e-7)))
    assert report.notes == ()


@pytest.mark.parametrize("dt", [0.0, -0.1, float("nan"), float("inf")])
def test_dt_must_be_positive(path, dt):
    with pytest.raises(DataError, match="expected a positive time"):
        load_file(path, Selection(q=0.01, dt=dt))


def test_dt_must_come_from_somewhere(tmp_path):
    with pytest.raises(DataError, match="neither the file nor the configuration"):
        load_file(bare(tmp_path), Selection(q=1.0))


def test_a_bare_matrix_takes_its_axes_from_the_selection(tmp_path):
    data, report = load_file(bare(tmp_path), Selection(q=0.1, dt=2.0))
    assert (data.q, data.phi.tolist()) == (0.1, [0.0])
    assert data.t.tolist() == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert report.notes == ("the file does not give the angle of its matrix: phi = 0",)


def test_bare_matrices_need_their_angles(tmp_path):
    data, _ = load_file(bare(tmp_path, 2), Selection(q=1.0, dt=1.0, phi_angles=(10.0, 80.0)))
    assert data.phi.tolist() == [10.0, 80.0]
    with pytest.raises(
        DataError,
        match="angles of its 2 matrices and analyzer_parameters.scattering.phi_angles gives none",
    ):
        load_file(bare(tmp_path, 2), Selection(q=1.0, dt=1.0))


def test_a_large_q_is_noted(tmp_path):
    _, report = load_file(bare(tmp_path), Selection(q=2.1, dt=1.0, phi_angles=(0.0,)))
    assert report.notes == ("q = 2.1 is large for 1/Å: values in 1/nm must be divided by 10",)


def test_a_layout_that_is_named_must_be_the_file_s(path):
    _, report = load_file(path, Selection(q=0.01, layout="npz"))
    assert report.layout == "npz"
    with pytest.raises(DataError, match="layout is npz but experimental_data.file_format is aps-u"):
        load_file(path, Selection(q=0.01, layout="aps-u"))


def test_the_memory_limit_holds_before_reading(path):
    whole = np.load(path)["c2"].nbytes  # arrays in npz files are read as a whole
    load_file(path, Selection(q=0.01, memory_limit=3.0 * N**2 * 9 + whole))
    with pytest.raises(DataError, match="3 matrices of 6 frames take up to 2.12e-06 GB"):
        load_file(path, Selection(q=0.01, memory_limit=900.0))


def test_roi_axis(tmp_path):
    np.save(tmp_path / "a.npy", np.moveaxis(C2[:2], 0, -1))
    selection = Selection(q=1.0, dt=1.0, phi_angles=(1.0, 2.0), roi_axis="last")
    data, _ = load_file(tmp_path / "a.npy", selection)
    assert np.array_equal(data.c2, C2[:2])


def test_the_report_counts_what_was_left_out(tmp_path):
    c2 = np.triu(C2)
    c2[1] = -1
    c2[2, 0, 3] = np.nan
    np.savez(tmp_path / "a.npz", c2=c2, dt=0.5, **AXES)
    data, report = load_file(tmp_path / "a.npz", Selection(q=0.01))
    assert data.phi.tolist() == [0.0, 210.0]
    assert report.empty == ("q = 0.01 1/Å, phi = 170 degree (c2[1])",)
    assert (report.n_angles, report.n_points, report.n_masked) == (2, 29, 1)
    assert (report.layout, report.n_frames_in_file) == ("npz", N)
    assert len(report.sha256) == 64


def test_an_asymmetric_real_matrix_is_refused_until_told(shared):
    path = shared / "data" / "TTC_yolkplasma_q_0p022.npy"
    with pytest.raises(DataError, match="not symmetric"):
        load_file(path, Selection(q=0.0022, dt=1.0))
    data, _ = load_file(path, Selection(q=0.0022, dt=1.0, average_triangles=True))
    raw = np.load(path)
    assert np.array_equal(data.c2[0], 0.5 * (raw + raw.T))


NAMES = ("D0", "alpha", "D_offset", "gamma_dot_0", "beta", "gamma_dot_offset", "phi0")


@pytest.mark.parametrize(
    ("name", "counts"),
    [("laminar_boost_corr_results.hdf", (11, 12)), ("laminar_aps_old_layout.hdf", (5, 5))],
)
@pytest.mark.parametrize("k", [0, 1])
def test_known_truth_lies_on_the_model_and_not_on_that_of_other_angles(shared, name, counts, k):
    truth = json.loads((shared / "data" / "laminar_truth.json").read_text())
    data, report = load_file(shared / "data" / name, Selection(q=truth["q"][k], t0=0.0))
    assert data.c2.shape == (counts[k], 240, 240) and data.c2.dtype == np.float32
    assert (data.t[0], data.t[-1]) == pytest.approx((0.0, 239 * truth["dt"]))
    assert report.n_masked == 0 and report.empty == ()

    model = LaminarFlow(gap=truth["par"]["L"], integration="exact")
    params = jnp.asarray([truth["par"][entry] for entry in NAMES])

    def departure(phi):
        plane = correlation(model, params, t=jnp.asarray(data.t), q=truth["q"][k], phi=phi)
        residual = data.c2 - 1 - truth["contrast"] * np.asarray(plane)
        return np.sqrt(np.mean(residual[:, *np.triu_indices(240, 1)].mean(axis=1) ** 2))

    assert departure(jnp.asarray(data.phi)) < 0.02
    assert departure(jnp.roll(data.phi, 1)) > 0.05
