"""Rules of a parameter space: what may go into one, and what is wrong with what is in it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from twotime.config.parameter_info import is_concrete
from twotime.config.parameter_names import unknown_name
from twotime.config.parameter_registry import REGISTRIES, ParameterRegistry
from twotime.config.priors import PriorDistribution, has_mass, prior_faults, stack_numbers


def split(numbers: list[Any], n: int) -> tuple[Any, Any]:
    """Numbers of the physics parameters, and of contrast and offset behind them, as arrays."""
    return stack_numbers(numbers[:n]), stack_numbers(numbers[n:])


def log_flags(wants_log: tuple[bool, ...], lower: Any) -> tuple[bool, ...]:
    """Where the logarithm is used; bounds that are being traced are taken to be positive."""
    if not is_concrete(lower):
        return wants_log
    positive = np.greater(lower, 0).reshape(-1, len(wants_log)).all(axis=0).tolist()
    return tuple(
        bool(wants and is_positive) for wants, is_positive in zip(wants_log, positive, strict=True)
    )


def registry_with(names: list[str]) -> ParameterRegistry:
    """The first registry that knows all the names."""
    for mode in ("two_component", "static", "laminar_flow"):
        if all(name in REGISTRIES[mode] for name in names):
            return REGISTRIES[mode]
    known = dict.fromkeys(name for registry in REGISTRIES.values() for name in registry)
    strange = [name for name in names if name not in known]
    if strange:
        raise unknown_name("parameter", strange[0], known)
    raise ValueError(
        f"No model has all of the parameters {', '.join(sorted(set(names)))}: give the "
        "parameters of one model."
    )


def check_names(given: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse a name that is not among those of the space."""
    for name in given:
        if name not in names:
            raise unknown_name("parameter", name, names)


def check_numbers(values: Mapping[str, Any], bounds: Mapping[str, Any]) -> None:
    """Refuse what is not a finite number; traced values pass."""
    numbers = [("value", name, value) for name, value in values.items()]
    for name, ends in bounds.items():
        if isinstance(ends, str) or not hasattr(ends, "__len__") or len(ends) != 2:
            raise TypeError(f"Parameter {name!r}: bounds are a pair (lower, upper); got {ends!r}.")
        numbers += [("lower bound", name, ends[0]), ("upper bound", name, ends[1])]
    for what, name, value in numbers:
        if not is_concrete(value):
            continue
        kind = np.asarray(value).dtype
        if isinstance(value, str) or not (
            np.issubdtype(kind, np.floating) or np.issubdtype(kind, np.integer)
        ):
            raise TypeError(f"Parameter {name!r}: the {what} must be a number; got {value!r}.")
        if not np.isfinite(value).all():
            raise ValueError(f"Parameter {name!r}: the {what} must be finite; got {value}.")


def check_flags(vary: Mapping[str, Any]) -> None:
    """Refuse what is not True or False."""
    for name, flag in vary.items():
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"Parameter {name!r}: vary must be True or False; got {flag!r}.")


def faults_of(
    value: Any, bounds: tuple[Any, Any], prior: PriorDistribution | None, is_default: bool
) -> list[str]:
    """What is wrong with one parameter; its prior counts only where it varies."""
    lower, upper = bounds
    if not np.isfinite([value, lower, upper]).all():
        return [f"value and bounds must be finite; got {value} in [{lower}, {upper}]."]
    if not lower < upper:
        return [f"min must be less than max; got {lower:g} and {upper:g}."]
    where = f"[{lower:g}, {upper:g}]"
    faults = []
    if not lower <= value <= upper and is_default:
        faults.append(f"its default {value:g} lies outside the bounds {where}; give a value.")
    elif not lower <= value <= upper:
        faults.append(f"value {value:g} lies outside its bounds {where}.")
    if prior is None:
        return faults
    wrong = prior_faults(prior.prior_type, prior.params)
    kind = prior.prior_type.value
    if not wrong and not has_mass(prior, lower, upper):
        wrong = [f"its {kind} prior has no probability inside its bounds {where}."]
    elif not wrong and not faults and not prior.support[0] <= value <= prior.support[1]:
        low, high = prior.support
        wrong = [f"value {value:g} lies outside the support [{low:g}, {high:g}] of its prior."]
    return faults + wrong
