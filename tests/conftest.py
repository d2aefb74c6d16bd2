"""What every test runs under."""

from pathlib import Path

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_enable_x64", True)

settings.register_profile("default", deadline=None, max_examples=50, derandomize=True)
settings.register_profile("deep", deadline=None, max_examples=1000)
settings.load_profile("default")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real and reference data beside the repository, where there is one."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the reference data beside the repository are not here")
    return folder


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_code():
    """Every compiled function holds memory maps, of which a process may have only so many."""
    yield
    jax.clear_caches()
