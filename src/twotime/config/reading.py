"""From a configuration as it was written to its canonical form, with every mistake noted.

Four steps: one spelling of each key, types and ranges (by pydantic),
older and shorter forms, and the rules about keys together (`twotime.config.rules`).
"""

import copy
import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError

from twotime.config import types
from twotime.config.keys import Key, discard, fields, lookup, store, walk
from twotime.config.laws import asked_kind, check_own_keys, make_law, own_keys, sections_of_law
from twotime.config.parameter_names import (
    DEFAULT_MODE,
    PARAMETER_ALIASES,
    PARAMETER_GROUPS,
    nearest,
)
from twotime.config.parameter_registry import REGISTRIES, ParameterRegistry
from twotime.config.rules import check_rules, word_of
from twotime.config.types import HeterodyneConfig
from twotime.errors import Mistakes, Path, show
from twotime.models.base import AbstractTwoTimeModel

OLDER = ("temporal", "scattering", "analysis", "initial_parameters")


@dataclasses.dataclass
class Spelling:
    """Canonical spelling of sections; wrong keys are noted.

    Attributes:
        found: Where mistakes are noted.
        registry: Parameters of the model; empty where the model is unknown.
        own: Keys of the section `model` that this law alone knows.
    """

    found: Mistakes
    registry: ParameterRegistry
    own: Mapping[str, Key] = dataclasses.field(default_factory=dict)

    def section(self, section: Mapping[Any, Any], kind: Any, path: Path) -> dict[str, Any]:
        """A section with canonical keys; keys without a value count as left out."""
        known = {**fields(kind), **(self.own if path == ("model",) else {})}
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
                self._unknown_key(here, name, known, meant)
            else:
                spelling[name] = written
                self.found.spelled(here, (*path, written))
                if value is not None and known[name].refused:
                    self.found.add(here, f"is not accepted. {known[name].effect}")
                elif value is not None:
                    result[name] = self._value(known[name], value, here)
        return result

    def _unknown_key(
        self, here: Path, name: str, known: Mapping[str, Key], meant: Mapping[str, str]
    ) -> None:
        """Note a key that this section does not have, and where it belongs."""
        homes = [
            path for path, key in walk(HeterodyneConfig)
            if name in (key.name, *key.aliases) and not key.refused
            and path[0] not in OLDER and "layout" not in path
        ]  # fmt: skip
        if homes and not nearest(name, (*known, *meant)):
            places = " or ".join(".".join(path[:-1]) or "the top of the file" for path in homes)
            self.found.add(here, f"there is no such key here; it belongs to {places}.")
            self.found.wrong.update(homes)  # not missing, but misplaced
            return
        allowed = ", ".join(key.name for key in known.values() if not key.refused)
        near = nearest(name, (*known, *meant)) or "."
        self.found.add(here, f"there is no such key{near} Allowed here: {allowed}.")

    def _value(self, key: Key, value: Any, path: Path) -> Any:
        if key.is_section and isinstance(value, str) and re.match(r"\w+:\S", value):
            sentence = f"a space is missing after the colon of {show(value)}."
            self.found.add(path, sentence)
            return {}
        if key.name == "file_format" and value == "HDF5":  # of other programs: the container
            return "auto"
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


Keys = tuple[dict[str, Any], AbstractTwoTimeModel | None, Mistakes]


def read_keys(config: Any, *, is_whole: bool = True) -> Keys:
    """The canonical form of a configuration, without keys that are wrong, its law, its mistakes.

    The law is None where it is unknown or its arguments are wrong.

    Args:
        config: Sections and keys as a file has them.
        is_whole: Whether it must contain all that a run needs.
    """
    found = Mistakes()
    if not isinstance(config, Mapping):
        sentence = "A configuration is a mapping of sections (key: value)"
        found.problems.append(f"{sentence}; got {show(config)}.")
        found.wrong.add(())
        return {}, None, found
    law, registry, own = _asked_law(config, found)
    canonical = Spelling(found, registry, own).section(copy.deepcopy(config), HeterodyneConfig, ())
    _check_types(canonical, found, registry, own)
    if law is None:
        return canonical, None, found
    check_own_keys(canonical, type(law), found)
    is_older = "temporal" in canonical or "initial_parameters" in canonical
    fold(canonical, registry, found)
    check_rules(canonical, law, found, is_whole=is_whole)
    phi0 = ("parameters", "angle", "phi0")
    if is_older and word_of(canonical) == DEFAULT_MODE and lookup(canonical, (*phi0, "value")):
        sign = "the flow angle is phi - phi0; programs that use phi + phi0 need the opposite sign."
        found.remark(phi0, sign)
    return canonical, law, found


def _asked_law(
    config: Mapping[str, Any], found: Mistakes
) -> tuple[AbstractTwoTimeModel | None, ParameterRegistry, Mapping[str, Key]]:
    """The law, its parameters, and its own keys; known before the rest can be read.

    Keys with a mistake are left out here; `read_keys` notes them where it meets them.
    """
    unknown, kind = ParameterRegistry(()), asked_kind(config, found)
    own = own_keys(kind)
    if kind is None:
        return None, unknown, own
    ignored = Mistakes()
    written = copy.deepcopy(sections_of_law(config))
    part = Spelling(ignored, unknown, own).section(written, HeterodyneConfig, ())
    _check_types(part, ignored, unknown, own)
    check_own_keys(part, kind, ignored)
    found.wrong |= ignored.wrong
    law = make_law(part, kind, found)
    try:
        return law, unknown if law is None else ParameterRegistry.of(law), own
    except TypeError as error:
        found.add(("model", "law"), str(error))
        return None, unknown, own


# Types and ranges


_RULES = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@functools.cache
def validator() -> Any:
    """Pydantic's validator of a whole configuration."""
    HeterodyneConfig.__pydantic_config__ = _RULES  # type: ignore[attr-defined]
    return TypeAdapter(HeterodyneConfig)


@functools.cache
def _of_parameter() -> Any:
    """Pydantic's validator of one parameter."""
    types.ParameterConfig.__pydantic_config__ = _RULES  # type: ignore[attr-defined]
    return TypeAdapter(types.ParameterConfig)


def _check_types(
    config: dict[str, Any], found: Mistakes, registry: ParameterRegistry, own: Mapping[str, Key]
) -> None:
    """Note and remove every value of a wrong type or out of range.

    The schema does not know the groups and the keys of laws of your own: these are left out, and
    each of their parameters is looked at by itself.
    """
    known = {group for groups in PARAMETER_GROUPS.values() for group in groups}
    names = fields(types.ParameterGroupConfig)
    is_own = not (known.issuperset(registry.groups) and names.keys() >= set(registry))
    whole = dict(config)
    if own and isinstance(config.get("model"), dict):
        whole["model"] = {n: x for n, x in config["model"].items() if n not in own}
    parameters = whole.pop("parameters", {}) if is_own else {}
    if is_own and not isinstance(parameters, Mapping):
        found.add(("parameters",), f"got {show(parameters)}; expected a section.")
        discard(config, ("parameters",))
        parameters = {}
    try:
        validator().validate_python(whole)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            discard(config, _note(mistake, config, found))
    for group, names in parameters.items():
        if not isinstance(names, Mapping):
            found.add(("parameters", group), f"got {show(names)}; expected a section.")
        for name, entry in names.items() if isinstance(names, Mapping) else ():
            try:
                _of_parameter().validate_python(entry)
            except ValidationError as error:
                path = "parameters", group, name
                for mistake in error.errors(include_url=False):
                    discard(config, _note(mistake, config, found, path, types.ParameterConfig))


def _note(
    mistake: Any,
    config: Mapping[str, Any],
    found: Mistakes,
    path: Path = (),
    section: Any = HeterodyneConfig,
) -> Path:
    """Note one of pydantic's mistakes in our words; gives the path of its key."""
    steps = [step for step in mistake["loc"] if step not in ("int", "str")]  # parts of a union
    known: Mapping[str, Key] = fields(section)
    while known and steps:
        key = known[steps.pop(0)]
        path, known = (*path, key.name), fields(key.type) if key.is_section else {}
    value = lookup(config, path)
    if key.is_union:  # pydantic tells of each type
        if not found.is_wrong(path):
            found.add(path, f"got {show(value)}; expected {key.expected()}.")
        return path
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    for _ in steps:
        key = key.item() or key
    got, near = mistake["input"], ""
    if mistake["type"] == "literal_error" and isinstance(got, str):
        near = nearest(got, map(str, get_args(key.type)))
    where = f"at {place.lstrip('.')} " if place else ""
    found.add(path, f"{where}got {show(got)}; expected {key.expected()}{near or '.'}")
    return path
