"""Residuals of frames: their windows, what angles have in common, movies in an unsteady beam."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_covariance_misfit import MODEL, SPACE, TRUTH, Q

import twotime as tt
from twotime.covariance.residuals import common, jackknife, window

T = jnp.arange(1, 101) * 0.1


def speckle(key, beam=None):
    """A movie whose frames have an intensity of their own that c2 does not know."""
    data = tt.simulate_speckle(
        MODEL, TRUTH, t=T, q=Q, phi=jnp.array([0.0, 60.0]), contrast=0.3, n_pixels=500, key=key
    )
    beam = jnp.ones(len(T)) if beam is None else beam / jnp.mean(beam)
    return dataclasses.replace(data, c2=data.c2 * jnp.outer(beam, beam))


def series(shared, n=600):
    noise = np.random.default_rng(0).normal(size=(2, n))
    for k in range(1, n):
        noise[:, k] = shared * noise[:, k - 1] + np.sqrt(1 - shared**2) * noise[:, k]
    return noise


def test_frames_of_white_noise_stand_alone_and_others_as_long_as_andrews_says():
    assert window(jnp.asarray(series(0.0))) <= 2
    shared = 0.8
    by_law = 1.1447 * (4 * shared**2 / (1 - shared**2) ** 2 * 600) ** (1 / 3)
    assert window(jnp.asarray(series(shared))) == pytest.approx(by_law, rel=0.1)
    assert window(jnp.asarray(np.cumsum(series(0.0), axis=1))) <= 100  # a sixth of the record


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_the_jackknife_weighs_products_of_frames_by_a_triangle_of_lags(shared):
    scores = series(shared, 120)
    width = int(window(jnp.asarray(scores)))
    lag = np.abs(np.subtract.outer(np.arange(120), np.arange(120)))
    expected = scores @ np.clip(1 - lag / width, 0, None) @ scores.T
    np.testing.assert_allclose(jackknife(jnp.asarray(scores)), expected, rtol=1e-10)


@pytest.mark.parametrize("memory", [0.0, 0.7])
def test_series_that_know_nothing_of_each_other_are_alike_by_one_standard_deviation(memory):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, 3, 300))
    for k in range(1, 300):
        x[..., k] = memory * x[..., k - 1] + np.sqrt(1 - memory**2) * x[..., k]
    found = np.asarray(jax.vmap(common)(jnp.asarray(x)))
    assert found.mean() == pytest.approx(0, abs=0.15) and found.std() == pytest.approx(1, abs=0.12)
    shared = x[:, :1] + 0.5 * x
    assert np.median(jax.vmap(common)(jnp.asarray(shared))) > 5
    assert common(jnp.asarray(x[0, :1])) == 0  # one angle has nothing to be like


def test_the_likeness_of_two_series_is_that_of_bartlett():
    x, y = np.random.default_rng(4).normal(size=(2, 60)).cumsum(axis=1)
    x, y = x - x.mean(), y - y.mean()
    own = [(x[: 60 - h] @ x[h:]) * (y[: 60 - h] @ y[h:]) / (60 - h) for h in range(11)]
    expected = x @ y / np.sqrt(own[0] + 2 * sum(own[1:]))
    assert common(jnp.asarray([x, y])) == pytest.approx(expected, rel=1e-10)


@pytest.mark.long
def test_a_beam_that_all_angles_see_is_told_and_is_in_the_error_bars():
    noise = jax.random.normal(jax.random.key(2), T.shape)
    fit = tt.fit_nlsq(MODEL, speckle(jax.random.key(1), 1 + 0.01 * noise), SPACE)
    assert fit.structure.common > 4 and not fit.structure.is_right and fit.from_residuals
    assert "a beam whose intensity varies" in fit.report()
    assert fit.structure.summary()["place"] == "frames of all angles"


def test_error_bars_are_of_speckle_until_the_model_is_found_wrong():
    data = speckle(jax.random.key(1))
    right = tt.fit_nlsq(MODEL, data, SPACE)
    assert not right.from_residuals and right.uncertainty_kind.startswith("from the covariance of")
    falling = jnp.linspace(1.0, 0.4, len(T))
    data = dataclasses.replace(data, c2=1 + (data.c2 - 1) * jnp.outer(falling, falling))
    wrong = tt.fit_nlsq(MODEL, data, SPACE)
    assert not wrong.structure.is_right and wrong.from_residuals
    assert wrong.uncertainty_kind.startswith("from the residuals frame by frame")
    assert wrong.uncertainty_kind in wrong.report()
    asked = tt.fit_nlsq(MODEL, data, SPACE, uncertainty="speckle")
    assert asked.uncertainty_kind == right.uncertainty_kind
    assert all(wrong.uncertainties[n] >= s * (1 - 1e-9) for n, s in asked.uncertainties.items())
    with pytest.raises(ValueError, match="uncertainty is 'none'; expected one of auto, speckle"):
        tt.fit_nlsq(MODEL, data, SPACE, uncertainty="none")


@pytest.mark.parametrize(
    "movies",
    [pytest.param(10, marks=pytest.mark.long), pytest.param(200, marks=pytest.mark.statistics)],
)
def test_residuals_know_an_unsteady_beam_that_speckle_does_not(movies):
    asked = {"uncertainty": "residuals", "judge": False}

    def one(key):
        of_movie, of_beam = jax.random.split(key)
        noise = jax.random.normal(of_beam, (len(T),))
        slow = jax.lax.scan(lambda x, e: (0.8 * x + 0.6 * e,) * 2, 0.0, noise)[1]
        data = speckle(of_movie, 1 + 0.01 * slow)
        return [
            tt.fit_nlsq(MODEL, data, SPACE, **asked),
            tt.fit_nlsq(MODEL, data, SPACE, uncertainty="speckle", judge=False),
        ]

    fits, others = zip(*map(one, jax.random.split(jax.random.key(7), movies)), strict=True)
    assert all(fit.structure is None and fit.from_residuals for fit in fits)
    error = np.array([np.asarray(fit.values)[:2] - TRUTH[:2] for fit in fits])

    def scatter(fits):
        said = np.array([list(fit.uncertainties.values()) for fit in fits])
        return np.sqrt(np.mean(error**2, axis=0) / np.mean(said**2, axis=0))

    few = movies < 100
    assert np.all(scatter(fits) < 0.95 * scatter(others))
    assert np.all((0.4 if few else 0.6) < scatter(fits)) and np.all(scatter(fits) < 1.3)
    assert few or np.all(scatter(others) > 1.0)
