"""Maps between intervals and the real line, and the truncated normal."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotime.config import priors
from twotime.sample import coordinates

INTERVALS = [(0.0, 1.0), (1e-6, 1e4), (100.0, 1e6), (-1e5, 1e5), (-10.0, 10.0), (-1e4, 1.0)]
fractions = st.floats(1e-12, 1 - 1e-12)


@given(interval=st.sampled_from(INTERVALS), fraction=fractions)
def test_round_trip_inside_bounds(interval, fraction):
    low, high = interval
    x = low + fraction * (high - low)
    back = float(
        coordinates.real_to_interval(coordinates.interval_to_real(x, low, high), low, high)
    )
    assert abs(back - x) <= 1e-9 * abs(x) + 4e-16 * (high - low)


@pytest.mark.parametrize("x", [1e-3, -1e-7, 3e-12])
def test_digits_survive_in_the_middle_of_symmetric_bounds(x):
    back = coordinates.real_to_interval(coordinates.interval_to_real(x, -1e5, 1e5), -1e5, 1e5)
    assert float(back) == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize("x", [1.0000001e-6, 2e-6, 1e-3])
def test_digits_survive_near_a_small_lower_bound(x):
    back = coordinates.real_to_interval(coordinates.interval_to_real(x, 1e-6, 1e4), 1e-6, 1e4)
    assert float(back) == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize("interval", INTERVALS)
def test_values_and_slopes_are_finite_on_the_bounds(interval):
    low, high = interval
    for x in (low, np.nextafter(low, high), np.nextafter(high, low), high):
        value, slope = jax.value_and_grad(coordinates.interval_to_real)(x, low, high)
        assert np.isfinite(value) and np.isfinite(slope)
    for u in (-800.0, -40.0, 0.0, 40.0, 800.0):
        value, slope = jax.value_and_grad(coordinates.real_to_interval)(u, low, high)
        assert low <= value <= high and np.isfinite(slope)


@pytest.mark.parametrize("interval", INTERVALS)
def test_jacobian_is_the_slope(interval):
    u = jnp.linspace(-5, 5, 41)
    slopes = jax.vmap(jax.grad(lambda v: coordinates.real_to_interval(v, *interval)))(u)
    expected = jnp.exp(coordinates.interval_log_jacobian(u, *interval))
    np.testing.assert_allclose(slopes, expected, rtol=1e-9)


def test_integers_become_floats():
    assert jnp.issubdtype(priors.as_float(3).dtype, jnp.floating)
    assert priors.as_float(jnp.float32(3)).dtype == jnp.float32


# The truncated normal against high-precision integrals

mpmath.mp.dps = 500
CASES = [
    (-1.0, 1.0),
    (0.0, 2.0),
    (-0.99, 99.0),
    (-1e5, 1e5),
    (3.0, 4.0),
    (-4.0, -3.0),
    (8.0, 40.0),
    (-12.0, -10.0),
    (-30.0, -25.0),
    (20.0, 20.001),
    (-1e-4, 1e-4),
    (0.3, 0.3001),
]


def exact(a, b):
    """Mass, mean and variance from 500-digit arithmetic."""
    a, b = mpmath.mpf(a), mpmath.mpf(b)
    density = [mpmath.npdf(a), mpmath.npdf(b)]
    mass = (mpmath.erfc(a / mpmath.sqrt(2)) - mpmath.erfc(b / mpmath.sqrt(2))) / 2
    mean = (density[0] - density[1]) / mass
    variance = 1 + (a * density[0] - b * density[1]) / mass - mean**2
    return mass, mean, variance


@pytest.mark.parametrize(("a", "b"), CASES)
def test_mass_and_moments(a, b):
    mass, mean, variance = exact(a, b)
    log_mass, *ours = priors.truncated(jnp.array(a), jnp.array(b))
    assert float(log_mass) == pytest.approx(float(mpmath.log(mass)), rel=1e-11, abs=1e-11)
    scale = abs(float(mean)) + float(mpmath.sqrt(variance))
    assert abs(float(ours[0]) - float(mean)) < 1e-12 * scale
    assert float(ours[1]) == pytest.approx(float(variance), rel=1e-11)


@pytest.mark.parametrize(("a", "b"), CASES)
def test_derivatives_are_finite(a, b):
    for which in range(3):
        slopes = jax.grad(lambda x, y: priors.truncated(x, y)[which], argnums=(0, 1))(a, b)  # noqa: B023
        assert np.isfinite(slopes).all()
    assert np.isfinite(jax.grad(lambda x: priors.truncated(x, x + 1.0)[0])(a))
