"""A moving sample that beats against a reference: `TwoComponent`."""

from collections.abc import Iterator
from typing import Any, ClassVar, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from twotime.models import base, rates
from twotime.models.base import FLOW_DIRECTION, within
from twotime.models.composition import (
    COMMON,
    FRACTIONS_SETTING,
    AbstractComposition,
    Composition,
    Drift,
    Mover,
    form_setting,
)
from twotime.models.forms import AbstractForm, PowerLaw, Quantity, Rate, form
from twotime.models.fractions import AbstractFractions, ExponentialFractions, fractions
from twotime.models.parameters import optional_number
from twotime.models.proposals import Alternatives, Coordinates, Plan, Scene, Stage
from twotime.models.rates import Integration, Scalar
from twotime.models.static import transport_checks, transport_integral_check, transport_quantity

LABELS = "reference", "sample"

FRACTION = ExponentialFractions.names
_BELOW_ONE = 0.98


def component_transport(suffix: str, of: str, group: str) -> Quantity:
    """The transport coefficient of one of several components."""
    return transport_quantity(
        suffix, of, group,
        ((1e4, 100.0, 1e6, 1e4, 1e4), "Å²/s^(1+α)"),
        ((0.0, -5.0, 5.0, 0.0, 1.0), ""),
        ((0.0, -1e5, 1e5, 0.0, 1e3), "Å²/s"),
    )  # fmt: skip


def velocity_quantity(suffix: str, of: str, group: str) -> Quantity:
    """A velocity as a quantity."""
    rows = (
        (f"v0{suffix}", (1e3, 1e-6, 1e4, 1e3, 1e3), "Å/s^(1+β)", f"Velocity{of} at t = 1 s"),
        (f"beta{suffix}", (0.0, -2.0, 2.0, 0.0, 1.0), "", f"Exponent in time of the velocity{of}"),
        (f"v_offset{suffix}", (0.0, -100.0, 100.0, 0.0, 25.0), "Å/s",
         f"Constant part of the velocity{of}"),
    )  # fmt: skip
    about = f"Velocity{of}"
    return Quantity("v", "Å/s", about, group, rows, suffix, is_signed=True, is_flow=True)


REFERENCE = component_transport("_ref", " of the reference", "reference")
SAMPLE = component_transport("_sample", " of the sample", "sample")
VELOCITY = velocity_quantity("", "", "velocity")
_TRANSPORTS = Rate(PowerLaw(), REFERENCE), Rate(PowerLaw(), SAMPLE)


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
class TwoComponent(AbstractComposition):
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
        reference: Form of the transport coefficient of the reference.
        sample: Form of that of the sample.
        velocity: Form of the velocity of the sample.
        fractions: Fractions of reference and sample.
        stretched: Whether both decays have the exponent gamma.
        q_reference: See `AbstractComposition`.

    Reference:
        He et al., PNAS 122 (2025), SI Eq. S-95.
    """

    analysis_mode: ClassVar = "two_component"
    settings: ClassVar = (
        base.INTEGRATION,
        *COMMON,
        form_setting("reference", "J(t) of the reference"),
        form_setting("sample", "J(t) of the sample"),
        form_setting("velocity", "v(t)"),
        FRACTIONS_SETTING,
    )
    checks: ClassVar = (
        *(check for rate in _TRANSPORTS for check in transport_checks(rate)),
        within("v0", "warning", 0, np.inf, "Å/s^(1+β) is negative: flow against phi0."),
        within("v0", "info", -np.inf, 1e3, "Å/s^(1+β) is above 1e3: fast flow."),
        base.exponent_check("beta"),
        within("f0", "error", 0, 1, "is outside [0, 1]; a fraction is not."),
        within("f1", "warning", -5, 5, "1/s is beyond 5 in size: the fraction changes abruptly."),
        within("f3", "error", 0, 1, "is outside [0, 1]; a fraction is not."),
        *map(transport_integral_check, _TRANSPORTS),
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

    reference: AbstractForm = eqx.field(default=PowerLaw(), static=True, converter=form)
    sample: AbstractForm = eqx.field(default=PowerLaw(), static=True, converter=form)
    velocity: AbstractForm = eqx.field(default=PowerLaw(), static=True, converter=form)
    fractions: AbstractFractions = eqx.field(
        default=ExponentialFractions(), static=True, converter=fractions
    )
    stretched: bool = eqx.field(default=False, static=True)
    q_reference: Scalar | None = eqx.field(default=None, converter=optional_number)

    @property
    def composition(self) -> Composition:
        reference, sample = Rate(self.reference, REFERENCE), Rate(self.sample, SAMPLE)
        drift = Drift(Rate(self.velocity, VELOCITY), FLOW_DIRECTION.name)
        movers = (
            Mover(reference, index="_r", of=" of the reference"),
            Mover(sample, drift, index="_s", of=" of the sample"),
        )
        return Composition(movers, self._shares, (FLOW_DIRECTION,))

    @property
    def _shares(self) -> AbstractFractions:
        return self.fractions.of(LABELS)

    def components(self, params, t):
        if self.reference != self.sample:
            return None
        values, parts = self.named(params), self.composition
        shares = self._shares.shares(values, t, t)
        rows = zip(parts.rates[:2], shares, strict=True)
        return jnp.stack([jnp.stack([jnp.log(rate.rate(values, t)), x]) for rate, x in rows])

    def exchanged(self, params, t):
        """The share of the sample becomes 1 - x_s, at the first and the last frame at least."""
        values = self.named(params)
        new = self._shares.exchanged(values, t)
        one, other = (rate.names for rate in self.composition.rates[:2])
        for a, b in zip(one, other, strict=True):
            new |= {a: values[b], b: values[a]}
        return jnp.stack([new.get(name, values[name]) for name in self.names])

    def off_plateau(self, params, t):
        """A fraction that is clipped to 1 at all times is made smaller."""
        if self.fractions != ExponentialFractions():
            return params
        f0, f1, f2, f3 = (self.named(params)[name] for name in FRACTION)
        lowest = jnp.min(f0 * jnp.exp(jnp.minimum(f1 * (t - f2), 300.0)) + f3)
        factor = jnp.where(lowest >= 1.0, _BELOW_ONE / lowest, 1.0)
        return params.at[np.array([self.names.index("f0"), self.names.index("f3")])].mul(factor)

    def proposals(self, scene):
        reference, sample, velocity = self.composition.rates
        fractions = self._shares
        turn = velocity, "phi0", scene.across("phi0", 5)
        is_usual = (
            self.fractions == ExponentialFractions() and reference.is_power and sample.is_power
        )
        more: Any = {"fraction": FRACTION, "exchange": (reference, sample)} if is_usual else {}
        others = Alternatives(scene, (reference, sample, velocity), turn=turn, **more)

        def params(c: Coordinates) -> dict[str, Any]:
            return {
                **scene.power(reference, c["J_ref"], c["alpha_ref"]),
                **scene.power(sample, c["J_sample"], c["alpha_sample"]),
                **scene.power(velocity, c["v"], c["beta"]),
                **fractions.like(scene, c["f"], c["f1"], c.get("f3", 0.0)),
                "phi0": c["phi0"],
            }

        return Plan(_stages(scene), params, others, _faster(scene))


_SLOW = 120.0  # phase over the record up to which drifts are searched on a third of it [rad]
_SEEN = 40.0  # phase over the longest lag that faster ones are searched on [rad]


def _stages(scene: Scene) -> tuple[Stage, ...]:
    """Rounds of candidates: short lags first, where velocities do not beat."""
    radian = 1.0 / (scene.q * scene.span)
    none = np.zeros(1)
    return (
        Stage({
            "J_ref": ("set", scene.decays(7)), "J_sample": ("set", scene.decays(7)),
            "v": ("set", np.arange(0.0, _SLOW, 2.0) * radian),
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


def _faster(scene: Scene) -> tuple[tuple[Stage, ...], ...]:
    """Rounds for faster drifts, up to half a turn per frame: for each octave on shorter lags."""
    slow, none, rounds = _SLOW, np.zeros(1), []
    while slow < np.pi * (scene.t.size - 1):
        drifts = np.linspace(slow, 2 * slow, 36) / (scene.q * scene.span)
        longest = 0.5 * _SEEN / slow
        first = {
            "J_ref": ("set", scene.decays(6)), "J_sample": ("set", scene.decays(6)),
            "v": ("set", drifts), "f": ("set", np.array([0.2, 0.4, 0.6, 0.8])),
            "phi0": ("set", none), "alpha_ref": ("set", none), "alpha_sample": ("set", none),
            "beta": ("set", none), "f1": ("set", none),
        }  # fmt: skip
        bend = {
            "beta": ("plus", np.linspace(-2.0, 2.0, 61)), "v": ("times", np.linspace(0.98, 1.02, 5))
        }  # fmt: skip
        rest = {
            "alpha_ref": ("plus", np.linspace(-1.0, 1.0, 3)),
            "alpha_sample": ("plus", np.linspace(-1.0, 1.0, 3)),
            "v": ("times", np.linspace(0.995, 1.005, 3)),
            "phi0": ("plus", scene.across("phi0", 3)),
            "f1": ("plus", np.array([-2.0, 0.0, 2.0]) / scene.span),
        }  # fmt: skip
        rounds.append((
            Stage(first, 16, longest, central=True), Stage(bend, 16, longest),
            Stage(rest, 12, longest),
        ))  # fmt: skip
        slow *= 2
    return tuple(rounds)
