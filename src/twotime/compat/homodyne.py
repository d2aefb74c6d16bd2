"""Kernels of `twotime.compat.jax_backend`: its two factors and the correlation made from them.

The rates, clocks and pixels are those of the models; only the convention differs.
"""

from typing import TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from twotime.models import rates
from twotime.models.base import Channels, Pair, Params
from twotime.models.correlation import pairs
from twotime.models.laminar_flow import sinc
from twotime.models.rates import AnyArray, Scalar, Times

Angles = Float[Array, " angle"]
Plane = Float[Array, "time time"]
Planes = Float[AnyArray, "angle time time"]


def g1_diffusion(params: Params, t: Times, diffusion_factor: Scalar) -> Plane:
    r"""$e^{-k\,|R_i - R_j|}$ with k = 0.5 q² dt and the clock R of J in steps."""
    rate = rates.transport_rate(rates.regular(t), params[0], params[1], params[2])
    clock = diffusion_factor * _clock(rate)
    return _pixels(decay=clock, phase=jnp.zeros_like(clock)).decay[0]


def g1_shear(params: Params, t: Times, phi: Angles, shear_factor: Scalar) -> Planes:
    r"""$(\sin\Phi/\Phi)^2$ with Φ = k cos(φ₀ − φ) (R_i − R_j), k = q L dt/2π, R that of γ̇."""
    if params.shape[0] < 7:
        return jnp.ones((phi.shape[0], t.shape[0], t.shape[0]), t.dtype)
    rate = rates.transport_rate(rates.regular(t), params[3], params[4], params[5])
    clock = shear_factor * _clock(rate)

    def one_angle(angle: Scalar) -> Plane:
        phase = jnp.cos(jnp.deg2rad(params[6] - angle)) * clock
        pixels = _pixels(decay=jnp.zeros_like(clock), phase=phase)
        return sinc(pixels.shift[0], pixels.sin[0]) ** 2

    return jax.vmap(one_angle)(phi)


def g1_total(
    params: Params, t: Times, phi: Angles, diffusion_factor: Scalar, shear_factor: Scalar
) -> Planes:
    """Product of both parts."""
    return g1_diffusion(params, t, diffusion_factor) * g1_shear(params, t, phi, shear_factor)


def g2(
    params: Params,
    t: Times,
    phi: Angles,
    diffusion_factor: Scalar,
    shear_factor: Scalar,
    contrast: Scalar,
    offset: Scalar,
) -> Planes:
    """Offset + contrast · g1²."""
    return offset + contrast * g1_total(params, t, phi, diffusion_factor, shear_factor) ** 2


def g2_sum(params: Params, *arguments: Array) -> Float[Array, ""]:
    """Sum of all g2, whose derivatives have the shape of the parameters."""
    return jnp.sum(g2(params, *arguments))


def chi_squared(
    params: Params, data: Planes, sigma: Float[Array, "..."], *arguments: Array
) -> Float[Array, ""]:
    """Sum of squared deviations in units of sigma."""
    return jnp.sum(((data - g2(params, *arguments)) / sigma) ** 2)


def diffusion_factor(q: ArrayLike, dt: ArrayLike) -> ArrayLike:
    """0.5 q² dt [s/Å²]."""
    return 0.5 * q**2 * dt


def shear_factor(q: ArrayLike, L: ArrayLike, dt: ArrayLike) -> ArrayLike:
    """Wavevector times gap times step over 2π: q L dt / (2π) [s]."""
    return 0.5 / jnp.pi * q * L * dt


def as_floats(x: ArrayLike) -> Array:
    """An array of floats, of the precision that it has already where it has one."""
    return jnp.asarray(x, dtype=jnp.result_type(x, float))


def frame_times(t1: ArrayLike, t2: ArrayLike) -> Times:
    """The frames' times behind two 1-D arrays or two grids.

    Raises:
        ValueError: If they are not the same frames (not asked of traced arrays).
    """
    t1, t2 = as_floats(t1), as_floats(t2)
    if t1.ndim == 2 and t1.shape == t2.shape and t1.shape[0] == t1.shape[1]:
        # Whichever of the two varies along this axis; the other stays at the first time.
        first, second = jnp.maximum(t1[:, 0], t2[:, 0]), jnp.maximum(t1[0], t2[0])
    elif t1.ndim <= 1 and t1.shape == t2.shape:
        first, second = jnp.atleast_1d(t1), jnp.atleast_1d(t2)
    else:
        raise ValueError(
            f"t1 and t2 have shapes {t1.shape} and {t2.shape}; expected the same times twice, "
            "(time,) or (time, time); pass jnp.meshgrid(t, t, indexing='ij') or t itself."
        )
    if not _is_traced(first) and not _is_traced(second) and not np.array_equal(first, second):
        raise ValueError(
            "t1 and t2 hold different times; expected the same frames on both axes; "
            "for other pairs of times use twotime.correlation_at."
        )
    return first


def required_step(dt: ArrayLike | None) -> ArrayLike:
    """The time step, if it is one positive, finite number.

    Raises:
        TypeError: If it is None or not a single number.
        ValueError: If it is not positive and finite (not asked of traced values).
    """
    if _is_traced(dt):
        return dt
    value = np.asarray(dt)
    is_number = np.issubdtype(value.dtype, np.number)
    if is_number and not (np.isfinite(value) & (value > 0)).all():
        raise ValueError(f"dt is {dt} s; expected a finite time between frames > 0 [s].")
    if dt is None or not is_number or value.ndim != 0:
        raise TypeError(
            f"dt is {dt!r}; expected one number, the time between frames [s]; "
            "pass analyzer_parameters.dt of the configuration."
        )
    return dt


def _is_traced(x: object) -> TypeGuard[jax.core.Tracer]:
    return isinstance(x, jax.core.Tracer)


def _clock(rate: Times) -> Times:
    """Running integral of a rate in units of steps."""
    steps = jnp.arange(rate.shape[0], dtype=rate.dtype)
    return rates.running_integral(rate, steps, steps)


def _pixels(*, decay: Times, phase: Times) -> Pair:
    """The whole plane of one decaying clock and one phase."""
    level = jnp.zeros((0, decay.shape[0]), decay.dtype)
    return pairs(Channels(decay=decay[None], phase=phase[None], level=level))
