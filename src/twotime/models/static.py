"""Diffusion alone: `StaticDiffusion`."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from twotime.models import base, rates
from twotime.models.base import Check, Curve, within
from twotime.models.proposals import Alternatives, Coordinates, Plan, Stage
from twotime.models.rates import Integration, PowerLaw, Times


def transport_checks(transport: PowerLaw) -> tuple[Check, ...]:
    """Physics checks of a transport coefficient."""
    amplitude, exponent, _ = transport.names
    fast = "is above 1: dynamics that speed up faster than linearly."
    return (
        within(amplitude, "error", 0, np.inf, "is negative; a transport coefficient is not."),
        within(amplitude, "warning", -np.inf, 1e5, "Å²/s^(1+α) is above 1e5."),
        within(exponent, "warning", -1.5, np.inf, "is below -1.5: strongly slowing dynamics."),
        base.exponent_check(exponent),
        within(exponent, "info", -np.inf, 1, fast),
    )


def transport_integral_check(transport: PowerLaw) -> Check:
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


def transport_functions(
    transport: PowerLaw, values: Mapping[str, Any], t: Times, index: str = "", of: str = ""
) -> dict[str, Curve]:
    """J(t) and D(t) of a transport coefficient, named as its amplitude is.

    Args:
        transport: The rate.
        values: Parameters by name.
        t: Times of the frames [s].
        index: Ending of their symbols.
        of: Whose transport it is, for the description.
    """
    rate, suffix = transport.rate(values, rates.regular(t)), transport.amplitude.removeprefix("D0")
    variance = f"Growth rate of the variance of the displacement{of}"
    diffusion = f"Diffusion coefficient{of}, J/2"
    return {
        f"J{suffix}": Curve(rate, "Å²/s", f"J{index}", variance),
        f"D{suffix}": Curve(0.5 * rate, "Å²/s", f"D{index}", diffusion),
    }


@final
class StaticDiffusion(base.AbstractTwoTimeModel):
    r"""Diffusion with an ageing transport coefficient: $C = e^{-q^2\int J\,dt}$.

    $J(t) = D_0 t^\alpha + D_\mathrm{off}$ [Å²/s] is the growth rate of the variance of the
    displacement along q; Brownian motion with coefficient D has J = 2D.

    Attributes:
        integration: "trapezoid" on the frames or "exact" (closed form of the power law).

    Reference:
        He et al., PNAS 121, e2401162121 (2024), with zero shear.
    """

    analysis_mode: ClassVar = "static"
    transport: ClassVar = PowerLaw("D0", "alpha", "D_offset")
    parameters: ClassVar = base.parameter_group(
        "transport",
        ("D0", 1e3, 100.0, 1e5, 1e3, 1e3, "Å²/s^(1+α)", "Transport coefficient at t = 1 s"),
        ("alpha", 0.5, -2.0, 2.0, 0.5, 0.5, "", "Exponent in time of the transport"),
        ("D_offset", 10.0, -1e5, 1e5, 10.0, 200.0, "Å²/s", "Constant part of the transport"),
        fixed=(transport.offset,),
    )
    settings: ClassVar = (base.INTEGRATION,)
    checks: ClassVar = (*transport_checks(transport), transport_integral_check(transport))
    example: ClassVar = base.Example(
        "Diffusion alone: C = exp(-q² ∫ J dt) with J(t) = D0·t^alpha + D_offset.",
        start={"D0": 4e3, "alpha": 0.0, "D_offset": 0.0},
        truth={"D0": 6e3, "alpha": -0.3},
        fixed={"D_offset": "hard to tell from D0"},
    )

    integration: Integration = eqx.field(
        default="trapezoid", static=True, converter=rates.check_integration
    )

    def natural_rates(self, q):
        return dict.fromkeys(self.transport.amplitudes, q**2)

    def channels(self, params, times, *, t, q, phi):
        clock = self.transport.clock(self.named(params), times, t=t, integration=self.integration)
        none = jnp.zeros((0, times.shape[0]), times.dtype)
        return base.Channels((q**2 * clock)[None], none, none)

    def correlation(self, pair):
        return pair.decay[0]

    def field(self, pair):
        return jnp.sqrt(pair.decay[0])

    def terms(self, channels):
        nothing = jnp.zeros_like(channels.decay)
        return base.Terms(jnp.ones_like(channels.decay), channels.decay, nothing, (False,))

    def functions(self, params, *, t):
        return transport_functions(self.transport, self.named(params), t)

    def proposals(self, scene):
        first = Stage({"J": ("set", scene.decays(40)), "alpha": ("set", np.zeros(1))}, 12)
        second = Stage({
            "J": ("times", np.geomspace(0.6, 1.6, 5)),
            "alpha": ("plus", np.linspace(-1.6, 1.6, 17)),
            "share": ("set", np.array([0.0, 0.3, 0.6])),
        }, 8)  # fmt: skip

        def params(c: Coordinates) -> dict[str, Any]:
            return scene.power(self.transport, c["J"], c["alpha"], c.get("share", 0.0))

        return Plan((first, second), params, Alternatives(scene, (self.transport,)))
