"""Configurations to start from: short ones for each model, and one with every key."""

import copy
import textwrap
from collections.abc import Iterator
from typing import Any

from twotime.config.keys import Field, fields
from twotime.config.mistakes import Findings, lookup
from twotime.config.parameter_names import PARAMETER_GROUPS, unknown_name
from twotime.config.parameter_registry import REGISTRIES
from twotime.config.reading import MOVED_CMC_KEYS, read
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
# Runs as it stands on example.h5 (`twotime init --model {mode} --example`):
#   twotime fit run.yaml
# All keys there are: `twotime init --full`, or docs/configuration.md.

analysis_mode: {mode}

experimental_data:
  file_path: example.h5          # relative to this file

analyzer_parameters:
  # dt: 0.1                      # s; the file says it, give it where a file does not
  start_frame: 1                 # frames count from 1
  end_frame: -1                  # -1 is the last
  scattering:
    wavevector_q: {q}          # 1/Å; selects the file's nearest q, all its angles
{settings}
parameters:                      # what is not listed starts where the data suggest
{parameters}

optimization:
  method: nlsq                   # nlsq | cmc | both

output:
  output_dir: results
"""
_OLDER = ("initial_parameters", "analysis", "temporal", "scattering")


def template(analysis_mode: str, *, full: bool = False) -> str:
    """A commented configuration that runs as written on the example data beside it.

    Args:
        analysis_mode: Word of a law, see `twotime.models.LAWS`.
        full: Whether every key is in it; keys that have no default, or no effect as things
            stand, are comments.

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
    config = _with_defaults(HeterodyneConfig, short)
    # What has no effect beside these settings is shown, but as a comment.
    idle: set[tuple[str, ...]] = set()
    while (found := _mistakes(config)).problems:
        for path in found.wrong:
            idle.add(path)
            parent = lookup(config, path[:-1])
            parent.pop(path[-1], None)
    head = f"# Every key of a configuration, with its default; model: {mode}."
    lines = [head, "# Keys that are comments have no default, or no effect as things stand.", ""]
    for name, field in fields(HeterodyneConfig).items():
        if name in _OLDER:
            continue
        if name == "parameters":
            lines += _parameter_lines(mode, short)
        else:
            lines += _lines(field, config, (name,), 0)
        lines += [""] if field.is_section else []
    return "\n".join(lines).rstrip() + "\n"


def _mistakes(config: dict[str, Any]) -> Findings:
    return read(copy.deepcopy(config))[2]


def _with_defaults(kind: Any, written: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, field in fields(kind).items():
        value = written.get(name)
        is_older = kind is HeterodyneConfig and name in _OLDER
        if is_older or field.key.refused or field.type is ParameterGroupConfig:
            continue
        if field.type is ParametersConfig:
            config[name] = value or {}
        elif field.is_section:
            inner = _with_defaults(field.type, value or {})
            if inner:
                config[name] = inner
        elif value is not None or field.key.default is not None:
            config[name] = field.key.default if value is None else value
    return config


def _is_shown(path: tuple[str, ...], field: Field) -> bool:
    moved = {("optimization", "cmc", short) for short, _ in MOVED_CMC_KEYS}
    return not (field.key.refused or path in moved or field.type is ParameterGroupConfig)


def _lines(
    field: Field, config: dict[str, Any], path: tuple[str, ...], depth: int
) -> Iterator[str]:
    """The lines of one key or section of the full template."""
    margin, value = "  " * depth, lookup(config, path)
    if not _is_shown(path, field):
        return
    if field.is_section:
        inner = [
            line
            for name, child in fields(field.type).items()
            for line in _lines(child, config, (*path, name), depth + 1)
        ]
        is_active = any(not line.lstrip().startswith("#") for line in inner)
        yield f"{margin}{'' if is_active else '# '}{field.name}:"
        yield from inner
        return
    unit = f" [{field.key.unit}]" if field.key.unit else ""
    choice = f" ({field.type_text()})" if " | " in field.type_text() else ""
    shown = field.key.default if value is None else value
    text = "" if shown is None else f" {_yaml(shown)}"
    yield from _comment(f"{field.key.effect}{unit}{choice}", margin)
    yield f"{margin}{'# ' if value is None else ''}{field.name}:{text}"


def _comment(text: str, margin: str) -> list[str]:
    lead = f"{margin}# "
    return textwrap.wrap(text, 96, initial_indent=lead, subsequent_indent=lead)


def _parameter_lines(mode: str, short: dict[str, Any]) -> Iterator[str]:
    space = read(short)[1]
    assert space is not None
    registry = REGISTRIES[mode]
    yield "parameters:"
    for key, field in fields(ParameterConfig).items():
        yield from _comment(f"{key}: {field.key.effect}", "  ")
    for group, names in PARAMETER_GROUPS[mode].items():
        yield f"  {group}:"
        for name in names:
            lower, upper = space.bounds[name]
            prior = space.priors[name]
            numbers = ", ".join(f"{key}: {_yaml(value)}" for key, value in prior.params.items())
            unit = f" [{registry[name].unit}]" if registry[name].unit else ""
            yield f"    # {registry[name].description}{unit}"
            yield f"    {name}:"
            yield f"      value: {_yaml(space.values[name])}"
            yield f"      min: {_yaml(lower)}"
            yield f"      max: {_yaml(upper)}"
            yield f"      vary: {_yaml(space.vary[name])}"
            yield f"      # prior: {prior.prior_type.value}"
            yield f"      # prior_params: {{{numbers}}}"


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
    return str(value)
