"""g2(τ): means of c2 over equal lags, with error bars of speckle and photon noise."""

import dataclasses

import jax
import numpy as np
import pytest
from cases import BY_NAME

import twotime as tt

CASE = BY_NAME["static"]


def test_g2_is_the_mean_over_points_of_equal_lag():
    mask = np.random.default_rng(0).random(CASE.data.c2.shape) > 0.2
    data = dataclasses.replace(CASE.data, mask=mask)
    found = tt.one_time(data, ages=2)
    assert found.g2.shape == found.error.shape == (2, 2, found.tau.size)
    np.testing.assert_allclose(found.periods, [[0.1, 2.0], [2.1, 4.0]])
    c2, used = np.asarray(data.c2)[1, 20:, 20:], mask[1, 20:, 20:]
    lag = np.arange(20) - np.arange(20)[:, None]
    first = used & (lag == 1)
    assert float(found.g2[1, 1, 0]) == pytest.approx(c2[first].mean(), rel=1e-12)
    assert float(found.tau[0]) == pytest.approx(0.1)
    # All points count once: groups hold all lags up to the last.
    assert float(found.tau[-1]) > 1.5
    assert np.all(np.asarray(found.error) > 0)
    rows = found.to_csv().splitlines()
    assert rows[0] == "q,phi,first_time,last_time,tau,g2,error"
    assert len(rows) == 1 + found.g2.size and rows[1].startswith("0.005,0,0.1,2,0.1,")
    with pytest.raises(ValueError, match="ages is 6 for 40 frames; expected .* 8 frames"):
        tt.one_time(data, ages=6)


@pytest.mark.statistics
@pytest.mark.parametrize("photons", [None, 0.5])
def test_errors_of_g2_are_its_scatter(photons):
    data = tt.simulate_speckle(
        CASE.model, np.array([2e4, 0.0, 0.0]), t=0.1 * np.arange(1, 61.0), q=0.006,
        phi=np.zeros(200), contrast=0.25, n_pixels=300, photons=photons, key=jax.random.key(3),
    )  # fmt: skip
    found = tt.one_time(data)
    ratio = np.std(found.g2[0], axis=0) / np.sqrt(np.mean(found.error[0] ** 2, axis=0))
    assert np.all((ratio > 0.85) & (ratio < 1.15)) and abs(ratio.mean() - 1) < 0.1
    expected = 1 + 0.25 * np.exp(-(0.006**2) * 2e4 * np.asarray(found.tau))
    away = np.asarray(found.g2[0]).mean(axis=0) - expected
    assert np.all(np.abs(away) < 0.1 * (expected - 1) + 0.01)
