"""The configuration of a run, and the model it asks for."""

import copy
import dataclasses
import glob
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, final

from twotime.config.parameter_names import unknown_name
from twotime.config.parameter_space import ParameterSpace, read
from twotime.errors import ConfigurationError
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.laws import find_law
from twotime.tables import Table, Tabled

__all__ = ["ConfigManager", "ConfigurationError", "build_model"]

Value = TypeVar("Value")


def expanded(path: str) -> Path:
    """A path with ~ and $VARIABLE written out; unknown variables stay as they are."""
    return Path(os.path.expandvars(path)).expanduser()


class _Setting(property, Generic[Value]):
    """The value of a key, its default where it is left out; None where it has none."""

    def __init__(self, path: str):
        section, _, key = path.rpartition(".")
        about = f"`{path}`, or its default; None where it has none (docs/configuration.md)."
        super().__init__(lambda config: config.section(section).get(key), doc=about)

    if TYPE_CHECKING:

        def __get__(self, instance: Any, owner: type | None = None, /) -> Value: ...  # type: ignore[override]


def check_configuration(verb: str, config: object) -> None:
    """Refuse what is no configuration, in a function called `verb`.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(config, ConfigManager):
        raise TypeError(
            f"{verb} got {type(config).__name__}; expected a ConfigManager: "
            "ConfigManager.from_yaml(path) or .from_dict(sections)."
        )


@final
@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class ConfigManager(Tabled):
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
        if found.problems:
            raise ConfigurationError(found.problems, self.source)
        raw, folder = copy.deepcopy(dict(config)), Path(self.base_dir).absolute()
        facts = {"base_dir": folder, "space": space, "_raw": raw, "_config": canonical}
        for name, fact in (facts | {"warnings": tuple(found.remarks)}).items():
            object.__setattr__(self, name, fact)

    def _shown(self) -> Table:
        table = self.space._shown()
        assert table is not None  # a configuration holds numbers
        title = f"ConfigManager of {self.source}: {self.analysis_mode}, {self.optimization_method}"
        return table._replace(title=title)

    # Where it comes from

    @classmethod
    def from_yaml(cls, path: str | Path) -> "ConfigManager":
        """Load a configuration from a YAML file; paths in it start from its folder.

        Raises:
            ConfigurationError: If the file cannot be read or there are mistakes in it.
        """
        from twotime.config.files import parse_yaml

        return cls._from_file(path, parse_yaml)

    @classmethod
    def from_json(cls, path: str | Path) -> "ConfigManager":
        """Load a configuration from a JSON file; paths in it start from its folder.

        Raises:
            ConfigurationError: If the file cannot be read or there are mistakes in it.
        """
        from twotime.config.files import parse_json

        return cls._from_file(path, parse_json)

    @classmethod
    def _from_file(cls, path: str | Path, parse: Callable[[bytes, str], Any]) -> "ConfigManager":
        config = read_file(path, parse)
        return cls(config, base_dir=Path(path).parent, source=str(path))

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
        from twotime.config.keys import lookup

        keys, given = _keys(path).items(), lookup(self._config, tuple(path.split(".")))
        defaults = {name: key.default for name, key in keys if key.default is not None}
        return copy.deepcopy(defaults | (given or {}))

    @property
    def analysis_mode(self) -> str:
        """Which model is fitted: static, laminar_flow, two_component, or what `model.law` says."""
        from twotime.config.rules import word_of

        return word_of(self._config)

    # Data

    # Several files: a fit for each, one law for all, or a fit of their mean
    file_mode = _Setting['Literal["each", "together", "average"]']("experimental_data.file_mode")
    # "auto": recognised by its content
    file_format = _Setting["FileFormat"]("experimental_data.file_format")
    # With ${variable} substitution
    cache_filename_template = _Setting["str | None"]("experimental_data.cache_filename_template")
    cache_compression = _Setting[bool]("experimental_data.cache_compression")

    @property
    def data_folder_path(self) -> Path | None:
        """Folder of the data file, absolute; None where it is not given."""
        folder = self.section("experimental_data").get("data_folder_path")
        return None if folder is None else self.base_dir / expanded(folder)

    @property
    def data_file_path(self) -> Path:
        """Path to the experimental data file, absolute; to the first where there are several."""
        return self.data_file_paths[0]

    @property
    def data_file_paths(self) -> tuple[Path, ...]:
        """Paths to the experimental data files, absolute; what patterns match is sorted.

        A pattern that matches nothing stays, to be reported where it is opened.
        """
        folder = self.data_folder_path or self.base_dir
        given = self.section("experimental_data")["file_path"]
        found = dict[Path, None]()
        for name in [given] if isinstance(given, str) else given:
            path = folder / expanded(name)
            matches = [] if path.exists() else sorted(map(Path, glob.glob(str(path))))
            found |= dict.fromkeys(matches or [path])
        return tuple(found)

    @property
    def mask_file_path(self) -> Path | None:
        """Path to the file of masked points, absolute; None where there is none."""
        name = self.section("experimental_data").get("mask_file")
        folder = self.data_folder_path or self.base_dir
        return None if name is None else folder / expanded(name)

    @property
    def cache_file_path(self) -> Path | None:
        """Folder for cache files, absolute (data_folder_path where it is not given)."""
        folder = self.section("experimental_data").get("cache_file_path")
        return self.data_folder_path if folder is None else self.base_dir / expanded(folder)

    # Time, wavevector, geometry

    # Time step [s]; None: from the data file
    dt = _Setting["float | None"]("analyzer_parameters.dt")
    # None: a disagreement is an error
    dt_source = _Setting['Literal["config", "file"] | None']("analyzer_parameters.dt_source")
    start_frame = _Setting[int]("analyzer_parameters.start_frame")  # counted from 1
    # Counted from 1, inclusive; -1 is the last
    end_frame = _Setting[int]("analyzer_parameters.end_frame")
    # Time of the first selected frame [s]; None: start_frame · dt
    t0 = _Setting["float | None"]("analyzer_parameters.t0")
    # [1/Å]; one, several, or "all"; None: those of q_range
    wavevector_q = _Setting['float | list[float] | Literal["all"] | None'](
        "analyzer_parameters.scattering.wavevector_q"
    )
    # [1/Å]; None: no limits
    q_range = _Setting["list[float] | None"]("analyzer_parameters.scattering.q_range")
    # Several q: one law for each, or for all
    q_mode = _Setting['Literal["each", "together"]']("analyzer_parameters.scattering.q_mode")
    # Largest relative distance of the file's q, and of neighbours of one ring
    q_tolerance = _Setting[float]("analyzer_parameters.scattering.q_tolerance")
    # [degree]; None: all in the file
    phi_angles = _Setting["list[float] | None"]("analyzer_parameters.scattering.phi_angles")
    # [Å]; None where the model has none
    gap = _Setting["float | None"]("analyzer_parameters.geometry.stator_rotor_gap")

    @property
    def time_length(self) -> int:
        """Number of time points from start_frame to end_frame.

        Raises:
            ValueError: If end_frame is -1, where only the data know it.
        """
        if self.end_frame < 0:
            why = "time_length is known from the data only, because end_frame is -1 (the last)"
            raise ValueError(f"{why}; set analyzer_parameters.end_frame to know it before.")
        return self.end_frame - self.start_frame + 1

    @property
    def t_start(self) -> int:
        """Starting time index, counted from 0."""
        return self.start_frame - 1

    @property
    def phi_filtering(self) -> dict[str, Any]:
        """Which angles are used: tolerance, and ranges, include_angles, exclude_angles if given."""
        return self.section("phi_filtering")

    # Model and parameters

    integration = _Setting["Integration"]("model.integration")
    shear_convention = _Setting["ShearConvention"]("model.shear_convention")
    per_angle_mode = _Setting["PerAngleMode"]("optimization.nlsq.per_angle_mode")

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

    def get_cmc_config(self) -> dict[str, Any]:
        """CMC settings with defaults, a copy: its sections, and the short keys as well."""
        config = self.section("optimization.cmc")
        for name, key in _keys("optimization.cmc").items():
            section, _, meant = key.extra("same").rpartition(".")
            if key.is_section:
                config[name] = self.section(f"optimization.cmc.{name}")
            elif meant:
                config[name] = self.section(section)[meant]
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
        from twotime.config.keys import store

        known, config = _keys(f"optimization.{section}").get(key), self.get_config()
        meant = known.extra("same") if known else ""
        store(config, tuple((meant or f"optimization.{section}.{key}").split(".")), value)
        return dataclasses.replace(self, config=config)

    @property
    def output_dir(self) -> Path:
        """Output folder, absolute."""
        return self.base_dir / expanded(self.section("output")["output_dir"])

    def _member(self, group: str, name: str) -> str:
        groups = self.space.registry.groups
        if group not in groups:
            raise unknown_name("group", group, groups)
        if name not in groups[group]:
            raise unknown_name(f"parameter in {group}", name, groups[group])
        return name


def read_file(path: str | Path, parse: Callable[[bytes, str], Any]) -> Any:
    """What a configuration file says, unchecked.

    Raises:
        ConfigurationError: If the file cannot be read, or is of another program.
    """
    from twotime.config.files import read_bytes
    from twotime.config.migrate import program_of

    config = parse(read_bytes(path), str(path))
    program = program_of(config)
    if program:
        raise ConfigurationError(
            f"a configuration of {program}; write one for twotime from it: twotime migrate "
            f"{path} -o run.yaml",
            str(path),
        )
    return config


def _keys(path: str) -> "Mapping[str, Key]":
    from twotime.config.keys import section_at
    from twotime.config.types import HeterodyneConfig

    return section_at(HeterodyneConfig, path)


def build_model(config: ConfigManager) -> AbstractTwoTimeModel:
    """The model that a configuration asks for.

    Args:
        config: A validated configuration.

    Returns:
        The model of its `analysis_mode`, with the settings that the configuration gives.

    Raises:
        TypeError: If it is no configuration.
    """
    from twotime.config.laws import make_law

    check_configuration("build_model", config)
    law = make_law(config.get_config(), find_law(config.analysis_mode))
    assert law is not None  # a configuration that exists is valid
    return law
