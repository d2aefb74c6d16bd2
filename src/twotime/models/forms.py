"""Forms of rates: how a transport coefficient, a shear rate or a velocity depends on time.

A form does not know what it is a rate of; a `Rate` is a form with a `Quantity`, which gives names,
units and scales. *What to use when*: `PowerLaw` for ageing over a window, `Constant` for a steady
state, `Exponential` for a change from one steady state to another, `Spline` where no formula is
known.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, final

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.models import rates
from twotime.models.parameters import ParameterInfo, parameter_group
from twotime.models.rates import AnyArray, At, Integration, Times

Numbers = Sequence[Any]
Row = tuple[float, float, float, float, float]
Power = tuple[Any, Any, Any]

WALK = 3.0
"""Standard deviation of the logarithm of a spline from one end of the record to the other."""
FARTHEST = 14.0
"""Logarithm of how far a spline may leave the bounds of a power law."""
_STEPS = 5.0
"""Largest increment of a spline, in standard deviations of its prior."""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What a rate is a rate of.

    Attributes:
        symbol: Its name in parameters ("J", "gamma_dot", "v").
        unit: Its unit.
        about: Its meaning, for people.
        group: Group of its parameters in the configuration.
        power: Name, unit and description of amplitude, exponent and offset of a power law; each
            with default, lower and upper bound, mean and standard deviation of the prior.
        suffix: Ending of the names of all its parameters.
        is_signed: Whether it may be negative (a velocity), instead of being floored.
        is_flow: Whether it describes flow.
    """

    symbol: str
    unit: str
    about: str
    group: str
    power: tuple[tuple[str, Row, str, str], ...]
    suffix: str = ""
    is_signed: bool = False
    is_flow: bool = False

    def rows(self, *places: int) -> tuple[ParameterInfo, ...]:
        """Parameters of a power law, all or some; the offset is fixed unless that is asked for."""
        chosen = [self.power[k] for k in places or (0, 1, 2)]
        rows = [(name, *numbers, unit, about) for name, numbers, unit, about in chosen]
        fixed = (self.power[2][0],)
        return parameter_group(self.group, *rows, is_flow=self.is_flow, fixed=fixed)


class AbstractForm(abc.ABC):
    """How a rate depends on time. Forms are static: two equal ones compile once.

    Attributes:
        kind: The configuration's word.
    """

    kind: ClassVar[str]

    @abc.abstractmethod
    def parameters(self, of: Quantity) -> tuple[ParameterInfo, ...]:
        """Its parameters."""

    @abc.abstractmethod
    def rate(self, of: Quantity, numbers: Numbers, t: Times) -> Times:
        """The rate at each frame [its unit]; `t` are all frames [s], none at 0."""

    @abc.abstractmethod
    def like(self, of: Quantity, power: Power, t: Float[np.ndarray, " time"]) -> Numbers:
        """Parameters whose rate is like that of a power law (amplitude, exponent, offset)."""

    def amplitudes(self, of: Quantity) -> tuple[str, ...]:
        """Names of the parameters that are proportional to the rate."""
        return ()

    def clock(
        self, of: Quantity, numbers: Numbers, times: At, *, t: Times, integration: Integration
    ) -> At:
        """Integral of the rate from the first frame: by the trapezoid rule, where it has no other.

        Args:
            of: What it is a rate of.
            numbers: Its parameters.
            times: Where the clock is read, inside the frame grid [s].
            t: Frame grid [s].
            integration: "trapezoid" or "exact" (the closed form, where there is one).
        """
        return rates.running_integral(self.rate(of, numbers, rates.regular(t)), t, times)


@final
@dataclasses.dataclass(frozen=True)
class PowerLaw(AbstractForm):
    r"""A rate $A\,t^p + B$, floored where it may not be negative."""

    kind: ClassVar[str] = "power_law"

    def parameters(self, of: Quantity) -> tuple[ParameterInfo, ...]:
        return of.rows()

    def amplitudes(self, of: Quantity) -> tuple[str, ...]:
        return of.power[0][0], of.power[2][0]

    def rate(self, of: Quantity, numbers: Numbers, t: Times) -> Times:
        return (rates.signed_rate if of.is_signed else rates.transport_rate)(t, *numbers)

    def clock(self, of, numbers, times, *, t, integration):
        clock = rates.signed_clock if of.is_signed else rates.transport_clock
        return clock(times, *numbers, t=t, integration=integration)

    def like(self, of, power, t):
        return power


@final
@dataclasses.dataclass(frozen=True)
class Constant(AbstractForm):
    """A rate that does not change."""

    kind: ClassVar[str] = "constant"

    def parameters(self, of: Quantity) -> tuple[ParameterInfo, ...]:
        (info,) = of.rows(0)
        return (dataclasses.replace(info, unit=of.unit, description=of.about),)

    def amplitudes(self, of: Quantity) -> tuple[str, ...]:
        return (of.power[0][0],)

    def rate(self, of: Quantity, numbers: Numbers, t: Times) -> Times:
        return numbers[0] * jnp.ones_like(t)

    def clock(self, of, numbers, times, *, t, integration):
        return numbers[0] * (times - t[0])

    def like(self, of, power, t):
        return (_power(power, 0.5 * (t[0] + t[-1])),)


@final
@dataclasses.dataclass(frozen=True)
class Exponential(AbstractForm):
    r"""A rate $r_\infty + (r_0 - r_\infty) e^{-t/\tau}$, r_0 at t = 0."""

    kind: ClassVar[str] = "exponential"

    def parameters(self, of: Quantity) -> tuple[ParameterInfo, ...]:
        numbers, end = of.power[0][1], of.suffix
        rows = [
            (f"{of.symbol}_{when}{end}", *numbers, of.unit, f"{of.about}, {meaning}")
            for when, meaning in (("start", "at t = 0"), ("end", "long after"))
        ]
        tau = f"{of.symbol}_tau{end}", 10.0, 1e-3, 1e6, 10.0, 100.0, "s", "Time of its change"
        return parameter_group(of.group, *rows, tau, is_flow=of.is_flow)

    def amplitudes(self, of: Quantity) -> tuple[str, ...]:
        return f"{of.symbol}_start{of.suffix}", f"{of.symbol}_end{of.suffix}"

    def rate(self, of: Quantity, numbers: Numbers, t: Times) -> Times:
        start, end, tau = numbers
        return end + (start - end) * jnp.exp(-t / tau)

    def clock(self, of, numbers, times, *, t, integration):
        if integration == "trapezoid":
            return super().clock(of, numbers, times, t=t, integration=integration)
        start, end, tau = numbers
        return end * times - (start - end) * tau * jnp.expm1(-times / tau)

    def like(self, of, power, t):
        first, last = (_power(power, np.maximum(t[k], 0.5 * (t[1] - t[0]))) for k in (0, -1))
        return first, last, (t[-1] - t[0]) / 3.0 + 0.0 * first


@final
@dataclasses.dataclass(frozen=True)
class Spline(AbstractForm):
    """A rate of any course: the logarithm of a positive one, a signed one itself, as a spline.

    Its parameters are the value at the first knot and the increments from knot to knot, whose
    independent normal priors make a random walk of the same spread at any number of knots.

    Attributes:
        knots: How many, from the first frame to the last.
        between: "monotone" (B-splines: between neighbouring coefficients, without ringing) or
            "cubic" (through the values at the knots, natural at the ends).
        spacing: "linear" or "log" in time.
    """

    kind: ClassVar[str] = "spline"
    knots: int = 8
    between: Literal["monotone", "cubic"] = "monotone"
    spacing: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        if isinstance(self.knots, bool) or not isinstance(self.knots, int) or self.knots < 2:
            raise ValueError(f"Spline: knots is {self.knots!r}; expected a whole number from 2 on.")
        for name, known in (("between", ("monotone", "cubic")), ("spacing", ("linear", "log"))):
            if getattr(self, name) not in known:
                got = f"{name} is {getattr(self, name)!r}"
                raise ValueError(f"Spline: {got}; expected {known[0]!r} or {known[1]!r}.")

    def parameters(self, of: Quantity) -> tuple[ParameterInfo, ...]:
        default, low, high, _, std = of.power[0][1]
        size, unit, name = (std, of.unit, of.symbol) if of.is_signed else (1.0, "", "log")
        first = f"{of.symbol}_first" if of.is_signed else f"log_{of.symbol}"
        about = f"{of.about} at the first knot"
        if of.is_signed:
            row = (first, default, -high, high, 0.0, std)
        else:
            about = f"Natural logarithm of: {about} [{of.unit}]"
            ends = math.log(low) - FARTHEST, math.log(high) + FARTHEST
            row = (first, math.log(default), *ends, math.log(default), WALK)
        (value,) = parameter_group(of.group, (row[0] + of.suffix, *row[1:], unit, about))
        steps = increments(f"{of.symbol}_step", of.group, self.knots, size, unit, of.suffix)
        infos = (value, *steps)
        return tuple(dataclasses.replace(i, is_flow=of.is_flow, log_space=False) for i in infos)

    def rate(self, of: Quantity, numbers: Numbers, t: Times) -> Times:
        found = self.values(numbers, t)
        return found if of.is_signed else jnp.exp(jnp.minimum(found, 300.0))

    def values(self, numbers: Numbers, t: Times) -> Times:
        """The spline itself at all frames, from its first value and its increments."""
        coefficients = jnp.cumsum(jnp.stack([jnp.asarray(x) for x in numbers]))
        s = jnp.log(t) if self.spacing == "log" else t
        place = (s - s[0]) / (s[-1] - s[0])
        basis = b_splines if self.between == "monotone" else natural_splines
        return basis(place, self.knots) @ coefficients

    def like(self, of, power, t):
        ends = np.maximum(t[0], 0.5 * (t[1] - t[0])), t[-1]
        space = np.geomspace if self.spacing == "log" else np.linspace
        found = [_power(power, time) for time in space(*ends, self.knots)]
        values = found if of.is_signed else np.log(np.maximum(found, 1e-300))
        return values[0], *np.diff(values, axis=0)


def increments(
    name: str, group: str, knots: int, size: float, unit: str, suffix: str
) -> tuple[ParameterInfo, ...]:
    """Increments between knots: independent normal priors, together a walk of `WALK` sizes."""
    std = WALK * size / math.sqrt(max(knots - 1, 1))
    return tuple(
        ParameterInfo(
            f"{name}_{k}{suffix}", 0.0, -_STEPS * std, _STEPS * std,
            f"Increment from knot {k} to knot {k + 1}", unit, group, prior_mean=0.0,
            prior_std=std, is_informative=True,
        )
        for k in range(1, knots)
    )  # fmt: skip


def b_splines(place: Float[AnyArray, " time"], count: int) -> Float[Array, "time {count}"]:
    """Clamped B-splines, cubic where `count` allows it, at places in [0, 1].

    A sum of them with coefficients c lies between neighbouring coefficients, is monotone where
    these are, and begins and ends on the first and last one.

    Reference:
        de Boor, A Practical Guide to Splines (1978), Ch. IX-XI.
    """
    degree = min(3, count - 1)
    inner = np.linspace(0.0, 1.0, count - degree + 1)
    knots = np.concatenate([np.zeros(degree), inner, np.ones(degree)])
    x = jnp.clip(place, 0.0, 1.0)[:, None]
    low, high = knots[:-1], np.where(knots[1:] == 1.0, 2.0, knots[1:])
    found = ((x >= low) & (x < high) & (knots[1:] > knots[:-1])).astype(x.dtype)
    for p in range(1, degree + 1):
        width = knots[p:] - knots[:-p]
        inverse = np.where(width > 0, 1.0 / np.where(width > 0, width, 1.0), 0.0)
        up = (x - knots[: -p - 1]) * inverse[:-1]
        down = (knots[p + 1 :] - x) * inverse[1:]
        found = up * found[:, :-1] + down * found[:, 1:]
    return found


def natural_splines(place: Float[AnyArray, " time"], count: int) -> Float[Array, "time {count}"]:
    """Natural cubic splines that are 1 at one of `count` knots, 0 at the others."""
    x = jnp.clip(place, 0.0, 1.0) * (count - 1)
    left = jnp.clip(jnp.floor(x), 0, count - 2).astype(int)
    b = (x - left)[:, None]
    a = 1.0 - b
    eye, bend = jnp.eye(count, dtype=x.dtype), jnp.asarray(_curvatures(count), x.dtype)
    return (
        a * eye[left]
        + b * eye[left + 1]
        + ((a**3 - a) * bend[left] + (b**3 - b) * bend[left + 1]) / 6.0
    )


@functools.cache
def _curvatures(count: int) -> Float[np.ndarray, "{count} {count}"]:
    """Second derivatives of natural splines at their knots, by the values there."""
    second = np.diff(np.eye(count), 2, axis=0)
    system = 4.0 * np.eye(count - 2) + np.eye(count - 2, k=1) + np.eye(count - 2, k=-1)
    inner = 6.0 * np.linalg.solve(system, second) if count > 2 else second
    return np.concatenate([np.zeros((1, count)), inner, np.zeros((1, count))])


def _power(power: Power, time: Any) -> Any:
    """A power law at a time, of many candidates at once."""
    a, p, b = power
    return a * np.exp(np.clip(p * np.log(time), -300.0, 300.0)) + b


FORMS: dict[str, type[AbstractForm]] = {
    form.kind: form for form in (PowerLaw, Constant, Exponential, Spline)
}
"""The configuration's word to a form of a rate."""


def part(written: Any, known: Mapping[str, Any]) -> Any:
    """A part of a law from a configuration: its `kind`, and its arguments beside that.

    Args:
        written: The word of its kind, or a mapping with it.
        known: Word to class.

    Raises:
        ValueError: If there is no such kind, or an argument is wrong.
    """
    if not isinstance(written, Mapping | str):
        raise ValueError(f"got {written!r}; expected one of {', '.join(known)} with its arguments.")
    arguments = {"kind": written} if isinstance(written, str) else dict(written)
    kind = arguments.pop("kind", None)
    if kind not in known:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(known)}.")
    allowed = [field.name for field in dataclasses.fields(known[kind]) if field.name != "labels"]
    for name in arguments:
        if name not in allowed:
            has = f"takes {', '.join(allowed)}" if allowed else "takes nothing else"
            raise ValueError(f"{kind} has no {name!r}; it {has}.")
    return known[kind](**arguments)


def form(written: Any) -> AbstractForm:
    """A form of a rate; one of a configuration is made, see `part`."""
    return written if isinstance(written, AbstractForm) else part(written, FORMS)


@final
@dataclasses.dataclass(frozen=True)
class Rate:
    """A rate of a law: a form, and what it is a rate of."""

    form: AbstractForm
    of: Quantity

    @functools.cached_property
    def parameters(self) -> tuple[ParameterInfo, ...]:
        """Its parameters."""
        return self.form.parameters(self.of)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Names of its parameters; of a power law amplitude, exponent and offset."""
        return tuple(info.name for info in self.parameters)

    @property
    def amplitudes(self) -> tuple[str, ...]:
        """Names of the parameters that are proportional to it."""
        return self.form.amplitudes(self.of)

    @property
    def is_power(self) -> bool:
        """Whether it is a power law with an offset."""
        return isinstance(self.form, PowerLaw)

    def rate(self, values: Mapping[str, Any], t: Times) -> Times:
        """The rate at each frame [its unit], from parameters by name."""
        return self.form.rate(self.of, [values[name] for name in self.names], t)

    def clock(
        self, values: Mapping[str, Any], times: At, *, t: Times, integration: Integration
    ) -> At:
        """Integral of the rate from the first frame, see `AbstractForm.clock`."""
        numbers = [values[name] for name in self.names]
        return self.form.clock(self.of, numbers, times, t=t, integration=integration)
