"""Header of the NXxpcs layout."""

import re
from pathlib import Path

import h5py

from twotime.data.source import (
    Bin,
    Numbers,
    TwoTimeFile,
    attribute,
    frame_count,
    in_per_angstrom,
    number,
    numbers,
)
from twotime.errors import DataError

NX_C2 = "entry/twotime/two_time_corr_func"
_MASKS = "entry/instrument/masks"


def read_nxxpcs(path: Path, file: h5py.File) -> TwoTimeFile:
    """NXxpcs application definition, matrices in one array or under one key per region.

    Raises:
        DataError: If the file contradicts itself.
    """
    node = file[NX_C2]
    corner = attribute(node, "time_origin_location", "upper_left")
    if corner != "upper_left":
        raise DataError(
            f"{path}: time_origin_location of {NX_C2} is {corner!r}; expected 'upper_left'; "
            "flip the arrays and save them again."
        )
    q, phi, notes = _axes(file)
    last = attribute(node, "storage_mode", "") == "one_array_q_last"
    places = _places(path, node, last=last)
    highest = max(places)
    for values in (q, phi):
        if values is not None and values.size < highest:
            raise DataError(
                f"{path}: a list of {values.size} entries stands beside matrices up to region "
                f"{highest}; expected an entry of dynamic_q_list and dynamic_phi_list for each."
            )
    bins = tuple(
        Bin(
            None if q is None else float(q[roi - 1]),
            None if phi is None else float(phi[roi - 1]),
            *place,
        )
        for roi, place in places.items()
    )
    times = [f"entry/instrument/{name}/frame_time" for name in file.get("entry/instrument", ())]
    clock = next((name for name in times if name in file), "")
    if attribute(node, "baseline_reference", "1") != "1":
        notes += ("the file's baseline is 0: the offset is near 0, set its bounds accordingly",)
    return TwoTimeFile(
        path,
        "nxxpcs",
        bins,
        frame_count(path, file, bins),
        dt=number(file, clock) if clock else None,
        notes=notes,
    )


def _places(
    path: Path, node: h5py.HLObject, *, last: bool
) -> dict[int, tuple[str, int | None, bool]]:
    """Region number of each matrix, and (dataset, position, counted along the last axis)."""
    if isinstance(node, h5py.Group):
        found = {name: re.search(r"\d+$", name) for name in node}
        if not found or not all(found.values()):
            raise DataError(
                f"{path}: {NX_C2} holds {', '.join(node) or 'nothing'}; expected one matrix per "
                "region with the region's number at the end of its name."
            )
        regions = {int(hit[0]): name for name, hit in found.items() if hit}
        return {roi: (f"{NX_C2}/{regions[roi]}", None, False) for roi in sorted(regions)}
    if node.ndim == 2:
        return {1: (NX_C2, None, False)}
    return {k + 1: (NX_C2, k, last) for k in range(node.shape[-1 if last else 0])}


def _axes(file: h5py.File) -> tuple[Numbers | None, Numbers | None, tuple[str, ...]]:
    """Lists of q [1/Å] and angles [degree] per region, where the file has them, and notes."""
    q, phi = (numbers(file, f"{_MASKS}/dynamic_{axis}_list") for axis in ("q", "phi"))
    if q is None:
        return None, phi, ()
    unit = attribute(file[f"{_MASKS}/dynamic_q_list"], "units", "1/Å")
    q, notes = in_per_angstrom(q, unit)
    return q, phi, notes
