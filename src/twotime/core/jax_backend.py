r"""Functional API of older homodyne programs, on the same rates and pairs as the models.

For scripts written against it, and to reproduce their numbers. New work should use
`twotime.correlation` with `LaminarFlow`, whose shear law is the published one: the functions
here follow the older convention, g2 = offset + contrast · (g1_diffusion · g1_shear)² with
g1_shear = (sin Φ/Φ)², Φ = q L cos(φ₀ − φ) ∫γ̇ / (2π), which `LaminarFlow` calls
`shear_convention="homodyne"`. It makes a fitted shear rate π/√2 times the published law's.

Every function takes the same arguments, of which some have fewer:

* `params`: D0, alpha, D_offset, gamma_dot_t0, beta, gamma_dot_t_offset, phi0; fewer than seven
  mean no shear.
* `t1`, `t2`: times of the same frames [s], as grids (`jnp.meshgrid(t, t, indexing="ij")`) or as
  the 1-D times themselves.
* `phi`: detector angles [degree]; `q`: wavevector [1/Å]; `L`: gap between stator and rotor [Å].
* `contrast`, `offset`: speckle contrast and baseline.
* `dt`: time between frames, from the configuration [s].

They raise TypeError if dt is None or not a single number, and ValueError if dt is not finite and
positive or t1 and t2 are not the same times.
"""

import dataclasses
import inspect
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike as Num
from jaxtyping import Array, Float

from twotime.models import rates
from twotime.models.base import Channels, Pair, Params, is_concrete
from twotime.models.correlation import pairs
from twotime.models.rates import AnyArray, Scalar, Times, sinc

# Without JAX this module does not import, so there is nothing else for these flags to say.
jax_available = JAX_AVAILABLE = True
numpy_gradients_available = False

Grids = Float[Array, "..."] | Float[np.ndarray, "..."]
Grid = tuple[Float[Array, "first second"], Float[Array, "first second"]]
Angles = Float[Array, " angle"]
Plane = Float[Array, "time time"]
Planes = Float[AnyArray, "angle time time"]
Data = Float[Num, "angle time time"]
Batch = Float[Num, "batch param"]

MAX_ENTRIES = 16
"""Grids that the cache of meshgrids holds."""
MAX_TIMES = 2000
"""Times per axis of the largest grid that it holds."""

# Kernels: clocks in units of steps; k = 0.5 q² dt for diffusion, q L dt / 2π for shear.


def _clock(params: Params, t: Times) -> Times:
    """Running integral of a rate in units of steps."""
    rate = rates.transport_rate(rates.regular(t), params[0], params[1], params[2])
    steps = jnp.arange(rate.shape[0], dtype=rate.dtype)
    return rates.running_integral(rate, steps, steps)


def _pairs(*, decay: Times, phase: Times) -> Pair:
    level = jnp.zeros((0, decay.shape[0]), decay.dtype)
    return pairs(Channels(decay=decay[None], phase=phase[None], level=level))


def _g1_diffusion(params: Params, t: Times, k: Scalar) -> Plane:
    clock = k * _clock(params, t)
    return _pairs(decay=clock, phase=jnp.zeros_like(clock)).decay[0]


def _g1_shear(params: Params, t: Times, phi: Angles, k: Scalar) -> Planes:
    if params.shape[0] < 7:
        return jnp.ones((phi.shape[0], t.shape[0], t.shape[0]), t.dtype)
    clock = k * _clock(params[3:6], t)

    def one_angle(angle: Scalar) -> Plane:
        phase = jnp.cos(jnp.deg2rad(params[6] - angle)) * clock
        pair = _pairs(decay=jnp.zeros_like(clock), phase=phase)
        return sinc(pair.shift[0], pair.sin[0]) ** 2

    return jax.vmap(one_angle)(phi)


def _g1(params: Params, t: Times, phi: Angles, diffusion: Scalar, shear: Scalar) -> Planes:
    return _g1_diffusion(params, t, diffusion) * _g1_shear(params, t, phi, shear)


def _g2(params: Params, *where: Any) -> Planes:
    *axes, contrast, offset = where
    return offset + contrast * _g1(params, *axes) ** 2


def _g2_sum(params: Params, *where: Any) -> Float[Array, ""]:
    return jnp.sum(_g2(params, *where))


def _chi2(params: Params, data: Planes, sigma: Any, *where: Any) -> Float[Array, ""]:
    return jnp.sum(((data - _g2(params, *where)) / sigma) ** 2)


_FAST = {kernel: jax.jit(kernel) for kernel in (_g1_diffusion, _g1_shear, _g1, _g2, _chi2)}
_G2_BATCH = jax.jit(jax.vmap(_g2, in_axes=(0, *[None] * 6)))
_CHI2_BATCH = jax.jit(jax.vmap(_chi2, in_axes=(0, *[None] * 8)))

# Arguments


def _floats(x: Num) -> Array:
    """An array of floats, of the precision that it has already where it has one."""
    return jnp.asarray(x, dtype=jnp.result_type(x, float))


def _frames(t1: Num, t2: Num) -> Times:
    """The frames' times behind two 1-D arrays or two grids."""
    t1, t2 = _floats(t1), _floats(t2)
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
    if is_concrete(first, second) and not np.array_equal(first, second):
        raise ValueError(
            "t1 and t2 hold different times; expected the same frames on both axes; "
            "for other pairs of times use twotime.correlation_at."
        )
    return first


def _step(dt: Num | None) -> Any:
    """The time step, if it is one positive, finite number or traced."""
    if not is_concrete(dt):
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


def _where(t1: Num, t2: Num, phi: Num, q: Any, L: Any, dt: Num | None) -> tuple[Any, ...]:
    """Times, angles and the two factors."""
    dt = _step(dt)
    angles = _floats(phi).reshape(-1)
    return _frames(t1, t2), angles, 0.5 * q**2 * dt, 0.5 / jnp.pi * q * L * dt


# Correlations and chi-squared


def compute_g1_diffusion(params: Num, t1: Grids, t2: Grids, q: Num, dt: Num | None = None) -> Plane:
    r"""Diffusion part of g1: $e^{-\frac12 q^2\int J\,dt}$ by the trapezoid rule on the frames."""
    factor = 0.5 * q**2 * _step(dt)
    return _FAST[_g1_diffusion](_floats(params), _frames(t1, t2), factor)


def compute_g1_shear(
    params: Num, t1: Grids, t2: Grids, phi: Num, q: Num, L: Num, dt: Num | None
) -> Planes:
    r"""Shear part of g1: $(\sin\Phi/\Phi)^2$, 1 on the diagonals."""
    times, angles, _, factor = _where(t1, t2, phi, q, L, dt)
    return _FAST[_g1_shear](_floats(params), times, angles, factor)


def compute_g1_total(
    params: Num, t1: Grids, t2: Grids, phi: Num, q: Num, L: Num, dt: Num | None
) -> Planes:
    """Product of diffusion and shear parts; 1 on the diagonals."""
    return _FAST[_g1](_floats(params), *_where(t1, t2, phi, q, L, dt))


def compute_g2_scaled(
    params: Num, t1: Grids, t2: Grids, phi: Num, q: Num, L: Num, contrast: Num, offset: Num,
    dt: Num | None,
) -> Planes:  # fmt: skip
    """g2 = offset + contrast · g1² of every angle."""
    return _FAST[_g2](_floats(params), *_where(t1, t2, phi, q, L, dt), contrast, offset)


def compute_g2_scaled_with_factors(
    params: Num, t1: Grids, t2: Grids, phi: Num, wavevector_q_squared_half_dt: Num,
    sinc_prefactor: Num, contrast: Num, offset: Num, dt: Num | None,
) -> Planes:  # fmt: skip
    """`compute_g2_scaled` with its two factors computed beforehand.

    Args:
        params: As in the module's text, like all others.
        t1: Times.
        t2: Times.
        phi: Angles.
        wavevector_q_squared_half_dt: 0.5 q² dt [s/Å²].
        sinc_prefactor: q L dt / (2π) [s].
        contrast: Contrast.
        offset: Offset.
        dt: Time between frames that is in both factors; only checked [s].
    """
    _step(dt)
    factors = wavevector_q_squared_half_dt, sinc_prefactor
    where = _frames(t1, t2), _floats(phi).reshape(-1), *factors
    return _FAST[_g2](_floats(params), *where, contrast, offset)


def compute_chi_squared(
    params: Num, data: Data, sigma: Num, t1: Grids, t2: Grids, phi: Num, q: Num, L: Num,
    contrast: Num, offset: Num, dt: Num | None,
) -> Float[Array, ""]:  # fmt: skip
    r"""Chi-squared $\sum_i[(\mathrm{data}_i - \mathrm{theory}_i)/\sigma_i]^2$ over all points.

    Both triangles and the diagonal count, as they are in `data`; `sigma` is one number or one
    per point.
    """
    where = _where(t1, t2, phi, q, L, dt)
    return _FAST[_chi2](_floats(params), data, sigma, *where, contrast, offset)


def vectorized_g2_computation(
    params_batch: Batch, t1: Grids, t2: Grids, phi: Num, q: Num, L: Num, contrast: Num,
    offset: Num, dt: Num | None = None,
) -> Float[Array, "batch angle time time"]:  # fmt: skip
    """`compute_g2_scaled` for a batch of parameter sets at once."""
    where = _where(t1, t2, phi, q, L, dt)
    return _G2_BATCH(_floats(params_batch), *where, contrast, offset)


def batch_chi_squared(
    params_batch: Batch, data: Data, sigma: Num, t1: Grids, t2: Grids, phi: Num, q: Num, L: Num,
    contrast: Num, offset: Num, dt: Num | None = None,
) -> Float[Array, " batch"]:  # fmt: skip
    """`compute_chi_squared` for a batch of parameter sets at once."""
    where = _where(t1, t2, phi, q, L, dt)
    return _CHI2_BATCH(_floats(params_batch), data, sigma, *where, contrast, offset)


def _derivative(of: Callable[..., Any], kernel: Callable[..., Any], name: str, doc: str) -> Any:
    """A compiled derivative with the arguments and checks of `of`."""
    compiled, signature = jax.jit(kernel), inspect.signature(of)
    n_data = 0 if of is compute_g2_scaled else 2

    def derivative(*args: Any, **kwargs: Any) -> Array:
        params, *rest = signature.bind(*args, **kwargs).args
        t1, t2, phi, q, L, contrast, offset, dt = rest[n_data:]
        where = _where(t1, t2, phi, q, L, dt)
        return compiled(_floats(params), *rest[:n_data], *where, contrast, offset)

    derivative.__name__ = derivative.__qualname__ = name
    derivative.__doc__ = f"{doc} all that `{of.__name__}` returns; arguments as there."
    derivative.__signature__ = signature.replace(return_annotation=Array)  # type: ignore[attr-defined]
    return derivative


_JACOBIAN = "Derivative (angle, time, time, param) of"
_GRADIENT = "Gradient (param,) of the sum of"
_HESSIAN = "Second derivatives (param, param) of the sum of"
gradient_g2 = _derivative(compute_g2_scaled, jax.grad(_g2_sum), "gradient_g2", _GRADIENT)
jacobian_g2 = _derivative(compute_g2_scaled, jax.jacfwd(_g2), "jacobian_g2", _JACOBIAN)
hessian_g2 = _derivative(compute_g2_scaled, jax.hessian(_g2_sum), "hessian_g2", _HESSIAN)
gradient_chi2 = _derivative(compute_chi_squared, jax.grad(_chi2), "gradient_chi2", _GRADIENT)
hessian_chi2 = _derivative(compute_chi_squared, jax.hessian(_chi2), "hessian_chi2", _HESSIAN)

# The cache of meshgrids. Nothing here needs it; it serves callers who ask for grids.


@dataclasses.dataclass(frozen=True)
class _Axis:
    """A time array as a key: its whole content with type and place."""

    times: Array = dataclasses.field(compare=False)
    key: tuple[Any, ...]


def _axis(t: Array) -> _Axis:
    return _Axis(t, (t.dtype, np.asarray(t).tobytes(), t.sharding))


@lru_cache(maxsize=MAX_ENTRIES)
def _kept_grid(first: _Axis, second: _Axis) -> Grid:
    return _grid(first.times, second.times)


def _grid(t1: Array, t2: Array) -> Grid:
    first, second = jnp.meshgrid(t1, t2, indexing="ij")
    return first, second


_LOCK = threading.Lock()
_SKIPPED = {"skipped_large": 0, "skipped_traced": 0}


def get_cached_meshgrid(t1: Grids, t2: Grids) -> Grid:
    """Get or create the cached grid of two time arrays, `indexing="ij"`.

    Arrays that are grids already come back as they are. Traced arrays and arrays of more than
    2000 times are gridded afresh and not kept.

    Raises:
        ValueError: If one array is a grid and the other is not.
    """
    t1, t2 = jnp.asarray(t1), jnp.asarray(t2)
    if t1.ndim == 2 and t2.ndim == 2:
        return t1, t2
    if t1.ndim != 1 or t2.ndim != 1:
        raise ValueError(
            f"t1 and t2 have {t1.ndim} and {t2.ndim} axes; expected 1 and 1 (times) or 2 and 2 "
            "(grids); pass both as times."
        )
    is_known = is_concrete(t1, t2)
    with _LOCK:
        if not is_known or max(t1.size, t2.size) > MAX_TIMES:
            _SKIPPED["skipped_large" if is_known else "skipped_traced"] += 1
            return _grid(t1, t2)
        return _kept_grid(_axis(t1), _axis(t2))


def clear_meshgrid_cache() -> None:
    """Drop all cached grids and start their counters again, for example between datasets."""
    _kept_grid.cache_clear()


def get_cache_stats() -> dict[str, int | float]:
    """Statistics of the grid cache since it was last cleared.

    Returns:
        hits, misses: Lookups that found their grid, or made it.
        evictions: Grids dropped to make room (least recently used first).
        skipped_large, skipped_traced: Grids that were not kept, since the start.
        hit_rate: hits / (hits + misses); 0 before the first lookup.
        cache_size: Grids held now.
    """
    hits, misses, _, size = _kept_grid.cache_info()
    rate = hits / (hits + misses) if hits + misses else 0.0
    counts = {"hits": hits, "misses": misses, "evictions": misses - size}
    return counts | _SKIPPED | {"hit_rate": rate, "cache_size": size}


# Reports


def validate_backend() -> dict[str, Any]:
    """Compare a value, its gradient and its Hessian with the closed form of constant J.

    Returns:
        jax_available, backend_type: True and "jax".
        forward_support, gradient_support, hessian_support: Whether each agrees within the
            precision.
        test_results: Largest relative error of each of the three.
        precision: "float64" or "float32".
    """
    k, rate, steps = 0.005, 100.0, 4
    params, t = jnp.asarray([0.0, 0.0, rate]), jnp.arange(1.0, steps + 1)

    def corner(offset: Array) -> Array:
        return _g1_diffusion(params.at[2].set(offset), t, k)[0, -1]

    distance = k * (steps - 1)
    value = np.exp(-distance * rate)
    cases = {
        "forward": (corner, value),
        "gradient": (jax.grad(corner), -distance * value),
        "hessian": (jax.hessian(corner), distance**2 * value),
    }
    errors = {n: float(abs(jax.jit(f)(params[2]) / x - 1)) for n, (f, x) in cases.items()}
    tolerance = 100 * float(jnp.finfo(t.dtype).eps)
    return {
        "jax_available": True,
        "backend_type": "jax",
        **{f"{name}_support": error < tolerance for name, error in errors.items()},
        "test_results": errors,
        "precision": t.dtype.name,
    }


def get_device_info() -> dict[str, Any]:
    """Devices that computations run on: platform, names, number, precision, version of JAX."""
    devices = jax.devices()
    return {
        "available": True,
        "backend": jax.default_backend(),
        "devices": [str(device) for device in devices],
        "device_count": len(devices),
        "precision": jnp.zeros(()).dtype.name,
        "jax_version": jax.__version__,
    }


def get_performance_summary() -> dict[str, Any]:
    """Measure one correlation of 200 frames on the default device.

    Returns:
        compile_seconds, call_seconds: Time of the first call, and of the fastest of five more.
        meshgrid_cache: `get_cache_stats()`.
        recommendations: What would make results better, if anything.
        device, precision, frames, backend_type, jax_available: What was measured.
    """
    t = jnp.arange(1, 201) * 0.01
    params = jnp.asarray([1e3, 0.5, 10.0, 0.01, 0.0, 0.0, 0.0])
    kernel, seconds = jax.jit(_g2), []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(kernel(params, t, jnp.zeros(1), 5e-7, 30.0, 0.3, 1.0))
        seconds.append(time.perf_counter() - start)
    advice = (
        "Correlations are computed in float32, good to about 1e-4; for fits turn on float64 "
        "first: jax.config.update('jax_enable_x64', True)."
    )
    return {
        "backend_type": "jax",
        "jax_available": True,
        "device": str(jax.devices()[0]),
        "precision": t.dtype.name,
        "frames": t.size,
        "compile_seconds": seconds[0],
        "call_seconds": min(seconds[1:]),
        "meshgrid_cache": get_cache_stats(),
        "recommendations": [] if t.dtype == jnp.float64 else [advice],
    }
