"""Size of the noise of c2 from the residuals of a fit: detector pixels and photons.

Residuals of some rows are averaged over blocks of columns. Speckle makes neighbours in a row alike,
photons do not: squares and products of neighbours, against what a detector pixel would add to
each, give the number of pixels and the photons.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from twotime.covariance.blocks import GROUPS, Blocks, field_of, pairs_between, read_at
from twotime.data.dataset import TwoTimeData
from twotime.gram.problem import Problem
from twotime.models.base import AbstractTwoTimeModel, Channels
from twotime.models.rates import Scalar

_ROW_BLOCKS, _ROWS = 64, 2
"""Blocks of rows that are read, and frames in each."""
_RUNS, _RUN = 8, 32
"""Runs of blocks that columns are averaged over, and blocks in each."""
_LAGS = 3
"""Residuals up to so many blocks apart in a row tell photon noise from speckle."""
_MOST_NOISE = 1e6
"""Largest 1/n̄ that is looked for."""


class Noise(eqx.Module):
    """Noise of c2 as the residuals show it.

    Attributes:
        pixels: Effective number N of independent detector pixels of each angle.
        photons: Mean counts n̄ per pixel and frame, one number or one per ring of equal wavevector;
            infinite where no shot noise is seen.
    """

    pixels: Float[Array, " angle"]
    photons: Float[Array, "*ring"]


class Moments(NamedTuple):
    """Sums over residuals in rows, found in the data and expected for each power of 1/n̄ (N = 1).

    Attributes:
        squares: Of squares.
        neighbours: Of products of neighbours.
        expected: Of squares.
        expected_neighbours: Of products of neighbours.
        weight: Sum of the weights of the points that were read, from both sides of the diagonal.
    """

    squares: Float[Array, "*angle"]
    neighbours: Float[Array, "*angle"]
    expected: Float[Array, "*angle 3"]
    expected_neighbours: Float[Array, "*angle 3"]
    weight: Float[Array, "*angle"]


class Link(NamedTuple):
    """Correlation and field correlation between blocks, means over their frames."""

    value: Float[Array, "*pair"]
    field: Num[Array, "*pair"]


class Rows(NamedTuple):
    """Some rows of the data: of some blocks a few frames, evenly spaced, with all frames.

    Attributes:
        block: The blocks.
        frame: Frames of each that are read.
        n_frames: How many of these are different.
        c2: Data between these frames and all.
        weight: Their weights, 0 where a frame is repeated.
    """

    block: Int[Array, " row"]
    frame: Int[Array, "row place"]
    n_frames: Float[Array, "row 1"]
    c2: Float[Array, "stripe time"]
    weight: Float[Array, "stripe time"]

    @classmethod
    def of(cls, data: TwoTimeData, k: Array, blocks: Blocks) -> "Rows":
        """Read rows of matrix `k`."""
        n = data.t.shape[0]
        wanted = min(_ROW_BLOCKS, n)
        block = (jnp.arange(wanted) + 0.5) * jnp.maximum(blocks.count, wanted) / wanted
        block = jnp.floor(block).astype(int)
        is_block = block < blocks.count
        block = jnp.minimum(block, blocks.count - 1)
        size, which = blocks.size[block][:, None], jnp.arange(_ROWS)
        count = jnp.minimum(size, _ROWS)
        frame = blocks.first[block][:, None] + jnp.floor((which + 0.5) * size / count).astype(int)
        frame = jnp.minimum(frame, n - 1)
        c2, weight = data.stripes(k, frame.reshape(-1))
        is_used = ((which < count) & is_block[:, None]).reshape(-1, 1)
        return cls(block, frame, count, c2, weight * is_used)

    def binned(
        self, x: Float[Array, "*kind stripe time"], blocks: Blocks, column: Int[Array, " column"]
    ) -> Float[Array, "*kind row column"]:
        """Sums over the frames of each row and of some blocks of columns."""
        x = x.reshape(*x.shape[:-2], *self.frame.shape, -1).sum(axis=-2)
        total = jnp.pad(jnp.cumsum(x, axis=-1), [(0, 0)] * (x.ndim - 1) + [(1, 0)])
        first = blocks.first[column]
        return total[..., first + blocks.size[column].astype(int)] - total[..., first]

    def between_groups(self, blocks: Blocks) -> Float[Array, "group group"]:
        """Sums of weights between the frames of groups of blocks, by these rows, either order."""
        n_groups = min(GROUPS, blocks.size.shape[0])
        in_group = jax.ops.segment_sum(blocks.size, blocks.group, n_groups)
        n_rows = self.block.shape[0]
        row = (blocks.middles() + 0.5) * n_rows / jnp.maximum(blocks.count, n_rows)
        row = jnp.clip(row.astype(int), 0, n_rows - 1)
        weight = self.binned(self.weight, blocks, jnp.arange(blocks.size.shape[0]))
        weight = jax.ops.segment_sum(weight.T, blocks.group, n_groups)
        mean = weight[:, row] / jnp.maximum(self.n_frames[row].T * in_group[:, None], 1.0)
        return 0.5 * (mean + mean.T) * in_group[:, None] * in_group


def residual_moments(
    problem: Problem,
    channels: Channels,
    blocks: Blocks,
    rows: Rows,
    scaling: tuple[Array, Array],
    contrast: Scalar,
) -> Moments:
    """Moments of the residuals of one angle.

    Args:
        problem: The fit.
        channels: Channels of the angle at the frames.
        blocks: Blocks of frames.
        rows: Data of the angle.
        scaling: Contrast and offset of the angle, the data's shift taken out.
        contrast: Speckle contrast β.
    """
    model, n = problem.model, problem.data.t.shape[0]
    place = rows.frame.reshape(-1)
    first = jax.tree.map(lambda x: x[:, place, None], channels)
    second = jax.tree.map(lambda x: x[:, None, :], channels)
    ahead = place[:, None] <= jnp.arange(n)
    fitted = scaling[0] * model.correlation(pairs_between(first, second, ahead)) + scaling[1]
    is_used = rows.weight > 0
    residual = jnp.where(is_used, rows.c2 - problem.shift - fitted, 0.0)
    column = _columns(blocks)
    sums = jnp.stack([residual, is_used.astype(fitted.dtype), rows.weight])
    total, count, weight = rows.binned(sums, blocks, column)
    mean = total / jnp.maximum(count, 1.0)
    weight = jnp.where(column == rows.block[:, None], 0.0, weight)
    near, link = _links(model, channels, blocks, rows.block, column)
    # Frames of one block are apart by a third of it on average.
    size = blocks.size[column]
    apart = (1.0 - 1.0 / jnp.maximum(size, 1.0) ** 2) / 3.0
    link = Link(*(jnp.concatenate([1 - apart + apart * x[:1], x]) for x in link))
    own = Link(*(jnp.interp(rows.block, column, jnp.real(x[0])) for x in link))
    frames = Residuals(mean, weight, column, rows.n_frames, size)
    return moments_of(frames, near, own, link, contrast)


class Residuals(NamedTuple):
    """Means of residuals over blocks, and their weights.

    Attributes:
        mean: The means.
        weight: Sums of weights; 0 where no mean counts.
        column: Blocks of the columns.
        rows: Frames that a row is the mean of.
        columns: Frames that a column is the mean of.
    """

    mean: Float[Array, "row column"]
    weight: Float[Array, "row column"]
    column: Int[Array, " column"]
    rows: Float[Array, "row 1"]
    columns: Float[Array, " column"]


def moments_of(r: Residuals, near: Link, own: Link, link: Link, contrast: Scalar) -> Moments:
    """Sums over residuals and what is expected for them.

    Args:
        r: The residuals.
        near: The model between rows and columns.
        own: Between rows and themselves, below 1 where they are means over frames.
        link: Between columns and the same, the next and so on.
        contrast: Speckle contrast β.
    """

    def products(lag: int) -> tuple[Array, Array]:
        n_pairs = r.column.size - lag
        linked = Link(*(x[lag, :n_pairs] for x in link))
        expected = row_covariance(near, own, linked, contrast, lag, r.rows, r.columns)
        both = jnp.sqrt(r.weight[:, :n_pairs] * r.weight[:, lag:])
        both = jnp.where(r.column[lag:] - r.column[:n_pairs] == lag, both, 0.0)
        found = jnp.sum(both * r.mean[:, :n_pairs] * r.mean[:, lag:])
        return found, jnp.sum(both * expected, axis=(1, 2))

    found, expected = zip(*(products(lag) for lag in range(_LAGS + 1)), strict=True)
    return Moments(found[0], sum(found[1:]), expected[0], sum(expected[1:]), jnp.sum(r.weight))


def moments_of_frames(
    mean: Float[Array, "time time"],
    weight: Float[Array, "time time"],
    near: Link,
    contrast: Scalar,
) -> Moments:
    """Moments of all residuals, no frames taken together, from both sides of the diagonal."""
    n = mean.shape[0]
    index, one = jnp.arange(n), jnp.ones(n)
    later = jnp.minimum(index + jnp.arange(_LAGS + 1)[:, None], n - 1)
    own, link = Link(one, one), Link(*(x[index, later] for x in near))
    return moments_of(Residuals(mean, weight, index, one[:, None], one), near, own, link, contrast)


def _columns(blocks: Blocks) -> Int[Array, " column"]:
    """The blocks of columns: all, or of many some runs of neighbours along the record."""
    n = blocks.size.shape[0]
    if n <= _RUNS * _RUN:
        return jnp.arange(n)
    step = jnp.maximum((blocks.count - _RUN) / (_RUNS - 1), _RUN)
    start = jnp.floor(jnp.arange(_RUNS) * step).astype(int)
    return (start[:, None] + jnp.arange(_RUN)).reshape(-1)


def _links(
    model: AbstractTwoTimeModel,
    channels: Channels,
    blocks: Blocks,
    row: Int[Array, " row"],
    column: Int[Array, " column"],
) -> tuple[Link, Link]:
    """Correlation between rows and columns, and between each column and the blocks behind it."""
    later = jnp.minimum(column + jnp.arange(1, _LAGS + 1)[:, None], blocks.count - 1)
    rows, columns, behind = (
        read_at(channels, blocks.points.mean(axis=1)[x])
        for x in (row[:, None], column[None], later)
    )
    shape, n_rows = (row.size, column.size), row.size

    def stacked(x: Array, y: Array) -> Array:
        x, y = (jnp.broadcast_to(z, (z.shape[0], *s)) for z, s in ((x, shape), (y, later.shape)))
        return jnp.concatenate([x, y], axis=1)

    first, second = (jax.tree.map(stacked, *x) for x in ((rows, columns), (columns, behind)))
    ahead = jnp.concatenate([row[:, None] <= column, jnp.ones(later.shape, bool)])
    pair = pairs_between(first, second, ahead)
    value = model.correlation(pair)
    found = Link(value, field_of(model, pair, value, ahead))
    return Link(*(x[:n_rows] for x in found)), Link(*(x[n_rows:] for x in found))


def row_covariance(
    near: Link,
    own: Link,
    link: Link,
    contrast: Scalar,
    lag: int,
    rows: Float[Array, "row 1"],
    columns: Float[Array, " column"],
) -> Float[Array, "3 row pair"]:
    """Covariance of points (i, j) and (i, j + lag), as coefficients of 1, 1/n̄ and 1/n̄² (N = 1).

    Args:
        near: The model between rows i and all columns.
        own: Between rows and themselves, below 1 where they are means over frames.
        link: Between columns j and j + lag.
        contrast: Speckle contrast β.
        lag: Distance of the two points in columns; 0 for their variance.
        rows: Frames of which a row is the mean.
        columns: Frames of which a column is the mean.
    """
    b, n_pairs = contrast, near.value.shape[1] - lag
    g, later = near.field[:, :n_pairs], near.field[:, lag:]
    G, far = near.value[:, :n_pairs], near.value[:, lag:]
    strength, self_field = own.value[:, None], jnp.real(own.field)[:, None]
    loop = jnp.real(g * link.field * jnp.conj(later))
    product = G * far
    light = b**2 * (strength * link.value + product)
    light += b**3 * (
        4 * self_field * loop
        + 2 * product
        - 4 * self_field * product
        - 2 * loop * (G + far)
        + product * (strength + G + far + link.value)
    )
    one_photon = (b * link.value + 2 * b**2 * loop - b**2 * product) / jnp.maximum(rows, 1.0)
    # The photons of t2 are common to both only where they are the same point.
    same = float(lag == 0) / jnp.maximum(columns[:n_pairs], 1.0)
    one_photon += same * (b * strength + 2 * b**2 * self_field * G - b**2 * product)
    return jnp.stack([light, one_photon, same * (1 + b * G) / jnp.maximum(rows, 1.0)])


def solve_noise(
    moments: Moments,
    taken: Float[Array, "angle 3"],
    weight: Float[Array, " angle"],
    rings: tuple[int, ...],
) -> tuple[Float[Array, "*ring"], Float[Array, " angle"], Float[Array, " angle"]]:
    """1/n̄ of each ring, N of each angle from residuals' moments, and what the fit left of these.

    A fit takes out of the residuals of all points, of the given `weight`, what its parameters can
    follow (`taken`): its share in the points that were read is subtracted from what is expected.
    N follows from the squares, 1/n̄ from the share that neighbours have in them.

    Reference:
        Small samples: MacKinnon & White, J. Econometrics 29, 305 (1985).
    """
    expected, taken = moments.expected, taken * (moments.weight / weight)[:, None]
    # A fit with almost as many parameters as speckles leaves nothing to measure the noise by.
    square = jnp.maximum(expected - taken, 0.1 * expected)
    neighbour = moments.expected_neighbours - _LAGS * taken
    unit = moments.squares / square[:, 0]
    total = partial(_over_rings, rings)
    ratio = total(moments.neighbours / unit) / total(moments.squares / unit)
    # neighbour/square = ratio is quadratic in 1/n̄; it has one positive root, if any.
    least = jnp.maximum(ratio, 1.0 / _MOST_NOISE)[..., None]
    c, b, a = jnp.moveaxis(total(neighbour) - least * total(square), -1, 0)
    root = jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0.0)) - b
    u = jnp.clip(2 * jnp.maximum(c, 0.0) / jnp.maximum(root, 1e-300), 0.0, _MOST_NOISE)
    powers = photon_powers(u, rings)
    of_squares = jnp.sum(square * powers, axis=1)
    left = of_squares / jnp.sum(expected * powers, axis=1)
    # The residuals left after the fit correct N here. The caller divides by what is left once
    # more, as HC3 does: what the fit took is itself uncertain where correlation times are few.
    return u, of_squares / moments.squares, left


def _over_rings(rings: tuple[int, ...], x: Float[Array, "angle *kind"]) -> Float[Array, "..."]:
    """Sums over the angles of each ring; of all, without an axis of rings, where there is one."""
    if not any(rings):
        return jnp.sum(x, axis=0)
    return jax.ops.segment_sum(x, np.asarray(rings), max(rings) + 1)


def photon_powers(
    inverse_photons: Float[Array, "*ring"], rings: tuple[int, ...]
) -> Float[Array, "#angle 3"]:
    """1, 1/n̄ and 1/n̄² of each angle."""
    of_each = inverse_photons[np.asarray(rings)] if any(rings) else inverse_photons[None]
    return of_each[:, None] ** jnp.arange(3)
