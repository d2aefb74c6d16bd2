"""Derivatives through a fit against fits of moved inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt

T, PHI, Q = np.arange(1, 26) * 0.4, np.array([0.0, 50.0, 100.0]), 0.005
CASES = {
    "static": (tt.StaticDiffusion(), [2e4, -0.3, 0.0], ("D0", "alpha")),
    "laminar_flow": (
        tt.LaminarFlow(integration="exact"),
        [1e4, 0.1, 10.0, 1e-4, 0.1, 0.0, 3.0],
        ("D0", "gamma_dot_t0", "phi0"),
    ),
    "two_component": (
        tt.TwoComponent(),
        [3e3, 0.0, 0.0, 1e4, 0.0, 0.0, 300.0, 0.0, 0.0, 0.4, 0.0, 0.0, 0.0, 0.0],
        ("D0_ref", "D0_sample", "v0", "f0"),
    ),
}


def case(mode, bounds=None):
    model, truth, free = CASES[mode]
    data = tt.simulate(
        model, jnp.asarray(truth), t=T, q=Q, phi=PHI,
        contrast=0.3, offset=1.0, noise=0.02, key=jax.random.key(3),
    )  # fmt: skip
    space = tt.ParameterSpace.from_config({"analysis_mode": mode})
    space = space.with_values(dict(zip(model.names, truth, strict=True)))
    space = space.with_vary({n: n in free for n in model.names}).with_bounds(bounds or {})
    return model, data, space


def answer(model, data, space):
    """What of a fit has derivatives, each in a handy unit."""
    fit = tt.fit_nlsq(model, data, space, tolerance=1e-9, judge=False)
    free = np.flatnonzero(space.varying)
    unit = jnp.asarray(CASES_UNIT[type(model).__name__])
    return jnp.concatenate([fit.values[free] / unit, fit.contrast[:1], fit.offset[:1]])


CASES_UNIT = {
    "StaticDiffusion": [2e4, 0.3],
    "LaminarFlow": [1e4, 1e-4, 3.0],
    "TwoComponent": [3e3, 1e4, 300.0, 0.4],
}


def by_difference(f, x, step):
    return (np.asarray(f(x + step)) - np.asarray(f(x - step))) / (2 * step)


SLOW = [pytest.param(m, marks=pytest.mark.slow) for m in ("laminar_flow", "two_component")]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["static", *SLOW])
def test_derivatives_are_those_of_fits_to_moved_inputs(mode):
    """Forwards by q and along a change of the data; backwards by every pixel of the data."""
    model, data, space = case(mode)
    direction = np.asarray(jax.random.normal(jax.random.key(5), data.c2.shape))
    direction = direction + np.swapaxes(direction, 1, 2)

    def moved(shift):
        c2, q = data.c2 + shift[0] * direction, data.q * (1 + shift[1])
        return answer(model, tt.TwoTimeData(c2, data.t, q, data.phi), space)

    found = np.asarray(jax.jacfwd(moved)(jnp.zeros(2)))
    for k, step in enumerate((1e-4, 1e-3)):  # rounding moves where a fit ends by 1e-8
        want = by_difference(lambda x, k=k: moved(jnp.zeros(2).at[k].set(x)), 0.0, step)
        np.testing.assert_allclose(found[:, k], want, rtol=1e-4, atol=1e-5 * np.max(np.abs(want)))

    def one(c2):
        return answer(model, tt.TwoTimeData(c2, data.t, data.q, data.phi), space)[0]

    if mode != "static":  # backwards is the transpose of forwards, and takes long to compile
        return
    slope = np.asarray(jax.grad(one)(jnp.asarray(data.c2)))
    assert slope.shape == data.c2.shape and np.all(np.tril(slope) == 0)
    np.testing.assert_allclose(np.sum(slope * direction), found[0, 0], rtol=1e-8)


@pytest.mark.slow
def test_a_parameter_on_a_bound_moves_with_it_and_the_others_follow():
    model, data, space = case("static", {"alpha": (-0.2, 1.0)})
    space = space.with_values({"alpha": 0.0})

    def moved(low):
        lower = jnp.asarray(space.all_lower).at[1].add(low)
        return answer(model, data, eqx.tree_at(lambda s: s.all_lower, space, lower))

    found = np.asarray(jax.jacfwd(moved)(0.0))
    assert found[1] == pytest.approx(1 / 0.3)
    np.testing.assert_allclose(found, by_difference(moved, 0.0, 1e-4), rtol=1e-4)

    def other(high):
        upper = jnp.asarray(space.all_upper).at[0].add(high)
        return answer(model, data, eqx.tree_at(lambda s: s.all_upper, space, upper))

    assert np.all(np.asarray(jax.jacfwd(other)(0.0)) == 0)


@pytest.mark.slow
def test_values_are_the_same_bits_and_the_rest_is_constant():
    model, data, space = case("static")
    # Inside a function of the caller's, as under a derivative: kernels of the same generators.
    plain = eqx.filter_jit(lambda d: tt.fit_nlsq(model, d, space, tolerance=1e-9, judge=False))(
        data
    )

    def everything(q):
        d = tt.TwoTimeData(data.c2, data.t, q, data.phi)
        return tt.fit_nlsq(model, d, space, tolerance=1e-9, judge=False)

    fit, change = eqx.filter_jvp(everything, (jnp.asarray(Q),), (jnp.ones(()),))
    assert np.array_equal(fit.values, plain.values)
    assert change.values[0] != 0 and change.covariance is None and change.ends is None


@pytest.mark.slow
def test_second_derivatives_are_those_of_the_scaling_with_q():
    """Without noise 1/q² is all that D0 depends on: D0'' = 6 D0/q²."""
    model, data, space = case("static")
    truth = jnp.asarray(CASES["static"][1])
    clean = 1.0 + 0.3 * tt.correlation(model, truth, t=T, q=Q, phi=PHI)

    def fitted(q):
        return tt.fit_nlsq(
            model,
            tt.TwoTimeData(clean, data.t, q, data.phi),
            space,
            tolerance=1e-9,
            judge=False,
        ).values[0]

    first, second = jax.jit(lambda q: (jax.grad(fitted)(q), jax.hessian(fitted)(q)))(Q)
    assert float(first) == pytest.approx(-2 * 2e4 / Q**2 * Q, rel=1e-9)
    assert float(second) == pytest.approx(6 * 2e4 / Q**2, rel=1e-9)
