"""The factored form at the nodes of tiles, where all its products are polynomials of them.

A block of frames on the diagonal is then a pair of blocks like any other: below the diagonal the
law goes on, and the weights of its nodes leave those pixels out. See `twotime.inference.nodes`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twotime.core.models import AbstractTwoTimeModel, Channels
from twotime.inference.node_bases import NodeCounts, node_frames, node_tails
from twotime.inference.nodes import ROUNDING, follow_from_nodes
from twotime.inference.ranks import (
    Outer,
    RankBlocks,
    angle_ranks,
    at_one_time,
    cut_ranks,
    outer_products,
)

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
