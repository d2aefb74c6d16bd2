"""The configuration of a run: loaded, checked and asked here."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

from twotime.config.keys import fields
from twotime.config.mistakes import discard, lookup
from twotime.config.parameter_names import (
    DEFAULT_MODE,
    PARAMETER_GROUPS,
    AnalysisMode,
    unknown_name,
)
from twotime.config.parameter_space import ParameterSpace
from twotime.config.reading import MOVED_CMC_KEYS, read
from twotime.config.types import (
    CMCOptimizationConfig,
    FileFormat,
    HeterodyneConfig,
    Integration,
    PerAngleMode,
    ShearConvention,
)
from twotime.config.yaml_json import parse_json, parse_yaml
from twotime.errors import ConfigurationError

__all__ = ["ConfigManager", "ConfigurationError"]


@final
class ConfigManager:
    """Configuration of an analysis: a value that is valid once it exists.

    Args:
        config: Sections and keys as a configuration file has them.
        base_dir: Folder that relative paths start from; left out: the working folder.
        source: Name of where it comes from, for messages.

    Raises:
        ConfigurationError: If there are mistakes in it; all are told at once.
    """

    __slots__ = ("_base_dir", "_config", "_raw", "_remarks", "_source", "_space")
    _base_dir: Path
    _config: dict[str, Any]
    _raw: dict[str, Any]
    _remarks: tuple[str, ...]
    _source: str
    _space: ParameterSpace

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        base_dir: str | Path | None = None,
        source: str = "configuration",
    ):
        canonical, space, found = read(config)
        if found.problems or space is None:
            raise ConfigurationError(found.problems, source)
        facts = {
            "_raw": copy.deepcopy(dict(config)),
            "_config": canonical,
            "_space": space,
            "_remarks": tuple(found.remarks),
            "_base_dir": Path.cwd() if base_dir is None else Path(base_dir).absolute(),
            "_source": source,
        }
        for name, fact in facts.items():
            object.__setattr__(self, name, fact)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(
            f"A configuration does not change (setting {name!r}); make another one, as "
            "update_optimization_config does."
        )

    def __repr__(self) -> str:
        return f"ConfigManager({self._source!r}, analysis_mode={self.analysis_mode!r})"

    # Where it comes from

    @classmethod
    def from_yaml(cls, path: str | Path) -> "ConfigManager":
        """Load a configuration from a YAML file; paths in it start from its folder.

        Raises:
            ConfigurationError: If the file cannot be read or there are mistakes in it.
        """
        return cls(parse_yaml(_read(path), str(path)), base_dir=_folder(path), source=str(path))

    @classmethod
    def from_json(cls, path: str | Path) -> "ConfigManager":
        """Load a configuration from a JSON file; paths in it start from its folder.

        Raises:
            ConfigurationError: If the file cannot be read or there are mistakes in it.
        """
        return cls(parse_json(_read(path), str(path)), base_dir=_folder(path), source=str(path))

    @classmethod
    def from_dict(
        cls, config: Mapping[str, Any], *, base_dir: str | Path | None = None
    ) -> "ConfigManager":
        """Create from a dictionary.

        Raises:
            ConfigurationError: If there are mistakes in it; all are told at once.
        """
        return cls(config, base_dir=base_dir)

    # The whole

    @property
    def raw_config(self) -> dict[str, Any]:
        """The configuration as it was written, a copy."""
        return copy.deepcopy(self._raw)

    def get_config(self) -> dict[str, Any]:
        """The configuration in its canonical form, a copy: aliases and older forms resolved.

        Only what was written is in it; `section` fills in the defaults.
        """
        return copy.deepcopy(self._config)

    def section(self, path: str) -> dict[str, Any]:
        """A section with the defaults of the keys that are left out.

        Keys without a default are missing where they are left out.

        Args:
            path: Names of the sections on the way, joined by points ("optimization.nlsq").

        Raises:
            UnknownNameError: If there is no such section (a ValueError and a KeyError).
        """
        kind: Any = HeterodyneConfig
        names = path.split(".")
        for name in names:
            known = {key: field for key, field in fields(kind).items() if field.is_section}
            if name not in known:
                raise unknown_name("section", path, known)
            kind = known[name].type
        written = lookup(self._config, tuple(names)) or {}
        defaults = {
            name: field.key.default
            for name, field in fields(kind).items()
            if field.key.default is not None and not field.key.refused
        }
        return copy.deepcopy(defaults | written)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is worth knowing about the configuration and is no mistake, in sentences."""
        return self._remarks

    @property
    def base_dir(self) -> Path:
        """Folder that relative paths start from."""
        return self._base_dir

    @property
    def analysis_mode(self) -> AnalysisMode:
        """Which model is fitted: static, laminar_flow or two_component."""
        return self._config.get("analysis_mode", DEFAULT_MODE)

    @property
    def space(self) -> ParameterSpace:
        """The parameter space that is asked for."""
        return self._space

    # Data

    @property
    def data_folder_path(self) -> Path | None:
        """Folder of the data file, absolute; None where it is not given."""
        return self._path("experimental_data", "data_folder_path")

    @property
    def data_file_path(self) -> Path:
        """Path to the experimental data file, absolute."""
        folder = self.data_folder_path or self.base_dir
        return folder / self._config["experimental_data"]["file_path"]

    @property
    def file_format(self) -> FileFormat:
        """Data file format; "auto": recognised by its content."""
        return self.section("experimental_data")["file_format"]

    @property
    def cache_file_path(self) -> Path | None:
        """Folder for cache files, absolute (data_folder_path where it is not given)."""
        return self._path("experimental_data", "cache_file_path") or self.data_folder_path

    @property
    def cache_filename_template(self) -> str | None:
        """Template for cache filenames with ${variable} substitution."""
        return self.section("experimental_data").get("cache_filename_template")

    @property
    def cache_compression(self) -> bool:
        """Whether to compress cache files."""
        return self.section("experimental_data")["cache_compression"]

    # Time, wavevector, geometry

    @property
    def dt(self) -> float | None:
        """Time step [s]; None where the file has to say it."""
        return self._number("analyzer_parameters", "dt")

    @property
    def dt_source(self) -> Literal["config", "file"] | None:
        """Which dt counts on disagreement: "config", "file"; None: disagreement is an error."""
        return lookup(self._config, ("analyzer_parameters", "dt_source"))

    @property
    def start_frame(self) -> int:
        """Starting frame (counted from 1)."""
        return self.section("analyzer_parameters")["start_frame"]

    @property
    def end_frame(self) -> int:
        """Ending frame (counted from 1, inclusive); -1 is the data's last."""
        return self.section("analyzer_parameters")["end_frame"]

    @property
    def time_length(self) -> int:
        """Number of time points from start_frame to end_frame.

        Raises:
            ValueError: If end_frame is -1, where only the data know it.
        """
        if self.end_frame < 0:
            raise ValueError(
                "time_length is known from the data only, because end_frame is -1 (the last); "
                "set analyzer_parameters.end_frame to know it before."
            )
        return self.end_frame - self.start_frame + 1

    @property
    def t_start(self) -> int:
        """Starting time index, counted from 0."""
        return self.start_frame - 1

    @property
    def t0(self) -> float | None:
        """Time of the first selected frame [s]; None: start_frame · dt."""
        return self._number("analyzer_parameters", "t0")

    @property
    def wavevector_q(self) -> float:
        """Scattering wavevector magnitude [1/Å]."""
        return float(self.section("analyzer_parameters.scattering")["wavevector_q"])

    @property
    def q_tolerance(self) -> float:
        """Largest relative distance of the file's q from `wavevector_q`."""
        return float(self.section("analyzer_parameters.scattering")["q_tolerance"])

    @property
    def phi_angles(self) -> list[float] | None:
        """Angles to analyse [degree]; None: all that the file has."""
        angles = self.section("analyzer_parameters.scattering").get("phi_angles")
        return None if angles is None else [float(angle) for angle in angles]

    @property
    def phi_filtering(self) -> dict[str, Any]:
        """Which angles are used: tolerance, and ranges, include_angles, exclude_angles if given."""
        return self.section("phi_filtering")

    @property
    def gap(self) -> float | None:
        """Gap of the shear cell [Å]; None where the model has none."""
        return self._number("analyzer_parameters", "geometry", "stator_rotor_gap")

    # Model and parameters

    @property
    def integration(self) -> Integration:
        """How rates are integrated: "trapezoid" or "exact"."""
        return self.section("model")["integration"]

    @property
    def shear_convention(self) -> ShearConvention:
        """Law of the sheared model: "published" or "homodyne"."""
        return self.section("model")["shear_convention"]

    def get_parameter_value(self, group: str, name: str) -> float:
        """Get a parameter's value; its default where none is given.

        Raises:
            UnknownNameError: If the model has no such group or name (ValueError and KeyError).
        """
        return self._space.values[self._member(group, name)]

    def get_parameter_vary(self, group: str, name: str) -> bool:
        """Check if a parameter varies in optimization.

        Raises:
            UnknownNameError: If the model has no such group or name (ValueError and KeyError).
        """
        return self._space.vary[self._member(group, name)]

    # Optimization

    @property
    def optimization_method(self) -> Literal["nlsq", "cmc", "both"]:
        """Optimization method: "nlsq", "cmc" or "both"."""
        method = self.section("optimization")["method"]
        is_always = lookup(self._config, ("optimization", "cmc", "enable")) == "always"
        return "both" if method == "nlsq" and is_always else method

    @property
    def nlsq_config(self) -> dict[str, Any]:
        """NLSQ optimization settings with defaults, a copy."""
        return self.section("optimization.nlsq")

    @property
    def per_angle_mode(self) -> PerAngleMode:
        """How contrast and offset are shared between angles, in fitting and sampling."""
        return self.nlsq_config["per_angle_mode"]

    def get_cmc_config(self) -> dict[str, Any]:
        """CMC settings with defaults, a copy: its sections, and the short keys beside them."""
        config = self.section("optimization.cmc")
        for name, field in fields(CMCOptimizationConfig).items():
            if field.is_section:
                config[name] = self.section(f"optimization.cmc.{name}")
        for short, path in MOVED_CMC_KEYS:
            config[short] = lookup(config, path)
        return config

    def update_optimization_config(self, section: str, key: str, value: Any) -> "ConfigManager":
        """A new configuration with one key of `optimization` changed.

        Args:
            section: Section in optimization ("nlsq", "cmc", "cmc.sharding", "hmc").
            key: Key in it.
            value: Its new value.

        Raises:
            UnknownNameError: If there is no such section (a ValueError and a KeyError).
            ConfigurationError: If the new configuration has mistakes.
        """
        self.section(f"optimization.{section}")
        config = self.get_config()
        target = config.setdefault("optimization", {})
        for name in section.split("."):
            target = target.setdefault(name, {})
        target[key] = value
        if section == "cmc" and key in dict(MOVED_CMC_KEYS):
            discard(config, ("optimization", "cmc", *dict(MOVED_CMC_KEYS)[key]))
        return ConfigManager(config, base_dir=self.base_dir, source=self._source)

    @property
    def output_dir(self) -> Path:
        """Output folder, absolute."""
        return self.base_dir / self.section("output")["output_dir"]

    def _path(self, *path: str) -> Path | None:
        written = lookup(self._config, path)
        return None if written is None else self.base_dir / written

    def _number(self, *path: str) -> float | None:
        value = lookup(self._config, path)
        return None if value is None else float(value)

    def _member(self, group: str, name: str) -> str:
        groups = PARAMETER_GROUPS[self.analysis_mode]
        if group not in groups:
            raise unknown_name("group", group, groups)
        if name not in groups[group]:
            raise unknown_name(f"parameter in {group}", name, groups[group])
        return name


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(f"cannot be read: {reason}.", str(path)) from None


def _folder(path: str | Path) -> Path:
    return Path(path).absolute().parent
