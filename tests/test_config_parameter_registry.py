"""The registry of parameters against the table of the models."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.config.parameter_registry import REGISTRIES, ParameterInfo, ParameterRegistry

# name: default, min, max, log, prior location, prior scale
TABLE = {
    "two_component": {
        "D0_ref": (1e4, 100, 1e6, True, 1e4, 1e4),
        "D0_sample": (1e4, 100, 1e6, True, 1e4, 1e4),
        "alpha_ref": (0, -5, 5, False, 0, 1),
        "alpha_sample": (0, -5, 5, False, 0, 1),
        "D_offset_ref": (0, -1e5, 1e5, False, 0, 1e3),
        "D_offset_sample": (0, -1e5, 1e5, False, 0, 1e3),
        "v0": (1e3, 1e-6, 1e4, True, 1e3, 1e3),
        "beta": (0, -2, 2, False, 0, 1),
        "v_offset": (0, -100, 100, False, 0, 25),
        "f0": (0.5, 0, 1, False, 0.5, 0.25),
        "f1": (0, -10, 10, False, 0, 5),
        "f2": (0, -1e4, 1e4, False, 0, 1e3),
        "f3": (0, 0, 1, False, 0, 0.5),
        "phi0": (0, -10, 10, False, 0, 5),
        "contrast": (0.5, 0, 1, False, 0.5, 0.25),
        "offset": (1, 0.5, 1.5, False, 1, 0.25),
    },
    "laminar_flow": {
        "D0": (1e3, 100, 1e5, True, 1e3, 1e3),
        "alpha": (0.5, -2, 2, False, 0.5, 0.5),
        "D_offset": (10, -1e5, 1e5, False, 10, 200),
        "gamma_dot_t0": (0.01, 1e-6, 0.5, True, 0.01, 0.1),
        "beta": (0.5, -2, 2, False, 0, 0.5),
        "gamma_dot_t_offset": (0, -0.1, 0.1, False, 0, 0.02),
        "phi0": (0, -10, 10, False, 0, 5),
        "contrast": (0.5, 0, 1, False, 0.5, 0.25),
        "offset": (1, 0.5, 1.5, False, 1, 0.25),
    },
}
STATIC = ("D0", "alpha", "D_offset", "contrast", "offset")
TABLE["static"] = {name: TABLE["laminar_flow"][name] for name in STATIC}
MINE = ParameterInfo("tau", 1.0, 1e-3, 1e3, "Relaxation time", unit="s", log_space=True)


@pytest.mark.parametrize("mode", TABLE)
def test_table(mode):
    registry = REGISTRIES[mode]
    assert set(registry) == set(TABLE[mode]) and len(registry) == len(TABLE[mode])
    for name, (default, low, high, log, loc, scale) in TABLE[mode].items():
        info = registry[name]
        assert (info.default, info.min_bound, info.max_bound) == (default, low, high)
        assert (info.log_space, info.prior_mean, info.prior_std) == (log, loc, scale)
        assert info.is_scaling == (name in ("contrast", "offset")) == (not info.is_physical)
        assert info.group and info.description and isinstance(info.default, float)


def test_flow_parameters_and_units():
    registry = ParameterRegistry()
    flow = [name for name in registry if registry[name].is_flow]
    assert flow == ["v0", "beta", "v_offset", "phi0"]
    assert registry["D0_ref"].unit == "Å²/s^(1+α)" and registry["f1"].unit == "1/s"


def test_numbers_that_agree_are_one_object():
    homodyne, heterodyne = REGISTRIES["laminar_flow"], REGISTRIES["two_component"]
    assert eqx.tree_equal(homodyne["phi0"], heterodyne["phi0"])
    assert homodyne["beta"].default != heterodyne["beta"].default


def test_registry_queries():
    registry = ParameterRegistry()
    assert registry.analysis_mode == "two_component"
    lower, upper = registry.get_bounds()
    assert isinstance(lower, list) and len(lower) == len(upper) == 16
    assert registry.get_log_space_names() == ["D0_ref", "D0_sample", "v0"]
    fixed = {"D_offset_ref", "D_offset_sample", "v_offset", "f2", "f3"}
    names = [list(registry)[i] for i in registry.get_varying_indices({})]
    assert names == [name for name in registry if name not in fixed]
    assert registry.get_varying_indices({name: name == "f1" for name in registry}) == [10]
    with pytest.raises(ValueError, match="did you mean 'v0'"):
        registry.get_varying_indices({"v00": True})
    with pytest.raises(KeyError, match="no parameter 'tau'"):
        registry["tau"]


def test_extending_makes_a_new_registry():
    old = REGISTRIES["static"]
    before = jax.tree.leaves(old)
    new = old.extended(MINE)
    assert "tau" in new and "tau" not in old and "tau" in new.names
    assert list(new)[-2:] == ["contrast", "offset"], "scaling stays last"
    assert all(a is b for a, b in zip(before, jax.tree.leaves(old), strict=True))
    changed = new.extended(dataclasses.replace(MINE, default=2.0))
    assert changed["tau"].default == 2 and new["tau"].default == 1
    assert list(changed) == list(new)


def test_subset_keeps_the_order_asked_for():
    registry = REGISTRIES["laminar_flow"].subset(["phi0", "D0"])
    assert registry.names == ("phi0", "D0") and registry.scaling_names == ("contrast", "offset")
    assert registry.analysis_mode == ""
    whole = REGISTRIES["laminar_flow"]
    assert whole.subset(whole.names) is whole


def test_prior_defaults_from_bounds():
    assert MINE.prior_location == pytest.approx(500.0005)
    assert MINE.prior_scale == pytest.approx(499.9995)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"default": 5e3}, "between them"),
        ({"min_bound": 2e3}, "between them"),
        ({"max_bound": np.inf}, "finite"),
        ({"prior_std": 0.0}, "prior_std must be > 0"),
        ({"name": "my tau"}, "a word"),
    ],
)
def test_wrong_info_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(MINE, **changes)


def test_a_name_twice_is_refused():
    with pytest.raises(ValueError, match="tau more than once"):
        ParameterRegistry([MINE, MINE])


def test_numbers_are_leaves_and_names_are_static():
    registry = REGISTRIES["two_component"]
    assert all(isinstance(leaf, np.floating) for leaf in jax.tree.leaves(registry))
    traces = []

    @jax.jit
    def width(info):
        traces.append(info.name)
        return info.max_bound - info.min_bound

    assert width(MINE) == pytest.approx(999.999)
    assert width(dataclasses.replace(MINE, max_bound=2e3)) == pytest.approx(1999.999)
    assert traces == ["tau"], "other numbers do not compile again"
    stacked = jax.tree.map(lambda *x: jnp.stack(x), MINE, dataclasses.replace(MINE, default=2.0))
    np.testing.assert_allclose(jax.vmap(lambda info: info.default)(stacked), [1, 2])
