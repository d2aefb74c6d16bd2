"""A few hundred numbers that stand for the data while starts are searched."""

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

AGES = 9
LAGS, _GRID = 32, 128
_EARLY = (0.01, 0.025, 0.05)  # power laws and fractions change most at the beginning


class Groups(eqx.Module):
    """Correlation averaged over pixels of equal lag and similar age.

    Attributes:
        t1: Earlier time of the group's mean pixel [s].
        t2: Its later time [s].
        c2: Mean correlation, 0 where no pixel is usable.
        weight: Number of usable pixels.
    """

    t1: Float[Array, " pair"]
    t2: Float[Array, " pair"]
    c2: Float[Array, "angle pair"]
    weight: Float[Array, "angle pair"]


@compiled
def group(data: TwoTimeData, lags: int = LAGS) -> Groups:
    """Average the usable pixels with t1 < t2 over groups of equal lag and similar age.

    Args:
        data: The data.
        lags: How many lags, spaced evenly in their logarithm.
    """
    c2, t = jnp.asarray(data.c2), jnp.asarray(data.t)
    used = data.usable(slice(None))
    n = t.shape[0]
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
    return Groups(t1, t2, jnp.concatenate(mean, axis=1), jnp.concatenate(weight, axis=1))


def free_scaling(data: TwoTimeData, space: ParameterSpace, mode: Individual) -> Scaling:
    """The scaling of a fit, with nothing frozen."""
    vary = np.asarray(space.scaling_varying)
    lower = jnp.where(vary, space.scaling_lower, space.scaling_initial)
    upper = jnp.where(vary, space.scaling_upper, space.scaling_initial)
    return mode.varying.scaling(jnp.asarray(data.phi), lower, upper)


def curves(
    model: AbstractTwoTimeModel, data: TwoTimeData, groups: Groups, params: Float[Array, " param"]
) -> Float[Array, "angle pair"]:
    """The model at the groups, its rates integrated on a grid of few frames."""
    n = data.t.shape[0]
    grid = jnp.asarray(data.t)[np.unique(np.linspace(0, n - 1, _GRID).astype(int))]

    def one(phi: Array) -> Array:
        return correlation_at(model, params, groups.t1, groups.t2, t=grid, q=data.q, phi=phi)

    return jax.vmap(one)(jnp.asarray(data.phi))


@compiled
def groups_chi2(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    groups: Groups,
    scaling: Scaling,
    weight: Float[Array, "angle pair"],
    params: Float[Array, "candidate param"],
) -> Float[Array, " candidate"]:
    """χ² of candidates on the groups, contrast and offset at their best."""

    def one(p: Array) -> Array:
        value = curves(model, data, groups, p)
        basis = jnp.stack([groups.c2, jnp.ones_like(groups.c2), value], axis=1)
        moments = jnp.einsum("aip,ap,ajp->aij", basis, weight, basis)
        solution = scaling.solve(moments)
        ones = jnp.ones_like(solution.offset)
        combine = jnp.stack([ones, -solution.offset, -solution.contrast], axis=1)
        found = jnp.einsum("ai,aij,aj->", combine, moments, combine)
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    return jax.vmap(one)(params)


_STEPS, _CHUNK, _TOLERANCE = 12, 4, 0.1


class _Coarse(eqx.Module):
    """A fit to the groups, set up."""

    model: AbstractTwoTimeModel
    data: TwoTimeData
    groups: Groups
    scaling: Scaling
    start: Float[Array, " param"]
    scale: Float[Array, " free"]
    free: tuple[int, ...] = eqx.field(static=True)

    def params(self, y: Array) -> Array:
        return self.start.at[np.asarray(self.free)].set(y * self.scale)


def _evaluate(y: Array, coarse: _Coarse) -> tuple[Array, Quadratic]:
    """Half of χ² on the groups and its local model."""

    def value(y: Array) -> tuple[Array, Array]:
        c = curves(coarse.model, coarse.data, coarse.groups, coarse.params(y))
        return c, c

    slopes, c = jax.jacfwd(value, has_aux=True)(y)
    c2, weight = coarse.groups.c2, coarse.groups.weight
    basis = jnp.concatenate([jnp.stack([c2, jnp.ones_like(c2), c], axis=-1), slopes], axis=-1)
    grams = jnp.einsum("api,ap,apj->aij", basis, weight, basis)
    found = reduce_gram(grams, coarse.scaling)
    variance = jnp.maximum(found.chi2, 1e-12 * jnp.sum(grams[:, 0, 0])) / jnp.sum(weight)
    return 0.5 * found.chi2, Quadratic(found.grad, found.hessian, variance, found.noise, None)


def refine(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    groups: Groups,
    scaling: Scaling,
    free: tuple[int, ...],
    candidates: Float[np.ndarray, "candidate param"],
) -> tuple[Float[np.ndarray, "candidate param"], Float[np.ndarray, " candidate"]]:
    """Lead candidates some steps downhill on the groups, inside the bounds.

    Args:
        model: The model.
        data: The data.
        space: Bounds and widths.
        groups: The groups.
        scaling: What is free of contrast and offset.
        free: Which parameters may change.
        candidates: Where to begin.

    Returns:
        Where they end, and χ² on the groups there.
    """
    fill = -len(candidates) % _CHUNK
    padded = np.concatenate([candidates, np.repeat(candidates[-1:], fill, axis=0)])
    pieces = padded.reshape(-1, _CHUNK, padded.shape[1])
    found = [_refine(model, data, space, groups, scaling, free, jnp.asarray(p)) for p in pieces]
    ends, chi2 = (np.concatenate(parts)[: len(candidates)] for parts in zip(*found, strict=True))
    return ends, chi2


@compiled
def _refine(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    groups: Groups,
    scaling: Scaling,
    free: tuple[int, ...],
    candidates: Float[Array, "candidate param"],
) -> tuple[Float[Array, "candidate param"], Float[Array, " candidate"]]:
    index = np.asarray(free)
    scale = jnp.asarray(space.scale)[index]
    lower, upper = (jnp.asarray(b)[index] / scale for b in (space.lower, space.upper))
    solver = BoxLevenbergMarquardt(lower=lower, upper=upper, tolerance=_TOLERANCE)

    def one(start: Array) -> tuple[Array, Array]:
        coarse = _Coarse(model, data, groups, scaling, start, scale, free)
        found = optx.minimise(
            _evaluate, solver, start[index] / scale, coarse, has_aux=True, max_steps=_STEPS,
            throw=False,
        )  # fmt: skip
        end = jnp.clip(coarse.params(found.value), space.lower, space.upper)
        return end, 2 * _evaluate(found.value, coarse)[0]

    return jax.lax.map(one, candidates)
