"""Pixels dealt to shards of equal shape, and each shard's part of a posterior.

Every usable pixel goes to exactly one shard. A shard's density is the likelihood of its own
pixels times the prior to the power 1/shards, both in the same unbounded coordinates, so that the
product over the shards is the posterior.
"""

from typing import Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from twotime.data.dataset import TwoTimeData
from twotime.sample.density import Guide, LinearScaling, PixelList, Plane, Posterior
from twotime.sample.mode import Shape

Strategy = Literal["random", "interleaved", "contiguous", "angles"]


class Dealing(NamedTuple):
    """How pixels are dealt.

    Attributes:
        n_shards: Number of shards.
        strategy: "random" within each angle, "interleaved" (every n-th row), "contiguous"
            (blocks of rows with about equally many pixels) or "angles" (whole angles).
        n_strata: Bands of t2 - t1 of which every shard gets its part ("random" only).
        min_pixels: A shard with fewer is an error.
        seed: Seed of the random dealing.
    """

    n_shards: int = 1
    strategy: str = "random"
    n_strata: int = 1
    min_pixels: int = 1
    seed: int = 0


def make_guide(shape: Shape, n_shards: int) -> tuple[Guide | None, float]:
    """The Gaussian that guides every shard: a power of the one at the mode of the posterior.

    The power 1/√n - 1/n narrows shards from √n times the width of the posterior to n^(1/4)
    times. More would make shards still rounder, but leave more to be divided out of covariances
    that are known from draws alone: with this power the product is known as well as one shard.

    Args:
        shape: Mode and shape of the posterior of all pixels.
        n_shards: Number of shards.

    Returns:
        The guide, None for one shard, and the width of the guided shards over the posterior's.
    """
    if n_shards == 1:
        return None, 1.0
    information = np.linalg.inv(shape.root @ shape.root.T)
    power = n_shards**-0.5 - 1 / n_shards
    return Guide(shape.mode, power * 0.5 * (information + information.T)), n_shards**0.25


def shard_posteriors(
    posterior: Posterior, dealing: Dealing, guide: Guide | None = None
) -> Posterior:
    """Cut a posterior of all pixels into shards, stacked along the first axis of the arrays.

    Args:
        posterior: The posterior, whose source is a `Plane`.
        dealing: How pixels are dealt.
        guide: What every shard's density is multiplied by.

    Raises:
        ValueError: If there are more shards than pixels (or angles, where these are dealt), a
            shard gets too few, or the strategy is unknown.
    """
    if dealing.n_shards == 1:
        return stacked([posterior])
    plane = posterior.source
    assert isinstance(plane, Plane)
    pixels = used_pixels(plane.data)
    shards = deal(pixels, len(plane.data.phi), dealing)
    counts = [sum(len(early) for _, early, _ in shard) for shard in shards]
    fewest = int(np.argmin(counts))
    if counts[fewest] < dealing.min_pixels:
        raise ValueError(
            f"Shard {fewest} of {dealing.n_shards} gets {counts[fewest]} pixels; expected at least "
            f"{dealing.min_pixels}; use fewer shards or lower min_pairs_per_shard."
        )
    n_angles = max(len(shard) for shard in shards)
    n_pixels = max(len(early) for shard in shards for _, early, _ in shard)
    share = jnp.asarray(1.0 / dealing.n_shards)
    parts = []
    for shard, count in zip(shards, counts, strict=True):
        source = _pixel_list(plane, shard, n_angles, n_pixels, count)
        scaling = _of_angles(posterior.scaling, [k for k, _, _ in shard], n_angles)
        parts.append(
            eqx.tree_at(
                lambda p: (p.source, p.scaling, p.share, p.guide),
                posterior,
                (source, scaling, share, guide),
                is_leaf=lambda x: x is None,
            )
        )
    return stacked(parts)


def listed(posterior: Posterior) -> Posterior:
    """The posterior with its pixels as lists: faster than tiles where memory allows.

    Args:
        posterior: A posterior whose source is a `Plane`.
    """
    plane = posterior.source
    assert isinstance(plane, Plane)
    pixels = used_pixels(plane.data)
    longest = max(len(early) for _, early, _ in pixels)
    count = sum(len(early) for _, early, _ in pixels)
    source = _pixel_list(plane, pixels, len(pixels), longest, count)
    return eqx.tree_at(lambda p: p.source, posterior, source)


Pixels = tuple[int, np.ndarray, np.ndarray]
"""An angle's position with the frames t1 and t2 of some of its pixels."""


def used_pixels(data: TwoTimeData) -> list[Pixels]:
    """Usable pixels with t1 < t2 of every angle, in the order of t1 and then t2."""
    return [(k, *np.nonzero(np.asarray(data.usable(k)))) for k in range(data.c2.shape[0])]


def deal(pixels: list[Pixels], n_angles: int, dealing: Dealing) -> list[list[Pixels]]:
    """Deal pixels to shards.

    Args:
        pixels: Usable pixels of every angle.
        n_angles: Number of angles.
        dealing: How.

    Returns:
        For each shard its angles with their pixels.

    Raises:
        ValueError: If there are more shards than pixels (or angles, where these are dealt).
    """
    n = dealing.n_shards
    total = sum(len(early) for _, early, _ in pixels)
    if n > total:
        raise ValueError(f"n_shards is {n}, more than the {total} usable pixels; use fewer shards.")
    if dealing.strategy not in get_args(Strategy):
        raise ValueError(
            f"shard_strategy is {dealing.strategy!r}; expected one of "
            f"{', '.join(get_args(Strategy))}."
        )
    if dealing.strategy == "angles":
        if n > n_angles:
            raise ValueError(
                f"n_shards is {n}, more than the {n_angles} angles that are to be dealt whole; "
                "use fewer shards or another shard_strategy."
            )
        return [[p for p in pixels if p[0] % n == shard] for shard in range(n)]
    rng = np.random.default_rng(dealing.seed)
    shards: list[list[Pixels]] = [[] for _ in range(n)]
    first = 0
    for k, early, late in pixels:
        owner = _owner(early, late, dealing, rng, first)
        first = (first + len(early)) % n
        for shard in range(n):
            mine = owner == shard
            shards[shard].append((k, early[mine], late[mine]))
    return shards


def _owner(
    early: Int[np.ndarray, " pixel"],
    late: Int[np.ndarray, " pixel"],
    dealing: Dealing,
    rng: np.random.Generator,
    first: int,
) -> Int[np.ndarray, " pixel"]:
    """Shard of each pixel of an angle; what is left over begins at another shard each time."""
    n = dealing.n_shards
    if dealing.strategy == "interleaved":
        return early % n
    place = np.arange(len(early))
    if dealing.strategy == "contiguous":
        middle = np.bincount(early, minlength=int(early.max()) + 1)
        centre = np.cumsum(middle) - 0.5 * middle
        row = np.minimum((centre * n / len(early)).astype(int), n - 1)
        return row[early]
    lag = late - early
    bands = np.minimum((lag - 1) * dealing.n_strata // max(int(lag.max()), 1), dealing.n_strata - 1)
    order = np.lexsort((rng.permutation(len(early)), bands))
    owner = np.empty_like(place)
    owner[order] = (place + first) % n
    return owner


def _pixel_list(
    plane: Plane, shard: list[Pixels], n_angles: int, n_pixels: int, count: int
) -> PixelList:
    data = plane.data
    early = np.zeros((n_angles, n_pixels), np.int32)
    late = np.zeros_like(early)
    c2, weight = np.zeros((n_angles, n_pixels)), np.zeros((n_angles, n_pixels))
    phi = np.zeros(n_angles)
    for row, (k, i, j) in enumerate(shard):
        size = len(i)
        early[row, :size], late[row, :size] = i, j
        c2[row, :size] = np.asarray(data.c2[k])[i, j].astype(float) - float(plane.shift)
        weight[row, :size] = np.asarray(data.weights(k))[i, j]
        phi[row] = float(data.phi[k])
    t = np.asarray(data.t)
    return PixelList(
        *map(jnp.asarray, (t, np.asarray(data.q), phi, early, late, c2, weight, float(count)))
    )


def _of_angles(scaling: LinearScaling, angles: list[int], n_angles: int) -> LinearScaling:
    """The scaling with the rows of some angles; rows that fill up are zero."""
    basis = np.asarray(scaling.basis)
    rows = np.zeros((n_angles, basis.shape[1]))
    rows[: len(angles)] = basis[angles]
    return eqx.tree_at(lambda s: s.basis, scaling, jnp.asarray(rows))


def stacked(parts: list[Posterior]) -> Posterior:
    """Posteriors of equal shape as one with a first axis."""
    split = [eqx.partition(part, eqx.is_array_like) for part in parts]
    arrays = jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x]), *(a for a, _ in split))
    return eqx.combine(arrays, split[0][1])
