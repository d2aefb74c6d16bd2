"""Geodesic acceleration: steps that follow the curved valleys of power laws.

Over a finite window D0, alpha and D_offset trade against each other along a curve on which
J(t) hardly changes; a straight step leaves it. The channels (clocks and levels) are far less
curved as far as the data see them, so a step is changed until the channels move along a straight
line. To first order in the step nothing changes. The channels take the place of the residuals of
the reference, which costs no pass over the data.

Reference:
    Transtrum & Sethna, arXiv:1201.5885 (2012).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.gram.pairs import slopes
from twotime.gram.problem import Problem
from twotime.models.base import Channels
from twotime.models.correlation import pairs
from twotime.solver import Proposal

_ROUNDS = 6
_LAGS, _AGES = 16, 12


def accelerate(proposal: Proposal, problem: Problem) -> Float[Array, " y"]:
    """End of a step, inside the box, along which the channels move as to its first order.

    Clocks are integrated over the sampled frames alone.
    """
    frames, early, late, share = _sample_pairs(problem.data.t.shape[0])
    matrices, t = jnp.arange(problem.data.phi.shape[0]), problem.data.t[frames]

    def seen(y: Array) -> tuple[Array, tuple[Array, Channels]]:
        """The channels as pairs of frames see them, and the channels."""

        def one(k: Array) -> tuple[Array, Channels]:
            c = problem.model.channels(problem.params(y), t, t=t, **problem.data.place(k))
            clock = jnp.concatenate([c.decay, c.phase])
            difference = clock[:, late] - clock[:, early]
            return jnp.concatenate([difference, c.level[:, early], c.level[:, late]]), c

        found, channels = jax.vmap(one)(matrices)
        found = found * jnp.sqrt(share)
        return found, (found, channels)

    def sensitivity(c: Channels) -> Array:
        return jnp.stack(slopes(problem.model, pairs(c, early, late))[1])

    def improve(k: Array, state: _State) -> _State:
        jacobian, (value, channels) = jax.jacfwd(seen, has_aux=True)(state.end)
        weight = jax.lax.cond(k == 0, lambda: jax.vmap(sensitivity)(channels), lambda: state.weight)
        jacobian = (weight[..., None] * jacobian).reshape(value.size, -1)
        value = (weight * value).reshape(-1)
        straight = value + jacobian @ (proposal.end - proposal.start)
        goal = jnp.where(k == 0, straight, state.goal)
        step = _step(jnp.where(state.held, 0.0, jacobian), goal - value, proposal.damping)
        free = jnp.where(k == 0, proposal.end, state.end + step)
        end = jnp.clip(free, proposal.lower, proposal.upper)
        return _State(end, state.held | (end != free), weight, goal)

    shape = jax.eval_shape(seen, proposal.start)[0]
    weight = jnp.zeros(shape.shape, shape.dtype)
    # The first round is at the start, and finds what the others have in common.
    state = _State(proposal.start, proposal.held, weight, weight.reshape(-1))
    return jax.lax.fori_loop(0, 1 + _ROUNDS, improve, state).end


class _State(NamedTuple):
    """Damped Gauss-Newton rounds towards the end of the straight line of the channels.

    Attributes:
        end: End of the step.
        held: Parameters that stop at a bound.
        weight: Slope of the correlation by each channel of a pair, at the start of the step.
        goal: End of the straight line.
    """

    end: Array
    held: Array
    weight: Array
    goal: Array


def _step(jacobian: Array, change: Array, damping: Array) -> Array:
    normal = jacobian.T @ jacobian
    damping = (damping + 1e-13) * jnp.max(jnp.diag(normal)) + 1e-300
    step = jnp.linalg.solve(normal + damping * jnp.eye(normal.shape[0]), jacobian.T @ change)
    return jnp.where(jnp.all(jnp.isfinite(step)), step, 0.0)


def _sample_pairs(n_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A few hundred pairs: their frames, the first and second among these, and their shares.

    Lags are spaced evenly in their logarithm, ages evenly; the share of a pair is the number of
    pairs that it stands for.
    """
    lags = np.unique(np.round(np.geomspace(1, n_frames - 1, _LAGS)).astype(int))
    width = np.diff(np.concatenate([[0], 0.5 * (lags[1:] + lags[:-1]), [n_frames - 1]]))
    rows = []
    for lag, lags_meant in zip(lags, width, strict=True):
        ages = np.unique(np.linspace(0, n_frames - 1 - lag, _AGES).astype(int))
        rows += [(age, age + lag, lags_meant * (n_frames - lag) / ages.size) for age in ages]
    early, late, share = np.asarray(rows).T
    frames, index = np.unique(np.concatenate([early, late]).astype(int), return_inverse=True)
    return frames, *index.reshape(2, -1), share
