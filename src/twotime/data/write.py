"""Write two-time data in the layout of APS-U beamlines."""

import os
from pathlib import Path

import numpy as np

from twotime.data.dataset import TwoTimeData
from twotime.data.source import DataError


def write_apsu(
    path: Path | str, data: TwoTimeData, *, dt: float | None = None, overwrite: bool = False
) -> None:
    """Write data as an APS-U result file: upper halves in single precision, lzf compressed.

    The map of the file has one angle more than the data, without pixels, as real files have
    behind a beamstop: `dynamic_index_mapping` is not the identity, and a reader that ignores it
    gets every angle wrong. Masked pixels above the diagonal are written as NaN. A first frame
    at a whole multiple of `dt` is kept as `begin_frame`; any other time origin is not part of
    the layout and has to be given again as `t0` when the file is read.

    Args:
        path: File to write; a temporary file beside it is renamed, so it is never half there.
        data: What to write.
        dt: Time between frames [s]; None takes it from `data.t`.
        overwrite: Whether an existing file may be replaced.

    Raises:
        DataError: If the file exists and may not be replaced, frames are not equally
            spaced, or the folder is not writable.
    """
    import h5py  # loaded only where a file is written

    path = Path(path)
    if path.exists() and not overwrite:
        raise DataError(f"{path}: the file exists; expected a new name, or overwrite=True.")
    step = _time_step(data, dt)
    phi = np.asarray(data.phi, dtype=np.float64)
    unseen = phi[0] - 180 if phi.size == 1 else 0.5 * (phi[0] + phi[1])
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(temporary, "w") as file:
            file["entry/instrument/detector_1/frame_time"] = step
            file["entry/instrument/detector_1/count_time"] = step
            qmap = file.create_group("xpcs/qmap")
            qmap["dynamic_v_list_dim0"] = np.asarray([data.q], dtype=np.float64)
            qmap["dynamic_v_list_dim1"] = np.insert(phi, 0, unseen)
            qmap["dynamic_num_pts"] = np.asarray([1, phi.size + 1])
            qmap["dynamic_index_mapping"] = np.arange(1, phi.size + 1)
            qmap["map_names"] = np.asarray([b"q", b"phi"])
            qmap["map_units"] = np.asarray(["Å⁻¹".encode(), b"deg"])
            twotime = file.create_group("xpcs/twotime")
            twotime["processed_bins"] = np.arange(1, phi.size + 1, dtype=np.int32)
            twotime["config/stride_frame"] = 1
            twotime["config/avg_frame"] = 1
            twotime["config/begin_frame"] = _frames_before(float(data.t[0]) / step)
            for k in range(phi.size):
                twotime.create_dataset(
                    f"correlation_map/c2_{k + 1:05d}", data=_upper(data, k), compression="lzf"
                )
        os.replace(temporary, path)
    except OSError as exc:
        raise DataError(
            f"{path}: the file cannot be written ({exc}); expected a writable folder."
        ) from exc
    finally:
        temporary.unlink(missing_ok=True)


def _time_step(data: TwoTimeData, dt: float | None) -> float:
    steps = np.diff(np.asarray(data.t, dtype=np.float64))
    step = float(np.mean(steps)) if dt is None else dt
    slack = 1e-6 * step + 8 * np.finfo(np.asarray(data.t).dtype).eps * np.max(np.abs(data.t))
    if not (step > 0 and np.all(np.abs(steps - step) <= slack)):
        raise DataError(
            f"frames are {steps.min():g} to {steps.max():g} s apart; expected equal steps"
            f"{'' if dt is None else f' of dt = {dt:g} s'}; this layout holds no other times."
        )
    return step


def _frames_before(first: float) -> int:
    """Frames before the first, from its time in frames; 0 where that is no whole number."""
    before = round(first) - 1
    return before if before > 0 and abs(first - 1 - before) < 1e-6 * first else 0


def _upper(data: TwoTimeData, k: int) -> np.ndarray:
    matrix = np.array(data.c2[k], dtype=np.float32)
    if data.mask is not None:
        hidden = ~np.asarray(data.mask[k])
        np.fill_diagonal(hidden, False)
        matrix[hidden] = np.nan
    return np.triu(matrix)
