"""The Gram matrix of separable models, at little more than the cost of reading the data once.

Where C is a sum of products (`AbstractTwoTimeModel.terms`), a rectangle off the diagonal is an
outer product of few vectors, see `twotime.gram.low_rank`. Sums of products of model and
derivatives are then inner products of these vectors; the data, cut into squares once a fit, enter
through two thin products with each square. In long records few frames stand for all wherever the
vectors are smooth, see `twotime.gram.low_rank`.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.data.dataset import TwoTimeData
from twotime.gram.interpolation import agreed, node_counts, node_weights
from twotime.gram.low_rank import (
    RankBlocks,
    Ranks,
    angle_ranks,
    at_one_time,
    cut_ranks,
    inner_pairs,
    outer_products,
    ranks_at_nodes,
    rows_at_nodes,
)
from twotime.gram.pairs import channel_slopes, tile_corners, tile_edge
from twotime.gram.tiled import TILE
from twotime.models.base import AbstractTwoTimeModel, Channels
from twotime.models.rates import Scalar

LEAF = 16


class Squares(eqx.Module):
    """Data as the factored form reads them: less a shift, in squares beside the diagonal.

    The triangle t1 < t2 is a square and two triangles half as large, and so on, down to blocks of
    at most `LEAF` frames.

    Attributes:
        far: The squares (angle, square, row, column), those of one size together, largest first.
        near: Pixels t1 < t2 whose frames lie in the same block, 0 elsewhere.
        moments: Sums of products of (data, 1).
        nodes: The data brought to the nodes of tiles; None where there are few tiles.
    """

    far: tuple[Float[Array, "angle _ _ _"], ...]
    near: Float[Array, "angle block frame frame"]
    moments: Float[Array, "angle 2 2"]
    nodes: Float[Array, "angle node node"] | None


def cut_squares(data: TwoTimeData, shift: Scalar) -> Squares:
    """Cut data into squares; half as much memory as the data in float64.

    Args:
        data: Data without mask, all finite above the diagonal.
        shift: Subtracted from the data, to keep digits.
    """
    n_angles, n = data.c2.shape[:2]
    depth = max(0, math.ceil(math.log2(n / LEAF)))
    upper = np.triu(np.ones((n, n), bool), 1)
    c2 = jnp.where(upper, jnp.asarray(data.c2).astype(jnp.result_type(data.t)) - shift, 0.0)
    total, square = jnp.sum(c2, axis=(1, 2)), jnp.einsum("kij,kij->k", c2, c2)
    count = jnp.full_like(total, n * (n - 1) / 2)
    moments = jnp.stack([jnp.stack([square, total], -1), jnp.stack([total, count], -1)], -2)
    fill = -n % 2**depth
    c2 = jnp.pad(c2, ((0, 0), (0, fill), (0, fill)))

    def beside_diagonal(count: int) -> Array:
        which, half = np.arange(count), (n + fill) // (2 * count)
        halves = c2.reshape(n_angles, count, 2, half, count, 2, half)
        return jnp.moveaxis(halves[:, which, 0, :, which, 1], 0, 1)

    which, size = np.arange(2**depth), (n + fill) // 2**depth
    near = c2.reshape(n_angles, which.size, size, which.size, size)[:, which, :, which]
    far = tuple(beside_diagonal(2**level) for level in range(depth))
    return Squares(far, jnp.moveaxis(near, 0, 1), moments, _data_at_nodes(data, shift))


def _data_at_nodes(data: TwoTimeData, shift: Scalar) -> Float[Array, "angle node node"] | None:
    n = data.c2.shape[-1]
    if n <= 4 * TILE:
        return None
    plain = eqx.tree_at(lambda d: d.sigma, data, None, is_leaf=lambda x: x is None)
    return node_weights(plain, shift, tile_corners(n, TILE), tile_edge(n, TILE)).c2


def factored_gram(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    *,
    shift: Scalar = 0.0,
    squares: Squares | None = None,
    with_normal: bool = True,
) -> Float[Array, "angle row basis"]:
    """Gram matrix of each angle of a separable model; every pixel t1 < t2 counts alike.

    Args:
        model: A model with `is_separable`.
        data: Data without mask, all finite above the diagonal; sigma one number or None.
        params: All parameters in the order of `model.names`.
        free: Which parameters are differentiated.
        shift: Subtracted from the data, to keep digits.
        squares: The same data and shift cut beforehand; None cuts them here.
        with_normal: Whether products of derivatives are wanted.

    Returns:
        Sums over t1 < t2 of products of [data, 1, model, derivatives], weighted by 1/sigma²; the
        rows of data, 1 and model alone if not `with_normal`.
    """
    weight = 1.0 if data.sigma is None else 1.0 / jnp.asarray(data.sigma) ** 2
    cut = cut_squares(data, shift) if squares is None else squares
    n, n_left = data.c2.shape[-1], 1 + sum(free) if with_normal else 1

    def channels_at(phi: Array) -> tuple[Channels, Channels]:
        return channel_slopes(model, data, params, free, phi)

    def on_frames(_: Array) -> Array:
        ranks = jax.lax.map(lambda x: angle_ranks(model, x[0], x[1]), channels)
        blocks = jax.lax.map(lambda x: cut_ranks(x, cut.near.shape[1], cut.near.shape[2]), ranks)
        angles = blocks, _sums_with_data(ranks, cut), cut.near
        return jax.lax.map(lambda x: _rows(x[0], x[1], x[2], n_left), angles)

    def on_nodes(c2: Array) -> Array:
        return jax.lax.map(lambda x: rows_at_nodes(x[0], x[1], counts, n_left), (blocks, c2))

    channels = jax.lax.map(channels_at, jnp.asarray(data.phi))
    if cut.nodes is None:
        rows = on_frames(cut.near)
    else:
        edge = tile_edge(n, TILE)
        counts = node_counts(n, edge)
        blocks, smooth = jax.lax.map(lambda x: ranks_at_nodes(model, x[0], x[1], edge), channels)
        rows = jax.lax.cond(agreed(jnp.all(smooth)), on_nodes, on_frames, cut.nodes)

    mixed = rows[:, :2, :n_left].mT
    top = jnp.concatenate([cut.moments, rows[:, :2]], axis=2)
    return weight * jnp.concatenate([top, jnp.concatenate([mixed, rows[:, 2:]], axis=2)], axis=1)


def _rows(blocks: RankBlocks, sums: Array, near: Array, n_left: int) -> Float[Array, "row slot"]:
    """Sums of (data, 1, slots…) times the slots over all pixels of an angle."""
    of_data = jnp.einsum("rabn,rbn->a", blocks.early, sums[0])
    of_data += jnp.einsum("rabn,rbn->a", blocks.late, sums[1])
    rows = jnp.concatenate([of_data[None], _between(blocks, n_left)])
    return rows + _inside(blocks, near, n_left)


def _sums_with_data(ranks: Ranks, squares: Squares) -> Float[Array, "angle 2 rank block frame"]:
    """Σ_j data(i, j) b(j) e^{-(Λ(j) - Λ(i))} over the frames j of later blocks, and of earlier."""
    n_angles, n_rank, n = ranks.base.shape
    fill = squares.near.shape[1] * squares.near.shape[2] - n
    base, decay = (
        jnp.pad(x, [(0, 0), (0, 0), (0, fill)], mode="edge") for x in (ranks.base, ranks.decay)
    )
    sums = jnp.zeros((n_angles, 2, n_rank, n + fill), base.dtype)
    for far in squares.far:
        count, half = far.shape[1:3]
        split = n_angles, n_rank, count, 2, half
        # Angle and square are one axis: products over two such axes are slow on CPUs.
        square = far.reshape(-1, half, half)
        b, d = (
            jnp.moveaxis(x.reshape(split), 1, 3).reshape(-1, 2, n_rank, half) for x in (base, decay)
        )
        edge = d[:, 0, :, -1:]
        rise, fall = jnp.exp(d[:, 0] - edge), jnp.exp(edge - d[:, 1])
        ahead = rise * jnp.einsum("sij,srj->sir", square, fall * b[:, 1]).mT
        behind = fall * jnp.einsum("sij,sri->srj", square, rise * b[:, 0])
        none = jnp.zeros_like(ahead)
        parts = jnp.stack([ahead, none, none, behind], axis=1)
        parts = parts.reshape(n_angles, count, 2, 2, n_rank, half)
        sums += jnp.moveaxis(parts, (2, 4), (1, 2)).reshape(sums.shape)
    return sums.reshape(*sums.shape[:-1], *squares.near.shape[1:3])


def _between(blocks: RankBlocks, n_left: int) -> Float[Array, "row slot"]:
    """Pixels whose frames lie in different blocks: sums of (1, slots…) times the slots."""
    outer = outer_products(blocks)
    alpha, early, beta, late, gap = outer.alpha, outer.early, outer.beta, outer.late, outer.gap
    ahead = jnp.einsum("rIJ,rJ->rI", gap, beta.sum(-1))
    behind = jnp.einsum("rIJ,rI->rJ", gap, alpha.sum(-1))
    ones = jnp.einsum("rn,ran->a", ahead, early.sum(-1))
    ones += jnp.einsum("rn,ran->a", behind, late.sum(-1))
    # Two slots: the parts of both at i, or at j; then the part of one at i, of the other at j.
    both = gap[:, None] * gap
    ahead = jnp.einsum("rsIJ,rsJ->rsI", both, jnp.sum(beta[:, None] * beta, axis=-1))
    behind = jnp.einsum("rsIJ,rsI->rsJ", both, jnp.sum(alpha[:, None] * alpha, axis=-1))
    slots = at_one_time(ahead[..., None], early, n_left)
    slots += at_one_time(behind[..., None], late, n_left)
    at_early = jnp.einsum("rani,sni->rsan", early, alpha)
    at_late = jnp.einsum("sbni,rni->rsbn", late, beta)
    at_late = jnp.einsum("rsIJ,rsbJ->rsbI", both, at_late)
    slots += jnp.einsum("rsan,rsbn->ab", at_early[:, :, :n_left], at_late)
    slots += jnp.einsum("rsan,rsbn->ba", at_early, at_late[:, :, :n_left])
    return jnp.concatenate([ones[None], slots])


def _inside(
    blocks: RankBlocks, near: Float[Array, "block frame frame"], n_left: int
) -> Float[Array, "row slot"]:
    """Pixels whose frames lie in one block: sums of (data, 1, slots…) times the slots."""
    right, left = inner_pairs(blocks)
    planes = sum(
        early[..., :, None] * right + late[..., None, :] * left
        for early, late, right, left in zip(blocks.early, blocks.late, right, left, strict=True)
    )
    # No rows of data and 1 beside the others: processors join planes slowly.
    slots = jnp.asarray(planes).reshape(blocks.early.shape[1], -1)
    plain = jnp.stack([slots @ near.reshape(-1), jnp.sum(slots, axis=1)])
    return jnp.concatenate([plain, slots[:n_left] @ slots.T])
