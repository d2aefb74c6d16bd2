"""Whether residuals are noise: means by lag and by age against what speckle allows, in words.

Means of groups of points, of some lags or of some frames, are taken over all data. Their covariance
is that of scores: the noise of the group, less what the fit takes out of it through parameters,
contrast and offset. The largest of all means, in its standard deviations, is held against the
largest that noise alone brings about: 1 in 100 right fits is called wrong, however many groups
and angles are looked at.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.compilation import compiled
from twotime.config.parameter_space import ParameterSpace
from twotime.covariance import (
    AngleNoise,
    AngleOfFit,
    LinearisedFit,
    Sandwich,
    angle_noise,
    angle_of_fit,
    optimum,
    sandwich,
    unit_directions,
)
from twotime.covariance.agreement import followed_scaling, left_by_fit
from twotime.covariance.blocks import Planes, planes_between
from twotime.covariance.modes import Modes
from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel
from twotime.results.judgement import Structure
from twotime.results.nlsq import NLSQResult

_GROUPS = 12
_ROWS = 256


@compiled
def residual_structure(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, fit: NLSQResult
) -> Structure:
    """Average the residuals of a fit by lag and by age and compare with the noise.

    Args:
        model: The model that was fitted.
        data: The data that were fitted.
        space: The space that was fitted.
        fit: The result.
    """
    return judged(optimum(model, data, space, fit))[1]


class _Means(NamedTuple):
    """Of one angle and each group of points: weight, and weighted means.

    Attributes:
        weight: Sum of weights.
        residual: Mean residual.
        signal: Mean of the fitted contrast times correlation.
        taken: Means of the derivatives that scores take.
        normal: Sums of products of the groups' memberships.
        neighbours: Correlation of residuals one frame apart, of all points.
    """

    weight: Array
    residual: Array
    signal: Array
    taken: Array
    normal: Array
    neighbours: Array


def judged(at: LinearisedFit) -> tuple[Sandwich, Structure]:
    """The covariance of a fit, and the judgement of its residuals under the same noise."""
    data, root = at.problem.data, unit_directions(at.inverse)
    n, angles = data.t.shape[0], jnp.arange(data.phi.shape[0])
    lags, ages = _lags(n), np.unique(np.linspace(0, n, _GROUPS + 1).astype(int))

    def one(k: Array) -> tuple[AngleNoise, _Means]:
        angle = angle_of_fit(at, root, k)
        means = _means(at, angle, k, lags, ages)

        def jacobian(planes: Planes, first: Array, second: Array) -> Array:
            group = _membership(first, second, lags, ages)
            return jnp.concatenate([group / means.weight[:, None, None], angle.jacobian(planes)])

        return angle_noise(at, angle, k, jacobian), means

    noise, means = jax.lax.map(one, angles)
    found = sandwich(at, root, noise)
    groups = slice(0, lags.size + ages.size - 2)
    covariance = left_by_fit(found.scores, groups, means.taken, followed_scaling(at))
    of_sums = covariance * means.weight[:, :, None] * means.weight[:, None, :]
    modes = jax.vmap(Modes.of)(means.normal, of_sums, found.squares)
    sums = means.weight * means.residual
    size = jax.vmap(lambda m, x: m.size(m.inverse @ x))(modes, sums)
    variance = jnp.diagonal(of_sums, axis1=1, axis2=2)
    # A group without usable points has no deviation and cannot be judged.
    spread = jnp.where(variance > 0, jnp.sqrt(jnp.maximum(variance, 0.0)), jnp.inf)
    heights = jax.lax.map(lambda x: Modes.heights(*x), (modes, spread))
    deviation = spread * jnp.sqrt(size)[:, None] / means.weight
    largest = jnp.max(jnp.abs(means.residual) / deviation)
    # Angles are independent but for what they share through the parameters.
    below = (jnp.sum(heights < largest, axis=1) + 1) / (heights.shape[1] + 1)
    n_lags, t = lags.size - 1, jnp.asarray(data.t)
    excess = means.residual**2 - jnp.where(jnp.isinf(deviation), 0, deviation) ** 2
    signal = jnp.mean(jnp.var(means.signal[:, :n_lags], axis=1))
    return found, Structure(
        lag=t[lags[:-1]] - t[0], by_lag=means.residual[:, :n_lags],
        lag_deviation=deviation[:, :n_lags],
        age=t[ages[:-1]], by_age=means.residual[:, n_lags:], age_deviation=deviation[:, n_lags:],
        phi=jnp.asarray(data.phi), neighbours=means.neighbours,
        chance=1.0 - jnp.prod(below),
        share=jnp.maximum(jnp.mean(excess[:, :n_lags]), 0.0) / signal,
    )  # fmt: skip


def _lags(n_frames: int) -> np.ndarray:
    """Ends of the groups of lags [frame], spaced evenly in their logarithm."""
    return np.unique(np.round(np.geomspace(1, n_frames, _GROUPS + 1)).astype(int))


def _membership(
    first: Array, second: Array, lags: np.ndarray, ages: np.ndarray
) -> Float[Array, "group *pair"]:
    """How much each pair of frames counts in each group of lags, then of ages."""
    lag = jnp.abs(first - second)
    by_lag = [(lag >= low) & (lag < high) for low, high in zip(lags[:-1], lags[1:], strict=True)]
    by_age = [
        0.5 * ((x >= low) & (x < high)) + 0.5 * ((y >= low) & (y < high))
        for low, high in zip(ages[:-1], ages[1:], strict=True)
        for x, y in [(first, second)]
    ]
    return jnp.stack([*(x.astype(float) for x in by_lag), *by_age])


def _means(
    at: LinearisedFit, angle: AngleOfFit, k: Array, lags: np.ndarray, ages: np.ndarray
) -> _Means:
    data, n = at.problem.data, at.problem.data.t.shape[0]
    contrast, offset = angle.scaling

    def of_rows(first: Array) -> tuple[Array, Array]:
        rows = first + jnp.arange(min(_ROWS, n))
        early, late = jnp.broadcast_arrays(jnp.minimum(rows, n - 1)[:, None], jnp.arange(n))
        weight = data.weights_at(k, early, late)  # 0 in rows beyond the last frame
        earlier = jax.tree.map(lambda x: x[..., jnp.minimum(rows, n - 1), None], angle.slopes)
        later = jax.tree.map(lambda x: x[..., None, :], angle.slopes)
        planes = planes_between(at.problem.model, earlier, later, early <= late)
        fitted = contrast * planes.value
        c2 = jnp.asarray(data.c2)[k, early, late] - at.problem.shift
        residual = jnp.where(weight > 0, c2 - fitted - offset, 0.0)
        group = _membership(early, late, lags, ages)
        kinds = [jnp.ones_like(fitted), residual, fitted, *group, *angle.jacobian(planes)]
        flat = (group * weight).reshape(group.shape[0], -1)
        beside = jnp.stack([jnp.sum(residual[:, 1:] * residual[:, :-1]), jnp.sum(residual**2)])
        return flat @ jnp.stack(kinds).reshape(len(kinds), -1).T, beside

    sums, beside = jax.lax.map(of_rows, jnp.arange(0, n, _ROWS))
    sums, beside = jnp.sum(sums, axis=0), jnp.sum(beside, axis=0)
    weight = jnp.maximum(sums[:, 0], 1e-300)
    n_groups = weight.size
    normal, means = sums[:, 3 : 3 + n_groups], sums / weight[:, None]
    neighbours = beside[0] / jnp.maximum(beside[1], 1e-300)
    return _Means(weight, means[:, 1], means[:, 2], means[:, 3 + n_groups :], normal, neighbours)
