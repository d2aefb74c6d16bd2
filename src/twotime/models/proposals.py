"""How a law proposes starts of a fit: candidates on a grid, which `twotime.start` compares.

Fits that start in a wrong corner stay there because a power law with offset can be flat, rise,
fall, begin late or end early, and no small step leads from one of these to another. So every
function of time of a candidate is replaced by others of the same mean (`Alternatives`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from twotime.models.forms import Rate

Params = Float[np.ndarray, " param"]
Several = Float[np.ndarray, "other param"]
Coordinates = Mapping[str, np.ndarray]


class Stage(NamedTuple):
    """One round of candidates.

    Attributes:
        change: Coordinate -> (how, values): "set" replaces, "times" multiplies, "plus" adds.
        keep: How many candidates are kept.
        longest: Longest lag that is compared, as a share of the record.
        central: Whether only times about the middle of the record are compared.
    """

    change: Mapping[str, tuple[str, np.ndarray]]
    keep: int
    longest: float = 1.0
    central: bool = False


class Plan(NamedTuple):
    """How the start of a law is searched.

    Attributes:
        stages: Rounds of candidates.
        params: Coordinates -> parameters by name.
        alternatives: Parameters -> others that similar data could come from, in groups of one
            kind.
        faster: Other rounds, each for shorter lags and what beats too fast for longer ones.
    """

    stages: tuple[Stage, ...]
    params: Callable[[Coordinates], Mapping[str, Any]]
    alternatives: Callable[[Params], list[Several]] = lambda params: []
    faster: tuple[tuple[Stage, ...], ...] = ()


class Typical(NamedTuple):
    """What is known of a parameter before the data are looked at.

    Attributes:
        location: Location of its default prior [its unit].
        scale: Scale of it.
        is_log: Whether its logarithm is looked at.
        unit: Its unit.
    """

    location: float
    scale: float
    is_log: bool
    unit: str


class Scene(NamedTuple):
    """The data and bounds that a law proposes starts from.

    Attributes:
        names: Names of its parameters.
        t: Frame times [s].
        q: Wavevector, of several the geometric mean [1/Å].
        bounds: Lower and upper bound of each parameter.
        known: Values of the parameters that are given or do not vary.
        typical: What is known of each parameter before.
    """

    names: tuple[str, ...]
    t: Float[np.ndarray, " time"]
    q: float
    bounds: Mapping[str, tuple[float, float]]
    known: Mapping[str, float]
    typical: Mapping[str, Typical] = {}

    @property
    def span(self) -> float:
        """Length of the record [s]."""
        return float(self.t[-1] - self.t[0])

    @property
    def middle(self) -> float:
        """Middle of the record [s]."""
        return float(0.5 * (self.t[0] + self.t[-1]))

    def decays(self, count: int) -> Float[np.ndarray, " {count}"]:
        """Transport that decays C to 1/e within 0.7 frames up to five records [Å²/s]."""
        step = self.span / (self.t.size - 1)
        return np.geomspace(1.0 / (5 * self.span), 1.0 / (0.7 * step), count) / self.q**2

    def across(self, name: str, count: int) -> Float[np.ndarray, " {count}"]:
        """Values that cover the bounds of a parameter."""
        low, high = self.bounds[name]
        return np.linspace(low, high, 2 * count + 1)[1::2]

    def power(self, rate: Rate, value: Any, slope: Any, share: Any = 0.0) -> dict[str, Any]:
        """Parameters of a rate like a power law with offset, from the value in the middle."""
        _, exponent, offset = rate.names if rate.is_power else ("", "", "")
        slope = self.known.get(exponent, slope)
        constant = self.known.get(offset, share * value)
        power = (value - constant) / self.middle**slope, slope, constant
        return dict(zip(rate.names, rate.form.like(rate.of, power, self.t), strict=True))

    def of_unit(self, unit: str) -> tuple[float, float] | None:
        """Smallest and largest value that data can tell of a time or a rate; None of others."""
        times = 0.7 * self.span / (self.t.size - 1), 5.0 * self.span
        low, high = 1.0 / times[1], 1.0 / times[0]
        factors = {"1/s": 1.0, "Å/s": 1.0 / self.q, "Å²/s": 1.0 / self.q**2}
        if unit == "s":
            return times
        return (low * factors[unit], high * factors[unit]) if unit in factors else None

    def places(self, name: str, units: np.ndarray) -> np.ndarray:
        """Values of a parameter for numbers in [0, 1]: the first half typical, then its bounds."""
        (low, high), about = self.bounds[name], self.typical[name]
        near, far = units[: units.size // 2], units[units.size // 2 :]
        if about.is_log:
            ends = self.of_unit(about.unit) or (about.location / 30.0, about.location * 30.0)
            a, b = (float(np.clip(end, low, high)) for end in ends)
            return np.concatenate([a * (b / a) ** near, low * (high / low) ** far])
        # Evenly where the bounds are near, in the logarithm of the distance where they are far.
        reach = np.where(far < 0.5, about.location - low, high - about.location)
        reach = np.maximum(reach, 0.0) / about.scale
        away = np.sign(far - 0.5) * np.expm1(np.abs(2 * far - 1) * np.log1p(reach))
        both = np.concatenate([2.0 * (2 * near - 1), away])
        return np.clip(about.location + about.scale * both, low, high)


Directions = Float[np.ndarray, " direction"]
_SCALES = (0.4, 1.0, 2.5)
_FRACTIONS = (0.1, 0.35, 0.6, 0.85)
_BEGINS = (*_FRACTIONS, 1.1)
_PACES = (1.0, 4.0, 16.0, 40.0)
_SPEEDS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
_LATE, _CHANGED, _DRAWS = 0.75, 0.7, 300


class Alternatives:
    """Other parameters for similar data; some are drawn anew at each call.

    Args:
        scene: Names and times.
        rates: Rates whose course is replaced, where they are power laws.
        fraction: Names of f0, f1, f2 and f3 of a fraction.
        exchange: Two rates that trade places where the fraction becomes one minus itself.
        turn: A rate, the parameter of its direction, and directions to try [degree].
    """

    def __init__(
        self,
        scene: Scene,
        rates: tuple[Rate, ...],
        *,
        fraction: tuple[str, ...] = (),
        exchange: tuple[Rate, ...] = (),
        turn: tuple[Rate, str, Directions] | None = None,
    ) -> None:
        t, n = scene.t, scene.t.size
        self._t = t[np.unique(np.linspace(0, n - 1, min(n, 200)).astype(int))]
        self._positive = np.maximum(self._t, 0.5 * (self._t[1] - self._t[0]))
        self._index = {name: place for place, name in enumerate(scene.names)}
        self._rates = tuple(rate for rate in rates if rate.is_power)
        self._fraction, self._exchange = self._places(fraction), exchange
        self._turn = turn if turn is not None and turn[0].is_power else None
        self._shapes = self._rate_shapes()
        self._rng = np.random.default_rng(0)

    def __call__(self, params: Params) -> list[Several]:
        """Other parameters, one array for each kind."""
        found = [self._reshaped(params, rate, _SCALES) for rate in self._rates]
        if self._turn is not None:
            found.append(self._turned(params, *self._turn))
        if self._exchange:
            one, two = self._exchange
            both = [self._reshaped(p, two, (1.0,)) for p in self._reshaped(params, one, (1.0,))]
            late = self._late_fraction(params)
            found.append(np.concatenate(both))
            labels = (params, late), (self.exchanged(params), 1.0 - late)
            found += [self._with_fractions(source, (end, *_FRACTIONS)) for source, end in labels]
            for source, end in labels:
                steady = self._steady(source)
                found.append(np.concatenate([self._with_fractions(p, (end,)) for p in steady]))
                found.append(self._drawn(self._with_fractions(source, (end, *_FRACTIONS))))
                found.append(self._drawn(found[-2]))
        return found

    def exchanged(self, params: Params) -> Params:
        """Parameters with the two exchangeable rates in each other's place."""
        out = params.copy()
        one, two = (self._places(rate.names) for rate in self._exchange)
        out[one], out[two] = params[two], params[one]
        return out

    def _places(self, names: tuple[str, ...]) -> np.ndarray:
        return np.asarray([self._index[name] for name in names], int)

    def _drawn(self, several: Several) -> Float[np.ndarray, "drawn param"]:
        """Some of these, most of their rates of the size of either and of any course."""
        out = several[self._rng.integers(len(several), size=_DRAWS)]
        means = np.asarray([self._mean(several[0], rate) for rate in self._exchange])
        for rate in self._exchange:
            size = self._rng.choice(means, _DRAWS) * np.exp(self._rng.uniform(-1.0, 1.0, _DRAWS))
            shapes = self._shapes[self._rng.integers(len(self._shapes), size=_DRAWS)]
            drawn = shapes * np.stack([size, np.ones(_DRAWS), size], axis=1)
            changes = self._rng.uniform(size=(_DRAWS, 1)) < _CHANGED
            place = self._places(rate.names)
            out[:, place] = np.where(changes, drawn, out[:, place])
        return out

    def _rate_shapes(self) -> Float[np.ndarray, "shape 3"]:
        """Amplitude, exponent and offset of rates whose mean is 1."""
        t = self._positive
        laws = [(1.0, p, 0.0) for p in (0.0, -0.7, 0.7, -1.5, 1.5, -3.0, 3.0)]
        for p in (-1.5, 1.5):
            laws += [(1.0, p, -((t[0] + c * (t[-1] - t[0])) ** p)) for c in (0.1, 0.25, 0.45, 0.7)]
        laws += [(1.0, p, 2.0 * float(np.mean(t**p))) for p in (-2.0, 2.0)]
        a, p, b = np.asarray(laws).T[:, :, None]
        mean = np.trapezoid(np.maximum(a * t**p + b, 0.0), t, axis=1) / (t[-1] - t[0])
        return np.stack([a[:, 0] / mean, p[:, 0], b[:, 0] / mean], axis=1)

    def _values(self, params: Params, rate: Rate) -> Float[np.ndarray, " time"]:
        """Size of a rate at each time."""
        a, p, b = params[self._places(rate.names)]
        values = a * np.exp(np.minimum(p * np.log(self._positive), 300.0)) + b
        return np.abs(values) if rate.of.is_signed else np.maximum(values, 0.0)

    def _mean(self, params: Params, rate: Rate) -> float:
        return float(np.trapezoid(self._values(params, rate), self._t) / (self._t[-1] - self._t[0]))

    def _reshaped(self, params: Params, rate: Rate, scales: tuple[float, ...]) -> Several:
        """A rate replaced by others of like mean."""
        mean = self._mean(params, rate)
        out = np.repeat(params[None], len(scales) * len(self._shapes), axis=0)
        size = mean * np.repeat(scales, len(self._shapes))
        shapes = np.tile(self._shapes, (len(scales), 1))
        shapes[:, [0, 2]] *= size[:, None]
        out[:, self._places(rate.names)] = shapes
        return out

    def _steady(self, params: Params) -> Several:
        """Signed rates replaced by constants about their median."""
        out = np.repeat(params[None], len(_SPEEDS), axis=0)
        for rate in self._rates:
            if rate.of.is_signed:
                amplitude, *others = self._places(rate.names)
                out[:, amplitude] = np.median(self._values(params, rate)) * np.asarray(_SPEEDS)
                out[:, others] = 0.0
        return out

    def _turned(self, params: Params, rate: Rate, name: str, directions: Directions) -> Several:
        """A flow in other directions, of some sizes, as it is, steady, rising and falling."""
        courses = np.concatenate([params[None], self._reshaped(params, rate, (1.0,))[:3]])
        out = np.repeat(courses, len(_SPEEDS) * len(directions), axis=0)
        size = np.tile(np.repeat(_SPEEDS, len(directions)), len(courses))
        amplitude, _, offset = self._places(rate.names)
        out[:, [amplitude, offset]] *= size[:, None]
        out[:, self._index[name]] = np.tile(directions, len(courses) * len(_SPEEDS))
        return out

    def _late_fraction(self, params: Params) -> float:
        """The fraction late in the record, not quite 0 or 1."""
        f0, f1, f2, f3 = params[self._fraction]
        t = self._t[0] + _LATE * (self._t[-1] - self._t[0])
        return float(np.clip(f0 * np.exp(np.clip(f1 * (t - f2), -300.0, 300.0)) + f3, 0.02, 0.98))

    def _with_fractions(self, params: Params, ends: tuple[float, ...]) -> Several:
        """The fraction replaced by others that go from some value to some of these."""
        span, first, last = self._t[-1] - self._t[0], self._t[0], self._t[-1]
        laws = [(0.5 * end, 0.0, 0.5 * end) for end in ends]
        for end in ends:
            for begin in _BEGINS:
                for pace in _PACES:
                    rate, place = (pace, last) if end > begin else (-pace, first)
                    size = abs(end - begin) * np.exp(-rate / span * place)
                    laws.append((size, rate / span, min(begin, end)))
        f0, f1, f3 = np.asarray(laws).T
        out = np.repeat(params[None], len(laws), axis=0)
        k0, k1, k2, k3 = self._fraction
        out[:, k0] = f0 * np.exp(np.clip(f1 * params[k2], -300.0, 300.0))
        out[:, k1], out[:, k3] = f1, f3
        return out


_CANDIDATES, _KEPT, _MOVED, _REPLACED = 4000, 24, 120, 16
_WIDTHS = (0.05, 0.2, 0.6)


def default_plan(scene: Scene) -> Plan:
    """How the start of any law is searched: candidates drawn where its parameters' scales say.

    One half of them is typical: near the prior's location, and for times and rates that are
    searched in the logarithm where data can tell them at all. The other half fills the bounds.
    Alternatives have one parameter replaced, or all moved by some part of their scale.
    """
    rng, n = np.random.default_rng(0), len(scene.names)

    def table(count: int) -> Several:
        places = [(rng.permutation(count) + rng.uniform(size=count)) / count for _ in range(n)]
        columns = zip(scene.names, places, strict=True)
        return np.stack([scene.places(name, x) for name, x in columns], axis=1)

    drawn = table(_CANDIDATES)

    def params(c: Coordinates) -> dict[str, Any]:
        rows = drawn[np.asarray(c["draw"]).astype(int)]
        return {name: rows[:, k] for k, name in enumerate(scene.names)}

    def alternatives(params: Params) -> list[Several]:
        free = [k for k, name in enumerate(scene.names) if name not in scene.known]
        replaced = np.repeat(params[None], _REPLACED * len(free), axis=0)
        for row, k in enumerate(free):
            some = slice(row * _REPLACED, (row + 1) * _REPLACED)
            replaced[some, k] = table(_REPLACED)[:, k]
        return [replaced, *(_moved(scene, params, width, rng) for width in _WIDTHS)]

    first = Stage({"draw": ("set", np.arange(float(_CANDIDATES)))}, _KEPT)
    return Plan((first,), params, alternatives)


def _moved(scene: Scene, params: Params, width: float, rng: np.random.Generator) -> Several:
    """Parameters moved at random by a part of their scale, in the logarithm where that is."""
    steps = width * rng.normal(size=(_MOVED, len(scene.names)))
    about = [scene.typical[name] for name in scene.names]
    linear = params + steps * np.asarray([x.scale for x in about])
    return np.where([x.is_log for x in about], params * np.exp(3.0 * steps), linear)
