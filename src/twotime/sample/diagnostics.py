"""Whether chains have converged: rank-normalised split R-hat, bulk and tail ESS, BFMI, agreement.

R-hat and effective sample sizes depend on the ranks of draws alone, so they are the same for a
parameter and for its coordinate on the whole line.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


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


def convergence(
    draws: Float[np.ndarray, "posterior chain draw coordinate"],
    energy: Float[np.ndarray, "posterior chain draw"],
    divergent: Float[np.ndarray, "posterior chain draw"],
    depth: Float[np.ndarray, "posterior chain draw"],
    max_depth: int,
) -> Convergence:
    """Diagnostics of chains.

    Args:
        draws: Kept draws.
        energy: Energy of each trajectory.
        divergent: Whether it diverged.
        depth: Doublings of each trajectory.
        max_depth: Where doubling stops.

    Reference:
        Vehtari et al., Bayesian Analysis 16, 667 (2021); Betancourt, arXiv:1604.00695.
    """
    import blackjax  # noqa: F401  loading it starts XLA, and may not happen while tracing

    r_hat, bulk, tail = (np.asarray(x) for x in _ranked(jnp.asarray(draws)))
    return Convergence(
        r_hat=r_hat,
        ess_bulk=bulk,
        ess_tail=tail,
        bfmi=bfmi(energy),
        divergences=np.sum(divergent, axis=(1, 2)),
        deepest=np.mean(depth >= max_depth, axis=(1, 2)),
    )


@jax.jit
def _ranked(draws: Array) -> tuple[Array, Array, Array]:
    from blackjax.diagnostics import ess_bulk, ess_tail, rhat

    k, c, n, m = draws.shape
    lanes = jnp.moveaxis(draws, 3, 1).reshape(k * m, c, n)
    found = jax.lax.map(lambda x: (rhat(x), ess_bulk(x), ess_tail(x)), lanes)
    r_hat, bulk, tail = (jnp.reshape(x, (k, m)) for x in found)
    return r_hat, bulk, tail


def bfmi(energy: Float[np.ndarray, "posterior chain draw"]) -> Float[np.ndarray, "posterior chain"]:
    """Mean squared change of the energy from draw to draw over its variance."""
    change = np.mean(np.diff(energy, axis=2) ** 2, axis=2)
    return change / np.maximum(np.var(energy, axis=2), np.finfo(float).tiny)


def converged_shards(
    found: Convergence, max_r_hat: float, min_ess: float, min_bfmi: float, max_divergences: int
) -> Bool[np.ndarray, " posterior"]:
    """Which posteriors keep all the limits; R-hat that is not a number keeps none."""
    return (
        np.all(found.r_hat <= max_r_hat, axis=1)
        & np.all(found.ess_bulk >= min_ess, axis=1)
        & np.all(found.ess_tail >= min_ess, axis=1)
        & np.all(found.bfmi >= min_bfmi, axis=1)
        & (found.divergences <= max_divergences)
    )
