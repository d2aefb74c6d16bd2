"""From a configuration as the user wrote it to one that is checked, with every mistake noted."""

import copy
from collections.abc import Mapping
from typing import Any, get_args, get_origin

import numpy as np

from twotime.config import rules as checks
from twotime.config.keys import fields, unwrapped
from twotime.config.mistakes import Findings, Path, discard, lookup, show, store
from twotime.config.parameter_names import (
    ANALYSIS_MODES,
    DEFAULT_MODE,
    PARAMETER_ALIASES,
    PARAMETER_GROUPS,
    PARAMETER_NAMES,
    SCALING_PARAMS,
    nearest,
)
from twotime.config.parameter_space import ParameterSpace
from twotime.config.schema import check_types
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


_SCATTERING = ("analyzer_parameters", "scattering")
_CMC = ("optimization", "cmc")

_MOVES: tuple[tuple[Path, Path], ...] = (
    (("scattering", "wavevector_q"), (*_SCATTERING, "wavevector_q")),
    (("scattering", "q_tolerance"), (*_SCATTERING, "q_tolerance")),
    (("scattering", "phi_angles"), (*_SCATTERING, "phi_angles")),
    (("temporal", "dt"), ("analyzer_parameters", "dt")),
    (("analysis", "method"), ("optimization", "method")),
    (("analysis", "phi_angles"), (*_SCATTERING, "phi_angles")),
    (("analysis", "q"), (*_SCATTERING, "wavevector_q")),
    (("analysis", "dt"), ("analyzer_parameters", "dt")),
    (("analysis", "scaling_mode"), ("optimization", "nlsq", "per_angle_mode")),
    ((*_CMC, "num_warmup"), (*_CMC, "per_shard_mcmc", "num_warmup")),
    ((*_CMC, "num_samples"), (*_CMC, "per_shard_mcmc", "num_samples")),
    ((*_CMC, "num_chains"), (*_CMC, "per_shard_mcmc", "num_chains")),
    ((*_CMC, "target_accept_prob"), (*_CMC, "per_shard_mcmc", "target_accept_prob")),
    ((*_CMC, "max_tree_depth"), (*_CMC, "per_shard_mcmc", "max_tree_depth")),
    ((*_CMC, "max_r_hat"), (*_CMC, "validation", "max_r_hat")),
)
"""Where keys that say the same as another one go."""

MOVED_CMC_KEYS = tuple((source[-1], target[2:]) for source, target in _MOVES if source[:2] == _CMC)
"""Short keys of optimization.cmc and where in it they belong."""


def folded(config: dict[str, Any], mode: str, found: Findings) -> dict[str, Any]:
    """Bring older and shorter forms to the canonical ones; contradictions are mistakes.

    Args:
        config: A configuration of right types; changed.
        mode: Analysis mode.
        found: Where mistakes are noted.
    """
    _fold_temporal(config, found)
    for source, target in _MOVES:
        value = lookup(config, source)
        if value is not None:
            _move(config, source, target, value, found)
    _fold_parameter_groups(config, mode, found)
    _fold_initial(config, mode, found)
    for section in ("temporal", "scattering", "analysis", "initial_parameters"):
        config.pop(section, None)
    return config


def _move(config: dict[str, Any], source: Path, target: Path, value: Any, found: Findings) -> None:
    discard(config, source)
    there = lookup(config, target)
    if there is None:
        if not found.is_wrong(target):
            store(config, target, value)
            found.written.setdefault(target, found.spell(source))
    elif there != value:
        found.add(
            source,
            f"says {show(value)} while {found.spell(target)} says {show(there)}; keep one.",
        )


def _fold_temporal(config: dict[str, Any], found: Findings) -> None:
    """`t_start` counts from 0 and `time_length` frames; frames count from 1, both ends in."""
    temporal = config.get("temporal")
    if not temporal or found.is_wrong(("temporal", "t_start")):
        return
    first = temporal.get("t_start", 0)
    if "t_start" in temporal:
        target = ("analyzer_parameters", "start_frame")
        _move(config, ("temporal", "t_start"), target, first + 1, found)
    if "time_length" in temporal:
        last = first + temporal["time_length"]
        target = ("analyzer_parameters", "end_frame")
        _move(config, ("temporal", "time_length"), target, last, found)


def _fold_parameter_groups(config: dict[str, Any], mode: str, found: Findings) -> None:
    """Groups of parameters under analyzer_parameters mean the same under parameters."""
    section = config.get("analyzer_parameters", {})
    for group in [name for name in section if name in _all_groups()]:
        for name, entry in section.pop(group).items():
            source = ("analyzer_parameters", group, name)
            _move(config, source, ("parameters", group, name), entry, found)


def _all_groups() -> set[str]:
    return {group for groups in PARAMETER_GROUPS.values() for group in groups}


def _fold_initial(config: dict[str, Any], mode: str, found: Findings) -> None:
    """The flat form gives values and flags wherever `parameters` does not."""
    here = ("initial_parameters",)
    flat = config.get("initial_parameters")
    if flat is None or found.is_wrong(here):
        return
    names = _names(flat.get("parameter_names", []), (*here, "parameter_names"), mode, found)
    values = flat.get("values", [])
    if "values" in flat and len(values) != len(flat.get("parameter_names", [])):
        found.add(
            (*here, "values"),
            f"got {len(values)} values for {len(flat.get('parameter_names', []))} "
            "parameter_names; give one for each.",
        )
    elif "parameter_names" in flat and "values" not in flat and "active_parameters" not in flat:
        found.add((*here, "values"), "missing; parameter_names alone say nothing.")
    if found.is_wrong(here):
        return
    for name, value in zip(names, values, strict="values" in flat):
        _give(config, mode, name, "value", value, found)
    if "active_parameters" in flat:
        active = _names(flat["active_parameters"], (*here, "active_parameters"), mode, found)
        listed = [name for name in SCALING_PARAMS if name in (*names, *active)]
        for name in (*PARAMETER_NAMES[mode], *listed):
            _give(config, mode, name, "vary", name in active, found)


def _names(given: list[str], path: Path, mode: str, found: Findings) -> list[str]:
    known = (*PARAMETER_NAMES[mode], *SCALING_PARAMS)
    names = [PARAMETER_ALIASES.get(name, name) for name in given]
    for written, name in zip(given, names, strict=True):
        if name not in known:
            proposal = nearest(written, (*known, *PARAMETER_ALIASES))
            found.add(
                path,
                f"the model has no parameter {written!r}{proposal or '.'} "
                f"Allowed here: {', '.join(known)}.",
            )
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.add(path, f"{name} is listed more than once.")
    return names


def _give(
    config: dict[str, Any], mode: str, name: str, key: str, value: Any, found: Findings
) -> None:
    """Set what the flat form says of a parameter where the grouped form is silent."""
    group = next(group for group, names in PARAMETER_GROUPS[mode].items() if name in names)
    path = ("parameters", group, name, key)
    if lookup(config, path) is None and not found.is_wrong(path):
        store(config, path, value)
        found.written.setdefault(path, f"initial_parameters ({name})")


_LEGACY = ("temporal", "initial_parameters")


def read(
    config: Any, *, is_whole: bool = True
) -> tuple[dict[str, Any], ParameterSpace | None, Findings]:
    """Bring a configuration to its canonical form and collect its mistakes.

    Args:
        config: What a file says, as a dictionary.
        is_whole: Whether it must hold all that a run needs.

    Returns:
        The canonical configuration, the parameter space it asks for (None where its parameters
        are wrong), and what was found.
    """
    found = Findings()
    if not isinstance(config, Mapping):
        found.problems.append(
            f"A configuration is a mapping of sections (key: value); got {show(config)}."
        )
        return {}, None, found
    canonical = spelled(copy.deepcopy(dict(config)), found)
    is_legacy = any(section in canonical for section in _LEGACY)
    check_types(canonical, found)
    if found.is_wrong(("analysis_mode",)):
        return canonical, None, found
    mode = lookup(canonical, ("analysis_mode",)) or DEFAULT_MODE
    folded(canonical, mode, found)
    checks.together(canonical, mode, found)
    if is_whole:
        checks.need(canonical, mode, found)
    space = checks.space_of(canonical, mode, found)
    if space is not None:
        checks.physical(canonical, space, found, is_legacy)
    return canonical, space, found
