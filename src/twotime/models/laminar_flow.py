"""Diffusion in a sheared suspension: `LaminarFlow`."""

from typing import Any, ClassVar, Literal, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from twotime.models import base, rates
from twotime.models.base import Curve, Pair, Setting
from twotime.models.proposals import Alternatives, Coordinates, Plan, Stage
from twotime.models.rates import Integration, PowerLaw, Scalar, sinc
from twotime.models.static import StaticDiffusion, transport_functions

ShearConvention = Literal["published", "homodyne"]


@final
class LaminarFlow(base.AbstractTwoTimeModel):
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

    Reference:
        He et al., PNAS 121, e2401162121 (2024).
    """

    analysis_mode: ClassVar = "laminar_flow"
    transport: ClassVar = StaticDiffusion.transport
    shear: ClassVar = PowerLaw("gamma_dot_t0", "beta", "gamma_dot_t_offset")
    parameters: ClassVar = (
        *StaticDiffusion.parameters,
        *base.parameter_group(
            "flow",
            (shear.amplitude, 0.01, 1e-6, 0.5, 0.01, 0.1, "1/s^(1+β)", "Shear rate at t = 1 s"),
            (shear.exponent, 0.5, -2.0, 2.0, 0.0, 0.5, "", "Exponent in time of the shear rate"),
            (shear.offset, 0.0, -0.1, 0.1, 0.0, 0.02, "1/s", "Constant part of the shear rate"),
            is_flow=True,
            fixed=(shear.offset,),
        ),
        base.FLOW_DIRECTION,
    )
    settings: ClassVar = (
        base.INTEGRATION,
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
    checks: ClassVar = (*StaticDiffusion.checks, base.exponent_check("beta"))
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

    gap: Scalar = eqx.field(default=2.0e6, converter=base.number)
    shear_convention: ShearConvention = eqx.field(default="published", static=True)
    integration: Integration = eqx.field(
        default="trapezoid", static=True, converter=rates.check_integration
    )

    def __check_init__(self) -> None:
        if self.shear_convention not in ("published", "homodyne"):
            raise ValueError(
                f"shear_convention is {self.shear_convention!r}; expected 'published' or "
                "'homodyne'; use 'published' unless older results must be reproduced."
            )

    def natural_rates(self, q):
        diffusion = dict.fromkeys(self.transport.amplitudes, q**2)
        return diffusion | dict.fromkeys(self.shear.amplitudes, 0.5 * q * self.gap)

    def channels(self, params, times, *, t, q, phi):
        values = self.named(params)
        decay = q**2 * self.transport.clock(values, times, t=t, integration=self.integration)
        strain = self.shear.clock(values, times, t=t, integration=self.integration)
        half = 0.5 if self.shear_convention == "published" else 0.5 / jnp.pi
        across = half * q * jnp.asarray(self.gap, times.dtype)
        phase = across * jnp.cos(jnp.deg2rad(phi - values["phi0"])) * strain
        return base.Channels(decay[None], phase[None], jnp.zeros((0, times.shape[0]), times.dtype))

    def correlation(self, pair):
        return pair.decay[0] * self._profile(pair) ** 2

    def field(self, pair):
        return jnp.sqrt(pair.decay[0]) * self._profile(pair)

    def _profile(self, pair: Pair) -> Array:
        mean = sinc(pair.shift[0], pair.sin[0])
        return mean if self.shear_convention == "published" else mean**2

    def functions(self, params, *, t):
        values = self.named(params)
        rate = self.shear.rate(values, rates.regular(t))
        strain = self.shear.clock(values, t, t=t, integration=self.integration)
        return transport_functions(self.transport, values, t) | {
            "shear_rate": Curve(rate, "1/s", "γ̇", "Shear rate"),
            "strain": Curve(strain - strain[0], "", "Γ", "Strain since the first frame"),
        }

    def proposals(self, scene):
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
            transport = scene.power(self.transport, c["J"], c["alpha"])
            return transport | scene.power(self.shear, c["rate"], c["beta"]) | {"phi0": c["phi0"]}

        turn = (self.shear, "phi0", scene.across("phi0", 5))
        others = Alternatives(scene, (self.transport, self.shear), turn=turn)
        return Plan(stages, params, others)


def peclet(shear_rate: Array, diffusion: Array, radius: Scalar) -> Array:
    r"""Péclet number $\dot\gamma a^2/D$ of a shear rate [1/s], D = J/2 [Å²/s] and a radius a [Å].

    The correlation does not know the radius, so this is not one of the model's `functions`.
    """
    return shear_rate * radius**2 / diffusion
