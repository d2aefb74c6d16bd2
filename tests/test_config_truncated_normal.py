"""The truncated normal against high-precision integrals."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from twotime.config import truncated_normal as tn

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
    assert float(tn.log_mass(jnp.array(a), jnp.array(b))) == pytest.approx(
        float(mpmath.log(mass)), rel=1e-11, abs=1e-11
    )
    ours = tn.moments(jnp.array(a), jnp.array(b))
    scale = abs(float(mean)) + float(mpmath.sqrt(variance))
    assert abs(float(ours[0]) - float(mean)) < 1e-9 * scale
    nearest = min(abs(a), abs(b)) if a * b > 0 else 0.0
    digits = 1e-8 if nearest < 9 or b - a < 1 else 1e-3  # nothing is that far out on purpose
    assert float(ours[1]) == pytest.approx(float(variance), rel=digits)


@pytest.mark.parametrize(("a", "b"), CASES)
def test_quantile_inverts_cdf(a, b):
    p = jnp.linspace(0.01, 0.99, 25)
    z = tn.quantile(p, jnp.array(a), jnp.array(b))
    assert bool(jnp.all((z >= a) & (z <= b)))
    np.testing.assert_allclose(tn.cdf(z, jnp.array(a), jnp.array(b)), p, atol=1e-7)


@pytest.mark.parametrize(("a", "b"), CASES)
def test_derivatives_are_finite(a, b):
    for function in (tn.log_mass, lambda x, y: sum(tn.moments(x, y))):
        assert np.isfinite(jax.grad(function, argnums=(0, 1))(a, b)).all()
    assert np.isfinite(jax.grad(lambda x: tn.log_mass(x, x + 1.0))(a))


def test_cdf_ends():
    low, high = jnp.array(-1.0), jnp.array(2.0)
    np.testing.assert_allclose(tn.cdf(jnp.array([-5.0, -1.0, 2.0, 9.0]), low, high), [0, 0, 1, 1])
