"""Keys of a configuration: what is known of each, the way to its value, and mistakes at it.

What is known of a key stands in its section (`twotime.config.types`) as type, range, default and
docstring. Validation, JSON schema, the tables of the manual and the full template read it here.
"""

import ast
import dataclasses
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import AliasChoices, Field
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from twotime.config.parameter_names import unknown_name

_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
_PLURAL = {float: "numbers", int: "whole numbers", str: "texts"}
EXTRAS = ("unit", "otherwise", "same", "refused")
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def key(default: Any = None, **facts: Any) -> Any:
    """Pydantic's field of a key.

    Args:
        default: Value used where the key is left out; None where there is none.
        facts: Limits, `validation_alias` and all else that `pydantic.Field` takes, and `EXTRAS`:
            `unit`, the physical unit;
            `otherwise`, what happens where a key without a default is left out, for the manual;
            `same`, the key elsewhere that means the same;
            `refused`, whether the key is refused, for the reason that its description gives.
    """
    extras: Any = {name: fact for name in EXTRAS if (fact := facts.pop(name, None))}
    return Field(... if default is None else default, json_schema_extra=extras, **facts)


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a section.

    Attributes:
        name: Its canonical spelling.
        info: Its type, limits, aliases and default, as pydantic has them.
        effect: What it does, for the manual.
    """

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
    def default(self) -> Any:
        """Value used where the key is left out; None where there is none."""
        return None if self.info.is_required() else self.info.default

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other spellings."""
        alias = self.info.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else ()
        return tuple(str(choice) for choice in choices if choice != self.name)

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
        limits = {
            name: getattr(limit, name)
            for limit in self.info.metadata
            for name in _LIMITS
            if hasattr(limit, name)
        }
        if "le" in limits and limits.get("ge") == -limits["le"]:
            return f"within ±{limits['le']:g}"
        return " and ".join(f"{_LIMITS[name]} {limit:g}" for name, limit in limits.items())

    def type_text(self) -> str:
        """The type in words of a configuration file."""
        kind, inner = self.type, self.item()
        if self.is_section:
            return "a section"
        if get_origin(kind) is Literal:
            return " | ".join(str(value) for value in get_args(kind))
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
        for line, below in pairwise(node.body if isinstance(node, ast.ClassDef) else ()):
            if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
                path = (node.name, ast.unparse(line.target))  # type: ignore[attr-defined]
                found[path] = " ".join(ast.literal_eval(below.value).split())
    return found


@functools.cache
def fields(section: Any) -> Mapping[str, Key]:
    """The keys of a section (a TypedDict)."""
    hints = get_type_hints(section, include_extras=True)
    infos = {name: FieldInfo.from_annotation(hint) for name, hint in hints.items()}
    effects = _effects(section.__module__)
    return {
        name: Key(name, info, effects.get((section.__name__, name)) or _about(info))
        for name, info in infos.items()
    }


def _about(info: FieldInfo) -> str:
    extra = info.json_schema_extra
    if isinstance(extra, Mapping) and "same" in extra:
        return f"The same as {extra['same']}."
    about = info.annotation.__doc__ if is_typeddict(info.annotation) else info.description
    return " ".join((about or "").split())


def section_at(section: Any, path: str) -> Mapping[str, Key]:
    """The keys of a section below another one.

    Args:
        section: A section (a TypedDict).
        path: Names of the sections on the way, joined by points ("optimization.nlsq").

    Raises:
        UnknownNameError: If there is no such section (a ValueError and a KeyError).
    """
    keys = fields(section)
    for name in path.split("."):
        known = {name: key for name, key in keys.items() if key.is_section}
        if name not in known:
            raise unknown_name("section", path, known)
        keys = fields(known[name].type)
    return keys


def walk(section: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Key]]:
    """Every key of a section and of the sections in it, with its path, sections first."""
    for name, field in fields(section).items():
        yield (*path, name), field
        if field.is_section:
            yield from walk(field.type, (*path, name))


# The way to a value

Path = tuple[str, ...]


def lookup(config: Mapping[str, Any], path: Path) -> Any:
    """The value at a path; None where there is none."""
    value: Any = config
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
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


# Mistakes


@dataclasses.dataclass
class Mistakes:
    """Mistakes and remarks collected so far, and the keys that are known to be wrong.

    Attributes:
        problems: One sentence for each mistake.
        remarks: One sentence for each noteworthy thing that is no mistake.
        wrong: Paths of keys with a mistake, so that no other rule is applied to them.
        written: How the file spells a path, where it differs.
    """

    problems: list[str] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    wrong: set[Path] = dataclasses.field(default_factory=set)
    written: dict[Path, str] = dataclasses.field(default_factory=dict)

    def add(self, path: Path, *sentences: str) -> None:
        """Note mistakes at a key."""
        for sentence in sentences:
            self.problems.append(f"{self.spell(path)}: {sentence}")
            self.wrong.add(path)

    def remark(self, path: Path, sentence: str) -> None:
        """Note something about a key that is no mistake."""
        self.remarks.append(f"{self.spell(path)}: {sentence}")

    def spelled(self, path: Path, written: Path) -> None:
        """Note how the file spells a path."""
        if written != path:
            self.written[path] = ".".join(written)

    def spell(self, path: Path) -> str:
        """The path as the file spells it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.written:
                return ".".join((self.written[path[:length]], *path[length:]))
        return ".".join(path)

    def is_wrong(self, path: Path) -> bool:
        """Whether a mistake is known at the key, above it or below it."""
        return any(bad[: len(path)] == path[: len(bad)] for bad in self.wrong)


def show(value: Any) -> str:
    """A value as a sentence quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**15:
        return "a whole number of more than 15 digits"
    return str(value) if isinstance(value, int | float) else f"a {type(value).__name__}"
