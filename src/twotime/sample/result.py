"""Draws of chains made into a result: judged, combined, their width corrected, everything named.

R-hat and effective sample sizes depend on the ranks of draws alone, so they are the same for a
parameter and for its coordinate on the whole line.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from twotime.compilation import compiled
from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.correlation import correlation
from twotime.results.cmc import CMCResult, Limits
from twotime.sample.chains import AbstractSampler, Trace
from twotime.sample.combine import (
    Combination,
    Independent,
    Joint,
    Weighted,
    Widths,
    product_of_shards,
)
from twotime.sample.density import Guide, Posterior
from twotime.sample.driver import Drawn
from twotime.sample.shards import Sharding

_SHOWN = 400


class Setup(NamedTuple):
    """What is sampled and how.

    Attributes:
        model: The model.
        space: The space.
        mode: Resolved `per_angle_mode`.
        evaluator: What computes the likelihood.
        posterior: The posterior of all points.
        whole: The same, by the evaluator that is fastest.
        guide: What shards are guided by.
        combine: How draws of shards are combined.
        width: How the width is corrected.
        widths: The covariances it is corrected by.
        sampler: How chains are run.
        sharding: How points are dealt.
        limits: What chains must keep.
        key: Random key of the run.
        seed: Seed of what NumPy draws.
    """

    model: AbstractTwoTimeModel
    space: ParameterSpace
    mode: str
    evaluator: str
    posterior: Posterior
    whole: Posterior
    guide: Guide | None
    combine: Combination
    width: Independent
    widths: Widths | None
    sampler: AbstractSampler
    sharding: Sharding
    limits: Limits
    key: PRNGKeyArray
    seed: int


def make_result(setup: Setup, drawn: Drawn, seconds: float) -> CMCResult:
    """Combine, widen and judge draws.

    Args:
        setup: What was sampled and how.
        drawn: The draws.
        seconds: Time that it took [s].

    Raises:
        ValueError: If no shard is left, or draws are too few to combine.
    """
    posterior, trace, n = setup.posterior, drawn.trace, setup.posterior.sizes[0]
    found = convergence(trace, getattr(setup.sampler, "max_tree_depth", np.inf))
    kept = converged_shards(found, setup.limits)
    excluded = _excluded(kept, setup.sharding.exclude)
    combined, disagreement = _combined(setup, trace.joint, excluded)
    joint = setup.width.corrected(combined.draws, setup.widths)
    spread, before = (x[..., :n].std(axis=(0, 1)) for x in (joint, combined.draws))
    draws, contrast, offset, noise = _physical(posterior, joint)
    values = np.array(posterior.start)
    values[np.flatnonzero(posterior.varying)] = np.median(draws, axis=(0, 1))
    return CMCResult(
        **_names(setup),
        excluded=excluded,
        is_complete=drawn.is_complete,
        draws=draws,
        contrast=contrast,
        offset=offset,
        noise=noise,
        values=values,
        log_density=trace.log_density,
        energy=trace.energy,
        acceptance=trace.acceptance.mean(axis=(1, 2)),
        tree_depth=trace.depth.mean(axis=(1, 2)),
        deepest=found.deepest,
        step=drawn.step,
        shard_r_hat=found.r_hat,
        shard_ess_bulk=found.ess_bulk,
        shard_ess_tail=found.ess_tail,
        shard_bfmi=found.bfmi,
        shard_divergences=found.divergences,
        shard_converged=kept,
        shard_draws=np.asarray(posterior.coordinates.to_values(_some(trace.joint[..., :n]))),
        disagreement=disagreement[:, :n],
        pareto_k=np.asarray(combined.pareto_k),
        ess_weights=np.asarray(combined.effective),
        power=np.asarray(float(posterior.power)),
        width_ratio=spread / before * float(posterior.power) ** -0.5,
        n_points=np.asarray(float(posterior.source.n_points)),
        n_gradients=np.asarray(float(drawn.n_gradients)),
        seconds=np.asarray(seconds),
    )


def _names(setup: Setup) -> dict[str, Any]:
    """The part of a result that is known before sampling."""
    posterior, is_cut = setup.posterior, setup.sharding.n_shards > 1
    names, sampled = posterior.coordinates.names, posterior.scaling.sampled
    if sampled is not None:
        kinds = sampled.names
        names += tuple(f"{kind}[{kinds[:i].count(kind)}]" for i, kind in enumerate(kinds))
    return {
        "all_names": tuple(setup.space.names),
        "varying": posterior.varying,
        "units": tuple(setup.space.units),
        "model": type(setup.model).__name__,
        "per_angle_mode": setup.mode,
        "evaluator": setup.evaluator,
        "sampler": setup.sampler.word,
        "scaling_kind": "sampled" if sampled is not None and sampled.names else "marginal",
        "noise_kind": posterior.noise.word,
        "combination": setup.combine.word if is_cut else "",
        "strategy": setup.sharding.strategy if is_cut else "",
        "width_kind": setup.width.word,
        "width_text": setup.width.text,
        "coordinate_names": names + ("noise",) * posterior.noise.size,
        "limits": setup.limits,
        "phi": np.asarray(posterior.plane.data.phi, float),
    }


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
    """Diagnostics of chains.

    Args:
        trace: Kept draws.
        max_depth: Where doubling stops.

    Reference:
        Vehtari et al., Bayesian Analysis 16, 667 (2021); Betancourt, arXiv:1604.00695.
    """
    import blackjax  # noqa: F401  loading it starts XLA, and may not happen while tracing

    r_hat, bulk, tail = (np.asarray(x) for x in _ranked(jnp.asarray(trace.position)))
    change = np.mean(np.diff(trace.energy, axis=2) ** 2, axis=2)
    return Convergence(
        r_hat=r_hat,
        ess_bulk=bulk,
        ess_tail=tail,
        bfmi=change / np.maximum(np.var(trace.energy, axis=2), np.finfo(float).tiny),
        divergences=np.sum(trace.divergent, axis=(1, 2)),
        deepest=np.mean(trace.depth >= max_depth, axis=(1, 2)),
    )


@jax.jit
def _ranked(draws: Array) -> tuple[Array, Array, Array]:
    from blackjax.diagnostics import ess_bulk, ess_tail, rhat

    k, c, n, m = draws.shape
    lanes = jnp.moveaxis(draws, 3, 1).reshape(k * m, c, n)
    found = jax.lax.map(lambda x: (rhat(x), ess_bulk(x), ess_tail(x)), lanes)
    r_hat, bulk, tail = (jnp.reshape(x, (k, m)) for x in found)
    return r_hat, bulk, tail


def converged_shards(found: Convergence, limits: Limits) -> Bool[np.ndarray, " posterior"]:
    """Which posteriors keep all the limits; R-hat that is not a number keeps none."""
    return (
        np.all(found.r_hat <= limits.max_r_hat, axis=1)
        & np.all(found.ess_bulk >= limits.min_ess, axis=1)
        & np.all(found.ess_tail >= limits.min_ess, axis=1)
        & np.all(found.bfmi >= limits.min_bfmi, axis=1)
        & (found.divergences <= limits.max_divergences)
    )


def _excluded(kept: Bool[np.ndarray, " shard"], exclude: bool) -> tuple[int, ...]:
    """Shards to leave out, if that is asked for and some are left."""
    if not exclude or len(kept) == 1:
        return ()
    if not kept.any():
        raise ValueError(
            "No shard converged, so none is left to combine; draw more, use fewer shards, or "
            "combine all of them with exclude=False."
        )
    return tuple(int(k) for k in np.flatnonzero(~kept))


def _combined(
    setup: Setup, joint: Float[np.ndarray, "shard chain draw joint"], excluded: tuple[int, ...]
) -> tuple[Weighted, Float[np.ndarray, "shard joint"]]:
    """Draws of the posterior, and how far the shards disagree."""
    if len(joint) == 1:
        return Weighted(joint[0]), np.zeros((1, joint.shape[-1]))
    used = ~np.isin(np.arange(len(joint)), excluded)
    guide, place = setup.guide, setup.posterior.place
    if guide is not None:  # of what was integrated out it says nothing
        size = joint.shape[-1]
        centre, precision = np.zeros(size), np.zeros((size, size))
        centre[place], precision[np.ix_(place, place)] = guide.centre, guide.precision
        guide = Guide(centre, precision)
    product = product_of_shards(joint, guide, used)
    key = jax.random.fold_in(setup.key, 4)
    combined = setup.combine.draw(product, setup.whole, key, setup.seed)
    return combined, product.disagreement


def _physical(
    posterior: Posterior, joint: Joint
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Parameters, contrast, offset and noise level from draws in unbounded coordinates."""
    n, m = posterior.sizes[0], sum(posterior.scaling.free)
    draws = posterior.coordinates.to_values(jnp.asarray(joint[..., :n]))
    coefficients = posterior.scaling.values(jnp.asarray(joint[..., n : n + m]))
    both = np.asarray(posterior.scaling.per_angle(coefficients))
    is_known = joint.shape[-1] == n + m
    noise = np.full(joint.shape[:2], np.nan) if is_known else np.exp(joint[..., n + m])
    return np.asarray(draws), both[..., 0], both[..., 1] + float(posterior.plane.shift), noise


def _some(draws: Float[np.ndarray, "shard chain draw free"]) -> Float[Array, "shard some free"]:
    flat = draws.reshape(draws.shape[0], -1, draws.shape[-1])
    return jnp.asarray(flat[:, _spread(flat.shape[1], _SHOWN)])


def _spread(total: int, count: int) -> np.ndarray:
    """Places of some draws, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))


def predictive(
    result: CMCResult, model: AbstractTwoTimeModel, data: TwoTimeData, n_draws: int = 200
) -> tuple[Float[np.ndarray, "angle time time"], Float[np.ndarray, "angle time time"]]:
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
    chosen = _spread(len(draws), n_draws)
    n_angles = result.contrast.shape[-1]
    contrast, offset = (x.reshape(-1, n_angles)[chosen] for x in (result.contrast, result.offset))
    mean, square = map(
        np.asarray, _moments(model, data, *map(jnp.asarray, (draws[chosen], contrast, offset)))
    )
    noise = np.mean(result.noise.reshape(-1)[chosen] ** 2)
    noise = noise if data.sigma is None else np.asarray(data.sigma) ** 2
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
