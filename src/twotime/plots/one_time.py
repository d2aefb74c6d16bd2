"""Figures of the one-time correlation g2(τ): for looking at data."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from twotime.covariance.one_time import OneTime
from twotime.plots.fit import panels

WARNING = "g2 takes the sample as steady: for looking; fit the two-time matrices"


def g2(found: Sequence[OneTime], title: str = WARNING) -> Figure:
    """Draw g2 with error bars, a panel for each matrix and a curve for each period.

    Args:
        found: Of the same data, whole and in periods.
        title: Title of the figure.
    """
    q, phi = found[0].q, found[0].phi
    figure, axes = panels(len(phi), 3, 4.0, 2.9, title)
    curves = [(x, p) for x in found for p in range(len(x.periods))]
    colours = matplotlib.colormaps["viridis"]
    for k, ax in enumerate(axes):
        for i, (x, p) in enumerate(curves):
            first, last = x.periods[p]
            colour = colours(0.15 + 0.75 * (i - 1) / max(len(curves) - 2, 1)) if i else "black"
            style: Any = {"fmt": "o-" if i else "s--", "ms": 3, "lw": 1, "color": colour}
            y, error, label = x.g2[p, k], x.error[p, k], f"{first:.4g} to {last:.4g} s"
            ax.errorbar(x.tau, y, error, label=label, **style)
        ax.set_xscale("log")
        ax.set_title(f"q = {q[k]:.5g} Å⁻¹, φ = {phi[k]:.4g}°", fontsize="medium")
        ax.set_xlabel("τ [s]")
        ax.set_ylabel("$g_2$")
    axes[0].legend(fontsize="small", frameon=False)
    return figure
