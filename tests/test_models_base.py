"""Models against closed forms, limits and published numbers."""

from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.models import LAWS, check_law
from twotime.models.correlation import field
from twotime.models.rates import sinc

Q, GAP = 0.003, 2.0e6
T = 0.1 * np.arange(1, 9)
PHI = np.array([10.0, 65.0, -170.0])
STATIC = [2e4, 0.3, 1e3]
FLOW = [*STATIC, 1e-3, -0.4, 2e-4, 6.0]
TWO = [2e4, -0.3, 1e3, 5e4, 0.2, 0.0, 900.0, -0.2, -50.0, 0.4, -0.5, 0.3, 0.3, -4.0]
LAG = np.abs(T[:, None] - T)
ALL = [
    tt.StaticDiffusion(),
    tt.StaticDiffusion(integration="exact"),
    tt.LaminarFlow(gap=2e6),
    tt.LaminarFlow(gap=2e6, integration="exact"),
    tt.LaminarFlow(gap=2e6, shear_convention="homodyne"),
    tt.TwoComponent(),
    tt.TwoComponent(integration="exact"),
]


def c_of(model, theta, t=T, q=Q, phi=PHI):
    theta, t, phi = (jnp.asarray(x, float) for x in (theta, t, phi))
    return np.asarray(tt.correlation(model, theta, t=t, q=q, phi=phi))


def typical(model):
    return {3: STATIC, 7: FLOW, 14: TWO}[len(model.names)]


def test_two_component_reference_numbers(shared):
    with np.load(shared / "reference" / "two_component_check.npz") as stored:
        cases = dict(stored)
    worst = 0.0
    for i in range(len(cases["q"])):
        case = {name: values[i] for name, values in cases.items()}
        c = c_of(tt.TwoComponent(), case["params"], case["t"], case["q"], [case["phi"]])[0]
        worst = max(worst, np.abs(case["offset"] + case["contrast"] * c - case["c2"]).max())
    print(f"largest difference {worst:.1e}")
    assert worst < 1e-9


# Closed forms


def test_brownian_motion():
    diffusion = 1.3e4
    c = c_of(tt.StaticDiffusion(), [2 * diffusion, 0.0, 0.0])
    np.testing.assert_allclose(c[0], np.exp(-2 * diffusion * Q**2 * LAG), rtol=1e-13)


@pytest.mark.parametrize("integration", ["trapezoid", "exact"])
def test_couette_flow_is_a_squared_sinc(integration):
    rate, phi0 = 2e-3, 7.0
    c = c_of(
        tt.LaminarFlow(gap=GAP, integration=integration), [0.0, 0.0, 0.0, rate, 0.0, 0.0, phi0]
    )
    for angle, plane in zip(PHI, c, strict=True):
        a = 0.5 * Q * GAP * np.cos(np.deg2rad(angle - phi0)) * rate * LAG
        np.testing.assert_allclose(plane, np.sinc(a / np.pi) ** 2, atol=1e-9)


def test_couette_flow_vanishes_first_at_two_pi():
    phi, tau = 30.0, 0.8
    rate = 2 * np.pi / (Q * GAP * np.cos(np.deg2rad(phi)) * tau)
    t = np.linspace(1.0, 1.0 + tau, 9)
    c = c_of(tt.LaminarFlow(gap=GAP), [0.0, 0.0, 0.0, rate, 0.0, 0.0, 0.0], t, phi=[phi])[0, 0]
    assert c[-1] < 1e-25
    assert (np.diff(c) < 0).all() and c[-2] > 1e-3


def test_pure_drift_beats_with_the_visibility_of_both_fractions():
    x, v = 0.3, 700.0
    theta = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, v, 0.0, 0.0, 0.0, 0.0, 0.0, x, 12.0]
    c = c_of(tt.TwoComponent(), theta)
    visibility = 2 * x**2 * (1 - x) ** 2 / (x**4 + (1 - x) ** 4)
    for angle, plane in zip(PHI, c, strict=True):
        beat = 1 + visibility * np.cos(Q * v * np.cos(np.deg2rad(angle - 12.0)) * LAG)
        np.testing.assert_allclose(plane, beat / (1 + visibility), atol=1e-8)


@pytest.mark.parametrize("model", ALL, ids=repr)
def test_modulus_squared_of_the_field(model):
    theta = jnp.asarray(typical(model))
    g1 = field(model, theta, t=jnp.asarray(T), q=Q, phi=jnp.asarray(PHI))
    np.testing.assert_allclose(np.abs(g1) ** 2, c_of(model, theta), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(g1, np.swapaxes(g1, 1, 2).conj(), atol=1e-15)


def test_two_component_against_its_printed_equation():
    d_r, a_r, o_r, d_s, a_s, o_s, v0, beta, v_off, f0, f1, f2, f3, phi0 = TWO
    x = f0 * np.exp(f1 * (T - f2)) + f3

    def clock(amplitude, exponent, offset):
        integral = amplitude * T ** (1 + exponent) / (1 + exponent) + offset * T
        return integral - integral[:, None]

    reference, sample, way = (
        np.triu(clock(*r)) for r in ((d_r, a_r, o_r), (d_s, a_s, o_s), (v0, beta, v_off))
    )
    xs, xr = np.outer(x, x), np.outer(1 - x, 1 - x)
    f = x**2 + (1 - x) ** 2
    for angle, plane in zip(PHI, c_of(tt.TwoComponent(integration="exact"), TWO), strict=True):
        phase = Q * np.cos(np.deg2rad(angle - phi0)) * way
        c = (xr * np.exp(-(Q**2) * reference / 2)) ** 2 + (xs * np.exp(-(Q**2) * sample / 2)) ** 2
        c += 2 * xr * xs * np.exp(-(Q**2) * (reference + sample) / 2) * np.cos(phase)
        upper = np.triu_indices(len(T))
        np.testing.assert_allclose(plane[upper], (c / np.outer(f, f))[upper], rtol=1e-12)


def test_homodyne_convention_is_the_fourth_power_of_another_argument():
    c = c_of(tt.LaminarFlow(gap=GAP, shear_convention="homodyne"), FLOW)
    diffusion = c_of(tt.StaticDiffusion(), STATIC)[0]
    rate = FLOW[3] * T ** FLOW[4] + FLOW[5]
    strain = np.concatenate([[0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1]) * np.diff(T))])
    for angle, plane in zip(PHI, c, strict=True):
        factor = Q * GAP * np.cos(np.deg2rad(angle - FLOW[6])) / (2 * np.pi)
        argument = factor * (strain[:, None] - strain)
        np.testing.assert_allclose(plane, diffusion * np.sinc(argument / np.pi) ** 4, rtol=1e-11)


def test_conventions_differ_by_pi_over_root_two_at_small_strain():
    def fall(convention, rate):
        theta = [0.0, 0.0, 0.0, rate, 0.0, 0.0, 0.0]
        model = tt.LaminarFlow(gap=GAP, shear_convention=convention)
        return 1 - c_of(model, theta, phi=[0.0])[0, 0, 1]

    ratio = np.sqrt(fall("published", 1e-5) / fall("homodyne", 1e-5))
    assert ratio == pytest.approx(np.pi / np.sqrt(2), rel=1e-4)


@pytest.mark.parametrize("x", [0.0, 1e-9, 1e-3, 0.2499, 0.25, 0.2501, 2.0, np.pi, 1e3])
def test_sinc_and_its_derivative(x):
    value, slope = jax.value_and_grad(lambda x: sinc(x, jnp.sin(x)))(x)
    assert value == pytest.approx(np.sinc(x / np.pi), abs=1e-15)
    expected = -x / 3 if x < 1e-2 else (np.cos(x) - np.sinc(x / np.pi)) / x
    assert slope == pytest.approx(expected, rel=1e-6 if x < 1e-2 else 1e-11, abs=1e-15)


# Limits and symmetries


@pytest.mark.parametrize("integration", ["trapezoid", "exact"])
def test_without_shear_the_flow_stands_still(integration):
    flow = c_of(tt.LaminarFlow(gap=2e6, integration=integration), [*STATIC, 0.0, 0.3, 0.0, 5.0])
    static = c_of(tt.StaticDiffusion(integration=integration), STATIC)
    np.testing.assert_allclose(flow, static, rtol=1e-9)


@pytest.mark.parametrize(("x", "component"), [(0.0, slice(0, 3)), (1.0, slice(3, 6))])
def test_one_component_alone(x, component):
    both = c_of(tt.TwoComponent(), [*TWO[:9], 0.0, 0.0, 0.0, x, 0.0])
    np.testing.assert_allclose(both, c_of(tt.StaticDiffusion(), TWO[component]), rtol=1e-13)


def test_exchanging_the_components_and_their_fractions_changes_nothing():
    swapped = [*TWO[3:6], *TWO[0:3], *TWO[6:9], -TWO[9], *TWO[10:12], 1 - TWO[12], TWO[13]]
    np.testing.assert_allclose(
        c_of(tt.TwoComponent(), swapped), c_of(tt.TwoComponent(), TWO), rtol=1e-13
    )


def test_f0_and_f2_are_one_parameter():
    other = [*TWO[:9], TWO[9] * np.exp(TWO[10] * (1.7 - TWO[11])), TWO[10], 1.7, *TWO[12:]]
    np.testing.assert_allclose(
        c_of(tt.TwoComponent(), other), c_of(tt.TwoComponent(), TWO), rtol=1e-13
    )


@pytest.mark.parametrize("model", [tt.LaminarFlow(gap=2e6), tt.TwoComponent()], ids=repr)
def test_only_the_angle_to_the_flow_counts(model):
    theta = np.array(typical(model))
    turned = theta + 25.0 * np.eye(len(theta))[-1]
    np.testing.assert_allclose(c_of(model, turned, phi=PHI + 25.0), c_of(model, theta), rtol=1e-10)


# Numbers


@pytest.mark.parametrize("model", ALL, ids=repr)
def test_diagonal_is_exactly_one(model):
    for t in (T, T - T[0], 7.3 * T):
        theta = [1e5, -1.0, -50.0, *typical(model)[3:]]
        diagonal = np.diagonal(c_of(model, theta, t), axis1=1, axis2=2)
        if isinstance(model, tt.TwoComponent):  # two squares that add up to 1 when rounded
            np.testing.assert_allclose(diagonal, 1.0, rtol=1e-15)
        else:
            assert (diagonal == 1.0).all()


SPECIAL = {
    "alpha = -1": {"alpha": -1.0, "alpha_ref": -1.0, "alpha_sample": -1.0, "beta": -1.0},
    "alpha = -1.6": {"alpha": -1.6, "alpha_ref": -1.6},
    "alpha = 0": {"alpha": 0.0, "alpha_ref": 0.0, "alpha_sample": 0.0, "beta": 0.0},
    "J < 0": {"D_offset": -1e5, "D_offset_ref": -1e5, "gamma_dot_t_offset": -0.1},
    "J changes sign": {"D_offset": -1.5e4, "D_offset_sample": -4e4},
    "no shear": {"gamma_dot_t0": 0.0, "gamma_dot_t_offset": 0.0, "v0": 0.0, "v_offset": 0.0},
    "x = 0": {"f0": 0.0, "f3": 0.0},
    "x = 1/2": {"f0": 0.0, "f3": 0.5},
    "x = 1": {"f0": 0.0, "f3": 1.0},
    "x > 1": {"f0": 1.0, "f3": 1.0},
    "x far": {"f1": 10.0, "f2": -1e4},
}


@pytest.mark.parametrize("model", [ALL[1], ALL[2], ALL[3], ALL[6]], ids=repr)
def test_values_and_gradients_are_finite_at_special_places(model):
    thetas = [typical(model)]
    for change in SPECIAL.values():
        named = dict(zip(model.names, typical(model), strict=True))
        thetas.append([change.get(name, value) for name, value in named.items()])
    thetas = jnp.asarray(thetas)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def at(theta, t):
        def plane(theta):
            return tt.correlation(model, theta, t=t, q=Q, phi=jnp.asarray(PHI[:1]))

        return plane(theta), jax.grad(lambda x: plane(x).sum())(theta)

    for t in (jnp.asarray(T), jnp.asarray(T - T[0])):
        c, gradient = at(thetas, t)
        assert np.isfinite(c).all() and (c >= -1e-12).all() and (c <= 1 + 1e-12).all()
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("model", ALL, ids=repr)
def test_float32_is_good_to_1e_4(model):
    theta, t = typical(model), 0.1 * np.arange(1, 201)
    single = [jnp.asarray(x, jnp.float32) for x in (theta, t, PHI)]
    c = tt.correlation(model, single[0], t=single[1], q=Q, phi=single[2])
    assert c.dtype == jnp.float32
    assert np.abs(c - c_of(model, theta, t)).max() < 1e-4


def test_exact_integration_needs_no_fine_frames():
    theta, fine = [2e4, -0.8, 0.0], np.linspace(0.0, 2.0, 4001)
    coarse = fine[::400]
    exact = c_of(tt.StaticDiffusion(integration="exact"), theta, coarse)
    fine_trapezoid = c_of(tt.StaticDiffusion(), theta, fine[400:])[:, ::400, ::400]
    np.testing.assert_allclose(exact[:, 1:, 1:], fine_trapezoid, atol=1e-5)
    from_zero = np.exp(-(Q**2) * 2e4 / 0.2 * coarse**0.2)
    np.testing.assert_allclose(exact[0, 0], from_zero, rtol=1e-12)


def test_unknown_choices_are_refused():
    """By a sentence of the model, or by the type checker where tests run under one."""
    with pytest.raises((ValueError, TypeError), match="integration"):
        tt.TwoComponent(integration="euler")
    with pytest.raises((ValueError, TypeError), match="shear_convention"):
        tt.LaminarFlow(gap=2e6, shear_convention="mine")


@pytest.mark.slow
def test_a_fit_started_below_the_floor_finds_its_way_out():
    """J is negative everywhere at the start; a hard floor would leave the fit standing there."""
    model, t = tt.StaticDiffusion(), jnp.asarray(0.05 * np.arange(1, 61))
    truth = {"D0": 5e3, "alpha": 0.4, "D_offset": 200.0}
    data = tt.simulate(
        model, jnp.asarray(list(truth.values())), t=t, q=0.01, phi=jnp.zeros(1),
        contrast=0.3, offset=1.0, noise=0.01, key=jax.random.key(0),
    )  # fmt: skip
    space = tt.ParameterSpace(registry=_static_registry())
    for start in ([1.9e3, 0.28, -2.4e4], [300.0, -0.8, -4.3e4], [500.0, 0.2, -9e4]):
        assert start[0] * max(0.05 ** start[1], 3 ** start[1]) + start[2] < 0
        fit = tt.fit_nlsq(model, data, space.with_values(dict(zip(truth, start, strict=True))))
        assert fit.reduced_chi2 < 5 * 0.01**2  # 45 where J < 0


def _static_registry():
    from twotime.config.parameter_registry import REGISTRIES

    return REGISTRIES["static"]


# Laws of your own


def decay_channels(self, params, times, *, t, q, phi):
    none = jnp.zeros((0, times.shape[0]), times.dtype)
    return tt.Channels((params[0] * times)[None], none, none)


def first_decay(self, pair):
    return pair.decay[0]


RATE = tt.ParameterInfo("rate", 1.0, 0.1, 10.0, "Rate", "1/s", "relaxation")


@pytest.mark.parametrize(
    "members",
    [
        {"names": ("rate",)},
        {"names": ("rate",), "__annotations__": {"names": ClassVar[tuple[str, ...]]}},
        {
            "names": eqx.field(default=("rate",), static=True, init=False),
            "__annotations__": {"names": tuple[str, ...]},
        },
        {"names": ("rate",), "__annotations__": {"names": tuple[str, ...]}},
        {"parameters": (RATE,)},
    ],
    ids=["plain", "ClassVar", "static field", "field", "parameters"],
)
def test_names_may_be_given_in_any_way(members):
    law = type(tt.AbstractTwoTimeModel)(
        "Own",
        (tt.AbstractTwoTimeModel,),
        {"channels": decay_channels, "correlation": first_decay, **members},
    )
    assert law().names == ("rate",)
    c = tt.correlation(law(), jnp.ones(1), t=jnp.arange(1.0, 4.0), q=0.1, phi=jnp.zeros(1))
    np.testing.assert_allclose(c[0, 0], np.exp(-np.arange(3.0)))
    assert law.groups() == ({"relaxation": ("rate",)} if "parameters" in members else {})


def test_a_law_with_the_former_name_of_correlation_works_and_warns_once():
    members = {"channels": decay_channels, "names": ("rate",), "pixel": first_decay}
    with pytest.warns(DeprecationWarning, match="Old.pixel is called correlation now") as caught:
        law = type(tt.AbstractTwoTimeModel)("Old", (tt.AbstractTwoTimeModel,), members)
        c = tt.correlation(law(), jnp.ones(1), t=jnp.arange(1.0, 4.0), q=0.1, phi=jnp.zeros(1))
    assert len(caught) == 1 and c[0, 0, 2] == pytest.approx(np.exp(-2.0))
    pair = tt.Pair(*[jnp.ones((1, 3))] * 6)
    with pytest.warns(DeprecationWarning, match="StaticDiffusion.pixel"):
        assert (tt.StaticDiffusion().pixel(pair) == 1.0).all()


def test_another_gap_does_not_compile_again():
    traces = []

    @eqx.filter_jit
    def first_pair(model):
        traces.append(model)
        return tt.correlation_at(
            model, jnp.asarray([1e4, 0.0, 0.0, 1e-3, 0.0, 0.0, 0.0]), jnp.ones(1), 2 * jnp.ones(1),
            t=jnp.arange(1.0, 4.0), q=0.003, phi=0.0,
        )  # fmt: skip

    found = [first_pair(tt.LaminarFlow(gap=gap)) for gap in (1e6, 2e6, np.float64(3e6))]
    assert len(traces) == 1 and len({float(x[0]) for x in found}) == 3


def test_every_law_is_found_by_its_word():
    assert {"static", "laminar_flow", "two_component"} <= set(LAWS)
    counts = [len(law.names) for law in LAWS.values()]
    assert counts == sorted(counts)
    assert all(LAWS[word].analysis_mode == word for word in LAWS)
    with pytest.raises(TypeError):
        LAWS["mine"] = tt.StaticDiffusion


GROUPED = tt.ParameterInfo("tau", 1.0, 0.1, 10.0, "Decay time", "s", "decay")


@pytest.mark.parametrize(
    ("word", "parameters", "sentence"),
    [
        ("static", (GROUPED,), "is taken by StaticDiffusion"),
        ("two words", (GROUPED,), "expected a word of letters"),
        ("mine", (), "has no `parameters`"),
        ("mine", (tt.ParameterInfo("tau", 1.0, 0.1, 10.0, "Decay time"),), "tau has no group"),
    ],
)
def test_laws_that_a_configuration_could_not_name_are_refused(word, parameters, sentence):
    class Mine(tt.StaticDiffusion):
        pass

    Mine.analysis_mode, Mine.parameters = word, parameters
    with pytest.raises(TypeError, match=sentence):
        check_law(Mine, {"static": tt.StaticDiffusion})
