"""Rules about keys together: which contradict each other, have no effect, or are missing.

`RULES` is a table. A rule applies to a key that is given, once every key it looks at is right.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from twotime.config.frames import expand
from twotime.config.keys import lookup, section_at
from twotime.config.parameter_names import DEFAULT_MODE
from twotime.config.types import HeterodyneConfig
from twotime.errors import Mistakes, Path
from twotime.models import LAWS
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.laws import settings_of
from twotime.models.parameters import Setting


class _WrongKeyError(Exception):
    """A rule looks at a key that is known to be wrong."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """A canonical configuration as rules see it: values by dotted path, with defaults."""

    config: Mapping[str, Any]
    law: AbstractTwoTimeModel
    found: Mistakes

    @property
    def mode(self) -> str:
        """The configuration's word for the law."""
        return word_of(self.config)

    @property
    def settings(self) -> dict[str, Setting]:
        """Keys that are arguments of the law, by dotted path."""
        return {".".join(setting.path): setting for setting in settings_of(type(self.law))}

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
    """A key, whether the settings and its value (None: not given) break the rule, and what to tell.

    The sentence is a format string of `got` (the value), `c` (the settings), and `why` (what
    `is_broken` returned).
    """

    path: str
    is_broken: Callable[[Settings, Any], Any]
    sentence: str


_SETTINGS = [(mode, setting) for mode, law in LAWS.items() for setting in law.settings]


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
    modes = [mode for mode, setting in _SETTINGS if setting.path == path]
    only = f"has no effect with analysis_mode: {{c.mode}}, only with {' or '.join(modes)}."
    dotted = ".".join(path)
    return Rule(dotted, lambda c, got: dotted not in c.settings, f"{only} Delete it.")


def _whole_section(section: str, other: str, *values: str) -> Iterator[Rule]:
    """No key of a section has an effect unless another one has one of the values."""
    for name in section_at(HeterodyneConfig, section):
        if f"{section}.{name}" != other:
            yield _without(f"{section}.{name}", other, *values)


def _beside(path: str, other: str) -> Rule:
    """A key has no effect with another one of a sequential fit."""
    sentence = f"has no effect together with {other}; keep one."
    return Rule(path, lambda c, got: c["sequential.enable"] and c.given(other), sentence)


def _needed(path: Path, why: str) -> Rule:
    """A key that a run needs."""
    return Rule(".".join(path), lambda c, got: True, f"missing; {why}.")


def _fault_of_frames(c: Settings, got: list[int | str]) -> str:
    """What is wrong with a list of frames; empty where nothing is."""
    try:
        expand(got)
    except ValueError as exc:
        return str(exc)
    return ""


def _lacks(*paths: str) -> Callable[[Settings, Any], bool]:
    return lambda c, got: all(c.given(path) is None for path in paths)


_TIME = "analyzer_parameters"
_END, _ANGLES = f"{_TIME}.end_frame", f"{_TIME}.scattering.phi_angles"
_SCATTERING = f"{_TIME}.scattering"
_Q = f"{_SCATTERING}.wavevector_q"
_INCLUDE = "phi_filtering.include_angles"
_DATA = "experimental_data"
_FILE, _FORMAT = f"{_DATA}.file_path", f"{_DATA}.file_format"
_NLSQ = "optimization.nlsq"
_EVALUATOR, _LOSS = f"{_NLSQ}.evaluator", f"{_NLSQ}.loss"
_ROBUST = ("soft_l1", "huber")
_CMC = "optimization.cmc"
_INITIAL = f"{_CMC}.initialization"
_STRATEGY = f"{_CMC}.sharding.shard_strategy"
_FIXED_SHARDS = ("interleaved", "contiguous", "angles")
_SEQUENTIAL = "sequential.enable"
SAMPLED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("optimization.method", ("cmc", "both")),
    (f"{_CMC}.enable", ("always",)),
)
"""Keys, and the values of each that ask for sampling."""
_NO_CACHE = _lacks(f"{_DATA}.cache_file_path", f"{_DATA}.data_folder_path")
_CACHE_NEEDED = "has no effect without cache_file_path; give the folder, or delete this key."

_PATTERN = re.compile(r"[*?[$]")
"""What may stand for several files, of patterns and variables."""


def _files(c: Settings) -> list[str]:
    """Files or patterns that a configuration names; one that is not known."""
    given = c.given(_FILE) or ".npy"
    return [given] if isinstance(given, str) else given


RULES: tuple[Rule, ...] = (
    *map(_of_laws, dict.fromkeys(setting.path for _, setting in _SETTINGS)),
    Rule(_END, lambda c, got: got == 0, "got 0; frames count from 1, and -1 is the last."),
    Rule(
        _END,
        lambda c, got: 0 < got <= c[f"{_TIME}.start_frame"],
        f"got {{got}}, which leaves fewer than two frames after frame {{c[{_TIME}.start_frame]}}.",
    ),
    Rule(f"{_TIME}.bad_frames", _fault_of_frames, "{why}"),
    Rule(
        f"{_TIME}.dt_source",
        lambda c, got: got == "config" and c.given(f"{_TIME}.dt") is None,
        f"is config, but {_TIME}.dt is not given; give it, or delete this key.",
    ),
    Rule(
        "phi_filtering.tolerance",
        _lacks(_INCLUDE, "phi_filtering.exclude_angles", _ANGLES),
        "has no effect without include_angles or exclude_angles; give angles or delete it.",
    ),
    Rule(
        f"{_SCATTERING}.q_range",
        lambda c, got: got[0] > got[1],
        "got {got}; expected [low, high] with low at most high.",
    ),
    Rule(
        f"{_SCATTERING}.q_range",
        lambda c, got: c[_Q] not in (None, "all"),
        f"has no effect with wavevector_q: {{c[{_SCATTERING}.wavevector_q]}}; set wavevector_q: "
        "all, or delete one.",
    ),
    Rule(
        f"{_SCATTERING}.q_mode",
        lambda c, got: isinstance(c[_Q], float | int),
        "has no effect with one wavevector_q; give a list or all, or delete it.",
    ),
    Rule(
        f"{_DATA}.file_mode",
        lambda c, got: len(_files(c)) == 1 and not _PATTERN.search(_files(c)[0]),
        "has no effect with one file_path; give a list or a pattern, or delete it.",
    ),
    *(
        Rule(path, lambda c, got: got == [], "is empty, which leaves no angle; delete the key.")
        for path in ("phi_filtering.ranges", _INCLUDE, _ANGLES)
    ),
    Rule(
        f"{_DATA}.roi_axis",
        lambda c, got: not any(x.endswith(".npy") for x in _files(c)) and c[_FORMAT] != "npy",
        "has an effect on npy files only; delete it.",
    ),
    Rule(
        f"{_DATA}.layout",
        lambda c, got: not got.get("c2"),
        "has no c2; name the array of correlations.",
    ),
    Rule(
        f"{_DATA}.layout",
        lambda c, got: c[_FORMAT] not in ("auto", "hdf5", "npz"),
        f"has no effect with {_FORMAT}: {{c[{_FORMAT}]}}; delete one of them.",
    ),
    Rule(f"{_DATA}.cache_filename_template", _NO_CACHE, _CACHE_NEEDED),
    Rule(f"{_DATA}.cache_compression", _NO_CACHE, _CACHE_NEEDED),
    Rule(
        _EVALUATOR,
        lambda c, got: got == "factored" and not c.law.is_separable,
        "factored needs a separable model; {c.mode} is not. Use auto.",
    ),
    _against(_EVALUATOR, ("factored",), _LOSS, _ROBUST, "Use auto or tiled."),
    _against(_EVALUATOR, ("factored",), "streaming.enable", (True,), "Use auto or tiled."),
    _against(f"{_NLSQ}.priors", (True,), _LOSS, _ROBUST, "Use loss: linear."),
    _without(f"{_NLSQ}.loss_scale", _LOSS, *_ROBUST),
    _without(f"{_NLSQ}.multistart_n", f"{_NLSQ}.multistart"),
    _without(f"{_NLSQ}.uncertainty", "optimization.method", "nlsq", "both"),
    _against(f"{_CMC}.enable", ("never",), "optimization.method", ("cmc", "both"), "Keep one."),
    *_whole_section("optimization.hmc", f"{_CMC}.backend.sampler", "hmc"),
    _without(f"{_INITIAL}.nlsq_chi2_threshold", f"{_INITIAL}.method", "nlsq"),
    _without(f"{_INITIAL}.jitter_scale", f"{_INITIAL}.method", "nlsq"),
    _against(_STRATEGY, _FIXED_SHARDS, "stratification.enable", (True,), "Use random."),
    *(_against(_LOSS, _ROBUST, *other, "Sampling needs loss: linear.") for other in SAMPLED),
    *(_against(_SEQUENTIAL, (True,), *other, "Sampling takes all angles.") for other in SAMPLED),
    _against(f"{_NLSQ}.per_angle_mode", ("fourier",), _SEQUENTIAL, (True,), "Use auto."),
    _beside(f"{_NLSQ}.max_iterations", "sequential.max_iterations"),
    _beside(f"{_NLSQ}.tolerance", "sequential.convergence_threshold"),
    *_whole_section("streaming", "streaming.enable"),
    *_whole_section("stratification", "stratification.enable"),
    *_whole_section("sequential", _SEQUENTIAL),
    _without("stratification.n_strata", "stratification.strategy", "lag"),
)

NEEDED: tuple[Rule, ...] = (
    _needed((_DATA, "file_path"), "give the data file to read"),
    Rule(
        _Q,
        lambda c, got: c.given(f"{_SCATTERING}.q_range") is None,
        "missing; give the wavevector to analyse [1/Å].",
    ),
)
"""Keys that a run needs; `is_broken` is whether this one does."""


def word_of(config: Mapping[str, Any]) -> str:
    """The word or path by which a canonical configuration names its law."""
    return lookup(config, ("model", "law")) or config.get("analysis_mode", DEFAULT_MODE)


def check_rules(
    config: Mapping[str, Any], law: AbstractTwoTimeModel, found: Mistakes, *, is_whole: bool
) -> None:
    """Note which rules a canonical configuration of right types breaks."""
    c = Settings(config, law, found)
    broken = []
    needed = [_needed(s.path, s.needed) for s in c.settings.values() if s.needed]
    needed = [*NEEDED, *needed] if is_whole else []
    for rule in (*RULES, *needed):
        with contextlib.suppress(_WrongKeyError):
            value = c.given(rule.path)
            if (value is None) == (rule in needed) and (why := rule.is_broken(c, value)):
                got = str(value).lower() if isinstance(value, bool) else value
                broken.append((rule.path, rule.sentence.format(got=got, c=c, why=why)))
    for path, sentence in broken:
        found.add(tuple(path.split(".")), sentence)
    q_path = (_TIME, "scattering", "wavevector_q")
    given = lookup(config, q_path)
    for q in given if isinstance(given, list) else [given]:
        if isinstance(q, float | int) and q > 1:
            found.remark(q_path, f"{q:g} 1/Å is very large; q in 1/nm is ten times q in 1/Å.")
