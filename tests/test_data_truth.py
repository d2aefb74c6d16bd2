"""The file of known truth in the forms of other programs: the same data, the same answer."""

import h5py
import numpy as np
import pytest
from test_known_truth import fit_file, laminar_config

from twotime.data import load_file
from twotime.data.readers import open_source
from twotime.data.selection import Selection

FILE, Q, DT = "data/laminar_boost_corr_results.hdf", 0.0034082, 0.0125
MASKED = 6  # place in the grid of the bin without pixels, at the first wavevector


def matrices(path):
    """Wavevector, angle and upper half of every matrix."""
    file = open_source(path)
    with h5py.File(path) as stored:
        c2 = np.stack([stored[b.dataset][()] for b in file.bins])
    return np.array([b.q for b in file.bins]), np.array([b.phi for b in file.bins]), c2


def matlab(path, q, phi, c2):
    """8-ID before APS-U, map of XPCSGUI: labels count bins with pixels, lists keep the grid."""
    with h5py.File(path, "w") as file:
        for name, values in (("dqlist", q), ("dphilist", phi)):
            file[f"xpcs/{name}"] = np.insert(values, MASKED, np.nan)[None]
        file["xpcs/output_data"] = "/exchange"
        file["xpcs/qphi_bin_to_process"] = np.arange(1, len(c2) + 1)[:, None]
        file["measurement/instrument/detector/exposure_period"] = [[DT]]
        for k, matrix in enumerate(c2):
            file[f"exchange/C2T_all/g2_{k + 1:05d}"] = matrix


def nxxpcs(path, q, phi, c2):
    """NXxpcs in 1/nm, radians and ms."""
    with h5py.File(path, "w") as file:
        for name, values, unit in (
            ("masks/dynamic_q_list", 10 * q, "1/nm"),
            ("masks/dynamic_phi_list", np.deg2rad(phi), "rad"),
            ("detector/frame_time", 1e3 * DT, "ms"),
        ):
            file[f"entry/instrument/{name}"] = values
            file[f"entry/instrument/{name}"].attrs["units"] = unit
        file["entry/twotime/two_time_corr_func"] = c2


def pychx(path, q, phi, c2):
    """pyCHX: whole matrices, region last."""
    full = c2 + np.swapaxes(np.triu(c2, 1), 1, 2)
    with h5py.File(path, "w") as file:
        file["g12b"], file["tausb"] = np.moveaxis(full, 0, 2), DT * np.arange(c2.shape[1])
        file["qval_dict"] = [1]
        for k, place in enumerate(zip(q, phi, strict=True)):
            file["qval_dict"].attrs[str(k)] = place


def esrf(path, q, phi, c2):
    """ESRF on (age, lag): ages in steps of two frames, lags of one frame and then logarithmic."""
    n = c2.shape[1]
    first, second = np.triu_indices(n)
    ages = np.linspace(0, n - 1, n // 2 + 1)
    lags = np.append(np.arange(10.0), np.geomspace(10, n, 31))
    cell = np.digitize((first + second) / 2, ages[1:-1]), np.digitize(second - first, lags[1:-1])
    shape = ages.size - 1, lags.size - 1
    place = np.ravel_multi_index(cell, shape)
    count = np.bincount(place, minlength=shape[0] * shape[1])
    with np.errstate(invalid="ignore"):
        values = [np.bincount(place, m[first, second], count.size) / count for m in c2]
    middle = np.where(lags[1:] <= 10, 0.5 * (lags[1:] + lags[:-1]), np.sqrt(lags[1:] * lags[:-1]))
    root = "entry_0000/correlations/sectors"
    with h5py.File(path, "w") as file:
        file[f"{root}/twotime/ttcf"] = np.reshape(values, (len(c2), *shape))
        file[f"{root}/twotime/age"] = DT * 0.5 * (ages[1:] + ages[:-1])
        file[f"{root}/twotime/lag"] = DT * middle
        file[f"{root}/parameters/q"], file[f"{root}/parameters/phi"] = q, phi
        file[f"{root}/parameters/q"].attrs["units"] = "1/Å"


@pytest.mark.parametrize("form", [matlab, nxxpcs, pychx])
@pytest.mark.parametrize("wanted", [0.00214498, Q])
def test_the_known_truth_in_another_form_is_the_same(shared, tmp_path, form, wanted):
    form(tmp_path / "a.h5", *matrices(shared / FILE))
    selection = Selection(q=wanted, t0=0.0)
    data, other = (load_file(path, selection)[0] for path in (shared / FILE, tmp_path / "a.h5"))
    assert other.phi == pytest.approx(data.phi)
    assert other.t == pytest.approx(data.t) and float(other.q) == pytest.approx(float(data.q))
    assert np.array_equal(other.c2, data.c2) and np.array_equal(other.mask, data.mask)


def test_the_known_truth_on_age_and_lag_is_near_its_pairs(shared, tmp_path):
    esrf(tmp_path / "a.h5", *matrices(shared / FILE))
    selection = Selection(q=Q, t0=0.0)
    data, other = (load_file(path, selection)[0] for path in (shared / FILE, tmp_path / "a.h5"))
    assert other.phi.tolist() == data.phi.tolist() and other.t == pytest.approx(data.t)
    for k in range(data.phi.size):
        used = np.triu(other.mask[k], 1)
        apart = (other.c2[k] - data.c2[k])[used]
        assert used.sum() > 3000 and abs(apart.mean()) < 2e-3


@pytest.mark.statistics
@pytest.mark.parametrize("form", [matlab, nxxpcs, pychx, esrf])
def test_the_angle_of_flow_is_found_in_every_form(shared, tmp_path, form):
    form(tmp_path / "a.h5", *matrices(shared / FILE))
    fit = fit_file(tmp_path, laminar_config(tmp_path / "a.h5", Q))
    print(form.__name__, fit.params["phi0"], fit.converged)
    assert fit.converged and abs(fit.params["phi0"] + 5) < 1
