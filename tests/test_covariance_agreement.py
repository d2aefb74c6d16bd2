"""Whether angles share contrast and offset: what each of its own would be, and what is decided."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.covariance.agreement import Response, agree
from twotime.models.correlation import correlation_at
from twotime.report import error_text
from twotime.report.nlsq import scaling_table

T, Q, PHI = jnp.arange(1, 41) * 0.1, 0.01, jnp.array([0.0, 50.0, 110.0])
MODEL, TRUTH = tt.StaticDiffusion(), jnp.array([1e4, 0.0, 0.0])
SPACE = tt.ParameterSpace(
    values={"D0": 1e4, "alpha": 0.0, "D_offset": 0.0},
    vary={"alpha": False, "D_offset": False},
    bounds={"D0": (10.0, 1e7)},
)


def speckle(key, **changes):
    settings = {"contrast": 0.3, "n_pixels": 600, "t": T, "q": Q, "phi": PHI} | changes
    return tt.simulate_speckle(MODEL, TRUTH, key=key, **settings)


def scaled(data, contrast):
    """The data with another contrast in every angle."""
    factor = jnp.asarray(contrast)[:, None, None] / 0.3
    return dataclasses.replace(data, c2=1 + factor * (data.c2 - 1))


@jax.jit
def fitted(data):
    return tt.fit_nlsq(MODEL, data, SPACE)


@pytest.mark.long
def test_contrasts_that_agree_are_shared_and_say_so():
    data = speckle(jax.random.key(0))
    fit, shared = fitted(data), tt.fit_nlsq(MODEL, data, SPACE, per_angle_mode="averaged")
    assert fit.is_shared and fit.per_angle_mode == "averaged"
    np.testing.assert_allclose(fit.values, shared.values, rtol=1e-9)
    np.testing.assert_allclose(fit.covariance, shared.covariance, rtol=1e-6)
    assert "All angles share contrast and offset" in " ".join(fit.remarks)


def test_contrasts_that_differ_are_each_their_own_and_say_so():
    data = scaled(speckle(jax.random.key(1)), [0.3, 0.25, 0.2])
    fit, own = fitted(data), tt.fit_nlsq(MODEL, data, SPACE, per_angle_mode="individual")
    assert not fit.is_shared and fit.per_angle_mode == "individual"
    assert np.abs(fit.own_scaling[:, 0]).max() > 4
    np.testing.assert_allclose(fit.params["D0"], own.params["D0"], rtol=1e-3)
    np.testing.assert_allclose(fit.contrast, own.contrast, rtol=1e-3)
    text = " ".join(fit.remarks)
    assert "own contrast and offset" in text and "contrast at φ = " in text
    again = tt.residual_structure(MODEL, data, SPACE, fit)
    np.testing.assert_allclose(again.by_lag, fit.structure.by_lag, atol=1e-9)


def test_own_scaling_is_the_step_that_scores_ask_for():
    """Of two angles that are alike a third differs: by as many errors as an own fit finds."""
    data = scaled(speckle(jax.random.key(2), n_pixels=20_000), [0.3, 0.3, 0.302])
    fit = fitted(data)
    own = tt.fit_nlsq(MODEL, data, SPACE, per_angle_mode="individual")
    away = np.asarray(own.contrast) - np.asarray(own.contrast).mean()
    assert np.corrcoef(away, np.asarray(fit.own_scaling)[:, 0])[0, 1] > 0.98


@pytest.mark.statistics
def test_own_scaling_scatters_by_one_and_equal_contrasts_are_seldom_said_to_differ():
    keys = jax.random.split(jax.random.key(3), 300)
    found = jax.lax.map(lambda key: fitted(speckle(key)), keys)
    scatter = np.std(found.own_scaling, axis=0)
    assert np.all((scatter > 0.85) & (scatter < 1.15)), scatter
    assert np.mean(~np.asarray(found.is_shared)) <= 0.03


@pytest.mark.parametrize(("largest", "is_same"), [(3.3, True), (3.4, False)])
def test_the_largest_of_twelve_is_judged_as_one_in_a_hundred(largest, is_same):
    # 1 - (1 - 2 Φ(-z))^12 = 0.01 at z = 3.34
    deviations = jnp.zeros((6, 2)).at[4, 1].set(-largest)
    assert bool(agree(deviations)) == is_same


def test_frozen_contrasts_are_said_to_be_frozen():
    fit = tt.fit_nlsq(MODEL, speckle(jax.random.key(0)), SPACE, per_angle_mode="constant")
    assert "frozen at quantiles" in " ".join(fit.remarks)


@pytest.mark.long
def test_contrast_and_offset_have_the_variance_of_dense_least_squares_under_independent_noise():
    data = speckle(jax.random.key(4), phi=PHI[:1])
    fit = tt.fit_nlsq(MODEL, data, SPACE, judge=False)
    response = Response.of(tt.optimum(MODEL, data, SPACE, fit))
    found = response.variance(jnp.eye(3)[None])  # scores along unit directions
    i, j = np.triu_indices(T.size, 1)

    def c2(x):
        params = fit.values.at[0].set(x[0])
        return x[1] * correlation_at(MODEL, params, T[i], T[j], t=T, q=Q, phi=PHI[0]) + x[2]

    at = jnp.array([fit.values[0], fit.contrast[0], fit.offset[0]])
    jacobian = np.asarray(jax.jacfwd(c2)(at)) * [1e4, 1.0, 1.0]
    dense = np.diag(np.linalg.inv(jacobian.T @ jacobian))[1:]
    np.testing.assert_allclose(found[0], dense, rtol=1e-6)


def test_error_bars_of_contrast_and_offset_stand_in_the_report_where_they_were_fitted():
    data = speckle(jax.random.key(0))
    fit = fitted(data)
    said = fit.scaling_uncertainties
    assert np.ptp(said["contrast"]) == 0 and 1e-3 < said["contrast"][0] < 0.05
    frozen = tt.fit_nlsq(MODEL, data, SPACE, per_angle_mode="constant")
    assert all(np.isnan(x).all() for x in frozen.scaling_uncertainties.values())
    heads = "contrast", "± contrast", "offset", "± offset"
    for shown, text in ((fit, error_text(said["contrast"][0])), (frozen, "fixed")):
        table = scaling_table(shown)
        assert table.columns[1:] == heads and table.rows[0][2] == text
    assert fit.summary()["scaling_uncertainties"]["offset"].shape == (3,)


@pytest.mark.statistics
@pytest.mark.parametrize("uncertainty", ["speckle", "residuals"])
def test_contrast_and_offset_scatter_as_their_error_bars_say(uncertainty):
    def deviations(key):
        fit = tt.fit_nlsq(MODEL, speckle(key), SPACE, uncertainty=uncertainty)
        return (jnp.stack([fit.contrast, fit.offset]), fit.scaling_deviation.T)

    values, said = jax.lax.map(deviations, jax.random.split(jax.random.key(5), 100))
    ratio = np.std(values, axis=0) / np.median(said, axis=0)
    assert np.all((ratio > 0.75) & (ratio < 1.3)), ratio
