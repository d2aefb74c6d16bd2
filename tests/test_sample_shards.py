"""Dealing of points, the shards' parts of a posterior, its mode, and where chains begin."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import static_case

import twotime as tt
from twotime.gram import choose_evaluator
from twotime.models.scaling import Individual
from twotime.sample.density import NOISES, make_posterior
from twotime.sample.shards import (
    Shape,
    Sharding,
    deal,
    find_shape,
    listed,
    make_guide,
    missed,
    position_of_fit,
    prior_shape,
    shard_posteriors,
    stacked,
)

RNG = np.random.default_rng(0)


def data(frames=13, angles=3, mask=None):
    c2 = 1.0 + 0.1 * RNG.normal(size=(angles, frames, frames))
    c2 = 0.5 * (c2 + c2.swapaxes(1, 2))
    return tt.TwoTimeData(c2, np.arange(1.0, frames + 1), 0.01, 40.0 * np.arange(angles), mask=mask)


def posterior(scaling="marginal", noise="sampled", case=None):
    model, d, space = case or static_case(13, 3)
    plain, evaluator = choose_evaluator(model, d, "auto")
    return make_posterior(
        model, plain, space, Individual(), evaluator, scaling=scaling, noise=NOISES[noise]
    )


@pytest.mark.parametrize("strategy", ["random", "interleaved", "contiguous", "angles"])
def test_every_usable_point_goes_to_one_shard(strategy):
    mask = RNG.random((3, 13, 13)) > 0.2
    shards = deal(data(mask=mask), Sharding(n_shards=3, strategy=strategy))
    dealt = [(k, *p) for s in shards for k, i, j in s for p in zip(i, j, strict=True)]
    expected = {(k, i, j) for k, i, j in zip(*np.nonzero(np.triu(mask, 1)), strict=True)}
    assert len(dealt) == len(expected) and set(dealt) == expected
    counts = [sum(len(i) for _, i, _ in s) for s in shards]
    if strategy == "random":
        assert max(counts) - min(counts) <= 1
    if strategy == "angles":
        assert [[k for k, _, _ in s] for s in shards] == [[0], [1], [2]]
    if strategy == "interleaved":
        assert all(np.all(i % 3 == n) for n, s in enumerate(shards) for _, i, _ in s)
    if strategy == "contiguous":
        assert all(a[1].max() < b[1].min() for a, b in zip(shards[0], shards[1], strict=True))


def test_seeds_deal_differently_and_again_alike():
    one, again, other = (deal(data(), Sharding(n_shards=2), seed)[0][0][1] for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_strata_deal_every_band_of_lags_alike():
    d = data(frames=41, angles=1)
    for strata, most in ((1, 40), (4, 4)):
        shards = deal(d, Sharding(n_shards=4, strata=strata))
        near = [np.sum(j - i <= 10) for ((_, i, j),) in shards]
        assert max(near) - min(near) <= most
    assert max(near) - min(near) <= 1


@pytest.mark.parametrize(
    ("sharding", "words"),
    [
        ({"n_shards": 500}, "more than the 234 usable points"),
        ({"n_shards": 4, "strategy": "angles"}, "more than the 3 angles"),
        ({"n_shards": 2, "strategy": "rows"}, "expected one of random"),
        ({"n_shards": 3, "min_points": 100}, "expected at least 100"),
        ({"n_shards": 0}, "n_shards is 0; expected at least 1"),
    ],
)
def test_dealings_that_cannot_be_are_refused_in_a_sentence(sharding, words):
    with pytest.raises(ValueError, match=words):
        deal(data(), Sharding(**sharding))


@pytest.mark.parametrize(
    "strategy", [pytest.param("random", marks=pytest.mark.long), "contiguous", "angles"]
)
def test_shards_multiply_to_the_posterior(strategy):
    p = posterior("sampled")
    shards = shard_posteriors(p, Sharding(n_shards=3, strategy=strategy))
    v = jnp.asarray([0.1, 0.2, *([-1.0] * 3), *([0.1] * 3), -2.0])
    arrays, static = eqx.partition(shards, eqx.is_array_like)
    parts = jax.vmap(lambda a: eqx.combine(a, static).log_density(v))(arrays)
    assert float(parts.sum()) == pytest.approx(float(p.log_density(v)), rel=1e-10)


def test_guides_take_the_place_of_other_shards():
    """The power of the Gaussian that makes n shards n^(1/4) times as wide as the posterior."""
    shape = Shape(np.zeros(2), np.array([[2.0, 0.0], [0.6, 0.5]]))
    information = np.linalg.inv(shape.root @ shape.root.T)
    assert make_guide(shape, 1) == (None, 1.0)
    guide, wider = make_guide(shape, 16)
    assert wider == 2.0
    np.testing.assert_allclose(information / 16 + guide.precision, information / wider**2)


@pytest.mark.long
def test_the_mode_is_where_the_gradient_vanishes_and_shaped_as_the_curvature():
    case = static_case(16)
    fit = tt.fit_nlsq(*case)
    p = listed(posterior(case=case))
    start, width = position_of_fit(p, fit)
    assert np.exp(start[-1]) == pytest.approx(0.02, rel=0.15)
    assert width[-1] == pytest.approx((2 * 120) ** -0.5)
    shape = find_shape(p, start + 2 * width, width)
    slope, turn = jax.jit(lambda v: (jax.grad(p.log_density)(v), jax.hessian(p.log_density)(v)))(
        jnp.asarray(shape.mode)
    )
    assert np.linalg.norm(shape.root.T @ np.asarray(slope)) < 0.3
    np.testing.assert_allclose(-shape.root.T @ np.asarray(turn) @ shape.root, np.eye(3), atol=0.25)
    with pytest.raises(ValueError, match="zero or not finite where sampling starts"):
        find_shape(p, start * np.nan, width)


PRIORS = {
    "wide": tt.PriorDistribution.truncated_normal(1e4, 1e4, 100, 1e5),
    "narrow": tt.PriorDistribution.normal(3e4, 3.0),
    "flat": tt.PriorDistribution.uniform(100.0, 1e5),
    "of scale": tt.PriorDistribution.lognormal(np.log(1e4), 1.0),
}


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_chains_may_start_from_the_prior(prior):
    """Mean and spread of the coordinate of D0 by a sum over its values."""
    model, d, space = static_case(13)
    space = space.with_priors({"D0": prior})
    p = posterior("sampled", case=(model, d, space))
    shape = prior_shape(p)
    low, high = space.domain("D0")
    if prior.prior_type.value == "normal":
        low, high = 3e4 - 30, 3e4 + 30
    edges = np.linspace(low, high, 2_000_001)[1:-1]
    weight = np.exp(np.asarray(prior.log_prob(edges)))
    both = jnp.stack([jnp.asarray(edges), jnp.full(len(edges), 0.1)], axis=-1)
    z = np.asarray(p.coordinates.from_values(both))[:, 0]
    mean = np.average(z, weights=weight)
    assert shape.mode[0] == pytest.approx(mean, abs=2e-3)
    spread = np.average((z - mean) ** 2, weights=weight) ** 0.5
    assert shape.root[0, 0] == pytest.approx(spread, rel=2e-2)
    assert shape.mode.shape == (5,) and np.exp(shape.mode[-1]) == pytest.approx(0.1, abs=0.1)


@pytest.mark.long
def test_chains_that_miss_the_mode_are_found():
    """The best draw against the mode, less what typical draws are below it."""
    case = static_case(16)
    p = listed(posterior(case=case))
    shape = find_shape(p, *position_of_fit(p, tt.fit_nlsq(*case)))
    height = float(p.log_density(jnp.asarray(shape.mode)))
    for away in (0.4, 30.0):
        draws = height - away - np.linspace(0, 5, 8).reshape(1, 2, 4)
        assert missed(stacked([p]), shape.mode, draws) == pytest.approx(away - 1.5)
