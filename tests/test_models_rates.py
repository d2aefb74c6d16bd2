"""Rates and clocks against quadrature, and the floor that keeps its gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.integrate import quad

from twotime.models import rates

THROUGH_MINUS_ONE = [-3.0, -1.3, -1 - 1e-3, -1 - 1e-9, -1.0, -1 + 1e-12, -1 + 1e-5, -0.5, 0.0, 1.7]
TIMES = np.array([0.01, 0.013, 0.5, 1.0, 7.0, 7.001, 100.0])


@partial(jax.jit, static_argnames="integration")
def clock_of(t, theta, integration):
    return rates.transport_clock(t, *theta, t=t, integration=integration)


@jax.jit
def rate_of(t, theta):
    return rates.power_law(t, *theta[:2]), rates.transport_rate(t, *theta)


def exact_clock(t, *theta):
    return np.asarray(clock_of(jnp.asarray(t), jnp.asarray(theta), "exact"))


# The floor


def test_floor_is_the_identity_above_its_width():
    x = jnp.asarray([1.0 + 1e-12, 1.5, 1e9])
    assert (rates.soft_floor(x, 1.0) == x).all()


def test_floor_stays_within_its_width_of_the_hard_floor_and_rises():
    x = jnp.concatenate([-jnp.logspace(12, -12, 200), jnp.linspace(0.0, 1.0, 201)])
    f = rates.soft_floor(x, 1.0)
    assert (f > 0).all() and (f <= 1).all()
    assert (jnp.abs(f - jnp.maximum(x, 1.0)) < 1.0).all()
    assert (jnp.diff(f[::10]) > 0).all()


def test_floor_has_no_corner_and_no_flat_place():
    slope = jax.vmap(jax.grad(rates.soft_floor), in_axes=(0, None))
    at, below = slope(jnp.asarray([1.0 + 1e-9, 1.0 - 1e-9]), 1.0)
    assert at == 1.0 and below == pytest.approx(1.0, abs=1e-7)
    deep = -jnp.logspace(0, 12, 13)
    np.testing.assert_allclose(slope(deep, 1.0), (1 + 4 * (1 - deep)) ** -1.25, rtol=1e-12)
    assert (slope(deep, 1.0) > 1e-16).all()
    for stuck in (lambda x: jnp.maximum(x, 1.0), lambda x: jnp.where(x > 1.0, x, 1.0)):
        assert jax.grad(stuck)(-5.0) == 0.0


def test_rate_leaves_the_hard_floor_by_less_than_a_millionth_of_its_power_law():
    rng = np.random.default_rng(0)
    t = jnp.linspace(0.01, 10.0, 50)
    for _ in range(50):
        theta = 10 ** rng.uniform(2, 6), rng.uniform(-2, 2), -(10 ** rng.uniform(0, 5))
        power, rate = (np.asarray(x) for x in rate_of(t, jnp.asarray(theta)))
        off = rate - np.maximum(power + theta[2], 1e-10)
        assert (np.abs(off) <= 1e-6 * power + 1e-10).all()
        above = power + theta[2] > 1.001e-6 * power + 1e-10
        assert (np.abs(off[above]) <= 1e-14 * power[above]).all()


# Power laws


@pytest.mark.parametrize("exponent", THROUGH_MINUS_ONE)
def test_power_law_integral_through_minus_one(exponent):
    with mpmath.workdps(40):
        p = mpmath.mpf(exponent)
        steps = [
            mpmath.quad(lambda s: 3.7 * s**p + 0.2, np.geomspace(a, b, 5).tolist())
            for a, b in zip(TIMES[:-1], TIMES[1:], strict=True)
        ]
        expected = np.array([float(x) for x in np.cumsum(steps)])
    clock = exact_clock(TIMES, 3.7, exponent, 0.2)
    np.testing.assert_allclose(clock[1:] - clock[0], expected, rtol=1e-12)


@jax.jit
@jax.grad
def slope_of_integral(exponent):
    early, late = rates.power_law_integral(jnp.asarray([0.5, 7.0]), 1.0, exponent)
    return late - early


@pytest.mark.parametrize("exponent", THROUGH_MINUS_ONE)
def test_derivative_by_the_exponent_through_minus_one(exponent):
    with mpmath.workdps(40):
        p = mpmath.mpf(exponent)
        expected = float(mpmath.quad(lambda s: s**p * mpmath.log(s), [0.5, 1, 7]))

    assert slope_of_integral(exponent) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("t1", [0.0, 0.3])
def test_andrade_creep(t1):
    """Strain 3 γ̇₀ (t₂^⅓ − t₁^⅓) of a shear rate γ̇₀ t^(−2/3), from t = 0 too."""
    t = np.array([t1, 0.5, 2.0, 30.0])
    clock = exact_clock(t, 0.02, -2 / 3, 0.0)
    expected = 3 * 0.02 * (np.cbrt(t) - np.cbrt(t1))
    np.testing.assert_allclose(clock - clock[0], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "theta",
    [
        (1e3, 0.5, -200.0),
        (1e3, -0.5, -2000.0),
        (1e3, -1.6, -2000.0),
        (-100.0, 0.5, 50.0),
        (1e3, 0.0, -200.0),
        (1e3, 1e-9, -999.0),
    ],
)
def test_exact_clock_stands_still_where_the_rate_is_negative(theta):
    t = np.linspace(0.0 if theta[1] >= 0 else 0.1, 4.0, 9)
    crossing = np.exp(np.log(-theta[2] / theta[0]) / theta[1]) if abs(theta[1]) > 0.1 else 1.0

    def positive(s):
        return max(theta[0] * s ** theta[1] + theta[2], 0.0)

    expected = [0.0]
    for a, b in zip(t[:-1], t[1:], strict=True):
        inside = [crossing] if a < crossing < b else None
        expected.append(expected[-1] + quad(positive, a, b, points=inside, epsabs=1e-12)[0])
    clock = exact_clock(t, *theta)
    largest = np.abs(theta[0] * t[1:] ** theta[1]).max()
    np.testing.assert_allclose(clock - clock[0], expected, rtol=1e-9, atol=4e-6 * largest)
    assert (np.diff(clock) >= 0).all()


def test_exact_clock_never_runs_backwards():
    rng = np.random.default_rng(3)
    t = 0.0125 * np.arange(1, 31)
    for _ in range(200):
        theta = 10 ** rng.uniform(2, 5), rng.uniform(-2, 2), -(10 ** rng.uniform(0, 5))
        clock = exact_clock(t, *theta)
        assert np.diff(clock).min() >= -1e-13 * np.ptp(clock)


forward = jax.jit(jax.jacfwd(clock_of, argnums=1), static_argnums=2)
reverse = jax.jit(jax.jacrev(clock_of, argnums=1), static_argnums=2)


@pytest.mark.parametrize("integration", rates.INTEGRATIONS)
@pytest.mark.parametrize("amplitude", [0.0, 100.0])
@pytest.mark.parametrize("exponent", [-2.0, -1.0, -1e-2, -1e-300, 0.0, 1e-80, 0.5])
def test_clock_and_gradient_are_finite_from_time_zero(integration, amplitude, exponent):
    t = 0.0125 * jnp.arange(6)
    for offset in (-1e5, -100.0, -1.0, 0.0, 1e5):
        theta = jnp.asarray([amplitude, exponent, offset])
        assert np.isfinite(clock_of(t, theta, integration)).all()
        assert np.isfinite(forward(t, theta, integration)).all()
        assert np.isfinite(reverse(t, theta, integration)).all()


# The trapezoid rule


def test_running_integral_is_the_trapezoid_rule_on_frames_and_its_line_between():
    t = jnp.asarray([0.1, 0.3, 0.4, 1.0])
    rate = jnp.asarray([2.0, 1.0, 4.0, 0.5])
    on_frames = [0.0, 0.3, 0.55, 1.9]
    np.testing.assert_allclose(rates.running_integral(rate, t, t), on_frames, rtol=1e-15)
    copies = rates.running_integral(rate, t, t + 0.0)
    np.testing.assert_allclose(copies, on_frames, rtol=1e-14)
    halfway = rates.running_integral(rate, t, jnp.asarray([0.2, 0.7]))
    np.testing.assert_allclose(halfway, [0.175, 0.55 + 0.3 * (4.0 + 2.25) / 2], rtol=1e-14)


def test_trapezoid_converges_to_the_closed_form_with_the_square_of_the_step():
    errors = []
    for n in (20, 40, 80):
        t = jnp.linspace(0.5, 3.0, n + 1)
        both = [clock_of(t, jnp.asarray([5.0, -1.4, 0.3]), i) for i in rates.INTEGRATIONS]
        errors.append(float(both[0][-1] - both[1][-1] - both[0][0] + both[1][0]))
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 4.0, rtol=0.02)


def test_regular_times_move_only_a_first_frame_at_zero():
    np.testing.assert_allclose(rates.regular(jnp.asarray([0.0, 0.1, 0.2])), [0.05, 0.1, 0.2])
    np.testing.assert_allclose(rates.regular(jnp.asarray([0.1, 0.2])), [0.1, 0.2])
    np.testing.assert_allclose(rates.regular(jnp.asarray([0.0])), [1e-8])


# Velocity and fraction


def test_velocity_has_a_sign_and_both_rules_agree_on_a_constant():
    t = jnp.linspace(0.0, 2.0, 5)
    clocks = [rates.signed_clock(t, -3.0, 0.0, 1.0, t=t, integration=i) for i in rates.INTEGRATIONS]
    for clock in clocks:
        np.testing.assert_allclose(clock - clock[0], -2.0 * t, atol=1e-14)
    assert (rates.signed_rate(t, -3.0, 0.0, 1.0) == -2.0).all()


def test_fraction_is_clipped_and_keeps_its_slope_on_the_bounds():
    t = jnp.linspace(0.0, 1.0, 3)
    assert (rates.fraction(t, 0.9, 0.0, 0.0, 0.9) == 1.0).all()
    assert (rates.fraction(t, 1.0, 10.0, -1e4, 0.0) == 1.0).all()
    assert (rates.fraction(t, 1.0, -10.0, -1e4, 0.0) == 0.0).all()
    slope = jax.jacfwd(lambda f3: rates.fraction(t, 0.0, 0.0, 0.0, f3))
    assert (slope(0.0) == 1.0).all() and (slope(1.0) == 1.0).all() and (slope(1.1) == 0.0).all()


def test_unknown_integration_is_refused():
    with pytest.raises(ValueError, match="'simpson'; expected one of trapezoid, exact"):
        rates.check_integration("simpson")
