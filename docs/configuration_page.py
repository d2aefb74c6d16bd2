"""Writes `docs/configuration.md` from the types: `python docs/configuration_page.py`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twotime.config.keys import Key, fields
from twotime.config.parameter_names import ANALYSIS_MODES, PARAMETER_ALIASES, PARAMETER_GROUPS
from twotime.config.parameter_registry import REGISTRIES
from twotime.config.priors import FAMILIES
from twotime.config.types import (
    HeterodyneConfig,
    ParameterConfig,
    ParameterGroupConfig,
    ParametersConfig,
)

_HEAD = """\
# Configuration files

A run is described by one YAML (or JSON) file. `twotime init` writes one to start from,
`twotime validate run.yaml` reports all its mistakes at once, `twotime schema` gives the JSON
schema for editors. This page is generated from the program's own types.

* Unknown or misspelt keys, and keys without effect, are errors. The message names the key.
* A key without a value (`dt:`) counts as left out. Relative paths start from the file's own folder.
* Numbers may be written `1e4`. A key may be given once in a section. Infinities and NaN are errors.
* Anchors, aliases and `<<` work; tags do not.

## Required keys

`experimental_data.file_path` and `analyzer_parameters.scattering.wavevector_q`; for
`laminar_flow` also `analyzer_parameters.geometry.stator_rotor_gap`. All others are optional.

```yaml
analysis_mode: laminar_flow
experimental_data: {file_path: data.hdf}
analyzer_parameters:
  scattering: {wavevector_q: 0.00214}
  geometry: {stator_rotor_gap: 2.0e6}
parameters:
  D0: {value: 1.0e4, min: 100, max: 1.0e6, vary: true}
  phi0: -5.0
optimization: {method: nlsq}
output: {output_dir: out}
```
"""

_PARAMETERS = """\
## Parameters

A parameter stands under its group (`parameters.reference.D0_ref`) or directly under
`parameters`; a bare number in its place is its value. Give both `min` and `max`, or neither. The
value must lie between them, except that a fixed velocity or shear rate may be 0 (no flow). Priors
matter for sampling only. A parameter without one is sampled as uniform between its bounds, in the
logarithm where the tables say so; their default priors take effect where you write them down.

Constant parts (`D_offset`, `v_offset`, …), `f2` and `f3` can hardly be told from the parameters
beside them. They are 0 and fixed unless they have a value, `vary: true`, bounds or a prior.

The numbers below apply where you give none. Bounds of amplitudes are then widened for the data:
down to a tenth of the rate that decorrelates the light in the whole record, up to ten times the
rate that does so within a frame (both times the change that exponents of ±1 bring until the end of
the record). Bounds of the offset lie about the baseline (`experimental_data.baseline`). The result
lists the bounds that were used; bounds that you give are never changed.
"""

_OLDER = """\
## Older forms

`temporal`, top-level `scattering`, `analysis` and `initial_parameters` are read and mean the same
as the keys named in their tables. Where two places say the same thing they must agree; only
`initial_parameters` gives way to `parameters`. Programs that compute the two-component phase
with φ + φ₀ have the opposite sign of `phi0`.
"""


def configuration_page() -> str:
    """The page as Markdown; `docs/configuration.md` is this text."""
    lines = [_HEAD, "## Sections", ""]
    lines += [*_table(HeterodyneConfig, ""), ""]
    for name, field in fields(HeterodyneConfig).items():
        if field.is_section and field.type is not ParametersConfig:
            lines += _section(name, field)
    lines += [_PARAMETERS, *_table(ParameterConfig, "parameters.group.name."), ""]
    for mode in ANALYSIS_MODES:
        lines += _parameters(mode)
    lines += ["### Priors", "", "| prior | prior_params | values |", "|---|---|---|"]
    support = {"real": "all numbers", "positive": "from 0", "interval": "low to high"}
    for kind, family in FAMILIES.items():
        names = ", ".join(f"`{name}`" for name in family.names)
        lines.append(f"| `{kind.value}` | {names} | {support[family.support]} |")
    lines += ["", "### Other spellings", "", "| written | meant |", "|---|---|"]
    lines += [f"| `{alias}` | `{name}` |" for alias, name in PARAMETER_ALIASES.items()]
    lines += ["", _OLDER.rstrip(), ""]
    return "\n".join(lines)


def _section(path: str, field: Key) -> Iterator[str]:
    """Heading and table of a section, then of the sections in it."""
    title = "#" * (2 + path.count(".")) + f" {path}"
    about = (field.type.__doc__ or "").strip()
    yield from (title, "", about, "", *_table(field.type, f"{path}."), "")
    for name, child in fields(field.type).items():
        if child.is_section and child.type is not ParameterGroupConfig:
            yield from _section(f"{path}.{name}", child)


def _table(section: Any, path: str) -> Iterator[str]:
    yield "| key | type | unit | default | effect |"
    yield "|---|---|---|---|---|"
    for name, key in fields(section).items():
        if key.type is ParameterGroupConfig:
            continue
        limits = key.range_text()
        kind = key.type_text().replace(" | ", ", ") + (f", {limits}" if limits else "")
        effect = key.effect
        if key.refused:
            effect, kind = f"**Not accepted.** {key.effect}", "–"
        if key.aliases:
            effect += f" Also spelt {', '.join(f'`{alias}`' for alias in key.aliases)}."
        unit = key.extra("unit") or "–"
        yield f"| `{path}{name}` | {kind} | {unit} | {_default(key)} | {effect} |"


def _default(key: Key) -> str:
    if key.default is None:
        return key.extra("otherwise") or "–"
    return f"`{str(key.default).lower() if isinstance(key.default, bool) else key.default}`"


def _parameters(mode: str) -> Iterator[str]:
    yield from (f"### Parameters of {mode}", "")
    yield "| name | group | unit | default | min | max | log | default prior | what |"
    yield "|---|---|---|---|---|---|---|---|---|"
    registry = REGISTRIES[mode]
    for group, names in PARAMETER_GROUPS[mode].items():
        for name in names:
            info = registry[name]
            numbers = (info.default, info.min_bound, info.max_bound)
            cells = [f"`{name}`", f"`{group}`", info.unit or "–", *(f"{x:g}" for x in numbers)]
            cells += ["yes" if info.log_space else "", f"{info.prior_mean:g}, {info.prior_std:g}"]
            yield f"| {' | '.join([*cells, info.description])} |"
    yield ""


if __name__ == "__main__":
    page = Path(__file__).with_name("configuration.md")
    page.write_text(configuration_page(), encoding="utf-8")
