"""Coarse graining of the data, and fits to it: a few hundred numbers while starts are searched."""

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
from twotime.models.scaling import Individual, Scaling
from twotime.solver import BoxLevenbergMarquardt, Quadratic

Candidates = Float[np.ndarray, "_ param"]
Costs = Float[np.ndarray, " _"]
Points = Float[Array, "angle bin"]

AGES = 9
_LAGS, _GRID = 32, 128
_EARLY = (0.01, 0.025, 0.05)  # power laws and fractions change most at the beginning
_STEPS, _CHUNK, _TOLERANCE = 12, 4, 0.1


class CoarseData(eqx.Module):
    """Correlation averaged over bins of equal lag and similar age.

    Attributes:
        t1, t2: Times of the mean point of a bin [s].
        c2: Mean correlation, 0 where no point is usable.
        weight: Number of usable points.
    """

    t1: Float[Array, " bin"]
    t2: Float[Array, " bin"]
    c2: Points
    weight: Points


@compiled
def coarse_grain(data: TwoTimeData, lags: int = _LAGS) -> CoarseData:
    """Average the usable points over bins of lags spaced evenly in their logarithm and ages."""
    c2, t = jnp.asarray(data.c2), jnp.asarray(data.t)
    used, n = data.usable(slice(None)), t.shape[0]
    edges = (n - 1) * np.concatenate([_EARLY, np.arange(1, AGES) / AGES])
    times, mean, weight = [], [], []
    for lag in np.unique(np.round(np.geomspace(1, n - 1, lags)).astype(int)):
        age = np.searchsorted(edges, np.arange(n - lag), side="right")
        ages, place = np.unique(age, return_inverse=True)
        member = place == np.arange(ages.size)[:, None]
        counted = jnp.diagonal(used, lag, 1, 2)
        values = jnp.where(counted, jnp.diagonal(c2, lag, 1, 2), 0.0)
        count = counted @ member.T.astype(float)
        mean.append(values @ member.T / jnp.maximum(count, 1.0))
        weight.append(count)
        first = member @ np.arange(n - lag) / member.sum(1)
        times.append(np.stack([first, first + lag]))
    t1, t2 = jnp.interp(np.concatenate(times, axis=1), np.arange(n), t)
    return CoarseData(t1, t2, jnp.concatenate(mean, axis=1), jnp.concatenate(weight, axis=1))


class CoarseProblem(eqx.Module):
    """A fit to coarse data; rates are integrated on a few frames `t`, no scaling is frozen."""

    model: AbstractTwoTimeModel
    points: CoarseData
    t: Float[Array, " time"]
    q: Float[Array, " angle"]
    phi: Float[Array, " angle"]
    scaling: Scaling

    def curves(self, params: Float[Array, " param"]) -> Points:
        """The model at the points."""
        at = self.points.t1, self.points.t2
        one = partial(correlation_at, self.model, params, *at, t=self.t)
        return jax.vmap(one)(q=self.q, phi=self.phi)


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
    phi, t = jnp.asarray(data.phi), jnp.asarray(data.t)
    few = t[np.unique(np.linspace(0, t.shape[0] - 1, _GRID).astype(int))]
    scaling = mode.varying.scaling(phi, lower, upper)
    q = jnp.broadcast_to(jnp.asarray(data.q), phi.shape)
    return CoarseProblem(model, points, few, q, phi, scaling)


@compiled
def coarse_chi2(
    problem: CoarseProblem, weight: Points, params: Float[Array, "candidate param"]
) -> Float[Array, " candidate"]:
    """χ² of candidates on the coarse data so weighted, contrast and offset at their best."""
    c2 = problem.points.c2

    def one(p: Array) -> Array:
        basis = jnp.stack([c2, jnp.ones_like(c2), problem.curves(p)], axis=1)
        moments = jnp.einsum("aip,ap,ajp->aij", basis, weight, basis)
        solution = problem.scaling.solve(moments)
        ones = jnp.ones_like(solution.offset)
        combine = jnp.stack([ones, -solution.offset, -solution.contrast], axis=1)
        found = jnp.einsum("ai,aij,aj->", combine, moments, combine)
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    return jax.vmap(one)(params)


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

    def value(y: Array) -> tuple[Array, Array]:
        c = fit.problem.curves(fit.params(y))
        return c, c

    slopes, c = jax.jacfwd(value, has_aux=True)(y)
    basis = jnp.concatenate([jnp.stack([c2, jnp.ones_like(c2), c], axis=-1), slopes], axis=-1)
    grams = jnp.einsum("api,ap,apj->aij", basis, weight, basis)
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

    return jax.lax.map(one, candidates)
