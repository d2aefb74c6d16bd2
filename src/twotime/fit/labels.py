"""Where the starts of a fit lead, with the labels of exchangeable components by convention."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twotime.fit.robust import End
from twotime.gram.problem import Problem
from twotime.models.base import Components, Params
from twotime.models.rates import Times

Starts = Float[Array, "start param"]


def ends_of_starts(problem: Problem, fit: Callable[[Array], End], starts: Starts) -> End:
    """Where fits from some starts end, and for laws with labels where one more ends.

    This one starts at the best end with its components exchanged, if their labels are not the
    usual ones; its cost is infinite otherwise. So a single start obeys the convention as many do:
    `choose_basin` compares the two.

    Args:
        problem: The fit.
        fit: Returns the end of a fit from a start.
        starts: Parameters at the starts.
    """
    if _components(problem, problem.start) is None:
        return jax.lax.map(fit, starts)

    def step(best: tuple[Array, Params], start: tuple[Params, Array]) -> tuple[tuple, End]:
        cost, params = best
        end = fit(jnp.where(start[1], _exchanged(problem, params), start[0]))
        is_better = jnp.isfinite(end.cost) & (end.cost < cost) & ~start[1]
        found = jnp.where(is_better, problem.params(end.y), params)
        return (jnp.where(is_better, end.cost, cost), found), end

    more = jnp.concatenate([starts, starts[:1]]), jnp.arange(len(starts) + 1) == len(starts)
    (_, best), ends = jax.lax.scan(step, (jnp.asarray(jnp.inf), starts[0]), more)
    last = jnp.where(_is_usual(problem, best), jnp.inf, ends.cost[-1])
    return eqx.tree_at(lambda e: e.cost, ends, ends.cost.at[-1].set(last))


def quartiles(t: Times) -> Float[Array, "3"]:
    """Times at which components are compared [s]."""
    return jnp.quantile(jnp.asarray(t), jnp.asarray([0.25, 0.5, 0.75]))


def _components(problem: Problem, params: Params) -> Components | None:
    return problem.model.components(params, quartiles(problem.data.t))


def _is_usual(problem: Problem, params: Params) -> Bool[Array, ""]:
    found = _components(problem, params)
    assert found is not None
    return problem.model.is_canonical(found)


def _exchanged(problem: Problem, params: Params) -> Params:
    """Parameters with the components exchanged; those with the usual labels as they are."""
    other = problem.model.exchanged(params, jnp.asarray(problem.data.t))
    is_free = np.asarray(problem.varying) & ~_is_usual(problem, params)
    return jnp.where(is_free, other, params)
