"""What is known of one key of the configuration, written once beside its type.

The validation, the JSON schema, the table of the manual and the full template all read it here.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict


@dataclasses.dataclass(frozen=True)
class Key:
    """Facts about one key, carried in its `Annotated` type.

    Attributes:
        effect: What the key does, for the manual.
        unit: Physical unit; empty for pure numbers and words.
        default: Value where the key is left out; None where nothing stands in its place.
        default_text: How the manual words a default that is not one value.
        ge: Smallest allowed number.
        gt: Number that must be exceeded.
        le: Largest allowed number.
        lt: Number that must not be reached.
        aliases: Other spellings accepted for the key.
        refused: Why the key is not taken; empty for a key that is.
    """

    effect: str
    unit: str = ""
    default: Any = None
    default_text: str = ""
    ge: float | int | None = None
    gt: float | int | None = None
    le: float | int | None = None
    lt: float | int | None = None
    aliases: tuple[str, ...] = ()
    refused: str = ""

    def limits(self) -> dict[str, float | int]:
        """The bounds that are set, by pydantic's names."""
        named = {"ge": self.ge, "gt": self.gt, "le": self.le, "lt": self.lt}
        return {name: bound for name, bound in named.items() if bound is not None}

    def range_text(self) -> str:
        """The bounds in words, empty where there are none."""
        if self.le is not None and self.ge == -self.le:
            return f"within ±{self.le:g}"
        words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
        return " and ".join(f"{words[name]} {bound:g}" for name, bound in self.limits().items())

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Tell pydantic the range, or that the key is refused."""
        from pydantic_core import PydanticCustomError, core_schema

        schema = handler(source)
        if self.refused:

            def refuse(value: Any) -> Any:
                raise PydanticCustomError("refused", "{why}", {"why": self.refused})

            return core_schema.no_info_before_validator_function(refuse, schema)
        if schema["type"] in ("int", "float"):
            schema.update(self.limits())
        return schema

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        """Write description, unit and default into the JSON schema."""
        facts: dict[str, Any] = {"description": self.effect}
        if self.refused:
            return {"not": {}, "description": f"Not taken: {self.refused}"}
        if self.unit:
            facts["unit"] = self.unit
        if self.default is not None:
            facts["default"] = self.default
        return handler(core) | facts


@dataclasses.dataclass(frozen=True)
class Field:
    """One key of a section: its type without wrappers and what is known of it."""

    name: str
    type: Any
    key: Key

    @property
    def is_section(self) -> bool:
        """Whether the key holds keys of its own."""
        return is_typeddict(self.type)

    def type_text(self) -> str:
        """The type in words of a configuration file."""
        return _type_text(self.type)

    def expected(self) -> str:
        """What the key takes, in words: type, range and unit."""
        return describe(self.type, self.key)


def fields(section: Any) -> dict[str, Field]:
    """The keys of a section (a TypedDict) with what is known of each."""
    found = {}
    for name, hint in get_type_hints(section, include_extras=True).items():
        kind, key = unwrapped(hint)
        found[name] = Field(name, kind, key or Key(""))
    return found


def unwrapped(hint: Any) -> tuple[Any, Key | None]:
    """A type without its `Annotated` wrappers, and the innermost facts that they carry."""
    key = None
    while get_origin(hint) is Annotated:
        key = next((extra for extra in hint.__metadata__ if isinstance(extra, Key)), key)
        hint = hint.__origin__
    return hint, key


def walk(section: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Field]]:
    """Every key of a section and of the sections in it, with its path, sections first."""
    for name, field in fields(section).items():
        yield (*path, name), field
        if field.is_section:
            yield from walk(field.type, (*path, name))


_WORDS: Mapping[Any, str] = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
}


def _type_text(kind: Any) -> str:
    kind, _ = unwrapped(kind)
    if is_typeddict(kind):
        return "a section"
    if get_origin(kind) is Literal:
        return " | ".join(str(value) for value in get_args(kind))
    if get_origin(kind) is list:
        inner, _ = unwrapped(get_args(kind)[0])
        plural = {float: "numbers", int: "whole numbers", str: "texts"}
        return f"a list of {plural.get(inner, _type_text(inner))}"
    if get_origin(kind) is tuple:
        return "pairs [low, high]"
    if get_origin(kind) is dict:
        return "a section of numbers"
    return _WORDS[kind]


def describe(kind: Any, key: Key) -> str:
    """What a key takes, in words: type, range and unit."""
    text = _type_text(kind)
    if get_origin(kind) is Literal:
        text = f"one of {', '.join(str(value) for value in get_args(kind))}"
    limits = key.range_text()
    return " ".join(part for part in (text, limits, f"[{key.unit}]" if key.unit else "") if part)
