r"""Derivatives of a fit by what it was given, from the condition that it is an optimum.

At the optimum the gradient g(θ, inputs) of χ²/2, contrast and offset at their best, is zero, so
$d\theta = -H^{-1}\,(\partial g/\partial\mathrm{inputs})\,d\mathrm{inputs}$ with H the full second
derivative, not that of Gauss and Newton. Parameters on a bound move with it. Nothing is computed
unless a derivative is asked for.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twotime.gram.problem import Problem, evaluate

_NULL = 1e-12


class Answer(eqx.Module):
    """What of a fit has derivatives.

    Attributes:
        values: All parameters.
        contrast: Contrast of each angle.
        offset: Offset of each angle.
        chi2: Sum of squares.
    """

    values: Float[Array, " param"]
    contrast: Float[Array, " angle"]
    offset: Float[Array, " angle"]
    chi2: Float[Array, ""]


class Given(eqx.Module):
    """What a fit was given.

    Attributes:
        problem: The fit, set up.
        lower: Lower bounds of the free parameters.
        upper: Their upper bounds.
    """

    problem: Problem
    lower: Float[Array, " free"]
    upper: Float[Array, " free"]


def constant(tree: Any) -> Any:
    """The same values without derivatives."""
    return jax.tree.map(lambda x: jax.lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, tree)


@eqx.filter_custom_jvp
def differentiable(answer: Answer, held: Bool[Array, " free"], given: Given) -> Answer:
    """The answer of a fit, unchanged, with its derivatives by what the fit was given.

    Args:
        answer: The optimum.
        held: Free parameters on a bound.
        given: What the fit was given.

    Reference:
        Dini's implicit function theorem; Golub & Pereyra, Inverse Problems 19, R1 (2003).
    """
    del held, given
    return answer


@differentiable.def_jvp
def _(primals, tangents):
    answer, held, given = primals
    _, _, moved = tangents
    theta = answer.values[np.flatnonzero(given.problem.varying)]

    def of_theta(theta: Array) -> tuple[Array, Answer]:
        return _gradient_and_answer(theta, given.problem)

    hessian, slopes = jax.jacfwd(of_theta)(theta)
    push, direct = _along(
        lambda problem: _gradient_and_answer(theta, problem), given.problem, moved.problem
    )
    bounds = _along(lambda g: jnp.where(theta <= g.lower, g.lower, g.upper), given, moved)
    on_bound = jnp.where(held, bounds, 0.0)
    step = jnp.where(held, bounds, -_solve(hessian, held, push + hessian @ on_bound))
    return answer, jax.tree.map(lambda slope, rest: slope @ step + rest, slopes, direct)


def _gradient_and_answer(theta: Array, problem: Problem) -> tuple[Array, Answer]:
    _, local = evaluate(theta / problem.scale, problem)
    reduced = local.aux[1]
    return reduced.grad, Answer(
        values=problem.params(theta / problem.scale),
        contrast=reduced.scaling.contrast,
        offset=reduced.scaling.offset + problem.shift,
        chi2=reduced.chi2,
    )


@eqx.filter_custom_jvp
def refuse(answer: Answer, held: Bool[Array, " free"], given: Given) -> Answer:
    """The answer of a fit with a robust loss, unchanged, which must not be differentiated.

    Args:
        answer: The optimum.
        held: Free parameters on a bound.
        given: What the fit was given.
    """
    del held, given
    return answer


@refuse.def_jvp
def _(primals, tangents):
    raise ValueError(
        "A fit with a robust loss was differentiated by its inputs, which is known for squares "
        "alone; use loss='linear'."
    )


def _along(function: Callable[[Any], Any], at: Any, moved: Any) -> Any:
    """Derivative of a function along a direction, zero where nothing moves."""
    value, change = eqx.filter_jvp(function, (at,), (moved,))
    return jax.tree.map(
        lambda c, v: jnp.zeros_like(v) if c is None else c, change, value, is_leaf=_is_none
    )


def _is_none(x: Any) -> bool:
    return x is None


def _solve(
    hessian: Float[Array, "free free"], held: Bool[Array, " free"], right: Float[Array, " free"]
) -> Float[Array, " free"]:
    """Solve for the parameters that are not held; what is not determined stays."""
    out = held[:, None] | held[None, :]
    size = jnp.sqrt(jnp.abs(jnp.diag(hessian)))
    size = jnp.where((size > 0) & ~held, size, 1.0)
    unit = jnp.where(out, 0.0, hessian / (size[:, None] * size[None, :]))
    values, vectors = jnp.linalg.eigh(unit)
    determined = jnp.abs(values) > _NULL
    inverse = jnp.where(determined, 1.0 / jnp.where(determined, values, 1.0), 0.0)
    free = jnp.where(held, 0.0, right / size)
    return vectors @ (inverse * (vectors.T @ free)) / size
