"""The Gram matrix of separable models, at little more than the cost of reading the data once.

A model that is a sum of products (`AbstractTwoTimeModel.terms`) is C(i, j) = Σ_r b_r(i) b_r(j)
e^{-(Λ_r(j) - Λ_r(i))}. Between two blocks of frames each term is an outer product: e^{Λ - Λ_I} at
t1 and e^{Λ_J - Λ} at t2, with the clocks at the end of the rows (Λ_I) and at the start of the
columns (Λ_J) as references. Nothing overflows, and references need no derivative, for they cancel.
Sums of products of model and derivatives are then inner products of vectors; the data, cut into
squares once a fit, enter through two thin products with each square. In long records the frames of
a block are few nodes that stand for all, wherever the vectors are smooth.
"""

import dataclasses
import math
from functools import partial
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twotime.data.dataset import TwoTimeData
from twotime.gram import interpolation
from twotime.gram.evaluator import AbstractEvaluator
from twotime.gram.interpolation import Nodes
from twotime.gram.pairs import STEEPEST, channel_slopes, tile_edge
from twotime.gram.tiled import data_moments
from twotime.models.base import AbstractTwoTimeModel, Channels
from twotime.models.rates import Scalar

LEAF = 16
Rows = Float[Array, "row slot"]


class SeparableData(eqx.Module):
    """Data less a shift, in squares beside the diagonal.

    The triangle t1 < t2 is a square and two triangles half as large, and so on, down to blocks of
    at most `LEAF` frames.

    Attributes:
        far: The squares (angle, square, row, column), those of one size together, largest first.
        near: Pairs t1 < t2 whose frames lie in the same block, 0 elsewhere.
        moments: Sums of products of (data, 1).
        nodes: The data brought to the nodes of tiles; None where there are few tiles.
    """

    far: tuple[Float[Array, "angle _ _ _"], ...]
    near: Float[Array, "angle block frame frame"]
    moments: Float[Array, "angle 2 2"]
    nodes: Float[Array, "angle node node"] | None


class Factors(eqx.Module):
    """Low-rank factors of a model and of its derivatives, with b the `base` and Λ the `decay`.

    Along `slot` stand half the value and then the derivatives by each free parameter, of b e^{Λ}
    (early) and of b e^{-Λ} (late), the exponential divided out: C and each ∂C are then
    Σ_r early_r(i) b_r(j) + b_r(i) late_r(j), times the decay between i and j.
    """

    base: Float[Array, "rank *time"]
    decay: Float[Array, "rank *time"]
    early: Float[Array, "rank slot *time"]
    late: Float[Array, "rank slot *time"]


def factors_of(model: AbstractTwoTimeModel, channels: Channels, by: Channels) -> Factors:
    """The factors of one angle: one rank for a term that decays, two for one that oscillates.

    `by` are derivatives of the channels along a first axis, see `channel_slopes`.
    """
    terms, change = jax.linearize(model.terms, channels)
    wave = np.flatnonzero(terms.oscillates)
    cos, sin = jnp.cos(terms.phase), jnp.sin(terms.phase)
    even, odd = terms.weight * cos, terms.weight * sin
    base = jnp.concatenate([even, odd[wave]])

    def along(direction: Channels) -> tuple[Array, Array]:
        moved = change(direction)
        by_even = moved.weight * cos - odd * moved.phase
        by_odd = moved.weight * sin + even * moved.phase
        by_base = jnp.concatenate([by_even, by_odd[wave]])
        growth = base * jnp.concatenate([moved.decay, moved.decay[wave]])
        return by_base + growth, by_base - growth

    slopes = jax.lax.map(along, by)
    early, late = (jnp.moveaxis(jnp.concatenate([0.5 * base[None], s]), 0, 1) for s in slopes)
    return Factors(base, jnp.concatenate([terms.decay, terms.decay[wave]]), early, late)


def in_blocks(factors: Factors, count: int, size: int) -> Factors:
    """Cut factors into `count` blocks of `size` frames; filled-up frames count nothing."""
    fill = count * size - factors.base.shape[-1]

    def cut(x: Array, mode: str = "constant") -> Array:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, fill)], mode=mode)
        return x.reshape(*x.shape[:-1], count, size)

    base, early, late = (cut(x) for x in (factors.base, factors.early, factors.late))
    return Factors(base, cut(factors.decay, "edge"), early, late)


class OuterProducts(NamedTuple):
    """Pairs whose frames lie in different blocks I < J, as outer products.

    A slot of the pair is C_a = Σ_r γ_r (A_ra(i) β_r(j) + α_r(i) B_ra(j)).

    Attributes:
        alpha: α = b e^{Λ - Λ_I}.
        early: A, likewise of the slots.
        beta: β = b e^{Λ_J - Λ}.
        late: B, likewise of the slots.
        gap: γ = e^{-(Λ_J - Λ_I)} for I < J, else 0.
    """

    alpha: Float[Array, "rank block frame"]
    early: Float[Array, "rank slot block frame"]
    beta: Float[Array, "rank block frame"]
    late: Float[Array, "rank slot block frame"]
    gap: Float[Array, "rank block block"]


def outer_products(blocks: Factors) -> OuterProducts:
    """The outer products between blocks of factors."""
    first, last = blocks.decay[..., 0], blocks.decay[..., -1]
    rise, fall = jnp.exp(blocks.decay - last[..., None]), jnp.exp(first[..., None] - blocks.decay)
    after = np.triu(np.ones((first.shape[1],) * 2, bool), 1)
    # Not at most 0: the last tile of nodes begins before the one before it ends.
    gap = jnp.exp(jnp.where(after, last[:, :, None] - first[:, None], 0.0))
    alpha, early = rise * blocks.base, rise[:, None] * blocks.early
    beta, late = fall * blocks.base, fall[:, None] * blocks.late
    return OuterProducts(alpha, early, beta, late, jnp.where(after, gap, 0.0))


def inner_pairs(blocks: Factors) -> tuple[Array, Array]:
    """Pairs t1 < t2 whose frames lie in one block: the decay times b(t2), and times b(t1)."""
    fall = blocks.decay[..., :, None] - blocks.decay[..., None, :]
    decay = jnp.exp(jnp.minimum(fall, 0.0)) * np.triu(np.ones(fall.shape[-2:]), 1)
    return decay * blocks.base[..., None, :], decay * blocks.base[..., :, None]


class Separable(AbstractEvaluator):
    """Models that are sums of products, on data whose points all count alike."""

    word: ClassVar[str] = "factored"

    def prepare(self, data: TwoTimeData, shift: Scalar) -> SeparableData:
        """Cut data into squares; half as much memory as the data in float64."""
        plain = dataclasses.replace(data, mask=None, sigma=None, weight=None)
        n_angles, n = data.c2.shape[:2]
        depth = max(0, math.ceil(math.log2(n / LEAF)))
        upper = np.triu(np.ones((n, n), bool), 1)
        c2 = jnp.where(upper, jnp.asarray(data.c2).astype(jnp.result_type(data.t)) - shift, 0.0)
        fill = -n % 2**depth
        c2 = jnp.pad(c2, ((0, 0), (0, fill), (0, fill)))

        def beside_diagonal(count: int) -> Array:
            which, half = np.arange(count), (n + fill) // (2 * count)
            halves = c2.reshape(n_angles, count, 2, half, count, 2, half)
            return jnp.moveaxis(halves[:, which, 0, :, which, 1], 0, 1)

        which, size = np.arange(2**depth), (n + fill) // 2**depth
        near = c2.reshape(n_angles, which.size, size, which.size, size)[:, which, :, which]
        far = tuple(beside_diagonal(2**level) for level in range(depth))
        known = interpolation.of_many_tiles(plain, shift, self.tile)
        at_nodes = None if known is None else known.c2
        return SeparableData(far, jnp.moveaxis(near, 0, 1), data_moments(plain, shift), at_nodes)

    def _on_one(self, model, data, params, free, shift, prepared, with_normal) -> Array:
        weight = 1.0 if data.sigma is None else 1.0 / jnp.asarray(data.sigma) ** 2
        weight *= 1.0 if data.weight is None else jnp.asarray(data.weight)[:, None, None]
        (n_matrices, n), n_left = data.c2.shape[:2], 1 + sum(free) if with_normal else 1

        def on_frames(_: Array) -> Array:
            factors = jax.lax.map(lambda x: factors_of(model, x[0], x[1]), channels)
            blocks = jax.lax.map(lambda x: in_blocks(x, *prepared.near.shape[1:3]), factors)
            angles = blocks, _sums_with_data(factors, prepared), prepared.near
            return jax.lax.map(lambda x: _rows_of_frames(x[0], x[1], x[2], n_left), angles)

        def on_nodes(c2: Array) -> Array:
            return jax.lax.map(lambda x: _rows_of_nodes(x[0], x[1], nodes, n_left), (blocks, c2))

        slopes = partial(channel_slopes, model, data, params, free)
        channels = jax.lax.map(slopes, jnp.arange(n_matrices))
        if prepared.nodes is None:
            rows = on_frames(prepared.near)
        else:
            edge = tile_edge(n, self.tile)
            nodes = interpolation.nodes_of(n, edge)
            at_nodes = jax.lax.map(lambda x: factors_at_nodes(model, x[0], x[1], edge), channels)
            blocks, is_smooth = at_nodes[0], interpolation.agreed(jnp.all(at_nodes[1]))
            rows = jax.lax.cond(is_smooth, on_nodes, on_frames, prepared.nodes)
        mixed = rows[:, :2, :n_left].mT
        top = jnp.concatenate([prepared.moments, rows[:, :2]], axis=2)
        bottom = jnp.concatenate([mixed, rows[:, 2:]], axis=2)
        return weight * jnp.concatenate([top, bottom], axis=1)


def factors_at_nodes(
    model: AbstractTwoTimeModel, channels: Channels, by: Channels, edge: int
) -> tuple[Factors, Bool[Array, ""]]:
    """The factors of one angle at nodes, and whether all their products are polynomials of them.

    Channels and their derivatives are given at the frames, `edge` is that of the tiles [frame].
    """
    nodes = interpolation.nodes_of(channels.level.shape[1], edge)
    typical = jax.tree.map(lambda x: jnp.sum(interpolation.in_units_of_largest(x, 2), axis=0), by)
    functions = jnp.concatenate(jax.tree.leaves((channels, typical)))
    follow = interpolation.follow_from_nodes(functions, edge)
    here = jax.tree.map(lambda x: x[..., nodes.frames.ravel()], (channels, by))
    blocks = in_blocks(factors_of(model, *here), *nodes.frames.shape)
    outer = outer_products(blocks)
    # Squares, because sums are of products.
    slots = jnp.concatenate([outer.early, outer.late])
    square = jnp.sum(interpolation.in_units_of_largest(slots, (2, 3)), axis=1) ** 2
    size = jnp.max(square, axis=2, keepdims=True)
    last = jnp.abs(jnp.einsum("rbn,bnk->rbk", square, nodes.tail))
    steep = jnp.max(blocks.decay[..., -1] - blocks.decay[..., 0]) > STEEPEST
    return blocks, jnp.all(follow) & jnp.all(last <= interpolation.ROUNDING * size) & ~steep


def _rows_of_frames(blocks: Factors, sums: Array, near: Array, n_left: int) -> Rows:
    """Sums of (data, 1, slots…) times the slots over all pairs of an angle."""
    of_data = jnp.einsum("rabn,rbn->a", blocks.early, sums[0])
    of_data += jnp.einsum("rabn,rbn->a", blocks.late, sums[1])
    rows = jnp.concatenate([of_data[None], _between(outer_products(blocks), n_left)])
    return rows + _inside(blocks, near, n_left)


def _rows_of_nodes(blocks: Factors, c2: Array, nodes: Nodes, n_left: int) -> Rows:
    """The same from the factors and the data at nodes, each of which stands for several frames."""
    alpha, early, beta, late, gap = outer_products(blocks)
    n_blocks, count = nodes.frames.shape
    # Inside a block the decay between its ends is undone.
    own = jnp.exp(blocks.decay[..., -1] - blocks.decay[..., 0])
    whole = gap + own[:, :, None] * np.eye(n_blocks)
    squares = c2.reshape(n_blocks, count, n_blocks, count)
    by_later = jnp.einsum("IiJj,rJj->JrIi", squares, beta)
    by_earlier = jnp.einsum("IiJj,rIi->IrJj", squares, alpha)

    def over(blocks: str, frames: str, gap: Array, own: Array, x: Array) -> Array:
        others = jnp.einsum(blocks, gap, jnp.sum(nodes.counts * x, axis=-1))
        within = jnp.einsum(frames, nodes.pairs, x)
        return jnp.asarray(nodes.counts) * others[..., None] + own[..., None] * within

    over_later = partial(over, "...IJ,...J->...I", "Iij,...Ij->...Ii")
    over_earlier = partial(over, "...IJ,...I->...J", "Iij,...Ii->...Ij")
    data_ahead = jnp.einsum("JrIi,rIJ->rIi", by_later, whole)
    data_behind = jnp.einsum("IrJj,rIJ->rJj", by_earlier, whole)
    ahead = jnp.stack([data_ahead, over_later(gap, own, beta)])
    behind = jnp.stack([data_behind, over_earlier(gap, own, alpha)])
    plain = jnp.einsum("rabi,xrbi->xa", early, ahead) + jnp.einsum("rabi,xrbi->xa", late, behind)
    # Two slots: the parts of both at i, or at j; then the part of one at i, of the other at j.
    gap, own = gap[:, None] * gap, own[:, None] * own
    slots = _at_one_time(over_later(gap, own, beta[:, None] * beta), early, n_left)
    slots += _at_one_time(over_earlier(gap, own, alpha[:, None] * alpha), late, n_left)
    weights = jnp.concatenate([nodes.pairs, nodes.counts[:, None]], axis=1)

    def with_rank(r: tuple[Array, ...]) -> Float[Array, "slot slot"]:
        """The slots of one rank at i times those of all at j."""
        early, beta, gap, own = r
        sums = jnp.einsum("Iij,sbIj->Iisb", weights, late * beta)
        others = jnp.einsum("sIJ,Jsb->Isb", gap, sums[:, -1])
        within = sums[:, :-1] * own.T[:, None, :, None]
        sums = within + nodes.counts[:, :, None, None] * others[:, None]
        return jnp.einsum("aIi,Iib->ab", early, jnp.einsum("sIi,Iisb->Iib", alpha, sums))

    across = jax.lax.map(with_rank, (early, beta, gap, own)).sum(axis=0)
    return jnp.concatenate([plain, slots + across[:n_left] + across.T[:n_left]])


def _sums_with_data(
    factors: Factors, data: SeparableData
) -> Float[Array, "angle 2 rank block frame"]:
    """Σ_j data(i, j) b(j) e^{-(Λ(j) - Λ(i))} over the frames j of later blocks, and of earlier."""
    n_angles, n_rank, n = factors.base.shape
    fill = data.near.shape[1] * data.near.shape[2] - n
    both, ends = (factors.base, factors.decay), [(0, 0), (0, 0), (0, fill)]
    base, decay = (jnp.pad(x, ends, mode="edge") for x in both)
    sums = jnp.zeros((n_angles, 2, n_rank, n + fill), base.dtype)
    for far in data.far:
        count, half = far.shape[1:3]
        # Angle and square are one axis: products over two such axes are slow on CPUs.
        square = far.reshape(-1, half, half)
        parts = (x.reshape(n_angles, n_rank, count, 2, half) for x in (base, decay))
        b, d = (jnp.moveaxis(x, 1, 3).reshape(-1, 2, n_rank, half) for x in parts)
        edge = d[:, 0, :, -1:]
        rise, fall = jnp.exp(d[:, 0] - edge), jnp.exp(edge - d[:, 1])
        ahead = rise * jnp.einsum("sij,srj->sir", square, fall * b[:, 1]).mT
        behind = fall * jnp.einsum("sij,sri->srj", square, rise * b[:, 0])
        none = jnp.zeros_like(ahead)
        halves = jnp.stack([ahead, none, none, behind], axis=1)
        halves = halves.reshape(n_angles, count, 2, 2, n_rank, half)
        sums += jnp.moveaxis(halves, (2, 4), (1, 2)).reshape(sums.shape)
    return sums.reshape(*sums.shape[:-1], *data.near.shape[1:3])


def _between(outer: OuterProducts, n_left: int) -> Rows:
    """Pairs whose frames lie in different blocks: sums of (1, slots…) times the slots."""
    alpha, early, beta, late, gap = outer
    ahead = jnp.einsum("rIJ,rJ->rI", gap, beta.sum(-1))
    behind = jnp.einsum("rIJ,rI->rJ", gap, alpha.sum(-1))
    ones = jnp.einsum("rn,ran->a", ahead, early.sum(-1))
    ones += jnp.einsum("rn,ran->a", behind, late.sum(-1))
    # Two slots: as at nodes.
    both = gap[:, None] * gap
    ahead = jnp.einsum("rsIJ,rsJ->rsI", both, jnp.sum(beta[:, None] * beta, axis=-1))
    behind = jnp.einsum("rsIJ,rsI->rsJ", both, jnp.sum(alpha[:, None] * alpha, axis=-1))
    slots = _at_one_time(ahead[..., None], early, n_left)
    slots += _at_one_time(behind[..., None], late, n_left)
    at_early = jnp.einsum("rani,sni->rsan", early, alpha)
    at_late = jnp.einsum("sbni,rni->rsbn", late, beta)
    at_late = jnp.einsum("rsIJ,rsbJ->rsbI", both, at_late)
    slots += jnp.einsum("rsan,rsbn->ab", at_early[:, :, :n_left], at_late)
    slots += jnp.einsum("rsan,rsbn->ba", at_early, at_late[:, :, :n_left])
    return jnp.concatenate([ones[None], slots])


def _at_one_time(weight: Array, slots: Array, n_left: int) -> Float[Array, "left slot"]:
    """Sums over ranks r, s and frames of weight_rs times slot a of r times slot b of s."""
    weighted = sum(w[:, None] * x[None] for w, x in zip(weight, slots[:, :n_left], strict=True))
    left, right = (x.reshape(*x.shape[:2], -1) for x in (jnp.asarray(weighted), slots))
    return jnp.einsum("sat,sbt->sab", left, right).sum(axis=0)


def _inside(blocks: Factors, near: Array, n_left: int) -> Rows:
    """Pairs whose frames lie in one block: sums of (data, 1, slots…) times the slots."""
    right, left = inner_pairs(blocks)
    planes = sum(
        early[..., :, None] * right + late[..., None, :] * left
        for early, late, right, left in zip(blocks.early, blocks.late, right, left, strict=True)
    )
    # No rows of data and 1 beside the others: CPUs join planes slowly.
    slots = jnp.asarray(planes).reshape(blocks.early.shape[1], -1)
    plain = jnp.stack([slots @ near.reshape(-1), jnp.sum(slots, axis=1)])
    return jnp.concatenate([plain, slots[:n_left] @ slots.T])
