"""The result of a fit: which of several ends it is, and what is known of it."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from twotime import covariance as uncertainty
from twotime.config.parameter_space import ParameterSpace
from twotime.covariance.agreement import Response, own_scaling, turned_scaling
from twotime.covariance.misfit import Judged, judged, noise_of_means
from twotime.data.dataset import TwoTimeData
from twotime.fit.implicit import Answer, Given, differentiable
from twotime.fit.labels import quartiles
from twotime.fit.robust import AbstractLoss, End, Equivalent
from twotime.gram.problem import Problem
from twotime.models.base import AbstractTwoTimeModel, Params
from twotime.models.correlation import correlation_at
from twotime.models.laws import law_name
from twotime.models.rates import Scalar, Times
from twotime.models.scaling import Scaling, ScalingSolution
from twotime.results.judgement import FALSE_ALARMS
from twotime.results.nlsq import NLSQResult, null_directions
from twotime.solver import RESULTS

Starts = Float[Array, "start param"]
Flags = Bool[Array, " start"]
Size = Float[Array, " free"]
Weight = Float[Array, " angle"]
IsFinal = Callable[[Float[Array, "angle 2"] | None], Bool[Array, ""] | None]
"""Whether a round of fits is the last, by how far contrast and offset of each angle would move."""

_EQUAL = 1e-6


class Known(NamedTuple):
    """What is known at the end of a fit and no part of its result.

    Attributes:
        size: Roots of the curvatures.
        weight: Weights that would suit the noise of the rings; None where there is one ring.
    """

    size: Size
    weight: Weight | None


class Basins(NamedTuple):
    """Which optimum each end of a fit belongs to.

    Attributes:
        best: Place of the result.
        same: Which ends are the same optimum.
        exchanged: Which have their components exchanged; None for models without such labels.
    """

    best: Int[Array, ""]
    same: Flags
    exchanged: Flags | None


def choose_basin(
    model: AbstractTwoTimeModel,
    t: Times,
    params: Starts,
    cost: Float[Array, " start"],
    converged: Flags,
    variance: Scalar,
) -> Basins:
    """The end with the smallest cost, labels of components by convention.

    Where an end with the components exchanged fits as well (its cost is larger by less than the
    variance of one point), the data do not decide on the labels: the one whose reference is the
    slower component is taken. The cost is infinite where it is not finite.
    """
    best = jnp.argmin(cost)
    found = jax.vmap(lambda p: model.components(p, quartiles(t)))(params)
    if found is None:
        return Basins(best, cost <= cost[best] * (1 + _EQUAL), None)
    as_good = (cost <= cost[best] + variance) & converged

    def exchange_of(k: Array) -> Array:
        return jax.vmap(model.is_exchanged, (0, None))(found, found[k])

    usual = as_good & exchange_of(best) & jax.vmap(model.is_canonical)(found)
    other = jnp.argmin(jnp.where(usual, cost, jnp.inf))
    best = jnp.where(~model.is_canonical(found[best]) & jnp.any(usual), other, best)
    exchanged = exchange_of(best)
    same = (jnp.abs(cost - cost[best]) <= _EQUAL * cost[best]) | (as_good & exchanged)
    return Basins(best, same, exchanged)


def make_result(
    problem: Problem,
    space: ParameterSpace,
    starts: Starts,
    ends: End,
    loss: AbstractLoss,
    is_judged: bool,
    kind: str,
    is_final: IsFinal,
) -> tuple[NLSQResult, Known]:
    """The result of a fit from its starts and their ends, and what else is known at the optimum.

    Without derivatives by the inputs of the fit: `with_derivatives` gives them. What `is_final`
    says of how far each angle would move its contrast and offset decides if residuals are judged.
    """
    cost = jnp.where(jnp.isfinite(ends.cost), ends.cost, jnp.inf)
    params = jax.vmap(problem.params)(ends.y)
    variance = jnp.min(cost) / problem.n_points if problem.data.sigma is None else 1.0
    converged = jnp.asarray(ends.result == RESULTS.successful)
    basins = choose_basin(problem.model, problem.data.t, params, cost, converged, variance)
    end = jax.tree.map(lambda x: x[basins.best], ends)
    scaling = end.reduced.scaling
    dof = problem.n_points - jnp.sum(~end.optimality.held) - jnp.sum(scaling.free)
    squares = loss.equivalent(problem, end, dof)
    count = starts.shape[0]  # one more end where labels were exchanged
    led = jnp.where(basins.best < count, basins.best, jnp.argmin(cost[:count]))
    errors, weight = _errors(end, squares, is_judged, kind, is_final)
    result = NLSQResult(
        all_names=tuple(space.names),
        varying=problem.varying,
        units=tuple(space.units),
        model=law_name(type(problem.model)),
        asked_mode=problem.scaling.mode.word,
        evaluator=problem.evaluator.word,
        values=problem.params(end.y),
        lower=jnp.asarray(space.lower),
        upper=jnp.asarray(space.upper),
        start=jnp.where(jnp.asarray(problem.varying), starts[led], problem.start),
        **_matrices(problem.data),
        contrast=scaling.contrast,
        offset=scaling.offset + problem.shift,
        scaling_at_bound=_scaling_at_bound(problem.scaling, scaling),
        chi2=squares.chi2,
        n_points=problem.n_points,
        dof=dof,
        total=squares.total,
        result=_ended(end.result, squares),
        n_evaluations=end.n_evaluations,
        starts=starts,
        **_ends(ends, params, cost, basins, count),
        loss=loss.word,
        loss_scale=loss.scale,
        noise_level=squares.noise,
        cost=None if loss.scale is None else end.cost,
        correlation_ends=_correlation_ends(problem, params[basins.best]),
        turn_per_frame=_turn_per_frame(problem, params[basins.best]),
        **vars(end.optimality),
        **errors,
    )
    return result, Known(jnp.sqrt(jnp.abs(jnp.diag(end.reduced.hessian))), weight)


def _ends(ends: End, params: Array, cost: Array, basins: Basins, count: int) -> dict[str, Any]:
    """Fields of the result about where the starts led, those of exchanged labels left out."""
    fields = {
        "ends": params,
        "ends_chi2": cost,
        "ends_result": ends.result,
        "ends_same": basins.same,
        "ends_exchanged": basins.exchanged,
    }
    return {name: jax.tree.map(lambda x: x[:count], x) for name, x in fields.items()}


def _matrices(data: TwoTimeData) -> dict[str, Any]:
    """Fields of the result about which matrices were fitted."""
    weight = None if data.weight is None else jnp.asarray(data.weight)
    return {
        "q": jnp.asarray(data.q),
        "phi": jnp.asarray(data.phi),
        "rings": data.rings,
        "weight": weight,
    }


def _correlation_ends(problem: Problem, params: Params) -> Float[Array, "angle 2"]:
    """Fitted correlation of neighbouring frames in the middle, and of the first and last frame."""
    t = jnp.asarray(problem.data.t)
    middle = t.shape[0] // 2
    pairs = t[np.array([middle - 1, 0])], t[np.array([middle, -1])]

    def of_matrix(k: Array) -> Array:
        return correlation_at(problem.model, params, *pairs, t=t, **problem.data.place(k))

    return jax.vmap(of_matrix)(jnp.arange(problem.data.phi.shape[0]))


def _turn_per_frame(problem: Problem, params: Params) -> Float[Array, " angle"]:
    """Largest phase by which a drift turns a component between neighbouring frames [rad]."""
    t, data = jnp.asarray(problem.data.t), problem.data

    def of_matrix(k: Array) -> Array:
        return jnp.asarray(problem.model.turn_per_frame(params, t=t, **data.place(k)))

    return jax.vmap(of_matrix)(jnp.arange(data.phi.shape[0]))


def _ended(result: RESULTS, squares: Equivalent) -> RESULTS:
    """How the fit ended: no success if a constant for each angle would be better."""
    is_worse = (result == RESULTS.successful) & (squares.chi2 > squares.total * (1 + _EQUAL))
    return RESULTS.where(is_worse, RESULTS.worse_than_constant, result)


def with_derivatives(result: NLSQResult, size: Size, given: Given) -> NLSQResult:
    """The result with derivatives of values, contrast, offset and chi2 by the inputs of the fit."""
    answer = Answer(result.values, result.contrast, result.offset, result.chi2)
    answer = differentiable(answer, size, result.held, given)
    return dataclasses.replace(result, **vars(answer))


def _scaling_at_bound(scaling: Scaling, solution: ScalingSolution) -> Bool[Array, "angle 2"]:
    """Whether contrast and offset of each angle lie on a bound."""
    values = jnp.stack([solution.contrast, solution.offset], axis=1)
    lower, upper = scaling.lower[:1], scaling.upper[:1]
    near = jnp.minimum(values - lower, upper - values) <= 1e-6 * (upper - lower)
    return near & (lower < upper)


def _scaling_deviation(
    at: uncertainty.LinearisedFit, variance: Array, of_priors: Array, null: Array
) -> Float[Array, "angle 2"]:
    """Standard deviations of contrast and offset; infinite where null directions move them."""
    moved = jnp.einsum("ac,scp->asp", at.problem.scaling.basis, at.reduced.projection)
    variance = variance + jnp.einsum("aip,pq,aiq->ai", moved, of_priors, moved)
    free = jnp.any((at.problem.scaling.basis[:, :, None] != 0) & at.reduced.scaling.free, axis=1)
    turned = turned_scaling(at)
    by_null = jnp.abs(moved @ null) * jnp.linalg.norm(turned, axis=1)[:, :, None]
    is_open = jnp.any(by_null > 1e-3, axis=2) | (turned[:, :1, 0] == 0)
    return jnp.where(free, jnp.where(is_open, jnp.inf, jnp.sqrt(jnp.maximum(variance, 0.0))), 0.0)


def _of_priors(squares: Equivalent, inverse: Float[Array, "free free"]) -> Array:
    """What the priors, as independent measurements, add to the covariance."""
    priors = squares.problem.priors
    if priors is None:
        return jnp.zeros_like(inverse)
    return squares.variance**2 * (inverse * priors.precision) @ inverse


def _where(needed: Array | None, judge: Callable[..., Judged], *at: Any) -> Judged:
    """A judgement where it is needed (None: always), else zeros."""
    if needed is None:
        return judge(*at)
    none = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), eqx.filter_eval_shape(judge, *at))
    return jax.lax.cond(needed, lambda _: judge(*at), lambda _: none, None)


def _errors(
    end: End, squares: Equivalent, is_judged: bool, kind: str, is_final: IsFinal
) -> tuple[dict[str, Any], Array | None]:
    """Fields of the result about its uncertainty, and weights that would suit the noise."""
    held = end.optimality.held
    values, vectors, scale = uncertainty.spectrum(squares.reduced.hessian, held)
    inverse = uncertainty.inverse(values, vectors, scale, held)
    params = squares.problem.params(end.y)
    parts = squares.problem, params, squares.grams, squares.reduced, inverse
    at = uncertainty.LinearisedFit(*parts)
    structure = from_residuals = None
    is_looked_at = is_judged or kind == "residuals"
    found = noise_of_means(at) if is_looked_at else uncertainty.speckle_covariance(at)
    response = Response.of(at)
    covariance, of_scaling = found.covariance, response.variance(found.scores)
    is_decided = squares.problem.scaling.mode.is_decided
    own = own_scaling(at, found, response.followed) if is_decided else None
    if is_looked_at:
        judgement = _where(is_final(own), judged, at, found, response)
        if kind != "speckle":
            from_residuals = (kind == "residuals") | (judgement.structure.chance < FALSE_ALARMS)
            covariance = jnp.where(from_residuals, judgement.covariance, covariance)
            of_scaling = jnp.where(from_residuals, judgement.of_scaling, of_scaling)
        structure = judgement.structure if is_judged else None
    of_priors = _of_priors(squares, inverse)
    null = jnp.where(null_directions(values, held), vectors, 0.0)
    weight = uncertainty.ring_weights(at, found) if len(set(at.problem.data.rings)) > 1 else None
    fields = {
        "with_priors": squares.problem.priors is not None,
        "asked_uncertainty": kind,
        "from_residuals": from_residuals,
        "covariance": covariance + of_priors,
        "scaling_deviation": _scaling_deviation(at, of_scaling, of_priors, null / scale[:, None]),
        "covariance_iid": squares.variance * inverse,
        "eigenvalues": values,
        "eigenvectors": vectors,
        "own_scaling": own,
        "structure": structure,
        **vars(found.noise),
    }
    return fields, weight
