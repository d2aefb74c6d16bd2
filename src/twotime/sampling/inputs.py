"""What sampling cannot use, refused in a sentence before anything is computed."""

from typing import Any

import numpy as np

from twotime.config.parameter_space import ParameterSpace, PriorDistribution
from twotime.data.dataset import TwoTimeData
from twotime.results.nlsq import NLSQResult
from twotime.sampling.chains import Settings


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
    used = np.isfinite(np.asarray(data.c2))
    if data.mask is not None:
        used &= np.asarray(data.mask)
    return bool(np.all(good | ~used))


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
