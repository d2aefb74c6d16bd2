r"""Noise of c2 by speckle and photons, contracted with a fit seen on blocks of frames.

A detector pixel's intensity x = I/<I> is 1 + δ with the cumulants of 1/β independent modes:
κ2 = β|g_ij|², κ3 = 2β² Re(g_ij g_jk g_ki), κ4 = β³ times the three cyclic terms 2 Re(gggg);
photon counts add independent noise of variance x/n̄. Normalised by the measured means, one
detector pixel adds ε_ij = δ_i δ_j - β G_ij (δ_i + δ_j) to c2, with G = |g|² the model's
correlation, and c2 is the mean over N of them. The covariance of a fit needs only the
variance of Σ W_ij ε_ij with W the weighted derivatives: a polynomial in 1/n̄ whose coefficients
are traces of products of matrices. Few blocks of frames hold what it needs, whatever the frames.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int, PyTree

from twotime.gram import Separable
from twotime.gram.pairs import ChannelDerivatives, channel_slopes, cut_tile, slopes, tile_pairs
from twotime.gram.problem import Problem
from twotime.gram.separable import factors_of, in_blocks, inner_pairs, outer_products
from twotime.models.base import AbstractTwoTimeModel, Channels, Pair
from twotime.models.rates import Scalar

Field = Complex[Array | np.ndarray, "time time"] | Float[Array | np.ndarray, "time time"]
Plane = Float[Array | np.ndarray, "time time"]
Weights = Float[Array, "score time time"]
Blocks = Float[Array, "block block"]
Directions = Float[Array, "direction free"]
Linear = tuple[Array, Array]
Params = Float[Array, " param"]
Index = Int[Array, ""]


class ScoreCovariance(eqx.Module):
    """Covariance of scores for one detector pixel (N = 1): coefficients of 1, 1/n̄ and 1/n̄²."""

    coefficients: Float[Array, "3 score score"]

    def at(self, inverse_photons: Scalar) -> Float[Array, "score score"]:
        """The covariance at 1/n̄, with n̄ the mean counts per pixel and frame; 0: no shot noise."""
        powers = inverse_photons ** jnp.arange(3)
        return jnp.einsum("k,kpq->pq", powers, self.coefficients)


def score_covariance(
    weights: Weights, g: Field, contrast: Scalar, correlation: Plane | None = None
) -> ScoreCovariance:
    r"""Covariance of $\sum_{ij} W_{ij}\varepsilon_{ij}$ over speckle and photons.

    Exact but for one of the three cycles of κ4, the one that visits the points of both scores in
    turn: it is no product of matrices and is taken equal to the mean of the other two. Standard
    deviations are right to 3 % at β = 0.25, and 4 % too small on average (at most 7 %) at β = 1.

    Args:
        weights: W of each score, symmetric; a point of the triangle is shared by its two places.
        g: Field correlation.
        contrast: Speckle contrast β.
        correlation: Mean of |g|², where it is not |g|² because g is a mean over frames.

    Reference:
        Cumulants of Gaussian fields: Isserlis, Biometrika 12, 134 (1918).
    """
    b, g, G = jnp.asarray(contrast), jnp.asarray(g), _correlation(g, correlation)
    through = weights @ G
    mean = jnp.diagonal(through, axis1=1, axis2=2)
    chain, signs, parts = _chain(weights, g), (1.0, -1.0), (g.real, g.imag)
    loops = jnp.asarray(sum(x * y for x, y in zip(chain, parts, strict=False)))
    cycles = sum(sign * inner(x, x.mT) for sign, x in zip(signs, chain, strict=False))
    with_mean = jnp.sum(loops, axis=1) @ mean.T
    light = 2 * b**2 * inner(through, through.mT)
    light += b**3 * (6 * cycles - 4 * (with_mean + with_mean.T) + 4 * mean @ G @ mean.T)
    one_photon = 4 * inner(b * through + 2 * b**2 * loops, weights) - 4 * b**2 * mean @ mean.T
    two_photons = 2 * inner(weights * (1 + b * G), weights)
    return ScoreCovariance(jnp.stack([light, one_photon, two_photons]))


def _chain(weights: Weights, g: Array) -> tuple[Array, ...]:
    """Parts of (W ∘ g) g of each score, apart: compilers for CPUs have no fast complex product."""
    if not jnp.iscomplexobj(g):
        return ((weights * g) @ g,)
    n, beside = g.shape[0], jnp.concatenate([g.real, g.imag], axis=1)
    x, y = (weights * g.real) @ beside, (weights * g.imag) @ beside
    return x[..., :n] - y[..., n:], x[..., n:] + y[..., :n]


def inner(x: Weights, y: Weights) -> Float[Array, "score score"]:
    """Sums over all points of products of planes."""
    return x.reshape(x.shape[0], -1) @ y.reshape(y.shape[0], -1).T


def _correlation(g: Field, correlation: Plane | None) -> Array:
    return jnp.asarray(jnp.abs(g) ** 2 if correlation is None else correlation)


def row_covariance(
    g: Field, contrast: Scalar, lag: int, correlation: Plane | None = None
) -> Float[Array, "3 time column"]:
    """Covariance of points (i, j) and (i, j + lag), as coefficients of 1, 1/n̄ and 1/n̄² (N = 1).

    Args:
        g: Field correlation; its diagonal is below 1 where frames were averaged.
        contrast: Speckle contrast β.
        lag: Distance of the two points in frames; 0 for their variance. Points on the diagonal
            are meaningless.
        correlation: Mean of |g|², where it is not |g|² because g is a mean over frames.
    """
    b, full = contrast, _correlation(g, correlation)
    n = full.shape[0] - lag
    near, later, G, far = g[:, :n], g[:, lag:], full[:, :n], full[:, lag:]
    own, strength = jnp.real(jnp.diagonal(g))[:, None], jnp.diagonal(full)[:, None]
    between, link = jnp.diagonal(later[:n])[None], jnp.diagonal(far[:n])[None]
    loop = jnp.real(near * between * jnp.conj(later))
    product = G * far
    light = b**2 * (strength * link + product)
    light += b**3 * (
        4 * own * loop
        + 2 * product
        - 4 * own * product
        - 2 * loop * (G + far)
        + product * (strength + G + far + link)
    )
    one_photon = b * link + 2 * b**2 * loop - b**2 * product
    # The photons of t2 are common to both only where they are the same point.
    same = float(lag == 0)
    one_photon += same * (b * strength + 2 * b**2 * own * G - b**2 * product)
    return jnp.stack([light, one_photon, same * (1 + b * G)])


BLOCKS = 60
_EDGE = 128


class BlockResiduals(eqx.Module):
    """Residuals of one angle rebinned in blocks of frames; symmetric.

    Attributes:
        residual: Mean residual of the usable points of each block.
        weight: Sum of their weights; on the diagonal of the points with t1 < t2 alone.
    """

    residual: Blocks
    weight: Blocks


class BlockModel(eqx.Module):
    """A model on pairs of blocks of frames, averaged over the frames of both.

    Attributes:
        value: Normalised correlation; below 1 on the diagonal where it changes within a block.
        derivative: Its derivatives along directions in the free parameters.
        field: Field correlation, in single precision.
    """

    value: Blocks
    derivative: Float[Array, "direction block block"]
    field: Complex[Array, "block block"] | Blocks


def stride(n_frames: int) -> int:
    """Frames in a block."""
    return -(-n_frames // BLOCKS)


def angle_in_blocks(
    problem: Problem, params: Params, scaling: Linear, directions: Directions, k: Index
) -> tuple[BlockModel, BlockResiduals]:
    """Model and residuals of one angle on blocks of frames.

    Args:
        problem: The fit.
        params: All parameters.
        scaling: Contrast and offset of the angle, the data's shift taken out.
        directions: Directions of the derivatives in the free parameters.
        k: Which angle.
    """
    settings = problem.varying, jnp.asarray(problem.data.phi)[k], directions
    slopes = channel_slopes(problem.model, problem.data, params, *settings)
    if isinstance(problem.evaluator, Separable):
        planes = separable_planes(problem, *slopes)
        return planes, complete_blocks(problem, planes, scaling, k)
    return block_planes(problem, *slopes), residual_blocks(problem, slopes[0], scaling, k)


def residual_blocks(
    problem: Problem, channels: Channels, scaling: Linear, k: Index
) -> BlockResiduals:
    """Rebin the residuals of angle `k`, tile by tile.

    `scaling` is the angle's contrast and offset, the data's shift taken out.
    """
    n = problem.data.t.shape[0]
    s = stride(n)
    n_blocks = -(-n // s)
    in_tile = -(-n_blocks // -(-n // _EDGE))
    edge = min(s * in_tile, n)
    contrast, offset = scaling
    kinds = 2 if problem.data.sigma is None else 3  # weights count points where they are all 1
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
    return BlockResiduals(_symmetric(sums[0] / jnp.maximum(sums[-1], 1.0)), _symmetric(sums[1]))


def complete_blocks(
    problem: Problem, planes: BlockModel, scaling: Linear, k: Index
) -> BlockResiduals:
    """`residual_blocks` where no point is missing and all count alike, at one read of the data.

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
        along, own = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), (along, own), last)
    along = jnp.pad(along, ((0, 0), (0, size * s - n))).reshape(size, size, s)
    off, count = np.triu(np.ones((size, size), bool), 1), np.outer(frames, frames)
    total = jnp.where(off, along.sum(2) - problem.shift * count, 0.0) + jnp.diag(own)
    count = np.where(off, count, np.diag(frames * (frames - 1) // 2))
    contrast, offset = scaling
    mean = total / np.maximum(count, 1) - (contrast * planes.value + offset)
    weight = 1.0 if problem.data.sigma is None else 1.0 / jnp.asarray(problem.data.sigma) ** 2
    mean = jnp.where(np.triu(np.ones(count.shape, bool)), mean, 0.0)
    return BlockResiduals(_symmetric(mean), weight * _symmetric(jnp.asarray(count, mean.dtype)))


def block_planes(problem: Problem, channels: Channels, by: Channels) -> BlockModel:
    """Evaluate any model on blocks of frames, at two points of each in each direction.

    `channels` of an angle are given at the frames, `by` are their derivatives.
    """
    n = problem.data.t.shape[0]
    here, by = jax.tree.map(lambda x: _at_points(x, n), (channels, by))
    pair = tile_pairs(here, (0, 0), here.level.shape[1])
    value, planes = slopes(problem.model, pair)
    half, arranged, k = _half(value.shape[0]), ChannelDerivatives.of(by), min(2, stride(n))
    g = jnp.stack(planes) * half
    derivative = _contracted(g, arranged.row, k) + _contracted(g.mT, arranged.column, k).mT
    mean, field = _pooled(value * half, k), _mean_field(problem.model, pair, value, k)
    return BlockModel(_both(mean), _both(derivative), field)


def separable_planes(problem: Problem, channels: Channels, by: Channels) -> BlockModel:
    """Evaluate a separable model on blocks of frames: value and derivatives are exact means.

    `channels` of an angle are given at the frames, `by` are their derivatives.
    """
    model, n = problem.model, problem.data.t.shape[0]
    s = stride(n)
    count = np.minimum(s, n - np.arange(0, n, s))
    blocks = in_blocks(factors_of(model, channels, by), count.size, s)
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
    here = jax.tree.map(lambda x: _at_points(x, n), channels)
    pair = tile_pairs(here, (0, 0), here.level.shape[1], dtype=jnp.float32)
    field = _mean_field(model, pair, model.correlation(pair), min(2, s))
    return BlockModel(planes[0], planes[1:], field)


def _mean_field(model: AbstractTwoTimeModel, pair: Pair, value: Array, k: int) -> Array:
    """Field correlation, averaged; of a model that does not say it, the real root of C."""
    has_field = type(model).field is not AbstractTwoTimeModel.field
    field = model.field(pair) if has_field else jnp.sqrt(jnp.maximum(value, 0.0))
    return _both(_pooled(single(field) * single(_half(value.shape[0])), k))


def _at_points(x: Array, n_frames: int) -> Array:
    """A function on the frames, read at the two points of Gauss's rule of each block."""
    s = stride(n_frames)
    if s == 1:
        return x
    fill = [(0, 0)] * (x.ndim - 1) + [(0, -n_frames % s)]
    x = jnp.pad(x, fill, mode="edge").reshape(*x.shape[:-1], -(-n_frames // s), s)
    places = 0.5 * (s - 1) + 0.5 * np.sqrt((s**2 - 1) / 3.0) * np.array([-1.0, 1.0])
    left = np.minimum(places.astype(int), s - 2)
    near = zip(left, places - left, strict=True)
    read = [(1 - f) * x[..., i] + f * x[..., i + 1] for i, f in near]
    return jnp.stack(read, axis=-1).reshape(*x.shape[:-2], 2 * x.shape[-2])


def single(x: PyTree[Array]) -> PyTree[Array]:
    """Arrays in single precision."""
    single = {True: jnp.complex64, False: jnp.float32}
    return jax.tree.map(lambda a: a.astype(single[jnp.iscomplexobj(a)]), x)


def _contracted(g: Array, side: Array, k: int) -> Array:
    """Mean over each k by k square of the sum over slopes of their planes times their sides.

    One matrix product for each row of squares.
    """
    n_param, (n_slope, size, _) = side.shape[1], g.shape
    planes = g.reshape(n_slope, size // k, k, size // k, k).sum(4) / k**2
    planes = jnp.moveaxis(planes, 1, 0).reshape(size // k, n_slope * k, size // k)
    side = side.reshape(n_slope, n_param, size // k, k).transpose(2, 1, 0, 3)
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
