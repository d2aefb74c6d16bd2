"""YAML and JSON text to plain values.

Differences from plain YAML 1.1: a key may be given once in a section, `1e4` is a number, `010` is
ten, `1:30` and dates are text.
"""

import json
import re
from typing import Any

import yaml

from twotime.errors import ConfigurationError

_LARGEST_FILE = 2**20
_MOST_VALUES = 20_000
_DEEPEST = 40
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with our numbers, and keys that are text and unique."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A section, checked, with what `<<` brings in: its own keys win, then the first."""
        node = super().compose_mapping_node(anchor)
        own, merged = {}, []
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for part in reversed(parts):
                    if not isinstance(part, yaml.MappingNode):
                        raise _mistake("`<<` takes in sections only", key)
                    merged += part.value
            elif key.tag != f"{_TAG}str":
                raise _mistake("a key must be text; put it in quotes or correct it", key)
            elif key.value in own:
                raise _mistake(f"the key {key.value!r} is given twice in one section", key)
            else:
                own[key.value] = (key, value)
        node.value = [*merged, *own.values()]
        return node


def _mistake(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


for _kind, _pattern, _first in (
    ("int", r"[-+]?[0-9][0-9_]*$", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$",
        "-+0123456789.",
    ),
    ("bool", r"(?i:yes|no|true|false|on|off)$", "yYnNtTfFoO"),
    ("null", r"(~|null|Null|NULL|)$", ("~", "n", "N", "")),
    ("merge", r"<<$", "<"),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), list(_first))


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)).replace("_", ""))


_Loader.add_constructor(f"{_TAG}int", _whole)


def parse_yaml(raw: bytes, source: str) -> Any:
    """Read YAML text.

    Args:
        raw: The file's bytes.
        source: Name of the file, for messages.

    Raises:
        ConfigurationError: If it is not YAML, a key is given twice, or it is too large.
    """
    text = _decoded(raw, source)
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or error.context
        raise ConfigurationError(f"{place}not valid YAML: {problem}.", source) from None
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"not valid YAML: {reason}.", source) from None
    except RecursionError:
        raise _too_deep(source) from None
    if value is None:
        raise ConfigurationError("the file is empty.", source)
    return _copied(value, source, [0])


def parse_json(raw: bytes, source: str) -> Any:
    """Read JSON text.

    Args:
        raw: The file's bytes.
        source: Name of the file, for messages.

    Raises:
        ConfigurationError: If it is not JSON, a key is given twice, or it is too large.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                sentence = f"the key {name!r} is given twice in one section."
                raise ConfigurationError(sentence, source)
        return dict(pairs)

    try:
        value = json.loads(_decoded(raw, source), object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}.", source
        ) from None
    except ConfigurationError:
        raise
    except ValueError as error:
        raise ConfigurationError(f"not valid JSON: {error}.", source) from None
    except RecursionError:
        raise _too_deep(source) from None
    return _copied(value, source, [0])


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


def _copied(value: Any, source: str, count: list[int], depth: int = 0) -> Any:
    """A value with its aliases written out; `count` is the number of values so far."""
    count[0] += 1
    if depth > _DEEPEST:
        raise _too_deep(source)
    if count[0] > _MOST_VALUES:
        raise ConfigurationError(
            f"the file has more than {_MOST_VALUES} values, with aliases written out.", source
        )
    if isinstance(value, dict):
        return {key: _copied(item, source, count, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item, source, count, depth + 1) for item in value]
    return value


def _too_deep(source: str) -> ConfigurationError:
    return ConfigurationError(
        f"sections are nested more than {_DEEPEST} deep, or an anchor contains itself.", source
    )
