"""The NXxpcs application definition."""

import contextlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from twotime.data.source import Bin, Reader, TwoTimeFile, Values, in_per_angstrom
from twotime.errors import DataError

_C2 = "entry/twotime/two_time_corr_func"
_MASKS = "entry/instrument/masks"


def read_nxxpcs(file: Values) -> TwoTimeFile:
    """NXxpcs layout: matrices in one array, or one dataset per region."""
    corner = file.attribute(_C2, "time_origin_location", "upper_left")
    if corner != "upper_left":
        raise DataError(
            f"time_origin_location of {_C2} is {corner!r}; expected 'upper_left'; "
            "flip the arrays and save them again."
        )
    q, phi = (file.numbers(f"{_MASKS}/dynamic_{axis}_list") for axis in ("q", "phi"))
    notes: tuple[str, ...] = ()
    if q is not None:
        q, notes = in_per_angstrom(q, file.attribute(f"{_MASKS}/dynamic_q_list", "units", "1/Å"))
    last = file.attribute(_C2, "storage_mode", "") == "one_array_q_last"
    places = _places(file.file[_C2], last=last)
    for values in (q, phi):
        if values is not None and values.size < max(places):
            raise DataError(
                f"there are matrices up to region {max(places)} but a list of {values.size} "
                "entries; expected an entry of dynamic_q_list and dynamic_phi_list for each."
            )
    index = np.array(list(places)) - 1
    listed = ([None] * len(places) if x is None else x[index].tolist() for x in (q, phi))
    bins = tuple(Bin(*axes, *place) for *axes, place in zip(*listed, places.values(), strict=True))
    devices = file.file.get("entry/instrument", ())
    clocks = (file.number(f"entry/instrument/{name}/frame_time") for name in devices)
    dt = next((value for value in clocks if value is not None), None)
    return TwoTimeFile(bins, dt=dt, notes=notes, baseline=_baseline(file))


def _baseline(file: Values) -> float | None:
    """The number that the file says its correlation tends to; None where it does not say."""
    said = file.attribute(_C2, "baseline_reference", "")
    if not said:
        return None
    with contextlib.suppress(ValueError):
        if float(said) in (0.0, 1.0):
            return float(said)
    raise DataError(
        f"baseline_reference of {_C2} is {said!r}; expected 0 or 1; correct the file, or set "
        "experimental_data.baseline and delete the attribute."
    )


def _places(node: Any, *, last: bool) -> dict[int, tuple[str, int | None, bool]]:
    """Region number of each matrix, and (dataset, position, counted along the last axis)."""
    if isinstance(node, Mapping):
        found = {name: re.search(r"\d+$", name) for name in node}
        if not found or not all(found.values()):
            raise DataError(
                f"{_C2} holds {', '.join(node) or 'nothing'}; expected one matrix per "
                "region with the region's number at the end of its name."
            )
        regions = {int(hit[0]): name for name, hit in found.items() if hit}
        return {roi: (f"{_C2}/{regions[roi]}", None, False) for roi in sorted(regions)}
    if node.ndim == 2:
        return {1: (_C2, None, False)}
    return {k + 1: (_C2, k, last) for k in range(node.shape[-1 if last else 0])}


READERS = (Reader("nxxpcs", f"NXxpcs ({_C2})", lambda file: _C2 in file, read_nxxpcs),)
