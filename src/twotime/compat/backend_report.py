"""What the functional backend runs on and whether its numbers are right here and now."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twotime.compat.homodyne import g1_diffusion, g2
from twotime.compat.meshgrid_cache import get_cache_stats

_TIMED_FRAMES = 200


def validate_backend() -> dict[str, Any]:
    """Compute a correlation with known value, gradient and Hessian and say how it went.

    The case is constant J: g1 = exp(-k J |i - j|), with dg1/dJ = -k |i - j| g1 and so on.

    Returns:
        jax_available: True.
        backend_type: "jax".
        forward_support: Whether values agree with the closed form within the precision.
        gradient_support: Whether derivatives agree.
        hessian_support: Whether second derivatives agree.
        test_results: Largest relative error of each of the three.
        precision: "float64" or "float32".
    """
    k, rate, steps = 0.005, 100.0, 4
    params, t = jnp.asarray([0.0, 0.0, rate]), jnp.arange(1.0, steps + 1)

    def corner(offset: jax.Array) -> jax.Array:
        return g1_diffusion(params.at[2].set(offset), t, k)[0, -1]

    distance = k * (steps - 1)
    value = np.exp(-distance * rate)
    computed = {
        "forward": jax.jit(corner)(params[2]),
        "gradient": jax.jit(jax.grad(corner))(params[2]),
        "hessian": jax.jit(jax.hessian(corner))(params[2]),
    }
    expected = {"forward": value, "gradient": -distance * value, "hessian": distance**2 * value}
    errors = {name: float(abs(x / expected[name] - 1)) for name, x in computed.items()}
    dtype = t.dtype
    tolerance = 100 * float(jnp.finfo(dtype).eps)
    return {
        "jax_available": True,
        "backend_type": "jax",
        **{f"{name}_support": error < tolerance for name, error in errors.items()},
        "test_results": errors,
        "precision": dtype.name,
    }


def get_device_info() -> dict[str, Any]:
    """Devices that computations run on.

    Returns:
        available: True.
        backend: Platform of the default device ("cpu", "gpu", ...).
        devices: Names of all devices of that platform.
        device_count: Their number.
        precision: "float64" or "float32", as new arrays are made.
        jax_version: Version of JAX.
    """
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
    """Measure one correlation on the default device.

    Returns:
        backend_type: "jax".
        jax_available: True.
        device: The default device.
        precision: "float64" or "float32".
        frames: Frames of the measured correlation (one angle, seven parameters).
        compile_seconds: Time of the first call.
        call_seconds: Time of a later call (the fastest of five).
        meshgrid_cache: `get_cache_stats()`.
        recommendations: What would make results better or faster, if anything.
    """
    t = jnp.arange(1, _TIMED_FRAMES + 1) * 0.01
    params = jnp.asarray([1e3, 0.5, 10.0, 0.01, 0.0, 0.0, 0.0])
    arguments = (params, t, jnp.zeros(1), 5e-7, 30.0, 0.3, 1.0)
    kernel = jax.jit(g2)
    seconds = [_seconds(kernel, *arguments) for _ in range(6)]
    precision = t.dtype.name
    return {
        "backend_type": "jax",
        "jax_available": True,
        "device": str(jax.devices()[0]),
        "precision": precision,
        "frames": _TIMED_FRAMES,
        "compile_seconds": seconds[0],
        "call_seconds": min(seconds[1:]),
        "meshgrid_cache": get_cache_stats(),
        "recommendations": _recommendations(precision),
    }


def _seconds(function: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def _recommendations(precision: str) -> list[str]:
    if precision == "float64":
        return []
    return [
        "Correlations are computed in float32, good to about 1e-4; for fits turn on float64 "
        "first: jax.config.update('jax_enable_x64', True)."
    ]
