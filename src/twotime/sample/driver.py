"""Chains of several posteriors at once, on any number of devices: NUTS or HMC by BlackJAX.

The host runs blocks of draws, all by one compiled program (`chains`, placed on devices by
`placement`), and between them it reports, stops, saves and adapts (`warmup`). Neither blocks nor
devices change a draw.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from twotime.sample.chains import Piece, Settings, State, Trace, first_state, make_plan, next_state
from twotime.sample.density import Posterior
from twotime.sample.devices import Program, spread


class Progress(NamedTuple):
    """What is told after every block.

    Attributes:
        stage: "warm-up" or "sampling".
        done: Draws of each chain so far, warm-up included.
        total: All of them.
        seconds: Time since the start [s].
        seconds_left: Estimate of the time left [s].
        gradients: Evaluations of density and gradient per second.
        divergences: Divergent draws after the warm-up.
    """

    stage: str
    done: int
    total: int
    seconds: float
    seconds_left: float
    gradients: float
    divergences: int


@runtime_checkable
class Saver(Protocol):
    """Keeps blocks where they survive the process."""

    def load(self) -> list[tuple[State, Trace | None]]:
        """Blocks that were saved, in order."""

    def save(self, index: int, state: State, trace: Trace | None) -> None:
        """Save a block."""


class Result(NamedTuple):
    """What sampling gives.

    Attributes:
        trace: Kept draws; fewer than asked for if it was interrupted.
        step: Step of each posterior.
        root: Shape of each posterior at the end.
        n_gradients: Evaluations of density and gradient, warm-up included.
        is_complete: Whether all draws were made.
    """

    trace: Trace
    step: Float[np.ndarray, " posterior"]
    root: Float[np.ndarray, "posterior coordinate coordinate"]
    n_gradients: int
    is_complete: bool


def sample(
    posteriors: Posterior,
    modes: Float[np.ndarray, "posterior coordinate"],
    roots: Float[np.ndarray, "posterior coordinate coordinate"],
    starts: Float[np.ndarray, "posterior chain coordinate"],
    key: PRNGKeyArray,
    settings: Settings,
    *,
    devices: Sequence[Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    saver: Saver | None = None,
) -> Result:
    """Sample several posteriors of equal shape.

    Args:
        posteriors: Posteriors stacked along the first axis of their arrays.
        modes: Origin of each one's positions.
        roots: First guess of each one's shape.
        starts: Where the chains start, as y.
        key: Random key.
        settings: How to sample.
        devices: Devices to spread posteriors and chains over; None takes one.
        progress: Called after every block; a KeyboardInterrupt in it, or from the keyboard,
            ends the sampling and keeps what was drawn after the warm-up.
        saver: Keeps blocks, and gives those of an interrupted run.

    Raises:
        ValueError: If a density is not finite where its chains start.
        KeyboardInterrupt: If interrupted before any draw was kept.
    """
    import blackjax  # noqa: F401  loading it starts XLA, and may not happen while tracing

    used = spread(devices, *starts.shape[:2])
    program = Program(posteriors, modes, key, settings, used)
    plan = make_plan(settings)
    saved = [] if saver is None else saver.load()
    traces = [trace for _, trace in saved if trace is not None]
    state = saved[-1][0] if saved else first_state(roots, starts, settings)
    clock = _Clock(plan, len(saved))
    try:
        for index in range(len(saved), len(plan)):
            done, piece = sum(p.n_draws for p in plan[:index]), plan[index]
            position, averaging, trace = program.run(state, done, piece)
            if index == 0 and not np.isfinite(trace.log_density[:, :, 0]).all():
                raise ValueError(
                    "The posterior is zero or not finite where a chain starts; move the start "
                    "inside bounds and priors, or start from a fit."
                )
            state = next_state(state, position, averaging, trace, piece, settings)
            clock.count(trace)
            if not piece.is_warmup:
                traces.append(trace)
            if saver is not None:
                saver.save(index, state, None if piece.is_warmup else trace)
            if progress is not None:
                progress(clock.progress(index))
    except KeyboardInterrupt:
        if not traces:
            raise
    whole = Trace(*(np.concatenate(parts, axis=2) for parts in zip(*traces, strict=True)))
    complete = whole.position.shape[2] == settings.n_samples
    return Result(whole, state.step, state.root, clock.gradients, complete)


class _Clock:
    """Counts gradients and tells how long the rest will take."""

    def __init__(self, plan: list[Piece], first: int):
        self.gradients = 0
        self.divergences = 0
        self._plan, self._first = plan, first
        self._begun = self._steady = time.perf_counter()

    def count(self, trace: Trace) -> None:
        self.gradients += int(trace.n_steps.sum())
        self._divergent = int(trace.divergent.sum())

    def progress(self, index: int) -> Progress:
        now = time.perf_counter()
        sizes = [piece.n_draws for piece in self._plan]
        if index == self._first:  # compiled by now
            self._steady = now
        if not self._plan[index].is_warmup:
            self.divergences += self._divergent
        made = sum(sizes[self._first + 1 : index + 1])
        left = sum(sizes[index + 1 :])
        pace = (now - self._steady) / made if made else (now - self._begun) / sizes[index]
        return Progress(
            stage="warm-up" if self._plan[index].is_warmup else "sampling",
            done=sum(sizes[: index + 1]),
            total=sum(sizes),
            seconds=now - self._begun,
            seconds_left=left * pace,
            gradients=self.gradients / max(now - self._begun, 1e-9),
            divergences=self.divergences,
        )
