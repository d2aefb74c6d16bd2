"""Prior distributions of parameters: density, moments, and what is wrong with their numbers."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from twotime.config.distributions import FAMILIES, Family, PriorType, as_float
from twotime.config.parameter_names import nearest
from twotime.models.base import ParameterInfo, is_concrete

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

    def __init__(
        self,
        prior_type: PriorType | str,
        params: Mapping[str, Any] | None = None,
        *,
        check: bool = True,
    ):
        self.prior_type = PriorType(prior_type)
        params = {} if params is None else params
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
    def family(self) -> Family:
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
        x = as_float(x)
        inside, is_inside = self._inside(x)
        return jnp.where(is_inside, self.family.log_prob(self._numbers(x.dtype), inside), -jnp.inf)

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

    def _inside(self, x: Array) -> tuple[Array, Array]:
        """The value where it is in the support (a harmless one elsewhere), and where it is."""
        if self.family.support == "real":
            return x, jnp.full_like(x, True, bool)
        if self.family.support == "positive":
            return jnp.where(x >= 0, x, 1.0), x >= 0
        low, high = (bound.astype(x.dtype) for bound in self._bounds())
        is_inside = (x >= low) & (x <= high)
        return jnp.where(is_inside, x, 0.5 * (low + high)), is_inside


def default_prior(info: ParameterInfo, low: ArrayLike, high: ArrayLike) -> PriorDistribution:
    """The default prior of a parameter: a normal cut to the bounds.

    The bounds are not checked here; `prior_faults` does it.
    """
    params = {"loc": info.prior_location, "scale": info.prior_scale, "low": low, "high": high}
    return PriorDistribution(PriorType.TRUNCATED_NORMAL, params, check=False)


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
        return np.stack(np.broadcast_arrays(*(np.asarray(v, np.float64) for v in values)), axis=-1)
    return jnp.stack(jnp.broadcast_arrays(*values), axis=-1)


def with_numbers(array: Any, changes: Mapping[int, Any]) -> Any:
    """An array with some numbers of its last axis changed."""
    if not changes:
        return array
    if is_concrete(array, *changes.values()):
        array = np.array(array, np.float64)
        for i, number in changes.items():
            array[..., i] = number
        return array
    for i, number in changes.items():
        array = jnp.asarray(array).at[..., i].set(number)
    return array


def intersection(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[Any, Any]:
    """The interval that two intervals share."""
    is_known = is_concrete(*one, *other)
    low, high = (max, min) if is_known else (jnp.maximum, jnp.minimum)
    return low(one[0], other[0]), high(one[1], other[1])


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
        raise ValueError(
            f"The open interval between {low} + {epsilon} and {high} - {epsilon} is empty: "
            "give a smaller epsilon."
        )
    if is_concrete(value, low, high):
        return plain(np.clip(value, np.add(low, epsilon), np.subtract(high, epsilon)))
    return jnp.clip(value, low + epsilon, high - epsilon)
