"""What a configuration says, in every form it may be written, and every mistake in it."""

import re

import numpy as np
import pytest

from twotime.config.keys import (
    discard,
    fields,
    lookup,
    store,
    walk,
)
from twotime.config.parameter_names import PARAMETER_GROUPS
from twotime.config.parameter_space import read
from twotime.config.types import HeterodyneConfig, NLSQOptimizationConfig, ScatteringConfig
from twotime.errors import Mistakes, show

GROUPS = {group for groups in PARAMETER_GROUPS.values() for group in groups}
BASE = {
    "experimental_data": {"file_path": "a.h5"},
    "analyzer_parameters": {"dt": 0.1, "scattering": {"wavevector_q": 0.01}},
}


def config(changes=None, mode=None):
    """The smallest configuration with some keys set, by dotted path."""
    result = {name: dict(section) for name, section in BASE.items()}
    result["analyzer_parameters"]["scattering"] = {"wavevector_q": 0.01}
    if mode:
        result["analysis_mode"] = mode
    if mode == "laminar_flow":
        result["analyzer_parameters"]["geometry"] = {"stator_rotor_gap": 2e6}
    for path, value in (changes or {}).items():
        store(result, tuple(path.split(".")), value)
    return result


def problems(*args):
    return read(config(*args))[2].problems


def test_smallest():
    for mode in (None, "static", "laminar_flow", "two_component"):
        canonical, space, found = read(config(mode=mode))
        assert found.problems == [] and found.remarks == []
        assert canonical == config(mode=mode)
        assert space.analysis_mode == (mode or "two_component")


# mode, changes, what exactly is said (a part of each sentence, in any order)
WRONG = {
    "unknown section": (
        None,
        {"optimisation": {}},
        ["optimisation: .* did you mean 'optimization'"],
    ),
    "unknown key": (
        None,
        {"optimization.nlsq.max_iteration": 3},
        [r"optimization\.nlsq\.max_iteration: .* did you mean 'max_iterations'\?"],
    ),
    "key of another section": (None, {"output.level": 3}, ["output.level: there is no such key"]),
    "text for a number": (
        None,
        {"analyzer_parameters.dt": "fast"},
        [r"analyzer_parameters\.dt: got 'fast'; expected a number more than 0 .* \[s\]"],
    ),
    "true for a number": (None, {"analyzer_parameters.dt": True}, ["got true; expected a number"]),
    "true for a count": (None, {"analyzer_parameters.start_frame": True}, ["got true"]),
    "half a frame": (None, {"analyzer_parameters.start_frame": 1.5}, ["got 1.5; expected a whole"]),
    "number for true": (None, {"output.save_residuals": 1}, ["got 1; expected true or false"]),
    "number for text": (None, {"metadata.notes": 3}, ["got 3; expected text"]),
    "section for a number": (None, {"analyzer_parameters.dt": {"a": 1}}, ["got a section"]),
    "number for a section": (None, {"output": 3}, ["output: got 3; expected a section"]),
    "list for a section": (None, {"parameters": [1]}, ["parameters: got a list of 1"]),
    "dt = 0": (None, {"analyzer_parameters.dt": 0}, ["got 0.0; expected a number more than 0"]),
    "dt < 0": (None, {"analyzer_parameters.dt": -0.1}, ["got -0.1"]),
    "nan": (None, {"analyzer_parameters.dt": float("nan")}, ["got nan"]),
    "infinite": (None, {"analyzer_parameters.dt": float("inf")}, ["got inf"]),
    "huge count": (
        None,
        {"analyzer_parameters.end_frame": 10**400},
        ["got a whole number of more than 15 digits"],
    ),
    "huge number": (None, {"analyzer_parameters.dt": 10**400}, [r"analyzer_parameters\.dt: got a"]),
    "huge value": (None, {"parameters.v0": 1e300}, ["parameters.v0.value: got 1e\\+300"]),
    "wrong word": (
        None,
        {"optimization.method": "nslq"},
        [r"got 'nslq'; expected one of nlsq, cmc, both; did you mean 'nlsq'\?"],
    ),
    "wrong mode": (
        "laminar",
        {},
        [r"analysis_mode: got 'laminar'; .* did you mean 'laminar_flow'"],
    ),
    "text in a list": (
        None,
        {"phi_filtering.include_angles": [1, "b"]},
        [r"include_angles: at \[1\] got 'b'; expected a number within ±360"],
    ),
    "range of three": (None, {"phi_filtering.ranges": [[1, 2, 3]]}, [r"ranges: at \[0\]"]),
    "nan in a prior": (
        None,
        {"parameters.v0": {"prior": "normal", "prior_params": {"loc": float("nan"), "scale": 1}}},
        ["prior_params: at loc got nan"],
    ),
    "refused": (
        None,
        {"hardware.numa_aware": True, "hardware.n_threads": 4, "streaming.buffer_size": 4},
        [
            "numa_aware: is not accepted. Bind from outside: numactl",
            "n_threads: is not accepted",
            "buffer_size: is not acc",
        ],
    ),
    "weights": (None, {"optimization.cmc.combination.weights": [1.0]}, ["own precision"]),
    "not compiled": (
        None,
        {"optimization.cmc.backend.jit_compile": False},
        ["expected one of True"],
    ),
    "key that is no text": (None, {"output": {3: 4}}, ["output.3: a key must be text"]),
    "true for a group": (
        None,
        {"parameters.reference": True},
        ["reference: got true; expected a sec"],
    ),
    "list for a group": (
        None,
        {"parameters.velocity": [1]},
        ["got a list of 1; expected a number"],
    ),
    # parameters
    "unknown parameter": (
        "static",
        {"parameters.D_0": 3},
        [r"parameters\.D_0: the model has no parameter of this name; did you mean 'D0'\?"],
    ),
    "parameter of another model": (
        "static",
        {"parameters.v0": 3},
        ["parameters.v0: .* It belongs to analysis_mode: two_component"],
    ),
    "group of another model": ("static", {"parameters.flow.beta": 1}, ["laminar_flow"]),
    "wrong group": (
        None,
        {"parameters.reference.D0_sample": 3e3},
        ["D0_sample belongs to the group sample, not to reference"],
    ),
    "min alone": (None, {"parameters.v0.min": 3}, ["parameters.v0.max: missing; give both"]),
    "max alone": (None, {"parameters.v0.max": 3e3}, ["parameters.v0.min: missing; give both"]),
    "min = max": (None, {"parameters.v0": {"min": 3, "max": 3}}, ["min must be less than max"]),
    "min > max": (None, {"parameters.v0": {"min": 9, "max": 3}}, ["min must be less than max"]),
    "outside": (None, {"parameters.v0": 2e4}, [r"parameters\.v0: value 20000 lies outside"]),
    "default outside": (
        None,
        {"parameters.v0": {"min": 1, "max": 5}},
        [r"parameters\.velocity\.v0|parameters\.v0: its default 1000 .* give a value"],
    ),
    "fixed outside": (None, {"parameters.beta": {"value": 3, "vary": False}}, ["value 3 lies"]),
    "prior without numbers": (None, {"parameters.v0.prior": "normal"}, ["needs 'loc' and 'scale'"]),
    "numbers without prior": (
        None,
        {"parameters.v0.prior_params": {"loc": 1}},
        ["give the family"],
    ),
    "unknown number of a prior": (
        None,
        {"parameters.v0": {"prior": "normal", "prior_params": {"loc": 1, "scal": 1}}},
        ["did you mean 'scale'"],
    ),
    "unknown prior": (None, {"parameters.v0.prior": "gauss"}, ["v0.prior: got 'gauss'"]),
    "prior without mass": (
        None,
        {"parameters.v0": {"prior": "uniform", "prior_params": {"low": 2e4, "high": 3e4}}},
        ["no probability inside its bounds"],
    ),
    "twice": (None, {"parameters.v0": 3, "parameters.v_0": 4}, ["given twice, as .* and as"]),
    "grouped and direct": (
        None,
        {"parameters.velocity.v0": 3, "parameters.v0": 4},
        ["given twice, as parameters.velocity.v0 and as parameters.v0"],
    ),
    "physics": (None, {"parameters.f0": 0.8, "parameters.f3": 0.8}, [r"f0 \+ f3 = 1.6 is above 1"]),
    "physics on the grid": (
        "static",
        {"parameters.D_offset": -5e3, "analyzer_parameters.end_frame": 50},
        [r"J\(t\) .* must be positive"],
    ),
    "divergence": (
        "static",
        {"parameters.alpha": -1.3, "analyzer_parameters.t0": 0},
        ["reach t = 0, where the integral"],
    ),
    # the flat form
    "flat lengths": (
        None,
        {"initial_parameters": {"parameter_names": ["v0"], "values": [1, 2]}},
        ["initial_parameters.values: got 2 values for 1 parameter_names"],
    ),
    "flat name": (
        None,
        {"initial_parameters": {"parameter_names": ["v00"], "values": [1]}},
        ["no parameter 'v00'; did you mean 'v0'"],
    ),
    "flat twice": (
        None,
        {"initial_parameters": {"parameter_names": ["v0", "v_0"], "values": [1, 2]}},
        ["v0 is listed more than once"],
    ),
    "flat active": (
        None,
        {"initial_parameters": {"active_parameters": ["v00"]}},
        ["active_parameters: the model has no parameter 'v00'"],
    ),
    "flat names alone": (
        None,
        {"initial_parameters": {"parameter_names": ["v0"]}},
        ["alone have no effect"],
    ),
    # what is needed
    "no data": (None, {"experimental_data": {}}, ["experimental_data.file_path: missing"]),
    "no q": (
        None,
        {"analyzer_parameters.scattering": {}},
        [r"analyzer_parameters\.scattering\.wavevector_q: missing"],
    ),
    "no gap": ("laminar_flow", {"analyzer_parameters.geometry": {}}, ["needs the gap"]),
    # what contradicts
    "gap for nothing": (
        "static",
        {"analyzer_parameters.geometry.stator_rotor_gap": 1},
        ["no effect"],
    ),
    "shear for nothing": ("static", {"model.shear_convention": "homodyne"}, ["no effect"]),
    "no frame": (None, {"analyzer_parameters.end_frame": 0}, ["-1 is the last"]),
    "one frame": (
        None,
        {"analyzer_parameters.start_frame": 9, "analyzer_parameters.end_frame": 9},
        ["got 9, which leaves fewer than two frames after frame 9"],
    ),
    "tolerance for nothing": (None, {"phi_filtering.tolerance": 3}, ["no effect without"]),
    "no angle": (None, {"phi_filtering.include_angles": []}, ["leaves no angle"]),
    "roi_axis": (None, {"experimental_data.roi_axis": "last"}, ["npy files only"]),
    "cache name": (
        None,
        {"experimental_data.cache_compression": True},
        ["without cache_file_path"],
    ),
    "multistart_n": (
        None,
        {"optimization.nlsq.multistart_n": 3},
        ["no effect without .*multistart: true; add it"],
    ),
    "uncertainty of a fit that is not reported": (
        None,
        {"optimization.nlsq.uncertainty": "residuals", "optimization.method": "cmc"},
        ["no effect without optimization.method: nlsq or both"],
    ),
    "loss_scale": (
        None,
        {"optimization.nlsq.loss_scale": 2},
        ["no effect without .*loss: soft_l1 or huber"],
    ),
    "factored": ("laminar_flow", {"optimization.nlsq.evaluator": "factored"}, ["separable"]),
    "factored and robust": (
        None,
        {"optimization.nlsq.evaluator": "factored", "optimization.nlsq.loss": "huber"},
        ["factored contradicts .*loss: huber"],
    ),
    "factored and streaming": (
        None,
        {"optimization.nlsq.evaluator": "factored", "streaming.enable": True},
        ["factored contradicts streaming.enable: true"],
    ),
    "never": (
        None,
        {"optimization.method": "cmc", "optimization.cmc.enable": "never"},
        ["never contradicts optimization.method: cmc"],
    ),
    "hmc": (None, {"optimization.hmc.step_size": 0.1}, ["backend.sampler: hmc; add it"]),
    "prior start": (
        None,
        {"optimization.cmc.initialization": {"method": "prior", "jitter_scale": 2}},
        ["no effect without .*method: nlsq"],
    ),
    "strata": (
        None,
        {"stratification.enable": True, "optimization.cmc.sharding.shard_strategy": "angles"},
        ["shard_strategy: angles contradicts stratification.enable: true. Use random"],
    ),
    "strata count": (
        None,
        {"stratification.enable": True, "stratification.n_strata": 3},
        ["without stratification.strategy: lag"],
    ),
    "off unless on": (None, {"streaming.chunk_size": 64}, ["without streaming.enable: true"]),
    "sequential": (None, {"sequential.max_iterations": 64}, ["without sequential.enable: true"]),
    "sequential sampling": (
        None,
        {"sequential.enable": True, "optimization.method": "both"},
        ["sequential.enable: true contradicts optimization.method: both"],
    ),
    "sequential fourier": (
        None,
        {"sequential.enable": True, "optimization.nlsq.per_angle_mode": "fourier"},
        ["fourier contradicts sequential.enable: true. Use auto"],
    ),
    "sequential twice": (
        None,
        {
            "sequential": {"enable": True, "max_iterations": 5, "convergence_threshold": 1e-3},
            "optimization.nlsq": {"max_iterations": 6, "tolerance": 1e-3},
        },
        [
            "max_iterations: has no effect together with sequential.max_iterations",
            "tolerance: has no effect together with sequential.convergence_threshold",
        ],
    ),
    "loss sampling": (
        None,
        {"optimization.nlsq.loss": "huber", "optimization.method": "cmc"},
        ["loss: huber contradicts optimization.method: cmc. Sampling needs"],
    ),
    "dt_source": (
        None,
        {"analyzer_parameters": {"dt_source": "config", "scattering": {"wavevector_q": 1e-2}}},
        ["dt is not given"],
    ),
    "two q": (
        None,
        {"scattering.wavevector_q": 0.02},
        ["is 0.02, but .*wavevector_q is 0.01"],
    ),
    "two dt": (None, {"temporal.dt": 0.2}, ["temporal.dt: is 0.2, but .* is 0.1; keep one"]),
    "two ends": (
        None,
        {"temporal.time_length": 5, "analyzer_parameters.end_frame": 6},
        ["time_length: is 5, but analyzer_parameters.end_frame is 6"],
    ),
    "two warm-ups": (
        None,
        {"optimization.cmc": {"num_warmup": 20, "per_shard_mcmc": {"num_warmup": 30}}},
        ["optimization.cmc.num_warmup: is 20, but"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_mistake_is_told_once(case):
    mode, changes, expected = WRONG[case]
    found = problems(changes, mode)
    assert len(found) == len(expected), found
    for words in expected:
        assert any(re.search(words, sentence) for sentence in found), (words, found)
    assert all("\n" not in sentence and sentence[-1] in ".?" for sentence in found)


def test_all_mistakes_at_once():
    found = problems(
        {
            "analyzer_parameters.dt": "x",
            "analyzer_parameters.end_frame": 0,
            "modle": {},
            "parameters.v0": {"value": 2e4, "vary": "yes please"},
            "parameters.f0": 7,
            "hardware.numa_aware": False,
            "optimization": {"method": "x", "nlsq": {"multistart_n": 3}},
        }
    )
    assert len(found) == 8, found


# forms that mean the same

SAME = {
    "legacy sections": (
        {"temporal": {"dt": 0.1, "time_length": 50, "t_start": 4}},
        {"analyzer_parameters.start_frame": 5, "analyzer_parameters.end_frame": 54},
    ),
    "top-level scattering": (
        {"scattering": {"wavevector_q": 0.01, "phi_angles": [1, 2]}},
        {"analyzer_parameters.scattering.phi_angles": [1, 2]},
    ),
    "analysis": (
        {
            "analysis": {
                "method": "both",
                "q": 0.01,
                "dt": 0.1,
                "phi_angles": [3],
                "scaling_mode": "fourier",
            }
        },
        {
            "optimization.method": "both",
            "analyzer_parameters.scattering.phi_angles": [3],
            "optimization.nlsq.per_angle_mode": "fourier",
        },
    ),
    "short cmc keys": (
        {"optimization.cmc": {"num_samples": 50, "target_accept": 0.9, "r_hat_threshold": 1.1}},
        {
            "optimization.cmc.per_shard_mcmc": {"num_samples": 50, "target_accept_prob": 0.9},
            "optimization.cmc.validation": {"max_r_hat": 1.1},
        },
    ),
    "prior width": (
        {"optimization.nlsq.prior_width_factor": 2},
        {"optimization.nlsq.nlsq_prior_width_factor": 2},
    ),
    "empty values": (
        {"output": None, "analyzer_parameters.t0": None, "parameters": {"v0": None, "angle": None}},
        {},
    ),
    "numbers of numpy": (
        {
            "analyzer_parameters.dt": np.float64(0.1),
            "analyzer_parameters.start_frame": np.int64(3),
            "phi_filtering.include_angles": np.array([1.0, 2.0]),
        },
        {"analyzer_parameters.start_frame": 3, "phi_filtering.include_angles": [1.0, 2.0]},
    ),
    "whole floats": (
        {"analyzer_parameters.end_frame": 1e3},
        {"analyzer_parameters.end_frame": 1000},
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_other_forms_mean_the_same(case):
    written, meant = SAME[case]
    one, two = read(config(written)), read(config(meant))
    assert one[2].problems == two[2].problems == []
    assert _without_empty(one[0]) == _without_empty(two[0])


def _without_empty(section):
    if not isinstance(section, dict):
        return section
    inner = {name: _without_empty(value) for name, value in section.items()}
    return {name: value for name, value in inner.items() if value != {}}


PARAMETERS = {
    "grouped": {"parameters": {"velocity": {"v0": {"value": 5.0, "vary": False}}}},
    "direct": {"parameters": {"v0": {"value": 5.0, "vary": False}}},
    "alias in the group": {"parameters": {"velocity": {"v_0": {"value": 5.0, "vary": False}}}},
    "alias": {"parameters": {"v_0": {"value": 5.0, "vary": False}}},
    "alias that is a group": {"parameters": {"velocity": {"value": 5.0, "vary": False}}},
    "analyzer_parameters": {
        "analyzer_parameters": {"velocity": {"v0": {"value": 5.0, "vary": False}}}
    },
    "flat": {
        "initial_parameters": {
            "parameter_names": ["velocity"],
            "values": [5],
            "active_parameters": [
                *("D0_ref", "alpha_ref", "D_offset_ref", "D0_sample", "alpha_sample"),
                *("D_offset_sample", "beta", "v_offset", "f0", "f1", "f2", "f3", "phi0"),
            ],
        }
    },
    "grouped wins over flat": {
        "parameters": {"velocity": {"v0": {"value": 5.0, "vary": False}}},
        "initial_parameters": {"parameter_names": ["v0", "f0"], "values": [7, 0.5]},
    },
}


@pytest.mark.parametrize("form", PARAMETERS)
def test_parameters_in_every_form(form):
    _, space, found = read(PARAMETERS[form], is_whole=False)
    assert found.problems == []
    assert space.values["v0"] == 5 and not space.vary["v0"]
    assert sum(space.vary.values()) == (15 if form == "flat" else 10)


def test_a_number_is_a_value():
    for written in ({"velocity": 5}, {"velocity": {"v0": 5}}, {"v0": 5}, {"v_0": 5.0}):
        _, space, found = read({"parameters": written}, is_whole=False)
        assert found.problems == [] and space.values["v0"] == 5 and space.vary["v0"]


def test_active_parameters_leave_scaling_free_unless_it_is_listed():
    flat = {"active_parameters": ["D0"]}
    for written, varying in (
        (flat, ["D0", "contrast", "offset"]),
        (flat | {"parameter_names": ["contrast"], "values": [0.2]}, ["D0", "offset"]),
        ({"active_parameters": ["D0", "offset"]}, ["D0", "contrast", "offset"]),
    ):
        _, space, found = read(
            {"analysis_mode": "static", "initial_parameters": written}, is_whole=False
        )
        assert found.problems == [] and space.varying_names == varying


def test_priors_of_every_family():
    numbers = {
        "uniform": {},
        "normal": {"loc": 1e3, "scale": 10},
        "truncated_normal": {"loc": 1e3, "scale": 10},
        "lognormal": {"loc": 7, "scale": 1},
        "halfnormal": {"scale": 1e3},
        "exponential": {"rate": 1e-3},
        "beta_scaled": {"concentration1": 2, "concentration2": 3.5},
    }
    for kind, params in numbers.items():
        entry = {"prior": kind, "prior_params": params} if params else {"prior": kind}
        _, space, found = read({"parameters": {"v0": entry}}, is_whole=False)
        assert found.problems == []
        prior = space.priors["v0"]
        assert prior.prior_type.value == kind
        if "low" in prior.params:
            assert prior.support == space.bounds["v0"]


def test_remarks():
    _, _, found = read(config({"analyzer_parameters.scattering.wavevector_q": 2.0}))
    assert found.problems == [] and "1/nm is ten times" in found.remarks[0]
    _, _, found = read(config({"parameters.contrast": 0.05}))
    assert found.problems == [] and "contrast = 0.05" in found.remarks[0]
    far = {"parameters.D0": 6e4, "optimization.method": "cmc"}
    _, _, found = read(config(far, "static"))
    assert found.problems == found.remarks == [], "a default prior does not count"
    _, _, found = read(config({"parameters.D0": 6e4}, "static"))
    assert found.problems == found.remarks == [], "a fit does not care"
    _, _, found = read(config({"parameters.phi0": 3.0, "temporal.t_start": 0}))
    assert found.problems == [] and "need the opposite sign" in found.remarks[0]


def test_the_first_frame_is_at_dt_where_nothing_else_is_said():
    """At t = 0 a transport with alpha < -1 would diverge."""
    steep = {"parameters.alpha": -1.3, "analyzer_parameters.end_frame": 50}
    assert not problems(steep, "static")
    assert "reach t = 0" in problems(steep | {"analyzer_parameters.t0": 0.0}, "static")[0]


def test_reading_does_not_change_what_is_read():
    written = config({"temporal.t_start": 2, "parameters.v_0": 3})
    before = repr(written)
    read(written)
    assert repr(written) == before


def test_not_a_mapping():
    for thing in (None, 3, "text", [1]):
        _, space, found = read(thing)
        assert space is None and "is a mapping of sections" in found.problems[0]


def test_canonical_form_reads_to_itself():
    canonical, _, _ = read(config({"temporal.t_start": 2, "parameters.v_0": 3}))
    assert read(canonical)[0] == canonical


# the parts


def test_mistakes():
    found = Mistakes()
    found.written[("a", "b")] = "old.b"
    found.add(("a", "b", "c"), "is wrong.")
    assert found.problems == ["old.b.c: is wrong."]
    assert found.is_wrong(("a",)) and found.is_wrong(("a", "b", "c", "d"))
    assert not found.is_wrong(("a", "x"))
    found.remark(("x",), "is odd.")
    assert found.remarks == ["x: is odd."]


def test_paths():
    tree = {}
    store(tree, ("a", "b"), 1)
    assert tree == {"a": {"b": 1}} and lookup(tree, ("a", "b")) == 1
    assert lookup(tree, ("a", "c")) is None and lookup(tree, ("a", "b", "c")) is None
    discard(tree, ("a", "b"))
    discard(tree, ("x", "y"))
    assert tree == {"a": {}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        ("x" * 50, repr("x" * 37 + "...")),
        ({}, "a section"),
        ([1, 2], "a list of 2"),
        (1.5, "1.5"),
        (10**20, "a whole number of more than 15 digits"),
        (b"x", "a bytes"),
    ],
)
def test_values_as_sentences_quote_them(value, text):
    assert show(value) == text


def test_every_key_says_what_it_does():
    for path, key in walk(HeterodyneConfig):
        assert key.effect and key.expected() and key.type_text(), path
        if key.default is not None:
            assert not key.extra("otherwise") and not key.refused, path


def test_defaults_are_valid():
    """Each default, written out, is accepted by the validation."""
    for path, key in walk(HeterodyneConfig):
        if key.default is not None and not {"parameters", *GROUPS} & set(path):
            written = {}
            store(written, path, key.default)
            found = read(written, is_whole=False)[2]
            assert not [sentence for sentence in found.problems if "expected" in sentence], path


def test_key_words():
    assert (
        fields(NLSQOptimizationConfig)["loss_scale"].range_text() == "more than 0 and at most 1e+06"
    )
    angles = fields(ScatteringConfig)["phi_angles"]
    assert angles.item().range_text() == "within ±360"
    assert angles.expected() == "a list of numbers [degree]"
    assert fields(NLSQOptimizationConfig)["method"].expected() == "one of lm"
