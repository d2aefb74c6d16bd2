"""Files of data that are written, complete or not at all: APS-U files and the cache."""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from twotime.data.dataset import TwoTimeData
from twotime.data.detector import detector_for, shown
from twotime.data.links import files_behind
from twotime.data.readers.aps import MEAN_IMAGE, RELATIVE
from twotime.data.selection import Selection
from twotime.disk import DAMAGED, replacing
from twotime.errors import DataError
from twotime.kinds import checked

_CACHE_FORMAT = 4
_ARRAYS = ("c2", "t", "q", "phi", "mask", "sigma", "baseline")
_RINGS = "rings"


@checked
def write_apsu(
    path: Path | str, data: TwoTimeData, *, dt: float | None = None, overwrite: bool = False
) -> None:
    """Write data as an APS-U result file: upper halves in single precision, lzf compressed.

    The map has one angle more than the data, without pixels, as real files have behind a beamstop:
    a reader that ignores `dynamic_index_mapping` gets every angle wrong. The file also holds what
    viewers show, on a made-up detector with relative intensities (`twotime.data.detector`). Masked
    points above the diagonal are NaN. A first frame at a whole multiple of `dt` is kept as
    `begin_frame`; any other time origin is to be given as `t0` when the file is read.

    Args:
        path: File to write; written under a temporary name first, so it is never incomplete.
        data: What to write.
        dt: Time between frames [s]; None takes it from `data.t`.
        overwrite: Whether an existing file may be replaced.

    Raises:
        DataError: If the file exists and may not be replaced, frames are not equally
            spaced, two matrices have the same wavevector and angle, or the folder is not
            writable.
    """
    import h5py  # loaded only where a file is written

    path = Path(path)
    if path.exists() and not overwrite:
        raise DataError(f"{path}: the file exists; expected a new name, or overwrite=True.")
    step = _time_step(data, dt)
    q, phi, place = _map_of(data)
    order, count = np.argsort(place), place.size
    values = {
        "entry/instrument/detector_1/frame_time": step,
        "entry/instrument/detector_1/count_time": step,
        "xpcs/qmap/dynamic_v_list_dim0": q,
        "xpcs/qmap/dynamic_v_list_dim1": phi,
        "xpcs/qmap/dynamic_num_pts": np.asarray([q.size, phi.size]),
        "xpcs/qmap/dynamic_index_mapping": place[order],
        "xpcs/qmap/map_names": np.asarray([b"q", b"phi"]),
        "xpcs/qmap/map_units": np.asarray(["Å⁻¹".encode(), b"deg"]),
        "xpcs/twotime/processed_bins": np.arange(1, count + 1, dtype=np.int32),
        "xpcs/twotime/config/stride_frame": 1,
        "xpcs/twotime/config/avg_frame": 1,
        "xpcs/twotime/config/begin_frame": _frames_before(float(data.t[0]) / step),
    }
    half = np.stack([_upper(data, k) for k in order.tolist()])
    values |= shown(detector_for(q, phi, place[order]), half)
    try:
        with replacing(path) as temporary, h5py.File(temporary, "w") as file:
            for name, value in values.items():
                file[name] = value
            for number, matrix in enumerate(half, start=1):
                name = f"xpcs/twotime/correlation_map/c2_{number:05d}"
                file.create_dataset(name, data=matrix, compression="lzf")
            file["xpcs/qmap"].attrs["hash"] = _hash_of_map(values)
            file[MEAN_IMAGE].attrs["units"] = RELATIVE
    except OSError as exc:
        text = f"{path}: the file cannot be written ({exc}); expected a writable folder."
        raise DataError(text) from exc


def _hash_of_map(values: Mapping[str, Any]) -> str:
    """What viewers recognise equal maps by."""
    kept = {name: np.asarray(x) for name, x in values.items() if name.startswith("xpcs/qmap/")}
    digest = hashlib.sha256()
    for name, array in sorted(kept.items()):
        digest.update(name.encode() + array.tobytes())
    return digest.hexdigest()[:16]


def _map_of(data: TwoTimeData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wavevectors and angles of a map that holds the matrices of data, and their places in it."""
    of_each = np.broadcast_to(np.asarray(data.q, float), data.phi.shape)
    q, angles = np.unique(of_each), np.asarray(data.phi, float)
    phi = np.array(list(dict.fromkeys(angles.tolist())))
    unseen = phi[0] - 180 if phi.size == 1 else 0.5 * (phi[0] + phi[1])
    phi = np.insert(phi, 0, unseen)
    column = np.argmax(phi[1:] == angles[:, None], axis=1) + 1
    place = np.searchsorted(q, of_each) * phi.size + column
    if np.unique(place).size < place.size:
        raise DataError(
            "two matrices have the same wavevector and angle, for which this layout has one place; "
            "write them to files of their own."
        )
    return q, phi, place


def _time_step(data: TwoTimeData, dt: float | None) -> float:
    t = np.asarray(data.t, dtype=np.float64)
    steps = np.diff(t)
    step = float(np.mean(steps)) if dt is None else dt
    slack = 1e-6 * step + 8 * np.finfo(np.asarray(data.t).dtype).eps * np.max(np.abs(t))
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


def _upper(data: TwoTimeData, k: int) -> Float[np.ndarray, "time time"]:
    c2 = np.array(data.c2[k], dtype=np.float32)
    used = True if data.mask is None else np.asarray(data.mask[k]) | np.eye(len(c2), dtype=bool)
    return np.triu(np.where(used, c2, np.float32(np.nan)))


@dataclasses.dataclass(frozen=True)
class Cache:
    """Where selected data are kept.

    Attributes:
        folder: Folder of the cache files.
        name: Name of the file, with ${wavevector_q}, ${start_frame} and ${end_frame}; None
            derives it from the key, so that every selection has its own file.
        compression: Whether files are compressed.
    """

    folder: Path
    name: str | None = None
    compression: bool = True

    def file_for(self, selection: Selection, key: str) -> Path:
        """The file for a selection and its key."""
        if self.name is None:
            return self.folder / f"twotime-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
        q = selection.q if isinstance(selection.q, tuple) else (selection.q,)
        words = "_".join("all" if value is None else f"{value:.6g}" for value in q)
        name = self.name.replace("${wavevector_q}", words)
        name = name.replace("${start_frame}", str(selection.start_frame))
        name = name.replace("${end_frame}", str(selection.end_frame))
        return self.folder / (name if name.endswith(".npz") else f"{name}.npz")


def cache_key(path: Path, selection: Selection) -> str:
    """What the content of a cache file depends on: source, selection and format, as JSON."""
    status, selected = path.stat(), dataclasses.asdict(selection)
    source = {"path": str(path.resolve()), "size": status.st_size, "modified": status.st_mtime_ns}
    facts = {"format": _CACHE_FORMAT, **source, "selection": selected}
    if selection.mask_file is not None:
        status = selection.mask_file.stat()
        facts["mask"] = {"size": status.st_size, "modified": status.st_mtime_ns}
    return json.dumps(facts, sort_keys=True, default=str)


def read_cache(target: Path, key: str) -> tuple[TwoTimeData, dict[str, Any]] | None:
    """Data and report in a cache file; None where there is none, or one of other content.

    Raises:
        DataError: If the file is not a cache, so that it must not be replaced.
    """
    is_cache = not target.exists()
    with contextlib.suppress(*DAMAGED):
        with target.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            is_cache = {"key", "report"} <= set(file.files)
            linked = json.loads(str(file["linked"])) if "linked" in file.files else None
            is_same = linked is not None and linked == _stamps(linked)
            if is_same and str(file["key"]) == key:
                facts = json.loads(str(file["report"])).items()
                report = {k: tuple(v) if isinstance(v, list) else v for k, v in facts}
                arrays = {name: file[name] for name in _ARRAYS if name in file.files}
                return TwoTimeData(**arrays, rings=tuple(file[_RINGS].tolist())), report
    if not is_cache:
        raise DataError(
            f"{target}: the cache would replace this file, which is not a cache; change "
            "experimental_data.cache_filename_template or delete the file."
        )
    return None


def write_cache(
    path: Path,
    target: Path,
    key: str,
    data: TwoTimeData,
    report: dict[str, Any],
    compression: bool,
) -> None:
    """Write a cache file of the source `path` that `read_cache` reads."""
    arrays = {name: getattr(data, name) for name in _ARRAYS if getattr(data, name) is not None}
    save: Callable[..., None] = np.savez_compressed if compression else np.savez
    facts = {"report": json.dumps(report), "linked": json.dumps(_stamps(files_behind(path)))}
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary, temporary.open("wb") as stream:
        save(stream, key=key, **facts, **{_RINGS: data.rings}, **arrays)


def _stamps(paths: Iterable[str]) -> dict[str, list[int] | None]:
    """Size and time of files by name; None for those that are not there."""
    stamps = {}
    for path in paths:
        found = os.stat(path) if os.path.exists(path) else None
        stamps[path] = None if found is None else [found.st_size, found.st_mtime_ns]
    return stamps
