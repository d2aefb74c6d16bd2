"""Draws of chains judged, put into the units of parameters, and predictions from them.

R-hat and effective sample sizes depend on the ranks of draws alone, so they are the same for a
parameter and for its coordinate on the whole line.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twotime.compilation import compiled
from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.correlation import correlation
from twotime.results.cmc import CMCResult, Limits
from twotime.sample.chains import Trace
from twotime.sample.combine import Joint
from twotime.sample.density import Posterior

Plane = Float[np.ndarray, "angle time time"]


class Convergence(NamedTuple):
    """Diagnostics of several posteriors.

    Attributes:
        r_hat: Rank-normalised split R-hat; NaN for a single chain of few draws.
        ess_bulk: Effective sample size for means and medians.
        ess_tail: Effective sample size for the 5 and 95 % quantiles.
        bfmi: Bayesian fraction of missing information of each chain.
        divergences: Divergent draws.
        deepest: Part of the draws whose trajectory was cut at the largest tree depth.
    """

    r_hat: Float[np.ndarray, "posterior coordinate"]
    ess_bulk: Float[np.ndarray, "posterior coordinate"]
    ess_tail: Float[np.ndarray, "posterior coordinate"]
    bfmi: Float[np.ndarray, "posterior chain"]
    divergences: Float[np.ndarray, " posterior"]
    deepest: Float[np.ndarray, " posterior"]


def convergence(trace: Trace, max_depth: float) -> Convergence:
    """Diagnostics of kept draws of chains whose doubling stops at `max_depth`.

    Reference:
        Vehtari et al., Bayesian Analysis 16, 667 (2021); Betancourt, arXiv:1604.00695.
    """
    import blackjax  # noqa: F401  loading it starts XLA, and may not happen while tracing

    r_hat, bulk, tail = (np.asarray(x) for x in _ranked(jnp.asarray(trace.position)))
    change = np.mean(np.diff(trace.energy, axis=2) ** 2, axis=2)
    bfmi = change / np.maximum(np.var(trace.energy, axis=2), np.finfo(float).tiny)
    divergences = np.sum(trace.divergent, axis=(1, 2))
    deepest = np.mean(trace.depth >= max_depth, axis=(1, 2))
    return Convergence(r_hat, bulk, tail, bfmi, divergences, deepest)


@jax.jit
def _ranked(draws: Array) -> tuple[Array, ...]:
    from blackjax.diagnostics import ess_bulk, ess_tail, rhat

    k, c, n, m = draws.shape
    lanes = jnp.moveaxis(draws, 3, 1).reshape(k * m, c, n)
    found = jax.lax.map(lambda x: (rhat(x), ess_bulk(x), ess_tail(x)), lanes)
    return tuple(jnp.reshape(x, (k, m)) for x in found)


def converged_shards(found: Convergence, limits: Limits) -> Bool[np.ndarray, " posterior"]:
    """Which posteriors keep all the limits; R-hat that is not a number keeps none."""
    return (
        np.all(found.r_hat <= limits.max_r_hat, axis=1)
        & np.all(found.ess_bulk >= limits.min_ess, axis=1)
        & np.all(found.ess_tail >= limits.min_ess, axis=1)
        & np.all(found.bfmi >= limits.min_bfmi, axis=1)
        & (found.divergences <= limits.max_divergences)
    )


def physical(posterior: Posterior, joint: Joint) -> tuple[np.ndarray, ...]:
    """Parameters, contrast, offset and noise level from draws in unbounded coordinates."""
    n, m = posterior.sizes[0], sum(posterior.scaling.free)
    draws = posterior.coordinates.to_values(jnp.asarray(joint[..., :n]))
    coefficients = posterior.scaling.values(jnp.asarray(joint[..., n : n + m]))
    both = np.asarray(posterior.scaling.per_angle(coefficients))
    is_known = joint.shape[-1] == n + m
    noise = np.full(joint.shape[:2], np.nan) if is_known else np.exp(joint[..., n + m])
    return np.asarray(draws), both[..., 0], both[..., 1] + float(posterior.plane.shift), noise


def spread(total: int, count: int) -> np.ndarray:
    """Places of some draws, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))


def predictive(
    result: CMCResult, model: AbstractTwoTimeModel, data: TwoTimeData, n_draws: int = 200
) -> tuple[Plane, Plane]:
    """Posterior mean of the fitted c2, and the standard deviation of a point's prediction.

    Args:
        result: The posterior.
        model: The model that was sampled.
        data: The data, for their axes and sigma.
        n_draws: Draws to average over, evenly spread.

    Returns:
        Mean, and the deviation from parameters and noise together.

    Raises:
        ValueError: If `n_draws` is not positive.
    """
    if n_draws < 1:
        raise ValueError(f"n_draws is {n_draws}; expected at least 1 draw to predict from.")
    draws = result.all_draws()
    chosen = spread(len(draws), n_draws)
    n_angles = result.contrast.shape[-1]
    contrast, offset = (x.reshape(-1, n_angles)[chosen] for x in (result.contrast, result.offset))
    fields = map(jnp.asarray, (draws[chosen], contrast, offset))
    mean, square = map(np.asarray, _moments(model, data, *fields))
    noise = np.mean(result.noise.reshape(-1)[chosen] ** 2)
    noise = noise if data.sigma is None else np.asarray(data.sigma) ** 2
    if result.weight is not None:
        noise = noise / np.asarray(result.weight)[:, None, None]
    return mean, np.sqrt(np.maximum(square - mean**2, 0.0) + noise)


@compiled
def _moments(
    model: AbstractTwoTimeModel, data: TwoTimeData, draws: Array, contrast: Array, offset: Array
) -> tuple[Array, Array]:
    t, q, phi = (jnp.asarray(x) for x in (data.t, data.q, data.phi))

    def add(sums: tuple[Array, Array], x: tuple[Array, Array, Array]) -> tuple[Any, None]:
        params, c, o = x
        c2 = c[:, None, None] * correlation(model, params, t=t, q=q, phi=phi) + o[:, None, None]
        return (sums[0] + c2, sums[1] + c2 * c2), None

    blank = jnp.zeros(data.c2.shape)
    sums, _ = jax.lax.scan(add, (blank, blank), (draws, contrast, offset))
    return sums[0] / draws.shape[0], sums[1] / draws.shape[0]
