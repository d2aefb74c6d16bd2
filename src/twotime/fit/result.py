"""Which of several ends is the result, and which others are the same optimum."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from twotime.config.parameter_space import ParameterSpace
from twotime.covariance import sandwich as uncertainty
from twotime.covariance.sandwich import SPECKLE, speckle_covariance
from twotime.fit.implicit import Answer, Given, differentiable, refuse
from twotime.fit.objective import End
from twotime.fit.robust import Robust, pseudo_problem, weigh
from twotime.gram.pairs import DATA, ONE
from twotime.gram.problem import Problem, Reduced, evaluate
from twotime.models.scaling import Scaling, ScalingSolution
from twotime.results.nlsq import NLSQResult
from twotime.solver import RESULTS

_EQUAL = 1e-6


def choose_end(
    problem: Problem, ends: End, cost: Float[Array, " start"]
) -> tuple[Int[Array, ""], Bool[Array, " start"], Bool[Array, " start"] | None]:
    """The end with the smallest cost, labels of components by convention.

    Where an end with the components exchanged fits as well (its cost is larger by less than the
    variance of one pixel), the data do not decide on the labels: the one whose reference is the
    slower component is taken.

    Args:
        problem: The fit.
        ends: Where the starts led.
        cost: What was minimised there, infinite where it is not finite.

    Returns:
        Place of the result, which ends are the same optimum, and which have its components
        exchanged (None for models without such labels).
    """
    best = jnp.argmin(cost)
    t = jnp.quantile(jnp.asarray(problem.data.t), jnp.asarray([0.25, 0.5, 0.75]))
    found = jax.vmap(lambda y: problem.model.components(problem.params(y), t))(ends.y)
    if found is None:
        return best, cost <= cost[best] * (1 + _EQUAL), None
    noise = cost[best] / problem.n_pixels if problem.data.sigma is None else 1.0
    as_good = (cost <= cost[best] + noise) & (ends.result == RESULTS.successful)

    def exchange_of(k: Array) -> Array:
        return jax.vmap(problem.model.is_exchanged, (0, None))(found, found[k])

    usual = as_good & exchange_of(best) & jax.vmap(problem.model.is_canonical)(found)
    other = jnp.argmin(jnp.where(usual, cost, jnp.inf))
    best = jnp.where(~problem.model.is_canonical(found[best]) & jnp.any(usual), other, best)
    exchanged = exchange_of(best)
    same = (jnp.abs(cost - cost[best]) <= _EQUAL * cost[best]) | (as_good & exchanged)
    return best, same, exchanged


def _scaling_at_bound(scaling: Scaling, solution: ScalingSolution) -> Bool[Array, "angle 2"]:
    values = jnp.stack([solution.contrast, solution.offset], axis=1)
    lower, upper = scaling.lower[:1], scaling.upper[:1]
    near = jnp.minimum(values - lower, upper - values) <= 1e-6 * (upper - lower)
    return near & (lower < upper)


def _total(grams: Float[Array, "angle basis basis"]) -> Float[Array, ""]:
    """Sum of squares of the data about each angle's mean."""
    mean = grams[:, DATA, ONE] / grams[:, ONE, ONE]
    return jnp.sum(grams[:, DATA, DATA] - mean * grams[:, DATA, ONE])


class _Found(eqx.Module):
    """What the covariance of a fit is computed from, and its sums of squares.

    Attributes:
        problem: The fit; to pseudo-data where the loss was robust.
        grams: Gram matrices at the optimum.
        reduced: Their reduction.
        variance: Variance of an independent pixel.
        chi2: Sum of squares of the data's residuals.
        total: Sum of squares of the data about the mean of each angle.
        noise: Noise level of each angle that a robust loss refers to.
    """

    problem: Problem
    grams: Float[Array, "angle basis basis"]
    reduced: Reduced
    variance: Float[Array, ""]
    chi2: Float[Array, ""]
    total: Float[Array, ""]
    noise: Float[Array, " angle"] | None


def _found(problem: Problem, end: End, dof: Array, loss: Robust | None) -> _Found:
    reduced = end.reduced
    if loss is None:
        one = jnp.ones(())
        variance = reduced.chi2 / dof if problem.data.sigma is None else one
        total = _total(end.grams)
        return _Found(problem, end.grams, reduced, variance, reduced.chi2, total, None)
    params = problem.params(end.y)
    weights = weigh(problem, params, reduced.scaling, loss)
    pseudo = pseudo_problem(problem, params, reduced.scaling, loss, weights)
    _, local = evaluate(end.y, pseudo)
    grams, again = local.aux
    variance = again.chi2 / dof
    return _Found(pseudo, grams, again, variance, weights.chi2, weights.total, weights.noise)


def make_result(
    problem: Problem,
    bounds: Given,
    space: ParameterSpace,
    starts: Float[Array, "start param"],
    ends: End,
    loss: Robust | None,
) -> NLSQResult:
    """The result of a fit from where its starts led.

    Args:
        problem: The fit.
        bounds: The same, to be differentiated by, with the bounds.
        space: The space.
        starts: Parameters at each start.
        ends: Where each led.
        loss: The robust loss, if there was one.
    """
    cost = jnp.where(jnp.isfinite(ends.cost), ends.cost, jnp.inf)
    best, same, exchanged = choose_end(problem, ends, cost)
    end = jax.tree.map(lambda x: x[best], ends)
    scaling, held = end.reduced.scaling, end.optimality.held
    dof = problem.n_pixels - jnp.sum(~held) - jnp.sum(scaling.free)
    found = _found(problem, end, dof, loss)
    values, vectors, scale = uncertainty.spectrum(found.reduced.hessian, held)
    inverse = uncertainty.inverse(values, vectors, scale, held)
    params = problem.params(end.y)
    at_optimum = found.problem, params, found.grams, found.reduced, inverse
    covariance, noise = speckle_covariance(*at_optimum)
    answer = Answer(params, scaling.contrast, scaling.offset + problem.shift, found.chi2)
    size = jnp.sqrt(jnp.abs(jnp.diag(end.reduced.hessian)))
    answer = differentiable(answer, size, held, bounds) if loss is None else refuse(answer)
    return NLSQResult(
        all_names=tuple(space.names),
        varying=problem.varying,
        units=tuple(space.units),
        model=type(problem.model).__name__,
        per_angle_mode=problem.scaling.mode.word,
        evaluator=problem.evaluator,
        uncertainty_kind=SPECKLE,
        values=answer.values,
        lower=jnp.asarray(space.lower),
        upper=jnp.asarray(space.upper),
        start=jnp.where(jnp.asarray(problem.varying), starts[best], problem.start),
        phi=jnp.asarray(problem.data.phi),
        contrast=answer.contrast,
        offset=answer.offset,
        scaling_at_bound=_scaling_at_bound(problem.scaling, scaling),
        chi2=answer.chi2,
        n_points=problem.n_pixels,
        dof=dof,
        total=found.total,
        covariance=covariance,
        covariance_iid=found.variance * inverse,
        held=held,
        eigenvalues=values,
        eigenvectors=vectors,
        result=end.result,
        gradient=end.optimality.gradient,
        step=end.optimality.step,
        n_evaluations=end.n_steps,
        starts=starts,
        ends=jax.vmap(problem.params)(ends.y),
        ends_chi2=cost,
        ends_result=ends.result,
        ends_same=same,
        ends_exchanged=exchanged,
        pixels=noise.pixels,
        photons=noise.photons,
        loss="linear" if loss is None else loss.kind,
        loss_scale=None if loss is None else loss.scale,
        noise_level=found.noise,
        cost=None if loss is None else end.cost,
    )
