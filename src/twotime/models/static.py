"""Diffusion alone: `StaticDiffusion`."""

from typing import final

import equinox as eqx
import jax.numpy as jnp

from twotime.models import rates
from twotime.models.base import AbstractTwoTimeModel, Channels, Terms, diffusion_clock
from twotime.models.rates import Integration


@final
class StaticDiffusion(AbstractTwoTimeModel):
    r"""Diffusion with an ageing transport coefficient: $C = e^{-q^2\int J\,dt}$.

    $J(t) = D_0 t^\alpha + D_\mathrm{off}$ [Å²/s] is the growth rate of the variance of the
    displacement along q; Brownian motion with coefficient D has J = 2D.

    Attributes:
        integration: "trapezoid" on the frames or "exact" (closed form of the power law).

    Reference:
        He et al., PNAS 121, e2401162121 (2024), with zero shear.
    """

    names: tuple[str, ...] = eqx.field(default=("D0", "alpha", "D_offset"), static=True, init=False)
    integration: Integration = eqx.field(default="trapezoid", static=True)

    def __check_init__(self) -> None:
        rates.check_integration(self.integration)

    def channels(self, params, times, *, t, q, phi):
        decay = diffusion_clock(self.integration, params, times, t=t, q=q)[None]
        none = jnp.zeros((0, times.shape[0]), times.dtype)
        return Channels(decay, none, none)

    def correlation(self, pair):
        return pair.decay[0]

    def field(self, pair):
        return jnp.sqrt(pair.decay[0])

    @property
    def is_separable(self):
        return True

    def terms(self, channels):
        nothing = jnp.zeros_like(channels.decay)
        return Terms(jnp.ones_like(channels.decay), channels.decay, nothing, (False,))
