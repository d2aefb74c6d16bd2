"""Robust losses: outliers lose their weight, clean data lose nothing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt

T, PHI, Q = np.arange(1, 51) * 0.2, np.array([0.0, 60.0, 120.0]), 0.005
TRUTH = {"D0": 2e4, "alpha": -0.3, "D_offset": 0.0}
NOISE = 0.02
UPPER = np.triu_indices(T.size, 1)
LOSSES = ("soft_l1", "huber")


def clean(key=0):
    return tt.simulate(
        tt.StaticDiffusion(), jnp.asarray(list(TRUTH.values())), t=T, q=Q, phi=PHI,
        contrast=0.3, offset=1.0, noise=NOISE, key=jax.random.key(key),
    )  # fmt: skip


def spoilt(data, share=0.05):
    """Five per cent of the pixels far too high at long lags."""
    rng = np.random.default_rng(0)
    hit = rng.random(data.c2.shape) < share
    hit &= np.abs(T[:, None] - T) > 3.0
    hit = np.triu(hit, 1)
    hit |= np.swapaxes(hit, 1, 2)
    return tt.TwoTimeData(np.where(hit, data.c2 + 0.4, data.c2), data.t, data.q, data.phi)


def space():
    free = tt.ParameterSpace.from_config({"analysis_mode": "static"})
    return free.with_values({**TRUTH, "D0": 1.5e4}).with_vary({"D_offset": False})


def fit(data, loss, **settings):
    """All with one tolerance: compiled code is shared."""
    settings = {"evaluator": "tiled", "tolerance": 1e-6, "loss": loss} | settings
    return tt.fit_nlsq(tt.StaticDiffusion(), data, space(), **settings)


@pytest.fixture(scope="module")
def fits():
    sets = {"clean": clean(), "spoilt": spoilt(clean())}
    return {(k, loss): fit(d, loss) for k, d in sets.items() for loss in ("linear", *LOSSES)}


def distance(fit):
    """From the truth, in standard deviations of independent pixels of a clean fit."""
    return np.asarray([abs(fit.params[n] - TRUTH[n]) for n in fit.names])


def cost(data, x, s, loss):
    """Robust sum, written down once more from D0, alpha, contrast and offset."""
    params = jnp.asarray([x[0], x[1], 0.0])
    c = tt.correlation(tt.StaticDiffusion(), params, t=T, q=Q, phi=PHI)
    r = np.asarray(data.c2 - x[2] * c - x[3])[:, *UPPER]
    u = (r / s[:, None]) ** 2
    one = 2 * (np.sqrt(1 + u) - 1) if loss == "soft_l1" else np.where(u < 1, u, 2 * u**0.5 - 1)
    return float(np.sum(s[:, None] ** 2 * one))


@pytest.mark.long
@pytest.mark.parametrize("loss", LOSSES)
def test_outliers_move_the_plain_fit_and_not_the_robust_one(fits, loss):
    sigma = np.asarray(list(fits["clean", "linear"].uncertainties_iid.values()))
    assert fits["spoilt", loss].converged and fits["spoilt", loss].loss == loss
    assert np.max(distance(fits["spoilt", "linear"]) / sigma) > 5
    assert np.max(distance(fits["spoilt", loss]) / sigma) < 2
    np.testing.assert_allclose(fits["spoilt", loss].noise_level, NOISE, rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_clean_data_give_the_same_answer(fits, loss):
    plain, robust = fits["clean", "linear"], fits["clean", loss]
    sigma = np.asarray(list(plain.uncertainties_iid.values()))
    away = [abs(plain.params[n] - robust.params[n]) for n in plain.names]
    assert np.max(away / sigma) < 1.0
    ratio = np.asarray(list(robust.uncertainties_iid.values())) / sigma
    assert np.all((ratio > 1.0) & (ratio < 1.15))  # Huber at one sigma: 1.053 for normal noise
    np.testing.assert_allclose(robust.chi2, plain.chi2, rtol=1e-3)
    assert robust.chi2 >= plain.chi2 and robust.cost < robust.chi2
    assert robust.total == pytest.approx(float(plain.total), rel=1e-9)
    assert plain.cost is None and plain.noise_level is None


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_the_cost_written_down_once_more_is_smallest_there(fits, loss):
    data, found = spoilt(clean()), fits["spoilt", loss]
    s = np.asarray(found.noise_level)
    x = np.array([found.params["D0"], found.params["alpha"], found.contrast[0], found.offset[0]])
    unit = np.array([x[0] * 1e-3, 1e-3, 1e-4, 1e-4])

    def at(z):
        return cost(data, x + z * unit, s, loss)

    assert at(np.zeros(4)) == pytest.approx(float(found.cost), rel=1e-9)
    slope = np.asarray([(at(e) - at(-e)) / 2 for e in np.eye(4)])
    bend = np.asarray([at(e) + at(-e) - 2 * at(0 * e) for e in np.eye(4)])
    assert np.all(bend > 0)
    assert np.max(np.abs(slope / bend)) < 1e-3


@pytest.mark.statistics
def test_the_scatter_is_what_the_uncertainties_say():
    found = [fit(spoilt(clean(key)), "huber") for key in range(60)]
    scatter = np.std([[f.params[n] for n in f.names] for f in found], axis=0, ddof=1)
    for said in ("uncertainties_iid", "uncertainties"):
        mean = np.mean([list(getattr(f, said).values()) for f in found], axis=0)
        np.testing.assert_allclose(scatter / mean, 1.0, atol=0.25)


@pytest.mark.long
def test_sigma_is_the_noise_level_where_the_data_have_one(fits):
    data = spoilt(clean())
    given = eqx.tree_at(lambda d: d.sigma, data, np.asarray(NOISE), is_leaf=lambda x: x is None)
    found = fit(given, "huber")
    assert np.all(np.asarray(found.noise_level) == 1.0)
    away = [abs(found.params[n] - fits["spoilt", "huber"].params[n]) for n in found.names]
    assert np.max(away / np.asarray(list(found.uncertainties_iid.values()))) < 0.3
    assert found.uncertainties_iid["alpha"] == pytest.approx(
        fits["spoilt", "huber"].uncertainties_iid["alpha"], rel=0.05
    )


@pytest.mark.slow
def test_weights_that_still_change_are_no_convergence():
    found = fit(spoilt(clean()), "huber", max_steps=9)
    assert not found.converged and "weights of the robust loss still change" in found.status


@pytest.mark.slow
def test_the_report_says_the_loss(fits):
    text = fits["spoilt", "huber"].report()
    assert "huber" in text and "robust cost" in text
    assert "huber" not in fits["spoilt", "linear"].report()
    assert fits["spoilt", "huber"].summary()["loss"]["kind"] == "huber"


def test_what_a_loss_cannot_do_is_refused_in_a_sentence():
    data = clean()
    with pytest.raises(ValueError, match="factored evaluator cannot be used with loss='huber'"):
        fit(data, "huber", evaluator="factored")
    with pytest.raises(ValueError, match="expected one of linear, soft_l1, huber"):
        fit(data, "cauchy")
    with pytest.raises(ValueError, match="loss_scale is 0.0; expected a positive"):
        fit(data, "huber", loss_scale=0.0)
