"""Tiles of pairs of frames: data, weights, model, derivatives, and sums of their products.

At each pair a model depends on few channels at t1 and t2, so its derivatives are planes by these
channels times vectors by the parameters; no derivative by a parameter is formed for each pair.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from twotime.data.dataset import TwoTimeData, window
from twotime.models.base import AbstractTwoTimeModel, Channels, Pair
from twotime.models.rates import AnyArray, Scalar

STEEPEST = 30.0
"""Largest continued decay below the diagonal: beyond it nothing is smooth, and much overflows."""
DATA, ONE, MODEL, FIRST = 0, 1, 2, 3
"""Rows of a Gram matrix: data, 1, model, and the first derivative."""


class ChannelDerivatives(eqx.Module):
    """Derivatives of the channels by parameters, arranged by how a pair depends on them.

    ∂model/∂θ at (i, j) = Σ_k g_k(i, j) (row_k(i) + column_k(j)), with g from `slopes`: first of
    the clocks, then of the levels at t1 (whose columns are zero) and at t2 (whose rows are).
    """

    row: Float[Array, "slope param *time"]
    column: Float[Array, "slope param *time"]

    @classmethod
    def of(cls, by: Channels) -> "ChannelDerivatives":
        """Arrange the derivatives that `channel_slopes` returns."""
        none = jnp.zeros_like(by.level)
        row = [by.decay, -by.phase, by.level, none]
        column = [-by.decay, by.phase, none, by.level]
        return cls(*(jnp.swapaxes(jnp.concatenate(x, axis=1), 0, 1) for x in (row, column)))


_EDGE = 512  # of the tiles in which the data alone are summed [frame]


class Tile(eqx.Module):
    """One tile of one angle: where it begins (moved back inside at the edge), data and weights.

    The data have the shift subtracted; both are 0 where a point does not count or t1 >= t2.
    """

    first: tuple[Array, Array]
    c2: Float[Array, "tile tile"]
    weight: Float[Array, "tile tile"]


def tile_edge(n_frames: int, largest: int) -> int:
    """Edge of the tiles that cover all frames with little overlap [frame]."""
    return -(-n_frames // -(-n_frames // largest))


def tile_corners(n_frames: int, largest: int) -> Array:
    """First frames (t1, t2) of the tiles that cover t1 < t2."""
    starts = range(0, n_frames, tile_edge(n_frames, largest))
    return jnp.asarray([(i, j) for i in starts for j in starts if i <= j])


def cut_tile(data: TwoTimeData, k: Array, shift: Scalar, corner: Array, size: int) -> Tile:
    """Cut a tile of angle `k` out of the data."""
    n = data.c2.shape[-1]
    size = min(size, n)
    first = jnp.minimum(corner, n - size)
    # Frames before the corner, of tiles moved back inside, belong to other tiles.
    frames = jnp.arange(size, dtype=jnp.result_type(data.t))
    rows, columns = (frames + start >= edge for start, edge in zip(first, corner, strict=True))
    weight = jnp.where(rows[:, None] & columns, data.weights(k, first, size), 0.0)
    c2 = window(data.c2, k, first, size).astype(weight.dtype)
    return Tile((first[0], first[1]), jnp.where(weight > 0, c2 - shift, 0.0), weight)


def data_sums(data: TwoTimeData, k: Array, shift: Scalar) -> Float[Array, " 4"]:
    """Number of points of a matrix that count, and sums of weight × (1, data, data²).

    Tile by tile: of a long record one matrix in double precision is much memory.
    """
    edge = tile_edge(data.c2.shape[-1], _EDGE)

    def add(sums: Array, corner: Array) -> tuple[Array, None]:
        cut = cut_tile(data, k, shift, corner, edge)
        values = cut.weight > 0, cut.weight, cut.weight * cut.c2, cut.weight * cut.c2**2
        return sums + jnp.stack([jnp.sum(x, dtype=sums.dtype) for x in values]), None

    corners = tile_corners(data.c2.shape[-1], _EDGE)
    return jax.lax.scan(add, jnp.zeros(4, jnp.result_type(data.t)), corners)[0]


def tile_pairs(
    channels: Channels,
    first: tuple[Array | int, Array | int],
    size: int,
    continued: Bool[Array, "tile tile"] | None = None,
    dtype: DTypeLike | None = None,
) -> Pair:
    """The pairs of a tile that begins at `first`; below the diagonal they are meaningless.

    Where `continued`, pairs below the diagonal follow the law of those above it. Differences of
    clocks are formed before they are converted to `dtype`.
    """
    size = min(size, channels.level.shape[1])

    def cut(x: AnyArray, k: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, first[k], size, axis=1)

    def rows(x: AnyArray) -> Array:
        return cut(x, 0)[:, :, None]

    def columns(x: AnyArray) -> Array:
        return cut(x, 1)[:, None, :]

    # Sine and cosine of differences as matrix products: compilers do not recompute their factors
    # for each pair.
    waves = jnp.sin(channels.phase), jnp.cos(channels.phase)
    early, late = ([cut(x, k) for x in waves] for k in (0, 1))
    convert = partial(jnp.asarray, dtype=dtype)

    def product(x: list[Array], y: list[Array]) -> Array:
        left, right = (convert(jnp.stack(z, 1)) for z in (x, y))
        planes = [a.T @ b for a, b in zip(left, right, strict=True)]
        return jnp.stack(planes) if planes else fall[:0]

    fall = convert(rows(channels.decay) - columns(channels.decay))
    furthest = 0.0 if continued is None else jnp.where(continued, STEEPEST, 0.0)
    shape = (channels.level.shape[0], size, size)
    return Pair(
        decay=jnp.exp(jnp.where(fall <= furthest, fall, 0.0)),
        shift=convert(columns(channels.phase) - rows(channels.phase)),
        sin=product([-early[0], early[1]], late[::-1]),
        cos=product(early, late),
        level1=jnp.broadcast_to(convert(rows(channels.level)), shape),
        level2=jnp.broadcast_to(convert(columns(channels.level)), shape),
    )


def slopes(
    model: AbstractTwoTimeModel, pair: Pair
) -> tuple[Float[Array, "*pair"], list[Float[Array, "*pair"]]]:
    """The model and its derivatives, in the order of `ChannelDerivatives`.

    By minus the difference of each decay clock, by the difference of each phase clock, and by
    each level at t1 and then at t2.
    """

    def along(part: Any, *tangents: Array) -> Array:
        def at(*values: Array) -> Array:
            return model.correlation(eqx.tree_at(part, pair, values))

        return jax.jvp(at, part(pair), tangents)[1]

    def only(k: int, x: Array, like: AnyArray) -> Array:
        return jnp.stack([x if i == k else jnp.zeros_like(x) for i in range(like.shape[0])])

    found = [along(lambda p: (p.decay,), only(k, x, pair.decay)) for k, x in enumerate(pair.decay)]
    for k, (sin, cos) in enumerate(zip(pair.sin, pair.cos, strict=True)):
        turn = (only(k, x, pair.sin) for x in (jnp.ones_like(sin), cos, -sin))
        found.append(along(lambda p: (p.shift, p.sin, p.cos), *turn))
    for part in (lambda p: (p.level1,), lambda p: (p.level2,)):
        levels = part(pair)[0]
        found += [along(part, only(k, jnp.ones_like(x), levels)) for k, x in enumerate(levels)]
    return model.correlation(pair), found


def channel_slopes(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    k: Array | int,
    directions: Float[Array, "direction free"] | None = None,
) -> tuple[Channels, Channels]:
    """Channels of matrix `k` at the frames and, along a first axis, derivatives along directions.

    Those are directions in the `free` parameters, by default each of these.
    """
    index, place = np.flatnonzero(free), data.place(k)

    def at(values: Array) -> Channels:
        return model.channels(params.at[index].set(values), data.t, t=data.t, **place)

    channels, change = jax.linearize(at, params[index])
    directions = jnp.eye(index.size, dtype=params.dtype) if directions is None else directions
    # Formed once: compilers would form power laws again for each pair of frames.
    return jax.lax.optimization_barrier((channels, jax.vmap(change)(directions)))


class Product(NamedTuple):
    """Two members of [data, 1, model, slopes…] and the sums that their product needs.

    Attributes:
        left: The one that takes the weight; never data or 1.
        right: The other, not behind it.
        rows: Whether the sum over each row is needed.
        columns: Whether the sum over each column is.
        across: Slopes whose rows are summed down each column.
    """

    left: int
    right: int
    rows: bool
    columns: bool
    across: tuple[int, ...]


class Sums(eqx.Module):
    """The sums of all products, one after the other.

    Attributes:
        along: Over each row, of the products that need it.
        down: Over each column: of the product itself if `columns`, then times the rows `across`.
    """

    along: Float[Array, "product time"]
    down: Float[Array, "wide time"]

    @classmethod
    def none(cls, products: list[Product], n_frames: int, n_param: int) -> "Sums":
        """Sums of nothing."""
        wide = sum(p.columns + len(p.across) * n_param for p in products)
        tall = sum(p.rows for p in products)
        return cls(jnp.zeros((tall, n_frames)), jnp.zeros((wide, n_frames)))

    def add(self, first: tuple[Array, Array], tile: "Sums") -> "Sums":
        """Add the sums of a tile whose rows and columns begin at `first`."""

        def added(total: Array, first: Array, part: Array) -> Array:
            here = jax.lax.dynamic_slice_in_dim(total, first, part.shape[1], axis=1)
            return jax.lax.dynamic_update_slice_in_dim(total, here + part, first, axis=1)

        return Sums(added(self.along, first[0], tile.along), added(self.down, first[1], tile.down))


def products_of(channels: Channels, with_normal: bool) -> list[Product]:
    """The products in the Gram matrix. Clocks have rows and columns, levels one of them."""
    n_clock, n_level = channels.decay.shape[0] + channels.phase.shape[0], channels.level.shape[0]
    has_row = [True] * (n_clock + n_level) + [False] * n_level
    has_column = [True] * n_clock + [False] * n_level + [True] * n_level
    found = [Product(MODEL, j, True, False, ()) for j in range(FIRST)]
    for k, (row, column) in enumerate(zip(has_row, has_column, strict=True)):
        found += [Product(FIRST + k, j, row, column, ()) for j in range(FIRST)]
        for m in range(k + 1 if with_normal else 0):
            both = row and has_row[m], column and has_column[m]
            across = (k,) * (row and has_column[m]) + (m,) * (m < k and has_row[m] and column)
            found.append(Product(FIRST + k, FIRST + m, *both, across))
    return found


def tile_sums(
    products: list[Product],
    planes: tuple[Array, list[Array]],
    weights: Sequence[Array],
    row: Float[Array, "slope param time"],
) -> Sums:
    """Sums of one tile. All are products with vectors or matrices: these are vectorised.

    Args:
        products: What to sum.
        planes: The model and its derivatives, see `slopes`.
        weights: Weights, and weights times the data.
        row: Rows of the derivatives of the channels at the frames of the tile.
    """
    (value, g), (weight, c2) = planes, weights
    one = jnp.ones((1, value.shape[0]), value.dtype)
    basis = [jnp.ones((), value.dtype), jnp.ones((), value.dtype), value, *g]
    along, down = [], []
    for product in products:
        weighted = c2 if product.right == DATA else weight
        plane = basis[product.left] * weighted * basis[product.right]
        if product.rows:
            along.append((plane @ one.T).T)
        factors = [one] * product.columns + [row[k] for k in product.across]
        if factors:
            down.append(jnp.concatenate(factors) @ plane)
    return Sums(jnp.concatenate(along), jnp.concatenate(down))


def assembled(
    products: list[Product], sums: Sums, by: ChannelDerivatives
) -> Float[Array, "basis basis"]:
    """The Gram matrix from sums over rows and columns and the derivatives of the channels.

    Without the sums of products of data and 1, which no tile adds.
    """
    n_param = by.row.shape[1]
    # Every sum times every derivative at once: few large products cost less than many small ones.
    by_row = jnp.einsum("ti,kpi->ktp", sums.along, by.row)
    by_column = jnp.einsum("ti,kpi->ktp", sums.down, by.column)
    gram = jnp.zeros((FIRST + n_param,) * 2, by.row.dtype)
    mixed = jnp.zeros((FIRST, n_param), by.row.dtype)
    wide = tall = 0
    for product in products:
        k, m = product.left - FIRST, product.right - FIRST
        weights = []
        if product.rows:
            weights.append((sums.along[tall], by.row, by_row[k, tall]))
            tall += 1
        if product.columns:
            weights.append((sums.down[wide], by.column, by_column[k, wide]))
            wide += 1
        if k < 0:
            gram = gram.at[product.left, product.right].set(jnp.sum(weights[0][0]))
        elif m < 0:
            mixed = mixed.at[product.right].add(sum(total for _, _, total in weights))
        else:
            half = sum(((side[k] * x) @ side[m].T for x, side, _ in weights), 0.0)
            half = jnp.where(k == m, 0.5, 1.0) * half
            for slope in product.across:
                # Of ∂_p ∂_q: Σ_i row_k(i) plane column_m(j), and the same with k and m exchanged.
                part = slice(wide, wide + n_param)
                half += by_column[m, part] if slope == k else by_column[k, part].T
                wide += n_param
            gram = gram.at[FIRST:, FIRST:].add(half + half.T)
    lower = gram.at[FIRST:, :FIRST].set(mixed.T)
    square = lower.at[:FIRST, FIRST:].set(mixed)
    return square.at[:MODEL, MODEL].set(gram[MODEL, :MODEL])
