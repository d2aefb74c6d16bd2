"""A fit set up: chi-squared with contrast and offset at their best, and its local model."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.data.scales import space_for
from twotime.gram import Evaluator, Prepared
from twotime.gram.pairs import DATA, FIRST, MODEL, ONE, data_sums
from twotime.gram.priors import Priors
from twotime.models import scaling as scalings
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.scaling import Individual, Scaling, ScalingSolution
from twotime.solver import Quadratic

ROUNDING = 4.0
"""Rounding error of a sum of squares, in units of the precision of one number."""


class Problem(eqx.Module):
    """One fit, set up: what every evaluation needs.

    Attributes:
        model: The model.
        data: The data.
        start: All parameters at the start.
        scale: Typical size of each free parameter.
        shift: Subtracted from the data, to keep digits.
        n_points: How many points of c2 count.
        scaling: How contrast and offset of the angles vary.
        evaluator: What computes the Gram matrices.
        prepared: What it made of the data alone.
        varying: Which parameters are free.
        mesh: Devices that share the work; None for one.
        priors: Priors that count as residuals; None for least squares alone.
    """

    model: AbstractTwoTimeModel
    data: TwoTimeData
    start: Float[Array, " param"]
    scale: Float[Array, " free"]
    shift: Float[Array, ""]
    n_points: Int[Array, ""]
    scaling: Scaling
    evaluator: Evaluator
    prepared: Prepared
    varying: tuple[bool, ...] = eqx.field(static=True)
    mesh: Mesh | None = eqx.field(static=True, default=None)
    priors: Priors | None = None

    def with_data(self, **changed: Any) -> "Problem":
        """The fit of the same points with some arrays of the data changed."""
        data = dataclasses.replace(self.data, **changed)
        prepared = self.evaluator.prepare(data, self.shift)
        return dataclasses.replace(self, data=data, prepared=prepared)

    def params(self, y: Float[Array, " free"]) -> Float[Array, " param"]:
        """All parameters from the scaled free ones."""
        return self.start.at[np.flatnonzero(self.varying)].set(y * self.scale)

    def informed(self, reduced: "Reduced", free: Float[Array, " free"]) -> "Reduced":
        """Gradient and curvature with those of the priors at some free parameters."""
        if self.priors is None:
            return reduced
        unit = self.unit(reduced.chi2)
        return dataclasses.replace(
            reduced,
            grad=reduced.grad + unit * self.priors.slope(free),
            hessian=reduced.hessian + unit * jnp.diag(self.priors.precision),
        )

    def unit(self, chi2: Float[Array, ""]) -> Float[Array, ""]:
        """Variance of a residual of the data: 1 with a sigma, else their mean square."""
        return chi2 / self.n_points if self.data.sigma is None else jnp.ones_like(chi2)

    def penalised(self, chi2: Float[Array, ""], free: Float[Array, " free"]) -> Float[Array, ""]:
        """What a fit minimises, in units of chi-squared: with the penalty of the priors."""
        if self.priors is None:
            return chi2
        penalty = self.priors.penalty(free)
        if self.data.sigma is None:
            return chi2 * jnp.exp(penalty / self.n_points)
        return chi2 + penalty


class Reduced(eqx.Module):
    """Chi-squared at given parameters with contrast and offset at their best.

    Attributes:
        chi2: Weighted sum of squared residuals.
        grad: Gradient of chi2/2 by the free parameters.
        hessian: Gauss-Newton matrix with the free contrasts and offsets projected out.
        noise: Rounding error of chi2/2.
        scaling: The contrasts and offsets (the data's shift taken out).
        projection: How the coefficients of contrast and of offset follow each parameter: the
            derivative of the fitted c2 of an angle is contrast ∂m/∂θ - m p[0] - p[1], with p the
            basis of the scaling times these.
    """

    chi2: Float[Array, ""]
    grad: Float[Array, " free"]
    hessian: Float[Array, "free free"]
    noise: Float[Array, ""]
    scaling: ScalingSolution
    projection: Float[Array, "2 coefficient free"]


def reduce_gram(grams: Float[Array, "angle basis basis"], scaling: Scaling) -> Reduced:
    """Project contrast and offset out of the Gram matrices of all angles, and sum these.

    The bounds of the scaling refer to the shifted data.
    """
    moments = grams[:, :FIRST, :FIRST]
    solution = scaling.solve(moments)
    c, o = solution.contrast, solution.offset
    combine = jnp.stack([jnp.ones_like(c), -o, -c], axis=1)
    chi2 = jnp.einsum("ai,aij,aj->", combine, moments, combine)
    grad = -jnp.einsum("a,ai,aip->p", c, combine, grams[:, :FIRST, FIRST:])
    hessian = jnp.einsum("a,apq->pq", c**2, grams[:, FIRST:, FIRST:])
    # Products of the residual's derivatives by all contrasts, then all offsets, and by parameters.
    linear, basis = np.array([MODEL, ONE]), scaling.basis
    normal = jnp.einsum("ak,aij,am->ikjm", basis, grams[:, linear[:, None], linear], basis)
    cross = jnp.einsum("ak,a,aip->ikp", basis, c, grams[:, linear, FIRST:])
    free = solution.free.T.reshape(-1)
    normal = normal.reshape(free.size, free.size)
    normal = jnp.where(free[:, None] & free, normal, jnp.eye(free.size, dtype=normal.dtype))
    cross = jnp.where(free[:, None], cross.reshape(free.size, -1), 0.0)
    size = jnp.sqrt(jnp.maximum(jnp.diag(normal), jnp.finfo(normal.dtype).tiny))
    unit = normal / (size[:, None] * size) + 1e-14 * jnp.eye(free.size)
    cross = cross / size[:, None]
    followed = jnp.linalg.solve(unit, cross)
    noise = ROUNDING * jnp.finfo(c.dtype).eps * jnp.sum(jnp.abs(moments[:, DATA, DATA]))
    return Reduced(
        chi2=jnp.maximum(chi2, 0.0),
        grad=grad,
        hessian=hessian - cross.T @ followed,
        noise=noise,
        scaling=solution,
        projection=(followed / size[:, None]).reshape(2, basis.shape[1], -1),
    )


def evaluate(y: Array, problem: Problem) -> tuple[Array, Quadratic]:
    """Half of chi2 and its local model in scaled parameters: what the solver minimises."""
    settings = problem.varying, problem.shift, problem.prepared
    at = problem.model, problem.data, problem.params(y), *settings
    grams = problem.evaluator.gram(*at, mesh=problem.mesh)
    reduced, s = reduce_gram(grams, problem.scaling), problem.scale
    reduced, least = problem.informed(reduced, y * s), problem.penalised(reduced.chi2, y * s)
    total = jnp.sum(jnp.abs(grams[:, DATA, DATA]))
    variance = jnp.maximum(reduced.chi2, 1e-18 * total) / problem.n_points
    grad, hessian = reduced.grad * s, reduced.hessian * s[:, None] * s
    local = Quadratic(grad, hessian, variance, reduced.noise, aux=(grams, reduced))
    return 0.5 * least, local


def make_problem(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    mode: str | Individual,
    evaluator: Evaluator,
    mesh: Mesh | None = None,
    *,
    with_priors: bool = False,
) -> Problem:
    """Set up a fit.

    Args:
        model: The model.
        data: The data, as `choose_evaluator` returned them.
        space: Start, bounds and which parameters vary.
        mode: `per_angle_mode`, or a mode of `twotime.models.scaling`.
        evaluator: What computes the Gram matrices.
        mesh: Devices that share the work.
        with_priors: Whether the priors of the space count as residuals.
    """
    space = space_for(model, data, space)

    def of_angle(k: Array) -> Array:
        return data_sums(plain, k, jnp.zeros(()))

    plain = dataclasses.replace(data, sigma=None, weight=None)
    counts, _, totals, _ = jax.lax.map(of_angle, jnp.arange(data.phi.shape[0])).T
    n_points = jnp.sum(counts).astype(int)
    shift = jnp.sum(totals) / n_points
    varying = tuple(space.varying)
    vary = jnp.asarray(space.scaling_varying)
    moved = jnp.stack([jnp.zeros_like(shift), shift])
    bounds = space.scaling_lower, space.scaling_upper
    lower, upper = (jnp.where(vary, x, space.scaling_initial) - moved for x in bounds)

    def frozen() -> Float[Array, "angle 2"]:
        return scalings.quantile_scaling(data.c2, data.usable(slice(None))) - moved

    phi, scale = jnp.asarray(data.phi), jnp.asarray(space.scale)[np.flatnonzero(varying)]
    scaling = scalings.resolve_mode(mode, data.ring).scaling(phi, lower, upper, frozen)
    numbers = jnp.asarray(space.initial), scale, shift, n_points
    made = scaling, evaluator, evaluator.prepare(data, shift)
    priors = Priors.of(space) if with_priors else None
    return Problem(model, data, *numbers, *made, varying, mesh, priors)
