"""What figures show of data and fit: means over blocks of frames and over lags, a few megabytes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel, Params
from twotime.models.correlation import pairs
from twotime.results.nlsq import NLSQResult

CELLS = 256  # largest number of cells along a map: no figure shows more
AGES = (0.25, 0.5, 0.75)
AGE_BAND = 0.02
BINS_PER_DECADE = 20
_ROWS = 4  # frames of a block whose rows are looked at
_AT_ONCE = 64

Arrays = Mapping[str, np.ndarray]
Rows = Float[np.ndarray, "row time"]
Places = Int[np.ndarray, " row"]


class Strip(NamedTuple):
    """Some rows of a matrix.

    Attributes:
        c2, model, residual: Data, fit and what is left.
        used: Whether a point was fitted.
    """

    c2: Rows
    model: Rows
    residual: Rows
    used: Bool[np.ndarray, "row time"]


def shown_arrays(
    fit: NLSQResult, model: AbstractTwoTimeModel, data: TwoTimeData
) -> dict[str, np.ndarray]:
    """What figures show of a fit, from its data; angle by angle, so that little memory is needed.

    Returns:
        The arrays of `shown_of`, with t, q and phi.
    """
    params, scale = jnp.asarray(fit.values), np.stack([fit.contrast, fit.offset], axis=1)

    def strip(k: int, rows: Places) -> Strip:
        at = params, jnp.asarray(data.t), data.place(k)
        parts = np.split(rows, range(_AT_ONCE, rows.size, _AT_ONCE))
        size = min(_AT_ONCE, rows.size)
        planes = [_correlation(model, *at, jnp.asarray(np.resize(x, size))) for x in parts]
        fitted = scale[k, 0] * np.concatenate(planes)[: rows.size] + scale[k, 1]
        c2, used = _rows(data, k, rows)
        return Strip(c2, fitted, c2 - fitted, used)

    axes = {name: np.asarray(getattr(data, name)) for name in ("t", "q", "phi")}
    return axes | _shown(axes["t"], axes["phi"].size, strip)


def shown_of(arrays: Arrays, angles: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """What figures show of arrays as `fitted_arrays` names them.

    Args:
        arrays: Data, model and residual.
        angles: Positions of the angles that are wanted; None takes all.

    Returns:
        shown_edges [s]; shown_c2, shown_model and shown_residual, NaN where no point counts;
        shown_rms of the residual; cut_ages [s]; cut_lag [s], cut_c2 and cut_model, NaN where a bin
        has no point.
    """
    zeros = np.zeros(()), np.zeros(len(arrays["phi"]))
    data = TwoTimeData(arrays["c2"], arrays["t"], *zeros, arrays.get("mask"))

    def strip(k: int, rows: Places) -> Strip:
        model, residual = (np.asarray(arrays[x][k], float)[rows] for x in ("model", "residual"))
        c2, used = _rows(data, k, rows)
        return Strip(c2, model, residual, used)

    return _shown(np.asarray(arrays["t"], float), len(arrays["phi"]), strip, angles)


def _rows(data: TwoTimeData, k: int, rows: Places) -> tuple[Rows, Bool[np.ndarray, "row time"]]:
    """Rows of the data of one angle, from its upper triangle, and whether a point counts."""
    c2, used = np.asarray(data.c2[k]), np.asarray(data.usable(k))
    is_upper = rows[:, None] <= np.arange(c2.shape[0])
    planes = (np.where(is_upper, x[rows], x[:, rows].T) for x in (c2, used))
    return next(planes), next(planes)


@eqx.filter_jit
def _correlation(
    model: AbstractTwoTimeModel,
    params: Params,
    t: Float[Array, " time"],
    place: dict[str, Float[Array, ""]],
    rows: Int[Array, " row"],
) -> Float[Array, "row time"]:
    """Rows of the fitted correlation of one angle."""
    channels = model.channels(params, t, t=t, **place)
    early, late = (f(rows[:, None], jnp.arange(t.shape[0])) for f in (jnp.minimum, jnp.maximum))
    return model.correlation(pairs(channels, early, late))


def _shown(
    t: Float[np.ndarray, " time"],
    count: int,
    strip: Callable[[int, Places], Strip],
    angles: Sequence[int] | None = None,
) -> dict[str, np.ndarray]:
    """Block means and cuts of each angle; those that are not wanted are NaN."""
    n = t.size
    width = -(-n // CELLS)
    cells, per_block = n // width, min(width, _ROWS)
    inside = np.linspace(0, width - 1, per_block).round().astype(int)
    rows = (width * np.arange(cells)[:, None] + inside).ravel()
    ages, cut_points = _cut_points(t, rows)
    bins = max((int(p[2].max()) + 1 for p in cut_points if p[2].size), default=1)
    blocks = np.full((3, count, cells, cells), np.nan, np.float32)
    cuts = np.full((3, count, len(ages), bins), np.nan)
    rms = np.full(count, np.nan)
    for k in range(count) if angles is None else angles:
        seen = strip(k, rows)
        every = np.ones_like(seen.used)
        parts = (seen.c2, seen.used), (seen.model, every), (seen.residual, seen.used)
        for place, (values, used) in zip(blocks, parts, strict=True):
            place[k] = _means(values, used, cells, width)
        if width == 1:
            for matrix in blocks[:2, k]:
                matrix[...] = without_diagonal(matrix)
        for a, points in enumerate(cut_points):
            cuts[:, k, a] = _cut(seen, points, bins)
        if seen.used.any():
            rms[k] = np.sqrt(np.mean(np.square(seen.residual[seen.used], dtype=float)))
    found = dict(zip(("shown_c2", "shown_model", "shown_residual"), blocks, strict=True))
    found |= dict(zip(("cut_lag", "cut_c2", "cut_model"), cuts, strict=True))
    edges = edges_of(t)[: cells * width + 1 : width]
    return found | {"shown_edges": edges, "shown_rms": rms, "cut_ages": ages}


def _means(
    values: Rows, used: Bool[np.ndarray, "row time"], cells: int, width: int
) -> Float[np.ndarray, "cell cell"]:
    """Means over blocks; frames that fill no block at the end are left out."""
    shape = cells, -1, cells, width
    kept = used[:, : cells * width].reshape(shape)
    known = np.where(kept, values[:, : cells * width].reshape(shape), 0)
    with np.errstate(invalid="ignore"):
        return known.sum(axis=(1, 3), dtype=float) / kept.sum(axis=(1, 3))


def _cut_points(
    t: Float[np.ndarray, " time"], rows: Places
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]]:
    """Ages of the cuts [s], and of each the rows, columns, bins and lags of its points."""
    record, step = t[-1] - t[0], float(np.min(np.diff(t)))
    reach = max(AGE_BAND * record, 0.51 * record / (t.size - 1))
    ages, found = t[0] + np.asarray(AGES) * record, []
    for age in ages:
        near = np.abs(0.5 * (t[rows][:, None] + t) - age) <= reach
        row, column = np.nonzero(near & (rows[:, None] < np.arange(t.size)))
        lag = t[column] - t[rows[row]]
        bins = np.floor(BINS_PER_DECADE * np.log10(lag / step) + 1e-9).astype(int)
        found.append((row, column, bins, lag))
    return ages, found


def _cut(seen: Strip, points: tuple[Any, ...], bins: int) -> Float[np.ndarray, "3 bin"]:
    """Mean lag, data and model in each bin of lags."""
    row, column, place, lag = points
    used = seen.used[row, column]
    row, column, place, lag = (x[used] for x in (row, column, place, lag))
    count = np.bincount(place, minlength=bins)
    values = lag, seen.c2[row, column], seen.model[row, column]
    sums = np.stack([np.bincount(place, weights=x, minlength=bins) for x in values])
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def without_diagonal(matrix: Float[np.ndarray, "time time"]) -> Float[np.ndarray, "time time"]:
    """The matrix with its diagonal replaced by the mean of its neighbours, for display."""
    out, above = np.array(matrix), np.diagonal(matrix, 1)
    left, right = np.append(above[0], above), np.append(above, above[-1])
    np.fill_diagonal(out, 0.5 * (left + right))
    return out


def edges_of(t: Float[np.ndarray, " time"]) -> Float[np.ndarray, " edge"]:
    """Where the cells of frames begin and end [s]."""
    middle = 0.5 * (t[1:] + t[:-1])
    return np.concatenate([[1.5 * t[0] - 0.5 * t[1]], middle, [1.5 * t[-1] - 0.5 * t[-2]]])
