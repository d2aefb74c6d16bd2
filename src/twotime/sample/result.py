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
from twotime.models.scaling import Individual
from twotime.results.cmc import CMCResult, Limits
from twotime.results.nlsq import NLSQResult
from twotime.sample import chains, combine, density, driver, shards

_SHOWN = 400
Plane = Float[np.ndarray, "angle time time"]


class Job(NamedTuple):
    """What `fit_cmc` was asked for; words are resolved but for `evaluator` and `scaling`."""

    model: AbstractTwoTimeModel
    data: TwoTimeData
    space: ParameterSpace
    key: PRNGKeyArray
    start: NLSQResult | str | None
    sampler: chains.AbstractSampler
    sharding: shards.Sharding
    limits: Limits
    mode: Individual
    evaluator: str
    scaling: str
    prior_from_fit: float | None
    noise: density.KnownNoise
    width: combine.Independent
    combine: combine.Combination


class Setup(NamedTuple):
    """How a job was set up.

    Attributes:
        posterior: The posterior of all points.
        whole: The same, by the evaluator that is fastest.
        evaluator: What computes the likelihood.
        guide: What shards are guided by.
        widths: The covariances by which the width is corrected.
        seed: Seed of what NumPy draws.
    """

    posterior: density.Posterior
    whole: density.Posterior
    evaluator: str
    guide: density.Guide | None
    widths: combine.Widths | None
    seed: int


def make_result(job: Job, setup: Setup, drawn: driver.Drawn, seconds: float) -> CMCResult:
    """Combine, widen and judge draws.

    Raises:
        ValueError: If no shard is left, or draws are too few to combine.
    """
    posterior, trace, is_cut = setup.posterior, drawn.trace, job.sharding.n_shards > 1
    n, sampled = posterior.sizes[0], posterior.scaling.sampled
    kinds = () if sampled is None else sampled.names
    names = posterior.coordinates.names
    names += tuple(f"{kind}[{kinds[:i].count(kind)}]" for i, kind in enumerate(kinds))
    found = convergence(trace, getattr(job.sampler, "max_tree_depth", np.inf))
    kept = converged_shards(found, job.limits)
    excluded = _excluded(kept, job.sharding.exclude)
    combined, disagreement = _combined(job, setup, trace.joint, excluded)
    joint = job.width.corrected(combined.draws, setup.widths)
    spread, before = (x[..., :n].std(axis=(0, 1)) for x in (joint, combined.draws))
    draws, contrast, offset, noise = _physical(posterior, joint)
    values = np.array(posterior.start)
    values[np.flatnonzero(posterior.varying)] = np.median(draws, axis=(0, 1))
    flat = trace.joint[..., :n].reshape(len(kept), -1, n)
    some = jnp.asarray(flat[:, _spread(flat.shape[1], _SHOWN)])
    return CMCResult(
        all_names=tuple(job.space.names),
        varying=posterior.varying,
        units=tuple(job.space.units),
        model=type(job.model).__name__,
        per_angle_mode=job.mode.word,
        evaluator=setup.evaluator,
        sampler=job.sampler.word,
        scaling_kind="sampled" if kinds else "marginal",
        noise_kind=posterior.noise.word,
        combination=job.combine.word if is_cut else "",
        strategy=job.sharding.strategy if is_cut else "",
        width_kind=job.width.word,
        width_text=job.width.text,
        coordinate_names=names + ("noise",) * posterior.noise.size,
        limits=job.limits,
        excluded=excluded,
        is_complete=drawn.is_complete,
        draws=draws,
        contrast=contrast,
        offset=offset,
        noise=noise,
        values=values,
        phi=np.asarray(posterior.plane.data.phi, float),
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
        shard_draws=np.asarray(posterior.coordinates.to_values(some)),
        disagreement=disagreement[:, :n],
        pareto_k=np.asarray(combined.pareto_k),
        ess_weights=np.asarray(combined.effective),
        power=np.asarray(float(posterior.power)),
        width_ratio=spread / before * float(posterior.power) ** -0.5,
        n_points=np.asarray(float(posterior.source.n_points)),
        n_gradients=np.asarray(float(drawn.n_gradients)),
        seconds=np.asarray(seconds),
    )


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


def convergence(trace: chains.Trace, max_depth: float) -> Convergence:
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
    job: Job, setup: Setup, joint: combine.ShardDraws, excluded: tuple[int, ...]
) -> tuple[combine.Weighted, Float[np.ndarray, "shard joint"]]:
    """Draws of the posterior, and how far the shards disagree."""
    size = joint.shape[-1]
    if len(joint) == 1:
        return combine.Weighted(joint[0]), np.zeros((1, size))
    used = ~np.isin(np.arange(len(joint)), excluded)
    guide, place = setup.guide, setup.posterior.place
    if guide is not None:  # of what was integrated out it says nothing
        centre, precision = np.zeros(size), np.zeros((size, size))
        centre[place], precision[np.ix_(place, place)] = guide.centre, guide.precision
        guide = density.Guide(centre, precision)
    product = combine.product_of_shards(joint, guide, used)
    key = jax.random.fold_in(job.key, 4)
    return job.combine.draw(product, setup.whole, key, setup.seed), product.disagreement


def _physical(posterior: density.Posterior, joint: combine.Joint) -> tuple[np.ndarray, ...]:
    """Parameters, contrast, offset and noise level from draws in unbounded coordinates."""
    n, m = posterior.sizes[0], sum(posterior.scaling.free)
    draws = posterior.coordinates.to_values(jnp.asarray(joint[..., :n]))
    coefficients = posterior.scaling.values(jnp.asarray(joint[..., n : n + m]))
    both = np.asarray(posterior.scaling.per_angle(coefficients))
    is_known = joint.shape[-1] == n + m
    noise = np.full(joint.shape[:2], np.nan) if is_known else np.exp(joint[..., n + m])
    return np.asarray(draws), both[..., 0], both[..., 1] + float(posterior.plane.shift), noise


def _spread(total: int, count: int) -> np.ndarray:
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
    chosen = _spread(len(draws), n_draws)
    n_angles = result.contrast.shape[-1]
    contrast, offset = (x.reshape(-1, n_angles)[chosen] for x in (result.contrast, result.offset))
    fields = map(jnp.asarray, (draws[chosen], contrast, offset))
    mean, square = map(np.asarray, _moments(model, data, *fields))
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
