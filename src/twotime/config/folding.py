"""Third step of reading a configuration: older and shorter forms go to where they belong."""

from typing import Any

from twotime.config.findings import Findings, Path, discard, lookup, show, store
from twotime.config.parameter_names import (
    PARAMETER_ALIASES,
    PARAMETER_GROUPS,
    PARAMETER_NAMES,
    SCALING_PARAMS,
    nearest,
)

_SCATTERING = ("analyzer_parameters", "scattering")
_CMC = ("optimization", "cmc")

_MOVES: tuple[tuple[Path, Path], ...] = (
    (("scattering", "wavevector_q"), (*_SCATTERING, "wavevector_q")),
    (("scattering", "q_tolerance"), (*_SCATTERING, "q_tolerance")),
    (("scattering", "phi_angles"), (*_SCATTERING, "phi_angles")),
    (("temporal", "dt"), ("analyzer_parameters", "dt")),
    (("analysis", "method"), ("optimization", "method")),
    (("analysis", "phi_angles"), (*_SCATTERING, "phi_angles")),
    (("analysis", "q"), (*_SCATTERING, "wavevector_q")),
    (("analysis", "dt"), ("analyzer_parameters", "dt")),
    (("analysis", "scaling_mode"), ("optimization", "nlsq", "per_angle_mode")),
    ((*_CMC, "num_warmup"), (*_CMC, "per_shard_mcmc", "num_warmup")),
    ((*_CMC, "num_samples"), (*_CMC, "per_shard_mcmc", "num_samples")),
    ((*_CMC, "num_chains"), (*_CMC, "per_shard_mcmc", "num_chains")),
    ((*_CMC, "target_accept_prob"), (*_CMC, "per_shard_mcmc", "target_accept_prob")),
    ((*_CMC, "max_tree_depth"), (*_CMC, "per_shard_mcmc", "max_tree_depth")),
    ((*_CMC, "max_r_hat"), (*_CMC, "validation", "max_r_hat")),
)
"""Where keys that say the same as another one go."""

MOVED_CMC_KEYS = tuple((source[-1], target[2:]) for source, target in _MOVES if source[:2] == _CMC)
"""Short keys of optimization.cmc and where in it they belong."""


def folded(config: dict[str, Any], mode: str, found: Findings) -> dict[str, Any]:
    """Bring older and shorter forms to the canonical ones; contradictions are mistakes.

    Args:
        config: A configuration of right types; changed.
        mode: Analysis mode.
        found: Where mistakes are noted.
    """
    _fold_temporal(config, found)
    for source, target in _MOVES:
        value = lookup(config, source)
        if value is not None:
            _move(config, source, target, value, found)
    _fold_parameter_groups(config, mode, found)
    _fold_initial(config, mode, found)
    for section in ("temporal", "scattering", "analysis", "initial_parameters"):
        config.pop(section, None)
    return config


def _move(config: dict[str, Any], source: Path, target: Path, value: Any, found: Findings) -> None:
    discard(config, source)
    there = lookup(config, target)
    if there is None:
        if not found.is_wrong(target):
            store(config, target, value)
            found.written.setdefault(target, found.spell(source))
    elif there != value:
        found.add(
            source,
            f"says {show(value)} while {found.spell(target)} says {show(there)}; keep one.",
        )


def _fold_temporal(config: dict[str, Any], found: Findings) -> None:
    """`t_start` counts from 0 and `time_length` frames; frames count from 1, both ends in."""
    temporal = config.get("temporal")
    if not temporal or found.is_wrong(("temporal", "t_start")):
        return
    first = temporal.get("t_start", 0)
    if "t_start" in temporal:
        target = ("analyzer_parameters", "start_frame")
        _move(config, ("temporal", "t_start"), target, first + 1, found)
    if "time_length" in temporal:
        last = first + temporal["time_length"]
        target = ("analyzer_parameters", "end_frame")
        _move(config, ("temporal", "time_length"), target, last, found)


def _fold_parameter_groups(config: dict[str, Any], mode: str, found: Findings) -> None:
    """Groups of parameters under analyzer_parameters mean the same under parameters."""
    section = config.get("analyzer_parameters", {})
    for group in [name for name in section if name in _all_groups()]:
        for name, entry in section.pop(group).items():
            source = ("analyzer_parameters", group, name)
            _move(config, source, ("parameters", group, name), entry, found)


def _all_groups() -> set[str]:
    return {group for groups in PARAMETER_GROUPS.values() for group in groups}


def _fold_initial(config: dict[str, Any], mode: str, found: Findings) -> None:
    """The flat form gives values and flags wherever `parameters` does not."""
    here = ("initial_parameters",)
    flat = config.get("initial_parameters")
    if flat is None or found.is_wrong(here):
        return
    names = _names(flat.get("parameter_names", []), (*here, "parameter_names"), mode, found)
    values = flat.get("values", [])
    if "values" in flat and len(values) != len(flat.get("parameter_names", [])):
        found.add(
            (*here, "values"),
            f"got {len(values)} values for {len(flat.get('parameter_names', []))} "
            "parameter_names; give one for each.",
        )
    elif "parameter_names" in flat and "values" not in flat and "active_parameters" not in flat:
        found.add((*here, "values"), "missing; parameter_names alone say nothing.")
    if found.is_wrong(here):
        return
    for name, value in zip(names, values, strict="values" in flat):
        _give(config, mode, name, "value", value, found)
    if "active_parameters" in flat:
        active = _names(flat["active_parameters"], (*here, "active_parameters"), mode, found)
        listed = [name for name in SCALING_PARAMS if name in (*names, *active)]
        for name in (*PARAMETER_NAMES[mode], *listed):
            _give(config, mode, name, "vary", name in active, found)


def _names(given: list[str], path: Path, mode: str, found: Findings) -> list[str]:
    known = (*PARAMETER_NAMES[mode], *SCALING_PARAMS)
    names = [PARAMETER_ALIASES.get(name, name) for name in given]
    for written, name in zip(given, names, strict=True):
        if name not in known:
            proposal = nearest(written, (*known, *PARAMETER_ALIASES))
            found.add(
                path,
                f"the model has no parameter {written!r}{proposal or '.'} "
                f"Allowed here: {', '.join(known)}.",
            )
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.add(path, f"{name} is listed more than once.")
    return names


def _give(
    config: dict[str, Any], mode: str, name: str, key: str, value: Any, found: Findings
) -> None:
    """Set what the flat form says of a parameter where the grouped form is silent."""
    group = next(group for group, names in PARAMETER_GROUPS[mode].items() if name in names)
    path = ("parameters", group, name, key)
    if lookup(config, path) is None and not found.is_wrong(path):
        store(config, path, value)
        found.written.setdefault(path, f"initial_parameters ({name})")
