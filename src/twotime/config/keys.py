"""Keys of a configuration, and the way to their values; the sections are `twotime.config.types`."""

import ast
import dataclasses
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import Field
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from twotime.config.parameter_names import unknown_name
from twotime.errors import Path

_WORDS: Mapping[Any, str] = {
    float: "a number", int: "a whole number", bool: "true or false", str: "text",
    int | str: "a frame or a range (41-45)",
}  # fmt: skip
_PLURAL: Mapping[Any, str] = {
    float: "numbers", int: "whole numbers", str: "texts", int | str: "frames and ranges (41-45)"
}  # fmt: skip
EXTRAS = ("unit", "otherwise", "same", "refused", "words")
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def key(default: Any = None, **facts: Any) -> Any:
    """Pydantic's field of a key.

    Args:
        default: Value used where the key is left out; None where there is none.
        facts: What `pydantic.Field` takes (limits, `validation_alias`), the physical `unit`, what
            happens `otherwise` (a key without a default is left out), the key elsewhere that
            means the `same`, whether the key is `refused` (its description says why), and `words`
            for what it takes where that is one of several types.
    """
    extras: Any = {name: fact for name in EXTRAS if (fact := facts.pop(name, None))}
    return Field(... if default is None else default, json_schema_extra=extras, **facts)


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a section: its name, what pydantic knows of it, and its effect in words."""

    name: str
    info: FieldInfo
    effect: str = ""

    @property
    def type(self) -> Any:
        """Type without annotations."""
        return self.info.annotation

    @property
    def is_section(self) -> bool:
        """Whether the key holds further keys."""
        return is_typeddict(self.type)

    @property
    def is_union(self) -> bool:
        """Whether the key takes one of several types."""
        return bool(self.extra("words"))

    @property
    def default(self) -> Any:
        """Value used where the key is left out; None where there is none."""
        return None if self.info.is_required() else self.info.default

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other spellings."""
        choices = getattr(self.info.validation_alias, "choices", ())
        return tuple(choice for choice in choices if choice != self.name)

    @property
    def refused(self) -> bool:
        """Whether the key is refused."""
        return bool(self.extra("refused"))

    def extra(self, name: str) -> str:
        """A fact that pydantic has no place for, one of `EXTRAS`."""
        facts = self.info.json_schema_extra
        return str(facts.get(name, "")) if isinstance(facts, Mapping) else ""

    def range_text(self) -> str:
        """The limits in words; empty where there are none."""
        known = [(name, limit) for limit in self.info.metadata for name in _LIMITS]
        limits = {name: getattr(limit, name) for name, limit in known if hasattr(limit, name)}
        if "le" in limits and limits.get("ge") == -limits["le"]:
            return f"within ±{limits['le']:g}"
        return " and ".join(f"{_LIMITS[name]} {limit:g}" for name, limit in limits.items())

    def type_text(self) -> str:
        """The type in words of a configuration file."""
        kind, inner = self.type, self.item()
        if self.is_union:
            return self.extra("words")
        if self.is_section:
            return "a section"
        if get_origin(kind) is Literal:
            values = map(str, get_args(kind))
            return " | ".join(f"'{value}'" if ", " in value else value for value in values)
        if get_origin(kind) is dict:
            return "a section of numbers"
        if any(hasattr(limit, "max_length") for limit in self.info.metadata):
            return "a pair [low, high]"
        if inner:
            return f"a list of {_PLURAL.get(inner.type, 'pairs [low, high]')}"
        return _WORDS[kind]

    def expected(self) -> str:
        """What the key takes, in words: type, range and unit."""
        text, unit = self.type_text(), self.extra("unit")
        if get_origin(self.type) is Literal:
            text = f"one of {text.replace(' | ', ', ')}"
        return " ".join(filter(None, (text, self.range_text(), f"[{unit}]" if unit else "")))

    def item(self) -> "Key | None":
        """The items of a list or of a section of numbers; None for other types."""
        if get_origin(self.type) not in (list, dict):
            return None
        return Key(self.name, FieldInfo.from_annotation(get_args(self.type)[-1]))


@functools.cache
def _effects(module: str) -> dict[tuple[str, str], str]:
    """The strings below the keys of all sections of a module, by section and key."""
    found = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        for line, below in pairwise(getattr(node, "body", ())):
            if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
                path = (node.name, ast.unparse(line.target))  # type: ignore[attr-defined]
                found[path] = ast.literal_eval(below.value)
    return found


@functools.cache
def fields(section: Any) -> Mapping[str, Key]:
    """The keys of a section (a TypedDict)."""
    found = {}
    for name, hint in get_type_hints(section, include_extras=True).items():
        field = Key(name, FieldInfo.from_annotation(hint))
        about = _effects(section.__module__).get((section.__name__, name), field.info.description)
        if field.extra("same"):
            about = f"The same as {field.extra('same')}."
        about = about or (field.type.__doc__ if field.is_section else "")
        found[name] = dataclasses.replace(field, effect=" ".join((about or "").split()))
    return found


def section_at(section: Any, path: str) -> Mapping[str, Key]:
    """The keys of the section at a path ("optimization.nlsq") below another one."""
    keys = fields(section)
    for name in path.split("."):
        known = {name: key for name, key in keys.items() if key.is_section}
        if name not in known:
            raise unknown_name("section", path, known)
        keys = fields(known[name].type)
    return keys


def walk(section: Any, path: Path = ()) -> Iterator[tuple[Path, Key]]:
    """Every key of a section and of the sections in it, with its path, sections first."""
    for name, field in fields(section).items():
        yield (*path, name), field
        if field.is_section:
            yield from walk(field.type, (*path, name))


def lookup(config: Mapping[str, Any], path: Path) -> Any:
    """The value at a path; None where there is none."""
    value: Any = config
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def store(config: dict[str, Any], path: Path, value: Any) -> None:
    """Set the value at a path and make the sections on the way."""
    for name in path[:-1]:
        config = config.setdefault(name, {})
    config[path[-1]] = value


def discard(config: dict[str, Any], path: Path) -> None:
    """Remove the value at a path; sections that become empty stay."""
    parent = lookup(config, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)
