import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.covariance.blocks import TILE, Blocks
from twotime.covariance.noise import Link, row_covariance
from twotime.covariance.speckle import (
    Frames,
    Matrices,
    Split,
    of_whole_matrices,
    score_covariance,
)
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


def of_frames(w, g, beta):
    """Covariance of scores where every frame is a block, from whole matrices in one strip."""
    n, g = g.shape[0], np.asarray(g)

    def strips(x):
        x = np.asarray(x)
        whole = np.zeros((3, *x.shape[:-2], TILE, 3 * TILE), x.dtype)
        whole[1, ..., :n, TILE : TILE + n] = x
        return Split(jnp.asarray(whole), jnp.zeros((*x.shape[:-2], TILE, TILE), x.dtype))

    index = np.arange(TILE)
    size = np.where(index < n, 1.0, 0.0)
    points = np.minimum(index, n - 1.0)[:, None] * np.ones(2)
    blocks = Blocks(*map(jnp.asarray, (np.minimum(index, n), size, np.minimum(index, n - 1),
                                       points, n)))  # fmt: skip
    none = jnp.zeros((3, len(w), TILE, 3 * TILE))
    matrices = Matrices(strips(w), none, strips(abs(g) ** 2), strips(g), strips(w * g))
    return score_covariance(matrices, Frames.of(blocks), jnp.asarray(beta))


def in_whole(w, g, beta):
    """The same without strips."""
    return of_whole_matrices(jnp.asarray(w), jnp.abs(g) ** 2, jnp.asarray(g), jnp.asarray(beta))


both_ways = pytest.mark.parametrize("of_frames", [of_frames, in_whole])


def in_rows(g, lag, beta=BETA):
    """`row_covariance` of all pairs of frames."""

    def planes(field):
        return Link(jnp.abs(field) ** 2, jnp.asarray(field))

    n = g.shape[0]
    link = g[np.arange(n - lag), np.arange(n - lag) + lag]
    own, frames = planes(np.diagonal(g)), jnp.ones(n)
    return row_covariance(planes(g), own, planes(link), beta, lag, frames[:, None], frames)


@both_ways
def test_light_part_equals_the_sum_over_all_pairs_of_pixels_but_for_one_cycle(of_frames):
    g, w = np.asarray(field_correlation()), weights()
    full = np.zeros((N,) * 4)
    for index in itertools.product(range(N), repeat=4):
        full[index] = covariance(g, *index)
    want = np.einsum("pij,qkl,ijkl->pq", w, w, full)
    # The cycle through i, k, j, l is replaced by the mean of the other two.
    cycle = 2 * BETA**3 * np.einsum("pij,qkl,ik,kj,jl,li->pq", w, w, g, g, g, g).real
    other = 2 * BETA**3 * np.einsum("pij,qkl,ij,jk,kl,li->pq", w, w, g, g, g, g).real
    want = want - cycle + other
    got = of_frames(w, g, BETA)
    size = np.sqrt(np.diag(want))
    np.testing.assert_allclose(
        got.coefficients[0] / np.outer(size, size), want / np.outer(size, size), atol=1e-12
    )


def photon_moment(g, *index):
    """The same with counts: coefficients of 1, 1/n̄ and 1/n̄², frames at most twice in it.

    Given the light d, a frame's fluctuation has the mean d and its square d² + (1 + d)/n̄.
    """
    total = np.zeros(3)
    once = [i for i in index if index.count(i) == 1]
    twice = sorted({i for i in index if index.count(i) == 2})
    assert len(once) + 2 * len(twice) == len(index)
    options = [[(0, (i, i)), (1, ()), (1, (i,))] for i in twice]
    for choice in itertools.product(*options):
        light = [*once, *(i for _, part in choice for i in part)]
        value = {0: 1.0, 1: 0.0}.get(len(light)) if len(light) < 2 else moment(g, *light)
        total[sum(power for power, _ in choice)] += value
    return total


def point_covariance(g, i, j, k, m):
    """Covariance of two points of c2 of one pixel normalised by its means, by definition.

    Of ε_ij = δ_i δ_j - β|g_ij|² (δ_i + δ_j), term by term.
    """
    a, b = moment(g, i, j), moment(g, k, m)
    left = [(1.0, (i, j)), (-a, (i,)), (-a, (j,))]
    right = [(1.0, (k, m)), (-b, (k,)), (-b, (m,))]
    total = sum(x * y * photon_moment(g, *p, *q) for x, p in left for y, q in right)
    return total - np.array([a * b, 0.0, 0.0])


@both_ways
def test_photons_equal_the_sum_over_all_pairs_of_points(of_frames):
    """Both photon terms, to rounding; the light by itself is tested above."""
    n = 4
    g, w = np.asarray(field_correlation())[:n, :n], weights()[:, :n, :n]
    want = np.zeros((2, 2, 3))
    off = [(i, j) for i in range(n) for j in range(n) if i != j]
    for (i, j), (k, m) in itertools.product(off, off):
        want += np.einsum("p,q,c->pqc", w[:, i, j], w[:, k, m], point_covariance(g, i, j, k, m))
    got = of_frames(w, g, BETA)
    for power in (1, 2):
        np.testing.assert_allclose(got.coefficients[power], want[..., power], rtol=1e-10)
    u = 0.3
    polynomial = got.coefficients[0] + u * got.coefficients[1] + u**2 * got.coefficients[2]
    np.testing.assert_allclose(got.at(u), polynomial)


@pytest.mark.parametrize("lag", [0, 2])
def test_variances_and_row_covariances_with_photons_equal_the_formula(lag):
    g = np.asarray(field_correlation())
    found = np.asarray(in_rows(g, lag))
    for i, j in itertools.product(range(N), range(N - lag)):
        if i not in (j, j + lag):
            want = point_covariance(g, i, j, i, j + lag)
            np.testing.assert_allclose(found[:, i, j], want, rtol=1e-10)


def test_variances_and_row_covariances_equal_the_formula():
    g = np.asarray(field_correlation())
    variance, row = (in_rows(g, lag)[0] for lag in (0, 2))
    for i in range(N):
        for j in range(N):
            if i != j:
                assert variance[i, j] == pytest.approx(covariance(g, i, j, i, j))
            if j + 2 < N and i not in (j, j + 2):
                assert row[i, j] == pytest.approx(covariance(g, i, j, i, j + 2))


@pytest.mark.slow
@pytest.mark.parametrize("photons", [pytest.param(None, marks=pytest.mark.long), 0.5])
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
    got = of_frames(w, g, 0.5)
    inverse = 0.0 if photons is None else 1 / photons
    deviation = np.sqrt(np.diag(got.at(inverse)) / pixels)
    np.testing.assert_allclose(scores.std(axis=0) / deviation, 1.0, atol=0.12)
    off = ~np.eye(N, dtype=bool)
    variance = np.einsum("k,kij->ij", inverse ** np.arange(3), in_rows(g, 0, 0.5)) / pixels
    ratio = c2.var(axis=0)[off] / variance[off]
    assert ratio.mean() == pytest.approx(1.0, abs=0.05)
