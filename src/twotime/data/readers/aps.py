"""The layouts of APS beamlines, since APS-U and before, and what an APS-U file counts."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from twotime.data.source import (
    Bin,
    Notes,
    Numbers,
    Reader,
    TwoTimeFile,
    Values,
    in_per_angstrom,
    open_arrays,
)
from twotime.errors import DataError

_MAPS = "xpcs/twotime/correlation_map"
_BINS = "xpcs/twotime/processed_bins"
_CONFIG = "xpcs/twotime/config"
_QMAP = "xpcs/qmap"
_Q = f"{_QMAP}/dynamic_v_list_dim0"
_FRAME_TIME = "entry/instrument/detector_1/frame_time"
_REGIONS = f"{_QMAP}/dynamic_roi_map"
_MEAN = "xpcs/temporal_mean/scattering_2d"
_OLD = "APS 8-ID before APS-U (exchange/C2T_all)"
_OLD_PERIOD = "measurement/instrument/detector/exposure_period"
_DEGREES = {"deg": 1.0, "degree": 1.0, "degrees": 1.0, "°": 1.0, "rad": 180 / np.pi}


def read_apsu(file: Values) -> TwoTimeFile:
    """APS-U layout: names count the processed bins, bins count the unmasked part of the map."""
    names = file.numbered(_MAPS)
    natural = _natural_bins(file, len(names))
    q, phi, notes = _axes(file)
    if natural.max() >= q.size * phi.size:
        raise DataError(
            f"{_QMAP}/dynamic_index_mapping points to bin {natural.max() + 1}; expected at most "
            f"{q.size * phi.size} ({q.size} q times {phi.size} angles); the qmap is incomplete."
        )
    row, column = np.divmod(natural, phi.size)
    bins = tuple(map(Bin, q[row].tolist(), phi[column].tolist(), names.values()))
    dt, step = file.clock(_FRAME_TIME, f"{_CONFIG}/stride_frame", f"{_CONFIG}/avg_frame")
    skipped = (file.number(f"{_CONFIG}/begin_frame") or 0.0) / step
    missing = q.size * phi.size - len(bins)
    return TwoTimeFile(bins, dt=dt, skipped=skipped, missing=missing, notes=notes)


def _processed_bins(file: Values) -> Numbers:
    listed = file.numbers(_BINS)
    return np.arange(1.0, len(file.numbered(_MAPS)) + 1) if listed is None else listed


def _natural_bins(file: Values, n_names: int) -> Int[np.ndarray, " bin"]:
    """Index of each matrix in the (q, angle) grid: processed bin, then index mapping."""
    mapping, processed = file.numbers(f"{_QMAP}/dynamic_index_mapping"), _processed_bins(file)
    if processed.size != n_names:
        raise DataError(
            f"{_MAPS} holds {n_names} matrices but {_BINS} lists {processed.size} bins; expected "
            "equal numbers; the file is incomplete."
        )
    compressed = processed.astype(int) - 1
    if mapping is None:
        mapping = np.arange(compressed.max() + 1.0)
    if compressed.min() < 0 or compressed.max() >= mapping.size:
        raise DataError(
            f"processed bins run from {compressed.min() + 1} to {compressed.max() + 1} but "
            f"{_QMAP}/dynamic_index_mapping has {mapping.size} entries; expected bins inside "
            "it; the qmap is not the one the data were correlated with."
        )
    return mapping.astype(int)[compressed]


def _axes(file: Values) -> tuple[Numbers, Numbers, Notes]:
    """Grid of q [1/Å] and angle [degree] of the qmap, and notes."""
    q = file.needed(_Q)
    phi = file.numbers(f"{_QMAP}/dynamic_v_list_dim1")
    names = file.texts(f"{_QMAP}/map_names") or ("q", "phi")
    units = (*(file.texts(f"{_QMAP}/map_units") or ("1/Å",)), "deg")
    q, notes = in_per_angstrom(q, units[0])
    if phi is None or phi.size == 0:
        return q, np.zeros(1), (*notes, "no angles in the file: phi = 0")
    if names[:2] != ("q", "phi"):
        raise DataError(
            f"the bins of this file are ordered by {', '.join(names)} ({_QMAP}/map_names); "
            "expected q, phi; correlate with a q-phi map."
        )
    unit = units[1]
    if unit.lower() not in _DEGREES:
        raise DataError(f"angles have the unit {unit!r} ({_QMAP}/map_units); expected deg or rad.")
    return q, phi * _DEGREES[unit.lower()], notes


def read_aps_old(file: Values) -> TwoTimeFile:
    """8-ID layout before APS-U: the number in a name is the bin; only processed bins exist."""
    (group, output), *others = _analyses(file)
    names = file.numbered(f"{output}/C2T_all")
    q, phi = file.needed(f"{group}/dqlist"), file.needed(f"{group}/dphilist")
    places, notes = _old_bins(names, file.numbers(f"{group}/qphi_bin_to_process"))
    if q.size != phi.size or max(places) > q.size:
        raise DataError(
            f"{group}/dqlist has {q.size} and {group}/dphilist {phi.size} entries and "
            f"matrices go up to bin {max(places)}; expected an entry of both for every bin."
        )
    if others:
        listed = ", ".join(other for other, _ in others)
        notes += (f"read analysis {group} with {output}; the file also holds {listed}",)
    index = np.array(places) - 1
    bins = tuple(map(Bin, q[index].tolist(), phi[index].tolist(), names.values()))
    dt, _ = file.clock(_OLD_PERIOD, f"{group}/stride_frames", f"{group}/avg_frames")
    return TwoTimeFile(bins, dt=dt, missing=q.size - len(bins), notes=notes)


def _analyses(file: Values) -> list[tuple[str, str]]:
    """Analyses of the old layout with two-time results: (xpcs_N, its exchange_N)."""
    found = []
    for group in sorted(name for name in file.file if re.fullmatch(r"xpcs(_\d+)?", name)):
        named = file.texts(f"{group}/output_data")
        output = named[0].strip("/") if named else group.replace("xpcs", "exchange")
        if f"{group}/dqlist" in file and f"{output}/C2T_all" in file:
            found.append((group, output))
    return found


def _old_bins(names: dict[int, str], listed: Numbers | None) -> tuple[list[int], Notes]:
    """Bin of each matrix; names may count the listed bins instead of naming them."""
    counted = list(names)
    if listed is None or set(counted) <= set(listed.astype(int).tolist()):
        return counted, ()
    if counted == list(range(1, listed.size + 1)):
        note = "matrix names count the bins of qphi_bin_to_process instead of naming them"
        return listed.astype(int).tolist(), (note,)
    raise DataError(
        f"matrices are numbered {counted[0]} to {counted[-1]} ({len(counted)} of them) but "
        f"qphi_bin_to_process lists {listed.size} other bins; expected the same bins."
    )


READERS = (
    Reader("aps-u", f"APS-U ({_MAPS})", lambda file: _MAPS in file and _Q in file, read_apsu),
    Reader("aps-old", _OLD, lambda file: bool(_analyses(file)), read_aps_old),
)


class DetectorCounts(NamedTuple):
    """Detector pixels and mean counts per pixel and frame of each matrix, in the file's order."""

    pixels: Float[np.ndarray, " bin"]
    photons: Float[np.ndarray, " bin"]


def read_counts(path: str | Path) -> DetectorCounts:
    """Read pixels and photons of an APS-U file from its map of bins and its mean image.

    Pixels of one speckle are not independent: where speckles are larger than pixels, the number
    of independent ones is smaller. The mean image must be in photons.

    Args:
        path: The file.

    Raises:
        DataError: If the file does not give them.
    """
    with open_arrays(Path(path)) as opened:
        file = Values(opened)
        for name in (_REGIONS, _MEAN):
            if name not in file:
                raise DataError(
                    f"there is no {name}; expected the map of bins and the mean image of "
                    "an APS-U file; give pixels and photons as numbers instead."
                )
        regions = np.asarray(opened[_REGIONS]).squeeze()
        light = np.asarray(opened[_MEAN], float).reshape(-1, *regions.shape).mean(axis=0)
        usable = np.isfinite(light)
        if f"{_QMAP}/mask" in file:
            usable &= np.asarray(opened[f"{_QMAP}/mask"]).squeeze().astype(bool)
        labels = _processed_bins(file)
    inside = [usable & (regions == label) for label in labels]
    pixels = np.array([region.sum() for region in inside], float)
    photons = np.array([light[region].mean() if region.any() else np.nan for region in inside])
    return DetectorCounts(pixels, photons)
