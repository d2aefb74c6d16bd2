"""Fractions of the components of a law as functions of time: positive, their sum 1."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
import numpy as np

from twotime.models import rates
from twotime.models.base import Curve
from twotime.models.forms import Spline, increments, part
from twotime.models.parameters import ParameterInfo, parameter_group
from twotime.models.proposals import Scene
from twotime.models.rates import At, Times

_FARTHEST = 8.0


class AbstractFractions(abc.ABC):
    """Fractions of the light of each component; for a law, with names and a number of components.

    Attributes:
        kind: The configuration's word.
    """

    kind: ClassVar[str]
    parameters: tuple[ParameterInfo, ...]

    @abc.abstractmethod
    def of(self, labels: tuple[str, ...]) -> "AbstractFractions":
        """These fractions for components with some labels."""

    @abc.abstractmethod
    def shares(self, values: Mapping[str, Any], times: At, t: Times) -> tuple[At, ...]:
        """Fraction of each component at `times`; `t` are all frames [s]."""

    @abc.abstractmethod
    def functions(self, values: Mapping[str, Any], t: Times) -> dict[str, Curve]:
        """The fractions by name, with words."""

    @abc.abstractmethod
    def exchanged(self, values: Mapping[str, Any], t: Times) -> dict[str, Any]:
        """Parameters of the fractions of two components in each other's place, nearly."""

    @abc.abstractmethod
    def like(self, scene: Scene, middle: Any, growth: Any, constant: Any) -> dict[str, Any]:
        """Parameters of which the second of two is like an exponential.

        Args:
            scene: The data.
            middle: The fraction in the middle of the record.
            growth: Its rate [1/s].
            constant: Part of it that does not change.
        """


@final
@dataclasses.dataclass(frozen=True)
class ExponentialFractions(AbstractFractions):
    r"""Of two components the second: $f_0 e^{f_1 (t - f_2)} + f_3$, clipped to [0, 1]."""

    kind: ClassVar[str] = "exponential"
    names: ClassVar[tuple[str, ...]] = ("f0", "f1", "f2", "f3")
    parameters: ClassVar[tuple[ParameterInfo, ...]] = parameter_group(  # type: ignore[misc]
        "fraction",
        ("f0", 0.5, 0.0, 1.0, 0.5, 0.25, "", "Amplitude of the sample fraction"),
        ("f1", 0.0, -10.0, 10.0, 0.0, 5.0, "1/s", "Rate of change of the sample fraction"),
        ("f2", 0.0, -1e4, 1e4, 0.0, 1e3, "s", "Time at which the changing fraction is f0"),
        ("f3", 0.0, 0.0, 1.0, 0.0, 0.5, "", "Constant part of the sample fraction"),
        fixed=("f2", "f3"),
    )

    def of(self, labels):
        if len(labels) != 2:
            raise ValueError(
                f"Exponential fractions are those of two components; got {len(labels)}; use "
                "Simplex()."
            )
        return self

    def shares(self, values, times, t):
        x = rates.fraction(times, *(values[name] for name in self.names))
        return 1 - x, x

    def exchanged(self, values, t):
        f0, f1, f2, f3 = self.names
        ends = t[jnp.array([0, -1])]
        rest = jnp.clip(1 - self.shares(values, ends, t)[1] - values[f3], 1e-3, 1.0)
        growth = jnp.log(rest[1] / rest[0]) / (t[-1] - t[0])
        return {f0: rest[0] * jnp.exp(-growth * (t[0] - values[f2])), f1: growth}

    def like(self, scene, middle, growth, constant):
        f1, f2 = scene.known.get("f1", growth), scene.known.get("f2", scene.middle)
        f3 = scene.known.get("f3", constant * middle)
        grown = np.exp(np.clip(f1 * (scene.middle - f2), -50.0, 50.0))
        return {"f0": (middle - f3) / grown, "f1": growth, "f2": f2, "f3": f3}

    def functions(self, values, t):
        return {"x_s": Curve(self.shares(values, t, t)[1], "", "x_s", "Fraction of the sample")}


@final
@dataclasses.dataclass(frozen=True)
class Simplex(AbstractFractions):
    r"""Of any number of components: $x_n \propto e^{l_n}$, $l_1 = 0$, l_n constant or a spline.

    Attributes:
        knots: Number of knots of each $l_n$ in time; 1 for fractions that do not change.
        labels: Labels of the components.
    """

    kind: ClassVar[str] = "simplex"
    knots: int = 1
    labels: tuple[str, ...] = ("1", "2")

    def __post_init__(self) -> None:
        if isinstance(self.knots, bool) or not isinstance(self.knots, int) or self.knots < 1:
            raise ValueError(f"Simplex: knots is {self.knots!r}; expected a whole number from 1.")

    def of(self, labels):
        return dataclasses.replace(self, labels=labels)

    @property
    def parameters(self) -> tuple[ParameterInfo, ...]:  # type: ignore[override]
        """Logarithms of the ratio of each fraction to the first, and increments between knots."""
        found: list[ParameterInfo] = []
        for label in self.labels[1:]:
            about = f"Logarithm of the fraction of {label} over that of {self.labels[0]}"
            row = f"log_x_{label}", 0.0, -_FARTHEST, _FARTHEST, 0.0, 2.0, "", about
            found += parameter_group("fraction", row)
            found += increments("x_step", "fraction", self.knots, 1.0, "", f"_{label}")
        return tuple(found)

    def _ratios(self, values: Mapping[str, Any], times: At, t: Times) -> list[At]:
        found: list[At] = [jnp.zeros_like(times)]
        for label in self.labels[1:]:
            steps = [values[f"x_step_{k}_{label}"] for k in range(1, self.knots)]
            numbers = [values[f"log_x_{label}"], *steps]
            if not steps:
                found.append(jnp.broadcast_to(numbers[0], times.shape))
            else:
                spline = Spline(self.knots).values(numbers, t)
                found.append(spline if times is t else jnp.interp(times, t, spline))
        return found

    def shares(self, values, times, t):
        return tuple(jax.nn.softmax(jnp.stack(self._ratios(values, times, t)), axis=0))

    def exchanged(self, values, t):
        return {info.name: -values[info.name] for info in self.parameters}

    def like(self, scene, middle, growth, constant):
        x = np.clip(middle, 0.01, 0.99)
        same = dict.fromkeys((info.name for info in self.parameters), 0.0 * x)
        return same | {f"log_x_{self.labels[1]}": np.log(x / (1 - x))}

    def functions(self, values, t):
        return {
            f"x_{label}": Curve(x, "", f"x_{label}", f"Fraction of {label}")
            for label, x in zip(self.labels, self.shares(values, t, t), strict=True)
        }


FRACTIONS: dict[str, type[AbstractFractions]] = {
    kind.kind: kind for kind in (ExponentialFractions, Simplex)
}
"""The configuration's word to fractions."""


def fractions(written: Any) -> AbstractFractions:
    """Fractions; those of a configuration are made, see `forms.part`."""
    return written if isinstance(written, AbstractFractions) else part(written, FRACTIONS)
