"""Arrays by name: npy, npz, HDF5 files with arrays at the root, and any that a user names.

Also files of programs that keep plain arrays under names of their own (pyCHX; the caches of
homodyne, heterodyne and xpcsjax).
"""

import dataclasses
import re

import numpy as np

from twotime.data.containers import Array, Group, array_in
from twotime.data.source import (
    Bin,
    Datasets,
    Numbers,
    Reader,
    TwoTimeFile,
    Values,
    in_degrees,
    in_per_angstrom,
)
from twotime.errors import DataError

UNIFORM = 1e-6
_AT_ROOT = Datasets("c2", "q", "phi", "dt", "t", "mask", "sigma")
_NETCDF = dataclasses.replace(_AT_ROOT, t="t1")
_CACHE = Datasets("c2_exp", "wavevector_q_list", "phi_angles_list", "dt", "t1")
_PYCHX = Datasets("g12b", t="tausb", axes="t1, t2, bin")
_BIN_AXES = ("bin", "angle", "phi", "q", "roi", "region")


def read_arrays(file: Values, at: Datasets = _AT_ROOT) -> TwoTimeFile:
    """Header of arrays of shape (time, time), (angle, time, time) or (time, time, angle).

    Args:
        file: The open file.
        at: Names of the arrays.

    Raises:
        DataError: If shapes contradict each other.
    """
    if isinstance(file.file[at.c2], Group):
        places, shape = _members(file, at.c2)
    else:
        array = array_in(file.file, at.c2)
        is_last = at.axes == "t1, t2, bin" or (
            len(array.axes) == 3 and array.axes[2] in _BIN_AXES and array.ndim == 3
        )
        places, shape = _parts(array, angle_last=is_last), array.shape
    count, frames = len(places), shape[0] if places[0][2] else shape[-1]
    q, notes = _wavevectors(file, at.q, count)
    phi = _angles(file, at.phi, count)
    listed = zip(q, phi, places, strict=True)
    bins = tuple(Bin(q_k, phi_k, *place) for q_k, phi_k, place in listed)
    mask, sigma = (name if name and name in file else "" for name in (at.mask, at.sigma))
    for name, wanted in ((mask, (shape,)), (sigma, (shape, (), (1,)))):
        got = array_in(file.file, name).shape if name else shape
        if got not in wanted:
            raise DataError(f"{name} has shape {got}; expected that of {at.c2}, {shape}.")
    dt, times = _clock(file, at, frames)
    return TwoTimeFile(bins, dt=dt, times=times, mask=mask, sigma=sigma, notes=notes)


def read_named(file: Values, at: Datasets) -> TwoTimeFile:
    """As `read_arrays`, for names that a user gives: all of them must be there."""
    named = (at.c2, at.q, at.phi, at.dt, at.t, at.mask, at.sigma)
    gone = [name for name in named if name and name not in file]
    if gone:
        raise DataError(
            f"there is no {', '.join(gone)} in the file, its root holds "
            f"{', '.join(file.names()) or 'nothing'}; expected the arrays that "
            "experimental_data.layout names; correct it."
        )
    return read_arrays(file, at)


def _members(
    file: Values, group: str
) -> tuple[list[tuple[str, int | None, bool]], tuple[int, ...]]:
    """Matrices of a group, in the order of the numbers at the end of their names."""
    found = [(re.search(r"\d{1,9}$", name), name) for name in file.names(group)]
    names = sorted((int(hit[0]), name) for hit, name in found if hit)
    if not names or len({number for number, _ in names}) < len(found):
        raise DataError(
            f"{group} is a group; expected matrices, each with a number of its own at the end of "
            "its name, and nothing else in it."
        )
    return (
        [(f"{group}/{name}", None, False) for _, name in names],
        array_in(file.file, f"{group}/{names[0][1]}").shape,
    )


def _parts(array: Array, *, angle_last: bool) -> list[tuple[str, int | None, bool]]:
    """Where each matrix of an array is."""
    shape, name = array.shape, array.name
    square = shape[:2] if angle_last else shape[-2:]
    if len(shape) == 2 and square[0] == square[1] > 0:
        return [(name, None, False)]
    if len(shape) == 3 and square[0] == square[1] and 0 not in shape:
        return [(name, k, angle_last) for k in range(shape[-1 if angle_last else 0])]
    if len(shape) == 3 and shape[0] == shape[1]:
        raise DataError(
            f"c2 has shape {shape}, which looks like (time, time, angle); expected (angle, time, "
            "time); save it so, or set experimental_data.roi_axis: last for an npy file, or "
            f"experimental_data.layout: {{c2: {array.name}, …, axes: 't1, t2, bin'}} for others."
        )
    raise DataError(
        f"c2 has shape {shape}; expected (time, time) or "
        f"{'(time, time, angle)' if angle_last else '(angle, time, time)'} with equal times."
    )


def _wavevectors(file: Values, name: str, count: int) -> tuple[list, tuple[str, ...]]:
    values = _axis(file, name, count)
    if values is None:
        return [None] * count, ()
    q, notes = in_per_angstrom(values, file.attribute(name, "units", "1/Å"))
    return q.tolist(), notes


def _angles(file: Values, name: str, count: int) -> list:
    values = _axis(file, name, count)
    if values is None:
        return [None] * count
    return in_degrees(values, file.attribute(name, "units", "deg"), name).tolist()


def _axis(file: Values, name: str, count: int) -> Numbers | None:
    """One number per matrix, from one number or a list; None where the file does not give it."""
    values = file.numbers(name) if name else None
    if values is None:
        return None
    if values.size not in (1, count):
        raise DataError(
            f"{name} has {values.size} entries and c2 has {count} matrices; expected one entry per "
            "matrix."
        )
    return np.broadcast_to(values, count)


def _clock(
    file: Values, at: Datasets, frames: int
) -> tuple[float | None, tuple[float, ...] | None]:  # fmt: skip
    """Time step [s] and frame times [s] where the file gives them."""
    dt = file.seconds(at.dt) if at.dt else None
    if not at.t or at.t not in file:
        return dt, None
    array, times = array_in(file.file, at.t), file.needed_times(at.t)
    if array.ndim == 2 and times.size == frames**2:  # a grid of t1: one of its rows rises
        grid = times.reshape(frames, frames)
        times = grid[0] if grid[0, 0] != grid[0, -1] else grid[:, 0]
    if times.size != frames or frames < 2:
        raise DataError(
            f"{at.t} has {times.size} entries and c2 has {frames} frames; expected equal "
            "numbers, at least 2."
        )
    is_finite = bool(np.all(np.abs(times) < 1e15))
    steps = np.diff(times) if is_finite else np.zeros(1)
    if not np.all(steps > 0):
        raise DataError(f"the times {at.t} do not increase; expected rising times in s.")
    step, stored = float(np.mean(steps)), array.dtype
    rounding = 8 * np.finfo(stored if stored.kind == "f" else float).eps
    if np.ptp(steps) > UNIFORM * step + rounding * np.max(np.abs(times)):
        return None, tuple(times.tolist())
    if dt is not None and not abs(dt - step) <= UNIFORM * step:
        raise DataError(
            f"dt is {dt:g} s but the times {at.t} are {step:g} s apart; expected equal; "
            "leave one of them out."
        )
    return step, tuple(times.tolist())


def read_npy(file: Values, *, angle_last: bool = False) -> TwoTimeFile:
    """Header of an npy file, which holds c2 and nothing else."""
    return read_arrays(file, Datasets("array", axes="t1, t2, bin" if angle_last else ""))


def _read_root(file: Values) -> TwoTimeFile:
    return read_arrays(file, _AT_ROOT if "t" in file or "t1" not in file else _NETCDF)


def _read_cache(file: Values) -> TwoTimeFile:
    read = read_arrays(file, _CACHE)
    if not read.dt:
        return read
    note = "a cache does not say when its first frame was: taken as the first of the record"
    return dataclasses.replace(read, times=None, notes=(*read.notes, note))


def read_pychx(file: Values) -> TwoTimeFile:
    """Results of pyCHX: `g12b` of shape (time, time, region), q and angle by region."""
    read = read_arrays(file, dataclasses.replace(_PYCHX, t="" if "tausb" not in file else "tausb"))
    q, phi = _regions(file, len(read.bins))
    bins = tuple(
        dataclasses.replace(b, q=q[k], phi=phi[k]) for k, b in enumerate(read.bins)
    )  # fmt: skip
    notes = read.notes
    if all(angle is None for angle in phi) and None not in q:
        bins = tuple(dataclasses.replace(b, phi=0.0) for b in bins)
        notes += ("no angles in the file: phi = 0",)
    dt = read.dt or _metadata_dt(file)
    return dataclasses.replace(read, bins=bins, dt=dt, times=None, notes=notes)


def _regions(file: Values, count: int) -> tuple[list[float | None], list[float | None]]:
    """Wavevector [1/Å] and angle [degree] of the regions from the attributes of `qval_dict`."""
    node = file.file["qval_dict"] if "qval_dict" in file else None
    found = [None if node is None else node.attribute(str(k)) for k in range(count + 1)]
    if found.pop() is not None:
        raise DataError(
            f"qval_dict has more regions than g12b, which has {count}; expected one entry each; "
            "name the arrays in experimental_data.layout."
        )
    values = [() if x is None else np.ravel(np.asarray(x)).tolist() for x in found]
    if not all(isinstance(v, int | float) for value in values for v in value):
        raise DataError("qval_dict holds other than numbers; expected q and angle by region.")
    q = [float(value[0]) if value else None for value in values]
    phi = [float(value[1]) if len(value) > 1 else None for value in values]
    return q, phi


def _metadata_dt(file: Values) -> float | None:
    """Time between frames [s] from the attributes of `md`."""
    node = file.file["md"] if "md" in file else None
    for name in ("frame_time", "acquire period", "frame time"):
        found = None if node is None else node.attribute(name)
        if isinstance(found, int | float | np.number):
            return float(found)
    return None


READERS = (
    Reader("hdf5", "arrays at the root (c2)", lambda file: "c2" in file, _read_root),
    Reader("pychx", "pyCHX (g12b)", lambda file: "g12b" in file, read_pychx),
    Reader("cache", "a cache of homodyne or xpcsjax (c2_exp)", lambda file: "c2_exp" in file,
           _read_cache),
)  # fmt: skip
