"""Diffusion in a sheared suspension: `LaminarFlow`."""

from typing import Any, ClassVar, Literal, final

import equinox as eqx
import numpy as np
from jaxtyping import Array

from twotime.models import base, rates
from twotime.models.base import FLOW_DIRECTION, Setting
from twotime.models.composition import (
    COMMON,
    AbstractComposition,
    Composition,
    Drift,
    Mover,
    form_setting,
)
from twotime.models.forms import AbstractForm, PowerLaw, Quantity, Rate, form
from twotime.models.parameters import optional_number
from twotime.models.proposals import Alternatives, Coordinates, Plan, Stage
from twotime.models.rates import Integration, Scalar
from twotime.models.static import CHECKS, TRANSPORT

ShearConvention = Literal["published", "homodyne"]


def shear_quantity(suffix: str, of: str, group: str) -> Quantity:
    """A shear rate as a quantity, see `static.transport_quantity`."""
    a, p, b = (f"{name}{suffix}" for name in ("gamma_dot_t0", "beta", "gamma_dot_t_offset"))
    rows = (
        (a, (0.01, 1e-6, 0.5, 0.01, 0.1), "1/s^(1+β)", f"Shear rate{of} at t = 1 s"),
        (p, (0.5, -2.0, 2.0, 0.0, 0.5), "", f"Exponent in time of the shear rate{of}"),
        (b, (0.0, -0.1, 0.1, 0.0, 0.02), "1/s", f"Constant part of the shear rate{of}"),
    )
    return Quantity("gamma_dot", "1/s", f"Shear rate{of}", group, rows, suffix, is_flow=True)


def check_gap(gap: Scalar | None) -> None:
    """Refuse a gap that is missing, or known and not positive."""
    if gap is None:
        raise ValueError(
            "The gap of the shear cell is missing [Å]; give it, LaminarFlow(gap=2e6) for 0.2 mm."
        )
    if base.is_concrete(gap) and not np.all(np.asarray(gap) > 0):
        raise ValueError(f"gap must be positive [Å]; got {np.asarray(gap)}.")


SHEAR = shear_quantity("", "", "flow")


@final
class LaminarFlow(AbstractComposition):
    r"""Diffusion in a uniform velocity gradient (Couette flow across a gap h).

    $C = e^{-q^2\int J\,dt}\,(\sin a/a)^2$ with
    $a = \tfrac12 q h \cos(\phi - \phi_0) \int \dot\gamma\,dt$ and
    $\dot\gamma(t) = \dot\gamma_0 t^\beta + \dot\gamma_\mathrm{off}$ [1/s].

    Attributes:
        gap: h, the distance between stator and rotor [Å].
        shear_convention: "published" is the equation above, "homodyne" that of older results:
            $(\sin\Phi/\Phi)^4$ with $\Phi = a/\pi$, whose fitted shear rates are $\pi/\sqrt2$
            times larger at small strain.
        integration: "trapezoid" on the frames or "exact" (closed form of the power law).
        transport: Form of J(t).
        shear: Form of the shear rate.
        stretched: Whether the decay is $e^{-(q^2\int J\,dt)^\gamma}$ with the parameter gamma.
        q_reference: See `AbstractComposition`.

    Reference:
        He et al., PNAS 121, e2401162121 (2024).
    """

    analysis_mode: ClassVar = "laminar_flow"
    settings: ClassVar = (
        base.INTEGRATION,
        *COMMON,
        form_setting("transport", "J(t)"),
        form_setting("shear", "γ̇(t)"),
        Setting(
            "gap", ("analyzer_parameters", "geometry", "stator_rotor_gap"), float,
            "Gap of the shear cell; needed by laminar_flow and by no other.", "Å", gt=0, le=1e15,
            needed="laminar_flow needs the gap of the shear cell [Å]", example=2.0e6,
        ),
        Setting(
            "shear_convention", ("model", "shear_convention"), ShearConvention,
            "laminar_flow only: the published law, or that of the homodyne program "
            "(its shear rates are 2.22 times larger).", default="published",
        ),
    )  # fmt: skip
    checks: ClassVar = (*CHECKS, base.exponent_check("beta"))
    example: ClassVar = base.Example(
        "A sheared suspension: C = exp(-q² ∫ J dt) · [sin(a)/a]², a = ½ q h cos(φ - phi0) ∫ γ̇ dt,\n"
        "with J(t) = D0·t^alpha + D_offset and γ̇(t) = gamma_dot_t0·t^beta + gamma_dot_t_offset.",
        q=0.005,
        phi=(-45.0, 0.0, 45.0, 90.0),
        start={"D0": 1.5e4, "alpha": 0.0, "D_offset": 0.0, "gamma_dot_t0": 3e-4, "beta": 0.0},
        truth={"D0": 2.5e4, "alpha": -0.2, "gamma_dot_t0": 4e-4, "beta": -0.2, "phi0": 4.0},
        fixed={
            "D_offset": "hard to tell from D0",
            "gamma_dot_t_offset": "hard to tell from gamma_dot_t0",
        },
    )

    gap: Scalar = eqx.field(default=None, converter=optional_number)
    shear_convention: ShearConvention = eqx.field(default="published", static=True)
    integration: Integration = eqx.field(
        default="trapezoid", static=True, converter=rates.check_integration
    )

    transport: AbstractForm = eqx.field(default=PowerLaw(), static=True, converter=form)
    shear: AbstractForm = eqx.field(default=PowerLaw(), static=True, converter=form)
    stretched: bool = eqx.field(default=False, static=True)
    q_reference: Scalar | None = eqx.field(default=None, converter=optional_number)

    def __check_init__(self) -> None:
        check_gap(self.gap)
        if self.shear_convention not in ("published", "homodyne"):
            raise ValueError(
                f"shear_convention is {self.shear_convention!r}; expected 'published' or "
                "'homodyne'; use 'published' unless older results must be reproduced."
            )

    @property
    def composition(self) -> Composition:
        shear = Drift(Rate(self.shear, SHEAR), FLOW_DIRECTION.name)
        return Composition(
            (Mover(Rate(self.transport, TRANSPORT), shear=shear),), others=(FLOW_DIRECTION,)
        )

    @property
    def strain_factor(self) -> Scalar:
        return (0.5 if self.shear_convention == "published" else 0.5 / np.pi) * self.gap

    def profile(self, mean: Array) -> Array:
        return mean if self.shear_convention == "published" else mean**2

    def natural_rates(self, q):
        shear = Rate(self.shear, SHEAR)
        return {**super().natural_rates(q), **dict.fromkeys(shear.amplitudes, 0.5 * q * self.gap)}

    def proposals(self, scene):
        transport, shear = self.composition.rates
        per_rate = abs(0.5 * scene.q * float(self.gap)) * scene.span
        per_rate /= np.pi if self.shear_convention == "homodyne" else 1.0
        phase = np.geomspace(0.3, 0.5 * np.pi * scene.t.size, 36)
        stages = (
            Stage({
                "J": ("set", scene.decays(20)), "rate": ("set", phase / per_rate),
                "phi0": ("set", scene.across("phi0", 5)),
                "alpha": ("set", np.zeros(1)), "beta": ("set", np.zeros(1)),
            }, 16),
            Stage({
                "J": ("times", np.geomspace(0.7, 1.4, 3)),
                "rate": ("times", np.geomspace(0.8, 1.25, 3)),
                "alpha": ("plus", np.linspace(-1.2, 1.2, 9)),
                "beta": ("plus", np.linspace(-1.2, 1.2, 9)),
            }, 16),
            Stage({
                "rate": ("times", np.geomspace(0.92, 1.09, 5)),
                "beta": ("plus", np.linspace(-0.15, 0.15, 5)),
                "alpha": ("plus", np.linspace(-0.15, 0.15, 3)),
                "phi0": ("plus", np.linspace(-2.0, 2.0, 5)),
            }, 8),
        )  # fmt: skip

        def params(c: Coordinates) -> dict[str, Any]:
            values = scene.power(transport, c["J"], c["alpha"])
            return values | scene.power(shear, c["rate"], c["beta"]) | {"phi0": c["phi0"]}

        turn = (shear, "phi0", scene.across("phi0", 5))
        others = Alternatives(scene, (transport, shear), turn=turn)
        return Plan(stages, params, others)


def peclet(shear_rate: Array, diffusion: Array, radius: Scalar) -> Array:
    r"""Péclet number $\dot\gamma a^2/D$ of a shear rate [1/s], D = J/2 [Å²/s] and a radius a [Å].

    The correlation does not know the radius, so this is not one of the model's `functions`.
    """
    return shear_rate * radius**2 / diffusion
