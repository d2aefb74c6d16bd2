"""Geodesic acceleration: channels of an accelerated step move along a straight line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BY_NAME

import twotime as tt
from twotime.fit.geodesic import accelerate
from twotime.gram import Tiled
from twotime.gram.problem import make_problem
from twotime.models.scaling import Averaged
from twotime.solver import Proposal

CASE = BY_NAME["static"]


@pytest.fixture(scope="module")
def problem():
    space = CASE.space.with_vary({"D_offset": True})
    return make_problem(CASE.model, CASE.data, space, Averaged(), Tiled())


@pytest.fixture(scope="module")
def accelerated(problem):
    """Ends of accelerated steps, compiled once."""
    return jax.jit(lambda proposal: accelerate(proposal, problem))


def proposal(problem, step, low=-50.0, high=50.0, held=(False,) * 3, damping=0.0):
    start = jnp.asarray(CASE.truth) / problem.scale
    bounds = (jnp.broadcast_to(jnp.asarray(x, float), (3,)) for x in (low, high))
    return Proposal(
        start, start + jnp.asarray(step), jnp.asarray(held), *bounds, jnp.asarray(damping)
    )


def decays(problem, y):
    """exp of minus the clock's way over some lags at some ages."""
    params = problem.params(y)
    t = jnp.asarray(CASE.data.t)
    clock = CASE.model.channels(params, t, t=t, q=CASE.data.q, phi=0.0).decay[0]
    early, late = np.asarray([0, 0, 5, 20]), np.asarray([3, 39, 15, 39])
    return clock[late] - clock[early]


STEP = np.asarray([0.2, -0.6, 0.3])


def test_the_clock_of_a_long_step_moves_along_its_tangent(problem, accelerated):
    """A straight step along the valley of a power law misses the tangent by far more."""
    straight = proposal(problem, STEP)
    value, slope = jax.jvp(
        lambda y: decays(problem, y), (straight.start,), (straight.end - straight.start,)
    )
    end = accelerated(straight)
    missed = [np.linalg.norm(decays(problem, y) - value - slope) for y in (straight.end, end)]
    assert missed[1] < 0.05 * missed[0]
    assert not np.allclose(end, straight.end, rtol=1e-2)


def test_a_short_step_changes_only_in_second_order(problem, accelerated):
    moved = []
    for size in (0.02, 0.01):
        straight = proposal(problem, size * STEP)
        moved.append(np.linalg.norm(accelerated(straight) - straight.end))
    assert 3.5 < moved[0] / moved[1] < 4.5


def test_held_parameters_stay_and_the_end_is_inside_the_box(problem, accelerated):
    held = proposal(problem, [0.2, 0.0, 0.3], held=(False, True, False))
    end = accelerated(held)
    assert end[1] == held.start[1] and end[0] != held.end[0]
    start = held.start
    tight = proposal(problem, STEP, start - 0.1, start + 0.1)
    end = accelerated(tight)
    assert np.all((end >= tight.lower) & (end <= tight.upper))
    assert np.any((end == tight.lower) | (end == tight.upper))


def test_a_damped_step_is_changed_less(problem, accelerated):
    """With all the damping of the straight step there is little left to correct."""
    changes = [
        float(np.linalg.norm(accelerated(p) - p.end))
        for p in (proposal(problem, STEP, damping=d) for d in (0.0, 1e-2, 1e4))
    ]
    assert changes[0] > changes[1] > changes[2] and changes[2] < 1e-3 * changes[0]


@pytest.mark.parametrize("start", [(3e4, 0.6, 1e4), (1e3, 1.5, 1e3)])
def test_a_fit_along_a_curved_valley_takes_few_evaluations(start):
    """7 and 8; along straight steps 27 and 32."""
    space = CASE.space.with_vary({"D_offset": True})
    space = space.with_values(dict(zip(space.names, start, strict=True)))
    fit = tt.fit_nlsq(CASE.model, CASE.data, space, evaluator="tiled", tolerance=1e-3)
    assert fit.converged and int(fit.n_evaluations) <= 12
