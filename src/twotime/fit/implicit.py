r"""Derivatives of a fit by its inputs, from the condition that it is an optimum.

At the optimum the gradient g(θ, inputs) of χ²/2, contrast and offset at their best, is zero, so
$d\theta = -H^{-1}\,(\partial g/\partial\mathrm{inputs})\,d\mathrm{inputs}$ with H the full second
derivative, not that of Gauss and Newton. Parameters on a bound move with it. A robust loss weighs
the points by their residuals: contrasts and offsets, on which the weights depend, are then unknowns
like θ, and the conditions that they are the best at these weights come in. Nothing is computed
unless a derivative is asked for; the rule is of any order, forwards and backwards.

Neither `optimistix.ImplicitAdjoint` nor `optimistix.internal.implicit_jvp` would do: their linear
solver refuses to work on meshes with explicit axes, inside shard_map and pmap.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twotime.compilation import constant_by
from twotime.gram.problem import Problem, evaluate

Free = Float[Array, " free"]
Weights = Float[Array, " angle"] | None
Unknowns = Float[Array, " unknown"]

_NULL = 1e-12
_WEIGHED = (
    "A fit that finds how much each ring counts has no derivatives: give it the weights of a fit, "
    "`dataclasses.replace(data, weight=fit.weight)`, or sigma."
)


class Answer(eqx.Module):
    """The parts of a fit that have derivatives."""

    values: Float[Array, " param"]
    contrast: Float[Array, " angle"]
    offset: Float[Array, " angle"]
    chi2: Float[Array, ""]


class Given(eqx.Module):
    """The inputs of a fit.

    Attributes:
        problem: The fit, set up.
        lower: Lower bounds of its free parameters.
        upper: Upper bounds.
        loss: What it minimises, a loss of `twotime.fit.robust`.
    """

    problem: Problem
    lower: Free
    upper: Free
    loss: Any


def constant(tree: Any) -> Any:
    """The same values without derivatives; what is no array, as names that a law holds, stays."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


def weights_of_rings(weight: Weights, given: Given) -> Weights:
    """Weights that a fit found for its matrices, unchanged.

    Raises:
        TypeError: If the fit is differentiated: how its weights change is not known.
    """
    return constant_by(weight, given, _WEIGHED)


def differentiable(answer: Answer, size: Free, held: Bool[Array, " free"], given: Given) -> Answer:
    """The answer of a fit, unchanged, with its derivatives by the inputs of the fit.

    Args:
        answer: The optimum.
        size: Square roots of the curvatures there: units of the linear system.
        held: Free parameters on a bound.
        given: The inputs.

    Reference:
        Dini's implicit function theorem; Golub & Pereyra, Inverse Problems 19, R1 (2003).
    """
    theta, problem = answer.values[np.flatnonzero(given.problem.varying)], given.problem
    size = jnp.where((size > 0) & ~held, size, 1.0)
    found = [theta * size]
    if given.loss.scale is not None:
        found += [answer.contrast, answer.offset - problem.shift]
        size = jnp.concatenate([size, jnp.ones(2 * answer.contrast.size)])
    at = constant((jnp.concatenate(found), size, held))
    unknowns = _root(_condition, at[0], (*at[1:], given)) / at[1]
    return _with_slopes(constant(answer), unknowns, given)


@eqx.filter_custom_jvp
def _root(condition: Callable[..., Unknowns], root: Unknowns, inputs: Any) -> Unknowns:
    """A root of `condition(root, inputs)`, with its derivatives by the inputs."""
    return root


@_root.def_jvp
def _(primals, tangents):
    condition, root, inputs = primals
    root = _root(condition, root, inputs)  # with derivatives, of which this rule is made
    slope = jax.jacfwd(condition)(root, inputs)

    def of_inputs(inputs: Any) -> Unknowns:
        return condition(root, inputs)

    change = eqx.filter_jvp(of_inputs, (inputs,), tangents[2:])[1]
    # What the data do not determine stays.
    return root, -jnp.linalg.pinv(slope, rtol=_NULL) @ change


def _condition(scaled: Unknowns, inputs: Any) -> Unknowns:
    """Zero at the optimum: the gradient, or the distance from the bound on which it is."""
    size, held, given = inputs
    unknowns, n = scaled / size, given.lower.size
    theta, linear = unknowns[:n], unknowns[n:]
    grad, answer = _gradient_and_answer(unknowns, given)
    bound = jnp.where(theta <= given.lower, given.lower, given.upper)
    zero = jnp.where(held, theta - bound, grad)
    if linear.size:
        best = jnp.concatenate([answer.contrast, answer.offset - given.problem.shift])
        zero = jnp.concatenate([zero, best - linear])
    return zero / size


@eqx.filter_custom_jvp
def _with_slopes(answer: Answer, unknowns: Unknowns, given: Given) -> Answer:
    """The answer as known, with the derivatives of its computation from the unknowns."""
    del unknowns, given
    return answer


@_with_slopes.def_jvp
def _(primals, tangents):
    answer, unknowns, given = primals

    def computed(unknowns: Unknowns, given: Given) -> Answer:
        return _gradient_and_answer(unknowns, given)[1]

    change = eqx.filter_jvp(computed, (unknowns, given), tangents[1:])[1]
    return _with_slopes(answer, unknowns, given), change


def _gradient_and_answer(unknowns: Unknowns, given: Given) -> tuple[Free, Answer]:
    """Gradient of half the sum of squares, weighed as the loss does, and what a fit returns."""
    problem, n = given.problem, given.lower.size
    y, linear = unknowns[:n] / problem.scale, unknowns[n:].reshape(2, -1)
    params, chi2 = problem.params(y), None
    if linear.size:
        weights = given.loss.weigh(problem, params, *linear)
        problem, chi2 = problem.with_data(sigma=weights.sigma), weights.chi2
    reduced = evaluate(y, problem)[1].aux[1]
    scaling = reduced.scaling
    chi2 = reduced.chi2 if chi2 is None else chi2
    return reduced.grad, Answer(params, scaling.contrast, scaling.offset + problem.shift, chi2)
