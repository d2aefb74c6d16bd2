"""Result folders are replaced as a whole: after any error or kill the old or the new is in place.

A new result is written into `.NAME.twotime-part` beside the folder NAME and renamed to
`.NAME.twotime-new` when it is complete. The old one becomes `.NAME.twotime-old`, the new one gets
the name, files that the user added to the old one move into it, and the old one is removed. Who
does this holds the lock `.NAME.twotime-lock`. What a killed run left is settled by the next one.
"""

import contextlib
import contextvars
import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from twotime.disk import locked, remove, sync
from twotime.errors import ResultError

RESULT, POSTERIOR, PAGE = "result.json", "posterior", "report.html"

_MARK = ".twotime-"
_OCCUPIED = {errno.ENOTEMPTY, errno.EEXIST}
_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """Names around a result folder.

    Attributes:
        folder: The folder itself, where a link leads to.
        part: A result that is being written, or what is left to be removed.
        probe: Something to try out whether the folder may be renamed.
        new: A complete result that is not yet in place.
        old: A result that is being replaced.
        lock: File that exists while a run writes into the folder.
    """

    folder: Path
    part: Path
    probe: Path
    new: Path
    old: Path
    lock: Path


def place_of(folder: Path) -> Place:
    """The names around a folder."""
    folder = Path(os.path.realpath(folder))
    names = (f".{folder.name}{_MARK}{role}" for role in Place._fields[1:])
    return Place(folder, *(folder.parent / name for name in names))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's errors while a folder is written into one sentence.

    Raises:
        ResultError: If the folder cannot be written.
    """
    try:
        yield
    except OSError as exc:
        raise ResultError(
            f"{folder}: the results folder cannot be written ({exc.strerror or exc}); expected a "
            "writable place; choose another folder."
        ) from exc


def read_result_json(folder: Path) -> dict[str, Any]:
    """Read the result.json of a folder.

    Raises:
        ResultError: If it is not there or was not written by twotime.
    """
    path = folder / RESULT
    if not folder.exists():
        _settle_unless_locked(place_of(folder))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ResultError(
            f"{folder}: holds no result (no {RESULT} in it); expected a folder written by "
            "`twotime fit` or `save`."
        ) from None
    except (OSError, ValueError, RecursionError) as exc:
        raise ResultError(f"{path}: cannot be read ({exc}); fit again.") from exc
    if not isinstance(content, dict) or "kind" not in content or "fields" not in content:
        raise ResultError(f"{path}: was not written by twotime; expected its kind and fields.")
    files = content.get("files", [])
    if not (isinstance(files, list) and all(isinstance(name, str) for name in files)):
        raise ResultError(f"{path}: is damaged: `files` is no list of names; fit again.")
    return content


_held = contextvars.ContextVar[tuple[Path, ...]]("folders that are claimed", default=())


@contextlib.contextmanager
def claim(folder: Path, *, overwrite: bool) -> Iterator[Place]:
    """Hold a folder for a result, so that no other run writes into it; settle what one left.

    Claims of the same thread (and context) may be nested. Of several processes of one JAX program
    the first holds the folder for all.

    Raises:
        ResultError: If another run holds it, or it cannot be written or replaced.
    """
    place = place_of(folder)
    if jax.process_index() > 0:
        yield place
        return
    if place.folder in _held.get():
        _check(folder, place, overwrite=overwrite)
        yield place
        return
    made = [parent for parent in place.folder.parents if not parent.exists()]
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_empty, made)
        try:
            with writing(folder):
                place.folder.parent.mkdir(parents=True, exist_ok=True)
                has_locks = stack.enter_context(locked(place.lock))
        except ResultError as exc:
            if isinstance(exc.__cause__, BlockingIOError):
                raise ResultError(
                    f"{folder}: another run is writing into this folder; wait until it ends, or "
                    "choose another folder."
                ) from None
            raise
        if not has_locks:
            _log.warning("%s: this file system has no locks; start no second run here", folder)
        with writing(folder):
            _settle(place)
        _check(folder, place, overwrite=overwrite)
        token = _held.set((*_held.get(), place.folder))
        try:
            yield place
        finally:
            _held.reset(token)


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def new_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder that becomes `folder` when the block ends without an error.

    An existing result is replaced; files that the user added to it stay.

    Raises:
        ResultError: If the folder cannot be written or replaced, or holds what may not be replaced.
    """
    with claim(folder, overwrite=overwrite) as place, _staged(folder, place) as temporary:
        yield temporary
        if jax.process_index() == 0:
            with writing(folder):
                if place.folder.exists():
                    shutil.copymode(place.folder, temporary)
                sync(temporary)
                _commit(folder, place, overwrite=overwrite)


@contextlib.contextmanager
def added(folder: Path) -> Iterator[Path]:
    """Give a temporary folder whose files move into an existing `folder`, each as a whole.

    Raises:
        ResultError: If the folder cannot be written.
    """
    part = folder / f"{_MARK}part"
    with writing(folder), locked(folder / f"{_MARK}lock", wait=True):
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            yield part
            sync(part)
            for path in sorted(part.iterdir()):
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _staged(folder: Path, place: Place) -> Iterator[Path]:
    """An empty folder beside the result, which is gone after the block."""
    if jax.process_index() > 0:
        with tempfile.TemporaryDirectory() as unused:
            yield Path(unused)
        return
    try:
        with writing(folder):
            place.part.mkdir()
            yield place.part
    finally:
        shutil.rmtree(place.part, ignore_errors=True)


def _check(folder: Path, place: Place, *, overwrite: bool) -> None:
    """Refuse a folder that a result cannot be put into."""
    target = place.folder
    if not os.path.lexists(target):
        _try(folder, place)
        return
    if not target.is_dir():
        raise ResultError(f"{folder}: is no folder; expected a folder; choose another name.")
    if Path.cwd().is_relative_to(target):
        raise ResultError(
            f"{folder}: is the working folder or holds it, and results replace a folder as a "
            "whole; name a folder inside it."
        )
    if any(target.iterdir()):
        if not (target / RESULT).exists():
            raise ResultError(
                f"{folder}: the folder holds other files and no result; expected a new or empty "
                "folder; choose another one."
            )
        if not overwrite:
            raise ResultError(
                f"{folder}: already holds a result; choose another folder, or allow replacing it "
                "(--overwrite, overwrite=True)."
            )
        try:
            stay = list(_foreign(target))
        except ResultError as exc:
            raise ResultError(
                f"{folder}: its result is damaged, so its files cannot be told from yours "
                f"({exc}); choose another folder, or move this one away."
            ) from exc
        for name in stay:
            if (target / name).is_mount():
                raise ResultError(
                    f"{folder}: {name} in it is a mounted volume, which cannot move into a new "
                    "result; choose another folder."
                )
    if not os.access(target, os.W_OK | os.X_OK):
        raise ResultError(f"{folder}: is write-protected; choose another folder.")
    _try(folder, place)


def _try(folder: Path, place: Place) -> None:
    """Refuse a folder that cannot be written beside, or not be renamed (a mounted volume).

    Renaming onto a folder that holds a file always fails; how, says whether the source may move.
    """
    with writing(folder):
        place.probe.mkdir()
        try:
            (place.probe / "occupied").touch()
            if place.folder.exists():
                os.rename(place.folder, place.probe)
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                raise ResultError(
                    f"{folder}: is a mounted volume, and results replace a folder as a whole; name "
                    "a folder inside it."
                ) from exc
            if exc.errno not in _OCCUPIED:
                raise
        finally:
            shutil.rmtree(place.probe, ignore_errors=True)


def _commit(folder: Path, place: Place, *, overwrite: bool) -> None:
    """Put the complete new result in place of the old one."""
    try:
        try:
            _check(folder, place, overwrite=overwrite)  # what stands there may have changed
        finally:
            os.rename(place.part, place.new)
        if place.folder.exists():
            os.rename(place.folder, place.old)
        os.rename(place.new, place.folder)
        sync_names(place.folder.parent)
        _finish(place)
    except BaseException as exc:
        kept = _settle(place)
        if kept is None or not isinstance(exc, OSError | ResultError):
            raise
        raise ResultError(f"{exc} The new result is complete, in {kept}.") from exc


def sync_names(folder: Path) -> None:
    """Wait until new names in a folder are on the disk, where the system can tell."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _settle_unless_locked(place: Place) -> None:
    if place.new.exists() or place.old.exists():
        with contextlib.suppress(OSError), locked(place.lock):
            _settle(place)


def _settle(place: Place) -> Path | None:
    """Finish or undo a replacement that ended half way; gives where a new result is kept, if any.

    Nothing complete is removed unless a whole result is in place.
    """
    kept = None
    clear(place.part)
    clear(place.probe)
    if place.new.exists() and not place.folder.exists():
        with contextlib.suppress(OSError):
            os.rename(place.new, place.folder)
            _log.warning("%s: put in place what a run left when it was killed", place.folder)
    if place.old.exists() and not place.folder.exists():
        os.rename(place.old, place.folder)
    if place.new.exists():
        kept = _free(place.folder.with_name(f"{place.folder.name}.new"))
        os.rename(place.new, kept)
        _log.warning("%s: holds a complete result that could not be put in place", kept)
    if place.old.exists():
        _finish(place)
    return kept


def clear(waste: Path) -> None:
    """Remove an incomplete folder that a killed run left, if there is one."""
    if waste.exists():
        shutil.rmtree(waste)
        _log.warning("removed %s, which a run left when it was killed", waste)


def _finish(place: Place) -> None:
    """Move what the user added to the old result into the new one, and remove the old one."""
    if not place.old.exists():
        return
    try:
        stay = list(_foreign(place.old)) if any(place.old.iterdir()) else []
        for name in stay:
            target = _free(place.folder / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(place.old / name, target)
        remove(place.old, place.part)
    except (OSError, ResultError) as exc:
        rest = place.old if place.old.exists() else place.part
        _log.warning("the old result could not be removed (%s); what is left is in %s", exc, rest)


def _foreign(folder: Path) -> Iterator[Path]:
    """What a user added to a result, by name in the folder.

    Raises:
        ResultError: If the result is damaged.
    """
    own = {RESULT, PAGE} | {Path(name).name for name in read_result_json(folder).get("files", ())}
    for path in sorted(folder.iterdir()):
        if _MARK in path.name:
            continue
        is_part = path.is_dir() and not path.is_symlink() and (path / RESULT).exists()
        if is_part and path.name in own | {POSTERIOR}:
            yield from (Path(path.name) / name for name in _foreign(path))
        elif path.name not in own or path.is_dir():
            yield Path(path.name)


def _free(path: Path) -> Path:
    """The name itself, or the next one with a number that nothing has."""
    count, free = 1, path
    while os.path.lexists(free):
        count += 1
        free = path.with_name(f"{path.name}-{count}")
    return free
