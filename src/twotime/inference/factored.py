"""The Gram matrix of separable models, at little more than the cost of reading the data once.

Where C is a sum of products (`AbstractTwoTimeModel.terms`), a tile off the diagonal is an outer
product of few vectors: for each term w e^{Λ - Λ_I} (cos Θ, sin Θ) at t1 and w e^{-(Λ - Λ_J)}
(cos Θ, sin Θ) at t2, with the clocks Λ_I at the end of the row block and Λ_J at the start of
the column block as references. Nothing overflows, and references need no derivative, for they
cancel. Sums of products of model and derivatives are then inner products of these vectors;
the data enter through two thin products that each read them once.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.core.models import AbstractTwoTimeModel
from twotime.core.rates import Scalar
from twotime.data.dataset import TwoTimeData

BLOCK = 32


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
    with_normal: bool = True,
) -> Float[Array, "angle row basis"]:
    """Gram matrix of each angle of a separable model; every pixel t1 < t2 counts alike.

    Args:
        model: A model with `is_separable`.
        data: Data without mask, all finite above the diagonal; sigma one number or None.
        params: All parameters in the order of `model.names`.
        free: Which parameters are differentiated.
        shift: Subtracted from the data, to keep digits.
        with_normal: Whether products of derivatives are wanted.

    Returns:
        Sums over t1 < t2 of products of [data, 1, model, derivatives], weighted by 1/sigma²; the
        rows of data, 1 and model alone if not `with_normal`.
    """
    weight = 1.0 if data.sigma is None else 1.0 / jnp.asarray(data.sigma) ** 2

    def one_angle(k: Array) -> Array:
        ranks = angle_ranks(model, data, params, free, jnp.asarray(data.phi)[k])
        inner, ones = _among_models(ranks, with_normal)
        products, moments = _with_data(ranks, data, k, shift)
        mixed = jnp.stack([products, ones])
        return weight * jnp.block([[moments, mixed], [mixed[:, : inner.shape[0]].T, inner]])

    return jax.lax.map(one_angle, jnp.arange(data.phi.shape[0]))


def angle_ranks(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    phi: Float[Array, ""],
) -> Ranks:
    """The vectors of one angle: one rank for a term that decays, two for one that oscillates."""
    index = np.flatnonzero(free)

    def of_free(values: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        channels = model.channels(params.at[index].set(values), data.t, t=data.t, q=data.q, phi=phi)
        terms = model.terms(channels)
        cosine = terms.weight * jnp.cos(terms.phase)
        wave = np.flatnonzero(terms.oscillates)
        sine = terms.weight[wave] * jnp.sin(terms.phase[wave])
        out = jnp.concatenate([cosine, sine]), jnp.concatenate([terms.decay, terms.decay[wave]])
        return out, out

    slopes, (base, decay) = jax.jacfwd(of_free, has_aux=True)(params[index])
    by_base, by_decay = (jnp.moveaxis(s, -1, 1) for s in slopes)
    growth, half = base[:, None] * by_decay, 0.5 * base[:, None]
    early = jnp.concatenate([half, by_base + growth], axis=1)
    late = jnp.concatenate([half, by_base - growth], axis=1)
    return Ranks(base, decay, early, late)


def _among_models(ranks: Ranks, with_normal: bool) -> tuple[Array, Array]:
    """Sums over t1 < t2 of products of (model, derivatives), and of each with 1.

    The products are of all with all, or of the model with all.
    """
    blocks = _cut(ranks, BLOCK)
    n_left = blocks.early.shape[2] if with_normal else 1
    far = _between_blocks(blocks, n_left)
    near = _inside_blocks(blocks, n_left)
    return far[0] + near[0], far[1] + near[1]


class _Blocks(eqx.Module):
    """`Ranks` cut into blocks of frames, the last one filled up with frames that count nothing."""

    base: Float[Array, "block rank frame"]
    decay: Float[Array, "block rank frame"]
    early: Float[Array, "block rank slot frame"]
    late: Float[Array, "block rank slot frame"]
    real: Float[Array, "block frame"]


def _cut(ranks: Ranks, size: int) -> _Blocks:
    n = ranks.base.shape[-1]
    fill = -n % size

    def cut(x: Array, mode: str) -> Array:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, fill)], mode=mode)
        return jnp.moveaxis(x.reshape(*x.shape[:-1], -1, size), -2, 0)

    real = cut(jnp.ones_like(ranks.base[0]), "constant")
    base, early, late = (cut(x, "constant") for x in (ranks.base, ranks.early, ranks.late))
    return _Blocks(base, cut(ranks.decay, "edge"), early, late, real)


def _between_blocks(blocks: _Blocks, n_left: int) -> tuple[Array, Array]:
    """Pixels whose frames lie in different blocks: inner products, summed from the last block."""
    n_rank, n_slot = blocks.early.shape[1:3]
    # Of each rank the base and the first slots; and the row of ones.
    left = np.arange(n_rank * (n_slot + 1)).reshape(n_rank, -1)[:, : n_left + 1]
    left = np.append(left, n_rank * (n_slot + 1))
    first, last = blocks.decay[..., 0], blocks.decay[..., -1]
    early = _with_one(blocks.base, blocks.early, jnp.exp(blocks.decay - last[..., None]), blocks)
    late = _with_one(blocks.base, blocks.late, jnp.exp(first[..., None] - blocks.decay), blocks)
    own = jnp.einsum("nab,ncb->nac", early[:, left], early)
    other = jnp.einsum("nab,ncb->nac", late[:, left], late)

    def rows(x: Array) -> Array:
        of_base_and_slots = jnp.repeat(x, n_slot + 1, axis=1)
        return jnp.concatenate([of_base_and_slots, jnp.ones((x.shape[0], 1))], axis=1)

    gap, span = rows(jnp.exp(last[:-1] - first[1:])), rows(jnp.exp(first - last)[1:])

    def add_block(later: Array, x: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        product, to_next, across = x
        later = product + later * (across[left, None] * across[None, :])
        later = later * (to_next[left, None] * to_next[None, :])
        return later, later

    start = jnp.zeros_like(other[0])
    later = jax.lax.scan(add_block, start, (other[1:], gap, span), reverse=True)[1]
    return _contract(own[:-1], later, n_rank, n_slot)


def _with_one(base: Array, slots: Array, decay: Array, blocks: _Blocks) -> Array:
    """Rows (base, slots) of every rank, decayed to the block's edge, and a last row of ones."""
    rows = jnp.concatenate([base[:, :, None], slots], axis=2) * decay[:, :, None]
    rows = rows.reshape(rows.shape[0], -1, rows.shape[-1])
    return jnp.concatenate([rows, blocks.real[:, None]], axis=1)


def _contract(own: Array, later: Array, n_rank: int, n_slot: int) -> tuple[Array, Array]:
    """From products within early rows and within late rows to sums over pixels.

    With C_a = Σ_r e_ra b_r' + b_r l_ra' the sum of C_a C_b is, over ranks r and s, that of
    (ea·eb)(b'·b') + (b·b)(la'·lb') + (ea·b)(b'·lb') + (b·eb)(la'·b').
    """
    size = n_rank * (n_slot + 1)
    count, n_left = own.shape[0], (own.shape[1] - 1) // n_rank
    shape = (count, n_rank, n_left, n_rank, n_slot + 1)
    e, f = (x[:, :-1, :size].reshape(shape) for x in (own, later))
    total = jnp.einsum("nrasb,nrs->ab", e[:, :, 1:, :, 1:], f[:, :, 0, :, 0])
    total += jnp.einsum("nrasb,nrs->ab", f[:, :, 1:, :, 1:], e[:, :, 0, :, 0])
    total += jnp.einsum("nras,nrsb->ab", e[:, :, 1:, :, 0], f[:, :, 0, :, 1:])
    total += jnp.einsum("nrsb,nras->ab", e[:, :, 0, :, 1:], f[:, :, 1:, :, 0])
    e1, f1 = (x[:, -1, :size].reshape(count, n_rank, n_slot + 1) for x in (own, later))
    ones = jnp.einsum("nra,nr->a", e1[:, :, 1:], f1[:, :, 0])
    ones += jnp.einsum("nra,nr->a", f1[:, :, 1:], e1[:, :, 0])
    return total, ones


def _inside_blocks(blocks: _Blocks, n_left: int) -> tuple[Array, Array]:
    """Pixels whose frames lie in the same block, formed one by one.

    With the model alone on the left the derivatives need no planes of their own, only the sums
    over rows and columns of what their slots multiply.
    """
    size = blocks.real.shape[-1]
    upper = jnp.triu(jnp.ones((size, size), bool), 1)
    n_slot = blocks.early.shape[2]

    def planes(block: _Blocks) -> tuple[Array, Array]:
        decay = jnp.where(upper, _falls(block.decay, block.decay), 0.0)
        return decay * block.base[:, None, :], decay * block.base[:, :, None]

    def add_model(total: tuple[Array, Array], block: _Blocks) -> tuple[tuple[Array, Array], None]:
        right, left = planes(block)
        value = 2 * jnp.sum(block.early[:, 0, :, None] * right, axis=0)
        sums = [
            jnp.einsum("rai,ri->a", block.early, jnp.einsum("ij,rij->ri", plane, right))
            + jnp.einsum("raj,rj->a", block.late, jnp.einsum("ij,rij->rj", plane, left))
            for plane in (value, jnp.ones_like(value))
        ]
        return (total[0] + sums[0], total[1] + sums[1]), None

    def add_all(total: tuple[Array, Array], block: _Blocks) -> tuple[tuple[Array, Array], None]:
        right, left = planes(block)
        values = jnp.zeros((n_slot, size, size), right.dtype)
        for r in range(block.base.shape[0]):
            values += block.early[r][:, :, None] * right[r]
            values += block.late[r][:, None, :] * left[r]
        values = values.reshape(n_slot, -1)
        products, ones = total
        products += values @ values.T
        return (products, ones + values @ jnp.ones_like(values[0])), None

    slots = jnp.zeros(n_slot, blocks.base.dtype)
    if n_left == 1:
        products, ones = jax.lax.scan(add_model, (slots, slots), blocks)[0]
        return products[None], ones
    return jax.lax.scan(add_all, (slots[:, None] * slots, slots), blocks)[0]


def _falls(early: Array, late: Array) -> Array:
    """exp(-(late - early)) for each pair along the last axes, 1 where it would grow."""
    return jnp.exp(jnp.minimum(early[..., :, None] - late[..., None, :], 0.0))


def _with_data(ranks: Ranks, data: TwoTimeData, k: Array, shift: Scalar) -> tuple[Array, Array]:
    """Sums of data times (model, derivatives), and of products of (data, 1), strip by strip."""
    n = ranks.base.shape[-1]
    size = min(BLOCK, n)
    own = np.arange(0, n, size)
    first = np.minimum(own, n - size)
    # Floating-point numbers, because processors compare few 64-bit integers at once.
    frames = jnp.arange(n, dtype=ranks.base.dtype)
    ones = jnp.ones_like(frames)

    def add_strip(later: Array, x: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        start, own_start = x
        rows = start + frames[:size]
        c2 = jax.lax.dynamic_slice(data.c2, (k, start, 0), (1, size, n))[0]
        after = jnp.where(rows >= own_start, rows, jnp.inf)[:, None]
        c2 = jnp.where(after < frames[None, :], c2.astype(ranks.base.dtype) - shift, 0.0)
        inside, base, decay = (
            jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)
            for x in (c2, ranks.base, ranks.decay)
        )
        end = decay[:, -1:]
        rise = jnp.exp(decay - end)
        fall = jnp.where(frames > rows[-1], jnp.exp(jnp.minimum(end - ranks.decay, 0.0)), 0.0)
        near = inside * _falls(decay, decay)
        early = rise * (c2 @ (fall * ranks.base).T).T + jnp.einsum("rij,rj->ri", near, base)
        later = later + fall * ((rise * base) @ c2)
        mine = jax.lax.dynamic_slice_in_dim(later, start, size, axis=1)
        mine = mine + jnp.einsum("rij,ri->rj", near, base)
        later = jax.lax.dynamic_update_slice_in_dim(later, mine, start, axis=1)
        # Sums as products with ones, because these are vectorised.
        sums = jnp.stack([jnp.sum((c2 * c2) @ ones), jnp.sum(c2 @ ones)])
        return later, (early, sums)

    start = jnp.zeros_like(ranks.base)
    later, (early, sums) = jax.lax.scan(add_strip, start, (jnp.asarray(first), jnp.asarray(own)))
    early = jnp.moveaxis(early, 1, 0)
    again = int(own[-1] - first[-1])
    early = jnp.concatenate(
        [early[:, :-1].reshape(early.shape[0], -1), early[:, -1, again:]], axis=1
    )
    products = jnp.einsum("rai,ri->a", ranks.early, early)
    products += jnp.einsum("raj,rj->a", ranks.late, later)
    squares, total = jnp.sum(sums, axis=0)
    count = jnp.asarray(n * (n - 1) / 2, squares.dtype)
    return products, jnp.stack([jnp.stack([squares, total]), jnp.stack([total, count])])
