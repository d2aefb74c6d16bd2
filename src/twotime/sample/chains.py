"""The compiled part of sampling: some draws of a few chains of one posterior, by BlackJAX.

Positions are y with v = root y + mode in the coordinates of the posterior, so that its shape is
nearly round. Random numbers depend on posterior, chain and draw alone.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.sample.density import Posterior

BLOCK = 25
_SPREAD = (0.6, 1.4)
"""Range of the step's random factor in HMC."""


class Settings(NamedTuple):
    """How to sample.

    Attributes:
        n_chains: Chains of each posterior.
        n_warmup: Warm-up draws of each chain, which are not kept.
        n_samples: Kept draws of each chain.
        target_accept: Acceptance that the step size is adapted to.
        max_tree_depth: Doublings of a NUTS trajectory at most.
        sampler: "nuts" or "hmc".
        step_size: First step, in standard deviations.
        n_leapfrog: Steps of an HMC trajectory.
        adapt_step: Whether the step is adapted.
        adapt_shape: Whether the shape is adapted.
    """

    n_chains: int = 4
    n_warmup: int = 500
    n_samples: int = 1000
    target_accept: float = 0.9
    max_tree_depth: int = 10
    sampler: str = "nuts"
    step_size: float = 0.5
    n_leapfrog: int = 10
    adapt_step: bool = True
    adapt_shape: bool = True


class Trace(NamedTuple):
    """Draws and facts about them; axes (posterior, chain, draw)."""

    position: Float[np.ndarray, "posterior chain draw coordinate"]
    joint: Float[np.ndarray, "posterior chain draw joint"]
    log_density: Float[np.ndarray, "posterior chain draw"]
    energy: Float[np.ndarray, "posterior chain draw"]
    divergent: Float[np.ndarray, "posterior chain draw"]
    depth: Float[np.ndarray, "posterior chain draw"]
    n_steps: Float[np.ndarray, "posterior chain draw"]
    acceptance: Float[np.ndarray, "posterior chain draw"]


@partial(jax.jit, static_argnums=(0, 1, 2))
def draw_block(
    static: Posterior,
    settings: Settings,
    impl: str,
    by_posterior: Any,
    by_chain: Any,
    facts: Array,
) -> Any:
    """Some draws of a group of chains."""
    (arrays, mode), (root, step) = by_posterior
    posterior = eqx.combine(arrays, static)

    def of_chain(chain: Any) -> Any:
        return _chain(posterior, mode, root, step, chain, facts, settings, impl)

    return jax.vmap(of_chain)(by_chain)


def _chain(
    posterior: Posterior,
    mode: Array,
    root: Array,
    step: Array,
    chain: Any,
    facts: Array,
    settings: Settings,
    impl: str,
) -> Any:
    """Some draws of one chain."""
    from blackjax.adaptation.step_size import (
        DualAveragingAdaptationState,
        dual_averaging_adaptation,
    )
    from blackjax.mcmc import hmc, nuts

    key_data, position, averaging = chain
    key, joint_key = jax.random.split(jax.random.wrap_key_data(key_data, impl=impl))
    done, n_draws, is_warmup = facts[0], facts[1], facts[2] == 1
    kernel = nuts.build_kernel() if settings.sampler == "nuts" else hmc.build_kernel()
    length = settings.max_tree_depth if settings.sampler == "nuts" else settings.n_leapfrog
    update = dual_averaging_adaptation(settings.target_accept)[1]
    metric = jnp.ones_like(position)

    def density(y: Array) -> Array:
        return posterior.log_density(mode + root @ y)

    def draw(i: Array, carry: Any) -> Any:
        state, average, out = carry
        adapting = is_warmup & settings.adapt_step
        here = jnp.where(adapting, jnp.exp(average[0]), step)
        draw_key = jax.random.fold_in(key, done + i)
        if settings.sampler == "hmc":  # trajectories of one length can resonate with the shape
            draw_key, spread_key = jax.random.split(draw_key)
            here = here * jax.random.uniform(spread_key, (), here.dtype, *_SPREAD)
        state, info = kernel(draw_key, state, density, here, metric, length)
        rate = jnp.where(jnp.isfinite(info.acceptance_rate), info.acceptance_rate, 0.0)
        new = update(DualAveragingAdaptationState(*average), rate)
        average = jnp.stack([jnp.asarray(x, position.dtype) for x in new])
        depth = info.num_trajectory_expansions if settings.sampler == "nuts" else 0
        facts_of_draw = (
            mode + root @ state.position, state.logdensity, info.energy, info.is_divergent,
            depth, info.num_integration_steps, rate,
        )  # fmt: skip
        out = tuple(
            o.at[i].set(jnp.asarray(x, o.dtype)) for o, x in zip(out, facts_of_draw, strict=True)
        )
        return state, average, out

    blank = (jnp.zeros((BLOCK, *position.shape)), *(jnp.zeros(BLOCK) for _ in range(6)))
    carry = (hmc.init(position, density), averaging, blank)
    state, averaging, out = jax.lax.fori_loop(0, n_draws, draw, carry)
    joint = _joint(posterior, out[0], joint_key, done, is_warmup)
    return state.position, averaging, (out[0], joint, *out[1:])


def _joint(posterior: Posterior, v: Array, key: Array, done: Array, is_warmup: Array) -> Array:
    """Draws with what was integrated out drawn too; none in the warm-up."""
    shape = jax.eval_shape(posterior.complete, v[0], key).shape

    def complete(_: None) -> Array:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, done + i))(jnp.arange(v.shape[0]))
        return jax.lax.map(lambda x: posterior.complete(*x), (v, keys))

    def nothing(_: None) -> Array:
        return jnp.zeros((v.shape[0], *shape))

    return jax.lax.cond(is_warmup, nothing, complete, None)


_FIRST, _WINDOWS = 0.15, (0.15, 0.25, 0.3)
"""Parts of the warm-up: for the step alone, for each measure of the shape; the rest for the step
again."""


class State(NamedTuple):
    """Where the chains stand between two blocks.

    Attributes:
        position: y of each chain.
        averaging: State of the step's dual averaging.
        step: Step of each posterior once adapted.
        root: Shape of each posterior.
        window: Draws since the shape was measured last.
    """

    position: np.ndarray
    averaging: np.ndarray
    step: np.ndarray
    root: np.ndarray
    window: np.ndarray


class Piece(NamedTuple):
    """Draws made in one call; `ends_window` asks for the shape to be measured after it."""

    n_draws: int
    is_warmup: bool
    in_window: bool
    ends_window: bool


def make_plan(settings: Settings) -> list[Piece]:
    """Blocks of draws in order, those of the warm-up first."""
    n = settings.n_warmup
    parts = [round(_FIRST * n), *(round(part * n) for part in _WINDOWS)]
    parts.append(n - sum(parts))
    pieces = []
    for k, part in enumerate(parts):
        window = settings.adapt_shape and 0 < k <= len(_WINDOWS)
        sizes = _cut(part)
        for i, size in enumerate(sizes):
            pieces.append(Piece(size, True, window, window and i == len(sizes) - 1))
    return pieces + [Piece(size, False, False, False) for size in _cut(settings.n_samples)]


def _cut(total: int) -> list[int]:
    return [min(BLOCK, total - begun) for begun in range(0, total, BLOCK)]


def first_state(roots: np.ndarray, starts: np.ndarray, settings: Settings) -> State:
    """Chains at their starts, y, with the first guesses of shape and step."""
    step = np.full(starts.shape[0], settings.step_size)
    averaging = _restart(step, starts.shape[1])
    none = np.zeros((*starts.shape[:2], 0, starts.shape[2]))
    return State(starts, averaging, step, roots, none)


def next_state(
    state: State,
    position: np.ndarray,
    averaging: np.ndarray,
    trace: Trace,
    piece: Piece,
    settings: Settings,
) -> State:
    """Step and shape after a block, from the chains together."""
    if not piece.is_warmup:
        return state._replace(position=position)
    window = state.window
    if piece.in_window:
        y = np.linalg.solve(state.root[:, None, None], trace.position[..., None])[..., 0]
        window = np.concatenate([window, y], axis=2)
    step, root = state.step, state.root
    if settings.adapt_step:
        step = np.exp(averaging[..., 1].mean(axis=1))
    if piece.ends_window:
        factor = np.linalg.cholesky(_shape(window))
        root = root @ factor
        position = np.linalg.solve(factor[:, None], position[..., None])[..., 0]
        window = window[:, :, :0]
        averaging = _restart(step, position.shape[1])
    return State(position, averaging, step, root, window)


def _restart(step: np.ndarray, n_chains: int) -> np.ndarray:
    """Dual averaging about a step: (log step, its average, count, error, centre)."""
    log = np.broadcast_to(np.log(step)[:, None], (step.shape[0], n_chains))
    zero = np.zeros_like(log)
    return np.stack([log, zero, zero + 1.0, zero, log + np.log(10.0)], axis=-1)


def _shape(y: np.ndarray) -> np.ndarray:
    """Covariance of y over chains and draws, drawn towards 1 as far as draws are few."""
    size = y.shape[-1]
    flat = y.reshape(y.shape[0], -1, size)
    flat = flat - flat.mean(axis=1, keepdims=True)
    count = flat.shape[1]
    square = np.einsum("kni,knj->kij", flat, flat)
    return (square + size * np.eye(size)) / (count + size)
