"""Covariance of a fit from the noise that speckle and photons make: the default error bars.

Least squares weighs pixels as if they were independent; the covariance of its result is the
sandwich H⁻¹ B H⁻¹ with B the covariance of the scores Σ w J r. B is taken from the fitted
correlation itself (`speckle`), its two unknowns, the number of pixels and the photons, from
the residuals: their size and how much neighbours in a row agree. Matrices of many frames are
rebinned in blocks first, which keeps what matters to a fit and makes the cost independent of the
frames.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from twotime.core.correlation import plane_pixels
from twotime.core.models import AbstractTwoTimeModel, Channels, Pixel
from twotime.inference.gram import (
    TILE,
    cut_tile,
    slopes,
    tile_corners,
    tile_pixels,
)
from twotime.inference.problem import Problem, Reduced, _cross, _scaling_normal
from twotime.inference.speckle import (
    ScoreCovariance,
    pixel_variance,
    row_covariance,
    score_covariance,
)

SPECKLE = (
    "from the covariance of speckle and photon noise at the fitted correlation, its size from the "
    "residuals"
)
BLOCKS = 100
_ROW_LAGS = (1, 2, 3)
_MOST_NOISE = 1e6


class Blocks(eqx.Module):
    """Residuals of one angle rebinned in blocks of frames; symmetric.

    Attributes:
        residual: Mean residual of the usable pixels of each block.
        weight: Sum of their weights; on the diagonal of the pixels with t1 < t2 alone.
    """

    residual: Float[Array, "block block"]
    weight: Float[Array, "block block"]


class Noise(eqx.Module):
    """Noise of c2 as the residuals show it.

    Attributes:
        pixels: Effective number N of independent detector pixels of each angle.
        photons: Mean counts n̄ per pixel and frame; infinite where no shot noise is seen.
    """

    pixels: Float[Array, " angle"]
    photons: Float[Array, ""]


class _Angle(eqx.Module):
    """What one angle adds: score covariance and moments of residuals, per power of 1/n̄."""

    scores: ScoreCovariance
    normal: Float[Array, "score score"]
    square: Float[Array, ""]
    neighbour: Float[Array, ""]
    square_expected: Float[Array, " 3"]
    neighbour_expected: Float[Array, " 3"]


def speckle_meat(
    problem: Problem,
    params: Float[Array, " param"],
    grams: Float[Array, "angle basis basis"],
    reduced: Reduced,
    known: Noise | None = None,
) -> tuple[Float[Array, "free free"], Noise]:
    """Covariance of the scores of a fit, and the noise that it was computed with.

    Args:
        problem: The fit.
        params: All parameters at the optimum.
        grams: Gram matrices there.
        reduced: Their reduction.
        known: The noise where pixels and photons are known; estimated from the residuals if not.

    Returns:
        The meat B of the sandwich H⁻¹ B H⁻¹, H = `reduced.hessian`, and the noise.
    """
    n_angles = problem.data.phi.shape[0]
    projection = scaling_projection(problem, grams, reduced)

    def one(k: Array) -> _Angle:
        return _one_angle(problem, params, reduced, projection[k], k)

    angles = jax.lax.map(one, jnp.arange(n_angles))
    n_free = reduced.hessian.shape[0]
    share = jnp.sum(reduced.scaling.free) / (2 * n_angles)
    offset = reduced.scaling.offset + problem.shift
    in_block = stride(problem.data.t.shape[0])
    if known is None:
        inverse_photons, pixels, left = _solve_noise(angles, n_free, share)
    else:
        inverse_photons, pixels = 1.0 / (known.photons * in_block), known.pixels / offset**2
        left = jnp.ones_like(pixels)
    per_pixel = jax.vmap(lambda s: s.at(inverse_photons))(angles.scores)[:, :n_free, :n_free]
    meat = jnp.einsum("a,apq->pq", 1.0 / (left * pixels), per_pixel)
    photons = jnp.where(inverse_photons > 0, 1.0 / inverse_photons, jnp.inf)
    return meat, Noise(pixels * offset**2, photons / in_block)


def stride(n_frames: int) -> int:
    """Frames in a block."""
    return -(-n_frames // BLOCKS)


def scaling_projection(
    problem: Problem, grams: Float[Array, "angle basis basis"], reduced: Reduced
) -> Float[Array, "angle 2 free"]:
    """How much model and one to take from each derivative, so that the scaling cannot follow.

    The derivative of the fitted c2 by a parameter, contrast and offset re-solved, is
    contrast ∂m/∂θ - m projection[0] - projection[1].
    """
    cross = _cross(grams, problem.scaling, reduced.scaling.contrast)
    normal = _scaling_normal(grams, problem.scaling)
    free = reduced.scaling.free.T.reshape(-1)
    normal = jnp.where(free[:, None] & free[None, :], normal, jnp.eye(free.shape[0]))
    size = jnp.sqrt(jnp.diag(normal))
    unit = normal / (size[:, None] * size[None, :]) + 1e-14 * jnp.eye(free.shape[0])
    cross = jnp.where(free[:, None], cross, 0.0) / size[:, None]
    solution = jnp.linalg.solve(unit, cross) / size[:, None]
    return jnp.einsum("ak,skp->asp", problem.scaling.basis, solution.reshape(2, -1, cross.shape[1]))


def residual_blocks(
    problem: Problem,
    params: Float[Array, " param"],
    scaling: tuple[Array, Array],
    k: Int[Array, ""],
) -> Blocks:
    """Rebin the residuals of angle `k`, tile by tile.

    Args:
        problem: The fit.
        params: All parameters.
        scaling: Contrast and offset of the angle, the data's shift taken out.
        k: Which angle.
    """
    d = problem.data
    channels = problem.model.channels(params, d.t, t=d.t, q=d.q, phi=jnp.asarray(d.phi)[k])
    n = problem.data.t.shape[0]
    s = stride(n)
    n_blocks = -(-n // s)
    contrast, offset = scaling

    def add(sums: Array, corner: Array) -> tuple[Array, None]:
        tile = cut_tile(problem.data, k, problem.shift, corner, TILE)
        value = problem.model.pixel(tile_pixels(channels, tile))
        used = tile.weight > 0
        residual = jnp.where(used, tile.c2 - contrast * value - offset, 0.0)
        local = jnp.arange(value.shape[0])
        row, column = ((first + local) // s for first in tile.first)
        planes = jnp.stack([residual, tile.weight, used.astype(residual.dtype)])
        return sums.at[:, row[:, None], column[None, :]].add(planes), None

    start = jnp.zeros((3, n_blocks, n_blocks))
    total, weight, count = jax.lax.scan(add, start, tile_corners(n, TILE))[0]
    mean = total / jnp.maximum(count, 1.0)
    off = 1.0 - jnp.eye(n_blocks)
    return Blocks(mean + mean.T * off, weight + weight.T * off)


class Planes(eqx.Module):
    """A model on pairs of blocks of frames, averaged over the frames of both.

    Attributes:
        value: Normalised correlation.
        derivative: Its derivatives by the free parameters.
        field: Field correlation; below 1 on the diagonal where it changes within a block.
    """

    value: Float[Array, "block block"]
    derivative: Float[Array, "free block block"]
    field: Complex[Array, "block block"] | Float[Array, "block block"]


def block_planes(problem: Problem, params: Float[Array, " param"], phi: Float[Array, ""]) -> Planes:
    """Evaluate a model on blocks of frames.

    Args:
        problem: The fit.
        params: All parameters.
        phi: Detector angle [degree].
    """
    d = problem.data
    n = d.t.shape[0]
    s = stride(n)
    free = np.flatnonzero(problem.varying)
    # Two points of Gauss's rule stand for the frames of a block.
    points = np.zeros(1) if s == 1 else np.array([-0.5, 0.5]) * np.sqrt((s**2 - 1) / 3.0)
    centres = np.minimum(np.arange(0, n, s) + 0.5 * (s - 1), n - 1)
    places = np.clip(centres[:, None] + points, 0, n - 1).reshape(-1)
    times = jnp.interp(places, np.arange(n), jnp.asarray(d.t))

    def of_free(values: Array) -> tuple[Channels, Channels]:
        channels = problem.model.channels(params.at[free].set(values), times, t=d.t, q=d.q, phi=phi)
        return channels, channels

    by_free, channels = jax.jacfwd(of_free, has_aux=True)(params[free])
    pixel = plane_pixels(channels)
    value, g = slopes(problem.model, pixel)
    clock = jnp.concatenate([by_free.decay, by_free.phase])
    none = jnp.zeros_like(by_free.level)
    row = jnp.einsum("kij,kip->pij", g, jnp.concatenate([-clock, by_free.level, none]))
    column = jnp.einsum("kij,kjp->pij", g, jnp.concatenate([clock, none, by_free.level]))
    upper = jnp.triu(row + column)
    derivative = upper + jnp.swapaxes(jnp.triu(upper, 1), 1, 2)
    field = _field(problem.model, pixel, value)
    k = points.size
    return Planes(*(_pooled(plane, k) for plane in (value, derivative, field)))


def _pooled(plane: Array, k: int) -> Array:
    """Mean of each k by k square."""
    size = plane.shape[-1] // k
    return plane.reshape(*plane.shape[:-2], size, k, size, k).mean(axis=(-3, -1))


def _field(model: AbstractTwoTimeModel, pixel: Pixel, value: Array) -> Array:
    """Field correlation of all pixels; of a model that does not say it, the real root of C."""
    if type(model).field is AbstractTwoTimeModel.field:
        return jnp.sqrt(jnp.maximum(value, 0.0))
    g = model.field(pixel)
    return jnp.where(jnp.triu(jnp.ones(value.shape, bool)), g, g.conj())


def _one_angle(
    problem: Problem,
    params: Array,
    reduced: Reduced,
    projection: Float[Array, "2 free"],
    k: Array,
) -> _Angle:
    solution = reduced.scaling
    contrast, offset = solution.contrast[k], solution.offset[k]
    phi = jnp.asarray(problem.data.phi)[k]
    planes = block_planes(problem, params, phi)
    value, g = planes.value, planes.field
    blocks = residual_blocks(problem, params, (contrast, offset), k)
    jacobian = contrast * planes.derivative - value * projection[0][:, None, None]
    jacobian = jacobian - projection[1][:, None, None]
    jacobian = jnp.concatenate([jacobian, value[None], jnp.ones_like(value)[None]])
    share = jnp.where(jnp.eye(value.shape[0], dtype=bool), 1.0, 0.5)
    weights = jacobian * blocks.weight * share
    beta = jnp.clip(contrast / (offset + problem.shift), 1e-6, 1.0)
    scores = score_covariance(weights, g, beta)
    normal = jnp.einsum("pij,qij->pq", weights, jacobian)
    off = blocks.weight * (1.0 - jnp.eye(value.shape[0]))
    neighbour, expected = _neighbours(blocks.residual, off, g, beta)
    return _Angle(
        scores=scores,
        normal=normal,
        square=jnp.sum(off * blocks.residual**2),
        neighbour=neighbour,
        square_expected=jnp.sum(off * pixel_variance(g, beta), axis=(1, 2)),
        neighbour_expected=expected,
    )


def _neighbours(residual: Array, weight: Array, g: Array, beta: Array) -> tuple[Array, Array]:
    """Products of residuals a few frames apart in a row, and what speckle and photons make them."""
    found, expected = jnp.zeros(()), jnp.zeros(3)
    for lag in _ROW_LAGS:
        both = jnp.sqrt(weight[:, :-lag] * weight[:, lag:])
        found += jnp.sum(both * residual[:, :-lag] * residual[:, lag:])
        expected += jnp.sum(both * row_covariance(g, beta, lag), axis=(1, 2))
    return found, expected


def _solve_noise(angles: _Angle, n_free: int, share: Array) -> tuple[Array, Array, Array]:
    """1/n̄ of all angles, N of each from the residuals' moments, and what the fit left of these.

    A fit takes out of the residuals what its parameters can follow, tr(H⁻¹ B): subtracted from
    what is expected.

    Reference:
        Small samples: MacKinnon & White, J. Econometrics 29, 305 (1985).
    """
    taken = _absorbed(angles, n_free, share)
    square = angles.square_expected - 2 * taken
    # A fit with almost as many parameters as speckles leaves nothing to measure the noise by.
    square = jnp.maximum(square, 0.1 * angles.square_expected)
    neighbour = angles.neighbour_expected - 2 * len(_ROW_LAGS) * taken
    unit = angles.square / square[:, 0]
    ratio = jnp.sum(angles.neighbour / unit) / jnp.sum(angles.square / unit)
    total_square, total_neighbour = square.sum(0), neighbour.sum(0)

    def excess(log_u: Array) -> Array:
        powers = jnp.exp(log_u) ** jnp.arange(3)
        return (total_neighbour @ powers) / (total_square @ powers) - ratio

    def halve(_: Any, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        above = excess(middle) > 0
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    ends = jnp.log(1.0 / _MOST_NOISE), jnp.log(_MOST_NOISE)
    low, high = jax.lax.fori_loop(0, 50, halve, ends)
    u = jnp.where(excess(ends[0]) > 0, jnp.exp(0.5 * (low + high)), 0.0)
    powers = u ** jnp.arange(3)
    left = (square @ powers) / (angles.square_expected @ powers)
    # The residuals left after the fit correct N here. The caller divides by what is left once
    # more, as HC3 does: what the fit took is itself uncertain where correlation times are few.
    return u, (square @ powers) / angles.square, left


def _absorbed(angles: _Angle, n_free: int, share: Array) -> Float[Array, "angle 3"]:
    """tr(H⁻¹ B) of the parameters and, in each angle's share, of contrast and offset."""
    normal = jnp.sum(angles.normal[:, :n_free, :n_free], axis=0)
    theta = angles.scores.coefficients[:, :, :n_free, :n_free]
    scaling = angles.scores.coefficients[:, :, n_free:, n_free:]
    of_theta = jnp.einsum("pq,akqp->ak", _inverse(normal), theta)
    inverses = jax.vmap(_inverse)(angles.normal[:, n_free:, n_free:])
    return of_theta + share * jnp.einsum("apq,akqp->ak", inverses, scaling)


def _inverse(matrix: Array) -> Array:
    """Inverse without the directions that are zero by rounding."""
    size = jnp.sqrt(jnp.maximum(jnp.diag(matrix), jnp.finfo(matrix.dtype).tiny))
    values, vectors = jnp.linalg.eigh(matrix / (size[:, None] * size[None, :]))
    used = values > 1e-9
    vectors = vectors / size[:, None]
    return (vectors * jnp.where(used, 1.0 / jnp.where(used, values, 1.0), 0.0)) @ vectors.T
