"""Widths of a posterior whose likelihood took the pixels as independent, put right.

`temper` flattens the likelihood by one number before sampling; `open_faced` maps draws after it,
which also gets the correlations right. Both need the fit's two covariances.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twotime.models.rates import AnyArray
from twotime.results.nlsq import NLSQResult
from twotime.sample.coordinates import Coordinates

Covariance = Float[AnyArray, "free free"]


def temper_power(naive: Covariance, robust: Covariance) -> Float[AnyArray, ""]:
    """Power of the likelihood that gives the posterior the volume of the robust covariance.

    Args:
        naive: Covariance from independent pixels.
        robust: Covariance to be matched; both positive definite.

    Returns:
        (det naive / det robust)^(1/n): the ratio of robust to naive information.
    """
    ratio = jnp.linalg.slogdet(naive)[1] - jnp.linalg.slogdet(robust)[1]
    return jnp.exp(ratio / naive.shape[0])


def open_faced_map(naive: Covariance, robust: Covariance) -> Float[AnyArray, "free free"]:
    """Linear map of deviations from the mode that turns the naive covariance into the robust.

    With Q the naive information and P = Q robust Q, the map is Q⁻¹ P^½ Q^½ (symmetric roots, in
    units of the naive standard deviations).

    Args:
        naive: Covariance from independent pixels.
        robust: Covariance to be matched; both positive definite.

    Reference:
        Shaby, Bayesian Analysis 9, 585 (2014).
    """
    size = jnp.sqrt(jnp.diag(naive))
    unit = size[:, None] * size[None, :]
    q = jnp.linalg.inv(naive / unit)
    p = q @ (robust / unit) @ q
    linear = (naive / unit) @ _root(p) @ _root(q)
    return size[:, None] * linear / size[None, :]


def open_faced(
    draws: Float[AnyArray, "*draw free"],
    mode: Float[AnyArray, " free"],
    naive: Covariance,
    robust: Covariance,
) -> Float[AnyArray, "*draw free"]:
    """Widen draws of a naive posterior about its mode.

    Args:
        draws: Draws of the free parameters, in any coordinates.
        mode: The mode in the same coordinates.
        naive: Covariance from independent pixels there.
        robust: Robust covariance there.
    """
    return mode + (draws - mode) @ open_faced_map(naive, robust).T


def _root(matrix: Covariance) -> Covariance:
    values, vectors = jnp.linalg.eigh(0.5 * (matrix + matrix.T))
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T


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
