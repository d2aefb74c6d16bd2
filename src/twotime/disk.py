"""Files on disk: locked, replaced as a whole, and recognised when damaged."""

import contextlib
import errno
import os
import shutil
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

DAMAGED = (
    OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, OverflowError, MemoryError,
    zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip
"""What reading a damaged npz file raises."""

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a lock: a file that exists while it is held; a killed process holds none.

    Gives whether the file system has locks.

    Raises:
        BlockingIOError: If another process holds it and `wait` is false.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            has_locks = _lock(handle, wait)
            is_current = path.exists() and os.path.samestat(os.fstat(handle), path.stat())
        except BaseException:
            os.close(handle)
            raise
        if is_current or not has_locks:
            break
        os.close(handle)  # removed by the one that held it before
    try:
        yield has_locks
    finally:
        try:
            with contextlib.suppress(OSError):
                path.unlink()
        finally:
            os.close(handle)


def _lock(handle: int, wait: bool) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as exc:
        if exc.errno in _NO_LOCKS:
            return False
        if sys.platform == "win32":
            raise BlockingIOError(*exc.args) from exc
        raise
    return True


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name for a file; where the block succeeds, the file gets its name.

    What a killed process left is replaced. A link stays; the file that it names is replaced.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.tmp")
    with locked(path.with_name(f".{path.name}.lock"), wait=True):
        try:
            temporary.unlink(missing_ok=True)
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    r"""Write text in UTF-8; names of files that are none are written as escapes (\udcff).

    JSON and quoted YAML read such an escape as the same name.
    """
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all files in it, is on the disk.

    Raises:
        OSError: If it is not, as on a full disk that is far away.
    """
    if path.is_dir():
        for item in path.iterdir():
            if not item.is_symlink():
                sync(item)
        if sys.platform == "win32":  # folders cannot be opened there
            return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(folder: Path, waste: Path) -> None:
    """Remove a folder under the name `waste`, so that a kill never leaves half of it in place."""
    if waste.exists():
        shutil.rmtree(waste)
    os.rename(folder, waste)
    shutil.rmtree(waste)
