"""From one start to where it leads."""

import equinox as eqx
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, Int

from twotime.gram.problem import Problem, Reduced, evaluate
from twotime.solver import RESULTS, BoxLevenbergMarquardt, Optimality, outcome


class End(eqx.Module):
    """Where a start led to.

    Attributes:
        y: Scaled free parameters.
        grams: Gram matrices there.
        reduced: Their reduction.
        cost: What was minimised, in units of chi-squared.
        result: How the solver ended.
        optimality: Its judgement of the point.
        n_steps: Evaluations.
    """

    y: Float[Array, "*start free"]
    grams: Float[Array, "*start angle basis basis"]
    reduced: Reduced
    cost: Float[Array, "*start"]
    result: RESULTS
    optimality: Optimality
    n_steps: Int[Array, "*start"]


def descend(problem: Problem, solver: BoxLevenbergMarquardt, y: Float[Array, " free"]) -> End:
    """Minimise chi-squared from one start.

    Args:
        problem: The fit.
        solver: The solver.
        y: Scaled free parameters at the start.
    """
    solution = optx.minimise(
        evaluate, solver, y, problem, has_aux=True, max_steps=None, throw=False
    )
    grams, reduced = solution.aux.aux
    return End(
        y=solution.value,
        grams=grams,
        reduced=reduced,
        cost=reduced.chi2,
        result=outcome(solution),
        optimality=solution.stats["optimality"],
        n_steps=jnp.asarray(solution.stats["num_steps"]),
    )
