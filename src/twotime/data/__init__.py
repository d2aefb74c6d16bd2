"""Measured data: files read, checked and selected, with a cache and a report of what was used."""

import dataclasses
import hashlib
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from twotime.config.manager import ConfigManager, check_configuration
from twotime.data.containers import about, array_in, container, open_arrays
from twotime.data.dataset import TwoTimeData, join, one_if_same
from twotime.data.level import baseline_of, level_of
from twotime.data.matrices import Matrices, apply_mask_file, read_matrices
from twotime.data.readers import open_source
from twotime.data.repeats import average
from twotime.data.selection import (
    Ring,
    Selection,
    frame_times,
    mask_bad_frames,
    select_frames,
    select_rings,
)
from twotime.data.source import PlacedBin, TwoTimeFile
from twotime.data.stripes import stripe_notes
from twotime.data.write import Cache, cache_key, read_cache, write_cache
from twotime.errors import ConfigurationError, DataError

LARGE_Q = 0.2
"""Wavevector beyond small angles, probably in 1/nm [1/Å]."""

_IN_RESULTS = {
    "path": "file", "q": "wavevector_q", "n_frames_in_file": "frames_in_file", "n_angles": "angles",
    "empty": "empty_bins", "n_points": "points", "n_masked": "masked_points",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """Where data came from and what was left out.

    Attributes:
        path: The file.
        sha256: Checksum of the file.
        layout: Name of its layout.
        q: Wavevector found, or those of several rings; mean of a ring [1/Å].
        frames: First and last selected frame, counted from 1, both included.
        n_frames_in_file: Frames of the file's matrices.
        dt: Time between frames [s]; None for times that are not equally spaced.
        n_angles: Matrices used.
        empty: Matrices of this wavevector that were never filled and are left out.
        bad_frames: Frames that do not count because the configuration says so.
        n_points: Points with t1 < t2 that are used.
        n_masked: Points with t1 < t2 that are not finite, masked in the file, without light, or
            of bad frames.
        baseline: What c2 is without correlation: 1, or 0 for c2 - 1.
        notes: Sentences a user should read.
    """

    path: str
    sha256: str
    layout: str
    q: float | tuple[float, ...]
    frames: tuple[int, int]
    n_frames_in_file: int
    dt: float | None
    n_angles: int
    empty: tuple[str, ...]
    bad_frames: tuple[int, ...]
    n_points: int
    n_masked: int
    baseline: float
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """The report by the names that result files use."""
        facts = dataclasses.asdict(self)
        return {_IN_RESULTS.get(name, name): x for name, x in facts.items() if name != "notes"}

    @property
    def n_pixels(self) -> int:
        """Deprecated: `n_points`."""
        warnings.warn("n_pixels is now called n_points", DeprecationWarning, stacklevel=2)
        return self.n_points


Loaded = tuple[TwoTimeData, LoadReport]


def load_data(config: ConfigManager) -> TwoTimeData:
    """Read, select and check the data that a configuration describes, of all selected wavevectors.

    Args:
        config: A validated configuration.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged or does not hold what is selected.
        TypeError: If it is no configuration.
    """
    return load_with_report(config)[0]


def load_with_report(config: ConfigManager) -> Loaded:
    """As `load_data`, with a report of the source and of what was left out."""
    check_configuration("load_data", config)
    paths, selection = config.data_file_paths, Selection.from_config(config)
    if config.q_mode == "each" and not isinstance(selection.q, float):
        raise ConfigurationError(
            "analyzer_parameters.scattering.wavevector_q: several wavevectors, each to be fitted "
            "by itself, are no single value; expected one number, or q_mode: together; for each by "
            "itself call twotime.batch.run."
        )
    if len(paths) > 1 and config.file_mode == "each":
        raise ConfigurationError(
            f"experimental_data.file_path: {len(paths)} files, each to be fitted by itself, are no "
            "single value; expected one file, or file_mode: together or average; for each by "
            "itself call twotime.batch.run."
        )
    loaded = [_load(config, path, selection) for path in paths]
    return loaded[0] if len(loaded) == 1 else _as_one(loaded, config.file_mode)


def _load(config: ConfigManager, path: Path, selection: Selection) -> Loaded:
    if config.cache_file_path is None:
        return load_file(path, selection)
    cache = Cache(config.cache_file_path, config.cache_filename_template, config.cache_compression)
    return load_cached(path, selection, cache)


def _as_one(loaded: list[Loaded], mode: str) -> Loaded:
    """Repeats as matrices of one value, or as their mean, with a report of all."""
    parts, reports = zip(*loaded, strict=True)
    first: dict[str, str] = {}
    for x in reports:
        if first.setdefault(x.sha256, x.path) != x.path:
            raise DataError(
                f"{x.path}: holds the same bytes as {first[x.sha256]}; expected independent "
                "repeats of a measurement; name each once in experimental_data.file_path."
            )
    try:
        data = (average if mode == "average" else join)(*parts)
    except ValueError as exc:
        raise DataError(f"{reports[0].path} and {len(reports) - 1} more: {exc}") from None
    n = data.t.size
    n_points = sum(int(np.count_nonzero(data.usable(k))) for k in range(data.phi.size))
    what = "averaged" if mode == "average" else "fitted together"
    told = [f"{Path(x.path).name}: {note}" for x in reports for note in x.notes]
    return data, dataclasses.replace(
        reports[0],
        path=", ".join(x.path for x in reports),
        sha256=", ".join(x.sha256 for x in reports),
        q=_wavevectors(data),
        n_angles=data.phi.size,
        empty=tuple(f"{Path(x.path).name}: {b}" for x in reports for b in x.empty),
        n_points=n_points,
        n_masked=data.phi.size * n * (n - 1) // 2 - n_points,
        notes=(f"{len(reports)} files are {what}", *told),
    )


class Taken(NamedTuple):
    """What a selection takes of a file.

    Attributes:
        file: The file.
        rings: Rings of equal wavevector.
        told: Sentences about wavevectors.
        frames: First and last frame, from 1.
        dt: Time between frames [s]; None where times are given.
        t: Times of the frames [s].
    """

    file: TwoTimeFile
    rings: list[Ring]
    told: tuple[str, ...]
    frames: tuple[int, int]
    dt: float | None
    t: np.ndarray


def taken(path: Path, selection: Selection) -> Taken:
    """What a selection takes of a file, from its header alone.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged or does not hold what is selected.
    """
    is_last = selection.roi_axis == "last"
    file = open_source(path, angle_last=is_last, datasets=selection.datasets)
    with about(path):
        if selection.layout not in ("auto", file.layout):
            raise DataError(
                f"the layout is {file.layout} but experimental_data.file_format is "
                f"{selection.layout}; leave file_format out to have the layout recognised."
            )
        rings, told = select_rings(file, selection)
        first, last = select_frames(file, selection)
        dt, t = frame_times(file, selection, first, last)
        return Taken(file, rings, told, (first, last), dt, t)


def load_file(path: Path, selection: Selection) -> Loaded:
    """Read the selected wavevectors of a two-time file.

    Stored triangles are completed by symmetry, full matrices are taken as they are. The
    diagonal (shot noise) and points that are not finite are masked; no number is changed.

    Raises:
        DataNotFoundError: If there is no such file.
        DataError: If the file is damaged or does not hold what is selected.
    """
    path = Path(path)
    file, rings, told_of_q, (first, last), dt, t = taken(path, selection)
    bins = tuple(b for ring in rings for b in ring.bins)
    with about(path):
        _check_size(file, bins, t.size, selection.memory_limit or math.inf)
        averages = selection.average_triangles
        read = read_matrices(file, bins, slice(first - 1, last), average_triangles=averages)
        if selection.mask_file is not None:
            apply_mask_file(read.mask, selection.mask_file, file.n_frames, slice(first - 1, last))
        bad_frames = mask_bad_frames(read.mask, file, selection, first)
    data = _in_rings(rings, read, t)
    phi = data.phi
    baseline, told = _baseline(file, selection, data)
    data = dataclasses.replace(data, baseline=np.asarray(baseline))
    with path.open("rb") as stream:
        checksum = hashlib.file_digest(stream, "sha256").hexdigest()
    n_points = sum(int(np.count_nonzero(data.usable(k))) for k in range(phi.size))
    report = LoadReport(
        path=str(path),
        sha256=checksum,
        layout=file.layout,
        q=_wavevectors(data),
        frames=(first, last),
        n_frames_in_file=file.n_frames,
        dt=dt,
        n_angles=phi.size,
        empty=tuple(str(b) for b in read.empty),
        bad_frames=bad_frames,
        n_points=n_points,
        n_masked=phi.size * t.size * (t.size - 1) // 2 - n_points,
        baseline=baseline,
        notes=(
            *file.notes,
            *told_of_q,
            *_notes(file, selection, data),
            *read.notes,
            *told,
            *stripe_notes(data, first),
        ),  # fmt: skip
    )
    return data, report


def _in_rings(rings: list[Ring], read: Matrices, t: np.ndarray) -> TwoTimeData:
    """The data that were read, at one wavevector or at those of their rings."""
    ring_of = {id(b): k for k, ring in enumerate(rings) for b in ring.bins}
    kept = [ring_of[id(b)] for b in read.kept]
    same = {k: ring.q for k, ring in enumerate(rings) if ring.is_one}
    q = np.array([same.get(k, b.q) for k, b in zip(kept, read.kept, strict=True)], float)
    phi = np.array([b.phi for b in read.kept], float)
    one_or_each, numbers = one_if_same(q, kept)
    return TwoTimeData(
        read.c2, t, one_or_each, phi, mask=read.mask, sigma=read.sigma, rings=numbers
    )


def _wavevectors(data: TwoTimeData) -> float | tuple[float, ...]:
    """The wavevector of the data, or those of their rings [1/Å]."""
    q = tuple(data.ring_q.tolist())
    return q[0] if len(q) == 1 else q


def _check_size(
    file: TwoTimeFile, bins: tuple[PlacedBin, ...], n_frames: int, limit: float
) -> None:
    """Refuse data beyond the limit of memory [byte]."""
    size = len(bins) * n_frames**2 * 9  # double precision and a mask; no file gives more
    if container(file.path) == "npz" and limit < math.inf:
        size += _read_whole(file, bins)
    if size > limit:
        raise DataError(
            f"{len(bins)} matrices of {n_frames} frames take up to {size / 1e9:.3g} GB, "
            f"hardware.memory_limit_gb is {limit / 1e9:.3g}; select fewer frames or angles, or "
            "raise the limit."
        )


def _read_whole(file: TwoTimeFile, bins: tuple[PlacedBin, ...]) -> int:
    """Size of the arrays of an npz file that are read as a whole, whatever is selected [byte]."""
    names = {b.dataset for b in bins} | {name for name in (file.mask, file.sigma) if name}
    with open_arrays(file.path) as arrays:
        found = [array_in(arrays, name) for name in names]
        return sum(math.prod(array.shape) * array.dtype.itemsize for array in found)


def _baseline(
    file: TwoTimeFile, selection: Selection, data: TwoTimeData
) -> tuple[float, tuple[str, ...]]:
    """The baseline of data from the configuration, the file or the data; a note unless it is 1."""
    level = level_of(data)
    seen = baseline_of(level)
    if selection.baseline is not None:
        note = f"experimental_data.baseline is {selection.baseline:g}, but {level}"
        return selection.baseline, () if selection.baseline == seen else (note,)
    said = seen if file.baseline is None else file.baseline
    if said != seen:
        raise DataError(
            f"{file.path}: the file says that its baseline is {said:g}, but {level}; set "
            f"experimental_data.baseline: {seen:g} or {said:g}, whichever it is."
        )
    if said == 1:
        return said, ()
    source = f"{level}" if file.baseline is None else "the file says so"
    note = f"the baseline of c2 is taken as 0 ({source}); its offset is fitted near 0; to choose"
    return said, (f"{note}, set experimental_data.baseline",)


def _notes(file: TwoTimeFile, selection: Selection, data: TwoTimeData) -> tuple[str, ...]:
    notes, q = [], float(np.max(data.q))
    if len(np.unique(data.q)) > len(data.ring_q):
        notes.append(
            "matrices of a ring have mean wavevectors of their own, from "
            f"{float(np.min(data.q)):.6g} to {q:.6g} 1/Å; each is fitted at its own"
        )
    if q > LARGE_Q:
        notes.append(f"q = {q:g} is large for 1/Å: values in 1/nm must be divided by 10")
    if selection.phi_angles is None and any(b.phi is None for b in file.bins):
        notes.append("the file does not give the angle of its matrix: phi = 0")
    if file.skipped and selection.t0 is None:
        notes.append(f"the first frame of the file is preceded by {file.skipped:g} frames")
    if selection.dt is not None and file.dt is not None and selection.dt_source is not None:
        source = selection.dt_source
        notes.append(f"dt of the {source} is used, as set by analyzer_parameters.dt_source")
    return tuple(notes)


def load_cached(path: Path, selection: Selection, cache: Cache) -> Loaded:
    """As `load_file`, from the cache if it holds exactly this; notes say if none can be written."""
    container(path)  # names a missing source before its size and time are asked for
    if selection.mask_file is not None:
        container(selection.mask_file, key="mask_file")
    key = cache_key(path, selection)
    target = cache.file_for(selection, key)
    held = read_cache(target, key)
    if held is not None:
        return held[0], LoadReport(**held[1])
    data, report = load_file(path, selection)
    try:
        write_cache(path, target, key, data, dataclasses.asdict(report), cache.compression)
    except OSError as exc:
        note = f"no cache was written to {target} ({exc})"
        report = dataclasses.replace(report, notes=(*report.notes, note))
    return data, report
