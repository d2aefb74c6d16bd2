"""Priors in least squares: the mode of the posterior, and errors that include them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from cases import BY_NAME, NOISE, TIMES, Q
from scipy.optimize import minimize

import twotime as tt
from twotime.config.priors import PriorType

CASE = BY_NAME["static"]
NUMBERS = {"D0": (1.9e4, 300.0), "alpha": (-0.1, 0.01)}


def prior(kind, *numbers):
    return tt.PriorDistribution(kind, dict(zip(("loc", "scale"), numbers, strict=True)))


SPACE = CASE.space.with_priors({n: prior(PriorType.NORMAL, *x) for n, x in NUMBERS.items()})


def posterior(x, c2, sigma):
    """Minus the logarithm of the posterior, contrast and offset at their best."""
    theta = jnp.asarray([x[0] * 1e4, x[1], CASE.value("D_offset")])
    phi = jnp.asarray(CASE.phi)
    c = np.asarray(tt.correlation(CASE.model, theta, t=jnp.asarray(TIMES), q=Q, phi=phi))
    upper, chi2, n = np.triu_indices(len(TIMES), 1), 0.0, 0
    for one, data in zip(c, c2, strict=True):
        basis = np.stack([one[upper], np.ones(len(upper[0]))], axis=1)
        chi2 += np.linalg.lstsq(basis, data[upper], rcond=None)[1][0]
        n += len(upper[0])
    pulls = [(x[k] * (1e4, 1.0)[k] - m) / s for k, (m, s) in enumerate(NUMBERS.values())]
    least = 0.5 * n * np.log(chi2) if sigma is None else 0.5 * chi2 / sigma**2
    return least + 0.5 * sum(z * z for z in pulls)


@pytest.mark.parametrize("sigma", [None, NOISE])
def test_the_estimate_is_the_mode_of_the_posterior(sigma):
    data = CASE.data if sigma is None else dataclasses.replace(CASE.data, sigma=jnp.asarray(sigma))
    asked = {"per_angle_mode": "individual", "judge": False, "tolerance": 1e-6}
    fit = tt.fit_nlsq(CASE.model, data, SPACE, priors=True, **asked)
    c2 = np.asarray(CASE.data.c2)
    found = minimize(
        posterior, [2.0, -0.2], args=(c2, sigma), method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-10},
    )  # fmt: skip
    assert fit.converged and fit.with_priors
    assert fit.params["D0"] == pytest.approx(found.x[0] * 1e4, rel=1e-6)
    assert fit.params["alpha"] == pytest.approx(found.x[1], abs=1e-6)
    if sigma is not None:
        return
    # Of independent points the covariance is the inverse of the sum of both precisions.
    plain = tt.fit_nlsq(CASE.model, data, SPACE, **asked)
    for name, (_, scale) in NUMBERS.items():
        assert fit.uncertainties_iid[name] < min(scale, plain.uncertainties_iid[name])
    precision = np.diag([s**-2.0 for _, s in NUMBERS.values()])
    both = np.linalg.inv(np.linalg.inv(np.asarray(plain.covariance_iid)) + precision)
    assert np.allclose(np.sqrt(np.diag(fit.covariance_iid)), np.sqrt(np.diag(both)), rtol=0.1)
    assert "priors of the parameters are included" in fit.uncertainty_kind
    assert "maximum a posteriori estimate" in fit.report() and "posteriori" not in plain.report()
    assert np.all(np.diag(fit.covariance) >= 0.9 * np.diag(fit.covariance_iid))


def test_priors_that_are_no_residuals_are_refused():
    for space, sentence in (
        (CASE.space, "no parameter that varies has a prior"),
        (SPACE.with_priors({"D0": prior(PriorType.LOGNORMAL, 9.0, 0.1)}), "has a lognormal prior"),
    ):
        with pytest.raises(ValueError, match=sentence):
            tt.fit_nlsq(CASE.model, CASE.data, space, priors=True)
    with pytest.raises(ValueError, match="robust losses are not combined"):
        tt.fit_nlsq(CASE.model, CASE.data, SPACE, priors=True, loss="huber")
