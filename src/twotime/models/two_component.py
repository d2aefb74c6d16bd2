"""A moving sample that beats against a reference: `TwoComponent`."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from twotime.models import base, rates
from twotime.models.base import Curve, parameter_group, within
from twotime.models.proposals import Alternatives, Coordinates, Plan, Scene, Stage
from twotime.models.rates import Integration, PowerLaw, Times
from twotime.models.static import transport_checks, transport_functions, transport_integral_check

FRACTION = ("f0", "f1", "f2", "f3")
_BELOW_ONE = 0.98


def _transport_parameters(law: PowerLaw, component: str) -> tuple[base.ParameterInfo, ...]:
    (a, p, b), of = law.names, f"of the {component}"
    return parameter_group(
        component,
        (a, 1e4, 100.0, 1e6, 1e4, 1e4, "Å²/s^(1+α)", f"Transport coefficient {of} at t = 1 s"),
        (p, 0.0, -5.0, 5.0, 0.0, 1.0, "", f"Exponent in time of the transport {of}"),
        (b, 0.0, -1e5, 1e5, 0.0, 1e3, "Å²/s", f"Constant part of the transport {of}"),
        fixed=(b,),
    )


def _fraction_check(
    f0: float, f1: float, f2: float, f3: float, t: np.ndarray
) -> Iterator[base.Finding]:
    if f0 + f3 > 1:
        yield "error", f"f0 + f3 = {f0 + f3:g} is above 1; a fraction is not."
    if t.size:
        with np.errstate(over="ignore"):
            largest = np.max(f0 * np.exp(f1 * (t - f2)) + f3)
        if largest > 1:
            yield "warning", f"The sample fraction reaches {largest:.4g} in the frames; cut at 1."


@final
class TwoComponent(base.AbstractTwoTimeModel):
    r"""A moving sample beating against a reference, fractions x_s and x_r = 1 - x_s.

    $C = |x_r x_r' e^{-\frac12 q^2\int J_r} +
    x_s x_s' e^{-\frac12 q^2\int J_s + i q \cos(\phi-\phi_0)\int v}|^2/(f f')$ with
    $f = x_r^2 + x_s^2$, primes at t2, $v(t) = v_0 t^\beta + v_\mathrm{off}$ [Å/s] and
    $x_s(t) = f_0 e^{f_1(t - f_2)} + f_3$ clipped to [0, 1].

    Nothing changes where reference and sample change places: both transports are swapped and x_s
    becomes 1 - x_s. In the parameters, x_s = f0 exp(f1 (t - f2)) + f3 becomes
    -f0 exp(f1 (t - f2)) + 1 - f3, which the bounds (f0 >= 0) allow for a constant fraction alone.
    With f1 different from 0 the exchanged law is met as nearly as a rising exponential is like a
    falling one, so that the data distinguish the labels as far as they show that curvature. The
    sign of the velocity is another such symmetry; the bounds (v0 > 0, phi0 near 0) leave one
    choice.

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
        *parameter_group(
            "velocity",
            ("v0", 1e3, 1e-6, 1e4, 1e3, 1e3, "Å/s^(1+β)", "Velocity at t = 1 s"),
            ("beta", 0.0, -2.0, 2.0, 0.0, 1.0, "", "Exponent in time of the velocity"),
            ("v_offset", 0.0, -100.0, 100.0, 0.0, 25.0, "Å/s", "Constant part of the velocity"),
            is_flow=True,
            fixed=("v_offset",),
        ),
        *parameter_group(
            "fraction",
            ("f0", 0.5, 0.0, 1.0, 0.5, 0.25, "", "Amplitude of the sample fraction"),
            ("f1", 0.0, -10.0, 10.0, 0.0, 5.0, "1/s", "Rate of change of the sample fraction"),
            ("f2", 0.0, -1e4, 1e4, 0.0, 1e3, "s", "Time at which the changing fraction is f0"),
            ("f3", 0.0, 0.0, 1.0, 0.0, 0.5, "", "Constant part of the sample fraction"),
            fixed=("f2", "f3"),
        ),
        base.FLOW_DIRECTION,
    )
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
        base.Check(FRACTION, _fraction_check),
    )
    example: ClassVar = base.Example(
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
            "alpha_ref": "", "D_offset_ref": "", "alpha_sample": "", "D_offset_sample": "",
            "v_offset": "", "f2": "never free together with f0 and f1", "f3": "",
        },
    )  # fmt: skip

    integration: Integration = eqx.field(
        default="trapezoid", static=True, converter=rates.check_integration
    )

    def natural_rates(self, q):
        both = *self.reference.amplitudes, *self.sample.amplitudes
        return dict.fromkeys(both, q**2) | dict.fromkeys(self.velocity.amplitudes, q)

    def channels(self, params, times, *, t, q, phi):
        values, rule = self.named(params), self.integration
        reference = q**2 * self.reference.clock(values, times, t=t, integration=rule)
        sample = q**2 * self.sample.clock(values, times, t=t, integration=rule)
        path = self.velocity.clock(values, times, t=t, integration=rule)
        phase = q * jnp.cos(jnp.deg2rad(phi - values["phi0"])) * path
        x = self._fraction(values, times)
        norm = jnp.sqrt(x**2 + (1 - x) ** 2)
        return base.Channels(
            decay=0.5 * jnp.stack([reference, sample]),
            phase=phase[None],
            level=jnp.stack([(1 - x) / norm, x / norm]),
        )

    def _fraction(self, values: Mapping[str, Any], t: Times) -> Times:
        return rates.fraction(t, *(values[name] for name in FRACTION))

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
        return base.Terms(
            weight=jnp.stack([reference**2, sample**2, jnp.sqrt(2.0) * reference * sample]),
            decay=jnp.stack([2 * half_r, 2 * half_s, half_r + half_s]),
            phase=jnp.stack([zero, zero, channels.phase[0]]),
            oscillates=(False, False, True),
        )

    def functions(self, params, *, t):
        values = self.named(params)
        velocity = self.velocity.rate(values, rates.regular(t))
        path = self.velocity.clock(values, t, t=t, integration=self.integration)
        moved = path - path[0]
        found = transport_functions(self.reference, values, t, "_r", " of the reference")
        found |= transport_functions(self.sample, values, t, "_s", " of the sample")
        return found | {
            "v": Curve(velocity, "Å/s", "v", "Velocity of the sample"),
            "displacement": Curve(moved, "Å", "∫v dt", "Displacement since the first frame"),
            "x_s": Curve(self._fraction(values, t), "", "x_s", "Fraction of the sample"),
        }

    def components(self, params, t):
        values = self.named(params)
        x = self._fraction(values, t)
        logs = [jnp.log(law.rate(values, t)) for law in (self.reference, self.sample)]
        return jnp.stack([jnp.stack([logs[0], 1 - x]), jnp.stack([logs[1], x])])

    def exchanged(self, params, t):
        """The share of the sample becomes 1 - x_s at the first and the last frame."""
        values = self.named(params)
        f0, f1, f2, f3 = FRACTION
        rest = jnp.clip(1 - self._fraction(values, t[jnp.array([0, -1])]) - values[f3], 1e-3, 1.0)
        growth = jnp.log(rest[1] / rest[0]) / (t[-1] - t[0])
        new = {f0: rest[0] * jnp.exp(-growth * (t[0] - values[f2])), f1: growth}
        for one, other in zip(self.reference.names, self.sample.names, strict=True):
            new |= {one: values[other], other: values[one]}
        return jnp.stack([new.get(name, values[name]) for name in self.names])

    def off_plateau(self, params, t):
        """A fraction that is clipped to 1 at all times is made smaller."""
        f0, f1, f2, f3 = (self.named(params)[name] for name in FRACTION)
        lowest = jnp.min(f0 * jnp.exp(jnp.minimum(f1 * (t - f2), 300.0)) + f3)
        factor = jnp.where(lowest >= 1.0, _BELOW_ONE / lowest, 1.0)
        return params.at[np.array([self.names.index("f0"), self.names.index("f3")])].mul(factor)

    def proposals(self, scene):
        both = self.reference, self.sample
        turn = self.velocity, "phi0", scene.across("phi0", 5)
        others = Alternatives(
            scene, (*both, self.velocity), fraction=FRACTION, exchange=both, turn=turn
        )

        def params(c: Coordinates) -> dict[str, Any]:
            f1, f2 = scene.known.get("f1", c["f1"]), scene.known.get("f2", scene.middle)
            f3 = scene.known.get("f3", c.get("f3", 0.0) * c["f"])
            growth = np.exp(np.clip(f1 * (scene.middle - f2), -50.0, 50.0))
            return {
                **scene.power(self.reference, c["J_ref"], c["alpha_ref"]),
                **scene.power(self.sample, c["J_sample"], c["alpha_sample"]),
                **scene.power(self.velocity, c["v"], c["beta"]),
                "f0": (c["f"] - f3) / growth,
                "f1": c["f1"],
                "f2": f2,
                "f3": f3,
                "phi0": c["phi0"],
            }

        return Plan(_stages(scene), params, others)


def _stages(scene: Scene) -> tuple[Stage, ...]:
    """Rounds of candidates: short lags first, where velocities do not beat."""
    radian = 1.0 / (scene.q * scene.span)
    none = np.zeros(1)
    return (
        Stage({
            "J_ref": ("set", scene.decays(7)), "J_sample": ("set", scene.decays(7)),
            "v": ("set", np.arange(0.0, 120.0, 2.0) * radian),
            "f": ("set", np.array([0.2, 0.4, 0.6, 0.8])), "phi0": ("set", none),
            "alpha_ref": ("set", none), "alpha_sample": ("set", none),
            "beta": ("set", none), "f1": ("set", none),
        }, 24, longest=0.34, central=True),
        Stage({
            "beta": ("plus", np.linspace(-2.0, 2.0, 101)),
            "v": ("plus", np.linspace(-1.5, 1.5, 4) * radian),
        }, 16, longest=0.34),
        Stage({
            "alpha_ref": ("plus", np.linspace(-1.0, 1.0, 3)),
            "alpha_sample": ("plus", np.linspace(-1.0, 1.0, 3)),
            "f": ("plus", np.linspace(-0.15, 0.15, 3)),
            "f1": ("plus", np.array([-8.0, -2.0, -0.5, 0.5, 2.0, 8.0]) / scene.span),
            "f3": ("set", np.array([0.0, 0.8])),
        }, 12),
        Stage({
            "J_ref": ("times", np.geomspace(0.6, 1.6, 3)),
            "J_sample": ("times", np.geomspace(0.6, 1.6, 3)),
            "v": ("plus", np.linspace(-0.8, 0.8, 5) * radian),
            "beta": ("plus", np.linspace(-0.03, 0.03, 3)),
            "phi0": ("plus", scene.across("phi0", 3)),
        }, 12),
    )  # fmt: skip
