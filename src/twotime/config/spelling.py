"""One spelling of a configuration: aliases, parameters by group, older and shorter forms."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from twotime.config import types
from twotime.config.keys import Key, discard, fields, lookup, store, walk
from twotime.config.parameter_names import PARAMETER_ALIASES, nearest
from twotime.config.parameter_registry import REGISTRIES, ParameterRegistry
from twotime.errors import Mistakes, Path, show

OLDER = ("temporal", "scattering", "analysis", "initial_parameters")


@dataclasses.dataclass
class Spelling:
    """Canonical spelling of sections; wrong keys are noted.

    Attributes:
        found: Where mistakes are noted.
        registry: Parameters of the model; empty where the model is unknown.
    """

    found: Mistakes
    registry: ParameterRegistry

    def section(self, section: Mapping[Any, Any], kind: Any, path: Path) -> dict[str, Any]:
        """A section with canonical keys; keys without a value count as left out."""
        known = fields(kind)
        meant = {alias: name for name, key in known.items() for alias in key.aliases}
        result: dict[str, Any] = {}
        spelling: dict[str, str] = {}
        for written, value in section.items():
            name = meant.get(written, written)
            here = (*path, name if isinstance(written, str) else show(written))
            if not isinstance(written, str):
                self.found.add(here, "a key must be text; put it in quotes or correct it.")
            elif name in spelling:
                self.found.add(here, f"given twice, as {spelling[name]} and as {written}.")
            elif name not in known:
                allowed = ", ".join(key.name for key in known.values() if not key.refused)
                near = nearest(name, (*known, *meant)) or "."
                self.found.add(here, f"there is no such key{near} Allowed here: {allowed}.")
            else:
                spelling[name] = written
                self.found.spelled(here, (*path, written))
                if value is not None and known[name].refused:
                    self.found.add(here, f"is not accepted. {known[name].effect}")
                elif value is not None:
                    result[name] = self._value(known[name], value, here)
        return result

    def _value(self, key: Key, value: Any, path: Path) -> Any:
        if key.name == "parameters":
            return self._parameters(value, path)
        if key.type is types.ParameterGroupConfig:
            return self._parameters({key.name: value}, path[:-1]).get(key.name, {})
        if key.is_section and isinstance(value, Mapping):
            return self.section(value, key.type, path)
        return _plain(value, key)

    def _parameters(self, written: Any, path: Path) -> Any:
        """Parameters by group; a name may stand under its group or directly."""
        if not isinstance(written, Mapping):
            return written
        result: dict[str, Any] = {}
        groups = self.registry.groups
        for key, entry in written.items() if groups else ():
            # An alias that is also the name of a group may stand for the parameter.
            is_alias = key in PARAMETER_ALIASES and (
                not isinstance(entry, Mapping) or set(entry) & set(fields(types.ParameterConfig))
            )
            if key not in groups or is_alias:
                self._parameter(result, path, key, entry)
            elif isinstance(entry, Mapping):
                for name, inner in entry.items():
                    self._parameter(result, (*path, key), name, inner)
            elif entry is not None:
                result[key] = entry
        return result

    def _parameter(self, result: dict[str, Any], path: Path, written: Any, entry: Any) -> None:
        """Put one parameter under its group, or note what is wrong with its name."""
        if entry is None:
            return
        name = PARAMETER_ALIASES.get(written, written)
        if name not in self.registry:
            self._unknown((*path, str(written)), name)
            return
        group = self.registry[name].group
        here = (path[0], group, name)
        if path[1:] not in ((), (group,)):
            belongs = f"{name} belongs to the group {group}, not to {path[-1]}."
            self.found.add((*path, written), belongs)
        elif name in result.setdefault(group, {}):
            as_spelled = f"{self.found.spell(here)} and as {'.'.join((*path, written))}"
            self.found.add(here, f"given twice, as {as_spelled}.")
        else:
            self.found.spelled(here, (*path, written))
            if not isinstance(entry, Mapping):
                entry = {"value": entry}
            result[group][name] = self.section(entry, types.ParameterConfig, here)

    def _unknown(self, path: Path, name: Any) -> None:
        groups = self.registry.groups
        allowed = groups[path[1]] if path[1:-1] else (*groups, *self.registry)
        aliases = [alias for alias, meant in PARAMETER_ALIASES.items() if meant in allowed]
        modes = [mode for mode, known in REGISTRIES.items() if name in (*known.groups, *known)]
        near = nearest(path[-1], (*allowed, *aliases)) or "."
        elsewhere = f" It belongs to analysis_mode: {' or '.join(modes)}." if modes else ""
        sentence = f"the model has no parameter of this name{near}{elsewhere}"
        self.found.add(path, f"{sentence} Allowed here: {', '.join(allowed)}.")


def _plain(value: Any, key: Key | None) -> Any:
    """Values as a file has them: no NumPy, no paths; whole and other numbers as the key takes."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    item, kind = (key.item(), key.type) if key else (None, None)
    if isinstance(value, Mapping):
        return {name: _plain(inner, item) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(inner, item) for inner in value]
    if hasattr(value, "__fspath__"):
        return str(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    return value


# Older and shorter forms

_TIME = "analyzer_parameters"
_KEYS = walk(types.HeterodyneConfig)
_MOVES: dict[Path, Path] = {
    # Older files count frames from 0 and say how many there are.
    ("temporal", "time_length"): (_TIME, "end_frame"),
    ("temporal", "t_start"): (_TIME, "start_frame"),
    **{path: tuple(same.split(".")) for path, key in _KEYS if (same := key.extra("same"))},
    **{("scattering", key): (_TIME, "scattering", key) for key in fields(types.ScatteringConfig)},
    **{
        (_TIME, info.group, info.name): ("parameters", info.group, info.name)
        for registry in REGISTRIES.values()
        for info in registry.infos
    },
}
"""Where keys that mean the same as another one go."""


def fold(config: dict[str, Any], registry: ParameterRegistry, found: Mistakes) -> None:
    """Bring older and shorter forms to the canonical ones; contradictions are mistakes."""
    first = lookup(config, ("temporal", "t_start"))
    shifts = {"t_start": 1, "time_length": first or 0}
    for source, target in _MOVES.items():
        value, there = lookup(config, source), lookup(config, target)
        discard(config, source)
        if value is None or source[-1] == "time_length" and found.is_wrong(("temporal", "t_start")):
            continue
        value = value + shifts[source[-1]] if source[-1] in shifts else value
        if there is None and not found.is_wrong(target):
            store(config, target, value)
            found.written.setdefault(target, found.spell(source))
        elif there is not None and there != value:
            here = found.spell(target)
            found.add(source, f"is {show(value)}, but {here} is {show(there)}; keep one.")
    for group in registry.groups:
        discard(config, (_TIME, group))
    if "initial_parameters" in config and not found.is_wrong(("initial_parameters",)):
        _fold_flat(config, registry, found)
    for older in OLDER:
        config.pop(older, None)


def _fold_flat(config: dict[str, Any], registry: ParameterRegistry, found: Mistakes) -> None:
    """The flat form gives values and flags wherever `parameters` does not."""
    here, flat = ("initial_parameters",), config["initial_parameters"]
    values, active = flat.get("values"), flat.get("active_parameters")
    names = _names(flat.get("parameter_names", []), (*here, "parameter_names"), registry, found)
    active_names = _names(active or [], (*here, "active_parameters"), registry, found)
    if values is not None and len(values) != len(names):
        sentence = f"got {len(values)} values for {len(names)} parameter_names; give one for each."
        found.add((*here, "values"), sentence)
    elif names and values is None and active is None:
        found.add((*here, "values"), "missing; parameter_names alone have no effect.")
    if found.is_wrong(here):
        return
    entries = [(name, "value", value) for name, value in zip(names, values or [], strict=False)]
    for info in registry.infos if active is not None else ():
        if not info.is_scaling or info.name in (*names, *active_names):
            entries.append((info.name, "vary", info.name in active_names))
    for name, key, value in entries:
        path = ("parameters", registry[name].group, name, key)
        if lookup(config, path) is None and not found.is_wrong(path):
            store(config, path, value)
            found.written.setdefault(path, f"initial_parameters ({name})")


def _names(given: list[str], path: Path, known: Iterable[str], found: Mistakes) -> list[str]:
    """Canonical names of a list of parameters."""
    names = [PARAMETER_ALIASES.get(name, name) for name in given]
    for written, name in zip(given, names, strict=True):
        if name not in known:
            near = nearest(written, (*known, *PARAMETER_ALIASES)) or "."
            sentence = f"the model has no parameter {written!r}{near}"
            found.add(path, f"{sentence} Allowed here: {', '.join(known)}.")
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.add(path, f"{name} is listed more than once.")
    return names
