"""Tiles on which the model is smooth, summed at a few of their frames.

The sum over a tile of weight times F, with F a polynomial in i and in j of degree below the number
of nodes, is a sum over pairs of nodes: Σ_ij w(i, j) F(i, j) = Σ_ab W(a, b) F(a, b) with W = Uᵀ w U
and U the Lagrange polynomials of the nodes on the frames. W does not depend on the model. On most
tiles the products of a model and its derivatives are such polynomials up to rounding; where they
are not, as where rates follow a power of a time near 0, pixels must be summed one by one.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from twotime.core.models import AbstractTwoTimeModel, Channels
from twotime.core.rates import Scalar
from twotime.data.dataset import TwoTimeData
from twotime.inference.sums import Product, Sums, add_tile, assembled, no_sums, tile_sums
from twotime.inference.tiles import Sides, cut_tile, slopes, tile_pixels

_PLACES = 32
_GROUP = 4
_ROUNDING = 1e-13
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
        n_blocks = _n_blocks(n_frames, edge)
        block = jnp.where(corners < n_frames, corners // edge, n_blocks)
        mine = jnp.zeros((n_blocks, n_blocks), bool)
        mine = mine.at[block[:, 0], block[:, 1]].set(True, mode="drop")
        return jax.tree.map(lambda x: jnp.where(_spread(mine, edge), x, 0.0), self)


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
    polynomials = jnp.asarray(_lagrange(edge))
    n_blocks, count = _n_blocks(data.c2.shape[-1], edge), _nodes(edge).size

    def of_tile(k: Array, corner: Array) -> NodeWeights:
        tile = cut_tile(data, k, shift, corner, edge)
        planes = tile.weight, tile.weight * tile.c2
        return NodeWeights(*(polynomials.T @ x @ polynomials for x in planes))

    def placed(x: Array) -> Array:
        blocks = jnp.zeros((n_blocks, n_blocks, count, count), x.dtype)
        blocks = blocks.at[corners[:, 0] // edge, corners[:, 1] // edge].set(x)
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
) -> tuple[Float[Array, "basis basis"], Bool[Array, "block block"]]:
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
    size = _GROUP * _nodes(edge).size
    row = record.sides.row.mT

    def add(sums: Sums, corner: Array) -> tuple[Sums, Array]:
        first = corner[0] * size, corner[1] * size
        value, g, smooth = _group(model, record, corner, edge)
        take = _spread(smooth, edge)
        planes = jnp.where(take, value, 0.0), [jnp.where(take, x, 0.0) for x in g]
        weight, c2 = (
            jax.lax.dynamic_slice(x, first, (size, size)) for x in (weights.weight, weights.c2)
        )
        rows = jax.lax.dynamic_slice_in_dim(row, first[0], size, axis=2)
        return add_tile(sums, first, tile_sums(products, planes, (weight, c2), rows)), smooth

    n_blocks = record.follow.shape[0]
    n_groups = n_blocks // _GROUP
    groups = [(i, j) for i in range(n_groups) for j in range(i, n_groups)]
    none = no_sums(products, record.frames.size, row.shape[1])
    sums, found = jax.lax.scan(add, none, jnp.asarray(groups))
    smooth = jnp.zeros((n_groups, n_groups, _GROUP, _GROUP), bool)
    smooth = smooth.at[tuple(np.transpose(groups))].set(found)
    smooth = jnp.swapaxes(smooth, 1, 2).reshape(n_blocks, n_blocks)
    return assembled(products, sums, record.sides), smooth


class _Record(eqx.Module):
    """An angle at the nodes of its blocks of frames.

    Attributes:
        frames: The nodes, block by block.
        channels: Channels there.
        sides: Their derivatives.
        typical: Sums of the sides by parameters, each in units of its largest.
        follow: Whether on all frames of a block channels and derivatives follow from its nodes.
    """

    frames: Int[Array, " node"]
    channels: Channels
    sides: Sides
    typical: tuple[Float[Array, "slope node"], Float[Array, "slope node"]]
    follow: Bool[Array, " block"]


def _at_nodes(channels: Channels, sides: Sides, edge: int) -> _Record:
    n = channels.level.shape[1]
    n_blocks = _n_blocks(n, edge)
    starts = np.minimum(edge * np.arange(n_blocks), n - edge)
    frames = (starts[:, None] + _nodes(edge)).reshape(-1)
    here, sides_here = jax.tree.map(lambda x: x[:, frames], (channels, sides))

    def typical(side: Array) -> Array:
        size = jnp.max(jnp.abs(side), axis=1, keepdims=True)
        return jnp.sum(side / jnp.where(size > 0, size, 1.0), axis=-1)

    each = [channels.decay, channels.phase, channels.level, *jnp.moveaxis(sides.row, 2, 1)]
    functions = jnp.concatenate(each)
    allowed = 100 * _ROUNDING * jnp.max(jnp.abs(functions), axis=1, keepdims=True)

    def follows(start: Array) -> Array:
        part = jax.lax.dynamic_slice_in_dim(functions, start, edge, axis=1)
        return jnp.all(jnp.abs(part[:, _nodes(edge)] @ _lagrange(edge).T - part) <= allowed)

    return _Record(
        frames=jnp.asarray(frames),
        channels=here,
        sides=sides_here,
        typical=(typical(sides_here.row), typical(sides_here.column)),
        follow=jax.lax.map(follows, jnp.asarray(starts)),
    )


def _group(
    model: AbstractTwoTimeModel, record: _Record, corner: Int[Array, "2"], edge: int
) -> tuple[Array, list[Array], Bool[Array, "block block"]]:
    """The model and its derivatives on a group of tiles at their nodes, and which are smooth."""
    size = _GROUP * _nodes(edge).size
    first = corner[0] * size, corner[1] * size
    block = _GROUP * corner[:, None] + jnp.arange(_GROUP)
    upper = block[0][:, None] <= block[1]
    # Tiles on the diagonal hold pixels below it, where the law goes on.
    above = _spread(upper, edge)
    value, g = slopes(model, tile_pixels(record.channels, first, size, above))
    row, column = (
        jax.lax.dynamic_slice_in_dim(x, k, size, axis=1)
        for x, k in zip(record.typical, first, strict=True)
    )
    i, j = (jax.lax.dynamic_slice_in_dim(record.frames, k, size) for k in first)
    changes = [x * (r[:, None] + c) for x, r, c in zip(g, row, column, strict=True)]
    resolved = _resolved([value, *changes], above & (i[:, None] <= j), edge)
    rows, columns = (
        jax.lax.dynamic_slice_in_dim(record.follow, k * _GROUP, _GROUP) for k in corner
    )
    return value, g, _agreed(upper & rows[:, None] & columns & resolved)


def _n_blocks(n_frames: int, edge: int) -> int:
    """Blocks of frames, those that fill up the last group included."""
    return -(-n_frames // (edge * _GROUP)) * _GROUP


def _spread(blocks: Array, edge: int) -> Array:
    """What pairs of blocks have, for all pairs of their nodes."""
    count = _nodes(edge).size
    return jnp.repeat(jnp.repeat(blocks, count, axis=0), count, axis=1)


def _nodes(edge: int) -> Int[np.ndarray, " node"]:
    """Frames of a tile near the extrema of a Chebyshev polynomial, where it is interpolated."""
    places = 0.5 * (edge - 1) * (1 - np.cos(np.pi * np.linspace(0.0, 1.0, _PLACES)))
    return np.unique(np.round(places).astype(int))


def _chebyshev(frames: np.ndarray, edge: int) -> Float[np.ndarray, "frame node"]:
    return np.polynomial.chebyshev.chebvander(2 * frames / (edge - 1) - 1, _nodes(edge).size - 1)


def _coefficients(edge: int) -> Float[np.ndarray, "node node"]:
    """Chebyshev coefficients from values at the nodes."""
    return np.linalg.inv(_chebyshev(_nodes(edge), edge))


def _lagrange(edge: int) -> Float[np.ndarray, "frame node"]:
    """Values at all frames of a tile from those at its nodes."""
    return _chebyshev(np.arange(edge), edge) @ _coefficients(edge)


def _resolved(
    planes: list[Array], counts: Bool[Array, "node node"], edge: int
) -> Bool[Array, "block block"]:
    """Whether squares of planes are polynomials of the nodes: their last two coefficients.

    Squares, because sums are of products; in units of the largest value that `counts`.
    """
    count = _nodes(edge).size
    cut = counts.shape[0] // count, count, counts.shape[1] // count, count
    total = jnp.zeros(counts.shape)
    for plane in planes:
        square = plane**2
        size = jnp.max(jnp.where(counts, square, 0.0).reshape(cut), axis=(1, 3))
        total += square * _spread(1.0 / jnp.where(size > 0, size, 1.0), edge)
    last = jnp.asarray(_coefficients(edge)[-2:].T)

    def is_small(x: Array) -> Array:
        tails = jnp.abs(x.reshape(-1, count) @ last).reshape(*cut[:3], 2)
        return jnp.max(tails, axis=(1, 3)) <= _ROUNDING

    return is_small(total) & is_small(total.T).T


@custom_vmap
def _agreed(flags: Array) -> Array:
    """The same; under `jax.vmap` the flags on which all agree, so that branches stay branches."""
    return flags


@_agreed.def_vmap
def _(size, is_batched, flags):
    del size, is_batched
    return jnp.all(flags, axis=0), False
