"""The NXxpcs application definition."""

import re

import numpy as np

from twotime.data.containers import Array, Group, subgroups
from twotime.data.source import (
    Bin,
    Notes,
    Numbers,
    Reader,
    TwoTimeFile,
    Values,
    in_degrees,
    in_per_angstrom,
)
from twotime.errors import DataError

_C2 = "twotime/two_time_corr_func"
_MASKS = "instrument/masks"
_CORNERS = ("upper_left", "lower_left")


def _entry(file: Values) -> str:
    """The entry with two-time results; the first where there are several."""
    return next((e for e in ("entry", *subgroups(file.file)) if f"{e}/{_C2}" in file), "")


def read_nxxpcs(file: Values) -> TwoTimeFile:
    """NXxpcs layout: matrices in one array, or one dataset per region."""
    entry = _entry(file)
    c2, masks = f"{entry}/{_C2}", f"{entry}/{_MASKS}"
    corner = file.attribute(c2, "time_origin_location", "upper_left")
    if corner not in _CORNERS:
        raise DataError(
            f"time_origin_location of {c2} is {corner!r}; expected {' or '.join(_CORNERS)}."
        )
    last = file.attribute(c2, "storage_mode", "") == "one_array_q_last"
    node = file.file[c2]
    places = _places(node, c2, last=last)
    q, phi, notes = _lists(file, masks, len(places))
    most = np.inf if isinstance(node, Group) else len(places)  # an array does not name regions
    for values in (q, phi):
        if values is not None and not (max(places) <= values.size <= most and min(places) > 0):
            raise DataError(
                f"there are {len(places)} matrices up to region {max(places)} but a list of "
                f"{values.size} entries; expected an entry of dynamic_q_list and dynamic_phi_list "
                f"for each; correct the lists, or name {c2} alone in experimental_data.layout."
            )
    index = np.array(list(places)) - 1
    q_of, phi_of = ([None] * len(places) if x is None else x[index].tolist() for x in (q, phi))
    below = corner == "lower_left"
    bins = tuple(
        Bin(q_k, phi_k, *place, from_below=below)  # type: ignore[misc]
        for q_k, phi_k, place in zip(q_of, phi_of, places.values(), strict=True)
    )
    dt, several = _frame_time(file, entry)
    return TwoTimeFile(
        bins, dt=dt, several_dt=several, notes=notes, baseline=_baseline(file, c2)
    )  # fmt: skip


def _lists(file: Values, masks: str, count: int) -> tuple[Numbers | None, Numbers | None, Notes]:
    """Wavevector [1/Å] and angle [degree] of each region, and notes."""
    q_name, phi_name = f"{masks}/dynamic_q_list", f"{masks}/dynamic_phi_list"
    q, phi = file.numbers(q_name), file.numbers(phi_name)
    notes: Notes = ()
    if q is not None:
        width = q.size // max(file.file[q_name].shape[0] if file.file[q_name].shape else 1, 1)
        if q.size > count and width in (2, 3) and q.size == width * count:
            pairs = q.reshape(count, width)  # the definition allows a tuple for each region
            q, phi = pairs[:, 0], pairs[:, 1] if phi is None else phi
        q, notes = in_per_angstrom(q, file.attribute(q_name, "units", "1/Å"))
    if phi is None or phi_name not in file:
        return q, phi, notes
    unit = file.attribute(phi_name, "units", "deg")
    if in_per_angstrom(phi, unit)[1]:
        return q, in_degrees(phi, unit, phi_name), notes
    note = f"{phi_name} has the unit {unit!r}, which is none of an angle: taken as degrees"
    return q, phi, (*notes, note)


def _frame_time(file: Values, entry: str) -> tuple[float | None, str]:
    """Time between frames [s], or the different ones of several detectors in words.

    A detector is a group of class NXdetector, or one that is called so where none has the class.
    """
    devices = [f"{entry}/instrument/{name}" for name in file.names(f"{entry}/instrument")]
    timed = [device for device in devices if f"{device}/frame_time" in file]
    is_told = [file.attribute(device, "NX_class", "") == "NXdetector" for device in timed]
    is_called = ["detector" in device.rsplit("/", 1)[-1] for device in timed]
    chosen = next((x for x in (is_told, is_called) if any(x)), [True] * len(timed))
    found = {
        device: file.seconds(f"{device}/frame_time")
        for device, is_chosen in zip(timed, chosen, strict=True)
        if is_chosen
    }
    times = {value for value in found.values() if value is not None}
    if len(times) <= 1:
        return next(iter(times), None), ""
    return None, ", ".join(f"{value:g} s ({device})" for device, value in found.items())


def _baseline(file: Values, c2: str) -> float | None:
    """The number that the file says its correlation tends to; None where it does not say."""
    said = file.attribute(c2, "baseline_reference", "")
    if not said:
        return None
    if re.fullmatch(r"\s*[01](\.0*)?\s*", said):
        return float(said)
    raise DataError(
        f"baseline_reference of {c2} is {said!r}; expected 0 or 1; correct the file, or set "
        "experimental_data.baseline and delete the attribute."
    )


def _places(
    node: Array | Group, c2: str, *, last: bool
) -> dict[int, tuple[str, int | None, bool]]:  # fmt: skip
    """Region number of each matrix, and (dataset, position, counted along the last axis)."""
    if isinstance(node, Group):
        found = {name: re.search(r"\d{1,9}$", name) for name in node}
        regions = {int(hit[0]): name for name, hit in found.items() if hit}
        if not found or len(regions) < len(found):
            raise DataError(
                f"{c2} holds {', '.join(node) or 'nothing'}; expected one matrix per "
                "region with the region's number at the end of its name."
            )
        return {roi: (f"{c2}/{regions[roi]}", None, False) for roi in sorted(regions)}
    node.check_size()
    if node.ndim not in (2, 3):
        raise DataError(f"{c2} has shape {node.shape}; expected matrices over frames.")
    if node.ndim == 2:
        return {1: (c2, None, False)}
    count = node.shape[-1 if last else 0]
    if count == 0:
        raise DataError(f"{c2} has shape {node.shape}; expected at least one matrix.")
    return {k + 1: (c2, k, last) for k in range(count)}


READERS = (Reader("nxxpcs", f"NXxpcs (entry/{_C2})", lambda file: bool(_entry(file)), read_nxxpcs),)
