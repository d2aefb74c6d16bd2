"""Headers of plain arrays: npy, npz, and HDF5 files with arrays at the root.

Named arrays are c2, and optionally q, phi, t or dt, mask, sigma; an npy file is c2 alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from twotime.data.source import Bin, Layout, TwoTimeFile
from twotime.errors import DataError

UNIFORM = 1e-6


def read_arrays(
    path: Path, arrays: Mapping[str, Any], layout: Layout, *, angle_last: bool = False
) -> TwoTimeFile:
    """Header of arrays of shape (time, time) or (angle, time, time).

    Args:
        path: The file, for messages.
        arrays: The open arrays.
        layout: "npz", "npy" or "hdf5".
        angle_last: Whether a three-dimensional c2 is (time, time, angle).

    Raises:
        DataError: If there is no c2, or shapes contradict each other.
    """
    name = "array" if layout == "npy" else "c2"
    if name not in arrays:
        raise DataError(
            f"{path}: no array is called c2; got {', '.join(sorted(arrays)) or 'nothing'}; "
            "expected c2 and optionally q, phi, t or dt, mask, sigma."
        )
    count, frames = _shape(path, arrays[name].shape, angle_last=angle_last)
    q, phi = (_values(path, arrays, axis, count) for axis in ("q", "phi"))
    dt, times = _clock(path, arrays, frames)
    single = arrays[name].ndim == 2
    bins = tuple(
        Bin(q[k], phi[k], name, None if single else k, angle_last and not single)
        for k in range(count)
    )
    extras = tuple(extra for extra in ("mask", "sigma") if extra in arrays)
    for extra in extras:
        allowed = (arrays[name].shape,) if extra == "mask" else (arrays[name].shape, (), (1,))
        if arrays[extra].shape not in allowed:
            raise DataError(
                f"{path}: {extra} has shape {arrays[extra].shape}; expected that of c2, "
                f"{arrays[name].shape}."
            )
    return TwoTimeFile(path, layout, bins, frames, dt=dt, times=times, extras=extras)


def _shape(path: Path, shape: tuple[int, ...], *, angle_last: bool) -> tuple[int, int]:
    """Number of matrices and of frames."""
    square = shape[:2] if angle_last else shape[-2:]
    if len(shape) in (2, 3) and square[0] == square[1]:
        count = 1 if len(shape) == 2 else shape[-1 if angle_last else 0]
        return count, square[0]
    if len(shape) == 3 and shape[0] == shape[1]:
        raise DataError(
            f"{path}: c2 has shape {shape}, which looks like (time, time, angle); expected "
            "(angle, time, time); save it so, or set experimental_data.roi_axis: last for an npy "
            "file."
        )
    raise DataError(
        f"{path}: c2 has shape {shape}; expected (time, time) or "
        f"{'(time, time, angle)' if angle_last else '(angle, time, time)'} with equal times."
    )


def _values(
    path: Path, arrays: Mapping[str, Any], name: str, count: int
) -> tuple[float, ...] | tuple[None, ...]:
    """One number per matrix, from one number or a list; None where the file does not say."""
    if name not in arrays:
        return (None,) * count
    values = np.ravel(arrays[name][()]).astype(np.float64)
    if values.size == 1:
        values = np.repeat(values, count)
    if values.size != count:
        raise DataError(
            f"{path}: {name} has {values.size} entries and c2 has {count} matrices; expected one "
            "entry per matrix."
        )
    return tuple(values.tolist())


def _clock(
    path: Path, arrays: Mapping[str, Any], frames: int
) -> tuple[float | None, tuple[float, ...] | None]:
    """Time step [s] and frame times [s] as far as the file says them."""
    dt = float(np.ravel(arrays["dt"][()])[0]) if "dt" in arrays else None
    if "t" not in arrays:
        return dt, None
    stored = np.ravel(arrays["t"][()])
    times = stored.astype(np.float64)
    if times.size != frames or frames < 2:
        raise DataError(
            f"{path}: t has {times.size} entries and c2 has {frames} frames; expected equal "
            "numbers, at least 2."
        )
    steps = np.diff(times)
    if not np.all(steps > 0):
        raise DataError(f"{path}: the times t do not increase; expected rising times in s.")
    step = float(np.mean(steps))
    rounding = 8 * np.finfo(stored.dtype if stored.dtype.kind == "f" else float).eps
    if np.ptp(steps) > UNIFORM * step + rounding * np.max(np.abs(times)):
        return None, tuple(times.tolist())
    if dt is not None and abs(dt - step) > UNIFORM * step:
        raise DataError(
            f"{path}: dt is {dt:g} s but the times t are {step:g} s apart; expected equal; "
            "leave one of them out."
        )
    return step, tuple(times.tolist())
