"""Other covariances of a finished fit, to compare with the one it reports.

`known_noise_covariance` where the file says pixels and photons, `dyadic_covariance` and
`jackknife_covariance` as cross-checks that know no speckle.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from twotime.config.parameter_space import ParameterSpace
from twotime.core.compilation import compiled
from twotime.core.models import AbstractTwoTimeModel
from twotime.data.dataset import TwoTimeData
from twotime.inference import uncertainty
from twotime.inference.dyadic import (
    correlation_times,
    dyadic_meat,
    frame_scores,
    jackknife_angles,
)
from twotime.inference.gram import gram
from twotime.inference.problem import Problem, Reduced, make_problem, reduce_gram
from twotime.inference.sandwich import Noise, speckle_covariance
from twotime.results.nlsq import NLSQResult

Covariance = Float[Array, "free free"]
_WINDOW = 2.0


class Optimum(eqx.Module):
    """A finished fit with the reduction of its data at the optimum.

    Attributes:
        problem: The fit, set up.
        params: All parameters.
        grams: Gram matrix of each angle.
        reduced: Their reduction.
        inverse: Inverse of the Gauss-Newton matrix without held and null directions.
    """

    problem: Problem
    params: Float[Array, " param"]
    grams: Float[Array, "angle basis basis"]
    reduced: Reduced
    inverse: Covariance


@compiled
def optimum(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, fit: NLSQResult
) -> Optimum:
    """Reduce the data once more at the parameters of a fit.

    Args:
        model: The model that was fitted.
        data: The data that were fitted.
        space: The space that was fitted.
        fit: The result.
    """
    problem = make_problem(model, data, space, fit.per_angle_mode, "tiled")
    grams = gram(model, data, fit.values, problem.varying, shift=problem.shift)
    reduced = reduce_gram(grams, problem.scaling)
    spectrum = uncertainty.spectrum(reduced.hessian, fit.held)
    inverse = uncertainty.inverse(*spectrum, fit.held)
    return Optimum(problem, fit.values, grams, reduced, inverse)


@compiled
def known_noise_covariance(at: Optimum, pixels: ArrayLike, photons: ArrayLike) -> Covariance:
    """Covariance of the fit where the detector pixels and photons are known.

    Args:
        at: The optimum.
        pixels: Independent detector pixels averaged, one number or one per angle.
        photons: Mean counts per pixel and frame; infinite for no shot noise.
    """
    n_angles = at.grams.shape[0]
    noise = Noise(
        jnp.broadcast_to(jnp.asarray(pixels, float), n_angles), jnp.asarray(photons, float)
    )
    at_optimum = at.problem, at.params, at.grams, at.reduced, at.inverse
    return speckle_covariance(*at_optimum, noise)[0]


@compiled
def dyadic_covariance(
    at: Optimum, *, shared_frames: bool = False, windows: Float[Array, " angle"] | None = None
) -> Covariance:
    """Covariance of the fit by the dyadic sandwich of its frames' scores.

    Args:
        at: The optimum.
        shared_frames: Whether the angles share the noise of a frame.
        windows: Longest lag of each angle [frames]; left out, twice the correlation time of the
            fitted correlation.
    """
    if windows is None:
        windows = _WINDOW * correlation_times(at.problem, at.params)
    scores = frame_scores(at.problem, at.params, at.grams, at.reduced)
    meat = dyadic_meat(scores, windows, shared_frames=shared_frames)
    return at.inverse @ meat @ at.inverse


def jackknife_covariance(at: Optimum) -> Covariance:
    """Covariance of the fit from leaving out one angle at a time.

    Args:
        at: The optimum.

    Raises:
        ValueError: If there are fewer than three angles.
    """
    n_angles = np.shape(at.grams)[0]
    if n_angles < 3:
        raise ValueError(
            f"The jackknife leaves out one angle at a time; got {n_angles}; expected at least 3."
        )
    return jackknife_angles(at.problem, at.grams)
