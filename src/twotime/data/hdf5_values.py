"""Values in HDF5 files however they are stored: scalars as (1, 1), strings as bytes."""

import re
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float

from twotime.data.source import Bin, DataError

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
