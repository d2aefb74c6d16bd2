"""From a configuration as it was written to its canonical form, with every mistake noted.

Four steps: spelling (aliases, parameters under their group), types and ranges (by pydantic), older
and shorter forms, and the rules about keys together (`twotime.config.rules`).
"""

import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError

from twotime.config.keys import Key, Mistakes, Path, discard, fields, lookup, show, store
from twotime.config.parameter_names import (
    DEFAULT_MODE,
    PARAMETER_ALIASES,
    PARAMETER_GROUPS,
    PARAMETER_NAMES,
    SCALING_PARAMS,
    nearest,
    unknown_name,
)
from twotime.config.rules import check_rules
from twotime.config.types import (
    AnalysisConfig,
    CMCOptimizationConfig,
    HeterodyneConfig,
    ParameterConfig,
    ParameterGroupConfig,
    ScatteringConfig,
    TemporalConfig,
)

_GROUPS = {group for groups in PARAMETER_GROUPS.values() for group in groups}
OLDER = ("temporal", "scattering", "analysis", "initial_parameters")


def read_keys(config: Any, *, is_whole: bool = True) -> tuple[dict[str, Any], Mistakes]:
    """Bring a configuration to its canonical form and collect its mistakes.

    Args:
        config: Sections and keys as a file has them.
        is_whole: Whether it must contain all that a run needs.

    Returns:
        The canonical configuration, without keys that are wrong, and the mistakes.
    """
    found = Mistakes()
    if not isinstance(config, Mapping):
        found.problems.append(
            f"A configuration is a mapping of sections (key: value); got {show(config)}."
        )
        found.wrong.add(())
        return {}, found
    written = copy.deepcopy(dict(config))
    mode = written.get("analysis_mode")
    groups = PARAMETER_GROUPS.get(DEFAULT_MODE if mode is None else str(mode), {})
    canonical = _Spelling(found, groups).section(written, HeterodyneConfig, ())
    _check_types(canonical, found)
    if found.is_wrong(("analysis_mode",)):
        return canonical, found
    mode = canonical.get("analysis_mode", DEFAULT_MODE)
    is_older = "temporal" in canonical or "initial_parameters" in canonical
    _fold(canonical, mode, found)
    check_rules(canonical, mode, found, is_whole=is_whole)
    phi0 = ("parameters", "angle", "phi0")
    if is_older and mode == "two_component" and lookup(canonical, (*phi0, "value")):
        found.remark(
            phi0,
            "the flow angle is phi - phi0; programs that use phi + phi0 need the opposite sign.",
        )
    return canonical, found


def section_of(config: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A section of a canonical configuration, a copy, with defaults filled in.

    Args:
        config: A canonical configuration.
        path: Names of the sections on the way, joined by points ("optimization.nlsq").

    Raises:
        UnknownNameError: If there is no such section (a ValueError and a KeyError).
    """
    names = tuple(path.split("."))
    keys = fields(_kind(path)).items()
    defaults = {name: key.default for name, key in keys if key.default is not None}
    return copy.deepcopy(defaults | (lookup(config, names) or {}))


def section_names(path: str) -> list[str]:
    """Names of the sections in a section."""
    return [name for name, key in fields(_kind(path)).items() if key.is_section]


def _kind(path: str) -> Any:
    kind: Any = HeterodyneConfig
    for name in path.split("."):
        known = {key: field for key, field in fields(kind).items() if field.is_section}
        if name not in known:
            raise unknown_name("section", path, known)
        kind = known[name].type
    return kind


# Spelling


@dataclasses.dataclass
class _Spelling:
    """Canonical spelling of sections; wrong keys are noted.

    Attributes:
        found: Where mistakes are noted.
        groups: Parameters of the model by group; empty where the model is unknown.
    """

    found: Mistakes
    groups: Mapping[str, tuple[str, ...]]

    def section(self, section: Mapping[Any, Any], kind: Any, path: Path) -> dict[str, Any]:
        """A section with canonical keys; keys without a value count as left out."""
        known = fields(kind)
        meant = {alias: name for name, key in known.items() for alias in key.aliases}
        result: dict[str, Any] = {}
        spelling: dict[str, str] = {}
        for written, value in section.items():
            if not isinstance(written, str):
                here = (*path, show(written))
                self.found.add(here, "a key must be text; put it in quotes or correct it.")
                continue
            name = meant.get(written, written)
            here = (*path, name)
            if name in spelling:
                self.found.add(here, f"given twice, as {spelling[name]} and as {written}.")
                continue
            spelling[name] = written
            if written != name:
                self.found.written[here] = ".".join((*path, written))
            if name not in known:
                allowed = ", ".join(key.name for key in known.values() if not key.refused)
                near = nearest(name, (*known, *meant)) or "."
                self.found.add(here, f"there is no such key{near} Allowed here: {allowed}.")
            elif value is not None and known[name].refused:
                self.found.add(here, f"is not accepted. {known[name].effect}")
            elif value is not None:
                result[name] = self._value(known[name], value, here)
        return result

    def _value(self, key: Key, value: Any, path: Path) -> Any:
        if key.name == "parameters":
            return self._parameters(value, path)
        if key.type is ParameterGroupConfig:
            return self._parameters({key.name: value}, path[:-1]).get(key.name, {})
        if key.is_section and isinstance(value, Mapping):
            return self.section(value, key.type, path)
        return _plain(value, key)

    def _parameters(self, written: Any, path: Path) -> Any:
        """Parameters by group; a name may stand under its group or directly."""
        if not isinstance(written, Mapping):
            return written
        result: dict[str, Any] = {}
        every = [name for names in self.groups.values() for name in names]
        for key, entry in written.items():
            if entry is None or not self.groups:
                continue
            if key not in self.groups or not _is_group(key, entry):
                self._parameter(result, path, (key, entry), every, (*self.groups, *every))
            elif not isinstance(entry, Mapping):
                result[key] = entry
            else:
                for item in entry.items():
                    if item[1] is not None:
                        self._parameter(result, (*path, key), item, self.groups[key])
        return result

    def _parameter(
        self,
        result: dict[str, Any],
        path: Path,
        item: tuple[Any, Any],
        names: Any,
        allowed: Any = (),
    ) -> None:
        """Put one parameter under its group, or note what is wrong with its name."""
        written, entry = item
        name = PARAMETER_ALIASES.get(written, written)
        group = next((group for group, members in self.groups.items() if name in members), None)
        if name not in names or group is None:
            self._wrong_name((*path, str(written)), name, group, allowed or names)
            return
        here, spelled = (path[0], group, name), ".".join((*path, written))
        if name in result.setdefault(group, {}):
            self.found.add(here, f"given twice, as {self.found.spell(here)} and as {spelled}.")
            return
        if spelled != ".".join(here):
            self.found.written[here] = spelled
        if isinstance(entry, Mapping):
            result[group][name] = self.section(entry, ParameterConfig, here)
        else:
            result[group][name] = {"value": _plain(entry, fields(ParameterConfig)["value"])}

    def _wrong_name(self, path: Path, name: Any, group: str | None, allowed: Any) -> None:
        if group is not None:
            self.found.add(path, f"{name} belongs to the group {group}, not to {path[-2]}.")
            return
        aliases = [alias for alias, meant in PARAMETER_ALIASES.items() if meant in allowed]
        modes = [
            mode
            for mode, groups in PARAMETER_GROUPS.items()
            if name in groups or any(name in names for names in groups.values())
        ]
        elsewhere = f" It belongs to analysis_mode: {' or '.join(modes)}." if modes else ""
        self.found.add(
            path,
            "the model has no parameter of this name"
            f"{nearest(path[-1], (*allowed, *aliases)) or '.'}{elsewhere} "
            f"Allowed here: {', '.join(allowed)}.",
        )


def _is_group(key: Any, entry: Any) -> bool:
    """Whether what stands under a group's name is the group, not a parameter of that name."""
    if key not in PARAMETER_ALIASES:
        return True
    return isinstance(entry, Mapping) and not any(name in entry for name in fields(ParameterConfig))


def _plain(value: Any, key: Key | None) -> Any:
    """Values as a file has them: no NumPy, no paths; whole and other numbers as the key takes."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    kind = key.type if key else None
    if isinstance(value, tuple | list | Mapping):
        item = key.item() if key else None
        if isinstance(value, Mapping):
            return {name: _plain(inner, item) for name, inner in value.items()}
        return [_plain(inner, item) for inner in value]
    if hasattr(value, "__fspath__"):
        return str(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    return value


# Types and ranges


@functools.cache
def validator() -> Any:
    """Pydantic's validator of a whole configuration."""
    for section in sections(HeterodyneConfig):
        section.__pydantic_config__ = {
            "extra": "forbid",
            "strict": True,
            "allow_inf_nan": False,
            "title": section.__name__,
        }
    return TypeAdapter(HeterodyneConfig)


def sections(kind: Any) -> Iterator[Any]:
    """A section and all sections in it."""
    yield kind
    for key in fields(kind).values():
        if key.is_section:
            yield from sections(key.type)


def _check_types(config: dict[str, Any], found: Mistakes) -> None:
    """Note and remove every value of a wrong type or out of range."""
    try:
        validator().validate_python(config)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            discard(config, _note(mistake, found))


def _note(mistake: Any, found: Mistakes) -> Path:
    """Note one of pydantic's mistakes in our words; gives the path of its key."""
    steps = list(mistake["loc"])
    path: Path = ()
    key = Key("", None)  # type: ignore[arg-type]
    kind: Any = HeterodyneConfig
    while steps and (not path or key.is_section):
        key = fields(kind)[steps.pop(0)]
        kind, path = key.type, (*path, key.name)
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    for _ in steps:
        key = key.item() or key
    got, near = mistake["input"], ""
    if mistake["type"] == "literal_error" and isinstance(got, str):
        near = nearest(got, map(str, get_args(key.type)))
    where = f"at {place.lstrip('.')} " if place else ""
    found.add(path, f"{where}got {show(got)}; expected {key.expected()}{near or '.'}")
    return path


# Older and shorter forms

_CMC = ("optimization", "cmc")
_SHORT = {("analysis",): AnalysisConfig, ("temporal",): TemporalConfig, _CMC: CMCOptimizationConfig}
_MOVES: dict[Path, Path] = {
    (*section, name): tuple(key.extra("same").split("."))
    for section, kind in _SHORT.items()
    for name, key in fields(kind).items()
    if key.extra("same")
} | {
    ("scattering", name): ("analyzer_parameters", "scattering", name)
    for name in fields(ScatteringConfig)
}
"""Where keys that mean the same as another one go."""

SHORT_CMC_KEYS = {path[-1]: place[2:] for path, place in _MOVES.items() if path[:2] == _CMC}
"""Short keys of optimization.cmc and where in it they belong."""


def _fold(config: dict[str, Any], mode: str, found: Mistakes) -> None:
    """Bring older and shorter forms to the canonical ones; contradictions are mistakes."""
    temporal = config.get("temporal", {})
    if "t_start" in temporal or not found.is_wrong(("temporal", "t_start")):
        # Older files count frames from 0 and say how many there are.
        first = temporal.get("t_start", 0)
        ends = {"t_start": ("start_frame", first + 1)}
        ends["time_length"] = ("end_frame", first + temporal.get("time_length", 0))
        for name in [name for name in ends if name in temporal]:
            key, frame = ends[name]
            _move(config, ("temporal", name), ("analyzer_parameters", key), frame, found)
    for source, target in _MOVES.items():
        value = lookup(config, source)
        if value is not None:
            _move(config, source, target, value, found)
    section = config.get("analyzer_parameters", {})
    for group in [name for name in section if name in _GROUPS]:
        for name, entry in section.pop(group).items():
            source = ("analyzer_parameters", group, name)
            _move(config, source, ("parameters", group, name), entry, found)
    if "initial_parameters" in config and not found.is_wrong(("initial_parameters",)):
        _fold_flat(config, config["initial_parameters"], mode, found)
    for older in OLDER:
        config.pop(older, None)


def _move(config: dict[str, Any], source: Path, target: Path, value: Any, found: Mistakes) -> None:
    discard(config, source)
    there = lookup(config, target)
    if there is not None and there != value:
        found.add(
            source,
            f"is {show(value)}, but {found.spell(target)} is {show(there)}; keep one.",
        )
    elif there is None and not found.is_wrong(target):
        store(config, target, value)
        found.written.setdefault(target, found.spell(source))


def _fold_flat(config: dict[str, Any], flat: Mapping[str, Any], mode: str, found: Mistakes) -> None:
    """The flat form gives values and flags wherever `parameters` does not."""
    here: Path = ("initial_parameters",)
    given, values = flat.get("parameter_names", []), flat.get("values")
    active = flat.get("active_parameters")
    names = _names(given, (*here, "parameter_names"), mode, found)
    if values is not None and len(values) != len(given):
        found.add(
            (*here, "values"),
            f"got {len(values)} values for {len(given)} parameter_names; give one for each.",
        )
    elif given and values is None and active is None:
        found.add((*here, "values"), "missing; parameter_names alone have no effect.")
    active_names = _names(active or [], (*here, "active_parameters"), mode, found)
    if found.is_wrong(here):
        return
    entries = [(name, "value", value) for name, value in zip(names, values or [], strict=False)]
    if active is not None:
        listed = [name for name in SCALING_PARAMS if name in (*names, *active_names)]
        physics = PARAMETER_NAMES[mode]
        entries += [(name, "vary", name in active_names) for name in (*physics, *listed)]
    groups = PARAMETER_GROUPS[mode]
    for name, key, value in entries:
        group = next(group for group, members in groups.items() if name in members)
        path = ("parameters", group, name, key)
        if lookup(config, path) is None and not found.is_wrong(path):
            store(config, path, value)
            found.written.setdefault(path, f"initial_parameters ({name})")


def _names(given: list[str], path: Path, mode: str, found: Mistakes) -> list[str]:
    """Canonical names of a list of parameters."""
    known = (*PARAMETER_NAMES[mode], *SCALING_PARAMS)
    names = [PARAMETER_ALIASES.get(name, name) for name in given]
    for written, name in zip(given, names, strict=True):
        if name not in known:
            near = nearest(written, (*known, *PARAMETER_ALIASES)) or "."
            allowed = f"Allowed here: {', '.join(known)}."
            found.add(path, f"the model has no parameter {written!r}{near} {allowed}")
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.add(path, f"{name} is listed more than once.")
    return names
