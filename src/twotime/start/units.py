"""Units that are probably wrong, judged by what the data would then mean; nothing is changed.

Velocities that frames are too long for are told as well.
"""

import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from twotime.config.parameter_space import ParameterSpace
from twotime.data import LARGE_Q
from twotime.data.dataset import TwoTimeData, select
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.composition import AbstractComposition
from twotime.models.laminar_flow import LaminarFlow

HalfLives = Float[np.ndarray, " angle"]

_LAGS = 40
_TRANSPORT_UNIT = "Å²/s"
_SLOWEST = 10.0  # growth of the variance of the displacement below which units are doubted [Å²/s]
_USUAL = 1e4  # transport where none is given [Å²/s]
_FAR = 50.0  # times slower than a given start
_LONGEST_FRAME = 20.0  # [s]
_GAPS = 1e4, 1e9  # 1 µm to 10 cm [Å]
_USUAL_GAPS = 1e5, 1e8  # 10 µm to 1 cm [Å]
_GAP_UNITS = {"µm": 1e4, "mm": 1e7, "m": 1e10, "cm": 1e8, "nm": 10.0}
_LEAST_CHANGE = 1.3  # of decay times over the angles that shows a direction
_NEAR_DIRECTION = 12.0  # [degree]
_VELOCITY_UNIT = "Å/s"
_FIRST_LAGS = 24  # among which an oscillation is looked for [frame]
_UNLIKE = 0.25  # of an oscillation: rms of what is not a damped cosine; white noise leaves 0.39
_DAMPED = 0.5  # of an oscillation that is left after a frame, at least
_FAST = np.pi / 2  # from here on the next alternative is less than three times as fast [rad/frame]


def unit_notes(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace
) -> tuple[str, ...]:
    """Sentences that name likely slips of units.

    Phases near a half turn per frame, which several velocities give, are told too.

    Args:
        model: The model.
        data: Correlations in NumPy arrays.
        space: What is given of the parameters, and their bounds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # medians where nothing counts: NaN
        half = half_lives(data)
    first = np.flatnonzero(np.asarray(data.ring) == 0)  # decays differ from ring to ring
    ring, of_ring = select(data, first.tolist()), half[first]
    found = [*_gap(model, data, half), *_time(data), *_angles(ring, of_ring)]
    found += [*_flow_direction(model, ring, space, of_ring)]
    if not found and np.max(data.q) <= LARGE_Q:  # beyond, q has been told already
        found = [*_transport(model, data, space, half)]
    return (*found, *_aliases(model, data))


def half_lives(data: TwoTimeData) -> HalfLives:
    """Lag at which half of the decay is over, for each angle [frame]; NaN without a clear decay."""
    n = data.c2.shape[-1]
    lags, found = np.unique(np.geomspace(1, n - 1, _LAGS).round().astype(int)), []
    for k in range(data.c2.shape[0]):
        c2, used = np.asarray(data.c2[k]), np.asarray(data.usable(k))
        lines = [np.diagonal(c2, lag)[np.diagonal(used, lag)].astype(float) for lag in lags]
        mean = np.array([np.median(line) if line.size else np.nan for line in lines])
        end = np.nanmedian(mean[lags > n // 2])
        noise = np.nanmedian(np.abs(lines[0] - mean[0])) if lines[0].size else np.nan
        drop = mean[0] - end
        below = np.flatnonzero(mean - end <= 0.5 * drop)
        is_clear = below.size and drop > 6 * noise / np.sqrt(n)
        found.append(_crossing(lags, mean - end, 0.5 * drop, int(below[0])) if is_clear else np.nan)
    return np.array(found)


def _crossing(lags: np.ndarray, height: np.ndarray, level: float, i: int) -> float:
    share = (height[i - 1] - level) / (height[i - 1] - height[i])
    return float(lags[i - 1] + share * (lags[i] - lags[i - 1]))


def _gap(model: AbstractTwoTimeModel, data: TwoTimeData, half: HalfLives) -> Iterator[str]:
    if not isinstance(model, LaminarFlow):
        return
    gap, q = float(model.gap), np.asarray(data.q)
    if _GAPS[0] <= gap <= _GAPS[1]:
        return
    usual = [u for u, x in _GAP_UNITS.items() if _USUAL_GAPS[0] <= gap * x <= _USUAL_GAPS[1]]
    unit = f"it looks like a gap in {usual[0]}: {gap * _GAP_UNITS[usual[0]]:g} Å" if usual else ""
    # sinc² is one half where its argument, half of q h times the strain, is 1.39.
    strain = 2.78 / (gap * np.nanmin(q * half)) if np.isfinite(half).any() else np.nan
    means = f"the fastest decay would mean a strain of {strain:.3g} a frame" if strain > 0 else ""
    facts = "; ".join(filter(None, (means, unit or "gaps are between 1 µm and 10 cm")))
    yield f"geometry.stator_rotor_gap is {gap:g} Å; {facts}"


def _time(data: TwoTimeData) -> Iterator[str]:
    t = np.asarray(data.t, float)
    step = float(np.median(np.diff(t)))
    if step >= _LONGEST_FRAME:
        unit, factor = ("ms", 1e-3) if step < 1e3 * _LONGEST_FRAME else ("µs", 1e-6)
        yield (
            f"frames are {step:g} s apart and the record lasts {(t[-1] - t[0]) / 3600:.3g} h; it "
            f"looks like dt or t in {unit}: dt = {step * factor:g} s"
        )


def _angles(data: TwoTimeData, half: HalfLives) -> Iterator[str]:
    """Angles in radians lie within a circle of 2π, and decays change over them as over degrees."""
    phi = np.asarray(data.phi, float)
    largest = float(np.max(np.abs(phi)))
    if phi.size < 2 or not 0.5 < largest <= 2 * np.pi + 1e-3:
        return
    turned = np.rad2deg(phi)
    is_round = np.abs(turned - turned.round()).max() < 0.02 and (phi != phi.round(2)).any()
    decays = half[np.isfinite(half)]
    # Over so few degrees the square of a cosine changes little, except where it is near 0.
    is_steep = decays.size > 1 and decays.max() > 2 * decays.min()
    if is_round or is_steep:
        differ = f", and decays differ by a factor of {decays.max() / decays.min():.2g}"
        yield (
            f"all angles are within {largest:.3g} degree{differ if is_steep else ''}; they look "
            "like radians: multiply phi by 57.2958"
        )


def _flow_direction(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, half: HalfLives
) -> Iterator[str]:
    """Decays are fastest along the flow: that is where the data have phi0."""
    if "phi0" not in space.names:
        return
    place = space.names.index("phi0")
    given = float(np.asarray(space.initial)[place])
    phi, known = np.asarray(data.phi, float), np.isfinite(half)
    is_given = np.asarray(space.given)[place] > 0 or not np.asarray(space.varying)[place]
    if not is_given or not 0.1 < abs(given) <= 2 * np.pi or np.count_nonzero(known) < 3:
        return
    twice, rate = np.deg2rad(2 * phi[known]), 1 / half[known]
    basis = np.stack([np.ones_like(twice), np.cos(twice), np.sin(twice)], axis=1)
    if np.linalg.matrix_rank(basis, 1e-3) < 3 or rate.max() < _LEAST_CHANGE * rate.min():
        return
    _, along, across = np.linalg.lstsq(basis, rate, rcond=None)[0]
    seen = np.rad2deg(0.5 * np.arctan2(across, along))
    turned = np.rad2deg(given)
    if _apart(seen, turned) < _NEAR_DIRECTION < _apart(seen, given):
        yield (
            f"phi0 is {given:g} degree, but decays are fastest near {seen:.0f} degree; it looks "
            f"like radians: {turned:.4g} degree"
        )


def _aliases(model: AbstractTwoTimeModel, data: TwoTimeData) -> Iterator[str]:
    """A phase per frame that is as likely a faster one, of laws with a velocity."""
    rates = model.composition.rates if isinstance(model, AbstractComposition) else ()
    if not any(rate.of.unit == _VELOCITY_UNIT for rate in rates):
        return
    found = [_oscillation(data, k) for k in range(data.phi.shape[0])]
    place = int(np.argmin([unlike for _, unlike in found]))
    phase, unlike = found[place]
    if unlike > _UNLIKE or phase < _FAST:
        return
    others = np.array([2 * np.pi - phase, 2 * np.pi + phase, 4 * np.pi - phase])
    q, step = np.broadcast_to(data.q, data.phi.shape)[place], np.median(np.diff(data.t))
    speeds = np.append(phase, others) / (q * step)
    yield (
        f"c2 at phi = {data.phi[place]:g} degree oscillates by {phase:.3g} rad per frame; "
        f"{', '.join(f'{x:.3g}' for x in others)}… rad would give the same numbers (aliasing): the "
        f"velocity along q is {speeds[0]:.4g}, {', '.join(f'{x:.4g}' for x in speeds[1:])} Å/s or "
        "more; let the bounds of v0 hold one of them, or measure with shorter frames"
    )


def _oscillation(data: TwoTimeData, k: int) -> tuple[float, float]:
    """Phase per frame of a damped cosine in c2 against lag, and what is unlike one, as a share.

    By linear prediction of second differences, in which a slow decay is small. Infinite where c2
    is not known at all lags or does not oscillate.
    """
    c2, used = np.asarray(data.c2[k], float), np.asarray(data.usable(k))
    lags = range(1, min(_FIRST_LAGS, used.shape[0] // 2) + 1)
    lines = [np.diagonal(c2, i)[np.diagonal(used, i)] for i in lags]
    bend = np.diff([line.mean() if line.size else np.nan for line in lines], 2)
    if bend.size < 8 or not np.all(np.isfinite(bend)) or not np.any(bend[2:]):
        return 0.0, np.inf
    before = np.stack([bend[1:-1], bend[:-2]], axis=1)
    (one, two), *_ = np.linalg.lstsq(before, bend[2:], rcond=None)
    unlike = np.linalg.norm(bend[2:] - before @ [one, two]) / np.linalg.norm(bend[2:])
    left = np.sqrt(max(-two, 0.0))
    if not _DAMPED < left or abs(one) >= 2 * left:
        return 0.0, np.inf
    return float(np.arccos(one / (2 * left))), float(unlike)


def _apart(one: float, other: float) -> float:
    """Distance of two directions without sign [degree]."""
    return abs((one - other + 90) % 180 - 90)


def _transport(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, half: HalfLives
) -> Iterator[str]:
    """Transport so slow that q or the times are probably in smaller units."""
    lowest, likely = _expected(model, data, space)
    if not lowest or not np.isfinite(half).any():
        return
    qs, step = np.broadcast_to(data.q, half.shape), np.median(np.diff(np.asarray(data.t, float)))
    place = np.nanargmax(qs**2 * half)
    q, slowest, step = float(qs[place]), float(half[place]), float(step)
    found = np.log(2) / (q**2 * slowest * step)
    if found >= min(lowest):
        return
    slips = (
        (1e2, f"q in 1/nm: {q / 10:g} 1/Å"),
        (1e3, f"dt or t in ms: dt = {step * 1e-3:g} s"),
        (1e6, f"dt or t in µs: dt = {step * 1e-6:g} s"),
    )
    _, slip = min(slips, key=lambda s: min(abs(np.log(found * s[0] / x)) for x in likely))
    yield (
        f"half of the correlation decays in {slowest:.3g} frames: a transport of J = {found:.3g} "
        f"Å²/s, below the {min(lowest):.3g} expected; it looks like {slip}"
    )


def _expected(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace
) -> tuple[list[float], list[float]]:
    """Transport at the middle of the record by lower bounds, and by what is given [Å²/s]."""
    names = list(space.names)
    middle, lowest, likely = float(np.median(np.asarray(data.t))), [], []
    rates = model.composition.rates if isinstance(model, AbstractComposition) else ()
    for rate in rates:
        if rate.is_power and rate.of.unit == _TRANSPORT_UNIT:
            k, p = (names.index(name) for name in rate.names[:2])
            exponent = float(space.initial[p]) if space.given[p] else 0.0
            bound, start = (float(x[k]) * middle**exponent for x in (space.lower, space.initial))
            start = start if space.given[k] else _USUAL
            lowest.append(max(bound, start / _FAR if space.given[k] else 0.0, _SLOWEST))
            likely.append(start)
    return lowest, likely
