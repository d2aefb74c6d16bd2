"""The nodes of tiles: few frames that hold every polynomial, and what they stand for.

Rates are powers of the time, so in the first tile every early frame is a node, and polynomials go
through the late ones alone: it is two blocks of frames, every other tile is one.
"""

import functools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from twotime.data.dataset import TwoTimeData
from twotime.gram.pairs import (
    Product,
    Sides,
    Sums,
    add_tile,
    assembled,
    cut_tile,
    no_sums,
    slopes,
    tile_pairs,
    tile_sums,
)
from twotime.models.base import AbstractTwoTimeModel, Channels
from twotime.models.rates import Scalar

GROUP = 3
"""Blocks come in multiples of it."""
_PLACES = 32


class Basis(NamedTuple):
    """Nodes of a block of frames, counted from the first frame of its tile.

    Attributes:
        frames: The nodes.
        lagrange: Values at all frames of the tile from those at the nodes; 0 outside the block.
        tail: What makes the last two Chebyshev coefficients; 0 where every frame is a node.
    """

    frames: Int[np.ndarray, " node"]
    lagrange: Float[np.ndarray, "frame node"]
    tail: Float[np.ndarray, "node 2"]


@functools.cache
def bases_of(edge: int) -> tuple[list[Basis], Basis]:
    """Bases of the first tile, its early frames and its late ones, and that of any other."""
    nodes = chebyshev_nodes(edge)
    count, other = nodes.size, _polynomials(nodes, edge)
    width = edge - count
    # Polynomials through nearly all frames would lose digits.
    if width < 1.1 * count:
        return [other], other
    early = Basis(np.arange(count), np.eye(edge, count), np.zeros((count, 2)))
    late = _polynomials(chebyshev_nodes(width, count), width)
    lagrange = np.concatenate([np.zeros((count, count)), late.lagrange])
    return [early, Basis(count + late.frames, lagrange, late.tail)], other


def _polynomials(nodes: Int[np.ndarray, " node"], width: int) -> Basis:
    def chebyshev(frames: np.ndarray) -> np.ndarray:
        return np.polynomial.chebyshev.chebvander(2 * frames / (width - 1) - 1, nodes.size - 1)

    coefficients = np.linalg.inv(chebyshev(nodes))
    return Basis(nodes, chebyshev(np.arange(width)) @ coefficients, coefficients[-2:].T)


def chebyshev_nodes(width: int, count: int | None = None) -> Int[np.ndarray, " node"]:
    """Frames near the extrema of a Chebyshev polynomial; `count` of them, if that is given."""
    for places in [_PLACES] if count is None else range(count, width * width):
        angles = np.linspace(0.0, np.pi, places)
        nodes = np.unique(np.round(0.5 * (width - 1) * (1 - np.cos(angles))).astype(int))
        if nodes.size == (count or nodes.size):
            return nodes
    raise AssertionError(f"{width} frames have no {count} nodes")


def tile_starts(n_frames: int, edge: int) -> Int[np.ndarray, " tile"]:
    """First frame of each tile; the last is moved back inside."""
    return np.minimum(edge * np.arange(-(-n_frames // edge)), n_frames - edge)


def node_count(edge: int) -> int:
    """How many nodes every block has."""
    return bases_of(edge)[1].frames.size


def blocks_of(n_frames: int, edge: int) -> tuple[Int[np.ndarray, " block"], list[Basis]]:
    """The tile of every block of frames, and its basis; copies of the last fill up a group."""
    first, other = bases_of(edge)
    n_tiles = -(-n_frames // edge)
    tiles = np.concatenate([np.zeros(len(first), int), np.arange(1, n_tiles)])
    tiles = np.pad(tiles, (0, -tiles.size % GROUP), mode="edge")
    return tiles, first + [other] * (tiles.size - len(first))


def node_frames(n_frames: int, edge: int) -> Int[np.ndarray, " node"]:
    """The nodes of all blocks, one after the other."""
    tiles, bases = blocks_of(n_frames, edge)
    starts = tile_starts(n_frames, edge)
    return np.concatenate([starts[k] + b.frames for k, b in zip(tiles, bases, strict=True)])


def node_tails(n_frames: int, edge: int) -> Float[np.ndarray, "block place 2"]:
    """What makes the last two Chebyshev coefficients of values at the nodes of each block."""
    return np.stack([basis.tail for basis in blocks_of(n_frames, edge)[1]])


class NodeCounts(NamedTuple):
    """What the nodes of blocks stand for where all pixels t1 < t2 count alike.

    Attributes:
        frames: Frames for which each node stands.
        pixels: Pixels of the block itself for which each pair of nodes stands.
    """

    frames: Float[np.ndarray, "block node"]
    pixels: Float[np.ndarray, "block node node"]


@functools.cache
def node_counts(n_frames: int, edge: int) -> NodeCounts:
    """Count frames and pixels of each block at its nodes; a frame of two tiles is of the first."""
    tiles, bases = blocks_of(n_frames, edge)
    frames = tile_starts(n_frames, edge)[tiles][:, None] + np.arange(edge)
    is_copy = np.arange(tiles.size) >= tiles.max() + len(bases_of(edge)[0])
    own = (frames >= edge * tiles[:, None]) & ~is_copy[:, None]
    lagrange = own[:, :, None] * np.stack([basis.lagrange for basis in bases])
    later = np.triu(np.ones((edge, edge)), 1)
    return NodeCounts(lagrange.sum(1), np.swapaxes(lagrange, 1, 2) @ later @ lagrange)


ROUNDING = 1e-13
"""Largest part of a product, or of a clock, that its nodes may miss."""


class NodeWeights(eqx.Module):
    """What the data of each tile leave behind at pairs of its nodes; 0 below the diagonal.

    Attributes:
        weight: Weights.
        c2: Weights times the data less a shift.
    """

    weight: Float[Array, "*angle node node"]
    c2: Float[Array, "*angle node node"]

    def of_tiles(self, corners: Int[Array, "tile 2"], edge: int, n_frames: int) -> "NodeWeights":
        """Those of some tiles alone; corners behind the last frame are of none."""
        tiles, _ = blocks_of(n_frames, edge)
        n_tiles = tiles.max() + 1
        index = jnp.where(corners < n_frames, corners // edge, n_tiles)
        mine = jnp.zeros((n_tiles, n_tiles), bool)
        mine = mine.at[index[:, 0], index[:, 1]].set(True, mode="drop")[tiles][:, tiles]
        return jax.tree.map(lambda x: jnp.where(_spread(mine, node_count(edge)), x, 0.0), self)


def node_weights(
    data: TwoTimeData, shift: Scalar, corners: Int[Array, "tile 2"], edge: int
) -> NodeWeights:
    """Bring the data to the nodes, tile by tile.

    Args:
        data: The data; pixels that are masked or not finite do not count.
        shift: Subtracted from the data, to keep digits.
        corners: First frames of all tiles.
        edge: Their edge [frame].
    """
    first, other = bases_of(edge)
    of_first = np.concatenate([basis.lagrange for basis in first], axis=1)
    count, parts = other.frames.size, len(first)
    of_others = np.pad(other.lagrange, ((0, 0), (0, (parts - 1) * count)))
    tiles, _ = blocks_of(data.c2.shape[-1], edge)
    n_blocks = tiles.size
    # Which blocks the parts of a tile are; only the first has more than one.
    place = np.array([[k, n_blocks][:parts] for k in np.unique(tiles, return_index=True)[1]])
    place[0] = np.arange(parts)

    def of_tile(k: Array, corner: Array) -> NodeWeights:
        tile = cut_tile(data, k, shift, corner, edge)
        left, right = (jnp.where(frame == 0, of_first, of_others) for frame in corner)
        return NodeWeights(*(left.T @ x @ right for x in (tile.weight, tile.weight * tile.c2)))

    def placed(x: Array) -> Array:
        rows, columns = (jnp.asarray(place)[k // edge] for k in corners.T)
        parted = jnp.swapaxes(x.reshape(-1, parts, count, parts, count), 2, 3)
        blocks = jnp.zeros((n_blocks, n_blocks, count, count), x.dtype)
        blocks = blocks.at[rows[:, :, None], columns[:, None]].set(parted, mode="drop")
        return jnp.swapaxes(blocks, 1, 2).reshape(n_blocks * count, -1)

    def of_angle(k: Array) -> NodeWeights:
        return jax.tree.map(placed, jax.lax.map(lambda corner: of_tile(k, corner), corners))

    return jax.lax.map(of_angle, jnp.arange(data.phi.shape[0]))


def node_gram(
    model: AbstractTwoTimeModel,
    products: list[Product],
    channels: Channels,
    sides: Sides,
    weights: NodeWeights,
    edge: int,
) -> tuple[Float[Array, "basis basis"], Bool[Array, "tile tile"]]:
    """Sum the tiles of one angle on which everything is smooth.

    Args:
        model: The model.
        products: What to sum.
        channels: Channels of the angle.
        sides: Their derivatives.
        weights: Weights at the nodes of this angle, without the axis of angles.
        edge: Edge of the tiles [frame].

    Returns:
        Sums of products of [data, 1, model, derivatives] over these tiles, without those of data
        and 1 alone; and which tiles they are (under `jax.vmap`: on which all agree).
    """
    record = _at_nodes(channels, sides, edge)
    size = GROUP * node_count(edge)
    row = record.sides.row.mT

    def add(sums: Sums, corner: Array) -> tuple[Sums, Array]:
        first = corner[0] * size, corner[1] * size
        value, g, smooth = _group(model, record, corner, edge)
        take = _spread(smooth, node_count(edge))
        planes = jnp.where(take, value, 0.0), [jnp.where(take, x, 0.0) for x in g]
        weight, c2 = (
            jax.lax.dynamic_slice(x, first, (size, size)) for x in (weights.weight, weights.c2)
        )
        rows = jax.lax.dynamic_slice_in_dim(row, first[0], size, axis=2)
        return add_tile(sums, first, tile_sums(products, planes, (weight, c2), rows)), smooth

    tiles, _ = blocks_of(channels.level.shape[1], edge)
    n_groups = tiles.size // GROUP
    groups = [(i, j) for i in range(n_groups) for j in range(i, n_groups)]
    none = no_sums(products, record.frames.size, row.shape[1])
    sums, found = jax.lax.scan(add, none, jnp.asarray(groups))
    smooth = jnp.zeros((n_groups, n_groups, GROUP, GROUP), bool)
    smooth = smooth.at[tuple(np.transpose(groups))].set(found)
    smooth = jnp.swapaxes(smooth, 1, 2).reshape(tiles.size, -1)
    of_tile = np.unique(tiles, return_index=True)[1]
    return assembled(products, sums, record.sides), smooth[of_tile][:, of_tile]


class _Record(eqx.Module):
    """An angle at the nodes of its blocks of frames.

    Attributes:
        frames: The nodes, block by block.
        channels: Channels there.
        sides: Their derivatives.
        typical: Sums of the sides by parameters, each in units of its largest.
        follow: Whether on all frames of its tile channels and derivatives follow from the nodes.
        tails: What makes the last two Chebyshev coefficients of values at the nodes of a block.
    """

    frames: Int[Array, " node"]
    channels: Channels
    sides: Sides
    typical: tuple[Float[Array, "slope node"], Float[Array, "slope node"]]
    follow: Bool[Array, " block"]
    tails: Float[Array, "block place 2"]


def _at_nodes(channels: Channels, sides: Sides, edge: int) -> _Record:
    n = channels.level.shape[1]
    frames = node_frames(n, edge)
    here, sides_here = jax.tree.map(lambda x: x[:, frames], (channels, sides))

    def typical(side: Array) -> Array:
        size = jnp.max(jnp.abs(side), axis=1, keepdims=True)
        return jnp.sum(side / jnp.where(size > 0, size, 1.0), axis=-1)

    each = [channels.decay, channels.phase, channels.level, *jnp.moveaxis(sides.row, 2, 1)]
    return _Record(
        frames=jnp.asarray(frames),
        channels=here,
        sides=sides_here,
        typical=(typical(sides_here.row), typical(sides_here.column)),
        follow=follow_from_nodes(jnp.concatenate(each), edge),
        tails=jnp.asarray(node_tails(n, edge)),
    )


def follow_from_nodes(functions: Float[Array, "function time"], edge: int) -> Bool[Array, " block"]:
    """Whether on all frames of the tile of each block functions follow from the nodes."""
    n = functions.shape[1]
    allowed = 100 * ROUNDING * jnp.max(jnp.abs(functions), axis=1)[:, None, None]
    frames = tile_starts(n, edge)[:, None] + np.arange(edge)

    def follows(frames: np.ndarray, bases: list[Basis]) -> Array:
        parts = functions[:, frames]
        again = sum(parts[:, :, b.frames] @ b.lagrange.T for b in bases)
        return jnp.all(jnp.abs(again - parts) <= allowed, axis=(0, 2))

    first, other = bases_of(edge)
    found = [follows(frames[:1], first), follows(frames[1:], [other])]
    return jnp.concatenate(found)[blocks_of(n, edge)[0]]


def _group(
    model: AbstractTwoTimeModel, record: _Record, corner: Int[Array, "2"], edge: int
) -> tuple[Array, list[Array], Bool[Array, "block block"]]:
    """The model and its derivatives on a group of tiles at their nodes, and which are smooth."""
    size = GROUP * node_count(edge)
    first = corner[0] * size, corner[1] * size
    block = GROUP * corner[:, None] + jnp.arange(GROUP)
    upper = block[0][:, None] <= block[1]
    # Tiles on the diagonal hold pixels below it, where the law goes on.
    above = _spread(upper, node_count(edge))
    value, g = slopes(model, tile_pairs(record.channels, first, size, above))
    row, column = (
        jax.lax.dynamic_slice_in_dim(x, k, size, axis=1)
        for x, k in zip(record.typical, first, strict=True)
    )
    i, j = (jax.lax.dynamic_slice_in_dim(record.frames, k, size) for k in first)
    changes = [x * (r[:, None] + c) for x, r, c in zip(g, row, column, strict=True)]
    (rows, row_tails), (columns, column_tails) = (
        [jax.lax.dynamic_slice_in_dim(x, k * GROUP, GROUP) for x in (record.follow, record.tails)]
        for k in corner
    )
    counted = above & (i[:, None] <= j)
    resolved = _resolved([value, *changes], counted, row_tails, column_tails)
    smooth = rows[:, None] & columns & resolved
    if len(bases_of(edge)[0]) > 1:
        smooth = _joined(smooth | ~upper, corner)
    return value, g, agreed(upper & smooth)


def _joined(smooth: Bool[Array, "block block"], corner: Int[Array, "2"]) -> Array:
    """The two blocks of the first tile together, for a tile is taken as a whole."""
    rows = jnp.where(corner[0] == 0, smooth.at[:2].set(smooth[0] & smooth[1]), smooth)
    columns = rows.at[:, :2].set((rows[:, 0] & rows[:, 1])[:, None])
    return jnp.where(corner[1] == 0, columns, rows)


def _spread(blocks: Array, count: int) -> Array:
    """What pairs of blocks have, for all pairs of their nodes."""
    return jnp.repeat(jnp.repeat(blocks, count, axis=0), count, axis=1)


def _resolved(
    planes: list[Array],
    counts: Bool[Array, "node node"],
    rows: Float[Array, "block place 2"],
    columns: Float[Array, "block place 2"],
) -> Bool[Array, "block block"]:
    """Whether squares of planes are polynomials of the nodes: their last two coefficients.

    Squares, because sums are of products; in units of the largest value that `counts`.

    Args:
        planes: Values at the nodes.
        counts: Which of them tell how large they are.
        rows: The tails of the blocks of rows.
        columns: Those of columns.
    """
    n_blocks, count = rows.shape[:2]
    cut = n_blocks, count, n_blocks, count
    total = jnp.zeros(counts.shape)
    for plane in planes:
        square = plane**2
        size = jnp.max(jnp.where(counts, square, 0.0).reshape(cut), axis=(1, 3))
        total += square * _spread(1.0 / jnp.where(size > 0, size, 1.0), count)

    def is_small(x: Array, tails: Array) -> Array:
        apart = jnp.eye(n_blocks)[:, None, :, None] * tails[:, :, None]
        last = jnp.abs(x @ apart.reshape(n_blocks * count, -1)).reshape(*cut[:3], 2)
        return jnp.max(last, axis=(1, 3)) <= ROUNDING

    return is_small(total, columns) & is_small(total.T, rows).T


@custom_vmap
def agreed(flags: Array) -> Array:
    """The same; under `jax.vmap` the flags on which all agree, so that branches stay branches."""
    return flags


@agreed.def_vmap
def _(size, is_batched, flags):
    del size, is_batched
    return jnp.all(flags, axis=0), False
