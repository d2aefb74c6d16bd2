"""Figures of posteriors: values in, matplotlib figures out.

`corner` shows the posterior, `trace` and `rank` whether chains agree, `energy` whether they move
freely, `shards` whether parts of the data agree, `predictive_maps` what the posterior predicts.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from twotime.data.dataset import TwoTimeData
from twotime.kinds import checked
from twotime.models.base import AbstractTwoTimeModel, Curve
from twotime.plots import fit as fit_plots
from twotime.plots.fit import Angles, Arrays
from twotime.report import error_text, with_error
from twotime.results.cmc import CMCResult
from twotime.results.shown import shown_of
from twotime.sample.result import predictive

_BLUE, _RED, *_ = fit_plots.COLOURS
_QUANTILES = (0.16, 0.5, 0.84)
_RANK_BINS = 20
_PREDICTIVE_DRAWS = 100


def figures_of(
    post: CMCResult, arrays: Arrays, curves: Mapping[str, Curve]
) -> dict[str, Callable[[], Figure]]:
    """What draws each figure of a posterior, by the name of its file without ending.

    Args:
        post: The posterior.
        arrays: Times t [s]; where predictive maps are wanted, the arrays of `predicted`.
        curves: Functions of time.
    """
    found: dict[str, Callable[[], Figure]] = {
        draw.__name__: partial(draw, post) for draw in (corner, trace, rank, energy)
    }
    if post.n_shards > 1:
        found["shards"] = partial(shards, post)
    if curves:
        title = f"{post.model}: 68 % bands"
        found["functions"] = partial(fit_plots.functions, curves, arrays["t"], title=title)
    if "shown_c2" in arrays:
        parts = fit_plots.pages(len(arrays["phi"]), fit_plots.MAPS_ON_PAGE)
        for page, angles in enumerate(parts, start=1):
            found[f"predictive_{page:02d}"] = partial(_predictive, post, arrays, angles)
    return found


@checked
def corner(post: CMCResult, *, max_points: int = 20_000) -> Figure:
    """Every pair of sampled quantities with 68 and 95 % regions, each with its 68 % interval.

    Contrasts and offsets are shown where all angles share them.

    Args:
        post: The posterior.
        max_points: Largest number of draws shown.
    """
    shown = _quantities(post, scaling=post.per_angle_mode == "averaged")
    flat = np.stack([x.ravel() for _, x in shown.values()], axis=1)
    flat = flat[:: max(1, len(flat) // max_points)]
    n = flat.shape[1]
    size = 1.3 + 1.5 * n
    figure = Figure(figsize=(size, size))
    grid = figure.subplots(n, n, squeeze=False)
    near, right, top = 1.1 / size, (size - 0.15) / size, (size - 0.5) / size
    figure.subplots_adjust(near, near, right, top, wspace=0.08, hspace=0.08)
    bins = max(15, min(40, int(np.sqrt(len(flat)) / 2)))
    reach = 0.1 * np.ptp(flat, axis=0)
    edges = np.linspace(flat.min(axis=0) - reach, flat.max(axis=0) + reach, bins + 1, axis=1)
    labels = [_label(name, unit) for name, (unit, _) in shown.items()]
    for (row, column), ax in np.ndenumerate(grid):
        if column > row:
            ax.remove()
            continue
        if column == row:
            _histogram(ax, flat[:, row], edges[row])
            ax.set_title(_interval(list(shown)[row], flat[:, row]), fontsize=8)
        else:
            _regions(ax, flat[:, (column, row)], edges[[column, row]])
            ax.yaxis.set_major_locator(MaxNLocator(3, prune="both"))
        ax.set_xlim(edges[column][0], edges[column][-1])
        ax.xaxis.set_major_locator(MaxNLocator(3, prune="both"))
        ax.tick_params(labelsize=7, labelbottom=row == n - 1, labelleft=column == 0 < row)
        ax.tick_params(axis="x", labelrotation=40)
        ax.set_xlabel(labels[column] if row == n - 1 else "", fontsize=8)
        ax.set_ylabel(labels[row] if column == 0 < row else "", fontsize=8)
    return figure


def _quantities(post: CMCResult, *, scaling: bool) -> dict[str, tuple[str, np.ndarray]]:
    """Unit and draws of the parameters, the noise, and contrasts and offsets if asked for."""
    units = dict(zip(post.all_names, post.units, strict=True))
    shown = {name: x for name, x in post.judged.items() if name in units or name == "noise"}
    if scaling:
        is_shared = post.per_angle_mode == "averaged"
        for name, draws in (("contrast", post.contrast), ("offset", post.offset)):
            for k in range(1 if is_shared else draws.shape[-1]):
                if np.ptp(draws[..., k]):
                    shown[name if is_shared else f"{name}[{k}]"] = draws[..., k]
    return {name: (units.get(name, ""), np.asarray(draws)) for name, draws in shown.items()}


def _label(name: str, unit: str) -> str:
    return f"{name}\n[{unit}]" if unit else name


def _interval(name: str, draws: np.ndarray) -> str:
    """A median with the distances to the ends of the 68 % interval."""
    low, middle, high = np.quantile(draws, _QUANTILES)
    text = with_error(middle, min(high - middle, middle - low))
    above, below = (error_text(x) for x in (high - middle, middle - low))
    shown = re.sub(r"e([+-]?)0*(\d+)", r"\\times10^{\1\2}", f"{text}^{{+{above}}}_{{-{below}}}")
    return f"{name}\n${shown}$"


def _histogram(ax: Axes, draws: np.ndarray, edges: np.ndarray) -> None:
    low, middle, high = np.quantile(draws, _QUANTILES)
    count, _ = np.histogram(draws, edges)
    ax.stairs(count, edges, color=_BLUE, lw=1.0)
    inside = (edges[1:] > low) & (edges[:-1] < high)
    ax.stairs(np.where(inside, count, 0), edges, fill=True, color=_BLUE, alpha=0.25, lw=0)
    ax.axvline(middle, color=_BLUE, lw=0.9)
    ax.set_yticks([])


def _regions(ax: Axes, draws: np.ndarray, edges: np.ndarray) -> None:
    """Regions that hold 68 and 95 % of the draws, from a smoothed histogram."""
    density, _, _ = np.histogram2d(draws[:, 0], draws[:, 1], bins=[edges[0], edges[1]])
    for axis in (0, 0, 1, 1):
        before, after = np.roll(density, 1, axis), np.roll(density, -1, axis)
        density = 0.25 * before + 0.5 * density + 0.25 * after
    ordered = np.sort(density.ravel())[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    levels = [ordered[np.searchsorted(held, share)] for share in (0.95, 0.68)]
    if not 0 < levels[0] < levels[1] < ordered[0]:
        ax.plot(*draws.T, ".", ms=1, color=_BLUE, alpha=0.5)
        return
    centres = 0.5 * (edges[:, 1:] + edges[:, :-1])
    shades = [to_rgba(_BLUE, 0.2), to_rgba(_BLUE, 0.45)]
    ax.contourf(*centres, density.T, levels=[*levels, ordered[0]], colors=shades)
    ax.contour(*centres, density.T, levels=levels, colors=[_BLUE], linewidths=0.9)


@checked
def trace(post: CMCResult) -> Figure:
    """Draws of everything sampled in order, one line for each chain."""
    shown = _quantities(post, scaling=True)
    figure, axes = fit_plots.panels(len(shown), 1, 8.4, 1.1)
    for ax, (name, (unit, draws)) in zip(axes, shown.items(), strict=True):
        for chain, colour in zip(draws, cycle(fit_plots.COLOURS), strict=False):
            ax.plot(chain, lw=0.4, alpha=0.8, color=colour)
        ax.set_ylabel(_label(name, unit), fontsize=8)
        ax.tick_params(labelsize=7, labelbottom=ax is axes[-1])
        ax.margins(x=0)
    axes[-1].set_xlabel("draw")
    return figure


@checked
def rank(post: CMCResult) -> Figure:
    """Ranks of each chain's draws among all draws: uniform if chains agree."""
    figure, axes = fit_plots.panels(len(post.names), 3, 3.0, 2.0)
    for ax, (name, x) in zip(axes, post.samples.items(), strict=True):
        order = np.argsort(np.argsort(x.ravel())).reshape(x.shape) / x.size
        for chain, colour in zip(order, cycle(fit_plots.COLOURS), strict=False):
            style: Any = {"histtype": "step", "lw": 1.0, "color": colour}
            ax.hist(chain, bins=_RANK_BINS, range=(0, 1), **style)
        ax.axhline(x.shape[1] / _RANK_BINS, color="0.3", lw=0.8, ls="--")
        ax.set_ylim(bottom=0)
        _small(ax, name)
    figure.supxlabel("rank among all draws, from 0 to 1", fontsize="small")
    figure.supylabel("draws", fontsize="small")
    figure.suptitle(f"ranks of the draws of each of {len(post.draws)} chains", fontsize="medium")
    return figure


@checked
def energy(post: CMCResult) -> Figure:
    """Distributions of the energy and of its changes: of similar width if chains move freely."""
    figure, (ax,) = fit_plots.panels(1, 1, 5.8, 3.0)
    centred = post.energy - post.energy.mean(axis=2, keepdims=True)
    change = np.diff(post.energy, axis=2)
    style: Any = {"bins": 60, "density": True, "histtype": "step", "lw": 1.4}
    ax.hist(centred.ravel(), color=_BLUE, label="energy minus its mean", **style)
    ax.hist(change.ravel(), color=_RED, label="change from draw to draw", **style)
    ax.set_xlabel("energy")
    ax.set_yticks([])
    ax.legend(fontsize="small", frameon=False)
    ax.set_title(f"BFMI at least {post.bfmi:.2f}", fontsize="medium")
    return figure


@checked
def shards(post: CMCResult) -> Figure:
    """68 % intervals of each shard and of their combination."""
    figure, axes = fit_plots.panels(len(post.names), 3, 3.2, 0.7 + 0.14 * (post.n_shards + 1))
    place, units = np.arange(post.n_shards), dict(zip(post.all_names, post.units, strict=True))
    left_out = np.isin(place, post.excluded)
    for i, (ax, (name, x)) in enumerate(zip(axes, post.samples.items(), strict=True)):
        low, middle, high = np.quantile(post.shard_draws[..., i], _QUANTILES, axis=1)
        reach = np.stack([middle - low, high - middle])
        for k, colour in ((~left_out, _BLUE), (left_out, "0.7")):
            ax.errorbar(middle[k], place[k], xerr=reach[:, k], fmt="o", ms=3, lw=1, color=colour)
        low, middle, high = np.quantile(x, _QUANTILES)
        ax.axvspan(low, high, color=_RED, alpha=0.25, lw=0)
        ax.axvline(middle, color=_RED, lw=1)
        ax.set_yticks([])
        ax.xaxis.set_major_locator(MaxNLocator(4))
        _small(ax, f"{name} [{units[name]}]" if units[name] else name)
    figure.suptitle("68 % intervals: shards (points), combination (band)", fontsize="medium")
    return figure


@checked
def predictive_maps(
    post: CMCResult, model: AbstractTwoTimeModel, data: TwoTimeData, angles: Angles | None = None
) -> Figure:
    """Data, posterior mean and their difference in predicted standard deviations.

    Args:
        post: The posterior.
        model: The model.
        data: The data.
        angles: Positions of the angles to show; None shows all.
    """
    return _predictive(post, predicted(post, model, data), angles)


def predicted(post: CMCResult, model: AbstractTwoTimeModel, data: TwoTimeData) -> Arrays:
    """What maps show of data, posterior mean and difference in predicted standard deviations."""
    mean, deviation = predictive(post, model, data, _PREDICTIVE_DRAWS)
    c2 = np.asarray(data.c2)
    axes = {name: np.asarray(getattr(data, name)) for name in ("t", "q", "phi")}
    arrays = axes | {"c2": c2, "model": mean, "residual": (c2 - mean) / deviation}
    if data.mask is not None:
        arrays["mask"] = np.asarray(data.mask)
    return axes | shown_of(arrays)


def _predictive(post: CMCResult, arrays: Arrays, angles: Angles | None) -> Figure:
    title = f"{post.model}: posterior mean; residuals in predicted standard deviations"
    return fit_plots.maps(arrays, angles=angles, title=title, label="(data − model) / deviation")


def _small(ax: Axes, name: str) -> None:
    ax.set_title(name, fontsize=8)
    ax.tick_params(labelsize=7)
