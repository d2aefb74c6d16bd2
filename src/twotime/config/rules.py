"""Rules about keys together: which contradict each other, have no effect, or are missing.

`RULES` is a table. A rule applies to a key that is given, once every key it looks at is right.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twotime.config.keys import Key, Mistakes, Path, fields, lookup
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
        value = self.given(path)
        return _key_at(path).default if value is None else value

    def given(self, path: str) -> Any:
        """The value at a path; None where it is left out."""
        steps = tuple(path.split("."))
        if self.found.is_wrong(steps):
            raise _WrongKeyError
        return lookup(self.config, steps)


def _key_at(path: str) -> Key:
    *parents, name = path.split(".")
    kind: Any = HeterodyneConfig
    for parent in parents:
        kind = fields(kind)[parent].type
    return fields(kind)[name]


Words = tuple[str | bool, ...]


class Rule(NamedTuple):
    """One row of the table.

    Attributes:
        path: The key it is about.
        is_broken: Whether the settings break it, given that the key is given.
        sentence: What to tell, a format string of `got` (the value) and `c` (the settings).
    """

    path: str
    is_broken: Callable[[Settings], Any]
    sentence: str


def _without(path: str, other: str, *values: str) -> Rule:
    """A key has no effect unless another one has one of the values (none: is given)."""
    words = " or ".join(values) or "true"
    return Rule(
        path,
        lambda c: c[other] not in values if values else c.given(other) is None,
        f"has no effect without {other}: {words}; add it, or delete this key.",
    )


def _against(path: str, values: Words, other: str, bad: Words, remedy: str) -> Rule:
    """A key must not have one of the values while another one has a bad one."""
    return Rule(
        path,
        lambda c: c[path] in values and c[other] in bad,
        f"{{got}} contradicts {other}: {'true' if bad == (True,) else f'{{c[{other}]}}'}. {remedy}",
    )


def _empty(path: str) -> Rule:
    """A list of angles must not be empty."""
    sentence = "is empty, which leaves no angle; delete the key."
    return Rule(path, lambda c: c[path] == [], sentence)


def _beside(path: str, other: str) -> Rule:
    """A key has no effect with another one of a sequential fit."""
    return Rule(
        path,
        lambda c: c[_SEQUENTIAL] and c.given(other) is not None,
        f"has no effect together with {other}; keep one.",
    )


def _of_laws(path: Path) -> Rule:
    """A setting of some laws has no effect with the others."""
    modes = [mode for mode, law in LAWS.items() if path in [s.path for s in law.settings]]
    only = (
        f"has no effect with analysis_mode: {{c.mode}}, only with {' or '.join(modes)}; delete it."
    )
    return Rule(".".join(path), lambda c: c.mode not in modes, only)


def _needed(path: Path, why: str, modes: Iterable[str] = LAWS) -> Rule:
    """A key that a run with a law of these modes needs."""
    return Rule(".".join(path), lambda c: c.mode in modes, f"missing; {why}.")


def _is_separable(c: Settings) -> bool:
    law: Any = LAWS[c.mode]
    return law().is_separable


def _is_no_npy(c: Settings) -> bool:
    file, kind = c.given(f"{_DATA}.file_path"), c[f"{_DATA}.file_format"]
    return file is not None and not file.endswith(".npy") and kind != "npy"


def _lacks(*paths: str) -> Callable[[Settings], bool]:
    return lambda c: all(c.given(path) is None for path in paths)


_TIME = "analyzer_parameters"
_ANGLES = f"{_TIME}.scattering.phi_angles"
_INCLUDE, _EXCLUDE = "phi_filtering.include_angles", "phi_filtering.exclude_angles"
_DATA = "experimental_data"
_NLSQ = "optimization.nlsq"
_CMC = "optimization.cmc"
_INITIAL = f"{_CMC}.initialization"
_END = f"{_TIME}.end_frame"
_EVALUATOR, _LOSS = f"{_NLSQ}.evaluator", f"{_NLSQ}.loss"
_SEQUENTIAL = "sequential.enable"
_STRATEGY = f"{_CMC}.sharding.shard_strategy"
_NOT_RANDOM = ("interleaved", "contiguous", "angles")
_ROBUST = ("soft_l1", "huber")
_SAMPLED = (("optimization.method", ("cmc", "both")), (f"{_CMC}.enable", ("always",)))
_SWITCHED = {
    "streaming": StreamingConfig,
    "stratification": StratificationConfig,
    "sequential": SequentialConfig,
}
_SETTINGS = [setting for law in LAWS.values() for setting in law.settings]
_HAS_NO_CACHE = _lacks(f"{_DATA}.cache_file_path", f"{_DATA}.data_folder_path")
_NO_CACHE = "has no effect without cache_file_path; give the folder, or delete this key."

RULES: tuple[Rule, ...] = (
    *(_of_laws(path) for path in dict.fromkeys(s.path for s in _SETTINGS)),
    Rule(
        _END,
        lambda c: c[_END] == 0,
        "got 0; frames count from 1, and -1 is the last.",
    ),
    Rule(
        _END,
        lambda c: 0 < c[_END] <= c[f"{_TIME}.start_frame"],
        f"got {{got}}, which leaves fewer than two frames after frame {{c[{_TIME}.start_frame]}}.",
    ),
    Rule(
        f"{_TIME}.dt_source",
        lambda c: c[f"{_TIME}.dt_source"] == "config" and c.given(f"{_TIME}.dt") is None,
        f"is config, but {_TIME}.dt is not given; give it, or delete this key.",
    ),
    Rule(
        "phi_filtering.tolerance",
        _lacks(_INCLUDE, _EXCLUDE, _ANGLES),
        "has no effect without include_angles or exclude_angles; give angles or delete it.",
    ),
    _empty("phi_filtering.ranges"),
    _empty(_INCLUDE),
    _empty(_ANGLES),
    Rule(f"{_DATA}.roi_axis", _is_no_npy, "has an effect on npy files only; delete it."),
    Rule(f"{_DATA}.cache_filename_template", _HAS_NO_CACHE, _NO_CACHE),
    Rule(f"{_DATA}.cache_compression", _HAS_NO_CACHE, _NO_CACHE),
    Rule(
        _EVALUATOR,
        lambda c: c[_EVALUATOR] == "factored" and not _is_separable(c),
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
    _against(_STRATEGY, _NOT_RANDOM, "stratification.enable", (True,), "Use random."),
    *(
        rule
        for other, bad in _SAMPLED
        for rule in (
            _against(_LOSS, _ROBUST, other, bad, "Sampling needs loss: linear."),
            _against(_SEQUENTIAL, (True,), other, bad, "Sampling takes all angles."),
        )
    ),
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
    rules = [(rule, True) for rule in RULES]
    rules += [(rule, False) for rule in NEEDED if is_whole]
    broken = []
    for rule, is_given in rules:
        path = tuple(rule.path.split("."))
        try:
            if (c.given(rule.path) is not None) == is_given and rule.is_broken(c):
                got = lookup(config, path)
                got = str(got).lower() if isinstance(got, bool) else got
                broken.append((path, rule.sentence.format(got=got, c=c)))
        except _WrongKeyError:
            continue
    for path, sentence in broken:
        found.add(path, sentence)
    path = (_TIME, "scattering", "wavevector_q")
    q = lookup(config, path)
    if q is not None and q > 1:
        found.remark(path, f"{q:g} 1/Å is very large; q in 1/nm is ten times q in 1/Å.")


# Parameters


class Asked(NamedTuple):
    """What a configuration says of parameters, by name: the arguments of a parameter space."""

    values: dict[str, float]
    vary: dict[str, bool]
    bounds: dict[str, tuple[float, float]]
    priors: dict[str, PriorDistribution]


def asked_parameters(
    config: Mapping[str, Any], registry: ParameterRegistry, found: Mistakes
) -> Asked:
    """What canonical `parameters` ask for; parameters with a mistake are left out.

    Args:
        config: A canonical configuration.
        registry: The model's parameters.
        found: Where mistakes are noted.
    """
    asked = Asked({}, {}, {}, {})
    for group, names in config.get("parameters", {}).items():
        for name, entry in names.items():
            path = ("parameters", group, name)
            usual = float(registry[name].min_bound), float(registry[name].max_bound)
            ends = _bounds(entry, usual, path, found)
            if found.is_wrong(path):
                continue
            asked.bounds[name] = ends
            if "value" in entry:
                asked.values[name] = entry["value"]
            if "vary" in entry:
                asked.vary[name] = entry["vary"]
            prior = _prior(entry, ends, path, found)
            if prior is not None:
                asked.priors[name] = prior
    return asked


def _bounds(
    entry: Mapping[str, Any], usual: tuple[float, float], path: Path, found: Mistakes
) -> tuple[float, float]:
    for here, other in (("min", "max"), ("max", "min")):
        if here in entry and other not in entry and not found.is_wrong((*path, other)):
            found.add((*path, other), "missing; give both min and max, or neither.")
    lower, upper = entry.get("min", usual[0]), entry.get("max", usual[1])
    if "min" in entry and "max" in entry and not lower < upper:
        found.add((*path, "min"), f"min must be less than max; got {lower:g} and {upper:g}.")
    return lower, upper


def _prior(
    entry: Mapping[str, Any], ends: tuple[float, float], path: Path, found: Mistakes
) -> PriorDistribution | None:
    if "prior" not in entry:
        if "prior_params" in entry and not found.is_wrong((*path, "prior")):
            found.add((*path, "prior_params"), "has no effect without prior; give the family.")
        return None
    kind = PriorType(entry["prior"])
    usual = dict(zip(("low", "high"), ends, strict=True))
    params = {name: end for name, end in usual.items() if name in FAMILIES[kind].names}
    params |= entry.get("prior_params", {})
    faults = prior_faults(kind, params)
    for fault in faults:
        found.add((*path, "prior_params"), fault)
    return None if faults else PriorDistribution(kind, params)


def is_sampled(config: Mapping[str, Any]) -> bool:
    """Whether a canonical configuration asks for posterior samples."""
    return any(lookup(config, tuple(path.split("."))) in words for path, words in _SAMPLED)


def check_space(config: Mapping[str, Any], space: "ParameterSpace", found: Mistakes) -> bool:
    """Note what is wrong with a space: its numbers, and their physics.

    Args:
        config: The canonical configuration that asks for the space.
        space: The space.
        found: Where mistakes are noted.

    Returns:
        Whether the space can be used: its numbers are right.
    """
    sampling = is_sampled(config)
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
