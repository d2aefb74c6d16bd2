"""Sampling as users call it: `fit_cmc`, what it is asked for, and what it refuses."""

import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from twotime.compilation import check_is_outside, verb
from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.data.scales import check_names
from twotime.fit import check_inputs, fit_nlsq
from twotime.gram import Tiled, choose_evaluator
from twotime.gram.problem import make_problem
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.laws import law_name
from twotime.models.scaling import Individual, resolve_mode
from twotime.results.cmc import CMCResult, Limits
from twotime.results.nlsq import NLSQResult
from twotime.sample import chains, combine, coordinates, density, driver, result, shards
from twotime.sample.inputs import (
    LIMITS,
    NUTS,
    WHOLE,
    check_space,
    checked_fit,
    gathered,
    informed,
    resolved,
)
from twotime.sample.width import WIDTHS, Independent, Information, linearise

_LISTED = 2e6
"""Points up to which they are evaluated as lists, where there is no factored form."""
_SHOWN = 400
_TRACEABLE = "The traceable part is `sample` of the density, `tt.log_density(...).sample(key)`."
_STARTS = 4
"""Starts of a fit that is made to sample from, and to see whether one that was given is best."""
OnProgress = Callable[[driver.Progress], None]


@verb
def fit_cmc(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, *, key: PRNGKeyArray,
    start: NLSQResult | str | None = None, sampler: chains.AbstractSampler | str = NUTS,
    sharding: shards.Sharding = WHOLE, limits: Limits = LIMITS,
    per_angle_mode: str | Individual = "auto", evaluator: str = "auto", scaling: str = "auto",
    noise: str = "sampled", width: Independent | str = "curvature",
    prior_from_fit: float | None = None, checkpoint: str | Path | None = None,
    resume: bool = False, progress: OnProgress | None = None, **short: Any,
) -> CMCResult:  # fmt: skip
    """Sample the posterior of a model's parameters.

    The likelihood is Gaussian in the points with t1 < t2. Priors are those that were given to the
    space; a parameter without one is uniform between its bounds, in the logarithm for amplitudes.
    An unknown noise level has the prior 1/noise. Draws depend on the key and the arguments alone,
    not on how many devices there are.

    Args:
        model: The model.
        data: The data; masked and non-finite points do not count.
        space: Bounds, priors and which parameters vary.
        key: Random key.
        start: A fit to start from; None fits first, from several starts; "prior": draws of it.
        sampler: `Nuts` or `Hmc`, or the word for it.
        sharding: How points are dealt to shards, these combined and placed on devices.
        limits: What fit and chains must keep.
        per_angle_mode: As in a fit.
        evaluator: As in a fit; "auto" is factored where possible, else lists of points up to two
            millions, tiles above. Shards are lists of points.
        scaling: Contrast and offset "marginal" (integrated out, normal priors, bounds left
            aside), "sampled", or "auto": marginal unless a prior is not normal or they may reach
            their bounds. The result says which it was.
        noise: The noise level "sampled", or "marginal": integrated out, `scaling` "sampled".
        width: "curvature" corrects the likelihood for the noise that points share, "tempering"
            does so by one power for all directions, "none" takes points as independent.
        prior_from_fit: Replace priors by normals about the fit, so many robust deviations wide.
        checkpoint: Folder in which a run is kept block by block.
        resume: Go on with the run that is kept there.
        progress: Called after every block. A KeyboardInterrupt ends sampling and keeps the draws.
        short: Fields of `Nuts`, `Hmc`, `Sharding` and `Limits`, in place of these.

    Raises:
        TypeError: If a keyword is unknown or given twice, or values are traced by JAX.
        ValueError: If float64 is off, names do not match, or a value cannot be used.
        KeyboardInterrupt: If interrupted before any draw was kept.
    """
    check_names(model, space)
    check_is_outside("fit_cmc", (model, data, space, key), _TRACEABLE)
    names = inspect.signature(fit_cmc).parameters
    sampler, sharding, limits = gathered(sampler, sharding, limits, short, names)
    mode = resolve_mode(per_angle_mode, data.ring)
    space = check_inputs(model, data, space, mode)
    check_space(data, space)
    driver.meet()
    job = Job(
        model, data, space, key, start, sampler, sharding, limits, mode, evaluator, scaling,
        prior_from_fit,
        resolved("noise", noise, density.NOISES), resolved("width", width, WIDTHS),
        resolved("combine", sharding.combine, combine.COMBINATIONS),
    )  # fmt: skip
    return _run(job, None if checkpoint is None else (Path(checkpoint), resume), progress)


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
    width: Independent
    combine: combine.Combination


class Setup(NamedTuple):
    """How a job was set up.

    Attributes:
        posterior: The posterior of all points.
        whole: The same, by the evaluator that is fastest.
        evaluator: What computes the likelihood.
        guide: What shards are guided by.
        found: What the data alone say about the parameters.
        priors: The priors that were given, held against that.
        misplaced: How much more likely another optimum is than where the chains are.
        seed: Seed of what NumPy draws.
    """

    posterior: density.Posterior
    whole: density.Posterior
    evaluator: str
    guide: density.Guide | None
    found: Information
    priors: coordinates.PriorCheck
    misplaced: float
    seed: int


class Prepared(NamedTuple):
    """A job as its fit decides it, the fit, and fields of `Setup`."""

    job: Job
    fit: NLSQResult
    posterior: density.Posterior
    whole: density.Posterior
    evaluator: str
    found: Information
    priors: coordinates.PriorCheck


def prepare(job: Job) -> Prepared:
    """Fit, where no fit was given, and set up the posterior of all points."""
    fit, space, n = _fit_to_start(job), job.space, job.sharding.n_shards
    if job.mode.is_decided:
        job = job._replace(mode=resolve_mode(fit.per_angle_mode, job.data.ring))
    if fit.weight is not None:
        job = job._replace(data=replace(job.data, weight=fit.weight))
    if job.prior_from_fit is not None:
        space = informed(space, fit, job.prior_from_fit)
    posterior, evaluator, found, checked = _posterior(job, space, fit)
    whole, word = _as_list(posterior, n, evaluator, is_asked=job.evaluator != "auto")
    return Prepared(job, fit, posterior, whole, word, found, checked)


def _run(job: Job, kept: tuple[Path, bool] | None, progress: OnProgress | None) -> CMCResult:
    """Sample and keep blocks in a folder, from those that are there if that is asked for."""
    begun, n, key, sampler = time.perf_counter(), job.sharding.n_shards, job.key, job.sampler
    job, fit, posterior, whole, word, found, checked = prepare(job)
    if job.start == "prior":
        shape, guide = shards.prior_shape(posterior), None
        wider, jitter = n**0.5, n**-0.5
    else:
        shape = shards.find_shape(posterior, *shards.position_of_fit(posterior, fit))
        (guide, wider), jitter = shards.make_guide(shape, n), sampler.jitter
    seed = int(np.asarray(jax.random.bits(jax.random.fold_in(key, 1))))
    if n == 1:
        parts = shards.stacked([whole])
    else:
        parts = shards.shard_posteriors(posterior, job.sharding, guide, seed)
    identity = parts, key, sampler, shape
    saver = None if kept is None else driver.Checkpoint(kept[0], identity, resume=kept[1])
    places = (n, sampler.n_chains, len(shape.mode))
    modes = np.broadcast_to(shape.mode, places[::2])
    roots = np.broadcast_to(shape.root * wider, (n, *shape.root.shape))
    starts, key = chains.beginning(key, places, jitter)
    begin, devices = (modes, roots, np.asarray(starts)), job.sharding.devices
    drawn = driver.sample(
        parts, *begin, key, sampler, devices=devices, progress=progress, saver=saver
    )
    rival = _rival(job, fit)
    known = rival if posterior.adjustment is None else fit
    place, _ = shards.position_of_fit(posterior, known)
    misplaced = shards.missed(parts, place, drawn.trace.log_density)
    if posterior.adjustment is not None:  # it knows the likelihood about its fit alone
        misplaced = max(misplaced, _log_ratio(job, fit, rival, found))
    setup = Setup(posterior, whole, word, guide, found, checked, misplaced, seed)
    return _result(job, setup, drawn, time.perf_counter() - begun)


def _posterior(
    job: Job, space: ParameterSpace, fit: NLSQResult
) -> tuple[density.Posterior, str, Information, coordinates.PriorCheck]:
    """The posterior of all points, what evaluates it, and what the data alone and priors say."""
    plain, evaluator = choose_evaluator(job.model, job.data, job.evaluator)
    problem = make_problem(job.model, job.data, space, job.mode, Tiled())
    own = coordinates.parameter_coordinates(space)
    found, n = linearise(problem, own, fit), len(own.names)
    varies = np.asarray(problem.scaling.lower < problem.scaling.upper).T
    kinds = tuple(np.repeat(("contrast", "offset"), varies.sum(axis=1)).tolist())
    shift = np.where(np.asarray(kinds) == "offset", float(problem.shift), 0.0)
    errors, checks = found.deviations, []
    checks.append(coordinates.check_priors(own, own.names, found.centre, errors[:n]))
    leans = False
    if kinds and not job.mode.is_series:  # coefficients of a series are no contrasts
        near = found.coefficients + shift, errors[n:]
        leans = coordinates.leans(space, kinds, *near)
        both, basis = coordinates.make_coordinates(space, kinds), np.asarray(problem.scaling.basis)
        checks.append(coordinates.check_priors(both, _numbered(kinds, basis), *near))
    scaling = coordinates.choose_scaling(space, job.mode, job.scaling, leans=leans)
    posterior = density.make_posterior(
        job.model, plain, space, job.mode, evaluator, scaling=scaling, noise=job.noise
    )
    posterior = replace(posterior, **job.width.changes(found))
    return posterior, evaluator.word, found, coordinates.joined(checks)


def coordinate_names(posterior: density.Posterior) -> tuple[str, ...]:
    """Names of the coordinates of a position: parameters, contrasts and offsets, noise."""
    sampled = posterior.scaling.sampled
    kinds = () if sampled is None else sampled.names
    scaling = _numbered(kinds, np.asarray(posterior.scaling.basis))
    return posterior.coordinates.names + scaling + ("noise",) * posterior.noise.size


def _numbered(kinds: tuple[str, ...], basis: np.ndarray) -> tuple[str, ...]:
    """Names of the coordinates of contrast and offset, with the first angle that each is of."""
    first = np.argmax(basis > 0, axis=0).tolist()
    return tuple(f"{kind}[{first[kinds[:i].count(kind)]}]" for i, kind in enumerate(kinds))


def _result(job: Job, setup: Setup, drawn: driver.Drawn, seconds: float) -> CMCResult:
    """Combine, widen and judge draws.

    Raises:
        ValueError: If no shard is left, or draws are too few to combine.
    """
    posterior, trace, n = setup.posterior, drawn.trace, setup.posterior.sizes[0]
    found = result.convergence(trace, getattr(job.sampler, "max_tree_depth", np.inf))
    kept = result.converged_shards(found, job.limits)
    used = kept if job.sharding.exclude and len(kept) > 1 else np.ones(len(kept), bool)
    if not used.any():
        raise ValueError(
            "No shard converged, so none is left to combine; draw more, use fewer shards, or "
            "combine all of them with exclude=False."
        )
    combined, disagreement = _combined(job, setup, trace.joint, used)
    draws, contrast, offset, noise = result.physical(posterior, combined.draws)
    values = np.array(posterior.start)
    values[np.flatnonzero(posterior.varying)] = np.median(draws, axis=(0, 1))
    flat = trace.joint[..., :n].reshape(len(kept), -1, n)
    some = jnp.asarray(flat[:, result.spread(flat.shape[1], _SHOWN)])
    return CMCResult(
        **_names(job, setup),
        excluded=tuple(np.flatnonzero(~used).tolist()),
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
        shard_draws=np.asarray(posterior.coordinates.to_values(some)),
        disagreement=disagreement[:, :n],
        pareto_k=np.asarray(combined.pareto_k),
        ess_weights=np.asarray(combined.effective),
        power=np.asarray(float(posterior.power)),
        width_ratio=job.width.ratio(setup.found),
        n_points=np.asarray(float(posterior.source.n_points)),
        n_gradients=np.asarray(float(drawn.n_gradients)),
        seconds=np.asarray(seconds),
        prior_means=setup.priors.means,
        prior_deviations=setup.priors.deviations,
        prior_chances=setup.priors.chances,
        data_estimates=setup.priors.estimates,
        data_errors=setup.priors.errors,
        misplaced=np.asarray(setup.misplaced),
    )


def _names(job: Job, setup: Setup) -> dict[str, Any]:
    """The part of a result that is known before sampling."""
    posterior, is_cut = setup.posterior, job.sharding.n_shards > 1
    data = posterior.plane.data
    return {
        "all_names": tuple(job.space.names),
        "varying": posterior.varying,
        "units": tuple(job.space.units),
        "model": law_name(type(job.model)),
        "per_angle_mode": job.mode.word,
        "evaluator": setup.evaluator,
        "sampler": job.sampler.word,
        "scaling_kind": "sampled" if posterior.sizes[1] else "marginal",
        "noise_kind": posterior.noise.word,
        "combination": job.combine.word if is_cut else "",
        "strategy": job.sharding.strategy if is_cut else "",
        "width_kind": job.width.word,
        "width_text": job.width.text,
        "coordinate_names": coordinate_names(posterior),
        "limits": job.limits,
        "prior_names": setup.priors.names,
        "phi": np.asarray(data.phi, float),
        "q": np.asarray(data.q, float),
        "rings": data.rings,
        "weight": None if data.weight is None else np.asarray(data.weight, float),
    }


def _combined(
    job: Job, setup: Setup, joint: combine.ShardDraws, used: Bool[np.ndarray, " shard"]
) -> tuple[combine.Weighted, Float[np.ndarray, "shard joint"]]:
    """Draws of the posterior, and how far the shards disagree."""
    size = joint.shape[-1]
    if len(joint) == 1:
        return combine.Weighted(joint[0]), np.zeros((1, size))
    guide, place = setup.guide, setup.posterior.place
    if guide is not None:  # of what was integrated out it says nothing
        centre, precision = np.zeros(size), np.zeros((size, size))
        centre[place], precision[np.ix_(place, place)] = guide.centre, guide.precision
        guide = density.Guide(centre, precision)
    product = combine.product_of_shards(joint, guide, used)
    key = jax.random.fold_in(job.key, 4)
    return job.combine.draw(product, setup.whole, key, setup.seed), product.disagreement


def _fit_to_start(job: Job) -> NLSQResult:
    """The fit that was given, or one that is made.

    Raises:
        ValueError: If the start is another word, or the fit is of something else or too bad.
    """
    start, largest = job.start, job.limits.max_reduced_chi2
    if isinstance(start, NLSQResult):
        fit = checked_fit(start, job.space, job.mode.word)
    elif start not in (None, "prior"):
        raise ValueError(f"start is {start!r}; expected 'prior', an NLSQResult or None.")
    else:
        fit = _fit_from_several(job)
    if largest is not None and float(fit.reduced_chi2) > largest:
        raise ValueError(
            f"The fit has reduced chi-squared {float(fit.reduced_chi2):.4g}; expected at most "
            f"{largest:g} (nlsq_chi2_threshold); improve the fit or raise the limit."
        )
    return fit


def _fit_from_several(job: Job) -> NLSQResult:
    return fit_nlsq(
        job.model, job.data, job.space, per_angle_mode=job.mode, evaluator=job.evaluator,
        starts=_STARTS, key=jax.random.fold_in(job.key, 5), judge=False,
    )  # fmt: skip


def _rival(job: Job, fit: NLSQResult) -> NLSQResult:
    """The best fit of several starts: a fit from one start says nothing about other optima."""
    if len(fit.ends_chi2) > 1 or fit.cost is not None:
        return fit
    other = _fit_from_several(job)
    return other if float(other.chi2) < float(fit.chi2) else fit


def _log_ratio(job: Job, fit: NLSQResult, rival: NLSQResult, found: Information) -> float:
    """Log likelihood of another fit less that of the fit.

    In units in which deviations are as large as the noise that points share makes them.
    """
    variance = float(rival.reduced_chi2) if job.data.sigma is None else 1.0
    gain = 0.5 * (float(fit.chi2) - float(rival.chi2)) / variance
    return gain / float(np.mean(np.diag(found.spread)))


def _as_list(
    posterior: density.Posterior, n_shards: int, evaluator: str, *, is_asked: bool
) -> tuple[density.Posterior, str]:
    """The posterior of all points as it is sampled or drawn from, and what evaluates it."""
    if n_shards == 1 and (is_asked or evaluator != "tiled"):
        return posterior, evaluator
    if posterior.source.n_points <= _LISTED:
        return shards.listed(posterior), "point lists"
    return posterior, "point lists" if n_shards > 1 else evaluator
