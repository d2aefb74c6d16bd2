"""Layouts of two-time files, one module each; the content of a file decides, not its name.

To add a layout, write a module with `READERS` like those here and add it to `READERS` below.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from twotime.data.matrices import is_empty
from twotime.data.readers import aps, arrays, nxxpcs
from twotime.data.source import (
    Arrays,
    Bin,
    Layout,
    Reader,
    TwoTimeFile,
    Values,
    container,
    open_arrays,
)
from twotime.errors import DataError

_PROBED_ROWS = 4


def _refuse_esrf(file: Values) -> TwoTimeFile:
    raise DataError(
        f"this is the ESRF layout ({', '.join(sorted(file.file['entry_0000/correlations']))} in "
        "entry_0000/correlations), which stores (age, lag) with logarithmic lags; expected "
        "matrices on (t1, t2); correlate again with the (t1, t2) output."
    )


_ESRF = Reader("esrf", "", lambda file: "entry_0000/correlations" in file, _refuse_esrf)

READERS: tuple[Reader, ...] = (*aps.READERS, _ESRF, *nxxpcs.READERS, *arrays.READERS)
"""Readers of HDF5 files; the first that recognises a file reads it."""


class FileSummary(NamedTuple):
    """What a two-time file holds; printing it gives a table of a few lines.

    Attributes:
        file: Header of the file.
        empty: Bins whose matrix was never filled (constant, or without any finite number).
    """

    file: TwoTimeFile
    empty: tuple[Bin, ...]

    @property
    def q(self) -> tuple[float, ...]:
        """Wavevectors in the file, rising [1/Å]; empty where it does not give them."""
        return tuple(sorted({b.q for b in self.file.bins if b.q is not None}))

    def phi(self, q: float) -> tuple[float, ...]:
        """Angles of the bins at one of the wavevectors `q`, in the file's order [degree]."""
        return tuple(b.phi for b in self.file.bins if b.q == q and b.phi is not None)

    def __str__(self) -> str:
        file = self.file
        lines = [
            f"file    {file.path}",
            f"layout  {file.layout}",
            f"frames  {file.n_frames}",
            f"dt      {'not in the file' if file.dt is None else f'{file.dt:.9g} s'}",
            f"bins    {len(file.bins)} with a matrix, {file.missing} masked or not processed, "
            f"{len(self.empty)} empty",
        ]
        for q in self.q:
            angles = " ".join(f"{phi:g}" for phi in self.phi(q))
            lines.append(f"q       {q:.6g} 1/Å, phi {angles or 'not in the file'} degree")
        if not self.q:
            lines.append("q       not in the file; give q, phi and dt in the configuration")
        lines += [f"empty   {b}" for b in self.empty] + [f"note    {note}" for note in file.notes]
        return "\n".join(lines)


def open_source(path: Path, *, angle_last: bool = False) -> TwoTimeFile:
    """Read the header of a two-time file; no matrix is read.

    Args:
        path: HDF5 (APS-U, APS 8-ID before APS-U, NXxpcs, or arrays at the root), npz or npy.
        angle_last: Whether an npy array is (time, time, angle) instead of (angle, time, time).

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged, of no known layout, or contradicts itself.
    """
    with open_arrays(path) as file:
        layout: Layout = container(path)
        if layout == "npy":
            header = arrays.read_arrays(file, "array", angle_last=angle_last)
        elif layout == "npz":
            header = arrays.read_arrays(file)
        else:
            reader = _reader_of(Values(file))
            layout, header = reader.layout, reader.read(Values(file))
        n_frames = _frame_count(file, header.bins)
    return dataclasses.replace(header, n_frames=n_frames, layout=layout, path=path)


def _reader_of(file: Values) -> Reader:
    for reader in READERS:
        if reader.recognises(file):
            return reader
    known = " or ".join(reader.expected for reader in READERS if reader.expected)
    raise DataError(
        "the layout of this HDF5 file is not known, its root holds "
        f"{', '.join(sorted(file.file)) or 'nothing'}; expected {known}."
    )


def _frame_count(arrays: Arrays, bins: tuple[Bin, ...]) -> int:
    """Number of frames, the same for every matrix of the file."""
    counts = set[int]()
    for dataset, last in {b.dataset: b.last for b in bins}.items():
        shape = arrays[dataset].shape
        square = shape[:2] if last else shape[-2:]
        if len(square) != 2 or square[0] != square[1]:
            raise DataError(f"{dataset} has shape {shape}; expected a square matrix over frames.")
        counts.add(square[0])
    if len(counts) != 1:
        raise DataError(f"matrices have {min(counts)} to {max(counts)} frames; expected one size.")
    return int(counts.pop())


def inspect_file(path: Path | str, *, angle_last: bool = False) -> FileSummary:
    """Summarise a two-time file, reading a few rows of each matrix.

    Args:
        path: The file.
        angle_last: As in `open_source`.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: As in `open_source`.
    """
    header = open_source(Path(path), angle_last=angle_last)
    rows = np.linspace(0, header.n_frames - 1, _PROBED_ROWS).astype(int).tolist()
    empty = list[Bin]()
    with open_arrays(header.path) as file:
        for b in header.bins:
            off_diagonal = [np.delete(b.cut(file, row, slice(None)), row) for row in rows]
            if is_empty(np.concatenate(off_diagonal)):
                empty.append(b)
    return FileSummary(header, tuple(empty))
