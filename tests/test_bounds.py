"""Starts on every bound in turn, and optima on a bound: the right answer, flagged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt

T, PHI, Q = np.arange(1, 41) * 0.2, np.array([0.0, 30.0, 60.0]), 0.005
CASES = {
    "static": (tt.StaticDiffusion(), [9000.0, -0.4, 500.0], {}),
    "laminar_flow": (tt.LaminarFlow(gap=2e6), [9000.0, 0.2, 100.0, 3e-4, 0.3, 0.0, 4.0], {}),
    # Bounds as somebody gives them who knows the drift to 1.5 rad and that there are two parts.
    "two_component": (
        tt.TwoComponent(),
        [4e3, 0.1, 0.0, 8e3, -0.2, 0.0, 400.0, 0.2, 0.0, 0.4, 0.02, 0.0, 0.0, 0.0],
        {
            **{f"D0_{x}": (1e3, 1e5) for x in ("ref", "sample")},
            **{f"alpha_{x}": (-1.0, 1.0) for x in ("ref", "sample")},
            **{f"D_offset_{x}": (-500.0, 500.0) for x in ("ref", "sample")},
            "v0": (330.0, 470.0), "beta": (0.0, 0.4), "v_offset": (-40.0, 40.0),
            "f0": (0.1, 0.9), "f1": (-0.1, 0.1), "f3": (0.0, 0.3),
        },
    ),
}  # fmt: skip


def simulated(model, truth, contrast=0.3, noise=0.02, key=1):
    return tt.simulate(
        model, jnp.asarray(truth), t=T, q=Q, phi=PHI,
        contrast=contrast, offset=1.0, noise=noise, key=jax.random.key(key),
    )  # fmt: skip


def space_of(mode):
    model, truth, bounds = CASES[mode]
    space = tt.ParameterSpace.from_config({"analysis_mode": mode})
    space = space.with_bounds(space.bounds | bounds)  # given ones do not follow the data
    space = space.with_values(dict(zip(model.names, truth, strict=True)))
    return space.with_vary({name: name != "f2" for name in space.names})


def starts_on_bounds(space):
    """The truth, then each varying parameter on each of its bounds, the others at the truth."""
    starts, names = [np.asarray(space.initial)], ["truth"]
    for k in np.flatnonzero(space.varying):
        for bound in (space.lower[k], space.upper[k]):
            starts.append(np.where(np.arange(len(space.names)) == k, bound, space.initial))
            names.append(f"{space.names[k]} = {bound:g}")
    return np.asarray(starts), names


LONG = [pytest.param(x, marks=pytest.mark.long) for x in ("laminar_flow", "two_component")]


@pytest.mark.parametrize("mode", ["static", *LONG])
def test_starts_on_every_bound_in_turn(mode):
    model, truth, _ = CASES[mode]
    space = space_of(mode)
    starts, names = starts_on_bounds(space)
    fit = tt.fit_nlsq(model, simulated(model, truth), space, starts=starts)
    worse = np.asarray(fit.ends_chi2 / fit.chi2 - 1)
    converged = np.asarray(fit.ends_result == tt.RESULTS.successful)
    found = dict(zip(names, zip(worse, converged, strict=True), strict=True))
    assert all(ok and excess < 1e-3 for excess, ok in found.values()), found


@pytest.mark.long
def test_a_contrast_on_its_bound_is_found_and_flagged():
    model, truth, _ = CASES["static"]
    data = simulated(model, truth, contrast=1.05)
    fit = tt.fit_nlsq(model, data, space_of("static"))
    assert fit.converged and np.all(np.asarray(fit.contrast) == 1.0)
    assert "contrast" in fit.at_bound and "contrast is on its bound 1: widen" in fit.report()
    wide = space_of("static").with_bounds({"contrast": (0.0, 2.0)})
    free = tt.fit_nlsq(model, data, wide)
    assert free.chi2 < fit.chi2 and "contrast" not in free.at_bound


@pytest.mark.long
def test_a_sample_alone_is_found_and_flagged():
    """x_s -> 1: the fraction ends on its bound and the reference is not determined."""
    model = tt.TwoComponent()
    truth = [4e3, 0.0, 0.0, 8e3, -0.2, 0.0, 400.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    free = ("D0_sample", "alpha_sample", "f0")
    space = tt.ParameterSpace.from_config({"analysis_mode": "two_component"})
    space = space.with_values(dict(zip(model.names, truth, strict=True)) | {"f0": 0.7})
    space = space.with_vary({n: n in free for n in model.names})
    data = simulated(model, truth, key=2)
    fit = tt.fit_nlsq(model, data, space)
    assert fit.converged and fit.params["f0"] == 1.0 and fit.at_bound == ("f0",)
    assert np.isnan(fit.uncertainties["f0"]) and fit.uncertainties["D0_sample"] > 0
    alone = tt.ParameterSpace.from_config({"analysis_mode": "static"})
    alone = alone.with_values({"D0": 8e3, "alpha": -0.2, "D_offset": 0.0})
    alone = alone.with_vary({"D_offset": False})
    single = tt.fit_nlsq(tt.StaticDiffusion(), data, alone)
    assert float(fit.chi2) == pytest.approx(float(single.chi2), rel=1e-6)
