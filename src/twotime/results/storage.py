"""Result folders: written whole or not at all, and never over what may not be replaced."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from twotime.errors import ResultError
from twotime.report.tables import Curve, Provenance
from twotime.version import __version__

RESULT = "result.json"


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


ARRAYS = "arrays.npz"
REPORT = "report.md"

_PARTS = {"values": "function_", "lower": "lower_", "upper": "upper_"}


@runtime_checkable
class Result(Protocol):
    """A result that can be written into a folder: a dataclass that sums itself up."""

    def summary(self) -> dict[str, Any]:
        """What was found, by name."""

    def report(self, *args: Any, **kwargs: Any) -> str:
        """The result in words and tables."""


def fields_to_json(value: Any) -> dict[str, Any]:
    """Write the fields of a dataclass as JSON that `fields_from_json` restores bit for bit.

    Args:
        value: A dataclass whose fields are arrays, numbers, texts, None, or tuples and
            dictionaries of these.

    Raises:
        TypeError: If a field is none of these.
    """
    return {f.name: _packed(getattr(value, f.name), f.name) for f in dataclasses.fields(value)}


def fields_from_json(kind: type, packed: Mapping[str, Any]) -> Any:
    """Restore a dataclass that `fields_to_json` wrote.

    Args:
        kind: Class of the value.
        packed: What was written of its fields.

    Raises:
        ValueError: If float64 is off: the numbers could not be restored.
        ResultError: If fields are unknown, or missing without a default.
    """
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError(
            "Restoring a result needs float64, which JAX has switched off; call "
            'jax.config.update("jax_enable_x64", True) first, or set JAX_ENABLE_X64=1.'
        )
    known = {f.name: f for f in dataclasses.fields(kind)}
    needed = {
        name
        for name, f in known.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    wrong = sorted(set(packed) - set(known)) + sorted(needed - set(packed))
    if wrong:
        raise ResultError(
            f"the saved {kind.__name__} and this version of twotime differ in {', '.join(wrong)}; "
            "read it with the version that its result.json names."
        )
    return kind(**{name: _unpacked(value) for name, value in packed.items()})


def plain(value: Any) -> Any:
    """Numbers, arrays and containers as JSON takes them; numbers it does not know as strings."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return plain(np.asarray(value).tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return repr(value)
    return str(value) if isinstance(value, Path) else value


def _packed(value: Any, name: str) -> Any:
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        array = np.asarray(value)
        return {"dtype": array.dtype.name, "shape": list(array.shape), "values": plain(array)}
    if isinstance(value, tuple | list):
        return [_packed(item, name) for item in value]
    if isinstance(value, Mapping):
        return {"items": {key: _packed(item, name) for key, item in value.items()}}
    if isinstance(value, float):
        return {"float": plain(value)}
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(
        f"{name} is of type {type(value).__name__}; expected arrays, numbers, texts, tuples or "
        "dictionaries, which are what a result folder can hold."
    )


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_unpacked(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {key: _unpacked(item) for key, item in value["items"].items()}
    if "float" in value:
        return float(value["float"])
    array = np.asarray(value["values"], dtype=value["dtype"])
    return jnp.asarray(array.reshape(value["shape"]))


def write_result(
    folder: Path,
    result: Result,
    arrays: Mapping[str, np.ndarray],
    curves: Mapping[str, Curve],
    provenance: Provenance | None = None,
    figures: tuple[str, ...] = (),
) -> None:
    """Write a result into a folder that exists and holds at most its figures.

    Args:
        folder: The folder.
        result: The result.
        arrays: What arrays.npz shall hold beside the functions of time.
        curves: Functions of time by name.
        provenance: Where the result comes from.
        figures: Names of figures in the folder.
    """
    np.savez(folder / ARRAYS, allow_pickle=False, **arrays, **curve_arrays(curves))
    (folder / REPORT).write_text(
        result.report(curves=curves, provenance=provenance, figures=figures), encoding="utf-8"
    )
    origin = Provenance() if provenance is None else provenance
    content = common_content(result, (ARRAYS, REPORT, *figures), origin) | {
        "functions": curve_words(curves),
        "judgement": origin.judgement,
        "fields": fields_to_json(result),
    }
    write_json(folder / RESULT, content)


def common_content(result: Result, files: tuple[str, ...], origin: Provenance) -> dict[str, Any]:
    """What the result.json of every kind of result tells.

    Args:
        result: The result.
        files: Names of the files beside it.
        origin: Where the result comes from.
    """
    return {
        "kind": type(result).__name__,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "files": [RESULT, *files],
        "result": result.summary(),
        "source": origin.source,
        "notes": origin.notes,
        "metadata": origin.metadata,
        "wall_time_s": origin.wall_time,
        "settings": origin.settings,
    }


def curve_arrays(curves: Mapping[str, Curve]) -> dict[str, np.ndarray]:
    """Functions of time as arrays by name, values and bands."""
    return {
        f"{prefix}{name}": getattr(curve, part)
        for name, curve in curves.items()
        for part, prefix in _PARTS.items()
    }


def curve_words(curves: Mapping[str, Curve]) -> dict[str, dict[str, str]]:
    """What result.json tells of functions of time."""
    return {
        name: {"unit": curve.unit, "symbol": curve.symbol, "description": curve.description}
        for name, curve in curves.items()
    }


def restored_curves(
    words: Mapping[str, Mapping[str, str]], arrays: Mapping[str, np.ndarray]
) -> dict[str, Curve]:
    """Functions of time from what `curve_words` and `curve_arrays` gave."""
    curves = {}
    for name, facts in words.items():
        values, lower, upper = (arrays[prefix + name] for prefix in _PARTS.values())
        curves[name] = Curve(values, lower, upper, **facts)
    return curves


def write_parts(
    folder: Path,
    result: Result,
    parts: tuple[str, ...],
    provenance: Provenance | None = None,
) -> None:
    """Write what holds the parts of a result together into the folder that holds their folders.

    Args:
        folder: The folder.
        result: The result.
        parts: Names of the folders of its parts.
        provenance: Where the result comes from.
    """
    (folder / REPORT).write_text(result.report(provenance=provenance), encoding="utf-8")
    origin = Provenance() if provenance is None else provenance
    content = common_content(result, (REPORT, *parts), origin) | {"fields": {"parts": parts}}
    write_json(folder / RESULT, content)


def versions() -> dict[str, str]:
    """Versions of what computed a result."""
    names = ("jax", "jaxlib", "equinox", "optimistix", "numpy")
    found = {name: importlib.metadata.version(name) for name in names}
    return {"twotime": __version__} | found | {"python": platform.python_version()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a dictionary as JSON text."""
    text = json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Read the arrays.npz of a folder.

    Raises:
        ResultError: If it is not there or damaged.
    """
    path = folder / ARRAYS
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise ResultError(f"{folder}: holds no {ARRAYS}; fit again to have it.") from None
    except (OSError, ValueError, EOFError, KeyError) as exc:
        raise ResultError(f"{path}: cannot be read ({exc}); fit again.") from exc


def read_curves(folder: Path) -> dict[str, Curve]:
    """Read the functions of time of a folder.

    Raises:
        ResultError: If it holds no result or no arrays.
    """
    return restored_curves(read_result_json(folder)["functions"], read_arrays(folder))
