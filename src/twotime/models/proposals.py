"""How a law proposes starts of a fit: candidates on a grid, which `twotime.start` compares."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from twotime.models.rates import PowerLaw

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
    """

    stages: tuple[Stage, ...]
    params: Callable[[Coordinates], Mapping[str, Any]]
    alternatives: Callable[[Params], list[Several]] = lambda params: []


class Scene(NamedTuple):
    """The data and bounds that a law proposes starts from.

    Attributes:
        names: Names of its parameters.
        t: Frame times [s].
        q: Wavevector [1/Å].
        bounds: Lower and upper bound of each parameter.
        known: Values of the parameters that are given or do not vary.
    """

    names: tuple[str, ...]
    t: Float[np.ndarray, " time"]
    q: float
    bounds: Mapping[str, tuple[float, float]]
    known: Mapping[str, float]

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

    def power(self, law: PowerLaw, rate: Any, slope: Any, share: Any = 0.0) -> dict[str, Any]:
        """Parameters of a power law with offset from its value in the middle of the record."""
        slope = self.known.get(law.exponent, slope)
        constant = self.known.get(law.offset, share * rate)
        amplitude = (rate - constant) / self.middle**slope
        return dict(zip(law.names, (amplitude, slope, constant), strict=True))
