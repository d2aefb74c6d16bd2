"""Fits in rounds: as if angles shared contrast and offset and rings counted alike, then as found.

The second round is left out where nothing is to be changed; residuals are judged in the last one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from twotime.covariance.agreement import agree
from twotime.fit.result import IsFinal, Known, Size, Starts, Weight
from twotime.gram.problem import Problem
from twotime.results.nlsq import NLSQResult


class _Round(NamedTuple):
    """A fit with contrast and offset shared or not, rings weighed or not, and what comes next.

    Attributes:
        result: The result of this round.
        size: Roots of the curvatures there.
        is_shared: Whether angles may share contrast and offset in the next round; None where
            nothing is decided.
        weight: Weights of the matrices in the next round; None where they are not weighed.
        rounds: Number of rounds.
    """

    result: NLSQResult
    size: Size
    is_shared: Bool[Array, ""] | None
    weight: Weight | None
    rounds: Int[Array, ""]


def of_round(problem: Problem, is_shared: Array | None, weight: Weight | None) -> Problem:
    """The fit with contrast and offset shared or not, and matrices weighed."""
    if is_shared is not None:
        scaling = problem.scaling.shared(jnp.asarray(is_shared))
        problem = eqx.tree_at(lambda p: p.scaling, problem, scaling)
    return problem if weight is None else problem.with_data(weight=weight)


def always(_: Array | None) -> None:
    """Of fits of one round, whose residuals are judged whatever the angles do."""


def _is_to_change(is_shared: Bool[Array, ""] | None, is_weighed: bool) -> Bool[Array, ""]:
    """Whether a first round of fits is followed by another."""
    return jnp.asarray(is_weighed) if is_shared is None else is_weighed | ~is_shared


def in_rounds(
    search: Callable[[Problem, Starts, IsFinal], tuple[NLSQResult, Known]],
    problem: Problem,
    starts: Starts,
    is_weighed: bool,
) -> tuple[NLSQResult, Size]:
    """Fit as if angles share contrast and offset and rings count alike; then as the data have it.

    The second round is left out where nothing is to be changed.
    """
    is_decided = problem.scaling.mode.is_decided

    def one_round(last: _Round) -> _Round:
        before: Any = last.result

        def is_shared(own: Array | None) -> Array | None:
            """Whether angles may share contrast and offset in the next round."""
            return None if own is None else jnp.asarray(last.is_shared) & agree(own)

        def is_final(own: Array | None) -> Array:
            return (last.rounds > 0) | ~_is_to_change(is_shared(own), is_weighed)

        problem_now = of_round(problem, last.is_shared, last.weight)
        found, known = search(problem_now, before.ends[:count], is_final)
        total = before.n_evaluations + found.n_evaluations
        found, next_shared = dataclasses.replace(found, n_evaluations=total), last.is_shared
        if is_decided:
            own = jnp.where(last.rounds == 0, jnp.asarray(found.own_scaling), before.own_scaling)
            found = dataclasses.replace(found, is_shared=next_shared, own_scaling=own)
            next_shared = is_shared(own)
        weight = known.weight if is_weighed else None
        return _Round(found, known.size, next_shared, weight, last.rounds + 1)

    # The first round, which begins at the starts, is one of the loop: compiled once for both.
    count, yes = starts.shape[0], jnp.asarray(True) if is_decided else None
    alike = jnp.ones(problem.data.phi.shape) if is_weighed else None
    shapes = eqx.filter_eval_shape(search, of_round(problem, yes, alike), starts, always)
    empty, known = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    empty = dataclasses.replace(empty, ends=empty.ends.at[:count].set(starts), is_shared=yes)
    first = _Round(empty, known.size, yes, alike, jnp.asarray(0))

    def is_open(x: _Round) -> Array:
        return (x.rounds == 0) | ((x.rounds == 1) & _is_to_change(x.is_shared, is_weighed))

    last = jax.lax.while_loop(is_open, one_round, first)
    return last.result, last.size
