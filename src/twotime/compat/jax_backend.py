"""Functional API of older homodyne programs, on the same rates and clocks as the models.

For scripts written against it, and to reproduce their numbers. New work should use
`twotime.correlation` with `LaminarFlow`, whose shear law is the published one: the functions
here follow the older convention, g2 = offset + contrast · (g1_diffusion · g1_shear)² with
g1_shear = (sin Φ/Φ)², Φ = q L cos(φ₀ − φ) ∫γ̇ / (2π), which `LaminarFlow` calls
`shear_convention="homodyne"`. It makes a fitted shear rate π/√2 times the published law's.

Times may be given as grids (`jnp.meshgrid(t, t, indexing="ij")`) or as the 1-D times
themselves; t1 and t2 are the same frames. Results for frames are (angle, time, time).
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from twotime.compat import homodyne
from twotime.compat.backend_report import get_device_info, get_performance_summary, validate_backend
from twotime.compat.homodyne import (
    Planes,
    as_floats,
    diffusion_factor,
    frame_times,
    required_step,
    shear_factor,
)
from twotime.compat.meshgrid_cache import clear_meshgrid_cache, get_cache_stats, get_cached_meshgrid

__all__ = [
    "JAX_AVAILABLE",
    "batch_chi_squared",
    "clear_meshgrid_cache",
    "compute_chi_squared",
    "compute_g1_diffusion",
    "compute_g1_shear",
    "compute_g1_total",
    "compute_g2_scaled",
    "compute_g2_scaled_with_factors",
    "get_cache_stats",
    "get_cached_meshgrid",
    "get_device_info",
    "get_performance_summary",
    "gradient_chi2",
    "gradient_g2",
    "hessian_chi2",
    "hessian_g2",
    "jacobian_g2",
    "jax_available",
    "numpy_gradients_available",
    "validate_backend",
    "vectorized_g2_computation",
]

# Without JAX this module does not import, so there is nothing else for these flags to say.
jax_available = True
JAX_AVAILABLE = jax_available
numpy_gradients_available = False

Grids = Float[Array, "..."] | Float[np.ndarray, "..."]

_g1_diffusion = jax.jit(homodyne.g1_diffusion)
_g1_shear = jax.jit(homodyne.g1_shear)
_g1_total = jax.jit(homodyne.g1_total)
_g2 = jax.jit(homodyne.g2)
_chi_squared = jax.jit(homodyne.chi_squared)
_g2_batch = jax.jit(jax.vmap(homodyne.g2, in_axes=(0, *[None] * 6)))
_chi_squared_batch = jax.jit(jax.vmap(homodyne.chi_squared, in_axes=(0, *[None] * 8)))


def compute_g1_diffusion(
    params: ArrayLike, t1: Grids, t2: Grids, q: ArrayLike, dt: ArrayLike | None = None
) -> Float[Array, "time time"]:
    r"""Diffusion part of g1: $e^{-\frac12 q^2\int J\,dt}$ by the trapezoid rule on the frames.

    Args:
        params: D0, alpha, D_offset, and any more, which are ignored.
        t1: Times of the frames, 1-D or as a grid [s].
        t2: The same times [s].
        q: Wavevector [1/Å].
        dt: Time between frames, from the configuration [s].

    Returns:
        g1_diffusion, 1 on the diagonal.

    Raises:
        TypeError: If dt is None or not a single number.
        ValueError: If dt <= 0 or not finite, or t1 and t2 are not the same times.
    """
    dt = required_step(dt)
    return _g1_diffusion(as_floats(params), frame_times(t1, t2), diffusion_factor(q, dt))


def compute_g1_shear(
    params: ArrayLike,
    t1: Grids,
    t2: Grids,
    phi: ArrayLike,
    q: ArrayLike,
    L: ArrayLike,
    dt: ArrayLike | None,
) -> Planes:
    r"""Shear part of g1: $(\sin\Phi/\Phi)^2$ with $\Phi = q L\cos(\phi_0-\phi)\int\dot\gamma/2\pi$.

    Args:
        params: D0, alpha, D_offset, gamma_dot_t0, beta, gamma_dot_t_offset, phi0; fewer than
            seven mean no shear, and the result is 1.
        t1: Times of the frames, 1-D or as a grid [s].
        t2: The same times [s].
        phi: Detector angles [degree].
        q: Wavevector [1/Å].
        L: Gap between stator and rotor [Å].
        dt: Time between frames, from the configuration [s].

    Returns:
        g1_shear, 1 on the diagonals.

    Raises:
        TypeError: If dt is None or not a single number.
        ValueError: If dt <= 0 or not finite, or t1 and t2 are not the same times.
    """
    dt = required_step(dt)
    return _g1_shear(as_floats(params), frame_times(t1, t2), _angles(phi), shear_factor(q, L, dt))


def compute_g1_total(
    params: ArrayLike,
    t1: Grids,
    t2: Grids,
    phi: ArrayLike,
    q: ArrayLike,
    L: ArrayLike,
    dt: ArrayLike | None,
) -> Planes:
    """Product of diffusion and shear parts; arguments and errors as `compute_g1_shear`.

    Returns:
        g1, 1 on the diagonals.
    """
    dt = required_step(dt)
    return _g1_total(
        as_floats(params),
        frame_times(t1, t2),
        _angles(phi),
        diffusion_factor(q, dt),
        shear_factor(q, L, dt),
    )


def compute_g2_scaled(
    params: ArrayLike,
    t1: Grids,
    t2: Grids,
    phi: ArrayLike,
    q: ArrayLike,
    L: ArrayLike,
    contrast: ArrayLike,
    offset: ArrayLike,
    dt: ArrayLike | None,
) -> Planes:
    """g2 = offset + contrast · g1²; further arguments and errors as `compute_g1_shear`.

    Args:
        params: See `compute_g1_shear`.
        t1: Times of the frames, 1-D or as a grid [s].
        t2: The same times [s].
        phi: Detector angles [degree].
        q: Wavevector [1/Å].
        L: Gap between stator and rotor [Å].
        contrast: Speckle contrast.
        offset: Baseline.
        dt: Time between frames, from the configuration [s].

    Returns:
        g2 of every angle.
    """
    return _g2(*_g2_arguments(params, t1, t2, phi, q, L, contrast, offset, dt))


def compute_g2_scaled_with_factors(
    params: ArrayLike,
    t1: Grids,
    t2: Grids,
    phi: ArrayLike,
    wavevector_q_squared_half_dt: ArrayLike,
    sinc_prefactor: ArrayLike,
    contrast: ArrayLike,
    offset: ArrayLike,
    dt: ArrayLike | None,
) -> Planes:
    """`compute_g2_scaled` with its two factors computed beforehand.

    Args:
        params: See `compute_g1_shear`.
        t1: Times of the frames, 1-D or as a grid [s].
        t2: The same times [s].
        phi: Detector angles [degree].
        wavevector_q_squared_half_dt: 0.5 q² dt [s/Å²].
        sinc_prefactor: q L dt / (2π) [s].
        contrast: Speckle contrast.
        offset: Baseline.
        dt: Time between frames that is in both factors; only checked [s].

    Returns:
        g2 of every angle.
    """
    required_step(dt)
    return _g2(
        as_floats(params),
        frame_times(t1, t2),
        _angles(phi),
        wavevector_q_squared_half_dt,
        sinc_prefactor,
        contrast,
        offset,
    )


def compute_chi_squared(
    params: ArrayLike,
    data: Float[ArrayLike, "angle time time"],
    sigma: ArrayLike,
    t1: Grids,
    t2: Grids,
    phi: ArrayLike,
    q: ArrayLike,
    L: ArrayLike,
    contrast: ArrayLike,
    offset: ArrayLike,
    dt: ArrayLike | None,
) -> Float[Array, ""]:
    r"""Chi-squared $\sum_i[(\mathrm{data}_i - \mathrm{theory}_i)/\sigma_i]^2$ over all pixels.

    Both triangles and the diagonal count, as they are in `data`.

    Args:
        params: See `compute_g1_shear`.
        data: Measured g2 of every angle.
        sigma: Its uncertainty, one number or one per pixel.
        t1: Times of the frames, 1-D or as a grid [s].
        t2: The same times [s].
        phi: Detector angles [degree].
        q: Wavevector [1/Å].
        L: Gap between stator and rotor [Å].
        contrast: Speckle contrast.
        offset: Baseline.
        dt: Time between frames, from the configuration [s].

    Returns:
        Chi-squared.
    """
    arguments = _g2_arguments(params, t1, t2, phi, q, L, contrast, offset, dt)
    return _chi_squared(arguments[0], data, sigma, *arguments[1:])


def vectorized_g2_computation(
    params_batch: Float[ArrayLike, "batch param"],
    t1: Grids,
    t2: Grids,
    phi: ArrayLike,
    q: ArrayLike,
    L: ArrayLike,
    contrast: ArrayLike,
    offset: ArrayLike,
    dt: ArrayLike | None = None,
) -> Float[Array, "batch angle time time"]:
    """`compute_g2_scaled` for a batch of parameter sets at once."""
    return _g2_batch(*_g2_arguments(params_batch, t1, t2, phi, q, L, contrast, offset, dt))


def batch_chi_squared(
    params_batch: Float[ArrayLike, "batch param"],
    data: Float[ArrayLike, "angle time time"],
    sigma: ArrayLike,
    t1: Grids,
    t2: Grids,
    phi: ArrayLike,
    q: ArrayLike,
    L: ArrayLike,
    contrast: ArrayLike,
    offset: ArrayLike,
    dt: ArrayLike | None = None,
) -> Float[Array, " batch"]:
    """`compute_chi_squared` for a batch of parameter sets at once."""
    arguments = _g2_arguments(params_batch, t1, t2, phi, q, L, contrast, offset, dt)
    return _chi_squared_batch(arguments[0], data, sigma, *arguments[1:])


def _g2_arguments(
    params: ArrayLike,
    t1: Grids,
    t2: Grids,
    phi: ArrayLike,
    q: ArrayLike,
    L: ArrayLike,
    contrast: ArrayLike,
    offset: ArrayLike,
    dt: ArrayLike | None,
) -> tuple:
    dt = required_step(dt)
    return (
        as_floats(params),
        frame_times(t1, t2),
        _angles(phi),
        diffusion_factor(q, dt),
        shear_factor(q, L, dt),
        contrast,
        offset,
    )


def _angles(phi: ArrayLike) -> Float[Array, " angle"]:
    return as_floats(phi).reshape(-1)


def _derivative(of: Callable, kernel: Callable, name: str, doc: str) -> Callable:
    """A compiled derivative with the arguments and checks of `compute_g2_scaled` or chi-squared."""
    n_data = 0 if of is compute_g2_scaled else 2
    compiled = jax.jit(kernel)
    signature = inspect.signature(of)

    def derivative(*args: Any, **kwargs: Any) -> Array:
        params, *rest = signature.bind(*args, **kwargs).args
        arguments = _g2_arguments(params, *rest[n_data:])
        return compiled(arguments[0], *rest[:n_data], *arguments[1:])

    derivative.__name__ = derivative.__qualname__ = name
    derivative.__doc__ = doc
    derivative.__signature__ = signature.replace(  # type: ignore[attr-defined]
        return_annotation=Array
    )
    return derivative


gradient_g2 = _derivative(
    compute_g2_scaled,
    jax.grad(homodyne.g2_sum),
    "gradient_g2",
    """Gradient (param,) of the sum of all g2; each pixel's own is in `jacobian_g2`.

    Arguments and errors as `compute_g2_scaled`.
    """,
)
jacobian_g2 = _derivative(
    compute_g2_scaled,
    jax.jacfwd(homodyne.g2),
    "jacobian_g2",
    """Derivative (angle, time, time, param) of every g2 by every parameter.

    Arguments and errors as `compute_g2_scaled`.
    """,
)
hessian_g2 = _derivative(
    compute_g2_scaled,
    jax.hessian(homodyne.g2_sum),
    "hessian_g2",
    """Second derivatives (param, param) of the sum of all g2.

    Arguments and errors as `compute_g2_scaled`.
    """,
)
gradient_chi2 = _derivative(
    compute_chi_squared,
    jax.grad(homodyne.chi_squared),
    "gradient_chi2",
    """Gradient (param,) of chi-squared; arguments and errors as `compute_chi_squared`.""",
)
hessian_chi2 = _derivative(
    compute_chi_squared,
    jax.hessian(homodyne.chi_squared),
    "hessian_chi2",
    """Second derivatives (param, param) of chi-squared; arguments as `compute_chi_squared`.""",
)
