"""The plan of a run in blocks of draws, and what the warm-up learns between them.

The step follows each chain's acceptance by dual averaging; the shape of a posterior is measured
from the draws of all its chains, three times.
"""

from typing import NamedTuple

import numpy as np

from twotime.sampling.chains import BLOCK, Settings, Trace

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
