"""Derivatives through a fit against fits of moved inputs.

Programs are few: one fit of every law, and of the fit of one law its derivatives forwards, and
backwards. Derivatives of other laws are those of the optimum alone.
"""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.fit.implicit import Answer, Given, differentiable
from twotime.fit.robust import SoftL1, Squares
from twotime.gram import Tiled
from twotime.gram.problem import evaluate, make_problem
from twotime.models.scaling import resolve_mode

T, PHI, Q = np.arange(1, 17) * 0.6, np.array([0.0, 50.0]), 0.005
CASES = {
    "static": (tt.StaticDiffusion(), [2e4, -0.3, 0.0], {"D0": 2e4, "alpha": 0.3}),
    "laminar_flow": (
        tt.LaminarFlow(gap=2e6, integration="exact"),
        [1e4, 0.1, 10.0, 1e-4, 0.1, 0.0, 3.0],
        {"D0": 1e4, "gamma_dot_t0": 1e-4, "phi0": 3.0},
    ),
    "two_component": (
        tt.TwoComponent(),
        [3e3, 0.0, 0.0, 1e4, 0.0, 0.0, 300.0, 0.0, 0.0, 0.4, 0.0, 0.0, 0.0, 0.0],
        {"D0_ref": 3e3, "D0_sample": 1e4, "v0": 300.0, "f0": 0.4},
    ),
}
SETTINGS = {"tolerance": 1e-9, "judge": False, "per_angle_mode": "individual"}
DIRECTION = np.cos(1.3 * (T[:, None] + T)) * np.linspace(1.0, 2.0, PHI.size)[:, None, None]


@cache
def case(name):
    """Law, data, space and the unit of every free parameter."""
    model, truth, units = CASES[name]
    data = tt.simulate(
        model, np.asarray(truth), t=T, q=Q, phi=PHI,
        contrast=0.3, offset=1.0, noise=0.02, key=jax.random.key(3),
    )  # fmt: skip
    space = tt.ParameterSpace.from_config({"analysis_mode": name})
    space = space.with_values(dict(zip(model.names, truth, strict=True)))
    space = space.with_vary({n: n in units for n in model.names})
    return model, jax.tree.map(np.asarray, data), space, np.asarray(list(units.values()))


def moved_data(data, x):
    """The data moved by x[0] along a direction, and to another wavevector."""
    return tt.TwoTimeData(data.c2 + x[0] * DIRECTION, data.t, data.q * (1 + x[1]), data.phi)


def moved_law(model, x):
    """The law at a gap moved by x[4], where it has one."""
    if not isinstance(model, tt.LaminarFlow):
        return model
    return eqx.tree_at(lambda m: m.gap, model, model.gap * (1 + x[4]))


@cache
def fitted(name):
    """A compiled fit: of moved data, with bounds moved, in a handy unit; and the whole result."""
    model, data, _, unit = case(name)

    @jax.jit
    def fit(x, space):
        lower = jnp.asarray(space.all_lower).at[1].add(x[2])
        upper = jnp.asarray(space.all_upper).at[0].add(x[3])
        space = eqx.tree_at(lambda s: (s.all_lower, s.all_upper), space, (lower, upper))
        found = tt.fit_nlsq(moved_law(model, x), moved_data(data, x), space, **SETTINGS)
        return in_units(found, np.flatnonzero(space.varying), unit), found

    return fit


def in_units(found, free, unit):
    return jnp.concatenate([found.values[free] / unit, found.contrast[:1], found.offset[:1]])


@cache
def slopes():
    """Derivatives of the static fit forwards, with its result."""
    return jax.jit(jax.jacfwd(lambda x, space: fitted("static")(x, space), has_aux=True))


def differences(name, space, k, step):
    x = np.zeros(5)
    x[k] = step
    ends = (np.asarray(fitted(name)(jnp.asarray(s * x), space)[0]) for s in (1, -1))
    return np.subtract(*ends) / (2 * step)


def of_optimum(name, x, found=None, loss=None):
    """The fit of data moved by x, from the optimum of those that are not: derivatives are exact."""
    model, data, space, unit = case(name)
    if found is None:
        found = fitted(name)(jnp.zeros(5), space)[1]
    free, moved = np.flatnonzero(space.varying), moved_data(data, x)
    settings = resolve_mode(SETTINGS["per_angle_mode"], data.ring), Tiled(1024)
    problem = make_problem(moved_law(model, x), moved, space, *settings)
    lower, upper = (jnp.asarray(b)[free] for b in (space.lower, space.upper))
    hessian = evaluate(found.values[free] / problem.scale, problem)[1].aux[1].hessian
    answer = Answer(found.values, found.contrast, found.offset, found.chi2)
    given = Given(problem, lower, upper, loss or Squares())
    at = differentiable(answer, jnp.sqrt(jnp.diag(hessian)), found.held, given)
    return jnp.append(in_units(at, free, unit), at.chi2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "static",
        *(pytest.param(x, marks=pytest.mark.long) for x in ("laminar_flow", "two_component")),
    ],
)
def test_derivatives_are_those_of_fits_to_moved_inputs(name):
    """Along a change of the data, by the wavevector, and by the gap where there is shear."""
    space = case(name)[2]
    if name == "static":
        found = slopes()(jnp.zeros(5), space)[0]
    else:
        found = jax.jit(jax.jacfwd(lambda x: of_optimum(name, x)))(jnp.zeros(5))[:-1]
    # Rounding moves where a fit ends by 1e-8.
    for k, step in ((0, 1e-4), (1, 1e-3), (4, 1e-3))[: 3 if name == "laminar_flow" else 2]:
        want = differences(name, space, k, step)
        np.testing.assert_allclose(found[:, k], want, rtol=1e-4, atol=1e-5 * np.max(np.abs(want)))


@pytest.mark.long
def test_backwards_is_the_transpose_of_forwards():
    model, data, space, unit = case("static")

    def one(c2):
        found = tt.fit_nlsq(model, tt.TwoTimeData(c2, T, Q, PHI), space, **SETTINGS)
        return found.values[0] / unit[0]

    slope = np.asarray(jax.jit(jax.grad(one))(jnp.asarray(data.c2)))
    assert slope.shape == data.c2.shape and np.all(np.tril(slope) == 0)
    found = slopes()(jnp.zeros(5), space)[0]
    np.testing.assert_allclose(np.sum(slope * DIRECTION), found[0, 0], rtol=1e-8)


@pytest.mark.slow
def test_a_parameter_on_a_bound_moves_with_it_and_the_others_follow():
    space = case("static")[2].with_bounds({"alpha": (-0.2, 2.0)}).with_values({"alpha": 0.0})
    found = np.asarray(slopes()(jnp.zeros(5), space)[0])
    assert found[1, 2] == pytest.approx(1 / 0.3)
    np.testing.assert_allclose(found[:, 2], differences("static", space, 2, 1e-4), rtol=1e-4)
    assert np.all(found[:, 3] == 0)  # the bound on which nothing is


@pytest.mark.slow
def test_values_are_the_same_bits_and_the_rest_is_constant():
    space = case("static")[2]
    plain = fitted("static")(jnp.zeros(5), space)[1]
    assert np.array_equal(slopes()(jnp.zeros(5), space)[1].values, plain.values)

    def everything(x):
        return fitted("static")(x, space)[1]

    change = jax.eval_shape(lambda x: eqx.filter_jvp(everything, (x,), (x,))[1], jnp.zeros(5))
    assert change.values is not None and change.covariance is None and change.ends is None


@pytest.mark.long
def test_robust_fits_have_derivatives_too():
    """By the wavevector, the data, and the scale of the loss."""
    model, data, space, unit = case("static")

    @jax.jit
    def fit(x):
        settings = SETTINGS | {"loss": "soft_l1", "loss_scale": 1.0 + x[2]}
        found = tt.fit_nlsq(model, moved_data(data, x), space, **settings)
        return jnp.append(in_units(found, np.arange(2), unit), found.chi2), found

    _, found = fit(jnp.zeros(3))

    def by_rule(x):
        return of_optimum("static", x, found, SoftL1(1.0 + x[2]))

    got = np.asarray(jax.jit(jax.jacfwd(by_rule))(jnp.zeros(3)))
    for k, step in enumerate((1e-5, 1e-4, 1e-4)):
        ends = (np.asarray(fit(jnp.asarray(s * step * np.eye(3)[k]))[0]) for s in (1, -1))
        want = np.subtract(*ends) / (2 * step)
        np.testing.assert_allclose(got[:, k], want, rtol=1e-4, atol=1e-4 * np.max(np.abs(want)))
