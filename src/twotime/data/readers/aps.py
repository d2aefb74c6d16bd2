"""Headers of the layouts of APS beamlines, from APS-U on and before."""

import re
from pathlib import Path
from typing import Any

import equinox as eqx
import h5py
import numpy as np
from jaxtyping import Float

from twotime.data.source import (
    Bin,
    Numbers,
    TwoTimeFile,
    frame_count,
    frames_per_step,
    in_per_angstrom,
    needed,
    number,
    numbered,
    numbers,
    open_arrays,
    texts,
)
from twotime.errors import DataError

APSU_MAPS = "xpcs/twotime/correlation_map"
_APSU_FRAME_TIME = "entry/instrument/detector_1/frame_time"
_APSU_CONFIG = "xpcs/twotime/config"
_OLD_PERIOD = "measurement/instrument/detector/exposure_period"
_DEGREES = {"deg": 1.0, "degree": 1.0, "degrees": 1.0, "°": 1.0, "rad": 180 / np.pi}


def read_apsu(path: Path, file: h5py.File) -> TwoTimeFile:
    """APS-U layout: names count the processed bins, bins count the unmasked part of the map.

    Raises:
        DataError: If the file contradicts itself.
    """
    names = numbered(path, file, APSU_MAPS)
    natural = _apsu_natural_bins(path, file, len(names))
    q, phi, notes = _apsu_axes(path, file)
    if natural.max() >= q.size * phi.size:
        raise DataError(
            f"{path}: xpcs/qmap/dynamic_index_mapping points to bin {natural.max() + 1}; expected "
            f"at most {q.size * phi.size} ({q.size} q times {phi.size} angles); the qmap is "
            "incomplete."
        )
    bins = tuple(
        Bin(float(q[k // phi.size]), float(phi[k % phi.size]), name)
        for k, name in zip(natural.tolist(), names.values(), strict=True)
    )
    step = frames_per_step(path, file, f"{_APSU_CONFIG}/stride_frame", f"{_APSU_CONFIG}/avg_frame")
    frame_time = number(file, _APSU_FRAME_TIME)
    return TwoTimeFile(
        path,
        "aps-u",
        bins,
        frame_count(path, file, bins),
        dt=None if frame_time is None else frame_time * step,
        skipped=(number(file, f"{_APSU_CONFIG}/begin_frame") or 0.0) / step,
        missing=q.size * phi.size - len(bins),
        notes=notes,
    )


def _apsu_natural_bins(path: Path, file: h5py.File, n_names: int) -> np.ndarray:
    """Index of each matrix in the (q, angle) grid: processed bin, then index mapping."""
    mapping = numbers(file, "xpcs/qmap/dynamic_index_mapping")
    processed = numbers(file, "xpcs/twotime/processed_bins")
    if processed is None:
        processed = np.arange(1.0, n_names + 1)
    if processed.size != n_names:
        raise DataError(
            f"{path}: {APSU_MAPS} holds {n_names} matrices but xpcs/twotime/processed_bins lists "
            f"{processed.size} bins; expected equal numbers; the file is incomplete."
        )
    compressed = processed.astype(int) - 1
    if mapping is None:
        mapping = np.arange(compressed.max() + 1.0)
    if compressed.min() < 0 or compressed.max() >= mapping.size:
        raise DataError(
            f"{path}: processed bins run from {compressed.min() + 1} to {compressed.max() + 1} but "
            f"xpcs/qmap/dynamic_index_mapping has {mapping.size} entries; expected bins inside "
            "it; the qmap is not the one the data were correlated with."
        )
    return mapping.astype(int)[compressed]


def _apsu_axes(path: Path, file: h5py.File) -> tuple[Numbers, Numbers, tuple[str, ...]]:
    """Grid of q [1/Å] and angle [degree] of the qmap, and notes."""
    q = needed(path, file, "xpcs/qmap/dynamic_v_list_dim0")
    phi = numbers(file, "xpcs/qmap/dynamic_v_list_dim1")
    names = texts(file, "xpcs/qmap/map_names") or ("q", "phi")
    units = (*(texts(file, "xpcs/qmap/map_units") or ("1/Å",)), "deg")
    q, notes = in_per_angstrom(q, units[0])
    if phi is None or phi.size == 0:
        return q, np.zeros(1), (*notes, "no angles in the file: phi = 0")
    if names[:2] != ("q", "phi"):
        raise DataError(
            f"{path}: the bins of this file are ordered by {', '.join(names)} (xpcs/qmap/map_names)"
            "; expected q, phi; correlate with a q-phi map."
        )
    scale = _DEGREES.get(units[1].lower())
    if scale is None:
        raise DataError(
            f"{path}: angles have the unit {units[1]!r} (xpcs/qmap/map_units); expected deg or rad."
        )
    return q, phi * scale, notes


def read_aps_old(path: Path, file: h5py.File) -> TwoTimeFile:
    """8-ID layout before APS-U: the number in a name is the bin; only processed bins exist.

    Raises:
        DataError: If the file contradicts itself.
    """
    groups = analyses(file)
    group, output = groups[0]
    names = numbered(path, file, f"{output}/C2T_all")
    q, phi = needed(path, file, f"{group}/dqlist"), needed(path, file, f"{group}/dphilist")
    places, notes = _old_bins(path, names, numbers(file, f"{group}/qphi_bin_to_process"))
    if q.size != phi.size or max(places) > q.size:
        raise DataError(
            f"{path}: {group}/dqlist has {q.size} and {group}/dphilist {phi.size} entries and "
            f"matrices go up to bin {max(places)}; expected an entry of both for every bin."
        )
    if len(groups) > 1:
        others = ", ".join(other for other, _ in groups[1:])
        notes += (f"read analysis {group} with {output}; the file also holds {others}",)
    bins = tuple(
        Bin(float(q[place - 1]), float(phi[place - 1]), name)
        for place, name in zip(places, names.values(), strict=True)
    )
    period = number(file, _OLD_PERIOD)
    step = frames_per_step(path, file, f"{group}/stride_frames", f"{group}/avg_frames")
    return TwoTimeFile(
        path,
        "aps-old",
        bins,
        frame_count(path, file, bins),
        dt=None if period is None else period * step,
        missing=q.size - len(bins),
        notes=notes,
    )


def analyses(file: h5py.File) -> list[tuple[str, str]]:
    """Analyses of the old layout with two-time results: (xpcs_N, its exchange_N)."""
    found = []
    for group in sorted(name for name in file if re.fullmatch(r"xpcs(_\d+)?", name)):
        named = texts(file, f"{group}/output_data")
        output = named[0].strip("/") if named else group.replace("xpcs", "exchange")
        if f"{group}/dqlist" in file and f"{output}/C2T_all" in file:
            found.append((group, output))
    return found


def _old_bins(
    path: Path, names: dict[int, str], listed: Numbers | None
) -> tuple[list[int], tuple[str, ...]]:
    """Bin of each matrix; names that merely count the listed bins are told from bin numbers."""
    counted = list(names)
    if listed is None or set(counted) <= set(listed.astype(int).tolist()):
        return counted, ()
    if counted == list(range(1, listed.size + 1)):
        note = "matrix names count the bins of qphi_bin_to_process instead of naming them"
        return listed.astype(int).tolist(), (note,)
    raise DataError(
        f"{path}: matrices are numbered {counted[0]} to {counted[-1]} ({len(counted)} of them) but "
        f"qphi_bin_to_process lists {listed.size} other bins; expected the same bins."
    )


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
    pass
    from twotime.data.source import numbered

    if _BINS in file:
        return np.asarray(file[_BINS]).astype(int).ravel().tolist()
    return list(range(1, len(numbered(path, file, APSU_MAPS)) + 1))
