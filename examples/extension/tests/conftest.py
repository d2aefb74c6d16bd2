"""Double precision, and data of the law to fit."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A configuration beside its data."""
    from twotime import scaffold

    folder = tmp_path_factory.mktemp("run")
    scaffold.start("ageing_glass", folder / "run.yaml", example=True)
    return folder / "run.yaml"
