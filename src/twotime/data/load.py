"""Selected data kept beside the source, never used for anything but exactly what they are of."""

import contextlib
import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np

from twotime.config.manager import ConfigManager
from twotime.data.dataset import TwoTimeData
from twotime.data.matrices import read_matrices
from twotime.data.readers.files import open_source
from twotime.data.selection import (
    SAME_Q,
    PhiFilter,
    Selection,
    frame_times,
    select_bins,
    select_frames,
)
from twotime.data.source import PlacedBin, TwoTimeFile, container
from twotime.errors import DataError

_FORMAT = 1
_ARRAYS = ("c2", "t", "q", "phi", "mask", "sigma")


class LoadReport(eqx.Module):
    """Where data came from and what was left out on the way.

    Attributes:
        path: The file.
        sha256: Checksum of the file.
        layout: Name of its layout.
        q: Wavevector found [1/Å].
        frames: First and last selected frame, counted from 1, both included.
        n_frames_in_file: Frames of the file's matrices.
        dt: Time between frames [s]; None for times that are not equally spaced.
        n_angles: Matrices used.
        empty: Matrices of this wavevector that were never filled and are left out.
        n_pixels: Pixels with t1 < t2 that are used.
        n_masked: Pixels with t1 < t2 that are not finite, masked in the file, or without light.
        notes: Sentences a user should read.
    """

    path: str
    sha256: str
    layout: str
    q: float
    frames: tuple[int, int]
    n_frames_in_file: int
    dt: float | None
    n_angles: int
    empty: tuple[str, ...]
    n_pixels: int
    n_masked: int
    notes: tuple[str, ...]


class Cache(eqx.Module):
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


def load_cached(path: Path, selection: Selection, cache: Cache) -> tuple[TwoTimeData, LoadReport]:
    """As `load_file`, from the cache where it holds exactly this.

    The key is the path, size and modification time of the source, everything in the selection
    and the version of the format. A file with another key is replaced. A cache that cannot be
    written is reported in the notes and changes nothing else.

    Args:
        path: The source file.
        selection: What to take from it.
        cache: Where selected data are kept.

    Raises:
        DataNotFoundError: As `load_file`.
        DataError: As `load_file`, or if the cache's name belongs to a file that is no cache.
    """
    container(path)  # names a missing source before its size and time are asked for
    key = _key(path, selection)
    target = cache.folder / _name(cache, selection, key)
    found = _read(target, key)
    if found is not None:
        return found
    _check_replaceable(target)
    data, report = load_file(path, selection)
    try:
        _write(target, key, data, report, compression=cache.compression)
    except OSError as exc:
        note = f"no cache was written to {target} ({exc})"
        report = dataclasses.replace(report, notes=(*report.notes, note))
    return data, report


def _key(path: Path, selection: Selection) -> str:
    status = path.stat()
    return json.dumps(
        {
            "format": _FORMAT,
            "path": str(path.resolve()),
            "size": status.st_size,
            "modified": status.st_mtime_ns,
            "selection": dataclasses.asdict(selection),
        },
        sort_keys=True,
    )


def _name(cache: Cache, selection: Selection, key: str) -> str:
    if cache.name is None:
        return f"twotime-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    name = cache.name
    for variable, value in (
        ("wavevector_q", f"{selection.q:.6g}"),
        ("start_frame", str(selection.start_frame)),
        ("end_frame", str(selection.end_frame)),
    ):
        name = name.replace(f"${{{variable}}}", value)
    return name if name.endswith(".npz") else f"{name}.npz"


def _read(target: Path, key: str) -> tuple[TwoTimeData, LoadReport] | None:
    """What the cache file holds if it is whole and its key fits."""
    with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
        with target.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            arrays = {name: file[name] for name in _ARRAYS if name in file.files}
            report = json.loads(str(file["report"]))
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in report.items()
        }
        return TwoTimeData(**arrays), LoadReport(**values)
    return None


def _check_replaceable(target: Path) -> None:
    """Refuse to replace a file that is no cache, such as data under the same name."""
    if not target.exists():
        return
    with contextlib.suppress(OSError, ValueError, zipfile.BadZipFile):
        with target.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if {"key", "report"} <= set(file.files):
                return
    raise DataError(
        f"{target}: the file that would hold the cache exists and is no cache; expected a name "
        "of its own; change experimental_data.cache_filename_template or delete the file."
    )


def _write(
    target: Path, key: str, data: TwoTimeData, report: LoadReport, *, compression: bool
) -> None:
    held = {"key": np.asarray(key), "report": np.asarray(json.dumps(dataclasses.asdict(report)))}
    for name in _ARRAYS:
        if getattr(data, name) is not None:
            held[name] = np.asarray(getattr(data, name))
    save: Callable[..., None] = np.savez_compressed if compression else np.savez
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            save(stream, **held)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def load_file(path: Path, selection: Selection) -> tuple[TwoTimeData, LoadReport]:
    """Read one wavevector of a two-time file.

    Stored triangles are completed by symmetry, full matrices are taken as they are. The
    diagonal (shot noise) and pixels that are not finite are masked; no number is changed.

    Args:
        path: The file.
        selection: What to take from it.

    Returns:
        The data, and an account of them.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged or the selection cannot be made from it.
    """
    path = Path(path)
    file = open_source(path, angle_last=selection.roi_axis == "last")
    if selection.layout not in ("auto", file.layout):
        raise DataError(
            f"{path}: the layout is {file.layout} but experimental_data.file_format is "
            f"{selection.layout}; leave file_format out to have the layout recognised."
        )
    q, bins = select_bins(file, selection)
    first, last = select_frames(file, selection)
    dt, t = frame_times(file, selection, first, last)
    _check_size(file, bins, t.size, selection.memory_limit)
    window = slice(first - 1, last)
    read = read_matrices(file, bins, window, average_triangles=selection.average_triangles)
    n_pixels = int(np.count_nonzero(read.mask)) // 2
    report = LoadReport(
        path=str(path),
        sha256=_sha256(path),
        layout=file.layout,
        q=q,
        frames=(first, last),
        n_frames_in_file=file.n_frames,
        dt=dt,
        n_angles=len(read.kept),
        empty=tuple(str(b) for b in read.empty),
        n_pixels=n_pixels,
        n_masked=len(read.kept) * t.size * (t.size - 1) // 2 - n_pixels,
        notes=file.notes + _notes(file, selection, q) + read.notes,
    )
    phi = np.array([b.phi for b in read.kept], float)
    return TwoTimeData(read.c2, t, np.asarray(q), phi, mask=read.mask, sigma=read.sigma), report


def _notes(file: TwoTimeFile, selection: Selection, q: float) -> tuple[str, ...]:
    notes = []
    if abs(q - selection.q) > SAME_Q * abs(q):
        notes.append(f"q = {q:.6g} 1/Å is the file's nearest to the {selection.q:.6g} asked for")
    if q > 1:
        notes.append(f"q = {q:g} is large for 1/Å: values in 1/nm must be divided by 10")
    if selection.phi_angles is None and any(b.phi is None for b in file.bins):
        notes.append("the file does not say the angle of its matrix: phi = 0")
    if file.skipped and selection.t0 is None:
        notes.append(f"the first frame of the file is preceded by {file.skipped:g} frames")
    if selection.dt is not None and file.dt is not None and selection.dt_source is not None:
        notes.append(
            f"dt of the {selection.dt_source} is used, as analyzer_parameters.dt_source says"
        )
    return tuple(notes)


def _check_size(
    file: TwoTimeFile, bins: tuple[PlacedBin, ...], n_frames: int, limit: float | None
) -> None:
    # Double precision and a mask; no file gives more.
    size = len(bins) * n_frames**2 * 9
    if limit is not None and size > limit:
        raise DataError(
            f"{file.path}: {len(bins)} matrices of {n_frames} frames take up to "
            f"{size / 1e9:.3g} GB, hardware.memory_limit_gb is {limit / 1e9:.3g}; select fewer "
            "frames or angles, or raise the limit."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_data(config: ConfigManager) -> TwoTimeData:
    """Read, select and check the data a configuration asks for.

    Args:
        config: A validated configuration.

    Returns:
        One wavevector: its matrices, frame times and angles.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged or does not hold what is asked for.
    """
    return load_with_report(config)[0]


def load_with_report(config: ConfigManager) -> tuple[TwoTimeData, LoadReport]:
    """As `load_data`, with an account of the source and of what was left out.

    Args:
        config: A validated configuration.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged or does not hold what is asked for.
    """
    selection = selection_from(config)
    if config.cache_file_path is None:
        return load_file(config.data_file_path, selection)
    cache = Cache(config.cache_file_path, config.cache_filename_template, config.cache_compression)
    return load_cached(config.data_file_path, selection, cache)


def selection_from(config: ConfigManager) -> Selection:
    """What a configuration asks to take from its file."""
    data = config.section("experimental_data")
    angles = config.phi_filtering
    limit = config.section("hardware").get("memory_limit_gb")
    return Selection(
        q=config.wavevector_q,
        q_tolerance=config.q_tolerance,
        phi_angles=None if config.phi_angles is None else tuple(config.phi_angles),
        phi=PhiFilter(
            ranges=tuple((float(low), float(high)) for low, high in angles.get("ranges", ())),
            include=tuple(float(angle) for angle in angles.get("include_angles", ())),
            exclude=tuple(float(angle) for angle in angles.get("exclude_angles", ())),
            tolerance=float(angles["tolerance"]),
        ),
        layout=config.file_format,
        roi_axis=data["roi_axis"],
        start_frame=config.start_frame,
        end_frame=config.end_frame,
        dt=config.dt,
        dt_source=config.dt_source,
        t0=config.t0,
        average_triangles=data["average_triangles"],
        memory_limit=None if limit is None else 1e9 * limit,
    )
