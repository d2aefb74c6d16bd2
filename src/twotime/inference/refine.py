"""Candidates of a start, led downhill on the groups: a fit in a few hundred numbers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from twotime.config.parameter_space import ParameterSpace
from twotime.core.compilation import compiled
from twotime.core.models import AbstractTwoTimeModel
from twotime.core.scaling import Scaling
from twotime.data.dataset import TwoTimeData
from twotime.inference.groups import Groups, curves
from twotime.inference.problem import reduce_gram
from twotime.inference.solver import BoxLevenbergMarquardt, Quadratic

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
