import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.gram import Tiled
from twotime.gram.interpolation import bases_of, chebyshev_nodes, node_gram, node_weights, nodes_of
from twotime.gram.pairs import ChannelDerivatives, channel_slopes, products_of
from twotime.models.base import Terms

TILE, FRAMES = 60, 300
T = jnp.arange(1, FRAMES + 1) * 0.1
SLOW = {
    "laminar": (tt.LaminarFlow(gap=2e6), [60.0, 0.3, 5.0, 4e-6, 0.4, 1e-6, 3.0]),
    "homodyne": (
        tt.LaminarFlow(gap=2e6, shear_convention="homodyne"), [60.0, 0.3, 5.0, 4e-6, 0.4, 1e-6, 3.0]
    ),
    "two": (
        tt.TwoComponent(),
        [30.0, 0.1, 3.0, 60.0, 0.2, 5.0, 20.0, 0.3, 0.1, 0.3, 0.01, 0.0, 0.1, 2.0],
    ),
}  # fmt: skip


def gram(model, data, params, free, *, at_nodes=True):
    prepared = Tiled(TILE).prepare(data, 1.1)
    if not at_nodes:
        prepared = eqx.tree_at(lambda s: s.nodes, prepared, None)
    return Tiled(TILE).gram(model, data, params, free, 1.1, prepared)


@eqx.filter_jit
def both_ways(model, data, params, free):
    """The Gram matrix with sums at nodes and from all pairs."""
    return tuple(gram(model, data, params, free, at_nodes=a) for a in (True, False))


def make_data(model, params, **more):
    data = tt.simulate(
        model, jnp.asarray(params), t=T, q=0.01, phi=jnp.array([0.0, 50.0]), contrast=0.3,
        offset=1.0, noise=0.05, key=jax.random.key(0),
    )  # fmt: skip
    return tt.TwoTimeData(data.c2, data.t, data.q, data.phi, **more)


def largest_error(got, want):
    size = np.sqrt(np.diagonal(np.asarray(want), axis1=1, axis2=2))
    size = np.where(size > 0, size, 1.0)
    return np.max(np.abs(np.asarray(got - want)) / (size[:, :, None] * size[:, None, :]))


@eqx.filter_jit
def smooth_tiles(model, data, params):
    """How many of the 15 tiles of the first angle are summed at nodes."""
    channels, by = channel_slopes(model, data, params, (True,) * params.size, 0)
    products = products_of(channels, with_normal=True)
    weights = jax.tree.map(lambda x: x[0], node_weights(data, 1.1, TILE))
    settings = channels, ChannelDerivatives.of(by), weights, TILE
    smooth = node_gram(model, products, *settings)[1]
    return jnp.sum(smooth[:5, :5])


@pytest.mark.parametrize(
    "case", ["laminar", *(pytest.param(x, marks=pytest.mark.long) for x in ("homodyne", "two"))]
)
def test_sums_at_nodes_are_those_of_all_pixels(case):
    model, params = SLOW[case]
    rng = np.random.default_rng(1)
    shape = (2, FRAMES, FRAMES)
    masked = make_data(
        model, params, mask=rng.random(shape) > 0.2, sigma=jnp.asarray(rng.uniform(0.5, 2, shape))
    )
    # 5 of the 15 hold the first frames, where a power of time changes fast.
    assert smooth_tiles(model, masked, jnp.asarray(params)) >= 13
    for data in (make_data(model, params), masked):
        free = tuple(k != 1 for k in range(len(params)))
        got, want = both_ways(model, data, jnp.asarray(params), free)
        assert largest_error(got, want) < 1e-11


@pytest.mark.parametrize("speed", [1.0, 30.0, 1e3, 1e5, 1e7])
def test_pixels_are_summed_where_nodes_cannot_follow(speed):
    model, params = SLOW["laminar"]
    params = jnp.asarray(params) * jnp.array([speed, 1, 1, speed, 1, 1, 1])
    got, want = both_ways(model, make_data(model, params), params, (True,) * 7)
    assert np.isfinite(want).all()
    assert largest_error(got, want) < 1e-11


def test_tiles_whose_nodes_miss_more_than_rounding_are_summed_pair_by_pair():
    model, params = SLOW["laminar"]
    faster = jnp.asarray(params) * jnp.array([6, 1, 1, 6, 1, 1, 1])
    data = make_data(model, params)
    assert smooth_tiles(model, data, faster) < 8 < smooth_tiles(model, data, jnp.asarray(params))


class Blink(tt.AbstractTwoTimeModel):
    """Slow diffusion, seen less well in one frame that is no node; a sum of products too."""

    names: tuple[str, ...] = eqx.field(default=("D", "depth"), static=True, init=False)
    frame: int = 98

    def channels(self, params, times, *, t, q, phi):
        away = jnp.abs(times - t[self.frame]) < 1e-6
        level = 1.0 - params[1] * away
        none = jnp.zeros((0, times.shape[0]))
        return tt.Channels((q**2 * params[0] * times)[None], none, level[None])

    def correlation(self, pair):
        return pair.decay[0] * pair.level1[0] * pair.level2[0]

    @property
    def is_separable(self):
        return True

    def terms(self, channels):
        nothing = jnp.zeros_like(channels.decay)
        return Terms(channels.level, channels.decay, nothing, (False,))


@pytest.mark.long
def test_a_feature_between_nodes_is_not_missed():
    model, params = Blink(), jnp.array([50.0, 1e-6])
    assert 98 - TILE not in chebyshev_nodes(TILE)
    data = make_data(model, params)
    for free in ((True, True), (True, False)):
        got, want = both_ways(model, data, params, free)
        assert largest_error(got, want) < 1e-11
    assert smooth_tiles(model, data, params) == 10  # all but those of the frame's block


@pytest.mark.parametrize("edge", [8, 16, 24, 50, 58, 59, 60, 64, 103, 128, 300])
def test_the_bases_of_the_first_tile_hold_every_polynomial(edge):
    first, other = bases_of(edge)
    frames = np.arange(edge)
    for bases in (first, [other]):
        again = sum(b.lagrange @ np.sin(3 * b.frames / edge) for b in bases)
        np.testing.assert_allclose(again, np.sin(3 * frames / edge), atol=1e-11)
    if len(first) == 2:
        early = first[0].frames
        np.testing.assert_array_equal(early, np.arange(other.frames.size))
        root = np.sqrt(frames[: early[-1] + 1])
        np.testing.assert_array_equal((first[0].lagrange @ root[early])[: early.size], root)
    assert (len(first) == 2) == (edge >= 59)


@pytest.mark.parametrize("frames", [291, 300])
def test_weights_at_nodes_stand_for_all_pairs(frames):
    """Sums of a polynomial over all pairs, and nothing below the diagonal of blocks."""
    data = make_data(*SLOW["laminar"])
    part = tt.TwoTimeData(data.c2[:, :frames, :frames], T[:frames], data.q, data.phi)
    nodes = nodes_of(frames, TILE)
    got = node_weights(part, 1.1, TILE)
    i, j = np.triu_indices(frames, 1)

    def smooth(i, j):
        return 1 + (i / frames) ** 3 * (j / frames) ** 2

    plane = smooth(nodes.frames.ravel()[:, None], nodes.frames.ravel())
    want = np.asarray(part.c2)[:, i, j] - 1.1
    np.testing.assert_allclose(np.sum(got.weight * plane, (1, 2)), smooth(i, j).sum(), rtol=1e-11)
    np.testing.assert_allclose(np.sum(got.c2 * plane, (1, 2)), want @ smooth(i, j), rtol=1e-9)
    first = nodes.frames.shape[1]
    assert not np.any(got.weight[:, first:, :first])


def test_points_side_by_side_agree_on_what_is_smooth():
    model, params = SLOW["laminar"]
    slow = jnp.asarray(params)
    points = jnp.stack([slow, slow * jnp.array([1e4, 1, 1, 1, 1, 1, 1]), slow * 1.1])
    data = make_data(model, params)

    def one(p):
        return gram(model, data, p, (True,) * 7)

    together = jax.jit(jax.vmap(one))(points)
    for got, p in zip(together, points, strict=True):
        assert largest_error(got, jax.jit(one)(p)) < 1e-11


@pytest.mark.long
def test_derivatives_pass_through_sums_at_nodes():
    model, params = SLOW["laminar"]

    def total(q, speed, with_nodes):
        now = jnp.asarray(params).at[0].multiply(speed)
        moved = tt.TwoTimeData(data.c2, data.t, q, data.phi)
        free = (True, False, False, True, False, False, True)
        return jnp.sum(gram(model, moved, now, free, at_nodes=with_nodes))

    data = make_data(model, params)
    plain = jax.jit(jax.grad(lambda q, speed: total(q, speed, False)))
    at_nodes = [
        jax.jit(derivative(lambda q, speed: total(q, speed, True)))
        for derivative in (jax.grad, jax.jacfwd)
    ]
    for speed in (1.0, 1e5):  # of which the second overflows below the diagonal
        want = plain(0.01, speed)
        assert np.isfinite(want)
        for derivative in at_nodes:
            np.testing.assert_allclose(derivative(0.01, speed), want, rtol=1e-9)
