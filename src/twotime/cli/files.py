"""Files named on the command line: configurations with changes, data, result folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from twotime.config.files import parse_json, parse_yaml
from twotime.config.manager import ConfigManager, read_file
from twotime.errors import ConfigurationError, DataError

_DATA = {b"\x89HDF\r\n\x1a\n": "HDF5", b"PK\x03\x04": "npz", b"\x93NUMPY": "npy"}
_CONFIGURATIONS = (".yaml", ".yml", ".json")


def settings_of(path: Path, changes: Sequence[str] = ()) -> ConfigManager:
    """The configuration in a file, with the `KEY=VALUE` of `--set` instead of what it says.

    Raises:
        ConfigurationError: If it is no configuration, or there are mistakes in it.
    """
    kind = _kind_of_data(path)
    if kind is not None:
        raise ConfigurationError(
            f"this is a data file ({kind}), not a configuration; see what is in it with `twotime "
            f"inspect {path}`, write a configuration for it with `twotime init {path}`.",
            str(path),
        )
    if path.is_dir():
        raise ConfigurationError("this is a folder; expected a configuration file.", str(path))
    config = read_file(path, parse_json if path.suffix == ".json" else parse_yaml)
    for change in changes:
        _change(config, change)
    return ConfigManager(config, base_dir=path.parent, source=str(path))


def _change(config: Any, change: str) -> None:
    """Set one value in a configuration."""
    key, is_given, text = change.partition("=")
    steps = key.strip().split(".")
    if not is_given or not all(steps):
        raise click.UsageError(
            f"--set {change}: expected KEY=VALUE, for example --set parameters.D0.max=1e6."
        )
    if not isinstance(config, dict):
        raise click.UsageError(f"--set {change}: the file is empty or a list; expected sections.")
    section = config
    for depth, step in enumerate(steps[:-1]):
        found = section.setdefault(step, {}) if isinstance(section, dict) else None
        if not isinstance(found, dict) and steps[0] == "parameters" and found is not None:
            found = section[step] = {"value": found}  # D0: 1e4 is short for D0: {value: 1e4}
        if not isinstance(found, dict):
            above = ".".join(steps[: depth + 1])
            raise click.UsageError(f"--set {change}: {above} is no section of the configuration.")
        section = found
    section[steps[-1]] = parse_yaml(text.encode(), f"--set {key}") if text.strip() else None


def is_configuration(path: Path) -> bool:
    """Whether a file is a configuration by its name, and no data by its content."""
    return path.is_file() and path.suffix in _CONFIGURATIONS and _kind_of_data(path) is None


def checked_data(path: Path) -> Path:
    """A data file, or why it is none.

    Raises:
        DataError: If there is no such file, or it is a configuration.
    """
    if not (path.exists() or path.is_symlink()):
        raise DataError(f"{path}: no such file.")
    if is_configuration(path):
        raise DataError(
            f"{path}: this is a configuration, not a data file; check it with `twotime validate "
            f"{path}`."
        )
    return path


def _kind_of_data(path: Path) -> str | None:
    """What kind of data file this is, from its first bytes; None for others."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return None
    return next((kind for start, kind in _DATA.items() if head.startswith(start)), None)
