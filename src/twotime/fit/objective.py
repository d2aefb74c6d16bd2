"""From one start to where it leads."""

import equinox as eqx
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, Int

from twotime.gram.problem import Problem, Reduced, evaluate
from twotime.solver import BoxLevenbergMarquardt, Optimality


class End(eqx.Module):
    """Where a start led to.

    Attributes:
        y: Scaled free parameters.
        grams: Gram matrices there.
        reduced: Their reduction.
        cost: What was minimised, in units of chi-squared.
        code: Why the solver stopped.
        optimality: Its judgement of the point.
        n_steps: Evaluations.
    """

    y: Float[Array, "*start free"]
    grams: Float[Array, "*start angle basis basis"]
    reduced: Reduced
    cost: Float[Array, "*start"]
    code: Int[Array, "*start"]
    optimality: Optimality
    n_steps: Int[Array, "*start"]


def descend(
    problem: Problem, solver: BoxLevenbergMarquardt, y: Float[Array, " free"], max_steps: int
) -> End:
    """Minimise chi-squared from one start.

    Args:
        problem: The fit.
        solver: The solver.
        y: Scaled free parameters at the start.
        max_steps: Largest number of evaluations.
    """
    solution = optx.minimise(
        evaluate, solver, y, problem, has_aux=True, max_steps=max_steps, throw=False
    )
    grams, reduced = solution.aux.aux
    stats = solution.stats
    return End(
        y=solution.value,
        grams=grams,
        reduced=reduced,
        cost=reduced.chi2,
        code=stats["code"],
        optimality=stats["optimality"],
        n_steps=jnp.asarray(stats["num_steps"]),
    )
