import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.covariance import LinearisedFit, Noise, speckle_covariance
from twotime.covariance import speckle as blocks
from twotime.covariance.speckle import (
    block_planes,
    complete_blocks,
    residual_blocks,
    separable_planes,
    stride,
)
from twotime.gram import Tiled
from twotime.gram.pairs import channel_slopes
from twotime.gram.problem import evaluate, make_problem
from twotime.models.correlation import field

MODEL = tt.TwoComponent()
VALUES = {
    "D0_ref": 3e3, "alpha_ref": 0.1, "D_offset_ref": 0.0,
    "D0_sample": 2e3, "alpha_sample": 0.1, "D_offset_sample": 0.0,
    "v0": 200.0, "beta": 0.1, "v_offset": 0.0,
    "f0": 0.4, "f1": 0.02, "f2": 0.0, "f3": 0.1, "phi0": 2.0,
}  # fmt: skip
FREE = ("D0_ref", "v0", "beta", "f0", "f1")
PARAMS = jnp.asarray(list(VALUES.values()))
SPACE = tt.ParameterSpace(values=VALUES, vary={n: n in FREE for n in VALUES})
PLACE = [list(VALUES).index(n) for n in FREE]
PHI, Q = jnp.array([0.0, 40.0]), 0.01
ALL = jnp.eye(len(FREE))


def noisy(n, **changes):
    t = jnp.arange(1, n + 1) * 0.05
    data = tt.simulate(
        MODEL, PARAMS, t=t, q=Q, phi=PHI, contrast=0.3, offset=1.0, noise=0.05,
        key=jax.random.key(0),
    )  # fmt: skip
    return tt.TwoTimeData(data.c2, t, data.q, PHI, **changes)


def set_up(data):
    return make_problem(MODEL, data, SPACE, "individual", Tiled())


def slopes_of(problem, directions):
    settings = problem.model, problem.data, PARAMS, problem.varying, PHI[1]
    return channel_slopes(*settings, directions)


def scaling_of(problem):
    return jnp.asarray(0.3), 1.0 - problem.shift


def averaged(data, planes, s):
    """Means over the usable pixels of blocks, and sums of their weights, pixel by pixel."""
    n = data.t.size
    used = np.triu(np.ones((n, n), bool), 1) & np.isfinite(data.c2[1])
    if data.mask is not None:
        used &= np.asarray(data.mask[1])
    weight = used / (1.0 if data.sigma is None else np.asarray(data.sigma[1])) ** 2
    total, heavy, count = np.zeros((3, -(-n // s), -(-n // s)))
    for i, j in zip(*np.nonzero(used), strict=True):
        total[i // s, j // s] += planes[i, j]
        heavy[i // s, j // s] += weight[i, j]
        count[i // s, j // s] += 1
    return total / np.maximum(count, 1), heavy


@pytest.mark.parametrize("n", [40, 133])
def test_residuals_are_averaged_over_usable_pixels(n, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCKS", 30)
    rng = np.random.default_rng(0)
    mask = np.broadcast_to(rng.uniform(size=(n, n)) > 0.2, (2, n, n))
    data = noisy(n, mask=mask, sigma=rng.uniform(0.5, 2, (2, n, n)))
    problem, s = set_up(data), stride(n)
    got = jax.jit(
        lambda p: residual_blocks(p, slopes_of(p, ALL)[0], scaling_of(p), jnp.asarray(1))
    )(problem)
    fitted = 1 + 0.3 * tt.correlation(MODEL, PARAMS, t=data.t, q=Q, phi=PHI)[1]
    mean, weight = averaged(data, np.asarray(data.c2[1] - fitted), s)
    symmetric = mean + np.triu(mean, 1).T, weight + np.triu(weight, 1).T
    np.testing.assert_allclose(got.residual, symmetric[0], atol=1e-10)
    np.testing.assert_allclose(got.weight, symmetric[1], rtol=1e-10)


def test_complete_data_give_the_same_blocks_by_one_read(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCKS", 30)
    data = noisy(133)
    below = np.tril(np.full((133, 133), np.nan))  # what lies there must not matter
    problem = set_up(eqx.tree_at(lambda d: d.c2, data, data.c2 + below))

    @jax.jit
    def both(p):
        channels = slopes_of(p, ALL)[0]
        planes = separable(p, ALL)
        want = residual_blocks(p, channels, scaling_of(p), jnp.asarray(1))
        return want, complete_blocks(p, planes, scaling_of(p), jnp.asarray(1))

    want, got = both(problem)
    np.testing.assert_allclose(got.weight, want.weight)
    last = want.residual.shape[0] - 1  # the last block holds fewer frames than its points stand for
    inner = ~np.eye(last, dtype=bool)
    np.testing.assert_allclose(
        np.asarray(got.residual)[:last, :last][inner],
        np.asarray(want.residual)[:last, :last][inner],
        atol=1e-4,
    )


def model_and_slopes(data, directions):
    """The whole plane of the second angle and its derivatives along directions."""

    def curve(step):
        params = PARAMS.at[np.asarray(PLACE)].add(step @ directions)
        return tt.correlation(MODEL, params, t=data.t, q=Q, phi=PHI)[1]

    none = jnp.zeros(directions.shape[0])
    return curve(none), jnp.moveaxis(jax.jacfwd(curve)(none), -1, 0)


def general(p, directions):
    return block_planes(p, *slopes_of(p, directions))


def separable(p, directions):
    return separable_planes(p, *slopes_of(p, directions))


@pytest.mark.parametrize("planes_of", [general, separable])
def test_planes_of_few_frames_are_the_model_itself(planes_of):
    data = noisy(40)
    planes = jax.jit(planes_of)(set_up(data), ALL)
    value, slope = model_and_slopes(data, ALL)
    np.testing.assert_allclose(planes.value, value, atol=1e-10)
    g1 = field(MODEL, PARAMS, t=data.t, q=Q, phi=PHI)[1]
    np.testing.assert_allclose(planes.field, g1, atol=1e-6)  # single precision
    size = np.abs(slope).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(planes.derivative / size, slope / size, atol=1e-9)


@pytest.mark.parametrize(("planes_of", "within"), [(general, 1e-2), (separable, 1e-10)])
def test_planes_of_blocks_are_means_over_their_frames(planes_of, within, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCKS", 30)
    data = noisy(130)  # five frames a block
    directions = (
        jnp.asarray(np.random.default_rng(0).normal(size=(2, len(FREE))))
        * PARAMS[np.asarray(PLACE)]
    )
    planes = jax.jit(planes_of)(set_up(data), directions)

    def mean(x):
        return np.asarray(x).reshape(*x.shape[:-2], 26, 5, 26, 5).mean(axis=(-3, -1))

    value, slope = map(mean, model_and_slopes(data, directions))
    np.testing.assert_allclose(planes.value, value, atol=within)
    size = np.abs(slope).max()
    np.testing.assert_allclose(planes.derivative / size, slope / size, atol=within)


def test_the_last_block_is_a_mean_over_the_frames_there_are(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCKS", 30)
    data = noisy(133)  # three frames in the last
    planes = jax.jit(separable)(set_up(data), ALL)
    value, slope = map(np.asarray, model_and_slopes(data, ALL))
    np.testing.assert_allclose(planes.value[3, -1], value[15:20, 130:].mean(), rtol=1e-10)
    np.testing.assert_allclose(planes.value[-1, -1], value[130:, 130:].mean(), rtol=1e-10)
    corner = slope[:, 130:, 130:].mean(axis=(1, 2))
    np.testing.assert_allclose(planes.derivative[:, -1, -1], corner, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("photons", [jnp.inf, 0.01])
def test_blocks_hardly_change_the_error_bars(photons, monkeypatch):
    """With a correlation time of ten frames, in blocks of four."""
    problem = set_up(noisy(80))
    y = problem.start[np.asarray(PLACE)] / problem.scale
    grams, reduced = jax.jit(evaluate)(y, problem)[1].aux
    inverse = jnp.linalg.inv(reduced.hessian)
    noise = Noise(jnp.full(2, 500.0), jnp.asarray(photons))

    def deviations(n_blocks):
        monkeypatch.setattr(blocks, "BLOCKS", n_blocks)
        at = LinearisedFit(problem, PARAMS, grams, reduced, inverse)
        covariance = jax.jit(lambda x: speckle_covariance(x, noise)[0])(at)
        return np.sqrt(np.diag(covariance))

    np.testing.assert_allclose(deviations(20) / deviations(80), 1.0, atol=0.1)


def test_blocks_do_not_shrink_the_errors_of_independent_noise(monkeypatch):
    """Six frames a block, a correlation time of two blocks: means alone lose 5 %."""
    n, tau, model = 60, 12, tt.StaticDiffusion()
    t = jnp.arange(1, n + 1) * 0.1
    values = {"D0": 1 / (Q**2 * tau * 0.1), "alpha": 0.1, "D_offset": 0.0}
    space = tt.ParameterSpace(
        values=values, vary={"D_offset": False}, bounds={"D0": (1.0, 1e8), "alpha": (-2.0, 2.0)}
    )
    data = tt.simulate(
        model, jnp.asarray(list(values.values())), t=t, q=Q, phi=jnp.zeros(1), contrast=0.3,
        offset=1.0, noise=0.02, key=jax.random.key(0),
    )  # fmt: skip
    at = tt.optimum(model, data, space, tt.fit_nlsq(model, data, space))
    noise = Noise(jnp.full(1, 500.0), jnp.asarray(1e-4))

    def deviations(n_blocks):
        monkeypatch.setattr(blocks, "BLOCKS", n_blocks)
        return np.sqrt(np.diag(jax.jit(lambda x: speckle_covariance(x, noise)[0])(at)))

    np.testing.assert_allclose(deviations(10) / deviations(60), 1.0, atol=0.03)
