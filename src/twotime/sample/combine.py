"""Draws of shards combined into draws of their product, in unbounded coordinates.

Every shard's density is taken as the Gaussian with its draws' mean and covariance; what guided
it is divided out. Both methods have the mean and covariance of the product and so keep the
correlations between parameters: "consensus" averages draws, which passes on part of the shards'
skewness; "gaussian" draws from the Gaussian.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float

from twotime.sample.density import Guide

Combination = Literal["consensus", "gaussian", "importance"]


class Combined(NamedTuple):
    """The product of shards.

    Attributes:
        draws: Draws of the product.
        mean: Its mean.
        covariance: Its covariance.
        disagreement: Distance of each shard's mean from where the product puts it, in the
            standard deviations of that.
    """

    draws: Float[np.ndarray, "chain draw joint"]
    mean: Float[np.ndarray, " joint"]
    covariance: Float[np.ndarray, "joint joint"]
    disagreement: Float[np.ndarray, "shard joint"]


def combine_shards(
    draws: Float[np.ndarray, "shard chain draw joint"],
    method: str,
    seed: int = 0,
    guide: Guide | None = None,
    used: Bool[np.ndarray, " shard"] | None = None,
) -> Combined:
    """Combine draws of shards.

    Args:
        draws: Draws of each shard; draws of equal place are averaged.
        method: "consensus" or "gaussian"; "importance" starts from "gaussian".
        seed: Seed of the draws of "gaussian".
        guide: The Gaussian that each shard's density was multiplied by.
        used: Which shards are combined; all of them if None.

    Raises:
        ValueError: If the method is unknown, or there are too few draws for a covariance.

    Reference:
        Scott et al., Int. J. Manag. Sci. Eng. Manag. 11, 78 (2016). Guides: one pass of
        expectation propagation, Vehtari et al., J. Mach. Learn. Res. 21, 17 (2020).
    """
    check_method(method)
    k, c, n, m = draws.shape
    if k > 1 and c * n <= 2 * m:
        raise ValueError(
            f"Shards are weighted by the covariance of their draws: {c * n} draws of each shard "
            f"are too few for {m} coordinates; draw more than {2 * m}."
        )
    flat = draws.reshape(k, c * n, m)
    means = flat.mean(axis=1)
    covariances = np.stack([np.atleast_2d(np.cov(x, rowvar=False)) for x in flat])
    if k == 1:
        return Combined(draws[0], means[0], covariances[0], np.zeros((1, m)))
    used = np.ones(k, bool) if used is None else used
    # The inverse of a covariance from few draws is too large on average.
    precision = _inverse(covariances) * ((c * n - m - 2) / (c * n - 1))
    guide = Guide(np.zeros(m), np.zeros((m, m))) if guide is None else guide
    own = precision - guide.precision
    total = own[used].sum(axis=0)
    if not np.all(np.linalg.eigvalsh(total / _unit(total)) > 0):
        raise ValueError(
            f"The shards do not add up to a density: {c * n} draws of each are too few to divide "
            "their guide out; draw more, or use fewer shards."
        )
    covariance = _inverse(total)
    pull = np.einsum("kij,kj->ki", precision, means) - guide.precision @ guide.centre
    mean = covariance @ pull[used].sum(axis=0)
    apart = disagreement(means, covariances, guide, (mean, covariance), used)
    root = np.linalg.inv(np.linalg.cholesky(total)).T
    if method == "consensus":
        away = (draws - means[:, None, None])[used]
        step = np.einsum("kij,kcnj->cni", precision[used], away)
        # With nothing divided out this makes averages weighted with the shards' precisions.
        step = step @ np.linalg.inv(np.linalg.cholesky(precision[used].sum(axis=0))).T
    else:
        step = np.random.default_rng(seed).normal(size=(c, n, m))
    return Combined(mean + step @ root.T, mean, covariance, apart)


def disagreement(
    means: Float[np.ndarray, "shard joint"],
    covariances: Float[np.ndarray, "shard joint joint"],
    guide: Guide,
    combined: tuple[Float[np.ndarray, " joint"], Float[np.ndarray, "joint joint"]],
    used: Bool[np.ndarray, " shard"],
) -> Float[np.ndarray, "shard joint"]:
    """Distance of each shard's mean from where the combined mean puts it, in standard deviations.

    Data move a shard's mean by its covariance times the score of its pixels, whose variance is
    their information. That is taken as an equal share of all: a shard's own is what is left of
    two large numbers when the guide is divided out.

    Args:
        means: Mean of each shard's draws.
        covariances: Their covariance.
        guide: What every shard was guided by.
        combined: Mean and covariance of the product.
        used: Which shards the product contains: it has followed them, so they are less far off.
    """
    mean, covariance = combined
    count = used.sum()
    expected = mean - covariances @ (guide.precision @ (mean - guide.centre))
    share = _inverse(covariance) / count
    variance = np.einsum("kij,jl,kil->ki", covariances, share, covariances)
    left = np.where(used, 1 - 1 / count, 1 + 1 / count)[:, None]
    smallest = 1e-12 * np.diagonal(covariances, axis1=1, axis2=2)
    return (means - expected) / np.sqrt(np.maximum(variance * left, smallest))


def check_method(method: str) -> None:
    """Refuse an unknown method.

    Raises:
        ValueError: If it is unknown.
    """
    if method not in get_args(Combination):
        raise ValueError(
            f"combine is {method!r}; expected one of {', '.join(get_args(Combination))}."
        )


def _inverse(
    matrices: Float[np.ndarray, "*shard joint joint"],
) -> Float[np.ndarray, "*shard joint joint"]:
    """Inverses of symmetric matrices, scaled to unit diagonal in between."""
    unit = _unit(matrices)
    inverse = np.linalg.inv(matrices / unit) / unit
    return 0.5 * (inverse + inverse.swapaxes(-1, -2))


def _unit(matrices: Float[np.ndarray, "*shard joint joint"]) -> np.ndarray:
    size = np.sqrt(np.abs(np.diagonal(matrices, axis1=-2, axis2=-1)))
    return size[..., :, None] * size[..., None, :]
