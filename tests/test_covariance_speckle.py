import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.covariance.speckle import row_covariance, score_covariance
from twotime.data.simulate import simulate_speckle
from twotime.models.correlation import field
from twotime.models.two_component import TwoComponent

N, BETA = 7, 0.3
MODEL = TwoComponent()
PARAMS = jnp.array([3e3, 0, 0, 2e3, 0, 0, 300.0, 0, 0, 0.4, 0, 0, 0, 0.0])
T = jnp.arange(1, N + 1) * 0.1


def field_correlation():
    return field(MODEL, PARAMS, t=T, q=0.02, phi=jnp.zeros(1))[0]


def moment(g, *index):
    """Mean of a product of intensity fluctuations, from the cumulants."""
    if len(index) == 2:
        return BETA * abs(g[index]) ** 2
    if len(index) == 3:
        i, j, k = index
        return 2 * BETA**2 * (g[i, j] * g[j, k] * g[k, i]).real
    i, j, k, m = index

    def cycle(a, b, c, d):
        return 2 * BETA**3 * (g[a, b] * g[b, c] * g[c, d] * g[d, a]).real

    pairs = (((i, j), (k, m)), ((i, k), (j, m)), ((i, m), (j, k)))
    return (
        cycle(i, j, k, m) + cycle(i, j, m, k) + cycle(i, k, j, m)
        + sum(moment(g, *a) * moment(g, *b) for a, b in pairs)
    )  # fmt: skip


def covariance(g, i, j, k, m):
    """Covariance of two pixels of c2 by the formula of four intensities."""
    a, b = moment(g, i, j), moment(g, k, m)
    total = moment(g, i, j, k, m) - a * b
    total -= b * sum(moment(g, i, j, x) for x in (k, m))
    total -= a * sum(moment(g, k, m, x) for x in (i, j))
    return total + a * b * sum(moment(g, x, y) for x in (i, j) for y in (k, m))


def weights():
    w = np.random.default_rng(0).normal(size=(2, N, N))
    w = w + w.swapaxes(1, 2)
    w[:, range(N), range(N)] = 0
    return w


def test_light_part_equals_the_sum_over_all_pairs_of_pixels_but_for_one_cycle():
    g, w = np.asarray(field_correlation()), weights()
    full = np.zeros((N,) * 4)
    for index in itertools.product(range(N), repeat=4):
        full[index] = covariance(g, *index)
    want = np.einsum("pij,qkl,ijkl->pq", w, w, full)
    # The cycle through i, k, j, l is replaced by the mean of the other two.
    cycle = 2 * BETA**3 * np.einsum("pij,qkl,ik,kj,jl,li->pq", w, w, g, g, g, g).real
    other = 2 * BETA**3 * np.einsum("pij,qkl,ij,jk,kl,li->pq", w, w, g, g, g, g).real
    want = want - cycle + other
    got = score_covariance(jnp.asarray(w), g, BETA)
    size = np.sqrt(np.diag(want))
    np.testing.assert_allclose(
        got.coefficients[0] / np.outer(size, size), want / np.outer(size, size), atol=1e-12
    )


def test_variances_and_row_covariances_equal_the_formula():
    g = np.asarray(field_correlation())
    variance, row = (row_covariance(g, BETA, lag)[0] for lag in (0, 2))
    for i in range(N):
        for j in range(N):
            if i != j:
                assert variance[i, j] == pytest.approx(covariance(g, i, j, i, j))
            if j + 2 < N and i not in (j, j + 2):
                assert row[i, j] == pytest.approx(covariance(g, i, j, i, j + 2))


@pytest.mark.parametrize("photons", [None, 0.5])
def test_agrees_with_simulated_movies(photons):
    pixels, repeats, w = 400, 600, weights()
    keys = jax.random.split(jax.random.key(1), repeats)

    @jax.jit
    def movies(keys):
        return jax.lax.map(
            lambda k: simulate_speckle(
                MODEL, PARAMS, t=T, q=0.02, phi=jnp.zeros(1), contrast=0.5,
                n_pixels=pixels, photons=photons, key=k,
            ).c2[0],
            keys,
        )  # fmt: skip

    c2 = np.asarray(movies(keys))
    scores = np.einsum("pij,rij->rp", w, np.where(np.eye(N, dtype=bool), 0, c2))
    g = field_correlation()
    got = score_covariance(jnp.asarray(w), g, 0.5)
    inverse = 0.0 if photons is None else 1 / photons
    deviation = np.sqrt(np.diag(got.at(inverse)) / pixels)
    np.testing.assert_allclose(scores.std(axis=0) / deviation, 1.0, atol=0.12)
    off = ~np.eye(N, dtype=bool)
    variance = np.einsum("k,kij->ij", inverse ** np.arange(3), row_covariance(g, 0.5, 0)) / pixels
    ratio = c2.var(axis=0)[off] / variance[off]
    assert ratio.mean() == pytest.approx(1.0, abs=0.05)
