"""The product of shards corrected by the posterior of all pixels: exact where that is affordable.

Draws come from a Gaussian (or what is close to one) and are weighted by the posterior over its
density, then drawn again with these weights. That takes one evaluation of all pixels a draw, where
a draw of a chain takes some ten with gradients.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from twotime.compilation import compiled
from twotime.sample.density import Posterior

_WIDER = 1.1
"""Draws are this much wider than the Gaussian: a proposal may be too wide, never too narrow."""
_ROUNDS = 3
_ENOUGH = 0.4
"""Share of the draws that weights must be worth, or the Gaussian is matched to them and redrawn."""


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

    Where the weights are worth few draws, the Gaussian takes the mean and covariance that they
    tell, and draws are made anew: two times at most.

    Args:
        posterior: The posterior of all pixels.
        mean: Mean of the Gaussian.
        covariance: Its covariance.
        shape: Chains and draws that are wanted.
        key: Random key.

    Reference:
        Vehtari et al., J. Mach. Learn. Res. 25, 72 (2024) for the weights; Cappé et al., J.
        Comput. Graph. Stat. 13, 907 (2004) for matching the proposal.
    """
    count, size = shape[0] * shape[1], len(mean)
    for again in range(1, _ROUNDS + 1):
        key, own, choice = jax.random.split(key, 3)
        places, joint, weights, k = _proposed(posterior, mean, covariance, count, own)
        effective = float(1 / np.sum(weights**2))
        if effective >= _ENOUGH * count or effective < 10 * size or again == _ROUNDS:
            break
        mean, covariance = weights @ places, np.cov(places.T, aweights=weights).reshape(size, size)
    # Equal steps through the summed weights: no draw is repeated more often than it must be.
    steps = (np.arange(count) + float(jax.random.uniform(choice, ()))) / count
    chosen = np.minimum(np.searchsorted(np.cumsum(weights), steps), count - 1)
    chosen = np.asarray(jax.random.permutation(jax.random.fold_in(choice, 1), chosen))
    return Reweighted(joint[chosen].reshape(*shape, -1), k, effective)


def _proposed(
    posterior: Posterior,
    mean: Float[np.ndarray, " coordinate"],
    covariance: Float[np.ndarray, "coordinate coordinate"],
    count: int,
    key: PRNGKeyArray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Places drawn from a Gaussian, draws of everything there, their weights and Pareto's k."""
    from blackjax.diagnostics import psis_weights

    own, at_places = jax.random.split(key)
    white = jax.random.normal(own, (count, len(mean)), jnp.float64)
    root = _WIDER * np.linalg.cholesky(covariance)
    places = jnp.asarray(mean) + white @ jnp.asarray(root).T
    heights, joint = _evaluated(posterior, places, jax.random.split(at_places, count))
    log_weights, k = psis_weights(heights + 0.5 * jnp.sum(white**2, axis=1))
    return np.asarray(places), np.asarray(joint), np.exp(np.asarray(log_weights)), float(k)


@compiled
def _evaluated(posterior: Posterior, places: Array, keys: Array) -> tuple[Array, Array]:
    """Log density at places, and draws of everything there."""

    def one(x: tuple[Array, Array]) -> tuple[Array, Array]:
        return posterior.log_density(x[0]), posterior.complete(*x)

    return jax.lax.map(one, (places, keys))
