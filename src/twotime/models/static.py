"""Diffusion alone: `StaticDiffusion`."""

from collections.abc import Iterator
from typing import Any, ClassVar, final

import equinox as eqx
import numpy as np

from twotime.models import base, rates
from twotime.models.base import Check, within
from twotime.models.composition import COMMON, AbstractComposition, Composition, Mover, form_setting
from twotime.models.forms import AbstractForm, PowerLaw, Quantity, Rate, Row, form
from twotime.models.parameters import optional_number
from twotime.models.proposals import Alternatives, Coordinates, Plan, Stage
from twotime.models.rates import Integration, Scalar


def transport_quantity(suffix: str, of: str, group: str, *numbers: tuple[Row, str]) -> Quantity:
    """A transport coefficient as a quantity.

    Args:
        suffix: Ending of its names.
        of: Whose it is, for descriptions (" of the sample").
        group: Group of its parameters in the configuration.
        numbers: Default, bounds, mean and deviation of the prior of amplitude, exponent and offset
            of its power law, with unit.
    """
    about = f"Transport coefficient{of}"
    names = f"D0{suffix}", f"alpha{suffix}", f"D_offset{suffix}"
    course = f"Exponent in time of the transport{of}", f"Constant part of the transport{of}"
    meanings = f"{about} at t = 1 s", *course
    rows = [(n, x, unit, what) for n, (x, unit), what in zip(names, numbers, meanings, strict=True)]
    return Quantity("J", "Å²/s", about, group, tuple(rows), suffix)


def transport_checks(transport: Rate) -> tuple[Check, ...]:
    """Physics checks of a transport coefficient that is a power law."""
    amplitude, exponent, _ = transport.names
    fast = "is above 1: dynamics that speed up faster than linearly."
    return (
        within(amplitude, "error", 0, np.inf, "is negative; a transport coefficient is not."),
        within(amplitude, "warning", -np.inf, 1e5, "Å²/s^(1+α) is above 1e5."),
        within(exponent, "warning", -1.5, np.inf, "is below -1.5: strongly slowing dynamics."),
        base.exponent_check(exponent),
        within(exponent, "info", -np.inf, 1, fast),
    )


def transport_integral_check(transport: Rate) -> Check:
    """The check that a transport coefficient is positive and its integral finite."""
    amplitude, exponent, offset = transport.names

    def judge(D0: float, alpha: float, D_offset: float, t: np.ndarray) -> Iterator[base.Finding]:
        if D0 > 0 and D_offset / D0 > 0.5:
            yield "warning", f"{offset} / {amplitude} = {D_offset / D0:g} is above 0.5."
        if alpha < -1 and (t == 0).any():
            yield (
                "error",
                f"{exponent} = {alpha:g} is below -1 and the frames reach t = 0, where the "
                "integral of the transport diverges: give analyzer_parameters.t0 > 0.",
            )
        # A power law alone may begin at 0.
        later = t[t > 0] if alpha < 0 or D_offset == 0 else t
        with np.errstate(over="ignore"):
            rate = D0 * later**alpha + D_offset
        is_at_rest = D0 == D_offset == 0  # a static reference
        if rate.size and rate.min() <= 0 and not is_at_rest:
            yield (
                "error",
                f"J(t) = {amplitude}·t^{exponent} + {offset} is {rate.min():.4g} Å²/s at "
                f"t = {later[rate.argmin()]:g} s; it must be positive in all frames.",
            )

    return Check(transport.names, judge)


TRANSPORT = transport_quantity(
    "", "", "transport",
    ((1e3, 100.0, 1e5, 1e3, 1e3), "Å²/s^(1+α)"),
    ((0.5, -2.0, 2.0, 0.5, 0.5), ""),
    ((10.0, -1e5, 1e5, 10.0, 200.0), "Å²/s"),
)  # fmt: skip
_USUAL = Rate(PowerLaw(), TRANSPORT)
CHECKS = (*transport_checks(_USUAL), transport_integral_check(_USUAL))
"""Physics checks of the transport of a law with one component."""


@final
class StaticDiffusion(AbstractComposition):
    r"""Diffusion with an ageing transport coefficient: $C = e^{-q^2\int J\,dt}$.

    $J(t) = D_0 t^\alpha + D_\mathrm{off}$ [Å²/s] is the growth rate of the variance of the
    displacement along q; Brownian motion with coefficient D has J = 2D.

    Attributes:
        integration: "trapezoid" on the frames or "exact" (closed form of the power law).
        transport: Form of J(t).
        stretched: Whether the decay is $e^{-(q^2\int J\,dt)^\gamma}$ with the parameter gamma.
        q_reference: See `AbstractComposition`.

    Reference:
        He et al., PNAS 121, e2401162121 (2024), with zero shear.
    """

    analysis_mode: ClassVar = "static"
    settings: ClassVar = (base.INTEGRATION, *COMMON, form_setting("transport", "J(t)"))
    checks: ClassVar = CHECKS
    example: ClassVar = base.Example(
        "Diffusion alone: C = exp(-q² ∫ J dt) with J(t) = D0·t^alpha + D_offset.",
        start={"D0": 4e3, "alpha": 0.0, "D_offset": 0.0},
        truth={"D0": 6e3, "alpha": -0.3},
        fixed={"D_offset": "hard to tell from D0"},
    )

    integration: Integration = eqx.field(
        default="trapezoid", static=True, converter=rates.check_integration
    )
    transport: AbstractForm = eqx.field(default=PowerLaw(), static=True, converter=form)
    stretched: bool = eqx.field(default=False, static=True)
    q_reference: Scalar | None = eqx.field(default=None, converter=optional_number)

    @property
    def composition(self) -> Composition:
        return Composition((Mover(Rate(self.transport, TRANSPORT)),))

    def proposals(self, scene):
        (transport,) = self.composition.rates
        first = Stage({"J": ("set", scene.decays(40)), "alpha": ("set", np.zeros(1))}, 12)
        second = Stage({
            "J": ("times", np.geomspace(0.6, 1.6, 5)),
            "alpha": ("plus", np.linspace(-1.6, 1.6, 17)),
            "share": ("set", np.array([0.0, 0.3, 0.6])),
        }, 8)  # fmt: skip

        def params(c: Coordinates) -> dict[str, Any]:
            return scene.power(transport, c["J"], c["alpha"], c.get("share", 0.0))

        return Plan((first, second), params, Alternatives(scene, (transport,)))
