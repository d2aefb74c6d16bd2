import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from twotime.solver import (
    CONVERGED,
    MAX_STEPS,
    NONFINITE,
    STALLED,
    BoxLevenbergMarquardt,
    Quadratic,
)


def least_squares(residual):
    def fn(y, args):
        r = residual(y)
        j = jax.jacfwd(residual)(y)
        value = 0.5 * r @ r
        variance = jnp.maximum(2 * value, 1e-20) / r.size
        return value, Quadratic(j.T @ r, j.T @ j, variance, 1e-16 * value, None)

    return fn


def solve(residual, start, lower, upper, max_steps=200, **options):
    solver = BoxLevenbergMarquardt(jnp.asarray(lower), jnp.asarray(upper), **options)
    return optx.minimise(
        least_squares(residual),
        solver,
        jnp.asarray(start),
        has_aux=True,
        max_steps=max_steps,
        throw=False,
    )


MATRIX = np.random.default_rng(5).normal(size=(12, 4))
TARGET = np.random.default_rng(6).normal(size=12)


@given(
    low=st.lists(st.floats(-1.0, 0.2), min_size=4, max_size=4),
    width=st.lists(st.floats(0.05, 2.0), min_size=4, max_size=4),
    where=st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=4, max_size=4),
)
def test_linear_problems_in_boxes_from_inside_and_from_the_bounds(low, width, where):
    lower, upper = np.asarray(low), np.asarray(low) + np.asarray(width)
    start = np.clip(lower + np.asarray(where) * np.asarray(width), lower, upper)
    got = SOLVE_LINEAR(jnp.asarray(start), jnp.asarray(lower), jnp.asarray(upper))
    want = lsq_linear(MATRIX, TARGET, (lower, upper), method="bvls", tol=1e-14).x
    assert int(got[1]) == CONVERGED
    cost = [np.sum((MATRIX @ x - TARGET) ** 2) for x in (np.asarray(got[0]), want)]
    assert cost[0] <= cost[1] * (1 + 1e-5)
    assert np.all((lower <= got[0]) & (got[0] <= upper))


@jax.jit
def SOLVE_LINEAR(start, lower, upper):  # noqa: N802
    def residual(y):
        return jnp.asarray(MATRIX) @ y - jnp.asarray(TARGET)

    s = solve(residual, start, lower, upper, tolerance=1e-3)
    return s.value, s.stats["code"]


def rosenbrock(y):
    return jnp.stack([10 * (y[1] - y[0] ** 2), 1 - y[0], 0.1 * y[0]])


def test_curved_valley_and_its_bounded_version():
    free = solve(rosenbrock, [-1.2, 1.0], [-5.0, -5.0], [5.0, 5.0], tolerance=1e-5)
    assert int(free.stats["code"]) == CONVERGED
    grad = jax.grad(lambda y: 0.5 * jnp.sum(rosenbrock(y) ** 2))(free.value)
    np.testing.assert_allclose(grad, 0.0, atol=1e-5)
    boxed = solve(rosenbrock, [-1.2, 1.0], [-5.0, -5.0], [0.5, 5.0], tolerance=1e-5)
    assert boxed.value[0] == 0.5
    assert bool(boxed.stats["optimality"].held[0])
    np.testing.assert_allclose(boxed.value[1], 0.25, atol=1e-6)


def test_rounding_of_the_cost_does_not_keep_a_fit_from_its_optimum():
    exact = least_squares(rosenbrock)

    def fn(y, args):
        value, local = exact(y, args)
        noise = 1e-9
        local = Quadratic(local.grad, local.hessian, local.variance, jnp.asarray(noise), None)
        return value + 30 * noise * jnp.sin(1e11 * jnp.sum(y)), local

    solver = BoxLevenbergMarquardt(jnp.full(2, -5.0), jnp.full(2, 5.0), tolerance=1e-9)
    got = optx.minimise(
        fn, solver, jnp.asarray([-1.2, 1.0]), has_aux=True, max_steps=200, throw=False
    )
    assert int(got.stats["code"]) == CONVERGED
    grad = jax.grad(lambda y: 0.5 * jnp.sum(rosenbrock(y) ** 2))(got.value)
    np.testing.assert_allclose(grad, 0.0, atol=1e-8)


def test_the_step_limit_and_a_bad_start_are_said():
    few = solve(rosenbrock, [-1.2, 1.0], [-5.0, -5.0], [5.0, 5.0], max_steps=3)
    assert int(few.stats["code"]) == MAX_STEPS
    bad = solve(lambda y: jnp.log(y), [-1.0], [-2.0], [2.0])
    assert int(bad.stats["code"]) == NONFINITE


def test_a_trial_that_is_not_finite_is_only_a_rejected_step():
    def residual(y):
        return jnp.stack([jnp.sqrt(y[0]) - 0.1, 0.5 * y[0] - 1.0])

    got = solve(residual, [4.0], [-10.0], [10.0])
    assert int(got.stats["code"]) == CONVERGED
    assert 0 < got.value[0] < 4


def test_an_optimum_in_a_kink_ends_soon_and_is_not_called_converged():
    def residual(y):
        return jnp.stack([1 + jnp.where(y[0] > 0.3, y[0] - 0.3, 0.6 - 2 * y[0]), y[1] - 1, 0.5])

    got = solve(residual, [0.7, 0.0], [-5.0, -5.0], [5.0, 5.0], max_steps=300)
    assert int(got.stats["code"]) == STALLED
    assert int(got.stats["num_steps"]) < 80
    np.testing.assert_allclose(got.value, [0.3, 1.0], atol=1e-2)
