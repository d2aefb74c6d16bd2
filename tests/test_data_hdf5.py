"""HDF5 files of a layout that is refused or not known."""

import h5py
import numpy as np
import pytest

from twotime.data.readers.files import open_source
from twotime.errors import DataError


def test_esrf_layout_is_refused_by_name(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry_0000/correlations/full/twotime/ttcf"] = np.ones((1, 4, 3))
    with pytest.raises(DataError, match="ESRF layout .*age, lag"):
        open_source(tmp_path / "a.h5")


def test_unknown_layout_lists_the_root(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.ones(3)
    with pytest.raises(DataError, match="root holds images; expected APS-U"):
        open_source(tmp_path / "a.h5")
