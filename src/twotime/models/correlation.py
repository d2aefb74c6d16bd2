"""A model's correlation on the whole plane or at given pairs of times, by one path."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Num

from twotime.compilation import verb
from twotime.models.arguments import axes, axes_of_matrices, parameters_of
from twotime.models.base import AbstractTwoTimeModel, Channels, Pair, Params, floating
from twotime.models.rates import AnyArray, GivenTimes, Scalar, Times

Angles = Num[AnyArray, " angle"]
Given = Num[AnyArray, " param"] | Mapping[str, Any]
PairTimes = Num[AnyArray, " pair"]


@verb
def correlation(
    model: AbstractTwoTimeModel, params: Given, *, t: GivenTimes, q: Scalar | Angles, phi: Angles
) -> Float[Array, "angle time time"]:
    """Normalised two-time correlation C on the plane, before contrast and offset.

    Args:
        model: The model.
        params: Parameters in the order of `model.names`, or by name.
        t: Frame times [s].
        q: Wavevector, one or one per angle [1/Å].
        phi: Detector angles [degree].

    Returns:
        C, symmetric in its last two axes and 1 on their diagonal.

    Raises:
        ValueError: If parameters, t or q cannot be used.
        TypeError: If `model` is no law.
    """
    at = axes_of_matrices(t, q, phi)
    return _correlation(model, parameters_of(model, params), *at)


@verb
def field(
    model: AbstractTwoTimeModel, params: Given, *, t: GivenTimes, q: Scalar | Angles, phi: Angles
) -> Complex[Array, "angle time time"]:
    """Correlation g1 of the scattered field on the plane: |g1|² is `correlation`.

    Args:
        model: A model with a field correlation.
        params: Parameters in the order of `model.names`, or by name.
        t: Frame times [s].
        q: Wavevector, one or one per angle [1/Å].
        phi: Detector angles [degree].

    Returns:
        <E*(t1) E(t2)>, Hermitian in its last two axes and 1 on their diagonal.

    Raises:
        TypeError: If the model has no field correlation.
    """
    at = axes_of_matrices(t, q, phi)
    return _field(model, parameters_of(model, params), *at)


@verb
def correlation_at(
    model: AbstractTwoTimeModel,
    params: Given,
    t1: PairTimes,
    t2: PairTimes,
    *,
    t: GivenTimes,
    q: Scalar,
    phi: Scalar,
) -> Float[Array, " pair"]:
    """Normalised correlation at pairs of times for one angle; the times need not be frames.

    Args:
        model: The model.
        params: Parameters in the order of `model.names`, or by name.
        t1: First time of each pair, inside the span of `t` [s].
        t2: Second time of each pair, inside the span of `t` [s].
        t: Frame grid on which rates are integrated [s].
        q: Wavevector [1/Å].
        phi: Detector angle [degree].

    Returns:
        C at each pair; the order within a pair does not matter.
    """
    at, (t1, t2) = axes(t, q, phi), (floating(t1), floating(t2))
    if t1.ndim != 1 or t1.shape != t2.shape:
        raise ValueError(f"t1 and t2 have shapes {t1.shape} and {t2.shape}; expected (pair,) both.")
    return _correlation_at(model, parameters_of(model, params), t1, t2, *at)


@eqx.filter_jit
def _correlation(
    model: AbstractTwoTimeModel, params: Params, t: Times, q: Scalar | Angles, phi: Angles
) -> Array:
    def plane(q: Scalar, angle: Scalar) -> Array:
        return model.correlation(pairs(model.channels(params, t, t=t, q=q, phi=angle)))

    return _over_matrices(plane, q, phi)


@eqx.filter_jit
def _field(
    model: AbstractTwoTimeModel, params: Params, t: Times, q: Scalar | Angles, phi: Angles
) -> Array:
    upper = jnp.arange(t.shape[0])[:, None] <= jnp.arange(t.shape[0])[None, :]

    def plane(q: Scalar, angle: Scalar) -> Array:
        channels = model.channels(params, t, t=t, q=q, phi=angle)
        g1 = model.field(pairs(channels)) + 0j
        return jnp.where(upper, g1, g1.conj())

    return _over_matrices(plane, q, phi)


def _over_matrices(plane: Callable[..., Array], q: Scalar | Angles, phi: Angles) -> Array:
    """A function of wavevector and angle of each matrix; there may be one wavevector for all."""
    if jnp.ndim(q):
        return jax.lax.map(lambda at: plane(*at), (q, phi))
    return jax.lax.map(lambda angle: plane(q, angle), phi)


@eqx.filter_jit
def _correlation_at(
    model: AbstractTwoTimeModel,
    params: Params,
    t1: PairTimes,
    t2: PairTimes,
    t: Times,
    q: Scalar,
    phi: Scalar,
) -> Array:
    both = jnp.concatenate([jnp.minimum(t1, t2), jnp.maximum(t1, t2)])
    channels = model.channels(params, both, t=t, q=q, phi=phi)
    early = jnp.arange(t1.shape[0])
    return model.correlation(pairs(channels, early, early + t1.shape[0], t1 == t2))


def pairs(
    channels: Channels,
    early: AnyArray | None = None,
    late: AnyArray | None = None,
    same: AnyArray | None = None,
    *,
    by_products: bool = False,
) -> Pair:
    """Form pairs of times from the channels at each time.

    Compiled code may compute one clock twice with different rounding, so differences of
    clocks are set to zero where the two times are the same, and decays never exceed 1.

    Args:
        channels: Channels at some times.
        early: Index of the first time of each pair, not after `late`; left out: the whole plane,
            whose pairs below the diagonal are those above it.
        late: Index of the second time.
        same: Where the two times are equal; left out: where the indices are.
        by_products: Whether sine and cosine of differences are sums of products of those at the
            two times: less work where few times make many pairs; rounded otherwise.
    """
    if early is None or late is None:
        index = jnp.arange(channels.decay.shape[1])
        early = jnp.minimum(index[:, None], index[None, :])
        late = jnp.maximum(index[:, None], index[None, :])
    same = early == late if same is None else same
    shift = jnp.where(same, 0.0, channels.phase[:, late] - channels.phase[:, early])
    fall = channels.decay[:, early] - channels.decay[:, late]
    sin, cos = jnp.sin(shift), jnp.cos(shift)
    if by_products:
        sin, cos = jnp.sin(channels.phase), jnp.cos(channels.phase)
        sin1, cos1, sin2, cos2 = sin[:, early], cos[:, early], sin[:, late], cos[:, late]
        sin, cos = sin2 * cos1 - cos2 * sin1, cos2 * cos1 + sin2 * sin1
    return Pair(
        decay=jnp.exp(jnp.where(same | (fall > 0.0), 0.0, fall)),
        shift=shift,
        sin=sin,
        cos=cos,
        level1=channels.level[:, early],
        level2=channels.level[:, late],
    )
