"""Matrices as stored to matrices as fitted: triangles completed, unusable points masked."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from twotime.data.containers import Array, about, array_in, container, open_arrays, reading
from twotime.data.source import Bin, PlacedBin, TwoTimeFile, matrix_in, real_numbers
from twotime.errors import DataError

Side = Literal["upper", "lower", "mean"]
Bins = tuple[PlacedBin, ...]

ASYMMETRY = 1e-5
_FEW_ZEROS = 1e-3
_NORMALISED = 0.9
_AT_ONCE, _ALIGNMENT = 512, 64
LARGEST = 1e15
"""Size from which a number is no correlation but damage."""

Matrix = Float[np.ndarray, "time time"]
Part = Float[np.ndarray, "row column"]
Mask = Bool[np.ndarray, "time time"]
Masks = Bool[np.ndarray, "angle time time"]
Sigma = Float[np.ndarray, ""] | Float[np.ndarray, "angle time time"] | None


class Matrices(NamedTuple):
    """Matrices ready for a fit and an account of those left out.

    Attributes:
        c2: Symmetric correlations.
        mask: True where a point is used.
        sigma: Standard deviation where the file gives it.
        kept: Bins of `c2`, in order.
        empty: Bins that were never filled.
        notes: Sentences a user should read.
    """

    c2: Float[np.ndarray, "angle time time"]
    mask: Masks
    sigma: Sigma
    kept: Bins
    empty: Bins
    notes: tuple[str, ...]


def read_matrices(
    file: TwoTimeFile, bins: Bins, frames: slice, *, average_triangles: bool
) -> Matrices:
    """Read the matrices of some bins on a range of frames.

    A stored triangle is completed by symmetry; a full matrix is checked to be symmetric. The
    diagonal, points that are not finite and frames without light are masked; no number is
    changed. Bins that were never filled (constant 0 or -1) are left out.

    Args:
        file: Header of the file.
        bins: Bins to read.
        frames: Frames to read.
        average_triangles: Whether a full matrix that is not symmetric is averaged with its
            transpose; it is an error otherwise.

    Raises:
        DataError: If a matrix has no usable point or is not symmetric, or all are empty.
    """
    count = frames.stop - frames.start
    kept, sides, empty, notes = list[PlacedBin](), list[Side](), list[PlacedBin](), list[str]()
    dark, n_infinite = np.zeros(count, bool), 0
    with open_arrays(file.path) as arrays:
        types = [_float_type(matrix_in(arrays, b.dataset).dtype) for b in bins]
        with reading(f"{len(bins)} matrices of {count} frames"):
            c2 = _aligned((len(bins), count, count), np.result_type(*types))
            mask = _aligned(c2.shape, np.dtype(bool))
        for b in bins:
            k = len(kept)
            n_infinite += _fill(c2[k], b.cut(arrays, frames, frames))
            side = _side(b, c2[k], average_triangles)
            _complete(c2[k], side)
            stored = b.cut(arrays, frames, frames, file.mask) != 0 if file.mask else None
            fix = "leave this angle out with phi_filtering" if len(bins) > 1 else "check the file"
            mask[k] = _usable(b, c2[k], stored, side, fix)
            if all(is_empty(c2[k, rows][mask[k, rows]]) for rows in _strips(count)):
                empty.append(b)
                continue
            dark |= _mask_dark_frames(c2[k], mask[k])
            kept.append(b)
            sides.append(side)
            if side == "mean":
                notes.append(f"the matrix of {b} is not symmetric: the mean of its halves is used")
        if not kept:
            raise DataError(
                f"all {len(bins)} selected matrices are empty (constant 0 or -1), the first is "
                f"{bins[0]}; expected correlations; choose other bins."
            )
        share = f"{n_infinite / (len(bins) * count**2):.2%} of the elements are"
        notes += [f"{share} infinite or above {LARGEST:g} and masked"] if n_infinite else []
        notes += _mask_unfilled(c2[: len(kept)], mask[: len(kept)])
        if dark.any():
            listed = ", ".join(str(frames.start + 1 + i) for i in np.flatnonzero(dark))
            notes.append(f"frames without light (every correlation 0) are masked: {listed}")
        mask, sigma = mask[: len(kept)], None
        if file.sigma:
            array, read = array_in(arrays, file.sigma), (arrays, frames, frames, file.sigma)
            cuts = None if array.ndim < 2 else [b.cut(*read) for b in kept]
            sigma = _sigma(array, cuts, sides, mask)
    return Matrices(c2[: len(kept)], mask, sigma, tuple(kept), tuple(empty), tuple(notes))


def _fill(into: np.ndarray, stored: np.ndarray) -> int:
    """Take numbers over; gives how many are no correlation but damage."""
    n_damaged = 0
    for rows in _strips(len(into)):
        into[rows] = without_damage(stored[rows], into.dtype)
        n_damaged += int(np.count_nonzero(np.isnan(into[rows]) & ~np.isnan(stored[rows])))
    return n_damaged


def apply_mask_file(mask: Masks, path: Path, n_frames: int, frames: slice) -> None:
    """Mask, in place, what a file says does not count.

    Args:
        mask: True where a point is used, on the selected frames.
        path: npy, npz or HDF5 file with one array, or one called mask: other than 0 where a frame
            (time,) or a point (time, time) of the data file counts; a point counts where it is
            so on both sides of the diagonal.
        n_frames: Frames of the data file.
        frames: The selected frames.

    Raises:
        DataError: If the file cannot be read or is of another shape, or nothing is left.
    """
    container(path, key="mask_file")
    with about(path), open_arrays(path) as arrays:
        names = sorted(arrays)
        array = array_in(arrays, names[0] if len(names) == 1 else "mask")
        if array.shape not in ((n_frames,), (n_frames, n_frames)):
            raise DataError(
                f"the mask has shape {array.shape}; expected ({n_frames},) or ({n_frames}, "
                f"{n_frames}), the frames of the data file."
            )
        counts = array[()] != 0
        if counts.ndim == 1:
            counts = counts[:, None] & counts
        mask &= (counts & counts.T)[frames, frames]
        if not mask.any(axis=(1, 2)).all():
            raise DataError(
                "the mask leaves no point of a matrix; expected other than 0 where a point counts."
            )


def without_damage(values: Shaped[np.ndarray, "..."], dtype: np.dtype) -> np.ndarray:
    """Numbers in floating point, NaN where they are not finite or no correlation can be so large.

    Damaged files hold such numbers; what is computed of them would overflow.
    """
    with np.errstate(all="ignore"):
        numbers = values.astype(dtype)
        numbers[~(np.abs(numbers) < LARGEST)] = np.nan
    return numbers


def is_empty(values: Shaped[np.ndarray, "..."]) -> bool:
    """Whether correlations were never filled: all 0, all -1, or none of them finite."""
    finite = values[np.isfinite(values)]
    return bool(np.all(finite == 0) or np.all(finite == -1))


def _sigma(array: Array, cuts: list[np.ndarray] | None, sides: list[Side], mask: Masks) -> Sigma:
    """Standard deviation as the file gives it: one for all, or one per point."""
    if cuts is None:
        sigma = real_numbers(array).reshape(())
    else:
        parts = zip(cuts, sides, strict=True)
        numbers = [(without_damage(part, np.dtype(float)), side) for part, side in parts]
        sigma = np.stack([_completed(part, side) for part, side in numbers])
    used = np.broadcast_to(sigma, mask.shape)[mask]
    if not np.all((used > 0) & (used < LARGEST)):
        raise DataError(
            f"{array.name} is no positive number at some used points; expected a finite standard "
            "deviation; mask those points or leave sigma out."
        )
    return sigma


def _side(b: Bin, matrix: Matrix, average_triangles: bool) -> Side:
    """Which half to read: the stored one, or the mean of two halves that differ."""
    if not any(_holds_numbers(below) for _, below in _halves(matrix)):
        return "upper"
    if not any(_holds_numbers(above) for above, _ in _halves(matrix)):
        return "lower"
    largest = scale = 0.0
    for above, below in _halves(matrix):
        with np.errstate(all="ignore"):  # infinite on both sides, or damaged
            difference = np.abs(above - below)
        largest = max(largest, float(np.max(difference[np.isfinite(difference)], initial=0.0)))
        scale = max(scale, float(np.max(np.abs(above[np.isfinite(above)]), initial=0.0)))
    if largest <= ASYMMETRY * scale:
        return "upper"
    turned, slack = matrix[::-1], ASYMMETRY * scale
    if np.allclose(turned, turned.T, rtol=0, atol=slack, equal_nan=True):
        raise DataError(
            f"the matrix of {b} is symmetric about its other diagonal; expected the first frame "
            "first on both axes; reverse one of them and save it again."
        )
    if not average_triangles:
        raise DataError(
            f"the matrix of {b} is not symmetric, its halves differ by up to {largest:.3g}; "
            "expected symmetry; set experimental_data.average_triangles: true to fit their mean."
        )
    return "mean"


def _halves(matrix: Matrix) -> Iterator[tuple[Part, Part]]:
    """Parts of the matrix above its diagonal, with their mirror images below."""
    for rows in _strips(len(matrix)):
        block = matrix[rows, rows]
        yield np.triu(block, 1), np.triu(block.T, 1)
        yield matrix[rows, rows.stop :], matrix[rows.stop :, rows].T


def _holds_numbers(half: Part) -> bool:
    return bool(np.any(np.isfinite(half) & (half != 0)))


def _complete(values: Shaped[np.ndarray, "time time"], side: Side) -> None:
    """Make a matrix symmetric, in place, from the half that counts."""
    if side == "mean":
        with np.errstate(all="ignore"):
            values[...] = 0.5 * (values + values.T)
        return
    half, other = (values, values.T) if side == "upper" else (values.T, values)
    for rows in _strips(len(values)):
        block = np.triu(half[rows, rows])
        half[rows, rows] = block + np.triu(block, 1).T
        other[rows, rows.stop :] = half[rows, rows.stop :]


def _completed(values: Shaped[np.ndarray, "time time"], side: Side) -> np.ndarray:
    out = values.copy()
    _complete(out, side)
    return out


def _strips(count: int) -> list[slice]:
    """Rows of a matrix, a few at a time: temporary copies of all of it would be as large."""
    return [slice(k, min(k + _AT_ONCE, count)) for k in range(0, count, _AT_ONCE)]


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array at an address at which JAX takes it as it is, instead of a copy."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _usable(b: Bin, matrix: Matrix, stored: Mask | None, side: Side, fix: str) -> Mask:
    """Points off the diagonal that are finite and not masked in the file."""
    used = np.isfinite(matrix)
    np.fill_diagonal(used, False)
    if stored is not None:
        used &= stored & stored.T if side == "mean" else _completed(stored, side)
    if not used.any():
        raise DataError(
            f"the matrix of {b} has no usable point, all are NaN or masked; "
            f"expected finite correlations; {fix}."
        )
    return used


def _mask_dark_frames(matrix: Matrix, used: Mask) -> Bool[np.ndarray, " time"]:
    """Mask frames whose every correlation is 0, as programs write them for frames without light."""
    dark = used.any(axis=1) & ~np.any(used & (matrix != 0), axis=1)
    used[dark] = False
    used[:, dark] = False
    return dark


def _mask_unfilled(c2: Float[np.ndarray, "angle time time"], used: Masks) -> list[str]:
    """Mask elements that are exactly 0 if they were never filled; a note where there are such.

    Real zeros, of frames with hardly any photons, belong to the mean of c2, which is at least 1 for
    normalised intensities; never filled ones make it smaller.
    """
    n_zero = sum(int(np.count_nonzero(x[u] == 0)) for x, u in zip(c2, used, strict=True))
    n_used = int(np.count_nonzero(used))
    if n_zero < _FEW_ZEROS * n_used:
        return []
    total = float(np.sum(c2, where=used, dtype=np.float64))
    is_unfilled = total < _NORMALISED * n_used and total >= _NORMALISED * (n_used - n_zero)
    share = f"{n_zero / n_used:.2%} of the elements are exactly 0"
    if not is_unfilled:
        return [f"{share} and are taken as data; if they were never filled, mask them in the file"]
    used &= c2 != 0
    others = total / max(n_used - n_zero, 1)
    return [f"{share} and were never filled (the others are {others:.3g} on average): masked"]


def _float_type(stored: np.dtype) -> np.dtype:
    """The stored precision where it is single or double, double otherwise."""
    return np.dtype(np.float32 if stored.kind == "f" and stored.itemsize == 4 else np.float64)
