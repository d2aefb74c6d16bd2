"""Steps that follow the curved valleys of power laws.

Over a finite window D0, alpha and D_offset trade against each other along a curve on which
J(t) hardly changes; a straight step leaves it. The channels (clocks and levels) are far less
curved in what the data see, so a step is bent until the channels move along a straight line.
To first order in the step nothing changes. The idea is geodesic acceleration, with the
channels in place of the residuals, which costs no pass over the data.

Reference:
    Transtrum & Sethna, arXiv:1201.5885 (2012).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.core.correlation import pixels
from twotime.core.models import Channels
from twotime.inference.problem import Problem
from twotime.inference.solver import Proposal
from twotime.inference.tiles import slopes

_ROUNDS = 6
_LAGS, _AGES = 16, 12


def bend(proposal: Proposal, problem: Problem) -> Float[Array, " y"]:
    """End of a step along which the channels move as on the straight step's first order.

    Clocks are integrated over the sampled frames alone.

    Args:
        proposal: The straight step.
        problem: The fit.

    Returns:
        The end of the bent step, inside the box.
    """
    frames, early, late, share = _sample_pairs(problem.data.t.shape[0])
    phi, t = jnp.asarray(problem.data.phi), problem.data.t[frames]

    def channels(y: Array, angle: Array) -> Channels:
        return problem.model.channels(problem.params(y), t, t=t, q=problem.data.q, phi=angle)

    def sensitivity(angle: Array) -> Array:
        here = pixels(channels(proposal.start, angle), early, late, same=early == late)
        return jnp.stack(slopes(problem.model, here)[1])

    weight = jax.vmap(sensitivity)(phi)

    def picture(y: Array) -> Array:
        def one(angle: Array) -> Array:
            c = channels(y, angle)
            clock = jnp.concatenate([c.decay, c.phase])
            difference = clock[:, late] - clock[:, early]
            return jnp.concatenate([difference, c.level[:, early], c.level[:, late]])

        return (weight * jax.vmap(one)(phi) * jnp.sqrt(share)).reshape(-1)

    return _follow(picture, proposal)


def _follow(picture: Callable[[Array], Array], proposal: Proposal) -> Array:
    """Damped Gauss-Newton rounds towards the picture's straight line; stops at the bounds."""
    start, lower, upper = proposal.start, proposal.lower, proposal.upper
    here, move = jax.jvp(picture, (start,), (proposal.end - start,))

    def improve(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        end, held = state
        value, jacobian = _value_and_jacobian(picture, end)
        jacobian = jnp.where(held, 0.0, jacobian)
        normal = jacobian.T @ jacobian
        damping = (proposal.damping + 1e-13) * jnp.max(jnp.diag(normal)) + 1e-300
        right = jacobian.T @ (here + move - value)
        step = jnp.linalg.solve(normal + damping * jnp.eye(end.shape[0]), right)
        free = end + jnp.where(jnp.all(jnp.isfinite(step)), step, 0.0)
        end = jnp.clip(free, lower, upper)
        return end, held | (end != free)

    end = jnp.clip(proposal.end, lower, upper)
    held = proposal.held | (end != proposal.end)
    return jax.lax.fori_loop(0, _ROUNDS, improve, (end, held))[0]


def _value_and_jacobian(f: Callable[[Array], Array], x: Array) -> tuple[Array, Array]:
    jacobian, value = jax.jacfwd(lambda y: (f(y),) * 2, has_aux=True)(x)
    return value, jacobian


def _sample_pairs(n_frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A few hundred pixels: frames, each pixel's first and second among them, and what it counts.

    Lags are spaced evenly in their logarithm, ages evenly; a pixel counts as many as it stands for.
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
