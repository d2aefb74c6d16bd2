import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from twotime.solver import (
    ENDS,
    RESULTS,
    BoxDescent,
    BoxLevenbergMarquardt,
    Correction,
    Patience,
    Quadratic,
    cost_change,
    outcome,
    places,
    results_at,
)


def least_squares(residual):
    def fn(y, args):
        r = residual(y)
        j = jax.jacfwd(residual)(y)
        value = 0.5 * r @ r
        variance = jnp.maximum(2 * value, 1e-20) / r.size
        return value, Quadratic(j.T @ r, j.T @ j, variance, 1e-16 * value, None)

    return fn


def solve(residual, start, lower, upper, max_steps=200, limit=jnp.inf, **options):
    box = jnp.asarray(lower), jnp.asarray(upper)
    solver = BoxLevenbergMarquardt(*box, max_steps=limit, **options)
    return optx.minimise(
        least_squares(residual),
        solver,
        jnp.asarray(start),
        has_aux=True,
        max_steps=max_steps,
        throw=False,
    )


def ended(solution):
    return ENDS[int(places(outcome(solution)))]


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
    assert bool(got[1])
    cost = [np.sum((MATRIX @ x - TARGET) ** 2) for x in (np.asarray(got[0]), want)]
    assert cost[0] <= cost[1] * (1 + 1e-5)
    assert np.all((lower <= got[0]) & (got[0] <= upper))


@jax.jit
def SOLVE_LINEAR(start, lower, upper):  # noqa: N802
    def residual(y):
        return jnp.asarray(MATRIX) @ y - jnp.asarray(TARGET)

    s = solve(residual, start, lower, upper, tolerance=1e-3)
    return s.value, outcome(s) == RESULTS.successful


def rosenbrock(y):
    return jnp.stack([10 * (y[1] - y[0] ** 2), 1 - y[0], 0.1 * y[0]])


def test_curved_valley_and_its_bounded_version():
    free = solve(rosenbrock, [-1.2, 1.0], [-5.0, -5.0], [5.0, 5.0], tolerance=1e-5)
    assert ended(free) == "successful"
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
    assert ended(got) == "successful"
    grad = jax.grad(lambda y: 0.5 * jnp.sum(rosenbrock(y) ** 2))(got.value)
    np.testing.assert_allclose(grad, 0.0, atol=1e-8)


def test_the_step_limit_and_a_bad_start_are_said():
    few = solve(rosenbrock, [-1.2, 1.0], [-5.0, -5.0], [5.0, 5.0], max_steps=3)
    assert ended(few) == "nonlinear_max_steps_reached"
    bad = solve(lambda y: jnp.log(y), [-1.0], [-2.0], [2.0])
    assert ended(bad) == "nonfinite"


def test_a_trial_that_is_not_finite_is_only_a_rejected_step():
    def residual(y):
        return jnp.stack([jnp.sqrt(y[0]) - 0.1, 0.5 * y[0] - 1.0])

    got = solve(residual, [4.0], [-10.0], [10.0])
    assert ended(got) == "successful"
    assert 0 < got.value[0] < 4


def test_an_optimum_in_a_kink_ends_soon_and_is_not_called_converged():
    def residual(y):
        return jnp.stack([1 + jnp.where(y[0] > 0.3, y[0] - 0.3, 0.6 - 2 * y[0]), y[1] - 1, 0.5])

    got = solve(residual, [0.7, 0.0], [-5.0, -5.0], [5.0, 5.0], max_steps=300)
    assert ended(got) == "stalled"
    assert int(got.stats["num_steps"]) < 80
    np.testing.assert_allclose(got.value, [0.3, 1.0], atol=1e-2)


@pytest.mark.parametrize(("effect", "how"), [(1e-9, "successful"), (0.1, "stalled")])
def test_what_cannot_matter_inside_its_bounds_does_not_keep_a_fit_from_converging(effect, how):
    """A rate at its floor, say: its gradient is as large as its deviation is wide."""

    def residual(y):
        return jnp.stack([y[0] - 1, 0.5 + jnp.where(y[1] < 0.3, -effect * y[1], y[1])])

    got = solve(residual, [0.0, 0.25], [-5.0, 0.0], [5.0, 5.0])
    assert ended(got) == how
    np.testing.assert_allclose(got.value[0], 1.0, atol=1e-2)


def test_idle_is_what_neither_gains_nor_matters_across_the_box():
    """A tolerance of 0.1 lets c2 move by 0.1 deviations, and half the cost change by 0.005."""
    box = BoxDescent(jnp.zeros(4), jnp.full(4, 10.0))
    hessian = jnp.diag(jnp.asarray([0.0099, 0.0101, 0.0099, 0.0]) ** 2)
    grad = jnp.asarray([4.9e-4, 0.0, -5.1e-4, 0.0])
    local = Quadratic(grad, hessian, jnp.asarray(1.0), jnp.asarray(0.0), None)
    np.testing.assert_array_equal(box.idle(local, 0.1), [True, False, False, True])


def test_the_limit_may_be_an_array_and_a_new_one_does_not_compile_again():
    @jax.jit
    def run(max_steps, tolerance):
        s = solve(
            rosenbrock, [-1.2, 1.0], [-5.0, -5.0], [5.0, 5.0], None,
            limit=max_steps, tolerance=tolerance,
        )  # fmt: skip
        return places(outcome(s)), s.stats["num_steps"]

    codes = [[int(x) for x in run(n, 1e-5)] for n in (2, 4, 500)]
    assert codes[:2] == [[1, 2], [1, 4]] and codes[2][0] == 0
    assert run(500, 1e-2)[1] < codes[2][1]
    assert run._cache_size() == 1


def test_results_are_kept_by_name_alone_and_in_batches():
    assert [str(getattr(RESULTS, name)) != "" for name in ENDS] == [True] * 6
    batch = results_at(jnp.asarray([3, 0, 4]))
    np.testing.assert_array_equal(places(batch), [3, 0, 4])
    np.testing.assert_array_equal(batch == RESULTS.successful, [False, True, False])
    assert "still change" in RESULTS[jax.tree.map(lambda x: x[2], batch)]


def local(y, matrix, target, noise=0.0):
    r = matrix @ y - target
    return Quadratic(matrix.T @ r, matrix.T @ matrix, jnp.ones(()), jnp.asarray(noise), None)


def test_a_step_in_a_box_is_the_damped_newton_step_of_the_coordinates_that_are_free():
    y = jnp.asarray([0.0, 0.5, 1.0, 1.0])
    there = local(y, jnp.asarray(MATRIX), jnp.asarray(TARGET))
    descent = BoxDescent(jnp.zeros(4), jnp.ones(4))
    grad = jnp.asarray([2.0, -3.0, -1.0, 1.0])  # out at the lower bound, out at the upper, in
    held = descent.held(y, grad)
    np.testing.assert_array_equal(held, [True, False, True, False])
    step = descent.step(grad, there.hessian, held, jnp.asarray(0.3))
    free = np.asarray([1, 3])
    kept = np.asarray(there.hessian)[np.ix_(free, free)] + 0.3 * np.eye(2)
    np.testing.assert_allclose(step[free], -np.linalg.solve(kept, grad[free]), rtol=1e-12)
    assert np.all(step[np.asarray([0, 2])] == 0)


def test_optimality_is_in_standard_deviations_and_without_held_coordinates():
    descent = BoxDescent(jnp.asarray([0.0, -9.0]), jnp.full(2, 9.0))
    hessian = jnp.asarray([[4.0, 1.0], [1.0, 1.0]])
    here = Quadratic(jnp.asarray([8.0, -3.0]), hessian, jnp.asarray(4.0), jnp.zeros(()), None)
    inside = descent.optimality(jnp.asarray([1.0, 1.0]), here)
    assert float(inside.gradient) == pytest.approx(8 / 2 / 2)
    left = np.linalg.solve(hessian, here.grad)
    assert float(inside.step) == pytest.approx(np.sqrt(left @ hessian @ left / 4), rel=1e-8)
    on_bound = descent.optimality(jnp.asarray([0.0, 1.0]), here)
    assert np.array_equal(on_bound.held, [True, False])
    assert float(on_bound.gradient) == 1.5 and float(on_bound.step) == pytest.approx(1.5)


@pytest.mark.parametrize(("times_noise", "uses_gradients"), [(90.0, True), (110.0, False)])
def test_changes_of_the_cost_near_rounding_are_taken_from_gradients(times_noise, uses_gradients):
    step, matrix, target = jnp.full(4, 1e-3), jnp.asarray(MATRIX), jnp.asarray(TARGET)
    before, after = (local(y, matrix, target, 1e-6) for y in (jnp.zeros(4), step))
    true = 0.5 * np.sum((MATRIX @ step - TARGET) ** 2) - 0.5 * np.sum(TARGET**2)
    by_cost = times_noise * 1e-6
    found = cost_change(step, jnp.asarray(by_cost), before, after)
    want = float(true) if uses_gradients else by_cost
    assert float(found) == pytest.approx(want, rel=1e-9)


def test_the_correction_learns_what_gauss_newton_leaves_out_and_says_whether_it_helps():
    """A quadratic whose second derivative is `whole`, of which Gauss-Newton has the diagonal."""
    whole = jnp.asarray([[3.0, 1.0, 0.0], [1.0, 2.0, -1.0], [0.0, -1.0, 4.0]])
    part = jnp.diag(jnp.diag(whole))

    def at(y):
        return Quadratic(whole @ y, part, jnp.ones(()), jnp.zeros(()), None)

    learnt, y = Correction(jnp.zeros((3, 3)), jnp.asarray(False)), jnp.asarray([1.0, -2.0, 0.5])
    np.testing.assert_array_equal(learnt.complete(part), part)
    for step in np.random.default_rng(1).normal(size=(5, 3)):
        change = 0.5 * (y + step) @ whole @ (y + step) - 0.5 * y @ whole @ y
        learnt = learnt.learn(step, change, at(y), at(y + step))
        y = y + step
    np.testing.assert_allclose(learnt.matrix, whole - part, atol=1e-10)
    assert bool(learnt.in_use)
    np.testing.assert_allclose(learnt.complete(part), whole, rtol=1e-10, atol=1e-10)
    step = jnp.asarray([0.0, 0.0, 1.0])  # along which Gauss-Newton leaves nothing out
    half = Correction(learnt.matrix.at[2, 2].set(1.0), learnt.in_use)
    change = 0.5 * (y + step) @ whole @ (y + step) - 0.5 * y @ whole @ y
    assert not half.learn(step, change, at(y), at(y + step)).in_use


@pytest.mark.parametrize(("share", "helps"), [(0.65, False), (0.75, True), (1.25, True)])
def test_a_correction_is_used_where_it_explains_most_of_what_was_missed(share, helps):
    def at(y):
        return Quadratic(5.0 * y, jnp.full((1, 1), 3.0), jnp.ones(()), jnp.zeros(()), None)

    y, step = jnp.ones(1), jnp.full(1, 0.5)
    change = 2.5 * (1.5**2 - 1.0)
    learnt = Correction(jnp.full((1, 1), 2.0 * share), jnp.asarray(False))
    assert bool(learnt.learn(step, change, at(y), at(y + step)).in_use) is helps


def test_patience_ends_after_thirty_evaluations_without_enough_progress():
    patience = Patience(jnp.asarray(jnp.inf), jnp.asarray(0))
    for k in range(29):  # the sum of all gains is progress once
        patience = patience.after(jnp.asarray(10.0 - 0.01 * k), jnp.asarray(0.2))
    assert not patience.is_over and int(patience.idle) == 8 - 1
    for _ in range(30 - 7):
        assert not patience.is_over
        patience = patience.after(jnp.asarray(9.8), jnp.asarray(0.2))
    assert patience.is_over


def test_a_corrected_matrix_is_positive():
    correction = Correction(jnp.diag(jnp.asarray([-5.0, 1.0])), jnp.asarray(True))
    found = correction.complete(jnp.diag(jnp.asarray([2.0, 2.0])))
    np.testing.assert_allclose(found, np.diag([3.0, 3.0]), rtol=1e-12)


def test_the_solver_works_inside_shard_map():
    """Where solvers of lineax refuse to."""
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("x")

    def one(start):
        solution = solve(rosenbrock, start[0], [-5.0, -5.0], [5.0, 5.0], tolerance=1e-5)
        return solution.value[None], places(outcome(solution))[None]

    run = jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    value, place = jax.jit(run)(jnp.asarray([[-1.2, 1.0]]))
    alone = solve(rosenbrock, [-1.2, 1.0], [-5.0, -5.0], [5.0, 5.0], tolerance=1e-5)
    assert int(place[0]) == 0
    np.testing.assert_allclose(value[0], alone.value, rtol=1e-12)
