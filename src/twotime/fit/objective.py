"""What a fit minimises, and the way down from one start."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float, Int

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.gram.problem import Problem, Reduced, evaluate
from twotime.models.base import AbstractTwoTimeModel
from twotime.solver import RESULTS, BoxLevenbergMarquardt, Optimality, outcome


def check_inputs(model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace) -> None:
    """Refuse what a fit or a sampler cannot use; values are checked only where they are known."""
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError(
            "Fitting needs float64, which JAX has switched off; call "
            'jax.config.update("jax_enable_x64", True) first, or set JAX_ENABLE_X64=1.'
        )
    if tuple(space.names) != tuple(model.names):
        raise ValueError(
            f"The space holds {', '.join(space.names)}; {type(model).__name__} needs "
            f"{', '.join(model.names)} in this order; build it from the same analysis_mode."
        )
    if not any(space.varying):
        raise ValueError(
            "Every parameter of the space is fixed; a fit needs at least one with vary: true."
        )
    _check_values(data, space)


def _check_values(data: TwoTimeData, space: ParameterSpace) -> None:
    leaves = jax.tree.leaves((data, space))
    if any(isinstance(x, jax.core.Tracer) for x in leaves):
        return
    t = np.asarray(data.t)
    if t.size < 2 or not np.all(np.diff(t) > 0) or not np.isfinite(t).all() or t[0] < 0:
        raise ValueError(
            f"t must be at least two finite, increasing times from 0 on [s]; got {t[:3]}…; "
            "check dt and t0."
        )
    varying = np.asarray(space.varying)
    x, low, high = (np.asarray(a) for a in (space.initial, space.lower, space.upper))
    for i in np.flatnonzero(varying & ~((low <= x) & (x <= high))):
        raise ValueError(
            f"Parameter {space.names[i]!r} starts at {x[i]:g}, outside its bounds "
            f"[{low[i]:g}, {high[i]:g}] {space.units[i]}; move the value or the bounds."
        )
    for k, phi in enumerate(np.asarray(data.phi)):
        if not data.usable(k).any():
            raise ValueError(
                f"The matrix at phi = {phi:g} degree has no usable pixel with t1 < t2 (all are "
                "masked or not finite); leave this angle out with phi_filtering."
            )


class End(eqx.Module):
    """Where a start led to.

    Attributes:
        y: Scaled free parameters.
        grams: Gram matrices there.
        reduced: Their reduction.
        cost: What was minimised, in units of chi-squared.
        result: How the solver ended.
        optimality: Its judgement of the point.
        n_evaluations: Evaluations.
    """

    y: Float[Array, "*start free"]
    grams: Float[Array, "*start angle basis basis"]
    reduced: Reduced
    cost: Float[Array, "*start"]
    result: RESULTS
    optimality: Optimality
    n_evaluations: Int[Array, "*start"]


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
        n_evaluations=jnp.asarray(solution.stats["num_steps"]),
    )
