"""Layouts of other programs, and arrays that a configuration names, give the same data."""

import h5py
import numpy as np
import pytest

from twotime.config.manager import ConfigManager
from twotime.data import load_file, load_with_report
from twotime.data.containers import open_arrays
from twotime.data.inspect import inspect_file
from twotime.data.readers import open_source
from twotime.data.selection import Selection
from twotime.data.source import Cells
from twotime.errors import ConfigurationError, DataError, DataNotFoundError

N, DT, PHI = 8, 0.5, (0.0, 40.0, 80.0)
_HALF = np.triu(np.random.default_rng(9).normal(1.2, 0.1, (3, N, N)), 1)
C2 = _HALF + np.swapaxes(_HALF, 1, 2) + np.eye(N)
T = DT * np.arange(N)
WANTED = Selection(q=0.01, t0=DT)


def write(path, values, attributes=()):
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            file[name] = value
        for (node, name), value in dict(attributes).items():
            file[node].attrs[name] = value
    return path


def same(path, selection=WANTED, *, masked=False):
    data, report = load_file(path, selection)
    off = ~np.eye(N, dtype=bool)
    used = data.mask[:, off] if masked else np.ones(1, bool)
    assert np.array_equal(np.where(used, data.c2[:, off], 0), np.where(used, C2[:, off], 0))
    assert data.phi.tolist() == list(PHI)
    assert data.t == pytest.approx(DT * np.arange(1, N + 1))
    return data, report


ROOT = "entry_0000/correlations/sectors"


def on_age_and_lag():
    """C2 where (t1 + t2) / 2 and t2 - t1 are whole and half frames."""
    first, lag = np.indices((N, N))
    inside = first + lag < N
    values = np.full((3, 2 * N - 1, N), np.nan)
    values[:, (2 * first + lag)[inside], lag[inside]] = C2[:, first[inside], (first + lag)[inside]]
    return values


def esrf(path, values, axes, unit="s"):
    tree = {f"{ROOT}/twotime/{name}": axis for name, axis in axes.items()}
    tree |= {f"{ROOT}/twotime/ttcf": values}
    tree |= {f"{ROOT}/parameters/q": [0.1] * 3, f"{ROOT}/parameters/phi": PHI}
    attributes = {(f"{ROOT}/parameters/q", "units"): "nm^-1"}
    attributes |= {(f"{ROOT}/twotime/{name}", "units"): unit for name in axes}
    return write(path, tree, attributes)


def test_esrf_on_age_and_lag(tmp_path):
    axes = {"age": DT * np.arange(2 * N - 1) / 2, "lag": DT * np.arange(N)}
    data, report = same(esrf(tmp_path / "a.h5", on_age_and_lag(), axes))
    assert report.layout == "esrf" and report.dt == DT and report.n_frames_in_file == N
    assert "model is evaluated in their middle" in report.notes[0]


def test_esrf_in_frames_takes_dt_from_the_configuration(tmp_path):
    axes = {"age": np.arange(2 * N - 1) / 2, "lag": np.arange(N)}
    path = esrf(tmp_path / "a.h5", on_age_and_lag(), axes, unit="frames")
    with pytest.raises(DataError, match="neither the file nor the configuration gives the time"):
        load_file(path, WANTED)
    same(path, Selection(q=0.01, dt=DT))


def test_esrf_on_two_times(tmp_path):
    same(esrf(tmp_path / "a.h5", C2, {"t1": T, "t2": T}))


def test_esrf_ring_without_angles(tmp_path):
    path = esrf(tmp_path / "a.h5", C2, {"t1": T, "t2": T})
    with h5py.File(path, "a") as file:
        del file[f"{ROOT}/parameters/phi"]
        file[f"{ROOT}/parameters/q"][...] = [0.1, 0.2, 0.3]
        del file[f"{ROOT}/parameters/q"].attrs["units"]
    file = open_source(path)
    assert [(b.q, b.phi) for b in file.bins] == [(0.1, 0.0), (0.2, 0.0), (0.3, 0.0)]
    assert "unit of q: 1/Å assumed" in " ".join(file.notes) and "phi = 0" in file.notes[-1]


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"age": T, "lag": T}, r"shape \(3, 15, 8\) but there are 8 ages and 8 lags"),
        ({"age": np.zeros(15), "lag": T}, "the age of .* does not rise"),
        ({"age": T[-1] + np.arange(15.0), "lag": T - 1}, "ages and lags of .* are no frames"),
    ],
)
def test_esrf_axes_that_cannot_be_are_refused(tmp_path, axes, words):
    with pytest.raises(DataError, match=words):
        open_source(esrf(tmp_path / "a.h5", on_age_and_lag(), axes))


def test_esrf_without_two_time_results(tmp_path):
    path = write(tmp_path / "a.h5", {f"{ROOT}/g2/cf": np.ones(3)})
    with pytest.raises(DataError, match="holds sectors without a twotime/ttcf"):
        open_source(path)


def test_cells_between_frames_go_to_the_nearest_pair():
    """Middles of bins [k, k + 1) of age and lag, as correlators with linear bins give them."""
    first, second = np.triu_indices(N)
    age, lag = (first + second) // 2, second - first
    values = np.full((N, N), np.nan)
    values[age, lag] = C2[0][first, second]
    middle = tuple((np.arange(N) + 0.5).tolist())
    matrix = Cells(middle, middle, N).matrix(values)
    assert np.array_equal(matrix[first, second], C2[0][first, second])


def test_pychx(tmp_path):
    attributes = {("qval_dict", str(k)): (0.01, phi) for k, phi in enumerate(PHI)}
    tree = {"g12b": np.moveaxis(C2, 0, 2), "tausb": T, "qval_dict": [1], "md": [1]}
    data, report = same(write(tmp_path / "a.h5", tree, attributes))
    assert report.layout == "pychx"
    del tree["tausb"]
    attributes[("md", "frame_time")] = DT
    same(write(tmp_path / "b.h5", tree, attributes))


def test_pychx_rings_without_angles(tmp_path):
    attributes = {("qval_dict", str(k)): [0.01 * (k + 1)] for k in range(3)}
    tree = {"g12b": np.moveaxis(C2, 0, 2), "tausb": T, "qval_dict": [1]}
    file = open_source(write(tmp_path / "a.h5", tree, attributes))
    assert [(b.q, b.phi) for b in file.bins] == [(0.01, 0.0), (0.02, 0.0), (0.03, 0.0)]
    np.savez(tmp_path / "a.npz", g12b=np.moveaxis(C2, 0, 2))
    given = Selection(q=0.01, dt=DT, phi_angles=PHI)
    same(tmp_path / "a.npz", given)


def test_pychx_with_more_regions_than_matrices_is_refused(tmp_path):
    attributes = {("qval_dict", str(k)): (0.01, 10.0 * k) for k in range(4)}
    tree = {"g12b": np.moveaxis(C2, 0, 2), "tausb": T, "qval_dict": [1]}
    with pytest.raises(DataError, match="qval_dict has more regions than g12b, which has 3"):
        open_source(write(tmp_path / "a.h5", tree, attributes))


@pytest.mark.parametrize("grid", [False, True])
def test_cache_of_homodyne_and_xpcsjax(tmp_path, grid):
    t1, t2 = np.meshgrid(T, T, indexing="ij") if grid else (T, T)
    np.savez(tmp_path / "a.npz", wavevector_q_list=[0.01] * 3, phi_angles_list=PHI,
             t1=t1, t2=t2, c2_exp=C2)  # fmt: skip
    data, report = same(tmp_path / "a.npz")
    assert report.layout == "cache" and report.dt == DT


def test_netcdf_of_xarray_tells_its_axes(tmp_path):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["c2"] = np.moveaxis(C2, 0, 2)
        for k, (name, values) in enumerate((("t1", T), ("t2", T), ("phi", PHI))):
            file[name] = values
            file[name].make_scale(name)
            file["c2"].dims[k].attach_scale(file[name])
        file["q"] = 0.01
    same(tmp_path / "a.nc")
    with h5py.File(tmp_path / "a.nc", "a") as file:
        file["t1"][...] = 1e9 * T
        file["t1"].attrs["units"] = "nanoseconds"
    same(tmp_path / "a.nc")
    with h5py.File(tmp_path / "a.nc", "a") as file:
        file["phi"].attrs["scale_factor"] = 0.1
    with pytest.raises(DataError, match="phi is packed .*drop_encoding"):
        load_file(tmp_path / "a.nc", WANTED)


def test_matlab_stores_columns_first(tmp_path):
    """A variable c2 of (time, time, angle) in MATLAB 7.3, upper halves, with its user block."""
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        stored = np.triu(C2)
        file["c2"] = np.moveaxis(stored, 0, 2).T
        file["q"], file["phi"], file["dt"] = [[0.01]], np.array(PHI)[:, None], [[DT]]
    with (tmp_path / "a.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    same(tmp_path / "a.mat")


NAMED = {"c2": "results/corr", "q": "axes/q", "phi": "axes/phi", "dt": "axes/dt"}


def configured(folder, **data):
    return ConfigManager.from_dict(
        {
            "analysis_mode": "static",
            "experimental_data": {"file_path": "a.h5", **data},
            "analyzer_parameters": {"scattering": {"wavevector_q": 0.01}, "t0": DT},
        },
        base_dir=folder,
    )


@pytest.mark.parametrize("axes", ["bin, t1, t2", "t1, t2, bin", "group"])
def test_any_hdf5_by_the_names_of_its_arrays(tmp_path, axes):
    stored = np.moveaxis(C2, 0, 2) if axes == "t1, t2, bin" else C2
    arrays = {"axes/q": 0.1, "axes/phi": np.deg2rad(PHI), "axes/dt": 1e3 * DT}
    if axes == "group":
        arrays |= {f"results/corr/m{k}": matrix for k, matrix in enumerate(C2)}
    else:
        arrays["results/corr"] = stored
    units = {("axes/q", "units"): "1/nm", ("axes/phi", "units"): "rad", ("axes/dt", "units"): "ms"}
    write(tmp_path / "a.h5", arrays, units)
    layout = NAMED | ({} if axes == "group" else {"axes": axes})
    data, report = load_with_report(configured(tmp_path, layout=layout))
    assert np.array_equal(data.c2, np.where(np.eye(N, dtype=bool), data.c2, C2))
    assert data.phi == pytest.approx(PHI) and report.dt == pytest.approx(DT)


def test_a_name_that_is_not_in_the_file_is_told(tmp_path):
    write(tmp_path / "a.h5", {"results/other": C2})
    with pytest.raises(DataError, match="there is no results/corr, axes/q.* holds results"):
        load_with_report(configured(tmp_path, layout=NAMED))
    write(tmp_path / "a.h5", {"results/corr": C2, "axes/q": 0.01, "axes/phi": PHI})
    with pytest.raises(DataError, match="there is no axes/dt in the file"):
        load_with_report(configured(tmp_path, layout=NAMED))
    with pytest.raises(ConfigurationError, match="layout.*c2"):
        configured(tmp_path, layout={"q": "axes/q"})
    with pytest.raises(ConfigurationError, match="expected one of 'bin, t1, t2', 't1, t2, bin';"):
        configured(tmp_path, layout=NAMED | {"axes": "phi, t1, t2"})


@pytest.mark.parametrize("kind", ["frames", "points", "hdf5"])
def test_a_mask_file_masks_what_it_says(tmp_path, kind):
    arrays = {"c2": C2, "q": 0.01, "phi": PHI, "dt": DT}
    write(tmp_path / "a.h5", arrays)
    if kind == "points":
        counts = np.ones((N, N))
        counts[2, 5] = 0
        np.save(tmp_path / "m.npy", counts)
    elif kind == "frames":
        np.save(tmp_path / "m.npy", np.arange(N) != 2)
    else:
        write(tmp_path / "m.npy", {"mask": np.arange(N) != 2})
    data, report = load_with_report(configured(tmp_path, mask_file="m.npy"))
    gone = ~data.mask[1] & ~np.eye(N, dtype=bool)
    expected = np.zeros((N, N), bool)
    if kind == "points":
        expected[2, 5] = expected[5, 2] = True
    else:
        expected[2] = expected[:, 2] = True
        expected[2, 2] = False
    assert np.array_equal(gone, expected)
    assert report.n_masked == 3 * expected.sum() // 2


def test_a_mask_file_that_is_not_there_is_told_with_its_key(tmp_path):
    write(tmp_path / "a.h5", {"c2": C2, "q": 0.01, "phi": PHI, "dt": DT})
    for cache in ({}, {"cache_file_path": "kept"}):
        with pytest.raises(DataNotFoundError, match="m.npy: there is no such .*data.mask_file"):
            load_with_report(configured(tmp_path, mask_file="m.npy", **cache))


def test_bad_frames_leave_something(tmp_path):
    path = write(tmp_path / "a.h5", {"c2": C2, "q": 0.01, "phi": PHI, "dt": DT})
    with pytest.raises(DataError, match="a.h5: analyzer_parameters.bad_frames leaves no point"):
        load_file(path, Selection(q=0.01, bad_frames=tuple(range(2, N + 1))))


@pytest.mark.parametrize(
    ("mask", "words"),
    [(np.ones(N + 1), r"mask has shape \(9,\); expected \(8,\)"), (np.zeros(N), "leaves no point")],
)
def test_a_mask_that_does_not_fit_is_refused(tmp_path, mask, words):
    write(tmp_path / "a.h5", {"c2": C2, "q": 0.01, "phi": PHI, "dt": DT})
    np.save(tmp_path / "m.npy", mask)
    with pytest.raises(DataError, match=f"m.npy: .*{words}"):
        load_with_report(configured(tmp_path, mask_file="m.npy"))


def test_paths_may_name_home_and_variables(tmp_path, monkeypatch):
    write(tmp_path / "a.h5", {"c2": C2, "q": 0.01, "phi": PHI, "dt": DT})
    monkeypatch.setenv("BEAMTIME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("$BEAMTIME/a.h5", "${BEAMTIME}/a.h5", "~/a.h5"):
        asked = configured(tmp_path / "elsewhere", file_path=name)
        assert asked.data_file_path == tmp_path / "a.h5"
    asked = configured(tmp_path, data_folder_path="~", cache_file_path="$BEAMTIME/kept")
    assert asked.data_file_path == tmp_path / "a.h5"
    assert asked.cache_file_path == tmp_path / "kept"
    assert configured(tmp_path, file_path="$NO_SUCH/a.h5").data_file_path.parent.name == "$NO_SUCH"


def test_inspect_tells_what_each_matrix_is_like(tmp_path):
    c2 = np.full((5, 40, 40), 1.1)
    lag = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    c2[:] = 1 + 0.2 * np.exp(-0.3 * lag)
    c2[1, 0, 1:5] = np.nan
    c2[1] = np.triu(c2[1])
    c2[2] = np.tril(c2[2])
    c2[2, 5:15, 0] = 0
    c2[3, 3, 9] = 2.0
    c2[4] = -1
    write(tmp_path / "a.h5", {"c2": c2, "q": 0.01, "phi": [0, 1, 2, 3, 4], "dt": DT})
    summary = inspect_file(tmp_path / "a.h5")
    assert [b.stored for b in summary.bins[:4]] == ["symmetric", "upper", "lower", "not symmetric"]
    assert summary.bins[0].level == pytest.approx(1.0, abs=1e-3)
    assert summary.bins[0].contrast == pytest.approx(0.2 * np.exp(-0.3), abs=1e-3)
    assert summary.bins[1].not_finite == pytest.approx(4 / 780)
    assert summary.bins[2].zeros == pytest.approx(10 / 780)
    assert [b.phi for b in summary.empty] == [4.0]
    text = str(summary)
    assert "1.000 at long lags" in text.replace("1 at long", "1.000 at long")
    assert "1.28% zeros" in text and "not symmetric" in text


def test_matrices_of_a_group_have_each_a_number(tmp_path):
    path = write(tmp_path / "a.h5", {f"c2/{name}": C2[0] for name in ("c2_1", "g2_1")})
    with pytest.raises(DataError, match="c2 is a group; expected matrices, each with a number"):
        open_source(path)


@pytest.mark.parametrize("kind", [complex, bool])
def test_matrices_that_are_no_real_numbers_are_refused_when_looked_at(tmp_path, kind):
    path = write(tmp_path / "a.h5", {"c2": C2.astype(kind), "q": 0.01, "phi": PHI, "dt": DT})
    with pytest.raises(DataError, match=f"c2 is of type {kind.__name__}.*expected real numbers"):
        inspect_file(path)


@pytest.mark.parametrize(
    ("matrices", "missing"),
    [("xpcs/twotime/correlation_map/c2_00001", "xpcs/qmap/dynamic_v_list_dim0"),
     ("exchange/C2T_all/g2_00001", "xpcs/dqlist")],
)  # fmt: skip
def test_inspect_tells_what_makes_matrices_incomplete(tmp_path, matrices, missing):
    path = write(tmp_path / "a.h5", {matrices: C2[0]})
    with pytest.raises(DataError, match=f"it holds {matrices[:-9]} without {missing}; expected"):
        inspect_file(path)


def test_inspect_names_square_arrays_inside_groups(tmp_path):
    path = write(tmp_path / "a.h5", {"run/1/corr": C2, "run/1/q": [1.0, 2.0], "run/image": C2[0]})
    with h5py.File(path, "a") as file:
        file["run/1/up"] = file["run"]  # groups may hold themselves
    with pytest.raises(DataError, match=r"groups are run/image \(8x8\), run/1/corr \(3x8x8\)"):
        inspect_file(path)


def test_inspect_tells_what_is_missing(tmp_path):
    path = write(tmp_path / "a.h5", {"xpcs/multitau/normalized_g2": np.ones(3)})
    with pytest.raises(DataError, match="APS file with one-time results .* without xpcs/twotime"):
        inspect_file(path)


def test_names_that_lead_nowhere_are_in_the_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["gone"] = h5py.SoftLink("/no/where")
        file["empty"] = h5py.Empty("f8")
    with open_arrays(tmp_path / "a.h5") as arrays:
        assert "gone" in arrays and "gone/deep" in arrays and "other" not in arrays
        for name, words in (("gone", "a link to /no/where"), ("empty", "holds nothing")):
            with pytest.raises(DataError, match=words):
                arrays[name]


@pytest.mark.parametrize("dt", [0.0, -1.0, np.nan, 1e300])
def test_a_time_step_that_cannot_be_is_refused(tmp_path, dt):
    write(tmp_path / "a.h5", {"c2": C2, "q": 0.01, "phi": PHI, "dt": dt})
    with pytest.raises(DataError, match="dt from the file is .* expected a positive time"):
        load_file(tmp_path / "a.h5", WANTED)


def test_numbers_that_no_correlation_can_be_are_masked(tmp_path):
    c2 = C2.copy()
    c2[0, 1, 4] = c2[0, 4, 1] = 1e20
    write(tmp_path / "a.h5", {"c2": c2, "q": 0.01, "phi": PHI, "dt": DT})
    data, report = load_file(tmp_path / "a.h5", WANTED)
    assert report.n_masked == 1 and not data.mask[0, 1, 4]
