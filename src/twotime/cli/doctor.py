"""What this installation is and can do, and a small fit whose answer is known."""

import importlib.metadata
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from twotime.config.parameter_space import ParameterSpace
from twotime.data.simulate import simulate
from twotime.fit import fit_nlsq
from twotime.models import LAWS
from twotime.results.storage import __version__

_LIBRARIES = ("jax", "jaxlib", "equinox", "optimistix", "numpy", "h5py", "matplotlib")
_FAR = 4.0
"""Standard deviations from the truth that a fit of the self-test may have."""


def examine() -> Iterator[tuple[str, str]]:
    """Facts about the installation by name, quick ones first."""
    yield "twotime", f"{__version__}, Python {platform.python_version()}, {platform.system()}"
    versions = (f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    yield "libraries", ", ".join(versions)
    yield "devices", ", ".join(f"{d.platform}:{d.id} ({d.device_kind})" for d in jax.devices())
    yield "precision", "float64" if jax.numpy.ones(1).dtype == np.float64 else "float32"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "threads", f"{cores} of {os.cpu_count()} cores; XLA_FLAGS={os.environ.get('XLA_FLAGS')}"
    cache = jax.config.values["jax_compilation_cache_dir"]
    size = sum(e.stat().st_size for e in Path(cache).rglob("*")) if cache else 0
    yield "compiled code", f"{cache} ({size / 1e6:.0f} MB)"


def self_test() -> tuple[bool, str]:
    """Fit simulated data of known truth; returns whether it is found, and the numbers."""
    model: Any = LAWS["static"]  # a class without fields that are needed
    model, truth = model(), np.array([2e4, -0.2, 0.0])
    data = simulate(
        model, truth, t=0.1 * np.arange(1, 41), q=0.005, phi=np.array([0.0, 90.0]), contrast=0.3,
        offset=1.0, noise=0.01, key=jax.random.key(0),
    )  # fmt: skip
    begun = time.perf_counter()
    fit = fit_nlsq(model, data, ParameterSpace.from_config({"analysis_mode": "static"}))
    seconds = time.perf_counter() - begun
    far, said = [], []
    for name, true in zip(("D0", "alpha"), truth, strict=False):
        value, deviation = fit.params[name], fit.uncertainties[name]
        far.append(abs(value - true) / deviation)
        said.append(f"{name} = {value:.4g} ± {deviation:.2g} (true {true:g})")
    is_good = bool(fit.converged) and max(far) < _FAR
    return is_good, f"{'passed' if is_good else 'FAILED'}: {', '.join(said)}; {seconds:.1f} s"
