"""Where parameters and data meet: numbers that a space leaves open, for the data that are fitted.

The registry's bounds, defaults and priors are those of common slow samples. Amplitudes of rates are
natural in other units: one that decorrelates the light within a frame, or not before the record
ends, is the fastest or slowest that data can tell.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel, ParameterInfo, is_concrete
from twotime.models.rates import AnyArray, Scalar

_BEYOND = 10.0
"""Amplitudes may be so many times faster than a frame, and slower than the record."""


def check_names(model: AbstractTwoTimeModel, space: ParameterSpace) -> None:
    """Refuse a space of other parameters than those of the law.

    Raises:
        ValueError: If it is one.
    """
    if tuple(space.names) != tuple(model.names):
        raise ValueError(
            f"The space holds {', '.join(space.names)}; {type(model).__name__} needs "
            f"{', '.join(model.names)} in this order; build it from the same analysis_mode, or by "
            "ParameterSpace.of(law)."
        )


def space_for(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace
) -> ParameterSpace:
    """The space with bounds and defaults for these data; given ones stay.

    The offset lies about the baseline of the data. Bounds of amplitudes reach from a tenth of what
    decorrelates the light in the whole record to ten times of what does so in a frame, where the
    registry's are narrower. Defaults outside of that move onto it. Traceable; doing it twice
    changes nothing.

    Args:
        model: The law, whose `natural_rates` say how strong an amplitude is.
        data: The data.
        space: The space as written.
    """
    rates = _natural_rates(model, data.q)
    t = data.t if not is_concrete(data.t) else np.asarray(data.t)
    record = t[-1] - t[0]
    frame = record / max(t.shape[0] - 1, 1)

    def fitted(info: ParameterInfo) -> ParameterInfo:
        if info.name == "offset" and info.is_scaling and info.vary_default:
            return _moved(info, data.baseline - info.default)
        if info.name not in rates:
            return info
        slow, fast = rates[info.name]
        ends = 1 / (_BEYOND * fast * record), _BEYOND / (slow * frame)
        return _widened(info, *ends, t[-1])

    infos = tuple(map(fitted, space.registry.infos))
    return space.with_registry(eqx.tree_at(lambda r: r._parameters, space.registry, infos))


def _natural_rates(model: AbstractTwoTimeModel, q: AnyArray) -> dict[str, tuple[Scalar, Scalar]]:
    """Least and largest of the rates of each amplitude, which change with q in one direction."""
    if q.ndim == 0:
        return {name: (x, x) for name, x in model.natural_rates(q).items()}
    xp: Any = np if is_concrete(q) else jnp
    ends = [model.natural_rates(x) for x in (xp.min(q), xp.max(q))]
    both = {name: (ends[0][name], ends[1][name]) for name in ends[0]}
    return {name: (xp.minimum(*x), xp.maximum(*x)) for name, x in both.items()}


def _moved(info: ParameterInfo, way: Scalar) -> ParameterInfo:
    """A parameter whose numbers lie elsewhere."""
    names = ("default", "min_bound", "max_bound", "prior_mean")
    known = {name: x for name in names if (x := getattr(info, name)) is not None}
    return dataclasses.replace(info, **{name: x + way for name, x in known.items()})


def _widened(info: ParameterInfo, slowest: Scalar, fastest: Scalar, end: Scalar) -> ParameterInfo:
    """An amplitude whose bounds reach from the slowest to the fastest that data can tell.

    That of a power law is the rate at 1 s: exponents up to 1 between there and the end of the
    record, at the time `end` [s], widen its bounds.
    """
    xp: Any = np if is_concrete(info.default, slowest, fastest) else jnp
    changed = {"max_bound": xp.maximum(info.max_bound, fastest)}
    if info.log_space:
        change = xp.maximum(end, 1.0 / end)
        changed["min_bound"] = xp.minimum(info.min_bound, slowest / change)
        changed["max_bound"] = xp.maximum(info.max_bound, fastest * change)
        changed["default"] = xp.clip(info.default, slowest, fastest)
    else:
        changed["min_bound"] = xp.minimum(info.min_bound, -fastest)
    return dataclasses.replace(info, **changed)
