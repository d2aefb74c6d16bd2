"""Rules about keys together: which contradict each other, have no effect, or are missing.

`RULES` is a table. A rule applies to a key that is given, once every key it looks at is right.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twotime.config.distributions import FAMILIES, PriorType
from twotime.config.keys import Key, Mistakes, Path, fields, lookup
from twotime.config.parameter_registry import ParameterRegistry
from twotime.config.physics_validators import findings
from twotime.config.priors import PriorDistribution, prior_faults
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


def is_sampled(config: Mapping[str, Any]) -> bool:
    """Whether a canonical configuration asks for posterior samples."""
    method = lookup(config, ("optimization", "method")) or "nlsq"
    return method != "nlsq" or lookup(config, ("optimization", "cmc", "enable")) == "always"


def _key_at(path: str) -> Key:
    *parents, name = path.split(".")
    kind: Any = HeterodyneConfig
    for parent in parents:
        kind = fields(kind)[parent].type
    return fields(kind)[name]


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


_TIME = "analyzer_parameters"
_PHI = f"{_TIME}.scattering.phi_angles"
_DATA = "experimental_data"
_NLSQ = "optimization.nlsq"
_CMC = "optimization.cmc"
_NO_ANGLE = "is empty, which leaves no angle; delete the key."
_NO_CACHE = "has no effect without cache_file_path; give the folder or delete it."
_NO_FIT = "has no effect with method: prior, which needs no fit; delete it."
_SWITCHED = {
    "streaming": StreamingConfig,
    "stratification": StratificationConfig,
    "sequential": SequentialConfig,
}


def _users(path: Path) -> list[str]:
    """Analysis modes whose law has a setting at a path."""
    return [mode for mode, law in LAWS.items() if path in [s.path for s in law.settings]]


def _is_separable(c: Settings) -> bool:
    law: Any = LAWS[c.mode]
    return law().is_separable


def _has_no_cache(c: Settings) -> bool:
    folders = ("cache_file_path", "data_folder_path")
    return not any(c.given(f"{_DATA}.{name}") for name in folders)


def _names_no_angles(c: Settings) -> bool:
    paths = ("phi_filtering.include_angles", "phi_filtering.exclude_angles", _PHI)
    return all(c.given(path) is None for path in paths)


def _is_not_npy(c: Settings) -> bool:
    file, kind = c.given(f"{_DATA}.file_path"), c[f"{_DATA}.file_format"]
    return file is not None and not file.endswith(".npy") and kind != "npy"


RULES: tuple[Rule, ...] = (
    *(
        Rule(
            ".".join(path),
            lambda c, path=path: c.mode not in _users(path),
            f"has no effect with analysis_mode: {{c.mode}}, only with {' or '.join(_users(path))}; "
            "delete it.",
        )
        for path in dict.fromkeys(s.path for law in LAWS.values() for s in law.settings)
    ),
    Rule(
        f"{_TIME}.end_frame",
        lambda c: c[f"{_TIME}.end_frame"] == 0,
        "got 0; frames count from 1, and -1 is the last.",
    ),
    Rule(
        f"{_TIME}.end_frame",
        lambda c: 0 < c[f"{_TIME}.end_frame"] <= c[f"{_TIME}.start_frame"],
        f"got {{got}}, which leaves fewer than two frames after frame {{c[{_TIME}.start_frame]}}.",
    ),
    Rule(
        f"{_TIME}.dt_source",
        lambda c: c[f"{_TIME}.dt_source"] == "config" and c.given(f"{_TIME}.dt") is None,
        f"says config, but {_TIME}.dt is not given; give it or delete this.",
    ),
    Rule(
        "phi_filtering.tolerance",
        _names_no_angles,
        "has no effect without include_angles or exclude_angles; give angles or delete it.",
    ),
    Rule("phi_filtering.ranges", lambda c: c["phi_filtering.ranges"] == [], _NO_ANGLE),
    Rule(
        "phi_filtering.include_angles",
        lambda c: c["phi_filtering.include_angles"] == [],
        _NO_ANGLE,
    ),
    Rule(_PHI, lambda c: c[_PHI] == [], _NO_ANGLE),
    Rule(f"{_DATA}.roi_axis", _is_not_npy, "has an effect on npy files only; delete it."),
    Rule(f"{_DATA}.cache_filename_template", _has_no_cache, _NO_CACHE),
    Rule(f"{_DATA}.cache_compression", _has_no_cache, _NO_CACHE),
    Rule(
        f"{_NLSQ}.evaluator",
        lambda c: c[f"{_NLSQ}.evaluator"] == "factored" and not _is_separable(c),
        "factored needs a separable model; {c.mode} is not. Use auto.",
    ),
    Rule(
        f"{_NLSQ}.evaluator",
        lambda c: c[f"{_NLSQ}.evaluator"] == "factored" and c[f"{_NLSQ}.loss"] != "linear",
        f"factored needs loss: linear, not {{c[{_NLSQ}.loss]}}. Use auto or tiled.",
    ),
    Rule(
        f"{_NLSQ}.evaluator",
        lambda c: c[f"{_NLSQ}.evaluator"] == "factored" and c["streaming.enable"],
        "factored contradicts streaming.enable: true. Keep one.",
    ),
    Rule(
        f"{_NLSQ}.loss_scale",
        lambda c: c[f"{_NLSQ}.loss"] == "linear",
        "has no effect with loss: linear; delete it.",
    ),
    Rule(
        f"{_NLSQ}.multistart_n",
        lambda c: c.given(f"{_NLSQ}.multistart") is None,
        "has no effect without multistart: true; add it.",
    ),
    Rule(
        f"{_CMC}.enable",
        lambda c: c[f"{_CMC}.enable"] == "never" and c["optimization.method"] != "nlsq",
        "never contradicts optimization.method: {c[optimization.method]}. Keep one.",
    ),
    *(
        Rule(
            f"optimization.hmc.{name}",
            lambda c: c[f"{_CMC}.backend.sampler"] != "hmc",
            f"has no effect without {_CMC}.backend.sampler: hmc; add it.",
        )
        for name in fields(HmcConfig)
    ),
    *(
        Rule(
            f"{_CMC}.initialization.{name}",
            lambda c: c[f"{_CMC}.initialization.method"] == "prior",
            _NO_FIT,
        )
        for name in ("nlsq_chi2_threshold", "jitter_scale")
    ),
    Rule(
        "stratification.enable",
        lambda c: c["stratification.enable"] and c[f"{_CMC}.sharding.shard_strategy"] != "random",
        f"needs {_CMC}.sharding.shard_strategy: random, not "
        f"{{c[{_CMC}.sharding.shard_strategy]}}.",
    ),
    Rule(
        f"{_NLSQ}.loss",
        lambda c: c[f"{_NLSQ}.loss"] != "linear" and is_sampled(c.config),
        "{got} contradicts sampling, which has a Gaussian likelihood. Use linear, or "
        "optimization.method: nlsq.",
    ),
    Rule(
        "sequential.enable",
        lambda c: c["sequential.enable"] and is_sampled(c.config),
        "contradicts sampling, which takes all angles together. Use optimization.method: nlsq.",
    ),
    Rule(
        f"{_NLSQ}.per_angle_mode",
        lambda c: c[f"{_NLSQ}.per_angle_mode"] == "fourier" and c["sequential.enable"],
        "fourier is a series over the angles, but sequential.enable: true fits one angle at a "
        "time. Use auto.",
    ),
    *(
        Rule(
            f"{_NLSQ}.{here}",
            lambda c, there=there: c["sequential.enable"] and c.given(there) is not None,
            f"has no effect beside {there}; keep one.",
        )
        for here, there in (
            ("max_iterations", "sequential.max_iterations"),
            ("tolerance", "sequential.convergence_threshold"),
        )
    ),
    *(
        Rule(
            f"{section}.{name}",
            lambda c, section=section: c.given(f"{section}.enable") is None,
            f"has no effect without {section}.enable: true; add it.",
        )
        for section, kind in _SWITCHED.items()
        for name in fields(kind)
        if name != "enable"
    ),
    Rule(
        "stratification.n_strata",
        lambda c: c.given("stratification.enable") is not None
        and c["stratification.strategy"] != "lag",
        "has no effect without stratification.strategy: lag; add it.",
    ),
)  # fmt: skip

NEEDED: tuple[Rule, ...] = (
    Rule(f"{_DATA}.file_path", lambda c: True, "missing; give the data file to read."),
    Rule(
        f"{_TIME}.scattering.wavevector_q",
        lambda c: True,
        "missing; give the wavevector to analyse [1/Å].",
    ),
    *(
        Rule(".".join(s.path), lambda c, mode=mode: c.mode == mode, f"missing; {s.needed}.")
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
                broken.append((path, rule.sentence.format(got=lookup(config, path), c=c)))
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


def check_space(config: Mapping[str, Any], space: "ParameterSpace", found: Mistakes) -> bool:
    """Note what is wrong with a space: its numbers, and what physics says of them.

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
