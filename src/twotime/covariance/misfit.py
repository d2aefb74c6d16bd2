"""Whether residuals are noise: means by lag and by age against what speckle allows, in words."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.compilation import compiled
from twotime.config.parameter_space import ParameterSpace
from twotime.covariance.speckle import angle_in_blocks, score_covariance, stride
from twotime.data.dataset import TwoTimeData
from twotime.gram import Tiled
from twotime.gram.problem import make_problem
from twotime.models.base import AbstractTwoTimeModel
from twotime.results.nlsq import NLSQResult

_GROUPS = 12
_LIMIT = 3.0


class Structure(eqx.Module):
    """Mean residuals of groups of points, and how far speckle alone would move them.

    Attributes:
        lag: Mean lag of each group of lags [s].
        by_lag: Mean residual of each angle at these lags.
        lag_deviation: Standard deviation that the noise gives it.
        age: Mean time of each group of frames [s].
        by_age: Mean residual of each angle in the rows and columns of these frames (stripes).
        age_deviation: Standard deviation that the noise gives it.
        neighbours: Correlation of residuals one frame apart in a row.
    """

    lag: Float[Array, " group"]
    by_lag: Float[Array, "angle group"]
    lag_deviation: Float[Array, "angle group"]
    age: Float[Array, " period"]
    by_age: Float[Array, "angle period"]
    age_deviation: Float[Array, "angle period"]
    neighbours: Float[Array, " angle"]

    @property
    def worst(self) -> tuple[float, float]:
        """Largest deviation in lag and in age [standard deviations]."""
        lag = np.max(np.abs(self.by_lag) / self.lag_deviation)
        age = np.max(np.abs(self.by_age) / self.age_deviation)
        return float(lag), float(age)

    @property
    def sentence(self) -> str:
        """What the residuals say about the model."""
        lag, age = self.worst
        if max(lag, age) <= _LIMIT:
            return (
                f"the residuals are no larger than speckle explains (lags within {lag:.1f}, "
                f"frames within {age:.1f} standard deviations)"
            )
        where = "lags" if lag >= age else "frames (stripes)"
        return (
            f"the model does not describe the data: mean residuals of some {where} are "
            f"{max(lag, age):.1f} standard deviations of the noise from zero; the error bars do "
            "not include this misfit"
        )


@compiled
def residual_structure(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, fit: NLSQResult
) -> Structure:
    """Average the residuals of a fit by lag and by age and compare with the noise.

    The fit has taken out of the residuals what it could follow, so that deviations are, if
    anything, smaller than the noise alone would make them.

    Args:
        model: The model that was fitted.
        data: The data that were fitted.
        space: The space that was fitted.
        fit: The result.
    """
    problem = make_problem(model, data, space, fit.per_angle_mode, Tiled())
    n = data.t.shape[0]
    in_block = stride(n)
    n_blocks = -(-n // in_block)
    groups = jnp.asarray(_groups(n_blocks))
    t = jnp.asarray(data.t)
    block_time = t[jnp.minimum(jnp.arange(n_blocks) * in_block, n - 1)]

    def one(k: Array) -> tuple[Array, Array, Array]:
        scaling = fit.contrast[k], fit.offset[k] - problem.shift
        no_direction = jnp.zeros((0, sum(problem.varying)))
        planes, blocks = angle_in_blocks(problem, fit.values, scaling, no_direction, k)
        weights = groups * blocks.weight * (1 - jnp.eye(n_blocks))
        weights = weights / jnp.maximum(weights.sum(axis=(1, 2), keepdims=True), 1e-300)
        beta = jnp.clip(fit.contrast[k] / fit.offset[k], 1e-6, 1.0)
        covariance = score_covariance(weights, planes.field, beta, planes.value)
        per_pixel = jnp.diag(covariance.at(1.0 / (fit.photons * in_block)))
        # A group without usable points has no deviation and cannot be judged.
        per_pixel = jnp.where(per_pixel > 0, per_pixel, jnp.inf)
        deviation = fit.offset[k] ** 2 * jnp.sqrt(per_pixel / fit.pixels[k])
        r = blocks.residual * (blocks.weight > 0)
        near = jnp.sum(r[:, 1:] * r[:, :-1]) / jnp.sum(r**2)
        return jnp.einsum("gij,ij->g", weights, blocks.residual), deviation, near

    mean, deviation, near = jax.lax.map(one, jnp.arange(data.phi.shape[0]))
    lags = jnp.abs(block_time[:, None] - block_time)
    ages = jnp.broadcast_to(block_time[:, None], lags.shape)
    k = groups.shape[0] - _GROUPS
    centre = jnp.einsum("gij,gij->g", groups, jnp.stack([lags] * k + [ages] * _GROUPS))
    centre = centre / groups.sum(axis=(1, 2))
    return Structure(
        centre[:k], mean[:, :k], deviation[:, :k],
        centre[k:], mean[:, k:], deviation[:, k:], near,
    )  # fmt: skip


def _groups(n_blocks: int) -> Float[np.ndarray, "group block block"]:
    """Pixels of each group of lags, spaced evenly in their logarithm, then of each of ages."""
    index = np.arange(n_blocks)
    lag = np.abs(index[:, None] - index[None, :])
    edges = np.unique(np.round(np.geomspace(1, n_blocks, _GROUPS + 1)).astype(int))
    by_lag = [(lag >= low) & (lag < high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    place = index * _GROUPS // n_blocks
    row, column = place[:, None], place[None, :]
    by_age = [0.5 * (row == k) + 0.5 * (column == k) for k in range(_GROUPS)]
    return np.stack([*map(np.asarray, by_lag), *by_age]).astype(float)
