"""Figures of fits: values in, matplotlib figures out; no global state is touched.

Every function takes arrays as `twotime.results.nlsq.fitted_arrays` names them (t, q, phi, c2,
model, residual, mask), so figures can be drawn from a fit and from its saved arrays alike.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from twotime.data.dataset import TwoTimeData
from twotime.models.base import Curve
from twotime.results.nlsq import NLSQResult

Arrays = Mapping[str, np.ndarray]
Matrix = Float[np.ndarray, "time time"]
Times = Float[np.ndarray, " time"]
Points = Float[np.ndarray, " point"]
Angles = tuple[int, ...]

AGES = (0.25, 0.5, 0.75)
AGE_BAND = 0.02
BINS_PER_DECADE = 20
MAPS_ON_PAGE = 4
CUTS_ON_PAGE = 6
DPI = 150

COLOURS = ("#0072b2", "#d55e00", "#009e73")
"""One colour for each age, distinguishable for colour-blind readers; markers in print."""
MARKERS = ("o", "s", "^")
CELLS = 256  # largest number of cells along a map: no figure shows more


def save_figures(
    folder: Path, fit: NLSQResult, arrays: Arrays, curves: Mapping[str, Curve]
) -> tuple[str, ...]:
    """Draw all figures of a fit as PNG files; returns the names of the files.

    Maps and cuts are on pages of a few angles; functions of time are drawn if there are any.
    """
    title = f"{fit.model}, q = {_wavevectors(arrays['q'])} Å⁻¹"
    title += "" if fit.converged else " (not converged)"
    drawn = {}
    for stem, draw, size in (("maps", maps, MAPS_ON_PAGE), ("cuts", cuts, CUTS_ON_PAGE)):
        for page, angles in enumerate(pages(len(arrays["phi"]), size), start=1):
            drawn[f"{stem}_{page:02d}.png"] = draw(arrays, angles=angles, title=title)
    if curves:
        drawn["functions.png"] = functions(curves, arrays["t"], title=title)
    return save(folder, drawn | {"scaling.png": scaling(fit)})


def save(folder: Path, drawn: Mapping[str, Figure]) -> tuple[str, ...]:
    """Write figures into a folder; returns the names of the files."""
    for name, figure in drawn.items():
        figure.savefig(folder / name, dpi=DPI)
    return tuple(drawn)


def pages(count: int, size: int) -> list[Angles]:
    """Positions on pages of at most `size`, as evenly as possible."""
    parts = np.array_split(np.arange(count), -(-count // size))
    return [tuple(part.tolist()) for part in parts]


def panels(
    count: int, columns: int, width: float, height: float, title: str = ""
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes in rows of at most `columns`, each of the given size [inch]."""
    columns = min(count, columns)
    rows = -(-count // columns)
    size = width * columns + 0.6, height * rows + 0.6
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title)
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(count)]


def maps(
    arrays: Arrays, *, angles: Angles | None = None, title: str = "", label: str = "data − model"
) -> Figure:
    """Data, model and residual of some angles, a row each, on common axes.

    Data and model share a colour scale that spans the data's 1st to 99th percentile and the
    model; the scale of the residual is symmetric about zero and reaches its 99th percentile.

    Args:
        arrays: Data and fitted model.
        angles: Positions of the angles to show; None shows all.
        title: Title of the page.
        label: Label of the residual's colour scale.
    """
    chosen = range(len(arrays["phi"])) if angles is None else angles
    height = 0.85 + 2.9 * len(chosen)  # inches
    figure = Figure(figsize=(10.8, height))
    figure.suptitle(title, x=0.47, y=1 - 0.12 / height, va="top")
    edges = {"left": 0.07, "right": 0.875, "bottom": 0.55 / height, "top": 1 - 0.7 / height}
    columns = {"width_ratios": (1, 1, 0.28, 1), "wspace": 0.06, "hspace": 0.16}
    cells = figure.add_gridspec(len(chosen), 4, **edges, **columns)
    for row, k in enumerate(chosen):
        used = _used(arrays, k)
        residual = np.where(used, arrays["residual"][k], np.nan)
        shared = _common_norm(arrays["c2"][k][used], arrays["model"][k][used])
        shown = (
            (0, f"data, {_place(arrays, k)}", arrays["c2"][k], used, shared),
            (1, "model", arrays["model"][k], None, shared),
            (3, f"residual, rms {_rms(residual):.3g}", residual, used, _symmetric(residual)),
        )
        is_last = row == len(chosen) - 1
        for column, name, matrix, mask, norm in shown:
            ax = figure.add_subplot(cells[row, column])
            cmap = "viridis" if norm is shared else "RdBu_r"
            image = two_time(matrix, arrays["t"], mask=mask, norm=norm, cmap=cmap, ax=ax)
            ax.set_title(name, fontsize="medium")
            ax.tick_params(labelleft=column == 0, labelbottom=is_last)
            ax.set_xlabel("$t_1$ [s]" if is_last else "")
            ax.set_ylabel("$t_2$ [s]" if column == 0 else "")
            if column > 0:
                bar = ax.inset_axes((1.03, 0, 0.05, 1))
                figure.colorbar(image, cax=bar, label="$c_2$" if column == 1 else label)
    return figure


def cuts(arrays: Arrays, *, angles: Angles | None = None, title: str = "") -> Figure:
    """Cuts at fixed age (t1 + t2)/2 against the lag t2 - t1: data as points, the model as lines.

    Args:
        arrays: Data and fitted model.
        angles: Positions of the angles to show; None shows all.
        title: Title of the page.
    """
    chosen = tuple(range(len(arrays["phi"]))) if angles is None else angles
    figure, axes = panels(len(chosen), 2, 4.8, 2.8, title)
    for ax, k in zip(axes, chosen, strict=True):
        lag_cuts(arrays, k, ax=ax).set_title(_place(arrays, k), fontsize="medium")
    heading = "data as points, model as lines"
    axes[0].legend(title=heading, title_fontsize="small", fontsize="small", frameon=False)
    figure.supxlabel("lag $t_2 - t_1$ [s]", fontsize="medium")
    figure.supylabel("$c_2$", fontsize="medium")
    return figure


def two_time(
    c2: Matrix,
    t: Times,
    *,
    mask: Bool[np.ndarray, "time time"] | None = None,
    norm: Normalize | None = None,
    cmap: str = "viridis",
    ax: Axes | None = None,
) -> AxesImage | QuadMesh:
    """Draw one two-time matrix; its diagonal is interpolated, masked points are grey.

    Long records are drawn as means over blocks of frames.

    Args:
        c2: The matrix.
        t: Frame times [s].
        mask: True for points to be shown.
        norm: Colour scale; None spans the 1st to the 99th percentile.
        cmap: Name of the colour map.
        ax: Where to draw; None makes a figure.

    Returns:
        The image, for a colour bar; `image.axes` is where it is.
    """
    ax = Figure(layout="constrained").subplots() if ax is None else ax
    shown = _without_diagonal(c2 if mask is None else np.where(mask, c2, np.nan))
    norm = _common_norm(shown[np.isfinite(shown)]) if norm is None else norm
    shown, edges = _cells(shown, _edges(t))
    image: AxesImage | QuadMesh
    if np.ptp(np.diff(edges)) <= 1e-6 * np.mean(np.diff(edges)):
        extent = edges[0], edges[-1], edges[0], edges[-1]
        image = ax.imshow(shown.T, origin="lower", extent=extent, norm=norm, cmap=cmap)
    else:
        image = ax.pcolormesh(edges, edges, shown.T, norm=norm, cmap=cmap, rasterized=True)
    ax.set_facecolor("0.8")
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    return image


def lag_cuts(arrays: Arrays, k: int, *, ax: Axes | None = None) -> Axes:
    """Draw c2 of one angle against the lag at three ages: points, and the model as lines.

    Both are means over the same points: those within 2 % of the record about an age, in bins of
    lag that are 1/20 of a decade wide.

    Args:
        arrays: Data and fitted model.
        k: Position of the angle.
        ax: Where to draw; None makes a figure.
    """
    ax = Figure(layout="constrained").subplots() if ax is None else ax
    t, used = arrays["t"], _used(arrays, k)
    early, late = np.nonzero(np.triu(used, 1))
    age, lag = 0.5 * (t[early] + t[late]), t[late] - t[early]
    record = t[-1] - t[0]
    for part, colour, marker in zip(AGES, COLOURS, MARKERS, strict=True):
        centre = t[0] + part * record
        near = np.abs(age - centre) <= max(AGE_BAND * record, 0.51 * record / (len(t) - 1))
        points = early[near], late[near]
        shown = arrays["c2"][k][points], arrays["model"][k][points]
        mean_lag, data, line = _binned(lag[near], *shown)
        ax.plot(mean_lag, data, marker, ms=3.5, alpha=0.6, mew=0, color=colour)
        ax.plot(mean_lag, line, "-", lw=1.4, color=colour, label=f"age {centre:.3g} s")
    ax.set_xscale("log")
    return ax


def functions(curves: Mapping[str, Curve], t: Times, *, title: str = "") -> Figure:
    """Functions of time behind the parameters, with their bands.

    D is not shown if J is: it is J/2.

    Args:
        curves: Functions as `twotime.run.functions_of_time` returns them.
        t: Frame times [s].
        title: Title of the figure.
    """
    halves = {name.replace("J", "D", 1) for name in curves if name.startswith("J")}
    shown = [curve for name, curve in curves.items() if name not in halves]
    figure, axes = panels(len(shown), 2, 4.8, 2.6, title)
    for ax, curve in zip(axes, shown, strict=True):
        if curve.lower is not None and curve.upper is not None:
            ax.fill_between(t, curve.lower, curve.upper, color=COLOURS[0], alpha=0.25, lw=0)
        ax.plot(t, curve.values, color=COLOURS[0], lw=1.5)
        symbol = f"${curve.symbol}$" if "_" in curve.symbol else curve.symbol
        ax.set_ylabel(f"{symbol} [{curve.unit}]" if curve.unit else symbol)
        ax.set_title(curve.description, fontsize="small")
        if np.all(curve.values > 0) and np.ptp(np.log10(curve.values)) > 1.5:
            ax.set_yscale("log")
        else:  # a narrow band must not fill the axes as if the rate were unknown
            middle, reach = np.mean(curve.values), 0.1 * np.max(np.abs(curve.values))
            ax.update_datalim([(t[0], middle - reach), (t[0], middle + reach)])
            ax.autoscale_view()
    figure.supxlabel("$t$ [s]", fontsize="medium")
    return figure


def scaling(fit: NLSQResult) -> Figure:
    """Contrast and offset of each angle, a line for each wavevector; open symbols: on a bound."""
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    phi, bound = np.asarray(fit.phi), np.asarray(fit.scaling_at_bound)
    rings = np.asarray(fit.rings or (0,) * phi.size)
    lines = [np.flatnonzero(rings == k) for k in range(rings.max() + 1)]
    for ax, name, column in zip(axes, ("contrast", "offset"), (0, 1), strict=True):
        values = np.asarray(getattr(fit, name))
        on = bound[:, column]
        for line in lines:
            order = line[np.argsort(phi[line])]
            ax.plot(phi[order], values[order], "-", lw=0.8, color="0.6", zorder=1)
            if len(lines) > 1:
                name = f" q = {np.mean(np.asarray(fit.q)[line]):.4g} Å⁻¹"
                place = (phi[order[-1]], values[order[-1]])
                ax.annotate(name, place, fontsize="x-small", va="center")
        ax.plot(phi[~on], values[~on], "o", ms=5, color=COLOURS[0])
        ax.plot(phi[on], values[on], "o", ms=6, mfc="white", color=COLOURS[1], label="on a bound")
        ax.set_ylabel(name)
        ax.margins(y=0.2)
        ax.ticklabel_format(axis="y", useOffset=False)
        if on.any():
            ax.legend(fontsize="small", frameon=False)
    axes[-1].set_xlabel("φ [degree]")
    axes[0].set_title(f"per_angle_mode: {fit.per_angle_mode}", fontsize="medium")
    return figure


def _place(arrays: Arrays, k: int) -> str:
    """Angle of a matrix, and its wavevector where there are several."""
    phi, q = f"φ = {arrays['phi'][k]:.4g}°".replace("-", "\N{MINUS SIGN}"), arrays.get("q")
    return phi if q is None or not np.ndim(q) else f"q = {q[k]:.4g} Å⁻¹, {phi}"


def _wavevectors(q: np.ndarray) -> str:
    low, high = f"{np.min(q):.4g}", f"{np.max(q):.4g}"
    return low if low == high else f"{low} to {high}"


def _used(arrays: Arrays, k: int) -> Bool[np.ndarray, "time time"]:
    """Points of an angle that were fitted, mirrored below the diagonal."""
    q, mask = np.asarray(0.0), arrays.get("mask")
    used = np.asarray(TwoTimeData(arrays["c2"], arrays["t"], q, arrays["phi"], mask).usable(k))
    return used | used.T


def _cells(matrix: Matrix, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over square blocks of frames, so that there are at most `CELLS` along an edge.

    Frames that fill no block at the end are left out: a part of 1/CELLS of the record at most.
    """
    width = -(-len(matrix) // CELLS)
    if width == 1:
        return matrix, edges
    count = len(matrix) // width
    blocks = matrix[: count * width, : count * width].reshape(count, width, count, width)
    known = np.isfinite(blocks)
    points = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0).sum(axis=(1, 3))
    with np.errstate(invalid="ignore"):
        return total / points, edges[: count * width + 1 : width]


def _without_diagonal(matrix: Matrix) -> Matrix:
    """The matrix with its diagonal replaced by the mean of its neighbours, for display."""
    out, above = np.array(matrix), np.diagonal(matrix, 1)
    left, right = np.append(above[0], above), np.append(above, above[-1])
    np.fill_diagonal(out, 0.5 * (left + right))
    return out


def _binned(lag: Points, *values: Points) -> list[Float[np.ndarray, " bin"]]:
    """Means of the lag and of values in logarithmic bins of the lag, without empty bins."""
    if lag.size == 0:
        return [lag, *values]
    bins = np.floor(BINS_PER_DECADE * np.log10(lag / lag.min()) + 1e-9).astype(int)
    count = np.bincount(bins)
    kept = count > 0
    return [np.bincount(bins, weights=x)[kept] / count[kept] for x in (lag, *values)]


def _common_norm(data: Points, model: Points | None = None) -> Normalize:
    if data.size == 0:
        return Normalize(0.0, 1.0)
    low, high = np.percentile(data, [1.0, 99.0])
    if model is not None:
        low, high = min(low, model.min()), max(high, model.max())
    return Normalize(float(low), float(high) if high > low else float(low) + 1.0)


def _symmetric(values: Matrix) -> Normalize:
    finite = np.abs(values[np.isfinite(values)])
    reach = float(np.percentile(finite, 99.0)) if finite.size else 0.0
    return Normalize(-(reach or 1.0), reach or 1.0)


def _rms(values: Matrix) -> float:
    finite = values[np.isfinite(values)].astype(np.float64)
    return float(np.sqrt(np.mean(finite**2))) if finite.size else float("nan")


def _edges(t: Times) -> Float[np.ndarray, " time+1"]:
    middle = 0.5 * (t[1:] + t[:-1])
    return np.concatenate([[1.5 * t[0] - 0.5 * t[1]], middle, [1.5 * t[-1] - 0.5 * t[-2]]])
