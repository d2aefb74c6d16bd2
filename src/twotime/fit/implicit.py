r"""Derivatives of a fit by its inputs, from the condition that it is an optimum.

At the optimum the gradient g(θ, inputs) of χ²/2, contrast and offset at their best, is zero, so
$d\theta = -H^{-1}\,(\partial g/\partial\mathrm{inputs})\,d\mathrm{inputs}$ with H the full second
derivative, not that of Gauss and Newton. Parameters on a bound move with it. Nothing is computed
unless a derivative is asked for.

The rule is Optimistix's, of any order, forwards and backwards. `optimistix.ImplicitAdjoint` on the
minimiser itself would not do: its condition has no bounds, its linear solver no answer where the
data leave a direction undetermined, and it treats contrast, offset and χ² as constants.
"""

import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float

from twotime.gram.problem import Problem, evaluate

Free = Float[Array, " free"]

_NULL = 1e-12


class Answer(eqx.Module):
    """The parts of a fit that have derivatives."""

    values: Float[Array, " param"]
    contrast: Float[Array, " angle"]
    offset: Float[Array, " angle"]
    chi2: Float[Array, ""]


class Given(eqx.Module):
    """The inputs of a fit: itself, set up, and the bounds of its free parameters."""

    problem: Problem
    lower: Free
    upper: Free


def constant(tree: Any) -> Any:
    """The same values without derivatives; what is no array, as names that a law holds, stays."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


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
    theta = answer.values[np.flatnonzero(given.problem.varying)]
    size = jnp.where((size > 0) & ~held, size, 1.0)
    inputs = jax.lax.stop_gradient(theta * size), jax.lax.stop_gradient(size), held, given
    pseudo_inverse = lx.SVD(rcond=_NULL)  # what the data do not determine stays
    # Plain functions, as Optimistix demands: where types are checked, they are wrapped.
    start, condition = inspect.unwrap(_start), inspect.unwrap(_condition)
    scaled, _ = optx.internal.implicit_jvp(start, condition, inputs, frozenset(), pseudo_inverse)
    return _with_slopes(jax.lax.stop_gradient(answer), scaled / size, given.problem)


def _start(inputs: Any) -> tuple[Array, None]:
    return inputs[0], None


def _condition(scaled: Array, _: None, inputs: Any) -> Array:
    """Zero at the optimum: the gradient, or the distance from the bound on which it is."""
    _, size, held, given = inputs
    theta = scaled / size
    grad = _gradient_and_answer(theta, given.problem)[0]
    bound = jnp.where(theta <= given.lower, given.lower, given.upper)
    return jnp.where(held, theta - bound, grad) / size


@eqx.filter_custom_jvp
def _with_slopes(answer: Answer, theta: Array, problem: Problem) -> Answer:
    """The answer as known, with the derivatives of its computation from the parameters."""
    del theta, problem
    return answer


@_with_slopes.def_jvp
def _(primals, tangents):
    answer, theta, problem = primals

    def computed(theta: Array, problem: Problem) -> Answer:
        return _gradient_and_answer(theta, problem)[1]

    change = eqx.filter_jvp(computed, (theta, problem), tangents[1:])[1]
    return _with_slopes(answer, theta, problem), change


def _gradient_and_answer(theta: Array, problem: Problem) -> tuple[Array, Answer]:
    _, local = evaluate(theta / problem.scale, problem)
    reduced = local.aux[1]
    scaling, values = reduced.scaling, problem.params(theta / problem.scale)
    offset = scaling.offset + problem.shift
    return reduced.grad, Answer(values, scaling.contrast, offset, reduced.chi2)


@eqx.filter_custom_jvp
def refuse(answer: Answer, given: Given) -> Answer:
    """The answer of a fit with a robust loss, unchanged, which must not be differentiated."""
    del given
    return answer


@refuse.def_jvp
def _(primals, tangents):
    raise ValueError(
        "A fit with a robust loss was differentiated by its inputs, which is known for squares "
        "alone; use loss='linear'."
    )
