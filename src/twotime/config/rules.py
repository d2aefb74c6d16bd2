"""Last step of reading a configuration: what keys mean together, and what a run needs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from twotime.config import physics_validators
from twotime.config.mistakes import Findings, Path, entries, lookup
from twotime.config.parameter_registry import REGISTRIES
from twotime.config.parameter_space import ParameterSpace
from twotime.config.priors import FAMILIES, PriorDistribution, PriorType, prior_faults
from twotime.models import LAWS

_NLSQ = ("optimization", "nlsq")
_CMC = ("optimization", "cmc")
_TIME = "analyzer_parameters"


def need(config: Mapping[str, Any], mode: str, found: Findings) -> None:
    """Note what a run needs and the configuration does not say."""
    wanted: dict[Path, str] = {
        ("experimental_data", "file_path"): "say which data file to read.",
        (_TIME, "scattering", "wavevector_q"): "say which wavevector to analyse [1/Å].",
    }
    for setting in LAWS[mode].settings:
        if setting.needed:
            wanted[setting.path] = f"{setting.needed}."
    for path, why in wanted.items():
        if lookup(config, path) is None and not found.is_wrong(path):
            found.add(path, f"missing; {why}")


def together(config: Mapping[str, Any], mode: str, found: Findings) -> None:
    """Note keys that contradict each other or have no effect as things stand."""
    for check in (_model, _frames, _angles, _data, _nlsq, _sampling, _sequential, _switches):
        check(config, mode, found)


def _has(config: Mapping[str, Any], *path: str) -> bool:
    return lookup(config, path) is not None


def _model(config: Mapping[str, Any], mode: str, found: Findings) -> None:
    """Keys that only other laws have a use for."""
    used_by: dict[Path, list[str]] = {}
    for word, law in LAWS.items():
        for setting in law.settings:
            used_by.setdefault(setting.path, []).append(word)
    for path, words in used_by.items():
        if mode not in words and _has(config, *path):
            found.add(
                path,
                f"has no effect with analysis_mode: {mode}, only with {' or '.join(words)}; "
                "delete it.",
            )


def _frames(config: Mapping[str, Any], mode: str, found: Findings) -> None:
    first = lookup(config, (_TIME, "start_frame")) or 1
    path = (_TIME, "end_frame")
    last = lookup(config, path)
    if last == 0:
        found.add(path, "got 0; frames count from 1, and -1 is the last.")
    elif last is not None and last > 0 and last <= first:
        found.add(path, f"got {last}, which leaves fewer than two frames after frame {first}.")
    path = (_TIME, "dt_source")
    if lookup(config, path) == "config" and not _has(config, _TIME, "dt"):
        if not found.is_wrong((_TIME, "dt")):
            found.add(path, f"says config, but {_TIME}.dt is not given; give it or delete this.")


def _angles(config: Mapping[str, Any], mode: str, found: Findings) -> None:
    named = ("include_angles", "exclude_angles")
    path: Path = ("phi_filtering", "tolerance")
    used = [_has(config, "phi_filtering", name) for name in named]
    used.append(_has(config, _TIME, "scattering", "phi_angles"))
    if _has(config, *path) and not any(used) and not found.is_wrong(path[:1]):
        found.add(path, f"has no effect without {' or '.join(named)}; give angles or delete it.")
    for name in ("ranges", "include_angles"):
        if lookup(config, ("phi_filtering", name)) == []:
            found.add(("phi_filtering", name), "is empty, which leaves no angle; delete the key.")
    path = (_TIME, "scattering", "phi_angles")
    angles = lookup(config, path)
    if angles == []:
        found.add(path, "is empty, which leaves no angle; delete the key for all angles.")
    q = lookup(config, (_TIME, "scattering", "wavevector_q"))
    if q is not None and q > 1:
        found.remark(
            (_TIME, "scattering", "wavevector_q"),
            f"{q:g} 1/Å is very large; q in 1/nm is ten times q in 1/Å.",
        )


def _data(config: Mapping[str, Any], mode: str, found: Findings) -> None:
    path = ("experimental_data", "roi_axis")
    data = config.get("experimental_data", {})
    is_npy = data.get("file_format") == "npy" or str(data.get("file_path", "")).endswith(".npy")
    if _has(config, *path) and not is_npy and "file_path" in data:
        found.add(path, "has an effect on npy files only; delete it.")
    for name in ("cache_filename_template", "cache_compression"):
        path = ("experimental_data", name)
        if _has(config, *path) and not {"cache_file_path", "data_folder_path"} & set(data):
            found.add(path, "has no effect without cache_file_path; give the folder or delete it.")


def _nlsq(config: Mapping[str, Any], mode: str, found: Findings) -> None:
    nlsq = lookup(config, _NLSQ) or {}
    factored = nlsq.get("evaluator") == "factored"
    robust = nlsq.get("loss", "linear") != "linear"
    path = (*_NLSQ, "evaluator")
    law: Any = LAWS[mode]
    if factored and not law().is_separable:
        found.add(path, f"factored needs a separable model; {mode} is not. Use auto.")
    if factored and robust:
        found.add(path, f"factored needs loss: linear, not {nlsq['loss']}. Use auto or tiled.")
    if factored and lookup(config, ("streaming", "enable")):
        found.add(path, "factored contradicts streaming.enable: true. Keep one.")
    if "loss_scale" in nlsq and not robust and not found.is_wrong((*_NLSQ, "loss")):
        found.add((*_NLSQ, "loss_scale"), "has no effect with loss: linear; delete it.")
    if "multistart_n" in nlsq and "multistart" not in nlsq:
        if not found.is_wrong((*_NLSQ, "multistart")):
            found.add((*_NLSQ, "multistart_n"), "has no effect without multistart: true; add it.")


def _sampling(config: Mapping[str, Any], mode: str, found: Findings) -> None:
    method = lookup(config, ("optimization", "method")) or "nlsq"
    if lookup(config, (*_CMC, "enable")) == "never" and method != "nlsq":
        found.add((*_CMC, "enable"), f"never contradicts optimization.method: {method}. Keep one.")
    sampler = lookup(config, (*_CMC, "backend", "sampler"))
    for name in lookup(config, ("optimization", "hmc")) or {}:
        if sampler != "hmc" and not found.is_wrong((*_CMC, "backend", "sampler")):
            found.add(
                ("optimization", "hmc", name),
                "has no effect without optimization.cmc.backend.sampler: hmc; add it.",
            )
    initialization = lookup(config, (*_CMC, "initialization")) or {}
    for name in ("nlsq_chi2_threshold", "jitter_scale"):
        if initialization.get("method") == "prior" and name in initialization:
            found.add(
                (*_CMC, "initialization", name),
                "has no effect with method: prior, which needs no fit; delete it.",
            )
    strategy = lookup(config, (*_CMC, "sharding", "shard_strategy")) or "random"
    if lookup(config, ("stratification", "enable")) and strategy != "random":
        found.add(
            ("stratification", "enable"),
            f"needs optimization.cmc.sharding.shard_strategy: random, not {strategy}.",
        )


def _sequential(config: Mapping[str, Any], mode: str, found: Findings) -> None:
    """What cannot go with fitting one angle after the other, or with sampling."""
    robust = lookup(config, (*_NLSQ, "loss")) or "linear"
    if _samples(config) and robust != "linear":
        found.add(
            (*_NLSQ, "loss"),
            f"{robust} contradicts sampling, whose likelihood is that of squares. Use linear, or "
            "optimization.method: nlsq.",
        )
    if not lookup(config, ("sequential", "enable")):
        return
    if _samples(config):
        found.add(
            ("sequential", "enable"),
            "contradicts sampling, which takes all angles together. Use optimization.method: nlsq.",
        )
    if lookup(config, (*_NLSQ, "per_angle_mode")) == "fourier":
        found.add(
            (*_NLSQ, "per_angle_mode"),
            "fourier is a series over the angles; with sequential.enable: true there is one at "
            "a time. Use auto.",
        )
    pairs = (("max_iterations", "max_iterations"), ("tolerance", "convergence_threshold"))
    for here, there in pairs:
        if _has(config, *_NLSQ, here) and _has(config, "sequential", there):
            found.add((*_NLSQ, here), f"has no effect beside sequential.{there}; keep one.")


def _samples(config: Mapping[str, Any]) -> bool:
    """Whether the configuration asks for posterior samples."""
    method = lookup(config, ("optimization", "method")) or "nlsq"
    return method != "nlsq" or lookup(config, (*_CMC, "enable")) == "always"


def _switches(config: Mapping[str, Any], mode: str, found: Findings) -> None:
    """Keys of a section that is off unless switched on."""
    for section in ("streaming", "stratification", "sequential"):
        keys = config.get(section, {})
        if "enable" not in keys and not found.is_wrong((section, "enable")):
            for name in keys:
                found.add((section, name), f"has no effect without {section}.enable: true; add it.")
    path = ("stratification", "n_strata")
    if _has(config, *path) and lookup(config, ("stratification", "strategy")) != "lag":
        if not found.is_wrong(("stratification",)):
            found.add(path, "has no effect without stratification.strategy: lag; add it.")


# Parameters


def space_of(config: Mapping[str, Any], mode: str, found: Findings) -> ParameterSpace | None:
    """The space that canonical `parameters` ask for; None where they are wrong."""
    registry = REGISTRIES[mode]
    values, vary, bounds, priors = {}, {}, {}, {}
    paths: dict[str, Path] = {}
    for group, name, entry in entries(config):
        paths[name] = ("parameters", group, name)
        info = registry[name]
        ends = _bounds(entry, (float(info.min_bound), float(info.max_bound)), paths[name], found)
        if found.is_wrong(paths[name]):
            continue
        bounds[name] = ends
        if "value" in entry:
            values[name] = entry["value"]
        if "vary" in entry:
            vary[name] = entry["vary"]
        prior = _prior(entry, ends, paths[name], found)
        if prior is not None:
            priors[name] = prior
    space = ParameterSpace(values, vary, bounds, priors, registry=registry)
    for group, names in registry.groups.items():
        for name in names:
            paths.setdefault(name, ("parameters", group, name))
    sampling = _samples(config)
    for name, faults in space.faults(sampling=sampling).items():
        for fault in faults if not found.is_wrong(paths[name]) else ():
            found.add(paths[name], fault)
    if found.is_wrong(("parameters",)):
        return None
    if sampling:
        _far_priors(space, paths, found)
    return space


def _far_priors(space: ParameterSpace, paths: Mapping[str, Path], found: Findings) -> None:
    """Remark on default priors that a start contradicts, for they would pull the samples."""
    values, vary = space.values, space.vary
    for name, prior in space.priors.items():
        if name not in space.default_priors or not vary[name]:
            continue
        location, scale = prior.params["loc"], prior.params["scale"]
        distance = abs(values[name] - location) / scale
        if distance > 5:
            found.remark(
                paths[name],
                f"the value {values[name]:g} is {distance:.3g} widths from its default prior "
                f"({location:g} ± {scale:g}), which will pull the samples; give a prior.",
            )


def _bounds(
    entry: Mapping[str, Any], usual: tuple[float, float], path: Path, found: Findings
) -> tuple[float, float]:
    for here, other in (("min", "max"), ("max", "min")):
        if here in entry and other not in entry and not found.is_wrong((*path, other)):
            found.add((*path, other), f"missing; {here} and {other} come together.")
    lower, upper = entry.get("min", usual[0]), entry.get("max", usual[1])
    if "min" in entry and "max" in entry and not lower < upper:
        found.add((*path, "min"), f"min must be less than max; got {lower:g} and {upper:g}.")
    return lower, upper


def _prior(
    entry: Mapping[str, Any], ends: tuple[float, float], path: Path, found: Findings
) -> PriorDistribution | None:
    if "prior" not in entry:
        if "prior_params" in entry and not found.is_wrong((*path, "prior")):
            found.add((*path, "prior_params"), "has no effect without prior; say which family.")
        return None
    kind = PriorType(entry["prior"])
    params = dict(entry.get("prior_params", {}))
    for name, end in zip(("low", "high"), ends, strict=True):
        if name in FAMILIES[kind].names:
            params.setdefault(name, end)
    faults = prior_faults(kind, params)
    for fault in faults:
        found.add((*path, "prior_params"), fault)
    return None if faults else PriorDistribution(kind, params)


def physical(
    config: Mapping[str, Any], space: ParameterSpace, found: Findings, legacy: bool
) -> None:
    """Note what physics says of the start values, on the frames as far as they are known."""
    for severity, sentence in physics_validators.findings(space.values, _known_times(config)):
        if severity == "error":
            found.add(("parameters",), sentence)
        elif severity == "warning":
            found.remark(("parameters",), sentence)
    if legacy and space.analysis_mode == "two_component" and space.values["phi0"] != 0:
        found.remark(
            ("parameters", "angle", "phi0"),
            "the angle that counts here is phi - phi0; programs that use phi + phi0 need the "
            "other sign.",
        )


def _known_times(config: Mapping[str, Any]) -> np.ndarray | None:
    """Times of the selected frames [s] as far as the configuration says them."""
    section = config.get(_TIME, {})
    dt, t0, last = section.get("dt"), section.get("t0"), section.get("end_frame", -1)
    first = section.get("start_frame", 1)
    if dt is None or last < 0:
        return None if t0 is None else np.array([t0])
    start = first * dt if t0 is None else t0
    # The rules are about monotonic functions of time: ends and a few frames between say it all.
    return start + dt * np.unique(np.linspace(0, last - first, 64).round())
