"""Draws of shards combined into draws of the posterior, and its width corrected.

Every shard's density is taken as the Gaussian with its draws' mean and covariance, in unbounded
coordinates; what guided it is divided out. All ways have the mean and covariance of the product
and so keep the correlations between parameters: `Consensus` averages draws, which passes on part
of the shards' skewness; `Gaussian` draws from the Gaussian; `Importance` corrects draws of it by
the posterior of all points.

The likelihood takes the points as independent, so widths are too small for speckle. `Sandwich`
maps draws afterwards, which also gets the correlations right; `Tempering` flattens the likelihood
by one number before sampling. Both need the fit's two covariances.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from twotime.compilation import compiled
from twotime.models.rates import AnyArray
from twotime.results.nlsq import NLSQResult
from twotime.sample.coordinates import Coordinates
from twotime.sample.density import Density, Guide

Joint = Float[np.ndarray, "chain draw joint"]
ShardDraws = Float[np.ndarray, "shard chain draw joint"]
Matrix = Float[np.ndarray, "*shard joint joint"]
Covariance = Float[AnyArray, "free free"]


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


class Widths(NamedTuple):
    """Covariances of the parameters' coordinates, from independent points and robust."""

    naive: Covariance
    robust: Covariance


@dataclass(frozen=True)
class Independent:
    """No correction."""

    word: ClassVar[str] = "none"
    text: ClassVar[str] = (
        "not corrected: points are taken as independent, so widths are too small for speckle"
    )

    needs_fit: ClassVar[bool] = False

    def power(self, found: Widths) -> float:
        """Power of the likelihood that is sampled."""
        return 1.0

    def corrected(self, joint: Joint, found: Widths | None) -> Joint:
        """Draws of (parameters, scaling, noise) with their width corrected."""
        return joint


@dataclass(frozen=True)
class Tempering(Independent):
    """The likelihood to a power, so that the posterior has the volume of the robust covariance."""

    word = "tempering"
    needs_fit = True
    text = (
        "widened by tempering: the likelihood raised to a power below 1, for the speckle noise "
        "that points share"
    )

    def power(self, found: Widths) -> float:
        return min(1.0, float(temper_power(*map(jnp.asarray, found))))


@dataclass(frozen=True)
class Sandwich(Independent):
    """Draws mapped about their mean; contrast, offset and noise follow the parameters linearly.

    Reference:
        Shaby, Bayesian Analysis 9, 585 (2014).
    """

    word = "sandwich"
    needs_fit = True
    text = (
        "widened by the open-faced sandwich: draws mapped about their mean so that their "
        "covariance takes the speckle noise that points share into account"
    )

    def corrected(self, joint: Joint, found: Widths | None) -> Joint:
        assert found is not None
        flat, n = joint.reshape(-1, joint.shape[-1]), len(found.naive)
        linear = np.asarray(open_faced_map(*map(jnp.asarray, found)))
        change = (flat - flat.mean(axis=0))[:, :n] @ (linear - np.eye(n)).T
        covariance = np.atleast_2d(np.cov(flat, rowvar=False))
        follow = np.linalg.lstsq(covariance[:n, :n], covariance[:n, n:], rcond=None)[0]
        moved = np.concatenate([change, change @ follow], axis=-1)
        return (flat + moved).reshape(joint.shape)


WIDTHS = {width.word: width for width in (Sandwich(), Tempering(), Independent())}


def widths(coordinates: Coordinates, fit: NLSQResult) -> Widths:
    """Covariances of a fit in the sampler's coordinates, with the prior's curvature."""
    free = np.flatnonzero(fit.varying)
    z = coordinates.from_values(np.asarray(fit.values)[free])
    slope = np.asarray(coordinates.slope(z))
    unit = np.outer(slope, slope)
    iid, robust = (np.asarray(c) / unit for c in (fit.covariance_iid, fit.covariance))
    prior = -np.diag(np.asarray(jax.hessian(coordinates.log_prior)(z)))
    curvature = np.diag(np.maximum(prior, 1e-3))
    size = np.sqrt(np.maximum(np.diag(iid), 0.0))
    size = np.where(size > 0, size, 1.0)
    unit = np.outer(size, size)
    # Directions without variance stay out.
    information = np.linalg.pinv(iid / unit, rcond=1e-13, hermitian=True) / unit
    naive = np.linalg.inv(information + curvature)
    wide = naive @ (information @ robust @ information + curvature) @ naive
    return Widths(0.5 * (naive + naive.T), 0.5 * (wide + wide.T))


def temper_power(naive: Covariance, robust: Covariance) -> Float[AnyArray, ""]:
    """Power of the likelihood that gives the posterior the volume of the robust covariance.

    It is (det naive / det robust)^(1/n): the ratio of robust to naive information.
    """
    ratio = jnp.linalg.slogdet(naive)[1] - jnp.linalg.slogdet(robust)[1]
    return jnp.exp(ratio / naive.shape[0])


def open_faced_map(naive: Covariance, robust: Covariance) -> Covariance:
    """Linear map of deviations from the mode that turns the naive covariance into the robust.

    With Q the naive information and P = Q robust Q, the map is Q⁻¹ P^½ Q^½ (symmetric roots, in
    units of the naive standard deviations).

    Reference:
        Shaby, Bayesian Analysis 9, 585 (2014).
    """
    size = jnp.sqrt(jnp.diag(naive))
    unit = jnp.outer(size, size)
    q = jnp.linalg.inv(naive / unit)
    p = q @ (robust / unit) @ q
    linear = (naive / unit) @ _root(p) @ _root(q)
    return size[:, None] * linear / size[None, :]


def _root(matrix: Covariance) -> Covariance:
    values, vectors = jnp.linalg.eigh(0.5 * (matrix + matrix.T))
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T


def _inverse(matrices: Matrix) -> Matrix:
    """Inverses of symmetric matrices, scaled to unit diagonal in between."""
    unit = _unit(matrices)
    inverse = np.linalg.inv(matrices / unit) / unit
    return 0.5 * (inverse + inverse.swapaxes(-1, -2))


def _unit(matrices: Matrix) -> Matrix:
    size = np.sqrt(np.abs(np.diagonal(matrices, axis1=-2, axis2=-1)))
    return size[..., :, None] * size[..., None, :]
