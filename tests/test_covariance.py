import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.covariance import known_noise_covariance, optimum
from twotime.covariance.bands import delta_bands, draw_bands
from twotime.covariance.misfit import residual_structure
from twotime.fit import profile
from twotime.models.correlation import correlation_at

N = 48
T = jnp.arange(1, N + 1) * 0.125
MODEL = tt.StaticDiffusion()
TRUE = {"D0": 1e4, "alpha": 0.3, "D_offset": 0.0}
PARAMS = jnp.array(list(TRUE.values()))
SPACE = tt.ParameterSpace(
    values=TRUE, vary={"D_offset": False}, bounds={"D0": (10.0, 1e7), "alpha": (-2.0, 2.0)}
)
Q = 0.01


def speckle(key=0, pixels=2000, photons=None, angles=1):
    return tt.simulate_speckle(
        MODEL, PARAMS, t=T, q=Q, phi=jnp.arange(angles) * 30.0, contrast=0.5,
        n_pixels=pixels, photons=photons, key=jax.random.key(key),
    )  # fmt: skip


def white(key=0, angles=1):
    return tt.simulate(
        MODEL, PARAMS, t=T, q=Q, phi=jnp.arange(angles) * 30.0, contrast=0.3, offset=1.0,
        noise=0.02, key=jax.random.key(key),
    )  # fmt: skip


def deviations(covariance):
    return np.sqrt(np.diag(covariance))


def test_speckle_widens_the_error_bars_and_the_pixels_are_found():
    data = speckle()
    fit = tt.fit_nlsq(MODEL, data, SPACE)
    assert np.all(deviations(fit.covariance) > 3 * deviations(fit.covariance_iid))
    assert fit.pixels[0] == pytest.approx(2000, rel=0.5)


@pytest.mark.slow
def test_photons_are_found_where_they_matter():
    data = speckle(pixels=20_000, photons=0.2)
    fit = tt.fit_nlsq(MODEL, data, SPACE)
    assert fit.photons == pytest.approx(0.2, rel=0.4)
    known = known_noise_covariance(optimum(MODEL, data, SPACE, fit), 20_000, 0.2)
    np.testing.assert_allclose(deviations(fit.covariance) / deviations(known), 1.0, atol=0.2)


@pytest.mark.parametrize("key", range(3))
def test_agrees_with_independent_pixels_where_they_are(key):
    fit = tt.fit_nlsq(MODEL, white(key), SPACE)
    ratio = deviations(fit.covariance) / deviations(fit.covariance_iid)
    np.testing.assert_allclose(ratio, 1.0, atol=0.15)


def test_the_error_falls_with_the_root_of_the_pixels():
    few, many = (
        known_noise_covariance(optimum(MODEL, d, SPACE, tt.fit_nlsq(MODEL, d, SPACE)), n, jnp.inf)
        for d in (speckle(),)
        for n in (100, 400)
    )
    np.testing.assert_allclose(deviations(few) / deviations(many), 2.0)


def test_errors_of_independent_points_are_those_of_least_squares():
    """χ² over its degrees of freedom times the inverse of JᵀJ, scaling projected out."""
    n = 12
    few = tt.simulate(
        MODEL, PARAMS, t=T[:n], q=Q, phi=jnp.zeros(1), contrast=0.3, offset=1.0, noise=1e-3,
        key=jax.random.key(0),
    )  # fmt: skip
    fit = tt.fit_nlsq(MODEL, few, SPACE, evaluator="tiled")
    i, j = np.triu_indices(n, 1)

    def curve(free):
        params = fit.values.at[:2].set(free)
        return correlation_at(MODEL, params, T[i], T[j], t=T[:n], q=Q, phi=jnp.asarray(0.0))

    model, slope = curve(fit.values[:2]), jax.jacfwd(curve)(fit.values[:2])
    jacobian = np.column_stack([fit.contrast[0] * slope, model, np.ones(i.size)])
    residual = few.c2[0][i, j] - fit.contrast[0] * model - fit.offset[0]
    want = np.linalg.inv(jacobian.T @ jacobian)[:2, :2] * np.sum(residual**2) / (i.size - 4)
    assert fit.dof == i.size - 4
    np.testing.assert_allclose(fit.covariance_iid, want, rtol=1e-5)


@pytest.mark.long
def test_more_frames_than_blocks_change_little():
    n = 120
    t = jnp.arange(1, n + 1) * 0.05
    data = tt.simulate_speckle(
        MODEL, PARAMS, t=t, q=Q, phi=jnp.zeros(1), contrast=0.5, n_pixels=500,
        key=jax.random.key(0),
    )  # fmt: skip
    fine = tt.fit_nlsq(MODEL, data, SPACE)
    thinned = tt.TwoTimeData(
        data.c2[:, ::2, ::2], t[::2], data.q, data.phi, mask=data.mask[:, ::2, ::2]
    )
    coarse = tt.fit_nlsq(MODEL, thinned, SPACE)
    ratio = deviations(fine.covariance) / deviations(coarse.covariance)
    np.testing.assert_allclose(ratio, 1.0, atol=0.15)


@pytest.mark.long
def test_vmap_equals_loop_and_a_held_parameter_has_no_error():
    two = [speckle(k) for k in (1, 2)]
    stacked = jnp.stack([jnp.where(d.mask, d.c2, 1.0) for d in two])

    def fit(c2):
        d = tt.TwoTimeData(c2, T, two[0].q, two[0].phi)
        return tt.fit_nlsq(MODEL, d, SPACE).covariance

    loop = jnp.stack([fit(c2) for c2 in stacked])
    np.testing.assert_allclose(jax.vmap(fit)(stacked), loop, rtol=1e-5)
    low = SPACE.with_bounds({"alpha": (1.0, 2.0)}).with_values({"alpha": 1.5})
    held = tt.fit_nlsq(MODEL, two[0], low)
    assert held.at_bound == ("alpha",)
    assert held.covariance[1, 1] == 0 and held.covariance[0, 0] > 0


@pytest.mark.slow
def test_a_model_without_a_field_gets_error_bars_too():
    class Plain(tt.AbstractTwoTimeModel):
        names = MODEL.names

        def channels(self, params, times, *, t, q, phi):
            return MODEL.channels(params, times, t=t, q=q, phi=phi)

        def correlation(self, pair):
            return MODEL.correlation(pair)

    data = speckle()
    plain = tt.fit_nlsq(Plain(), data, SPACE)
    full = tt.fit_nlsq(MODEL, data, SPACE)
    np.testing.assert_allclose(deviations(plain.covariance), deviations(full.covariance), rtol=0.02)


def test_bands_by_covariance_and_by_draws_agree():
    fit = tt.fit_nlsq(MODEL, speckle(), SPACE)
    delta = delta_bands(MODEL, fit, T)["J"]
    rng = np.random.default_rng(0)
    free = rng.multivariate_normal(fit.values[:2], fit.covariance, size=4000)
    draws = jnp.asarray(np.column_stack([free, np.zeros(4000)]))
    drawn = draw_bands(MODEL, draws, T)["J"]
    middle = N // 2
    np.testing.assert_allclose(
        (drawn.upper - drawn.lower)[middle], (delta.upper - delta.lower)[middle], rtol=0.1
    )
    iid = delta_bands(MODEL, fit, T, iid=True)["J"]
    assert (delta.upper - delta.lower)[middle] > 3 * (iid.upper - iid.lower)[middle]
    assert delta.unit == "Å²/s"


@pytest.mark.slow
def test_profile_is_a_parabola_of_the_robust_width():
    data = speckle(pixels=20_000)
    fit = tt.fit_nlsq(MODEL, data, SPACE)
    sigma = fit.uncertainties["alpha"]
    values = fit.params["alpha"] + sigma * jnp.array([-1.0, 0.0, 1.0, 2.0])
    found = profile(MODEL, data, SPACE, fit, "alpha", values)
    np.testing.assert_allclose(found.height, [1.0, 0.0, 1.0, 4.0], atol=0.3)
    with pytest.raises(ValueError, match="was not fitted"):
        profile(MODEL, data, SPACE, fit, "D_offset", values)


@pytest.mark.slow
def test_residuals_tell_noise_from_a_wrong_model():
    params = PARAMS.at[0].set(5e4)
    space = SPACE.with_values({"D0": 5e4})
    phi, lag = jnp.zeros(1), jnp.abs(T[:, None] - T[None, :])
    noisy = {"contrast": 0.3, "offset": 1.0, "noise": 0.02, "key": jax.random.key(0)}
    good = tt.simulate(MODEL, params, t=T, q=Q, phi=phi, **noisy)

    def sentence(c2):
        data = tt.TwoTimeData(c2, T, good.q, phi)
        fit = tt.fit_nlsq(MODEL, data, space)
        structure = residual_structure(MODEL, data, space, fit)
        assert structure.by_lag.shape == structure.lag_deviation.shape
        return structure.sentence

    real = tt.simulate_speckle(
        MODEL, params, t=T, q=Q, phi=phi, contrast=0.5, n_pixels=2000, key=jax.random.key(0)
    )
    assert "no larger than" in sentence(real.c2)
    assert "no larger than" in sentence(good.c2)
    assert "does not describe" in sentence(good.c2 + 0.05 * jnp.cos(3 * lag))
    stripe = jnp.where(jnp.arange(N) // 5 == 4, 0.03, 0.0)
    assert "frames (stripes)" in sentence(good.c2 + stripe[:, None] + stripe)
