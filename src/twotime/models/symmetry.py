"""What of a model could carry other labels: components that may be exchanged.

`TwoComponent` is unchanged where reference and sample change places: both transports are
swapped and x_s becomes 1 - x_s. In its parameters, x_s = f0 exp(f1 (t - f2)) + f3 becomes
-f0 exp(f1 (t - f2)) + 1 - f3, which the bounds (f0 >= 0) allow for a constant fraction alone.
With f1 different from 0 the exchanged law is met as nearly as a rising exponential is like a
falling one, so that the data tell the labels apart as far as they show that curvature. The sign
of the velocity is another such symmetry; the bounds (v0 > 0, phi0 near 0) leave one choice.
"""

from functools import singledispatch

import jax.numpy as jnp
from jaxtyping import Array, Float

from twotime.models import rates
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.rates import AnyArray
from twotime.models.two_component import TwoComponent

_TRANSPORT, _SHARE = 0.2, 0.1

Components = Float[Array, "component quantity time"]


@singledispatch
def components(
    model: AbstractTwoTimeModel,
    params: Float[AnyArray, " param"],
    t: Float[AnyArray, " time"],
) -> Components | None:
    """What tells the components apart: log of the transport coefficient and share of each.

    Args:
        model: The model.
        params: Its parameters.
        t: Times [s].

    Returns:
        Of two components in the order of their labels; None for models that have no such labels.
    """
    return None


@components.register
def _(model: TwoComponent, params: AnyArray, t: AnyArray) -> Components:
    del model
    reference, sample = (jnp.log(rates.transport_rate(t, *params[k : k + 3])) for k in (0, 3))
    x = rates.fraction(t, *params[9:13])
    return jnp.stack([jnp.stack([reference, 1 - x]), jnp.stack([sample, x])])


def is_exchanged(a: Components, b: Components) -> Array:
    """Whether two descriptions are the same but for the labels.

    Transport coefficients must agree within 20 % and shares within 0.1 at all times, and better
    than without exchange.

    Args:
        a: One, see `components`.
        b: The other.
    """

    def distance(x: Components) -> Array:
        away = jnp.abs(x - b).max(axis=(0, 2))
        return jnp.max(away / jnp.asarray([_TRANSPORT, _SHARE]))

    swapped, plain = distance(a[::-1]), distance(a)
    return (swapped <= 1.0) & (swapped < plain)


def is_canonical(a: Components) -> Array:
    """Whether the labels keep the convention: the reference is the slower component.

    Args:
        a: The components, see `components`; their transport is compared on average over time.
    """
    reference, sample = a[:, 0].mean(axis=1)
    return reference <= sample
