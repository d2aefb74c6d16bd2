"""The product of shards corrected by the posterior of all pixels: exact where that is affordable.

Draws come from a Gaussian (or what is close to one) and are weighted by the posterior over its
density, then drawn again with these weights. That takes one evaluation of all pixels a draw, where
a draw of a chain takes some ten with gradients.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from twotime.sampling.posterior import Posterior

_WIDER = 1.1
"""Draws are this much wider than the Gaussian: a proposal may be too wide, never too narrow."""


class Reweighted(NamedTuple):
    """Draws of a posterior by importance.

    Attributes:
        draws: Draws of everything, some of them repeated.
        pareto_k: Shape of the tail of the weights; above 0.7 the draws cannot be trusted.
        effective: As many independent draws would be worth the same.
    """

    draws: Float[np.ndarray, "chain draw joint"]
    pareto_k: float
    effective: float


def reweighted(
    posterior: Posterior,
    mean: Float[np.ndarray, " coordinate"],
    covariance: Float[np.ndarray, "coordinate coordinate"],
    shape: tuple[int, int],
    key: PRNGKeyArray,
) -> Reweighted:
    """Draw from a posterior that is close to a Gaussian.

    Args:
        posterior: The posterior of all pixels.
        mean: Mean of the Gaussian.
        covariance: Its covariance.
        shape: Chains and draws that are wanted.
        key: Random key.

    Reference:
        Vehtari et al., J. Mach. Learn. Res. 25, 72 (2024).
    """
    from blackjax.diagnostics import psis_weights

    keys = jax.random.split(key, 4)
    count = shape[0] * shape[1]
    white = jax.random.normal(keys[0], (count, len(mean)), jnp.float64)
    root = _WIDER * np.linalg.cholesky(covariance)
    places = jnp.asarray(mean) + white @ jnp.asarray(root).T
    heights, joint = _evaluated(posterior, places, jax.random.split(keys[2], count))
    log_weights, k = psis_weights(heights + 0.5 * jnp.sum(white**2, axis=1))
    weights = np.exp(np.asarray(log_weights))
    # Equal steps through the summed weights: no draw is repeated more often than it must be.
    steps = (np.arange(count) + float(jax.random.uniform(keys[1], ()))) / count
    chosen = np.minimum(np.searchsorted(np.cumsum(weights), steps), count - 1)
    chosen = np.asarray(jax.random.permutation(keys[3], chosen))
    effective = float(1 / np.sum(weights**2))
    return Reweighted(np.asarray(joint)[chosen].reshape(*shape, -1), float(k), effective)


@eqx.filter_jit
def _evaluated(posterior: Posterior, places: Array, keys: Array) -> tuple[Array, Array]:
    """Log density at places, and draws of everything there."""

    def one(x: tuple[Array, Array]) -> tuple[Array, Array]:
        return posterior.log_density(x[0]), posterior.complete(*x)

    return jax.lax.map(one, (places, keys))
