"""The cross-checks of benchmarks/cross_checks.py against dense scores and the default."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_covariance import MODEL, SPACE, N, Q, T, deviations, speckle, white

import twotime as tt
from twotime.covariance import optimum
from twotime.models.correlation import correlation_at

_PATH = Path(__file__).resolve().parents[1] / "benchmarks/cross_checks.py"
_SPEC = importlib.util.spec_from_file_location("cross_checks", _PATH)
checks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(checks)


@pytest.mark.long
def test_frame_scores_equal_the_dense_ones():
    data = speckle(angles=4, pixels=300)
    fit = tt.fit_nlsq(MODEL, data, SPACE)
    at = optimum(MODEL, data, SPACE, fit)
    got = np.asarray(checks.frame_scores(at.problem, at.params, at.reduced))
    i, j = np.triu_indices(N, 1)

    def curve(free):
        return correlation_at(
            MODEL, fit.values.at[:2].set(free), T[i], T[j], t=T, q=Q, phi=jnp.asarray(0.0)
        )

    m, slope = (np.tile(np.asarray(f(fit.values[:2])), (4,) + (1,) * d)
                for f, d in ((curve, 0), (jax.jacfwd(curve), 1)))  # fmt: skip
    basis = np.stack([m, np.ones_like(m)], axis=1)
    jacobian = np.asarray(fit.contrast[0]) * slope
    jacobian = jacobian - basis @ np.linalg.lstsq(basis, jacobian)[0]
    residual = np.concatenate(data.c2[:, i, j]) - fit.contrast[0] * m - fit.offset[0]
    pulls = np.split(jacobian * np.asarray(residual)[:, None], 4)
    for k in range(4):
        want = np.zeros((N, 2))
        np.add.at(want, i, pulls[k])
        np.add.at(want, j, pulls[k])
        size = np.abs(want).max(axis=0)
        np.testing.assert_allclose(got[k] / size, want / size, atol=1e-8)


@pytest.mark.long
def test_cross_checks_see_the_same_noise():
    data = speckle(angles=4, pixels=300)
    fit = tt.fit_nlsq(MODEL, data, SPACE)
    at = optimum(MODEL, data, SPACE, fit)
    for other in (checks.dyadic_covariance(at), checks.jackknife_covariance(at)):
        ratio = deviations(other) / deviations(fit.covariance)
        assert np.all((ratio > 0.2) & (ratio < 4)), ratio
    with pytest.raises(ValueError, match="at least 3"):
        checks.jackknife_covariance(
            optimum(MODEL, speckle(), SPACE, tt.fit_nlsq(MODEL, speckle(), SPACE))
        )


@pytest.mark.slow
def test_shared_flicker_is_seen_when_told():
    data = white(angles=4)
    flicker = 1 + 0.02 * jax.random.normal(jax.random.key(5), (N,))
    c2 = data.c2 * flicker[:, None] * flicker[None, :]
    data = tt.TwoTimeData(c2, T, data.q, data.phi)
    at = optimum(MODEL, data, SPACE, tt.fit_nlsq(MODEL, data, SPACE))
    own, shared = (deviations(checks.dyadic_covariance(at, shared_frames=s)) for s in (False, True))
    assert np.all(shared > 1.5 * own)
