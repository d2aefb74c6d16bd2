"""What a two-time file holds, told without a configuration."""

import contextlib
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from twotime.data.containers import Arrays, about, open_arrays
from twotime.data.dataset import TwoTimeData
from twotime.data.matrices import is_empty, without_damage
from twotime.data.readers import open_source
from twotime.data.source import Bin, TwoTimeFile
from twotime.data.stripes import stripe_notes
from twotime.errors import DataError
from twotime.kinds import checked
from twotime.tables import LINES

_WHOLE = 1500
"""Frames up to which matrices are read whole; of longer ones a few rows."""
_ROWS = 48
_LONG = 0.7
"""Lags from this part of the record on are long, as before a fit."""
_SYMMETRIC = 1e-5


class BinSummary(NamedTuple):
    """What one matrix looks like; shares are of the points off the diagonal that were read.

    Attributes:
        bin: The matrix.
        level: Mean of c2 at long lags.
        contrast: Mean of c2 between neighbouring frames, less `level`.
        zeros: Share of points that are exactly 0 in the stored half.
        not_finite: Share of points that are not finite in the stored half.
        stored: "upper", "lower", "symmetric" or "not symmetric".
        stripes: Sentences on frames that do not belong; None where only rows were read.
        is_empty: Whether it was never filled (constant 0 or -1, or without any finite number).
    """

    bin: Bin
    level: float
    contrast: float
    zeros: float
    not_finite: float
    stored: str
    stripes: tuple[str, ...] | None
    is_empty: bool

    def __str__(self) -> str:
        if self.is_empty:
            return f"empty   {self.bin}"
        return (
            f"c2      {self.bin}: {self.level:.4g} at long lags, contrast {self.contrast:.3g}, "
            f"{self.stored}, {self.zeros:.2%} zeros, {self.not_finite:.2%} not finite"
        )


class FileSummary(NamedTuple):
    """What a two-time file holds; printing it gives a table of a few lines.

    Attributes:
        file: Header of the file.
        bins: What each matrix that can be read looks like.
    """

    file: TwoTimeFile
    bins: tuple[BinSummary, ...]

    @property
    def empty(self) -> tuple[Bin, ...]:
        """Bins whose matrix was never filled."""
        return tuple(b.bin for b in self.bins if b.is_empty)

    @property
    def q(self) -> tuple[float, ...]:
        """Wavevectors in the file, rising [1/Å]; empty where it does not give them."""
        return tuple(sorted({b.q for b in self.file.bins if b.q is not None}))

    def phi(self, q: float) -> tuple[float, ...]:
        """Angles of the bins at one of the wavevectors `q`, in the file's order [degree]."""
        return tuple(b.phi for b in self.file.bins if b.q == q and b.phi is not None)

    def __repr__(self) -> str:
        lines = str(self).split("\n")
        left = len(lines) - LINES
        return "\n".join([*lines[:LINES], *([f"… and {left} lines more"] if left > 0 else [])])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"

    def __str__(self) -> str:
        file = self.file
        lines = [
            f"file    {file.path}",
            f"layout  {file.layout}",
            f"frames  {file.n_frames}",
            f"dt      {_step(file)}",
            f"bins    {len(file.bins)} with a matrix, {file.missing} masked or not processed, "
            f"{len(self.empty)} empty",
        ]
        for q in self.q:
            angles = " ".join(f"{phi:g}" for phi in self.phi(q))
            lines.append(f"q       {q:.6g} 1/Å, phi {angles or 'not in the file'} degree")
        if not self.q:
            lines.append("q       not in the file; give q, phi and dt in the configuration")
        lines += map(str, self.bins)
        stripes = {note for b in self.bins for note in b.stripes or ()}
        return "\n".join([*lines, *(f"note    {note}" for note in (*file.notes, *sorted(stripes)))])


def _step(file: TwoTimeFile) -> str:
    if file.several_dt:
        return f"not clear: {file.several_dt}"
    if file.dt is not None:
        return f"{file.dt:.9g} s"
    return "not in the file" if file.times is None else "frames are not equally spaced"


@checked
def inspect_file(path: Path | str, *, angle_last: bool = False) -> FileSummary:
    """Summarise a two-time file: its layout and axes, and what each matrix looks like.

    Matrices of many frames are not read whole, but on some rows.

    Args:
        path: The file.
        angle_last: As in `open_source`.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: As in `open_source`.
    """
    header = open_source(Path(path), angle_last=angle_last)
    with about(header.path), open_arrays(header.path) as file:
        bins = list[BinSummary]()
        for b in header.bins:
            with contextlib.suppress(DataError):  # the header says why it cannot be read
                bins.append(_summary(b, file, header.n_frames))
    return FileSummary(header, tuple(bins))


def _summary(b: Bin, file: Arrays, n_frames: int) -> BinSummary:
    """What a matrix looks like on some of its rows."""
    is_whole = n_frames <= _WHOLE
    rows = np.arange(n_frames) if is_whole else _some(n_frames)
    if is_whole or b.cells is not None:
        values = b.cut(file, slice(None), slice(None))[rows]
    else:
        values = np.stack([b.cut(file, int(row), slice(None)) for row in rows])
    values = without_damage(values, np.dtype(float))
    columns = np.arange(n_frames)
    lag = columns - rows[:, None]
    above, below = values[lag > 0], values[lag < 0]
    stored = _stored(values[:, rows], above, below)
    half, side = (below, lag < 0) if stored == "lower" else (above, lag > 0)
    finite = side & np.isfinite(values)
    far = np.abs(lag) >= _LONG * (n_frames - 1)
    level = _mean(values[finite & far])
    count = max(half.size, 1)
    return BinSummary(
        bin=b,
        level=level,
        contrast=_mean(values[finite & (np.abs(lag) == 1)]) - level,
        zeros=np.count_nonzero(half == 0) / count,
        not_finite=np.count_nonzero(~np.isfinite(half)) / count,
        stored=stored,
        stripes=_stripes(values, stored) if is_whole and b.cells is None else None,
        is_empty=is_empty(np.concatenate([above, below])),
    )


def _some(n_frames: int) -> np.ndarray:
    """Rows spread over a record."""
    return np.unique(np.linspace(0, n_frames - 1, _ROWS).astype(int))


def _mean(values: Float[np.ndarray, "_"]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _stored(
    square: Float[np.ndarray, "row row"], above: Float[np.ndarray, "_"],
    below: Float[np.ndarray, "_"],
) -> str:  # fmt: skip
    """Which half holds numbers, or whether both are alike."""
    has = [bool(np.any(np.isfinite(x) & (x != 0))) for x in (above, below)]
    if not all(has):
        return "lower" if has[1] else "upper"
    both = np.isfinite(square) & np.isfinite(square.T)
    differ = np.abs(square - square.T)[both]
    largest = np.max(np.abs(square[both]), initial=0.0)
    return "symmetric" if np.all(differ <= _SYMMETRIC * largest) else "not symmetric"


def _stripes(values: Float[np.ndarray, "time time"], stored: str) -> tuple[str, ...]:
    """Sentences on frames that do not belong."""
    half = np.triu(values.T if stored == "lower" else values, 1)
    n = half.shape[0]
    data = TwoTimeData((half + half.T)[None], np.arange(1.0, n + 1), np.ones(()), np.zeros(1))
    return stripe_notes(data, 1) if n > 1 else ()
