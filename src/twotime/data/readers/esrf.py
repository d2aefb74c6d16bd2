"""Results of ESRF beamlines: one group for each set of regions, on (age, lag) or on (t1, t2)."""

import numpy as np

from twotime.data.containers import array_in, subgroups
from twotime.data.source import (
    Bin,
    Cells,
    Notes,
    Numbers,
    Reader,
    TwoTimeFile,
    Values,
    in_degrees,
    in_per_angstrom,
)
from twotime.errors import DataError

_ROOT = "correlations"
_SAME = 1e-6
_MOST_FRAMES = 10**6


def _entry(file: Values) -> str:
    """The entry with correlations; empty where there is none."""
    return next((e for e in ("entry_0000", *subgroups(file.file)) if f"{e}/{_ROOT}" in file), "")


def read_esrf(file: Values) -> TwoTimeFile:
    """ESRF layout: `<entry>/correlations/<set>/twotime/ttcf` with one matrix for each region."""
    root = f"{_entry(file)}/{_ROOT}"
    sets = [f"{root}/{n}" for n in file.names(root) if f"{root}/{n}/twotime/ttcf" in file]
    if not sets:
        raise DataError(
            f"{root} holds {', '.join(file.names(root)) or 'nothing'} without a twotime/ttcf; "
            "expected two-time matrices; correlate again with the two-time output."
        )
    read = [_read_set(file, name) for name in sets]
    bins = tuple(b for part in read for b in part.bins)
    notes = tuple(dict.fromkeys(note for part in read for note in part.notes))
    steps = {part.dt for part in read}
    if len(steps) > 1:
        raise DataError(f"the sets in {root} have different time steps; expected one.")
    if len(sets) == 1 and all(b.phi is None for b in bins):
        bins = tuple(Bin(b.q, 0.0, b.dataset, b.position, cells=b.cells) for b in bins)
        notes += ("no angles in the file: phi = 0",)
    return TwoTimeFile(bins, dt=read[0].dt, notes=notes)


def _read_set(file: Values, name: str) -> TwoTimeFile:
    c2 = f"{name}/twotime/ttcf"
    array = array_in(file.file, c2)
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"{c2} has shape {array.shape}; expected (region, age, lag).")
    is_timed = not file.attribute(f"{name}/twotime/lag", "units", "s").startswith("frame")
    read = file.needed_times if is_timed else file.needed
    axes = f"{name}/twotime/age", f"{name}/twotime/lag"
    told = file.texts(f"{name}/twotime/ttcf_format")
    cells, dt, notes = None, _step(file, f"{name}/twotime/t1"), Notes()
    if all(axis in file for axis in axes) and "t1" not in "".join(told):
        ages, lags = map(read, axes)
        cells, dt = _cells(ages, lags, array.shape, c2, is_timed=is_timed)
        notes = (
            "values are means over cells of age and lag; the model is evaluated in their middle",
        )
    elif array.shape[1] != array.shape[2]:
        raise DataError(
            f"{c2} has shape {array.shape} and no ages and lags ({', '.join(axes)}); expected "
            "them, or (region, t1, t2)."
        )
    q, phi, said = _regions(file, name, array.shape[0])
    places = zip(q, phi, range(array.shape[0]), strict=True)
    bins = tuple(Bin(qk, phik, c2, k, cells=cells) for qk, phik, k in places)
    return TwoTimeFile(bins, dt=dt, notes=(*notes, *said))


def _step(file: Values, name: str) -> float | None:
    if name not in file or file.attribute(name, "units", "s").startswith("frame"):
        return None
    times = file.needed_times(name)
    return float(np.mean(np.diff(times))) if times.size > 1 else None


def _cells(
    ages: Numbers, lags: Numbers, shape: tuple[int, ...], c2: str, *, is_timed: bool
) -> tuple[Cells, float | None]:
    """Where the values lie, in frames, and the time between frames [s] where axes are times."""
    if (ages.size, lags.size) != shape[1:]:
        raise DataError(
            f"{c2} has shape {shape} but there are {ages.size} ages and {lags.size} lags; "
            "expected (region, age, lag)."
        )
    for axis, values in (("age", ages), ("lag", lags)):
        if values.size < 2 or not np.all(np.isfinite(values)) or not np.all(np.diff(values) > 0):
            raise DataError(f"the {axis} of {c2} does not rise; expected rising finite numbers.")
    dt = float(np.diff(lags).min()) if is_timed else 1.0
    n_frames = float(ages[-1] + 0.5 * (ages[-1] - ages[-2])) / dt + _SAME + 1
    if lags[0] < 0 or ages[0] < 0 or not n_frames < _MOST_FRAMES:
        raise DataError(f"ages and lags of {c2} are no frames; expected them from 0 on.")
    cells = Cells(tuple((ages / dt).tolist()), tuple((lags / dt).tolist()), int(n_frames))
    return cells, dt if is_timed else None


def _regions(
    file: Values, name: str, count: int
) -> tuple[list[float] | list[None], list[float] | list[None], Notes]:
    """Wavevector [1/Å] and angle [degree] of each region, and notes."""
    q_name, phi_name = (f"{name}/parameters/{axis}" for axis in ("q", "phi"))
    q, phi, notes = file.numbers(q_name), file.numbers(phi_name), Notes()
    for axis, values in (("q", q), ("phi", phi)):
        if values is not None and values.size != count:
            raise DataError(
                f"{name}/parameters/{axis} has {values.size} entries and there are {count} "
                "matrices; expected one entry each."
            )
    if q is not None:
        unit = file.attribute(q_name, "units", "")
        q, notes = (
            in_per_angstrom(q, unit)
            if unit
            else (q, ("the file does not give the unit of q: 1/Å assumed (at ID02 it is 1/nm)",))
        )
    if phi is not None:
        phi = in_degrees(phi, file.attribute(phi_name, "units", "deg"), phi_name)
    return (
        [None] * count if q is None else q.tolist(),
        [None] * count if phi is None else phi.tolist(),
        notes,
    )


READERS = (
    Reader("esrf", "ESRF (entry_0000/correlations)", lambda file: bool(_entry(file)), read_esrf),
)
