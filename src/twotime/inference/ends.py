"""Which of several ends is the result, and which others are the same optimum."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from twotime.core.symmetry import components, is_canonical, is_exchanged
from twotime.inference.descent import End
from twotime.inference.problem import Problem
from twotime.inference.solver import CONVERGED

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
    found = jax.vmap(lambda y: components(problem.model, problem.params(y), t))(ends.y)
    if found is None:
        return best, cost <= cost[best] * (1 + _EQUAL), None
    noise = cost[best] / problem.n_pixels if problem.data.sigma is None else 1.0
    as_good = (cost <= cost[best] + noise) & (ends.code == CONVERGED)

    def exchange_of(k: Array) -> Array:
        return jax.vmap(is_exchanged, (0, None))(found, found[k])

    usual = as_good & exchange_of(best) & jax.vmap(is_canonical)(found)
    other = jnp.argmin(jnp.where(usual, cost, jnp.inf))
    best = jnp.where(~is_canonical(found[best]) & jnp.any(usual), other, best)
    exchanged = exchange_of(best)
    same = (jnp.abs(cost - cost[best]) <= _EQUAL * cost[best]) | (as_good & exchanged)
    return best, same, exchanged
