"""A fit seen on blocks of frames: the model, its derivatives and the residuals, rebinned.

Few blocks hold what the covariance of a fit needs, whatever the frames.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int, PyTree

from twotime.gram.low_rank import angle_ranks, cut_ranks, inner_pairs, outer_products
from twotime.gram.pairs import arrange, channel_slopes, cut_tile, slopes, tile_pairs
from twotime.gram.problem import Problem
from twotime.models.base import AbstractTwoTimeModel, Channels, Pair

BLOCKS = 60
_EDGE = 128


class Blocks(eqx.Module):
    """Residuals of one angle rebinned in blocks of frames; symmetric.

    Attributes:
        residual: Mean residual of the usable pixels of each block.
        weight: Sum of their weights; on the diagonal of the pixels with t1 < t2 alone.
    """

    residual: Float[Array, "block block"]
    weight: Float[Array, "block block"]


class Planes(eqx.Module):
    """A model on pairs of blocks of frames, averaged over the frames of both.

    Attributes:
        value: Normalised correlation; below 1 on the diagonal where it changes within a block.
        derivative: Its derivatives along directions in the free parameters.
        field: Field correlation, in single precision.
    """

    value: Float[Array, "block block"]
    derivative: Float[Array, "direction block block"]
    field: Complex[Array, "block block"] | Float[Array, "block block"]


def stride(n_frames: int) -> int:
    """Frames in a block."""
    return -(-n_frames // BLOCKS)


def residual_blocks(
    problem: Problem, channels: Channels, scaling: tuple[Array, Array], k: Int[Array, ""]
) -> Blocks:
    """Rebin the residuals of angle `k`, tile by tile.

    Args:
        problem: The fit.
        channels: Channels of the angle at the frames.
        scaling: Contrast and offset of the angle, the data's shift taken out.
        k: Which angle.
    """
    n = problem.data.t.shape[0]
    s = stride(n)
    n_blocks = -(-n // s)
    in_tile = -(-n_blocks // -(-n // _EDGE))
    edge = min(s * in_tile, n)
    contrast, offset = scaling
    kinds = 2 if problem.data.sigma is None else 3  # weights count pixels where they are all 1
    starts = range(0, n_blocks, in_tile)
    corners = jnp.asarray([(i, j) for i in starts for j in starts if i <= j])
    blocks, frames = jnp.arange(in_tile)[:, None], jnp.arange(edge)

    def add(sums: Array, corner: Array) -> tuple[Array, None]:
        tile = cut_tile(problem.data, k, problem.shift, corner * s, edge)
        value = problem.model.correlation(tile_pairs(channels, tile.first, edge))
        used = (tile.weight > 0).astype(tile.weight.dtype)
        residual = tile.c2 - used * (contrast * value + offset)
        planes = jnp.stack([residual, tile.weight, used][:kinds])
        # Sums over blocks as products with their members: scatters are slow on CPUs.
        rows, columns = (
            ((first + frames) // s == own + blocks).astype(used.dtype)
            for first, own in zip(tile.first, corner, strict=True)
        )
        local = jnp.einsum("bi,xic->xbc", rows, planes @ columns.T)
        return jax.lax.dynamic_update_slice(sums, local, (0, *corner)), None

    filled = len(starts) * in_tile
    sums = jax.lax.scan(add, jnp.zeros((kinds, filled, filled)), corners)[0]
    sums = sums[:, :n_blocks, :n_blocks]
    return Blocks(_symmetric(sums[0] / jnp.maximum(sums[-1], 1.0)), _symmetric(sums[1]))


def complete_blocks(
    problem: Problem, planes: Planes, scaling: tuple[Array, Array], k: Int[Array, ""]
) -> Blocks:
    """`residual_blocks` where no pixel is missing and all count alike, at one read of the data.

    Args:
        problem: The fit.
        planes: The model on blocks, from `separable_planes`.
        scaling: Contrast and offset of the angle, the data's shift taken out.
        k: Which angle.
    """
    n = problem.data.t.shape[0]
    s = stride(n)
    frames = np.minimum(s, n - np.arange(0, n, s))
    whole, size = n // s, frames.size
    c2 = jnp.asarray(problem.data.c2)

    def rows_of(first: Array, count: int) -> tuple[Array, Array]:
        rows = jax.lax.dynamic_slice(c2, (k, first, 0), (1, count, n))[0].astype(planes.value.dtype)
        own = jax.lax.dynamic_slice_in_dim(rows, first, count, axis=1)
        later = np.triu(np.ones((count, count), bool), 1)
        own = jnp.sum(jnp.where(later, own - problem.shift, 0.0))
        return jnp.ones(count, rows.dtype) @ rows, own

    along, own = jax.lax.map(lambda i: rows_of(i * s, s), jnp.arange(whole))
    if whole < size:
        last = rows_of(jnp.asarray(whole * s), int(frames[-1]))
        along, own = (
            jnp.concatenate([x, y[None]]) for x, y in zip((along, own), last, strict=True)
        )
    along = jnp.pad(along, ((0, 0), (0, size * s - n))).reshape(size, size, s)
    off, count = np.triu(np.ones((size, size), bool), 1), np.outer(frames, frames)
    total = jnp.where(off, along.sum(2) - problem.shift * count, 0.0) + jnp.diag(own)
    count = np.where(off, count, np.diag(frames * (frames - 1) // 2))
    contrast, offset = scaling
    mean = total / np.maximum(count, 1) - (contrast * planes.value + offset)
    weight = 1.0 if problem.data.sigma is None else 1.0 / jnp.asarray(problem.data.sigma) ** 2
    mean = jnp.where(np.triu(np.ones(count.shape, bool)), mean, 0.0)
    return Blocks(_symmetric(mean), weight * _symmetric(jnp.asarray(count, mean.dtype)))


def block_planes(problem: Problem, channels: Channels, by: Channels) -> Planes:
    """Evaluate any model on blocks of frames, at two points of each in each direction.

    Args:
        problem: The fit.
        channels: Channels of an angle at the frames.
        by: Their derivatives, see `channel_slopes`.
    """
    n = problem.data.t.shape[0]
    here, by = jax.tree.map(lambda x: _at_points(x, n), (channels, by))
    pixel = tile_pairs(here, (0, 0), here.level.shape[1])
    value, planes = slopes(problem.model, pixel)
    half = _half(value.shape[0])
    g = jnp.stack(planes) * half
    row, column = arrange(by, axis=1)
    k = 1 if stride(n) == 1 else 2
    derivative = _contracted(g, row, k) + _contracted(g.mT, column, k).mT
    field = single(_field(problem.model, pixel, value))
    return Planes(
        value=_both(_pooled(value * half, k)),
        derivative=_both(derivative),
        field=_both(_pooled(field * single(half), k)),
    )


def separable_planes(
    problem: Problem,
    params: Float[Array, " param"],
    phi: Float[Array, ""],
    directions: Float[Array, "direction free"],
) -> Planes:
    """Evaluate a separable model on blocks of frames: value and derivatives are exact means.

    Args:
        problem: The fit.
        params: All parameters.
        phi: Detector angle [degree].
        directions: Directions of the derivatives in the free parameters.
    """
    n = problem.data.t.shape[0]
    s = stride(n)
    settings = problem.model, problem.data, params, problem.varying, phi
    channels, by = channel_slopes(*settings, directions)
    ranks = angle_ranks(problem.model, channels, by)
    count = np.minimum(s, n - np.arange(0, n, s))
    blocks = cut_ranks(ranks, count.size, s)
    outer = outer_products(blocks)
    ahead = outer.gap * (outer.beta.sum(-1) / count)[:, None]
    behind = outer.gap * (outer.alpha.sum(-1) / count)[:, :, None]
    early, late = outer.early.sum(-1) / count, outer.late.sum(-1) / count
    pairs, slots = jnp.concatenate([ahead, behind.mT]), jnp.concatenate([early, late])
    planes = jnp.einsum("rIJ,raI->aIJ", pairs, slots)
    planes += planes.mT
    right, left = inner_pairs(blocks)
    inside = jnp.einsum("raIi,rIi->aI", blocks.early, right.sum(-1))
    inside += jnp.einsum("raIi,rIi->aI", blocks.late, left.sum(-2))
    inside = (2 * inside / count).at[0].add(1.0) / count
    planes += inside[:, :, None] * np.eye(count.size)
    return Planes(planes[0], planes[1:], _mean_field(problem.model, channels))


def _mean_field(model: AbstractTwoTimeModel, channels: Channels) -> Array:
    n = channels.level.shape[1]
    here = jax.tree.map(lambda x: _at_points(x, n), channels)
    pixel = tile_pairs(here, (0, 0), here.level.shape[1], dtype=jnp.float32)
    field = _field(model, pixel, model.correlation(pixel))
    return _both(_pooled(field * single(_half(field.shape[0])), 1 if stride(n) == 1 else 2))


def _at_points(x: Array, n_frames: int) -> Array:
    """A function on the frames, read at the two points of Gauss's rule of each block."""
    s = stride(n_frames)
    if s == 1:
        return x
    fill = [(0, 0)] * (x.ndim - 1) + [(0, -n_frames % s)]
    x = jnp.pad(x, fill, mode="edge").reshape(*x.shape[:-1], -(-n_frames // s), s)
    places = 0.5 * (s - 1) + 0.5 * np.sqrt((s**2 - 1) / 3.0) * np.array([-1.0, 1.0])
    left = np.minimum(places.astype(int), s - 2)
    read = [
        (1 - f) * x[..., i] + f * x[..., i + 1] for i, f in zip(left, places - left, strict=True)
    ]
    return jnp.stack(read, axis=-1).reshape(*x.shape[:-2], 2 * x.shape[-2])


def single(x: PyTree[Array]) -> PyTree[Array]:
    """Arrays in single precision."""
    return jax.tree.map(
        lambda a: a.astype(jnp.complex64 if jnp.iscomplexobj(a) else jnp.float32), x
    )


def _field(model: AbstractTwoTimeModel, pixel: Pair, value: Array) -> Array:
    """Field correlation of pixels; of a model that does not say it, the real root of C."""
    if type(model).field is AbstractTwoTimeModel.field:
        return jnp.sqrt(jnp.maximum(value, 0.0))
    return model.field(pixel)


def _contracted(g: Array, side: Array, k: int) -> Array:
    """Mean over each k by k square of the sum over slopes of their planes times their sides.

    One product of matrices for each row of squares.
    """
    n_param, (n_slope, size, _) = side.shape[0], g.shape
    planes = g.reshape(n_slope, size // k, k, size // k, k).sum(4) / k**2
    planes = jnp.moveaxis(planes, 1, 0).reshape(size // k, n_slope * k, size // k)
    side = jnp.moveaxis(side.reshape(n_param, n_slope, size // k, k), 2, 0)
    return jnp.moveaxis(side.reshape(size // k, n_param, n_slope * k) @ planes, 1, 0)


def _pooled(plane: Array, k: int) -> Array:
    """Mean of each k by k square."""
    members = [plane[..., i::k, j::k] for i in range(k) for j in range(k)]
    return jnp.asarray(sum(members)) / k**2


def _half(size: int) -> Array:
    """The upper triangle with half of the diagonal, so that two of them add up to a plane."""
    return jnp.asarray(np.triu(np.ones((size, size)), 1) + 0.5 * np.eye(size))


def _both(upper: Array) -> Array:
    """A Hermitian plane from its upper triangle with half of the diagonal."""
    return upper + jnp.swapaxes(upper, -1, -2).conj()


def _symmetric(upper: Array) -> Array:
    """A symmetric plane from its upper triangle with the diagonal."""
    return upper + jnp.triu(upper, 1).T
