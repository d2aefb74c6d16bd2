"""Files that an HDF5 file shows parts of: external links, virtual datasets, raw data outside."""

import contextlib
from pathlib import Path
from typing import Any

from twotime.data.containers import container, reading
from twotime.errors import DataError


def files_behind(path: Path) -> tuple[str, ...]:
    """Every place where HDF5 looks for data that a file links to, files behind these included.

    Places without a file count: one that appears there changes what is read.

    Raises:
        OSError: If a file cannot be read.
    """
    found, waiting = dict[str, None](), [path.resolve()]
    while waiting:
        file = waiting.pop()
        for name in _linked(file):
            for place in {file.parent / name, Path.cwd() / name}:
                if str(place) not in found and place != path.resolve():
                    found[str(place)] = None
                    waiting.append(place)
    return tuple(sorted(found))


def _linked(path: Path) -> list[str]:
    """Names of files in the links of one file, as far as it can be read."""
    found, groups, seen = list[str](), list[Any](), set[int]()
    with contextlib.suppress(DataError):  # missing, raw numbers, or damaged
        if container(path) != "hdf5":
            return []
        import h5py

        with reading(str(path)), h5py.File(path, "r") as file:
            groups.append(file)
            while groups:
                group = groups.pop()
                names = list[str]()
                with contextlib.suppress(DataError), reading(group.name):
                    names += list(group)
                for name in names:
                    with contextlib.suppress(DataError), reading(name):
                        _look(group, name, found, groups, seen)
    return [name for name in found if name != "."]


def _look(group: Any, name: str, found: list[str], groups: list[Any], seen: set[int]) -> None:
    """Add the files that a link or a dataset names, and a group not yet seen."""
    link = group.get(name, getlink=True)
    if type(link).__name__ == "ExternalLink":
        found.append(link.filename)
    if type(link).__name__ != "HardLink":
        return
    node = group[name]
    if hasattr(node, "keys"):
        place = hash(node.id)
        groups += [] if place in seen else [node]
        seen.add(place)
    elif hasattr(node, "shape"):
        parts = node.virtual_sources() if node.is_virtual else ()
        found += [part.file_name for part in parts]
        found += [outside for outside, *_ in node.external or ()]
