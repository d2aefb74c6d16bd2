"""Functions of time that a model's parameters stand for: J(t), D(t), strain, velocity, fraction.

Amplitude, exponent and offset of a rate are strongly degenerate over a finite window; the rate
itself is not. `derived` gives these functions for any parameters, so that bands follow from
draws (`jax.vmap` over parameters) or from a covariance (`jax.jacfwd`).
"""

from functools import singledispatch

from jaxtyping import Array, Float

from twotime.models import rates
from twotime.models.base import AbstractTwoTimeModel, Curve, Params
from twotime.models.laminar_flow import LaminarFlow
from twotime.models.rates import Scalar, Times
from twotime.models.static import StaticDiffusion
from twotime.models.two_component import TwoComponent


@singledispatch
def derived(model: AbstractTwoTimeModel, params: Params, *, t: Times) -> dict[str, Curve]:
    """The functions of time behind a model's parameters.

    A first frame at t = 0 is read half a frame later, where power laws are finite. A model of
    one's own says its functions by `derived.register`; without, it has none.

    Args:
        model: The model.
        params: Parameters in the order of `model.names`.
        t: Times of the frames [s].

    Returns:
        Functions by name. StaticDiffusion: J, D. LaminarFlow: J, D, shear_rate, strain.
        TwoComponent: J_ref, D_ref, J_sample, D_sample, v, displacement, x_s.
    """
    del model, params, t
    return {}


@derived.register
def _(model: StaticDiffusion, params: Params, *, t: Times) -> dict[str, Curve]:
    del model
    return _transport(params, t)


@derived.register
def _(model: LaminarFlow, params: Params, *, t: Times) -> dict[str, Curve]:
    flow = params[3], params[4], params[5]
    rate = rates.transport_rate(rates.regular(t), *flow)
    strain = rates.transport_clock(t, *flow, t=t, integration=model.integration)
    return _transport(params, t) | {
        "shear_rate": Curve(rate, "1/s", "γ̇", "Shear rate"),
        "strain": Curve(strain - strain[0], "", "Γ", "Strain since the first frame"),
    }


@derived.register
def _(model: TwoComponent, params: Params, *, t: Times) -> dict[str, Curve]:
    flow = params[6], params[7], params[8]
    velocity = rates.signed_rate(rates.regular(t), *flow)
    path = rates.signed_clock(t, *flow, t=t, integration=model.integration)
    fraction = rates.fraction(t, params[9], params[10], params[11], params[12])
    return (
        _transport(params[:3], t, "_ref", "_r", " of the reference")
        | _transport(params[3:6], t, "_sample", "_s", " of the sample")
        | {
            "v": Curve(velocity, "Å/s", "v", "Velocity of the sample"),
            "displacement": Curve(path - path[0], "Å", "∫v dt", "Way since the first frame"),
            "x_s": Curve(fraction, "", "x_s", "Fraction of the sample"),
        }
    )


def peclet(
    shear_rate: Float[Array, "..."], diffusion: Float[Array, "..."], radius: Scalar
) -> Float[Array, "..."]:
    r"""Péclet number $\dot\gamma a^2/D$ of particles of known radius a.

    The correlation does not know the radius, so this is no part of `derived`.

    Args:
        shear_rate: Shear rate [1/s].
        diffusion: Diffusion coefficient D = J/2 [Å²/s].
        radius: Particle radius a [Å].

    Returns:
        Shear against diffusion over one radius; pure number.
    """
    return shear_rate * radius**2 / diffusion


def _transport(
    params: Params, t: Times, suffix: str = "", index: str = "", of: str = ""
) -> dict[str, Curve]:
    rate = rates.transport_rate(rates.regular(t), params[0], params[1], params[2])
    return {
        f"J{suffix}": Curve(
            rate, "Å²/s", f"J{index}", f"Growth rate of the variance of the displacement{of}"
        ),
        f"D{suffix}": Curve(0.5 * rate, "Å²/s", f"D{index}", f"Diffusion coefficient{of}, J/2"),
    }
