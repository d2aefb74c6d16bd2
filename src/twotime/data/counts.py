"""How many detector pixels and photons stand behind each bin, where a file says it."""

from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from twotime.data.source import DataError, open_arrays

_ROI = "xpcs/qmap/dynamic_roi_map"
_MASK = "xpcs/qmap/mask"
_MEAN = "xpcs/temporal_mean/scattering_2d"
_BINS = "xpcs/twotime/processed_bins"


class DetectorCounts(eqx.Module):
    """Pixels and light of each matrix of a file, in the file's order.

    Attributes:
        pixels: Detector pixels that were averaged.
        photons: Mean counts per pixel and frame.
    """

    pixels: Float[np.ndarray, " bin"]
    photons: Float[np.ndarray, " bin"]


def read_counts(path: str | Path) -> DetectorCounts:
    """Read pixels and photons of an APS-U file from its map of bins and its mean image.

    Pixels of one speckle are not independent: where speckles are larger than pixels, the number
    of independent ones is smaller. The mean image must be in photons.

    Args:
        path: The file.

    Raises:
        DataError: If the file does not say them.
    """
    path = Path(path)
    with open_arrays(path) as file:
        for name in (_ROI, _MEAN):
            if name not in file:
                raise DataError(
                    f"{path}: there is no {name}; expected the map of bins and the mean image of "
                    "an APS-U file; give pixels and photons as numbers instead."
                )
        regions = np.asarray(file[_ROI]).squeeze()
        light = np.asarray(file[_MEAN], float).reshape(-1, *regions.shape).mean(axis=0)
        usable = np.isfinite(light)
        if _MASK in file:
            usable &= np.asarray(file[_MASK]).squeeze().astype(bool)
        labels = _labels(path, file)
    inside = [usable & (regions == label) for label in labels]
    pixels = np.array([region.sum() for region in inside], float)
    photons = np.array([light[region].mean() if region.any() else np.nan for region in inside])
    return DetectorCounts(pixels, photons)


def _labels(path: Path, file: Any) -> list[int]:
    """Label of each matrix in the map of bins."""
    # Here, because they import h5py, which nobody needs who reads no file.
    from twotime.data.aps import APSU_MAPS
    from twotime.data.hdf5_values import numbered

    if _BINS in file:
        return np.asarray(file[_BINS]).astype(int).ravel().tolist()
    return list(range(1, len(numbered(path, file, APSU_MAPS)) + 1))
