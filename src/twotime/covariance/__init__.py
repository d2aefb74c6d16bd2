"""Error bars: the covariance of a fit under the noise of speckle and photons.

The sandwich H⁻¹ B H⁻¹ of the Gauss-Newton matrix H and the covariance B of the scores, and what
the data do not determine. `twotime.covariance.speckle` has the noise, `bands` its effect on
functions of time, `misfit` the judgement of residuals.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from twotime.compilation import compiled, verb
from twotime.config.parameter_space import ParameterSpace
from twotime.covariance import speckle
from twotime.covariance.blocks import (
    WHOLE,
    Planes,
    Slopes,
    Span,
    cut_blocks,
    pairs_between,
    planes_between,
    single,
)
from twotime.covariance.noise import (
    Link,
    Moments,
    Noise,
    Rows,
    moments_of_frames,
    photon_powers,
    residual_moments,
    solve_noise,
)
from twotime.data.dataset import TwoTimeData
from twotime.gram import Tiled
from twotime.gram.pairs import MODEL, ONE, channel_slopes
from twotime.gram.problem import Problem, Reduced, make_problem, reduce_gram
from twotime.models.base import AbstractTwoTimeModel
from twotime.results.nlsq import NLSQResult, null_directions

Free = Float[Array, " free"]
Held = Bool[Array, " free"]
Matrix = Float[Array, "free free"]


class LinearisedFit(eqx.Module):
    """A finished fit with the reduction of its data at the optimum.

    Attributes:
        problem: The fit, set up.
        params: All parameters.
        grams: Gram matrix of each angle.
        reduced: Their reduction.
        inverse: Inverse H⁻¹ of the Gauss-Newton matrix without held and null directions.
        root: Directions in which H is 1, as columns: the inverse is R Rᵀ.
        slopes: Channels of each matrix at the frames, and their derivatives along the directions.
    """

    problem: Problem
    params: Float[Array, " param"]
    grams: Float[Array, "angle basis basis"]
    reduced: Reduced
    inverse: Matrix
    root: Float[Array, "free direction"]
    slopes: Slopes

    def __init__(
        self,
        problem: Problem,
        params: Float[Array, " param"],
        grams: Float[Array, "angle basis basis"],
        reduced: Reduced,
        inverse: Matrix,
    ) -> None:
        self.problem, self.params, self.grams = problem, params, grams
        self.reduced, self.inverse, self.root = reduced, inverse, unit_directions(inverse)
        at = problem.model, problem.data, params, problem.varying
        self.slopes = jax.lax.map(
            lambda k: channel_slopes(*at, k, self.root.T), jnp.arange(problem.data.phi.shape[0])
        )


@verb
@compiled
def optimum(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, fit: NLSQResult
) -> LinearisedFit:
    """Reduce the data once more at the parameters of a fit.

    Args:
        model: The model that was fitted.
        data: The data that were fitted.
        space: The space that was fitted.
        fit: The result.
    """
    if fit.weight is not None:
        data = dataclasses.replace(data, weight=fit.weight)
    asked = fit.asked_mode, Tiled()
    problem = make_problem(model, data, space, *asked, with_priors=fit.with_priors)
    if fit.is_shared is not None:
        problem = eqx.tree_at(lambda p: p.scaling, problem, problem.scaling.shared(fit.is_shared))
    settings = problem.varying, problem.shift, problem.prepared
    grams = problem.evaluator.gram(model, data, fit.values, *settings)
    free = fit.values[np.flatnonzero(problem.varying)]
    reduced = problem.informed(reduce_gram(grams, problem.scaling), free)
    found = inverse(*spectrum(reduced.hessian, fit.held), fit.held)
    return LinearisedFit(problem, fit.values, grams, reduced, found)


@verb
@compiled
def known_noise_covariance(at: LinearisedFit, pixels: ArrayLike, photons: ArrayLike) -> Matrix:
    """Covariance of a fit where the detector pixels and photons are known.

    Args:
        at: The optimum.
        pixels: Independent detector pixels averaged, one number or one per angle.
        photons: Mean counts per pixel and frame, one number or one per ring of equal wavevector;
            infinite for no shot noise.
    """
    pixels = jnp.broadcast_to(jnp.asarray(pixels, float), at.grams.shape[0])
    return speckle_covariance(at, Noise(pixels, jnp.asarray(photons, float))).covariance


def spectrum(hessian: Matrix, held: Held) -> tuple[Free, Matrix, Free]:
    """Eigenvalues and eigenvectors of the Gauss-Newton matrix scaled to unit diagonal.

    Args:
        hessian: Gauss-Newton matrix, with contrast and offset projected out.
        held: Parameters on a bound; their rows are taken out and get eigenvalue -1.

    Returns:
        Eigenvalues ascending, eigenvectors as columns, and the scale of each parameter (the
        root of the diagonal).
    """
    scale = jnp.sqrt(jnp.maximum(jnp.diag(hessian), 0.0))
    scale = jnp.where(scale > 0, scale, 1.0)
    out = held[:, None] | held[None, :]
    scaled = jnp.where(out, 0.0, hessian / (scale[:, None] * scale[None, :]))
    values, vectors = jnp.linalg.eigh(scaled - jnp.diag(held.astype(hessian.dtype)))
    return values, vectors, scale


def inverse(eigenvalues: Free, eigenvectors: Matrix, scale: Free, held: Held) -> Matrix:
    """Inverse of the Gauss-Newton matrix from its `spectrum`, without null and held directions."""
    null = null_directions(eigenvalues, held)
    used = ~null & (eigenvalues > -0.5)
    weights = jnp.where(used, 1.0 / jnp.where(used, eigenvalues, 1.0), 0.0)
    whitened = eigenvectors / scale[:, None]
    return (whitened * weights) @ whitened.T


class AngleNoise(NamedTuple):
    """What one angle adds: covariance of scores, those of parameters and scaling last, and sums."""

    scores: speckle.ScoreCovariance
    moments: Moments


class Sandwich(NamedTuple):
    """The covariance of a fit, and the noise that it was computed with.

    Attributes:
        covariance: Covariance H⁻¹ B H⁻¹ of the free parameters.
        noise: Detector pixels and photons.
        scores: Covariance of the scores of each angle: B, of further scores before it.
        squares: Sum of squares of the residuals of each angle, by means over few frames.
    """

    covariance: Matrix
    noise: Noise
    scores: Float[Array, "angle score score"]
    squares: Float[Array, " angle"]


def ring_weights(at: LinearisedFit, found: Sandwich) -> Float[Array, " angle"]:
    """Weights that matrices should have for the noise of their ring, of mean 1.

    Those that would be best if the noise of all parameters were that of independent points, in one
    size for each ring: the information of the ring over the covariance of its scores, both summed
    over directions in which the information of all rings is 1. Points count less where neighbours
    share their noise.
    """
    root, n_free, scaling = at.root, at.inverse.shape[0], at.problem.scaling
    data, of_ring = at.problem.data, jnp.asarray(at.problem.scaling.mode.in_rings(len(at.grams)))
    own = slice(-2 - n_free, -2)

    def information(of: Array) -> Array:
        hessian = reduce_gram(at.grams * of[:, None, None], scaling).hessian
        return jnp.sum(root * (hessian @ root))

    noise = of_ring.T @ jnp.trace(found.scores[:, own, own], axis1=1, axis2=2)
    weight = jax.lax.map(information, of_ring.T) / jnp.where(noise > 0, noise, 1.0)
    weight = data.relative(slice(None)) * (of_ring @ weight)
    return weight / jnp.mean(weight)


def speckle_covariance(at: LinearisedFit, known: Noise | None = None) -> Sandwich:
    """Covariance of a fit under speckle and photon noise.

    All is computed along directions in which H is 1, so that single precision is enough for the
    matrix products that B takes.

    Args:
        at: The fit.
        known: The noise where pixels and photons are known; estimated from the residuals if not.
    """
    angles = jax.lax.map(lambda k: _one_angle(at, k), jnp.arange(at.grams.shape[0]))
    return sandwich(at, angles, known)


def sandwich(at: LinearisedFit, angles: AngleNoise, known: Noise | None = None) -> Sandwich:
    """The covariance of a fit from what its angles add.

    Args:
        at: The fit.
        angles: What each angle adds.
        known: The noise where pixels and photons are known; estimated from the residuals if not.
    """
    problem, reduced = at.problem, at.reduced
    n_angles, n_free = problem.data.phi.shape[0], at.inverse.shape[0]
    level = problem.data.light_level(reduced.scaling.offset + problem.shift)
    coefficients = angles.scores.coefficients
    own = slice(-2 - n_free, -2)
    of_theta, of_scaling = coefficients[:, :, own, own], coefficients[:, :, -2:, -2:]
    if known is None:
        # What parameters and, in each angle's share, contrast and offset take of the noise.
        share = jnp.sum(reduced.scaling.free) / (2 * n_angles)
        taken, by_scaling = (jnp.trace(x, axis1=-2, axis2=-1) for x in (of_theta, of_scaling))
        weight = at.grams[:, ONE, ONE]
        inverse_photons, pixels, left = solve_noise(
            angles.moments, taken + share * by_scaling, weight, problem.data.rings
        )
    else:
        inverse_photons, pixels = 1.0 / known.photons, known.pixels / level**2
        left = jnp.ones_like(pixels)
    rings = problem.data.rings if inverse_photons.ndim else ()
    powers = photon_powers(inverse_photons, rings) / (left * pixels)[:, None]
    scores = jnp.einsum("ak,akpq->apq", powers, coefficients)
    covariance = at.root @ jnp.sum(scores[:, own, own], axis=0) @ at.root.T
    photons = jnp.where(inverse_photons > 0, 1.0 / inverse_photons, jnp.inf)
    # Single precision leaves it symmetric to 1e-7 alone.
    covariance = 0.5 * (covariance + covariance.T)
    squares = angles.moments.squares / angles.moments.weight * at.grams[:, ONE, ONE]
    return Sandwich(covariance, Noise(pixels * level**2, photons), scores, squares)


def unit_directions(inverse: Matrix) -> Float[Array, "free direction"]:
    """R with R Rᵀ the inverse; columns of directions that it leaves out are 0."""
    size = jnp.sqrt(jnp.diag(inverse))
    divisor = jnp.where(size > 0, size, 1.0)
    unit = inverse / (divisor[:, None] * divisor[None, :])
    values, vectors = jnp.linalg.eigh(unit)
    return size[:, None] * vectors * jnp.sqrt(jnp.maximum(values, 0.0))


class AngleOfFit(NamedTuple):
    """One angle of a fit along directions in which the Gauss-Newton matrix is 1.

    Attributes:
        slopes: Channels at the frames and their derivatives along the directions.
        scaling: Contrast and offset, the data's shift taken out.
        contrast: Speckle contrast β: of c2 with offset and baseline 1.
        jacobian: Derivatives of c2 from a model at pairs of times, contrast and offset projected
            out; then by these two, turned so that their normal matrix is 1.
    """

    slopes: Slopes
    scaling: tuple[Array, Array]
    contrast: Array
    jacobian: Callable[[Planes], Float[Array, "score *pair"]]


def angle_of_fit(at: LinearisedFit, k: Array) -> AngleOfFit:
    """One angle of a fit."""
    problem, reduced = at.problem, at.reduced
    contrast, offset = reduced.scaling.contrast[k], reduced.scaling.offset[k]
    slopes = jax.tree.map(lambda x: x[k], at.slopes)
    projection = jnp.einsum("k,skp->sp", problem.scaling.basis[k], reduced.projection) @ at.root

    def jacobian(planes: Planes) -> Float[Array, "score *pair"]:
        value, as_planes = planes.value, partial(jnp.asarray, dtype=planes.value.dtype)
        by_contrast, by_offset = as_planes(projection)[:, :, None, None]
        of_theta = as_planes(contrast) * planes.derivative - value * by_contrast - by_offset
        return jnp.concatenate([of_theta, _by_scaling(at.grams[k], value)])

    level = problem.data.light_level(offset + problem.shift)
    beta = jnp.clip(contrast / level, 1e-6, 1.0)
    return AngleOfFit(slopes, (contrast, offset), beta, jacobian)


def angle_noise(
    at: LinearisedFit, angle: AngleOfFit, k: Array, jacobian: speckle.Jacobian
) -> AngleNoise:
    """What one angle adds; `jacobian` gives further scores before those of the fit."""
    problem, slopes, beta = at.problem, angle.slopes, angle.contrast
    model, data, n = problem.model, problem.data, problem.data.t.shape[0]
    if n > WHOLE:
        blocks = cut_blocks(model, slopes[0])
        frames, rows = speckle.Frames.of(blocks), Rows.of(data, k, blocks)
        weight = rows.between_groups(blocks)
        matrices = speckle.split_matrices(model, data, k, slopes, frames, weight, jacobian)
        moments = residual_moments(problem, slopes[0], blocks, rows, angle.scaling, beta)
        return AngleNoise(speckle.score_covariance(matrices, frames, single(beta)), moments)
    index = jnp.arange(n)
    first, second = (
        jax.tree.map(put, slopes) for put in (lambda x: x[..., None], lambda x: x[..., None, :])
    )
    ahead = index[:, None] <= index
    planes = planes_between(model, first, second, ahead, jnp.float32)
    # Formed once: compilers would form them again for each score and product.
    planes = jax.lax.optimization_barrier(planes)
    # In double precision, for residuals may be small.
    fitted = model.correlation(pairs_between(first[0], second[0], ahead))
    c2, weight = data.stripes(k, index)
    alone = Span(index, jnp.ones(n))
    scores = 0.5 * weight * jacobian(planes, alone.at((slice(None), None)), alone)
    residual = c2 - problem.shift - angle.scaling[0] * fitted - angle.scaling[1]
    residual = jnp.where(weight > 0, residual, 0.0)
    moments = moments_of_frames(residual, weight, Link(planes.value, planes.field), beta)
    whole = jax.lax.optimization_barrier(single((scores, planes.value, planes.field, beta)))
    return AngleNoise(speckle.of_whole_matrices(*whole), moments)


def _one_angle(at: LinearisedFit, k: Array) -> AngleNoise:
    angle = angle_of_fit(at, k)
    return angle_noise(at, angle, k, lambda planes, *_: angle.jacobian(planes))


def _by_scaling(gram: Array, value: Array) -> Float[Array, "2 *pair"]:
    """Derivatives by contrast and offset, turned so that their normal matrix is 1."""
    mean, count = gram[MODEL, ONE] / gram[ONE, ONE], gram[ONE, ONE]
    spread = gram[MODEL, MODEL] - mean * gram[MODEL, ONE]
    usable = spread > 1e-12 * gram[MODEL, MODEL]
    size = jnp.sqrt(jnp.where(usable, spread, jnp.inf))
    mean, size, one = (jnp.asarray(x, value.dtype) for x in (mean, size, count**-0.5))
    return jnp.stack([(value - mean) / size, jnp.broadcast_to(one, value.shape)])
