"""Files that an HDF5 file shows parts of: external links, virtual datasets, raw data outside."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twotime.data.containers import container
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


def _linked(path: Path) -> Iterator[str]:
    """Names of files in the links of one file; none where it is no HDF5 file."""
    try:
        if container(path) != "hdf5":
            return
    except DataError:  # missing, or raw numbers
        return
    import h5py

    names = list[str]()

    def link(_: str, found: Any) -> None:
        if isinstance(found, h5py.ExternalLink):
            names.append(found.filename)

    def dataset(_: str, found: Any) -> None:
        if isinstance(found, h5py.Dataset):
            sources = found.virtual_sources() if found.is_virtual else ()
            names.extend(source.file_name for source in sources)
            names.extend(name for name, *_ in found.external or ())

    with h5py.File(path, "r") as file:
        file.visititems_links(link)
        file.visititems(dataset)
    yield from (name for name in names if name != ".")
