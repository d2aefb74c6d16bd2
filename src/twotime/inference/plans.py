"""What is tried when the start of a fit is searched: one plan for each model.

Candidates differ in what the data show directly: rates in the middle of the record instead of
amplitudes at t = 1 s, accumulated phase instead of velocity.
"""

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any, NamedTuple

import numpy as np

from twotime.config.parameter_space import ParameterSpace
from twotime.core.models import AbstractTwoTimeModel, LaminarFlow, StaticDiffusion, TwoComponent
from twotime.data.dataset import TwoTimeData
from twotime.inference.moves import Moves

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
        "values, or register a plan with twotime.inference.plans.plan.register."
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
