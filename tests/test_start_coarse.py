"""Coarse graining, and coarse fits: downhill, inside the bounds, what is known kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.models.scaling import Averaged
from twotime.start.coarse import coarse_chi2, coarse_fit, coarse_grain, coarse_problem

T, TRUTH = np.arange(1, 61) * 0.1, np.array([9000.0, -0.4, 500.0])


@pytest.fixture(scope="module")
def coarse():
    model = tt.StaticDiffusion()
    space = tt.ParameterSpace(vary={"D_offset": True})
    data = tt.simulate(
        model, jnp.asarray(TRUTH), t=T, q=0.005, phi=np.zeros(1), contrast=0.3, offset=1.0,
        noise=0.02, key=jax.random.key(0),
    )  # fmt: skip
    return coarse_problem(model, data, space, Averaged(), coarse_grain(data)), space


def chi2(coarse, params):
    problem = coarse[0]
    return np.asarray(coarse_chi2(problem, jnp.asarray(params)))


def drawn(space, count):
    places = np.random.default_rng(3).uniform(size=(count, 3))
    inside = space.lower + places * (space.upper - space.lower)
    inside[0], inside[1] = space.lower, space.upper
    return inside


def test_candidates_go_downhill_inside_the_bounds(coarse):
    space = coarse[1]
    # More than one piece, the last of them padded.
    candidates = drawn(space, 10)
    ends, costs = coarse_fit(*coarse, (0, 1, 2), candidates)
    assert ends.shape == candidates.shape and costs.shape == (10,)
    assert np.all((ends >= space.lower) & (ends <= space.upper))
    assert np.all(costs <= chi2(coarse, candidates) * (1 + 1e-9))
    np.testing.assert_allclose(costs, chi2(coarse, ends), rtol=1e-8)
    again, lower = coarse_fit(*coarse, (0, 1, 2), ends)
    assert np.all(lower <= costs * (1 + 1e-9)) and again.shape == ends.shape


def test_from_nearby_the_optimum_is_reached(coarse):
    _, (cost,) = coarse_fit(*coarse, (0, 1, 2), 1.2 * TRUTH[None])
    assert cost <= chi2(coarse, TRUTH[None])[0]


def test_what_is_not_free_stays(coarse):
    candidates = np.array([[2000.0, -1.0, 300.0], [2e4, 1.0, -300.0]])
    ends, costs = coarse_fit(*coarse, (0,), candidates)
    np.testing.assert_array_equal(ends[:, 1:], candidates[:, 1:])
    assert np.all(costs < chi2(coarse, candidates)) and np.all(ends[:, 0] != candidates[:, 0])
