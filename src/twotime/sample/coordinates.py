"""Coordinates without bounds in which posteriors are sampled, and the priors in them.

Every free parameter x in its domain (bounds cut to the prior's support) becomes a number z on
the whole line: z = logit((s(x) - s(low)) / (s(high) - s(low))), with s the logarithm where the
space says so and the identity elsewhere. The density in z has the factor |dx/dz|. Contrasts and
offsets have such coordinates where they are sampled.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from twotime.config.parameter_space import ParameterSpace
from twotime.config.priors import PriorDistribution, PriorType, as_float, off_bound
from twotime.models.rates import AnyArray
from twotime.models.scaling import Individual
from twotime.results.nlsq import NLSQResult

_INSIDE = 1e-4
"""Part of the domain by which values on a bound are moved inside."""
_NORMAL = (PriorType.NORMAL, PriorType.TRUNCATED_NORMAL)

Values = Float[AnyArray, "*draw free"]
Free = Float[AnyArray, " free"]


@jax.jit
def interval_to_real(x: ArrayLike, low: ArrayLike, high: ArrayLike) -> Float[Array, "..."]:
    """Map an interval to the real line: log((x - low) / (high - x)).

    A value on a bound (or beyond it) gives a large finite number with derivative 0.
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
    """Map the real line to an interval: the inverse of `interval_to_real`."""
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


class Coordinates(eqx.Module):
    """Maps between bounded parameters and the whole line, with the prior carried along.

    `low` and `high` are the ends of the domains, in logarithm where `is_log`.
    """

    low: Free
    high: Free
    priors: tuple[PriorDistribution, ...]
    is_log: tuple[bool, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def to_values(self, z: Values) -> Values:
        """Parameters from coordinates."""
        s = real_to_interval(z, self.low, self.high)
        log = np.asarray(self.is_log, bool)
        return jnp.where(log, jnp.exp(jnp.where(log, s, 0.0)), s)

    def from_values(self, values: Values) -> Values:
        """Coordinates of parameters; those on a bound are moved inside by 1e-4 of the domain."""
        s = _logarithms(jnp.asarray(values), self.is_log)
        margin = _INSIDE * (self.high - self.low)
        inside = jnp.clip(s, self.low + margin, self.high - margin)
        return interval_to_real(inside, self.low, self.high)

    def slope(self, z: Free) -> Free:
        """dx/dz of each parameter."""
        return jnp.exp(self.log_slope(z))

    def log_slope(self, z: Free) -> Free:
        """Logarithm of dx/dz of each parameter."""
        log_s = interval_log_jacobian(z, self.low, self.high)
        s = real_to_interval(z, self.low, self.high)
        return log_s + jnp.where(np.asarray(self.is_log, bool), s, 0.0)

    def log_prior(self, z: Free) -> Float[Array, ""]:
        """Log density of the prior in these coordinates, log |dx/dz| included."""
        x = self.to_values(z)
        each = [prior.log_prob(x[i]) for i, prior in enumerate(self.priors)]
        return sum(each, jnp.zeros(())) + jnp.sum(self.log_slope(z))


def parameter_coordinates(space: ParameterSpace) -> Coordinates:
    """Coordinates of the varying physics parameters of a space."""
    return make_coordinates(space, tuple(name for name in space.names if space.vary[name]))


def make_coordinates(space: ParameterSpace, names: tuple[str, ...]) -> Coordinates:
    """Coordinates of named parameters, of contrasts and offsets without logarithms."""
    by_name = dict(zip(space.names, space.log_space, strict=True))
    is_log = tuple(by_name.get(name, False) for name in names)
    ends = jnp.asarray([space.domain(name) for name in names], float).reshape(-1, 2).T
    low, high = _logarithms(ends, is_log)
    return Coordinates(low, high, tuple(space.priors[name] for name in names), is_log, names)


def _logarithms(x: Array, is_log: tuple[bool, ...]) -> Array:
    log = np.asarray(is_log, bool)
    return jnp.where(log, jnp.log(jnp.where(log, x, 1.0)), x)


def choose_scaling(
    space: ParameterSpace, fit: NLSQResult | None, mode: Individual, asked: str
) -> str:
    """Resolve scaling="auto": "marginal" where the bounds of contrast and offset are far.

    Raises:
        ValueError: If the choice is unknown, or the priors do not allow it.
    """
    if asked not in ("auto", "marginal", "sampled"):
        raise ValueError(f"scaling is {asked!r}; expected 'auto', 'marginal' or 'sampled'.")
    varying = zip(("contrast", "offset"), space.scaling_varying, strict=True)
    names = [name for name, vary in varying if vary and not mode.is_frozen]
    other = [n for n in names if space.priors[n].prior_type not in _NORMAL]
    if asked == "marginal" and other:
        kind = space.priors[other[0]].prior_type.value
        raise ValueError(
            f"scaling='marginal' integrates over normal priors; {other[0]} has a {kind} prior; "
            "use scaling='sampled' or give it a normal prior."
        )
    if mode.is_series and (asked == "sampled" or other):
        raise ValueError(
            "per_angle_mode 'fourier' needs normal priors of contrast and offset and "
            "scaling='marginal': bounds on every angle cannot be put on the coefficients."
        )
    if asked != "auto" or mode.is_series:
        return "marginal" if asked == "auto" else asked
    is_near = fit is not None and bool(np.any(fit.scaling_at_bound))
    return "sampled" if other or is_near else "marginal"
