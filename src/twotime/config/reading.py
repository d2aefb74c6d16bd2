"""From a configuration as it was written to its canonical form, with every mistake noted.

Four steps: one spelling of each key (`twotime.config.spelling`), types and ranges (by pydantic),
older and shorter forms, and the rules about keys together (`twotime.config.rules`).
"""

import copy
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError

from twotime.config.keys import Key, discard, fields, lookup
from twotime.config.parameter_names import DEFAULT_MODE, nearest
from twotime.config.parameter_registry import REGISTRIES, ParameterRegistry
from twotime.config.priors import FAMILIES, PriorDistribution, PriorType, prior_faults
from twotime.config.rules import SAMPLED, check_rules
from twotime.config.spelling import Spelling, fold
from twotime.config.types import HeterodyneConfig
from twotime.errors import Mistakes, Path, show
from twotime.models import findings

if TYPE_CHECKING:
    from twotime.config.parameter_space import ParameterSpace


def read_keys(config: Any, *, is_whole: bool = True) -> tuple[dict[str, Any], Mistakes]:
    """The canonical form of a configuration, without keys that are wrong, and its mistakes.

    Args:
        config: Sections and keys as a file has them.
        is_whole: Whether it must contain all that a run needs.
    """
    found = Mistakes()
    if not isinstance(config, Mapping):
        sentence = "A configuration is a mapping of sections (key: value)"
        found.problems.append(f"{sentence}; got {show(config)}.")
        found.wrong.add(())
        return {}, found
    mode = config.get("analysis_mode")
    registry = REGISTRIES.get(DEFAULT_MODE if mode is None else str(mode), ParameterRegistry(()))
    canonical = Spelling(found, registry).section(copy.deepcopy(config), HeterodyneConfig, ())
    _check_types(canonical, found)
    if found.is_wrong(("analysis_mode",)):
        return canonical, found
    mode = canonical.get("analysis_mode", DEFAULT_MODE)
    is_older = "temporal" in canonical or "initial_parameters" in canonical
    fold(canonical, REGISTRIES[mode], found)
    check_rules(canonical, mode, found, is_whole=is_whole)
    phi0 = ("parameters", "angle", "phi0")
    if is_older and mode == "two_component" and lookup(canonical, (*phi0, "value")):
        sign = "the flow angle is phi - phi0; programs that use phi + phi0 need the opposite sign."
        found.remark(phi0, sign)
    return canonical, found


# Types and ranges


@functools.cache
def validator() -> Any:
    """Pydantic's validator of a whole configuration."""
    rules = {"extra": "forbid", "strict": True, "allow_inf_nan": False}
    HeterodyneConfig.__pydantic_config__ = rules  # type: ignore[attr-defined]
    return TypeAdapter(HeterodyneConfig)


def _check_types(config: dict[str, Any], found: Mistakes) -> None:
    """Note and remove every value of a wrong type or out of range."""
    try:
        validator().validate_python(config)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            discard(config, _note(mistake, found))


def _note(mistake: Any, found: Mistakes) -> Path:
    """Note one of pydantic's mistakes in our words; gives the path of its key."""
    steps = list(mistake["loc"])
    path: Path = ()
    known: Mapping[str, Key] = fields(HeterodyneConfig)
    while known and steps:
        key = known[steps.pop(0)]
        path, known = (*path, key.name), fields(key.type) if key.is_section else {}
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    for _ in steps:
        key = key.item() or key
    got, near = mistake["input"], ""
    if mistake["type"] == "literal_error" and isinstance(got, str):
        near = nearest(got, map(str, get_args(key.type)))
    where = f"at {place.lstrip('.')} " if place else ""
    found.add(path, f"{where}got {show(got)}; expected {key.expected()}{near or '.'}")
    return path


# Parameters


def asked_parameters(
    config: Mapping[str, Any], registry: ParameterRegistry, found: Mistakes
) -> dict[str, dict[str, Any]]:
    """The arguments of the space of canonical `parameters`, without those with a mistake."""
    asked: dict[str, dict[str, Any]] = {"values": {}, "vary": {}, "bounds": {}, "priors": {}}
    entries = {
        ("parameters", group, name): entry
        for group, names in config.get("parameters", {}).items()
        for name, entry in names.items()
    }
    for path, entry in entries.items():
        name, info = path[-1], registry[path[-1]]
        for here, other in (("min", "max"), ("max", "min")):
            if here in entry and other not in entry and not found.is_wrong((*path, other)):
                found.add((*path, other), "missing; give both min and max, or neither.")
        if "prior_params" in entry and "prior" not in entry and not found.is_wrong(path):
            found.add((*path, "prior_params"), "has no effect without prior; give the family.")
        if found.is_wrong(path):
            continue
        ends = float(entry.get("min", info.min_bound)), float(entry.get("max", info.max_bound))
        asked["bounds"][name] = ends
        for key, kind in (("value", "values"), ("vary", "vary")):
            if key in entry:
                asked[kind][name] = entry[key]
        if "prior" in entry and ends[0] < ends[1]:
            family = PriorType(entry["prior"])
            bounds = zip(("low", "high"), ends, strict=True)
            params = {key: end for key, end in bounds if key in FAMILIES[family].names}
            params |= entry.get("prior_params", {})
            faults = prior_faults(family, params)
            found.add((*path, "prior_params"), *faults)
            if not faults:
                asked["priors"][name] = PriorDistribution(family, params)
    return asked


def check_space(config: Mapping[str, Any], space: "ParameterSpace", found: Mistakes) -> bool:
    """Note what is wrong with a space and its physics; whether its numbers are right."""
    sampling = any(lookup(config, tuple(path.split("."))) in words for path, words in SAMPLED)
    paths = {info.name: ("parameters", info.group, info.name) for info in space.registry.infos}
    for name, faults in space.faults(sampling=sampling).items():
        if not found.is_wrong(paths[name]):
            found.add(paths[name], *faults)
    if found.is_wrong(("parameters",)):
        return False
    values, priors, vary = space.values, space.priors, space.vary
    owners = zip(space.all_names, space.own_priors, strict=True)
    for name in (name for name, own in owners if sampling and own is None and vary[name]):
        value, prior = values[name], priors[name].params
        location, scale = prior["loc"], prior["scale"]
        if abs(value - location) > 5 * scale:
            found.remark(
                paths[name],
                f"the value {value:g} is {abs(value - location) / scale:.3g} widths from its "
                f"default prior ({location:g} ± {scale:g}), which will pull the samples; give a "
                "prior.",
            )
    for severity, sentence in findings(values, _known_times(config)):
        if severity == "error":
            found.add(("parameters",), sentence)
        elif severity == "warning":
            found.remark(("parameters",), sentence)
    return True


def _known_times(config: Mapping[str, Any]) -> np.ndarray | None:
    """Times of the selected frames [s], as far as a canonical configuration says them."""
    section = config.get("analyzer_parameters", {})
    dt, t0, last = section.get("dt"), section.get("t0"), section.get("end_frame", -1)
    first = section.get("start_frame", 1)
    if dt is None or last < 0:
        return None if t0 is None else np.array([t0])
    start = first * dt if t0 is None else t0
    # Rules about functions of time are about monotonic ones: a few frames suffice.
    return start + dt * np.unique(np.linspace(0, last - first, 64).round())
