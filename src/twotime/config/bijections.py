"""Maps between an interval and the real line, accurate at both ends and in the middle.

Samplers and random starts work on the real line; these are the logit map of an interval and the
logarithm of a half line, with finite values and derivatives everywhere, on the bounds too.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


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


def positive_to_real(x: ArrayLike) -> Float[Array, "..."]:
    """Map the positive half line to the real line: log(x), large but finite at 0."""
    return jnp.log(off_bound(as_float(x)))


def real_to_positive(u: ArrayLike) -> Float[Array, "..."]:
    """Map the real line to the positive half line: exp(u)."""
    return jnp.exp(as_float(u))
