"""Other laws that a start might have meant: the same size of a rate or fraction, another course.

Fits that start in a wrong corner stay there because a power law with offset can be flat, rise,
fall, begin late or end early, and no small step leads from one of these to another. So every
function of time of a candidate is exchanged for others of the same mean. Two components may
also have taken each other's place, which the fraction's law does not allow them for all time.
"""

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.laminar_flow import LaminarFlow
from twotime.models.static import StaticDiffusion
from twotime.models.two_component import TwoComponent

Params = Float[np.ndarray, " param"]
Several = Float[np.ndarray, "other param"]

_SCALES = (0.4, 1.0, 2.5)
_FRACTIONS = (0.1, 0.35, 0.6, 0.85)
_BEGINS = (*_FRACTIONS, 1.1)
_PACES = (1.0, 4.0, 16.0, 40.0)
_SPEEDS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
_LATE, _CHANGED, _DRAWS = 0.75, 0.7, 300


class Moves:
    """Moves of a model, in its parameters; some are drawn anew at each call.

    Attributes:
        rates: Where the amplitude, exponent and offset of each rate begin.
        signed: The rates that may be negative.
        fraction: Where f0, f1, f2 and f3 begin, or None.
        exchange: Two rates that trade places where the fraction becomes one minus itself.
        turn: A rate, where the direction of its flow is, and directions to try, or None.
    """

    def __init__(
        self,
        t: Float[np.ndarray, " time"],
        rates: tuple[int, ...],
        *,
        signed: tuple[int, ...] = (),
        fraction: int | None = None,
        exchange: tuple[int, int] | None = None,
        turn: tuple[int, int, Float[np.ndarray, " direction"]] | None = None,
    ) -> None:
        n = t.size
        self._t = t[np.unique(np.linspace(0, n - 1, min(n, 200)).astype(int))]
        self._rates, self._signed = rates, signed
        self._fraction, self._exchange, self._turn = fraction, exchange, turn
        self._shapes = self._rate_shapes()
        self._rng = np.random.default_rng(0)

    def __call__(self, params: Params) -> list[Several]:
        """Other parameters, one array for each kind of move."""
        found = [self._reshaped(params, rate, _SCALES) for rate in self._rates]
        if self._turn is not None:
            found.append(self._turned(params, *self._turn))
        if self._exchange is not None and self._fraction is not None:
            one, two = self._exchange
            both = [self._reshaped(p, two, (1.0,)) for p in self._reshaped(params, one, (1.0,))]
            late = self._late_fraction(params)
            found += [
                np.concatenate(both),
                self._with_laws(params, (late, *_FRACTIONS)),
                self._with_laws(self.exchanged(params), (1.0 - late, *_FRACTIONS)),
            ]
            for source, end in ((params, late), (self.exchanged(params), 1.0 - late)):
                steady = self._steady(source)
                found.append(np.concatenate([self._with_laws(p, (end,)) for p in steady]))
                found.append(self._drawn(self._with_laws(source, (end, *_FRACTIONS))))
                found.append(self._drawn(found[-2]))
        return found

    def _drawn(self, several: Several) -> Float[np.ndarray, "drawn param"]:
        """Some of these, most of their rates of the size of either and of any course."""
        out = several[self._rng.integers(len(several), size=_DRAWS)]
        places = self._exchange or ()
        means = np.asarray([self._mean(several[0], rate) for rate in places])
        for rate in places:
            size = self._rng.choice(means, _DRAWS) * np.exp(self._rng.uniform(-1.0, 1.0, _DRAWS))
            shapes = self._shapes[self._rng.integers(len(self._shapes), size=_DRAWS)]
            drawn = shapes * np.stack([size, np.ones(_DRAWS), size], axis=1)
            changes = self._rng.uniform(size=(_DRAWS, 1)) < _CHANGED
            out[:, rate : rate + 3] = np.where(changes, drawn, out[:, rate : rate + 3])
        return out

    def exchanged(self, params: Params) -> Params:
        """Parameters with the two exchangeable rates in each other's place."""
        out = params.copy()
        one, two = (slice(k, k + 3) for k in self._exchange or ())
        out[one], out[two] = params[two], params[one]
        return out

    def _rate_shapes(self) -> Float[np.ndarray, "shape 3"]:
        """Amplitude, exponent and offset of rates whose mean is 1."""
        t = np.maximum(self._t, 0.5 * (self._t[1] - self._t[0]))
        laws = [(1.0, p, 0.0) for p in (0.0, -0.7, 0.7, -1.5, 1.5, -3.0, 3.0)]
        for p in (-1.5, 1.5):
            laws += [(1.0, p, -((t[0] + c * (t[-1] - t[0])) ** p)) for c in (0.1, 0.25, 0.45, 0.7)]
        laws += [(1.0, p, 2.0 * float(np.mean(t**p))) for p in (-2.0, 2.0)]
        a, p, b = np.asarray(laws).T[:, :, None]
        mean = np.trapezoid(np.maximum(a * t**p + b, 0.0), t, axis=1) / (t[-1] - t[0])
        return np.stack([a[:, 0] / mean, p[:, 0], b[:, 0] / mean], axis=1)

    def _values(self, params: Params, rate: int) -> Float[np.ndarray, " time"]:
        """Size of a rate at each time."""
        t = np.maximum(self._t, 0.5 * (self._t[1] - self._t[0]))
        a, p, b = params[rate : rate + 3]
        values = a * np.exp(np.minimum(p * np.log(t), 300.0)) + b
        return np.abs(values) if rate in self._signed else np.maximum(values, 0.0)

    def _mean(self, params: Params, rate: int) -> float:
        return float(np.trapezoid(self._values(params, rate), self._t) / (self._t[-1] - self._t[0]))

    def _reshaped(self, params: Params, rate: int, scales: tuple[float, ...]) -> Several:
        """A rate exchanged for others of like mean."""
        mean = self._mean(params, rate)
        out = np.repeat(params[None], len(scales) * len(self._shapes), axis=0)
        size = mean * np.repeat(scales, len(self._shapes))
        shapes = np.tile(self._shapes, (len(scales), 1))
        out[:, rate] = size * shapes[:, 0]
        out[:, rate + 1] = shapes[:, 1]
        out[:, rate + 2] = size * shapes[:, 2]
        return out

    def _steady(self, params: Params) -> Several:
        """Signed rates exchanged for constants about their median."""
        out = np.repeat(params[None], len(_SPEEDS), axis=0)
        for rate in self._signed:
            out[:, rate] = np.median(self._values(params, rate)) * np.asarray(_SPEEDS)
            out[:, rate + 1 : rate + 3] = 0.0
        return out

    def _turned(
        self, params: Params, rate: int, place: int, directions: Float[np.ndarray, " direction"]
    ) -> Float[np.ndarray, "turned param"]:
        """A flow in other directions, of some sizes, as it is, steady, rising and falling."""
        courses = np.concatenate([params[None], self._reshaped(params, rate, (1.0,))[:3]])
        out = np.repeat(courses, len(_SPEEDS) * len(directions), axis=0)
        size = np.tile(np.repeat(_SPEEDS, len(directions)), len(courses))
        out[:, rate] *= size
        out[:, rate + 2] *= size
        out[:, place] = np.tile(directions, len(courses) * len(_SPEEDS))
        return out

    def _late_fraction(self, params: Params) -> float:
        """The fraction late in the record, not quite 0 or 1."""
        f0, f1, f2, f3 = params[self._fraction : (self._fraction or 0) + 4]
        t = self._t[0] + _LATE * (self._t[-1] - self._t[0])
        return float(np.clip(f0 * np.exp(np.clip(f1 * (t - f2), -300.0, 300.0)) + f3, 0.02, 0.98))

    def _with_laws(self, params: Params, ends: tuple[float, ...]) -> Several:
        """The fraction exchanged for others that go from some value to some of these."""
        k = self._fraction or 0
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
        f2 = params[k + 2]
        out[:, k] = f0 * np.exp(np.clip(f1 * f2, -300.0, 300.0))
        out[:, k + 1], out[:, k + 3] = f1, f3
        return out


Coordinates = Mapping[str, np.ndarray]


class Stage(NamedTuple):
    """One round of candidates.

    Attributes:
        change: Coordinate -> (how, values): "set" replaces, "times" multiplies, "plus" adds.
        keep: How many candidates go on.
        longest: Longest lag looked at, as a share of the record.
        central: Whether only pixels about the middle of the record are looked at.
    """

    change: Mapping[str, tuple[str, np.ndarray]]
    keep: int
    longest: float = 1.0
    central: bool = False


class Plan(NamedTuple):
    """How the start of a model is searched.

    Attributes:
        stages: Rounds of candidates.
        params: Coordinates -> parameters in the order of `model.names`.
        moves: Parameters -> other ones to try, in groups of one kind.
    """

    stages: tuple[Stage, ...]
    params: Callable[[Coordinates], dict[str, Any]]
    moves: Callable[[np.ndarray], list[np.ndarray]] = lambda params: []


@singledispatch
def plan(model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace) -> Plan:
    """How to search the start of a fit; a model of one's own registers its plan.

    Args:
        model: The model.
        data: The data.
        space: Bounds, and what is given.

    Raises:
        ValueError: If there is none for this model.
    """
    raise ValueError(
        f"No way to estimate a start from the data is known for {type(model).__name__}; give "
        "values, or register a plan with twotime.start.proposals.plan.register."
    )


def is_known(space: ParameterSpace) -> np.ndarray:
    """Which parameters are given or do not vary."""
    return (np.asarray(space.given) > 0) | ~np.asarray(space.varying)


@plan.register
def _(model: StaticDiffusion, data: TwoTimeData, space: ParameterSpace) -> Plan:
    del model
    scene = _Scene(data, space)
    first = Stage({"J": ("set", scene.decays(40)), "alpha": ("set", np.zeros(1))}, 12)
    second = Stage(
        {
            "J": ("times", np.geomspace(0.6, 1.6, 5)),
            "alpha": ("plus", np.linspace(-1.6, 1.6, 17)),
            "share": ("set", np.array([0.0, 0.3, 0.6])),
        },
        8,
    )

    def params(c: Coordinates) -> dict[str, Any]:
        return scene.power("D0", "alpha", "D_offset", c["J"], c["alpha"], c.get("share", 0.0))

    return Plan((first, second), params, Moves(scene.t, (0,)))


@plan.register
def _(model: LaminarFlow, data: TwoTimeData, space: ParameterSpace) -> Plan:
    scene = _Scene(data, space)
    per_rate = abs(0.5 * float(scene.q) * float(model.gap)) * scene.span
    if model.shear_convention == "homodyne":
        per_rate /= np.pi
    phase = np.geomspace(0.3, 0.5 * np.pi * scene.frames, 36)
    stages = (
        Stage(
            {
                "J": ("set", scene.decays(20)),
                "rate": ("set", phase / per_rate),
                "phi0": ("set", scene.directions(5)),
                "alpha": ("set", np.zeros(1)),
                "beta": ("set", np.zeros(1)),
            },
            16,
        ),
        Stage(
            {
                "J": ("times", np.geomspace(0.7, 1.4, 3)),
                "rate": ("times", np.geomspace(0.8, 1.25, 3)),
                "alpha": ("plus", np.linspace(-1.2, 1.2, 9)),
                "beta": ("plus", np.linspace(-1.2, 1.2, 9)),
            },
            16,
        ),
        Stage(
            {
                "rate": ("times", np.geomspace(0.92, 1.09, 5)),
                "beta": ("plus", np.linspace(-0.15, 0.15, 5)),
                "alpha": ("plus", np.linspace(-0.15, 0.15, 3)),
                "phi0": ("plus", np.linspace(-2.0, 2.0, 5)),
            },
            8,
        ),
    )

    def params(c: Coordinates) -> dict[str, Any]:
        return {
            **scene.power("D0", "alpha", "D_offset", c["J"], c["alpha"]),
            **scene.power("gamma_dot_t0", "beta", "gamma_dot_t_offset", c["rate"], c["beta"]),
            "phi0": c["phi0"],
        }

    return Plan(stages, params, Moves(scene.t, (0, 3), turn=(3, 6, scene.directions(5))))


@plan.register
def _(model: TwoComponent, data: TwoTimeData, space: ParameterSpace) -> Plan:
    del model
    scene = _Scene(data, space)
    per_velocity = float(scene.q) * scene.span
    radian = 1.0 / per_velocity
    none = np.zeros(1)
    stages = (
        Stage(
            {
                "J_ref": ("set", scene.decays(7)),
                "J_sample": ("set", scene.decays(7)),
                "v": ("set", np.arange(0.0, 120.0, 2.0) * radian),
                "f": ("set", np.array([0.2, 0.4, 0.6, 0.8])),
                "phi0": ("set", none),
                "alpha_ref": ("set", none),
                "alpha_sample": ("set", none),
                "beta": ("set", none),
                "f1": ("set", none),
            },
            24,
            longest=0.34,
            central=True,
        ),
        Stage(
            {
                "beta": ("plus", np.linspace(-2.0, 2.0, 101)),
                "v": ("plus", np.linspace(-1.5, 1.5, 4) * radian),
            },
            16,
            longest=0.34,
        ),
        Stage(
            {
                "alpha_ref": ("plus", np.linspace(-1.0, 1.0, 3)),
                "alpha_sample": ("plus", np.linspace(-1.0, 1.0, 3)),
                "f": ("plus", np.linspace(-0.15, 0.15, 3)),
                "f1": ("plus", np.array([-8.0, -2.0, -0.5, 0.5, 2.0, 8.0]) / scene.span),
                "f3": ("set", np.array([0.0, 0.8])),
            },
            12,
        ),
        Stage(
            {
                "J_ref": ("times", np.geomspace(0.6, 1.6, 3)),
                "J_sample": ("times", np.geomspace(0.6, 1.6, 3)),
                "v": ("plus", np.linspace(-0.8, 0.8, 5) * radian),
                "beta": ("plus", np.linspace(-0.03, 0.03, 3)),
                "phi0": ("plus", scene.directions(3)),
            },
            12,
        ),
    )

    def params(c: Coordinates) -> dict[str, Any]:
        f1, f2, f3 = (scene.known.get(name, value) for name, value in (
            ("f1", c["f1"]), ("f2", scene.middle), ("f3", c.get("f3", 0.0) * c["f"]),
        ))  # fmt: skip
        growth = np.exp(np.clip(f1 * (scene.middle - f2), -50.0, 50.0))
        return {
            **scene.power("D0_ref", "alpha_ref", "D_offset_ref", c["J_ref"], c["alpha_ref"]),
            **scene.power(
                "D0_sample", "alpha_sample", "D_offset_sample", c["J_sample"], c["alpha_sample"]
            ),
            **scene.power("v0", "beta", "v_offset", c["v"], c["beta"]),
            "f0": (c["f"] - f3) / growth,
            "f1": c["f1"],
            "f2": f2,
            "f3": f3,
            "phi0": c["phi0"],
        }

    moves = Moves(
        scene.t, (0, 3, 6), signed=(6,), fraction=9, exchange=(0, 3),
        turn=(6, 13, scene.directions(5)),
    )  # fmt: skip
    return Plan(stages, params, moves)


class _Scene:
    """What candidates are measured in: the record, the wavevector, and what is known."""

    def __init__(self, data: TwoTimeData, space: ParameterSpace) -> None:
        self.t = t = np.asarray(data.t)
        self.q = np.asarray(data.q)
        self.frames = t.size
        self.span = float(t[-1] - t[0])
        self.middle = float(0.5 * (t[0] + t[-1]))
        self.known = {
            space.names[i]: float(space.initial[i]) for i in np.flatnonzero(is_known(space))
        }
        place = space.names.index("phi0") if "phi0" in space.names else None
        self.phi0 = (0.0, 0.0) if place is None else (space.lower[place], space.upper[place])

    def decays(self, count: int) -> np.ndarray:
        """Transport that decays C to 1/e within 0.7 frames up to five records [Å²/s]."""
        step = self.span / (self.frames - 1)
        return np.geomspace(1.0 / (5 * self.span), 1.0 / (0.7 * step), count) / float(self.q) ** 2

    def directions(self, count: int) -> np.ndarray:
        """Angles that cover the bounds of phi0 [degree]."""
        low, high = (float(x) for x in self.phi0)
        return np.linspace(low, high, 2 * count + 1)[1::2]

    def power(
        self, amplitude: str, exponent: str, offset: str, rate: Any, slope: Any, share: Any = 0.0
    ) -> dict[str, Any]:
        """A power law with offset from its value in the middle of the record."""
        slope = self.known.get(exponent, slope)
        constant = self.known.get(offset, share * rate)
        return {
            amplitude: (rate - constant) / self.middle**slope,
            exponent: slope,
            offset: constant,
        }
