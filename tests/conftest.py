"""What every test runs under."""

import os
from pathlib import Path

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_enable_x64", True)

# Compiling is most of what tests do: what one worker or command compiled serves the others.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    kept = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
    settings_of_jax = {
        "jax_compilation_cache_dir": str(kept),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
    }
    for name, value in settings_of_jax.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)

settings.register_profile("default", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("deep", deadline=None, max_examples=1000)
settings.load_profile("default")


def pytest_collection_modifyitems(items):
    """What has a session of its own is not in the fast core either (`-m "not slow"`)."""
    for item in items:
        if any(map(item.get_closest_marker, ("long", "statistics", "documents"))):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real and reference data next to the repository, where there is one."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the reference data next to the repository are not here")
    return folder


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_code():
    """Every compiled function holds memory maps, of which a process may have only so many."""
    yield
    jax.clear_caches()
