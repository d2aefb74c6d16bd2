"""Coordinates without bounds in which posteriors are sampled, and the prior in them.

Every free parameter x in its domain (bounds cut to the prior's support) becomes a number z on
the whole line: z = logit((s(x) - s(low)) / (s(high) - s(low))), with s the logarithm where the
space says so and the identity elsewhere. The density in z has the factor |dx/dz|.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.config import distributions as bijections
from twotime.config.parameter_space import ParameterSpace
from twotime.config.priors import PriorDistribution
from twotime.models.rates import AnyArray

_KEPT_OFF = 1e-4


class Coordinates(eqx.Module):
    """Maps between bounded parameters and the whole line, with the prior carried along.

    Attributes:
        low: Lower ends of the domains, in logarithm where `is_log`.
        high: Upper ends, likewise.
        priors: Prior of each parameter.
        is_log: Which parameters are mapped by their logarithm.
        names: Names of the parameters.
    """

    low: Float[AnyArray, " free"]
    high: Float[AnyArray, " free"]
    priors: tuple[PriorDistribution, ...]
    is_log: tuple[bool, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def to_values(self, z: Float[Array, "*draw free"]) -> Float[Array, "*draw free"]:
        """Parameters from coordinates."""
        s = bijections.real_to_interval(z, self.low, self.high)
        log = np.asarray(self.is_log)
        return jnp.where(log, jnp.exp(jnp.where(log, s, 0.0)), s)

    def from_values(self, values: Float[AnyArray, "*draw free"]) -> Float[Array, "*draw free"]:
        """Coordinates of parameters; those on a bound are taken a hair (1e-4) inside it."""
        log = np.asarray(self.is_log)
        x = jnp.asarray(values)
        s = jnp.where(log, jnp.log(jnp.where(log, x, 1.0)), x)
        hair = _KEPT_OFF * (self.high - self.low)
        inside = jnp.clip(s, self.low + hair, self.high - hair)
        return bijections.interval_to_real(inside, self.low, self.high)

    def slope(self, z: Float[Array, " free"]) -> Float[Array, " free"]:
        """dx/dz of each parameter."""
        return jnp.exp(self.log_slope(z))

    def log_slope(self, z: Float[Array, " free"]) -> Float[Array, " free"]:
        """Logarithm of dx/dz of each parameter."""
        log_s = bijections.interval_log_jacobian(z, self.low, self.high)
        s = bijections.real_to_interval(z, self.low, self.high)
        return log_s + jnp.where(np.asarray(self.is_log), s, 0.0)

    def log_prior(self, z: Float[Array, " free"]) -> Float[Array, ""]:
        """Log density of the prior in these coordinates, log |dx/dz| included."""
        x = self.to_values(z)
        each = [prior.log_prob(x[i]) for i, prior in enumerate(self.priors)]
        return sum(each, jnp.zeros(())) + jnp.sum(self.log_slope(z))


def parameter_coordinates(space: ParameterSpace) -> Coordinates:
    """Coordinates of the varying physics parameters of a space."""
    index = np.flatnonzero(space.varying)
    names = tuple(space.names[i] for i in index)
    is_log = tuple(space.log_space[i] for i in index)
    return _coordinates(space, names, is_log)


def scaling_coordinates(space: ParameterSpace, kinds: tuple[str, ...]) -> Coordinates:
    """Coordinates of sampled contrasts and offsets.

    Args:
        space: The space.
        kinds: "contrast" or "offset" for each sampled coefficient.
    """
    return _coordinates(space, kinds, (False,) * len(kinds))


def _coordinates(
    space: ParameterSpace, names: tuple[str, ...], is_log: tuple[bool, ...]
) -> Coordinates:
    ends = [space.domain(name) for name in names]
    low, high = (jnp.asarray([end[k] for end in ends], float) for k in (0, 1))
    log = np.asarray(is_log, bool)
    low, high = (jnp.where(log, jnp.log(jnp.where(log, x, 1.0)), x) for x in (low, high))
    return Coordinates(low, high, tuple(space.priors[name] for name in names), is_log, names)
