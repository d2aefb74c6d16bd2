"""Every name of the documented configuration interface: there, with its signature and shapes.

The tables are the document, written down; nothing here parses its text.
"""

import dataclasses
import enum
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

from twotime.config import types
from twotime.config.manager import ConfigManager
from twotime.config.parameter_manager import BoundDict, ParameterManager, ValidationResult
from twotime.config.parameter_names import ALL_PARAM_NAMES, ANALYSIS_MODES, get_param_index
from twotime.config.parameter_registry import REGISTRIES, ParameterInfo
from twotime.config.parameter_space import (
    ParameterSpace,
    PriorDistribution,
    PriorType,
    clamp_to_open_interval,
)

REQUIRED = object()
CLASSES = {
    "manager": ["ConfigurationError", "ConfigManager"],
    "parameter_registry": ["ParameterInfo", "ParameterRegistry"],
    "parameter_manager": ["BoundDict", "ParameterManager"],
    "parameter_space": ["PriorType", "PriorDistribution", "ParameterSpace"],
}
# module.name: documented parameters, with defaults where the document gives them
CALLS = {
    "manager.ConfigManager.__init__": {"config": REQUIRED},
    "manager.ConfigManager.from_yaml": {"path": REQUIRED},
    "manager.ConfigManager.from_dict": {"config": REQUIRED},
    "manager.ConfigManager.from_json": {"path": REQUIRED},
    "manager.ConfigManager.get_parameter_value": {"group": REQUIRED, "name": REQUIRED},
    "manager.ConfigManager.get_parameter_vary": {"group": REQUIRED, "name": REQUIRED},
    "manager.ConfigManager.update_optimization_config": {
        "section": REQUIRED,
        "key": REQUIRED,
        "value": REQUIRED,
    },
    "manager.ConfigManager.get_config": {},
    "manager.ConfigManager.get_cmc_config": {},
    "parameter_registry.ParameterInfo.__init__": {
        **dict.fromkeys(("name", "default", "min_bound", "max_bound", "description"), REQUIRED),
        **{"unit": "", "group": "", "vary_default": True, "log_space": False},
        **{"prior_mean": None, "prior_std": None, "is_scaling": False},
        **{"is_physical": True, "is_flow": False},
    },
    "parameter_registry.ParameterRegistry.__init__": {"_parameters": None},
    "parameter_registry.ParameterRegistry.__getitem__": {"name": REQUIRED},
    "parameter_registry.ParameterRegistry.__iter__": {},
    "parameter_registry.ParameterRegistry.get_bounds": {},
    "parameter_registry.ParameterRegistry.get_varying_indices": {"vary_flags": REQUIRED},
    "parameter_registry.ParameterRegistry.get_log_space_names": {},
    "parameter_manager.ParameterManager.__init__": {"space": ParameterSpace},
    "parameter_manager.ParameterManager.__post_init__": {},
    "parameter_manager.ParameterManager.get_initial_values": {},
    "parameter_manager.ParameterManager.get_full_values": {},
    "parameter_manager.ParameterManager.get_bounds": {},
    "parameter_manager.ParameterManager.expand_varying_to_full": {"varying_params": REQUIRED},
    "parameter_manager.ParameterManager.extract_varying": {"full_params": REQUIRED},
    "parameter_manager.ParameterManager.update_values": {"params": REQUIRED},
    "parameter_manager.ParameterManager.get_parameter_dict": {},
    "parameter_manager.ParameterManager.set_vary": {"name": REQUIRED, "vary": REQUIRED},
    "parameter_manager.ParameterManager.set_bounds": {
        "name": REQUIRED,
        "lower": REQUIRED,
        "upper": REQUIRED,
    },
    "parameter_manager.ParameterManager.validate_physics": {"params": None},
    "parameter_manager.ParameterManager.from_config": {"config": REQUIRED},
    "parameter_manager.ParameterManager.get_group_values": {"group": REQUIRED},
    "parameter_manager.ParameterManager.get_parameter_bounds": {"parameter_names": None},
    "parameter_manager.ParameterManager.get_bounds_as_tuples": {"parameter_names": None},
    "parameter_manager.ParameterManager.get_bounds_as_arrays": {"parameter_names": None},
    "parameter_manager.ParameterManager.get_active_parameters": {},
    "parameter_manager.ParameterManager.get_all_parameter_names": {},
    "parameter_manager.ParameterManager.get_effective_parameter_count": {},
    "parameter_manager.ParameterManager.get_total_parameter_count": {},
    "parameter_manager.ParameterManager.get_fixed_parameters": {},
    "parameter_manager.ParameterManager.is_parameter_active": {"param_name": REQUIRED},
    "parameter_manager.ParameterManager.get_optimizable_parameters": {},
    "parameter_manager.ParameterManager.validate_physical_constraints": {
        "params": None,
        "severity_level": "warning",
    },
    "parameter_space.PriorDistribution.__init__": {"prior_type": REQUIRED, "params": None},
    "parameter_space.PriorDistribution.uniform": {"low": REQUIRED, "high": REQUIRED},
    "parameter_space.PriorDistribution.normal": {"loc": REQUIRED, "scale": REQUIRED},
    "parameter_space.PriorDistribution.lognormal": {"loc": REQUIRED, "scale": REQUIRED},
    "parameter_space.PriorDistribution.halfnormal": {"scale": REQUIRED},
    "parameter_space.PriorDistribution.truncated_normal": dict.fromkeys(
        ("loc", "scale", "low", "high"), REQUIRED
    ),
    "parameter_space.PriorDistribution.beta_scaled": dict.fromkeys(
        ("low", "high", "concentration1", "concentration2"), REQUIRED
    ),
    "parameter_space.PriorDistribution.to_numpyro": {"name": REQUIRED},
    "parameter_space.ParameterSpace.__init__": dict.fromkeys(
        ("values", "vary", "bounds", "priors")
    ),
    "parameter_space.ParameterSpace.get_initial_array": {},
    "parameter_space.ParameterSpace.to_config": {},
    "parameter_space.ParameterSpace.get_bounds_arrays": {},
    "parameter_space.ParameterSpace.get_vary_mask": {},
    "parameter_space.ParameterSpace.array_to_dict": {"arr": REQUIRED},
    "parameter_space.ParameterSpace.update_from_dict": {"params": REQUIRED},
    "parameter_space.ParameterSpace.validate": {},
    "parameter_space.ParameterSpace.convert_to_beta_priors": {},
    "parameter_space.ParameterSpace.with_single_angle_stabilization": {},
    "parameter_space.ParameterSpace.from_config": {"config": REQUIRED},
    "parameter_space.clamp_to_open_interval": {
        "value": REQUIRED,
        "low": REQUIRED,
        "high": REQUIRED,
        "epsilon": 1e-6,
    },
    "parameter_names.get_param_index": {"name": REQUIRED},
}
ATTRIBUTES = {
    "manager.ConfigManager": (
        "raw_config data_file_path file_format cache_file_path cache_filename_template "
        "cache_compression dt start_frame end_frame time_length t_start wavevector_q "
        "optimization_method nlsq_config output_dir"
    ),
    "parameter_registry.ParameterInfo": (
        "name default min_bound max_bound description unit group vary_default log_space "
        "prior_mean prior_std is_scaling is_physical is_flow"
    ),
    "parameter_manager.ParameterManager": "space n_params n_varying",
    "parameter_space.PriorDistribution": "prior_type params",
    "parameter_space.ParameterSpace": "values vary bounds priors n_total n_varying",
}
MEMBERS = {
    "UNIFORM": "uniform",
    "NORMAL": "normal",
    "TRUNCATED_NORMAL": "truncated_normal",
    "LOGNORMAL": "lognormal",
    "HALFNORMAL": "halfnormal",
    "EXPONENTIAL": "exponential",
    "BETA_SCALED": "beta_scaled",
}
SECTIONS = {
    "ParameterConfig": "value min max vary prior prior_params",
    "ParameterGroupConfig": (
        "D0_ref alpha_ref D_offset_ref D0_sample alpha_sample D_offset_sample v0 beta v_offset "
        "f0 f1 f2 f3 phi0"
    ),
    "NLSQOptimizationConfig": (
        "max_iterations tolerance method multistart multistart_n nlsq_prior_width_factor"
    ),
    "CMCOptimizationConfig": (
        "enable num_warmup num_samples num_chains target_accept_prob max_tree_depth max_r_hat"
    ),
    "OptimizationConfig": "method nlsq cmc",
    "ExperimentalDataConfig": "file_path data_folder_path file_format",
    "TemporalConfig": "dt time_length t_start",
    "ScatteringConfig": "wavevector_q phi_angles",
    "OutputConfig": "output_dir save_correlation save_residuals format",
    "HeterodyneConfig": "experimental_data temporal scattering optimization output",
    "CMCShardingConfig": "n_shards shard_strategy min_pairs_per_shard",
    "CMCInitializationConfig": "method nlsq_chi2_threshold jitter_scale",
    "CMCBackendConfig": "sampler jit_compile progress_bar",
    "CMCValidationConfig": "max_r_hat min_ess min_bfmi max_divergences",
    "CMCCombinationConfig": "method weights",
    "CMCPerShardMCMCConfig": (
        "num_warmup num_samples num_chains target_accept_prob max_tree_depth"
    ),
    "StreamingConfig": "enable chunk_size buffer_size",
    "StratificationConfig": "enable n_strata strategy",
    "SequentialConfig": "enable max_iterations convergence_threshold",
    "HardwareConfig": "device n_threads memory_limit_gb numa_aware",
    "LoggingConfig": "level file structured log_convergence",
    "MetadataConfig": "experiment_id operator beamline sample_name notes",
    "AnalysisConfig": "method phi_angles q dt scaling_mode",
    "AnalyzerParametersConfig": "reference sample velocity fraction angle scaling",
    "HmcConfig": "step_size num_leapfrog_steps adapt_step_size adapt_mass_matrix",
    "PhiFilteringConfig": "include_angles exclude_angles tolerance",
}
N_NAMES = (
    sum(map(len, CLASSES.values()))
    + len(CALLS)
    + sum(len(names.split()) for names in ATTRIBUTES.values())
    + len(MEMBERS)
    + len(SECTIONS)
    + sum(len(keys.split()) for keys in SECTIONS.values())
    + 4  # keys of BoundDict
)


def find(path):
    module, *names = path.split(".")
    thing = importlib.import_module(f"twotime.config.{module}")
    for name in names:
        thing = (
            inspect.getattr_static(thing, name) if name.startswith("__") else (getattr(thing, name))
        )
    return thing


def test_count():
    """What the document names: classes, calls, attributes, members, sections, keys."""
    assert N_NAMES == 261


@pytest.mark.parametrize("module", CLASSES)
def test_classes(module):
    for name in CLASSES[module]:
        assert inspect.isclass(find(f"{module}.{name}"))
    assert issubclass(find("manager.ConfigurationError"), Exception)


@pytest.mark.parametrize("path", CALLS)
def test_signatures(path):
    function = find(path)
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    documented = CALLS[path]
    assert list(parameters)[: len(documented)] == list(documented), "same names in the same order"
    for name, parameter in parameters.items():
        if name not in documented:
            assert parameter.default is not parameter.empty, f"{name} must not be needed"
        elif documented[name] is REQUIRED:
            assert parameter.default is parameter.empty
        elif documented[name] is ParameterSpace:
            assert parameter.default is not parameter.empty
        else:
            assert parameter.default == documented[name]
    assert (function.__doc__ or "").strip() or path.endswith("__init__")


@pytest.mark.parametrize("path", ATTRIBUTES)
def test_attributes(path):
    owner = find(path)
    fields = {f.name for f in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else ()
    for name in ATTRIBUTES[path].split():
        assert name in fields or isinstance(inspect.getattr_static(owner, name), property)


def test_enum():
    assert {member.name: member.value for member in PriorType} == MEMBERS
    assert issubclass(PriorType, enum.Enum)


@pytest.mark.parametrize("name", SECTIONS)
def test_sections(name):
    section = getattr(types, name)
    assert set(SECTIONS[name].split()) <= set(section.__annotations__)
    assert issubclass(section, dict) and section.__doc__


def test_bound_dict():
    assert BoundDict.__annotations__ == {"name": str, "min": float, "max": float, "type": str}


# Return shapes, for each model: n physics parameters and 2 for scaling

RETURNS = {
    "get_initial_values": lambda m, n: m.get_initial_values().shape == (n - 1,),
    "get_full_values": lambda m, n: (
        m.get_full_values().shape == (n,) and not m.get_full_values().flags.writeable
    ),
    "get_bounds": lambda m, n: [b.shape for b in m.get_bounds()] == [(n - 1,)] * 2,
    "expand_varying_to_full": lambda m, n: m.expand_varying_to_full(np.ones(n - 1)).shape == (n,),
    "extract_varying": lambda m, n: m.extract_varying(np.ones(n)).shape == (n - 1,),
    "update_values": lambda m, n: isinstance(m.update_values(np.ones(n)), ParameterManager),
    "get_parameter_dict": lambda m, n: (
        len(m.get_parameter_dict()) == n + 2
        and all(type(v) is float for v in m.get_parameter_dict().values())
    ),
    "set_vary": lambda m, n: m.set_vary("offset", False).space.vary["offset"] is False,
    "set_bounds": lambda m, n: (
        m.set_bounds("offset", 0.9, 1.1).space.bounds["offset"] == (0.9, 1.1)
    ),
    "validate_physics": lambda m, n: m.validate_physics() == [],
    "get_group_values": lambda m, n: (
        m.get_group_values("scaling") == {"contrast": 0.5, "offset": 1}
    ),
    "get_parameter_bounds": lambda m, n: (
        len(m.get_parameter_bounds()) == n + 2
        and all(set(b) == {"name", "min", "max", "type"} for b in m.get_parameter_bounds())
    ),
    "get_bounds_as_tuples": lambda m, n: (
        len(m.get_bounds_as_tuples()) == n + 2
        and m.get_bounds_as_tuples(["offset"]) == [(0.5, 1.5)]
    ),
    "get_bounds_as_arrays": lambda m, n: (
        [b.shape for b in m.get_bounds_as_arrays()] == [(n + 2,)] * 2
    ),
    "get_active_parameters": lambda m, n: m.get_active_parameters() == list(m.space.names[1:]),
    "get_all_parameter_names": lambda m, n: (
        m.get_all_parameter_names() == ["contrast", "offset", *m.space.names]
    ),
    "get_effective_parameter_count": lambda m, n: m.get_effective_parameter_count() == n - 1,
    "get_total_parameter_count": lambda m, n: m.get_total_parameter_count() == n + 2,
    "get_fixed_parameters": lambda m, n: list(m.get_fixed_parameters()) == [m.space.names[0]],
    "is_parameter_active": lambda m, n: m.is_parameter_active(m.space.names[1]) is True,
    "get_optimizable_parameters": lambda m, n: len(m.get_optimizable_parameters()) == n - 1,
    "validate_physical_constraints": lambda m, n: isinstance(
        m.validate_physical_constraints(), ValidationResult
    ),
    "n_params": lambda m, n: m.n_params == n,
    "n_varying": lambda m, n: m.n_varying == n - 1,
    "space": lambda m, n: isinstance(m.space, ParameterSpace),
    "space.n_total": lambda m, n: m.space.n_total == n + 2,
    "space.n_varying": lambda m, n: m.space.n_varying == n + 1,
    "space.get_initial_array": lambda m, n: m.space.get_initial_array().shape == (n,),
    "space.get_bounds_arrays": lambda m, n: (
        [b.shape for b in m.space.get_bounds_arrays()] == [(n,)] * 2
    ),
    "space.get_vary_mask": lambda m, n: (
        m.space.get_vary_mask().dtype == bool and m.space.get_vary_mask().sum() == n - 1
    ),
    "space.array_to_dict": lambda m, n: len(m.space.array_to_dict(np.ones(n))) == n,
    "space.update_from_dict": lambda m, n: (
        m.space.update_from_dict({"offset": 1.2}).values["offset"] == 1.2
    ),
    "space.validate": lambda m, n: m.space.validate() == [],
    "space.convert_to_beta_priors": lambda m, n: isinstance(
        m.space.convert_to_beta_priors(), ParameterSpace
    ),
    "space.with_single_angle_stabilization": lambda m, n: (
        m.space.with_single_angle_stabilization().bounds["contrast"] == (0.3, 0.7)
    ),
    "space.to_config": lambda m, n: (
        ParameterSpace.from_config(m.space.to_config()).values == m.space.values
    ),
    "space.priors": lambda m, n: (
        len(m.space.priors) == n + 2
        and all(isinstance(prior, PriorDistribution) for prior in m.space.priors.values())
    ),
}
REGISTRY_RETURNS = {
    "__getitem__": lambda r, n: isinstance(r[r.names[0]], ParameterInfo),
    "__iter__": lambda r, n: list(r)[n:] == ["contrast", "offset"],
    "get_bounds": lambda r, n: [type(b) for b in r.get_bounds()] == [list] * 2,
    "get_varying_indices": lambda r, n: (
        r.get_varying_indices(dict.fromkeys(r, True) | {"offset": False}) == list(range(n + 1))
    ),
    "get_log_space_names": lambda r, n: "offset" not in r.get_log_space_names(),
}


@pytest.mark.parametrize("mode", ANALYSIS_MODES)
@pytest.mark.parametrize("name", RETURNS)
def test_returns(mode, name):
    registry = REGISTRIES[mode]
    first = registry.names[0]
    vary = dict.fromkeys(registry.names, True) | {first: False}
    manager = ParameterManager(ParameterSpace(vary=vary, registry=registry))
    assert RETURNS[name](manager, len(registry.names))


@pytest.mark.parametrize("mode", ANALYSIS_MODES)
@pytest.mark.parametrize("name", REGISTRY_RETURNS)
def test_registry_returns(mode, name):
    registry = REGISTRIES[mode]
    assert REGISTRY_RETURNS[name](registry, len(registry.names))


def test_functions():
    assert [get_param_index(name) for name in ALL_PARAM_NAMES] == list(range(14))
    assert clamp_to_open_interval(1.0, 0.0, 1.0) == 1 - 1e-6


def test_default_manager_is_the_two_component_model():
    manager = ParameterManager()
    assert manager.n_params == 14 and manager.get_total_parameter_count() == 16
    assert ParameterManager.from_config({}).space.values == manager.space.values


DOCUMENTED = {
    "experimental_data": {"file_path": "data.h5", "data_folder_path": "raw", "file_format": "hdf5"},
    "temporal": {"dt": 0.1, "time_length": 100, "t_start": 0},
    "scattering": {"wavevector_q": 0.01, "phi_angles": [0.0, 90.0]},
    "parameters": {
        "reference": {"D0_ref": {"value": 5000.0, "min": 200.0, "max": 50000.0, "vary": True}}
    },
    "initial_parameters": {
        "parameter_names": ["D0_ref", "alpha_ref"],
        "values": [5000.0, 0.5],
        "active_parameters": ["D0_ref"],
    },
    "optimization": {"method": "nlsq", "nlsq": {"max_iterations": 100}, "cmc": {"enable": "auto"}},
    "output": {"output_dir": "out", "save_correlation": True, "save_residuals": False},
}
VALUES = {
    "data_file_path": Path("/data/raw/data.h5"),
    "file_format": "hdf5",
    "cache_file_path": Path("/data/raw"),
    "cache_filename_template": None,
    "cache_compression": True,
    "dt": 0.1,
    "start_frame": 1,
    "end_frame": 100,
    "time_length": 100,
    "t_start": 0,
    "wavevector_q": 0.01,
    "optimization_method": "nlsq",
    "output_dir": Path("/data/out"),
}


def test_documented_file():
    """The document's own forms, grouped and flat together with the older time axis."""
    config = ConfigManager.from_dict(DOCUMENTED, base_dir="/data")
    for name, value in VALUES.items():
        assert getattr(config, name) == value and type(getattr(config, name)) is type(value), name
    assert config.raw_config == DOCUMENTED
    assert config.nlsq_config["max_iterations"] == 100
    assert config.get_cmc_config()["num_chains"] == 4
    assert config.get_parameter_value("reference", "D0_ref") == 5000.0
    assert config.get_parameter_value("reference", "alpha_ref") == 0.5
    assert config.get_parameter_vary("reference", "D0_ref") is True
    assert config.get_parameter_vary("reference", "alpha_ref") is False
    assert config.space.bounds["D0_ref"] == (200.0, 50000.0)
    changed = config.update_optimization_config("nlsq", "tolerance", 1e-4)
    assert changed.nlsq_config["tolerance"] == 1e-4 != config.nlsq_config["tolerance"]
