"""One angle after the other: own parameters for each, warm starts, folders of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.fit import fit_sequential, one_angle

T, PHI = np.arange(1, 31) * 0.2, np.array([0.0, 60.0, 120.0])
D0 = (1.0e4, 1.3e4, 1.7e4)
MODEL = tt.StaticDiffusion()
SPACE = (
    tt.ParameterSpace.from_config({"analysis_mode": "static"})
    .with_values({"D0": 6e3, "alpha": 0.0, "D_offset": 0.0})
    .with_vary({"D_offset": False})
)


@pytest.fixture(scope="module")
def data():
    """Angles that differ in D0, which no common parameter can describe."""
    c2 = [
        tt.simulate(
            MODEL, jnp.asarray([d, -0.2, 0.0]), t=T, q=0.006, phi=PHI[k : k + 1],
            contrast=0.3, offset=1.0, noise=0.01, key=jax.random.key(k),
        ).c2
        for k, d in enumerate(D0)
    ]  # fmt: skip
    return tt.TwoTimeData(np.concatenate(c2), T, 0.006, PHI)


@pytest.fixture(scope="module")
def result(data):
    return fit_sequential(MODEL, data, SPACE)


def test_each_angle_is_the_fit_of_that_angle_alone(data, result):
    assert result.converged and result.status.startswith("converged: each of 3 angles")
    np.testing.assert_array_equal(result.phi, PHI)
    for k, fit in enumerate(result.fits):
        assert abs(fit.params["D0"] / D0[k] - 1) < 0.1
        alone = tt.fit_nlsq(MODEL, one_angle(data, k), SPACE)
        away = [abs(fit.params[n] - alone.params[n]) for n in fit.names]
        assert np.max(away / np.asarray(list(alone.uncertainties_iid.values()))) < 0.03


def test_each_starts_where_the_one_before_ended(result):
    np.testing.assert_array_equal(result.fits[0].start, SPACE.initial)
    for before, after in zip(result.fits[:-1], result.fits[1:], strict=True):
        np.testing.assert_array_equal(after.start, before.values)


def test_an_angle_that_did_not_converge_is_no_start_and_is_told(data):
    found = fit_sequential(MODEL, data, SPACE, max_steps=2)
    for fit in found.fits:
        np.testing.assert_array_equal(fit.start, SPACE.initial)
    assert not found.converged and "at 3 of 3 angles: phi = 0 degree not converged" in found.status
    with pytest.raises(RuntimeError, match="phi = 0 degree"):
        fit_sequential(MODEL, data, SPACE, max_steps=2, throw=True)


def test_report_and_files(result, tmp_path):
    text = result.report()
    assert "fitted by itself" in text and "| 120 " in text
    assert "**Parameters of each angle**" in text
    result.save(tmp_path / "out")
    again = tt.load_result(tmp_path / "out")
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(result), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert (tmp_path / "out" / "angle_3" / "report.md").exists()
    with pytest.raises(tt.ResultError, match="already holds a result"):
        result.save(tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("kept")
    result.save(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"
    assert [f["converged"] for f in result.summary()["angles"]] == [True] * 3


def test_a_series_over_the_angles_is_refused(data):
    with pytest.raises(ValueError, match="angles fitted one after the other have none"):
        fit_sequential(MODEL, data, SPACE, per_angle_mode="fourier")
