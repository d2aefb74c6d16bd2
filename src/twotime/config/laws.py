"""From a configuration to its law: `analysis_mode`, or `model.law` and arguments."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from twotime.config.keys import Key, discard, fields, lookup
from twotime.config.law_types import GeometryConfig, ModelConfig, of_setting
from twotime.config.parameter_names import DEFAULT_MODE
from twotime.errors import Mistakes, Path, show
from twotime.models import LAWS
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.laws import Law, find_law, settings_of
from twotime.models.parameters import Setting

_PLAIN = int, float, bool, str
_STRICT: Any = {"strict": True, "allow_inf_nan": False}


def asked_kind(config: Mapping[str, Any], found: Mistakes) -> Law | None:
    """The class of the law that a configuration asks for; None where it is unknown."""
    word, mode = lookup(config, ("model", "law")), config.get("analysis_mode")
    if word is None:
        return LAWS.get(DEFAULT_MODE if mode is None else str(mode))
    if mode is not None:
        sentence = f"is {show(mode)}, but model.law is {show(word)}; keep one."
        found.add(("analysis_mode",), sentence)
    try:
        return find_law(word) if isinstance(word, str) else None
    except ValueError as error:
        found.add(("model", "law"), str(error))
        return None


def own_keys(kind: Law | None) -> dict[str, Key]:
    """Keys of the section `model` that this law alone knows."""
    settings = settings_of(kind) if kind else ()
    known = {*fields(ModelConfig)}
    return {
        s.path[-1]: _key(s) for s in settings if s.path[0] == "model" and s.path[-1] not in known
    }


def _key(setting: Setting) -> Key:
    info = FieldInfo.from_annotation(of_setting(setting))
    return Key(setting.path[-1], info, setting.effect)


def check_own_keys(config: dict[str, Any], kind: Law | None, found: Mistakes) -> None:
    """Note and remove arguments of a law that have a wrong type."""
    for name, key in own_keys(kind).items():
        path, value = ("model", name), lookup(config, ("model", name))
        if value is None or not (key.type in _PLAIN or get_origin(key.type) is Literal):
            continue
        try:
            TypeAdapter(key.type, config=_STRICT).validate_python(value)
        except ValidationError:
            found.add(path, f"got {show(value)}; expected {key.expected()}.")
            discard(config, path)


def make_law(
    config: Mapping[str, Any], kind: Law, found: Mistakes | None = None
) -> AbstractTwoTimeModel | None:
    """The law that a canonical configuration asks for; None where its arguments are wrong.

    Args:
        config: A canonical configuration; of its sections `model` and geometry are read.
        kind: Class of the law.
        found: Where mistakes are noted; without it they are raised.
    """
    arguments, found = dict[str, Any](), Mistakes() if found is None else found
    converters = {f.name: f.metadata.get("converter") for f in dataclasses.fields(kind)}
    for setting in settings_of(kind):
        value = None if found.is_wrong(setting.path) else lookup(config, setting.path)
        if value is None and setting.needed:  # a configuration without it, or with a wrong one,
            value = setting.example  # is refused by its key
        if value is None:
            continue
        try:
            convert = converters.get(setting.argument)
            arguments[setting.argument] = value if convert is None else convert(value)
        except (TypeError, ValueError) as error:
            found.add(setting.path, str(error))
    return _made(kind, arguments, found)


def _made(kind: Law, arguments: dict[str, Any], found: Mistakes) -> AbstractTwoTimeModel | None:
    required = [
        field.name
        for field in dataclasses.fields(kind)
        if field.init and field.default is field.default_factory is dataclasses.MISSING
    ]
    paths: dict[str, Path] = {setting.argument: setting.path for setting in settings_of(kind)}
    missing = [name for name in required if name not in arguments]
    for name in missing:
        if not found.is_wrong(paths[name]):
            found.add(paths[name], f"missing; {kind.__name__} needs it.")
    if missing:
        return None
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        found.add(("model",), str(error))
        return None


def sections_of_law(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a configuration as it was written that may hold arguments of a law."""
    geometry = lookup(config, ("analyzer_parameters", "geometry"))
    found = {"model": config.get("model"), "analyzer_parameters": {"geometry": geometry}}
    is_read = isinstance(geometry, Mapping) and set(geometry) & set(fields(GeometryConfig))
    return found if is_read else {"model": found["model"]}
