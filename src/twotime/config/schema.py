"""Second step of reading a configuration: types, ranges and unknown keys; and the JSON schema."""

import functools
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from twotime.config.keys import Field, Key, fields, unwrapped
from twotime.config.mistakes import Findings, Path, discard, show
from twotime.config.parameter_names import PARAMETER_ALIASES, nearest
from twotime.config.types import HeterodyneConfig, ParameterGroupConfig


def _sections(kind: Any) -> Iterator[Any]:
    yield kind
    for field in fields(kind).values():
        if field.is_section:
            yield from _sections(field.type)


@functools.cache
def _adapter() -> Any:
    """Pydantic's validator of a whole configuration, built at the first use."""
    from pydantic import TypeAdapter

    for section in _sections(HeterodyneConfig):
        section.__pydantic_config__ = {
            "extra": "forbid",
            "strict": True,
            "allow_inf_nan": False,
            "title": section.__name__,
        }
    return TypeAdapter(HeterodyneConfig)


def check_types(config: dict[str, Any], found: Findings) -> dict[str, Any]:
    """Note every unknown key and every value of a wrong type or out of range.

    Args:
        config: A configuration spelled in one way; wrong keys are taken out of it.
        found: Where mistakes are noted.

    Returns:
        The configuration without what is wrong.
    """
    from pydantic import ValidationError

    try:
        _adapter().validate_python(config)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            path = _report(mistake, found)
            discard(config, path)
    return config


def _report(mistake: Any, found: Findings) -> Path:
    """Note one of pydantic's mistakes in our words; gives the path of the key it is in."""
    steps = tuple(mistake["loc"])
    section: Any = HeterodyneConfig
    field: Field | None = None
    path: Path = ()
    for step in steps:
        known = fields(section) if field is None or field.is_section else {}
        if step not in known:
            break
        field, path = known[step], (*path, step)
        section = field.type
    rest = steps[len(path) :]
    kind = mistake["type"]
    if kind == "extra_forbidden" and (field is None or field.is_section):
        return _report_unknown((*path, *map(str, rest)), section, found)
    assert field is not None
    if kind == "refused":
        found.add(path, f"is not taken: {mistake['ctx']['why']}")
        return path
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in rest)
    where = f"at {place.lstrip('.')} " if place else ""
    expected, proposal = field.expected(), ""
    if rest:
        expected = _expected_inside(field, rest)
    got = mistake["input"]
    if kind == "literal_error" and isinstance(got, str):
        proposal = nearest(got, map(str, get_args(field.type)))
    found.add(path, f"{where}got {show(got)}; expected {expected}{proposal or '.'}")
    return path


def _report_unknown(path: Path, section: Any, found: Findings) -> Path:
    known = fields(section)
    aliases = [alias for field in known.values() for alias in field.key.aliases]
    taken = [name for name, field in known.items() if not field.key.refused]
    proposal = nearest(path[-1], (*known, *aliases))
    found.add(path, f"there is no such key{proposal or '.'} Allowed here: {', '.join(taken)}.")
    return path


def _expected_inside(field: Field, steps: tuple[Any, ...]) -> str:
    """What is expected inside a list or a section of numbers."""
    kind, key = field.type, Key("")
    for _ in steps:
        if not get_args(kind) or get_origin(kind) not in (list, tuple, dict):
            break
        kind, inner = unwrapped(get_args(kind)[-1])
        key = inner or key
    return Field(field.name, kind, key).expected()


def json_schema() -> dict[str, Any]:
    """JSON schema of the configuration, for editors.

    Every spelling that `twotime validate` takes is in it: parameters under their group or
    directly, a bare number for a parameter, aliases of keys.
    """
    schema = _adapter().json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "twotime configuration"
    definitions = schema["$defs"]
    for section in _sections(HeterodyneConfig):
        properties = definitions.get(section.__name__, schema).get("properties", {})
        for name, field in fields(section).items():
            for alias in field.key.aliases:
                properties[alias] = properties[name] | {"deprecated": True}
    number = {"type": "number", "description": "The value."}
    group = definitions["ParameterGroupConfig"]["properties"]
    for name in fields(ParameterGroupConfig):
        group[name] = {"anyOf": [number, {"$ref": "#/$defs/ParameterConfig"}]}
    for alias, name in PARAMETER_ALIASES.items():
        group[alias] = group[name] | {"deprecated": True}
    direct = definitions["ParametersConfig"]["properties"]
    velocity = {"anyOf": [direct["velocity"], *group["velocity"]["anyOf"]]}
    definitions["ParametersConfig"]["properties"] = group | direct | {"velocity": velocity}
    return schema
