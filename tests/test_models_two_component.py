"""Two components: labels that may be exchanged, and fractions without effect."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.models.rates import fraction

T, PHI, Q = np.arange(1, 41) * 0.2, np.array([0.0, 40.0]), 0.005
MODEL = tt.TwoComponent()
NAMES = ("D0_ref", "D0_sample", "v0", "f0")
ONE = dict(
    zip(
        MODEL.names,
        [3e3, 0.1, 50.0, 2e4, -0.2, 0.0, 400.0, 0.0, 0.0, 0.35, 0.0, 0.0, 0.0, 0.0],
        strict=True,
    )
)


def exchanged(values):
    """The same law with the labels exchanged, where the fraction is constant."""
    swap = {"ref": "sample", "sample": "ref"}
    out = dict(values)
    for name in ("D0", "alpha", "D_offset"):
        for label in swap:
            out[f"{name}_{label}"] = values[f"{name}_{swap[label]}"]
    return out | {"f0": 1.0 - values["f0"] - values["f3"]}


def params(values):
    return jnp.asarray([values[n] for n in MODEL.names])


def simulated(values):
    return tt.simulate(
        MODEL, params(values), t=T, q=Q, phi=PHI,
        contrast=0.3, offset=1.0, noise=0.01, key=jax.random.key(0),
    )  # fmt: skip


def test_the_exchanged_parameters_give_the_same_correlation():
    a, b = (tt.correlation(MODEL, params(v), t=T, q=Q, phi=PHI) for v in (ONE, exchanged(ONE)))
    np.testing.assert_allclose(a, b, atol=1e-13)


def test_exchange_is_recognised_and_the_reference_is_the_slower():
    a, b = (MODEL.components(params(v), jnp.asarray(T)) for v in (ONE, exchanged(ONE)))
    assert MODEL.is_exchanged(a, b) and MODEL.is_exchanged(b, a) and not MODEL.is_exchanged(a, a)
    assert MODEL.is_canonical(a) and not MODEL.is_canonical(b)
    other = MODEL.components(params(ONE | {"f0": 0.9}), jnp.asarray(T))
    assert not MODEL.is_exchanged(other, a)
    assert tt.StaticDiffusion().components(jnp.ones(3), jnp.asarray(T)) is None


TIMES = np.arange(1, 51) * 0.1
PARAMS = np.array([4e3, 0.1, 0, 8e3, -0.2, 0, 700, 0.2, 0, 0.7, 0.3, 0.5, 0.6, 1.0])


def test_a_fraction_that_is_one_at_all_times_comes_below_one():
    assert np.all(fraction(TIMES, *PARAMS[9:13]) == 1.0)
    moved = MODEL.off_plateau(jnp.asarray(PARAMS), jnp.asarray(TIMES))
    x = fraction(TIMES, *moved[9:13])
    np.testing.assert_allclose(np.min(x), 0.98, rtol=1e-12)
    changed = np.flatnonzero(np.asarray(moved) != PARAMS)
    np.testing.assert_array_equal(changed, [9, 12])


def test_elsewhere_and_in_other_models_nothing_moves():
    partly = PARAMS.copy()
    partly[9:13] = 0.7, -0.3, 0.0, 0.4
    x = fraction(TIMES, *partly[9:13])
    assert np.any(x == 1.0) and np.any(x < 1.0)
    moved = MODEL.off_plateau(jnp.asarray(partly), jnp.asarray(TIMES))
    np.testing.assert_array_equal(moved, partly)
    static = jnp.asarray([1e4, -0.5, 0.0])
    moved = tt.StaticDiffusion().off_plateau(static, jnp.asarray(TIMES))
    np.testing.assert_array_equal(moved, static)


@pytest.fixture(scope="module")
def space():
    free = tt.ParameterSpace.from_config({"analysis_mode": "two_component"})
    return free.with_values(ONE).with_vary({n: n in NAMES for n in MODEL.names})


@pytest.mark.long
def test_starts_with_either_label_are_one_optimum(space):
    """D0 and D_offset of each, and alpha, are fixed to the same values for both labels."""
    equal = ONE | {"alpha_ref": 0.0, "alpha_sample": 0.0, "D_offset_ref": 0.0}
    data, space = simulated(equal), space.with_values(equal)
    starts = np.asarray([params(exchanged(equal)), params(equal)])
    fit = tt.fit_nlsq(MODEL, data, space, starts=starts)
    assert fit.converged and fit.params["D0_ref"] < fit.params["D0_sample"]
    assert np.array_equal(fit.ends_exchanged, [True, False]) and np.all(fit.ends_same)
    (optimum,) = fit.optima
    assert optimum.starts == 2 and optimum.params == fit.params
    assert "1 of them found the same fit with reference and sample swapped" in fit.report()
    alone = tt.fit_nlsq(MODEL, data, space, starts=np.asarray(starts[:1]).repeat(2, axis=0))
    assert alone.params["D0_ref"] < alone.params["D0_sample"]  # exchanged by convention


@pytest.mark.long
def test_where_the_data_decide_the_labels_both_optima_are_listed(space):
    """alpha is fixed to different values: the exchanged law cannot be reached exactly."""
    values = ONE | {"alpha_ref": 0.0, "alpha_sample": -0.3, "D_offset_ref": 0.0}
    data = simulated(values)
    starts = np.asarray([params(exchanged(values)), params(values)])
    fit = tt.fit_nlsq(MODEL, data, space.with_values(values), starts=starts)
    assert fit.ends_chi2[0] > fit.ends_chi2[1] * 1.01
    assert [o.starts for o in fit.optima] == [1, 1] and fit.params["D0_ref"] < 1e4
