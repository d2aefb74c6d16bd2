"""Figures a posterior can be judged by: values in, matplotlib figures out.

Corner for what was found, trace and rank for whether chains agree, energy for whether they move
freely, shards for whether parts of the data agree, functions and predictive maps for what it
means.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel, Curve
from twotime.plots.fit import DPI, functions, maps
from twotime.results.cmc import CMCResult
from twotime.sample.result import predictive

_BLUE, _RED = "#1b6ca8", "#c8553d"
_RANK_BINS = 20
_PREDICTIVE_DRAWS = 100


def save_figures(
    folder: Path,
    post: CMCResult,
    curves: Mapping[str, Curve],
    t: Float[np.ndarray, " time"],
) -> tuple[str, ...]:
    """Draw the figures that need no data as PNG files.

    Args:
        folder: An existing folder.
        post: The posterior.
        curves: Functions of time with their bands.
        t: Frame times [s].

    Returns:
        Names of the files.
    """
    drawn = {"corner.png": corner(post), "trace.png": trace(post), "rank.png": rank(post)}
    drawn["energy.png"] = energy(post)
    if post.n_shards > 1:
        drawn["shards.png"] = shards(post)
    if curves:
        drawn["functions.png"] = functions(curves, t, title=f"{post.model}: 68 % bands")
    for name, figure in drawn.items():
        figure.savefig(folder / name, dpi=DPI)
    return tuple(drawn)


def save_predictive(
    folder: Path, post: CMCResult, model: AbstractTwoTimeModel, data: TwoTimeData
) -> tuple[str, ...]:
    """Draw data, posterior mean and residual in predicted deviations, as PNG files.

    Args:
        folder: An existing folder.
        post: The posterior.
        model: The model.
        data: The data.

    Returns:
        Names of the files, a page for up to four angles.
    """
    names = []
    for page, first in enumerate(range(0, data.c2.shape[0], 4), start=1):
        angles = tuple(range(first, min(first + 4, data.c2.shape[0])))
        figure = predictive_maps(post, model, data, angles)
        names.append(f"predictive_{page:02d}.png")
        figure.savefig(folder / names[-1], dpi=DPI)
    return tuple(names)


def corner(post: CMCResult, *, max_points: int = 4000) -> Figure:
    """Every pair of parameters as a density, every parameter as a histogram.

    Args:
        post: The posterior.
        max_points: Draws that are shown at most.
    """
    flat = post.draws.reshape(-1, post.draws.shape[-1])
    flat = flat[:: max(1, len(flat) // max_points)]
    n = flat.shape[1]
    size = 1.0 + 1.35 * n
    figure = Figure(figsize=(size, size))
    grid = figure.subplots(n, n, squeeze=False)
    figure.subplots_adjust(left=0.9 / size, bottom=0.9 / size, right=1 - 0.15 / size,
                           top=1 - 0.3 / size, wspace=0.06, hspace=0.06)  # fmt: skip
    bins = max(15, min(40, int(np.sqrt(len(flat)) / 2)))
    for row in range(n):
        for column in range(n):
            ax = grid[row, column]
            if column > row:
                ax.remove()
                continue
            x = flat[:, column]
            if column == row:
                ax.hist(x, bins=bins, color=_BLUE, histtype="stepfilled", alpha=0.8)
                for level in np.quantile(x, (0.16, 0.5, 0.84)):
                    ax.axvline(level, color="0.2", lw=0.7, ls="--")
                ax.set_yticks([])
            else:
                ax.hist2d(x, flat[:, row], bins=bins, cmap="Blues", cmin=1)
            _corner_axes(ax, post, row, column, n)
    return figure


def _corner_axes(ax, post: CMCResult, row: int, column: int, n: int) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
    ax.tick_params(labelsize=7, labelbottom=row == n - 1, labelleft=column == 0 and row > 0)
    ax.tick_params(axis="x", labelrotation=40)
    if row != column:
        ax.yaxis.set_major_locator(MaxNLocator(3, prune="both"))
    if row == n - 1:
        ax.set_xlabel(post.names[column], fontsize=8)
    if column == 0 and row > 0:
        ax.set_ylabel(post.names[row], fontsize=8)


def trace(post: CMCResult) -> Figure:
    """Draws of every parameter one after the other, a colour for each chain."""
    n = len(post.names)
    figure = Figure(figsize=(9.0, 0.6 + 1.1 * n), layout="constrained")
    axes = figure.subplots(n, 1, sharex=True, squeeze=False)[:, 0]
    for ax, name in zip(axes, post.names, strict=True):
        for chain in post.samples[name]:
            ax.plot(chain, lw=0.4, alpha=0.8)
        ax.set_ylabel(name, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.margins(x=0)
    axes[-1].set_xlabel("draw")
    return figure


def rank(post: CMCResult) -> Figure:
    """Ranks of each chain's draws among all: flat where chains agree."""
    n, n_chains = len(post.names), post.draws.shape[0]
    columns = min(n, 3)
    rows = -(-n // columns)
    figure = Figure(figsize=(3.2 * columns, 0.5 + 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, name in zip(axes, post.names, strict=False):
        x = post.samples[name]
        order = np.argsort(np.argsort(x.ravel())).reshape(x.shape) / x.size
        for chain in order:
            ax.hist(chain, bins=_RANK_BINS, range=(0, 1), histtype="step", lw=1.0)
        ax.axhline(x.shape[1] / _RANK_BINS, color="0.3", lw=0.8, ls="--")
        ax.set_ylim(bottom=0)
        ax.set_title(name, fontsize=8)
        ax.tick_params(labelsize=7)
    for ax in axes[n:]:
        ax.remove()
    figure.suptitle(f"rank of the draws of each of {n_chains} chains", fontsize="medium")
    return figure


def energy(post: CMCResult) -> Figure:
    """Energies of the draws and their changes: of like width where chains move freely."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    ax = figure.subplots()
    centred = post.energy - post.energy.mean(axis=2, keepdims=True)
    change = np.diff(post.energy, axis=2)
    for values, colour, label in ((centred, _BLUE, "energy about its mean"),
                                  (change, _RED, "change from draw to draw")):  # fmt: skip
        ax.hist(values.ravel(), bins=60, density=True, histtype="step", lw=1.4, color=colour,
                label=label)  # fmt: skip
    ax.set_xlabel("energy")
    ax.set_yticks([])
    ax.legend(fontsize="small", frameon=False)
    ax.set_title(f"BFMI at least {post.bfmi:.2f}", fontsize="medium")
    return figure


def shards(post: CMCResult) -> Figure:
    """The 68 % interval of every shard and of their combination, before and after widening."""
    n = len(post.names)
    columns = min(n, 3)
    rows = -(-n // columns)
    height = 0.6 + rows * (0.7 + 0.14 * (post.n_shards + 1))
    figure = Figure(figsize=(3.4 * columns, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (ax, name) in enumerate(zip(axes, post.names, strict=False)):
        low, middle, high = np.quantile(post.shard_draws[..., i], (0.16, 0.5, 0.84), axis=1)
        place = np.arange(post.n_shards)
        left_out = np.isin(place, post.excluded)
        for kept, colour in ((~left_out, _BLUE), (left_out, "0.7")):
            if kept.any():
                reach = np.stack([middle - low, high - middle])[:, kept]
                ax.errorbar(middle[kept], place[kept], xerr=reach, fmt="o", ms=3, lw=1,
                            color=colour)  # fmt: skip
        q = np.quantile(post.samples[name], (0.16, 0.5, 0.84))
        ax.axvspan(q[0], q[2], color=_RED, alpha=0.25, lw=0)
        ax.axvline(q[1], color=_RED, lw=1)
        ax.set_title(name, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.set_yticks([])
        ax.xaxis.set_major_locator(MaxNLocator(4))
    for ax in axes[n:]:
        ax.remove()
    figure.suptitle("shards (points) and their combination (band): 68 %", fontsize="medium")
    return figure


def predictive_maps(
    post: CMCResult,
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    angles: tuple[int, ...] | None = None,
) -> Figure:
    """Data, posterior mean and their difference in predicted standard deviations.

    Args:
        post: The posterior.
        model: The model.
        data: The data.
        angles: Positions of the angles to show; None shows all.
    """
    mean, deviation = predictive(post, model, data, _PREDICTIVE_DRAWS)
    c2 = np.asarray(data.c2)
    arrays = {"t": np.asarray(data.t), "phi": np.asarray(data.phi), "c2": c2, "model": mean,
              "residual": (c2 - mean) / deviation}  # fmt: skip
    if data.mask is not None:
        arrays["mask"] = np.asarray(data.mask)
    title = f"{post.model}: posterior mean; residuals in predicted standard deviations"
    figure = maps(arrays, angles=angles, title=title)
    for ax in figure.axes:
        if ax.get_ylabel() == "data − model":
            ax.set_ylabel("(data − model) / deviation")
    return figure
