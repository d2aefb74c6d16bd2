"""Alternatives of starts: other courses of rates and fractions, components exchanged."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import twotime as tt
from twotime.models.proposals import Alternatives, Scene
from twotime.models.two_component import FRACTION as NAMES

T = np.arange(1, 81) * 0.1
RATES, SIGNED, FRACTION = (0, 3, 6), (6,), 9
MODEL = tt.TwoComponent()
SCENE = Scene(MODEL.names, T, 0.005, {}, {})
*TRANSPORT, VELOCITY = MODEL.composition.rates
TRANSPORT = tuple(TRANSPORT)
OTHERS = Alternatives(SCENE, (*TRANSPORT, VELOCITY), fraction=NAMES, exchange=TRANSPORT)
PARAMS = np.array([4e3, 0.1, 10, 8e3, -0.2, 0, 700, 0.2, 0, 0.4, -0.3, 0, 0.2, 1.0])


def rate(params, k):
    values = params[k] * T ** params[k + 1] + params[k + 2]
    return np.abs(values) if k in SIGNED else np.maximum(values, 0.0)


def fraction(params, t=T):
    f0, f1, f2, f3 = params[FRACTION : FRACTION + 4]
    return f0 * np.exp(f1 * (t - f2)) + f3


@given(
    amplitude=st.floats(1e2, 1e5),
    exponent=st.floats(-2.0, 2.0),
    offset=st.floats(-1e3, 1e3),
    place=st.sampled_from([0, 1, 2]),
)
def test_a_rate_becomes_another_of_like_mean_and_nothing_else_changes(
    amplitude, exponent, offset, place
):
    k = RATES[place]
    params = PARAMS.copy()
    params[k : k + 3] = amplitude, exponent, offset
    others = OTHERS(params)[place]
    elsewhere = np.setdiff1d(np.arange(params.size), [k, k + 1, k + 2])
    np.testing.assert_array_equal(others[:, elsewhere], np.broadcast_to(
        params[elsewhere], others[:, elsewhere].shape))  # fmt: skip
    means = [np.trapezoid(rate(p, k), T) for p in others]
    own = np.trapezoid(rate(params, k), T)
    scales = np.repeat((0.4, 1.0, 2.5), len(others) // 3)
    # A velocity that changes its sign has a mean size above that of its course.
    assert np.all(np.asarray(means) >= own * scales * (1 - 1e-9))
    if k not in SIGNED:
        np.testing.assert_allclose(means, own * scales, rtol=1e-9)


def test_rates_begin_late_end_early_rise_and_fall():
    shapes = OTHERS(PARAMS)[0]
    courses = np.stack([rate(p, 0) for p in shapes])
    assert np.any((courses[:, 0] == 0) & (courses[:, -1] > 0))
    assert np.any((courses[:, 0] > 0) & (courses[:, -1] == 0))
    assert np.any(courses[:, 0] > 10 * courses[:, -1])
    assert np.any(courses[:, 0] < 0.1 * courses[:, -1])


@given(f0=st.floats(0.0, 1.0), f1=st.floats(-3.0, 1.0), f2=st.floats(-5.0, 5.0))
def test_fractions_go_from_some_values_to_others_by_whatever_reference_time(f0, f1, f2):
    params = PARAMS.copy()
    params[FRACTION : FRACTION + 4] = f0, f1, f2, 0.0
    plain, swapped = OTHERS(params)[4:6]
    late = np.clip(fraction(params, T[0] + 0.75 * (T[-1] - T[0])), 0.02, 0.98)
    for laws, end in ((plain, late), (swapped, 1.0 - late)):
        courses = np.stack([fraction(p) for p in laws])
        assert np.all((courses >= -1e-12) & (courses <= 1.1 + 1e-9))
        assert np.any(np.ptp(courses, axis=1) < 1e-12)
        assert np.min(np.abs(courses[:, -1] - end)) < 0.02
        assert np.ptp(courses[:, 0]) > 0.5
    np.testing.assert_array_equal(swapped[:, 0:3], np.broadcast_to(params[3:6], (len(swapped), 3)))
    np.testing.assert_array_equal(swapped[:, 3:6], np.broadcast_to(params[0:3], (len(swapped), 3)))


def test_exchanged_components_are_the_same_correlation_where_the_law_can_say_it():
    params = PARAMS.copy()
    params[FRACTION : FRACTION + 4] = 0.3, 0.0, 0.0, 0.0
    other = OTHERS.exchanged(params)
    other[FRACTION] = 0.7
    one, two = (
        tt.correlation(MODEL, jnp.asarray(p), t=T, q=0.005, phi=jnp.zeros(1))
        for p in (params, other)
    )
    np.testing.assert_allclose(one, two, rtol=1e-12)
    np.testing.assert_array_equal(OTHERS.exchanged(OTHERS.exchanged(params)), params)


def test_with_the_components_exchanged_velocities_may_also_be_steady():
    steady = OTHERS(PARAMS)[9]
    assert np.all(steady[:, 7:9] == 0.0)
    ratio = np.unique(steady[:, 6]) / np.median(rate(PARAMS, 6))
    assert ratio.min() == pytest.approx(0.5, rel=0.05) and ratio.max() == pytest.approx(2, rel=0.05)


def test_models_without_a_fraction_change_their_rates_alone():
    flow = tt.LaminarFlow(gap=2e6)
    scene = Scene(flow.names, T, 0.005, {}, {})
    kinds = Alternatives(scene, flow.composition.rates)(PARAMS[:7])
    assert len(kinds) == 2 and all(np.isfinite(kind).all() for kind in kinds)
