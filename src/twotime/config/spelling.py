"""First step of reading a configuration: one spelling for every key, one form for parameters."""

from collections.abc import Mapping
from typing import Any, get_args, get_origin

import numpy as np

from twotime.config.findings import Findings, Path, show
from twotime.config.keys import fields, unwrapped
from twotime.config.parameter_names import (
    ANALYSIS_MODES,
    DEFAULT_MODE,
    PARAMETER_ALIASES,
    PARAMETER_GROUPS,
    nearest,
)
from twotime.config.types import HeterodyneConfig, ParameterConfig, ParameterGroupConfig

_ENTRY_KEYS = tuple(fields(ParameterConfig))
_EXACT = 2**53


def spelled(config: Mapping[Any, Any], found: Findings) -> dict[str, Any]:
    """A copy with aliases resolved and parameters in the form group.name.{value, ...}.

    Keys without a value are left out; unknown keys stay for the next step to refuse.

    Args:
        config: A configuration as it was written.
        found: Where mistakes are noted.
    """
    mode = config.get("analysis_mode")
    mode = DEFAULT_MODE if mode is None else mode
    return _section(config, HeterodyneConfig, (), found, mode if mode in ANALYSIS_MODES else None)


def _section(
    section: Mapping[Any, Any], kind: Any, path: Path, found: Findings, mode: str | None
) -> dict[str, Any]:
    known = fields(kind)
    aliases = {alias: name for name, field in known.items() for alias in field.key.aliases}
    result: dict[str, Any] = {}
    spelling: dict[str, str] = {}
    for key, value in section.items():
        if not isinstance(key, str):
            found.add((*path, show(key)), "a key must be text; put it in quotes or correct it.")
            continue
        name = aliases.get(key, key)
        here = (*path, name)
        if name in spelling:
            found.add(here, f"given twice, as {spelling[name]} and as {key}.")
            continue
        spelling[name] = key
        if name not in known:
            result[name] = value
            continue
        if key != name:
            found.written[here] = ".".join((*path, key))
        if value is None:
            continue
        field = known[name]
        if name == "parameters":
            result[name] = _parameters(value, here, found, mode)
        elif field.type is ParameterGroupConfig:
            groups = _parameters({name: value}, path, found, mode)
            result[name] = groups.get(name, {}) if isinstance(groups, dict) else groups
        elif field.is_section and isinstance(value, Mapping):
            result[name] = _section(value, field.type, here, found, mode)
        else:
            result[name] = _plain(value, field.type)
    return result


def _plain(value: Any, kind: Any) -> Any:
    """Values as a file has them: no NumPy, no paths; whole and other numbers as the key wants."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    kind, _ = unwrapped(kind)
    if isinstance(value, tuple | list):
        inner = get_args(kind)[0] if get_origin(kind) in (list, tuple) else None
        items = [_plain(item, inner) for item in value]
        return tuple(items) if get_origin(kind) is tuple else items
    if isinstance(value, Mapping):
        inner = get_args(kind)[1] if get_origin(kind) is dict else None
        return {key: _plain(item, inner) for key, item in value.items()}
    if hasattr(value, "__fspath__"):
        return str(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and type(value) is int and abs(value) < _EXACT:
        return float(value)
    return value


def _parameters(value: Any, path: Path, found: Findings, mode: str | None) -> Any:
    """Parameters by group; a name may stand under its group or directly."""
    if not isinstance(value, Mapping) or mode is None:
        return {} if isinstance(value, Mapping) else value
    groups = PARAMETER_GROUPS[mode]
    group_of = {name: group for group, names in groups.items() for name in names}
    result: dict[str, Any] = {}
    for key, entry in value.items():
        if entry is None:
            continue
        if key in groups and key not in PARAMETER_ALIASES and not isinstance(entry, Mapping):
            result[key] = entry
        elif key in groups and _is_group(key, entry):
            for inner, inner_entry in entry.items():
                name = _name(inner, (*path, key), groups[key], found, group_of)
                if name is not None and inner_entry is not None:
                    written = ".".join((*path, key, inner))
                    _put(result, path, key, name, inner_entry, written, found)
        else:
            allowed = (*groups, *group_of)
            name = _name(key, path, tuple(group_of), found, group_of, allowed)
            if name is not None:
                written = ".".join((*path, key))
                _put(result, path, group_of[name], name, entry, written, found)
    return result


def _is_group(key: str, entry: Any) -> bool:
    """Whether what stands under a group's name is the group, not a parameter of that name."""
    if key not in PARAMETER_ALIASES:
        return True
    return isinstance(entry, Mapping) and not any(name in entry for name in _ENTRY_KEYS)


def _name(
    key: Any,
    path: Path,
    names: tuple[str, ...],
    found: Findings,
    group_of: Mapping[str, str],
    allowed: tuple[str, ...] = (),
) -> str | None:
    """Canonical name of a parameter, or None and a note of what is wrong with it."""
    name = PARAMETER_ALIASES.get(key, key) if isinstance(key, str) else key
    if name in names:
        return name
    here = (*path, str(key))
    if name in group_of:
        found.add(here, f"{name} belongs to the group {group_of[name]}, not to {path[-1]}.")
    else:
        choices = allowed or names
        aliases = [alias for alias, meant in PARAMETER_ALIASES.items() if meant in names]
        proposal = nearest(str(key), (*choices, *aliases))
        modes = [mode for mode, groups in PARAMETER_GROUPS.items() if _has(groups, name)]
        elsewhere = f" It belongs to analysis_mode: {' or '.join(modes)}." if modes else ""
        found.add(
            here,
            f"the model has no parameter of this name{proposal or '.'}{elsewhere} "
            f"Allowed here: {', '.join(choices)}.",
        )
    return None


def _has(groups: Mapping[str, tuple[str, ...]], name: object) -> bool:
    return name in groups or any(name in names for names in groups.values())


def _put(
    result: dict[str, Any],
    path: Path,
    group: str,
    name: str,
    entry: Any,
    written: str,
    found: Findings,
) -> None:
    here = (*path, group, name)
    names = result.setdefault(group, {})
    if name in names:
        found.add(here, f"given twice, as {found.spell(here)} and as {written}.")
        return
    if written != ".".join(here):
        found.written[here] = written
    if isinstance(entry, Mapping):
        names[name] = _section(entry, ParameterConfig, here, found, None)
    else:
        names[name] = {"value": _plain(entry, float)}
