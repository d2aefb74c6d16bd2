"""Rules about keys together: which contradict each other, have no effect, or are missing.

`RULES` is a table. A rule applies to a key that is given, once every key it looks at is right.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twotime.config.keys import Mistakes, Path, fields, lookup, section_at
from twotime.config.parameter_registry import ParameterRegistry, findings
from twotime.config.priors import FAMILIES, PriorDistribution, PriorType, prior_faults
from twotime.config.types import (
    HeterodyneConfig,
    HmcConfig,
    SequentialConfig,
    StratificationConfig,
    StreamingConfig,
)
from twotime.models import LAWS

if TYPE_CHECKING:
    from twotime.config.parameter_space import ParameterSpace


class _WrongKeyError(Exception):
    """A rule looks at a key that is known to be wrong."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """A canonical configuration as rules see it: values by dotted path, with defaults.

    Attributes:
        config: The canonical configuration.
        mode: Its analysis mode.
        found: Mistakes so far.
    """

    config: Mapping[str, Any]
    mode: str
    found: Mistakes

    def __getitem__(self, path: str) -> Any:
        """The value at a path, its default where it is left out."""
        value, (section, _, name) = self.given(path), path.rpartition(".")
        return section_at(HeterodyneConfig, section)[name].default if value is None else value

    def given(self, path: str) -> Any:
        """The value at a path; None where it is left out."""
        steps = tuple(path.split("."))
        if self.found.is_wrong(steps):
            raise _WrongKeyError
        return lookup(self.config, steps)


class Rule(NamedTuple):
    """One row of the table.

    Attributes:
        path: The key it is about.
        is_broken: Whether the settings, and the value of the key where it is given, break it.
        sentence: What to tell, a format string of `got` (the value) and `c` (the settings).
    """

    path: str
    is_broken: Callable[[Settings, Any], Any]
    sentence: str


def _without(path: str, other: str, *values: str) -> Rule:
    """A key has no effect unless another one has one of the values (none: is given)."""
    words = " or ".join(values) or "true"
    return Rule(
        path,
        lambda c, got: c[other] not in values if values else c.given(other) is None,
        f"has no effect without {other}: {words}; add it, or delete this key.",
    )


def _against(
    path: str, values: tuple[Any, ...], other: str, bad: tuple[Any, ...], remedy: str
) -> Rule:
    """A key must not have one of the values while another one has a bad one."""
    return Rule(
        path,
        lambda c, got: got in values and c[other] in bad,
        f"{{got}} contradicts {other}: {'true' if bad == (True,) else f'{{c[{other}]}}'}. {remedy}",
    )


def _of_laws(path: Path) -> Rule:
    """A setting of some laws has no effect with the others."""
    modes = [mode for mode, law in LAWS.items() if path in [s.path for s in law.settings]]
    only = f"has no effect with analysis_mode: {{c.mode}}, only with {' or '.join(modes)}."
    return Rule(".".join(path), lambda c, got: c.mode not in modes, f"{only} Delete it.")


def _beside(path: str, other: str) -> Rule:
    """A key has no effect with another one of a sequential fit."""
    sentence = f"has no effect together with {other}; keep one."
    return Rule(path, lambda c, got: c["sequential.enable"] and c.given(other), sentence)


def _needed(path: Path, why: str, modes: Iterable[str] = LAWS) -> Rule:
    """A key that a run with a law of these modes needs."""
    return Rule(".".join(path), lambda c, got: c.mode in modes, f"missing; {why}.")


def _lacks(*paths: str) -> Callable[[Settings, Any], bool]:
    return lambda c, got: all(c.given(path) is None for path in paths)


def _is_separable(c: Settings) -> bool:
    law: Any = LAWS[c.mode]
    return law().is_separable


_TIME = "analyzer_parameters"
_ANGLES = f"{_TIME}.scattering.phi_angles"
_INCLUDE, _EXCLUDE = "phi_filtering.include_angles", "phi_filtering.exclude_angles"
_DATA = "experimental_data"
_FILE, _FORMAT = f"{_DATA}.file_path", f"{_DATA}.file_format"
_NLSQ = "optimization.nlsq"
_CMC = "optimization.cmc"
_INITIAL = f"{_CMC}.initialization"
_END = f"{_TIME}.end_frame"
_EVALUATOR, _LOSS = f"{_NLSQ}.evaluator", f"{_NLSQ}.loss"
_SEQUENTIAL = "sequential.enable"
_STRATEGY = f"{_CMC}.sharding.shard_strategy"
_FIXED_SHARDS = ("interleaved", "contiguous", "angles")
_ROBUST = ("soft_l1", "huber")
_SAMPLED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("optimization.method", ("cmc", "both")),
    (f"{_CMC}.enable", ("always",)),
)
_SWITCHED = {
    "streaming": StreamingConfig,
    "stratification": StratificationConfig,
    "sequential": SequentialConfig,
}
_NO_CACHE = _lacks(f"{_DATA}.cache_file_path", f"{_DATA}.data_folder_path")
_CACHE_NEEDED = "has no effect without cache_file_path; give the folder, or delete this key."
_EMPTY = "is empty, which leaves no angle; delete the key."

RULES: tuple[Rule, ...] = (
    *map(_of_laws, dict.fromkeys(s.path for law in LAWS.values() for s in law.settings)),
    Rule(_END, lambda c, got: got == 0, "got 0; frames count from 1, and -1 is the last."),
    Rule(
        _END,
        lambda c, got: 0 < got <= c[f"{_TIME}.start_frame"],
        f"got {{got}}, which leaves fewer than two frames after frame {{c[{_TIME}.start_frame]}}.",
    ),
    Rule(
        f"{_TIME}.dt_source",
        lambda c, got: got == "config" and c.given(f"{_TIME}.dt") is None,
        f"is config, but {_TIME}.dt is not given; give it, or delete this key.",
    ),
    Rule(
        "phi_filtering.tolerance",
        _lacks(_INCLUDE, _EXCLUDE, _ANGLES),
        "has no effect without include_angles or exclude_angles; give angles or delete it.",
    ),
    Rule("phi_filtering.ranges", lambda c, got: got == [], _EMPTY),
    Rule(_INCLUDE, lambda c, got: got == [], _EMPTY),
    Rule(_ANGLES, lambda c, got: got == [], _EMPTY),
    Rule(
        f"{_DATA}.roi_axis",
        lambda c, got: not (c.given(_FILE) or ".npy").endswith(".npy") and c[_FORMAT] != "npy",
        "has an effect on npy files only; delete it.",
    ),
    Rule(f"{_DATA}.cache_filename_template", _NO_CACHE, _CACHE_NEEDED),
    Rule(f"{_DATA}.cache_compression", _NO_CACHE, _CACHE_NEEDED),
    Rule(
        _EVALUATOR,
        lambda c, got: got == "factored" and not _is_separable(c),
        "factored needs a separable model; {c.mode} is not. Use auto.",
    ),
    _against(_EVALUATOR, ("factored",), _LOSS, _ROBUST, "Use auto or tiled."),
    _against(_EVALUATOR, ("factored",), "streaming.enable", (True,), "Use auto or tiled."),
    _without(f"{_NLSQ}.loss_scale", _LOSS, *_ROBUST),
    _without(f"{_NLSQ}.multistart_n", f"{_NLSQ}.multistart"),
    _against(f"{_CMC}.enable", ("never",), "optimization.method", ("cmc", "both"), "Keep one."),
    *(
        _without(f"optimization.hmc.{name}", f"{_CMC}.backend.sampler", "hmc")
        for name in fields(HmcConfig)
    ),
    _without(f"{_INITIAL}.nlsq_chi2_threshold", f"{_INITIAL}.method", "nlsq"),
    _without(f"{_INITIAL}.jitter_scale", f"{_INITIAL}.method", "nlsq"),
    _against(_STRATEGY, _FIXED_SHARDS, "stratification.enable", (True,), "Use random."),
    *(_against(_LOSS, _ROBUST, *other, "Sampling needs loss: linear.") for other in _SAMPLED),
    *(_against(_SEQUENTIAL, (True,), *other, "Sampling takes all angles.") for other in _SAMPLED),
    _against(f"{_NLSQ}.per_angle_mode", ("fourier",), _SEQUENTIAL, (True,), "Use auto."),
    _beside(f"{_NLSQ}.max_iterations", "sequential.max_iterations"),
    _beside(f"{_NLSQ}.tolerance", "sequential.convergence_threshold"),
    *(
        _without(f"{section}.{name}", f"{section}.enable")
        for section, kind in _SWITCHED.items()
        for name in fields(kind)
        if name != "enable"
    ),
    _without("stratification.n_strata", "stratification.strategy", "lag"),
)

NEEDED: tuple[Rule, ...] = (
    _needed((_DATA, "file_path"), "give the data file to read"),
    _needed((_TIME, "scattering", "wavevector_q"), "give the wavevector to analyse [1/Å]"),
    *(
        _needed(s.path, s.needed, [mode])
        for mode, law in LAWS.items()
        for s in law.settings
        if s.needed
    ),
)
"""Keys that a run needs; `is_broken` is whether this one does."""


def check_rules(config: Mapping[str, Any], mode: str, found: Mistakes, *, is_whole: bool) -> None:
    """Note which rules a canonical configuration breaks.

    Args:
        config: A canonical configuration of right types.
        mode: Its analysis mode.
        found: Where mistakes are noted.
        is_whole: Whether the configuration must contain all that a run needs.
    """
    c = Settings(config, mode, found)
    broken = []
    for rule in (*RULES, *(NEEDED if is_whole else ())):
        try:
            value = c.given(rule.path)
            if (value is None) == (rule in NEEDED) and rule.is_broken(c, value):
                got = str(value).lower() if isinstance(value, bool) else value
                broken.append((rule.path, rule.sentence.format(got=got, c=c)))
        except _WrongKeyError:
            continue
    for path, sentence in broken:
        found.add(tuple(path.split(".")), sentence)
    q_path = (_TIME, "scattering", "wavevector_q")
    q = lookup(config, q_path)
    if q is not None and q > 1:
        found.remark(q_path, f"{q:g} 1/Å is very large; q in 1/nm is ten times q in 1/Å.")


# Parameters


def asked_parameters(
    config: Mapping[str, Any], registry: ParameterRegistry, found: Mistakes
) -> dict[str, dict[str, Any]]:
    """What canonical `parameters` ask for; parameters with a mistake are left out.

    Args:
        config: A canonical configuration.
        registry: The model's parameters.
        found: Where mistakes are noted.

    Returns:
        Values, flags, bounds and priors by name: the arguments of a parameter space.
    """
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
        low, high = entry.get("min", info.min_bound), entry.get("max", info.max_bound)
        asked["bounds"][name] = float(low), float(high)
        for word, kind in (("value", "values"), ("vary", "vary")):
            if word in entry:
                asked[kind][name] = entry[word]
        if "prior" in entry and low < high:
            family = PriorType(entry["prior"])
            ends = {"low": float(low), "high": float(high)}
            params = {n: end for n, end in ends.items() if n in FAMILIES[family].names}
            params |= entry.get("prior_params", {})
            faults = prior_faults(family, params)
            for fault in faults:
                found.add((*path, "prior_params"), fault)
            if not faults:
                asked["priors"][name] = PriorDistribution(family, params)
    return asked


def check_space(config: Mapping[str, Any], space: "ParameterSpace", found: Mistakes) -> bool:
    """Note what is wrong with a space: its numbers, and their physics.

    Args:
        config: The canonical configuration that asks for the space.
        space: The space.
        found: Where mistakes are noted.

    Returns:
        Whether the space can be used: its numbers are right.
    """
    sampling = any(lookup(config, tuple(path.split("."))) in words for path, words in _SAMPLED)
    paths = {info.name: ("parameters", info.group, info.name) for info in space.registry.infos}
    for name, faults in space.faults(sampling=sampling).items():
        for fault in faults if not found.is_wrong(paths[name]) else ():
            found.add(paths[name], fault)
    if found.is_wrong(("parameters",)):
        return False
    values, priors = space.values, space.priors
    for name in space.default_priors if sampling else ():
        value, prior = values[name], priors[name].params
        location, scale = prior["loc"], prior["scale"]
        if space.vary[name] and abs(value - location) > 5 * scale:
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
    section = config.get(_TIME, {})
    dt, t0, last = section.get("dt"), section.get("t0"), section.get("end_frame", -1)
    first = section.get("start_frame", 1)
    if dt is None or last < 0:
        return None if t0 is None else np.array([t0])
    start = first * dt if t0 is None else t0
    # Rules about functions of time are about monotonic ones: a few frames suffice.
    return start + dt * np.unique(np.linspace(0, last - first, 64).round())
