"""Figures of many fits: rates against q², parameters against q."""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twotime.plots.fit import COLOURS, MARKERS, panels, save

Values = Float[np.ndarray, " wavevector"]


class Series(NamedTuple):
    """One quantity of one file at several wavevectors.

    Attributes:
        file: Name of the file.
        name: Name of the quantity.
        unit: Its unit; that of rates is 1/s.
        q: Wavevectors [1/Å].
        value: The quantity.
        error: Its standard deviation.
    """

    file: str
    name: str
    unit: str
    q: Values
    value: Values
    error: Values

    @property
    def is_rate(self) -> bool:
        """Whether it is a rate."""
        return self.unit == "1/s"


def save_figures(folder: Path, series: Sequence[Series]) -> tuple[str, ...]:
    """Draw rates against q², and parameters against q, as PNG files; returns their names."""
    rates_, others = ([s for s in series if s.is_rate is kind] for kind in (True, False))
    kinds = ("rates", rates, rates_), ("parameters", parameters, others)
    figures = {name: partial(draw, some) for name, draw, some in kinds if some}
    return save(folder, figures)


def slope(s: Series) -> tuple[float, float]:
    """Slope of log value against log q², and its standard deviation.

    By least squares with the errors of the values; of values and errors that are positive.

    Example:
        >>> q = np.array([1.0, 2.0, 4.0])
        >>> found, _ = slope(Series("a", "Γ", "1/s", q, q**2, 0.1 * q**2))
        >>> round(found, 6)
        1.0
    """
    good = (s.value > 0) & (s.error > 0) & np.isfinite(s.error)
    if np.count_nonzero(good) < 2:
        return math.nan, math.nan
    x, y = 2 * np.log(s.q[good]), np.log(s.value[good])
    weight = (s.value[good] / s.error[good]) ** 2
    x = x - np.average(x, weights=weight)
    spread = np.sum(weight * x**2)
    return float(np.sum(weight * x * y) / spread), float(spread**-0.5)


def rates(series: Sequence[Series]) -> Figure:
    """Rates in the middle of the record against q², both logarithmic, with their slopes."""
    names = list(dict.fromkeys(s.name for s in series))
    figure, axes = panels(len(names), 2, 4.8, 3.6, "rates in the middle of the record")
    for ax, name in zip(axes, names, strict=True):
        for s, look in _looks(s for s in series if s.name == name):
            found, error = slope(s)
            label = f"{s.file}: slope {found:.3g} ± {error:.2g}"
            ax.errorbar(s.q**2, s.value, yerr=s.error, label=label, **look)
        ax.set_xscale("log")
        ax.set_yscale("log")
        _labels(ax, "$q^2$ [Å⁻²]", f"{name} [1/s]")
    return figure


def parameters(series: Sequence[Series]) -> Figure:
    """Each parameter against q."""
    names = list(dict.fromkeys(s.name for s in series))
    figure, axes = panels(len(names), 2, 4.8, 2.8)
    for ax, name in zip(axes, names, strict=True):
        for s, look in _looks(s for s in series if s.name == name):
            ax.errorbar(s.q, s.value, yerr=s.error, label=s.file, **look)
            unit = f" [{s.unit}]" if s.unit else ""
        _labels(ax, "q [Å⁻¹]", f"{name}{unit}")
    return figure


def _looks(series: Iterable[Series]) -> Iterator[tuple[Series, dict[str, Any]]]:
    """Each file with a colour and a marker of its own."""
    for s, colour, marker in zip(series, cycle(COLOURS), cycle(MARKERS), strict=False):
        yield s, {"fmt": marker, "ms": 4, "lw": 1, "color": colour}


def _labels(ax: Axes, x: str, y: str) -> None:
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.legend(fontsize="small", frameon=False)
