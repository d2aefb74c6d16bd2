"""Starting points: spread over the bounds, and off bounds on which a fit would stay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BY_NAME

from twotime.gram import Tiled
from twotime.gram.problem import make_problem
from twotime.models.scaling import Averaged
from twotime.start import make_starts, off_bounds

CASE = BY_NAME["static"]
SPACE = CASE.space.with_vary({"D_offset": True})


@pytest.fixture(scope="module")
def moved():
    """Moves a start off the bounds [100, 1e6], [-2, 2] and [-1e5, 100]."""
    problem = make_problem(CASE.model, CASE.data, SPACE, Averaged(), Tiled())
    lower, upper = jnp.asarray([100.0, -2.0, -1e5]), jnp.asarray([1e6, 2.0, 100.0])
    log_space = np.asarray([True, False, False])
    move = jax.jit(lambda start: off_bounds(problem, start, lower, upper, log_space))
    return problem, lambda *start: np.asarray(move(jnp.asarray(start)))


def test_what_is_inside_stays(moved):
    np.testing.assert_array_equal(moved[1](2e4, -0.2, 50.0), [2e4, -0.2, 50.0])


def test_what_lies_on_a_bound_moves_inwards_by_a_thousandth_of_its_size(moved):
    problem, move = moved
    low, high = move(2e4, -2.0, 50.0), move(2e4, 2.0, 50.0)
    reach = min(float(problem.scale[1]), 4.0)
    assert low[1] == pytest.approx(-2.0 + 1e-3 * reach)
    assert high[1] == pytest.approx(2.0 - 1e-3 * reach)
    np.testing.assert_array_equal(low[[0, 2]], [2e4, 50.0])


def test_without_any_effect_it_moves_to_the_middle_of_the_bounds(moved):
    """J < 0 throughout; the middle of D0 is that of logarithms."""
    found = moved[1](100.0, 0.0, -1e5)
    np.testing.assert_allclose(found, [1e4, 0.0, 0.5 * (100.0 - 1e5)])


def test_spread_starts_are_inside_the_bounds_and_the_first_is_the_own():
    key = jax.random.key(2)
    starts = make_starts(CASE.model, CASE.data, CASE.space, Averaged(), 4, key)
    assert starts.shape == (4, 3) and len(np.unique(starts[:, 0])) == 4
    np.testing.assert_array_equal(starts[0], CASE.space.initial)
    assert np.all((starts >= CASE.space.lower) & (starts <= CASE.space.upper))
    np.testing.assert_array_equal(starts[:, 2], CASE.value("D_offset"))  # does not vary


def test_given_starts_are_cut_to_the_bounds():
    given = np.asarray([[1e12, 0.0, 50.0]])
    starts = make_starts(CASE.model, CASE.data, CASE.space, Averaged(), given, None)
    assert float(starts[0, 0]) == CASE.space.upper[0]
