"""The Gram matrix of separable models, at little more than the cost of reading the data once.

Where C is a sum of products (`AbstractTwoTimeModel.terms`), a tile off the diagonal is an outer
product of few vectors: for each term w e^{Λ - Λ_I} (cos Θ, sin Θ) at t1 and w e^{-(Λ - Λ_J)}
(cos Θ, sin Θ) at t2, with the clocks Λ_I at the end of the row block and Λ_J at the start of
the column block as references. Nothing overflows, and references need no derivative, for they
cancel. Sums of products of model and derivatives are then inner products of these vectors;
the data, cut into strips once a fit, enter through two thin products with each strip.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.core.models import AbstractTwoTimeModel, Terms
from twotime.core.rates import Scalar
from twotime.data.dataset import TwoTimeData

BLOCK = 32


class Strips(eqx.Module):
    """Data as the factored form reads them: less a shift, in strips of `BLOCK` rows.

    Attributes:
        far: Pixels t1 < t2 whose frames lie in different blocks, 0 elsewhere.
        near: Pixels t1 < t2 whose frames lie in the same block, 0 elsewhere.
        moments: Sums of products of (data, 1).
    """

    far: Float[Array, "angle block frame time"]
    near: Float[Array, "angle block frame frame"]
    moments: Float[Array, "angle 2 2"]


def cut_strips(data: TwoTimeData, shift: Scalar) -> Strips:
    """Cut data into strips; as much memory as the data in float64.

    Args:
        data: Data without mask, all finite above the diagonal.
        shift: Subtracted from the data, to keep digits.
    """
    n_angles, n = data.c2.shape[:2]
    upper = np.triu(np.ones((n, n), bool), 1)
    c2 = jnp.where(upper, jnp.asarray(data.c2).astype(jnp.result_type(data.t)) - shift, 0.0)
    total, square = jnp.sum(c2, axis=(1, 2)), jnp.einsum("kij,kij->k", c2, c2)
    count = jnp.full_like(total, n * (n - 1) / 2)
    moments = jnp.stack([jnp.stack([square, total], -1), jnp.stack([total, count], -1)], -2)
    fill = -n % BLOCK
    c2 = jnp.pad(c2, ((0, 0), (0, fill), (0, fill))).reshape(n_angles, -1, BLOCK, n + fill)
    blocks = np.arange(c2.shape[1])
    near = c2.reshape(*c2.shape[:3], -1, BLOCK)[:, blocks, :, blocks]
    own = (np.arange(n + fill) // BLOCK == blocks[:, None])[:, None]
    return Strips(jnp.where(own, 0.0, c2), jnp.moveaxis(near, 0, 1), moments)


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
    strips: Strips | None = None,
    with_normal: bool = True,
) -> Float[Array, "angle row basis"]:
    """Gram matrix of each angle of a separable model; every pixel t1 < t2 counts alike.

    Args:
        model: A model with `is_separable`.
        data: Data without mask, all finite above the diagonal; sigma one number or None.
        params: All parameters in the order of `model.names`.
        free: Which parameters are differentiated.
        shift: Subtracted from the data, to keep digits.
        strips: The same data and shift cut beforehand; None cuts them here.
        with_normal: Whether products of derivatives are wanted.

    Returns:
        Sums over t1 < t2 of products of [data, 1, model, derivatives], weighted by 1/sigma²; the
        rows of data, 1 and model alone if not `with_normal`.
    """
    weight = 1.0 if data.sigma is None else 1.0 / jnp.asarray(data.sigma) ** 2
    cut = cut_strips(data, shift) if strips is None else strips

    def one_angle(k: Array) -> Array:
        ranks = angle_ranks(model, data, params, free, jnp.asarray(data.phi)[k])
        blocks = _cut(ranks)
        near = _inside_with_all if with_normal else _inside_with_model
        rows = near(blocks, cut.near[k])
        far, ones = _between_blocks(blocks, rows.shape[0] - 2)
        rows += jnp.concatenate([jnp.stack([_between_with_data(blocks, cut.far, k), ones]), far])
        mixed = rows[:2, : rows.shape[0] - 2].T
        return weight * jnp.block([[cut.moments[k], rows[:2]], [mixed, rows[2:]]])

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

    def terms_at(values: Array) -> Terms:
        channels = model.channels(params.at[index].set(values), data.t, t=data.t, q=data.q, phi=phi)
        return model.terms(channels)

    terms = terms_at(params[index])
    wave = np.flatnonzero(terms.oscillates)
    cos, sin = jnp.cos(terms.phase), jnp.sin(terms.phase)
    even, odd = terms.weight * cos, terms.weight * sin
    base = jnp.concatenate([even, odd[wave]])

    def along(direction: Array) -> tuple[Array, Array]:
        by = jax.jvp(terms_at, (params[index],), (direction,))[1]
        by_even, by_odd = by.weight * cos - odd * by.phase, by.weight * sin + even * by.phase
        by_base = jnp.concatenate([by_even, by_odd[wave]])
        growth = base * jnp.concatenate([by.decay, by.decay[wave]])
        return by_base + growth, by_base - growth

    # One parameter after the other: compilers would form power laws again for each at once.
    slopes = jax.lax.map(along, jnp.eye(index.size, dtype=params.dtype))
    early, late = (jnp.moveaxis(jnp.concatenate([0.5 * base[None], s]), 0, 1) for s in slopes)
    return Ranks(base, jnp.concatenate([terms.decay, terms.decay[wave]]), early, late)


class _Blocks(eqx.Module):
    """`Ranks` cut into blocks of frames, the last one filled up with frames that count nothing."""

    base: Float[Array, "block rank frame"]
    decay: Float[Array, "block rank frame"]
    early: Float[Array, "block rank slot frame"]
    late: Float[Array, "block rank slot frame"]
    real: Float[Array, "block frame"]


def _cut(ranks: Ranks) -> _Blocks:
    fill = -ranks.base.shape[-1] % BLOCK

    def cut(x: Array, mode: str) -> Array:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, fill)], mode=mode)
        return jnp.moveaxis(x.reshape(*x.shape[:-1], -1, BLOCK), -2, 0)

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


def _planes(blocks: _Blocks) -> tuple[Array, Array, Array]:
    """Pixels of one block: which have t1 < t2; of each rank the decay times b(t2) and b(t1)."""
    upper = jnp.asarray(np.triu(np.ones((BLOCK, BLOCK)), 1))
    fall = blocks.decay[..., :, None] - blocks.decay[..., None, :]
    decay = upper * jnp.exp(jnp.minimum(fall, 0.0))
    return upper, decay * blocks.base[..., None, :], decay * blocks.base[..., :, None]


def _inside_with_all(
    blocks: _Blocks, near: Float[Array, "block frame frame"]
) -> Float[Array, "row slot"]:
    """Pixels whose frames lie in one block: sums of (data, 1, slots…) times the slots."""
    upper, right, left = _planes(blocks)
    ranks = range(blocks.base.shape[1])
    # Slots stand first, so that pixels lie side by side in the product of matrices.
    early, late = (jnp.moveaxis(x, 0, 2) for x in (blocks.early, blocks.late))
    slots = sum(
        early[r][..., :, None] * right[:, r] + late[r][..., None, :] * left[:, r] for r in ranks
    )
    ones = jnp.broadcast_to(upper, near.shape)
    planes = jnp.concatenate([jnp.stack([near, ones]), jnp.asarray(slots)])
    planes = planes.reshape(planes.shape[0], -1)
    return (planes @ planes.T)[:, 2:]


def _inside_with_model(
    blocks: _Blocks, near: Float[Array, "block frame frame"]
) -> Float[Array, "3 slot"]:
    """As `_inside_with_all` for (data, 1, model) alone: derivatives need no planes of their own.

    The sums over rows and columns of what their slots multiply are enough.
    """

    def add_block(total: Array, x: tuple[_Blocks, Array]) -> tuple[Array, None]:
        block, data = x
        upper, right, left = _planes(block)
        value = 2 * jnp.sum(block.early[:, 0, :, None] * right, axis=0)
        sums = [
            jnp.einsum("rai,ri->a", block.early, jnp.einsum("ij,rij->ri", plane, right))
            + jnp.einsum("raj,rj->a", block.late, jnp.einsum("ij,rij->rj", plane, left))
            for plane in (data, upper, value)
        ]
        return total + jnp.stack(sums), None

    start = jnp.zeros((3, blocks.early.shape[2]), blocks.base.dtype)
    return jax.lax.scan(add_block, start, (blocks, near))[0]


def _between_with_data(
    blocks: _Blocks, far: Float[Array, "angle block frame time"], k: Array
) -> Float[Array, " slot"]:
    """Pixels whose frames lie in different blocks: sums of data times the slots, strip by strip."""
    count, n_rank, size = blocks.base.shape
    first, last = blocks.decay[..., 0], blocks.decay[..., -1]
    rise, fall = jnp.exp(blocks.decay - last[..., None]), jnp.exp(first[..., None] - blocks.decay)
    early_side, late_side = rise * blocks.base, jnp.moveaxis(fall * blocks.base, 1, 0)
    after = np.triu(np.ones((count, count), bool), 1)[:, None]
    gap = jnp.where(after, jnp.exp(jnp.minimum(last[..., None] - first.T, 0.0)), 0.0)[..., None]

    def add_strip(late: Array, x: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        i, side, gap = x
        strip = jax.lax.dynamic_slice(far, (k, i, 0, 0), (1, 1, size, count * size))[0, 0]
        early = (late_side * gap).reshape(n_rank, -1) @ strip.T
        return late + (side @ strip).reshape(late.shape) * gap, early

    steps = jnp.arange(count), early_side, gap
    late, early = jax.lax.scan(add_strip, jnp.zeros_like(late_side), steps)
    products = jnp.einsum("nrai,nri->a", blocks.early, rise * early)
    return products + jnp.einsum("nraj,nrj->a", blocks.late, fall * jnp.moveaxis(late, 1, 0))
