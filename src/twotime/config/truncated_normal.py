"""The truncated normal distribution in standard units, stable in both tails.

Bounds a < b are in units of the scale, counted from the location.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf, log_ndtr, ndtr, ndtri
from jaxtyping import Array, Float

_SQRT2 = 2.0**0.5
_LOG_SQRT_2PI = 0.5 * float(np.log(2 * np.pi))


def log_density(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logarithm of the standard normal density."""
    return -0.5 * z**2 - _LOG_SQRT_2PI


def _mirrored(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """The interval, mirrored where needed so that it starts left of 0; and where it was."""
    is_right = a > 0
    return jnp.where(is_right, -b, a), jnp.where(is_right, -a, b), is_right


@jax.jit
def log_mass(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logarithm of the standard normal probability of [a, b]; needs a < b."""
    is_narrow = b - a < 1
    narrow = _log_mass_of_narrow(jnp.where(is_narrow, a, -0.5), jnp.where(is_narrow, b, 0.5))
    wide = _log_mass_of_wide(jnp.where(is_narrow, -1.0, a), jnp.where(is_narrow, 1.0, b))
    return jnp.where(is_narrow, narrow, wide)


def _log_mass_of_wide(a: Array, b: Array) -> Array:
    a, b, _ = _mirrored(a, b)
    holds_zero = b > 0
    # Each branch sees harmless numbers where the other one is chosen: no NaN in derivatives.
    around = erf(jnp.where(holds_zero, b, 1.0) / _SQRT2)
    around = around - erf(jnp.where(holds_zero, a, -1.0) / _SQRT2)
    log_b = log_ndtr(jnp.where(holds_zero, -1.0, b))
    log_a = log_ndtr(jnp.where(holds_zero, -2.0, a))
    tail = log_b + jnp.log(-jnp.expm1(log_a - log_b))
    return jnp.where(holds_zero, jnp.log(0.5 * around), tail)


@functools.cache
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(32)


def _log_weights_of_narrow(a: Array, b: Array) -> tuple[Array, Array]:
    """Nodes in [-1, 1] and log weights times density relative to the centre, for quadrature.

    Differences of probabilities cancel where b - a is small; quadrature does not.
    """
    nodes, weights = (jnp.asarray(v, a.dtype) for v in _gauss_legendre())
    centre, half = 0.5 * (a + b)[..., None], 0.5 * (b - a)[..., None]
    return nodes, jnp.log(weights) - half * nodes * (centre + 0.5 * half * nodes)


def _log_mass_of_narrow(a: Array, b: Array) -> Array:
    _, log_weights = _log_weights_of_narrow(a, b)
    centre = log_density(0.5 * (a + b)) + jnp.log(0.5 * (b - a))
    return centre + jax.nn.logsumexp(log_weights, axis=-1)


@jax.jit
def cdf(z: Float[Array, "..."], a: Array, b: Array) -> Float[Array, "..."]:
    """Probability of values up to z of the normal truncated to [a, b]."""
    is_inside = z > a
    upper = jnp.where(is_inside, jnp.minimum(z, b), b)
    return jnp.where(is_inside, jnp.exp(log_mass(a, upper) - log_mass(a, b)), 0.0)


@jax.jit
def quantile(p: Float[Array, "..."], a: Array, b: Array) -> Float[Array, "..."]:
    """Value below which the normal truncated to [a, b] has probability p."""
    a, b, is_right = _mirrored(a, b)
    p = jnp.where(is_right, 1 - p, p)
    z = jnp.clip(ndtri(ndtr(a) + p * (ndtr(b) - ndtr(a))), a, b)
    return jnp.where(is_right, -z, z)


def _moments_of_narrow(a: Array, b: Array) -> tuple[Array, Array]:
    nodes, log_weights = _log_weights_of_narrow(a, b)
    density = jax.nn.softmax(log_weights, axis=-1)
    mean = jnp.sum(density * nodes, axis=-1)
    variance = jnp.sum(density * (nodes - mean[..., None]) ** 2, axis=-1)
    half = 0.5 * (b - a)
    return 0.5 * (a + b) + half * mean, half**2 * variance


@jax.jit
def moments(a: Float[Array, "..."], b: Float[Array, "..."]) -> tuple[Array, Array]:
    """Mean and variance of the standard normal truncated to [a, b]."""
    is_narrow = b - a < 1
    near_a, near_b = jnp.where(is_narrow, a, -0.5), jnp.where(is_narrow, b, 0.5)
    wide_a, wide_b = jnp.where(is_narrow, -1.0, a), jnp.where(is_narrow, 1.0, b)
    log_z = _log_mass_of_wide(wide_a, wide_b)
    at_a, at_b = (jnp.exp(log_density(z) - log_z) for z in (wide_a, wide_b))
    mean = at_a - at_b
    variance = 1 + (wide_a * at_a - wide_b * at_b) - mean**2
    narrow_mean, narrow_variance = _moments_of_narrow(near_a, near_b)
    return jnp.where(is_narrow, narrow_mean, mean), jnp.where(is_narrow, narrow_variance, variance)
