import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_gram_tiled_nodes import Blink, largest_error

import twotime as tt
from twotime.gram import Separable, Tiled
from twotime.gram.interpolation import chebyshev_nodes, nodes_of
from twotime.gram.pairs import channel_slopes
from twotime.gram.separable import factors_at_nodes

EDGE, FRAMES, Q = 60, 297, 0.01  # the last of five tiles begins three frames early
T = jnp.arange(1, FRAMES + 1) * 0.1
PHI = jnp.array([0.0, 50.0])
SLOW = {
    "static": (tt.StaticDiffusion(), [60.0, 0.3, 5.0]),
    "two": (
        tt.TwoComponent(),
        [30.0, 0.1, 3.0, 60.0, 0.2, 5.0, 20.0, 0.3, 0.1, 0.3, 0.01, 0.0, 0.1, 2.0],
    ),
}


def make_data(model, params, **more):
    data = tt.simulate(
        model, jnp.asarray(params), t=T, q=Q, phi=PHI, contrast=0.3, offset=1.0, noise=0.05,
        key=jax.random.key(0),
    )  # fmt: skip
    below = np.tril(np.full((FRAMES, FRAMES), np.nan))  # what lies there must not matter
    return tt.TwoTimeData(data.c2 + below, data.t, data.q, data.phi, **more)


def both_ways(model, data, params, free):
    """The Gram matrix with sums at nodes, where they are smooth, and tile by tile of all pixels."""
    return tuple(_gram(e, model, data, params, free) for e in (Separable(EDGE), Tiled()))


@eqx.filter_jit
def _gram(evaluator, model, data, params, free):
    return gram(evaluator, model, data, params, free)


def gram(evaluator, model, data, params, free):
    prepared = evaluator.prepare(data, 1.1)
    return evaluator.gram(model, data, params, free, 1.1, prepared)


@eqx.filter_jit
def is_smooth(model, data, params):
    channels, by = channel_slopes(model, data, params, (True,) * params.size, 0)
    return factors_at_nodes(model, channels, by, EDGE)[1]


@pytest.mark.parametrize("sigma", [None, 0.1])
@pytest.mark.parametrize("case", ["static", pytest.param("two", marks=pytest.mark.long)])
def test_sums_at_nodes_are_those_of_all_pixels(case, sigma):
    model, params = SLOW[case][0], jnp.asarray(SLOW[case][1])
    data = make_data(model, params, sigma=sigma)
    assert is_smooth(model, data, params)
    free = tuple(k != 1 for k in range(params.size))
    assert largest_error(*both_ways(model, data, params, free)) < 1e-11


@pytest.mark.parametrize("speed", [1.5, 30.0, 1e3, 1e5, 1e7])
def test_pixels_are_summed_where_nodes_cannot_follow(speed):
    model, params = SLOW["two"]
    params = jnp.asarray(params).at[jnp.array([0, 3, 6])].multiply(speed)
    data = make_data(model, params)
    assert is_smooth(model, data, params) == (speed < 10)
    got, want = both_ways(model, data, params, (True,) * 14)
    assert np.isfinite(want).all()
    assert largest_error(got, want) < 1e-10  # fast clocks are large, and lose digits everywhere


def test_a_feature_between_nodes_is_not_missed():
    model, params = Blink(), jnp.array([50.0, 1e-6])
    assert 98 - EDGE not in chebyshev_nodes(EDGE)
    data = make_data(model, params)
    assert not is_smooth(model, data, params)
    assert largest_error(*both_ways(model, data, params, (True, True))) < 1e-11


@pytest.mark.parametrize("frames", [240, 241, FRAMES, 300, 360])
def test_nodes_stand_for_every_frame_and_every_pair_once(frames):
    nodes = nodes_of(frames, EDGE)
    in_block = nodes.counts.sum(axis=1)
    np.testing.assert_allclose(in_block.sum(), frames)
    between = np.triu(np.outer(in_block, in_block), 1).sum()
    np.testing.assert_allclose(between + nodes.pairs.sum(), frames * (frames - 1) / 2)
    in_blocks = in_block * (in_block - 1) / 2
    np.testing.assert_allclose(nodes.pairs.sum(axis=(1, 2)), in_blocks, atol=1e-9)


@pytest.mark.long
def test_points_side_by_side_agree_on_what_is_smooth():
    model, params = SLOW["static"]
    slow = jnp.asarray(params)
    points = jnp.stack([slow, slow * jnp.array([1e4, 1, 1]), slow * 1.1])
    data = make_data(model, params)

    def one(p):
        return gram(Separable(EDGE), model, data, p, (True,) * 3)

    together = jax.jit(jax.vmap(one))(points)
    for got, p in zip(together, points, strict=True):
        assert largest_error(got, both_ways(model, data, p, (True,) * 3)[1]) < 1e-11


@pytest.mark.long
def test_derivatives_pass_through_sums_at_nodes():
    model, params = SLOW["static"]
    data, free = make_data(model, params), (True, False, True)

    def total(q, speed, evaluator):
        now = jnp.asarray(params).at[0].multiply(speed)
        moved = tt.TwoTimeData(data.c2, data.t, q, data.phi)
        return jnp.sum(gram(evaluator, model, moved, now, free))

    plain = jax.jit(jax.grad(lambda q, speed: total(q, speed, Tiled())))
    at_nodes = [
        jax.jit(derivative(lambda q, speed: total(q, speed, Separable(EDGE))))
        for derivative in (jax.grad, jax.jacfwd)
    ]
    for speed in (1.0, 1e5):  # of which the second overflows below the diagonal
        want = plain(Q, speed)
        assert np.isfinite(want)
        for derivative in at_nodes:
            np.testing.assert_allclose(derivative(Q, speed), want, rtol=1e-9)
