"""Spaces: what is in them, what makes others of them, what is wrong with them."""

import copy

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twotime.config.parameter_names import ANALYSIS_MODES
from twotime.config.parameter_registry import REGISTRIES, ParameterInfo
from twotime.config.parameter_space import ParameterSpace, clamp_to_open_interval
from twotime.config.priors import PriorDistribution
from twotime.errors import ConfigurationError
from twotime.sample.coordinates import interval_to_real, real_to_interval

P = PriorDistribution
modes = pytest.mark.parametrize("mode", ANALYSIS_MODES)


def space_of(mode, **kwargs):
    return ParameterSpace(registry=REGISTRIES[mode], **kwargs)


def frozen(space):
    """Everything in a space, as bytes and plain values."""
    leaves, structure = jax.tree.flatten(space)
    return [np.asarray(leaf).tobytes() for leaf in leaves], str(structure)


@st.composite
def requests(draw):
    """Arguments inside the domain: finite bounds, values between them, any flags, some priors."""
    mode = draw(st.sampled_from(ANALYSIS_MODES))
    registry = REGISTRIES[mode]
    values, bounds, vary, priors = {}, {}, {}, {}
    for name in draw(st.sets(st.sampled_from(tuple(registry)), max_size=6)):
        info = registry[name]
        width = float(info.max_bound - info.min_bound)
        low = float(info.min_bound) + width * draw(st.floats(0, 0.4))
        high = low + width * draw(st.floats(0.01, 3))
        bounds[name] = (low, high)
        values[name] = min(max(low + draw(st.floats(0, 1)) * (high - low), low), high)
        vary[name] = draw(st.booleans())
        if draw(st.booleans()):
            priors[name] = (low, high)
    # what is left to its default must be physical beside what is drawn
    if mode == "two_component" and values.get("f0", 0.5) + values.get("f3", 0.0) > 1:
        values["f3"], bounds["f3"] = 0.0, (0.0, 1.0)
        values["f0"], bounds["f0"] = 0.5, (0.0, 1.0)
        priors.pop("f3", None), priors.pop("f0", None)
    for name, unphysical in (("contrast", 0.01), ("f0", 0.0), ("f3", 0.0)):
        if name in values and not unphysical <= values[name] <= 1:
            values[name], bounds[name] = 0.5 if name != "f3" else 0.0, (0.0, 1.0)
            priors.pop(name, None)
    return mode, values, vary, bounds, priors


@modes
def test_defaults_and_leaves(mode):
    space, registry = space_of(mode), REGISTRIES[mode]
    n = len(registry.names)
    assert space.names == registry.names and space.analysis_mode == mode
    for array in (space.initial, space.lower, space.upper, space.scale):
        assert isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape == (n,)
    for array in (space.scaling_initial, space.scaling_lower, space.scaling_upper):
        assert isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape == (2,)
    assert all(isinstance(leaf, np.ndarray | np.generic) for leaf in jax.tree.leaves(space))
    assert space.n_total == n + 2 and space.validate() == []
    assert not space.given.any() and space.scaling_varying == (1, 1)
    assert not space.own_bounds.any()
    for name in registry:
        info = registry[name]
        assert space.vary[name] == info.vary_default
        assert space.values[name] == (info.default if info.vary_default else 0.0)
        assert space.bounds[name] == (info.min_bound, info.max_bound)
        expected = (info.prior_mean, info.prior_std, info.min_bound, info.max_bound)
        assert tuple(space.priors[name].params.values()) == expected
    assert [n for n, log in zip(space.names, space.log_space, strict=True) if log] == (
        registry.get_log_space_names()
    )
    assert space.units == tuple(registry[name].unit for name in space.names)
    np.testing.assert_array_equal(space.scale, [registry[n].prior_std for n in space.names])


def test_the_model_follows_from_the_names():
    assert ParameterSpace().analysis_mode == "two_component"
    assert ParameterSpace(values={"D0": 500.0}).analysis_mode == "static"
    assert ParameterSpace(vary={"gamma_dot_t0": False}).analysis_mode == "laminar_flow"
    assert ParameterSpace(bounds={"beta": (-1, 1)}).analysis_mode == "two_component"
    with pytest.raises(ValueError, match="No model has all of the parameters D0, v0"):
        ParameterSpace(values={"D0": 500.0, "v0": 1.0})
    with pytest.raises(KeyError, match="did you mean 'D0_ref'"):
        ParameterSpace(values={"D0_rf": 500.0})


def test_dictionaries_are_fresh():
    space = ParameterSpace()
    before = frozen(space)
    space.values["D0_ref"] = 1.0
    space.vary["D0_ref"] = False
    space.bounds.clear()
    space.priors.clear()
    space.get_initial_array()[:] = 0
    space.get_bounds_arrays()[0][:] = 0
    assert frozen(space) == before
    with pytest.raises(AttributeError):
        space.initial = np.zeros(14)


CHANGES = {
    "with_values": lambda s: s.with_values({"contrast": 0.2}),
    "update_from_dict": lambda s: s.update_from_dict({"offset": 1.1}),
    "with_vary": lambda s: s.with_vary({"contrast": False}),
    "with_bounds": lambda s: s.with_bounds({"contrast": (0.1, 0.9)}),
    "with_priors": lambda s: s.with_priors({"contrast": P.uniform(0.0, 1.0)}),
    "convert_to_beta_priors": lambda s: s.convert_to_beta_priors(),
    "with_single_angle_stabilization": lambda s: s.with_single_angle_stabilization(),
}


@modes
@pytest.mark.parametrize("change", CHANGES)
def test_changing_leaves_the_original_alone(mode, change):
    space = space_of(mode)
    before = frozen(space)
    changed = CHANGES[change](space)
    assert frozen(space) == before
    assert frozen(changed) != before
    assert isinstance(changed, ParameterSpace)


def test_what_the_registry_fixes_varies_where_it_is_asked_for():
    for name in ("D_offset", "gamma_dot_t_offset"):
        assert not space_of("laminar_flow", values={name: 0.02}).vary[name]
        for asked in (
            {"vary": {name: True}},
            {"bounds": {name: (-0.1, 0.2)}},
            {"priors": {name: P.normal(0.0, 0.1)}},
        ):
            space = space_of("laminar_flow", **asked)
            assert space.vary[name] and space.values[name] == space.registry[name].default
        assert not space_of("laminar_flow", vary={name: False}, bounds={name: (-1, 1)}).vary[name]
    assert space_of("static", values={"D_offset": 3.0}).values["D_offset"] == 3


def test_values_are_given_once_they_are_given():
    space = space_of("static", values={"alpha": 0.1})
    assert space.given.tolist() == [0, 1, 0]
    assert space.with_values({"D0": 200.0}).given.tolist() == [1, 1, 0]
    assert space.with_bounds({"D_offset": (-1, 11)}).own_values is space.own_values
    assert space.with_values({"contrast": 0.2}).given.tolist() == [0, 1, 0]


def test_bounds_cut_default_priors_anew_and_no_others():
    mine = P.normal(0.0, 3.0)
    space = space_of("static", priors={"alpha": mine})
    changed = space.with_bounds({"D0": (500.0, 2000.0), "alpha": (-1.0, 1.0)})
    assert changed.priors["D0"].params == {"loc": 1e3, "scale": 1e3, "low": 500, "high": 2000}
    assert changed.priors["alpha"] is mine
    assert changed.priors["D_offset"].params == space.priors["D_offset"].params
    again = changed.with_bounds({"D0": (1.0, 5.0)})
    assert again.priors["D0"].support == (1.0, 5.0)
    explicit = space.with_priors({"D0": space.priors["D0"]}).with_bounds({"D0": (500.0, 2000.0)})
    assert explicit.priors["D0"].support == (100.0, 1e5), "a prior that was asked for stays"


def test_logarithm_needs_positive_bounds():
    assert space_of("static").log_space[0]
    assert not space_of("static", bounds={"D0": (-5.0, 1e4)}).log_space[0]
    assert space_of("static").with_bounds({"D0": (0.0, 1e4)}).log_space == (False,) * 3
    back = space_of("static", bounds={"D0": (0.0, 1e4)}).with_bounds({"D0": (1.0, 1e4)})
    assert back.log_space[0]


def test_single_angle_stabilization():
    space = ParameterSpace({"contrast": 0.1, "offset": 1.0}).with_single_angle_stabilization()
    assert space.bounds["contrast"] == (0.0, pytest.approx(0.3))
    assert space.bounds["offset"] == (pytest.approx(0.9), pytest.approx(1.1))
    assert space.priors["offset"].support == space.bounds["offset"]
    assert space.values["contrast"] == 0.1 and space.validate() == []


def test_convert_to_beta_priors_leaves_other_families():
    mine = P.exponential(1.0)
    space = space_of("static", priors={"D0": mine}).convert_to_beta_priors()
    kinds = {name: prior.prior_type.value for name, prior in space.priors.items()}
    assert kinds.pop("D0") == "exponential" and set(kinds.values()) == {"beta_scaled"}


def test_domain_is_bounds_and_support():
    space = space_of("static", priors={"alpha": P.exponential(1.0)})
    assert space.domain("alpha") == (0.0, 2.0) and space.domain("D0") == (100.0, 1e5)


FAULTS = {
    "value above": ({"values": {"f0": 1.5}}, "f0: value 1.5 lies outside its bounds [0, 1]"),
    "value below": ({"values": {"alpha_ref": -9.0}}, "alpha_ref: value -9 lies outside"),
    "bounds crossed": ({"bounds": {"f1": (3.0, -3.0)}}, "f1: min must be less than max"),
    "bounds equal": ({"bounds": {"f1": (3.0, 3.0)}}, "f1: min must be less than max"),
    "scaling bounds": ({"bounds": {"contrast": (0.9, 0.1)}}, "contrast: min must be less"),
    "scaling value": ({"values": {"offset": 9.0}}, "offset: value 9 lies outside"),
    "default outside": ({"bounds": {"v0": (1.0, 5.0)}}, "v0: its default 1000 lies outside"),
    "fixed outside": (
        {"values": {"beta": 7.0}, "vary": {"beta": False}},
        "beta: value 7 lies outside",
    ),
    "v0 = 0 varying": ({"values": {"v0": 0.0}}, "v0: value 0 lies outside"),
    "D0 = 0 fixed": (
        {"values": {"D0_ref": 0.0}, "vary": {"D0_ref": False}},
        "D0_ref: value 0 lies outside",
    ),
    "prior elsewhere": (
        {"priors": {"f2": P.normal(5e5, 1.0)}},
        "f2: its normal prior has no probability inside its bounds",
    ),
    "value outside prior": (
        {"priors": {"f2": P.uniform(5.0, 10.0)}},
        "f2: value 0 lies outside the support [5, 10] of its prior",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_validate_finds_each_planted_fault(fault):
    planted, sentence = FAULTS[fault]
    found = ParameterSpace(**planted).validate()
    assert len(found) == 1 and sentence in found[0]


def test_validate_finds_what_surgery_plants():
    space = ParameterSpace()
    nan = eqx.tree_at(lambda s: s.all_values, space, space.all_values * np.nan)
    assert len(nan.validate()) == 16 and "must be finite" in nan.validate()[0]
    own = space.with_priors({"D0_ref": P.normal(1e3, 10.0)})
    negative = eqx.tree_at(lambda s: s.own_priors[0].numbers, own, np.array([1e3, -10.0]))
    assert "scale > 0" in negative.validate()[0]
    all_of_them = ParameterSpace({"f0": 1.5, "f3": -1.0, "contrast": 2.0}).validate()
    assert [fault.split(":")[0] for fault in all_of_them] == ["f0", "f3", "contrast"]


def test_default_priors_do_not_matter_unless_they_are_given():
    space = space_of("static", values={"D0": 9e4}, bounds={"D0": (5e4, 1e5)})
    assert space.validate() == []
    asked = space.with_priors({"D0": space.priors["D0"]})
    assert "D0: its truncated_normal prior has no probability" in asked.validate()[0]


def test_no_flow_may_be_fixed():
    for mode, name in (("two_component", "v0"), ("laminar_flow", "gamma_dot_t0")):
        space = space_of(mode, values={name: 0.0}, vary={name: False})
        assert space.validate() == []


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: s.with_values({"D00": 1.0}), ValueError, "did you mean 'D0'"),
        (lambda s: s.with_values({"D0": "1"}), TypeError, "'D0': the value must be a number"),
        (lambda s: s.with_values({"D0": True}), TypeError, "must be a number"),
        (lambda s: s.with_values({"D0": np.nan}), ValueError, "must be finite"),
        (lambda s: s.with_bounds({"D0": (2.0, 1.0)}), ValueError, "need lower < upper"),
        (lambda s: s.with_bounds({"D0": 3.0}), TypeError, "a pair"),
        (lambda s: s.with_bounds({"D0": (0.0, np.inf)}), ValueError, "upper bound must be finite"),
        (lambda s: s.with_vary({"D0": 1}), TypeError, "True or False; got 1"),
        (lambda s: s.with_vary({"f9": True}), KeyError, "no parameter 'f9'"),
        (lambda s: s.with_priors({"f9": P.normal(0.0, 1.0)}), KeyError, "no parameter 'f9'"),
        (lambda s: s.array_to_dict(np.zeros(4)), ValueError, "got an array of shape"),
    ],
)
def test_wrong_changes_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(space_of("static"))


@modes
def test_arrays_and_dictionaries(mode):
    space = space_of(mode)
    n = len(space.names)
    array = space.get_initial_array()
    assert space.array_to_dict(array) == {name: space.values[name] for name in space.names}
    lower, upper = space.get_bounds_arrays()
    assert lower.shape == upper.shape == (n,)
    flags = {name: i != 1 for i, name in enumerate(space.names)}
    mask = space.with_vary(flags).get_vary_mask()
    assert mask.dtype == bool and mask.tolist() == list(flags.values())


@given(request=requests())
@settings(max_examples=40)
def test_round_trip_through_a_configuration(request):
    mode, values, vary, bounds, uniform = request
    priors = {name: P.uniform(*ends) for name, ends in uniform.items()}
    space = ParameterSpace(values, vary, bounds, priors, registry=REGISTRIES[mode])
    config = space.to_config()
    again = ParameterSpace.from_config(copy.deepcopy(config))
    assert again.values == space.values and again.vary == space.vary
    assert again.bounds == space.bounds
    for name, prior in space.priors.items():
        assert again.priors[name].prior_type is prior.prior_type
        np.testing.assert_array_equal(again.priors[name].numbers, prior.numbers)


@modes
def test_configuration_form(mode):
    space = space_of(mode, vary={"contrast": False})
    config = space.to_config()
    assert set(config) == {"analysis_mode", "initial_parameters"}
    flat = config["initial_parameters"]
    assert flat["parameter_names"] == list(space.all_names)
    assert flat["values"] == list(space.values.values())
    assert flat["active_parameters"] == space.varying_names
    assert "offset" in space.varying_names and "contrast" not in space.varying_names


def test_research_models():
    tau = ParameterInfo("tau", 1.0, 1e-3, 1e3, "Relaxation time", unit="s", log_space=True)
    registry = REGISTRIES["static"].extended(tau)
    space = ParameterSpace.from_registry(("D0", "tau"), registry)
    assert space.names == ("D0", "tau") and space.units == ("Å²/s^(1+α)", "s")
    assert space.log_space == (True, True) and space.validate() == []
    with pytest.raises(ValueError, match="Only a space of an analysis mode"):
        space.to_config()
    known = ParameterSpace.from_registry(("D0", "alpha", "D_offset"), REGISTRIES["static"])
    assert known.analysis_mode == "static"


# As a PyTree


def test_jit_over_changed_numbers_does_not_recompile():
    traces = []

    @jax.jit
    def middle(space):
        traces.append(1)
        return 0.5 * (space.lower + space.upper), space.priors["alpha"].log_prob(0.1)

    space = space_of("static")
    for changed in (
        space,
        space.with_values({"D_offset": 3.0}),
        space.with_bounds({"alpha": (-1.0, 1.0)}),
        space.with_bounds({"alpha": (-1.0, 0.9), "contrast": (0.1, 0.9)}),
    ):
        result, density = middle(changed)
        np.testing.assert_allclose(result, 0.5 * (changed.lower + changed.upper))
        np.testing.assert_allclose(density, changed.priors["alpha"].log_prob(0.1))
    middle(jax.tree.map(lambda leaf: leaf * 1.0, space))
    middle(ParameterSpace.from_config(space.with_values({"D0": 300.0}).to_config()))
    assert len(traces) == 1
    middle(space.with_vary({"D0": False}))
    assert len(traces) == 2, "what varies is static"


def test_gradient_by_a_space():
    space = space_of("static")
    slope = jax.grad(lambda s: s.priors["D0"].log_prob(s.values["D0"]) + s.bounds["alpha"][0])(
        space
    )
    assert slope.lower[1] == 1 and np.isfinite(slope.all_lower).all()
    assert jax.tree.structure(slope) == jax.tree.structure(space)


def test_filter_jit_does_not_recompile_either():
    traces = []
    double = eqx.filter_jit(lambda space: (traces.append(1), 2 * space.initial)[1])
    space = space_of("laminar_flow", values={"D0": 200.0})
    double(space)
    double(space.with_values({"D0": 300.0}).with_bounds({"beta": (-1.0, 1.0)}))
    assert len(traces) == 1


def test_changes_inside_a_compiled_function():
    @jax.jit
    def tightened(space, x):
        space = space.with_values({"contrast": x}).with_bounds({"D0": (100.0 * x, 1e5)})
        return space.with_single_angle_stabilization()

    result = tightened(space_of("static"), 0.5)
    assert result.values["contrast"] == 0.5 and result.bounds["D0"] == (50.0, 1e5)
    assert result.bounds["contrast"] == (pytest.approx(0.3), pytest.approx(0.7))
    assert result.priors["D0"].support == (50.0, 1e5)


def test_vmapped_fit_over_spaces_with_different_bounds():
    t = jnp.linspace(0.1, 5.0, 30)
    data = 3.0 * t**0.5
    uppers = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0]
    base = space_of("static", vary={"D_offset": False}, values={"D0": 200.0, "alpha": 0.0})
    spaces = [base.with_bounds({"alpha": (-1.0, upper)}) for upper in uppers]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *spaces)

    @jax.jit
    @jax.vmap
    def fit(space):
        low, high = space.bounds["alpha"]

        def residual(u, args):
            return jnp.exp(u[0]) * t ** real_to_interval(u[1], low, high) - data

        solver = optx.LevenbergMarquardt(1e-10, 1e-10)
        start = jnp.array([0.0, interval_to_real(space.initial[1], low, high)])
        result = optx.least_squares(residual, solver, start, max_steps=400, throw=False)
        return real_to_interval(result.value[1], low, high)

    alpha = fit(stacked)
    np.testing.assert_allclose(alpha, np.minimum(uppers, 0.5), atol=2e-3)


@pytest.mark.long
def test_vmapped_least_squares_fit_over_spaces_with_different_bounds():
    import twotime as tt

    times, phi = jnp.asarray(0.1 * np.arange(1, 41)), jnp.array([0.0, 60.0])
    model, key = tt.StaticDiffusion(), jax.random.key(0)
    data = tt.simulate(
        *(model, jnp.array([6e3, -0.3, 0.0])),
        **{"t": times, "q": 0.01, "phi": phi, "contrast": 0.3, "offset": 1.0},
        **{"noise": 0.01, "key": key},
    )
    base = ParameterSpace({"D0": 4e3, "alpha": 0.0, "D_offset": 0.0}, {"D_offset": False})
    uppers = [5e3, 5.5e3, 6e3, 6.5e3, 7e3, 8e3, 9e3, 1e5]
    spaces = [base.with_bounds({"D0": (100.0, upper)}) for upper in uppers]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *spaces)
    found = jax.jit(jax.vmap(lambda space: tt.fit_nlsq(model, data, space).values[0]))(stacked)
    alone = float(tt.fit_nlsq(model, data, spaces[-1]).values[0])
    np.testing.assert_allclose(found, np.minimum(uppers, alone), rtol=1e-6)


def test_stacking_needs_equal_static_parts():
    one = space_of("static")
    with pytest.raises(ValueError):
        jax.tree.map(lambda *x: jnp.stack(x), one, one.with_vary({"alpha": False}))


def test_stacked_space_reads_like_one():
    one = space_of("static", values={"alpha": 0.1})
    two = one.with_values({"alpha": 0.2}).with_bounds({"D0": (1.0, 2e3)})
    both = jax.tree.map(lambda *x: jnp.stack(x), one, two)
    np.testing.assert_allclose(both.values["alpha"], [0.1, 0.2])
    np.testing.assert_allclose(both.bounds["D0"][1], [1e5, 2e3])


# Clamping


def test_clamp_to_open_interval():
    assert clamp_to_open_interval(0.0, 0.0, 1.0) == 1e-6
    assert clamp_to_open_interval(2.0, 0.0, 1.0) == 1 - 1e-6
    assert clamp_to_open_interval(0.3, 0.0, 1.0, epsilon=0.1) == 0.3
    assert isinstance(clamp_to_open_interval(0.3, 0.0, 1.0), float)
    np.testing.assert_allclose(clamp_to_open_interval(np.array([-1, 2]), 0, 1, 0.1), [0.1, 0.9])
    assert float(jax.jit(clamp_to_open_interval)(2.0, 0.0, 1.0)) == 1 - 1e-6
    with pytest.raises(ValueError, match="smaller epsilon"):
        clamp_to_open_interval(0.5, 0.0, 1.0, epsilon=0.5)


def test_from_config_tells_all_mistakes():
    with pytest.raises(ConfigurationError) as caught:
        ParameterSpace.from_config(
            {"analysis_mode": "static", "parameters": {"D0": {"min": 3}, "alpha": 9, "v0": 1}}
        )
    assert len(caught.value.problems) == 3
