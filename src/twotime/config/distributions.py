"""Families of prior distributions, and maps between an interval and the real line.

Each family is the logarithm of its density and its first two moments, as functions of its numbers.
The truncated normal is accurate in both tails and in narrow intervals. The maps have finite values
and derivatives everywhere, on the bounds too.
"""

import functools
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf, gammaln, log_ndtr
from jaxtyping import Array, ArrayLike, Float

Numbers = tuple[Array, ...]
Values = Float[Array, "..."]


# Maps between an interval and the real line


def as_float(x: ArrayLike) -> Array:
    """The value as a JAX array of floating type; integers become the default float."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def off_bound(distance: Float[Array, "..."]) -> Float[Array, "..."]:
    """A distance to a bound kept so far from 0 that logarithm and derivative stay finite."""
    return jnp.maximum(distance, jnp.finfo(distance.dtype).tiny ** 0.5)


@jax.jit
def interval_to_real(x: ArrayLike, low: ArrayLike, high: ArrayLike) -> Float[Array, "..."]:
    """Map an interval to the real line: log((x - low) / (high - x)).

    A value on a bound (or beyond it) gives a large finite number with derivative 0.

    Args:
        x: Value between the bounds.
        low: Lower bound.
        high: Upper bound.
    """
    x = as_float(x)
    low, high = jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype)
    width = high - low
    # About the middle of symmetric bounds this keeps the digits that x - low would round away.
    centred = (2 * x - (low + high)) / width
    is_middle = jnp.abs(centred) < 0.5
    middle = 2 * jnp.arctanh(jnp.where(is_middle, centred, 0.0))
    outer = jnp.log(off_bound((x - low) / width)) - jnp.log(off_bound((high - x) / width))
    return jnp.where(is_middle, middle, outer)


@jax.jit
def real_to_interval(u: ArrayLike, low: ArrayLike, high: ArrayLike) -> Float[Array, "..."]:
    """Map the real line to an interval: the inverse of `interval_to_real`.

    Args:
        u: Any number.
        low: Lower bound.
        high: Upper bound.
    """
    u = as_float(u)
    low, high = jnp.asarray(low, u.dtype), jnp.asarray(high, u.dtype)
    width = high - low
    middle = 0.5 * (low + high) + 0.5 * width * jnp.tanh(0.5 * u)
    lower = low + width * jax.nn.sigmoid(u)
    upper = high - width * jax.nn.sigmoid(-u)
    return jnp.where(jnp.abs(u) < 1, middle, jnp.where(u < 0, lower, upper))


@jax.jit
def interval_log_jacobian(u: ArrayLike, low: ArrayLike, high: ArrayLike) -> Float[Array, "..."]:
    """Logarithm of the derivative of `real_to_interval` with respect to u."""
    u = as_float(u)
    width = jnp.asarray(high, u.dtype) - jnp.asarray(low, u.dtype)
    return jnp.log(width) - jax.nn.softplus(u) - jax.nn.softplus(-u)


# The truncated normal in standard units: bounds a < b in units of the scale, from the location

_SQRT2 = 2.0**0.5
_LOG_SQRT_2PI = 0.5 * float(np.log(2 * np.pi))


def log_density(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logarithm of the standard normal density."""
    return -0.5 * z**2 - _LOG_SQRT_2PI


@jax.jit
def log_mass(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Logarithm of the standard normal probability of [a, b]; needs a < b."""
    is_narrow = b - a < 1
    narrow = _log_mass_of_narrow(jnp.where(is_narrow, a, -0.5), jnp.where(is_narrow, b, 0.5))
    wide = _log_mass_of_wide(jnp.where(is_narrow, -1.0, a), jnp.where(is_narrow, 1.0, b))
    return jnp.where(is_narrow, narrow, wide)


def _log_mass_of_wide(a: Array, b: Array) -> Array:
    # Mirrored where needed, so that the interval starts left of 0.
    is_right = a > 0
    a, b = jnp.where(is_right, -b, a), jnp.where(is_right, -a, b)
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


def _moments_of_narrow(a: Array, b: Array) -> tuple[Array, Array]:
    nodes, log_weights = _log_weights_of_narrow(a, b)
    density = jax.nn.softmax(log_weights, axis=-1)
    mean = jnp.sum(density * nodes, axis=-1)
    variance = jnp.sum(density * (nodes - mean[..., None]) ** 2, axis=-1)
    half = 0.5 * (b - a)
    return 0.5 * (a + b) + half * mean, half**2 * variance


@jax.jit
def truncated_moments(a: Float[Array, "..."], b: Float[Array, "..."]) -> tuple[Array, Array]:
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


# Families


class PriorType(Enum):
    """Available prior distribution types."""

    UNIFORM = "uniform"
    NORMAL = "normal"
    TRUNCATED_NORMAL = "truncated_normal"
    LOGNORMAL = "lognormal"
    HALFNORMAL = "halfnormal"
    EXPONENTIAL = "exponential"
    BETA_SCALED = "beta_scaled"


class Family(NamedTuple):
    """One family of distributions, as functions of its numbers.

    Attributes:
        names: Names of the numbers, in the order in which the functions take them.
        support: "real" (all numbers), "positive" (from 0) or "interval" (its low and high).
        log_prob: Log density at values inside the support, bounds included.
        moments: Mean and variance.
    """

    names: tuple[str, ...]
    support: Literal["real", "positive", "interval"]
    log_prob: Callable[[Numbers, Values], Values]
    moments: Callable[[Numbers], tuple[Array, Array]]


def _uniform_log_prob(p: Numbers, x: Values) -> Values:
    low, high = p
    return jnp.zeros_like(x) - jnp.log(high - low)


def _uniform_moments(p: Numbers) -> tuple[Array, Array]:
    low, high = p
    return 0.5 * (low + high), (high - low) ** 2 / 12


def _normal_log_prob(p: Numbers, x: Values) -> Values:
    loc, scale = p
    return log_density((x - loc) / scale) - jnp.log(scale)


def _truncated_log_prob(p: Numbers, x: Values) -> Values:
    loc, scale, low, high = p
    mass = log_mass((low - loc) / scale, (high - loc) / scale)
    return log_density((x - loc) / scale) - jnp.log(scale) - mass


def _truncated_moments(p: Numbers) -> tuple[Array, Array]:
    loc, scale, low, high = p
    mean, variance = truncated_moments((low - loc) / scale, (high - loc) / scale)
    return loc + scale * mean, scale**2 * variance


def _lognormal_log_prob(p: Numbers, x: Values) -> Values:
    loc, scale = p
    log_x = jnp.log(off_bound(x))
    return log_density((log_x - loc) / scale) - jnp.log(scale) - log_x


def _lognormal_moments(p: Numbers) -> tuple[Array, Array]:
    loc, scale = p
    mean = jnp.exp(loc + 0.5 * scale**2)
    return mean, mean**2 * jnp.expm1(scale**2)


def _halfnormal_log_prob(p: Numbers, x: Values) -> Values:
    (scale,) = p
    return log_density(x / scale) - jnp.log(scale) + jnp.log(2.0).astype(x.dtype)


def _halfnormal_moments(p: Numbers) -> tuple[Array, Array]:
    (scale,) = p
    return scale * (2 / jnp.pi) ** 0.5, scale**2 * (1 - 2 / jnp.pi)


def _beta_log_prob(p: Numbers, x: Values) -> Values:
    low, high, one, two = p
    width = high - low
    below, above = off_bound((x - low) / width), off_bound((high - x) / width)
    log_shape = (one - 1) * jnp.log(below) + (two - 1) * jnp.log(above)
    # jax.scipy.special.betaln is off by up to 2e-7 where both concentrations exceed 8.
    log_beta = gammaln(one) + gammaln(two) - gammaln(one + two)
    return log_shape - log_beta - jnp.log(width)


def _beta_moments(p: Numbers) -> tuple[Array, Array]:
    low, high, one, two = p
    total, width = one + two, high - low
    return low + width * one / total, width**2 * one * two / (total**2 * (total + 1))


FAMILIES: Mapping[PriorType, Family] = MappingProxyType(
    {
        PriorType.UNIFORM: Family(("low", "high"), "interval", _uniform_log_prob, _uniform_moments),
        PriorType.NORMAL: Family(
            ("loc", "scale"), "real", _normal_log_prob, lambda p: (p[0], p[1] ** 2)
        ),
        PriorType.TRUNCATED_NORMAL: Family(
            ("loc", "scale", "low", "high"), "interval", _truncated_log_prob, _truncated_moments
        ),
        PriorType.LOGNORMAL: Family(
            ("loc", "scale"), "positive", _lognormal_log_prob, _lognormal_moments
        ),
        PriorType.HALFNORMAL: Family(
            ("scale",), "positive", _halfnormal_log_prob, _halfnormal_moments
        ),
        PriorType.EXPONENTIAL: Family(
            ("rate",),
            "positive",
            lambda p, x: jnp.log(p[0]) - p[0] * x,
            lambda p: (1 / p[0], 1 / p[0] ** 2),
        ),
        PriorType.BETA_SCALED: Family(
            ("low", "high", "concentration1", "concentration2"),
            "interval",
            _beta_log_prob,
            _beta_moments,
        ),
    }
)
