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
    mode = config.get("analysis_mode")
    groups = PARAMETER_GROUPS.get(DEFAULT_MODE if mode is None else str(mode), {})
    canonical = _Spelling(found, groups).section(copy.deepcopy(config), HeterodyneConfig, ())
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
        for key, entry in written.items() if self.groups else ():
            # An alias that is also the name of a group may stand for the parameter.
            is_alias = key in PARAMETER_ALIASES and (
                not isinstance(entry, Mapping) or set(entry) & set(fields(ParameterConfig))
            )
            if key not in self.groups or is_alias:
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
        group = next((group for group, members in self.groups.items() if name in members), None)
        if group is None:
            self._unknown((*path, str(written)), name)
            return
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
            result[group][name] = self.section(entry, ParameterConfig, here)

    def _unknown(self, path: Path, name: Any) -> None:
        names = [name for members in self.groups.values() for name in members]
        allowed = self.groups[path[1]] if path[1:-1] else (*self.groups, *names)
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


# Types and ranges


@functools.cache
def validator() -> Any:
    """Pydantic's validator of a whole configuration."""
    rules = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
    for section in sections(HeterodyneConfig):
        section.__pydantic_config__ = rules | {"title": section.__name__}
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
    known: Mapping[str, Key] = fields(HeterodyneConfig)
    while known and steps:
        key = known[steps.pop(0)]
        path, known = (*path, key.name), fields(key.type) if key.is_section else {}
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
_TIME = "analyzer_parameters"
_MOVES: dict[Path, Path] = {
    # Older files count frames from 0 and say how many there are.
    ("temporal", "time_length"): (_TIME, "end_frame"),
    ("temporal", "t_start"): (_TIME, "start_frame"),
    **{
        (*section, name): tuple(key.extra("same").split("."))
        for section, kind in _SHORT.items()
        for name, key in fields(kind).items()
        if key.extra("same")
    },
    **{("scattering", name): (_TIME, "scattering", name) for name in fields(ScatteringConfig)},
    **{
        (_TIME, group, name): ("parameters", group, name)
        for groups in PARAMETER_GROUPS.values()
        for group, names in groups.items()
        for name in names
    },
}
"""Where keys that mean the same as another one go."""

SHORT_CMC_KEYS = {path[-1]: place[2:] for path, place in _MOVES.items() if path[:2] == _CMC}
"""Short keys of optimization.cmc and where in it they belong."""


def _fold(config: dict[str, Any], mode: str, found: Mistakes) -> None:
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
    for group in PARAMETER_GROUPS[mode]:
        discard(config, (_TIME, group))
    if "initial_parameters" in config and not found.is_wrong(("initial_parameters",)):
        _fold_flat(config, config["initial_parameters"], mode, found)
    for older in OLDER:
        config.pop(older, None)


def _fold_flat(config: dict[str, Any], flat: Mapping[str, Any], mode: str, found: Mistakes) -> None:
    """The flat form gives values and flags wherever `parameters` does not."""
    here: Path = ("initial_parameters",)
    given, values = flat.get("parameter_names", []), flat.get("values")
    active, groups = flat.get("active_parameters"), PARAMETER_GROUPS[mode]
    names = _names(given, (*here, "parameter_names"), mode, found)
    active_names = _names(active or [], (*here, "active_parameters"), mode, found)
    if values is not None and len(values) != len(given):
        found.add(
            (*here, "values"),
            f"got {len(values)} values for {len(given)} parameter_names; give one for each.",
        )
    elif given and values is None and active is None:
        found.add((*here, "values"), "missing; parameter_names alone have no effect.")
    if found.is_wrong(here):
        return
    entries = [(name, "value", value) for name, value in zip(names, values or [], strict=False)]
    if active is not None:
        listed = [name for name in SCALING_PARAMS if name in (*names, *active_names)]
        entries += [
            (name, "vary", name in active_names) for name in (*PARAMETER_NAMES[mode], *listed)
        ]
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
