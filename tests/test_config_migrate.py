"""Configurations of other programs written anew: they validate, and mean the same."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import twotime as tt
from twotime.config.migrate import SHEAR_FACTOR, migrate, program_of
from twotime.errors import ConfigurationError

BOUNDS = {
    "D0": (100.0, 1e5), "alpha": (-2.0, 2.0), "D_offset": (-1e5, 1e5),
    "gamma_dot_t0": (1e-6, 0.5), "beta": (-2.0, 2.0), "gamma_dot_t_offset": (-0.1, 0.1),
    "phi0": (-30.0, 10.0), "contrast": (0.0, 1.0), "offset": (0.5, 1.5),
}  # fmt: skip


def homodyne(mode="laminar_flow", **changes):
    names = ["D0", "alpha", "D_offset"]
    values = [1000.0, -0.2, 0.0]
    if mode == "laminar_flow":
        names += ["gamma_dot_0", "beta", "gamma_dot_offset", "phi_0"]
        values += [0.01, 0.0, 0.0, -5.0]
    own = {"gamma_dot_0": "gamma_dot_t0", "gamma_dot_offset": "gamma_dot_t_offset", "phi_0": "phi0"}
    bounds = [
        {"name": n, "min": BOUNDS[own.get(n, n)][0], "max": BOUNDS[own.get(n, n)][1],
         "type": "TruncatedNormal", "prior_mu": 0.0, "prior_sigma": 1.0, "unit": "-"}
        for n in [*names, "contrast", "offset"]
    ]  # fmt: skip
    return {
        "metadata": {"config_version": "2.6.0", "description": "shear", "parameter_count": 7},
        "analysis_mode": mode,
        "analyzer_parameters": {
            "dt": 0.1, "start_frame": 3, "end_frame": 120,
            "scattering": {"wavevector_q": 0.0054}, "geometry": {"stator_rotor_gap": 2000000},
        },
        "analysis_settings": {"static_mode": mode == "static"},
        "experimental_data": {
            "data_folder_path": "./data/", "data_file_name": "run 1.hdf", "file_format": "HDF5",
            "phi_angles_path": "./data/", "phi_angles_file": "phi_list.txt",
            "exchange_key": "exchange",
        },
        "phi_filtering": {
            "enabled": True, "tolerance": 3.0, "fallback_to_all_angles": True,
            "target_ranges": [
                {"min_angle": -10.0, "max_angle": 10.0, "description": "along the flow"},
                {"min_angle": 170.0, "max_angle": -170.0},
            ],
        },
        "initial_parameters": {
            "parameter_names": names, "values": values, "units": ["-"] * len(names),
            "active_parameters": None, "fixed_parameters": {"D_offset": 0.0},
        },
        "parameter_space": {"model": mode, "bounds": bounds},
        "optimization": {
            "method": "mcmc",
            "nlsq": {
                "max_iterations": 100, "tolerance": 1e-8, "loss": "cauchy",
                "anti_degeneracy": {"enable": True, "per_angle_mode": "auto"},
                "multi_start": {"enable": True, "n_starts": 10, "seed": 42},
            },
            "mcmc": {"num_warmup": 400, "num_samples": 800, "max_treedepth": 9},
        },
        "performance": {"computation": {"gpu_acceleration": "auto"}},
        "quality_control": {"enabled": True},
        "output": {"directory": "./results"},
    } | changes  # fmt: skip


def heterodyne(**changes):
    groups = {
        "reference": {"D0_ref": 0.0, "alpha_ref": 0.0, "D_offset_ref": 0.0},
        "sample": {"D0_sample": 1e4, "alpha_sample": 0.0, "D_offset_sample": 0.0},
        "velocity": {"v0": 1e3, "beta": 0.1, "v_offset": 0.0},
        "fraction": {"f0": 0.5, "f1": 0.0, "f2": 3.0, "f3": 0.0},
        "angle": {"phi0": 4.0},
    }
    parameters = {
        group: {name: {"value": value, "vary": group != "reference"} for name, value in m.items()}
        for group, m in groups.items()
    }
    parameters["angle"]["phi0"] |= {"min": -2.0, "max": 10.0}
    return {
        "metadata": {"config_version": "2.0.1"},
        "experimental_data": {"file_path": "a.h5", "file_format": "hdf5"},
        "temporal": {"dt": 0.5, "time_length": 300, "t_start": 10},
        "scattering": {"wavevector_q": 0.01},
        "parameters": parameters,
        "parameter_space": {"bounds": [{"name": "v0", "min": 1e-6, "max": 1e4}]},
        "optimization": {"method": "nlsq", "nlsq": {"per_angle_mode": "independent"}},
    } | changes


def xpcsjax(**changes):
    config = heterodyne() | {"analysis_mode": "heterodyne"}
    config["metadata"] = {"config_version": "0.1.4", "description": "xpcsjax two-component"}
    del config["temporal"], config["scattering"], config["parameters"]
    config["analyzer_parameters"] = {
        "dt": 0.5, "start_frame": 1, "end_frame": 300, "frame_step": 2,
        "scattering": {"wavevector_q": 0.01}, "geometry": {"stator_rotor_gap": 2000000},
    }  # fmt: skip
    config["initial_parameters"] = {
        "parameter_names": ["D0_ref", "v_beta", "phi0_het"], "values": [2e3, 0.2, 4.0],
    }  # fmt: skip
    return config | changes


def migrated(tmp_path, config, **options):
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    result = migrate(file, **options)
    new = tmp_path / "run.yaml"
    new.write_text(result.text)
    return result, tt.ConfigManager.from_yaml(new)


@pytest.mark.parametrize(
    ("program", "mode", "config"),
    [
        ("homodyne", "laminar_flow", homodyne()),
        ("homodyne", "static", homodyne("static")),
        ("heterodyne", "two_component", heterodyne()),
        ("xpcsjax", "two_component", xpcsjax()),
        (
            "xpcsjax",
            "static",
            homodyne("static", cache="xpcsjax", analysis_mode="static_isotropic"),
        ),
        ("homodyne", "static", homodyne("static", analysis_mode=None)),
    ],
)
def test_what_is_written_validates_for_each_program_and_mode(tmp_path, program, mode, config):
    result, new = migrated(tmp_path, config)
    assert result.program == program and new.analysis_mode == mode
    assert program_of(yaml.safe_load(result.text)) is None


def test_every_setting_with_a_counterpart_is_taken_over(tmp_path):
    result, new = migrated(tmp_path, homodyne())
    assert new.data_file_path == tmp_path / "data" / "run 1.hdf"
    assert (new.dt, new.start_frame, new.end_frame, new.wavevector_q) == (0.1, 3, 120, 0.0054)
    assert new.phi_filtering["ranges"] == [[-13.0, 13.0], [167.0, -167.0]]
    assert new.optimization_method == "cmc" and new.output_dir == tmp_path / "results"
    nlsq, chains = new.nlsq_config, new.get_cmc_config()["per_shard_mcmc"]
    assert (nlsq["loss"], nlsq["multistart_n"], nlsq["seed"]) == ("linear", 10, 42)
    assert (chains["num_warmup"], chains["num_samples"], chains["max_tree_depth"]) == (400, 800, 9)
    space = new.space
    assert space.values["D0"] == 1000 and space.bounds["D0"] == (100.0, 1e5)
    assert not space.vary["D_offset"] and space.vary["gamma_dot_t_offset"]
    assert result.left == {
        "optimization.nlsq": ("max_iterations", "tolerance", "enable"),
        "performance.computation": ("gpu_acceleration",),
        "quality_control": ("enabled",),
    }
    assert "optimization.nlsq: max_iterations, tolerance" in result.text
    assert any("cauchy" in note for note in result.notes)
    _, fitted = migrated(tmp_path, homodyne(optimization={"nlsq": {"loss": "arctan"}}))
    assert fitted.nlsq_config["loss"] == "soft_l1" and fitted.optimization_method == "nlsq"


def test_only_active_parameters_vary(tmp_path):
    old = homodyne("static")
    old["initial_parameters"] |= {"active_parameters": ["D0"], "fixed_parameters": {"alpha": 0.5}}
    _, new = migrated(tmp_path, old)
    assert new.space.vary["D0"] and not new.space.vary["alpha"] and not new.space.vary["D_offset"]
    assert new.space.values["alpha"] == 0.5


def test_frames_counted_from_0_with_a_length_become_frames_counted_from_1(tmp_path):
    _, new = migrated(tmp_path, heterodyne())
    assert (new.start_frame, new.end_frame, new.dt) == (11, 310, 0.5)


def test_shear_rates_are_those_of_the_published_law_unless_kept(tmp_path):
    """Both laws agree at small shear: the old is (sin Φ/Φ)⁴, ours (sin πΦ/πΦ)²."""
    _, ours = migrated(tmp_path, homodyne())
    _, kept = migrated(tmp_path, homodyne(), shear_convention="homodyne")
    assert kept.space.values["gamma_dot_t0"] == 0.01
    assert ours.space.values["gamma_dot_t0"] == pytest.approx(0.01 / 2.2214, rel=1e-4)
    assert ours.space.bounds["gamma_dot_t0"][1] == pytest.approx(0.5 / SHEAR_FACTOR, rel=1e-4)
    t, q, phi = jnp.arange(1, 6) * 1e-3, 0.0054, jnp.array([-5.0])
    params = [[0.0, 0.0, 0.0, c.space.values["gamma_dot_t0"], 0.0, 0.0, -5.0] for c in (ours, kept)]
    new, old = (
        1 - tt.correlation(tt.build_model(c), jnp.array(p), t=t, q=q, phi=phi)[0, 0, 1:]
        for c, p in zip((ours, kept), params, strict=True)
    )
    np.testing.assert_allclose(new, old, rtol=1e-2)
    assert old[-1] > 1e-4


@pytest.mark.parametrize("make", [heterodyne, xpcsjax])
def test_the_direction_of_flow_changes_its_sign_for_two_components(tmp_path, make):
    _, new = migrated(tmp_path, make())
    assert new.space.values["phi0"] == -4.0
    if make is heterodyne:
        assert new.space.bounds["phi0"] == (-10.0, 2.0)


def test_a_fixed_static_reference_stays_fixed_and_f2_does_not_vary(tmp_path):
    _, new = migrated(tmp_path, heterodyne())
    assert not new.space.vary["D0_ref"] and new.space.values["D0_ref"] == 0
    assert not new.space.vary["f2"] and new.space.values["f2"] == 3


def test_json_and_a_folder_elsewhere(tmp_path):
    (tmp_path / "old").mkdir()
    file = tmp_path / "old" / "config.json"
    file.write_text(json.dumps(homodyne("static")))
    result = migrate(file, target=tmp_path / "new" / "run.yaml")
    assert yaml.safe_load(result.text)["experimental_data"]["file_path"] == "../old/data/run 1.hdf"


def test_angles_of_a_file_without_them_are_taken_from_their_list(tmp_path):
    old = homodyne("static")
    old["experimental_data"] |= {"data_file_name": "c2.npz"}
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "phi_list.txt").write_text("0.5\n90\n")
    _, new = migrated(tmp_path, old)
    assert list(new.phi_angles) == [0.5, 90.0]


def test_a_configuration_of_ours_is_not_one_of_another_program(tmp_path):
    for mode in ("static", "laminar_flow", "two_component"):
        for full in (False, True):
            assert program_of(yaml.safe_load(tt.config.files.template(mode, full=full))) is None
    file = tmp_path / "run.yaml"
    file.write_text(tt.config.files.template("static"))
    with pytest.raises(ConfigurationError, match="not recognised .*validate"):
        migrate(file)


def test_an_old_configuration_leads_to_migrate(tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(homodyne()))
    with pytest.raises(ConfigurationError, match="configuration of homodyne.*twotime migrate") as e:
        tt.ConfigManager.from_yaml(file)
    assert len(e.value.problems) == 1


FLOW = {"D0_sample": 1.5e4, "v0": 900.0, "beta": 0.1, "f0": 0.5, "f2": 3.0}
"""Of two components whose reference is static; what is not named is 0."""
BOTH = FLOW | {"D0_ref": 800.0}
SHEARED = {"D0": 1.5e3, "alpha": -0.2, "gamma_dot_t0": 2e-3, "phi0": -5.0}
SHEAR = tt.LaminarFlow(gap=2e6, shear_convention="homodyne")
TIMES = {"dt": 0.1, "time_length": 40, "t_start": 0}


def composed(make, free, **values):
    """An old configuration of two components: which of them vary, and the values of others."""
    config = make(
        temporal=TIMES, analyzer_parameters={"dt": 0.1, "start_frame": 1, "end_frame": 40}
    )
    groups = config["parameters"] if "parameters" in config else heterodyne()["parameters"]
    for group in groups.values():
        for name, given in group.items():
            given["value"] = values.get(name, given["value"])
            given["vary"] = name in free
    return config | {"parameters": groups, "scattering": {"wavevector_q": 0.0054}}


# What each program was given in three modes, and the law and numbers behind the data.
OLD = {
    "homodyne isotropic": (
        homodyne("static", analysis_mode="static_isotropic"), tt.StaticDiffusion(),
        {"D0": 1.5e3, "alpha": -0.2},
    ),
    "homodyne anisotropic": (
        homodyne("static", analysis_mode="static_anisotropic"), tt.StaticDiffusion(),
        {"D0": 1.5e3, "alpha": -0.2},
    ),
    "homodyne flow": (homodyne(), SHEAR, SHEARED),
    "heterodyne two components": (
        composed(heterodyne, ("D0_sample", "v0", "f0", "phi0")), tt.TwoComponent(),
        FLOW | {"phi0": -4.0},
    ),
    "heterodyne static reference": (
        composed(heterodyne, ("D0_sample", "v0"), phi0=0.0) | {"analysis_mode": "static_ref"},
        tt.TwoComponent(), FLOW,
    ),
    "heterodyne reference that moves": (
        composed(heterodyne, ("D0_ref", "D0_sample", "v0"), D0_ref=1e3, phi0=0.0),
        tt.TwoComponent(), BOTH,
    ),
    "xpcsjax static": (
        homodyne("static", analysis_mode="static", cache="xpcsjax"), tt.StaticDiffusion(),
        {"D0": 1.5e3, "alpha": -0.2},
    ),
    "xpcsjax flow": (homodyne(cache="xpcsjax"), SHEAR, SHEARED),
    "xpcsjax two components": (
        composed(xpcsjax, ("D0_sample", "v0", "f0", "phi0"))
        | {"initial_parameters": {"parameter_names": ["v_beta", "phi0_het"], "values": [0.1, 4.0]}},
        tt.TwoComponent(), FLOW | {"phi0": -4.0},
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("mode", OLD)
def test_fits_of_migrated_configurations_find_the_numbers_of_the_old_convention(
    tmp_path, monkeypatch, mode
):
    """Angles of flow of two components have the other sign, shear rates the old factor."""
    monkeypatch.chdir(tmp_path)
    config, law, truth = OLD[mode]
    params = jnp.array([truth.get(name, 0.0) for name in law.names])
    data = tt.simulate(
        law, params, t=0.1 * np.arange(1, 41), q=0.0054, phi=np.array([0.0, 30.0, 60.0, 90.0]),
        contrast=0.3, offset=1.0, noise=1e-3, key=jax.random.key(0),
    )  # fmt: skip
    tt.write_apsu("a.h5", data)
    config = config | {"experimental_data": {"file_path": "a.h5"}, "phi_filtering": {}}
    config["optimization"] = {"method": "nlsq"}
    if not isinstance(law, tt.TwoComponent):
        config["analyzer_parameters"] |= {"start_frame": 1, "end_frame": 40}
        fixed = {"D_offset": 0.0, "beta": 0.0, "gamma_dot_offset": 0.0}
        config["initial_parameters"] |= {"fixed_parameters": fixed}
    result, new = migrated(tmp_path, config, shear_convention="homodyne")
    fit = tt.run.run(new, tmp_path / "out")
    assert result.program == mode.split()[0] and fit.converged
    for name in fit.names:
        deviation = fit.uncertainties[name]
        assert fit.params[name] == pytest.approx(truth.get(name, 0.0), abs=5 * deviation)
        assert deviation < 0.1 * abs(truth[name])
