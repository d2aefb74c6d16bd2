"""Starting points: given, spread over the bounds, and moved to where a fit can leave from.

On its bound a parameter may have no slope at all although the optimum is elsewhere: the
correlation depends on the square of a fraction near 0 and 1, and a fraction that is clipped
depends on nothing. A search that judges by slopes would stay, and call it converged.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.gram.pairs import channel_slopes
from twotime.gram.problem import Problem
from twotime.models.base import AbstractTwoTimeModel, Params
from twotime.models.proposals import Scene
from twotime.models.rates import AnyArray
from twotime.models.scaling import Individual
from twotime.start.coarse import coarse_chi2, coarse_grain, coarse_problem

Free = Float[Array, " free"]

_DRAWS = 64
_INWARDS = 1e-3
_NO_EFFECT = 1e-3


def make_starts(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    mode: Individual,
    starts: int | Float[AnyArray, "start param"],
    key: Key[Array, ""] | None,
) -> Float[Array, "start param"]:
    """Where the fits begin: given starts, or as many as are asked for; traceable.

    These are the space's own and the likeliest of a Latin hypercube over its bounds, spread in
    the logarithm where the space says so.

    Reference:
        McKay, Beckman & Conover, Technometrics 21, 239 (1979).
    """
    if not isinstance(starts, int):
        if starts.ndim != 2 or starts.shape[0] < 1 or starts.shape[1] != len(space.names):
            raise ValueError(
                f"starts has shape {starts.shape}; expected (start, {len(space.names)}), with the "
                "parameters in the order of the space."
            )
        return jnp.clip(jnp.asarray(starts), space.lower, space.upper)
    if starts < 1:
        raise ValueError(f"starts is {starts}; expected at least 1.")
    if starts == 1:
        return jnp.asarray(space.initial)[None]
    if key is None:
        raise ValueError(
            f"starts is {starts} but key is missing; give key=jax.random.key(0), from which the "
            "starts are drawn."
        )
    draws, n = _DRAWS * starts, len(space.names)
    places = jax.vmap(lambda k: jax.random.permutation(k, draws))(jax.random.split(key, n)).T
    low, high = jnp.asarray(space.lower), jnp.asarray(space.upper)
    log = jnp.asarray(space.log_space) & (low > 0)
    low, high = (jnp.where(log, jnp.log(jnp.where(log, x, 1.0)), x) for x in (low, high))
    inside = low + (high - low) * (places + jax.random.uniform(key, places.shape)) / draws
    inside = jnp.where(log, jnp.exp(inside), inside)
    initial = jnp.asarray(space.initial)
    candidates = jnp.where(jnp.asarray(space.varying), inside, initial)
    coarse = coarse_problem(model, data, space, mode, coarse_grain(data))
    chi2 = coarse_chi2(coarse, coarse.points.weight, candidates)
    best = jnp.argsort(chi2)[: starts - 1]
    return jnp.concatenate([initial[None], candidates[best]])


def off_bounds(
    problem: Problem, start: Params, lower: Free, upper: Free, log_space: Bool[np.ndarray, " free"]
) -> Free:
    """Free parameters at a start, off their bounds.

    What lies on a bound moves inwards by a thousandth of its width; to the middle of the bounds
    if it moves no channel of the model there, in the logarithm where `log_space` says so.
    Everything else stays, off plateaus.
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


def is_known(space: ParameterSpace) -> np.ndarray:
    """Which parameters are given or do not vary."""
    return (np.asarray(space.given) > 0) | ~np.asarray(space.varying)


def scene_of(data: TwoTimeData, space: ParameterSpace) -> Scene:
    """What a law knows when it proposes starts."""
    ends = zip(np.asarray(space.lower).tolist(), np.asarray(space.upper).tolist(), strict=True)
    bounds = dict(zip(space.names, ends, strict=True))
    known = {space.names[i]: float(space.initial[i]) for i in np.flatnonzero(is_known(space))}
    return Scene(tuple(space.names), np.asarray(data.t), float(np.asarray(data.q)), bounds, known)
