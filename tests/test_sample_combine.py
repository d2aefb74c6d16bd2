"""Products of shards, and importance weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.sample.combine import COMBINATIONS, Importance, Product, product_of_shards
from twotime.sample.density import Guide

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def combined(draws, method, seed=0, guide=None):
    product = product_of_shards(draws, guide)
    return product, COMBINATIONS[method].draw(product, None, KEY, seed).draws


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
    flat = combined(draws, method, seed=1)[1].reshape(-1, m)
    precision = np.linalg.inv(covariances)
    covariance = np.linalg.inv(precision.sum(axis=0))
    mean = covariance @ np.einsum("kij,kj->i", precision, means)
    deviation = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(flat.mean(axis=0) - mean) < 0.03 * deviation)
    unit = np.outer(deviation, deviation)
    assert np.allclose(np.cov(flat.T) / unit, covariance / unit, atol=0.03)


def test_consensus_averages_draws_of_equal_place():
    """For shards that are copies but for a shift, draws of the product are those of one shard."""
    draws = RNG.normal(size=(1, 2, 400, 2))
    twice = np.concatenate([draws, draws + np.array([2.0, 0.0])])
    found = combined(twice, "consensus")[1]
    np.testing.assert_allclose(np.corrcoef(found[..., 0].ravel(), draws[..., 0].ravel()), 1.0)
    np.testing.assert_allclose(found.mean((0, 1)), draws.mean((0, 1, 2)) + [1, 0], atol=1e-9)


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
        product, flat = combined(draws[:, None], method, seed, guide)
        units = np.linalg.solve(width, (flat[0] - exact).T)
        found.append(np.append(units.mean(axis=1), (units @ units.T / n - np.eye(m))[0, 1]))
        assert np.abs(product.disagreement).max() < 6
    redrawn = method == "gaussian"
    expected = np.append([np.sqrt(k) + (m + 1) * (1 - 1 / k) + redrawn] * m, 2 - (1 - redrawn) / k)
    ratio = n * np.mean(np.square(found), axis=0) / expected
    print(method, ratio)
    assert np.all((ratio > 0.7) & (ratio < 1.4))
    assert np.all(np.abs(np.mean(found, axis=0)) < 4 * np.std(found, axis=0) / np.sqrt(repeats))


def test_disagreement_is_in_standard_deviations():
    """Means of shards scatter about the product by one, if their data are of one law."""
    k, m, n = 6, 2, 2000
    found = []
    for _ in range(100):
        means = np.sqrt(k) * RNG.normal(size=(k, 1, 1, m))
        draws = means + np.sqrt(k) * RNG.normal(size=(k, 1, n, m))
        found.append(product_of_shards(draws).disagreement)
    assert np.std(found) == pytest.approx(1.0, abs=0.06)


def test_precisions_from_few_draws_are_right_on_average():
    found = [product_of_shards(RNG.normal(size=(2, 1, 12, 3))).precision for _ in range(3000)]
    np.testing.assert_allclose(np.mean(found, axis=(0, 1)), np.eye(3), atol=0.05)


def test_excluded_shards_do_not_count():
    draws = RNG.normal(size=(3, 2, 400, 2)) + np.array([0.0, 1.0, 50.0])[:, None, None, None]
    used = np.array([True, True, False])
    product = product_of_shards(draws, used=used)
    np.testing.assert_allclose(product.mean, product_of_shards(draws[:2]).mean)
    assert np.abs(product.disagreement[2]).min() > 20


def test_shards_that_say_nothing_cannot_be_divided_by_their_guide():
    guide = Guide(np.zeros(2), 1.2 * np.eye(2))
    with pytest.raises(ValueError, match="do not add up to a density"):
        product_of_shards(RNG.normal(size=(2, 1, 50, 2)), guide)
    with pytest.raises(ValueError, match="too few for 5 coordinates"):
        product_of_shards(np.zeros((2, 1, 9, 5)))


class Skewed(eqx.Module):
    """A posterior that is not a Gaussian: skewed, its tails no heavier."""

    place: np.ndarray = eqx.field(default_factory=lambda: np.arange(1))

    def log_density(self, v):
        return -0.5 * v[0] ** 2 + jax.nn.log_sigmoid(2 * v[0])

    def complete(self, v, key):
        return jnp.append(v, v[0])


@pytest.mark.parametrize(("mean", "width"), [(0.5, 0.9), (-0.5, 0.7)])
def test_importance_weights_make_draws_exact(mean, width):
    """A Gaussian that is off is matched to the weights, and weighted again."""
    shape = (1, 2, 20_000, 2)
    product = Product(
        np.zeros(shape), np.zeros((1, 2, 2)), np.array([mean, 0.0]), np.diag([width**2, 1.0]),
        np.eye(2), np.zeros((1, 2)),
    )  # fmt: skip
    found = Importance().draw(product, Skewed(), KEY, 0)
    x = found.draws[..., 0]
    assert found.draws.shape == (2, 20_000, 2) and np.array_equal(x, found.draws[..., 1])
    assert found.pareto_k < 0.7 and found.effective > 0.4 * x.size
    grid = np.linspace(-6, 8, 20_001)
    weight = np.exp(np.asarray(jax.vmap(Skewed().log_density)(grid[:, None])))
    for power in (1, 2, 3):
        expected = np.average(grid**power, weights=weight)
        assert np.mean(x**power) == pytest.approx(expected, abs=0.02 * power**2)
