"""Result folders: written whole or not at all, and never over what may not be replaced."""

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULT = "result.json"


class ResultError(ValueError):
    """A result folder that cannot be written or read; the message is one sentence."""


def read_result_json(folder: Path) -> dict[str, Any]:
    """Read the result.json of a folder.

    Raises:
        ResultError: If it is not there or was not written by twotime.
    """
    path = folder / RESULT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError(
            f"{folder}: holds no result, there is no {RESULT} in it; expected a folder that "
            "`twotime fit` or `save` wrote."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise ResultError(f"{path}: cannot be read ({exc}); fit again.") from exc
    if not isinstance(content, dict) or "kind" not in content or "fields" not in content:
        raise ResultError(f"{path}: was not written by twotime; expected its kind and fields.")
    return content


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system says when a folder cannot be written into one sentence.

    Raises:
        ResultError: If the folder cannot be written.
    """
    try:
        yield
    except OSError as exc:
        raise ResultError(
            f"{folder}: the results folder cannot be written ({exc.strerror or exc}); expected a "
            "writable place; name another one."
        ) from exc


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that results cannot be written to; leaves everything as it is.

    Args:
        folder: Where results shall be.
        overwrite: Whether a result that is there may be replaced.

    Raises:
        ResultError: If it holds a result or other files, or cannot be written.
    """
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / RESULT).exists():
            raise ResultError(
                f"{folder}: the folder holds other files and no result; expected a new or empty "
                "folder; name another one."
            )
        if not overwrite:
            raise ResultError(
                f"{folder}: already holds a result; name another folder, or say that it may be "
                "replaced (--overwrite, overwrite=True)."
            )
    parent = next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(p))
    with writing(folder):
        os.rmdir(tempfile.mkdtemp(prefix=".twotime.", dir=parent))


@contextlib.contextmanager
def new_folder(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder that becomes `folder` when the block ends without an error.

    A result that is there is replaced file by file: what its list of files names goes, folders
    of its parts as a whole; what the user put beside stays.

    Args:
        folder: Where the content shall be in the end.
        overwrite: Whether a result that is there may be replaced.

    Raises:
        ResultError: If the folder cannot be written, or holds what may not be replaced.
    """
    folder = folder.absolute()
    check_folder(folder, overwrite=overwrite)
    temporary = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
    made = [p for p in folder.parents if not p.exists()]
    try:
        with writing(folder):
            temporary.mkdir(parents=True)
            yield temporary
            _put(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            if parent.exists() and not any(parent.iterdir()):
                parent.rmdir()


def _put(temporary: Path, folder: Path) -> None:
    """Rename the temporary folder, or move its files into a folder that holds an old result."""
    if not (folder / RESULT).exists():
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
        return
    old = [folder / Path(name).name for name in read_result_json(folder).get("files", ())]
    (folder / RESULT).unlink()
    for path in old:
        if (path / RESULT).exists():  # a part that is a result folder itself
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in sorted(temporary.iterdir(), key=lambda p: p.name == RESULT):
        path.replace(folder / path.name)
