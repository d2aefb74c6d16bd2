"""Models that are sums of products, as vectors of one time: C(t1, t2) = Σ_r b_r(t1) b_r(t2) e^{…}.

Between two blocks of frames each product is an outer product: e^{Λ - Λ_I} at t1 and e^{Λ_J - Λ} at
t2, with clocks Λ_I at the end of its rows and Λ_J at the start of its columns as references.
Nothing overflows, and references need no derivative, for they cancel.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.core.models import AbstractTwoTimeModel, Channels


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


def inner_pixels(blocks: RankBlocks) -> tuple[Array, Array]:
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
