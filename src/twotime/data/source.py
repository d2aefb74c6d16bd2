"""Files of two-time data before any matrix is read: containers, and headers of all layouts."""

import contextlib
import dataclasses
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

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
