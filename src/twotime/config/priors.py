"""Prior distributions of parameters: density, moments, and what is wrong with their numbers.

Each family is the logarithm of its density and its first two moments, as functions of its numbers
(`FAMILIES`). The truncated normal is accurate in both tails and in narrow intervals.
"""

import importlib.util
import math
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, ArrayLike, Float

from twotime.compilation import verb
from twotime.config.parameter_names import nearest
from twotime.config.parameter_registry import plain, stack_numbers
from twotime.models.base import ParameterInfo, is_concrete

Values = Float[Array, "..."]
Moments = tuple[Values, Values]
Numbers = Mapping[str, Any]
_POSITIVE = ("scale", "rate", "concentration1", "concentration2")
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


def as_float(x: ArrayLike) -> Array:
    """The value as a JAX array of floating type; integers become the default float."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def off_bound(distance: Values) -> Values:
    """A distance to a bound kept so far from 0 that logarithm and derivative stay finite."""
    return jnp.maximum(distance, jnp.finfo(distance.dtype).tiny ** 0.5)


# Families


def log_density(z: Values) -> Values:
    """Logarithm of the standard normal density."""
    return -0.5 * z**2 - _LOG_SQRT_2PI


@jax.jit
def truncated(a: Values, b: Values) -> tuple[Values, Values, Values]:
    """Log mass, mean and variance of the standard normal in [a, b]; needs a < b.

    By Gauss-Legendre quadrature where the density is above e⁻⁴⁰ of its largest value: differences
    of error functions cancel in narrow intervals and in the tails.
    """
    mode = jnp.clip(jnp.zeros_like(a), a, b)
    reach = 80 / (jnp.sqrt(mode**2 + 80) + jnp.abs(mode))
    below, above = jnp.minimum(mode - a, reach), jnp.minimum(b - mode, reach)
    nodes, weights = jnp.asarray(_NODES, a.dtype), jnp.asarray(_WEIGHTS, a.dtype)
    half = 0.5 * (above + below)
    y = 0.5 * (above - below)[..., None] + half[..., None] * nodes
    log_parts = jnp.log(weights) - y * (mode[..., None] + 0.5 * y)
    log_mass = log_density(mode) + jnp.log(half) + jax.nn.logsumexp(log_parts, axis=-1)
    density = jax.nn.softmax(log_parts, axis=-1)
    mean = jnp.sum(density * y, axis=-1)
    variance = jnp.sum(density * (y - mean[..., None]) ** 2, axis=-1)
    return log_mass, mode + mean, variance


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
    log_prob: Callable[..., Values]
    moments: Callable[..., Moments]


def _normal_log_prob(x: Values, loc: Values, scale: Values) -> Values:
    return log_density((x - loc) / scale) - jnp.log(scale)


def _truncated_log_prob(x: Values, loc: Values, scale: Values, low: Values, high: Values) -> Values:
    log_mass, _, _ = truncated((low - loc) / scale, (high - loc) / scale)
    return _normal_log_prob(x, loc, scale) - log_mass


def _truncated_moments(loc: Values, scale: Values, low: Values, high: Values) -> Moments:
    _, mean, variance = truncated((low - loc) / scale, (high - loc) / scale)
    return loc + scale * mean, scale**2 * variance


def _lognormal_log_prob(x: Values, loc: Values, scale: Values) -> Values:
    log_x = jnp.log(off_bound(x))
    return _normal_log_prob(log_x, loc, scale) - log_x


def _lognormal_moments(loc: Values, scale: Values) -> Moments:
    mean = jnp.exp(loc + 0.5 * scale**2)
    return mean, mean**2 * jnp.expm1(scale**2)


def _beta_log_prob(x: Values, low: Values, high: Values, one: Values, two: Values) -> Values:
    width = high - low
    below, above = off_bound((x - low) / width), off_bound((high - x) / width)
    log_shape = (one - 1) * jnp.log(below) + (two - 1) * jnp.log(above)
    # jax.scipy.special.betaln is off by up to 2e-7 where both concentrations exceed 8.
    log_beta = gammaln(one) + gammaln(two) - gammaln(one + two)
    return log_shape - log_beta - jnp.log(width)


def _beta_moments(low: Values, high: Values, one: Values, two: Values) -> Moments:
    total, width = one + two, high - low
    return low + width * one / total, width**2 * one * two / (total**2 * (total + 1))


FAMILIES: Mapping[PriorType, Family] = MappingProxyType(
    {
        PriorType.UNIFORM: Family(
            ("low", "high"),
            "interval",
            lambda x, low, high: jnp.zeros_like(x) - jnp.log(high - low),
            lambda low, high: (0.5 * (low + high), (high - low) ** 2 / 12),
        ),
        PriorType.NORMAL: Family(
            ("loc", "scale"), "real", _normal_log_prob, lambda loc, scale: (loc, scale**2)
        ),
        PriorType.TRUNCATED_NORMAL: Family(
            ("loc", "scale", "low", "high"), "interval", _truncated_log_prob, _truncated_moments
        ),
        PriorType.LOGNORMAL: Family(
            ("loc", "scale"), "positive", _lognormal_log_prob, _lognormal_moments
        ),
        PriorType.HALFNORMAL: Family(
            ("scale",),
            "positive",
            lambda x, scale: log_density(x / scale) - jnp.log(scale) + math.log(2),
            lambda scale: (scale * (2 / jnp.pi) ** 0.5, scale**2 * (1 - 2 / jnp.pi)),
        ),
        PriorType.EXPONENTIAL: Family(
            ("rate",),
            "positive",
            lambda x, rate: jnp.log(rate) - rate * x,
            lambda rate: (1 / rate, 1 / rate**2),
        ),
        PriorType.BETA_SCALED: Family(
            ("low", "high", "concentration1", "concentration2"),
            "interval",
            _beta_log_prob,
            _beta_moments,
        ),
    }
)


# The distribution of one parameter


def prior_faults(prior_type: PriorType, params: Numbers) -> list[str]:
    """What is wrong with the numbers of a prior, one sentence each; empty if nothing.

    Args:
        prior_type: Which family.
        params: Number of each name, known (not traced).
    """
    names, kind = FAMILIES[prior_type].names, f"a {prior_type.value} prior"
    strange = [name for name in params if name not in names]
    missing = [name for name in names if name not in params]
    if strange:
        near = {name: nearest(name, names) or "." for name in strange}
        takes = f"It takes {', '.join(names)}."
        return [f"{kind} has no number {name!r}{near[name]} {takes}" for name in strange]
    if missing:
        return [f"{kind} needs {' and '.join(map(repr, missing))}."]
    faults = []
    for name, number in params.items():
        if not np.isfinite(number).all():
            faults.append(f"{kind} needs a finite {name}; got {number}.")
        elif name in _POSITIVE and not np.all(np.asarray(number) > 0):
            faults.append(f"{kind} needs {name} > 0; got {number}.")
    if "low" in names and not faults and not np.all(np.less(params["low"], params["high"])):
        faults.append(f"{kind} needs low < high; got {params['low']} and {params['high']}.")
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

    def __init__(
        self,
        prior_type: PriorType | str,
        params: Mapping[str, Any] | None = None,
        *,
        check: bool = True,
    ):
        self.prior_type, params = PriorType(prior_type), params or {}
        if check and is_concrete(*params.values()):
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
        return cls("truncated_normal", {"loc": loc, "scale": scale, "low": low, "high": high})

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
        shape = {"concentration1": concentration1, "concentration2": concentration2}
        return cls("beta_scaled", {"low": low, "high": high} | shape)

    @property
    def family(self) -> Family:
        """The functions of this prior's family."""
        return FAMILIES[self.prior_type]

    @property
    def params(self) -> dict[str, Any]:
        """The numbers by name, a fresh dictionary."""
        return {name: plain(self.numbers[..., i]) for i, name in enumerate(self.family.names)}

    @property
    def support(self) -> tuple[Any, Any]:
        """Lowest and highest value with positive density."""
        if self.family.support == "interval":
            return self.params["low"], self.params["high"]
        return (0.0 if self.family.support == "positive" else -np.inf), np.inf

    @property
    @verb
    def mean(self) -> Values:
        """Expected value."""
        return self.family.moments(*self._named().values())[0]

    @property
    @verb
    def std(self) -> Values:
        """Standard deviation."""
        return jnp.sqrt(self.family.moments(*self._named().values())[1])

    @verb
    def log_prob(self, x: ArrayLike) -> Values:
        """Log density; -inf outside the support, with derivative 0 there.

        On a bound where the density vanishes or diverges, the value a hair inside it is given,
        so that it and its derivative stay finite.
        """
        x = as_float(x)
        inside, is_inside = self._inside(x)
        return jnp.where(
            is_inside, self.family.log_prob(inside, *self._named(x.dtype).values()), -jnp.inf
        )

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
        low, high = self._named()["low"], self._named()["high"]
        m, s = (self.mean - low) / (high - low), self.std / (high - low)
        k = m * (1 - m) / s**2 - 1
        return PriorDistribution.beta_scaled(*self.support, plain(m * k), plain((1 - m) * k))

    def to_numpyro(self, name: str) -> Any:
        """Convert to the NumPyro distribution of the same density.

        Args:
            name: The parameter's name, for the message where NumPyro is missing.

        Raises:
            ModuleNotFoundError: If NumPyro is not installed.
        """
        if importlib.util.find_spec("numpyro") is None:
            what = f"The prior of {name!r} cannot become a NumPyro distribution"
            fix = "NumPyro is not installed: python -m pip install numpyro"
            raise ModuleNotFoundError(f"{what} because {fix}.")
        dist, p = importlib.import_module("numpyro.distributions"), self.params
        if self.prior_type is PriorType.BETA_SCALED:
            where = {"loc": p["low"], "scale": p["high"] - p["low"]}
            unit = dist.constraints.unit_interval  # else its support is taken for the whole line
            stretch = dist.transforms.AffineTransform(**where, domain=unit)
            base = dist.Beta(p["concentration1"], p["concentration2"])
            return dist.TransformedDistribution(base, stretch)
        names = {"lognormal": "LogNormal", "halfnormal": "HalfNormal"}
        kind = self.prior_type.value
        return getattr(dist, names.get(kind, kind.title().replace("_", "")))(**p)

    def _named(self, dtype: Any = None) -> dict[str, Array]:
        numbers = jnp.asarray(self.numbers, dtype)
        return {name: numbers[..., i] for i, name in enumerate(self.family.names)}

    def _inside(self, x: Array) -> tuple[Array, Array]:
        """The value where it is in the support (a harmless one elsewhere), and where it is."""
        if self.family.support == "real":
            return x, jnp.full_like(x, True, bool)
        if self.family.support == "positive":
            return jnp.where(x >= 0, x, 1.0), x >= 0
        low, high = self._named(x.dtype)["low"], self._named(x.dtype)["high"]
        is_inside = (x >= low) & (x <= high)
        return jnp.where(is_inside, x, 0.5 * (low + high)), is_inside


def default_prior(info: ParameterInfo, low: ArrayLike, high: ArrayLike) -> PriorDistribution:
    """The default prior of a parameter: a normal cut to the bounds.

    The bounds are not checked here; `prior_faults` does it.
    """
    params = {"loc": info.prior_location, "scale": info.prior_scale, "low": low, "high": high}
    return PriorDistribution(PriorType.TRUNCATED_NORMAL, params, check=False)


def informative_prior(info: ParameterInfo) -> PriorDistribution | None:
    """The prior that a law itself gives a parameter, a normal; None where it gives none."""
    if not info.is_informative:
        return None
    params = {"loc": info.prior_location, "scale": info.prior_scale}
    return PriorDistribution(PriorType.NORMAL, params, check=False)


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


def clamp_to_open_interval(
    value: ArrayLike, low: ArrayLike, high: ArrayLike, epsilon: float = 1e-6
) -> Any:
    """Clamp a value to the open interval (low + epsilon, high - epsilon).

    For starts of samplers and for distributions whose density ends at their bounds.

    Args:
        value: What to clamp.
        low: Lower bound.
        high: Upper bound.
        epsilon: Distance to keep from the bounds, in the value's unit.

    Raises:
        ValueError: If the bounds are closer than twice epsilon.
    """
    if is_concrete(low, high) and not np.all(np.subtract(high, low) > 2 * epsilon):
        ends = f"{low} + {epsilon} and {high} - {epsilon}"
        raise ValueError(f"The open interval between {ends} is empty: give a smaller epsilon.")
    clip = np.clip if is_concrete(value, low, high) else jnp.clip
    return plain(clip(value, low + epsilon, high - epsilon))
