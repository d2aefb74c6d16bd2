"""Whether residuals are noise: means by lag and by age against what speckle allows, in words.

Means of groups of points, of some lags or of some frames, are taken over all data. Their covariance
is that of scores: the noise of the group, less what the fit takes out of it through parameters,
contrast and offset. The largest of all means, in its standard deviations, is held against the
largest that noise alone brings about; residuals must not lean towards faults that laws usually
have, and frames of different angles must know nothing of each other: 1 in 100 right fits is called
wrong, however many groups, faults and angles are looked at.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jaxtyping import Array, Bool, Float, Int

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
)
from twotime.covariance.agreement import Response, left_by_fit
from twotime.covariance.blocks import Planes, Span, single
from twotime.covariance.leanings import chance_of, leanings, of_faults
from twotime.covariance.modes import Modes
from twotime.covariance.residuals import common, jackknife
from twotime.data.dataset import TwoTimeData
from twotime.gram.pairs import (
    ONE,
    ChannelDerivatives,
    Tile,
    cut_tile,
    slopes,
    tile_corners,
    tile_edge,
    tile_pairs,
)
from twotime.models.base import AbstractTwoTimeModel
from twotime.results.judgement import FAULTS, LOOKS, Structure
from twotime.results.nlsq import NLSQResult

_GROUPS = 12
_EDGE = 128  # of the tiles that means are formed by [frame]


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
    at = optimum(model, data, space, fit)
    return judged(at, noise_of_means(at), Response.of(at)).structure


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
        structure: What its residuals say under the noise of speckle.
        covariance: Its covariance from the residuals, no narrower than that of speckle.
        of_scaling: Variance of contrast and offset of each angle, likewise.
    """

    structure: Structure
    covariance: Array
    of_scaling: Array


def noise_of_means(at: LinearisedFit) -> Sandwich:
    """The covariance of a fit; its scores begin with those of groups of points and of faults."""
    data = at.problem.data
    groups = Groups.of(data.t.shape[0])

    def one(k: Array) -> AngleNoise:
        angle = angle_of_fit(at, k)

        def jacobian(planes: Planes, first: Span, second: Span) -> Array:
            group = groups.of_pairs(first, second) / at.grams[k, ONE, ONE]
            faults = of_faults(planes.value, first.middle, second.middle, data, k)
            return jnp.concatenate([group, faults, angle.jacobian(planes)])

        return angle_noise(at, angle, k, jacobian)

    return sandwich(at, jax.lax.map(one, jnp.arange(data.phi.shape[0])))


def judged(at: LinearisedFit, found: Sandwich, response: Response) -> Judged:
    """The judgement of a fit's residuals under the noise that `noise_of_means` finds."""
    data, root, followed = at.problem.data, at.root, response.followed
    groups, angles = Groups.of(data.t.shape[0]), jnp.arange(data.phi.shape[0])
    means = jax.lax.map(lambda k: _means(at, angle_of_fit(at, k), k, groups), angles)
    chosen = slice(0, groups.n_groups)
    total = at.grams[:, ONE, ONE, None, None]
    taken = means.taken * means.weight[:, :, None] / total
    of_sums = left_by_fit(found.scores, chosen, taken, followed) * total**2
    deviation, heights = _deviations(at, groups, of_sums, means, found.squares)
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
    return Judged(structure, _at_least(own, found.covariance), of_scaling)


def _deviations(
    at: LinearisedFit, groups: "Groups", of_sums: Array, means: _Means, squares: Array
) -> tuple[Float[Array, "angle group"], Float[Array, "angle draw"]]:
    """Standard deviations of means, and the largest of all in many draws of noise, in these."""
    n = groups.ages[-1]
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

    def of_lag(self, lag: Int[Array, "*pair"]) -> Bool[Array, "group *pair"]:
        """Whether each lag belongs to each group of lags."""
        shape = -1, *[1] * lag.ndim
        return (lag >= self.lags[:-1].reshape(shape)) & (lag < self.lags[1:].reshape(shape))

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

    def sums(
        self, planes: Float[Array, "kind row column"], first: tuple[Array, Array]
    ) -> Float[Array, "group kind"]:
        """Sums over each group of planes between consecutive frames, `first` the first of them."""
        n_rows, n_columns = planes.shape[1:]
        rows, columns = first[0] + jnp.arange(n_rows), first[1] + jnp.arange(n_columns)
        of_lag = self.of_lag(columns - rows[:, None]).astype(planes.dtype)
        by_lag = planes.reshape(len(planes), -1) @ of_lag.reshape(len(of_lag), -1).T
        by_age = [
            total @ self.of_age(Span(frames, jnp.ones(())))
            for total, frames in zip(_by_frame(planes), (rows, columns), strict=True)
        ]
        return jnp.concatenate([by_lag, sum(by_age)], axis=1).T

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


def _by_frame(planes: Float[Array, "kind row column"]) -> tuple[Array, Array]:
    """Sums of planes over each row, and over each column; as a product it is vectorised."""
    return planes @ jnp.ones(planes.shape[2], planes.dtype), planes.sum(axis=1)


class _Sums(NamedTuple):
    """Sums over the points of one angle, a row of members for each kind of sum.

    Attributes:
        by_group: Of 1, residual, fitted, and the derivatives that scores take.
        beside: Of products of residuals one frame apart, and of their mean squares.
        by_frame: Of residuals times derivatives, by frame.
        with_faults: Of the kinds of `by_group` times what each fault changes.
    """

    by_group: Float[Array, "group kind"]
    beside: Float[Array, "2"]
    by_frame: Float[Array, "score time"]
    with_faults: Float[Array, "fault kind"]


def _means(at: LinearisedFit, angle: AngleOfFit, k: Array, groups: Groups) -> _Means:
    n = at.problem.data.t.shape[0]
    edge = tile_edge(n, _EDGE)
    by, n_score = ChannelDerivatives.of(angle.slopes[1]), angle.slopes[1].level.shape[0] + 2

    def add(total: _Sums, corner: Array) -> tuple[_Sums, None]:
        cut = cut_tile(at.problem.data, k, at.problem.shift, corner, edge)
        return jax.tree.map(jnp.add, total, _of_tile(at, angle, k, groups, cut, by)), None

    shapes = (groups.n_groups, 3 + n_score), (2,), (n_score, n), (len(FAULTS), 3 + n_score)
    none = _Sums(*map(jnp.zeros, shapes))
    sums = jax.lax.scan(add, none, tile_corners(n, _EDGE))[0]
    weight = jnp.maximum(sums.by_group[:, 0], 1e-300)
    residual, signal, *taken = (sums.by_group[:, 1:] / weight[:, None]).T
    neighbours = sums.beside[0] / jnp.maximum(sums.beside[1], 1e-300)
    faults = sums.with_faults[:, 1], sums.with_faults[:, 3:]
    found = weight, residual, signal, jnp.stack(taken, axis=1), *faults
    return _Means(*found, neighbours, sums.by_frame)


def _of_tile(
    at: LinearisedFit, angle: AngleOfFit, k: Array, groups: Groups, cut: Tile,
    by: ChannelDerivatives,
) -> _Sums:  # fmt: skip
    """What a tile adds.

    Residuals are formed in double precision, for they may be small; all else is single.
    """
    model, edge, (contrast, offset) = at.problem.model, cut.weight.shape[0], angle.scaling
    fitted = contrast * model.correlation(tile_pairs(angle.slopes[0], cut.first, edge))
    residual = jnp.where(cut.weight > 0, cut.c2 - fitted - offset, 0.0)
    pair = tile_pairs(angle.slopes[0], cut.first, edge, dtype=jnp.float32)
    value, along = jax.lax.optimization_barrier(slopes(model, pair))
    early, late = (first + jnp.arange(edge) for first in cut.first)
    row = single(jax.lax.dynamic_slice_in_dim(by.row, cut.first[0], edge, axis=2))
    column = single(jax.lax.dynamic_slice_in_dim(by.column, cut.first[1], edge, axis=2))
    parts = zip(along, row[..., None], column[:, :, None], strict=True)
    derivative = jnp.asarray(sum(g * (left + right) for g, left, right in parts))
    jacobian = angle.jacobian(Planes(value, derivative, value))
    faults = of_faults(value, early[:, None], late, at.problem.data, k)
    # Formed once: compilers would form them again for each sum.
    formed = single((cut.weight, residual, fitted, jacobian, faults))
    weight, left, fitted, jacobian, faults = jax.lax.optimization_barrier(formed)
    kinds = jnp.stack([jnp.ones_like(left), left, fitted, *jacobian]) * weight
    scores = jacobian * kinds[1]
    beside = [left[:, 1:] * left[:, :-1], 0.5 * (left[:, 1:] ** 2 + left[:, :-1] ** 2)]
    none = jnp.zeros((len(scores), at.problem.data.t.shape[0]), left.dtype)
    of_frames = zip(_by_frame(scores), cut.first, strict=True)
    put = partial(jax.lax.dynamic_update_slice_in_dim, none, axis=1)
    return _Sums(
        by_group=groups.sums(kinds, cut.first),
        beside=jnp.stack([jnp.sum(x) for x in beside]),
        by_frame=jnp.asarray(sum(put(x, start_index=first) for x, first in of_frames)),
        with_faults=faults.reshape(len(faults), -1) @ kinds.reshape(len(kinds), -1).T,
    )
