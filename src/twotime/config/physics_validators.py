"""Physical sense of parameter values, beyond their bounds: errors, warnings and remarks."""

import dataclasses
from collections.abc import Mapping
from typing import get_args

import numpy as np
from jaxtyping import ArrayLike, Float

from twotime.models import LAWS, scaling
from twotime.models.base import Finding, Severity

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
