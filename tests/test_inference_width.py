import jax.numpy as jnp
import numpy as np
import pytest

from twotime.sample.width import open_faced, open_faced_map, temper_power

NAIVE = np.array([[4.0, 1e3], [1e3, 1e6]]) * np.array([[1.0, 0.3], [0.3, 1.0]])
ROBUST = np.array([[90.0, -4e3], [-4e3, 2e7]])


def test_the_map_turns_one_covariance_into_the_other():
    m = np.asarray(open_faced_map(jnp.asarray(NAIVE), jnp.asarray(ROBUST)))
    np.testing.assert_allclose(m @ NAIVE @ m.T, ROBUST, rtol=1e-9)


def test_draws_keep_their_mode_and_get_the_robust_covariance():
    rng = np.random.default_rng(0)
    mode = np.array([1.0, 2.0])
    draws = rng.multivariate_normal(mode, NAIVE, size=20_000)
    arrays = map(jnp.asarray, (draws, mode, NAIVE, ROBUST))
    wide = np.asarray(open_faced(*arrays))
    size = np.sqrt(np.diag(ROBUST))
    unit = size[:, None] * size
    np.testing.assert_allclose(np.cov(wide.T) / unit, ROBUST / unit, atol=0.05)
    np.testing.assert_allclose(wide.mean(0), mode, atol=4 * np.sqrt(np.diag(ROBUST) / 20_000).max())


def test_equal_covariances_change_nothing():
    same = jnp.asarray(NAIVE)
    np.testing.assert_allclose(open_faced_map(same, same), np.eye(2), atol=1e-9)
    assert temper_power(same, same) == pytest.approx(1.0)


def test_the_power_is_the_ratio_of_information():
    assert temper_power(jnp.asarray(NAIVE), 9 * jnp.asarray(NAIVE)) == pytest.approx(1 / 9)
