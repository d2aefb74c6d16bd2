"""Files to start from: a configuration, and data simulated from one."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from twotime.config.files import parse_yaml, template, truth
from twotime.config.manager import ConfigManager, build_model
from twotime.data.dataset import TwoTimeData
from twotime.data.simulate import simulate, simulate_speckle
from twotime.data.write import write_apsu
from twotime.disk import replacing, write_text
from twotime.errors import ConfigurationError, ResultError
from twotime.results.folder import writing

EXAMPLE = "example.h5"


def start(
    model: str, path: Path, *, example: bool = False, full: bool = False, overwrite: bool = False
) -> tuple[Path, ...]:
    """Write a configuration, and the data for it if asked for.

    Args:
        model: static, laminar_flow, two_component, or the import path of a law.
        path: The configuration file to write.
        example: Whether to simulate its data file in the same folder.
        full: Whether to include every key.
        overwrite: Whether existing files may be replaced.

    Returns:
        The files written.

    Raises:
        ResultError: If a file exists and may not be replaced, or cannot be written.
    """
    data = path.parent / EXAMPLE
    written = (path, data) if example else (path,)
    for file in written:
        check_new(file, overwrite=overwrite)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            write_text(temporary, template(model, full=full))
    if example:
        config = ConfigManager(parse_yaml(truth(model).encode(), model), base_dir=path.parent)
        write_apsu(data, simulate_config(config), dt=config.dt, overwrite=overwrite)
    return written


def simulate_file(
    config: ConfigManager, output: Path, *, overwrite: bool = False, **options: Any
) -> None:
    """Write a data file in the APS-U layout with the parameters of a configuration.

    Args:
        config: The configuration.
        output: The data file to write.
        overwrite: Whether an existing file may be replaced.
        options: Arguments of `simulate_config`.
    """
    check_new(output, overwrite=overwrite)
    write_apsu(output, simulate_config(config, **options), dt=config.dt, overwrite=overwrite)


def simulate_config(
    config: ConfigManager,
    *,
    pixels: int = 10_000,
    photons: float | None = None,
    noise: float | None = None,
    seed: int = 0,
) -> TwoTimeData:
    """Data from the parameters, frames, q and angles of a configuration.

    Args:
        config: A configuration with dt, end_frame and phi_angles.
        pixels: Number of detector pixels averaged per angle.
        photons: Mean counts per pixel and frame; None gives noiseless intensities.
        noise: Standard deviation of independent Gaussian noise, instead of speckle.
        seed: Seed of the random numbers.

    Raises:
        ConfigurationError: If something is missing, or the offset is not that of speckle.
    """
    contrast, offset = config.space.scaling_initial.tolist()
    arguments = _axes(config) | {"contrast": contrast, "key": jax.random.key(seed)}
    model, params = build_model(config), jnp.asarray(config.space.initial)
    if noise is not None:
        return simulate(model, params, offset=offset, noise=noise, **arguments)
    if offset != 1:
        raise ConfigurationError(
            f"parameters.scaling.offset: got {offset:g}; speckle has an offset of 1; set it to 1 "
            "or simulate independent noise (--noise)."
        )
    return simulate_speckle(model, params, n_pixels=pixels, photons=photons, **arguments)


def _axes(config: ConfigManager) -> dict[str, Any]:
    """Frame times [s], q [1/Å] and angles [degree] of a configuration, without any data."""
    dt, phi = config.dt, config.phi_angles
    end = config.end_frame if config.end_frame > 0 else None
    given = {"dt": dt, "end_frame": end, "scattering.phi_angles": phi}
    missing = [name for name, value in given.items() if value is None]
    if dt is None or phi is None or missing:
        raise ConfigurationError(
            [f"analyzer_parameters.{name}: missing; a simulation needs it." for name in missing]
        )
    first = config.start_frame * dt if config.t0 is None else config.t0
    t, angles = first + dt * np.arange(config.time_length), np.asarray(phi, dtype=np.float64)
    q = config.wavevector_q
    if isinstance(q, str) or q is None:
        raise ConfigurationError(
            "analyzer_parameters.scattering.wavevector_q: a simulation needs numbers; got "
            f"{'no value' if q is None else q}; give one or a list."
        )
    if isinstance(q, list):  # every wavevector at every angle
        return {"t": jnp.asarray(t), "q": jnp.repeat(jnp.asarray(q, float), angles.size),
                "phi": jnp.tile(jnp.asarray(angles), len(q))}  # fmt: skip
    return {"t": jnp.asarray(t), "q": q, "phi": jnp.asarray(angles)}


def check_new(file: Path, *, overwrite: bool) -> None:
    """Refuse to replace a file that exists.

    Raises:
        ResultError: If it exists and may not be replaced.
    """
    if file.exists() and not overwrite:
        raise ResultError(
            f"{file}: the file exists; choose another name, or allow replacing it (--overwrite)."
        )
