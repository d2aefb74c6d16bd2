"""Configurations of homodyne, heterodyne and xpcsjax, written anew for this program.

What an old file says is taken over where it has a counterpart; what changes its meaning, and what
has no counterpart, stands as comments in the new one.
"""

import dataclasses
import math
import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from twotime.config.files import parse_json, parse_yaml, read_bytes, yaml_text
from twotime.config.keys import lookup, store
from twotime.config.parameter_names import PARAMETER_ALIASES, PARAMETER_GROUPS, SCALING_PARAMS
from twotime.errors import ConfigurationError
from twotime.models import LAWS, scaling

SHEAR_FACTOR = math.pi / math.sqrt(2)
"""Shear rates of homodyne and xpcsjax over those of the published law, see `LaminarFlow`."""

_SECTIONS = (
    "parameter_space", "analysis_settings", "performance", "quality_control", "noise_estimation",
    "optimization_config", "experimental_parameters", "output_settings", "advanced_settings",
    "validation", "plotting", "temporal", "scattering",
)  # fmt: skip
_MODES = {
    "static": "static", "static_isotropic": "static", "static_anisotropic": "static",
    "isotropic": "static", "anisotropic": "static",
    "laminar_flow": "laminar_flow", "laminar": "laminar_flow", "flow": "laminar_flow",
    "two_component": "two_component", "two-component": "two_component",
    "heterodyne": "two_component", "static_ref": "two_component", "static_both": "two_component",
}  # fmt: skip
_METHODS = {"mcmc": "cmc", "cmc": "cmc", "vi": "cmc", "hybrid": "both", "all": "both"}
_ANGLE_MODES = {"independent": "individual", "direct": "individual"}
_NAMES = {**PARAMETER_ALIASES, "v_beta": "beta", "phi0_het": "phi0"}
_ENTRY = ("value", "min", "max", "vary")
_SHEAR = ("gamma_dot_t0", "gamma_dot_t_offset")
_BOUNDS = {
    (mode, info.name): (info.min_bound, info.max_bound)
    for mode, law in LAWS.items()
    for info in (*law.parameters, *scaling.PARAMETERS)
}
_SAMPLER = {
    "num_warmup": ("num_warmup", "n_warmup"),
    "num_samples": ("num_samples", "n_samples"),
    "num_chains": ("num_chains", "n_chains"),
    "target_accept_prob": ("target_accept_prob", "target_accept"),
    "max_tree_depth": ("max_tree_depth", "max_treedepth"),
}


def program_of(config: Any) -> str | None:
    """Name of the program a configuration was written for; None where it looks like ours."""
    if not isinstance(config, Mapping):
        return None
    signs = sum(section in config for section in _SECTIONS)
    signs += lookup(config, ("metadata", "config_version")) is not None
    signs += lookup(config, ("metadata", "parameter_count")) is not None
    signs += lookup(config, ("experimental_data", "data_file_name")) is not None
    if signs < 2:
        return None
    text = str(config)
    if "xpcsjax" in text or "v_beta" in text or "phi0_het" in text:
        return "xpcsjax"
    return "heterodyne" if _mode(config) == "two_component" else "homodyne"


@dataclasses.dataclass(frozen=True)
class Migration:
    """A configuration of another program, written anew.

    Attributes:
        program: homodyne, heterodyne or xpcsjax.
        text: The new file, with comments.
        notes: What changes meaning, one sentence each.
        left: Keys without a counterpart, by section.
    """

    program: str
    text: str
    notes: tuple[str, ...]
    left: Mapping[str, tuple[str, ...]]


def migrate(
    source: str | Path, *, target: str | Path | None = None, shear_convention: str = "published"
) -> Migration:
    """Write a configuration of homodyne, heterodyne or xpcsjax anew.

    Args:
        source: The old file, YAML or JSON.
        target: Where the new file will stand, for relative paths in it; beside the old one.
        shear_convention: "published" divides shear rates by 2.22; "homodyne" keeps them, and
            the law of the old program.

    Raises:
        ConfigurationError: If the file cannot be read, or is of none of these programs.
    """
    source = Path(source)
    folder = (source if target is None else Path(target)).absolute().parent
    parse = parse_json if source.suffix == ".json" else parse_yaml
    config = parse(read_bytes(source), str(source))
    program = program_of(config)
    if program is None:
        raise ConfigurationError(
            "not recognised as a configuration of homodyne, heterodyne or xpcsjax; if it is one of "
            "this program, see its mistakes with `twotime validate`.",
            str(source),
        )
    old = _Old(config, source.absolute().parent, folder, shear_convention)
    new = old.rewritten()
    return Migration(program, _text(source.name, program, old, new), tuple(old.notes), old.left())


def _mode(config: Mapping[str, Any]) -> str:
    """Our analysis mode of an old configuration."""
    for path in (("analysis_mode",), ("metadata", "analysis_mode"), ("parameter_space", "model")):
        word = lookup(config, path)
        if isinstance(word, str) and word.lower() in _MODES:
            return _MODES[word.lower()]
    is_static = lookup(config, ("analysis_settings", "static_mode"))
    if is_static is not None:
        return "static" if is_static else "laminar_flow"
    text = str(config)
    if "_ref" in text or "_sample" in text:
        return "two_component"
    return "laminar_flow" if "gamma_dot" in text else "static"


class _Old:
    """An old configuration: what was taken from it, and what is to be said of it."""

    def __init__(self, config: Mapping[str, Any], folder: Path, target: Path, convention: str):
        self.config, self.folder, self.target = config, folder, target
        self.convention = convention
        self.mode = _mode(config)
        self.taken: set[tuple[str, ...]] = set()
        self.notes: list[str] = []
        self.beside: dict[tuple[str, ...], str] = {}

    def take(self, *paths: str) -> Any:
        """The value at the first of some dotted paths that has one; all count as read."""
        found = None
        for path in paths:
            steps = tuple(path.split("."))
            self.taken.add(steps)
            value = lookup(self.config, steps)
            found = value if found is None else found
        return found

    def left(self) -> dict[str, tuple[str, ...]]:
        """Keys with a value that were not read, by section."""
        found: dict[str, list[str]] = {}
        for path, value in _leaves(self.config):
            known = any(path[: len(taken)] == taken for taken in self.taken)
            if not known and value is not None and path[0] != "metadata":
                section = ".".join(path[:2]) if len(path) > 2 else path[0]
                found.setdefault(section, []).append(path[-1])
        return {section: tuple(dict.fromkeys(names)) for section, names in found.items()}

    def rewritten(self) -> dict[str, Any]:
        """The new configuration."""
        new: dict[str, Any] = {"analysis_mode": self.mode}
        self.take("analysis_mode", "parameter_space.model", "analysis_settings.static_mode")
        self._data(new)
        self._axes(new)
        self._parameters(new)
        self._optimization(new)
        self._angles(new)
        output = self.take(
            "output.directory", "output.output_dir", "output.output_directory",
            "output.base_directory", "output_settings.results_directory",
        )  # fmt: skip
        if output:
            store(new, ("output", "output_dir"), self._moved(output))
        return new

    def _moved(self, path: str) -> str:
        """A path of the old file as seen from the folder of the new one."""
        if Path(path).expanduser().is_absolute() or self.folder == self.target:
            return str(path)
        return os.path.relpath(self.folder / path, self.target)

    def _data(self, new: dict[str, Any]) -> None:
        path = self.take("experimental_data.file_path")
        folder = self.take("experimental_data.data_folder_path") or ""
        name = self.take("experimental_data.data_file_name")
        path = path or (str(Path(folder) / name) if name else None)
        store(new, ("experimental_data", "file_path"), self._moved(path) if path else "data.hdf")
        if path is None:
            self.notes.append("experimental_data.file_path: the old file names no data; set it.")
        self.take("experimental_data.file_format", "experimental_data.data_type")
        self.take("experimental_data.exchange_key")
        places = [self.take(f"experimental_data.phi_angles_{part}") for part in ("path", "file")]
        listed = self.folder / str(places[0] or "") / str(places[1] or "")
        if places[1] and Path(path or "").suffix in (".npz", ".npy") and listed.is_file():
            angles = np.loadtxt(listed, ndmin=1).tolist()
            store(new, ("analyzer_parameters", "scattering", "phi_angles"), angles)
        elif places[1]:
            self.notes.append(
                f"Angles are read from the data file; {places[1]} is not. For a file without "
                "angles, list them as analyzer_parameters.scattering.phi_angles."
            )

    def _axes(self, new: dict[str, Any]) -> None:
        where, times = (
            "analyzer_parameters",
            ("analyzer_parameters", "analyzer_parameters.temporal"),
        )
        dt = self.take(*(f"{place}.dt" for place in times), "temporal.dt")
        first = self.take(*(f"{place}.start_frame" for place in times))
        last = self.take(*(f"{place}.end_frame" for place in times))
        shift, length = self.take("temporal.t_start"), self.take("temporal.time_length")
        first = first or (shift or 0) + 1
        last = last or ((shift or 0) + length if length else None)
        for name, value in {"dt": dt, "start_frame": first, "end_frame": last}.items():
            if value is not None:
                store(new, (where, name), value)
        step = self.take("analyzer_parameters.frame_step")
        if step not in (None, 1):
            self.notes.append(f"frame_step: {step} has no counterpart: all frames are used.")
        self.take("analyzer_parameters.time_unit")
        q = self.take("analyzer_parameters.scattering.wavevector_q", "scattering.wavevector_q")
        store(new, (where, "scattering", "wavevector_q"), 0.01 if q is None else q)
        if q is None:
            self.notes.append(f"{where}.scattering.wavevector_q: the old file gives none; set it.")
        gap = self.take("analyzer_parameters.geometry.stator_rotor_gap")
        if self.mode == "laminar_flow":
            store(new, (where, "geometry", "stator_rotor_gap"), gap or 2.0e6)
        self.notes.append(
            "The first selected frame stands at start_frame · dt, where the old program begins to "
            "count at 0; amplitudes with an exponent change a little. t0: 0 keeps its times."
        )

    def _parameters(self, new: dict[str, Any]) -> None:
        entries = self._entries()
        fixed = self.take("initial_parameters.fixed_parameters") or {}
        fixed = {_NAMES.get(name, name): value for name, value in fixed.items()}
        active = self.take("initial_parameters.active_parameters") or ()
        active = [_NAMES.get(name, name) for name in active]
        self.take("initial_parameters.units", "parameter_space.priors")
        self.take("initial_parameters.per_angle_scaling")
        for group, names in PARAMETER_GROUPS[self.mode].items():
            for name in names:
                entry = entries.get(name, {})
                if name in fixed:
                    entry |= {"value": fixed[name], "vary": False}
                elif active and name not in (*active, *SCALING_PARAMS):
                    entry["vary"] = False
                if group != "scaling":
                    entry.setdefault("vary", True)
                elif entry.get("vary") is not False:
                    entry.pop("value", None)  # solved for, and its bounds follow the data
                    if (entry.get("min"), entry.get("max")) == _BOUNDS[self.mode, name]:
                        entry = {}
                self._change(name, entry, (group, name))
                if entry:
                    entry = {key: entry[key] for key in _ENTRY if key in entry}
                    store(new, ("parameters", group, name), entry)
        if self.mode == "laminar_flow" and self.convention == "homodyne":
            store(new, ("model", "shear_convention"), "homodyne")

    def _entries(self) -> dict[str, dict[str, Any]]:
        """Values and bounds of the old file by our names."""
        entries: dict[str, dict[str, Any]] = {}
        known = {name for names in PARAMETER_GROUPS[self.mode].values() for name in names}
        listed = self.take("parameter_space.bounds") or []
        groups = self.take("parameters") or {}
        given = [item for item in listed if isinstance(item, Mapping)]
        for section in groups.values():
            if isinstance(section, Mapping):
                for name, item in section.items():
                    item = item if isinstance(item, Mapping) else {"value": item}
                    given.append({"name": name} | dict(item))
        names = self.take("initial_parameters.parameter_names") or ()
        values = self.take("initial_parameters.values") or ()
        given += [{"name": n, "value": v} for n, v in zip(names, values, strict=False)]
        has_priors = False
        for item in given:
            name = _NAMES.get(str(item.get("name")), str(item.get("name")))
            if name not in known:
                self.notes.append(f"{item.get('name')}: no parameter of {self.mode}; left out.")
                continue
            has_priors |= "prior_mu" in item
            kept = {key: item[key] for key in _ENTRY if item.get(key) is not None}
            entries.setdefault(name, {}).update(kept)
        if has_priors:
            self.notes.append(
                "Priors are not taken over: those of the old templates were written by the "
                "program, not by you. Add prior and prior_params where you know something."
            )
        return entries

    def _change(self, name: str, entry: dict[str, Any], place: tuple[str, str]) -> None:
        """Change one parameter to our conventions, and say so beside it."""
        old = {key: entry[key] for key in ("value", "min", "max") if key in entry}
        if name in _SHEAR and self.convention == "published":
            entry |= {key: float(f"{number / SHEAR_FACTOR:.4g}") for key, number in old.items()}
            self.beside[place] = "divided by 2.22: the published law of shear"
        if name == "phi0" and self.mode == "two_component":
            signs = {"value": "value", "min": "max", "max": "min"}
            entry.update({signs[key]: -number + 0.0 for key, number in old.items()})
            self.beside[place] = "sign changed: here phi - phi0 counts, there phi + phi0"
        if name == "f2" and entry.get("vary"):
            entry["vary"] = False
            self.beside[place] = "fixed: f0 and f2 cannot be told apart"
        if entry.get("vary") is False and "value" in entry:
            low, high = _BOUNDS[self.mode, name]
            inside = {"min": min(low, entry["value"]), "max": max(high, entry["value"])}
            for key in ("min", "max"):
                entry.pop(key, None)
            entry |= {} if (inside["min"], inside["max"]) == (low, high) else inside

    def _optimization(self, new: dict[str, Any]) -> None:
        word = str(self.take("optimization.method") or "nlsq").lower()
        method = _METHODS.get(word, "nlsq")
        store(new, ("optimization", "method"), method)
        if word not in (method, "mcmc"):
            self.notes.append(f"optimization.method: {word} became {method}.")
        nlsq = "optimization.nlsq"
        loss = self.take(f"{nlsq}.loss")
        if loss in ("cauchy", "arctan"):
            self.notes.append(f"{nlsq}.loss: {loss} has no counterpart; soft_l1 comes nearest.")
            loss = "soft_l1"
        if loss not in (None, "linear") and method != "nlsq":
            self.notes.append(f"{nlsq}.loss: {loss} is left out; sampling needs linear.")
            loss = None
        angles = self.take(f"{nlsq}.anti_degeneracy.per_angle_mode", f"{nlsq}.per_angle_mode")
        angles = _ANGLE_MODES.get(angles, angles)
        if angles == "auto":
            self.notes.append(
                "per_angle_mode: auto is decided by the data here: one contrast and offset where "
                "those of the angles agree within their errors, else one pair per angle."
            )
        for name, value in {"loss": loss, "per_angle_mode": angles}.items():
            if value is not None:
                store(new, ("optimization", "nlsq", name), value)
        several = f"{nlsq}.multi_start"
        if self.take(f"{several}.enable"):
            settings = {"multistart": True, "multistart_n": self.take(f"{several}.n_starts")}
            settings["seed"] = self.take(f"{several}.seed")
            for name, value in settings.items():
                if value is not None:
                    store(new, ("optimization", "nlsq", name), value)
        if method != "nlsq":
            self._sampler(new)
        self.notes.append(
            "χ² counts every pair of frames once, and its noise comes from the residuals: numbers "
            "of the old program are not comparable. Error bars are usually larger here."
        )

    def _sampler(self, new: dict[str, Any]) -> None:
        places = ("optimization.cmc.per_shard_mcmc", "optimization.cmc", "optimization.mcmc")
        for name, spellings in _SAMPLER.items():
            value = self.take(*(f"{place}.{word}" for place in places for word in spellings))
            if value is not None:
                store(new, ("optimization", "cmc", "per_shard_mcmc", name), value)

    def _angles(self, new: dict[str, Any]) -> None:
        place = "phi_filtering"
        old = "optimization_config.angle_filtering"
        is_asked = self.take(f"{place}.enabled", f"{old}.enabled")
        ranges = self.take(f"{place}.target_ranges", f"{old}.target_ranges") or ()
        tolerance = float(self.take(f"{place}.tolerance") or 0)
        self.take(f"{place}.algorithm", f"{place}.fallback_to_all_angles")
        self.take(f"{old}.fallback_to_all_angles")
        if is_asked and ranges:
            pairs = [
                [float(r["min_angle"]) - tolerance, float(r["max_angle"]) + tolerance]
                for r in ranges
            ]
            store(new, (place, "ranges"), pairs)
            about = f", {tolerance:g} degree wider at both ends (their tolerance)"
            self.notes.append(
                f"phi_filtering: the ranges of the old file{about if tolerance else ''}. Where no "
                "angle is inside, that is an error here, not a fit of all angles."
            )


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and values of all keys that hold no section."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(item, (*path, str(name)))
    elif path:
        yield path, value


def _text(name: str, program: str, old: _Old, new: dict[str, Any]) -> str:
    """The new file: what changes meaning, the keys, and what has no counterpart."""
    lines = [f"# {name}, a configuration of {program}, written anew for twotime.", "#"]
    if old.notes:
        lines += ["# What changes:"]
        lines += [line for note in old.notes for line in _comment(note, "  - ", "    ")]
    lines += ["", *_section(new, old.beside)]
    left = old.left()
    if left:
        lines += ["", "# Keys of the old file without a counterpart:"]
        for section, names in left.items():
            lines += _comment(f"{section}: {', '.join(names)}", "  ", "    ")
    return "\n".join(lines) + "\n"


def _comment(text: str, first: str, then: str) -> list[str]:
    return textwrap.wrap(
        text, 98, initial_indent=f"# {first}", subsequent_indent=f"# {then}",
        break_long_words=False,
    )  # fmt: skip


def _section(
    section: Mapping[str, Any], beside: Mapping[tuple[str, ...], str], path: tuple[str, ...] = ()
) -> Iterator[str]:
    """The lines of a section; parameters stand on one line each."""
    margin = "  " * len(path)
    for name, value in section.items():
        here = (*path, name)
        is_parameter = path[:1] == ("parameters",) and len(path) == 2
        if isinstance(value, Mapping) and not is_parameter:
            yield f"{margin}{name}:"
            yield from _section(value, beside, here)
        else:
            line = f"{margin}{name}: {yaml_text(value)}"
            note = beside.get(here[1:]) if is_parameter else None
            yield f"{line}  # {note}" if note else line
