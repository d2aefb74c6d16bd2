"""Plain arrays: npy, npz, and HDF5 files with arrays at the root.

Named arrays are c2, and optionally q, phi, t or dt, mask, sigma; an npy file is c2 alone.
"""

import numpy as np

from twotime.data.source import Arrays, Bin, Reader, TwoTimeFile, Values
from twotime.errors import DataError

UNIFORM = 1e-6


def read_arrays(file: Arrays, name: str = "c2", *, angle_last: bool = False) -> TwoTimeFile:
    """Header of arrays of shape (time, time) or (angle, time, time).

    Args:
        file: The open arrays.
        name: Name of the array that holds c2.
        angle_last: Whether a three-dimensional c2 is (time, time, angle).

    Raises:
        DataError: If there is no c2, or shapes contradict each other.
    """
    if name not in file:
        raise DataError(
            f"no array is called c2; got {', '.join(sorted(file)) or 'nothing'}; "
            "expected c2 and optionally q, phi, t or dt, mask, sigma."
        )
    shape = file[name].shape
    count, frames = _shape(shape, angle_last=angle_last)
    single = len(shape) == 2
    axes = zip(_axis(file, "q", count), _axis(file, "phi", count), strict=True)
    last = angle_last and not single
    bins = tuple(Bin(*a, name, None if single else k, last) for k, a in enumerate(axes))
    extras = tuple(extra for extra in ("mask", "sigma") if extra in file)
    for extra in extras:
        if file[extra].shape not in ((shape,) if extra == "mask" else (shape, (), (1,))):
            raise DataError(f"{extra} has shape {file[extra].shape}; expected that of c2, {shape}.")
    dt, times = _clock(file, frames)
    return TwoTimeFile(bins, dt=dt, times=times, extras=extras)


def _shape(shape: tuple[int, ...], *, angle_last: bool) -> tuple[int, int]:
    """Number of matrices and of frames."""
    square = shape[:2] if angle_last else shape[-2:]
    if len(shape) in (2, 3) and square[0] == square[1]:
        return 1 if len(shape) == 2 else shape[-1 if angle_last else 0], square[0]
    if len(shape) == 3 and shape[0] == shape[1]:
        raise DataError(
            f"c2 has shape {shape}, which looks like (time, time, angle); expected (angle, time, "
            "time); save it so, or set experimental_data.roi_axis: last for an npy file."
        )
    raise DataError(
        f"c2 has shape {shape}; expected (time, time) or "
        f"{'(time, time, angle)' if angle_last else '(angle, time, time)'} with equal times."
    )


def _axis(file: Arrays, name: str, count: int) -> list[float] | list[None]:
    """One number per matrix, from one number or a list; None where the file does not give it."""
    if name not in file:
        return [None] * count
    values = np.ravel(file[name][()]).astype(np.float64)
    if values.size not in (1, count):
        raise DataError(
            f"{name} has {values.size} entries and c2 has {count} matrices; expected one entry per "
            "matrix."
        )
    return np.broadcast_to(values, count).tolist()


def _clock(file: Arrays, frames: int) -> tuple[float | None, tuple[float, ...] | None]:
    """Time step [s] and frame times [s] where the file gives them."""
    dt = float(np.ravel(file["dt"][()])[0]) if "dt" in file else None
    if "t" not in file:
        return dt, None
    stored = np.ravel(file["t"][()])
    times = stored.astype(np.float64)
    if times.size != frames or frames < 2:
        raise DataError(
            f"t has {times.size} entries and c2 has {frames} frames; expected equal "
            "numbers, at least 2."
        )
    steps = np.diff(times)
    if not np.all(steps > 0):
        raise DataError("the times t do not increase; expected rising times in s.")
    step = float(np.mean(steps))
    rounding = 8 * np.finfo(stored.dtype if stored.dtype.kind == "f" else float).eps
    if np.ptp(steps) > UNIFORM * step + rounding * np.max(np.abs(times)):
        return None, tuple(times.tolist())
    if dt is not None and abs(dt - step) > UNIFORM * step:
        raise DataError(
            f"dt is {dt:g} s but the times t are {step:g} s apart; expected equal; "
            "leave one of them out."
        )
    return step, tuple(times.tolist())


def _read(file: Values) -> TwoTimeFile:
    return read_arrays(file.file)


READERS = (Reader("hdf5", "arrays at the root (c2)", lambda file: "c2" in file, _read),)
