"""Composed laws: the named ones against formulas, components, fractions, shapes of the decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.models import composition
from twotime.models.laws import LAWS

T = 0.1 * np.arange(1, 13)
PHI = np.array([3.0, 50.0])
Q, GAP = 0.004, 1.5e6


def clock(rate, t=T):
    """Trapezoid rule."""
    return np.concatenate([[0.0], np.cumsum(0.05 * (rate[1:] + rate[:-1]))])


def between(values):
    """Differences at all pairs t1 <= t2, mirrored."""
    i = np.arange(len(T))
    low, high = np.minimum(i[:, None], i), np.maximum(i[:, None], i)
    return values[high] - values[low]


def static(p, phi):
    return np.exp(-(Q**2) * between(clock(p[0] * T ** p[1] + p[2])))


def laminar(p, phi):
    strain = clock(p[3] * T ** p[4] + p[5])
    a = 0.5 * Q * GAP * np.cos((phi - p[6]) * np.pi / 180) * between(strain)
    off = ~np.eye(len(T), dtype=bool)
    sinc = np.ones_like(a)
    sinc[off] = np.sin(a[off]) / a[off]
    return static(p, phi) * sinc**2


def two(p, phi):
    r, s = (np.exp(-0.5 * Q**2 * between(clock(p[k] * T ** p[k + 1] + p[k + 2]))) for k in (0, 3))
    turn = Q * np.cos((phi - p[13]) * np.pi / 180) * between(clock(p[6] * T ** p[7] + p[8]))
    x = p[9] * np.exp(p[10] * (T - p[11])) + p[12]
    y, f = 1 - x, x**2 + (1 - x) ** 2
    one, other = np.outer(y, y) * r, np.outer(x, x) * s
    return (one**2 + other**2 + 2 * one * other * np.cos(turn)) / np.outer(f, f)


CASES = {
    "static": (tt.StaticDiffusion(), static, (2e4, -0.3, 40.0)),
    "laminar_flow": (
        tt.LaminarFlow(gap=GAP), laminar, (2e4, 0.2, 100.0, 4e-4, 0.2, 1e-5, 3.0),
    ),
    "two_component": (
        tt.TwoComponent(), two,
        (1e4, 0.1, 10.0, 4e4, -0.2, 20.0, 1500.0, 0.2, 3.0, 0.4, 0.1, 0.3, 0.1, 2.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_named_laws_are_their_formulas(name):
    model, formula, params = CASES[name]
    p = np.array(params)

    def plane(x):
        return tt.correlation(model, x, t=jnp.asarray(T), q=Q, phi=jnp.asarray(PHI))

    found, slopes = np.asarray(plane(jnp.asarray(p))), np.asarray(jax.jacfwd(plane)(jnp.asarray(p)))
    expected = np.stack([formula(p, phi) for phi in PHI])
    assert np.abs(found - expected).max() <= 1e-13
    for k in range(len(p)):
        moved = p.astype(complex)
        moved[k] += 1e-30j  # a complex step has no rounding
        exact = np.stack([formula(moved, phi).imag for phi in PHI]) / 1e-30
        assert np.abs(slopes[..., k] - exact).max() <= 1e-10 * max(np.abs(exact).max(), 1e-10)


def test_named_laws_keep_their_names_and_orders():
    assert tt.StaticDiffusion.names == tt.StaticDiffusion().names == ("D0", "alpha", "D_offset")
    for law in LAWS.values():
        made = law(**({"gap": 2e6} if law is tt.LaminarFlow else {}))
        assert law.names == made.names and law.parameters == made.parameters
    assert tt.LaminarFlow.names[3:] == ("gamma_dot_t0", "beta", "gamma_dot_t_offset", "phi0")
    assert tt.TwoComponent.names[6:] == (
        "v0", "beta", "v_offset", "f0", "f1", "f2", "f3", "phi0",
    )  # fmt: skip
    spline = tt.StaticDiffusion(transport=tt.Spline(3))
    assert spline.names == ("log_J", "J_step_1", "J_step_2")
    assert spline.groups() == {"transport": spline.names}


def plane(law, params, q=Q):
    return np.asarray(tt.correlation(law, params, t=jnp.asarray(T), q=q, phi=jnp.asarray(PHI)))


COMPONENTS = tt.Components((
    tt.Component("still", None),
    tt.Component("a", tt.Constant(), velocity=tt.Constant()),
    tt.Component("b", tt.Constant(), shear=tt.Constant()),
), gap=GAP)  # fmt: skip
MOTION = {
    "D0_a": 2e4, "D0_b": 6e4, "v0_a": 900.0, "gamma_dot_t0_b": 6e-4, "log_x_a": 0.4,
    "log_x_b": -0.3, "phi0_a": 10.0, "phi0_b": 30.0,
}  # fmt: skip


def fields():
    """The fields of the three components, by their formulas."""
    lag, p = between(T), MOTION
    x = np.exp([0.0, p["log_x_a"], p["log_x_b"]])
    x /= x.sum()
    for phi in np.deg2rad(PHI):
        a = Q * np.cos(phi - np.deg2rad(p["phi0_a"])) * p["v0_a"] * lag
        b = 0.5 * Q * GAP * np.cos(phi - np.deg2rad(p["phi0_b"])) * p["gamma_dot_t0_b"] * lag
        one = np.exp(-0.5 * Q**2 * p["D0_a"] * lag + 1j * a)
        other = np.exp(-0.5 * Q**2 * p["D0_b"] * lag) * np.sinc(b / np.pi)
        yield (x[0] ** 2 + x[1] ** 2 * one + x[2] ** 2 * other) / (x**2).sum()


def test_components_beat_by_the_published_equation():
    assert set(COMPONENTS.names) == set(MOTION)
    expected = np.stack([np.abs(g) ** 2 for g in fields()])
    assert np.abs(plane(COMPONENTS, MOTION) - expected).max() < 1e-13
    assert not COMPONENTS.is_separable  # a shear is no sum of products


def test_components_of_two_are_the_two_component_law():
    ref, sample = tt.Component("ref"), tt.Component("sample", velocity=tt.PowerLaw())
    law = tt.Components((ref, sample))
    given = dict(zip(tt.TwoComponent.names, CASES["two_component"][2], strict=True))
    given |= {"f0": 0.4, "f1": 0.0, "f2": 0.0, "f3": 0.0}
    mine = {n: given[n] for n in law.names if n in given}
    for name in ("v0", "beta", "v_offset", "phi0"):
        mine[f"{name}_sample"] = given[name]
    mine["log_x_sample"] = np.log(0.4 / 0.6)
    assert np.abs(plane(law, mine) - plane(tt.TwoComponent(), given)).max() < 1e-13
    other = tt.TwoComponent(fractions=tt.Simplex())
    same = {n: given[n] for n in other.names if n in given}
    same["log_x_sample"] = mine["log_x_sample"]
    assert np.abs(plane(other, same) - plane(tt.TwoComponent(), given)).max() < 1e-13


def test_fractions_are_positive_and_sum_to_one():
    law = tt.Components(fractions=tt.Simplex(knots=3))
    space = tt.ParameterSpace.of(law)
    params = {**{n: space.values[n] for n in law.names}, "x_step_1_sample": 2.0}
    functions = jax.jit(lambda p: law.functions(p, t=jnp.asarray(T)))
    found = functions(jnp.asarray(list(params.values())))
    shares = np.stack([np.asarray(found[f"x_{n}"].values) for n in ("reference", "sample")])
    assert np.allclose(shares.sum(0), 1) and shares.min() > 0
    assert np.all(np.diff(shares[1]) >= -1e-12) and np.ptp(shares[1]) > 0.2


def test_decays_are_stretched_and_separable_only_where_they_are_not():
    law = tt.StaticDiffusion(transport=tt.Constant(), stretched=True)
    assert law.names == ("D0", "gamma") and not law.is_separable
    u = Q**2 * 3e4 * between(T)
    for gamma in (0.5, 1.0, 1.8):
        found = plane(law, {"D0": 3e4, "gamma": gamma})
        assert np.abs(found - np.exp(-(u**gamma))).max() < 1e-13
    both = tt.TwoComponent(stretched=True)
    given = dict(zip(tt.TwoComponent.names, CASES["two_component"][2], strict=True))
    one = plane(both, given | {"gamma": 1.0})
    assert np.abs(one - plane(tt.TwoComponent(), given)).max() < 1e-13


def test_the_decay_goes_with_any_power_of_q():
    law = tt.StaticDiffusion(transport=tt.Constant(), q_reference=0.003)
    assert law.names == ("D0", "q_exponent") and law.is_separable
    for q in (0.002, 0.006):
        for n in (1.0, 2.0):
            rate = (q / 0.003) ** n * 0.003**2
            found = plane(law, {"D0": 3e4, "q_exponent": n}, q)
            assert np.abs(found - np.exp(-rate * 3e4 * between(T))).max() < 1e-13
    space = tt.ParameterSpace.of(law)
    assert space.values["q_exponent"] == 2.0 and not space.vary["q_exponent"]
    assert tt.ParameterSpace.of(tt.StaticDiffusion(stretched=True)).vary["gamma"]


def test_shapes_of_the_decay_have_bounds_around_the_usual():
    stretch, power = composition.STRETCH, composition.Q_EXPONENT
    assert (stretch.min_bound, stretch.default, stretch.max_bound) == (0.1, 1.0, 2.0)
    assert (power.min_bound, power.default, power.max_bound) == (0.5, 2.0, 4.0)
    assert stretch.fixed_value == 1.0 and power.fixed_value == 2.0


def test_both_evaluators_agree_for_three_components():
    moving = [tt.Component(n, tt.Constant(), velocity=tt.Constant()) for n in "ab"]
    law = tt.Components((tt.Component("still", None), *moving))
    assert law.is_separable and law.terms(law.channels(
        jnp.asarray([2e4, 5e3, 500.0, 1800.0, 0.3, 0.5, 0.0, 20.0]), jnp.asarray(T),
        t=jnp.asarray(T), q=Q, phi=0.0,
    )).oscillates == (False, False, False, True, True, True)  # fmt: skip


def test_labels_are_exchanged_for_any_fractions():
    law = tt.TwoComponent(fractions=tt.Simplex(knots=2))
    params = jnp.asarray([float(i.default) for i in law.parameters]).at[0].set(2e3)
    params = params.at[law.names.index("log_x_sample")].set(1.0)

    @jax.jit
    def both(p):
        t = jnp.asarray(T)
        a, b = law.components(p, t), law.components(law.exchanged(p, t), t)
        return a, b, law.is_exchanged(a, b)

    a, b, is_exchanged = both(params)
    assert np.allclose(a, b[::-1]) and bool(is_exchanged)
    assert tt.TwoComponent(sample=tt.Constant()).components(params, jnp.asarray(T)) is None


def test_wrong_components_are_sentences():
    a = tt.Component("a")
    for wrong, got in (
        (lambda: tt.Components((a,)), "two or more with different names"),
        (lambda: tt.Components((a, a)), "two or more with different names"),
        (lambda: tt.Component("not a word"), "name must be a word"),
        (lambda: tt.Component("b", velocity=tt.Constant(), shear=tt.Constant()), "not both"),
        (lambda: tt.Components((a, tt.Component("b")), gap=0.0), "gap must be positive"),
        (lambda: tt.LaminarFlow(gap=-1.0), "gap must be positive"),
        (
            lambda: tt.Components(
                (a, tt.Component("b"), tt.Component("c")), tt.ExponentialFractions()
            ),
            "those of two components",
        ),
        (lambda: tt.Simplex(knots=0), "knots is 0"),
    ):
        with pytest.raises(ValueError, match=got):
            wrong()
