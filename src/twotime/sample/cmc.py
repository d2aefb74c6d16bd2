"""What sampling cannot use, refused in a sentence before anything is computed."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from twotime.config.parameter_space import ParameterSpace, PriorDistribution
from twotime.data.dataset import TwoTimeData
from twotime.fit import fit_nlsq
from twotime.fit.objective import check_inputs
from twotime.gram.choose import choose_evaluator
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.scaling import resolve_mode
from twotime.results.cmc import CMCResult, Limits
from twotime.results.nlsq import NLSQResult
from twotime.sample.chains import Settings
from twotime.sample.checkpoint import Checkpoint
from twotime.sample.combine import check_method
from twotime.sample.density import Posterior
from twotime.sample.devices import meet
from twotime.sample.driver import Progress, sample
from twotime.sample.mode import find_shape, prior_shape
from twotime.sample.result import Facts, make_result
from twotime.sample.shards import Dealing, listed, make_guide, shard_posteriors, stacked
from twotime.sample.target import choose_scaling, make_posterior, position_of_fit
from twotime.sample.width import WIDTHS, widths


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a word that is not one of those known.

    Raises:
        ValueError: If it is not.
    """
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}.")


def check_settings(settings: Settings, n_shards: int, jitter: float) -> None:
    """Refuse numbers that sampling cannot use.

    Raises:
        ValueError: If one is out of range.
    """
    least = {
        "n_shards": (n_shards, 1),
        "n_chains": (settings.n_chains, 1),
        "n_warmup": (settings.n_warmup, 10),
        "n_samples": (settings.n_samples, 10),
        "max_tree_depth": (settings.max_tree_depth, 1),
        "n_leapfrog": (settings.n_leapfrog, 1),
    }
    for name, (value, low) in least.items():
        if value < low:
            raise ValueError(f"{name} is {value}; expected at least {low}.")
    if not 0 < settings.target_accept < 1:
        raise ValueError(
            f"target_accept is {settings.target_accept}; expected between 0 and 1, such as 0.9."
        )
    if not settings.step_size > 0 or not jitter >= 0:
        raise ValueError(
            f"step_size is {settings.step_size} and jitter {jitter}; expected a positive step and "
            "a jitter from 0 on."
        )
    if settings.sampler not in ("nuts", "hmc"):
        raise ValueError(f"sampler is {settings.sampler!r}; expected 'nuts' or 'hmc'.")


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
    for name in ("q", "phi", "sigma"):
        part = getattr(data, name)
        if part is not None and not _is_usable(name, part, data):
            raise ValueError(
                f"The data's {name} is not finite"
                f"{' and positive' if name == 'sigma' else ''} everywhere that counts; mask those "
                "pixels or repair it."
            )


def _is_usable(name: str, part: Any, data: TwoTimeData) -> bool:
    values = np.asarray(part)
    if name != "sigma":
        return bool(np.isfinite(values).all())
    good = np.isfinite(values) & (values > 0)
    return bool(np.all(good | ~np.asarray(data.usable(slice(None)))))


def checked_fit(fit: NLSQResult, space: ParameterSpace, mode: str) -> NLSQResult:
    """A fit given as a start, if it is of this space and mode.

    Raises:
        ValueError: If it is not.
    """
    if fit.all_names != space.names or fit.varying != space.varying:
        raise ValueError(
            f"The start is a fit of {', '.join(fit.names)}; the space varies "
            f"{', '.join(n for n, v in zip(space.names, space.varying, strict=True) if v)}; "
            "fit with the same space."
        )
    if fit.per_angle_mode != mode:
        raise ValueError(
            f"The start was fitted with per_angle_mode {fit.per_angle_mode!r}; expected {mode!r}; "
            "use the same in both."
        )
    values = np.asarray(fit.values)
    low, high = (np.asarray(x) for x in (space.lower, space.upper))
    slack = 1e-9 * (high - low)
    for i in np.flatnonzero(space.varying):
        if not low[i] - slack[i] <= values[i] <= high[i] + slack[i]:
            raise ValueError(
                f"The start has {space.names[i]} = {values[i]:g}, outside the bounds "
                f"[{low[i]:g}, {high[i]:g}]; fit again with these bounds."
            )
    return fit


def check_chi2(fit: NLSQResult, largest: float | None) -> None:
    """Refuse a fit that describes the data too badly to sample from.

    Raises:
        ValueError: If its reduced chi-squared is larger than `largest`.
    """
    if largest is not None and float(fit.reduced_chi2) > largest:
        raise ValueError(
            f"The fit has reduced chi-squared {float(fit.reduced_chi2):.4g}; expected at most "
            f"{largest:g} (nlsq_chi2_threshold); improve the fit or raise the limit."
        )


def informed(space: ParameterSpace, fit: NLSQResult, factor: float | None) -> ParameterSpace:
    """The space with normal priors about a fit, cut to the bounds.

    Args:
        space: The space.
        fit: The fit.
        factor: Widths of the priors in robust deviations; None keeps the priors of the space.

    Raises:
        ValueError: If the fit gives a parameter no deviation.
    """
    if factor is None:
        return space
    bounds, priors = space.bounds, {}
    for name, deviation in fit.uncertainties.items():
        if not np.isfinite(deviation) or deviation <= 0:
            raise ValueError(
                f"prior_from_fit needs the deviation of every fitted parameter; that of {name!r} "
                f"is {deviation}; fix it, or keep the priors."
            )
        low, high = bounds[name]
        width = factor * deviation
        priors[name] = PriorDistribution.truncated_normal(fit.params[name], width, low, high)
    return space.with_priors(priors)


PIXEL_LISTS = "pixel lists"
_LISTED = 2e6


def fit_cmc(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    *,
    key: PRNGKeyArray,
    start: NLSQResult | str | None = None,
    n_shards: int = 1,
    n_chains: int = 4,
    n_warmup: int = 500,
    n_samples: int = 1000,
    devices: Sequence[Any] | None = None,
    combine: str = "importance",
    strategy: str = "random",
    n_strata: int = 1,
    min_pixels: int = 1,
    width: str = "sandwich",
    scaling: str = "auto",
    noise: str = "sampled",
    per_angle_mode: str = "auto",
    evaluator: str = "auto",
    sampler: str = "nuts",
    target_accept: float = 0.9,
    max_tree_depth: int = 10,
    step_size: float = 0.5,
    n_leapfrog: int = 10,
    adapt_step: bool = True,
    adapt_shape: bool = True,
    jitter: float = 1.0,
    prior_from_fit: float | None = None,
    max_reduced_chi2: float | None = None,
    limits: Limits = Limits(),  # noqa: B008  a frozen value
    exclude: bool = False,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> CMCResult:
    """Sample the posterior of a model's parameters.

    The likelihood is Gaussian in the pixels with t1 < t2, the priors are those of the space, the
    noise level is unknown (prior 1/noise) unless the data have sigma. Draws depend on the key
    and the arguments alone, not on how many devices there are.

    Args:
        model: The model.
        data: The data; masked and non-finite pixels do not count.
        space: Bounds, priors and which parameters vary.
        key: Random key.
        start: A fit to start from; None fits first; "prior" starts chains at draws of the prior.
        n_shards: Shards the pixels are dealt to; 1 samples all of them.
        n_chains: Chains of each shard.
        n_warmup: Warm-up draws of each chain, which are not kept.
        n_samples: Kept draws of each chain.
        devices: Devices to spread shards and chains over (`jax.devices()`); None takes the first.
        combine: "consensus" averages draws with the shards' precisions, "gaussian" multiplies
            Gaussians with their means and covariances, "importance" corrects draws of this
            product by the posterior of all pixels: exact where the result's `pareto_k` is below
            0.7, for one evaluation of all pixels a draw. Chains that do not start from the prior
            are guided by a power of the Gaussian at the mode, which is divided out again.
        strategy: How pixels are dealt: "random", "interleaved", "contiguous" or "angles".
        n_strata: Bands of t2 - t1 of which every shard gets its part, with "random".
        min_pixels: A shard with fewer pixels is an error.
        width: "sandwich" corrects the width for the noise that pixels share by a map of the
            draws, "tempering" by a power of the likelihood, "none" takes pixels as independent.
        scaling: Contrast and offset "marginal" (integrated out, normal priors, bounds left
            aside), "sampled", or "auto": marginal unless a prior is not normal or the fit ended
            on their bounds. The result says which it was.
        noise: The noise level "sampled" or "marginal" (integrated out; contrast and offset must
            then be sampled).
        per_angle_mode: "individual", "averaged", "constant", "fourier" or "auto", as in a fit.
        evaluator: "tiled" or "factored" as in a fit; "auto" is factored where that is possible,
            else lists of pixels up to two millions, tiles above. Shards are lists of pixels.
        sampler: "nuts", or "hmc" with trajectories of `n_leapfrog` steps.
        target_accept: Acceptance that the step is adapted to.
        max_tree_depth: Doublings of a NUTS trajectory at most.
        step_size: First step of the integrator, in standard deviations.
        n_leapfrog: Steps of an HMC trajectory.
        adapt_step: Whether the step is adapted in the warm-up.
        adapt_shape: Whether the shape of the posterior is measured again in the warm-up.
        jitter: Spread of the chains' starts about the mode, in standard deviations.
        prior_from_fit: Replace priors by normals about the fit, this many robust deviations
            wide; None keeps them.
        max_reduced_chi2: Largest reduced chi-squared of a fit that is sampled from.
        limits: What chains must keep to count as converged.
        exclude: Leave shards that did not converge out of the combination; their data then do
            not count, but with "importance". Otherwise all are combined, and the result has not
            converged.
        checkpoint: Folder in which a run is kept block by block.
        resume: Go on with the run that is kept there.
        progress: Called after every block of draws. A KeyboardInterrupt, from the keyboard or
            raised in it, ends sampling and keeps what was drawn.

    Returns:
        The result; `status` says whether chains converged.

    Raises:
        ValueError: If float64 is off, names do not match, or a value cannot be used.
        KeyboardInterrupt: If interrupted before any draw was kept.
    """
    check_inputs(model, data, space)
    meet()
    settings = Settings(
        n_chains, n_warmup, n_samples, target_accept, max_tree_depth, sampler, step_size,
        n_leapfrog, adapt_step, adapt_shape,
    )  # fmt: skip
    check_settings(settings, n_shards, jitter)
    check_method(combine)
    check_choice("width", width, tuple(WIDTHS))
    check_choice("noise", noise, ("sampled", "marginal"))
    check_space(data, space)
    begun = time.perf_counter()
    mode = resolve_mode(per_angle_mode, data.phi.shape[0]).word
    fit = _fit_to_start(model, data, space, start, mode, evaluator)
    if fit is None and (width != "none" or prior_from_fit is not None):
        fit = fit_nlsq(model, data, space, per_angle_mode=mode, evaluator=evaluator)
    if fit is not None:
        check_chi2(fit, max_reduced_chi2)
        space = informed(space, fit, prior_from_fit)
    plain, chosen = choose_evaluator(model, data, evaluator)
    posterior = make_posterior(
        model, plain, space, mode, chosen,
        scaling=choose_scaling(space, fit, mode, scaling), noise=noise,
    )  # fmt: skip
    correction = None
    if fit is not None and width != "none":
        correction = widths(posterior.coordinates, fit)
        if width == "tempering":
            posterior = dataclasses.replace(posterior, power=jnp.asarray(correction.power))
    whole, chosen = _as_list(posterior, n_shards, chosen, is_asked=evaluator != "auto")
    seed = int(np.asarray(jax.random.bits(jax.random.fold_in(key, 1))))
    dealing = Dealing(n_shards, strategy, n_strata, min_pixels, seed)
    if fit is None or start == "prior":
        shape, guide = prior_shape(posterior, space, key), None
        wider, jitter = n_shards**0.5, n_shards**-0.5
    else:
        shape = find_shape(posterior, *position_of_fit(posterior, fit))
        guide, wider = make_guide(shape, n_shards)
    many = n_shards > 1
    shards = shard_posteriors(posterior, dealing, guide) if many else stacked([whole])
    saver = None
    if checkpoint is not None:
        saver = Checkpoint(Path(checkpoint), (shards, key, settings, dealing, shape), resume=resume)
    places = (n_shards, n_chains, len(shape.mode))
    result = sample(
        shards,
        np.broadcast_to(shape.mode, (n_shards, len(shape.mode))),
        np.broadcast_to(shape.root * wider, (n_shards, *shape.root.shape)),
        jitter * np.asarray(jax.random.normal(jax.random.fold_in(key, 2), places, jnp.float64)),
        jax.random.fold_in(key, 3),
        settings,
        devices=devices,
        progress=progress,
        saver=saver,
    )
    facts = Facts(
        model, space, posterior, whole, mode, chosen, settings, dealing, guide, combine,
        width, correction, limits, exclude, key,
    )  # fmt: skip
    post = make_result(facts, result)
    return dataclasses.replace(post, seconds=np.asarray(time.perf_counter() - begun))


def _fit_to_start(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    start: NLSQResult | str | None,
    mode: str,
    evaluator: str,
) -> NLSQResult | None:
    """The fit that was given or has to be made; None where chains start from the prior.

    Raises:
        ValueError: If the start is another word, or a fit of something else.
    """
    if isinstance(start, NLSQResult):
        return checked_fit(start, space, mode)
    if start is None:
        return fit_nlsq(model, data, space, per_angle_mode=mode, evaluator=evaluator)
    check_choice("start", start, ("prior", "an NLSQResult"))
    return None


def _as_list(
    posterior: Posterior, n_shards: int, evaluator: str, *, is_asked: bool
) -> tuple[Posterior, str]:
    """The posterior of all pixels as it is sampled or drawn from, and what evaluates it."""
    if n_shards == 1 and (is_asked or evaluator != "tiled"):
        return posterior, evaluator
    if posterior.source.n_pixels <= _LISTED:
        return listed(posterior), PIXEL_LISTS
    return posterior, PIXEL_LISTS if n_shards > 1 else evaluator
