"""A moving sample that beats against a reference: `TwoComponent`."""

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp

from twotime.models import rates
from twotime.models.base import AbstractTwoTimeModel, Channels, Terms, diffusion_clock
from twotime.models.rates import Integration


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

    names: tuple[str, ...] = eqx.field(
        default=(
            "D0_ref",
            "alpha_ref",
            "D_offset_ref",
            "D0_sample",
            "alpha_sample",
            "D_offset_sample",
            "v0",
            "beta",
            "v_offset",
            "f0",
            "f1",
            "f2",
            "f3",
            "phi0",
        ),
        static=True,
        init=False,
    )
    integration: Integration = eqx.field(default="trapezoid", static=True)

    def __check_init__(self) -> None:
        rates.check_integration(self.integration)

    def channels(self, params, times, *, t, q, phi):
        reference = diffusion_clock(self.integration, params[0:3], times, t=t, q=q)
        sample = diffusion_clock(self.integration, params[3:6], times, t=t, q=q)
        path = rates.signed_clock(
            times, params[6], params[7], params[8], t=t, integration=self.integration
        )
        phase = q * jnp.cos(jnp.deg2rad(phi - params[13])) * path
        x = rates.fraction(times, params[9], params[10], params[11], params[12])
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

    @property
    def is_separable(self):
        return True

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
