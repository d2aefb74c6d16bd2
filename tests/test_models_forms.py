"""Forms of rates: values against formulas, splines against SciPy, starts like power laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline, CubicSpline

import twotime as tt
from twotime.models import forms
from twotime.models.forms import Quantity, Rate
from twotime.models.static import TRANSPORT
from twotime.models.two_component import VELOCITY

T = 0.1 * np.arange(1, 41)
PLACES = np.linspace(0.0, 1.0, 33)


@pytest.mark.parametrize("count", [2, 3, 4, 8, 30])
def test_b_splines_are_those_of_scipy(count):
    degree = min(3, count - 1)
    inner = np.linspace(0, 1, count - degree + 1)
    knots = np.concatenate([np.zeros(degree), inner, np.ones(degree)])
    values = np.random.default_rng(count).normal(size=count)
    found = np.asarray(forms.b_splines(jnp.asarray(PLACES), count)) @ values
    assert np.allclose(found, BSpline(knots, values, degree)(PLACES), atol=1e-13)


@pytest.mark.parametrize("count", [2, 3, 4, 8, 30])
def test_natural_splines_are_those_of_scipy(count):
    values = np.random.default_rng(count).normal(size=count)
    found = np.asarray(forms.natural_splines(jnp.asarray(PLACES), count)) @ values
    if count > 2:
        expected = CubicSpline(np.linspace(0, 1, count), values, bc_type="natural")(PLACES)
    else:
        expected = np.interp(PLACES, [0, 1], values)
    assert np.allclose(found, expected, atol=1e-13)


def test_monotone_splines_do_not_ring():
    steps = np.zeros(12)
    steps[6] = -4.0
    rate = jax.jit(lambda form: form.rate(TRANSPORT, list(steps), jnp.asarray(T)), static_argnums=0)
    found = np.asarray(rate(tt.Spline(12)))
    assert np.all(np.diff(found) <= 1e-12) and found.max() <= 1 and found.min() >= np.exp(-4.001)
    cubic = np.asarray(rate(tt.Spline(12, "cubic")))
    assert cubic.max() > 1.05  # which is why monotone is the default


@pytest.mark.parametrize("spacing", ["linear", "log"])
def test_the_first_parameter_is_the_value_at_the_first_frame(spacing):
    numbers = [np.log(300.0), 0.5, -1.0, 2.0]
    for between in ("monotone", "cubic"):
        rate = tt.Spline(4, between, spacing).rate(TRANSPORT, numbers, jnp.asarray(T))
        assert rate[0] == pytest.approx(300.0) and rate[-1] == pytest.approx(300 * np.exp(1.5))


@pytest.mark.parametrize("knots", [2, 8, 30])
def test_the_walk_from_end_to_end_has_one_spread_at_any_number_of_knots(knots):
    steps = Rate(tt.Spline(knots), TRANSPORT).parameters[1:]
    assert len(steps) == knots - 1 and all(info.is_informative for info in steps)
    spread = np.sqrt(sum(float(info.prior_std) ** 2 for info in steps))
    assert spread == pytest.approx(3.0)
    assert float(steps[0].max_bound) == pytest.approx(5 * float(steps[0].prior_std))


def test_bounds_of_a_spline_leave_those_of_the_power_law_by_much():
    first = Rate(tt.Spline(3), TRANSPORT).parameters[0]
    assert float(first.min_bound) == pytest.approx(np.log(100) - 14)
    assert float(first.max_bound) == pytest.approx(np.log(1e5) + 14)
    assert not first.is_informative and not first.log_space


def test_exponential_and_constant_clocks():
    start, end, tau = 900.0, 100.0, 1.3
    rate, clock = (getattr(tt.Exponential(), name) for name in ("rate", "clock"))
    values = np.asarray(rate(TRANSPORT, [start, end, tau], jnp.asarray(T)))
    assert np.allclose(values, end + (start - end) * np.exp(-T / tau))
    t = jnp.asarray(T)
    exact = np.asarray(clock(TRANSPORT, [start, end, tau], t, t=t, integration="exact"))
    integral = end * T - (start - end) * tau * np.exp(-T / tau)
    assert np.allclose(exact - exact[0], integral - integral[0])
    rough = np.asarray(clock(TRANSPORT, [start, end, tau], t, t=t, integration="trapezoid"))
    assert np.allclose(rough, exact - exact[0], rtol=2e-3) and not np.allclose(rough, exact)
    steady = tt.Constant().clock(TRANSPORT, [7.0], t, t=t, integration="exact")
    assert np.allclose(steady, 7.0 * (T - T[0]))


@pytest.mark.parametrize("of", [TRANSPORT, VELOCITY], ids=["transport", "velocity"])
@pytest.mark.parametrize(
    "form", [tt.PowerLaw(), tt.Constant(), tt.Exponential(), tt.Spline(5), tt.Spline(5, "cubic")]
)
def test_starts_are_like_the_power_law_that_is_proposed(form, of):
    power = np.array([500.0, 800.0]), np.array([-0.3, 0.0]), np.array([0.0, 50.0])
    numbers = form.like(of, power, T)
    for k in range(2):
        mine = [np.broadcast_to(x, 2)[k] for x in numbers]
        found = np.asarray(form.rate(of, mine, jnp.asarray(T)))
        law = power[0][k] * T ** power[1][k] + power[2][k]
        places = [0, -1] if isinstance(form, tt.Exponential) else slice(15, 25)
        assert np.allclose(found[places], law[places], rtol=0.25)


def test_wrong_forms_are_sentences():
    with pytest.raises(ValueError, match="knots is 1; expected a whole number from 2 on"):
        tt.Spline(1)
    for wrong, got in (
        ({"kind": "spleen"}, "kind is 'spleen'; expected one of power_law"),
        ({"kind": "constant", "knots": 3}, "constant has no 'knots'; it takes nothing else"),
        ({"kind": "spline", "knot": 3}, "spline has no 'knot'; it takes knots, between"),
        (3, "got 3; expected one of"),
    ):
        with pytest.raises(ValueError, match=got):
            forms.form(wrong)
    assert forms.form("constant") == tt.Constant()
    assert forms.form({"kind": "spline", "knots": 4}) == tt.Spline(4)


def test_derivatives_by_increments_are_the_splines():
    t = jnp.asarray(T)

    def log_rate(x):
        return jnp.log(tt.Spline(4).rate(TRANSPORT, list(x), t))

    slopes = jax.jit(jax.jacfwd(log_rate))(jnp.asarray([5.0, 0.0, 0.0, 0.0]))
    assert np.allclose(slopes[:, 0], 1.0)
    assert np.allclose(slopes[0, 1:], 0.0) and np.allclose(slopes[-1], 1.0)


def test_names_follow_from_the_quantity():
    mine = Quantity("J", "Å²/s", "Transport", "gel", TRANSPORT.power, suffix="_gel")
    assert Rate(tt.Exponential(), mine).names == ("J_start_gel", "J_end_gel", "J_tau_gel")
    assert Rate(tt.Spline(2), mine).names == ("log_J_gel", "J_step_1_gel")
    assert Rate(tt.Spline(2), VELOCITY).names == ("v_first", "v_step_1")
    assert Rate(tt.Constant(), TRANSPORT).names == Rate(tt.Constant(), TRANSPORT).amplitudes
