"""The configuration of a run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from twotime.config.files import template
from twotime.config.manager import ConfigManager, ConfigurationError

FULL = """
analysis_mode: laminar_flow
experimental_data: {file_path: data.hdf, data_folder_path: raw, cache_compression: false}
analyzer_parameters:
  dt: 1.25e-2
  dt_source: file
  start_frame: 3
  end_frame: 102
  t0: 0
  scattering: {wavevector_q: 0.00214, q_tolerance: 0.01, phi_angles: [0, 30]}
  geometry: {stator_rotor_gap: 2e6}
model: {integration: exact, shear_convention: homodyne}
parameters:
  transport: {D0: {value: 1e4, min: 100, max: 1e6, vary: false}}
optimization:
  method: nlsq
  nlsq: {max_iterations: 50, per_angle_mode: fourier}
  cmc: {enable: always, num_samples: 50, sharding: {n_shards: 4}}
phi_filtering: {ranges: [[170, -170]], tolerance: 2, include_angles: [10]}
output: {output_dir: out}
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run.yaml").write_text(FULL)
    return ConfigManager.from_yaml(tmp_path / "run.yaml")


def minimal(**sections):
    return {
        "experimental_data": {"file_path": "a.h5"},
        "scattering": {"wavevector_q": 0.01},
    } | sections


def test_properties(run, tmp_path):
    assert run.analysis_mode == "laminar_flow" and run.base_dir == tmp_path
    assert run.data_file_path == tmp_path / "raw" / "data.hdf"
    assert run.data_folder_path == tmp_path / "raw" == run.cache_file_path
    assert run.file_format == "auto" and run.cache_filename_template is None
    assert run.cache_compression is False
    assert run.dt == 0.0125 and run.dt_source == "file" and run.t0 == 0.0
    assert (run.start_frame, run.end_frame, run.time_length, run.t_start) == (3, 102, 100, 2)
    assert (run.wavevector_q, run.q_tolerance, run.gap) == (0.00214, 0.01, 2e6)
    assert run.phi_angles == [0.0, 30.0]
    assert run.phi_filtering["tolerance"] == 2 and run.phi_filtering["include_angles"] == [10]
    assert [list(r) for r in run.phi_filtering["ranges"]] == [[170, -170]]
    assert run.integration == "exact" and run.shear_convention == "homodyne"
    assert run.output_dir == tmp_path / "out"
    assert run.space.values["D0"] == 1e4 and run.warnings == ()
    assert "laminar_flow" in repr(run)


def test_defaults():
    config = ConfigManager.from_dict(minimal())
    assert config.analysis_mode == "two_component" and config.base_dir == Path.cwd()
    assert config.dt is None and config.t0 is None and config.gap is None
    assert config.dt_source is None and config.phi_angles is None
    assert (config.start_frame, config.end_frame, config.t_start) == (1, -1, 0)
    assert config.cache_file_path is None and config.data_folder_path is None
    assert config.cache_compression is True
    assert config.integration == "trapezoid" and config.shear_convention == "published"
    assert config.optimization_method == "nlsq" and config.per_angle_mode == "auto"
    assert config.output_dir == Path.cwd() / "twotime_results"
    assert config.phi_filtering == {"tolerance": 1.0}
    with pytest.raises(ValueError, match="end_frame is -1"):
        _ = config.time_length


def test_absolute_paths_stay(tmp_path):
    data = {"file_path": str(tmp_path / "a.h5"), "cache_file_path": "cache"}
    config = ConfigManager.from_dict(minimal(experimental_data=data), base_dir=tmp_path / "x")
    assert config.data_file_path == tmp_path / "a.h5"
    assert config.cache_file_path == tmp_path / "x" / "cache"


def test_parameter_queries(run):
    assert run.get_parameter_value("transport", "D0") == 1e4
    assert run.get_parameter_value("flow", "beta") == 0.5, "the registry's default"
    assert run.get_parameter_vary("transport", "D0") is False
    assert run.get_parameter_vary("scaling", "offset") is True
    with pytest.raises(KeyError, match="no group 'velocity'"):
        run.get_parameter_value("velocity", "v0")
    with pytest.raises(ValueError, match="no parameter in flow 'D0'"):
        run.get_parameter_vary("flow", "D0")


def test_optimization(run):
    assert run.optimization_method == "both", "cmc.enable: always"
    nlsq = run.nlsq_config
    assert nlsq["max_iterations"] == 50 and nlsq["tolerance"] == 3e-2
    assert nlsq["multistart"] is False and run.per_angle_mode == "fourier"
    assert "nlsq_prior_width_factor" not in nlsq
    cmc = run.get_cmc_config()
    assert cmc["num_samples"] == cmc["per_shard_mcmc"]["num_samples"] == 50
    assert cmc["num_warmup"] == cmc["per_shard_mcmc"]["num_warmup"] == 500
    assert cmc["max_r_hat"] == cmc["validation"]["max_r_hat"] == 1.01
    assert cmc["sharding"] == {
        "n_shards": 4,
        "shard_strategy": "random",
        "min_pairs_per_shard": 1000,
    }
    assert cmc["enable"] == "always" and "weights" not in cmc["combination"]


def test_sections(run):
    assert run.section("hardware") == {"device": "auto"}
    assert run.section("optimization.hmc")["num_leapfrog_steps"] == 10
    with pytest.raises(KeyError, match="no section 'optimisation'; did you mean 'optimization'"):
        run.section("optimisation")
    with pytest.raises(KeyError, match="no section 'optimization.nls'"):
        run.section("optimization.nls")


def test_changing_makes_another(run):
    before = json.dumps(run.get_config(), default=str)
    changed = run.update_optimization_config("nlsq", "max_iterations", 7)
    assert changed.nlsq_config["max_iterations"] == 7 and run.nlsq_config["max_iterations"] == 50
    changed = changed.update_optimization_config("cmc.sharding", "n_shards", 2)
    assert changed.get_cmc_config()["sharding"]["n_shards"] == 2
    changed = changed.update_optimization_config("cmc", "num_samples", 99)
    assert changed.get_cmc_config()["per_shard_mcmc"]["num_samples"] == 99
    assert changed.base_dir == run.base_dir and json.dumps(run.get_config(), default=str) == before
    with pytest.raises(ConfigurationError, match="did you mean 'max_iterations'"):
        run.update_optimization_config("nlsq", "max_iteration", 7)
    with pytest.raises(ConfigurationError, match="got -7"):
        run.update_optimization_config("nlsq", "max_iterations", -7)
    with pytest.raises(KeyError, match="no section 'optimization.method'"):
        run.update_optimization_config("method", "max_iterations", 7)
    with pytest.raises(AttributeError, match="cannot assign"):
        run.analysis_mode = "static"


def test_copies_are_copies(run):
    for get in (
        lambda: run.raw_config,
        run.get_config,
        lambda: run.nlsq_config,
        run.get_cmc_config,
    ):
        first = get()
        first.clear()
        assert get() != {}
    run.raw_config["output"]["output_dir"] = "elsewhere"
    run.get_config()["output"]["output_dir"] = "elsewhere"
    assert run.output_dir.name == "out"


def test_what_is_given_in_may_change_afterwards():
    written = minimal()
    config = ConfigManager(written)
    written["experimental_data"]["file_path"] = "b.h5"
    assert config.data_file_path.name == "a.h5"
    assert config.raw_config["experimental_data"] == {"file_path": "a.h5"}


def test_raw_and_canonical():
    config = ConfigManager(minimal(parameters={"v_0": 3}, temporal={"dt": 0.1, "time_length": 9}))
    assert config.raw_config["temporal"] == {"dt": 0.1, "time_length": 9}
    assert config.get_config()["parameters"] == {"velocity": {"v0": {"value": 3}}}
    assert config.get_config()["analyzer_parameters"] == {
        "end_frame": 9,
        "dt": 0.1,
        "scattering": {"wavevector_q": 0.01},
    }


def test_json(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(minimal()))
    assert ConfigManager.from_json(path).data_file_path == tmp_path / "a.h5"
    path.write_text('{"experimental_data": NaN}')
    with pytest.raises(ConfigurationError, match="experimental_data: got nan; expected a section"):
        ConfigManager.from_json(path)


def test_errors_are_exceptions_and_value_errors(tmp_path):
    assert issubclass(ConfigurationError, Exception) and issubclass(ConfigurationError, ValueError)
    with pytest.raises(ConfigurationError) as caught:
        ConfigManager({"output": {"output_di": 1}, "modle": 1})
    assert len(caught.value.problems) == 4
    assert str(caught.value).splitlines()[0] == "configuration: 4 mistakes"
    with pytest.raises(ConfigurationError, match=r"run\.yaml: cannot be read: No such file"):
        ConfigManager.from_yaml(tmp_path / "run.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        ConfigManager.from_yaml(tmp_path)


def test_loading_leaves_the_process_alone(tmp_path):
    """No backend, no environment, no JAX flag: a configuration says which device to use."""
    path = tmp_path / "run.yaml"
    path.write_text(template("two_component"))
    code = f"""
import os, sys
import jax
environment, flags = dict(os.environ), dict(jax.config.values)
import twotime.config.manager, twotime.config.parameter_manager
assert not any(name in sys.modules for name in ("matplotlib", "hypothesis", "yaml", "pydantic"))
config = twotime.config.manager.ConfigManager.from_yaml({str(path)!r})
manager = twotime.config.parameter_manager.ParameterManager(config.space)
manager.set_bounds("v0", 1.0, 2e3).validate_physics()
from jax._src import xla_bridge
assert not xla_bridge._backends
assert environment == dict(os.environ) and flags == dict(jax.config.values)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
