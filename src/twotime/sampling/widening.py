"""The width correction of posteriors in unbounded coordinates: which covariances, which map.

A fit gives two covariances: C of independent pixels and R, robust. In the sampler's coordinates
their information is Q = C⁻¹ and the scores' variance B = Q R Q. With the curvature Λ of the
prior the posterior of independent pixels has covariance (Q + Λ)⁻¹; with the true noise it is
(Q + Λ)⁻¹ (B + Λ) (Q + Λ)⁻¹. What the prior determines is not widened.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twotime.inference.width import open_faced_map, temper_power
from twotime.results.nlsq import NLSQResult
from twotime.sampling.coordinates import Coordinates

WIDTHS = {
    "sandwich": "widened by the open-faced sandwich: draws mapped about their mean so that their "
    "covariance takes the speckle noise that pixels share into account",
    "tempering": "widened by tempering: the likelihood raised to a power below 1, for the speckle "
    "noise that pixels share",
    "none": "not corrected: pixels are taken as independent, so widths are too small for speckle",
}


class Widths(NamedTuple):
    """Covariances of the parameters' coordinates, from independent pixels and robust."""

    naive: Float[np.ndarray, "free free"]
    robust: Float[np.ndarray, "free free"]

    @property
    def power(self) -> float:
        """Power of the likelihood for tempering, at most 1."""
        return min(1.0, float(temper_power(jnp.asarray(self.naive), jnp.asarray(self.robust))))


def widths(coordinates: Coordinates, fit: NLSQResult) -> Widths:
    """Covariances of a fit in the sampler's coordinates, with the prior's curvature.

    Args:
        coordinates: Coordinates of the free parameters.
        fit: The fit.
    """
    free = np.flatnonzero(fit.varying)
    z = coordinates.from_values(np.asarray(fit.values)[free])
    slope = np.asarray(coordinates.slope(z))
    unit = slope[:, None] * slope[None, :]
    iid, robust = (np.asarray(c) / unit for c in (fit.covariance_iid, fit.covariance))
    prior = -np.diag(np.asarray(jax.hessian(coordinates.log_prior)(z)))
    curvature = np.diag(np.maximum(prior, 1e-3))
    information = _pseudo_inverse(iid)
    naive = np.linalg.inv(information + curvature)
    meat = information @ robust @ information
    wide = naive @ (meat + curvature) @ naive
    return Widths(_symmetric(naive), _symmetric(wide))


def widen(
    joint: Float[np.ndarray, "*draw joint"], found: Widths
) -> Float[np.ndarray, "*draw joint"]:
    """Map draws about their mean; contrast, offset and noise follow the parameters linearly.

    Args:
        joint: Draws of (parameters, scaling, noise) in unbounded coordinates.
        found: The two covariances of the parameters.
    """
    n = found.naive.shape[0]
    flat = joint.reshape(-1, joint.shape[-1])
    mean = flat.mean(axis=0)
    linear = np.asarray(open_faced_map(jnp.asarray(found.naive), jnp.asarray(found.robust)))
    change = (flat[:, :n] - mean[:n]) @ (linear - np.eye(n)).T
    covariance = np.atleast_2d(np.cov(flat, rowvar=False))
    follow = np.linalg.lstsq(covariance[:n, :n], covariance[:n, n:], rcond=None)[0]
    moved = np.concatenate([change, change @ follow], axis=-1)
    return (flat + moved).reshape(joint.shape)


def _pseudo_inverse(matrix: Float[np.ndarray, "free free"]) -> Float[np.ndarray, "free free"]:
    """Inverse in units of the deviations; directions without variance stay out."""
    size = np.sqrt(np.maximum(np.diag(matrix), 0.0))
    size = np.where(size > 0, size, 1.0)
    unit = size[:, None] * size[None, :]
    return np.linalg.pinv(matrix / unit, rcond=1e-13, hermitian=True) / unit


def _symmetric(matrix: Float[np.ndarray, "free free"]) -> Float[np.ndarray, "free free"]:
    return 0.5 * (matrix + matrix.T)
