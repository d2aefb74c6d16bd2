"""Starts come from the data: nobody knows a velocity before the fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_laws import Decay

import twotime as tt
from twotime.data.scales import space_for
from twotime.start import estimate_starts
from twotime.start.coarse import coarse_grain

T, PHI, Q = np.arange(1, 81) * 0.1, np.array([0.0, 30.0, 60.0]), 0.005
CASES = {
    "static": (tt.StaticDiffusion(), [9000.0, -0.4, 500.0]),
    "laminar_flow": (tt.LaminarFlow(gap=2e6), [9000.0, 0.2, 100.0, 2e-3, 0.3, 0.0, 4.0]),
    "two_component": (
        tt.TwoComponent(),
        [4e3, 0.1, 0.0, 8e3, -0.2, 0.0, 700.0, 0.2, 0.0, 0.4, 0.02, 0.0, 0.0, 0.0],
    ),
}


def case(mode, noise=0.02):
    model, truth = CASES[mode]
    space = tt.ParameterSpace.from_config({"analysis_mode": mode})
    space = space.with_vary({name: name != "f2" for name in space.names})
    scaling = {"contrast": 0.3, "offset": 1.0, "noise": noise, "key": jax.random.key(1)}
    data = tt.simulate(model, jnp.asarray(truth), t=T, q=Q, phi=PHI, **scaling)
    return model, data, space, dict(zip(model.names, truth, strict=True))


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param("static", marks=pytest.mark.long),
        pytest.param("laminar_flow", marks=pytest.mark.long),
        pytest.param("two_component", marks=pytest.mark.statistics),
    ],
)
def test_the_fit_started_from_the_data_ends_where_the_one_from_the_truth_does(mode):
    model, data, space, truth = case(mode)
    (start,) = estimate_starts(model, data, space)
    assert np.all((start.initial >= start.lower) & (start.initial <= start.upper))
    fit = tt.fit_nlsq(model, data, start)
    best = tt.fit_nlsq(model, data, space.with_values(truth))
    assert fit.converged and fit.chi2 <= best.chi2 * 1.001


def test_what_is_given_or_fixed_stays():
    model, data, space, _ = case("static")
    space = space.with_values({"alpha": -0.4}).with_vary({"D_offset": False})
    (start,) = estimate_starts(model, data, space)
    values = dict(zip(space.names, start.initial, strict=True))
    assert values["alpha"] == -0.4 and values["D_offset"] == space.initial[2]
    assert values["D0"] == pytest.approx(9000, rel=0.4)


def test_further_starts_come_from_elsewhere():
    model, data, space, _ = case("static")
    starts = np.stack([s.initial for s in estimate_starts(model, data, space, count=4)])
    assert starts.shape == (4, 3) and len(np.unique(starts, axis=0)) > 1


def test_coarse_graining_averages_usable_points():
    model, data, _, _ = case("static", noise=0.0)
    mask = np.ones(data.c2.shape, bool)
    mask[0, 3:9, 20:30] = False
    c2 = np.where(mask, data.c2, np.nan)
    bins = coarse_grain(tt.TwoTimeData(c2, data.t, data.q, data.phi, mask=mask))
    total = np.triu(mask[0], 1)[np.triu_indices(len(T), 1)].sum()
    lags = np.unique(np.round(np.geomspace(1, len(T) - 1, 32)).astype(int))
    counted = sum(np.diagonal(mask[0], lag).sum() for lag in lags)
    assert counted < total and float(bins.weight[0].sum()) == counted
    params = jnp.asarray(CASES["static"][1])
    want = tt.correlation_at(model, params, bins.t1, bins.t2, t=data.t, q=Q, phi=0.0)
    np.testing.assert_allclose(bins.c2[1], 1 + 0.3 * want, atol=0.02)


@pytest.mark.slow
def test_several_starts_report_every_optimum():
    model, data, space, truth = case("static")
    fit = tt.fit_nlsq(model, data, space, starts=5, key=jax.random.key(0))
    best = tt.fit_nlsq(model, data, space.with_values(truth))
    assert fit.chi2 == pytest.approx(float(best.chi2), rel=1e-6)
    assert fit.starts.shape == (5, 3) and np.array_equal(
        fit.starts[0], space_for(model, data, space).initial
    )
    assert sum(optimum.starts for optimum in fit.optima) == np.sum(
        fit.ends_result == tt.RESULTS.successful
    )
    assert fit.optima[0].chi2 == float(fit.chi2) and "Of 5 starts" in fit.report()
    again = tt.fit_nlsq(model, data, space, starts=fit.starts)
    assert float(again.chi2) == pytest.approx(float(fit.chi2), rel=1e-12)


def test_bad_starts_are_refused_in_a_sentence():
    model, data, space, _ = case("static")
    with pytest.raises(ValueError, match="starts is 3 but key is missing"):
        tt.fit_nlsq(model, data, space, starts=3)
    with pytest.raises(ValueError, match="starts is 0; expected at least 1"):
        tt.fit_nlsq(model, data, space, starts=0)
    with pytest.raises(ValueError, match=r"expected \(start, 3\)"):
        tt.fit_nlsq(model, data, space, starts=np.zeros((2, 4)))
    with pytest.raises(ValueError, match="The space holds D0, alpha, D_offset; Decay needs rate"):
        estimate_starts(Decay(), data, space)
