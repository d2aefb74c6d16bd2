"""Recognise the layout of an HDF5 file.

Every reader is a function of the path (for messages) and the open file, and reads no matrix.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import h5py
import numpy as np
from jaxtyping import Shaped

from twotime.data.readers.aps import APSU_MAPS, analyses, read_aps_old, read_apsu
from twotime.data.readers.arrays import read_arrays
from twotime.data.readers.nxxpcs import NX_C2, read_nxxpcs
from twotime.data.source import Bin, TwoTimeFile, container, open_arrays
from twotime.errors import DataError


def read_header(path: Path, file: h5py.File) -> TwoTimeFile:
    """Recognise the layout of an open HDF5 file and read its header.

    Args:
        path: The file, for messages.
        file: The open file.

    Raises:
        DataError: If the layout is not known or contradicts itself.
    """
    for has_layout, read in _LAYOUTS:
        if has_layout(file):
            return read(path, file)
    if "c2" in file:
        return read_arrays(path, file, "hdf5")
    raise DataError(
        f"{path}: the layout of this HDF5 file is not known, its root holds "
        f"{', '.join(sorted(file)) or 'nothing'}; expected APS-U ({APSU_MAPS}), APS 8-ID before "
        f"APS-U (exchange/C2T_all), NXxpcs ({NX_C2}) or an array c2 at the root."
    )


def _refuse_esrf(path: Path, file: h5py.File) -> TwoTimeFile:
    raise DataError(
        f"{path}: this is the ESRF layout ({', '.join(sorted(file['entry_0000/correlations']))} in "
        "entry_0000/correlations), which stores (age, lag) with logarithmic lags; expected "
        "matrices on (t1, t2); correlate again with the (t1, t2) output."
    )


_LAYOUTS: tuple[
    tuple[Callable[[h5py.File], bool], Callable[[Path, h5py.File], TwoTimeFile]], ...
] = (
    (lambda file: APSU_MAPS in file and "xpcs/qmap/dynamic_v_list_dim0" in file, read_apsu),
    (lambda file: bool(analyses(file)), read_aps_old),
    (lambda file: "entry_0000/correlations" in file, _refuse_esrf),
    (lambda file: NX_C2 in file, read_nxxpcs),
)


_PROBED_ROWS = 4


class FileSummary(eqx.Module):
    """What a two-time file holds; printing it gives a table of a few lines.

    Attributes:
        file: Header of the file.
        empty: Bins whose matrix was never filled (constant, or without any finite number).
    """

    file: TwoTimeFile
    empty: tuple[Bin, ...]

    @property
    def q(self) -> tuple[float, ...]:
        """Wavevectors in the file, rising [1/Å]; empty where it does not say them."""
        return tuple(sorted({b.q for b in self.file.bins if b.q is not None}))

    def phi(self, q: float) -> tuple[float, ...]:
        """Angles of the bins at one of the wavevectors `q`, in the file's order [degree]."""
        return tuple(b.phi for b in self.file.bins if b.q == q and b.phi is not None)

    def __str__(self) -> str:
        file = self.file
        dt = "not in the file" if file.dt is None else f"{file.dt:.9g} s"
        lines = [
            f"file    {file.path}",
            f"layout  {file.layout}",
            f"frames  {file.n_frames}",
            f"dt      {dt}",
            f"bins    {len(file.bins)} with a matrix, {file.missing} masked or not processed, "
            f"{len(self.empty)} empty",
        ]
        for q in self.q:
            angles = " ".join(f"{phi:g}" for phi in self.phi(q))
            lines.append(f"q       {q:.6g} 1/Å, phi {angles or 'not in the file'} degree")
        if not self.q:
            lines.append("q       not in the file: give q, phi and dt in the configuration")
        lines += [f"empty   {b}" for b in self.empty] + [f"note    {note}" for note in file.notes]
        return "\n".join(lines)


def open_source(path: Path, *, angle_last: bool = False) -> TwoTimeFile:
    """Read the header of a two-time file; no matrix is read.

    Args:
        path: HDF5 (APS-U, APS 8-ID before APS-U, NXxpcs, or arrays at the root), npz or npy.
        angle_last: Whether an npy array is (time, time, angle) instead of (angle, time, time).

    Returns:
        Layout, bins, frames and clock.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged, of no known layout, or contradicts itself.
    """
    with open_arrays(path) as arrays:
        kind = container(path)
        if kind == "npy":
            return read_arrays(path, arrays, kind, angle_last=angle_last)
        if kind == "npz":
            return read_arrays(path, arrays, kind)
        pass

        return read_header(path, arrays)


def inspect_file(path: Path, *, angle_last: bool = False) -> FileSummary:
    """Say what a two-time file holds, reading a few rows of each matrix.

    Args:
        path: The file.
        angle_last: As in `open_source`.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: As in `open_source`.
    """
    path = Path(path)
    file = open_source(path, angle_last=angle_last)
    with open_arrays(path) as arrays:
        empty = tuple(b for b in file.bins if _looks_empty(arrays, b, file.n_frames))
    return FileSummary(file, empty)


def cut(
    arrays: Mapping[str, Any], b: Bin, frames: slice, name: str | None = None
) -> Shaped[np.ndarray, "time time"]:
    """One matrix, or the companion array `name` of the same shape, on a range of frames."""
    return np.asarray(arrays[name or b.dataset][b.index(frames, frames)])


def is_empty(values: Shaped[np.ndarray, "..."]) -> bool:
    """Whether correlations were never filled: all 0, all -1, or none of them finite."""
    finite = values[np.isfinite(values)]
    return bool(np.all(finite == 0) or np.all(finite == -1))


def _looks_empty(arrays: Mapping[str, Any], b: Bin, n_frames: int) -> bool:
    rows = np.linspace(0, n_frames - 1, _PROBED_ROWS).astype(int)
    pieces = []
    for row in rows.tolist():
        values = np.asarray(arrays[b.dataset][b.index(row, slice(None))])
        pieces.append(np.delete(values, row))
    return is_empty(np.concatenate(pieces))
