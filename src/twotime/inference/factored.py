"""The Gram matrix of separable models, at little more than the cost of reading the data once.

Where C is a sum of products (`AbstractTwoTimeModel.terms`), a rectangle off the diagonal is an
outer product of few vectors: for each term w e^{Λ - Λ_I} (cos Θ, sin Θ) at t1 and
w e^{-(Λ - Λ_J)} (cos Θ, sin Θ) at t2, with clocks Λ_I at the end of its rows and Λ_J at the start
of its columns as references. Nothing overflows, and references need no derivative, for they
cancel. Sums of products of model and derivatives are then inner products of these vectors; the
data, cut into squares once a fit, enter through two thin products with each square.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.core.models import AbstractTwoTimeModel, Terms
from twotime.core.rates import Scalar
from twotime.data.dataset import TwoTimeData

LEAF = 16


class Squares(eqx.Module):
    """Data as the factored form reads them: less a shift, in squares beside the diagonal.

    The triangle t1 < t2 is a square and two triangles half as large, and so on, down to blocks of
    at most `LEAF` frames.

    Attributes:
        far: The squares (angle, square, row, column), those of one size together, largest first.
        near: Pixels t1 < t2 whose frames lie in the same block, 0 elsewhere.
        moments: Sums of products of (data, 1).
    """

    far: tuple[Float[Array, "angle _ _ _"], ...]
    near: Float[Array, "angle block frame frame"]
    moments: Float[Array, "angle 2 2"]


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
    return Squares(far, jnp.moveaxis(near, 0, 1), moments)


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
    n_left = 1 + sum(free) if with_normal else 1

    def ranks_at(phi: Array) -> Ranks:
        return angle_ranks(model, data, params, free, phi)

    def one_angle(x: tuple[Ranks, Array, Array, Array]) -> Array:
        ranks, sums, near, moments = x
        blocks = cut_ranks(ranks, *near.shape[:2])
        of_data = sum(
            jnp.einsum("rat,rt->a", slots, part)
            for slots, part in zip((ranks.early, ranks.late), sums, strict=True)
        )
        rows = jnp.concatenate([jnp.stack([of_data]), _between(blocks, n_left)])
        rows += _inside(blocks, near, n_left)
        mixed = rows[:2, :n_left].T
        return weight * jnp.block([[moments, rows[:2]], [mixed, rows[2:]]])

    ranks = jax.lax.map(ranks_at, jnp.asarray(data.phi))
    sums = _sums_with_data(ranks, cut)
    return jax.lax.map(one_angle, (ranks, sums, cut.near, cut.moments))


def angle_ranks(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    phi: Float[Array, ""],
) -> Ranks:
    """The vectors of one angle: one rank for a term that decays, two for one that oscillates."""
    index = np.flatnonzero(free)

    def terms_at(values: Array) -> Terms:
        channels = model.channels(params.at[index].set(values), data.t, t=data.t, q=data.q, phi=phi)
        return model.terms(channels)

    terms, change = jax.linearize(terms_at, params[index])
    wave = np.flatnonzero(terms.oscillates)
    cos, sin = jnp.cos(terms.phase), jnp.sin(terms.phase)
    even, odd = terms.weight * cos, terms.weight * sin
    base = jnp.concatenate([even, odd[wave]])

    def along(direction: Array) -> tuple[Array, Array]:
        by = change(direction)
        by_even, by_odd = by.weight * cos - odd * by.phase, by.weight * sin + even * by.phase
        by_base = jnp.concatenate([by_even, by_odd[wave]])
        growth = base * jnp.concatenate([by.decay, by.decay[wave]])
        return by_base + growth, by_base - growth

    # One parameter after the other: compilers would form power laws again for each at once.
    slopes = jax.lax.map(along, jnp.eye(index.size, dtype=params.dtype))
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
    gap = jnp.exp(jnp.minimum(last[:, :, None] - first[:, None], 0.0))
    return Outer(
        alpha=rise * blocks.base,
        early=rise[:, None] * blocks.early,
        beta=fall * blocks.base,
        late=fall[:, None] * blocks.late,
        gap=jnp.where(after, gap, 0.0),
    )


def _sums_with_data(ranks: Ranks, squares: Squares) -> Float[Array, "angle 2 rank time"]:
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
    return sums[..., :n]


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
    slots = _at_one_time(ahead, early, n_left) + _at_one_time(behind, late, n_left)
    at_early = jnp.einsum("rani,sni->rsan", early, alpha)
    at_late = jnp.einsum("sbni,rni->rsbn", late, beta)
    at_late = jnp.einsum("rsIJ,rsbJ->rsbI", both, at_late)
    slots += jnp.einsum("rsan,rsbn->ab", at_early[:, :, :n_left], at_late)
    slots += jnp.einsum("rsan,rsbn->ba", at_early, at_late[:, :, :n_left])
    return jnp.concatenate([ones[None], slots])


def _at_one_time(
    weight: Float[Array, "rank rank block"],
    slots: Float[Array, "rank slot block frame"],
    n_left: int,
) -> Float[Array, "left slot"]:
    """Sums over ranks r, s and frames of weight_rs times slot a of r times slot b of s."""
    weighted = sum(
        w[:, None, :, None] * x[None] for w, x in zip(weight, slots[:, :n_left], strict=True)
    )
    left, right = (x.reshape(*x.shape[:2], -1) for x in (jnp.asarray(weighted), slots))
    return jnp.einsum("sat,sbt->sab", left, right).sum(axis=0)


def inner_pixels(blocks: RankBlocks) -> tuple[Array, Array]:
    """Pixels t1 < t2 whose frames lie in one block: the decay times b(t2), and times b(t1)."""
    size = blocks.base.shape[-1]
    upper = jnp.asarray(np.triu(np.ones((size, size)), 1))
    fall = blocks.decay[..., :, None] - blocks.decay[..., None, :]
    decay = upper * jnp.exp(jnp.minimum(fall, 0.0))
    return decay * blocks.base[..., None, :], decay * blocks.base[..., :, None]


def _inside(
    blocks: RankBlocks, near: Float[Array, "block frame frame"], n_left: int
) -> Float[Array, "row slot"]:
    """Pixels whose frames lie in one block: sums of (data, 1, slots…) times the slots."""
    right, left = inner_pixels(blocks)
    planes = sum(
        early[..., :, None] * right + late[..., None, :] * left
        for early, late, right, left in zip(blocks.early, blocks.late, right, left, strict=True)
    )
    # No rows of data and 1 beside the others: processors join planes slowly.
    slots = jnp.asarray(planes).reshape(blocks.early.shape[1], -1)
    plain = jnp.stack([slots @ near.reshape(-1), jnp.sum(slots, axis=1)])
    return jnp.concatenate([plain, slots[:n_left] @ slots.T])
