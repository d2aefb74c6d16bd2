"""Starts on a bound, moved to where a fit can leave from.

On its bound a parameter may have no slope at all although the optimum is elsewhere: the
correlation depends on the square of a fraction near 0 and 1, and a fraction that is clipped
depends on nothing. A search that judges by slopes would stay, and call it converged.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from twotime.gram.pairs import channel_slopes
from twotime.gram.problem import Problem

_INWARDS = 1e-3
_NO_EFFECT = 1e-3


def off_bounds(
    problem: Problem,
    start: Float[Array, " param"],
    lower: Float[Array, " free"],
    upper: Float[Array, " free"],
    log_space: Bool[np.ndarray, " free"],
) -> Float[Array, " free"]:
    """Free parameters at a start, off their bounds.

    What lies on a bound moves inwards by a thousandth of its width; to the middle of the bounds
    if it moves no channel of the model there. Everything else stays, off plateaus.

    Args:
        problem: The fit.
        start: All parameters at the start.
        lower: Lower bounds of the free parameters.
        upper: Their upper bounds.
        log_space: Whether their middle is that of logarithms.
    """
    moved = problem.model.off_plateau(start, jnp.asarray(problem.data.t))
    start = jnp.where(np.asarray(problem.varying), moved, start)
    values = jnp.clip(start[np.flatnonzero(problem.varying)], lower, upper)
    reach = jnp.minimum(problem.scale, upper - lower)

    def effect(phi: Array) -> Array:
        settings = problem.model, problem.data, start, problem.varying, phi
        _, by = channel_slopes(*settings, jnp.diag(reach))
        largest = [jnp.max(jnp.abs(x), axis=(1, 2), initial=0.0) for x in jax.tree.leaves(by)]
        return jnp.max(jnp.stack(largest), axis=0)

    strongest = jnp.max(jax.vmap(effect)(jnp.asarray(problem.data.phi)), axis=0)
    is_log = jnp.asarray(log_space) & (lower > 0)
    product = jnp.where(is_log, lower * upper, 1.0)
    middle = jnp.where(is_log, jnp.sqrt(product), 0.5 * (lower + upper))
    inwards = jnp.clip(values, lower + _INWARDS * reach, upper - _INWARDS * reach)
    moved = jnp.where(strongest < _NO_EFFECT, middle, inwards)
    return jnp.where((values <= lower) | (values >= upper), moved, values)
