"""Posteriors by sampling: all pixels at once, or in shards whose draws are combined.

`fit_cmc` with one shard samples the posterior of all pixels: exact, and the choice wherever an
evaluation of the fit is affordable some ten thousand times. Shards spread the work where it is
not; their combination is exact for Gaussian posteriors and good for those that are nearly so.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from twotime.config.parameter_space import ParameterSpace
from twotime.core.models import AbstractTwoTimeModel
from twotime.core.scaling import resolve_mode
from twotime.data.dataset import TwoTimeData
from twotime.inference.evaluators import choose_evaluator
from twotime.inference.nlsq import check_inputs, fit_nlsq
from twotime.results.cmc import CMCResult, Limits
from twotime.results.nlsq import NLSQResult
from twotime.sampling.chains import Settings
from twotime.sampling.checkpoint import Checkpoint
from twotime.sampling.combine import check_method
from twotime.sampling.inputs import (
    check_chi2,
    check_choice,
    check_settings,
    check_space,
    checked_fit,
    informed,
)
from twotime.sampling.laplace import find_shape, prior_shape
from twotime.sampling.outcome import Facts, make_result
from twotime.sampling.placement import meet
from twotime.sampling.posterior import Posterior
from twotime.sampling.sampler import Progress, sample
from twotime.sampling.shards import Dealing, listed, make_guide, shard_posteriors, stacked
from twotime.sampling.target import choose_scaling, make_posterior, position_of_fit
from twotime.sampling.widening import WIDTHS, widths

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
    mode = resolve_mode(per_angle_mode, data.phi.shape[0])
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
