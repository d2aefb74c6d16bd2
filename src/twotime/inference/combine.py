"""Draws of shards combined into draws of their product, in unbounded coordinates.

Both methods keep the correlations between parameters and are exact where the shards are
Gaussian. "consensus" averages draws, and so passes on part of the shards' skewness; "gaussian"
takes the product of the Gaussians with the shards' means and covariances, and draws from it.
"""

from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

Combination = Literal["consensus", "gaussian"]


class Combined(NamedTuple):
    """The product of shards.

    Attributes:
        draws: Draws of the product.
        means: Mean of each shard.
        covariances: Covariance of each shard.
    """

    draws: Float[np.ndarray, "chain draw joint"]
    means: Float[np.ndarray, "shard joint"]
    covariances: Float[np.ndarray, "shard joint joint"]


def combine_shards(
    draws: Float[np.ndarray, "shard chain draw joint"], method: str, seed: int = 0
) -> Combined:
    """Combine draws of shards.

    Args:
        draws: Draws of each shard; draws of equal place are averaged.
        method: "consensus" or "gaussian".
        seed: Seed of the draws of "gaussian".

    Raises:
        ValueError: If the method is unknown, or there are too few draws for a covariance.

    Reference:
        Scott et al., Int. J. Manag. Sci. Eng. Manag. 11, 78 (2016).
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
        return Combined(draws[0], means, covariances)
    precision = _inverse(covariances)
    total = precision.sum(axis=0)
    if method == "consensus":
        weights = np.linalg.solve(total, precision)
        return Combined(np.einsum("kij,kcnj->cni", weights, draws), means, covariances)
    mean = np.linalg.solve(total, np.einsum("kij,kj->i", precision, means))
    root = np.linalg.cholesky(_inverse(total[None])[0])
    white = np.random.default_rng(seed).normal(size=(c, n, m))
    return Combined(mean + white @ root.T, means, covariances)


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
    matrices: Float[np.ndarray, "shard joint joint"],
) -> Float[np.ndarray, "shard joint joint"]:
    """Inverses of symmetric matrices, scaled to unit diagonal in between."""
    size = np.sqrt(np.diagonal(matrices, axis1=1, axis2=2))
    unit = size[:, :, None] * size[:, None, :]
    inverse = np.linalg.inv(matrices / unit) / unit
    return 0.5 * (inverse + inverse.swapaxes(1, 2))
