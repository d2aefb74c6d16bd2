"""Blocks of frames, and error bars on them against whole matrices over frames."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.covariance import (
    LinearisedFit,
    Noise,
    angle_noise,
    angle_of_fit,
    speckle_covariance,
)
from twotime.covariance.blocks import (
    GROUPS,
    TILE,
    cut_blocks,
    half_times,
    planes_between,
    pooled,
    pooled_planes,
)
from twotime.covariance.noise import Rows, residual_moments
from twotime.gram import Tiled
from twotime.gram.pairs import channel_slopes
from twotime.gram.problem import evaluate, make_problem
from twotime.models.correlation import correlation, field

BETA, DT = 0.3, 0.1


def case(kind, n, tau):
    """Model, parameters, which are fitted, q and φ: decays of `tau` frames in the middle."""
    middle, q = n // 2 * DT, 0.01
    rate = 1 / (q**2 * tau * DT)
    if kind == "static":
        return tt.StaticDiffusion(), [rate * middle**0.2, -0.2, 0.0], (0, 1), q, 0.0
    if kind == "flow":
        shear = 2 / (q * 1e5 * tau * DT)
        values = [0.3 * rate, 0.0, 0.0, shear * middle**-0.1, 0.1, 0.0, 2.0]
        return tt.LaminarFlow(gap=1e5), values, (0, 3, 4), q, 15.0
    values = [0.05 * rate, 0, 0, rate, 0, 0, 2 / (q * tau * DT), 0, 0, 0.4, 0, 0, 0, 0]
    return tt.TwoComponent(), values, (0, 3, 6, 9), q, 0.0


def set_up(kind, n, tau, **changes):
    model, values, free, q, phi = case(kind, n, tau)
    values, t = jnp.asarray(values, float), jnp.arange(1, n + 1) * DT
    data = tt.simulate(
        model, values, t=t, q=q, phi=jnp.asarray([phi]), contrast=BETA, offset=1.0, noise=1e-5,
        key=jax.random.key(0),
    )  # fmt: skip
    data = dataclasses.replace(data, sigma=None, **changes)
    names = np.asarray(model.names)
    space = tt.ParameterSpace(
        values=dict(zip(model.names, values.tolist(), strict=True)),
        vary={name: name in names[list(free)] for name in names},
        bounds={names[k]: (float(values[k]) - 1e9, float(values[k]) + 1e9) for k in free},
    )
    return make_problem(model, data, space, "individual", Tiled())


def channels_of(problem):
    model, data = problem.model, problem.data
    return channel_slopes(model, data, problem.start, problem.varying, 0)


def at_truth(problem):
    y = problem.start[np.flatnonzero(problem.varying)] / problem.scale
    grams, reduced = jax.jit(evaluate)(y, problem)[1].aux
    return LinearisedFit(problem, problem.start, grams, reduced, jnp.linalg.inv(reduced.hessian))


@jax.jit
def reported(at, noise):
    return jnp.sqrt(jnp.diag(speckle_covariance(at, noise)[0]))


def check_reported(problem, tolerance):
    """Error bars of 500 pixels, with and without photons, are those of whole matrices."""
    at, parts = at_truth(problem), whole(problem)
    for photons in (np.inf, 0.1):
        noise = Noise(jnp.full(1, 500.0), jnp.asarray(photons))
        want = np.sqrt(np.diag(parts(photons)) / 500.0)
        np.testing.assert_allclose(reported(at, noise) / want, 1.0, atol=tolerance)


def whole(problem):
    """The covariance of one pixel as a function of photons, from matrices over all frames.

    The formulas are those that `covariance.speckle` states.
    """
    model, data, place = problem.model, problem.data, np.flatnonzero(problem.varying)
    settings = {"t": data.t, "q": data.q, "phi": data.phi}

    def curve(x):
        return correlation(model, problem.start.at[place].set(x), **settings)[0]

    C = np.asarray(curve(problem.start[place]))
    slope = np.moveaxis(np.asarray(jax.jacfwd(curve)(problem.start[place])), -1, 0)
    g = np.asarray(field(model, problem.start, **settings)[0])
    above = np.asarray(data.weights(0))
    weight = above + above.T
    x = np.stack([C, np.ones_like(C)])
    own = np.einsum("aij,bij,ij->ab", x, x, weight)
    follow = np.linalg.solve(own, BETA * np.einsum("aij,pij,ij->ap", x, slope, weight))
    jac = BETA * slope - np.einsum("ap,aij->pij", follow, x)
    hessian = 0.5 * np.einsum("pij,qij,ij->pq", jac, jac, weight)
    w = 0.5 * jac * weight
    through, around = w @ C, (w * g) @ g
    mean, loops = np.diagonal(through, 0, 1, 2), np.real(around * g.conj())

    def inner(a, b):
        return np.real(a.reshape(len(a), -1) @ b.reshape(len(b), -1).T)

    mixed = loops.sum(1) @ mean.T
    light = 2 * BETA**2 * inner(through, through.swapaxes(1, 2))
    light += BETA**3 * (6 * inner(around, around.swapaxes(1, 2)) - 4 * (mixed + mixed.T))
    light += 4 * BETA**3 * mean @ C @ mean.T
    one = 4 * inner(BETA * through + 2 * BETA**2 * loops, w) - 4 * BETA**2 * mean @ mean.T
    two = 2 * inner(w * (1 + BETA * C), w)
    inverse = np.linalg.inv(hessian)
    return lambda photons: inverse @ (light + one / photons + two / photons**2) @ inverse


FEW = [
    ("static", 128, 3.0),
    ("static", 60, 1.0),
    ("static", 60, 10.0),
    pytest.param("flow", 50, 6.0, marks=pytest.mark.long),
    pytest.param("two", 50, 8.0, marks=pytest.mark.long),
]
MANY = [
    pytest.param("static", 150, 1.0, 0.1, marks=pytest.mark.long),
    ("static", 150, 4.0, 0.1),
    pytest.param("static", 300, 40.0, 0.1, marks=pytest.mark.long),
    pytest.param("flow", 200, 8.0, 0.1, marks=pytest.mark.long),
    # Of two components the slow one is 17 % too wide here: it decays over half the record.
    pytest.param("two", 200, 6.0, 0.2, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("kind", "n", "tau"), FEW)
def test_error_bars_of_few_frames_are_those_of_whole_matrices(kind, n, tau):
    check_reported(set_up(kind, n, tau), 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n", "tau", "tolerance"), MANY)
def test_narrow_and_smooth_parts_make_up_whole_matrices(kind, n, tau, tolerance):
    check_reported(set_up(kind, n, tau), tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "tau"), [(60, 5.0), pytest.param(300, 3.0, marks=pytest.mark.long), (300, 40.0)]
)
def test_masks_and_sigma_of_each_point_count(n, tau):
    rng = np.random.default_rng(0)
    used = np.ones((n, n), bool)
    bad = rng.choice(n, n // 10, replace=False)
    used[bad] = used[:, bad] = False
    problem = set_up("static", n, tau, mask=used[None])
    sigma = 0.02 * (1 + np.arange(n)[:, None] / n + np.arange(n) / n)[None]
    problem = make_problem(
        problem.model, dataclasses.replace(problem.data, sigma=sigma),
        tt.ParameterSpace(
            values=dict(zip(problem.model.names, problem.start.tolist(), strict=True)),
            vary={"D_offset": False}, bounds={"D0": (0.0, 1e9), "alpha": (-2.0, 2.0)},
        ),
        "individual", Tiled(),
    )  # fmt: skip
    check_reported(problem, 0.1)


@pytest.mark.parametrize("tau", [0.2, 2.0, 30.0, 1e4])
@pytest.mark.parametrize("n", [3, 300])
def test_blocks_hold_every_frame_once_and_follow_the_correlation_time(n, tau):
    problem = set_up("static", n, tau)
    channels = channels_of(problem)[0]
    blocks = jax.jit(lambda c: cut_blocks(problem.model, c))(channels)
    count = int(blocks.count)
    size, first = np.asarray(blocks.size), np.asarray(blocks.first)
    assert size[:count].min() >= 1 and not size[count:].any()
    assert size.sum() == n and size.size % TILE == 0
    np.testing.assert_array_equal(first[:count], np.cumsum(size[:count]) - size[:count])
    assert count >= min(n, GROUPS)
    points = np.asarray(blocks.points)[:count]
    np.testing.assert_allclose(points.var(axis=1), (size[:count] ** 2 - 1) / 12, atol=1e-9)
    half = np.asarray(half_times(problem.model, channels))
    longest = np.maximum(half[first[:count]] / 3, 1.0)
    assert np.all(size[:count] <= np.ceil(1.3 * longest))


def test_half_times_are_those_of_an_exponential():
    n, tau = 400, 20.0
    model, t, params = tt.StaticDiffusion(), jnp.arange(1, n + 1) * DT, [1e5 / tau, 0.0, 0.0]
    channels = model.channels(jnp.array(params), t, t=t, q=0.01, phi=0.0)
    decay = correlation(model, jnp.array(params), t=t, q=0.01, phi=jnp.zeros(1))[0, 0]
    want = np.interp(-0.5, -np.asarray(decay), np.arange(n))
    np.testing.assert_allclose(half_times(model, channels), want, rtol=0.05)


@pytest.mark.parametrize("kind", ["static", "flow", "two"])
def test_planes_are_the_model_in_either_order(kind):
    problem = set_up(kind, 30, 6.0)
    model, data, place = problem.model, problem.data, np.flatnonzero(problem.varying)
    settings = {"t": data.t, "q": data.q, "phi": data.phi}
    index = jnp.arange(30)
    first, second = (
        jax.tree.map(lambda x, i=i: x[..., i], channels_of(problem))
        for i in jnp.broadcast_arrays(index[:, None], index)
    )
    planes = planes_between(model, first, second, index[:, None] <= index)

    def curve(x):
        return correlation(model, problem.start.at[place].set(x), **settings)[0]

    slope = np.moveaxis(np.asarray(jax.jacfwd(curve)(problem.start[place])), -1, 0)
    size = np.abs(slope).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(planes.value, curve(problem.start[place]), atol=1e-10)
    np.testing.assert_allclose(planes.derivative / size, slope / size, atol=1e-9)
    np.testing.assert_allclose(planes.field, field(model, problem.start, **settings)[0], atol=1e-10)


@pytest.mark.parametrize("kind", [pytest.param("flow", marks=pytest.mark.long), "two"])
def test_pooled_planes_are_means_over_points(kind):
    problem = set_up(kind, 40, 6.0)
    slopes = channels_of(problem)
    here = [jax.tree.map(lambda x, i=i: x[..., i], slopes) for i in (slice(8, 16), slice(0, 24))]
    ahead = jnp.arange(8, 16)[:, None] <= jnp.arange(24)
    first = jax.tree.map(lambda x: x[..., :, None], here[0])
    second = jax.tree.map(lambda x: x[..., None, :], here[1])
    want = jax.tree.map(pooled, planes_between(problem.model, first, second, ahead))
    got = pooled_planes(problem.model, *here, ahead)
    for name in ("value", "derivative", "field"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("in_blocks", [pytest.param(True, marks=pytest.mark.long), False])
def test_moments_are_sums_over_all_rows_of_few_frames(in_blocks):
    problem = set_up("static", 40, 5.0)
    at, slopes = at_truth(problem), channels_of(problem)
    scaling = at.reduced.scaling.contrast[0], at.reduced.scaling.offset[0]
    if in_blocks:
        blocks = cut_blocks(problem.model, slopes[0])
        rows = Rows.of(problem.data, jnp.asarray(0), blocks)
        got = jax.jit(residual_moments)(problem, slopes[0], blocks, rows, scaling, 0.3)
    else:

        @jax.jit
        def moments(at):
            angle = angle_of_fit(at, jnp.asarray(0))

            def rows(planes, *_):
                return angle.jacobian(planes)

            return angle_noise(at, angle, jnp.asarray(0), rows).moments

        got = moments(at)
    value = correlation(
        problem.model, problem.start, t=problem.data.t, q=problem.data.q, phi=problem.data.phi
    )[0]
    above = np.triu(np.asarray(problem.data.c2[0] - problem.shift), 1)
    r = above + above.T - np.array(scaling[0] * value + scaling[1])
    np.fill_diagonal(r, 0.0)
    assert got.squares == pytest.approx(np.sum(r**2), rel=1e-9)
    beside = sum(np.sum(r[:, lag:] * r[:, :-lag]) for lag in (1, 2, 3))
    assert got.neighbours == pytest.approx(beside, rel=1e-9)
    assert got.weight == pytest.approx(2 * float(at.grams[0, 1, 1]), rel=1e-9)
