"""The bridge between spaces and solvers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twotime.config.parameter_manager import ParameterManager
from twotime.config.parameter_names import ANALYSIS_MODES, PARAMETER_GROUPS
from twotime.config.parameter_registry import REGISTRIES
from twotime.config.parameter_space import ParameterSpace

modes = pytest.mark.parametrize("mode", ANALYSIS_MODES)


def manager_of(mode, fixed=()):
    vary = {name: name not in fixed for name in (*REGISTRIES[mode].names, *fixed)}
    return ParameterManager(ParameterSpace(vary=vary, registry=REGISTRIES[mode]))


def frozen(tree):
    leaves, structure = jax.tree.flatten(tree)
    return [np.asarray(leaf).tobytes() for leaf in leaves], str(structure)


@modes
def test_counts(mode):
    n = len(REGISTRIES[mode].names)
    manager = manager_of(mode, fixed=["contrast", REGISTRIES[mode].names[0]])
    assert manager.n_params == n and manager.n_varying == n - 1
    assert manager.get_effective_parameter_count() == n - 1
    assert manager.get_total_parameter_count() == n + 2
    assert manager.get_all_parameter_names() == ["contrast", "offset", *REGISTRIES[mode].names]
    assert manager.get_active_parameters() == list(REGISTRIES[mode].names[1:])
    assert manager.get_optimizable_parameters() == manager.get_active_parameters()
    first = REGISTRIES[mode].names[0]
    assert manager.get_fixed_parameters() == {first: REGISTRIES[mode][first].default}
    assert not manager.is_parameter_active(first) and manager.is_parameter_active(
        "alpha" if (mode != "two_component") else "alpha_ref"
    )
    assert not manager.is_parameter_active("offset"), "scaling is never active"


@given(data=st.data())
def test_expand_and_extract_are_inverse(data):
    mode = data.draw(st.sampled_from(ANALYSIS_MODES))
    names = REGISTRIES[mode].names
    manager = manager_of(mode, fixed=data.draw(st.sets(st.sampled_from(names))))
    numbers = st.lists(st.floats(-1e6, 1e6), min_size=manager.n_varying, max_size=manager.n_varying)
    varying = np.array(data.draw(numbers), np.float64)
    full = manager.expand_varying_to_full(varying)
    assert full.shape == (manager.n_params,)
    np.testing.assert_array_equal(manager.extract_varying(full), varying)
    np.testing.assert_array_equal(
        manager.expand_varying_to_full(manager.extract_varying(full)), full
    )
    fixed = manager.get_fixed_parameters()
    assert {n: v for n, v in zip(names, full, strict=True) if n in fixed} == fixed


@modes
def test_expand_and_extract_under_jit_and_grad(mode):
    manager = manager_of(mode, fixed=[REGISTRIES[mode].names[1]])
    x = jnp.arange(1.0, manager.n_varying + 1)
    full = jax.jit(lambda m, v: m.expand_varying_to_full(v))(manager, x)
    np.testing.assert_array_equal(jax.jit(lambda m, v: m.extract_varying(v))(manager, full), x)
    slope = jax.grad(lambda v: jnp.sum(manager.expand_varying_to_full(v) ** 2))(x)
    np.testing.assert_allclose(slope, 2 * x)
    assert isinstance(manager.expand_varying_to_full(np.asarray(x)), np.ndarray)


def test_start_stays_when_values_change():
    manager = manager_of("static", fixed=["alpha"])
    moved = manager.update_values({"D0": 777.0}).update_values(np.array([888.0, 0.1, 1.0]))
    assert moved.get_full_values().tolist() == [888.0, 0.1, 1.0]
    assert moved.get_initial_values().tolist() == [1e3, 10.0]
    assert manager.get_full_values().tolist() == [1e3, 0.5, 10.0]
    assert moved.get_parameter_dict()["D0"] == 888 and moved.get_parameter_dict()["offset"] == 1
    with pytest.raises(ValueError, match="read-only"):
        moved.get_full_values()[0] = 0


CHANGES = {
    "update_values": lambda m: m.update_values({"contrast": 0.2}),
    "set_vary": lambda m: m.set_vary("contrast", False),
    "set_bounds": lambda m: m.set_bounds("contrast", 0.1, 0.9),
}


@modes
@pytest.mark.parametrize("change", CHANGES)
def test_changing_leaves_the_original_alone(mode, change):
    manager = manager_of(mode)
    before = frozen(manager)
    changed = CHANGES[change](manager)
    assert frozen(manager) == before and frozen(changed) != before
    assert isinstance(changed, ParameterManager)


def test_changes_take_effect():
    manager = manager_of("static").set_vary("alpha", False).set_bounds("D0", 200.0, 300.0)
    assert manager.get_active_parameters() == ["D0", "D_offset"]
    lower, upper = manager.get_bounds()
    assert lower.tolist() == [200.0, -1e5] and upper.tolist() == [300.0, 1e5]
    assert manager.space.priors["D0"].support == (200.0, 300.0)


def test_bounds_answer_in_the_order_asked():
    manager = ParameterManager()
    asked = ["phi0", "contrast", "D0_ref", "f3"]
    expected = [(-10.0, 10.0), (0.0, 1.0), (100.0, 1e6), (0.0, 1.0)]
    assert manager.get_bounds_as_tuples(asked) == expected
    assert manager.get_bounds_as_tuples(asked[::-1]) == expected[::-1]
    lower, upper = manager.get_bounds_as_arrays(asked)
    assert lower.tolist() == [low for low, _ in expected]
    assert upper.tolist() == [high for _, high in expected]
    bounds = manager.get_parameter_bounds(["f3"])
    assert bounds == [{"name": "f3", "min": 0.0, "max": 1.0, "type": "truncated_normal"}]
    assert [b["name"] for b in manager.get_parameter_bounds()] == list(manager.space.all_names)
    assert len(manager.get_bounds_as_tuples()) == 16
    assert [b.shape for b in manager.get_bounds_as_arrays([])] == [(0,), (0,)]
    with pytest.raises(ValueError, match="did you mean 'phi0'"):
        manager.get_bounds_as_tuples(["phi"])


@given(st.permutations(list(ParameterSpace().all_names)))
def test_any_order(names):
    manager = ParameterManager()
    known = manager.space.bounds
    assert manager.get_bounds_as_tuples(names) == [known[name] for name in names]


@modes
def test_groups(mode):
    manager = manager_of(mode)
    for group, names in PARAMETER_GROUPS[mode].items():
        values = manager.get_group_values(group)
        assert list(values) == list(names)
        assert all(values[name] == manager.space.values[name] for name in names)
    with pytest.raises(KeyError, match="no group 'nowhere'"):
        manager.get_group_values("nowhere")


def test_wrong_shapes_and_names_are_refused():
    manager = manager_of("static", fixed=["alpha"])
    with pytest.raises(ValueError, match="each of the 2 varying parameters"):
        manager.expand_varying_to_full(np.zeros(3))
    with pytest.raises(ValueError, match="each of the 3 physics parameters"):
        manager.extract_varying(np.zeros(2))
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        manager.update_values(np.zeros(2))
    for call in (
        lambda: manager.set_vary("v0", True),
        lambda: manager.set_bounds("v0", 0.0, 1.0),
        lambda: manager.is_parameter_active("v0"),
        lambda: manager.update_values({"v0": 1.0}),
    ):
        with pytest.raises(KeyError, match="no parameter 'v0'"):
            call()


def test_from_config():
    manager = ParameterManager.from_config(
        {"analysis_mode": "static", "parameters": {"D0": {"value": 200, "vary": False}}}
    )
    assert manager.get_fixed_parameters() == {"D0": 200.0, "D_offset": 0.0}


def test_physics_of_stored_and_other_values():
    manager = ParameterManager()
    assert manager.validate_physics() == []
    assert manager.validate_physical_constraints().is_valid
    result = manager.validate_physical_constraints({"f0": 0.7, "f3": 0.6})
    assert not result.is_valid and "f0 + f3" in result.errors[0]
    array = manager.get_full_values().copy()
    array[0] = -1.0
    assert "D0_ref" in manager.validate_physics(array)[0]
    assert manager.validate_physics() == [], "judging does not change the values"


def test_is_a_tree_of_numbers():
    manager = ParameterManager()
    assert all(isinstance(leaf, np.ndarray | np.generic) for leaf in jax.tree.leaves(manager))
    traces = []
    total = eqx.filter_jit(lambda m: (traces.append(1), jnp.sum(m.get_full_values()))[1])
    changed = manager.update_values({"D0_ref": 5.0, **manager.space.values})
    total(changed)
    total(changed.update_values({"D0_ref": 7.0}))
    assert len(traces) == 1
