"""Coarse graining of the data, and fits to it: a few hundred numbers while starts are searched."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from twotime.compilation import compiled
from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.gram.problem import reduce_gram
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.correlation import correlation_at
from twotime.models.scaling import Individual, Scaling, resolve_mode
from twotime.solver import BoxLevenbergMarquardt, Quadratic

Candidates = Float[np.ndarray, "_ param"]
Costs = Float[np.ndarray, " _"]
Points = Float[Array, "angle bin"]

AGES = 9
LAGS, _GRID = 32, 128
_EARLY = (0.01, 0.025, 0.05)  # power laws and fractions change most at the beginning
_MATRICES = 8
_STEPS, _CHUNK, _TOLERANCE = 12, 4, 0.1


class CoarseData(eqx.Module):
    """Correlation averaged over bins of equal lag and similar age.

    Attributes:
        t1, t2: Times of the mean point of a bin [s].
        c2: Mean correlation, 0 where no point is usable.
        weight: Number of usable points; the sum of their weights where the data have some.
    """

    t1: Float[Array, " bin"]
    t2: Float[Array, " bin"]
    c2: Points
    weight: Points


@compiled
def coarse_grain(data: TwoTimeData, lags: int = LAGS) -> CoarseData:
    """Average the usable points over bins of lags spaced evenly in their logarithm and ages."""
    c2, t = jnp.asarray(data.c2), jnp.asarray(data.t)
    *pairs, place = _members(t.shape[0], lags)
    early, late = map(jnp.asarray, pairs)
    count = int(place[-1]) + 1

    def one(k: Array) -> tuple[Array, Array]:
        weight = data.weights_at(k, early, late)
        values = jnp.where(weight > 0, c2[k, early, late].astype(t.dtype) * weight, 0.0)
        sums = jax.ops.segment_sum(jnp.stack([values, weight], axis=1), place, count)
        return sums[:, 0] / jnp.where(sums[:, 1] > 0, sums[:, 1], 1.0), sums[:, 1]

    means, weights = jax.lax.map(one, jnp.asarray(_some(data)))
    points = np.bincount(place)
    frames = (np.bincount(place, weights=x) / points for x in pairs)
    t1, t2 = (jnp.interp(x, np.arange(t.shape[0]), t) for x in frames)
    return CoarseData(t1, t2, means, weights)


def _some(data: TwoTimeData) -> np.ndarray:
    """Positions of the matrices that are looked at: some of many angles, from first to last."""
    count = data.phi.shape[0]
    return np.unique(np.linspace(0, count - 1, min(count, _MATRICES)).astype(int))


def _members(n: int, lags: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames of the points that are averaged, and the bin of each."""
    edges = (n - 1) * np.concatenate([_EARLY, np.arange(1, AGES) / AGES])
    apart = np.unique(np.round(np.geomspace(1, n - 1, lags)).astype(int))
    early = np.concatenate([np.arange(n - lag) for lag in apart])
    lag = np.repeat(apart, n - apart)
    bins = np.searchsorted(apart, lag) * (edges.size + 1)
    bins += np.searchsorted(edges, early, side="right")
    return early, early + lag, np.unique(bins, return_inverse=True)[1]


class CoarseProblem(eqx.Module):
    """A fit to coarse data; rates are integrated on a few frames `t`, no scaling is frozen."""

    model: AbstractTwoTimeModel
    points: CoarseData
    t: Float[Array, " time"]
    q: Float[Array, ""] | Float[Array, " angle"]
    phi: Float[Array, " angle"]
    scaling: Scaling

    def curves(self, params: Float[Array, " param"]) -> Points:
        """The model at the points."""
        at = self.points.t1, self.points.t2

        def one(q: Array, phi: Array) -> Array:
            return correlation_at(self.model, params, *at, t=self.t, q=q, phi=phi)

        # One wavevector for all is not mapped: decays are then computed once for all angles.
        return jax.vmap(one, (0 if self.q.ndim else None, 0))(self.q, self.phi)


def coarse_problem(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    mode: Individual,
    points: CoarseData,
) -> CoarseProblem:
    """The fit of a model to coarse data."""
    vary, fixed = np.asarray(space.scaling_varying), space.scaling_initial
    lower, upper = (jnp.where(vary, x, fixed) for x in (space.scaling_lower, space.scaling_upper))
    some, t, q = _some(data), jnp.asarray(data.t), jnp.asarray(data.q)
    rings = [data.ring[k] for k in some]
    mode = resolve_mode(mode, [sorted(set(rings)).index(ring) for ring in rings])
    phi = jnp.asarray(data.phi)[some]
    few = t[np.unique(np.linspace(0, t.shape[0] - 1, _GRID).astype(int))]
    scaling = mode.varying.scaling(phi, lower, upper)
    return CoarseProblem(model, points, few, q[some] if q.ndim else q, phi, scaling)


@compiled
def coarse_chi2(
    problem: CoarseProblem, params: Float[Array, "candidate param"]
) -> Float[Array, " candidate"]:
    """χ² of candidates on the coarse data, contrast and offset at their best."""
    c2, weight = problem.points.c2, problem.points.weight
    basis = jnp.stack([c2, jnp.ones_like(c2)])
    known = jnp.einsum("iap,ap,jap->aij", basis, weight, basis)

    def one(p: Array) -> Array:
        found = problem.curves(p)
        weighed = found * weight
        products = [jnp.sum(weighed * x, axis=1) for x in (c2, jnp.ones_like(c2), found)]
        column = jnp.stack(products, axis=1)
        moments = jnp.concatenate([known, column[:, None, :2]], axis=1)
        moments = jnp.concatenate([moments, column[:, :, None]], axis=2)
        solution = problem.scaling.solve(moments)
        ones = jnp.ones_like(solution.offset)
        combine = jnp.stack([ones, -solution.offset, -solution.contrast], axis=1)
        chi2 = jnp.einsum("ai,aij,aj->", combine, moments, combine)
        return jnp.where(jnp.isfinite(chi2), chi2, jnp.inf)

    return jax.vmap(one)(params)


def looking(problem: CoarseProblem, longest: float, *, central: bool) -> CoarseProblem:
    """The fit to lags up to a share of the record alone, or to ages about the middle alone."""
    points = problem.points
    span, middle = points.t2.max() - points.t1.min(), 0.5 * (points.t1 + points.t2)
    away = jnp.abs(middle - 0.5 * (points.t2.max() + points.t1.min()))
    if central:
        kept = np.flatnonzero(away <= 0.5 * span / AGES * (1 + 1e-9))
        points = jax.tree.map(lambda x: x[..., kept], points)
    is_short = points.t2 - points.t1 <= longest * span * (1 + 1e-9)
    points = dataclasses.replace(points, weight=points.weight * is_short)
    return dataclasses.replace(problem, points=points)


class _FromStart(eqx.Module):
    """A fit to coarse data from one start, in scaled free parameters."""

    problem: CoarseProblem
    start: Float[Array, " param"]
    scale: Float[Array, " free"]
    free: tuple[int, ...] = eqx.field(static=True)

    def params(self, y: Array) -> Array:
        return self.start.at[np.asarray(self.free)].set(y * self.scale)


def _evaluate(y: Array, fit: _FromStart) -> tuple[Array, Quadratic]:
    """Half of χ² on the coarse data and its local model."""
    c2, weight = fit.problem.points.c2, fit.problem.points.weight

    def curves(y: Array) -> Array:
        return fit.problem.curves(fit.params(y))

    c, along = jax.linearize(curves, y)
    slopes = jax.vmap(along)(jnp.eye(y.size, dtype=y.dtype))
    basis = jnp.concatenate([jnp.stack([c2, jnp.ones_like(c2), c]), slopes])
    grams = jnp.einsum("iap,ap,jap->aij", basis, weight, basis)
    found = reduce_gram(grams, fit.problem.scaling)
    variance = jnp.maximum(found.chi2, 1e-12 * jnp.sum(grams[:, 0, 0])) / jnp.sum(weight)
    return 0.5 * found.chi2, Quadratic(found.grad, found.hessian, variance, found.noise, None)


def coarse_fit(
    problem: CoarseProblem, space: ParameterSpace, free: tuple[int, ...], candidates: Candidates
) -> tuple[Candidates, Costs]:
    """Where some steps downhill inside the bounds lead candidates, and χ² there."""
    return in_chunks(partial(_coarse_fit, problem, space, free), candidates, _CHUNK)


def in_chunks(function: Callable[[Array], Any], rows: Candidates, size: int) -> Any:
    """A function of some rows at a time, of all: compiled for one shape."""
    padded = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % size, axis=0)])
    found = [function(jnp.asarray(some)) for some in padded.reshape(-1, size, rows.shape[1])]
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(rows)], *found)


@compiled
def _coarse_fit(
    problem: CoarseProblem, space: ParameterSpace, free: tuple[int, ...], candidates: Array
) -> tuple[Array, Array]:
    index = np.asarray(free)
    scale = jnp.asarray(space.scale)[index]
    lower, upper = (jnp.asarray(b)[index] / scale for b in (space.lower, space.upper))
    solver = BoxLevenbergMarquardt(lower=lower, upper=upper, tolerance=_TOLERANCE)

    def one(start: Array) -> tuple[Array, Array]:
        fit = _FromStart(problem, start, scale, free)
        y = start[index] / scale
        end = optx.minimise(_evaluate, solver, y, fit, has_aux=True, max_steps=_STEPS, throw=False)
        params = jnp.clip(fit.params(end.value), space.lower, space.upper)
        return params, 2 * _evaluate(end.value, fit)[0]

    return jax.vmap(one)(candidates)
