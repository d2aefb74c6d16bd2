"""A moving sample that beats against a reference: `TwoComponent`."""

from collections.abc import Iterator
from typing import ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from twotime.models import base, rates
from twotime.models.base import (
    AbstractTwoTimeModel,
    Channels,
    Check,
    Example,
    Finding,
    ParameterInfo,
    Terms,
    within,
)
from twotime.models.rates import Integration, PowerLaw
from twotime.models.static import transport_checks, transport_integral_check

_FRACTION = ("f0", "f1", "f2", "f3")


def _transport_parameters(transport: PowerLaw, of: str) -> tuple[ParameterInfo, ...]:
    amplitude, exponent, offset = transport.names
    return (
        ParameterInfo(
            amplitude, 1e4, 100.0, 1e6, f"Transport coefficient of the {of} at t = 1 s",
            "Å²/s^(1+α)", of, log_space=True, prior_mean=1e4, prior_std=1e4,
        ),
        ParameterInfo(
            exponent, 0.0, -5.0, 5.0, f"Exponent in time of the transport of the {of}", "", of,
            prior_mean=0.0, prior_std=1.0,
        ),
        ParameterInfo(
            offset, 0.0, -1e5, 1e5, f"Constant part of the transport of the {of}", "Å²/s", of,
            prior_mean=0.0, prior_std=1e3,
        ),
    )  # fmt: skip


def _fraction_check(f0: float, f1: float, f2: float, f3: float, t: np.ndarray) -> Iterator[Finding]:
    if f0 + f3 > 1:
        yield "error", f"f0 + f3 = {f0 + f3:g} is above 1; a fraction is not."
    if t.size:
        with np.errstate(over="ignore"):
            largest = np.max(f0 * np.exp(f1 * (t - f2)) + f3)
        if largest > 1:
            yield "warning", f"The sample fraction reaches {largest:.4g} in the frames; cut at 1."


@final
class TwoComponent(AbstractTwoTimeModel):
    r"""A moving sample beating against a reference, fractions x_s and x_r = 1 - x_s.

    $C = |x_r x_r' e^{-\frac12 q^2\int J_r} +
    x_s x_s' e^{-\frac12 q^2\int J_s + i q \cos(\phi-\phi_0)\int v}|^2/(f f')$ with
    $f = x_r^2 + x_s^2$, primes at t2, $v(t) = v_0 t^\beta + v_\mathrm{off}$ [Å/s] and
    $x_s(t) = f_0 e^{f_1(t - f_2)} + f_3$ clipped to [0, 1].

    Attributes:
        integration: "trapezoid" on the frames or "exact" (closed form of the power law).

    Reference:
        He et al., PNAS 122 (2025), SI Eq. S-95.
    """

    analysis_mode: ClassVar = "two_component"
    reference: ClassVar = PowerLaw("D0_ref", "alpha_ref", "D_offset_ref")
    sample: ClassVar = PowerLaw("D0_sample", "alpha_sample", "D_offset_sample")
    velocity: ClassVar = PowerLaw("v0", "beta", "v_offset", is_signed=True)
    parameters: ClassVar = (
        *_transport_parameters(reference, "reference"),
        *_transport_parameters(sample, "sample"),
        ParameterInfo(
            "v0", 1e3, 1e-6, 1e4, "Velocity at t = 1 s", "Å/s^(1+β)", "velocity",
            log_space=True, prior_mean=1e3, prior_std=1e3, is_flow=True,
        ),
        ParameterInfo(
            "beta", 0.0, -2.0, 2.0, "Exponent in time of the velocity", "", "velocity",
            prior_mean=0.0, prior_std=1.0, is_flow=True,
        ),
        ParameterInfo(
            "v_offset", 0.0, -100.0, 100.0, "Constant part of the velocity", "Å/s", "velocity",
            prior_mean=0.0, prior_std=25.0, is_flow=True,
        ),
        ParameterInfo(
            "f0", 0.5, 0.0, 1.0, "Amplitude of the sample fraction", "", "fraction",
            prior_mean=0.5, prior_std=0.25,
        ),
        ParameterInfo(
            "f1", 0.0, -10.0, 10.0, "Rate of change of the sample fraction", "1/s", "fraction",
            prior_mean=0.0, prior_std=5.0,
        ),
        ParameterInfo(
            "f2", 0.0, -1e4, 1e4, "Time at which the changing fraction is f0", "s", "fraction",
            prior_mean=0.0, prior_std=1e3,
        ),
        ParameterInfo(
            "f3", 0.0, 0.0, 1.0, "Constant part of the sample fraction", "", "fraction",
            prior_mean=0.0, prior_std=0.5,
        ),
        base.FLOW_DIRECTION,
    )  # fmt: skip
    settings: ClassVar = (base.INTEGRATION,)
    checks: ClassVar = (
        *transport_checks(reference),
        *transport_checks(sample),
        within("v0", "warning", 0, np.inf, "Å/s^(1+β) is negative: flow against phi0."),
        within("v0", "info", -np.inf, 1e3, "Å/s^(1+β) is above 1e3: fast flow."),
        base.exponent_check("beta"),
        within("f0", "error", 0, 1, "is outside [0, 1]; a fraction is not."),
        within("f1", "warning", -5, 5, "1/s is beyond 5 in size: the fraction changes abruptly."),
        within("f3", "error", 0, 1, "is outside [0, 1]; a fraction is not."),
        transport_integral_check(reference),
        transport_integral_check(sample),
        Check(_FRACTION, _fraction_check),
    )
    example: ClassVar = Example(
        "Moving scatterers beating against a reference:\n"
        "  C = |x_r x_r' e^(-½q²∫J_r) + x_s x_s' e^(-½q²∫J_s + i q cos(φ - phi0) ∫v)|² / (f f')\n"
        "with J(t) = D0·t^alpha + D_offset of each component, v(t) = v0·t^beta + v_offset and the\n"
        "sample's fraction x_s(t) = f0·exp(f1·(t - f2)) + f3.",
        phi=(-45.0, 0.0, 45.0, 90.0),
        start={"D0_ref": 1.5e3, "D0_sample": 6e3, "v0": 370.0},
        truth={
            "D0_ref": 2e3, "D0_sample": 5e3, "v0": 400.0, "beta": -0.05, "f0": 0.4, "f1": -0.03,
            "phi0": 3.0,
        },
        fixed={
            "alpha_ref": "",
            "D_offset_ref": "",
            "alpha_sample": "",
            "D_offset_sample": "",
            "v_offset": "",
            "f2": "never free together with f0 and f1",
            "f3": "",
        },
    )  # fmt: skip

    integration: Integration = eqx.field(default="trapezoid", static=True)

    def __check_init__(self) -> None:
        rates.check_integration(self.integration)

    def channels(self, params, times, *, t, q, phi):
        values, rule = self.named(params), self.integration
        reference = q**2 * self.reference.clock(values, times, t=t, integration=rule)
        sample = q**2 * self.sample.clock(values, times, t=t, integration=rule)
        path = self.velocity.clock(values, times, t=t, integration=rule)
        phase = q * jnp.cos(jnp.deg2rad(phi - values["phi0"])) * path
        x = rates.fraction(times, *(values[name] for name in _FRACTION))
        norm = jnp.sqrt(x**2 + (1 - x) ** 2)
        return Channels(
            decay=0.5 * jnp.stack([reference, sample]),
            phase=phase[None],
            level=jnp.stack([(1 - x) / norm, x / norm]),
        )

    def correlation(self, pair):
        reference, sample = pair.level1 * pair.level2 * pair.decay
        return reference**2 + sample**2 + 2 * reference * sample * pair.cos[0]

    def field(self, pair):
        reference, sample = pair.level1 * pair.level2 * pair.decay
        return reference + sample * jax.lax.complex(pair.cos[0], pair.sin[0])

    def terms(self, channels):
        reference, sample = channels.level
        half_r, half_s = channels.decay
        zero = jnp.zeros_like(reference)
        return Terms(
            weight=jnp.stack([reference**2, sample**2, jnp.sqrt(2.0) * reference * sample]),
            decay=jnp.stack([2 * half_r, 2 * half_s, half_r + half_s]),
            phase=jnp.stack([zero, zero, channels.phase[0]]),
            oscillates=(False, False, True),
        )
