"""What `fit_cmc` refuses to sample from, and priors about a fit."""

import numpy as np

from twotime.config.parameter_space import ParameterSpace, PriorDistribution
from twotime.data.dataset import TwoTimeData
from twotime.results.nlsq import NLSQResult


def check_space(data: TwoTimeData, space: ParameterSpace) -> None:
    """Refuse priors without mass, starts outside of them, and data that are not finite.

    Raises:
        ValueError: If there is such a one.
    """
    faults = space.validate()
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
