"""Draws of shards combined into draws of the posterior.

Every shard's density is taken as the Gaussian with its draws' mean and covariance, in unbounded
coordinates; what guided it is divided out. All ways have the mean and covariance of the product
and so keep the correlations between parameters: `Consensus` averages draws, which passes on part
of the shards' skewness; `Gaussian` draws from the Gaussian; `Importance` corrects draws of it by
the posterior of all points.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from twotime.compilation import compiled
from twotime.sample.density import Density, Guide

Joint = Float[np.ndarray, "chain draw joint"]
ShardDraws = Float[np.ndarray, "shard chain draw joint"]
Matrix = Float[np.ndarray, "*shard joint joint"]


class Product(NamedTuple):
    """The Gaussian that is the product of the shards that are used.

    Attributes:
        draws: Draws of each shard, less the shard's mean.
        precision: Precision of each shard's density.
        mean: Mean of the product.
        covariance: Its covariance.
        root: Matrix whose columns are independent directions one standard deviation long.
        disagreement: Distance of the mean of every shard, used or not, from where the product
            puts it [standard deviation].
    """

    draws: Float[np.ndarray, "used chain draw joint"]
    precision: Float[np.ndarray, "used joint joint"]
    mean: Float[np.ndarray, " joint"]
    covariance: Matrix
    root: Matrix
    disagreement: Float[np.ndarray, "shard joint"]


class Weighted(NamedTuple):
    """Draws of a posterior.

    Attributes:
        draws: Draws of everything, with importance some of them repeated.
        pareto_k: Shape of the tail of importance weights; above 0.7 the draws cannot be trusted.
        effective: As many independent draws would be worth the same.
    """

    draws: Joint
    pareto_k: float = np.nan
    effective: float = np.nan


def product_of_shards(
    draws: ShardDraws, guide: Guide | None = None, used: Bool[np.ndarray, " shard"] | None = None
) -> Product:
    """The product of shards, each taken as a Gaussian.

    Args:
        draws: Draws of each shard.
        guide: The Gaussian that each shard's density was multiplied by.
        used: Which shards are combined; all of them if None.

    Raises:
        ValueError: If there are too few draws for a covariance.

    Reference:
        Scott et al., Int. J. Manag. Sci. Eng. Manag. 11, 78 (2016). Guides: one pass of
        expectation propagation, Vehtari et al., J. Mach. Learn. Res. 21, 17 (2020).
    """
    k, c, n, m = draws.shape
    if c * n <= 2 * m:
        raise ValueError(
            f"Shards are weighted by the covariance of their draws: {c * n} draws of each shard "
            f"are too few for {m} coordinates; draw more than {2 * m}."
        )
    used = np.ones(k, bool) if used is None else used
    guide = Guide(np.zeros(m), np.zeros((m, m))) if guide is None else guide
    flat = draws.reshape(k, c * n, m)
    means = flat.mean(axis=1)
    covariances = np.stack([np.atleast_2d(np.cov(x, rowvar=False)) for x in flat])
    # The inverse of a covariance from few draws is too large on average.
    precision = _inverse(covariances) * ((c * n - m - 2) / (c * n - 1))
    total = (precision - guide.precision)[used].sum(axis=0)
    if not np.all(np.linalg.eigvalsh(total / _unit(total)) > 0):
        raise ValueError(
            f"The shards do not add up to a density: {c * n} draws of each are too few to divide "
            "their guide out; draw more, or use fewer shards."
        )
    covariance = _inverse(total)
    pull = np.einsum("kij,kj->ki", precision, means) - guide.precision @ guide.centre
    mean = covariance @ pull[used].sum(axis=0)
    # Data move a shard's mean by its covariance times the score of its points, whose variance is
    # their information. That is taken as an equal share of all: a shard's own is what is left of
    # two large numbers when the guide is divided out. The product has followed the shards that
    # it contains, so these are less far off.
    count = used.sum()
    expected = mean - covariances @ (guide.precision @ (mean - guide.centre))
    share = _inverse(covariance) / count
    variance = np.einsum("kij,jl,kil->ki", covariances, share, covariances)
    left = np.where(used, 1 - 1 / count, 1 + 1 / count)[:, None]
    smallest = 1e-12 * np.diagonal(covariances, axis1=1, axis2=2)
    disagreement = (means - expected) / np.sqrt(np.maximum(variance * left, smallest))
    root = np.linalg.inv(np.linalg.cholesky(total)).T
    centred = (draws - means[:, None, None])[used]
    return Product(centred, precision[used], mean, covariance, root, disagreement)


@dataclass(frozen=True)
class Consensus:
    """Averages of draws, weighted with the shards' precisions."""

    word: ClassVar[str] = "consensus"

    def draw(self, product: Product, whole: Any, key: PRNGKeyArray, seed: int) -> Weighted:
        """Draws of the posterior from the product of shards; `seed` is for what NumPy draws."""
        step = np.einsum("kij,kcnj->cni", product.precision, product.draws)
        # With nothing divided out this makes averages weighted with the shards' precisions.
        step = step @ np.linalg.inv(np.linalg.cholesky(product.precision.sum(axis=0))).T
        return Weighted(product.mean + step @ product.root.T)


@dataclass(frozen=True)
class Gaussian:
    """Draws from the Gaussian that is the product of the shards."""

    word: ClassVar[str] = "gaussian"

    def draw(self, product: Product, whole: Any, key: PRNGKeyArray, seed: int) -> Weighted:
        step = np.random.default_rng(seed).normal(size=product.draws.shape[1:])
        return Weighted(product.mean + step @ product.root.T)


@dataclass(frozen=True)
class Importance:
    """Draws from the product, weighted by the posterior of all points and drawn again.

    Exact where `pareto_k` of the result is below 0.7. That takes one evaluation of all points a
    draw, where a draw of a chain takes some ten with gradients. Where the weights are worth few
    draws, the Gaussian takes the mean and covariance that they give, and draws are made anew.

    Attributes:
        wider: Width of the draws over the Gaussian's: a proposal may be too wide, never too narrow.
        enough: Share of the draws that weights must be worth, else the Gaussian is matched to them.
        rounds: How often draws are made at most.

    Reference:
        Vehtari et al., J. Mach. Learn. Res. 25, 72 (2024) for the weights; Cappé et al., J.
        Comput. Graph. Stat. 13, 907 (2004) for matching the proposal.
    """

    wider: float = 1.1
    enough: float = 0.4
    rounds: int = 3
    word: ClassVar[str] = "importance"

    def draw(self, product: Product, whole: Any, key: PRNGKeyArray, seed: int) -> Weighted:
        from blackjax.diagnostics import psis_weights

        place, (_, *shape, _) = whole.place, product.draws.shape
        mean, covariance = product.mean[place], product.covariance[np.ix_(place, place)]
        count, size = shape[0] * shape[1], len(mean)
        for again in range(1, self.rounds + 1):
            key, own, choice = jax.random.split(key, 3)
            own, at_places = jax.random.split(own)
            white = jax.random.normal(own, (count, size), jnp.float64)
            root = self.wider * np.linalg.cholesky(covariance)
            places = jnp.asarray(mean) + white @ jnp.asarray(root).T
            heights, joint = _evaluated(whole, places, jax.random.split(at_places, count))
            log_weights, k = psis_weights(heights + 0.5 * jnp.sum(white**2, axis=1))
            weights = np.exp(np.asarray(log_weights))
            effective = float(1 / np.sum(weights**2))
            if effective >= self.enough * count or effective < 10 * size or again == self.rounds:
                break
            mean = weights @ np.asarray(places)
            covariance = np.cov(np.asarray(places).T, aweights=weights).reshape(size, size)
        # Equal steps through the summed weights: no draw is repeated more often than it must be.
        steps = (np.arange(count) + float(jax.random.uniform(choice, ()))) / count
        chosen = np.minimum(np.searchsorted(np.cumsum(weights), steps), count - 1)
        chosen = np.asarray(jax.random.permutation(jax.random.fold_in(choice, 1), chosen))
        return Weighted(np.asarray(joint)[chosen].reshape(*shape, -1), float(k), effective)


Combination = Consensus | Gaussian | Importance
_WAYS: tuple[Combination, ...] = (Consensus(), Gaussian(), Importance())
COMBINATIONS = {way.word: way for way in _WAYS}


@compiled
def _evaluated(posterior: Density, places: Array, keys: Array) -> tuple[Array, Array]:
    """Log density at places, and draws of everything there."""

    def one(x: tuple[Array, Array]) -> tuple[Array, Array]:
        return posterior.log_density(x[0]), posterior.complete(*x)

    return jax.lax.map(one, (places, keys))


def _inverse(matrices: Matrix) -> Matrix:
    """Inverses of symmetric matrices, scaled to unit diagonal in between."""
    unit = _unit(matrices)
    inverse = np.linalg.inv(matrices / unit) / unit
    return 0.5 * (inverse + inverse.swapaxes(-1, -2))


def _unit(matrices: Matrix) -> Matrix:
    size = np.sqrt(np.abs(np.diagonal(matrices, axis1=-2, axis2=-1)))
    return size[..., :, None] * size[..., None, :]
