"""What a command switches on in JAX: double precision, the device, a cache of compiled code."""

import hashlib
import importlib.metadata
import logging
import os
import platform
import sys
from pathlib import Path

_log = logging.getLogger(__name__)


def set_up(device: str) -> None:
    """Switch on double precision and a cache of compiled code, and choose the device.

    Importing twotime does not do this; programs that want the same call this function.

    Args:
        device: "auto", "cpu", "gpu" or "tpu".

    Raises:
        ValueError: If there is no such device.
    """
    import jax

    from twotime import programs

    jax.config.update("jax_enable_x64", True)
    cache = jax.config.values["jax_compilation_cache_dir"]
    if cache is None:
        cache = _cache_folder()
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        programs.keep(cache / "programs")
    _log.debug("compiled code is kept in %s", cache)
    try:
        found = jax.devices()[0] if device == "auto" else jax.devices(device)[0]
    except (RuntimeError, AssertionError) as exc:
        platforms = os.environ.get("JAX_PLATFORMS")
        asked = f"hardware.device is {device!r}" if not platforms or device != "auto" else (
            f"JAX_PLATFORMS is {platforms!r}"
        )  # fmt: skip
        raise ValueError(
            f"{asked}, which JAX does not find here; expected a device of this machine; set auto, "
            "and leave JAX_PLATFORMS out."
        ) from exc
    if device != "auto":
        jax.config.update("jax_default_device", found)


def _cache_folder() -> Path:
    """Folder of compiled code, one for each jaxlib and CPU."""
    base = {"win32": "LOCALAPPDATA"}.get(sys.platform, "XDG_CACHE_HOME")
    parent = Path(os.environ.get(base) or Path.home() / ".cache")
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else [platform.processor()]
    kept = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    cpu = "\n".join(sorted(kept)) or lines[0]
    key = hashlib.sha256(f"{platform.machine()}\n{cpu}".encode()).hexdigest()[:12]
    return parent / "twotime" / f"jaxlib-{importlib.metadata.version('jaxlib')}-{key}"
