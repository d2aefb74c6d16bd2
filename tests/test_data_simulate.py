"""Simulated data have the mean, the noise and the correlations of noise that they claim."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.data.simulate import mode_weights, simulate, simulate_speckle
from twotime.models.correlation import correlation, field
from twotime.models.laminar_flow import LaminarFlow
from twotime.models.static import StaticDiffusion
from twotime.models.two_component import TwoComponent

T = 0.05 * jnp.arange(1, 13.0)
PHI = jnp.asarray([0.0, 70.0])
Q = 0.005
STATIC = StaticDiffusion(), jnp.asarray([4.0e4, -0.2, 1e3])
LAMINAR = LaminarFlow(gap=2e6), jnp.asarray([2.0e4, 0.0, 10.0, 1.5e-3, 0.0, 0.0, -5.0])
TWO = (
    TwoComponent(),
    jnp.asarray([1e3, 0.0, 0.0, 3e4, 0.0, 0.0, 2e3, 0.0, 0.0, 0.3, 1.0, 0.0, 0.2, 5.0]),
)
UPPER = np.triu_indices(T.size, 1)


def test_pixel_noise_is_white_symmetric_and_of_the_size_asked():
    noise, offset = jnp.asarray([0.01, 0.03]), jnp.asarray([1.0, 1.1])
    t = 0.01 * jnp.arange(1, 201.0)
    model, params = STATIC
    data = jax.jit(
        lambda key: simulate(
            model, params, t=t, q=Q, phi=PHI, contrast=0.3, offset=offset, noise=noise, key=key
        )
    )(jax.random.key(0))
    mean = offset[:, None, None] + 0.3 * correlation(model, params, t=t, q=Q, phi=PHI)
    white = (data.c2 - mean)[:, *np.triu_indices(200, 1)] / noise[:, None]
    assert np.array_equal(data.c2, jnp.swapaxes(data.c2, 1, 2))
    assert np.abs(white.mean(axis=1)) == pytest.approx(0, abs=0.03)
    assert white.std(axis=1) == pytest.approx(1, rel=0.02)
    assert np.abs(np.corrcoef(white[:, :-1].ravel(), white[:, 1:].ravel())[0, 1]) < 0.02
    assert data.mask is None and data.sigma is None


def test_without_noise_it_is_the_model():
    model, params = TWO
    data = simulate(
        model,
        params,
        t=T,
        q=Q,
        phi=PHI,
        contrast=0.2,
        offset=1.05,
        noise=0.0,
        key=jax.random.key(1),
    )
    expected = 1.05 + 0.2 * correlation(model, params, t=T, q=Q, phi=PHI)
    assert np.allclose(data.c2, expected, rtol=1e-14)


@pytest.mark.parametrize("beta", [1.0, 0.9, 0.5, 1 / 3, 0.3, 0.25, 0.123])
def test_mode_weights_give_the_contrast_exactly(beta):
    weights = mode_weights(beta)
    assert weights.sum() == pytest.approx(1, rel=1e-14)
    assert np.square(weights).sum() == pytest.approx(beta, rel=1e-14)
    assert weights.min() > 0 and weights.size == np.ceil(1 / beta - 1e-9)


@pytest.mark.parametrize("beta", [0.0, -0.1, 1.1, float("nan")])
def test_impossible_contrast(beta):
    with pytest.raises(ValueError, match=r"expected a number in \(0, 1\]"):
        mode_weights(beta)


def test_no_pixels():
    model, params = STATIC
    with pytest.raises(ValueError, match="n_pixels is 0"):
        simulate_speckle(
            model, params, t=T, q=Q, phi=PHI, contrast=0.5, n_pixels=0, key=jax.random.key(0)
        )


LAWS = {"static": STATIC, "laminar": LAMINAR, "two": TWO}
N_PIXELS, COUNT = 100, 300


@partial(jax.jit, static_argnames=("name", "contrast", "n_pixels"))
def many(keys, photons, *, name, contrast, n_pixels):
    model, params = LAWS[name]

    def one(key):
        return simulate_speckle(
            model,
            params,
            t=T,
            q=Q,
            phi=PHI,
            contrast=contrast,
            n_pixels=n_pixels,
            photons=photons,
            key=key,
        )

    return jax.vmap(one)(keys)


@cache
def repeats(name, photons=None):
    keys = jax.random.split(jax.random.key(3), COUNT)
    return many(keys, photons, name=name, contrast=0.5, n_pixels=N_PIXELS)


def variance_of_c2(g, beta, n_bar):
    """Number of pixels times Var[c2] for every pair of frames, to first order in 1/pixels.

    The intensity x = I/<I> has the joint cumulants of 1/beta gamma modes with field correlation
    g: beta |g|^2, 2 beta^2 |g|^2 for (i, i, j), beta^3 (4 |g|^2 + 2 |g|^4) for (i, i, j, j);
    y are counts divided by their mean n_bar.
    """
    p = beta * np.abs(g[UPPER]) ** 2
    k21, k22 = 2 * beta * p, beta**2 * 4 * p + 2 * beta * p**2
    m11 = 1 + p
    m21 = k21 + 2 * p + beta + 1
    m22 = k22 + 4 * k21 + 2 * p**2 + beta**2 + 2 * beta + 4 * p + 1
    shot = 1 / n_bar  # E[y^2] = E[x^2] + E[x]/n_bar for Poisson counts
    y21 = m21 + shot * m11
    y22 = m22 + 2 * shot * m21 + shot**2 * m11
    return y22 - m11**2 - 4 * m11 * (y21 - m11) + 2 * m11**2 * (beta + shot + p)


@pytest.mark.parametrize(
    ("name", "photons"),
    [
        ("static", None),
        pytest.param("laminar", None, marks=pytest.mark.slow),
        pytest.param("two", None, marks=pytest.mark.slow),
        pytest.param("two", 0.8, marks=pytest.mark.slow),
    ],
)
def test_speckle_has_the_mean_of_the_model_and_the_noise_of_its_cumulants(name, photons):
    model, params = LAWS[name]
    drawn = np.asarray(repeats(name, photons).c2)[:, :, *UPPER]
    expected = 1 + 0.5 * correlation(model, params, t=T, q=Q, phi=PHI)[:, *UPPER]
    g = np.asarray(field(model, params, t=T, q=Q, phi=PHI))
    n_bar = np.inf if photons is None else photons
    variance = np.stack([variance_of_c2(g[k], 0.5, n_bar) for k in range(2)]) / N_PIXELS
    error = drawn.mean(axis=0) - expected
    ratio = drawn.var(axis=0) / variance
    assert np.abs(error / np.sqrt(variance / COUNT)).max() < 6
    assert ratio.mean() == pytest.approx(1, abs=0.09)
    assert np.abs(ratio - 1).max() < 0.45


def test_contrast_between_whole_modes_and_pixels_that_do_not_fill_a_batch():
    keys = jax.random.split(jax.random.key(4), 50)
    data = many(keys, None, name="static", contrast=0.4, n_pixels=300)
    model, params = STATIC
    expected = 1 + 0.4 * correlation(model, params, t=T, q=Q, phi=PHI)[:, *UPPER]
    assert np.allclose(np.asarray(data.c2).mean(axis=0)[:, *UPPER], expected, atol=0.02)


def test_noise_of_pixels_that_share_a_frame_is_correlated():
    """Two pixels of one row vary together, unlike in `simulate`."""
    drawn = np.asarray(repeats("static").c2)[:, 0]
    assert np.corrcoef(drawn[:, 0, 1], drawn[:, 0, 2])[0, 1] > 0.5


def test_diagonal_holds_shot_noise_and_is_masked():
    keys = jax.random.split(jax.random.key(3), 30)
    data = many(keys, 0.8, name="static", contrast=0.5, n_pixels=N_PIXELS)
    diagonal = np.diagonal(data.c2, axis1=2, axis2=3).mean()
    assert diagonal == pytest.approx(1 + 0.5 + 1 / 0.8, rel=0.02)
    assert np.array_equal(data.mask[0, 0], ~np.eye(T.size, dtype=bool))


def test_frames_without_a_count_are_masked():
    keys = jax.random.split(jax.random.key(3), 30)
    data = many(keys, 0.01, name="static", contrast=0.5, n_pixels=N_PIXELS)
    dark = ~np.asarray(jnp.isfinite(data.c2))
    assert dark.any() and not np.asarray(data.mask)[dark].any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_slow_dynamics_and_the_precision_of_the_times(dtype):
    """A covariance that is nearly all ones still has fields; data are as precise as times."""
    data = simulate_speckle(
        StaticDiffusion(),
        jnp.asarray([1e-3, 0.0, 0.0], dtype),
        t=0.01 * jnp.arange(1, 301, dtype=dtype),
        q=Q,
        phi=PHI[:1].astype(dtype),
        contrast=1.0,
        n_pixels=500,
        key=jax.random.key(0),
    )
    assert data.c2.dtype == dtype and np.isfinite(data.c2).all()
    assert np.ptp(data.c2) < 0.02
