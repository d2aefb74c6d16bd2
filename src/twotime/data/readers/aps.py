"""The layouts of APS beamlines, since APS-U and before, and what an APS-U file counts."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from twotime.config.frames import joined
from twotime.data.containers import about, array_in, open_arrays, reading, subgroups
from twotime.data.source import (
    Bin,
    Counts,
    Notes,
    Numbers,
    Reader,
    TwoTimeFile,
    Values,
    in_degrees,
    in_per_angstrom,
)
from twotime.errors import DataError
from twotime.kinds import checked

_MAPS = "xpcs/twotime/correlation_map"
_BINS = "xpcs/twotime/processed_bins"
_CONFIG = "xpcs/twotime/config"
_QMAP = "xpcs/qmap"
_MAPPING = f"{_QMAP}/dynamic_index_mapping"
_Q = f"{_QMAP}/dynamic_v_list_dim0"
_FRAME_TIME = "instrument/detector_1/frame_time"
_REGIONS = f"{_QMAP}/dynamic_roi_map"
MEAN_IMAGE = "xpcs/temporal_mean/scattering_2d"
RELATIVE = "relative"
"""Unit of a mean image that is not in photons."""
_OLD = "APS 8-ID before APS-U (exchange/C2T_all)"
_OLD_PERIOD = "measurement/instrument/detector/exposure_period"


def read_apsu(file: Values) -> TwoTimeFile:
    """APS-U layout: names count the processed bins, bins count the unmasked part of the map."""
    names = file.numbered(_MAPS)
    processed, notes = _processed_bins(file, list(names))
    natural = _natural_bins(file, processed)
    q, phi, told = _axes(file)
    if natural.min() < 0:
        raise DataError(
            f"{_MAPPING} holds {natural.min()} for a bin with a matrix; expected a place in the "
            "map; the qmap is not the one the data were correlated with."
        )
    if natural.max() >= q.size * phi.size:
        raise DataError(
            f"{_MAPPING} points to bin {natural.max() + 1}; expected at most "
            f"{q.size * phi.size} ({q.size} q times {phi.size} angles); the qmap is incomplete."
        )
    row, column = np.divmod(natural, phi.size)
    bins = tuple(map(Bin, q[row].tolist(), phi[column].tolist(), names.values()))
    entries = ("entry", *subgroups(file.file))
    entry = next((e for e in entries if f"{e}/{_FRAME_TIME}" in file), "entry")
    stride, average = f"{_CONFIG}/stride_frame", f"{_CONFIG}/avg_frame"
    dt, step = file.clock(f"{entry}/{_FRAME_TIME}", stride, average)
    missing = q.size * phi.size - len(bins)
    if _MAPPING not in file and natural.max() + 1 < q.size * phi.size:
        told += (
            f"there is no {_MAPPING}: bin k is taken as the k-th of {q.size * phi.size} places of "
            "the map; with places without pixels before it, its q and angle are others",
        )
    skipped, late = _skipped(file, f"{_CONFIG}/begin_frame", 0, step)
    return TwoTimeFile(
        bins, dt=dt, skipped=skipped, missing=missing, notes=(*notes, *told, *late)
    )  # fmt: skip


def _skipped(file: Values, name: str, first: int, step: float) -> tuple[float | None, Notes]:
    """Frames of the matrices before the first, from the number of the first detector frame."""
    begin = file.counts(name)
    if begin is None or begin.size == 0:
        return 0.0, ()
    if begin[0] < first:
        note = f"{name} is {begin[0]}, counted from the end of the acquisition, whose length the "
        return None, (f"{note}file does not give: set analyzer_parameters.t0",)
    return (float(begin[0]) - first) / step, ()


def _processed_bins(file: Values, numbers: list[int]) -> tuple[Counts, Notes]:
    """Bin of each matrix, from the numbers in the names and the list of processed bins."""
    listed = file.counts(_BINS)
    if listed is None:
        gone = joined(sorted(set(range(1, max(numbers) + 1)) - set(numbers)))
        return np.array(numbers), (f"there is no matrix of bins {gone}",) if gone else ()
    if np.unique(listed).size != listed.size:
        raise DataError(f"{_BINS} lists a bin twice; expected each once; correlate again.")
    is_counted = max(numbers) <= listed.size and min(numbers) >= 1
    is_named = set(numbers) <= set(listed.tolist())
    counted = listed[np.array(numbers) - 1] if is_counted else np.array([], int)
    if is_counted and not (is_named and counted.tolist() != numbers and len(numbers) < listed.size):
        if len(numbers) == listed.size:
            return counted, ()
        note = f"{listed.size - len(numbers)} of the {listed.size} processed bins have no matrix"
        return counted, (note,)
    if is_named and not is_counted:
        return np.array(numbers), ("the names of the matrices are bins, not places in the list",)
    raise DataError(
        f"{_MAPS} holds {len(numbers)} matrices but {_BINS} lists {listed.size} bins; expected "
        "equal numbers; the file is incomplete."
    )


def _natural_bins(file: Values, processed: Counts) -> Counts:
    """Index of each matrix in the (q, angle) grid: processed bin, then index mapping."""
    compressed, mapping = processed - 1, file.counts(_MAPPING)
    if mapping is None:
        return compressed
    if compressed.min() < 0 or compressed.max() >= mapping.size:
        raise DataError(
            f"processed bins run from {compressed.min() + 1} to {compressed.max() + 1} but "
            f"{_MAPPING} has {mapping.size} entries; expected bins inside "
            "it; the qmap is not the one the data were correlated with."
        )
    placed = mapping[mapping >= 0]
    if np.unique(placed).size != placed.size:
        raise DataError(
            f"{_MAPPING} gives two bins the same place in the map; expected one each; the file "
            "is damaged."
        )
    return mapping[compressed]


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
    return q, in_degrees(phi, units[1], f"{_QMAP}/map_units"), notes


def read_aps_old(file: Values) -> TwoTimeFile:
    """8-ID layout before APS-U: the number in a name is the bin; only processed bins exist."""
    (group, output), *others = _analyses(file)
    names = file.numbered(f"{output}/C2T_all")
    q, phi = file.needed(f"{group}/dqlist"), file.needed(f"{group}/dphilist")
    places, notes = _old_bins(names, file.counts(f"{group}/qphi_bin_to_process"))
    if q.size != phi.size or max(places) > q.size or min(places) < 1:
        raise DataError(
            f"{group}/dqlist has {q.size} and {group}/dphilist {phi.size} entries and "
            f"matrices go up to bin {max(places)}; expected an entry of both for every bin."
        )
    if others:
        listed = ", ".join(other for other, _ in others)
        notes += (f"read analysis {group} with {output}; the file also holds {listed}",)
    index, told = _old_places(q, phi, places)
    bins = tuple(map(Bin, q[index].tolist(), phi[index].tolist(), names.values()))
    dt, step = file.clock(_OLD_PERIOD, f"{group}/stride_frames", f"{group}/avg_frames")
    skipped, late = _skipped(file, f"{group}/data_begin_todo", 1, step)
    missing = q.size - len(bins)
    return TwoTimeFile(
        bins, dt=dt, skipped=skipped, missing=missing, notes=(*notes, *told, *late)
    )  # fmt: skip


def _old_places(q: Numbers, phi: Numbers, bins: list[int]) -> tuple[Counts, Notes]:
    """Where the lists hold the k-th bin, for lists with NaN where a bin has no pixels.

    Maps made by XPCSGUI number the bins that have pixels, and its lists keep the whole grid.
    """
    filled = np.flatnonzero(np.isfinite(q) & np.isfinite(phi))
    asked = np.array(bins) - 1
    if filled.size == q.size:
        return asked, ()
    if asked.max() < filled.size:
        note = "dqlist and dphilist are NaN for bins without pixels: bin k is their k-th number"
        return filled[asked], (note,)
    if np.isin(asked, filled).all():
        return asked, ()
    raise DataError(
        f"dqlist and dphilist hold {filled.size} bins with numbers but matrices go up to bin "
        f"{asked.max() + 1}, and some lie at NaN; expected a q and an angle for every matrix."
    )


def _analyses(file: Values) -> list[tuple[str, str]]:
    """Analyses of the old layout with two-time results: (xpcs_N, its exchange_N)."""
    found = []
    for group in (name for name in file.names() if re.fullmatch(r"xpcs(_\d+)?", name)):
        named = file.texts(f"{group}/output_data")
        output = named[0].strip("/") if named else group.replace("xpcs", "exchange")
        if f"{group}/dqlist" in file and f"{output}/C2T_all" in file:
            found.append((group, output))
    return found


def _old_bins(names: dict[int, str], listed: Counts | None) -> tuple[list[int], Notes]:
    """Bin of each matrix; names may count the listed bins instead of naming them."""
    counted = list(names)
    if listed is None or set(counted) <= set(listed.tolist()):
        return counted, ()
    if counted == list(range(1, listed.size + 1)):
        note = "matrix names count the bins of qphi_bin_to_process instead of naming them"
        return listed.tolist(), (note,)
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


@checked
def read_counts(path: str | Path) -> DetectorCounts:
    """Read pixels and photons of an APS-U file from its map of bins and its mean image.

    Pixels of one speckle are not independent: where speckles are larger than pixels, the number
    of independent ones is smaller. The mean image must be in photons.

    Args:
        path: The file.

    Raises:
        DataError: If the file does not give them.
    """
    with about(path := Path(path)), open_arrays(path) as opened:
        file = Values(opened)
        for name in (_REGIONS, MEAN_IMAGE):
            if name not in file:
                raise DataError(
                    f"there is no {name}; expected the map of bins and the mean image of "
                    "an APS-U file; give pixels and photons as numbers instead."
                )
        if file.attribute(MEAN_IMAGE, "units", "") == RELATIVE:
            raise DataError(
                f"{MEAN_IMAGE} is in relative units, as in simulated files; expected photons; "
                "give pixels and photons as numbers instead."
            )
        regions = array_in(opened, _REGIONS)[()].squeeze()
        mean, mask = array_in(opened, MEAN_IMAGE)[()], f"{_QMAP}/mask"
        with reading(MEAN_IMAGE):
            light = mean.astype(float).reshape(-1, *regions.shape).mean(axis=0)
            usable = np.isfinite(light)
            if mask in file:
                usable &= array_in(opened, mask)[()].squeeze().astype(bool)
        listed = file.counts(_BINS)
        if _MAPS in file:
            listed, _ = _processed_bins(file, list(file.numbered(_MAPS)))
    inside = [usable & (regions == label) for label in (() if listed is None else listed)]
    pixels = np.array([region.sum() for region in inside], float)
    photons = np.array([light[region].mean() if region.any() else np.nan for region in inside])
    return DetectorCounts(pixels, photons)
