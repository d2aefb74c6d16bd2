"""Readers of HDF5 layouts, and how they read values of a file however these are stored."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from twotime.data.source import Arrays, Layout, TwoTimeFile
from twotime.errors import DataError

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
