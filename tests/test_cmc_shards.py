"""Dealing of pixels, and products of shards."""

import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.gram.choose import choose_evaluator
from twotime.sample.combine import combine_shards
from twotime.sample.density import Guide
from twotime.sample.shards import Dealing, deal, shard_posteriors, used_pixels
from twotime.sample.target import make_posterior

RNG = np.random.default_rng(0)


def data(frames=13, angles=3, mask=None):
    c2 = 1.0 + 0.1 * RNG.normal(size=(angles, frames, frames))
    c2 = 0.5 * (c2 + c2.swapaxes(1, 2))
    return tt.TwoTimeData(c2, np.arange(1.0, frames + 1), 0.01, 40.0 * np.arange(angles), mask=mask)


@pytest.mark.parametrize("strategy", ["random", "interleaved", "contiguous", "angles"])
def test_every_usable_pixel_goes_to_one_shard(strategy):
    mask = RNG.random((3, 13, 13)) > 0.2
    pixels = used_pixels(data(mask=mask))
    shards = deal(pixels, 3, Dealing(3, strategy))
    dealt = [(k, *p) for s in shards for k, i, j in s for p in zip(i, j, strict=True)]
    expected = {(k, i, j) for k, i, j in zip(*np.nonzero(np.triu(mask, 1)), strict=True)}
    assert len(dealt) == len(expected) and set(dealt) == expected
    counts = [sum(len(i) for _, i, _ in s) for s in shards]
    if strategy == "random":
        assert max(counts) - min(counts) <= 1
    if strategy == "angles":
        assert [[k for k, _, _ in s] for s in shards] == [[0], [1], [2]]


def test_strata_deal_every_band_of_lags_alike():
    pixels = used_pixels(data(frames=41, angles=1))
    for n_strata, most in ((1, 40), (4, 4)):
        shards = deal(pixels, 1, Dealing(4, "random", n_strata))
        near = [np.sum(j - i <= 10) for ((_, i, j),) in shards]
        assert max(near) - min(near) <= most
    assert max(near) - min(near) <= 1


@pytest.mark.parametrize(
    ("dealing", "words"),
    [
        (Dealing(500), "more than the 234 usable pixels"),
        (Dealing(4, "angles"), "more than the 3 angles"),
        (Dealing(2, "rows"), "expected one of random"),
        (Dealing(3, min_pixels=100), "expected at least 100"),
    ],
)
def test_dealings_that_cannot_be_are_refused_in_a_sentence(dealing, words):
    d = data()
    space = tt.ParameterSpace.from_config({"analysis_mode": "static"})
    model = tt.StaticDiffusion()
    plain, evaluator = choose_evaluator(model, d, "auto")
    p = make_posterior(
        model, plain, space, "averaged", evaluator, scaling="marginal", noise="sampled"
    )
    with pytest.raises(ValueError, match=words):
        shard_posteriors(p, dealing)


@pytest.mark.parametrize("strategy", ["random", "contiguous", "angles"])
def test_shards_multiply_to_the_posterior(strategy):
    d = data()
    space = tt.ParameterSpace.from_config({"analysis_mode": "static"})
    model = tt.StaticDiffusion()
    plain, evaluator = choose_evaluator(model, d, "auto")
    p = make_posterior(
        model, plain, space, "individual", evaluator, scaling="sampled", noise="sampled"
    )
    shards = shard_posteriors(p, Dealing(3, strategy))
    v = jnp.asarray([0.1, 0.2, 0.0, *([-1.0] * 3), *([0.1] * 3), -2.0])
    import equinox as eqx
    import jax

    arrays, static = eqx.partition(shards, eqx.is_array_like)
    parts = jax.vmap(lambda a: eqx.combine(a, static).log_density(v))(arrays)
    assert float(parts.sum()) == pytest.approx(float(p.log_density(v)), rel=1e-10)


@pytest.mark.parametrize("method", ["consensus", "gaussian"])
def test_gaussian_shards_combine_exactly(method):
    n_shards, m = 3, 4
    covariances, means = [], RNG.normal(size=(n_shards, m))
    for _ in range(n_shards):
        root = RNG.normal(size=(m, m))
        covariances.append(root @ root.T + 0.3 * np.eye(m))
    draws = np.stack(
        [
            RNG.multivariate_normal(mean, c, size=(4, 20000))
            for mean, c in zip(means, covariances, strict=True)
        ]
    )
    combined = combine_shards(draws, method, seed=1)
    precision = np.linalg.inv(covariances)
    covariance = np.linalg.inv(precision.sum(axis=0))
    mean = covariance @ np.einsum("kij,kj->i", precision, means)
    flat = combined.draws.reshape(-1, m)
    deviation = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(flat.mean(axis=0) - mean) < 0.03 * deviation)
    assert np.allclose(np.cov(flat.T) / np.outer(deviation, deviation),
                       covariance / np.outer(deviation, deviation), atol=0.03)  # fmt: skip


@pytest.mark.parametrize("method", ["consensus", "gaussian"])
def test_errors_of_combinations(method):
    """Combinations of exact draws, repeated: guides divide out, and errors are as foretold."""
    k, m, n, repeats = 8, 3, 500, 200
    root = RNG.normal(size=(m, m))
    information = root @ root.T + np.eye(m)
    width = np.linalg.cholesky(np.linalg.inv(information))
    found = []
    for seed in range(repeats):
        own = np.sqrt(k) * RNG.normal(size=(k, m)) @ width.T  # where each shard has its mean
        exact = own.mean(axis=0)
        power = k**-0.5 - 1 / k
        guide = Guide(exact + width @ np.array([0.5, -0.3, 0.2]), power * information)
        means = (own / k + power * guide.centre) / k**-0.5
        draws = means[:, None] + k**0.25 * RNG.normal(size=(k, n, m)) @ width.T
        combined = combine_shards(draws[:, None], method, seed, guide)
        units = np.linalg.solve(width, (combined.draws[0] - exact).T)
        found.append(np.append(units.mean(axis=1), (units @ units.T / n - np.eye(m))[0, 1]))
        assert np.abs(combined.disagreement).max() < 6
    redrawn = method == "gaussian"
    expected = np.append([np.sqrt(k) + (m + 1) * (1 - 1 / k) + redrawn] * m, 2 - (1 - redrawn) / k)
    ratio = n * np.mean(np.square(found), axis=0) / expected
    print(method, ratio)
    assert np.all((ratio > 0.7) & (ratio < 1.4))
    assert np.all(np.abs(np.mean(found, axis=0)) < 4 * np.std(found, axis=0) / np.sqrt(repeats))


def test_shards_that_say_nothing_cannot_be_divided_by_their_guide():
    guide = Guide(np.zeros(2), 1.2 * np.eye(2))
    with pytest.raises(ValueError, match="do not add up to a density"):
        combine_shards(RNG.normal(size=(2, 1, 50, 2)), "gaussian", guide=guide)


def test_combinations_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="expected one of consensus, gaussian, importance"):
        combine_shards(np.zeros((2, 1, 9, 2)), "average")
    with pytest.raises(ValueError, match="too few for 5 coordinates"):
        combine_shards(np.zeros((2, 1, 9, 5)), "consensus")
