"""Rates of the models and their clocks: functions of one time, before pairs are formed.

A *rate* is a power law with an offset; its running integral is called a *clock*. Every
model and the functional backend take their rates from here.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

AnyArray = Array | np.ndarray
Times = Float[AnyArray, " time"]
GivenTimes = Num[AnyArray, " time"]
"""Frame times as users give them: integers become floats."""
At = Float[AnyArray, " at"]
Scalar = Float[AnyArray, ""] | float
Real = Float[AnyArray, "..."] | float
Integration = Literal["trapezoid", "exact"]

INTEGRATIONS = ("trapezoid", "exact")
FLOOR = 1e-10
RELATIVE_WIDTH = 1e-6
_LARGEST_EXPONENT = 300.0
_SERIES_BELOW = 0.25


def soft_floor(x: Float[AnyArray, "..."], width: Float[AnyArray, "..."] | float = FLOOR) -> Array:
    r"""Keep `x` positive without losing its gradient.

    $f(x) = x$ for $x \ge w$ and $w\,(1 + 4(w - x)/w)^{-1/4}$ below: once continuously
    differentiable, positive, increasing. It is equal to the hard floor $\max(x, w)$ above
    $w$ and differs from it by less than $w$ below. Its slope $(1 + 4(w - x)/w)^{-5/4}$ falls
    off so slowly that a fit started far below the floor still finds its way out, where the
    hard floor leaves it standing.

    Args:
        x: Any rate, in its own unit.
        width: Where the floor begins, in the unit of `x`; positive.

    Returns:
        The floored rate, in the unit of `x`.

    Example:
        >>> soft_floor(jnp.asarray([2.0, 1.0, -2.75]), 1.0).tolist()
        [2.0, 1.0, 0.5]
    """
    depth = (width - jnp.minimum(x, width)) / width
    return jnp.where(x > width, x, width * (1 + 4 * depth) ** -0.25)


def power_law(t: Times, amplitude: Scalar, exponent: Scalar) -> Times:
    r"""Power law $A\,t^p$ with finite gradients at $t = 0$.

    At $t = 0$ it is 0 for $p > 0$, $A$ for $p = 0$ and very large, but finite, for $p < 0$.

    Args:
        t: Times, not negative [s].
        amplitude: $A$, in the unit of the result times s^-p.
        exponent: $p$.

    Returns:
        The power law at each time.
    """
    return amplitude * jnp.exp(_clipped(exponent * _log_time(t)))


def transport_rate(t: Times, amplitude: Scalar, exponent: Scalar, offset: Scalar) -> Times:
    r"""Positive rate $A\,t^p + B$: transport coefficient J [Å²/s] or shear rate [1/s].

    The floor sets in where the sum falls below a millionth of the power law alone (or
    below 1e-10, where that is more).
    """
    power = power_law(t, amplitude, exponent)
    return soft_floor(power + offset, _width(power))


def transport_clock(
    times: At,
    amplitude: Scalar,
    exponent: Scalar,
    offset: Scalar,
    *,
    t: Times,
    integration: Integration,
) -> At:
    r"""Integral of `transport_rate` from the first frame to each of `times`.

    Args:
        times: Where the clock is read, inside the frame grid [s].
        amplitude: Power-law amplitude, unit of the rate times s^-p.
        exponent: Power-law exponent p.
        offset: Constant part, unit of the rate.
        t: Frame grid [s].
        integration: "trapezoid" integrates the rate sampled on the frames; "exact" uses the
            closed form $A\,\mathrm{expm1}((1+p)\ln t)/(1+p) + B t$ over the times where the
            rate is positive, and the trapezoid rule for the little that the soft floor adds.

    Returns:
        Clock, unit of the rate times s; only differences have a meaning.
    """
    if integration == "trapezoid":
        return running_integral(transport_rate(regular(t), amplitude, exponent, offset), t, times)
    power = power_law(regular(t), amplitude, exponent)
    rate, width = power + offset, _width(power)
    # What the soft floor adds to the positive part of the rate: nothing above its width.
    raised = jnp.where(rate > width, 0.0, soft_floor(rate, width) - jnp.maximum(rate, 0.0))
    positive = _positive_integral(times, amplitude, exponent, offset, t)
    return positive + running_integral(raised, t, times)


def _positive_integral(
    times: At, amplitude: Scalar, exponent: Scalar, offset: Scalar, t: Times
) -> At:
    """Antiderivative of max(A t^p + B, 0): the closed form, standing still where it is negative."""
    changes_sign = amplitude * offset < 0
    # A constant rate keeps its sign: let the change come before or after all times.
    flat = jnp.finfo(t.dtype).tiny ** 0.25
    power = jnp.where(jnp.abs(exponent) < flat, -jnp.copysign(flat, amplitude), exponent)
    ratio = jnp.where(changes_sign, -offset / jnp.where(changes_sign, amplitude, 1.0), 1.0)
    largest = 80.0 if t.dtype == jnp.float32 else 700.0
    change = jnp.exp(jnp.clip(jnp.log(ratio) / power, -largest, largest))
    # Not at 0 itself, where power laws have no derivative.
    change = jnp.clip(change, jnp.maximum(t[0], 1e-30 * t[-1]), t[-1])
    rises = amplitude * power > 0
    held = jnp.where(rises, jnp.maximum(times, change), jnp.minimum(times, change))
    held = jnp.where(changes_sign, held, times)
    is_negative = ~changes_sign & (amplitude + offset <= 0)
    closed = power_law_integral(held, amplitude, exponent) + offset * held
    return jnp.where(is_negative, 0.0, closed)


def signed_rate(t: Times, amplitude: Scalar, exponent: Scalar, offset: Scalar) -> Times:
    r"""Rate $A\,t^p + B$ without a floor: velocity [Å/s]."""
    return power_law(t, amplitude, exponent) + offset


def signed_clock(
    times: At,
    amplitude: Scalar,
    exponent: Scalar,
    offset: Scalar,
    *,
    t: Times,
    integration: Integration,
) -> At:
    """Integral of `signed_rate` from the first frame to each of `times`, as `transport_clock`."""
    if integration == "trapezoid":
        return running_integral(signed_rate(regular(t), amplitude, exponent, offset), t, times)
    return power_law_integral(times, amplitude, exponent) + offset * times


def fraction(t: Times, f0: Scalar, f1: Scalar, f2: Scalar, f3: Scalar) -> Times:
    r"""Sample fraction $x_s = f_0 e^{f_1 (t - f_2)} + f_3$, clipped to [0, 1]."""
    x = f0 * jnp.exp(_clipped(f1 * (t - f2))) + f3
    # Not jnp.clip: its gradient is halved on the bounds themselves, where fits start and end.
    return jnp.where(x < 0.0, 0.0, jnp.where(x > 1.0, 1.0, x))


def power_law_integral(t: Times, amplitude: Scalar, exponent: Scalar) -> Times:
    r"""Antiderivative $A\,\mathrm{expm1}((1+p)\ln t)/(1+p)$ of a power law, smooth through p = -1.

    Differences between two times are integrals of $A t^p$; at p = -1 they are $A\ln(t_2/t_1)$.
    """
    log_t = _log_time(t)
    u = _clipped((1 + exponent) * log_t)
    return amplitude * log_t * _relative_expm1(u)


def running_integral(rate: Times, t: Times, times: At) -> At:
    r"""Integrate a rate given on the frames, linear between them, up to each of `times`.

    On the frames this is the trapezoid rule; between them the integral of the straight line.

    Args:
        rate: Rate at each frame.
        t: Frame grid, increasing [s].
        times: Times inside the grid [s].

    Returns:
        Integral from the first frame, at each of `times`.
    """
    step = jnp.diff(t)
    at_frames = jnp.concatenate(
        [jnp.zeros_like(rate[:1]), jnp.cumsum(0.5 * step * (rate[1:] + rate[:-1]))]
    )
    if times is t:
        return at_frames
    left = jnp.clip(jnp.searchsorted(t, times, side="right") - 1, 0, t.shape[0] - 2)
    past = times - t[left]
    slope = (rate[left + 1] - rate[left]) / step[left]
    return at_frames[left] + past * (rate[left] + 0.5 * slope * past)


def regular(t: Times) -> Times:
    """Frame times [s] with a first frame at 0 moved to half a step, where power laws are finite."""
    step = t[min(1, t.shape[0] - 1)] - t[0]
    return jnp.maximum(t, jnp.maximum(0.5 * step, 1e-8))


def _width(power: Times) -> Times:
    return RELATIVE_WIDTH * jnp.abs(power) + FLOOR


def _log_time(t: Times) -> Times:
    tiny = jnp.finfo(t.dtype).tiny
    return jnp.where(t > tiny, jnp.log(jnp.where(t > tiny, t, 1.0)), math.log(tiny))


def _clipped(u: AnyArray) -> Array:
    largest = _LARGEST_EXPONENT if u.dtype == jnp.float64 else 80.0
    return jnp.minimum(u, largest)


def _relative_expm1(u: Array) -> Array:
    """expm1(u)/u, by its series where the quotient would lose the derivatives' digits."""
    near = jnp.abs(u) < _SERIES_BELOW
    small = jnp.where(near, u, 0.0)
    series = jnp.ones_like(u)
    for k in range(14, 1, -1):
        series = 1 + small * series / k
    far = jnp.where(near, 1.0, u)
    return jnp.where(near, series, jnp.expm1(far) / far)


@jax.custom_jvp
def sinc(x: Real, sin_x: Real) -> Array:
    """sin(x)/x from x and its sine, by its series near 0 where the quotient loses digits."""
    small, series, _, divisor = _near_zero(x)
    return jnp.where(small, series, sin_x) / divisor


@sinc.defjvp
def _(primals, tangents):
    """Of x and sin(x) as two variables; one division, and that last, is the fastest."""
    (x, sin_x), (dx, dsin) = primals, tangents
    small, series, slope, divisor = _near_zero(x)
    value = jnp.where(small, series, sin_x) / divisor
    return value, jnp.where(small, slope * dx, dsin - value * dx) / divisor


def _near_zero(x: Real) -> tuple[Array, Array, Real, Array]:
    """Where x is small, the series of sin(x)/x and of its derivative there, and x elsewhere."""
    small = jnp.abs(x) < 0.05
    square = jnp.where(small, x, 0.0) ** 2
    value, slope = jnp.zeros_like(x), jnp.zeros_like(x)
    for power in range(4, -1, -1):
        slope = slope * square + value
        value = value * square + (-1) ** power / math.factorial(2 * power + 1)
    return small, value, 2 * x * slope, jnp.where(small, 1.0, x)


def check_integration(integration: str) -> str:
    """Refuse an unknown integration rule in one sentence; return a known one."""
    if integration not in INTEGRATIONS:
        raise ValueError(
            f"integration is {integration!r}; expected one of {', '.join(INTEGRATIONS)}; "
            "choose 'exact' for coarse frames or a first frame at t = 0."
        )
    return integration
