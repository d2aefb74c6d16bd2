"""Physical sense of parameter values, beyond their bounds: errors, warnings and remarks."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from jaxtyping import ArrayLike, Float

Severity = Literal["error", "warning", "info"]
Finding = tuple[Severity, str]
Values = Mapping[str, float]

_TRANSPORTS = (
    ("D0", "alpha", "D_offset"),
    ("D0_ref", "alpha_ref", "D_offset_ref"),
    ("D0_sample", "alpha_sample", "D_offset_sample"),
)


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


def _exponent(name: str, x: float) -> Iterator[Finding]:
    if x < -1.5:
        yield "warning", f"{name} = {x:g} is below -1.5: strongly slowing dynamics."
    if abs(x) > 2:
        yield "warning", f"{name} = {x:g} is beyond 2 in size, which is rarely physical."
    if x > 1:
        yield "info", f"{name} = {x:g} is above 1: dynamics that speed up faster than linearly."


def _amplitude(name: str, x: float) -> Iterator[Finding]:
    if x < 0:
        yield "error", f"{name} = {x:g} is negative; a transport coefficient is not."
    if x > 1e5:
        yield "warning", f"{name} = {x:g} Å²/s^(1+α) is above 1e5."


def _velocity(name: str, x: float) -> Iterator[Finding]:
    if x < 0:
        yield "warning", f"{name} = {x:g} Å/s^(1+β) is negative: flow against phi0."
    if x > 1e3:
        yield "info", f"{name} = {x:g} Å/s^(1+β) is above 1e3: fast flow."


def _flow_exponent(name: str, x: float) -> Iterator[Finding]:
    if abs(x) > 2:
        yield "warning", f"{name} = {x:g} is beyond 2 in size, which is rarely physical."


def _fraction(name: str, x: float) -> Iterator[Finding]:
    if not 0 <= x <= 1:
        yield "error", f"{name} = {x:g} is outside [0, 1]; a fraction is not."


def _fraction_rate(name: str, x: float) -> Iterator[Finding]:
    if abs(x) > 5:
        yield "warning", f"{name} = {x:g} 1/s is beyond 5 in size: the fraction changes abruptly."


def _contrast(name: str, x: float) -> Iterator[Finding]:
    if x <= 0 or x > 1:
        yield "error", f"{name} = {x:g} is outside (0, 1]; a speckle contrast is not."
    elif x < 0.1:
        yield "warning", f"{name} = {x:g} is below 0.1: a weak signal."


def _offset(name: str, x: float) -> Iterator[Finding]:
    if x <= 0:
        yield "error", f"{name} = {x:g} is not positive; the baseline of c2 is."


_RULES: Mapping[str, Callable[[str, float], Iterator[Finding]]] = MappingProxyType(
    {amplitude: _amplitude for amplitude, _, _ in _TRANSPORTS}
    | {exponent: _exponent for _, exponent, _ in _TRANSPORTS}
    | {
        "v0": _velocity,
        "beta": _flow_exponent,
        "f0": _fraction,
        "f1": _fraction_rate,
        "f3": _fraction,
        "contrast": _contrast,
        "offset": _offset,
    }
)


def _transport(names: tuple[str, str, str], values: Values, t: np.ndarray) -> Iterator[Finding]:
    """A transport coefficient that is not positive, or whose integral diverges."""
    amplitude, exponent, offset = names
    D0, alpha, D_offset = (values[name] for name in names)
    if D0 > 0 and D_offset / D0 > 0.5:
        yield "warning", f"{offset} / {amplitude} = {D_offset / D0:g} is above 0.5."
    if alpha < -1 and (t == 0).any():
        yield (
            "error",
            f"{exponent} = {alpha:g} is below -1 and the frames reach t = 0, where the integral "
            "of the transport diverges: give analyzer_parameters.t0 > 0.",
        )
    later = t[t > 0] if alpha < 0 else t
    with np.errstate(over="ignore"):
        rate = D0 * later**alpha + D_offset
    if rate.size and rate.min() <= 0:
        yield (
            "error",
            f"J(t) = {amplitude}·t^{exponent} + {offset} is {rate.min():.4g} Å²/s at "
            f"t = {later[rate.argmin()]:g} s; it must be positive in all frames.",
        )


def _sample_fraction(values: Values, t: np.ndarray) -> Iterator[Finding]:
    f0, f1, f2, f3 = (values[name] for name in ("f0", "f1", "f2", "f3"))
    if f0 + f3 > 1:
        yield "error", f"f0 + f3 = {f0 + f3:g} is above 1; a fraction is not."
    if t.size:
        with np.errstate(over="ignore"):
            largest = np.max(f0 * np.exp(f1 * (t - f2)) + f3)
        if largest > 1:
            yield "warning", f"The sample fraction reaches {largest:.4g} in the frames; cut at 1."


def findings(values: Values, t: Float[ArrayLike, " time"] | None = None) -> list[Finding]:
    """All that is noteworthy about parameter values.

    Args:
        values: Name to value, of any of the models; scaling may be left out.
        t: Time of each frame [s]; without it rules that need frames are left out.

    Returns:
        Severity and sentence of each finding.
    """
    times = np.atleast_1d(np.asarray([] if t is None else t, float))
    found = [
        finding
        for name, value in values.items()
        if name in _RULES
        for finding in _RULES[name](name, float(value))
    ]
    for names in _TRANSPORTS:
        if all(name in values for name in names):
            found += _transport(names, values, times)
    if all(name in values for name in ("f0", "f1", "f2", "f3")):
        found += _sample_fraction(values, times)
    return found


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
