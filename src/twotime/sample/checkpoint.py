"""Runs kept block by block on disk, so that a run that was killed goes on where it was.

Every block is a file of its own, written under another name and then renamed, so a kill leaves
whole files only. A fingerprint of data, posterior, settings and key says whether a run may go on.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from twotime.errors import ResultError
from twotime.results.storage import writing
from twotime.sample.chains import State, Trace

_FINGERPRINT = "fingerprint.txt"
_BLOCK = "block-{:06d}.npz"


class Checkpoint:
    """A folder in which a run is kept.

    Args:
        folder: The folder, made if need be.
        identity: What the run depends on: values, arrays and keys.
        resume: Whether to go on with the run that is kept there, if there is one.

    Raises:
        ResultError: If the folder holds another run, or one that shall not be resumed.
    """

    def __init__(self, folder: Path, identity: Any, *, resume: bool):
        self._folder = folder
        mark = fingerprint(identity)
        path = folder / _FINGERPRINT
        if path.exists() and not resume:
            raise ResultError(
                f"{folder}: already keeps a run; say that it shall go on (--resume, resume=True), "
                "or name another folder."
            )
        if path.exists() and path.read_text(encoding="utf-8") != mark:
            raise ResultError(
                f"{folder}: keeps a run with other data, settings or key; go on with the same, or "
                "name another folder."
            )
        if jax.process_index() == 0:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                _write(path, lambda target: target.write_text(mark, encoding="utf-8"))

    def load(self) -> list[tuple[State, Trace | None]]:
        """Blocks that were saved, in order."""
        blocks: list[tuple[State, Trace | None]] = []
        while (path := self._folder / _BLOCK.format(len(blocks))).exists():
            with np.load(path, allow_pickle=False) as found:
                state = State(*(found[f"state_{name}"] for name in State._fields))
                names = [f"trace_{name}" for name in Trace._fields]
                trace = Trace(*(found[n] for n in names)) if names[0] in found else None
            blocks.append((state, trace))
        return blocks

    def save(self, index: int, state: State, trace: Trace | None) -> None:
        """Save a block; only the first of several processes writes."""
        if jax.process_index() != 0:
            return
        arrays = {f"state_{name}": x for name, x in state._asdict().items()}
        if trace is not None:
            arrays |= {f"trace_{name}": x for name, x in trace._asdict().items()}
        with writing(self._folder):
            _write(self._folder / _BLOCK.format(index), lambda path: _save(path, arrays))


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


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as target:
        np.savez(target, allow_pickle=False, **arrays)
        target.flush()
        os.fsync(target.fileno())


def _write(path: Path, put: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    put(temporary)
    temporary.replace(path)
