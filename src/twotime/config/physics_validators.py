"""Physical sense of parameter values, beyond their bounds: errors, warnings and remarks."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from jaxtyping import ArrayLike, Float

from twotime.config.priors import PriorDistribution, has_mass, prior_faults
from twotime.models import LAWS, scaling
from twotime.models.base import Finding, Severity, is_concrete

Values = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class ValidationResult:
    """What a validation found, down to the severity that was asked for.

    Attributes:
        is_valid: Whether there are no errors.
        errors: Physically impossible values, one sentence each.
        warnings: Possible but unusual values, one sentence each.
        infos: Noteworthy values, one sentence each.
    """

    is_valid: bool
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()


def findings(values: Values, t: Float[ArrayLike, " time"] | None = None) -> list[Finding]:
    """All that is noteworthy about parameter values.

    Args:
        values: Name to value, of any of the models; scaling may be left out.
        t: Time of each frame [s]; without it rules that need frames are left out.

    Returns:
        Severity and sentence of each finding.
    """
    times = np.atleast_1d(np.asarray([] if t is None else t, float))
    checks = [check for law in LAWS.values() for check in law.checks]
    found = [
        finding
        for check in (*checks, *scaling.CHECKS)
        if all(name in values for name in check.names)
        for finding in check.judge(*(float(values[name]) for name in check.names), t=times)
    ]
    return list(dict.fromkeys(found))


def validate_parameters(
    values: Values,
    severity_level: str = "warning",
    t: Float[ArrayLike, " time"] | None = None,
) -> ValidationResult:
    """Judge parameter values by physics.

    Args:
        values: Name to value, of any of the models.
        severity_level: Least severity that is reported: "error", "warning" or "info".
        t: Time of each frame [s]; without it rules that need frames are left out.

    Raises:
        ValueError: If the severity is none of the three.
    """
    levels = get_args(Severity)
    if severity_level not in levels:
        raise ValueError(
            f"severity_level must be one of {', '.join(levels)}; got {severity_level!r}."
        )
    wanted = levels[: levels.index(severity_level) + 1]
    found = findings(values, t)
    errors, warnings, infos = (
        tuple(text for severity, text in found if severity == level and level in wanted)
        for level in levels
    )
    return ValidationResult(not errors, errors, warnings, infos)


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
