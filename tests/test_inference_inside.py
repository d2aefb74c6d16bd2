"""Starts where some parameters have no effect are moved to where they have one."""

import jax.numpy as jnp
import numpy as np

import twotime as tt
from twotime.fit.feasible import off_plateau
from twotime.models.rates import fraction

T = np.arange(1, 51) * 0.1
PARAMS = np.array([4e3, 0.1, 0, 8e3, -0.2, 0, 700, 0.2, 0, 0.7, 0.3, 0.5, 0.6, 1.0])


def test_a_fraction_that_is_one_at_all_times_comes_below_one():
    assert np.all(fraction(T, *PARAMS[9:13]) == 1.0)
    moved = off_plateau(tt.TwoComponent(), jnp.asarray(PARAMS), jnp.asarray(T))
    x = fraction(T, *moved[9:13])
    np.testing.assert_allclose(np.min(x), 0.98, rtol=1e-12)
    changed = np.flatnonzero(np.asarray(moved) != PARAMS)
    np.testing.assert_array_equal(changed, [9, 12])


def test_elsewhere_and_in_other_models_nothing_moves():
    partly = PARAMS.copy()
    partly[9:13] = 0.7, -0.3, 0.0, 0.4
    x = fraction(T, *partly[9:13])
    assert np.any(x == 1.0) and np.any(x < 1.0)
    moved = off_plateau(tt.TwoComponent(), jnp.asarray(partly), jnp.asarray(T))
    np.testing.assert_array_equal(moved, partly)
    static = jnp.asarray([1e4, -0.5, 0.0])
    moved = off_plateau(tt.StaticDiffusion(), static, jnp.asarray(T))
    np.testing.assert_array_equal(moved, static)
