"""Interpolation nodes: few frames of a tile that determine every polynomial on it.

Rates are powers of the time, so in the first tile every early frame is a node, and polynomials go
through the late ones alone: it is two blocks of frames, every other tile is one.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from twotime.data.dataset import TwoTimeData
from twotime.gram import pairs
from twotime.gram.pairs import ChannelDerivatives, Product, Sums, assembled, tile_sums
from twotime.models.base import AbstractTwoTimeModel, Channels
from twotime.models.rates import Scalar

GROUP = 3
"""Blocks come in multiples of it."""
ROUNDING = 1e-13
"""Largest part of a product, or of a clock, that its nodes may miss."""
_PLACES = 32


class Basis(NamedTuple):
    """Nodes of a block of frames, counted from the first frame of its tile.

    `lagrange` gives values at all frames of the tile from those at the nodes, 0 outside the block;
    `tail` their last two Chebyshev coefficients, 0 where every frame is a node.
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


class Nodes(NamedTuple):
    """The nodes of all blocks of a record; copies of the last block fill up a group.

    Attributes:
        tile: The tile of each block.
        frames: The nodes.
        lagrange: As in `Basis`, but 0 at frames of the tile before, and of copies.
        tail: What makes the last two Chebyshev coefficients of values at the nodes.
        counts: Frames that each node stands for.
        pairs: Pairs t1 < t2 inside the block that each pair of nodes stands for.
    """

    tile: Int[np.ndarray, " block"]
    frames: Int[np.ndarray, "block node"]
    lagrange: Float[np.ndarray, "block frame node"]
    tail: Float[np.ndarray, "block node 2"]
    counts: Float[np.ndarray, "block node"]
    pairs: Float[np.ndarray, "block node node"]

    @property
    def of_tile(self) -> Int[np.ndarray, " tile"]:
        """The first block of each tile."""
        return np.unique(self.tile, return_index=True)[1]


@functools.cache
def nodes_of(n_frames: int, edge: int) -> Nodes:
    """The nodes of a record in tiles of some edge; a frame of two tiles belongs to the first."""
    first, other = bases_of(edge)
    tile = np.concatenate([np.zeros(len(first), int), np.arange(1, -(-n_frames // edge))])
    n_blocks = tile.size
    tile = np.pad(tile, (0, -n_blocks % GROUP), mode="edge")
    bases = first + [other] * (tile.size - len(first))
    frames = np.minimum(edge * tile, n_frames - edge)[:, None] + np.arange(edge)
    own = (frames >= edge * tile[:, None]) & (np.arange(tile.size) < n_blocks)[:, None]
    lagrange = own[:, :, None] * np.stack([basis.lagrange for basis in bases])
    later = np.triu(np.ones((edge, edge)), 1)
    return Nodes(
        tile=tile,
        frames=frames[:, :1] + np.stack([basis.frames for basis in bases]),
        lagrange=lagrange,
        tail=np.stack([basis.tail for basis in bases]),
        counts=lagrange.sum(1),
        pairs=np.swapaxes(lagrange, 1, 2) @ later @ lagrange,
    )


class NodeWeights(NamedTuple):
    """Weights of all pairs of frames, and weights times the data less a shift, at pairs of nodes.

    They are 0 below the diagonal.
    """

    weight: Float[Array, "*angle node node"]
    c2: Float[Array, "*angle node node"]


def node_weights(data: TwoTimeData, shift: Scalar, edge: int) -> NodeWeights:
    """Bring the data less a shift to the nodes of tiles of some edge, block by block."""
    nodes = nodes_of(data.c2.shape[-1], edge)
    n_blocks, count = nodes.frames.shape
    rows, columns = np.triu_indices(n_blocks)
    lagrange = jnp.asarray(nodes.lagrange)

    def of_angle(k: Array) -> NodeWeights:
        def of_blocks(pair: Array) -> NodeWeights:
            tile = pairs.cut_tile(data, k, shift, edge * jnp.asarray(nodes.tile)[pair], edge)
            left, right = lagrange[pair]
            return NodeWeights(*(left.T @ x @ right for x in (tile.weight, tile.weight * tile.c2)))

        def placed(x: Array) -> Array:
            blocks = jnp.zeros((n_blocks, n_blocks, count, count), x.dtype)
            blocks = blocks.at[rows, columns].set(x)
            return jnp.swapaxes(blocks, 1, 2).reshape(n_blocks * count, -1)

        found = jax.lax.map(of_blocks, jnp.stack([rows, columns], axis=1))
        return jax.tree.map(placed, found)

    return jax.lax.map(of_angle, jnp.arange(data.phi.shape[0]))


def of_many_tiles(data: TwoTimeData, shift: Scalar, tile: int) -> NodeWeights | None:
    """The weights at the nodes of tiles of at most some edge; None where there are few tiles.

    Most of few tiles change too much for their nodes, or touch the first frames.
    """
    n = data.c2.shape[-1]
    return node_weights(data, shift, pairs.tile_edge(n, tile)) if n > 4 * tile else None


def node_gram(
    model: AbstractTwoTimeModel,
    products: list[Product],
    channels: Channels,
    by: ChannelDerivatives,
    weights: NodeWeights,
    edge: int,
) -> tuple[Float[Array, "basis basis"], Bool[Array, "tile tile"]]:
    """Sum the tiles of one angle on which everything is smooth.

    Args:
        model: The model.
        products: What to sum.
        channels: Channels of the angle.
        by: Their derivatives.
        weights: Weights at the nodes of this angle, without the axis of angles.
        edge: Edge of the tiles [frame].

    Returns:
        Sums of products of [data, 1, model, derivatives] over these tiles, without those of data
        and 1 alone; and which tiles they are (under `jax.vmap`: on which all agree).
    """
    nodes = nodes_of(channels.level.shape[1], edge)
    (n_blocks, count), frames = nodes.frames.shape, nodes.frames.ravel()
    here, by_here = jax.tree.map(lambda x: x[..., frames], (channels, by))
    smooth_group = _smoothness(channels, by, edge)

    def add(sums: Sums, corner: Array) -> tuple[Sums, Array]:
        size = GROUP * count
        first = corner[0] * size, corner[1] * size
        upper = _upper(corner)
        # Tiles on the diagonal hold pairs below it, where the law is continued.
        value, g = pairs.slopes(model, pairs.tile_pairs(here, first, size, _spread(upper, count)))
        smooth = agreed(smooth_group(corner, value, g))
        take = _spread(smooth, count)
        planes = jnp.where(take, value, 0.0), [jnp.where(take, x, 0.0) for x in g]
        window = [jax.lax.dynamic_slice(x, first, (size, size)) for x in weights]
        rows = jax.lax.dynamic_slice_in_dim(by_here.row, first[0], size, axis=2)
        return sums.add(first, tile_sums(products, planes, window, rows)), smooth

    n_groups = n_blocks // GROUP
    groups = np.stack(np.triu_indices(n_groups), axis=1)
    none = Sums.none(products, frames.size, by.row.shape[1])
    sums, found = jax.lax.scan(add, none, jnp.asarray(groups))
    smooth = jnp.zeros((n_groups, n_groups, GROUP, GROUP), bool)
    smooth = smooth.at[tuple(groups.T)].set(found)
    smooth = jnp.swapaxes(smooth, 1, 2).reshape(n_blocks, -1)
    return assembled(products, sums, by_here), smooth[nodes.of_tile][:, nodes.of_tile]


def _upper(corner: Int[Array, "2"]) -> Bool[Array, "block block"]:
    """Which pairs of blocks of a pair of groups are on the diagonal or above it."""
    block = GROUP * corner[:, None] + jnp.arange(GROUP)
    return block[0][:, None] <= block[1]


def _smoothness(channels: Channels, by: ChannelDerivatives, edge: int) -> Callable[..., Array]:
    """A function that tells on which pairs of blocks model and derivatives are polynomials.

    Its arguments are a pair of groups, and the model and its derivatives there at the nodes.
    """
    nodes = nodes_of(channels.level.shape[1], edge)
    count, frames = nodes.frames.shape[1], jnp.asarray(nodes.frames.ravel())
    each = [channels.decay, channels.phase, channels.level, *by.row]
    follow = follow_from_nodes(jnp.concatenate(each), edge)
    # Each derivative of a channel in units of its largest value.
    scaled = (in_units_of_largest(x[..., frames], -1) for x in (by.row, by.column))
    typical = [x.sum(axis=1) for x in scaled]

    def smooth(corner: Array, value: Array, g: list[Array]) -> Bool[Array, "block block"]:
        def cut(x: Array, k: Array, size: int, axis: int) -> Array:
            return jax.lax.dynamic_slice_in_dim(x, k * size, size, axis)

        size, upper = GROUP * count, _upper(corner)
        row, column = (cut(x, k, size, 1) for x, k in zip(typical, corner, strict=True))
        changes = [x * (r[:, None] + c) for x, r, c in zip(g, row, column, strict=True)]
        i, j = (cut(frames, k, size, 0) for k in corner)
        rows, columns = (cut(jnp.asarray(nodes.tail), k, GROUP, 0) for k in corner)
        counted = _spread(upper, count) & (i[:, None] <= j)
        found = _resolved([value, *changes], counted, rows, columns)
        above, beside = (cut(follow, k, GROUP, 0) for k in corner)
        found &= above[:, None] & beside
        if len(bases_of(edge)[0]) > 1:
            found = _joined(found | ~upper, corner)
        return upper & found

    return smooth


def follow_from_nodes(functions: Float[Array, "function time"], edge: int) -> Bool[Array, " block"]:
    """Whether on all frames of the tile of each block functions follow from the nodes."""
    n = functions.shape[1]
    allowed = 100 * ROUNDING * jnp.max(jnp.abs(functions), axis=1)[:, None, None]
    starts = edge * np.arange(-(-n // edge))
    frames = np.minimum(starts, n - edge)[:, None] + np.arange(edge)

    def follows(frames: np.ndarray, bases: list[Basis]) -> Array:
        parts = functions[:, frames]
        again = sum(parts[:, :, b.frames] @ b.lagrange.T for b in bases)
        return jnp.all(jnp.abs(again - parts) <= allowed, axis=(0, 2))

    first, other = bases_of(edge)
    found = [follows(frames[:1], first), follows(frames[1:], [other])]
    return jnp.concatenate(found)[nodes_of(n, edge).tile]


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
    """Whether squares of planes are polynomials of the nodes, by the tails of rows and columns.

    Squares, because sums are of products; in units of the largest value that `counts`.
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


def in_units_of_largest(x: Float[Array, "..."], axis: int | tuple[int, ...]) -> Float[Array, "..."]:
    """An array in units of its largest absolute values along some axes; 0 stays 0."""
    size = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
    return x / jnp.where(size > 0, size, 1.0)
