"""What `fit_cmc` is asked for and refuses to sample from, and priors about a fit."""

import difflib
import itertools
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from twotime.config.parameter_space import ParameterSpace, PriorDistribution
from twotime.data.dataset import TwoTimeData
from twotime.results.cmc import Limits
from twotime.results.nlsq import NLSQResult
from twotime.sample import chains, shards

NUTS, WHOLE, LIMITS = chains.Nuts(), shards.Sharding(), Limits()
_RENAMED = {"min_pixels": "min_points", "n_strata": "strata"}
T = TypeVar("T")


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
        # Fits look at the sign; they take an infinite deviation as a point without weight.
        good = np.broadcast_to(np.isfinite(data.sigma), data.c2.shape)
        if not all(np.all(good[k] | ~np.asarray(data.usable(k))) for k in range(len(good))):
            raise ValueError(
                "The data's sigma is infinite at points that count; mask those points or repair it."
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
    others: Iterable[str] = (),
) -> tuple[chains.AbstractSampler, shards.Sharding, Limits]:
    """Sampler, sharding and limits, with the fields that were given one by one.

    Args:
        sampler: The sampler.
        sharding: How points are dealt.
        limits: What fit and chains must keep.
        short: The fields.
        others: Other keywords that might have been meant.

    Raises:
        TypeError: If one is unknown, or given twice.
        ValueError: If a value cannot be used.
    """
    for name in short.keys() & _RENAMED.keys():
        warnings.warn(f"{name} is now {_RENAMED[name]}", DeprecationWarning, stacklevel=4)
    named = [(_RENAMED.get(name, name), value) for name, value in short.items()]
    given = dict(named)
    kinds = [_fields(*chains.SAMPLERS.values()), _fields(shards.Sharding), ["max_reduced_chi2"]]
    for name in given:
        if not any(name in kind for kind in kinds):
            every = [*others, *itertools.chain(*kinds)]
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
