"""Files of two-time data before any matrix is read: headers, and values in units."""

import dataclasses
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from twotime.data.containers import Array, Arrays, array_in, reading
from twotime.errors import DataError

Layout = Literal["aps-u", "aps-old", "esrf", "nxxpcs", "pychx", "cache", "hdf5", "npz", "npy"]

_MOST_NUMBERS = 10**7
_LARGEST_ANGLE = 3600.0


AXES = Literal["", "bin, t1, t2", "t1, t2, bin"]


@dataclasses.dataclass(frozen=True)
class Datasets:
    """Names of the arrays of a file; "" for what the file does not give.

    Attributes:
        c2: Correlations, an array or a group of numbered matrices.
        q: Wavevectors, one or one per matrix.
        phi: Angles, one or one per matrix.
        dt: Time between frames.
        t: Time of each frame.
        mask: Other than 0 where a point of c2 counts.
        sigma: Standard deviation, one or one per point.
        axes: Order of the axes of a three-dimensional c2; "" is bin, t1, t2.
    """

    c2: str
    q: str = ""
    phi: str = ""
    dt: str = ""
    t: str = ""
    mask: str = ""
    sigma: str = ""
    axes: AXES = ""


class Cells(NamedTuple):
    """Where values on (age, lag) lie: age is (t1 + t2) / 2 and lag is t2 - t1.

    Attributes:
        ages: Middle of each cell, counted from the first frame [frame].
        lags: Middle of each cell [frame].
        n_frames: Frames of the record.
    """

    ages: tuple[float, ...]
    lags: tuple[float, ...]
    n_frames: int

    def matrix(self, values: Float[np.ndarray, "age lag"]) -> Float[np.ndarray, "time time"]:
        """Values at the pairs of frames (t1, t2) in the middle of their cells; NaN elsewhere."""
        lags = np.array(self.lags)
        first = np.rint(np.array(self.ages)[:, None] - lags / 2).astype(int)
        second = first + np.floor(lags + 1e-6).astype(int)
        inside = (first >= 0) & (second < self.n_frames) & np.isfinite(values)
        matrix = np.full((self.n_frames, self.n_frames), np.nan)
        matrix[first[inside], second[inside]] = values[inside]
        return matrix


@dataclasses.dataclass(frozen=True)
class Bin:
    """One two-time matrix of a file and where it is stored.

    Attributes:
        q: Wavevector [1/Å]; None where the file does not give it.
        phi: Detector angle [degree]; None where the file does not give it.
        dataset: Name of the array that holds the matrix.
        position: Index of the matrix in that array; None where it is the whole array.
        last: Whether `position` counts along the last axis instead of the first.
        from_below: Whether the first row is the last frame, as in an image with its origin below.
        cells: For an array on (age, lag), where its values lie; None for one on (t1, t2).
    """

    q: float | None
    phi: float | None
    dataset: str
    position: int | None = None
    last: bool = False
    from_below: bool = False
    cells: Cells | None = None

    def cut(
        self, arrays: Arrays, rows: int | slice, columns: slice, name: str | None = None
    ) -> Shaped[np.ndarray, "..."]:
        """Read rows and columns of this matrix, or of the array `name` of the same shape."""
        array = array_in(arrays, name or self.dataset)
        if array.dtype.kind not in "fiub":
            raise DataError(f"{array.name} is of type {array.dtype}; expected real numbers.")
        if self.cells is not None:
            array.check_size((self.cells.n_frames,) * 2)
            return self.cells.matrix(array[self._at(slice(None), slice(None))])[rows, columns]
        if not self.from_below:
            return array[self._at(rows, columns)]
        last = array.shape[0 if self.last or self.position is None else 1] - 1
        if isinstance(rows, int):
            return array[self._at(last - rows, columns)]
        start, stop, _ = rows.indices(last + 1)
        return array[self._at(slice(last + 1 - stop, last + 1 - start), columns)][::-1]

    def _at(self, *index: int | slice) -> tuple[int | slice, ...]:
        """The index of this matrix in its array."""
        if self.position is None:
            return index
        return (*index, self.position) if self.last else (self.position, *index)

    def __str__(self) -> str:
        q = "q not given" if self.q is None else f"q = {self.q:.6g} 1/Å"
        phi = "phi not given" if self.phi is None else f"phi = {self.phi:g} degree"
        place = self.dataset if self.position is None else f"{self.dataset}[{self.position}]"
        return f"{q}, {phi} ({place})"


class PlacedBin(Bin):
    """A bin whose wavevector and angle are known."""

    q: float
    phi: float


@dataclasses.dataclass(frozen=True)
class TwoTimeFile:
    """Header of a two-time file: its matrices and its clock.

    Attributes:
        bins: The matrices it holds, in the file's order.
        dt: Time between frames of a matrix [s]; None where the file does not give it.
        several_dt: Frame times that the file gives for different detectors, in words.
        skipped: Time before the first frame of a matrix began, in frames; None where the file
            counts it from the end of an acquisition of unknown length.
        times: Time of each frame [s], for files that list them; None elsewhere.
        missing: Bins the file defines but holds no matrix for (masked or not processed).
        baseline: What the file says its numbers are where nothing is correlated: 1, or 0 for
            c2 - 1; None where it does not say.
        mask: Name of the array that is other than 0 where a point of c2 counts; "" without one.
        sigma: Name of the standard deviation, one or one per point; "" where there is none.
        notes: Sentences a user should read.
        n_frames: Frames of each matrix.
        layout: Name of its layout.
        path: The file.
    """

    bins: tuple[Bin, ...]
    dt: float | None = None
    several_dt: str = ""
    skipped: float | None = 0.0
    times: tuple[float, ...] | None = None
    missing: int = 0
    baseline: float | None = None
    mask: str = ""
    sigma: str = ""
    notes: tuple[str, ...] = ()
    n_frames: int = 0
    layout: Layout = "hdf5"
    path: Path = Path()


Numbers = Float[np.ndarray, "_"]
Counts = Int[np.ndarray, "_"]
Notes = tuple[str, ...]

_PER_ANGSTROM = {"a-1": 1.0, "1/a": 1.0, "nm-1": 0.1, "1/nm": 0.1, "m-1": 1e-10, "1/m": 1e-10}
_DEGREES = {"deg": 1.0, "degree": 1.0, "degrees": 1.0, "°": 1.0, "rad": 180 / np.pi}
_DEGREES |= {"radian": 180 / np.pi, "radians": 180 / np.pi}
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "": 1.0, "ms": 1e-3, "us": 1e-6}
_SECONDS |= {"µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
_SECONDS |= {"millisecond": 1e-3, "milliseconds": 1e-3, "microsecond": 1e-6, "microseconds": 1e-6}
_SECONDS |= {"nanoseconds": 1e-9, "minutes": 60.0, "hours": 3600.0}  # as xarray writes them


def matrix_in(arrays: Arrays, name: str) -> Array:
    """The array of a name, if it holds real numbers.

    Raises:
        DataError: If it does not, or as `array_in`.
    """
    array = array_in(arrays, name)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{array.name} is of type {array.dtype}; expected real numbers.")
    return array


def real_numbers(array: Array) -> Numbers:
    """All numbers of an array as a flat list.

    Raises:
        DataError: If it holds anything else, or is far too long.
    """
    if array.size > _MOST_NUMBERS:
        raise DataError(f"{array.name} has {array.size} entries; expected a list of few numbers.")
    values = np.ravel(array[()])
    with reading(array.name), np.errstate(all="ignore"):
        if values.dtype.kind == "c":
            raise DataError(f"{array.name} holds complex numbers; expected real ones.")
        return values.astype(np.float64)


def one_number(array: Array) -> float | None:
    """A number stored as a scalar or as equal entries of a list; None for an empty one.

    Raises:
        DataError: If there are several.
    """
    values = real_numbers(array)
    if values.size and not np.all((values == values[0]) | np.isnan(values)):
        raise DataError(
            f"{array.name} holds {values.size} numbers from {np.nanmin(values):g} to "
            f"{np.nanmax(values):g}; expected one number."
        )
    return float(values[0]) if values.size else None


class Values(NamedTuple):
    """Values of an open file; what is missing is None."""

    file: Arrays

    def __contains__(self, name: object) -> bool:
        return name in self.file

    def names(self, group: str = "") -> tuple[str, ...]:
        """What a group holds; nothing where there is no such group."""
        node = self.file if not group else self.file[group] if group in self.file else None
        return () if node is None or isinstance(node, Array) else tuple(sorted(node))

    def numbers(self, name: str) -> Numbers | None:
        """A dataset of any shape as a flat list."""
        return real_numbers(array_in(self.file, name)) if name in self.file else None

    def needed(self, name: str) -> Numbers:
        """As `numbers`, for a dataset that has to exist."""
        return real_numbers(array_in(self.file, name))

    def counts(self, name: str) -> Counts | None:
        """As `numbers`, for whole numbers."""
        values = self.numbers(name)
        if values is None:
            return None
        if not np.all(np.abs(values) < 2**53) or np.any(values % 1):
            raise DataError(f"{name} holds other than whole numbers; expected counts.")
        return values.astype(int)

    def number(self, name: str) -> float | None:
        """A number stored as a scalar or as equal entries of a list."""
        return one_number(array_in(self.file, name)) if name in self.file else None

    def seconds(self, name: str) -> float | None:
        """As `number`, for a time with an attribute `units`; seconds where there is none [s]."""
        value = self.number(name)
        return None if value is None else value * self._unit(name)

    def _unit(self, name: str) -> float:
        unit = self.attribute(name, "units", "s").strip()
        known = unit.lower() if len(unit) > 2 else unit  # Ms is no ms
        if known not in _SECONDS:
            raise DataError(f"{name} has the unit {unit!r}; expected s, ms, us, ns or min.")
        return _SECONDS[known]

    def needed_times(self, name: str) -> Numbers:
        """As `needed`, for times with an attribute `units` [s]."""
        return self.needed(name) * self._unit(name)

    def clock(self, frame_time: str, *factors: str) -> tuple[float | None, float]:
        """Time between frames of the matrices [s], and detector frames in each of them.

        Args:
            frame_time: Name of the time between detector frames.
            factors: Names of counts whose product is the detector frames in a frame of the
                matrices (stride, average); 1 where there is none.
        """
        product, dt = 1.0, self.seconds(frame_time)
        for name in factors:
            factor = self.number(name)
            if factor is not None and not 1 <= factor < 2**53:
                raise DataError(f"{name} is {factor:g}; expected a count of at least 1.")
            product *= 1.0 if factor is None else factor
        return None if dt is None else dt * product, product

    def texts(self, name: str) -> tuple[str, ...]:
        """Strings; none where there is no such dataset."""
        if name not in self.file:
            return ()
        array = array_in(self.file, name)
        if array.size > _MOST_NUMBERS:
            raise DataError(f"{name} has {array.size} entries; expected few texts.")
        return tuple(map(_text, np.ravel(array[()])))

    def attribute(self, node: str, name: str, default: str) -> str:
        """An attribute as text, or the default where it is not set."""
        found = self.file[node].attribute(name) if node in self.file else None
        items = [] if found is None else np.ravel(np.asarray(found)).tolist()
        return _text(items[0]) if items else default

    def numbered(self, group: str) -> dict[int, str]:
        """Matrices of a group by the number in their names, in rising order."""
        found = [(re.fullmatch(r"(?:c2|g2)_(\d{1,9})", name), name) for name in self.names(group)]
        names = {int(hit[1]): f"{group}/{name}" for hit, name in found if hit}
        if not names:
            raise DataError(f"{group} is empty; expected two-time matrices in it.")
        if len(names) < sum(hit is not None for hit, _ in found):
            raise DataError(f"{group} holds two matrices of one number; expected one of each.")
        return dict(sorted(names.items()))


class Reader(NamedTuple):
    """How files of one layout are recognised and read.

    Attributes:
        layout: Name of the layout.
        expected: What such files are and hold, in a few words.
        recognises: Whether an open file is of this layout.
        read: Gives the header of an open file; no matrix is read. `open_source` fills in the
            number of frames, the layout and the path.
    """

    layout: Layout
    expected: str
    recognises: Callable[[Values], bool]
    read: Callable[[Values], TwoTimeFile]


def in_per_angstrom(q: Numbers, unit: str) -> tuple[Numbers, Notes]:
    """Wavevectors [1/Å] from a unit as text, and a note where the unit is not known.

    A wrong guess does no harm: the wavevector of the configuration would not be found.
    """
    plain = unit.lower().translate(str.maketrans("å⁻¹", "a-1", "^{}() ")).replace("angstrom", "a")
    scale = _PER_ANGSTROM.get(plain)
    if scale is None:
        return q, (f"the file's unit of q is {unit!r}, which is not known; 1/Å assumed",)
    return q * scale, ()


def in_degrees(phi: Numbers, unit: str, source: str) -> Numbers:
    """Angles [degree] from a unit as text.

    Raises:
        DataError: If the unit, which `source` gives, is neither degree nor radian.
    """
    if unit.strip().lower() not in _DEGREES:
        raise DataError(f"angles have the unit {unit!r} ({source}); expected deg or rad.")
    return phi * _DEGREES[unit.strip().lower()]


def placeless(bins: Iterable[Bin]) -> tuple[Bin, ...]:
    """Bins whose wavevector or angle is no number that can be one."""

    def is_wrong(value: float | None, most: float) -> bool:
        return value is not None and not abs(value) <= most

    return tuple(b for b in bins if is_wrong(b.q, 1e4) or is_wrong(b.phi, _LARGEST_ANGLE))


def _text(item: object) -> str:
    return item.decode(errors="replace") if isinstance(item, bytes) else str(item)
