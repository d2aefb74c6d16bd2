"""Whether residuals are noise: means by lag and by age against what speckle allows, in words.

Means of groups of points, of some lags or of some frames, are taken over all data. Their covariance
is that of scores: the noise of the group, less what the fit takes out of it through parameters,
contrast and offset. The largest of all means, in its standard deviations, is held against the
largest that noise alone brings about; residuals must not lean towards faults that laws usually
have, and frames of different angles must know nothing of each other: 1 in 100 right fits is called
wrong, however many groups, faults and angles are looked at.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jaxtyping import Array, Float

from twotime.compilation import compiled, verb
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
from twotime.covariance.agreement import Response, followed_scaling, left_by_fit
from twotime.covariance.blocks import Planes, Span, planes_between
from twotime.covariance.leanings import chance_of, leanings, of_faults
from twotime.covariance.modes import Modes
from twotime.covariance.residuals import common, jackknife
from twotime.data.dataset import TwoTimeData
from twotime.gram.pairs import ONE
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.rates import AnyArray
from twotime.results.judgement import FAULTS, LOOKS, Structure
from twotime.results.nlsq import NLSQResult

_GROUPS = 12
_ROWS = 256


@verb
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
    return judged(optimum(model, data, space, fit)).structure


class _Means(NamedTuple):
    """Of one angle and each group of points: weight, and weighted means.

    Attributes:
        weight: Sum of weights.
        residual: Mean residual.
        signal: Mean of the fitted contrast times correlation.
        taken: Means of the derivatives that scores take.
        towards: Sum of residuals times what each fault changes.
        shared: Sums of what each fault changes times the derivatives that scores take.
        neighbours: Correlation of residuals one frame apart, of all points.
        by_frame: Score of each frame along each direction, then for contrast and offset.
    """

    weight: Array
    residual: Array
    signal: Array
    taken: Array
    towards: Array
    shared: Array
    neighbours: Array
    by_frame: Array


class Judged(NamedTuple):
    """A fit judged.

    Attributes:
        sandwich: Its covariance under the noise of speckle.
        structure: What its residuals say under the same noise.
        from_residuals: Its covariance from the residuals, no narrower than that of speckle.
        scaling_from_residuals: Variance of contrast and offset of each angle, likewise.
    """

    sandwich: Sandwich
    structure: Structure
    from_residuals: Array
    scaling_from_residuals: Array


def judged(at: LinearisedFit) -> Judged:
    """The covariance of a fit, and the judgement of its residuals under the same noise."""
    data, root = at.problem.data, unit_directions(at.inverse)
    groups, angles = Groups.of(data.t.shape[0]), jnp.arange(data.phi.shape[0])

    def one(k: Array) -> tuple[AngleNoise, _Means]:
        angle = angle_of_fit(at, root, k)
        means = _means(at, angle, k, groups)

        def jacobian(planes: Planes, first: Span, second: Span) -> Array:
            group = groups.of_pairs(first, second) / means.weight[:, None, None]
            faults = of_faults(planes.value, first.middle, second.middle, data, k)
            return jnp.concatenate([group, faults, angle.jacobian(planes)])

        return angle_noise(at, angle, k, jacobian), means

    noise, means = jax.lax.map(one, angles)
    found = sandwich(at, root, noise)
    chosen, followed = slice(0, groups.n_groups), followed_scaling(at)
    covariance = left_by_fit(found.scores, chosen, means.taken, followed)
    deviation, heights = _deviations(at, groups, covariance, means, found.squares)
    largest = jnp.max(jnp.abs(means.residual) / deviation)
    of_fault = slice(groups.n_groups, groups.n_groups + len(FAULTS))
    leaning = leanings(means.towards, found.scores, of_fault, means.shared, followed)
    alike = common(means.by_frame[:, -1])
    chances = _chances(heights, largest, leaning, alike)
    n_lags, t = groups.lags.size - 1, jnp.asarray(data.t)
    excess = means.residual**2 - jnp.where(jnp.isinf(deviation), 0, deviation) ** 2
    signal = jnp.mean(jnp.var(means.signal[:, :n_lags], axis=1))
    # Frames are those of all angles, which the same beam lights.
    own = root @ jackknife(jnp.sum(means.by_frame[:, :-2], axis=0)) @ root.T
    response = Response.of(at)
    of_frames = response.variance_of_frames(means.by_frame)
    of_scaling = jnp.maximum(of_frames, response.variance(found.scores))
    n_looks = len(LOOKS) if len(angles) > 1 else len(LOOKS) - 1  # one has nothing in common
    structure = Structure(
        lag=t[groups.lags[:-1]] - t[0],
        by_lag=means.residual[:, :n_lags],
        lag_deviation=deviation[:, :n_lags],
        age=t[groups.ages[:-1]],
        by_age=means.residual[:, n_lags:],
        age_deviation=deviation[:, n_lags:],
        q=jnp.asarray(data.q),
        phi=jnp.asarray(data.phi),
        neighbours=means.neighbours,
        chance=1.0 - (1.0 - jnp.min(chances)) ** n_looks,
        share=jnp.maximum(jnp.mean(excess[:, :n_lags]), 0.0) / signal,
        chances=chances,
        leanings=leaning,
        common=alike,
    )
    return Judged(found, structure, _at_least(own, found.covariance), of_scaling)


def _deviations(
    at: LinearisedFit, groups: "Groups", covariance: Array, means: _Means, squares: Array
) -> tuple[Float[Array, "angle group"], Float[Array, "angle draw"]]:
    """Standard deviations of means, and the largest of all in many draws of noise, in these."""
    n = groups.ages[-1]
    of_sums = covariance * means.weight[:, :, None] * means.weight[:, None, :]
    mean_weight = at.grams[:, ONE, ONE] / (0.5 * n * (n - 1))
    normal = mean_weight[:, None, None] * groups.products()
    modes = jax.vmap(Modes.of)(normal, of_sums, squares)
    sums = means.weight * means.residual
    size = jax.vmap(lambda m, x: m.size(m.inverse @ x))(modes, sums)
    variance = jnp.diagonal(of_sums, axis1=1, axis2=2)
    # A group without usable points has no deviation and cannot be judged.
    spread = jnp.where(variance > 0, jnp.sqrt(jnp.maximum(variance, 0.0)), jnp.inf)
    heights = jax.lax.map(lambda x: Modes.heights(*x), (modes, spread))
    deviation = spread * jnp.sqrt(size)[:, None] / means.weight
    return deviation, heights


def _chances(
    heights: Float[Array, "angle draw"], largest: Array, leaning: Array, alike: Array
) -> Float[Array, " look"]:
    """Probability by noise alone of what each of `LOOKS` finds."""
    # Angles are independent but for what they share through the parameters.
    below = (jnp.sum(heights < largest, axis=1) + 1) / (heights.shape[1] + 1)
    of_means = jnp.maximum(1.0 - jnp.prod(below), 0.0)
    of_common = 0.5 * erfc(alike / jnp.sqrt(2.0)) if len(heights) > 1 else jnp.ones(())
    return jnp.stack([of_means, chance_of(leaning), of_common])


def _at_least(covariance: Array, least: Array) -> Array:
    """A covariance, widened where another one has a larger variance."""
    own, other = jnp.diag(covariance), jnp.diag(least)
    wider = jnp.sqrt(jnp.maximum(other / jnp.where(own > 0, own, 1.0), 1.0))
    return covariance * wider[:, None] * wider


class Groups(NamedTuple):
    """Groups of points: of some lags, then of some frames, whose rows and columns they are.

    Attributes:
        lags: Ends of the groups of lags [frame], spaced evenly in their logarithm.
        ages: Ends of the groups of frames.
    """

    lags: np.ndarray
    ages: np.ndarray

    @classmethod
    def of(cls, n_frames: int) -> "Groups":
        """The groups of a record."""
        lags = np.round(np.geomspace(1, n_frames, _GROUPS + 1)).astype(int)
        ages = np.linspace(0, n_frames, _GROUPS + 1).astype(int)
        return cls(np.unique(lags), np.unique(ages))

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return self.lags.size + self.ages.size - 2

    def of_lag(self, lag: AnyArray) -> Float[Array, "*lag group"]:
        """Whether each lag belongs to each group of lags."""
        lag = jnp.asarray(lag)[..., None]
        return ((lag >= self.lags[:-1]) & (lag < self.lags[1:])).astype(float)

    def of_age(self, frames: Span) -> Float[Array, "*span period"]:
        """Half of how much of some frames belongs to each group: a point has two."""
        first, size = (jnp.asarray(x)[..., None] for x in frames)
        ends = jnp.minimum(first + size, self.ages[1:]), jnp.maximum(first, self.ages[:-1])
        return 0.5 * jnp.maximum(ends[0] - ends[1], 0.0) / jnp.maximum(size, 1.0)

    def of_pairs(self, first: Span, second: Span) -> Float[Array, "group *pair"]:
        """How much the pairs of frames of two spans count in each group, on average."""
        within = jnp.stack([first.pairs_within(second, lag - 1) for lag in self.lags.tolist()])
        same = jnp.where(first.first == second.first, first.size, 0.0)
        by_lag = jnp.diff(within, axis=0) / jnp.maximum(first.size * second.size - same, 1.0)
        by_age = self.of_age(first) + self.of_age(second)
        return jnp.concatenate([by_lag, jnp.moveaxis(by_age, -1, 0)])

    def sums(self, planes: Float[Array, "kind row time"], first: Array) -> Float[Array, "group k"]:
        """Sums of planes over each group; their rows are consecutive, `first` the first of them."""
        n_rows, n = planes.shape[1:]
        by_row, by_column = planes.sum(axis=2).T, planes.sum(axis=1).T
        one = jnp.ones(())
        by_age = self.of_age(Span(first + jnp.arange(n_rows), one)).T @ by_row
        by_age += self.of_age(Span(jnp.arange(n), one)).T @ by_column
        # Each row is moved by one more place, so that equal lags stand below each other.
        moved = jnp.pad(planes[..., ::-1], ((0, 0), (0, 0), (0, n_rows)))
        moved = moved.reshape(-1, n_rows * (n + n_rows))[:, :-n_rows]
        at_lag = moved.reshape(-1, n_rows, n + n_rows - 1).sum(axis=1)
        by_lag = self.of_lag(n - 1 - jnp.arange(n + n_rows - 1) - first).T @ at_lag.T
        return jnp.concatenate([by_lag, by_age])

    def products(self) -> Float[np.ndarray, "group group"]:
        """Sums of products of what pairs of frames count, all pairs alike."""
        frame, n = np.arange(self.ages[-1]), int(self.ages[-1])
        size = np.diff(self.ages)
        of_age = np.repeat(np.eye(size.size), size, axis=0)
        # Later and earlier partners of each frame at the lags of each group.
        ends = [np.clip(n - frame[:, None] - self.lags, 0, None)]
        ends += [np.clip(frame[:, None] + 1 - self.lags, 0, None)]
        later, earlier = (-np.diff(x, axis=1) for x in ends)
        found = np.zeros((self.n_groups, self.n_groups))
        k = self.lags.size - 1
        found[:k, :k] = np.diag(later.sum(axis=0))
        found[:k, k:] = 0.5 * (later + earlier).T @ of_age
        found[k:, :k] = found[:k, k:].T
        found[k:, k:] = 0.25 * (np.outer(size, size) + np.diag(size * (n - 2.0)))
        return found


def _means(at: LinearisedFit, angle: AngleOfFit, k: Array, groups: Groups) -> _Means:
    data, n = at.problem.data, at.problem.data.t.shape[0]
    contrast, offset = angle.scaling

    def of_rows(first: Array) -> tuple[Array, ...]:
        rows = first + jnp.arange(min(_ROWS, n))
        early, late = jnp.broadcast_arrays(jnp.minimum(rows, n - 1)[:, None], jnp.arange(n))
        weight = data.weights_at(k, early, late)  # 0 in rows beyond the last frame
        earlier = jax.tree.map(lambda x: x[..., jnp.minimum(rows, n - 1), None], angle.slopes)
        later = jax.tree.map(lambda x: x[..., None, :], angle.slopes)
        planes = planes_between(at.problem.model, earlier, later, early <= late)
        # Formed once: compilers would form them again for each sum.
        planes = jax.lax.optimization_barrier(planes)
        fitted = contrast * planes.value
        c2 = jnp.asarray(data.c2)[k, early, late] - at.problem.shift
        residual = jnp.where(weight > 0, c2 - fitted - offset, 0.0)
        jacobian = angle.jacobian(planes)
        kinds = jnp.stack([jnp.ones_like(fitted), residual, fitted, *jacobian])
        scores = jacobian * (weight * residual)
        by_frame = jnp.zeros((len(scores), n)).at[:, rows].add(jnp.sum(scores, axis=2), mode="drop")
        by_frame += jnp.sum(scores, axis=1)
        beside = jnp.stack([jnp.sum(residual[:, 1:] * residual[:, :-1]), jnp.sum(residual**2)])
        faults = of_faults(planes.value, early, late, data, k) * weight
        with_faults = jnp.einsum("frt,krt->fk", faults, jnp.stack([residual, *jacobian]))
        return groups.sums(kinds * weight, first), beside, by_frame, with_faults

    found = jax.lax.map(of_rows, jnp.arange(0, n, _ROWS))
    sums, beside, by_frame, with_faults = (jnp.sum(x, axis=0) for x in found)
    weight = jnp.maximum(sums[:, 0], 1e-300)
    means = sums[:, 1:] / weight[:, None]
    neighbours = beside[0] / jnp.maximum(beside[1], 1e-300)
    faults = with_faults[:, 0], with_faults[:, 1:]
    return _Means(weight, means[:, 0], means[:, 1], means[:, 2:], *faults, neighbours, by_frame)
