"""A fit set up: chi-squared with contrast and offset at their best, and its local model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.gram.choose import Prepared, evaluate_gram, prepare
from twotime.gram.pairs import DATA, FIRST, MODEL, ONE
from twotime.gram.tiled import TILE
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.scaling import (
    Individual,
    Scaling,
    ScalingSolution,
    quantile_scaling,
    resolve_mode,
)
from twotime.solver import Quadratic


class Problem(eqx.Module):
    """One fit, set up: what every evaluation needs."""

    model: AbstractTwoTimeModel
    data: TwoTimeData
    start: Float[Array, " param"]
    scale: Float[Array, " free"]
    shift: Float[Array, ""]
    n_pixels: Int[Array, ""]
    scaling: Scaling
    prepared: Prepared
    varying: tuple[bool, ...] = eqx.field(static=True)
    evaluator: str = eqx.field(static=True)
    tile: int = eqx.field(static=True, default=TILE)
    mesh: Mesh | None = eqx.field(static=True, default=None)

    def params(self, y: Float[Array, " free"]) -> Float[Array, " param"]:
        """All parameters from the scaled free ones."""
        return self.start.at[np.flatnonzero(self.varying)].set(y * self.scale)


class Reduced(eqx.Module):
    """Chi-squared at given parameters with contrast and offset at their best.

    Attributes:
        chi2: Weighted sum of squared residuals.
        grad: Gradient of chi2/2 by the free parameters.
        hessian: Gauss-Newton matrix with the free contrasts and offsets projected out.
        noise: Rounding error of chi2/2.
        scaling: The contrasts and offsets (the data's shift taken out).
    """

    chi2: Float[Array, ""]
    grad: Float[Array, " free"]
    hessian: Float[Array, "free free"]
    noise: Float[Array, ""]
    scaling: ScalingSolution


def reduce_gram(grams: Float[Array, "angle basis basis"], scaling: Scaling) -> Reduced:
    """Project contrast and offset out of the Gram matrices and sum the angles.

    Args:
        grams: Gram matrix of each angle, see `gram`.
        scaling: What is free; bounds refer to the shifted data.

    Returns:
        Chi-squared, its gradient and Gauss-Newton matrix in the free parameters.
    """
    solution = scaling.solve(grams[:, :FIRST, :FIRST])
    c, o = solution.contrast, solution.offset
    combine = jnp.stack([jnp.ones_like(c), -o, -c], axis=1)
    moments = grams[:, :FIRST, :FIRST]
    chi2 = jnp.einsum("ai,aij,aj->", combine, moments, combine)
    grad = -jnp.einsum("a,ai,aip->p", c, combine, grams[:, :FIRST, FIRST:])
    hessian = jnp.einsum("a,apq->pq", c**2, grams[:, FIRST:, FIRST:])
    cross = _cross(grams, scaling, c)
    normal = _scaling_normal(grams, scaling)
    free = solution.free.T.reshape(-1)
    kept = free[:, None] & free[None, :]
    normal = jnp.where(kept, normal, jnp.eye(free.shape[0], dtype=normal.dtype))
    cross = jnp.where(free[:, None], cross, 0.0)
    size = jnp.sqrt(jnp.maximum(jnp.diag(normal), jnp.finfo(normal.dtype).tiny))
    unit = normal / (size[:, None] * size[None, :]) + 1e-14 * jnp.eye(free.shape[0])
    cross = cross / size[:, None]
    hessian = hessian - cross.T @ jnp.linalg.solve(unit, cross)
    noise = 4 * jnp.finfo(c.dtype).eps * jnp.sum(jnp.abs(moments[:, DATA, DATA]))
    return Reduced(jnp.maximum(chi2, 0.0), grad, hessian, noise, solution)


def _cross(grams: Array, scaling: Scaling, contrast: Array) -> Array:
    """Products of the residual's derivatives by (contrasts, offsets) and by the parameters."""
    rows = [
        jnp.einsum("ak,a,ap->kp", scaling.basis, contrast, grams[:, i, FIRST:])
        for i in (MODEL, ONE)
    ]
    return jnp.concatenate(rows)


def _scaling_normal(grams: Array, scaling: Scaling) -> Array:
    b = scaling.basis
    mm, m1, n = (
        jnp.einsum("ak,a,am->km", b, grams[:, i, j], b)
        for i, j in ((MODEL, MODEL), (MODEL, ONE), (ONE, ONE))
    )
    return jnp.block([[mm, m1], [m1, n]])


def evaluate(y: Array, problem: Problem) -> tuple[Array, Quadratic]:
    """Half of chi2 and its local model in scaled parameters: what the solver minimises."""
    grams = evaluate_gram(
        problem.evaluator,
        problem.model,
        problem.data,
        problem.params(y),
        problem.varying,
        problem.shift,
        problem.tile,
        problem.mesh,
        prepared=problem.prepared,
    )
    reduced = reduce_gram(grams, problem.scaling)
    s = problem.scale
    total = jnp.sum(jnp.abs(grams[:, DATA, DATA]))
    variance = jnp.maximum(reduced.chi2, 1e-18 * total) / problem.n_pixels
    local = Quadratic(
        grad=reduced.grad * s,
        hessian=reduced.hessian * s[:, None] * s[None, :],
        variance=variance,
        noise=reduced.noise,
        aux=(grams, reduced),
    )
    return 0.5 * reduced.chi2, local


def make_problem(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    mode: str | Individual,
    evaluator: str,
    tile: int = TILE,
    mesh: Mesh | None = None,
) -> Problem:
    """Set up a fit, with `per_angle_mode` and `evaluator` resolved."""

    def of_angle(k: Array) -> tuple[Array, Array]:
        used = data.usable(k)
        c2 = jnp.where(used, jnp.asarray(data.c2)[k], 0.0)
        return jnp.sum(c2, dtype=float), jnp.sum(used)

    # One angle after the other: compilers would hold copies of all data at once.
    totals, counts = jax.lax.map(of_angle, jnp.arange(data.phi.shape[0]))
    n_pixels = jnp.sum(counts)
    shift = jnp.sum(totals) / n_pixels
    varying = tuple(space.varying)
    return Problem(
        model=model,
        data=data,
        start=jnp.asarray(space.initial),
        scale=jnp.asarray(space.scale)[np.flatnonzero(varying)],
        shift=shift,
        n_pixels=n_pixels,
        scaling=_make_scaling(data, space, mode, shift),
        prepared=prepare(evaluator, data, shift, tile),
        varying=varying,
        evaluator=evaluator,
        tile=tile,
        mesh=mesh,
    )


def _make_scaling(
    data: TwoTimeData, space: ParameterSpace, mode: str | Individual, shift: Float[Array, ""]
) -> Scaling:
    """The scaling of data less their shift."""
    vary = jnp.asarray(space.scaling_varying)
    moved = jnp.stack([jnp.zeros_like(shift), shift])
    lower = jnp.where(vary, space.scaling_lower, space.scaling_initial) - moved
    upper = jnp.where(vary, space.scaling_upper, space.scaling_initial) - moved
    mode = resolve_mode(mode, data.phi.shape[0])
    return mode.scaling(
        jnp.asarray(data.phi),
        lower,
        upper,
        lambda: quantile_scaling(data.c2, data.usable(slice(None))) - moved,
    )
