"""The configuration of a run, and the model it asks for."""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

from twotime.config.parameter_names import (
    DEFAULT_MODE,
    PARAMETER_GROUPS,
    AnalysisMode,
    unknown_name,
)
from twotime.config.parameter_space import ParameterSpace, read
from twotime.errors import ConfigurationError
from twotime.models import LAWS
from twotime.models.base import AbstractTwoTimeModel

if TYPE_CHECKING:
    from twotime.config.types import FileFormat, Integration, PerAngleMode, ShearConvention

__all__ = ["ConfigManager", "ConfigurationError", "build_model"]


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ConfigManager:
    """Configuration of an analysis: a value that is valid once it exists.

    Attributes:
        config: Sections and keys as a configuration file has them; `raw_config` is a copy.
        base_dir: Folder that relative paths start from; left out: the working folder.
        source: Name of where the configuration comes from, for messages.
        space: The parameter space that is asked for.
        warnings: Noteworthy things about the configuration that are no mistakes, in sentences.

    Raises:
        ConfigurationError: If there are mistakes in it; all are reported at once.
    """

    config: dataclasses.InitVar[Mapping[str, Any]]
    _: dataclasses.KW_ONLY
    base_dir: Path = Path()
    source: str = "configuration"
    space: ParameterSpace = dataclasses.field(init=False)
    warnings: tuple[str, ...] = dataclasses.field(init=False)
    _raw: dict[str, Any] = dataclasses.field(init=False)
    _config: dict[str, Any] = dataclasses.field(init=False)

    def __post_init__(self, config: Mapping[str, Any]) -> None:
        """Check the configuration and bring it to its canonical form."""
        canonical, space, found = read(config)
        if found.problems or space is None:
            raise ConfigurationError(found.problems, self.source)
        facts = {
            "base_dir": Path(self.base_dir).absolute(),
            "space": space,
            "warnings": tuple(found.remarks),
            "_raw": copy.deepcopy(dict(config)),
            "_config": canonical,
        }
        for name, fact in facts.items():
            object.__setattr__(self, name, fact)

    def __repr__(self) -> str:
        return f"ConfigManager({self.source!r}, analysis_mode={self.analysis_mode!r})"

    # Where it comes from

    @classmethod
    def from_yaml(cls, path: str | Path) -> "ConfigManager":
        """Load a configuration from a YAML file; paths in it start from its folder.

        Raises:
            ConfigurationError: If the file cannot be read or there are mistakes in it.
        """
        from twotime.config.yaml_json import parse_yaml

        return cls(parse_yaml(_read(path), str(path)), base_dir=_folder(path), source=str(path))

    @classmethod
    def from_json(cls, path: str | Path) -> "ConfigManager":
        """Load a configuration from a JSON file; paths in it start from its folder.

        Raises:
            ConfigurationError: If the file cannot be read or there are mistakes in it.
        """
        from twotime.config.yaml_json import parse_json

        return cls(parse_json(_read(path), str(path)), base_dir=_folder(path), source=str(path))

    @classmethod
    def from_dict(
        cls, config: Mapping[str, Any], *, base_dir: str | Path | None = None
    ) -> "ConfigManager":
        """Create from a dictionary.

        Raises:
            ConfigurationError: If there are mistakes in it; all are reported at once.
        """
        return cls(config, base_dir=Path() if base_dir is None else Path(base_dir))

    # The whole

    @property
    def raw_config(self) -> dict[str, Any]:
        """The configuration as it was written, a copy."""
        return copy.deepcopy(self._raw)

    def get_config(self) -> dict[str, Any]:
        """The configuration in its canonical form, a copy: aliases and older forms resolved.

        It contains only what was written; `section` fills in the defaults.
        """
        return copy.deepcopy(self._config)

    def section(self, path: str) -> dict[str, Any]:
        """A section, a copy, with the defaults of the keys that are left out.

        Args:
            path: Names of the sections on the way, joined by points ("optimization.nlsq").

        Raises:
            UnknownNameError: If there is no such section (a ValueError and a KeyError).
        """
        from twotime.config.reading import section_of

        return section_of(self._config, path)

    @property
    def analysis_mode(self) -> AnalysisMode:
        """Which model is fitted: static, laminar_flow or two_component."""
        return self._config.get("analysis_mode", DEFAULT_MODE)

    # Data

    @property
    def data_folder_path(self) -> Path | None:
        """Folder of the data file, absolute; None where it is not given."""
        return self._data_path("data_folder_path")

    @property
    def data_file_path(self) -> Path:
        """Path to the experimental data file, absolute."""
        folder = self.data_folder_path or self.base_dir
        return folder / self._config["experimental_data"]["file_path"]

    @property
    def file_format(self) -> "FileFormat":
        """Data file format; "auto": recognised by its content."""
        return self.section("experimental_data")["file_format"]

    @property
    def cache_file_path(self) -> Path | None:
        """Folder for cache files, absolute (data_folder_path where it is not given)."""
        return self._data_path("cache_file_path") or self.data_folder_path

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
        """Time step [s]; None where only the data file has it."""
        return self.section("analyzer_parameters").get("dt")

    @property
    def dt_source(self) -> Literal["config", "file"] | None:
        """Which dt to use on disagreement: "config", "file"; None: disagreement is an error."""
        return self.section("analyzer_parameters").get("dt_source")

    @property
    def start_frame(self) -> int:
        """Starting frame (counted from 1)."""
        return self.section("analyzer_parameters")["start_frame"]

    @property
    def end_frame(self) -> int:
        """Ending frame (counted from 1, inclusive); -1 is the last in the data."""
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
        return self.section("analyzer_parameters").get("t0")

    @property
    def wavevector_q(self) -> float:
        """Scattering wavevector magnitude [1/Å]."""
        return self.section("analyzer_parameters.scattering")["wavevector_q"]

    @property
    def q_tolerance(self) -> float:
        """Largest relative distance of the file's q from `wavevector_q`."""
        return self.section("analyzer_parameters.scattering")["q_tolerance"]

    @property
    def phi_angles(self) -> list[float] | None:
        """Angles to analyse [degree]; None: all in the file."""
        return self.section("analyzer_parameters.scattering").get("phi_angles")

    @property
    def phi_filtering(self) -> dict[str, Any]:
        """Which angles are used: tolerance, and ranges, include_angles, exclude_angles if given."""
        return self.section("phi_filtering")

    @property
    def gap(self) -> float | None:
        """Gap of the shear cell [Å]; None where the model has none."""
        return self.section("analyzer_parameters.geometry").get("stator_rotor_gap")

    # Model and parameters

    @property
    def integration(self) -> "Integration":
        """How rates are integrated: "trapezoid" or "exact"."""
        return self.section("model")["integration"]

    @property
    def shear_convention(self) -> "ShearConvention":
        """Law of the sheared model: "published" or "homodyne"."""
        return self.section("model")["shear_convention"]

    def get_parameter_value(self, group: str, name: str) -> float:
        """Get a parameter's value; its default where none is given.

        Raises:
            UnknownNameError: If the model has no such group or name (ValueError and KeyError).
        """
        return self.space.values[self._member(group, name)]

    def get_parameter_vary(self, group: str, name: str) -> bool:
        """Check if a parameter varies in optimization.

        Raises:
            UnknownNameError: If the model has no such group or name (ValueError and KeyError).
        """
        return self.space.vary[self._member(group, name)]

    # Optimization

    @property
    def optimization_method(self) -> Literal["nlsq", "cmc", "both"]:
        """Optimization method: "nlsq", "cmc" or "both"."""
        method = self.section("optimization")["method"]
        is_always = self.section("optimization.cmc")["enable"] == "always"
        return "both" if method == "nlsq" and is_always else method

    @property
    def nlsq_config(self) -> dict[str, Any]:
        """NLSQ optimization settings with defaults, a copy."""
        return self.section("optimization.nlsq")

    @property
    def per_angle_mode(self) -> "PerAngleMode":
        """How contrast and offset are shared between angles, in fitting and sampling."""
        return self.nlsq_config["per_angle_mode"]

    def get_cmc_config(self) -> dict[str, Any]:
        """CMC settings with defaults, a copy: its sections, and the short keys as well."""
        from twotime.config.reading import SHORT_CMC_KEYS, section_names

        config = self.section("optimization.cmc")
        for name in section_names("optimization.cmc"):
            config[name] = self.section(f"optimization.cmc.{name}")
        for short, (section, key) in SHORT_CMC_KEYS.items():
            config[short] = config[section][key]
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
        from twotime.config.reading import SHORT_CMC_KEYS

        self.section(f"optimization.{section}")
        config = self.get_config()
        target = config.setdefault("optimization", {})
        for name in section.split("."):
            target = target.setdefault(name, {})
        if section == "cmc" and key in SHORT_CMC_KEYS:
            inner, key = SHORT_CMC_KEYS[key]
            target = target.setdefault(inner, {})
        target[key] = value
        return dataclasses.replace(self, config=config)

    @property
    def output_dir(self) -> Path:
        """Output folder, absolute."""
        return self.base_dir / self.section("output")["output_dir"]

    def _data_path(self, key: str) -> Path | None:
        written = self.section("experimental_data").get(key)
        return None if written is None else self.base_dir / written

    def _member(self, group: str, name: str) -> str:
        groups = PARAMETER_GROUPS[self.analysis_mode]
        if group not in groups:
            raise unknown_name("group", group, groups)
        if name not in groups[group]:
            raise unknown_name(f"parameter in {group}", name, groups[group])
        return name


def build_model(config: ConfigManager) -> AbstractTwoTimeModel:
    """The model that a configuration asks for.

    Args:
        config: A validated configuration.

    Returns:
        The model of its `analysis_mode`, with the settings that the configuration gives.

    Raises:
        ValueError: If a setting that the model needs is missing.
    """
    law = LAWS[config.analysis_mode]
    arguments = {}
    for setting in law.settings:
        *sections, key = setting.path
        value = config.section(".".join(sections)).get(key)
        if value is None and setting.needed:
            raise ValueError(
                f"{'.'.join(setting.path)} is missing; {setting.needed}; add it, for example "
                f"{key}: {setting.example}."
            )
        if value is not None:
            arguments[setting.argument] = value
    return law(**arguments)


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(f"cannot be read: {reason}.", str(path)) from None


def _folder(path: str | Path) -> Path:
    return Path(path).absolute().parent
