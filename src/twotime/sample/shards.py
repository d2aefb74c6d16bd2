"""Points dealt to shards of equal shape, each shard's part of a posterior, and what guides it.

Every usable point goes to exactly one shard. A shard's density is the likelihood of its own
points times the prior to the power 1/shards, both in the same unbounded coordinates, so that the
product over the shards is the posterior.

The mode of the posterior and its shape there tell samplers where to begin and make it round. The
shape comes from differences of the gradient over half a standard deviation in every direction, so
it knows the curvature of the model and needs no second derivatives. Damped Newton steps with it
find the mode.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from twotime.compilation import compiled
from twotime.data.dataset import TwoTimeData
from twotime.kinds import check_fields
from twotime.results.nlsq import NLSQResult
from twotime.sample.chains import check_counts
from twotime.sample.combine import Combination
from twotime.sample.coordinates import Coordinates, prior_on_grid
from twotime.sample.density import Density, Guide, Plane, PointList, Posterior

_REACH = 0.5
"""Step of the differences of the gradient [standard deviation]."""
_STEEPEST, _FLATTEST = 1e4, 0.05
_FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.02, 0.004)
_NEAR, _MOST_STEPS = 0.3, 20

Points = tuple[int, np.ndarray, np.ndarray]
"""An angle's position with the frames t1 and t2 of some of its points."""
Owner = Int[np.ndarray, " point"]
Position = Float[np.ndarray, " coordinate"]


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How points are dealt to shards, and what becomes of these.

    Attributes:
        n_shards: Number of shards; 1 samples all points.
        strategy: "random" within each angle, "interleaved" (every n-th row), "contiguous"
            (blocks of rows with about equally many points) or "angles" (whole angles).
        strata: Bands of t2 - t1 of which every shard gets its part ("random" only).
        min_points: A shard with fewer points is an error.
        combine: `Consensus`, `Gaussian` or `Importance`, or its word.
        devices: Devices to spread shards and chains over (`jax.devices()`); None takes the first.
        exclude: Leave shards that did not converge out of the combination; their data then do
            not count, but with "importance". Otherwise all are combined, and the result has not
            converged.
    """

    n_shards: int = 1
    strategy: str = "random"
    strata: int = 1
    min_points: int = 1
    combine: Combination | str = "importance"
    devices: Sequence[Any] | None = None
    exclude: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        check_counts(self, n_shards=1, strata=1)
        if self.strategy not in STRATEGIES:
            raise ValueError(
                f"strategy (shard_strategy) is {self.strategy!r}; expected one of "
                f"{', '.join(STRATEGIES)}."
            )


def used_points(data: TwoTimeData) -> list[Points]:
    """Usable points with t1 < t2 of every angle, in the order of t1 and then t2."""
    found = [np.nonzero(np.asarray(data.usable(k))) for k in range(len(data.phi))]
    return [(k, early, late) for k, (early, late) in enumerate(found)]


def deal(data: TwoTimeData, sharding: Sharding, seed: int = 0) -> list[list[Points]]:
    """Deal the points of data to shards: for each its angles with their points.

    Raises:
        ValueError: If there are more shards than points (or angles, where these are dealt), or a
            shard gets too few.
    """
    points, n = used_points(data), sharding.n_shards
    total = sum(len(early) for _, early, _ in points)
    if n > total:
        raise ValueError(f"n_shards is {n}, more than the {total} usable points; use fewer shards.")
    if sharding.strategy == "angles" and n > len(points):
        raise ValueError(
            f"n_shards is {n}, more than the {len(points)} angles that are to be dealt whole; "
            "use fewer shards or another shard_strategy."
        )
    rng = np.random.default_rng(seed)
    shards: list[list[Points]] = [[] for _ in range(n)]
    first = 0
    for k, early, late in points:
        owner = STRATEGIES[sharding.strategy]((k, early, late), sharding, rng, first)
        first = (first + len(early)) % n
        for shard in np.unique(owner):
            shards[shard].append((k, early[owner == shard], late[owner == shard]))
    counts = [sum(len(early) for _, early, _ in shard) for shard in shards]
    fewest = int(np.argmin(counts))
    if counts[fewest] < sharding.min_points:
        raise ValueError(
            f"Shard {fewest} of {n} gets {counts[fewest]} points; expected at least "
            f"{sharding.min_points}; use fewer shards or lower min_pairs_per_shard."
        )
    return shards


def _random(angle: Points, sharding: Sharding, rng: np.random.Generator, first: int) -> Owner:
    """Equal parts at random of each band of lags; the remainder begins at another shard a time."""
    _, early, late = angle
    lag, strata = late - early, sharding.strata
    bands = np.minimum((lag - 1) * strata // max(int(lag.max()), 1), strata - 1)
    order = np.lexsort((rng.permutation(len(early)), bands))
    owner = np.empty_like(early)
    owner[order] = (np.arange(len(early)) + first) % sharding.n_shards
    return owner


def _contiguous(angle: Points, sharding: Sharding, *_: Any) -> Owner:
    rows, n = np.bincount(angle[1]), sharding.n_shards
    centre = np.cumsum(rows) - 0.5 * rows
    return np.minimum((centre * n / len(angle[1])).astype(int), n - 1)[angle[1]]


STRATEGIES: dict[str, Callable[..., Owner]] = {
    "random": _random,
    "interleaved": lambda angle, sharding, *_: angle[1] % sharding.n_shards,
    "contiguous": _contiguous,
    "angles": lambda angle, sharding, *_: np.full_like(angle[1], angle[0] % sharding.n_shards),
}
"""Which shard owns each point of an angle, by the word for it."""


def shard_posteriors(
    posterior: Posterior, sharding: Sharding, guide: Guide | None = None, seed: int = 0
) -> Posterior:
    """Cut a posterior of all points into shards, stacked along the first axis of the arrays.

    Raises:
        ValueError: If points cannot be dealt so.
    """
    shards = deal(posterior.plane.data, sharding, seed)
    size = max(map(len, shards)), max(len(early) for shard in shards for _, early, _ in shard)
    share = jnp.asarray(1.0 / sharding.n_shards)
    basis = np.asarray(posterior.scaling.basis)
    parts = []
    for shard in shards:
        rows = np.zeros((size[0], basis.shape[1]))  # angles that fill up count nothing
        rows[: len(shard)] = basis[[k for k, _, _ in shard]]
        own = _point_list(posterior.plane, shard, size), jnp.asarray(rows), share, guide
        parts.append(eqx.tree_at(_of_shard, posterior, own, is_leaf=lambda x: x is None))
    return stacked(parts)


def _of_shard(posterior: Posterior) -> tuple[Any, ...]:
    """What differs from shard to shard, or from the whole."""
    return posterior.source, posterior.scaling.basis, posterior.share, posterior.guide


def listed(posterior: Posterior) -> Posterior:
    """The posterior with its points as lists: faster than tiles where memory allows."""
    plane = posterior.plane
    points = used_points(plane.data)
    size = len(points), max(len(early) for _, early, _ in points)
    return eqx.tree_at(lambda p: p.source, posterior, _point_list(plane, points, size))


def stacked(parts: list[Posterior]) -> Posterior:
    """Posteriors of equal shape as one with a first axis."""
    split = [eqx.partition(part, eqx.is_array_like) for part in parts]
    arrays = jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x]), *(a for a, _ in split))
    return eqx.combine(arrays, split[0][1])


def _point_list(plane: Plane, points: list[Points], size: tuple[int, int]) -> PointList:
    """Points of some angles as lists of equal length."""
    data = plane.data
    early, late = np.zeros(size, np.int32), np.zeros(size, np.int32)
    c2, weight, phi = np.zeros(size), np.zeros(size), np.zeros(size[0])
    qs = np.broadcast_to(np.asarray(data.q, float), data.phi.shape)
    q = np.full(size[0], qs[0])
    for row, (k, i, j) in enumerate(points):
        filled = row, slice(len(i))
        early[filled], late[filled], q[row], phi[row] = i, j, qs[k], float(data.phi[k])
        c2[filled] = np.asarray(data.c2[k])[i, j].astype(float) - float(plane.shift)
        weight[filled] = np.asarray(data.weights(k))[i, j]
    count = float(sum(len(i) for _, i, _ in points))
    arrays = np.asarray(data.t), q, phi, early, late, c2, weight, count
    return PointList(*map(jnp.asarray, arrays))


class Shape(NamedTuple):
    """A Gaussian about the mode; columns of `root` are independent deviations."""

    mode: Float[Any, " coordinate"]
    root: Float[Any, "coordinate coordinate"]


def make_guide(shape: Shape, n_shards: int) -> tuple[Guide | None, float]:
    """The Gaussian that guides every shard: a power of the one at the mode of the posterior.

    The power 1/√n - 1/n narrows shards from √n times the width of the posterior to n^(1/4)
    times. More would make shards still rounder, but leave more to be divided out of covariances
    that are known from draws alone: with this power the product is known as well as one shard.

    Returns:
        The guide, None for one shard, and the width of the guided shards over the posterior's.
    """
    if n_shards == 1:
        return None, 1.0
    information = np.linalg.inv(shape.root @ shape.root.T)
    power = n_shards**-0.5 - 1 / n_shards
    return Guide(shape.mode, power * 0.5 * (information + information.T)), n_shards**0.25


def position_of_fit(posterior: Posterior, fit: NLSQResult) -> tuple[Position, Position]:
    """Position of a fit, and a guess of the standard deviation of every coordinate."""
    free = np.flatnonzero(posterior.varying)
    z = posterior.coordinates.from_values(np.asarray(fit.values)[free])
    variance = np.maximum(np.diag(np.asarray(fit.covariance_iid)), 0.0)
    width = np.sqrt(variance) / np.asarray(posterior.coordinates.slope(z))
    parts, widths = [np.asarray(z)], [np.where((width > 1e-9) & (width < 1.0), width, 1.0)]
    if posterior.scaling.sampled is not None:
        basis, found = np.asarray(posterior.scaling.basis), (fit.contrast, fit.offset)
        both = np.concatenate([np.linalg.lstsq(basis, np.asarray(x))[0] for x in found])
        values = both[np.flatnonzero(posterior.scaling.free)]
        parts.append(np.asarray(posterior.scaling.sampled.from_values(values)))
        widths.append(np.full(len(values), 0.1))
    if posterior.noise.size:
        parts.append(np.asarray([0.5 * np.log(float(fit.chi2) / float(fit.n_points))]))
        widths.append(np.asarray([(2 * float(fit.n_points)) ** -0.5]))
    return np.concatenate(parts), np.concatenate(widths)


def find_shape(posterior: Density, start: Position, width: Position) -> Shape:
    """Climb to the mode and measure the shape there; `width` is a guess of the deviations.

    Raises:
        ValueError: If the density is zero or not finite at the start.
    """
    place, root = np.asarray(start), np.diag(width)
    for step in range(_MOST_STEPS + 1):
        at = jnp.asarray(place), jnp.asarray(root)
        value, slope, turn = map(np.asarray, _local(posterior, *at))
        if not np.isfinite(value) or not np.isfinite(turn).all():
            raise ValueError(
                "The posterior is zero or not finite where sampling starts; move the start "
                "inside bounds and priors, or fit the data first."
            )
        curvature, axes = np.linalg.eigh(-0.5 * (turn + turn.T))
        size = np.clip(np.abs(curvature), _FLATTEST, _STEEPEST) ** -0.5
        is_near = np.linalg.norm(slope) < _NEAR and np.all((curvature > 0.5) & (curvature < 2))
        root = root @ (axes * size)
        if is_near or step == _MOST_STEPS:
            break
        move = root @ (size * (axes.T @ slope))
        trials = place + np.asarray(_FRACTIONS)[:, None] * move
        heights = np.asarray(_heights(posterior, jnp.asarray(trials)))
        if heights.max() > value:
            place = trials[int(np.argmax(heights))]
    return Shape(place, root)


def prior_shape(posterior: Posterior) -> Shape:
    """Mean and spread of the prior, the noise level that of the data about their mean."""
    sampled = posterior.scaling.sampled
    parts = [_prior_moments(posterior.coordinates)]
    parts += [] if sampled is None else [_prior_moments(sampled)]
    if posterior.noise.size:
        at = posterior.model, jnp.asarray(posterior.start), posterior.varying
        moments = posterior.source.moments(*at)
        square, count = (float(jnp.sum(moments[:, i, i])) for i in (0, 1))
        parts.append(np.asarray([[0.5 * np.log(square / count)], [0.1]]))
    middle, spread = np.concatenate(parts, axis=1)
    return Shape(middle, np.diag(spread))


def _prior_moments(coordinates: Coordinates) -> Float[np.ndarray, "2 free"]:
    """Mean and standard deviation of the prior of each coordinate, by sums over a grid."""
    found = np.zeros((2, len(coordinates.names)))
    for i in range(found.shape[1]):
        grid, weight = prior_on_grid(coordinates, i)
        mean = weight @ grid
        found[:, i] = mean, (weight @ (grid - mean) ** 2) ** 0.5
    return found


@compiled
def _local(posterior: Density, place: Array, root: Array) -> tuple[Array, Array, Array]:
    """Density, gradient and Hessian in units of the columns of `root`."""

    def of_units(y: Array) -> Array:
        return posterior.log_density(place + root @ y)

    size = place.shape[0]
    steps = _REACH * jnp.concatenate([jnp.zeros((1, size)), jnp.eye(size), -jnp.eye(size)])
    values, slopes = jax.lax.map(jax.value_and_grad(of_units), steps)
    turn = (slopes[1 : size + 1] - slopes[size + 1 :]) / (2 * _REACH)
    return values[0], slopes[0], 0.5 * (turn + turn.T)


@compiled
def _heights(posterior: Density, places: Array) -> Array:
    return jax.lax.map(posterior.log_density, places)


def missed(
    parts: Posterior, place: Position, log_density: Float[np.ndarray, "shard chain draw"]
) -> float:
    """How much more likely a place is than the best draws, were these about the mode there.

    At a typical draw the log density is half the number of coordinates below that at the mode.
    """
    heights = np.asarray(_heights_of_shards(parts, jnp.asarray(place)))
    return float(np.max(heights - log_density.max(axis=(1, 2)))) - 0.5 * len(place)


@compiled
def _heights_of_shards(parts: Posterior, place: Array) -> Float[Array, " shard"]:
    """Log density of each of several stacked posteriors at a place."""
    arrays, static = eqx.partition(parts, eqx.is_array_like)
    arrays = jax.tree.map(jnp.asarray, arrays)
    return jax.lax.map(lambda x: eqx.combine(x, static).log_density(place), arrays)
