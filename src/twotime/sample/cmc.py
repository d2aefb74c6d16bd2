"""Sampling as users call it: `fit_cmc`, what it is asked for, and what it refuses."""

import difflib
import inspect
import itertools
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from twotime.config.parameter_space import ParameterSpace, PriorDistribution
from twotime.data.dataset import TwoTimeData
from twotime.fit import check_inputs, fit_nlsq
from twotime.gram import choose_evaluator
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.scaling import Individual, resolve_mode
from twotime.results.cmc import CMCResult, Limits
from twotime.results.nlsq import NLSQResult
from twotime.sample import chains, combine, density, driver, result, shards
from twotime.sample.coordinates import choose_scaling

NUTS, WHOLE, LIMITS = chains.Nuts(), shards.Sharding(), Limits()
_LISTED = 2e6
"""Points up to which they are evaluated as lists, where there is no factored form."""
_RENAMED = {"min_pixels": "min_points", "n_strata": "strata"}
_SHOWN = 400
OnProgress = Callable[[driver.Progress], None]
T = TypeVar("T")


def fit_cmc(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, *, key: PRNGKeyArray,
    start: NLSQResult | str | None = None, sampler: chains.AbstractSampler | str = NUTS,
    sharding: shards.Sharding = WHOLE, limits: Limits = LIMITS,
    per_angle_mode: str | Individual = "auto", evaluator: str = "auto", scaling: str = "auto",
    noise: str = "sampled", width: combine.Independent | str = "sandwich",
    prior_from_fit: float | None = None, checkpoint: str | Path | None = None,
    resume: bool = False, progress: OnProgress | None = None, **short: Any,
) -> CMCResult:  # fmt: skip
    """Sample the posterior of a model's parameters.

    The likelihood is Gaussian in the points with t1 < t2, the priors are those of the space, an
    unknown noise level has the prior 1/noise. Draws depend on the key and the arguments alone,
    not on how many devices there are.

    Args:
        model: The model.
        data: The data; masked and non-finite points do not count.
        space: Bounds, priors and which parameters vary.
        key: Random key.
        start: A fit to start from; None fits first; "prior" starts chains at draws of the prior.
        sampler: `Nuts` or `Hmc`, or the word for it.
        sharding: How points are dealt to shards, these combined and placed on devices.
        limits: What fit and chains must keep.
        per_angle_mode: As in a fit.
        evaluator: "tiled" or "factored" as in a fit; "auto" is factored where that is possible,
            else lists of points up to two millions, tiles above. Shards are lists of points.
        scaling: Contrast and offset "marginal" (integrated out, normal priors, bounds left
            aside), "sampled", or "auto": marginal unless a prior is not normal or the fit ended
            on their bounds. The result says which it was.
        noise: The noise level "sampled", or "marginal": integrated out, `scaling` "sampled".
        width: "sandwich" corrects the width for the noise that points share by a map of the
            draws, "tempering" by a power of the likelihood, "none" takes points as independent.
        prior_from_fit: Replace priors by normals about the fit, so many robust deviations wide.
        checkpoint: Folder in which a run is kept block by block.
        resume: Go on with the run that is kept there.
        progress: Called after every block of draws. A KeyboardInterrupt, from the keyboard or
            raised in it, ends sampling and keeps what was drawn.
        short: Fields of `Nuts`, `Hmc`, `Sharding` and `Limits`, in place of these.

    Raises:
        TypeError: If a keyword is unknown or given twice, or values are traced by JAX.
        ValueError: If float64 is off, names do not match, or a value cannot be used.
        KeyboardInterrupt: If interrupted before any draw was kept.
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((model, data, space, key))):
        raise TypeError("fit_cmc adapts on the host; call it outside of jit, vmap and grad.")
    sampler, sharding, limits = gathered(sampler, sharding, limits, short)
    check_inputs(model, data, space)
    check_space(data, space)
    driver.meet()
    job = Job(
        model, data, space, key, start, sampler, sharding, limits,
        resolve_mode(per_angle_mode, len(data.phi)), evaluator, scaling, prior_from_fit,
        resolved("noise", noise, density.NOISES), resolved("width", width, combine.WIDTHS),
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


def _run(job: Job, kept: tuple[Path, bool] | None, progress: OnProgress | None) -> CMCResult:
    """Sample and keep blocks in a folder, from those that are there if that is asked for."""
    begun, n, key, sampler = time.perf_counter(), job.sharding.n_shards, job.key, job.sampler
    fit, space = _fit_to_start(job), job.space
    if fit is not None and job.mode.is_decided:
        job = job._replace(mode=resolve_mode(fit.per_angle_mode, len(job.data.phi)))
    if fit is not None and job.prior_from_fit is not None:
        space = informed(space, fit, job.prior_from_fit)
    plain, evaluator = choose_evaluator(job.model, job.data, job.evaluator)
    scaling = choose_scaling(space, fit, job.mode, job.scaling)
    posterior = density.make_posterior(
        job.model, plain, space, job.mode, evaluator, scaling=scaling, noise=job.noise
    )
    widths = None
    if fit is not None and job.width.needs_fit:
        widths = combine.widths(posterior.coordinates, fit)
        posterior = replace(posterior, power=jnp.asarray(job.width.power(widths)))
    whole, word = _as_list(posterior, n, evaluator.word, is_asked=job.evaluator != "auto")
    if fit is None or job.start == "prior":
        shape, guide = shards.prior_shape(posterior), None
        wider, jitter = n**0.5, n**-0.5
    else:
        place = shards.position_of_fit(posterior, fit)
        shape, jitter = shards.find_shape(posterior, *place), sampler.jitter
        guide, wider = shards.make_guide(shape, n)
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
    away = jax.random.normal(jax.random.fold_in(key, 2), places, jnp.float64)
    starts, devices = jitter * np.asarray(away), job.sharding.devices
    key = jax.random.fold_in(key, 3)
    drawn = driver.sample(
        parts, modes, roots, starts, key, sampler, devices=devices, progress=progress, saver=saver
    )
    setup = Setup(posterior, whole, word, guide, widths, seed)
    return _result(job, setup, drawn, time.perf_counter() - begun)


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
    joint = job.width.corrected(combined.draws, setup.widths)
    deviation, before = (x[..., :n].std(axis=(0, 1)) for x in (joint, combined.draws))
    draws, contrast, offset, noise = result.physical(posterior, joint)
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
        width_ratio=deviation / before * float(posterior.power) ** -0.5,
        n_points=np.asarray(float(posterior.source.n_points)),
        n_gradients=np.asarray(float(drawn.n_gradients)),
        seconds=np.asarray(seconds),
    )


def _names(job: Job, setup: Setup) -> dict[str, Any]:
    """The part of a result that is known before sampling."""
    posterior, is_cut = setup.posterior, job.sharding.n_shards > 1
    sampled = posterior.scaling.sampled
    kinds = () if sampled is None else sampled.names
    names = posterior.coordinates.names
    names += tuple(f"{kind}[{kinds[:i].count(kind)}]" for i, kind in enumerate(kinds))
    return {
        "all_names": tuple(job.space.names),
        "varying": posterior.varying,
        "units": tuple(job.space.units),
        "model": type(job.model).__name__,
        "per_angle_mode": job.mode.word,
        "evaluator": setup.evaluator,
        "sampler": job.sampler.word,
        "scaling_kind": "sampled" if kinds else "marginal",
        "noise_kind": posterior.noise.word,
        "combination": job.combine.word if is_cut else "",
        "strategy": job.sharding.strategy if is_cut else "",
        "width_kind": job.width.word,
        "width_text": job.width.text,
        "coordinate_names": names + ("noise",) * posterior.noise.size,
        "limits": job.limits,
        "phi": np.asarray(posterior.plane.data.phi, float),
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


def _fit_to_start(job: Job) -> NLSQResult | None:
    """The fit that was given or has to be made; None where none is needed.

    Raises:
        ValueError: If the start is another word, or the fit is of something else or too bad.
    """
    start, mode, largest = job.start, job.mode, job.limits.max_reduced_chi2
    if isinstance(start, NLSQResult):
        fit = checked_fit(start, job.space, mode.word)
    elif start not in (None, "prior"):
        raise ValueError(f"start is {start!r}; expected 'prior', an NLSQResult or None.")
    elif start == "prior" and not (
        job.width.needs_fit or job.prior_from_fit is not None or mode.is_decided
    ):
        return None
    else:
        of = job.model, job.data, job.space
        fit = fit_nlsq(*of, per_angle_mode=mode, evaluator=job.evaluator)
    if largest is not None and float(fit.reduced_chi2) > largest:
        raise ValueError(
            f"The fit has reduced chi-squared {float(fit.reduced_chi2):.4g}; expected at most "
            f"{largest:g} (nlsq_chi2_threshold); improve the fit or raise the limit."
        )
    return fit


def _as_list(
    posterior: density.Posterior, n_shards: int, evaluator: str, *, is_asked: bool
) -> tuple[density.Posterior, str]:
    """The posterior of all points as it is sampled or drawn from, and what evaluates it."""
    if n_shards == 1 and (is_asked or evaluator != "tiled"):
        return posterior, evaluator
    if posterior.source.n_points <= _LISTED:
        return shards.listed(posterior), "point lists"
    return posterior, "point lists" if n_shards > 1 else evaluator


def resolved(name: str, value: Any, known: Mapping[str, T]) -> T:
    """What a word stands for; anything but a word stands for itself.

    Raises:
        ValueError: If the word is unknown.
    """
    if isinstance(value, str) and value not in known:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}.")
    return known[value] if isinstance(value, str) else value


def gathered(
    sampler: chains.AbstractSampler | str,
    sharding: shards.Sharding,
    limits: Limits,
    short: Mapping[str, Any],
) -> tuple[chains.AbstractSampler, shards.Sharding, Limits]:
    """Sampler, sharding and limits, with the fields that were given one by one.

    Raises:
        TypeError: If one is unknown, or given twice.
        ValueError: If a value cannot be used.
    """
    for name in short.keys() & _RENAMED.keys():
        warnings.warn(f"{name} is now {_RENAMED[name]}", DeprecationWarning, stacklevel=3)
    named = [(_RENAMED.get(name, name), value) for name, value in short.items()]
    given = dict(named)
    kinds = [_fields(*chains.SAMPLERS.values()), _fields(shards.Sharding), ["max_reduced_chi2"]]
    for name in given:
        if not any(name in kind for kind in kinds):
            every = [*inspect.signature(fit_cmc).parameters, *itertools.chain(*kinds)]
            close = difflib.get_close_matches(name, every, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; expected {', '.join(every)}."
            raise TypeError(f"fit_cmc got an unknown keyword {name!r}{hint}")
    of_sampler, of_sharding, of_limits = ({n: given[n] for n in given if n in k} for k in kinds)
    clashes = [] if sampler is NUTS or isinstance(sampler, str) else list(of_sampler)
    clashes += [] if sharding is WHOLE else list(of_sharding)
    clashes += [] if limits.max_reduced_chi2 is None else list(of_limits)
    if clashes or len(given) < len(named):
        raise TypeError(
            f"fit_cmc got {', '.join(clashes or _RENAMED.values())} twice: by itself and in "
            "sampler, sharding or limits; give it once."
        )
    if isinstance(sampler, str) or of_sampler:
        word = sampler if isinstance(sampler, str) else NUTS.word
        kind = resolved("sampler", word, chains.SAMPLERS)
        sampler = kind(**{n: of_sampler[n] for n in of_sampler if n in _fields(kind)})
    return sampler, replace(sharding, **of_sharding), replace(limits, **of_limits)


def _fields(*classes: type) -> list[str]:
    return [field.name for kind in classes for field in fields(kind)]


def check_space(data: TwoTimeData, space: ParameterSpace) -> None:
    """Refuse priors without mass, starts outside of them, and data that are not finite.

    Raises:
        ValueError: If there is such a one.
    """
    faults = space.validate(sampling=True)
    if faults:
        raise ValueError(faults[0])
    for name, value in space.values.items():
        low, high = space.domain(name)
        if space.vary[name] and not low <= value <= high:
            raise ValueError(
                f"Parameter {name!r} starts at {value:g}, outside the support [{low:g}, {high:g}] "
                "of its prior and bounds; move the value, the bounds or the prior."
            )
    for name in ("q", "phi"):
        if not np.isfinite(np.asarray(getattr(data, name))).all():
            raise ValueError(f"The data's {name} is not finite everywhere; repair it.")
    if data.sigma is not None:
        sigma = np.asarray(data.sigma)
        good = np.broadcast_to(np.isfinite(sigma) & (sigma > 0), data.c2.shape)
        if not all(np.all(good[k] | ~np.asarray(data.usable(k))) for k in range(len(good))):
            raise ValueError(
                "The data's sigma is not finite and positive everywhere that counts; mask those "
                "points or repair it."
            )


def checked_fit(fit: NLSQResult, space: ParameterSpace, mode: str) -> NLSQResult:
    """A fit given as a start, if it is of this space and mode.

    Raises:
        ValueError: If it is not.
    """
    if fit.all_names != space.names or fit.varying != space.varying:
        varying = (n for n, v in zip(space.names, space.varying, strict=True) if v)
        raise ValueError(
            f"The start is a fit of {', '.join(fit.names)}; the space varies "
            f"{', '.join(varying)}; fit with the same space."
        )
    if mode not in (fit.per_angle_mode, "auto"):
        raise ValueError(
            f"The start was fitted with per_angle_mode {fit.per_angle_mode!r}; expected {mode!r}; "
            "use the same in both."
        )
    for name, (low, high) in space.bounds.items():
        slack = 1e-9 * (high - low)
        if name in fit.names and not low - slack <= fit.params[name] <= high + slack:
            raise ValueError(
                f"The start has {name} = {fit.params[name]:g}, outside the bounds "
                f"[{low:g}, {high:g}]; fit again with these bounds."
            )
    return fit


def informed(space: ParameterSpace, fit: NLSQResult, factor: float) -> ParameterSpace:
    """The space with normal priors about a fit, `factor` robust deviations wide, in the bounds.

    Raises:
        ValueError: If the fit gives a parameter no deviation.
    """
    priors = {}
    for name, deviation in fit.uncertainties.items():
        if not np.isfinite(deviation) or deviation <= 0:
            raise ValueError(
                f"prior_from_fit needs the deviation of every fitted parameter; that of {name!r} "
                f"is {deviation}; fix it, or keep the priors."
            )
        width, ends = factor * deviation, space.bounds[name]
        priors[name] = PriorDistribution.truncated_normal(fit.params[name], width, *ends)
    return space.with_priors(priors)
