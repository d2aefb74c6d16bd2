"""Selection of bins, frames and times from a file."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from twotime.config.frames import expand, joined
from twotime.config.manager import ConfigManager
from twotime.data.dataset import SAME_Q
from twotime.data.source import Datasets, Layout, PlacedBin, TwoTimeFile
from twotime.errors import DataError

Angles = tuple[float, ...]

RING = 1e-2
"""Largest relative distance of the wavevectors of neighbours in a ring: own means of its bins."""
_SAME_PHI = 0.1
"""Angles this near are the same, which a ring holds once [degree]."""
_DT_TOLERANCE = 1e-6
_ANGLE_SLACK = 1e-6
_LONGEST_STEP = 1e9  # [s]
_SHOWN = 40
_NEAR_Q = 1e-2
"""Relative distance of a wavevector up to which it is what was asked for, without a word."""
"""Wavevectors that a message lists."""


@dataclasses.dataclass(frozen=True)
class PhiFilter:
    """Which angles to keep; the filter without arguments keeps all.

    An angle is kept if it lies in one of the ranges or near one of the included angles (any
    angle where there are neither), unless it lies near an excluded one.

    Attributes:
        ranges: Pairs (low, high), ends included, running upwards from low to high and through
            180 where low > high [degree].
        include: Angles to keep [degree].
        exclude: Angles to drop [degree].
        tolerance: Largest distance from a named angle that counts as the same [degree].
    """

    ranges: tuple[tuple[float, float], ...] = ()
    include: Angles = ()
    exclude: Angles = ()
    tolerance: float = 1.0

    def keeps(self, phi: float) -> bool:
        """Whether an angle [degree] is kept.

        Example:
            >>> behind = PhiFilter(ranges=((170.0, -170.0),))
            >>> behind.keeps(-175.0), behind.keeps(0.0)
            (True, False)
        """
        takes_all = not (self.ranges or self.include)
        in_range = any(_inside(phi, low, high) for low, high in self.ranges)
        included = takes_all or in_range or self.is_near(phi, self.include)
        return included and not self.is_near(phi, self.exclude)

    def is_near(self, phi: float, angles: Angles) -> bool:
        """Whether an angle lies within `tolerance` of one of some angles, on the circle."""
        return any(_inside(phi, a - self.tolerance, a + self.tolerance) for a in angles)


@dataclasses.dataclass(frozen=True)
class Selection:
    """What to take from a file.

    Attributes:
        q: Wavevector to look for, or several; None takes all [1/Å]. One number is that of all
            matrices where the file does not give it.
        q_range: Lowest and highest wavevector of those to take where `q` is None [1/Å].
        q_tolerance: Largest distance of the file's nearest wavevector, relative to `q`; and of
            neighbours of one ring, at most `RING` there.
        phi_angles: Angles to take, each of which the file must hold; the angle of each matrix
            for files that do not give it; None takes all [degree].
        phi: Which of the angles to keep.
        layout: Layout the file must have; "auto" takes any.
        datasets: Names of the arrays, for files of no known layout.
        mask_file: File with the points or frames that count.
        roi_axis: Axis of a three-dimensional npy array that counts the matrices.
        start_frame: First frame, counted from 1.
        end_frame: Last frame, included; -1 is the file's last.
        bad_frames: Frames of the file that do not count, from 1.
        dt: Time between frames [s]; None takes the file's.
        dt_source: Whose `dt` is used where both give one; None requires that they agree.
        t0: Time of the first selected frame [s]; None counts from the start of acquisition.
        average_triangles: Whether matrices that are stored in full and are not symmetric are
            averaged with their transpose; they are an error otherwise.
        baseline: What c2 is without correlation, 1 or 0; None takes what the file says, or else
            what its long lags show.
        memory_limit: Largest size of the selected data [byte]; None sets no limit.
    """

    q: float | tuple[float, ...] | None
    q_range: tuple[float, float] | None = None
    q_tolerance: float = 0.05
    phi_angles: Angles | None = None
    phi: PhiFilter = PhiFilter()
    layout: Layout | Literal["auto"] = "auto"
    datasets: Datasets | None = None
    mask_file: Path | None = None
    roi_axis: Literal["first", "last"] = "first"
    start_frame: int = 1
    end_frame: int = -1
    bad_frames: tuple[int, ...] = ()
    dt: float | None = None
    dt_source: Literal["config", "file"] | None = None
    t0: float | None = None
    average_triangles: bool = False
    baseline: float | None = None
    memory_limit: float | None = None

    @classmethod
    def from_config(cls, config: ConfigManager) -> "Selection":
        """The selection that a configuration describes."""
        data, angles = config.section("experimental_data"), config.phi_filtering
        limit = config.section("hardware").get("memory_limit_gb")
        ranges = tuple((float(low), float(high)) for low, high in angles.get("ranges", ()))
        include, exclude = (angles.get(f"{name}_angles", ()) for name in ("include", "exclude"))
        named, q = (tuple(map(float, include)), tuple(map(float, exclude))), config.wavevector_q
        return cls(
            q=_wavevectors(q),
            q_range=None if config.q_range is None else (config.q_range[0], config.q_range[1]),
            q_tolerance=config.q_tolerance,
            phi_angles=None if config.phi_angles is None else tuple(config.phi_angles),
            phi=PhiFilter(ranges, *named, float(angles["tolerance"])),
            layout=config.file_format,
            datasets=Datasets(**data["layout"]) if "layout" in data else None,
            mask_file=config.mask_file_path,
            roi_axis=data["roi_axis"],
            start_frame=config.start_frame,
            end_frame=config.end_frame,
            bad_frames=expand(config.section("analyzer_parameters").get("bad_frames", ())),
            dt=config.dt,
            dt_source=config.dt_source,
            t0=config.t0,
            average_triangles=data["average_triangles"],
            baseline=None if data["baseline"] == "auto" else float(data["baseline"]),
            memory_limit=None if limit is None else 1e9 * limit,
        )


def _wavevectors(q: float | list[float] | str | None) -> float | tuple[float, ...] | None:
    """Wavevectors of a configuration, as a selection has them."""
    if isinstance(q, list):
        return tuple(map(float, q))
    return None if q in ("all", None) else float(q)


class Ring(NamedTuple):
    """Matrices of one wavevector, each perhaps with a mean of its own.

    Attributes:
        q: Mean wavevector [1/Å].
        bins: The matrices.
    """

    q: float
    bins: tuple[PlacedBin, ...]

    @property
    def is_one(self) -> bool:
        """Whether all matrices have the same wavevector."""
        q = [b.q for b in self.bins]
        return max(q) - min(q) <= SAME_Q * abs(self.q)

    def __str__(self) -> str:
        count = len(self.bins)
        return f"q = {self.q:.6g} 1/Å ({count} {'matrices' if count > 1 else 'matrix'})"


def rings_of(bins: Iterable[PlacedBin], tolerance: float) -> list[Ring]:
    """Rings among some matrices, by rising wavevector.

    Sorted by wavevector, a ring ends where the next one is farther than `tolerance` (relative, at
    most `RING`), or differs at an angle that the ring has.
    """
    groups: list[list[PlacedBin]] = []
    for b in sorted(bins, key=lambda b: b.q):
        last = groups[-1] if groups else []
        step = b.q - last[-1].q if last else np.inf
        is_there = any(abs((b.phi - c.phi + 180) % 360 - 180) < _SAME_PHI for c in last)
        near = SAME_Q if is_there else max(SAME_Q, min(tolerance, RING))
        if step <= near * abs(b.q):
            last.append(b)
        else:
            groups.append([b])
    order = {id(b): k for k, b in enumerate(bins)}
    groups = [sorted(group, key=lambda b: order[id(b)]) for group in groups]
    return [Ring(_mean([b.q for b in group]), tuple(group)) for group in groups]


def _mean(q: list[float]) -> float:
    return q[0] if max(q) == min(q) else float(np.mean(q))


def select_rings(file: TwoTimeFile, selection: Selection) -> tuple[list[Ring], tuple[str, ...]]:
    """The selected rings with their bins at the selected angles, and what a user should know."""
    bins = _with_axes(file, selection)
    rings = rings_of(bins, selection.q_tolerance)
    asked = selection.q
    if asked is None:
        low, high = selection.q_range or (0.0, math.inf)
        found = [r for r in rings if low * (1 - SAME_Q) <= r.q <= high * (1 + SAME_Q)]
        if not found:
            raise DataError(
                f"no wavevector from {low:.6g} to {high:.6g} 1/Å; the file holds "
                f"{_listed_q(rings)} 1/Å; widen analyzer_parameters.scattering.q_range."
            )
        return [_at_angles(ring, selection) for ring in found], ()
    wanted = asked if isinstance(asked, tuple) else (asked,)
    found, notes = list[Ring](), list[str]()
    for q in wanted:
        ring = _nearest(rings, q, selection.q_tolerance)
        found += [] if ring in found else [ring]
        if abs(ring.q - q) > max(_NEAR_Q * abs(q), max(b.q for b in ring.bins) - ring.q):
            notes.append(f"q = {ring.q:.6g} 1/Å is the file's nearest to the selected {q:.6g}")
    beside = _left_out(rings, found, wanted, selection.q_tolerance)
    notes += [beside] if beside else []
    return [_at_angles(ring, selection) for ring in found], tuple(notes)


def _nearest(rings: list[Ring], q: float, tolerance: float) -> Ring:
    """The ring with the bin nearest to a wavevector."""
    distance = [min(abs(b.q - q) for b in ring.bins) for ring in rings]
    k = int(np.argmin(distance))
    if distance[k] <= tolerance * abs(q):
        return rings[k]
    share = f"{tolerance:.2%}" if tolerance >= 1e-4 else f"{tolerance:g} (relative)"
    raise DataError(
        f"no wavevector within {share} of q = {q:.6g} 1/Å; the file holds "
        f"{_listed_q(rings)} 1/Å; set analyzer_parameters.scattering.wavevector_q (--q) to one of "
        "them, or raise q_tolerance."
    )


def _left_out(rings: list[Ring], found: list[Ring], wanted: Angles, tolerance: float) -> str:
    """What is near a selected wavevector and not taken, in words; empty where nothing is."""
    reach = max(tolerance, RING)
    near = [
        b
        for ring in rings
        if ring not in found
        for b in ring.bins
        if any(abs(b.q - q) <= reach * abs(q) for q in wanted)
    ]
    if not near:
        return ""
    many = "matrix" if len(near) == 1 else "matrices"
    return (
        f"{len(near)} {many} within {reach:.3g} of the selected q left out, at "
        f"{_listed_q(rings_of(near, tolerance))} 1/Å; name these wavevectors, or raise q_tolerance "
        "where they are one ring"
    )


def _listed_q(rings: Iterable[Ring]) -> str:
    values = dict.fromkeys(f"{ring.q:.6g}" for ring in rings)
    shown = list(values)[:_SHOWN]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def _at_angles(ring: Ring, selection: Selection) -> Ring:
    """A ring at the selected angles."""
    asked, q = selection.phi_angles, ring.q
    phi = [b.phi for b in ring.bins]
    absent = [a for a in asked or () if not any(selection.phi.is_near(a, (x,)) for x in phi)]
    if absent:
        raise DataError(
            f"phi = {_listed(absent)} degree of scattering.phi_angles does not exist at "
            f"q = {q:.6g} 1/Å; the file holds {_listed(phi)} degree."
        )
    named = [b for b in ring.bins if asked is None or selection.phi.is_near(b.phi, asked)]
    chosen = tuple(b for b in named if selection.phi.keeps(b.phi))
    if not chosen:
        raise DataError(
            f"phi_filtering keeps none of the angles at q = {q:.6g} 1/Å, "
            f"{_listed(b.phi for b in named)} degree; widen it."
        )
    return Ring(q, chosen)


def select_frames(file: TwoTimeFile, selection: Selection) -> tuple[int, int]:
    """First and last selected frame, counted from 1, both included."""
    first = selection.start_frame
    last = file.n_frames if selection.end_frame == -1 else selection.end_frame
    if last > file.n_frames:
        raise DataError(
            f"end_frame is {last} but the file has {file.n_frames} frames; expected at most that; "
            "use -1 for the last frame."
        )
    if first < 1 or last <= first:
        raise DataError(
            f"frames {first} to {last} (start_frame to end_frame) of {file.n_frames}; expected at "
            "least two frames counted from 1."
        )
    return first, last


def mask_bad_frames(
    mask: Bool[np.ndarray, "angle time time"], file: TwoTimeFile, selection: Selection, first: int
) -> tuple[int, ...]:
    """Mask rows and columns of the bad frames in place; gives those that lie in the selection.

    Args:
        mask: True where a point is used.
        file: Header of the file.
        selection: What to take from it.
        first: Number of the first frame of the mask.
    """
    asked = np.asarray(selection.bad_frames, int)
    beyond = joined(asked[(asked < 1) | (asked > file.n_frames)].tolist())
    if beyond:
        raise DataError(
            f"analyzer_parameters.bad_frames lists {beyond} but the file has {file.n_frames} "
            "frames; expected frames counted from 1; correct the list."
        )
    places = asked[(asked >= first) & (asked < first + mask.shape[1])] - first
    mask[:, places] = False
    mask[:, :, places] = False
    if places.size and not mask.any(axis=(1, 2)).all():
        raise DataError(
            "analyzer_parameters.bad_frames leaves no point of a matrix; expected frames that "
            "count; correct the list, or select other frames."
        )
    return tuple((places + first).tolist())


def frame_times(
    file: TwoTimeFile, selection: Selection, first: int, last: int
) -> tuple[float | None, Float[np.ndarray, " time"]]:
    """Time step [s], if there is one, and the time of every selected frame [s].

    Frame k of the acquisition ends at k dt; a given `t0` is the time of the first selected
    frame instead. Times listed in the file are used unchanged unless `dt` is to come from
    the configuration.
    """
    dt = _time_step(file, selection)
    listed = None if selection.dt_source == "config" and selection.dt else file.times
    if dt is None or listed is not None:
        t = np.asarray(listed)[first - 1 : last]
    elif file.skipped is None and selection.t0 is None:
        raise DataError(
            "the file counts its first frame from the end of the acquisition, whose length it "
            "does not give; expected the time of the first selected frame; set "
            "analyzer_parameters.t0 [s]."
        )
    else:
        t = ((file.skipped or 0.0) + first + np.arange(last - first + 1.0)) * dt
    t = t if selection.t0 is None else t - t[0] + selection.t0
    if t[0] < 0:
        raise DataError(
            f"the first frame is at {t[0]:g} s; expected times since the start, from 0 on; set "
            "analyzer_parameters.t0 [s]."
        )
    return dt, t


def _time_step(file: TwoTimeFile, selection: Selection) -> float | None:
    asked, stored = selection.dt, file.dt
    if asked is not None and selection.dt_source == "config":
        stored = None
    for name, value in (("the configuration", asked), ("the file", stored)):
        if value is not None and not 0 < value <= _LONGEST_STEP:
            raise DataError(
                f"dt from {name} is {value:g} s; expected a positive time; set "
                "analyzer_parameters.dt [s] and dt_source: config."
            )
    if file.several_dt and asked is None:
        raise DataError(
            f"the file gives the frame times {file.several_dt}; expected one; set "
            "analyzer_parameters.dt [s] to that of the detector of these data."
        )
    if asked is None and stored is None and file.times is None:
        raise DataError(
            "neither the file nor the configuration gives the time between frames; set "
            "analyzer_parameters.dt [s]."
        )
    if asked is None or (selection.dt_source == "file" and (stored or file.times)):
        return stored
    if selection.dt_source is None and stored is None and file.times is not None:
        raise DataError(
            f"the file lists times that are not equally spaced, dt = {asked:g} s "
            "contradicts them; leave analyzer_parameters.dt out."
        )
    agree = stored is None or abs(asked - stored) <= _DT_TOLERANCE * stored
    if selection.dt_source is None and not agree:
        raise DataError(
            f"dt is {asked:.9g} s in the configuration and {stored:.9g} s in the file; expected "
            "equal; leave analyzer_parameters.dt out, or choose one with "
            "analyzer_parameters.dt_source."
        )
    return asked


def _with_axes(file: TwoTimeFile, selection: Selection) -> tuple[PlacedBin, ...]:
    """The file's bins, with q and angle from the selection where the file does not give them."""
    bins = file.bins
    angles = tuple(b.phi for b in bins if b.phi is not None)
    if len(angles) < len(bins):
        one = (0.0,) if len(bins) == 1 else ()
        angles = one if selection.phi_angles is None else selection.phi_angles
    if len(angles) != len(bins):
        raise DataError(
            f"the file does not give the angles of its {len(bins)} matrices and "
            "analyzer_parameters.scattering.phi_angles gives "
            f"{len(angles) or 'none'}; expected one per matrix [degree]."
        )
    q = selection.q
    if any(b.q is None for b in bins) and not isinstance(q, float | int):
        raise DataError(
            "the file does not give its wavevector; expected one number; set "
            "analyzer_parameters.scattering.wavevector_q."
        )
    return tuple(
        PlacedBin(**(vars(b) | {"q": q if b.q is None else b.q, "phi": phi}))
        for b, phi in zip(bins, angles, strict=True)
    )


def _inside(phi: float, low: float, high: float) -> bool:
    """Whether an angle lies on the arc running upwards from low to high, ends included."""
    if high - low >= 360:
        return True
    return (phi - low + _ANGLE_SLACK) % 360 <= (high - low) % 360 + 2 * _ANGLE_SLACK


def _listed(angles: Iterable[float]) -> str:
    return ", ".join(f"{phi:g}" for phi in angles)
