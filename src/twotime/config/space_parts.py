"""Spaces of parameters: what is wrong with their numbers, and how configurations write them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from twotime.config.parameter_registry import REGISTRIES, ParameterRegistry
from twotime.config.priors import (
    FAMILIES,
    PriorDistribution,
    PriorType,
    has_mass,
    informative_prior,
    prior_faults,
)
from twotime.errors import Mistakes
from twotime.models import findings
from twotime.models.base import AbstractTwoTimeModel, is_concrete
from twotime.models.laws import law_config

if TYPE_CHECKING:
    from twotime.config.parameter_space import ParameterSpace

Named = Mapping[str, Any]


def written(space: "ParameterSpace", law: AbstractTwoTimeModel | None) -> dict[str, Any]:
    """The configuration of a space, see `ParameterSpace.to_config`."""
    if law is None and not space.analysis_mode:
        only = "Only a space of an analysis mode can be written as a configuration"
        names = ", ".join(space.names)
        raise ValueError(f"{only} without its law; got one of the parameters {names}.")
    usual = REGISTRIES[space.analysis_mode] if law is None else ParameterRegistry.of(law)
    named = {"analysis_mode": space.analysis_mode} if law is None else law_config(law)
    own = map(informative_prior, usual.infos)
    parameters = dict[str, dict[str, Any]]()
    for info, prior, usual_prior in zip(space.registry.infos, space.own_priors, own, strict=True):
        (lower, upper), entry = space.bounds[info.name], dict[str, Any]()
        if (lower, upper) != (usual[info.name].min_bound, usual[info.name].max_bound):
            entry = {"min": lower, "max": upper}
        if prior is not None and _differ(prior, usual_prior):
            entry |= {"prior": prior.prior_type.value, "prior_params": prior.params}
        parameters |= {info.name: entry} if entry else {}
    flat = {
        "parameter_names": list(space.all_names),
        "values": list(space.values.values()),
        "active_parameters": space.varying_names,
    }
    config = named | {"initial_parameters": flat}
    return config | ({"parameters": parameters} if parameters else {})


def _differ(one: PriorDistribution, other: PriorDistribution | None) -> bool:
    if other is None or one.prior_type is not other.prior_type:
        return True
    return bool(one.params != other.params)


def check_count(array: Any, n: int, kind: str) -> None:
    """Refuse an array that does not hold one number for each parameter of a kind."""
    if np.shape(array) != (n,):
        expected = f"expected one number for each of the {n} {kind} parameters"
        raise ValueError(f"Parameters: {expected}; got an array of shape {np.shape(array)}.")


def check_numbers(values: Named, vary: Named, bounds: Named) -> None:
    """Refuse what is not a finite number or a flag; traced numbers pass."""
    for name, flag in vary.items():
        if not isinstance(flag, bool | np.bool_):
            raise TypeError(f"Parameter {name!r}: vary must be True or False; got {flag!r}.")
    numbers = [("value", name, value) for name, value in values.items()]
    for name, ends in bounds.items():
        if isinstance(ends, str) or not hasattr(ends, "__len__") or len(ends) != 2:
            raise TypeError(f"Parameter {name!r}: bounds are a pair (lower, upper); got {ends!r}.")
        numbers += [("lower bound", name, ends[0]), ("upper bound", name, ends[1])]
    for what, name, value in numbers:
        if is_concrete(value) and np.asarray(value).dtype.kind not in "fiu":
            raise TypeError(f"Parameter {name!r}: the {what} must be a number; got {value!r}.")
        if is_concrete(value) and not np.isfinite(value).all():
            raise ValueError(f"Parameter {name!r}: the {what} must be finite; got {value}.")


def faults_of(
    value: Any, bounds: tuple[Any, Any], prior: PriorDistribution | None, is_default: bool
) -> list[str]:
    """What is wrong with one parameter, and with its prior where that is given."""
    lower, upper = bounds
    if not np.isfinite([value, lower, upper]).all():
        return [f"value and bounds must be finite; got {value} in [{lower}, {upper}]."]
    if not lower < upper:
        return [f"min must be less than max; got {lower:g} and {upper:g}."]
    where, faults = f"[{lower:g}, {upper:g}]", list[str]()
    if not lower <= value <= upper:
        faults = [f"value {value:g} lies outside its bounds {where}."]
        if is_default:
            faults = [f"its default {value:g} lies outside the bounds {where}; give a value."]
    if prior is None:
        return faults
    wrong = prior_faults(prior.prior_type, prior.params)
    low, high = prior.support
    if wrong:
        return faults + wrong
    if not has_mass(prior, lower, upper):
        kind = prior.prior_type.value
        return [*faults, f"its {kind} prior has no probability inside its bounds {where}."]
    if not faults and not low <= value <= high:
        return [f"value {value:g} lies outside the support [{low:g}, {high:g}] of its prior."]
    return faults


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
        if "min" in entry:
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


def check_space(
    config: Mapping[str, Any], law: AbstractTwoTimeModel, space: "ParameterSpace", found: Mistakes
) -> bool:
    """Note what is wrong with a space and its physics; whether its numbers are right."""
    paths = {info.name: ("parameters", info.group, info.name) for info in space.registry.infos}
    for name, faults in space.faults().items():
        if not found.is_wrong(paths[name]):
            found.add(paths[name], *faults)
    if found.is_wrong(("parameters",)):
        return False
    # What is fitted and has no value is estimated from the data: its default is worth no warning.
    told = {
        name: x
        for (name, x), given in zip(space.values.items(), space.own_values, strict=True)
        if given or not space.vary[name]
    }
    for note, severity, values in (
        (found.add, "error", space.values),
        (found.remark, "warning", told),
    ):
        for is_found, sentence in findings(values, _known_times(config), type(law)):
            if is_found == severity:
                note(("parameters",), sentence)
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
