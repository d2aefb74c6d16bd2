"""Configurations to start from, and the JSON schema for editors."""

import copy
import textwrap
from collections.abc import Iterator
from typing import Any

from twotime.config.keys import Key, fields, lookup
from twotime.config.manager import ConfigManager
from twotime.config.parameter_names import (
    PARAMETER_ALIASES,
    unknown_name,
)
from twotime.config.parameter_registry import REGISTRIES
from twotime.config.parameter_space import ParameterSpace, read
from twotime.config.reading import OLDER, sections, validator
from twotime.config.types import (
    HeterodyneConfig,
    ParameterConfig,
    ParameterGroupConfig,
    ParametersConfig,
)
from twotime.config.yaml_json import parse_yaml
from twotime.models import LAWS
from twotime.models.base import AbstractTwoTimeModel, Example, ParameterInfo

_SHORT = """\
{about}
# Runs as written on example.h5 (`twotime init --model {mode} --example`):
#   twotime fit run.yaml
# All keys: `twotime init --full`, or docs/configuration.md.

analysis_mode: {mode}

experimental_data:
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


def template(analysis_mode: str, *, full: bool = False) -> str:
    """A commented configuration that runs as written on the example data beside it.

    Args:
        analysis_mode: Word of a law, see `twotime.models.LAWS`.
        full: Whether to include every key; keys without a default, or without effect beside
            the others, are comments.

    Raises:
        UnknownNameError: If there is no such mode (a ValueError and a KeyError).
    """
    law = _law(analysis_mode)
    registry = REGISTRIES[analysis_mode]
    parameters = []
    for group, names in law.groups().items():
        parameters.append(f"  {group}:")
        parameters += [f"    {_parameter(registry[name], law.example)}" for name in names]
    short = _SHORT.format(
        mode=analysis_mode,
        about="\n".join(f"# {line}" for line in (law.example.summary or law.__name__).splitlines()),
        q=_yaml(law.example.q),
        settings="".join(_needed(law, "analyzer_parameters", "geometry"))
        + "".join(_needed(law, "model")),
        parameters="\n".join(parameters),
    )
    return _full(analysis_mode, parse_yaml(short.encode(), analysis_mode)) if full else short


def _parameter(info: ParameterInfo, example: Example) -> str:
    """One parameter of a short template."""
    value = _yaml(float(example.start.get(info.name, info.default)))
    if info.name in example.fixed:
        line = f"{info.name}: {{value: {value}, vary: false}}"
    else:
        low, high = _yaml(float(info.min_bound)), _yaml(float(info.max_bound))
        line = f"{info.name}: {{value: {value}, min: {low}, max: {high}, vary: true}}"
    notes = "; ".join(note for note in (info.unit, example.fixed.get(info.name)) if note)
    return f"{line:<66} # {notes}" if notes else line


def _needed(law: type[AbstractTwoTimeModel], *sections: str) -> Iterator[str]:
    """The settings of a section without which the law does not run."""
    margin = "  " * len(sections)
    needed = [s for s in law.settings if s.needed and s.path[:-1] == sections]
    if needed:
        yield f"{margin[2:]}{sections[-1]}:\n"
    for setting in needed:
        value = f"{setting.path[-1]}: {_yaml(setting.example)}"
        yield f"{margin}{value:<{30 - len(margin)}} # {setting.unit}\n"


def truth(analysis_mode: str) -> str:
    """The configuration that the example data of a model are simulated from.

    Args:
        analysis_mode: Word of a law, see `twotime.models.LAWS`.

    Raises:
        UnknownNameError: If there is no such mode (a ValueError and a KeyError).
    """
    example = _law(analysis_mode).example
    config = parse_yaml(template(analysis_mode).encode(), analysis_mode)
    config["analyzer_parameters"] |= {"dt": 0.1, "end_frame": 120}
    config["analyzer_parameters"]["scattering"]["phi_angles"] = list(example.phi)
    for group in config["parameters"].values():
        for name, entry in group.items():
            group[name] = example.truth.get(name, entry["value"])
    config["parameters"]["scaling"] = {"contrast": 0.3, "offset": 1.0}
    return "\n".join(_plain(config)) + "\n"


def _plain(section: dict[str, Any], margin: str = "") -> Iterator[str]:
    """YAML without comments."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield f"{margin}{key}:"
            yield from _plain(value, margin + "  ")
        else:
            yield f"{margin}{key}: {_yaml(value)}"


def _law(analysis_mode: str) -> type[AbstractTwoTimeModel]:
    if analysis_mode not in LAWS:
        raise unknown_name("analysis mode", analysis_mode, LAWS)
    return LAWS[analysis_mode]


def _full(mode: str, short: dict[str, Any]) -> str:
    """The template with every key; those without a default or an effect are comments."""
    config = _with_defaults(HeterodyneConfig, short)
    idle = read(copy.deepcopy(config))[2].wrong
    for path in idle:
        lookup(config, path[:-1]).pop(path[-1], None)
    lines = [
        f"# Every key of a configuration, with its default; model: {mode}.",
        "# Keys that are comments have no default, or no effect with the others.",
        "",
    ]
    for name, key in fields(HeterodyneConfig).items():
        if name not in OLDER:
            is_group = key.type is ParametersConfig
            lines += (
                _parameters(ConfigManager(short).space) if is_group else _lines(key, config, ())
            )
            lines += [""] if key.is_section else []
    return "\n".join(lines).rstrip() + "\n"


def _with_defaults(kind: Any, written: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, key in fields(kind).items():
        value = written.get(name, key.default)
        if name in OLDER and kind is HeterodyneConfig or key.type is ParameterGroupConfig:
            continue
        if key.is_section and key.type is not ParametersConfig:
            value = _with_defaults(key.type, value or {}) or None
        if value is not None:
            config[name] = value
    return config


def _lines(key: Key, config: dict[str, Any], above: tuple[str, ...] = ()) -> list[str]:
    """The lines of one key or section of the full template."""
    path, margin = (*above, key.name), "  " * len(above)
    if key.refused or key.extra("same") or key.type is ParameterGroupConfig:
        return []
    if key.is_section:
        inner = [line for k in fields(key.type).values() for line in _lines(k, config, path)]
        is_active = any(not line.lstrip().startswith("#") for line in inner)
        return [f"{margin}{'' if is_active else '# '}{key.name}:", *inner]
    value = lookup(config, path)
    shown = key.default if value is None else value
    unit = f" [{key.extra('unit')}]" if key.extra("unit") else ""
    choice = f" ({key.type_text()})" if " | " in key.type_text() else ""
    text = "" if shown is None else f" {_yaml(shown)}"
    line = f"{margin}{'# ' if value is None else ''}{key.name}:{text}"
    return [*_comment(f"{key.effect}{unit}{choice}", margin), line]


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
            yield f"    {name}: {_yaml(entry)}"
            yield f"    #   prior: {prior.prior_type.value}"
            yield f"    #   prior_params: {_yaml(prior.params)}"


def _yaml(value: Any) -> str:
    """A value as YAML writes it; floats so that every YAML reader sees a number."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        mantissa, point, exponent = f"{value:.12g}".partition("e")
        mantissa += "" if "." in mantissa else ".0"
        return mantissa + point + exponent
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())}}}"
    return str(value)


def json_schema() -> dict[str, Any]:
    """JSON schema of the configuration, for editors.

    It accepts every spelling that `twotime validate` accepts: parameters under their group or
    directly, a bare number for a parameter, aliases of keys.
    """
    schema = validator().json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "twotime configuration"
    definitions = schema["$defs"]
    for section in sections(HeterodyneConfig):
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
    direct = definitions["ParametersConfig"]["properties"]
    velocity = {"anyOf": [direct["velocity"], *entry["anyOf"]]}
    definitions["ParametersConfig"]["properties"] = group | direct | {"velocity": velocity}
    return schema
