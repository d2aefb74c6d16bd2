"""Stretched relaxation of an ageing glass, a law for twotime."""

from typing import ClassVar, Literal

import equinox as eqx
import jax.numpy as jnp

import twotime as tt
from twotime.models import rates
from twotime.models.base import Curve, Example, within


class StretchedAgeing(tt.AbstractTwoTimeModel):
    r"""Relaxation of an ageing glass: $C = e^{-2 (\int dt/\tau)^n}$ with $\tau(t) = \tau_1 t^\mu$.

    Attributes:
        integration: "exact" or "trapezoid" on the frames.
    """

    parameters: ClassVar = (
        tt.ParameterInfo(
            "tau", 10.0, 0.1, 1000.0, "Relaxation time at 1 s", "s^(1-μ)", "relaxation",
            log_space=True,
        ),
        tt.ParameterInfo("mu", 0.5, 0.0, 1.5, "Exponent of ageing", "", "relaxation"),
        tt.ParameterInfo("stretch", 1.0, 0.3, 2.0, "Exponent of the relaxation", "", "relaxation"),
    )  # fmt: skip
    checks: ClassVar = (within("mu", "warning", 0.0, 1.0, "is above 1: hyperageing."),)
    example: ClassVar = Example(
        "An ageing glass: C = exp(-2 (∫ dt/tau(t))^stretch) with tau(t) = tau·t^mu.",
        phi=(0.0,),
        start={"tau": 3.0, "mu": 0.5, "stretch": 1.0},
        truth={"tau": 4.0, "mu": 0.8, "stretch": 0.7},
    )

    integration: Literal["exact", "trapezoid"] = eqx.field(default="exact", static=True)

    def channels(self, params, times, *, t, q, phi):
        tau, mu, stretch = params
        clock = rates.transport_clock(times, 1 / tau, -mu, 0.0, t=t, integration=self.integration)
        none = jnp.zeros((0, times.shape[0]), times.dtype)
        return tt.Channels(
            decay=none, phase=clock[None], level=jnp.broadcast_to(stretch, (1, times.shape[0]))
        )

    def correlation(self, pair):
        return self.field(pair) ** 2

    def field(self, pair):
        elapsed, stretch = pair.shift[0], pair.level1[0]
        apart = elapsed > 0  # a stretched exponential has no derivative at 0
        return jnp.where(apart, jnp.exp(-(jnp.where(apart, elapsed, 1.0) ** stretch)), 1.0)

    def functions(self, params, *, t):
        tau, mu, _ = params
        return {
            "tau": Curve(rates.power_law(rates.regular(t), tau, mu), "s", "τ", "Relaxation time")
        }
