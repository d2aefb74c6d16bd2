"""The level of the data: which baseline they have, and whether there is anything to fit.

Means of c2 over a few lags are read off the data before a fit: where correlations end at long lags,
and how far above that they begin.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.data.matrices import ASYMMETRY

_LAGS = 48
_LONG = 0.7
"""Lags from this part of the record on are long."""
_SEEN = 4.0
"""Standard deviations by which c2 must differ between lags; points taken as independent."""
_LEVELLED = 0.1
"""Part of the decay that may be left at half of the record where c2 has come to its end."""
_SLACK = 0.05
"""Part of the decay by which levels may lie outside bounds: means of noisy data do."""
_PERCENT = 20.0
"""A baseline from here to 500 is one in percent."""
_ROUNDING = 16
_ROWS = 16
"""Rows that are held against their columns."""

AtLags = Float[np.ndarray, "angle lag"]


class Level(NamedTuple):
    """Means of c2 over usable points of all angles.

    Attributes:
        short: At the shortest lag.
        middle: At lags about half of the record.
        long: At long lags.
        lag: The shortest lag and the least long one [frame].
        evidence: Largest difference between shorter and longer lags [standard deviations, points
            taken as independent].
        spread: Standard deviation of the points at one lag and angle.
    """

    short: float
    middle: float
    long: float
    lag: tuple[int, int]
    evidence: float
    spread: float

    @property
    def decay(self) -> float:
        """How far c2 falls between short and long lags."""
        return self.short - self.long

    def __str__(self) -> str:
        first, last = self.lag
        return (
            f"c2 is {self.short:.4g} on average at a lag of {first} frame{'s' * (first > 1)} and "
            f"{self.long:.4g} at lags from {last} frames on"
        )


def level_of(data: TwoTimeData) -> Level:
    """Read the level of data whose numbers are known, on a few lags."""
    c2, n = np.asarray(data.c2), data.t.shape[0]
    lags = np.unique(np.round(np.geomspace(1, n - 1, _LAGS)).astype(int)).tolist()
    count, total, squares = np.zeros((3, c2.shape[0], len(lags)))
    for k, lag in enumerate(lags):
        values = np.diagonal(c2, lag, 1, 2).astype(float)
        used = np.isfinite(values) & _unmasked(data, lag)
        count[:, k] = used.sum(axis=1)
        total[:, k] = np.sum(values, axis=1, where=used)
        middle = (total[:, k] / np.maximum(count[:, k], 1))[:, None]
        squares[:, k] = np.sum((values - middle) ** 2, axis=1, where=used)
    some = np.flatnonzero(count.any(axis=0))
    if some.size == 0:
        return Level(np.nan, np.nan, np.nan, (1, 1), 0.0, 0.0)
    per_angle = count.sum(axis=1) - (count > 0).sum(axis=1)
    variance = squares.sum(axis=1) / np.maximum(per_angle, 1)
    at, first, far = np.asarray(lags), lags[some[0]], lags[some[-1]]
    long = at >= _LONG * far
    half_way = ~long & (at >= 0.4 * far)

    def mean(chosen: Bool[np.ndarray, " lag"]) -> float:
        n_points = count[:, chosen].sum()
        return float(total[:, chosen].sum() / n_points) if n_points else float("nan")

    rounding = _ROUNDING * np.finfo(c2.dtype if c2.dtype.kind == "f" else float).eps
    resolution = rounding * np.max(np.abs(total / np.maximum(count, 1)))
    return Level(
        short=mean(at == first),
        middle=mean(half_way if count[:, half_way].any() else long),
        long=mean(long),
        lag=(first, int(at[long & count.any(axis=0)][0])),
        evidence=_evidence(count, total, variance, float(resolution)),
        spread=float(np.sqrt(np.mean(variance))),
    )


def _unmasked(data: TwoTimeData, lag: int) -> Bool[np.ndarray, "angle point"] | bool:
    return True if data.mask is None else np.diagonal(np.asarray(data.mask), lag, 1, 2)


def _evidence(
    count: AtLags, total: AtLags, variance: Float[np.ndarray, " angle"], resolution: float
) -> float:
    """Largest difference between lags up to one and all longer ones, of angles and of their sum."""
    below, above = np.cumsum(count, axis=1)[:, :-1], np.cumsum(count[:, ::-1], axis=1)[:, -2::-1]
    n_below, n_above = np.maximum(below, 1), np.maximum(above, 1)
    shorter = np.cumsum(total, axis=1)[:, :-1] / n_below
    longer = np.cumsum(total[:, ::-1], axis=1)[:, -2::-1] / n_above
    deviation = np.sqrt(variance[:, None] * (1 / n_below + 1 / n_above) + resolution**2)
    is_known = (below > 0) & (above > 0) & (deviation > 0)
    z = np.where(is_known, shorter - longer, 0.0) / np.where(is_known, deviation, 1.0)
    if z.size == 0:
        return 0.0
    together = np.abs(z.sum(axis=0)) / np.sqrt(z.shape[0])
    return float(max(together.max(), np.abs(z).max()))


def baseline_of(level: Level) -> float:
    """The baseline that data have: 0 or 1, whichever is nearer to their long lags."""
    return 0.0 if level.long < 0.5 else 1.0


def check_points(data: TwoTimeData) -> None:
    """Refuse matrices without a usable point or not symmetric, and a sigma that is no deviation.

    Raises:
        ValueError: If there is one.
    """
    sigma = None if data.sigma is None else np.broadcast_to(data.sigma, data.c2.shape)
    for k, phi in enumerate(np.asarray(data.phi)):
        used = np.asarray(data.usable(k))
        if not used.any():
            raise ValueError(
                f"The matrix at phi = {phi:g} degree has no usable pixel with t1 < t2 (all are "
                "masked or not finite); leave this angle out with phi_filtering."
            )
        if sigma is not None and not np.all(sigma[k][used] > 0):
            raise ValueError(
                f"sigma is {np.min(sigma[k][used]):g} at a used point of phi = {phi:g} degree; "
                "expected positive standard deviations; mask such points or leave sigma out."
            )
    _check_symmetry(data)


def _check_symmetry(data: TwoTimeData) -> None:
    """Refuse matrices whose halves differ in a few rows; one may hold nothing (0, NaN, masked)."""
    n = data.t.shape[0]
    rows = np.unique(np.linspace(0, n - 1, _ROWS).astype(int))
    c2, mask = np.asarray(data.c2), data.mask if data.mask is None else np.asarray(data.mask)
    halves = c2[:, rows], c2[:, :, rows].swapaxes(1, 2)
    known = np.logical_and(*(np.isfinite(half) & (half != 0) for half in halves))
    if mask is not None:
        known &= mask[:, rows] & mask[:, :, rows].swapaxes(1, 2)
    difference = np.abs(np.subtract(*halves, where=known, out=np.zeros(known.shape)))
    k, i, j = np.unravel_index(np.argmax(difference), difference.shape)
    if difference[k, i, j] > ASYMMETRY * np.max(np.abs(halves[0]), where=known, initial=0.0):
        i = rows[i]
        raise ValueError(
            f"c2 of matrix {k} is not symmetric: {c2[k, i, j]:.6g} at frames ({i}, {j}), "
            f"{c2[k, j, i]:.6g} at ({j}, {i}); expected the same. Only t1 < t2 is fitted: give the "
            "mean of both halves, (c2 + c2.swapaxes(1, 2)) / 2, or NaN below the diagonal."
        )


def check_level(data: TwoTimeData, space: ParameterSpace, n_unknown: int) -> None:
    """Refuse data whose numbers are known and cannot be fitted.

    Args:
        data: The data.
        space: A space made for these data.
        n_unknown: How many numbers are fitted, contrasts and offsets among them.

    Raises:
        ValueError: If there are no more points than unknowns, nothing depends on the lag where
            contrast or offset is fitted, or c2 lies outside what these may be.
    """
    n_points = sum(int(np.count_nonzero(data.usable(k))) for k in range(data.phi.shape[0]))
    if n_points <= n_unknown:
        raise ValueError(
            f"Too few data: {n_points} usable points with t1 < t2 for {n_unknown} unknowns "
            "(contrasts and offsets included); expected more points than unknowns; select more "
            "frames or angles, or fix parameters (vary: false)."
        )
    level = level_of(data)
    if level.evidence < _SEEN and any(space.scaling_varying):
        raise ValueError(
            f"Nothing to fit: {level}, with a scatter of {level.spread:.2g}; expected a decay, a "
            "difference between short and long lags beyond this scatter. There is no contrast, or "
            "c2 decays within the first frame, or not at all in this record: check file, q and "
            "frames, and measure with a shorter frame time or for longer."
        )
    fault = _level_fault(data, space, level)
    if fault:
        raise ValueError(fault)


def _level_fault(data: TwoTimeData, space: ParameterSpace, level: Level) -> str:
    """What is wrong with the level of the data, in a sentence; empty if nothing."""
    (least, low), (most, high) = (np.asarray(x) for x in (space.scaling_lower, space.scaling_upper))
    slack = _SLACK * abs(level.decay) + 3 * level.spread / np.sqrt(data.t.shape[0])
    has_ended = level.middle - level.long < _LEVELLED * level.decay
    is_low = min(level.long, level.short) < low - slack
    is_high = max(level.long, level.short) > high + most + slack
    is_high |= has_ended and level.long > high + slack
    is_strong = level.decay > most + slack and not np.asarray(space.own_bounds)[-2]
    if not (is_low or is_high or is_strong):
        return ""
    seen = (
        f"{level}; expected an offset in [{low:g}, {high:g}] and a contrast in "
        f"[{least:g}, {most:g}]"
    )
    other = baseline_of(level)
    if other != data.baseline and level.decay <= 1:
        what = "c2 - 1 or g1²" if other == 0 else "c2"
        return (
            f"{seen}: these numbers look like {what}; set experimental_data.baseline: {other:.0f} "
            f"(in Python: TwoTimeData(..., baseline={other:.0f}))."
        )
    low, high = level.long - 0.5 * abs(level.decay), level.long + 0.5 * abs(level.decay)
    what = "percent" if _PERCENT < max(level.long, level.decay) < 500 else "rescaled numbers"
    return (
        f"{seen}: these numbers look like {what}; divide them so that c2 ends at 1, or set "
        f"parameters.scaling.offset: {{min: {low:.3g}, max: {high:.3g}}} and "
        f"parameters.scaling.contrast: {{min: 0, max: {2 * abs(level.decay):.3g}}}."
    )
