"""Layouts of two-time files, one module each; the content of a file decides, not its name.

To add a layout, write a module with `READERS` like those here and add it to `READERS` below.
"""

import contextlib
import dataclasses
import itertools
from collections import Counter
from pathlib import Path

import numpy as np

from twotime.data.containers import Array, Arrays, about, container, open_arrays
from twotime.data.readers import aps, arrays, esrf, nxxpcs
from twotime.data.source import (
    Bin,
    Datasets,
    Layout,
    Reader,
    TwoTimeFile,
    Values,
    matrix_in,
    placeless,
)
from twotime.errors import DataError

READERS: tuple[Reader, ...] = (
    *aps.READERS, *esrf.READERS, *nxxpcs.READERS, *arrays.READERS
)  # fmt: skip
"""Readers of files with named arrays; the first that recognises a file reads it."""

_SHOWN = 20
_NAMED = 5
_LOOKED = 50
_INCOMPLETE = (
    ("xpcs/twotime/correlation_map", "xpcs/qmap/dynamic_v_list_dim0"),
    ("exchange/C2T_all", "xpcs/dqlist"),
)  # fmt: skip
"""Matrices of a layout, and what makes it that layout."""


def open_source(
    path: Path, *, angle_last: bool = False, datasets: Datasets | None = None
) -> TwoTimeFile:
    """Read the header of a two-time file; no matrix is read.

    Bins whose wavevector or angle is no number are left out, with a note. A matrix that cannot be
    read, as behind a link to nothing, is an error only where all are so; a note says which.

    Args:
        path: HDF5 of one of the layouts in `READERS`, npz or npy.
        angle_last: Whether an npy array is (time, time, angle) instead of (angle, time, time).
        datasets: Names of the arrays, for files of no known layout.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged, of no known layout, or contradicts itself.
    """
    kind = container(path)
    # What comes of absurd numbers is looked at after they are converted.
    with about(path), open_arrays(path) as file, np.errstate(all="ignore"):
        layout: Layout = kind
        if datasets is not None:
            header = arrays.read_named(Values(file), datasets)
        elif kind == "npy":
            header = arrays.read_npy(Values(file), angle_last=angle_last)
        else:
            reader = _reader_of(Values(file))
            is_plain = kind == "npz" and reader.layout == "hdf5"
            layout, header = "npz" if is_plain else reader.layout, reader.read(Values(file))
        header = _without_placeless(header)
        n_frames, unread = _frame_count(file, header.bins)
    notes = (*header.notes, *unread, *_twice(header.bins))
    return dataclasses.replace(header, n_frames=n_frames, layout=layout, path=path, notes=notes)


def _reader_of(file: Values) -> Reader:
    for reader in READERS:
        if reader.recognises(file):
            return reader
    known = " or ".join(reader.expected for reader in READERS)
    raise DataError(
        f"the layout of this file is not known, {_held(file)}; expected {known}; name "
        "the arrays in experimental_data.layout, or correlate again."
    )


def _held(file: Values) -> str:
    """What a file holds, in a few words."""
    for matrices, axis in _INCOMPLETE:
        if matrices in file:
            return f"it holds {matrices} without {axis}"
    if "xpcs/multitau" in file or "xpcs/qmap" in file:
        return "an APS file with one-time results or a map, but without xpcs/twotime"
    held = [f"{name} ({_kind(file, name)})" for name in file.names()]
    inside = [f"{name} ({_kind(file, name)})" for name in _squares(file.file)]
    told = f"; in its groups are {', '.join(inside[:_NAMED])}" if inside else ""
    return f"its root holds {', '.join(held[:_SHOWN]) or 'nothing'}{told}"


def _squares(root: Arrays) -> list[str]:
    """Names of arrays inside the groups of a file that may be two-time matrices."""
    found, groups = list[str](), [root]
    for group in itertools.islice(groups, _LOOKED):  # grows while it is gone through
        for name in list(group)[:_LOOKED]:
            with contextlib.suppress(DataError):
                node = group[name]
                if not isinstance(node, Array):
                    groups.append(node)
                elif group is not root and _is_square(node.shape):
                    found.append(node.name)
    return found


def _is_square(shape: tuple[int, ...]) -> bool:
    return len(shape) in (2, 3) and any(a == b > 1 for a, b in itertools.pairwise(shape))


def _kind(file: Values, name: str) -> str:
    """The shape of an array, or what else a name stands for."""
    try:
        node = file.file[name]
    except DataError:
        return "not readable"
    if not isinstance(node, Array):
        return "group"
    return "x".join(map(str, node.shape)) or "a number"


def _without_placeless(header: TwoTimeFile) -> TwoTimeFile:
    """A header without bins whose q or angle is no number."""
    out = placeless(header.bins)
    if not out:
        return header
    if len(out) == len(header.bins):
        raise DataError(
            f"no matrix has a q and an angle that are numbers, the first is {out[0]}; expected "
            "them; correct the file, or name other arrays in experimental_data.layout."
        )
    note = f"left out, as q or phi is no number: {'; '.join(map(str, out[:_NAMED]))}"
    more = f" and {len(out) - _NAMED} more" if len(out) > _NAMED else ""
    kept = tuple(b for b in header.bins if b not in out)
    return dataclasses.replace(
        header, bins=kept, missing=header.missing + len(out), notes=(*header.notes, note + more)
    )


def _twice(bins: tuple[Bin, ...]) -> tuple[str, ...]:
    """A note on matrices that have wavevector and angle in common."""
    places = Counter((b.q, b.phi % 360) for b in bins if b.phi is not None)
    twice = [(q, phi) for (q, phi), count in places.items() if count > 1]
    if not twice:
        return ()
    q, phi = twice[0]
    where = "no q in the file" if q is None else f"q = {q:.6g} 1/Å"
    more = f", and {len(twice) - 1} more such" if len(twice) > 1 else ""
    return (
        f"several matrices have {where} and phi = {phi:g} degree{more}; they count as independent "
        "data",
    )


def _frame_count(file: Arrays, bins: tuple[Bin, ...]) -> tuple[int, tuple[str, ...]]:
    """Number of frames, the same for every matrix of the file, and notes on unreadable ones."""
    counts, notes, first = set[int](), list[str](), None
    for dataset, b in {b.dataset: b for b in bins}.items():
        try:
            array = matrix_in(file, dataset)
        except DataError as exc:
            first = first or exc
            notes.append(str(exc))
        else:
            counts.add(_frames_of(array, b))
    if not counts and first is not None:
        raise first
    if len(counts) != 1:
        raise DataError(f"matrices have {min(counts)} to {max(counts)} frames; expected one size.")
    if counts == {1}:
        raise DataError("matrices have 1 frame; expected at least 2.")
    return counts.pop(), tuple(notes[:_NAMED])


def _frames_of(array: Array, b: Bin) -> int:
    array.check_size()
    if b.cells is not None:
        return b.cells.n_frames
    square = array.shape[:2] if b.last else array.shape[-2:]
    if len(square) != 2 or square[0] != square[1] or array.ndim != 2 + (b.position is not None):
        raise DataError(
            f"{array.name} has shape {array.shape}; expected a square matrix over frames."
        )
    return int(square[0])
