"""Maps between an interval and the real line, accurate at both ends and in the middle.

Samplers and random starts work on the real line; these are the logit map of an interval and the
logarithm of a half line, with finite values and derivatives everywhere, on the bounds too.
"""

import importlib.util
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, Literal, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betainc, erf, gammaln, ndtr
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from twotime.config import priors as bijections
from twotime.config import truncated_normal as tn
from twotime.config.parameter_names import nearest
from twotime.models.base import is_concrete


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


_POSITIVE = ("scale", "rate", "concentration1", "concentration2")


def prior_faults(prior_type: PriorType, params: Mapping[str, Any]) -> list[str]:
    """What is wrong with the numbers of a prior, one sentence each; empty if nothing.

    Args:
        prior_type: Which family.
        params: Number of each name, known (not traced).
    """
    names = FAMILIES[prior_type].names
    kind = prior_type.value
    strange = [name for name in params if name not in names]
    missing = [name for name in names if name not in params]
    if strange:
        proposals = {name: nearest(name, names) or "." for name in strange}
        takes = ", ".join(names)
        return [
            f"a {kind} prior has no number {name!r}{proposals[name]} It takes {takes}."
            for name in strange
        ]
    if missing:
        return [f"a {kind} prior needs {' and '.join(map(repr, missing))}."]
    faults = []
    for name in names:
        if not np.isfinite(params[name]):
            faults.append(f"a {kind} prior needs a finite {name}; got {params[name]}.")
        elif name in _POSITIVE and not params[name] > 0:
            faults.append(f"a {kind} prior needs {name} > 0; got {params[name]}.")
    if "low" in names and not faults and not params["low"] < params["high"]:
        faults.append(f"a {kind} prior needs low < high; got {params['low']} and {params['high']}.")
    return faults


@final
class PriorDistribution(eqx.Module):
    """Prior distribution of one parameter.

    The numbers are leaves (vmap, grad and jit see them), the family is static.

    Args:
        prior_type: The family, or its name.
        params: Number of each name the family takes: low, high (uniform); loc, scale (normal,
            lognormal: of the logarithm); loc, scale, low, high (truncated_normal: before
            truncation); scale (halfnormal); rate (exponential); low, high, concentration1,
            concentration2 (beta_scaled).

    Raises:
        ValueError: If numbers are missing, unknown, or outside what the family takes.
    """

    prior_type: PriorType = eqx.field(static=True)
    numbers: Float[Array | np.ndarray, "*batch number"]

    def __init__(self, prior_type: PriorType | str, params: Mapping[str, Any] | None = None):
        self.prior_type = PriorType(prior_type)
        params = {} if params is None else params
        if is_concrete(*params.values()):
            faults = prior_faults(self.prior_type, params)
            if faults:
                raise ValueError(f"Prior: {' '.join(faults)}")
        self.numbers = stack_numbers([params[name] for name in self.family.names])

    @classmethod
    def uniform(cls, low: ArrayLike, high: ArrayLike) -> "PriorDistribution":
        """Create a uniform prior on [low, high]."""
        return cls(PriorType.UNIFORM, {"low": low, "high": high})

    @classmethod
    def normal(cls, loc: ArrayLike, scale: ArrayLike) -> "PriorDistribution":
        """Create a normal (Gaussian) prior."""
        return cls(PriorType.NORMAL, {"loc": loc, "scale": scale})

    @classmethod
    def lognormal(cls, loc: ArrayLike, scale: ArrayLike) -> "PriorDistribution":
        """Create a log-normal prior (for positive parameters); loc and scale of the logarithm."""
        return cls(PriorType.LOGNORMAL, {"loc": loc, "scale": scale})

    @classmethod
    def halfnormal(cls, scale: ArrayLike) -> "PriorDistribution":
        """Create a half-normal prior (for positive parameters)."""
        return cls(PriorType.HALFNORMAL, {"scale": scale})

    @classmethod
    def exponential(cls, rate: ArrayLike) -> "PriorDistribution":
        """Create an exponential prior (for positive parameters) of mean 1/rate."""
        return cls(PriorType.EXPONENTIAL, {"rate": rate})

    @classmethod
    def truncated_normal(
        cls, loc: ArrayLike, scale: ArrayLike, low: ArrayLike, high: ArrayLike
    ) -> "PriorDistribution":
        """Create a truncated normal prior; loc and scale are those before truncation."""
        params = {"loc": loc, "scale": scale, "low": low, "high": high}
        return cls(PriorType.TRUNCATED_NORMAL, params)

    @classmethod
    def beta_scaled(
        cls, low: ArrayLike, high: ArrayLike, concentration1: ArrayLike, concentration2: ArrayLike
    ) -> "PriorDistribution":
        """Create a Beta prior stretched to [low, high].

        Args:
            low: Lower bound of the support.
            high: Upper bound of the support.
            concentration1: First concentration (alpha > 0).
            concentration2: Second concentration (beta > 0).
        """
        params = {"low": low, "high": high}
        params |= {"concentration1": concentration1, "concentration2": concentration2}
        return cls(PriorType.BETA_SCALED, params)

    @property
    def family(self) -> AbstractFamily:
        """The functions of this prior's family."""
        return FAMILIES[self.prior_type]

    @property
    def params(self) -> dict[str, Any]:
        """The numbers by name, a fresh dictionary."""
        values = [self.numbers[..., i] for i in range(len(self.family.names))]
        return dict(zip(self.family.names, map(plain, values), strict=True))

    @property
    def support(self) -> tuple[Any, Any]:
        """Lowest and highest value with positive density."""
        if self.family.support == "interval":
            return self.params["low"], self.params["high"]
        return (0.0 if self.family.support == "positive" else -np.inf), np.inf

    @property
    def mean(self) -> Float[Array, "..."]:
        """Expected value."""
        return self.family.moments(self._numbers())[0]

    @property
    def std(self) -> Float[Array, "..."]:
        """Standard deviation."""
        return jnp.sqrt(self.family.moments(self._numbers())[1])

    def log_prob(self, x: ArrayLike) -> Float[Array, "..."]:
        """Log density; -inf outside the support, with derivative 0 there.

        On a bound where the density vanishes or diverges, the value a hair inside it is given,
        so that it and its derivative stay finite.
        """
        x = bijections.as_float(x)
        inside, is_inside, _ = self._inside(x)
        return jnp.where(is_inside, self.family.log_prob(self._numbers(x.dtype), inside), -jnp.inf)

    def cdf(self, x: ArrayLike) -> Float[Array, "..."]:
        """Probability of values up to x."""
        x = bijections.as_float(x)
        inside, is_inside, is_above = self._inside(x)
        value = self.family.cdf(self._numbers(x.dtype), inside)
        return jnp.where(is_inside, value, jnp.where(is_above, 1.0, 0.0))

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
        """Independent draws.

        Args:
            key: JAX random key.
            shape: Shape of the result.
        """
        return self.family.sample(self._numbers(), key, shape)

    def to_unconstrained(self, x: ArrayLike) -> Float[Array, "..."]:
        """Map the support to the real line; finite on the bounds too."""
        if self.family.support == "interval":
            low, high = self._bounds()
            return bijections.interval_to_real(x, low, high)
        if self.family.support == "positive":
            return bijections.positive_to_real(x)
        return bijections.as_float(x)

    def from_unconstrained(self, u: ArrayLike) -> Float[Array, "..."]:
        """Map the real line to the support: the inverse of `to_unconstrained`."""
        if self.family.support == "interval":
            low, high = self._bounds()
            return bijections.real_to_interval(u, low, high)
        if self.family.support == "positive":
            return bijections.real_to_positive(u)
        return bijections.as_float(u)

    def log_jacobian(self, u: ArrayLike) -> Float[Array, "..."]:
        """Logarithm of the derivative of `from_unconstrained` at u.

        The log density on the real line is `log_prob(from_unconstrained(u)) + log_jacobian(u)`.
        """
        if self.family.support == "interval":
            low, high = self._bounds()
            return bijections.interval_log_jacobian(u, low, high)
        u = bijections.as_float(u)
        return u if self.family.support == "positive" else jnp.zeros_like(u)

    def truncated(self, low: ArrayLike, high: ArrayLike) -> "PriorDistribution":
        """A normal or truncated normal prior cut to other bounds, as a new prior.

        Raises:
            TypeError: If the prior is of another family.
        """
        if "loc" not in self.family.names or self.prior_type is PriorType.LOGNORMAL:
            kind = self.prior_type.value
            raise TypeError(f"Only a normal prior can be cut to bounds; got {kind}.")
        params = self.params
        return PriorDistribution.truncated_normal(params["loc"], params["scale"], low, high)

    def as_beta(self) -> "PriorDistribution":
        """The beta prior on this one's support with the same mean and standard deviation.

        Raises:
            TypeError: If the support is not an interval.

        Reference:
            Method of moments: with m and s the mean and standard deviation in units of the
            support, k = m(1-m)/s² - 1, the concentrations are m·k and (1-m)·k.
        """
        if self.family.support != "interval":
            raise TypeError(f"A beta prior needs an interval; got {self.prior_type.value}.")
        low, high = self._bounds()
        m, s = (self.mean - low) / (high - low), self.std / (high - low)
        k = m * (1 - m) / s**2 - 1
        bounds = self.params
        return PriorDistribution.beta_scaled(
            bounds["low"], bounds["high"], plain(m * k), plain((1 - m) * k)
        )

    def to_numpyro(self, name: str) -> Any:
        """Convert to the NumPyro distribution of the same density.

        Args:
            name: The parameter's name, for the message where NumPyro is missing.

        Raises:
            ModuleNotFoundError: If NumPyro is not installed.
        """
        if importlib.util.find_spec("numpyro") is None:
            raise ModuleNotFoundError(
                f"The prior of {name!r} cannot become a NumPyro distribution because NumPyro is "
                "not installed: python -m pip install numpyro."
            )
        dist = importlib.import_module("numpyro.distributions")
        p = self.params
        if self.prior_type is PriorType.BETA_SCALED:
            stretch = dist.transforms.AffineTransform(loc=p["low"], scale=p["high"] - p["low"])
            base = dist.Beta(p["concentration1"], p["concentration2"])
            return dist.TransformedDistribution(base, stretch)
        names = {"lognormal": "LogNormal", "halfnormal": "HalfNormal"}
        kind = self.prior_type.value
        return getattr(dist, names.get(kind, kind.title().replace("_", "")))(**p)

    def _numbers(self, dtype: Any = None) -> tuple[Array, ...]:
        numbers = jnp.asarray(self.numbers, dtype)
        return tuple(numbers[..., i] for i in range(len(self.family.names)))

    def _bounds(self) -> tuple[Array, Array]:
        numbers = dict(zip(self.family.names, self._numbers(), strict=True))
        return numbers["low"], numbers["high"]

    def _inside(self, x: Array) -> tuple[Array, Array, Array]:
        """The value where it is in the support (a harmless one elsewhere), and where it is."""
        if self.family.support == "real":
            return x, jnp.full_like(x, True, bool), jnp.full_like(x, False, bool)
        if self.family.support == "positive":
            is_inside = x >= 0
            return jnp.where(is_inside, x, 1.0), is_inside, jnp.full_like(x, False, bool)
        low, high = (bound.astype(x.dtype) for bound in self._bounds())
        is_inside = (x >= low) & (x <= high)
        return jnp.where(is_inside, x, 0.5 * (low + high)), is_inside, x > high


def default_prior(
    location: ArrayLike, scale: ArrayLike, low: ArrayLike, high: ArrayLike
) -> PriorDistribution:
    """The default prior of a parameter: a normal cut to the bounds, whatever the bounds are.

    The numbers are not looked at here: `prior_faults` says what is wrong with them.
    """
    prior = object.__new__(PriorDistribution)
    object.__setattr__(prior, "prior_type", PriorType.TRUNCATED_NORMAL)
    object.__setattr__(prior, "numbers", stack_numbers([location, scale, low, high]))
    return prior


def has_mass(prior: PriorDistribution, low: float, high: float) -> bool:
    """Whether a known prior gives an interval a probability worth the name (1e-195 at least).

    Args:
        prior: The prior.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """
    support = prior.support
    low, high = max(low, support[0]), min(high, support[1])
    if not low < high:
        return False
    params = prior.params
    if prior.prior_type is PriorType.EXPONENTIAL:
        return low * params["rate"] < 450
    if "scale" not in params:
        return True
    location = params.get("loc", 0.0)
    if prior.prior_type is PriorType.LOGNORMAL:
        low, high = (math.log(max(bound, 1e-300)) for bound in (low, high))
    return abs(min(max(location, low), high) - location) < 30 * params["scale"]


def plain(value: Any) -> Any:
    """A known scalar as a Python float; arrays and traced values pass."""
    if is_concrete(value) and np.ndim(value) == 0:
        return float(value)
    return value


def stack_numbers(values: Sequence[Any]) -> Any:
    """Numbers along a last axis: a float64 array of numpy where all are known, else of JAX."""
    if is_concrete(*values):
        return np.stack([np.asarray(value, np.float64) for value in values], axis=-1)
    return jnp.stack([jnp.asarray(value) for value in values], axis=-1)
