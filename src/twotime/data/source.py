"""What a two-time file says of itself before any matrix is read."""

import contextlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import h5py
import numpy as np
from jaxtyping import Float

from twotime.errors import DataError, DataNotFoundError

Layout = Literal["aps-u", "aps-old", "nxxpcs", "hdf5", "npz", "npy"]


class Bin(eqx.Module):
    """One two-time matrix of a file and where it is stored.

    Attributes:
        q: Wavevector [1/Å]; None where the file does not say it.
        phi: Detector angle [degree]; None where the file does not say it.
        dataset: Name of the array that holds the matrix.
        position: Index of the matrix in that array; None where it is the whole array.
        last: Whether `position` counts along the last axis instead of the first.
    """

    q: float | None
    phi: float | None
    dataset: str
    position: int | None = None
    last: bool = False

    def index(self, rows: int | slice, columns: slice) -> tuple[int | slice, ...]:
        """Index that cuts rows and columns of this matrix out of its array."""
        if self.position is None:
            return (rows, columns)
        return (rows, columns, self.position) if self.last else (self.position, rows, columns)

    def __str__(self) -> str:
        q = "q not given" if self.q is None else f"q = {self.q:.6g} 1/Å"
        phi = "phi not given" if self.phi is None else f"phi = {self.phi:g} degree"
        place = self.dataset if self.position is None else f"{self.dataset}[{self.position}]"
        return f"{q}, {phi} ({place})"


class PlacedBin(Bin):
    """A bin whose wavevector and angle are known."""

    q: float
    phi: float


class TwoTimeFile(eqx.Module):
    """Header of a two-time file: its layout, its bins and its clock.

    Attributes:
        path: The file.
        layout: Name of its layout.
        bins: The matrices it holds, in the file's order.
        n_frames: Frames of each matrix.
        dt: Time between frames of a matrix [s]; None where the file does not say it.
        skipped: Time that passed before the first frame of a matrix began, in its frames.
        times: Time of each frame [s], for files that list them; None elsewhere.
        missing: Bins the file defines but holds no matrix for (masked or not processed).
        extras: Names of further arrays of the shape of c2 or one number: "mask", "sigma".
        notes: Sentences a user should read.
    """

    path: Path
    layout: Layout
    bins: tuple[Bin, ...]
    n_frames: int
    dt: float | None = None
    skipped: float = 0.0
    times: tuple[float, ...] | None = None
    missing: int = 0
    extras: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[Mapping[str, Any]]:
    """Open a file of any supported container as a mapping from names to sliceable arrays.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If it is no HDF5, npz or npy file, or is damaged.
    """
    kind = container(path)
    if kind == "hdf5":
        with _open_hdf5(path) as file:
            yield file
        return
    try:
        if kind == "npy":
            arrays = {"array": np.load(path, mmap_mode="r", allow_pickle=False)}
        else:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as npz:
                arrays = {name: npz[name] for name in npz.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as exc:
        raise DataError(
            f"{path}: the {kind} file cannot be read ({exc}); expected complete arrays of "
            "numbers without pickled objects; copy or save the file again."
        ) from exc
    yield arrays


def container(path: Path) -> Literal["hdf5", "npz", "npy"]:
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
    if _is_hdf5(path):
        return "hdf5"
    raise DataError(
        f"{path}: this is no two-time data file, it begins with {head!r}; "
        "expected HDF5, npz or npy content, whatever the file's name."
    )


def _is_hdf5(path: Path) -> bool:
    import h5py

    return bool(h5py.is_hdf5(path))


@contextlib.contextmanager
def _open_hdf5(path: Path) -> Iterator[Mapping[str, Any]]:
    """Open HDF5; any read that fails inside the block becomes one sentence."""
    import h5py
    import hdf5plugin  # noqa: F401  registers the compression filters used at beamlines

    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as exc:
        raise DataError(
            f"{path}: the HDF5 file cannot be read ({exc}); it is truncated, damaged or open for "
            "writing elsewhere: copy it again."
        ) from exc


Numbers = Float[np.ndarray, "_"]

_PER_ANGSTROM = {"a-1": 1.0, "1/a": 1.0, "nm-1": 0.1, "1/nm": 0.1}


def numbered(path: Path, file: h5py.File, group: str) -> dict[int, str]:
    """Matrices of a group by the number in their names, in rising order.

    Raises:
        DataError: If there are none.
    """
    names = {}
    for name in file[group]:
        found = re.fullmatch(r"(?:c2|g2)_(\d+)", name)
        if found:
            names[int(found[1])] = f"{group}/{name}"
    if not names:
        raise DataError(f"{path}: {group} is empty; expected two-time matrices in it.")
    return dict(sorted(names.items()))


def frame_count(path: Path, file: h5py.File, bins: tuple[Bin, ...]) -> int:
    """Number of frames, the same for every matrix of the file.

    Raises:
        DataError: If a matrix is not square or their sizes differ.
    """
    counts = set()
    for dataset in dict.fromkeys(b.dataset for b in bins):
        shape = file[dataset].shape
        last = next(b for b in bins if b.dataset == dataset).last
        square = shape[:2] if last else shape[-2:]
        if len(square) != 2 or square[0] != square[1]:
            raise DataError(
                f"{path}: {dataset} has shape {shape}; expected a square matrix over frames."
            )
        counts.add(square[0])
    if len(counts) != 1:
        raise DataError(
            f"{path}: matrices have {min(counts)} to {max(counts)} frames; expected one number."
        )
    return int(counts.pop())


def needed(path: Path, file: h5py.File, name: str) -> Numbers:
    """As `numbers`, for a dataset that has to be there.

    Raises:
        DataError: If it is missing.
    """
    values = numbers(file, name)
    if values is None:
        raise DataError(f"{path}: {name} is missing; expected a list of numbers.")
    return values


def numbers(file: h5py.File, name: str) -> Numbers | None:
    """A dataset of any shape as a flat list; None where there is none."""
    return np.ravel(file[name][()]).astype(np.float64) if name in file else None


def number(file: h5py.File, name: str) -> float | None:
    """A number stored as a scalar or as an array of one entry; None where there is none."""
    values = numbers(file, name)
    return None if values is None or values.size == 0 else float(values[0])


def frames_per_step(path: Path, file: h5py.File, *names: str) -> float:
    """Frames of the detector per frame of the matrices: stride times average, 1 if not said.

    Raises:
        DataError: If a factor is below 1.
    """
    product = 1.0
    for name in names:
        factor = number(file, name)
        if factor is not None and not factor >= 1:
            raise DataError(f"{path}: {name} is {factor:g}; expected a count of at least 1.")
        product *= 1.0 if factor is None else factor
    return product


def texts(file: h5py.File, name: str) -> tuple[str, ...]:
    """Strings however they are stored."""
    return tuple(_text(item) for item in np.ravel(file[name][()])) if name in file else ()


def _text(item: object) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)


def attribute(node: h5py.HLObject, name: str, default: str) -> str:
    """An attribute in words, or the default where it is not set."""
    return _text(np.ravel(node.attrs[name])[0]) if name in node.attrs else default


def in_per_angstrom(q: Numbers, unit: str) -> tuple[Numbers, tuple[str, ...]]:
    """Wavevectors [1/Å] from a unit in words, and a note where the unit is not known.

    A wrong guess does no harm: the wavevector of the configuration would not be found.
    """
    plain = unit.lower().translate(str.maketrans("å⁻¹", "a-1", "^{}() ")).replace("angstrom", "a")
    scale = _PER_ANGSTROM.get(plain)
    if scale is None:
        return q, (f"the file's unit of q is {unit!r}, which is not known: 1/Å assumed",)
    return q * scale, ()
