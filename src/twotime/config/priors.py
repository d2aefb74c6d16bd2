"""Prior distributions: values that know their density, draws, moments and real-line form."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from twotime.config import bijections
from twotime.config.parameter_info import is_concrete
from twotime.config.parameter_names import nearest
from twotime.config.prior_families import FAMILIES, AbstractFamily, PriorType

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
