"""Reading YAML and JSON text strictly: one meaning for every file, or a sentence why not.

Differences from plain YAML 1.1: a key may stand once, `1e4` is a number, `010` is ten, `1:30`
is text and not ninety, dates are text, and tags that make other objects are refused. Aliases
may not grow into more than a configuration can hold.
"""

import json
import re
from typing import Any

from twotime.errors import ConfigurationError

_LARGEST_FILE = 2**20
_MOST_NODES = 20_000
_DEEPEST = 40
_LONGEST_NUMBER = 300

_NUMBERS = (
    (r"[-+]?[0-9][0-9_]*$", "int", "-+0123456789"),
    (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$",
        "float",
        "-+0123456789.",
    ),
    (r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", "bool",
     "yYnNtTfFoO"),
    (r"(?:~|null|Null|NULL|)$", "null", ("~", "n", "N", "")),
    (r"<<$", "merge", "<"),
)  # fmt: skip


def _decoded(raw: bytes, source: str) -> str:
    if len(raw) > _LARGEST_FILE:
        raise ConfigurationError(
            f"the file has {len(raw)} bytes; a configuration has at most {_LARGEST_FILE}.", source
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"line {line}: byte 0x{raw[error.start]:02x} is not UTF-8 text; save the file as "
            "UTF-8.",
            source,
        ) from None


def parse_json(raw: bytes, source: str) -> Any:
    """Read JSON text.

    Args:
        raw: The file's bytes.
        source: Name of the file, for messages.

    Raises:
        ConfigurationError: If it is not JSON, or a key stands twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f"the key {name!r} stands twice in one section.", source)
        return dict(pairs)

    def whole(digits: str) -> int:
        if len(digits) > _LONGEST_NUMBER:
            raise _too_long(digits, source)
        return int(digits)

    text = _decoded(raw, source)
    if _json_depth(text) > _DEEPEST:
        raise ConfigurationError(f"sections are nested more than {_DEEPEST} deep.", source)
    try:
        return json.loads(text, object_pairs_hook=once, parse_int=whole)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}.", source
        ) from None


def _json_depth(text: str) -> int:
    depth = deepest = 0
    for bracket in re.sub(r'"(?:[^"\\]|\\.)*"', "", text):
        depth += (bracket in "[{") - (bracket in "]}")
        deepest = max(deepest, depth)
    return deepest


def _too_long(digits: str, source: str) -> ConfigurationError:
    return ConfigurationError(
        f"a number has {len(digits)} digits, more than {_LONGEST_NUMBER}.", source
    )


def parse_yaml(raw: bytes, source: str) -> Any:
    """Read YAML text.

    Args:
        raw: The file's bytes.
        source: Name of the file, for messages.

    Raises:
        ConfigurationError: If it is not YAML, a key stands twice, or aliases grow too large.
    """
    import yaml

    text = _decoded(raw, source)
    try:
        _check_depth(yaml.parse(text, Loader=yaml.SafeLoader), source)
        loader = _loader()(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigurationError("the file is empty.", source)
        _count(node, {}, source)
        return _value(node, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or error.context
        raise ConfigurationError(f"{place}not YAML: {problem}.", source) from None
    except yaml.reader.ReaderError as error:
        raise ConfigurationError(
            f"position {error.position}: the character 0x{error.character:02x} is not allowed "
            "in YAML.",
            source,
        ) from None


def _check_depth(events: Any, source: str) -> None:
    """Refuse deep nesting before anything recursive sees the text."""
    depth = 0
    for event in events:
        name = type(event).__name__
        depth += name.endswith("StartEvent") and name[:3] in ("Map", "Seq")
        depth -= name.endswith("EndEvent") and name[:3] in ("Map", "Seq")
        if depth > _DEEPEST:
            line = event.start_mark.line + 1
            raise ConfigurationError(
                f"line {line}: sections are nested more than {_DEEPEST} deep.", source
            )


def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}

    for pattern, tag, first in _NUMBERS:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))
    return Loader


def _count(node: Any, known: dict[int, int | None], source: str) -> int:
    """Nodes below a node with every alias written out."""
    if id(node) in known:
        total = known[id(node)]
        if total is None:
            raise ConfigurationError(
                f"line {node.start_mark.line + 1}: an anchor contains itself.", source
            )
        return total
    known[id(node)] = None
    total = 1
    for child in _children(node):
        total += _count(child, known, source)
    if total > _MOST_NODES:
        raise ConfigurationError(
            f"line {node.start_mark.line + 1}: with its aliases written out the file has more "
            f"than {_MOST_NODES} entries.",
            source,
        )
    known[id(node)] = total
    return total


def _children(node: Any) -> list[Any]:
    if node.id == "mapping":
        return [part for pair in node.value for part in pair]
    return node.value if node.id == "sequence" else []


def _value(node: Any, source: str) -> Any:
    """The Python value of a node; only what a configuration can hold."""
    line = node.start_mark.line + 1
    tag = node.tag.removeprefix("tag:yaml.org,2002:")
    if node.id == "sequence" and tag == "seq":
        return [_value(item, source) for item in node.value]
    if node.id == "mapping" and tag == "map":
        return _mapping(node, source)
    if node.id != "scalar" or tag not in ("str", "int", "float", "bool", "null", "merge"):
        raise ConfigurationError(
            f"line {line}: the tag {node.tag!r} is not allowed; plain values only.", source
        )
    return _scalar(node.value, tag, line, source)


def _scalar(text: str, tag: str, line: int, source: str) -> Any:
    if tag == "null":
        return None
    if tag == "bool" and text.lower() in ("yes", "true", "on", "no", "false", "off"):
        return text.lower() in ("yes", "true", "on")
    if tag in ("int", "float"):
        digits = text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan")
        if len(digits) > _LONGEST_NUMBER:
            raise _too_long(digits, source)
        try:
            return int(digits) if tag == "int" else float(digits)
        except ValueError:
            raise ConfigurationError(f"line {line}: {text!r} is not a number.", source) from None
    return text


def _mapping(node: Any, source: str) -> dict[str, Any]:
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag.endswith(":merge"):
            merged = _merged(value_node, source) | merged
            continue
        key = _value(key_node, source)
        if not isinstance(key, str):
            raise ConfigurationError(
                f"line {line}: a key must be text; put it in quotes or correct it.", source
            )
        if key in own:
            raise ConfigurationError(
                f"line {line}: the key {key!r} stands twice in one section.", source
            )
        own[key] = _value(value_node, source)
    return merged | own


def _merged(node: Any, source: str) -> dict[str, Any]:
    """What `<<` brings in: a section, or sections of which the first wins."""
    nodes = node.value if node.id == "sequence" else [node]
    merged: dict[str, Any] = {}
    for part in nodes:
        if part.id != "mapping":
            line = part.start_mark.line + 1
            raise ConfigurationError(f"line {line}: `<<` takes in sections only.", source)
        merged = _mapping(part, source) | merged
    return merged
