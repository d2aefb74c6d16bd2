"""From a two-time file and a selection to the data of one fit, with an account of what was done."""

import hashlib
from pathlib import Path

import equinox as eqx
import numpy as np

from twotime.data.dataset import TwoTimeData
from twotime.data.files import open_source
from twotime.data.matrices import read_matrices
from twotime.data.selection import SAME_Q, Selection, frame_times, select_bins, select_frames
from twotime.data.source import DataError, PlacedBin, TwoTimeFile


class LoadReport(eqx.Module):
    """Where data came from and what was left out on the way.

    Attributes:
        path: The file.
        sha256: Checksum of the file.
        layout: Name of its layout.
        q: Wavevector found [1/Å].
        frames: First and last selected frame, counted from 1, both included.
        n_frames_in_file: Frames of the file's matrices.
        dt: Time between frames [s]; None for times that are not equally spaced.
        n_angles: Matrices used.
        empty: Matrices of this wavevector that were never filled and are left out.
        n_pixels: Pixels with t1 < t2 that are used.
        n_masked: Pixels with t1 < t2 that are not finite, masked in the file, or without light.
        notes: Sentences a user should read.
    """

    path: str
    sha256: str
    layout: str
    q: float
    frames: tuple[int, int]
    n_frames_in_file: int
    dt: float | None
    n_angles: int
    empty: tuple[str, ...]
    n_pixels: int
    n_masked: int
    notes: tuple[str, ...]


def load_file(path: Path, selection: Selection) -> tuple[TwoTimeData, LoadReport]:
    """Read one wavevector of a two-time file.

    Stored triangles are completed by symmetry, full matrices are taken as they are. The
    diagonal (shot noise) and pixels that are not finite are masked; no number is changed.

    Args:
        path: The file.
        selection: What to take from it.

    Returns:
        The data, and an account of them.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged or the selection cannot be made from it.
    """
    path = Path(path)
    file = open_source(path, angle_last=selection.roi_axis == "last")
    if selection.layout not in ("auto", file.layout):
        raise DataError(
            f"{path}: the layout is {file.layout} but experimental_data.file_format is "
            f"{selection.layout}; leave file_format out to have the layout recognised."
        )
    q, bins = select_bins(file, selection)
    first, last = select_frames(file, selection)
    dt, t = frame_times(file, selection, first, last)
    _check_size(file, bins, t.size, selection.memory_limit)
    window = slice(first - 1, last)
    read = read_matrices(file, bins, window, average_triangles=selection.average_triangles)
    n_pixels = int(np.count_nonzero(read.mask)) // 2
    report = LoadReport(
        path=str(path),
        sha256=_sha256(path),
        layout=file.layout,
        q=q,
        frames=(first, last),
        n_frames_in_file=file.n_frames,
        dt=dt,
        n_angles=len(read.kept),
        empty=tuple(str(b) for b in read.empty),
        n_pixels=n_pixels,
        n_masked=len(read.kept) * t.size * (t.size - 1) // 2 - n_pixels,
        notes=file.notes + _notes(file, selection, q) + read.notes,
    )
    phi = np.array([b.phi for b in read.kept], float)
    return TwoTimeData(read.c2, t, np.asarray(q), phi, mask=read.mask, sigma=read.sigma), report


def _notes(file: TwoTimeFile, selection: Selection, q: float) -> tuple[str, ...]:
    notes = []
    if abs(q - selection.q) > SAME_Q * abs(q):
        notes.append(f"q = {q:.6g} 1/Å is the file's nearest to the {selection.q:.6g} asked for")
    if q > 1:
        notes.append(f"q = {q:g} is large for 1/Å: values in 1/nm must be divided by 10")
    if selection.phi_angles is None and any(b.phi is None for b in file.bins):
        notes.append("the file does not say the angle of its matrix: phi = 0")
    if file.skipped and selection.t0 is None:
        notes.append(f"the first frame of the file is preceded by {file.skipped:g} frames")
    if selection.dt is not None and file.dt is not None and selection.dt_source is not None:
        notes.append(
            f"dt of the {selection.dt_source} is used, as analyzer_parameters.dt_source says"
        )
    return tuple(notes)


def _check_size(
    file: TwoTimeFile, bins: tuple[PlacedBin, ...], n_frames: int, limit: float | None
) -> None:
    # Double precision and a mask; no file gives more.
    size = len(bins) * n_frames**2 * 9
    if limit is not None and size > limit:
        raise DataError(
            f"{file.path}: {len(bins)} matrices of {n_frames} frames take up to "
            f"{size / 1e9:.3g} GB, hardware.memory_limit_gb is {limit / 1e9:.3g}; select fewer "
            "frames or angles, or raise the limit."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
