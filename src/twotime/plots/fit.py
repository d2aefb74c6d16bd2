"""Figures of fits: values in, matplotlib figures out; no global state is touched.

Every function takes arrays as `twotime.results.nlsq.fitted_arrays` names them (t, q, phi, c2,
model, residual, mask), or what `twotime.results.shown` makes of them, which result folders hold.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from twotime.kinds import checked
from twotime.models.base import Curve
from twotime.results.nlsq import NLSQResult
from twotime.results.shown import shown_of

Arrays = Mapping[str, np.ndarray]
Matrix = Float[np.ndarray, "time time"]
Times = Float[np.ndarray, " time"]
Points = Float[np.ndarray, " point"]
Angles = tuple[int, ...]

MAPS_ON_PAGE = 4
CUTS_ON_PAGE = 6
DPI = 150

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#56b4e9", "#cc79a7")
"""Colours that colour-blind readers distinguish (Okabe and Ito); markers and styles in print."""
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLES = ("-", "--", "-.")
FORMATS = ("png", "pdf", "svg")


def figures_of(
    fit: NLSQResult, arrays: Arrays, curves: Mapping[str, Curve]
) -> dict[str, Callable[[], Figure]]:
    """What draws each figure of a fit, by the name of its file without ending.

    Maps and cuts are on pages of a few angles; functions of time are drawn if there are any.
    """
    title = f"{fit.model}, q = {_wavevectors(arrays['q'])} Å⁻¹"
    title += "" if fit.converged else " (not converged)"
    found: dict[str, Callable[[], Figure]] = {}
    for stem, draw, size in (("maps", maps, MAPS_ON_PAGE), ("cuts", cuts, CUTS_ON_PAGE)):
        for page, angles in enumerate(pages(len(arrays["phi"]), size), start=1):
            found[f"{stem}_{page:02d}"] = partial(draw, arrays, angles=angles, title=title)
    if curves:
        found["functions"] = partial(functions, curves, arrays["t"], title=title)
    return found | {"scaling": partial(scaling, fit)}


@checked
def save_figures(
    folder: Path, fit: NLSQResult, arrays: Arrays, curves: Mapping[str, Curve]
) -> tuple[str, ...]:
    """Draw all figures of a fit as PNG files; returns the names of the files."""
    return save(folder, figures_of(fit, arrays, curves))


def save(
    folder: Path,
    figures: Mapping[str, Callable[[], Figure]],
    format: str = "png",
    drawn: Callable[[str], None] = lambda name: None,
) -> tuple[str, ...]:
    """Draw figures into files of a folder, one after the other; returns the names of the files.

    Args:
        folder: Where to.
        figures: What draws each, by the name of its file without ending.
        format: "png", "pdf" or "svg".
        drawn: Called with the name of a file before it is drawn.
    """
    names = []
    for stem, figure in figures.items():
        names.append(f"{stem}.{format}")
        drawn(names[-1])
        # Noise can hardly be compressed: more effort makes files a tenth smaller in twice the time.
        style: Any = {"pil_kwargs": {"compress_level": 1}} if format == "png" else {}
        figure().savefig(folder / names[-1], dpi=DPI, **style)
    return tuple(names)


def pages(count: int, size: int) -> list[Angles]:
    """Positions on pages of at most `size`, as evenly as possible."""
    parts = np.array_split(np.arange(count), -(-count // size))
    return [tuple(part.tolist()) for part in parts]


def panels(
    count: int,
    columns: int,
    width: float,
    height: float,
    title: str = "",
    layout: Literal["constrained"] | None = "constrained",
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes in rows of at most `columns`, each of the given size [inch]."""
    columns = min(count, columns)
    rows = -(-count // columns)
    size = width * columns + 0.6, height * rows + 0.6
    figure = Figure(figsize=size, layout=layout)
    figure.suptitle(title)
    return figure, [figure.add_subplot(rows, columns, k + 1) for k in range(count)]


@checked
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
    arrays = _shown(arrays, chosen)
    height = 0.85 + 2.9 * len(chosen)  # inches
    figure = Figure(figsize=(10.8, height))
    figure.suptitle(title, x=0.47, y=1 - 0.12 / height, va="top")
    edges = {"left": 0.07, "right": 0.875, "bottom": 0.55 / height, "top": 1 - 0.7 / height}
    columns = {"width_ratios": (1, 1, 0.28, 1), "wspace": 0.06, "hspace": 0.16}
    cells = figure.add_gridspec(len(chosen), 4, **edges, **columns)
    for row, k in enumerate(chosen):
        c2, model, residual = (arrays[f"shown_{x}"][k] for x in ("c2", "model", "residual"))
        shared = _common_norm(c2[np.isfinite(c2)], model)
        shown = (
            (0, f"data, {_place(arrays, k)}", c2, shared),
            (1, "model", model, shared),
            (3, f"residual, rms {arrays['shown_rms'][k]:.3g}", residual, _symmetric(residual)),
        )
        is_last = row == len(chosen) - 1
        for column, name, matrix, norm in shown:
            ax = figure.add_subplot(cells[row, column])
            cmap = "viridis" if norm is shared else "RdBu_r"
            image = _image(matrix, arrays["shown_edges"], norm, cmap, ax)
            ax.set_title(name, fontsize="medium", y=1.0)
            for axis, has_labels in ((ax.xaxis, is_last), (ax.yaxis, column == 0)):
                if not has_labels:  # ticks take longest to draw
                    axis.set_major_locator(NullLocator())
            ax.set_xlabel("$t_1$ [s]" if is_last else "")
            ax.set_ylabel("$t_2$ [s]" if column == 0 else "")
            if column > 0:
                bar = ax.inset_axes((1.03, 0, 0.05, 1))
                figure.colorbar(image, cax=bar, label="$c_2$" if column == 1 else label)
    return figure


@checked
def cuts(arrays: Arrays, *, angles: Angles | None = None, title: str = "") -> Figure:
    """Cuts at fixed age (t1 + t2)/2 against the lag t2 - t1: data as points, the model as lines.

    Args:
        arrays: Data and fitted model.
        angles: Positions of the angles to show; None shows all.
        title: Title of the page.
    """
    chosen = tuple(range(len(arrays["phi"]))) if angles is None else angles
    arrays = _shown(arrays, chosen)
    figure, axes = panels(len(chosen), 2, 4.8, 2.8, title, layout=None)
    _margins(figure, left=0.8, top=0.65, wspace=0.18, hspace=0.3)
    for ax, k in zip(axes, chosen, strict=True):
        lag_cuts(arrays, k, ax=ax).set_title(_place(arrays, k), fontsize="medium", y=1.0)
    reach = np.array([ax.get_xlim() for ax in axes])
    for k, ax in enumerate(axes):
        ax.set_xlim(reach[:, 0].min(), reach[:, 1].max())
        if k < len(axes) - 2:  # another one below has the ticks, which take longest to draw
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(NullFormatter())
    look: Any = {"title_fontsize": "small", "fontsize": "small", "frameon": False}
    both = list(zip(axes[0].lines[::2], axes[0].lines[1::2], strict=True))
    ages = [str(line.get_label()) for _, line in both]
    axes[0].legend(both, ages, title="data as points, model as lines", **look)
    figure.supxlabel("lag $t_2 - t_1$ [s]", fontsize="medium")
    figure.supylabel("$c_2$", fontsize="medium")
    return figure


@checked
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
    used = np.isfinite(c2) if mask is None else mask & np.isfinite(c2)
    given = {"c2": c2[None], "model": c2[None], "residual": c2[None], "mask": used[None]}
    found = shown_of(given | {"t": t, "phi": np.zeros(1)})
    shown = found["shown_c2"][0]
    norm = _common_norm(shown[np.isfinite(shown)]) if norm is None else norm
    return _image(shown, found["shown_edges"], norm, cmap, ax)


def _image(
    shown: Matrix, edges: np.ndarray, norm: Normalize, cmap: str, ax: Axes
) -> AxesImage | QuadMesh:
    image: AxesImage | QuadMesh
    if np.ptp(np.diff(edges)) <= 1e-6 * np.mean(np.diff(edges)):
        extent = edges[0], edges[-1], edges[0], edges[-1]
        style: Any = {"interpolation": "nearest", "norm": norm, "cmap": cmap}
        image = ax.imshow(shown.T, origin="lower", extent=extent, **style)
    else:
        image = ax.pcolormesh(edges, edges, shown.T, norm=norm, cmap=cmap, rasterized=True)
    ax.set_facecolor("0.8")
    ax.set_aspect("equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    return image


@checked
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
    arrays = _shown(arrays, (k,))
    of_ages = [arrays["cut_ages"], *(arrays[f"cut_{x}"][k] for x in ("lag", "c2", "model"))]
    looks = COLOURS, MARKERS, STYLES
    for age, lag, data, line, colour, marker, style in zip(*of_ages, *looks, strict=False):
        kept = np.isfinite(lag)
        ax.plot(lag[kept], data[kept], marker, ms=3.5, alpha=0.6, mew=0, color=colour)
        ax.plot(lag[kept], line[kept], style, lw=1.4, color=colour, label=f"age {age:.3g} s")
    ax.set_xscale("log")
    return ax


@checked
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
    figure, axes = panels(len(shown), 2, 4.8, 2.6, title, layout=None)
    _margins(figure, left=1.0, top=0.65, wspace=0.26, hspace=0.3)
    for ax, curve in zip(axes, shown, strict=True):
        if curve.lower is not None and curve.upper is not None:
            ax.fill_between(t, curve.lower, curve.upper, color=COLOURS[0], alpha=0.25, lw=0)
        ax.plot(t, curve.values, color=COLOURS[0], lw=1.5)
        symbol = f"${curve.symbol}$" if "_" in curve.symbol else curve.symbol
        ax.set_ylabel(f"{symbol} [{curve.unit}]" if curve.unit else symbol)
        ax.set_title(curve.description, fontsize="small", y=1.0)
        if np.all(curve.values > 0) and np.ptp(np.log10(curve.values)) > 1.5:
            ax.set_yscale("log")
        else:  # a narrow band must not fill the axes as if the rate were unknown
            middle, reach = np.mean(curve.values), 0.1 * np.max(np.abs(curve.values))
            ax.update_datalim([(t[0], middle - reach), (t[0], middle + reach)])
            ax.autoscale_view()
    figure.supxlabel("$t$ [s]", fontsize="medium")
    return figure


@checked
def scaling(fit: NLSQResult) -> Figure:
    """Contrast and offset of each angle with error bars, open symbols where they are on a bound.

    A line for each wavevector.
    """
    figure = Figure(figsize=(6.4, 4.6))
    axes = figure.subplots(2, 1, sharex=True)
    phi, bound = np.asarray(fit.phi), np.asarray(fit.scaling_at_bound)
    errors = np.asarray(fit.scaling_deviation if fit.scaling_deviation is not None else 0 * bound)
    rings = np.asarray(fit.rings or (0,) * phi.size)
    lines = [np.flatnonzero(rings == k) for k in range(rings.max() + 1)]
    _margins(figure, left=0.85, top=0.35, right=0.15 if len(lines) == 1 else 1.1, hspace=0.08)
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
        error = np.where(np.isfinite(errors[:, column]), errors[:, column], 0.0)
        ax.errorbar(phi[~on], values[~on], error[~on], fmt="o", ms=5, lw=1, color=COLOURS[0])
        ax.plot(phi[on], values[on], "o", ms=6, mfc="white", color=COLOURS[1], label="on a bound")
        ax.set_ylabel(name)
        ax.margins(y=0.2)
        ax.ticklabel_format(axis="y", useOffset=False)
        if on.any():
            ax.legend(fontsize="small", frameon=False)
    axes[-1].set_xlabel("φ [degree]")
    axes[0].set_title(f"per_angle_mode: {fit.per_angle_mode}", fontsize="medium")
    return figure


def _margins(
    figure: Figure, *, left: float, top: float, right: float = 0.15, **space: float
) -> None:
    """Place the axes by margins [inch]: labels are short, and to measure them takes half the time.

    Args:
        figure: The figure.
        left: Margin at the left.
        top: Margin at the top.
        right: Margin at the right.
        space: Space between axes, `wspace` and `hspace`, in parts of these.
    """
    width, height = figure.get_size_inches()
    edges = {"left": left / width, "right": 1 - right / width, "bottom": 0.6 / height}
    figure.subplots_adjust(**edges, top=1 - top / height, **space)


def _place(arrays: Arrays, k: int) -> str:
    """Angle of a matrix, and its wavevector where there are several."""
    phi, q = f"φ = {arrays['phi'][k]:.4g}°".replace("-", "\N{MINUS SIGN}"), arrays.get("q")
    return phi if q is None or not np.ndim(q) else f"q = {q[k]:.4g} Å⁻¹, {phi}"


def _wavevectors(q: np.ndarray) -> str:
    low, high = f"{np.min(q):.4g}", f"{np.max(q):.4g}"
    return low if low == high else f"{low} to {high}"


def _shown(arrays: Arrays, angles: Sequence[int] | None = None) -> Arrays:
    """The arrays with what figures show.

    Raises:
        ValueError: If there is no such angle.
    """
    count = len(arrays["phi"])
    for k in () if angles is None else angles:
        if not -count <= k < count:
            raise ValueError(f"angle {k} of {count}; expected a position from 0 to {count - 1}.")
    return arrays if "shown_c2" in arrays else {**arrays, **shown_of(arrays, angles)}


def _common_norm(data: Points, model: Matrix | None = None) -> Normalize:
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
