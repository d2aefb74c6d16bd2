"""Error bars: the covariance of a fit under the noise of speckle and photons.

The sandwich H⁻¹ B H⁻¹ of the Gauss-Newton matrix H and the covariance B of the scores, and what
the data do not determine. `twotime.covariance.speckle` has the noise, `bands` its effect on
functions of time, `misfit` the judgement of residuals.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from twotime.compilation import compiled
from twotime.config.parameter_space import ParameterSpace
from twotime.covariance import speckle
from twotime.data.dataset import TwoTimeData
from twotime.gram import Tiled
from twotime.gram.pairs import MODEL, ONE
from twotime.gram.problem import Problem, Reduced, make_problem, reduce_gram
from twotime.models.base import AbstractTwoTimeModel
from twotime.results.nlsq import NLSQResult, null_directions

Free = Float[Array, " free"]
Held = Bool[Array, " free"]
Matrix = Float[Array, "free free"]
SPECKLE = (
    "from the covariance of speckle and photon noise at the fitted correlation, its size from the "
    "residuals"
)
_ROW_LAGS = 3
"""Residuals up to so many blocks apart in a row tell photon noise from speckle."""
_MOST_NOISE = 1e6
"""Largest 1/n̄ that is looked for."""


class Noise(eqx.Module):
    """Noise of c2 as the residuals show it.

    Attributes:
        pixels: Effective number N of independent detector pixels of each angle.
        photons: Mean counts n̄ per pixel and frame; infinite where no shot noise is seen.
    """

    pixels: Float[Array, " angle"]
    photons: Float[Array, ""]


class LinearisedFit(eqx.Module):
    """A finished fit with the reduction of its data at the optimum.

    Attributes:
        problem: The fit, set up.
        params: All parameters.
        grams: Gram matrix of each angle.
        reduced: Their reduction.
        inverse: Inverse H⁻¹ of the Gauss-Newton matrix without held and null directions.
    """

    problem: Problem
    params: Float[Array, " param"]
    grams: Float[Array, "angle basis basis"]
    reduced: Reduced
    inverse: Matrix


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
    problem = make_problem(model, data, space, fit.per_angle_mode, Tiled())
    settings = problem.varying, problem.shift, problem.prepared
    grams = problem.evaluator.gram(model, data, fit.values, *settings)
    reduced = reduce_gram(grams, problem.scaling)
    found = inverse(*spectrum(reduced.hessian, fit.held), fit.held)
    return LinearisedFit(problem, fit.values, grams, reduced, found)


@compiled
def known_noise_covariance(at: LinearisedFit, pixels: ArrayLike, photons: ArrayLike) -> Matrix:
    """Covariance of a fit where the detector pixels and photons are known.

    Args:
        at: The optimum.
        pixels: Independent detector pixels averaged, one number or one per angle.
        photons: Mean counts per pixel and frame; infinite for no shot noise.
    """
    pixels = jnp.broadcast_to(jnp.asarray(pixels, float), at.grams.shape[0])
    return speckle_covariance(at, Noise(pixels, jnp.asarray(photons, float)))[0]


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


class _Angle(NamedTuple):
    """What one angle adds: covariance of scores, and sums over residuals.

    Sums of squares and of products of neighbours are found in the data, and expected for each
    power of 1/n̄.
    """

    scores: speckle.ScoreCovariance
    normal: Matrix
    squares: tuple[Array, Array]
    neighbours: tuple[Array, Array]


def speckle_covariance(at: LinearisedFit, known: Noise | None = None) -> tuple[Matrix, Noise]:
    """Covariance H⁻¹ B H⁻¹ of a fit, and the noise that it was computed with.

    All is computed along directions in which H is 1, so that single precision is enough for the
    matrix products that B takes.

    Args:
        at: The fit.
        known: The noise where pixels and photons are known; estimated from the residuals if not.
    """
    problem, reduced = at.problem, at.reduced
    n_angles, n_free = problem.data.phi.shape[0], at.inverse.shape[0]
    root = _root(at.inverse)
    angles = jax.lax.map(lambda k: _one_angle(at, root, k), jnp.arange(n_angles))
    offset = reduced.scaling.offset + problem.shift
    in_block = speckle.stride(problem.data.t.shape[0])
    of_theta = angles.scores.coefficients[:, :, :n_free, :n_free]
    if known is None:
        # What parameters and, in each angle's share, contrast and offset take of the noise.
        share = jnp.sum(reduced.scaling.free) / (2 * n_angles)
        of_scaling = angles.scores.coefficients[:, :, n_free:, n_free:]
        taken, by_scaling = (jnp.trace(x, axis1=-2, axis2=-1) for x in (of_theta, of_scaling))
        taken = taken + share * by_scaling
        inverse_photons, pixels, left = _solve_noise(angles, taken)
    else:
        inverse_photons, pixels = 1.0 / (known.photons * in_block), known.pixels / offset**2
        left = jnp.ones_like(pixels)
    powers = inverse_photons ** jnp.arange(3)
    meat = jnp.einsum("a,k,akpq->pq", 1.0 / (left * pixels), powers, of_theta)
    covariance = root @ _refined(meat, jnp.sum(angles.normal, axis=0)) @ root.T
    photons = jnp.where(inverse_photons > 0, 1.0 / inverse_photons, jnp.inf)
    # Single precision leaves it symmetric to 1e-7 alone.
    covariance = 0.5 * (covariance + covariance.T)
    return covariance, Noise(pixels * offset**2, photons / in_block)


def _root(inverse: Matrix) -> Float[Array, "free direction"]:
    """R with R Rᵀ the inverse; columns of directions that it leaves out are 0."""
    size = jnp.sqrt(jnp.diag(inverse))
    divisor = jnp.where(size > 0, size, 1.0)
    unit = inverse / (divisor[:, None] * divisor[None, :])
    values, vectors = jnp.linalg.eigh(unit)
    return size[:, None] * vectors * jnp.sqrt(jnp.maximum(values, 0.0))


def _refined(meat: Matrix, kept: Matrix) -> Matrix:
    """Make up for what blocks average away of the scores.

    `kept` is the Gauss-Newton matrix on blocks where that on points is 1, below 1 where
    derivatives change within a block. For independent points the meat must grow by its inverse:
    L B Lᵀ with L = kept^(-1/2), here by its series about 1. For speckle that is near enough:
    standard deviations are right to 10 % from a correlation time of two blocks on, and 7 % too
    small to 30 % too large at one block, where they would be 5 to 30 % too small without it.
    """
    one = jnp.eye(meat.shape[0])
    root = (15 * one - 10 * kept + 3 * kept @ kept) / 8
    return root @ meat @ root.T


def _one_angle(at: LinearisedFit, root: Float[Array, "free direction"], k: Array) -> _Angle:
    problem, reduced = at.problem, at.reduced
    contrast, offset = scaling = reduced.scaling.contrast[k], reduced.scaling.offset[k]
    projection = jnp.einsum("k,skp->sp", problem.scaling.basis[k], reduced.projection) @ root
    planes, blocks = speckle.angle_in_blocks(problem, at.params, scaling, root.T, k)
    value = planes.value
    jacobian = contrast * planes.derivative - value * projection[0][:, None, None]
    jacobian = jacobian - projection[1][:, None, None]
    jacobian = jnp.concatenate([jacobian, _by_scaling(at.grams[k], value)])
    diagonal = jnp.eye(value.shape[0], dtype=bool)
    weights = jacobian * (blocks.weight * jnp.where(diagonal, 1.0, 0.5))
    beta = jnp.clip(contrast / (offset + problem.shift), 1e-6, 1.0)
    off = jnp.where(diagonal, 0.0, blocks.weight)
    noise = speckle.single((planes.field, beta, value))
    found, expected = _row_products(*speckle.single((blocks.residual, off)), *noise)
    n_free = root.shape[0]
    weights, jacobian = speckle.single((weights, jacobian))
    scores = speckle.score_covariance(weights, *noise)
    normal = speckle.inner(weights, jacobian)[:n_free, :n_free]
    squares, neighbours = (found[0], expected[0]), (found[1:].sum(), expected[1:].sum(axis=0))
    angle = _Angle(scores, normal, squares, neighbours)
    return jax.tree.map(lambda x: x.astype(value.dtype), angle)


def _by_scaling(gram: Array, value: Array) -> Float[Array, "2 block block"]:
    """Derivatives by contrast and offset, turned so that their normal matrix is 1."""
    mean, count = gram[MODEL, ONE] / gram[ONE, ONE], gram[ONE, ONE]
    spread = gram[MODEL, MODEL] - mean * gram[MODEL, ONE]
    usable = spread > 1e-12 * gram[MODEL, MODEL]
    centred = (value - mean) / jnp.sqrt(jnp.where(usable, spread, jnp.inf))
    return jnp.stack([centred, jnp.broadcast_to(count**-0.5, value.shape)])


def _row_products(
    residual: Array, weight: Array, field: Array, beta: Array, value: Array
) -> tuple[Array, Array]:
    """Sums of products of residuals some frames apart in a row, and what noise makes of them."""

    def at(lag: int) -> tuple[Array, Array]:
        n = residual.shape[1] - lag
        both = jnp.sqrt(weight[:, :n] * weight[:, lag:])
        expected = both * speckle.row_covariance(field, beta, lag, value)
        found = both * residual[:, :n] * residual[:, lag:]
        return jnp.sum(found), jnp.sum(expected, axis=(1, 2))

    found, expected = zip(*(at(lag) for lag in range(_ROW_LAGS + 1)), strict=True)
    return jnp.stack(found), jnp.stack(expected)


def _solve_noise(angles: _Angle, taken: Float[Array, "angle 3"]) -> tuple[Array, Array, Array]:
    """1/n̄ of all angles, N of each from the residuals' moments, and what the fit left of these.

    A fit takes out of the residuals what its parameters can follow: subtracted from what is
    expected. N follows from the squares, 1/n̄ from the share that neighbours have in them.

    Reference:
        Small samples: MacKinnon & White, J. Econometrics 29, 305 (1985).
    """
    (squares, expected), (neighbours, neighbour) = angles.squares, angles.neighbours
    # A fit with almost as many parameters as speckles leaves nothing to measure the noise by.
    square = jnp.maximum(expected - 2 * taken, 0.1 * expected)
    neighbour = neighbour - 2 * _ROW_LAGS * taken
    unit = squares / square[:, 0]
    ratio = jnp.sum(neighbours / unit) / jnp.sum(squares / unit)
    # neighbour/square = ratio is quadratic in 1/n̄; it has one positive root, if any.
    c, b, a = neighbour.sum(0) - jnp.maximum(ratio, 1.0 / _MOST_NOISE) * square.sum(0)
    root = jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0.0)) - b
    u = jnp.clip(2 * jnp.maximum(c, 0.0) / jnp.maximum(root, 1e-300), 0.0, _MOST_NOISE)
    powers = u ** jnp.arange(3)
    left = (square @ powers) / (expected @ powers)
    # The residuals left after the fit correct N here. The caller divides by what is left once
    # more, as HC3 does: what the fit took is itself uncertain where correlation times are few.
    return u, (square @ powers) / squares, left
