"""Models that are sums of products, as vectors of one time: C(t1, t2) = Σ_r b_r(t1) b_r(t2) e^{…}.

Between two blocks of frames each product is an outer product: e^{Λ - Λ_I} at t1 and e^{Λ_J - Λ} at
t2, with clocks Λ_I at the end of its rows and Λ_J at the start of its columns as references.
Nothing overflows, and references need no derivative, for they cancel.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twotime.gram.interpolation import (
    ROUNDING,
    NodeCounts,
    follow_from_nodes,
    node_frames,
    node_tails,
)
from twotime.models.base import AbstractTwoTimeModel, Channels


class Ranks(eqx.Module):
    """Vectors of which the model is a sum of outer products, with their derivatives.

    C(i, j) = Σ_r b_r(i) b_r(j) e^{-(Λ_r(j) - Λ_r(i))}. Along `slot` stand half the value and
    then the derivatives by each free parameter, of b e^{Λ} (early) and of b e^{-Λ} (late), the
    exponential divided out: C and each ∂C are then Σ_r early_r(i) b_r(j) + b_r(i) late_r(j).

    Attributes:
        base: b.
        decay: Λ.
        early: Slots for the earlier time of a pixel.
        late: Slots for the later time.
    """

    base: Float[Array, "rank time"]
    decay: Float[Array, "rank time"]
    early: Float[Array, "rank slot time"]
    late: Float[Array, "rank slot time"]


def angle_ranks(model: AbstractTwoTimeModel, channels: Channels, by: Channels) -> Ranks:
    """The vectors of one angle: one rank for a term that decays, two for one that oscillates.

    Args:
        model: A model with `is_separable`.
        channels: Channels of the angle at some times.
        by: Their derivatives there, along a first axis; see `channel_slopes`.
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
    return Ranks(base, jnp.concatenate([terms.decay, terms.decay[wave]]), early, late)


class RankBlocks(eqx.Module):
    """`Ranks` cut into blocks of frames, the last one filled up with frames that count nothing."""

    base: Float[Array, "rank block frame"]
    decay: Float[Array, "rank block frame"]
    early: Float[Array, "rank slot block frame"]
    late: Float[Array, "rank slot block frame"]


def cut_ranks(ranks: Ranks, count: int, size: int) -> RankBlocks:
    """Cut ranks into `count` blocks of `size` frames."""
    fill = count * size - ranks.base.shape[-1]

    def cut(x: Array, mode: str) -> Array:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, fill)], mode=mode)
        return x.reshape(*x.shape[:-1], count, size)

    base, early, late = (cut(x, "constant") for x in (ranks.base, ranks.early, ranks.late))
    return RankBlocks(base, cut(ranks.decay, "edge"), early, late)


class Outer(eqx.Module):
    """Pixels whose frames lie in different blocks I < J, as outer products.

    A slot of the pixel is C_a = Σ_r γ_r (A_ra(i) β_r(j) + α_r(i) B_ra(j)).

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


def outer_products(blocks: RankBlocks) -> Outer:
    """The outer products between blocks."""
    first, last = blocks.decay[..., 0], blocks.decay[..., -1]
    rise, fall = jnp.exp(blocks.decay - last[..., None]), jnp.exp(first[..., None] - blocks.decay)
    after = np.triu(np.ones((first.shape[1],) * 2, bool), 1)
    # Not at most 0: the last tile of nodes begins before the one before it ends.
    gap = jnp.exp(jnp.where(after, last[:, :, None] - first[:, None], 0.0))
    return Outer(
        alpha=rise * blocks.base,
        early=rise[:, None] * blocks.early,
        beta=fall * blocks.base,
        late=fall[:, None] * blocks.late,
        gap=jnp.where(after, gap, 0.0),
    )


def inner_pairs(blocks: RankBlocks) -> tuple[Array, Array]:
    """Pixels t1 < t2 whose frames lie in one block: the decay times b(t2), and times b(t1)."""
    size = blocks.base.shape[-1]
    upper = jnp.asarray(np.triu(np.ones((size, size)), 1))
    fall = blocks.decay[..., :, None] - blocks.decay[..., None, :]
    decay = upper * jnp.exp(jnp.minimum(fall, 0.0))
    return decay * blocks.base[..., None, :], decay * blocks.base[..., :, None]


def at_one_time(
    weight: Float[Array, "rank rank block #frame"],
    slots: Float[Array, "rank slot block frame"],
    n_left: int,
) -> Float[Array, "left slot"]:
    """Sums over ranks r, s and frames of weight_rs times slot a of r times slot b of s."""
    weighted = sum(w[:, None] * x[None] for w, x in zip(weight, slots[:, :n_left], strict=True))
    left, right = (x.reshape(*x.shape[:2], -1) for x in (jnp.asarray(weighted), slots))
    return jnp.einsum("sat,sbt->sab", left, right).sum(axis=0)


_STEEPEST = 30.0
"""How far clocks may go within a block: its pixels below the diagonal must not overflow."""


def ranks_at_nodes(
    model: AbstractTwoTimeModel, channels: Channels, by: Channels, edge: int
) -> tuple[RankBlocks, Bool[Array, ""]]:
    """The ranks of one angle at nodes, and whether all their products are polynomials of them.

    Args:
        model: A model with `is_separable`.
        channels: Channels at the frames.
        by: Their derivatives, along a first axis.
        edge: Edge of the tiles [frame].
    """
    n = channels.level.shape[1]
    frames, tails = node_frames(n, edge), node_tails(n, edge)
    typical = jax.tree.map(lambda x: jnp.sum(_scaled(x, 2), axis=0), by)
    follow = follow_from_nodes(jnp.concatenate(jax.tree.leaves((channels, typical))), edge)
    here = jax.tree.map(lambda x: x[..., frames], (channels, by))
    blocks = cut_ranks(angle_ranks(model, *here), *tails.shape[:2])
    outer = outer_products(blocks)
    # Squares, because sums are of products.
    slots = jnp.concatenate([outer.early, outer.late])
    square = jnp.sum(_scaled(slots, (2, 3)), axis=1) ** 2
    size = jnp.max(square, axis=2, keepdims=True)
    last = jnp.abs(jnp.einsum("rbn,bnk->rbk", square, tails))
    steep = jnp.max(blocks.decay[..., -1] - blocks.decay[..., 0]) > _STEEPEST
    return blocks, jnp.all(follow) & jnp.all(last <= ROUNDING * size) & ~steep


def rows_at_nodes(
    blocks: RankBlocks, c2: Float[Array, "node node"], counts: NodeCounts, n_left: int
) -> Float[Array, "row slot"]:
    """Sums of (data, 1, slots…) times the slots over all pixels of an angle.

    Args:
        blocks: The ranks at the nodes.
        c2: The data brought to the nodes.
        counts: What nodes stand for.
        n_left: How many slots are wanted on the left.
    """
    outer = outer_products(blocks)
    early, late, alpha, beta, gap = outer.early, outer.late, outer.alpha, outer.beta, outer.gap
    own = jnp.exp(blocks.decay[..., -1] - blocks.decay[..., 0])
    data_sums = _sums_with_data(outer, own, c2)
    one_sums = _ahead(gap, own, beta, counts), _behind(gap, own, alpha, counts)
    plain = sum(
        jnp.einsum("rabi,xrbi->xa", slots, jnp.stack(pair))
        for slots, *pair in zip((early, late), data_sums, one_sums, strict=True)
    )
    # Two slots: the parts of both at i, or at j; then the part of one at i, of the other at j.
    gap, own = gap[:, None] * gap, own[:, None] * own
    ahead = _ahead(gap, own, beta[:, None] * beta, counts)
    behind = _behind(gap, own, alpha[:, None] * alpha, counts)
    slots = at_one_time(ahead, early, n_left) + at_one_time(behind, late, n_left)
    weights = jnp.concatenate([counts.pixels, counts.frames[:, None]], axis=1)
    sums = jnp.einsum("Iij,rsbIj->Iirsb", weights, late[None] * beta[:, None, None])
    within = sums[:, :-1] * jnp.moveaxis(own, 2, 0)[:, None, :, :, None]
    others = jnp.einsum("rsIJ,Jrsb->Irsb", gap, sums[:, -1])
    sums = within + counts.frames[:, :, None, None, None] * others[:, None]
    at_early = jnp.einsum("sIi,Iirsb->rIib", alpha, sums)
    across = jnp.einsum("raIi,rIib->ab", early, at_early)
    return jnp.concatenate([plain, slots + across[:n_left] + across.T[:n_left]])


def _sums_with_data(
    outer: Outer, own: Float[Array, "rank block"], c2: Float[Array, "node node"]
) -> tuple[Array, Array]:
    """Σ_j data(i, j) b(j) e^{-(Λ(j) - Λ(i))} over the frames j of this block and later ones.

    The decay is as in `Outer`, without e^{Λ - Λ_I}; and likewise over earlier ones.
    """
    n_blocks, count = outer.alpha.shape[1:]
    gap = outer.gap + own[:, :, None] * np.eye(n_blocks)
    c2 = c2.reshape(n_blocks, count, n_blocks, count)
    ahead = jnp.einsum("IiJj,rJj->JrIi", c2, outer.beta)
    behind = jnp.einsum("IiJj,rIi->IrJj", c2, outer.alpha)
    return jnp.einsum("JrIi,rIJ->rIi", ahead, gap), jnp.einsum("IrJj,rIJ->rJj", behind, gap)


def _ahead(gap: Array, own: Array, late: Array, counts: NodeCounts) -> Array:
    """Sums over the pixels at each frame with later frames of a function of the later one."""
    others = jnp.einsum("...IJ,...J->...I", gap, jnp.sum(counts.frames * late, axis=-1))
    within = jnp.einsum("Iij,...Ij->...Ii", counts.pixels, late)
    return jnp.asarray(counts.frames) * others[..., None] + own[..., None] * within


def _behind(gap: Array, own: Array, early: Array, counts: NodeCounts) -> Array:
    """Sums over the pixels at each frame with earlier frames of a function of the earlier one."""
    others = jnp.einsum("...IJ,...I->...J", gap, jnp.sum(counts.frames * early, axis=-1))
    within = jnp.einsum("Iij,...Ii->...Ij", counts.pixels, early)
    return jnp.asarray(counts.frames) * others[..., None] + own[..., None] * within


def _scaled(x: Array, axis: int | tuple[int, ...]) -> Array:
    """In units of the largest along some axes."""
    size = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
    return x / jnp.where(size > 0, size, 1.0)
