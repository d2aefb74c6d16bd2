"""Files of two-time data before any matrix is read: containers, headers, and values in units."""

import contextlib
import dataclasses
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from twotime.errors import DataError, DataNotFoundError

Layout = Literal["aps-u", "aps-old", "esrf", "nxxpcs", "hdf5", "npz", "npy"]
Container = Literal["hdf5", "npz", "npy"]
Arrays = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Bin:
    """One two-time matrix of a file and where it is stored.

    Attributes:
        q: Wavevector [1/Å]; None where the file does not give it.
        phi: Detector angle [degree]; None where the file does not give it.
        dataset: Name of the array that holds the matrix.
        position: Index of the matrix in that array; None where it is the whole array.
        last: Whether `position` counts along the last axis instead of the first.
    """

    q: float | None
    phi: float | None
    dataset: str
    position: int | None = None
    last: bool = False

    def cut(
        self, arrays: Arrays, rows: int | slice, columns: slice, name: str | None = None
    ) -> Shaped[np.ndarray, "..."]:
        """Read rows and columns of this matrix, or of the array `name` of the same shape."""
        index: tuple[int | slice, ...] = (rows, columns)
        if self.position is not None:
            index = (*index, self.position) if self.last else (self.position, *index)
        return np.asarray(arrays[name or self.dataset][index])

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
        skipped: Time before the first frame of a matrix began, in frames.
        times: Time of each frame [s], for files that list them; None elsewhere.
        missing: Bins the file defines but holds no matrix for (masked or not processed).
        baseline: What the file says its numbers are where nothing is correlated: 1, or 0 for
            c2 - 1; None where it does not say.
        extras: Names of further arrays of the shape of c2 or one number: "mask", "sigma".
        notes: Sentences a user should read.
        n_frames: Frames of each matrix.
        layout: Name of its layout.
        path: The file.
    """

    bins: tuple[Bin, ...]
    dt: float | None = None
    skipped: float = 0.0
    times: tuple[float, ...] | None = None
    missing: int = 0
    baseline: float | None = None
    extras: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    n_frames: int = 0
    layout: Layout = "hdf5"
    path: Path = Path()


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """Put the name of a file before the message of every data error inside the block."""
    try:
        yield
    except DataError as exc:
        if str(exc).startswith(f"{path}: "):
            raise
        raise type(exc)(f"{path}: {exc}") from exc.__cause__


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """Open a file of any supported container as a mapping from names to sliceable arrays.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If it is no HDF5, npz or npy file, or is damaged.
    """
    kind = container(path)
    with about(path):
        if kind != "hdf5":
            yield _load(path, kind)
            return
        import h5py  # here and below: only for those who read or write HDF5
        import hdf5plugin  # noqa: F401  registers the compression filters used at beamlines

        try:
            with h5py.File(path, "r") as file:
                yield file
        except OSError as exc:  # also of any read inside the block
            raise DataError(
                f"the HDF5 file cannot be read ({exc}); it is truncated, damaged or open for "
                "writing elsewhere; copy it again."
            ) from exc


def _load(path: Path, kind: Container) -> Arrays:
    try:
        if kind == "npy":
            return {"array": np.load(path, mmap_mode="r", allow_pickle=False)}
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as npz:
            return dict(npz)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as exc:
        raise DataError(
            f"the {kind} file cannot be read ({exc}); expected complete arrays of "
            "numbers without pickled objects; copy or save the file again."
        ) from exc


def container(path: Path) -> Container:
    """Which container a file is, from its first bytes and never from its name.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If it is none of them or may not be read.
    """
    if not path.exists():
        raise DataNotFoundError(
            f"{path}: there is no such data file; correct experimental_data.file_path."
        )
    if not path.is_file():
        raise DataError(f"{path}: expected a data file, got a folder; name the file inside it.")
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except PermissionError as exc:
        raise DataError(f"{path}: the data file may not be read; change its permissions.") from exc
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PK"):
        return "npz"
    import h5py

    if h5py.is_hdf5(path):
        return "hdf5"
    raise DataError(
        f"{path}: this is not a two-time data file, it begins with {head!r}; "
        "expected HDF5, npz or npy content, whatever the file's name."
    )


Numbers = Float[np.ndarray, "_"]
Notes = tuple[str, ...]

_PER_ANGSTROM = {"a-1": 1.0, "1/a": 1.0, "nm-1": 0.1, "1/nm": 0.1}


class Values(NamedTuple):
    """Values of an open HDF5 file; what is missing is None."""

    file: Arrays

    def __contains__(self, name: object) -> bool:
        return name in self.file

    def numbers(self, name: str) -> Numbers | None:
        """A dataset of any shape as a flat list."""
        return np.ravel(self.file[name][()]).astype(np.float64) if name in self.file else None

    def needed(self, name: str) -> Numbers:
        """As `numbers`, for a dataset that has to exist."""
        values = self.numbers(name)
        if values is None:
            raise DataError(f"{name} is missing; expected a list of numbers.")
        return values

    def number(self, name: str) -> float | None:
        """A number stored as a scalar or as an array of one entry."""
        values = self.numbers(name)
        return None if values is None or values.size == 0 else float(values[0])

    def clock(self, frame_time: str, *factors: str) -> tuple[float | None, float]:
        """Time between frames of the matrices [s], and detector frames in each of them.

        Args:
            frame_time: Name of the time between detector frames [s].
            factors: Names of counts whose product is the detector frames in a frame of the
                matrices (stride, average); 1 where there is none.
        """
        product, dt = 1.0, self.number(frame_time)
        for name in factors:
            factor = self.number(name)
            if factor is not None and not factor >= 1:
                raise DataError(f"{name} is {factor:g}; expected a count of at least 1.")
            product *= 1.0 if factor is None else factor
        return None if dt is None else dt * product, product

    def texts(self, name: str) -> tuple[str, ...]:
        """Strings; none where there is no such dataset."""
        return tuple(map(_text, np.ravel(self.file[name][()]))) if name in self.file else ()

    def attribute(self, node: str, name: str, default: str) -> str:
        """An attribute as text, or the default where it is not set."""
        found = self.file[node].attrs.get(name)
        return default if found is None else _text(np.ravel(found)[0])

    def numbered(self, group: str) -> dict[int, str]:
        """Matrices of a group by the number in their names, in rising order."""
        found = ((re.fullmatch(r"(?:c2|g2)_(\d+)", name), name) for name in self.file[group])
        names = {int(hit[1]): f"{group}/{name}" for hit, name in found if hit}
        if not names:
            raise DataError(f"{group} is empty; expected two-time matrices in it.")
        return dict(sorted(names.items()))


class Reader(NamedTuple):
    """How files of one layout are recognised and read.

    Attributes:
        layout: Name of the layout.
        expected: What such files are and hold, in a few words.
        recognises: Whether an open HDF5 file is of this layout.
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


def _text(item: object) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)
