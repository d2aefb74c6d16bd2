"""Coordinates without bounds in which posteriors are sampled, and the priors in them.

Every free parameter x in its domain (bounds cut to the prior's support) becomes a number z on
the whole line: z = logit((s(x) - s(low)) / (s(high) - s(low))), with s the logarithm where the
space says so and the identity elsewhere. The density in z has the factor |dx/dz|. Contrasts and
offsets have such coordinates where they are sampled.

Priors are those that were given. Where none was, s is uniform between the bounds: the registry's
default prior is nobody's choice and decides nothing.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from twotime.compilation import compiled
from twotime.config.parameter_space import ParameterSpace
from twotime.config.priors import PriorDistribution, PriorType, as_float, off_bound
from twotime.models.rates import AnyArray
from twotime.models.scaling import Individual

_INSIDE = 1e-4
"""Part of the domain by which values on a bound are moved inside."""
_WIDEST = 40.0
"""Largest coordinate at which priors are looked at."""
_REACH = 5.0
"""Deviations at which a bound of contrast or offset begins to matter."""
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

    `low` and `high` are the ends of the domains, in logarithm where `is_log`. A prior that is None
    is uniform between them.
    """

    low: Free
    high: Free
    priors: tuple[PriorDistribution | None, ...]
    is_log: tuple[bool, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def to_values(self, z: Values) -> Values:
        """Parameters from coordinates."""
        return self.without_logarithms(self.to_logarithms(z))

    def to_logarithms(self, z: Values) -> Values:
        """Parameters, by their logarithm where `is_log`, from coordinates."""
        return real_to_interval(z, self.low, self.high)

    def without_logarithms(self, s: Values) -> Values:
        """Parameters from these."""
        log = np.asarray(self.is_log, bool)
        return jnp.where(log, jnp.exp(jnp.where(log, s, 0.0)), s)

    def from_values(self, values: Values) -> Values:
        """Coordinates of parameters; those on a bound are moved inside by 1e-4 of the domain."""
        s = logarithms(jnp.asarray(values), self.is_log)
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
        x, is_given = self.to_values(z), np.array([p is not None for p in self.priors], bool)
        each = [p.log_prob(x[i]) for i, p in enumerate(self.priors) if p is not None]
        slope = jnp.where(is_given, self.log_slope(z), interval_log_jacobian(z, 0.0, 1.0))
        return sum(each, jnp.zeros(())) + jnp.sum(slope)


def parameter_coordinates(space: ParameterSpace) -> Coordinates:
    """Coordinates of the varying physics parameters of a space."""
    return make_coordinates(space, tuple(name for name in space.names if space.vary[name]))


def make_coordinates(space: ParameterSpace, names: tuple[str, ...]) -> Coordinates:
    """Coordinates of named parameters, of contrasts and offsets without logarithms."""
    by_name = dict(zip(space.names, space.log_space, strict=True))
    is_log = tuple(by_name.get(name, False) for name in names)
    ends = jnp.asarray([space.domain(name) for name in names], float).reshape(-1, 2).T
    low, high = logarithms(ends, is_log)
    given = given_priors(space)
    return Coordinates(low, high, tuple(given[name] for name in names), is_log, names)


def given_priors(space: ParameterSpace) -> dict[str, PriorDistribution | None]:
    """Prior of each parameter, contrast and offset among them; None where none was given."""
    return dict(zip(space.all_names, space.own_priors, strict=True))


def logarithms(x: Array, is_log: tuple[bool, ...]) -> Array:
    """Parameters by their logarithm where `is_log`."""
    log = np.asarray(is_log, bool)
    return jnp.where(log, jnp.log(jnp.where(log, x, 1.0)), x)


def choose_scaling(space: ParameterSpace, mode: Individual, asked: str, *, leans: bool) -> str:
    """Resolve scaling="auto": "marginal" where bounds of contrast and offset do not matter.

    Args:
        space: Bounds, priors and what varies.
        mode: How contrast and offset are shared between angles.
        asked: "auto", "marginal" or "sampled".
        leans: Whether contrast or offset of an angle may reach its bounds.

    Raises:
        ValueError: If the choice is unknown, or the priors do not allow it.
    """
    if asked not in ("auto", "marginal", "sampled"):
        raise ValueError(f"scaling is {asked!r}; expected 'auto', 'marginal' or 'sampled'.")
    varying = zip(("contrast", "offset"), space.scaling_varying, strict=True)
    given = given_priors(space)
    priors = {n: given[n] for n, vary in varying if vary and not mode.is_frozen}
    other = {n: p for n, p in priors.items() if p is not None and p.prior_type not in _NORMAL}
    if asked == "marginal" and other:
        name, prior = next(iter(other.items()))
        raise ValueError(
            f"scaling='marginal' integrates over normal priors; {name} has a "
            f"{prior.prior_type.value} prior; use scaling='sampled' or give it a normal prior."
        )
    if mode.is_series and (asked == "sampled" or other):
        raise ValueError(
            "per_angle_mode 'fourier' needs normal priors of contrast and offset and "
            "scaling='marginal': bounds on every angle cannot be put on the coefficients."
        )
    if asked != "auto" or mode.is_series:
        return "marginal" if asked == "auto" else asked
    return "sampled" if other or leans else "marginal"


def normal_prior(space: ParameterSpace, kind: str) -> tuple[float, float]:
    """Mean and deviation of the normal prior of a contrast or offset that is integrated out.

    Where none was given, and so uniform between the bounds: a normal as wide as these.
    """
    low, high = space.domain(kind)
    prior = given_priors(space)[kind]
    if prior is None:
        return 0.5 * (low + high), high - low
    return prior.params["loc"], prior.params["scale"]


def leans(
    space: ParameterSpace,
    kinds: tuple[str, ...],
    values: Float[np.ndarray, " coefficient"],
    deviations: Float[np.ndarray, " coefficient"],
) -> bool:
    """Whether contrast or offset with a normal prior may reach its bounds.

    Args:
        space: Bounds and priors.
        kinds: "contrast" or "offset" for each coefficient.
        values: Fitted coefficients.
        deviations: Their standard deviations from the data alone.
    """
    for kind, value, deviation in zip(kinds, values, deviations, strict=True):
        prior = given_priors(space)[kind]
        if prior is not None and prior.prior_type not in _NORMAL:
            continue  # sampled anyway
        location, scale = normal_prior(space, kind)
        weight = scale**2 / (scale**2 + deviation**2) if np.isfinite(deviation) else 0.0
        reach = _REACH * scale * np.sqrt(1 - weight)
        low, high = space.domain(kind)
        if not low + reach < weight * value + (1 - weight) * location < high - reach:
            return True
    return False


class PriorCheck(NamedTuple):
    """Priors that were given against the data alone, one entry each.

    Attributes:
        names: Names of the coordinates.
        means: Prior means.
        deviations: Prior standard deviations.
        estimates: What the data alone say.
        errors: Standard deviations of that.
        chances: Probability of an estimate as far in the tails of what the prior foretells.
    """

    names: tuple[str, ...]
    means: Float[np.ndarray, " prior"]
    deviations: Float[np.ndarray, " prior"]
    estimates: Float[np.ndarray, " prior"]
    errors: Float[np.ndarray, " prior"]
    chances: Float[np.ndarray, " prior"]


def check_priors(
    coordinates: Coordinates,
    names: tuple[str, ...],
    centre: Float[np.ndarray, " free"],
    deviations: Float[np.ndarray, " free"],
) -> PriorCheck:
    """Hold the priors that were given against estimates from the data alone.

    An estimate is foretold to scatter about the parameter by its error, the parameter as its
    prior says: the chance is the prior predictive p value, from both sides.

    Args:
        coordinates: Coordinates with the priors.
        names: Names of the coordinates.
        centre: Estimates, by the logarithm where coordinates are.
        deviations: Their standard deviations.

    Reference:
        Box, J. R. Stat. Soc. A 143, 383 (1980); Evans & Moshonov, Bayesian Analysis 1, 893 (2006).
    """
    found: list[tuple[float, ...]] = []
    given = [i for i, prior in enumerate(coordinates.priors) if prior is not None]
    for i in given:
        z, weight = prior_on_grid(coordinates, i)
        all_z = jnp.zeros((len(z), len(names))).at[:, i].set(z)
        s = np.asarray(coordinates.to_logarithms(all_z))[:, i]
        x = np.asarray(coordinates.to_values(all_z))[:, i]
        error = deviations[i]
        below = weight @ np.asarray(jax.scipy.stats.norm.cdf((centre[i] - s) / error))
        above = weight @ np.asarray(jax.scipy.stats.norm.sf((centre[i] - s) / error))
        mean, is_log = weight @ x, coordinates.is_log[i]
        estimate = np.exp(centre[i]) if is_log else centre[i]
        spread = (weight @ (x - mean) ** 2) ** 0.5
        own = error * (estimate if is_log else 1.0)
        found.append((mean, spread, estimate, own, min(1.0, 2 * min(below, above))))
    columns = np.asarray(found, float).reshape(-1, 5).T
    return PriorCheck(tuple(names[i] for i in given), *columns)


def joined(checks: list[PriorCheck]) -> PriorCheck:
    """Several checks as one."""
    names, *numbers = zip(*checks, strict=True)
    return PriorCheck(sum(names, ()), *map(np.concatenate, numbers))


def prior_on_grid(
    coordinates: Coordinates, i: int
) -> tuple[Float[np.ndarray, " grid"], Float[np.ndarray, " grid"]]:
    """A grid over one coordinate, and the prior probability of its points."""
    middle, reach = 0.0, _WIDEST
    while True:
        grid, step = np.linspace(middle - reach, middle + reach, 2001, retstep=True)
        weight = np.asarray(_along(coordinates, jnp.asarray(grid), jnp.asarray(i)))
        middle = float(weight @ grid)
        spread = float(weight @ (grid - middle) ** 2) ** 0.5
        if spread >= 20 * step:
            return grid, weight
        reach = 200 * step  # a grid too coarse is made finer about the mean


@compiled
def _along(coordinates: Coordinates, grid: Array, i: Array) -> Array:
    """Relative density of the prior along one coordinate."""
    others = jnp.zeros(len(coordinates.names))
    return jax.nn.softmax(jax.vmap(lambda z: coordinates.log_prior(others.at[i].set(z)))(grid))
