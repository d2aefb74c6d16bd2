"""Configuration files: YAML and JSON to values, templates to start from, the schema for editors.

Differences from plain YAML 1.1: a key may be given once in a section, `1e4` is a number, `010` is
ten, `1:30` and dates are text.
"""

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from twotime.config.keys import discard, fields, lookup, store, walk
from twotime.config.laws import make_law, own_keys
from twotime.config.parameter_names import PARAMETER_ALIASES, PARAMETER_GROUPS, unknown_name
from twotime.config.parameter_registry import ParameterRegistry
from twotime.config.parameter_space import ParameterSpace, read
from twotime.config.reading import OLDER, validator
from twotime.config.types import HeterodyneConfig, ParameterConfig
from twotime.errors import ConfigurationError, Mistakes
from twotime.models import LAWS
from twotime.models.base import AbstractTwoTimeModel, Example, ParameterInfo
from twotime.models.laws import SHIPPED, find_law, own_words

_LARGEST_FILE = 2**20
_MOST_BYTES = 2**21
_MOST_VALUES = 20_000
_DEEPEST = 40
_TAG = "tag:yaml.org,2002:"


# YAML and JSON


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with our numbers, and keys that are text and unique."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A section, checked, with what `<<` brings in: its own keys win, then the first.

        PyYAML lets the last one win (version 6.0.4), unlike YAML.
        """
        node = super().compose_mapping_node(anchor)
        own, merged, problem = {}, [], ""
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
                if all(isinstance(part, yaml.MappingNode) for part in parts):
                    merged += [item for part in reversed(parts) for item in part.value]
                else:
                    problem = "`<<` takes in sections only"
            elif key.tag != f"{_TAG}str":
                problem = "a key must be text; put it in quotes or correct it"
            elif key.value in own:
                problem = f"the key {key.value!r} is given twice in one section"
            else:
                own[key.value] = (key, value)
            if problem:
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        node.value = [*merged, *own.values()]
        return node


_FLOAT = (
    r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
for _kind, _pattern, _first in (
    ("int", r"[-+]?[0-9][0-9_]*$", "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("bool", r"(?i:yes|no|true|false|on|off)$", "yYnNtTfFoO"),
    ("null", r"(~|null|Null|NULL|)$", ("~", "n", "N", "")),
    ("merge", r"<<$", "<"),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), list(_first))
_Loader.add_constructor(f"{_TAG}int", lambda loader, node: int(node.value.replace("_", "")))


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a configuration file; of a larger file those that show that it is too large.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    try:
        with Path(path).open("rb") as stream:
            return stream.read(_MOST_BYTES)  # what is larger may be endless
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(f"cannot be read: {reason}.", str(path)) from None


def parse_yaml(raw: bytes, source: str) -> Any:
    """Read YAML text.

    Args:
        raw: The file's bytes.
        source: Name of the file, for messages.

    Raises:
        ConfigurationError: If it is not YAML, a key is given twice, or it is too large.
    """
    value = _parsed(raw, source, "YAML", lambda text: yaml.load(text, Loader=_Loader))
    if value is None:
        raise ConfigurationError("the file is empty.", source)
    return value


def parse_json(raw: bytes, source: str) -> Any:
    """Read JSON text.

    Args:
        raw: The file's bytes.
        source: Name of the file, for messages.

    Raises:
        ConfigurationError: If it is not JSON, a key is given twice, or it is too large.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        section = dict[str, Any]()
        for name, value in pairs:
            if name in section:
                raise ValueError(f"the key {name!r} is given twice in one section")
            section[name] = value
        return section

    return _parsed(raw, source, "JSON", lambda text: json.loads(text, object_pairs_hook=once))


def _parsed(raw: bytes, source: str, kind: str, load: Callable[[str], Any]) -> Any:
    """Values from text; whatever goes wrong is one sentence, with the place where it is known."""
    try:
        if len(raw) > _LARGEST_FILE:
            problem = f"the file has over {_LARGEST_FILE} bytes; a configuration has at most that."
        else:
            return _copied(load(raw.decode("utf-8-sig")), source, [0])
    except UnicodeDecodeError as error:
        line, byte = raw[: error.start].count(b"\n") + 1, raw[error.start]
        problem = f"line {line}: byte 0x{byte:02x} is not UTF-8 text; save the file as UTF-8."
    except yaml.MarkedYAMLError as error:
        problem = _yaml_problem(raw.decode("utf-8-sig").split("\n"), error)
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}: not valid JSON: {error.msg}."
    except ConfigurationError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        problem = f"not valid {kind}: {' '.join(str(error).split())}."
    except RecursionError:
        problem = f"sections are nested more than {_DEEPEST} deep, or an anchor contains itself."
    raise ConfigurationError(problem, source)


def _yaml_problem(lines: list[str], error: yaml.MarkedYAMLError) -> str:
    """What is wrong with YAML text, in terms of what was probably typed."""
    mark, text = error.problem_mark or error.context_mark, str(error.problem or error.context)
    if mark is None:
        return f"not valid YAML: {text}."
    if "\\t" in text:
        return f"line {mark.line + 1} is indented with a tab; use spaces."
    for line in range(mark.line, max(mark.line - 2, -1), -1):
        tight = re.match(r"\s*(\w+):[^\s:/\\]", lines[line]) if line < len(lines) else None
        if tight:
            return f"line {line + 1}: a space is missing after the colon of {tight[1]!r}."
    return f"line {mark.line + 1}, column {mark.column + 1}: not valid YAML: {text}."


def _copied(value: Any, source: str, count: list[int], depth: int = 0) -> Any:
    """A value with its aliases written out; `count` is the number of values so far."""
    count[0] += 1
    if depth > _DEEPEST:
        raise RecursionError
    if count[0] > _MOST_VALUES:
        problem = f"the file has more than {_MOST_VALUES} values, with aliases written out."
        raise ConfigurationError(problem, source)
    if isinstance(value, dict):
        return {key: _copied(item, source, count, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item, source, count, depth + 1) for item in value]
    return value


# Templates

_SHORT = """\
{about}
# Runs as written on example.h5 (`twotime init --model {word} --example`):
#   twotime fit run.yaml
# All keys: `twotime init --full`, or docs/configuration.md.

{mode}experimental_data:
  file_path: example.h5          # relative to this file

analyzer_parameters:
  # dt: 0.1                      # s; only where the data file has none
  start_frame: 1                 # frames count from 1
  end_frame: -1                  # -1 is the last
  scattering:
    wavevector_q: {q}          # 1/Å; selects the file's nearest q, all its angles
{settings}
parameters:                       # parameters not listed start at estimates from the data
{parameters}

optimization:
  method: nlsq                   # nlsq | cmc | both

output:
  output_dir: results
"""


def template(word: str, *, full: bool = False) -> str:
    """A commented configuration that runs as written on the example data beside it.

    Args:
        word: Word or import path of a law, see `twotime.models.laws.find_law`.
        full: Whether to include every key; keys without a default, or without effect beside
            the others, are comments.

    Raises:
        UnknownNameError: If there is no such mode (a ValueError and a KeyError).
        ConfigurationError: If there is no such law, or it cannot be made without arguments.
    """
    law, parameters = _law(word), list[str]()
    registry = ParameterRegistry.of(law)
    for group, names in registry.groups.items():
        infos = [registry[name] for name in names if name not in registry.scaling_names]
        lines = [f"    {_parameter(info, law.example)}" for info in infos]
        parameters += [f"  {group}:", *lines] if lines else []
    summary = law.example.summary or inspect.cleandoc(type(law).__doc__ or word).split("\n")[0]
    short = _SHORT.format(
        word=word,
        mode=f"analysis_mode: {word}\n\n" if word in LAWS else "",
        about=textwrap.indent(summary, "# "),
        q=yaml_text(law.example.q),
        settings="".join(_needed(law, "" if word in LAWS else word)),
        parameters="\n".join(parameters),
    )
    return _full(word, short) if full else short


def _parameter(info: ParameterInfo, example: Example) -> str:
    """One parameter of a short template."""
    entry = {"value": float(example.start.get(info.name, info.default))}
    varies = info.name not in example.fixed and info.vary_default
    if varies:
        entry |= {"min": float(info.min_bound), "max": float(info.max_bound)}
    line = f"{info.name}: {yaml_text(entry | {'vary': varies})}"
    notes = "; ".join(note for note in (info.unit, example.fixed.get(info.name)) if note)
    return f"{line:<66} # {notes}" if notes else line


def _needed(law: AbstractTwoTimeModel, path: str) -> Iterator[str]:
    """The settings without which the law does not run, under their sections, and its path."""
    needed = [setting for setting in law.settings if setting.needed]
    for sections in (("analyzer_parameters", "geometry"), ("model",)):
        margin, inside = "  " * len(sections), [s for s in needed if s.path[:-1] == sections]
        named = path and sections == ("model",)
        if inside or named:
            yield "\n" * bool(named) + f"{margin[2:]}{sections[-1]}:\n"
        if named:
            yield f"  law: {path}\n"
        for setting in inside:
            value = f"{setting.path[-1]}: {yaml_text(setting.example)}"
            yield f"{margin}{value:<{30 - len(margin)}} # {setting.unit}\n"


def truth(word: str) -> str:
    """The configuration that the example data of a model are simulated from, see `template`."""
    example = _law(word).example
    config = parse_yaml(template(word).encode(), word)
    config["analyzer_parameters"] |= {"dt": 0.1, "end_frame": 120}
    config["analyzer_parameters"]["scattering"]["phi_angles"] = list(example.phi)
    for group in config["parameters"].values():
        for name, entry in group.items():
            group[name] = example.truth.get(name, entry["value"])
    config["parameters"]["scaling"] = {"contrast": 0.3, "offset": 1.0}
    return yaml.safe_dump(config, sort_keys=False, default_flow_style=None)


def _law(word: str) -> AbstractTwoTimeModel:
    """The law of a word, as it is made without arguments."""
    if word not in (*LAWS, *SHIPPED) and not {".", ":"} & set(word):
        known = [*LAWS, *own_words()]
        if word not in known:
            raise unknown_name("analysis mode", word, known)
    try:
        law = make_law({}, find_law(word), found := Mistakes())
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    if law is None:
        raise ConfigurationError(found.problems)
    return law


def _full(mode: str, short: str) -> str:
    """The template with every key; those without a default or an effect are comments."""
    elsewhere = {group for groups in PARAMETER_GROUPS.values() for group in groups}
    keys = [
        (path, key)
        for path, key in walk(HeterodyneConfig)
        if path[0] not in OLDER and not elsewhere.intersection(path) and not key.extra("same")
    ]
    config, own = parse_yaml(short.encode(), mode), own_keys(type(_law(mode)))
    space = ParameterSpace.from_config(config)
    for path, key in keys:
        if key.default is not None and lookup(config, path) is None:
            store(config, path, key.default)
    for path in read(config)[2].wrong:
        discard(config, path)
    lines = [f"# Every key of a configuration, with its default; model: {mode}."]
    lines += ["# Keys that are comments have no default, or no effect with the others."]
    for path, key in keys:
        value, margin = lookup(config, path), "  " * (len(path) - 1)
        lines += [""] if len(path) == 1 else []
        if path == ("parameters",):
            lines += _parameters(space)
        elif key.is_section:
            lines.append(f"{margin}{'' if value else '# '}{key.name}:")
            for name, extra in own.items() if path == ("model",) else ():
                default = "" if extra.default is None else f" {yaml_text(extra.default)}"
                lines += [*_comment(extra.effect, "  "), f"  # {name}:{default}"]
        elif not key.refused:
            unit = f" [{key.extra('unit')}]" if key.extra("unit") else ""
            choice = f" ({key.type_text()})" if " | " in key.type_text() else ""
            shown = key.default if value is None else value
            text = "" if shown is None else f" {yaml_text(shown)}"
            lines += _comment(f"{key.effect}{unit}{choice}", margin)
            lines.append(f"{margin}{'# ' if value is None else ''}{key.name}:{text}")
    return "\n".join(lines) + "\n"


def _comment(text: str, margin: str) -> list[str]:
    lead = f"{margin}# "
    return textwrap.wrap(text, 96, initial_indent=lead, subsequent_indent=lead)


def _parameters(space: ParameterSpace) -> Iterator[str]:
    """The lines of all parameters, group by group."""
    yield "parameters:"
    for name, key in fields(ParameterConfig).items():
        yield from _comment(f"{name}: {key.effect}", "  ")
    values, bounds, priors = space.values, space.bounds, space.priors
    for group, names in space.registry.groups.items():
        yield f"  {group}:"
        for name in names:
            info, (lower, upper), prior = space.registry[name], bounds[name], priors[name]
            entry = {"value": values[name], "min": lower, "max": upper, "vary": space.vary[name]}
            yield f"    # {info.description}{f' [{info.unit}]' if info.unit else ''}"
            yield f"    {name}: {yaml_text(entry)}"
            yield f"    #   prior: {prior.prior_type.value}"
            yield f"    #   prior_params: {yaml_text(prior.params)}"


def yaml_text(value: Any) -> str:
    """A value as YAML writes it; floats so that every YAML reader sees a number."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        mantissa, point, exponent = f"{value:.12g}".partition("e")
        mantissa += "" if "." in mantissa else ".0"
        return mantissa + point + exponent
    if isinstance(value, list):
        return f"[{', '.join(map(yaml_text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {yaml_text(item)}' for key, item in value.items())}}}"
    text = str(value)
    is_plain = re.fullmatch(r"[\w./$-][\w./${}+-]*", text) and yaml.safe_load(text) == value
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def json_schema(word: str | None = None) -> dict[str, Any]:
    """JSON schema of the configuration, for editors.

    Args:
        word: Word or import path of a law whose own keys and parameters it has as well.

    It accepts every spelling that `twotime validate` accepts: parameters under their group or
    directly, a bare number for a parameter, aliases of keys.
    """
    schema = validator().json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "twotime configuration"
    definitions = schema["$defs"]
    sections = (key.type for _, key in walk(HeterodyneConfig) if key.is_section)
    for section in (HeterodyneConfig, *sections):
        properties = definitions.get(section.__name__, schema).get("properties", {})
        for name, key in fields(section).items():
            facts = properties[name]
            for extra in ("otherwise", "same", "refused"):
                facts.pop(extra, None)
            facts["description"] = key.effect
            if key.refused:
                properties[name] = {"not": {}, "description": f"Not accepted. {key.effect}"}
            for alias in key.aliases:
                properties[alias] = facts | {"deprecated": True}
    group = definitions["ParameterGroupConfig"]["properties"]
    number = {"type": "number", "description": "The value."}
    entry = {"anyOf": [number, {"$ref": "#/$defs/ParameterConfig"}]}
    group |= dict.fromkeys(group, entry)
    group |= dict.fromkeys(PARAMETER_ALIASES, entry | {"deprecated": True})
    if word is not None:
        _add_law(definitions, _law(word), entry)
    direct = definitions["ParametersConfig"]["properties"]
    velocity = {"anyOf": [direct["velocity"], *entry["anyOf"]]}
    definitions["ParametersConfig"]["properties"] = group | direct | {"velocity": velocity}
    return schema


def _add_law(definitions: dict[str, Any], law: AbstractTwoTimeModel, entry: Any) -> None:
    """Add the own keys, groups and parameters of a law to a schema."""
    model = definitions["ModelConfig"]["properties"]
    for name, key in own_keys(type(law)).items():
        kinds = {int: "integer", float: "number", bool: "boolean", str: "string"}
        kind = {"type": kinds[key.type]} if key.type in kinds else {}
        model[name] = kind | {"description": key.effect}
    groups = definitions["ParametersConfig"]["properties"]
    for group, names in ParameterRegistry.of(law).groups.items():
        known = definitions["ParameterGroupConfig"]["properties"]
        known |= {name: entry for name in names if name not in known}
        groups.setdefault(group, {"$ref": "#/$defs/ParameterGroupConfig"})
