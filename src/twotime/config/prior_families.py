"""The seven prior families: density, distribution, draws and moments of each.

`twotime.config.priors.PriorDistribution` is the face of these; a family holds no numbers, it
takes them as a tuple in the order of its `names`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, erf, gammaln, ndtr
from jaxtyping import Array, Float, PRNGKeyArray

from twotime.config import truncated_normal as tn
from twotime.config.bijections import off_bound

Numbers = tuple[Array, ...]
Values = Float[Array, "..."]
Shape = tuple[int, ...]
Support = Literal["real", "positive", "interval"]


class PriorType(Enum):
    """Available prior distribution types."""

    UNIFORM = "uniform"
    NORMAL = "normal"
    TRUNCATED_NORMAL = "truncated_normal"
    LOGNORMAL = "lognormal"
    HALFNORMAL = "halfnormal"
    EXPONENTIAL = "exponential"
    BETA_SCALED = "beta_scaled"


class AbstractFamily(eqx.Module):
    """One family of distributions, as functions of its numbers.

    Attributes:
        names: Names of the numbers in the order in which the methods take them.
        support: "real" (all numbers), "positive" (from 0) or "interval" (its low and high).
    """

    names: eqx.AbstractClassVar[tuple[str, ...]]
    support: eqx.AbstractClassVar[Support]

    @abstractmethod
    def log_prob(self, p: Numbers, x: Values) -> Values:
        """Log density; called with values inside the support, bounds included."""

    @abstractmethod
    def cdf(self, p: Numbers, x: Values) -> Values:
        """Probability of values up to x; called with values inside the support."""

    @abstractmethod
    def sample(self, p: Numbers, key: PRNGKeyArray, shape: Shape) -> Values:
        """Independent draws."""

    @abstractmethod
    def moments(self, p: Numbers) -> tuple[Array, Array]:
        """Mean and variance."""


class Uniform(AbstractFamily):
    """Equal density on [low, high]."""

    names: ClassVar[tuple[str, ...]] = ("low", "high")
    support: ClassVar[Support] = "interval"

    def log_prob(self, p: Numbers, x: Values) -> Values:
        low, high = p
        return jnp.zeros_like(x) - jnp.log(high - low)

    def cdf(self, p: Numbers, x: Values) -> Values:
        low, high = p
        return (x - low) / (high - low)

    def sample(self, p: Numbers, key: PRNGKeyArray, shape: Shape) -> Values:
        low, high = p
        return low + (high - low) * jax.random.uniform(key, shape, low.dtype)

    def moments(self, p: Numbers) -> tuple[Array, Array]:
        low, high = p
        return 0.5 * (low + high), (high - low) ** 2 / 12


class Normal(AbstractFamily):
    """Gaussian about loc with standard deviation scale."""

    names: ClassVar[tuple[str, ...]] = ("loc", "scale")
    support: ClassVar[Support] = "real"

    def log_prob(self, p: Numbers, x: Values) -> Values:
        loc, scale = p
        return tn.log_density((x - loc) / scale) - jnp.log(scale)

    def cdf(self, p: Numbers, x: Values) -> Values:
        loc, scale = p
        return ndtr((x - loc) / scale)

    def sample(self, p: Numbers, key: PRNGKeyArray, shape: Shape) -> Values:
        loc, scale = p
        return loc + scale * jax.random.normal(key, shape, loc.dtype)

    def moments(self, p: Numbers) -> tuple[Array, Array]:
        loc, scale = p
        return loc, scale**2


class TruncatedNormal(AbstractFamily):
    """Gaussian restricted to [low, high]; loc and scale are those before restriction."""

    names: ClassVar[tuple[str, ...]] = ("loc", "scale", "low", "high")
    support: ClassVar[Support] = "interval"

    def log_prob(self, p: Numbers, x: Values) -> Values:
        loc, scale, low, high = p
        mass = tn.log_mass((low - loc) / scale, (high - loc) / scale)
        return tn.log_density((x - loc) / scale) - jnp.log(scale) - mass

    def cdf(self, p: Numbers, x: Values) -> Values:
        loc, scale, low, high = p
        return tn.cdf((x - loc) / scale, (low - loc) / scale, (high - loc) / scale)

    def sample(self, p: Numbers, key: PRNGKeyArray, shape: Shape) -> Values:
        loc, scale, low, high = p
        u = jax.random.uniform(key, shape, loc.dtype)
        z = tn.quantile(u, (low - loc) / scale, (high - loc) / scale)
        return jnp.clip(loc + scale * z, low, high)

    def moments(self, p: Numbers) -> tuple[Array, Array]:
        loc, scale, low, high = p
        mean, variance = tn.moments((low - loc) / scale, (high - loc) / scale)
        return loc + scale * mean, scale**2 * variance


class LogNormal(AbstractFamily):
    """Positive numbers whose logarithm is Gaussian about loc with standard deviation scale."""

    names: ClassVar[tuple[str, ...]] = ("loc", "scale")
    support: ClassVar[Support] = "positive"

    def log_prob(self, p: Numbers, x: Values) -> Values:
        loc, scale = p
        log_x = jnp.log(off_bound(x))
        return tn.log_density((log_x - loc) / scale) - jnp.log(scale) - log_x

    def cdf(self, p: Numbers, x: Values) -> Values:
        loc, scale = p
        return ndtr((jnp.log(off_bound(x)) - loc) / scale)

    def sample(self, p: Numbers, key: PRNGKeyArray, shape: Shape) -> Values:
        loc, scale = p
        return jnp.exp(loc + scale * jax.random.normal(key, shape, loc.dtype))

    def moments(self, p: Numbers) -> tuple[Array, Array]:
        loc, scale = p
        mean = jnp.exp(loc + 0.5 * scale**2)
        return mean, mean**2 * jnp.expm1(scale**2)


class HalfNormal(AbstractFamily):
    """Absolute value of a Gaussian about 0 with standard deviation scale."""

    names: ClassVar[tuple[str, ...]] = ("scale",)
    support: ClassVar[Support] = "positive"

    def log_prob(self, p: Numbers, x: Values) -> Values:
        (scale,) = p
        return tn.log_density(x / scale) - jnp.log(scale) + jnp.log(2.0).astype(x.dtype)

    def cdf(self, p: Numbers, x: Values) -> Values:
        (scale,) = p
        return erf(x / (scale * 2.0**0.5))

    def sample(self, p: Numbers, key: PRNGKeyArray, shape: Shape) -> Values:
        (scale,) = p
        return scale * jnp.abs(jax.random.normal(key, shape, scale.dtype))

    def moments(self, p: Numbers) -> tuple[Array, Array]:
        (scale,) = p
        return scale * (2 / jnp.pi) ** 0.5, scale**2 * (1 - 2 / jnp.pi)


class Exponential(AbstractFamily):
    """Positive numbers with density rate · exp(-rate · x)."""

    names: ClassVar[tuple[str, ...]] = ("rate",)
    support: ClassVar[Support] = "positive"

    def log_prob(self, p: Numbers, x: Values) -> Values:
        (rate,) = p
        return jnp.log(rate) - rate * x

    def cdf(self, p: Numbers, x: Values) -> Values:
        (rate,) = p
        return -jnp.expm1(-rate * x)

    def sample(self, p: Numbers, key: PRNGKeyArray, shape: Shape) -> Values:
        (rate,) = p
        return jax.random.exponential(key, shape, rate.dtype) / rate

    def moments(self, p: Numbers) -> tuple[Array, Array]:
        (rate,) = p
        return 1 / rate, 1 / rate**2


class BetaScaled(AbstractFamily):
    """Beta(concentration1, concentration2) stretched to [low, high]."""

    names: ClassVar[tuple[str, ...]] = ("low", "high", "concentration1", "concentration2")
    support: ClassVar[Support] = "interval"

    def log_prob(self, p: Numbers, x: Values) -> Values:
        low, high, one, two = p
        width = high - low
        below, above = off_bound((x - low) / width), off_bound((high - x) / width)
        log_shape = (one - 1) * jnp.log(below) + (two - 1) * jnp.log(above)
        # jax.scipy.special.betaln is off by up to 2e-7 where both concentrations exceed 8.
        log_beta = gammaln(one) + gammaln(two) - gammaln(one + two)
        return log_shape - log_beta - jnp.log(width)

    def cdf(self, p: Numbers, x: Values) -> Values:
        low, high, one, two = p
        return betainc(one, two, (x - low) / (high - low))

    def sample(self, p: Numbers, key: PRNGKeyArray, shape: Shape) -> Values:
        low, high, one, two = p
        return low + (high - low) * jax.random.beta(key, one, two, shape, low.dtype)

    def moments(self, p: Numbers) -> tuple[Array, Array]:
        low, high, one, two = p
        total, width = one + two, high - low
        return low + width * one / total, width**2 * one * two / (total**2 * (total + 1))


FAMILIES: Mapping[PriorType, AbstractFamily] = MappingProxyType(
    {
        PriorType.UNIFORM: Uniform(),
        PriorType.NORMAL: Normal(),
        PriorType.TRUNCATED_NORMAL: TruncatedNormal(),
        PriorType.LOGNORMAL: LogNormal(),
        PriorType.HALFNORMAL: HalfNormal(),
        PriorType.EXPONENTIAL: Exponential(),
        PriorType.BETA_SCALED: BetaScaled(),
    }
)
