"""Frames that do not belong: without beam, with a flash, or recorded twice; told, not removed.

A frame is compared at short lags with the frames before it and with those after it. It is odd
where both deviate alike, by much in the noise of the record and in the signal, from what is usual
near it or in the whole record, and suddenly: speckle fluctuates as well, but not faster than it
decays, and a sample that changes differs from what was before or from what is after, not from both.
"""

import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Shaped

from twotime.config.frames import joined
from twotime.data.dataset import TwoTimeData, select

Frames = Bool[np.ndarray, " time"]
Band = Float[np.ndarray, "lag time"]
Sides = Float[np.ndarray, "2 time"]

_FEWEST = 20  # frames of a record that can be judged
_LAGS = 32  # frames on either side that a frame is compared with, at most
_NEAR = 10  # frames on either side whose median is what is usual near a frame
_DEVIATIONS = 7.0  # from what is usual, in robust standard deviations
_SHARE = 0.2  # of the signal that a frame must deviate by
_SUDDEN = 0.5  # of a deviation that must arise within one frame
_STEEPER = 6.0  # times the next steps, at an end of the record: t^-2 makes a step of 4
_ALIKE = 0.9  # share of the deepest of a run that is odd as well, at once
_QUANTILE, _OF_NORMAL = 0.8, 1.2816  # of the sizes of others, and that of a normal distribution
_SAME_ROW = 0.01  # difference of two rows, in that of their neighbours, that means one image
_COLUMNS = 64  # columns of c2 by which rows are compared


def stripe_notes(data: TwoTimeData, first: int) -> tuple[str, ...]:
    """Sentences that name frames whose rows and columns deviate, and the key that masks them.

    Args:
        data: Correlations in NumPy arrays.
        first: Number of the first frame.
    """
    twice, notes, rings = repeated_frames(data), [], np.asarray(data.ring)
    alike = (select(data, np.flatnonzero(rings == k).tolist()) for k in range(max(rings) + 1))
    odd = np.any([odd_frames(ring, twice) for ring in alike], axis=0)
    for found, fault, cause in (
        (odd, "do not correlate like their neighbours", "no beam, or a flash"),
        (twice, "repeat the image before them", "recorded twice"),
    ):
        if found.any():
            listed = joined((first + np.flatnonzero(found)).tolist())
            notes.append(
                f"frames {listed} {fault} ({cause}?); they are fitted; to mask them, set "
                f"analyzer_parameters.bad_frames: [{listed}]"
            )
    return tuple(notes)


def odd_frames(data: TwoTimeData, known: Frames) -> Frames:
    """Frames whose correlations deviate from those of the frames before and after them.

    Args:
        data: Correlations in NumPy arrays; what does not count is not looked at.
        known: Frames that are left out.
    """
    odd, seen = known.copy(), np.zeros_like(known)
    if known.size < _FEWEST:
        return seen
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # medians where nothing counts: NaN
        band, signal = _band(data)
        # The deepest first: they lower the means of good frames near them.
        while runs := list(_runs(band, _SHARE * signal, odd)):
            deepest = max(np.max(depth) for _, depth in runs)
            for run, depth in runs:
                seen[run] = True
                odd[run] |= depth >= _ALIKE * max(np.max(depth), 0.5 * deepest / _ALIKE)
        # Among frames found are some that have no other left to be compared with.
        level = _sides(_without(band, odd))
    return (odd | (seen & np.all(np.isnan(level), axis=0))) & ~known


def repeated_frames(data: TwoTimeData) -> Frames:
    """Frames whose rows equal those of the frame before: the same image was recorded twice.

    Args:
        data: Correlations in NumPy arrays; what does not count is not looked at.
    """
    n = data.c2.shape[-1]
    columns = np.unique(np.linspace(0, n - 1, _COLUMNS).astype(int))
    largest = np.zeros(n)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for k in range(data.c2.shape[0]):
            used = np.asarray(data.usable(k))
            used = used[:, columns] | used[columns].T
            rows = np.where(used, np.asarray(data.c2[k])[:, columns], np.nan)
            step = np.nanmean(np.abs(np.diff(rows, axis=0)), axis=1)
            share = step / np.fmax(_running_median(step), 0.1 * _median(step))
            largest[1:] = np.fmax(largest[1:], np.where(np.isnan(share), np.inf, share))
    return (np.arange(n) > 0) & (largest < _SAME_ROW)


def _band(data: TwoTimeData) -> tuple[Band, float]:
    """Correlations at short lags against their medians, mean of all angles; and the signal there.

    Lags reach to where half of the decay is over. Points that do not count are NaN.
    """
    n = data.c2.shape[-1]
    short, long = (
        np.arange(1, min(_LAGS, n // 4) + 1),
        np.linspace(n // 2, n - n // 8, 8).astype(int),
    )
    total, decay = [], []
    for k in range(data.c2.shape[0]):
        c2, used = np.asarray(data.c2[k]), np.asarray(data.usable(k))
        lines = [np.where(np.diagonal(used, x), np.diagonal(c2, x), np.nan) for x in short]
        lines = [line.astype(float) for line in lines]
        usual = np.array([np.nanmedian(line) for line in lines])
        end = np.nanmedian(
            [np.nanmedian(np.diagonal(c2, lag)[np.diagonal(used, lag)]) for lag in long]
        )
        padded = [
            np.append(x - m, np.full(n - x.size, np.nan)) for x, m in zip(lines, usual, strict=True)
        ]
        total.append(padded)
        decay.append(usual - end)
    signal = np.nanmean(decay, axis=0)
    half = int(np.argmax(np.append(signal[2:] <= 0.5 * signal[0], True))) + 2
    return np.nanmean(total, axis=0)[:half], float(np.mean(signal[:half]))


def _runs(band: Band, least: float, odd: Frames) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Runs of frames that deviate suddenly, and by how much; frames known to be odd left out."""
    pairs = _without(band, odd)
    level = _sides(pairs)
    for usual, is_near in ((_running_median(pairs), True), (_median(pairs), False)):
        apart = _sides(pairs - usual)
        apart = np.where(np.isnan(apart), apart[::-1], apart)  # at the ends of the record
        size = np.abs(np.mean(apart, axis=0))
        least_side = np.min(np.abs(apart), axis=0)  # small beside a run, unlike the mean
        is_both = np.min(np.sign(apart[0]) * apart, axis=0) >= 0.5 * np.max(np.abs(apart), axis=0)
        noise = 1.4826 * np.nanmedian(least_side)
        if is_near:
            noise = np.fmax(noise, 1.4826 * _running_median(least_side, 2 * _NEAR))
        is_far = is_both & (size > _DEVIATIONS * noise) & (size > least)
        for sign in (-1.0, 1.0):
            found = np.flatnonzero(is_far & (np.sign(apart[0]) == sign))
            for run in np.split(found, np.flatnonzero(np.diff(found) > 1) + 1):
                if (
                    run.size
                    and _stands_out(size, run, len(band))
                    and _is_sudden(sign * level, odd, run, float(np.median(size[run])))
                ):
                    yield run, size[run]


def _stands_out(size: Float[np.ndarray, " time"], run: np.ndarray, reach: int) -> bool:
    """Whether a run deviates by much in the noise of frames that are not compared with it."""
    frames = np.arange(size.size)
    others = size[(frames < run[0] - reach) | (frames > run[-1] + reach)]
    if np.count_nonzero(np.isfinite(others)) < _FEWEST:
        others = np.delete(size, run)
    tail = np.nanquantile(others, _QUANTILE) / _OF_NORMAL  # few photons: longer than a normal one
    noise = max(1.4826 * np.nanmedian(others), tail)
    return bool(np.median(size[run]) > _DEVIATIONS * noise)


def _without(band: Band, odd: Frames) -> Band:
    """Correlations with odd frames left out."""
    pairs = np.where(odd, np.nan, band)
    for lag in range(1, len(pairs) + 1):
        pairs[lag - 1, :-lag][odd[lag:]] = np.nan
    return pairs


def _is_sudden(level: Sides, odd: Frames, run: np.ndarray, depth: float) -> bool:
    """Whether a run differs from the frames beside it by much of its depth.

    At an end of the record there is one side; ageing is fastest there, so that the difference must
    be large beside the next ones as well. Beside frames found before, one side is enough.
    """
    good, (first, last) = np.flatnonzero(~odd), run[[0, -1]]
    sides = (0, first, good[good < first][::-1][:4]), (1, last, good[good > last][:4])
    rises, steps = [], []
    for side, frame, beside in sides:
        rise = level[side, frame] - level[side, beside]
        if beside.size and np.isfinite(rise[0]):
            rises.append(rise[0])
            steps.append(np.nanmax(np.abs(np.diff(rise)), initial=0.0))
    is_at_end = len(rises) == 1 and not odd[max(first - 1, 0) : last + 2].any()
    is_slow = is_at_end and rises[0] < _STEEPER * steps[0]
    return bool(rises and min(rises) >= _SUDDEN * depth and not is_slow)


def _sides(band: Band) -> Sides:
    """Means over pairs with earlier frames, and with later ones."""
    early = np.full_like(band, np.nan)
    for lag in range(1, len(band) + 1):
        early[lag - 1, lag:] = band[lag - 1, :-lag]
    return np.stack([np.nanmean(early, axis=0), np.nanmean(band, axis=0)])


def _median(x: Shaped[np.ndarray, "*_ time"]) -> np.ndarray:
    return np.nanmedian(x, axis=-1, keepdims=True)


def _running_median(x: Shaped[np.ndarray, "*_ time"], reach: int = _NEAR) -> np.ndarray:
    """Median over the frames within `reach`."""
    ends = [(0, 0)] * (x.ndim - 1) + [(reach, reach)]
    padded = np.pad(x, ends, constant_values=np.nan)
    return np.nanmedian(
        np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, -1), axis=-1
    )
