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

from twotime.data.dataset import TwoTimeData
from twotime.data.prepare import LoadReport, load_file
from twotime.data.selection import Selection
from twotime.data.source import DataError, container

_FORMAT = 1
_ARRAYS = ("c2", "t", "q", "phi", "mask", "sigma")


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
