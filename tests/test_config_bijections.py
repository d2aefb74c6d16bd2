"""Maps between intervals and the real line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotime.config import priors as bij

INTERVALS = [(0.0, 1.0), (1e-6, 1e4), (100.0, 1e6), (-1e5, 1e5), (-10.0, 10.0), (-1e4, 1.0)]
fractions = st.floats(1e-12, 1 - 1e-12)


@given(interval=st.sampled_from(INTERVALS), fraction=fractions)
def test_round_trip_inside_bounds(interval, fraction):
    low, high = interval
    x = low + fraction * (high - low)
    back = float(bij.real_to_interval(bij.interval_to_real(x, low, high), low, high))
    assert abs(back - x) <= 1e-9 * abs(x) + 4e-16 * (high - low)


@pytest.mark.parametrize("x", [1e-3, -1e-7, 3e-12])
def test_digits_survive_in_the_middle_of_symmetric_bounds(x):
    back = bij.real_to_interval(bij.interval_to_real(x, -1e5, 1e5), -1e5, 1e5)
    assert float(back) == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize("x", [1.0000001e-6, 2e-6, 1e-3])
def test_digits_survive_near_a_small_lower_bound(x):
    back = bij.real_to_interval(bij.interval_to_real(x, 1e-6, 1e4), 1e-6, 1e4)
    assert float(back) == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize("interval", INTERVALS)
def test_values_and_slopes_are_finite_on_the_bounds(interval):
    low, high = interval
    for x in (low, np.nextafter(low, high), np.nextafter(high, low), high):
        value, slope = jax.value_and_grad(bij.interval_to_real)(x, low, high)
        assert np.isfinite(value) and np.isfinite(slope)
    for u in (-800.0, -40.0, 0.0, 40.0, 800.0):
        value, slope = jax.value_and_grad(bij.real_to_interval)(u, low, high)
        assert low <= value <= high and np.isfinite(slope)


@pytest.mark.parametrize("interval", INTERVALS)
def test_jacobian_is_the_slope(interval):
    u = jnp.linspace(-5, 5, 41)
    slopes = jax.vmap(jax.grad(lambda v: bij.real_to_interval(v, *interval)))(u)
    expected = jnp.exp(bij.interval_log_jacobian(u, *interval))
    np.testing.assert_allclose(slopes, expected, rtol=1e-9)


def test_positive_half_line():
    x = jnp.array([1e-100, 1.0, 1e100])
    np.testing.assert_allclose(bij.real_to_positive(bij.positive_to_real(x)), x, rtol=1e-12)
    value, slope = jax.value_and_grad(bij.positive_to_real)(0.0)
    assert np.isfinite(value) and slope == 0


def test_integers_become_floats():
    assert jnp.issubdtype(bij.as_float(3).dtype, jnp.floating)
    assert bij.as_float(jnp.float32(3)).dtype == jnp.float32
