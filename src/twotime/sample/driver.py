"""Chains of several posteriors at once, on any number of devices and processes, kept on disk.

The host runs blocks of draws, all by one compiled program, and between them it reports, stops,
saves and adapts. Neither blocks nor devices change a draw.
"""

import hashlib
import io
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from twotime.disk import DAMAGED, replacing
from twotime.errors import ResultError
from twotime.gram import device_mesh, fetch
from twotime.results.folder import writing
from twotime.sample import chains
from twotime.sample.chains import AbstractSampler, Piece, State, Trace
from twotime.sample.density import Density

_log = logging.getLogger(__name__)


class Progress(NamedTuple):
    """What is reported after every block.

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


class Drawn(NamedTuple):
    """What sampling gives: kept draws, fewer than asked for if it was interrupted."""

    trace: Trace
    step: Float[np.ndarray, " posterior"]
    n_gradients: int
    is_complete: bool


def sample(
    posteriors: Density,
    modes: Float[np.ndarray, "posterior coordinate"],
    roots: Float[np.ndarray, "posterior coordinate coordinate"],
    starts: Float[np.ndarray, "posterior chain coordinate"],
    key: PRNGKeyArray,
    sampler: AbstractSampler,
    *,
    devices: Sequence[Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    saver: "Checkpoint | None" = None,
) -> Drawn:
    """Sample several posteriors of equal shape.

    Args:
        posteriors: Posteriors stacked along the first axis of their arrays.
        modes: Origin of each one's positions.
        roots: First guess of each one's shape.
        starts: Where the chains start, as y.
        key: Random key.
        sampler: How to sample.
        devices: Devices to spread posteriors and chains over; None takes one.
        progress: Called after every block; a KeyboardInterrupt, in it too, keeps what was drawn.
        saver: Keeps blocks, and gives those of an interrupted run.

    Raises:
        ValueError: If a density is not finite where its chains start.
        KeyboardInterrupt: If interrupted before any draw was kept.
    """
    import blackjax  # noqa: F401  loading it starts XLA, and may not happen while tracing

    program, plan = Program(posteriors, modes, key, sampler, devices), chains.make_plan(sampler)
    saved = [] if saver is None else saver.load()
    traces = [trace for _, trace in saved if trace is not None]
    state = saved[-1][0] if saved else chains.first_state(roots, starts, sampler)
    clock = _Clock(plan, len(saved))
    try:
        for index in range(len(saved), len(plan)):
            piece = plan[index]
            position, averaging, trace = program.run(state, clock.done[index], piece)
            if index == 0 and not np.isfinite(trace.log_density[:, :, 0]).all():
                raise ValueError(
                    "The posterior is zero or not finite where a chain starts; move the start "
                    "inside bounds and priors, or start from a fit."
                )
            moved = state, modes, position, averaging, trace.position
            state = chains.next_state(*moved, piece, sampler)
            if not piece.is_warmup:
                traces.append(trace)
            if saver is not None:
                saver.save(index, state, None if piece.is_warmup else trace)
            now = clock.progress(index, trace)
            if progress is not None:
                progress(now)
    except KeyboardInterrupt:
        if not traces:
            raise
    whole = Trace(*(np.concatenate(parts, axis=2) for parts in zip(*traces, strict=True)))
    is_complete = whole.position.shape[2] == sampler.n_samples
    return Drawn(whole, state.step, clock.gradients, is_complete)


class _Clock:
    """Counts draws and gradients, and estimates how long the rest will take.

    Attributes:
        done: Draws of each chain before each block, and of all.
    """

    def __init__(self, plan: list[Piece], first: int):
        self.gradients = self.divergences = 0
        self.done = [0, *itertools.accumulate(piece.n_draws for piece in plan)]
        self._plan, self._first = plan, first
        self._begun = self._steady = time.perf_counter()

    def progress(self, index: int, trace: Trace) -> Progress:
        """What is reported after a block."""
        now, piece = time.perf_counter(), self._plan[index]
        done, total = self.done[index + 1], self.done[-1]
        self.gradients += int(trace.n_steps.sum())
        self.divergences += 0 if piece.is_warmup else int(trace.divergent.sum())
        if index == self._first:  # compiled by now
            self._steady = now
        made = done - self.done[self._first + 1]
        pace = (now - self._steady) / made if made else (now - self._begun) / piece.n_draws
        stage, seconds = "warm-up" if piece.is_warmup else "sampling", now - self._begun
        left, rate = (total - done) * pace, self.gradients / max(seconds, 1e-9)
        return Progress(stage, done, total, seconds, left, rate, self.divergences)


class Program:
    """The compiled block with the posteriors placed on the devices that are of use.

    Chains run in groups of fixed size, each group by itself on one device: few on CPUs, where
    the slowest of them sets the pace.

    Raises:
        ValueError: If a process has none of the devices.
    """

    def __init__(
        self, posteriors: Density, modes: np.ndarray, key: PRNGKeyArray,
        sampler: AbstractSampler, devices: Sequence[Any] | None,
    ):  # fmt: skip
        self._sampler, self._modes = sampler, modes
        self._shape = n, c = len(modes), sampler.n_chains
        found = list(devices) if devices else jax.local_devices()[:1]
        size = c if found[0].platform != "cpu" else 2 if c % 2 == 0 else 1
        n_groups, n_processes = n * c // size, jax.process_count()
        if n_processes == 1:
            found = found[: n_groups * min(size, max(1, len(found) // n_groups))]
        if len({device.process_index for device in found}) < n_processes:
            raise ValueError(
                f"Not each of the {n_processes} processes has one of the devices {found}; give "
                "devices=jax.devices()."
            )
        self._mesh = device_mesh(found)
        assert self._mesh is not None
        self._share = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        self._chains, self._is_new = slots(n_groups, size, len(found))
        own = self._is_new[..., None] & (self._chains % size == np.arange(size))
        self._back = np.flatnonzero(own)[np.argsort(self._chains[own])]
        self._owners = self._chains[:, :, 0] // c
        arrays, self._static = eqx.partition(posteriors, eqx.is_array_like)
        once = {tuple(k): self._put(arrays, k) for k in self._owners}  # calls on the same share it
        self._arrays = [once[tuple(k)] for k in self._owners]
        self._impl = str(jax.random.key_impl(key))
        self._keys = np.asarray(chains.keys_of(key, n, c))

    def run(self, state: State, done: int, piece: Piece) -> tuple[np.ndarray, np.ndarray, Trace]:
        """Make the draws of a block, `done` draws after the first.

        Returns:
            Positions and states of the dual averaging after it, and the draws.
        """
        is_adapting = piece.is_warmup and self._sampler.adapt_step
        facts = done, piece.is_warmup, is_adapting, self._sampler.target_accept
        clock = chains.Clock(*map(np.asarray, facts))
        frame = chains.Frame(self._modes, state.root, state.step)
        moving = self._keys, state.position, state.averaging
        moving = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), moving)
        calls, groups = [], (self._arrays, self._owners, self._chains, self._is_new)
        for arrays, k, who, new in zip(*groups, strict=True):
            n_draws = self._put(np.where(new, piece.n_draws, 0), np.arange(len(new)))
            by_group = arrays, self._put(frame, k), self._put(moving, who), n_draws
            static = self._static, self._sampler.compiled, self._impl, self._mesh
            calls.append(chains.draw_block(*static, by_group, clock))
        found = calls if jax.process_count() == 1 else fetch(self._mesh, calls)
        position, averaging, trace = jax.tree.map(self._by_chain, *found)
        return position, averaging, Trace(*(x[:, :, : piece.n_draws] for x in trace))

    def _put(self, tree: Any, rows: np.ndarray) -> Any:
        """Rows of arrays, the first axis over the devices."""

        def one(x: Any) -> Array:
            def part(at: Any) -> np.ndarray:
                return np.asarray(x)[rows[at[0]]]

            shape = (*rows.shape, *np.shape(x)[1:])
            return jax.make_array_from_callback(shape, self._share, part)

        return jax.tree.map(one, tree)

    def _by_chain(self, *calls: Array) -> np.ndarray:
        """What all calls gave, by posterior and chain."""
        x = np.stack([np.asarray(call) for call in calls])
        return x.reshape(-1, *x.shape[3:])[self._back].reshape(*self._shape, *x.shape[3:])


def slots(
    n_groups: int, size: int, n_devices: int
) -> tuple[Int[np.ndarray, "call device lane"], Bool[np.ndarray, "call device"]]:
    """Which chains run in each call on each device, in equal shares that repeats fill up.

    Where there are devices enough, groups are split: lanes of the other parts repeat a chain. A
    chain that is kept runs in its own lane.

    Returns:
        The chains, and whether a group of them is not a repeat (which makes no draws).
    """
    groups, lane = np.arange(n_groups * size).reshape(n_groups, size), np.arange(size)
    n_parts = min(size, max(1, n_devices // n_groups))
    parts = [np.where(lane % n_parts == p, groups, groups[:, p, None]) for p in range(n_parts)]
    shares = np.array_split(np.concatenate(parts), n_devices)
    calls = range(len(shares[0]))
    full = [share if len(share) else groups[:1] for share in shares]
    who = np.stack([[share[min(call, len(share) - 1)] for share in full] for call in calls])
    return who, np.stack([[call < len(share) for share in shares] for call in calls])


_FINGERPRINT = "fingerprint.txt"
_FORM = "blocks of form 2: "
"""What blocks hold; another number where this changes, so that no run goes on from others."""
_BLOCK, _BLOCK_FILES = "block-{:06d}.npz", "block-*.npz"


class Checkpoint:
    """A folder in which a run is kept block by block, so that one that was killed can go on.

    Every block is a file of its own, written under another name and then renamed, so a kill
    leaves whole files only. A fingerprint of data, posterior, settings and key (`identity`) says
    whether a run may go on. What is damaged all the same is drawn again. Of several processes the
    first reads and writes, and passes on what it found.

    Raises:
        ResultError: If the folder holds another run, or one that shall not be resumed.
    """

    def __init__(self, folder: Path, identity: Any, *, resume: bool):
        self._folder = folder
        from_first(lambda: self._open(_FORM + fingerprint(identity), resume))

    def load(self) -> list[tuple[State, Trace | None]]:
        """Blocks that were saved, in order, up to the first that is damaged."""
        blocks: list[tuple[State, Trace | None]] = []
        while content := from_first(lambda: self._read(len(blocks))):
            try:
                with np.load(io.BytesIO(content), allow_pickle=False) as found:
                    state = State(*(found[f"state_{name}"] for name in State._fields))
                    names = [f"trace_{name}" for name in Trace._fields]
                    trace = Trace(*(found[n] for n in names)) if names[0] in found else None
            except DAMAGED:
                break
            blocks.append((state, trace))
        from_first(lambda: self._drop(len(blocks)))
        return blocks

    def save(self, index: int, state: State, trace: Trace | None) -> None:
        """Save a block."""
        arrays = {f"state_{name}": x for name, x in state._asdict().items()}
        if trace is not None:
            arrays |= {f"trace_{name}": x for name, x in trace._asdict().items()}
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        from_first(lambda: self._write(_BLOCK.format(index), content.getvalue()))

    def _open(self, mark: str, resume: bool) -> bytes:
        path = self._folder / _FINGERPRINT
        if path.exists() and not resume:
            raise ResultError(
                f"{self._folder}: already keeps a run; say that it shall go on (--resume, "
                "resume=True), or name another folder."
            )
        check_mark(self._folder)
        if path.exists() and path.read_bytes() != mark.encode():
            raise ResultError(
                f"{self._folder}: keeps a run with other data, settings or key, or of another "
                "version; go on with the same, or name another folder."
            )
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self._write(_FINGERPRINT, mark.encode())

    def _read(self, index: int) -> bytes:
        path = self._folder / _BLOCK.format(index)
        return path.read_bytes() if path.exists() else b""

    def _drop(self, index: int) -> bytes:
        """Remove blocks from the one that is damaged or missing on."""
        first = _BLOCK.format(index)
        rest = [path for path in self._folder.glob(_BLOCK_FILES) if path.name >= first]
        for path in rest:
            path.unlink()
        if rest:
            _log.warning(
                "%s: %s is damaged or missing; %d blocks are dropped and sampling goes on from "
                "the last one before", self._folder, first, len(rest),
            )  # fmt: skip
        return b""

    def _write(self, name: str, content: bytes) -> bytes:
        path = self._folder / name
        with writing(self._folder), replacing(path) as temporary:
            temporary.write_bytes(content)
        return b""


def check_mark(folder: Path) -> None:
    """Refuse kept blocks of which nothing says what run they are of.

    Raises:
        ResultError: If there are such blocks.
    """
    if not (folder / _FINGERPRINT).exists() and any(folder.glob(_BLOCK_FILES)):
        raise ResultError(
            f"{folder}: keeps blocks without {_FINGERPRINT}, so their run is unknown; move the "
            "folder away, or name another one."
        )


def from_first(make: Callable[[], bytes]) -> bytes:
    """What the first process makes, on all of them.

    Raises:
        ResultError: On every process, if the first raises it.
    """
    if jax.process_count() == 1:
        return make()
    content, is_error = b"", False
    if jax.process_index() == 0:
        try:
            content = make()
        except ResultError as exc:
            content, is_error = str(exc).encode(), True
    size, is_error = multihost_utils.broadcast_one_to_all(np.asarray([len(content), is_error]))
    body = np.zeros(int(size) + 1, np.uint8)
    body[: len(content)] = np.frombuffer(content, np.uint8)
    content = np.asarray(multihost_utils.broadcast_one_to_all(body))[:-1].tobytes()
    if is_error:
        raise ResultError(content.decode())
    return content


def fingerprint(identity: Any) -> str:
    """A checksum of all numbers and static facts of a value."""
    digest = hashlib.sha256()
    leaves, structure = jax.tree.flatten(identity)
    digest.update(str(structure).encode())
    for leaf in leaves:
        if eqx.is_array(leaf) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if eqx.is_array_like(leaf):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:
            digest.update(repr(leaf).encode())
    return digest.hexdigest()


def meet() -> None:
    """Wait for the other processes, if there are any: connections are made while all are near."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("twotime")
