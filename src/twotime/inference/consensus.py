"""Posteriors by sampling: all pixels at once, or in shards whose draws are combined.

`fit_cmc` with one shard samples the posterior of all pixels: exact, and the choice wherever an
evaluation of the fit is affordable some ten thousand times. Shards spread the work where it is
not; their combination is exact for Gaussian posteriors and good where each shard alone
determines the parameters.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from twotime.config.parameter_space import ParameterSpace, PriorDistribution
from twotime.core.models import AbstractTwoTimeModel
from twotime.core.scaling import resolve_mode
from twotime.data.dataset import TwoTimeData
from twotime.inference import diagnostics
from twotime.inference.checkpoint import Checkpoint
from twotime.inference.combine import Combined, check_method, combine_shards
from twotime.inference.evaluators import choose_evaluator
from twotime.inference.laplace import Shape, find_shape
from twotime.inference.nlsq import check_inputs, fit_nlsq
from twotime.inference.posterior import Plane, Posterior
from twotime.inference.sampler import Progress, Result, Settings, meet, sample
from twotime.inference.shards import Dealing, listed, shard_posteriors, stacked
from twotime.inference.target import choose_scaling, make_posterior, position_of_fit
from twotime.inference.widening import WIDTHS, Widths, widen, widths
from twotime.posterior.result import CMCResult, Limits
from twotime.results import NLSQResult

PIXEL_LISTS = "pixel lists"
_LISTED = 2e6
_SHOWN = 400
_PRIOR_DRAWS = 2000


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
    combine: str = "consensus",
    strategy: str = "random",
    n_strata: int = 1,
    min_pixels: int = 1,
    width: str = "sandwich",
    scaling: str = "auto",
    noise: str = "sampled",
    per_angle_mode: str = "auto",
    evaluator: str = "auto",
    sampler: str = "nuts",
    target_accept: float = 0.8,
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
            Gaussians with their means and covariances.
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
            not count. Otherwise all are combined, and the result has not converged.
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
    for name, value, known in (
        ("width", width, tuple(WIDTHS)),
        ("noise", noise, ("sampled", "marginal")),
        ("start", start if isinstance(start, str) else "prior", ("prior", "an NLSQResult")),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; expected one of {', '.join(known)}.")
    _check_space(data, space)
    begun = time.perf_counter()
    mode = resolve_mode(per_angle_mode, data.phi.shape[0])
    fit = None
    if isinstance(start, NLSQResult):
        fit = _checked(start, space, mode)
    elif start is None or width != "none" or prior_from_fit is not None:
        fit = fit_nlsq(model, data, space, per_angle_mode=mode, evaluator=evaluator)
    if fit is not None and max_reduced_chi2 is not None:
        _check_chi2(fit, max_reduced_chi2)
    if prior_from_fit is not None and fit is not None:
        space = _informed(space, fit, prior_from_fit)
    plain, chosen = choose_evaluator(model, data, evaluator)
    scaling_kind = choose_scaling(space, fit, mode, scaling)
    posterior = make_posterior(model, plain, space, mode, chosen, scaling=scaling_kind, noise=noise)
    correction = None
    if fit is not None and width != "none":
        correction = widths(posterior.coordinates, fit)
        if width == "tempering":
            posterior = dataclasses.replace(posterior, power=jnp.asarray(correction.power))
    from_prior = start == "prior"
    shape = _shape(posterior, None if from_prior else fit, space, key)
    seed = int(np.asarray(jax.random.bits(jax.random.fold_in(key, 1))))
    dealing = Dealing(n_shards, strategy, n_strata, min_pixels, seed)
    shards = shard_posteriors(posterior, dealing)
    if n_shards > 1:
        chosen = PIXEL_LISTS
    elif evaluator == "auto" and chosen == "tiled" and posterior.source.n_pixels <= _LISTED:
        shards, chosen = stacked([listed(posterior)]), PIXEL_LISTS
    starts = np.asarray(
        jax.random.normal(
            jax.random.fold_in(key, 2), (n_shards, n_chains, len(shape.mode)), jnp.float64
        )
    )
    spread = n_shards**-0.5 if from_prior else jitter
    saver = None
    if checkpoint is not None:
        saver = Checkpoint(Path(checkpoint), (shards, key, settings, dealing, shape), resume=resume)
    result = sample(
        shards,
        np.broadcast_to(shape.mode, (n_shards, len(shape.mode))),
        np.broadcast_to(shape.root * np.sqrt(n_shards), (n_shards, *shape.root.shape)),
        spread * starts,
        jax.random.fold_in(key, 3),
        settings,
        devices=devices,
        progress=progress,
        saver=saver,
    )
    facts = _Facts(
        model, space, posterior, mode, chosen, settings,
        dealing, combine, width, correction, limits, exclude, seed, time.perf_counter() - begun,
    )  # fmt: skip
    return _result(facts, result)


class _Facts(NamedTuple):
    """What a result tells besides its draws."""

    model: AbstractTwoTimeModel
    space: ParameterSpace
    posterior: Posterior
    mode: str
    evaluator: str
    settings: Settings
    dealing: Dealing
    combine: str
    width: str
    correction: Widths | None
    limits: Limits
    exclude: bool
    seed: int
    seconds: float


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
            f"target_accept is {settings.target_accept}; expected between 0 and 1, such as 0.8."
        )
    if not settings.step_size > 0 or not jitter >= 0:
        raise ValueError(
            f"step_size is {settings.step_size} and jitter {jitter}; expected a positive step and "
            "a jitter from 0 on."
        )
    if settings.sampler not in ("nuts", "hmc"):
        raise ValueError(f"sampler is {settings.sampler!r}; expected 'nuts' or 'hmc'.")


def _check_space(data: TwoTimeData, space: ParameterSpace) -> None:
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
    used = np.isfinite(np.asarray(data.c2))
    if data.mask is not None:
        used &= np.asarray(data.mask)
    return bool(np.all(good | ~used))


def _checked(fit: NLSQResult, space: ParameterSpace, mode: str) -> NLSQResult:
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


def _check_chi2(fit: NLSQResult, largest: float) -> None:
    if float(fit.reduced_chi2) > largest:
        raise ValueError(
            f"The fit has reduced chi-squared {float(fit.reduced_chi2):.4g}; expected at most "
            f"{largest:g} (nlsq_chi2_threshold); improve the fit or raise the limit."
        )


def _informed(space: ParameterSpace, fit: NLSQResult, factor: float) -> ParameterSpace:
    """The space with normal priors about a fit, cut to the bounds."""
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


def _shape(
    posterior: Posterior, fit: NLSQResult | None, space: ParameterSpace, key: PRNGKeyArray
) -> Shape:
    """Mode and shape at a fit, or mean and spread of the prior."""
    if fit is not None:
        return find_shape(posterior, *position_of_fit(posterior, fit))
    parts = [(posterior.coordinates, posterior.coordinates.names)]
    sampled = posterior.scaling.sampled
    if sampled is not None:
        parts.append((sampled, sampled.names))
    middle, spread = [], []
    for coordinates, names in parts:
        draws = [
            space.priors[name].sample(jax.random.fold_in(key, 100 + i), (_PRIOR_DRAWS,))
            for i, name in enumerate(names)
        ]
        z = np.asarray(coordinates.from_values(jnp.stack(draws, axis=-1)))
        middle.append(z.mean(axis=0))
        spread.append(z.std(axis=0))
    if posterior.noise == "sampled":
        moments = posterior.source.moments(
            posterior.model, jnp.asarray(posterior.start), posterior.varying
        )
        square, count = (float(jnp.sum(moments[:, i, i])) for i in (0, 1))
        middle.append(np.asarray([0.5 * np.log(square / count)]))
        spread.append(np.asarray([0.1]))
    width = np.concatenate(spread)
    return Shape(np.concatenate(middle), np.diag(width), 0.0, 0.0, 0)


def _result(facts: _Facts, result: Result) -> CMCResult:
    posterior, trace = facts.posterior, result.trace
    plane = posterior.source
    assert isinstance(plane, Plane)
    found = diagnostics.convergence(
        trace.position, trace.energy, trace.divergent, trace.depth, facts.settings.max_tree_depth
    )
    kept = diagnostics.converged_shards(found, *_numbers(facts.limits))
    excluded = _excluded(kept, facts.exclude)
    used = np.delete(trace.joint, list(excluded), axis=0)
    combined = combine_shards(used, facts.combine, facts.seed)
    joint, ratio = combined.draws, np.ones(posterior.sizes[0])
    n = posterior.sizes[0]
    if facts.correction is not None and facts.width == "sandwich":
        joint = widen(joint, facts.correction)
        before = combined.draws[..., :n].std(axis=(0, 1))
        ratio = joint[..., :n].std(axis=(0, 1)) / before
    elif facts.width == "tempering":
        ratio = np.full(n, float(posterior.power) ** -0.5)
    draws, contrast, offset, noise = _physical(posterior, joint)
    values = np.array(posterior.start)
    values[np.flatnonzero(posterior.varying)] = np.median(draws, axis=(0, 1))
    shown = _some(trace.joint[..., :n])
    many = facts.dealing.n_shards > 1
    return CMCResult(
        all_names=tuple(facts.space.names),
        varying=posterior.varying,
        units=tuple(facts.space.units),
        model=type(facts.model).__name__,
        per_angle_mode=facts.mode,
        evaluator=facts.evaluator,
        sampler=facts.settings.sampler,
        scaling_kind="sampled" if posterior.scaling.sampled is not None else "marginal",
        noise_kind=posterior.noise,
        combination=facts.combine if many else "",
        strategy=facts.dealing.strategy if many else "",
        width_kind=facts.width,
        width_text=WIDTHS[facts.width],
        coordinate_names=_coordinate_names(posterior),
        limits=facts.limits,
        excluded=excluded,
        is_complete=result.is_complete,
        draws=draws,
        contrast=contrast,
        offset=offset,
        noise=noise,
        values=values,
        phi=np.asarray(plane.data.phi, float),
        log_density=trace.log_density,
        energy=trace.energy,
        acceptance=trace.acceptance.mean(axis=(1, 2)),
        tree_depth=trace.depth.mean(axis=(1, 2)),
        deepest=found.deepest,
        step=result.step,
        shard_r_hat=found.r_hat,
        shard_ess_bulk=found.ess_bulk,
        shard_ess_tail=found.ess_tail,
        shard_bfmi=found.bfmi,
        shard_divergences=found.divergences,
        shard_converged=kept,
        shard_draws=np.asarray(posterior.coordinates.to_values(jnp.asarray(shown))),
        disagreement=_disagreement(trace.joint, combined)[:, :n],
        power=np.asarray(float(posterior.power)),
        width_ratio=ratio,
        n_pixels=np.asarray(float(posterior.source.n_pixels)),
        n_gradients=np.asarray(float(result.n_gradients)),
        seconds=np.asarray(facts.seconds),
    )


def _numbers(limits: Limits) -> tuple[float, float, float, int]:
    return limits.max_r_hat, limits.min_ess, limits.min_bfmi, limits.max_divergences


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


def _physical(
    posterior: Posterior, joint: Float[np.ndarray, "chain draw joint"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Parameters, contrast, offset and noise level from draws in unbounded coordinates."""
    n, m = posterior.sizes[0], sum(posterior.scaling.free)
    plane = posterior.source
    assert isinstance(plane, Plane)
    draws = posterior.coordinates.to_values(jnp.asarray(joint[..., :n]))
    coefficients = posterior.scaling_values(jnp.asarray(joint[..., n : n + m]))
    both = np.asarray(posterior.scaling.per_angle(coefficients))
    noise = np.full(joint.shape[:2], np.nan)
    if posterior.noise != "known":
        noise = np.exp(joint[..., n + m])
    return np.asarray(draws), both[..., 0], both[..., 1] + float(plane.shift), noise


def _coordinate_names(posterior: Posterior) -> tuple[str, ...]:
    names = list(posterior.coordinates.names)
    if posterior.scaling.sampled is not None:
        kinds = posterior.scaling.sampled.names
        names += [f"{kind}[{kinds[:i].count(kind)}]" for i, kind in enumerate(kinds)]
    return (*names, "noise") if posterior.noise == "sampled" else tuple(names)


def _some(draws: Float[np.ndarray, "shard chain draw free"]) -> np.ndarray:
    flat = draws.reshape(draws.shape[0], -1, draws.shape[-1])
    chosen = np.unique(np.linspace(0, flat.shape[1] - 1, min(_SHOWN, flat.shape[1])).astype(int))
    return flat[:, chosen]


def _disagreement(joint: np.ndarray, combined: Combined) -> np.ndarray:
    flat = combined.draws.reshape(-1, joint.shape[-1])
    if len(joint) == 1:
        return np.zeros((1, joint.shape[-1]))
    every = joint.reshape(joint.shape[0], -1, joint.shape[-1])
    covariances = np.stack([np.atleast_2d(np.cov(x, rowvar=False)) for x in every])
    covariance = np.atleast_2d(np.cov(flat, rowvar=False))
    return diagnostics.disagreement(every.mean(axis=1), covariances, flat.mean(axis=0), covariance)
