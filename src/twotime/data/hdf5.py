"""Recognise the layout of an HDF5 file.

Every reader is a function of the path (for messages) and the open file, and reads no matrix.
"""

from collections.abc import Callable
from pathlib import Path

import h5py

from twotime.data.aps import APSU_MAPS, analyses, read_aps_old, read_apsu
from twotime.data.arrays import read_arrays
from twotime.data.nxxpcs import NX_C2, read_nxxpcs
from twotime.data.source import DataError, TwoTimeFile


def read_header(path: Path, file: h5py.File) -> TwoTimeFile:
    """Recognise the layout of an open HDF5 file and read its header.

    Args:
        path: The file, for messages.
        file: The open file.

    Raises:
        DataError: If the layout is not known or contradicts itself.
    """
    for has_layout, read in _LAYOUTS:
        if has_layout(file):
            return read(path, file)
    if "c2" in file:
        return read_arrays(path, file, "hdf5")
    raise DataError(
        f"{path}: the layout of this HDF5 file is not known, its root holds "
        f"{', '.join(sorted(file)) or 'nothing'}; expected APS-U ({APSU_MAPS}), APS 8-ID before "
        f"APS-U (exchange/C2T_all), NXxpcs ({NX_C2}) or an array c2 at the root."
    )


def _refuse_esrf(path: Path, file: h5py.File) -> TwoTimeFile:
    raise DataError(
        f"{path}: this is the ESRF layout ({', '.join(sorted(file['entry_0000/correlations']))} in "
        "entry_0000/correlations), which stores (age, lag) with logarithmic lags; expected "
        "matrices on (t1, t2); correlate again with the (t1, t2) output."
    )


_LAYOUTS: tuple[
    tuple[Callable[[h5py.File], bool], Callable[[Path, h5py.File], TwoTimeFile]], ...
] = (
    (lambda file: APSU_MAPS in file and "xpcs/qmap/dynamic_v_list_dim0" in file, read_apsu),
    (lambda file: bool(analyses(file)), read_aps_old),
    (lambda file: "entry_0000/correlations" in file, _refuse_esrf),
    (lambda file: NX_C2 in file, read_nxxpcs),
)
