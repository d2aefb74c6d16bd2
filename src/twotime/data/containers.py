"""Files opened: HDF5, npz and npy as one kind of mapping; whatever cannot be read is one sentence.

Nothing else opens a data file, so that no other module meets the errors of h5py, NumPy and zip.
"""

import contextlib
import functools
import logging
import lzma
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped

from twotime.disk import DAMAGED
from twotime.errors import DataError, DataNotFoundError

Container = Literal["hdf5", "npz", "npy"]

_FAULTS = (
    *DAMAGED, IndexError, ArithmeticError, NotImplementedError, SyntaxError, lzma.LZMAError,
)  # fmt: skip
"""What h5py, NumPy, zip and the system raise of a file that is damaged, or not there."""
_LARGE = 2**28
"""Size from which an array is compared with the bytes that the file stores of it [byte]."""
_RATIO = 2000
"""Times that numbers may be larger than what is stored of them; deflate reaches 1032."""
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, *(512 * 2**k for k in range(12)))
_TOLD: tuple[tuple[str, str], ...] = (
    ("filter", "it is compressed by a filter that is not installed here, or damaged"),
    ("can't open plugin", "it is compressed by a filter that is not installed here"),
    ("allow_pickle", "it holds pickled objects; expected complete arrays of numbers without "
                     "pickled objects"),
    ("python objects", "it holds pickled objects; expected complete arrays of numbers without "
                       "pickled objects"),
    ("password", "it is encrypted; save it without a password"),
    ("unable to allocate", "it is larger than the memory of this machine"),
    ("conversion", "it holds no real numbers"),
    ("could not convert", "it holds no real numbers"),
    ("must be real", "it holds no real numbers"),
    ("must be a string or a real", "it holds no real numbers"),
)  # fmt: skip
_FOREIGN = (
    (b"MATLAB 5", "a MATLAB file before version 7.3", "save it in MATLAB by save(..., '-v7.3')"),
    (b"CDF", "a NetCDF 3 file", "save it as NetCDF 4 (in xarray: format='NETCDF4')"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it"),
    (b"BZh", "compressed by bzip2", "unpack it"),
)
_log = logging.getLogger(__name__)


class Array:
    """An array in a file, read by indexing it.

    Attributes:
        name: Name in the file.
        shape: Its shape.
        dtype: Its type.
        axes: Names of its axes where the file gives them, "" where not.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[Any], Any],
        *, stored: int | None = None, attributes: Any = None, axes: tuple[str, ...] = (),
    ):  # fmt: skip
        self.name, self.shape, self.dtype, self.axes = name, shape, dtype, axes
        self._read, self._stored, self._attributes = read, stored, attributes

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def check_size(self, shape: tuple[int, ...] | None = None) -> None:
        """Refuse numbers far larger than what the file stores of them, before they are read."""
        size = math.prod(self.shape if shape is None else shape) * max(self.dtype.itemsize, 1)
        if self._stored is not None and size > max(_LARGE, _RATIO * self._stored):
            raise DataError(
                f"{self.name} has the shape {self.shape}, {size / 1e9:.3g} GB, of which the file "
                f"stores {self._stored} bytes; expected numbers; the file is damaged or was never "
                "filled."
            )

    def __getitem__(self, index: Any) -> Shaped[np.ndarray, "..."]:
        self.check_size(_extent(self.shape, index))
        with reading(self.name):
            return np.asarray(self._read(index))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[()].astype(dtype or self.dtype)

    def attribute(self, name: str) -> Any:
        """An attribute, or None."""
        return _attribute(self._attributes, self.name, name)


class Arrays(Mapping):  # type: ignore[type-arg]
    """Arrays and groups of an open file by name.

    Not generic: checkers of types look into generic mappings, and would read the file.
    """


class Group(Arrays):
    """A group of an open HDF5 file; links that lead nowhere are there, and errors when read."""

    def __init__(self, node: Any, name: str = ""):
        self._node, self.name = node, name

    def __iter__(self) -> Iterator[str]:
        with reading(self.name or "the root"):
            names = list(self._node)
        if any(isinstance(name, bytes) for name in names):
            raise DataError(
                f"{self.name or 'the root'} holds names that are no text; the file is "
                "damaged; copy it again."
            )
        return iter(names)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return self._follow(str(name)) is not None

    def __getitem__(self, name: str) -> "Array | Group":
        found = self._follow(name)
        full = f"{self.name}/{name.strip('/')}".strip("/")
        if found is None:
            raise DataError(f"{full} is missing.")
        if isinstance(found, str):
            raise DataError(f"{full} cannot be read: {found}.")
        with reading(full):
            if hasattr(found, "keys"):
                return Group(found, full)
            if not hasattr(found, "shape"):
                raise DataError(f"{full} is a type without numbers; expected an array.")
            return _hdf5_array(found, full)

    def attribute(self, name: str) -> Any:
        """An attribute, or None."""
        return _attribute(self._node.attrs, self.name, name)

    def _follow(self, name: str) -> Any:
        """The node of a name; None where there is none, a reason where a link leads nowhere."""
        node, full = self._node, self.name
        for part in filter(None, name.split("/")):
            full = f"{full}/{part}".strip("/")
            with reading(full):
                is_group = hasattr(node, "keys")
                link = node.get(part, getlink=True) if is_group else None
            if link is None:
                return None
            try:
                node = node[part]
            except _FAULTS as exc:
                return _why_not(link, exc)
        return node


def _why_not(link: Any, exc: Exception) -> str:
    """Why what a link names cannot be opened."""
    kind = type(link).__name__
    if kind == "ExternalLink":
        return f"it is a link to {link.path} in {link.filename}, which cannot be opened here"
    if kind == "SoftLink":
        return f"it is a link to {link.path}, which cannot be opened"
    return _why(exc)


def _attribute(attributes: Any, node: str, name: str) -> Any:
    if attributes is None:
        return None
    with reading(f"attribute {name} of {node or 'the root'}"):
        return attributes[name] if name in attributes else None


def _hdf5_array(node: Any, name: str) -> Array:
    """An HDF5 dataset as an array; those of parts in other files need all their files."""
    if node.shape is None:
        raise DataError(f"{name} holds nothing; expected an array.")
    if "scale_factor" in node.attrs or "add_offset" in node.attrs:
        raise DataError(
            f"{name} is packed (attributes scale_factor, add_offset); expected plain numbers; save "
            "it unpacked (in xarray: drop_encoding() before to_netcdf)."
        )
    folder, own = Path(node.file.filename).parent, os.path.getsize(node.file.filename)
    stored = min(node.id.get_storage_size(), own)
    if node.is_virtual:
        parts = {part.file_name for part in node.virtual_sources()} - {"."}
        named = {part: folder / part for part in parts if "%" not in part}
        gone = sorted(part for part, path in named.items() if not path.is_file())
        if gone:
            raise DataError(
                f"{name} is made of parts in other files, of which {', '.join(gone[:3])} cannot "
                "be found; expected them beside this file; copy them there."
            )
        stored = own + sum(path.stat().st_size for path in named.values())
    elif node.external:
        stored = own + sum(size for _, _, size in node.external)
    axes = tuple(axis[0].name.split("/")[-1] if len(axis) else axis.label for axis in node.dims)
    return Array(
        name, node.shape, node.dtype, node.__getitem__, stored=stored, attributes=node.attrs,
        axes=axes,
    )  # fmt: skip


def subgroups(arrays: Arrays) -> tuple[str, ...]:
    """Names of the groups that can be read."""
    found = []
    for name in arrays:
        with contextlib.suppress(DataError):
            if isinstance(arrays[name], Group):
                found.append(name)
    return tuple(found)


def array_in(arrays: Arrays, name: str) -> Array:
    """The array of a name.

    Raises:
        DataError: If there is none, or it is a group.
    """
    if name not in arrays:
        raise DataError(f"{name} is missing; expected an array.")
    found = arrays[name]
    if not isinstance(found, Array):
        raise DataError(f"{name} is a group; expected an array.")
    return found


def _extent(shape: tuple[int, ...], index: Any) -> tuple[int, ...]:
    """Shape of what an index of numbers and slices takes."""
    parts = index if isinstance(index, tuple) else (index,)
    taken = [
        len(range(*part.indices(length))) if isinstance(part, slice) else 1
        for part, length in zip(parts, shape, strict=False)
    ]
    return (*taken, *shape[len(parts) :])


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn whatever a library raises inside the block into one sentence about `name`."""
    try:
        yield
    except DataError:
        raise
    except _FAULTS as exc:
        _log.debug("%s: %r", name, exc)
        raise DataError(f"{name} cannot be read: {_why(exc)}.") from exc


def _why(exc: Exception) -> str:
    """The cause of an error of a library in words."""
    if isinstance(exc, PermissionError):
        return "this user may not; change its permissions"
    if isinstance(exc, MemoryError):
        return "it is larger than the memory of this machine"
    text = str(exc).lower()
    told = (meaning for words, meaning in _TOLD if words in text)
    return next(told, "it is truncated, damaged or open for writing elsewhere; copy it again")


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """Put the name of a file before the message of every data error inside the block."""
    try:
        yield
    except DataError as exc:
        if str(exc).startswith(f"{path}: "):
            raise
        raise type(exc)(f"{path}: {exc}") from exc.__cause__


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """Open a file of any supported container as a mapping from names to arrays.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If it is no HDF5, npz or npy file, or is damaged.
    """
    kind = container(path)
    with about(path), contextlib.ExitStack() as opened:
        if kind == "npy":
            yield _npy(path)
        elif kind == "npz":
            with reading("the npz file"):
                archive = opened.enter_context(zipfile.ZipFile(path))
                arrays = _Npz(archive, path.stat().st_size)
            yield arrays
        else:
            import h5py  # here: only for those who read HDF5
            import hdf5plugin  # noqa: F401  registers the compression filters used at beamlines

            with reading("the HDF5 file"):
                file = opened.enter_context(h5py.File(path, "r"))
            yield Group(file)


class _Npy(Arrays):
    """The one array of an npy file."""

    def __init__(self, array: Array):
        self._array = array

    def __iter__(self) -> Iterator[str]:
        return iter((self._array.name,))

    def __len__(self) -> int:
        return 1

    def __getitem__(self, name: str) -> Array:
        if name != self._array.name:
            raise KeyError(name)
        return self._array


def _npy(path: Path) -> Arrays:
    with reading("the npy file"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    stored = array.nbytes
    return _Npy(Array("array", array.shape, array.dtype, array.__getitem__, stored=stored))


class _Npz(Arrays):
    """Arrays of an open npz file; the head of each is read when it is asked for."""

    def __init__(self, archive: zipfile.ZipFile, size: int):
        self._archive, self._size, self._known = archive, size, dict[str, Array]()
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        self._members = {info.filename.removesuffix(".npy"): info for info in members}
        if len(self._members) < len(members):
            raise DataError("the npz file holds an array twice; expected each once.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, name: str) -> Array:
        if name not in self._known:
            info = self._members[name]
            stored = min(info.compress_size, self._size)
            self._known[name] = _npz_array(self._archive, info, name, stored)
        return self._known[name]


def _npz_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, stored: int) -> Array:
    with reading(f"{name} of the npz file"), archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        head = np.lib.format
        read_head = head.read_array_header_1_0 if version == (1, 0) else head.read_array_header_2_0
        shape, _, dtype = read_head(stream)
        declared = math.prod(shape) * dtype.itemsize
        if any(n < 0 for n in shape) or declared > info.file_size:
            raise DataError(
                f"{name} of the npz file has the shape {shape}, {declared} bytes, but the file "
                f"holds {info.file_size}; expected equal sizes; save the file again."
            )

    @functools.cache
    def whole() -> np.ndarray:
        with archive.open(info) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    return Array(name, shape, dtype, lambda index: whole()[index], stored=stored)


def container(path: Path, *, key: str = "file_path") -> Container:
    """Which container a file is, from its first bytes and never from its name.

    Args:
        path: The file.
        key: Key of a configuration that names it.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If it is none of them or may not be read.
    """
    with about(path), reading("the data file"):
        if not path.exists():
            if path.is_symlink():
                raise DataNotFoundError(
                    f"this is a link to {path.readlink()}, which does not exist; correct the link."
                )
            raise DataNotFoundError(
                "there is no such data file; correct the path (in a configuration: "
                f"experimental_data.{key})."
            )
        if not path.is_file():
            what = "a folder; name the file inside it" if path.is_dir() else "a device or pipe"
            raise DataError(f"expected a data file, got {what}.")
        with path.open("rb") as file:
            head = file.read(8)
            if head.startswith(b"\x93NUMPY"):
                return "npy"
            if head.startswith(b"PK"):
                return "npz"
            for offset in _HDF5_OFFSETS:
                file.seek(offset)
                if file.read(8) == _HDF5:
                    return "hdf5"
        raise DataError(_foreign(path, head))


def _foreign(path: Path, head: bytes) -> str:
    """What to do with a file that is none of the containers."""
    if not head:
        return "this file is empty; copy it again."
    for start, kind, fix in _FOREIGN:
        if head.startswith(start):
            return f"this is {kind}; expected HDF5, npz or npy content; {fix}."
    if not head:
        return "the file is empty; expected HDF5, npz or npy content; copy it again."
    if path.suffix in (".yaml", ".yml", ".json"):
        return "this is a configuration; expected a data file; check it by `twotime validate`."
    return (
        f"this is not a two-time data file, it begins with {head!r}; expected HDF5, npz or npy "
        "content, whatever the file's name."
    )
