"""Figure of a profile of chi-squared, with the intervals that it gives."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twotime.fit import Profile
from twotime.kinds import checked
from twotime.plots.fit import COLOURS, Points
from twotime.report import error_text, with_error

LEVELS = {"68 %": 1.0, "95 %": 1.96}
"""Half widths of the intervals, in standard deviations of a parabola."""


@checked
def profile(found: Profile, name: str, *, unit: str = "", ax: Axes | None = None) -> Axes:
    """Draw the profile of a parameter, and its intervals of 68 and 95 % where it reaches them.

    Args:
        found: What `twotime.profile` found, in any order of its values.
        name: Name of the parameter.
        unit: Its unit.
        ax: Where to draw; None makes a figure.
    """
    ax = Figure(figsize=(5.6, 4.0), layout="constrained").subplots() if ax is None else ax
    order = np.argsort(np.asarray(found.values))
    values, height = np.asarray(found.values)[order], np.asarray(found.height)[order]
    root, texts = signed_root(height), list[str]()
    for (level, width), colour in zip(LEVELS.items(), COLOURS, strict=False):
        low, high = ends = np.interp([-width, width], root, values, left=np.nan, right=np.nan)
        if np.isnan(ends).any():
            texts.append(f"{level}: wider than the values profiled")
        else:
            texts.append(f"{level}: {_between(low, high)}")
        ax.axvspan(*np.where(np.isnan(ends), values[[0, -1]], ends), color=colour, alpha=0.12, lw=0)
        ax.axhline(width**2, color=colour, lw=1, ls="--", label=texts[-1])
    fine = np.linspace(values[0], values[-1], 300)
    ax.plot(fine, np.interp(fine, values, root) ** 2, "-", lw=1.4, color="black")
    ax.plot(values, np.maximum(height, 0.0), "o", ms=5, color="black")
    ax.set_xlabel(f"{name} [{unit}]" if unit else name)
    ax.set_ylabel("rise of χ² [of one standard deviation]")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize="small", frameon=False)
    return ax


def signed_root(height: Points) -> Points:
    """Root of the height, negative left of the smallest: a line where the profile is a parabola."""
    side = np.where(np.arange(height.size) < np.argmin(height), -1.0, 1.0)
    return side * np.sqrt(np.maximum(height, 0.0))


def _between(low: float, high: float) -> str:
    width = 0.5 * (high - low)
    return f"{with_error(low, width)} to {with_error(high, width)} (half width {error_text(width)})"
