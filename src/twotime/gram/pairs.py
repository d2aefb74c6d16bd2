"""The pixels of a fit, tile by tile: data, weights, the model and its derivatives.

Per pixel a model depends on few channels at t1 and t2, so its derivatives are planes by these
channels times vectors by the parameters; no derivative by a parameter is formed per pixel.
"""

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

_FURTHEST = 30.0
"""How far clocks go on below the diagonal: behind it nothing is smooth, and much overflows."""


class Sides(eqx.Module):
    """Derivatives of the channels, arranged by how a pixel depends on them.

    ∂model/∂θ at (i, j) = Σ_k g_k(i, j) (row_k(i) + column_k(j)), with g from `slopes`: first of
    the clocks, then of the levels at t1 (whose columns are zero) and at t2 (whose rows are).
    """

    row: Float[Array, "slope time param"]
    column: Float[Array, "slope time param"]


class Tile(eqx.Module):
    """One tile of one angle: where it lies, its data and its weights.

    Attributes:
        first: Frames at which its rows and columns begin (moved back inside at the edge).
        c2: Data minus the shift; 0 where the weight is 0.
        weight: 1/sigma² where the pixel counts and t1 < t2, else 0.
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


def tile_pairs(
    channels: Channels,
    first: tuple[Array | int, Array | int],
    size: int,
    continued: Bool[Array, "tile tile"] | None = None,
    dtype: DTypeLike | None = None,
) -> Pair:
    """Pixels of a tile that begins at `first`; below the diagonal they are meaningless.

    Where `continued`, pixels below the diagonal follow the law of those above it. Differences of
    clocks are formed before they are taken to `dtype`.
    """
    size = min(size, channels.level.shape[1])

    def rows(x: AnyArray) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, first[0], size, axis=1)[:, :, None]

    def columns(x: AnyArray) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, first[1], size, axis=1)[:, None, :]

    # Sine and cosine of differences as products of matrices, whose factors compilers do not form
    # again for each pixel.
    sin, cos = jnp.sin(channels.phase), jnp.cos(channels.phase)
    early, late = (
        [jax.lax.dynamic_slice_in_dim(x, k, size, axis=1) for x in (sin, cos)] for k in first
    )

    def convert(x: AnyArray) -> Array:
        return jnp.asarray(x, dtype)

    def product(x: list[Array], y: list[Array]) -> Array:
        left, right = (convert(jnp.stack(z, 1)) for z in (x, y))
        planes = [a.T @ b for a, b in zip(left, right, strict=True)]
        return jnp.stack(planes) if planes else fall[:0]

    fall = convert(rows(channels.decay) - columns(channels.decay))
    furthest = 0.0 if continued is None else jnp.where(continued, _FURTHEST, 0.0)
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
    model: AbstractTwoTimeModel, pixel: Pair
) -> tuple[Float[Array, "*pixel"], list[Float[Array, "*pixel"]]]:
    """The model and its derivatives, in the order of `Sides`.

    By minus the difference of each decay clock, by the difference of each phase clock, and by
    each level at t1 and then at t2.
    """

    def along(part: Any, *tangents: Array) -> Array:
        def at(*values: Array) -> Array:
            return model.correlation(eqx.tree_at(part, pixel, values))

        return jax.jvp(at, part(pixel), tangents)[1]

    def only(k: int, x: Array, like: AnyArray) -> Array:
        return jnp.stack([x if i == k else jnp.zeros_like(x) for i in range(like.shape[0])])

    found = [
        along(lambda p: (p.decay,), only(k, x, pixel.decay)) for k, x in enumerate(pixel.decay)
    ]
    for k, (sin, cos) in enumerate(zip(pixel.sin, pixel.cos, strict=True)):
        turn = (only(k, x, pixel.sin) for x in (jnp.ones_like(sin), cos, -sin))
        found.append(along(lambda p: (p.shift, p.sin, p.cos), *turn))
    for part in (lambda p: (p.level1,), lambda p: (p.level2,)):
        levels = part(pixel)[0]
        found += [along(part, only(k, jnp.ones_like(x), levels)) for k, x in enumerate(levels)]
    return model.correlation(pixel), found


def channel_sides(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    phi: Float[Array, ""],
) -> tuple[Channels, Sides]:
    """Channels of one angle and their derivatives by the free parameters."""
    channels, by = channel_slopes(model, data, params, free, phi)
    return channels, Sides(*(jnp.moveaxis(x, 0, -1) for x in arrange(by, axis=1)))


def channel_slopes(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    phi: Float[Array, ""],
    directions: Float[Array, "direction free"] | None = None,
) -> tuple[Channels, Channels]:
    """Channels at the frames and, along a first axis, their derivatives along directions.

    Args:
        model: The model.
        data: The frames and q.
        params: All parameters in the order of `model.names`.
        free: Which parameters are differentiated.
        phi: Detector angle [degree].
        directions: Directions in the free parameters; None for each of them.
    """
    index = np.flatnonzero(free)

    def at(values: Array) -> Channels:
        return model.channels(params.at[index].set(values), data.t, t=data.t, q=data.q, phi=phi)

    channels, change = jax.linearize(at, params[index])
    directions = jnp.eye(index.size, dtype=params.dtype) if directions is None else directions
    # One direction after the other: compilers would form power laws again for each at once.
    return channels, jax.lax.map(change, directions)


def arrange(by_free: Channels, axis: int) -> tuple[Array, Array]:
    """Rows and columns of `Sides` from derivatives of the channels, which lie along `axis`."""
    none = jnp.zeros_like(by_free.level)
    row = [by_free.decay, -by_free.phase, by_free.level, none]
    column = [-by_free.decay, by_free.phase, none, by_free.level]
    return jnp.concatenate(row, axis), jnp.concatenate(column, axis)


DATA, ONE, MODEL, FIRST = 0, 1, 2, 3


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


def products_of(channels: Channels, with_normal: bool) -> list[Product]:
    """The products in the Gram matrix. Clocks have rows and columns, levels one of them."""
    n_clock, n_level = channels.decay.shape[0] + channels.phase.shape[0], channels.level.shape[0]
    has_row = [True] * (n_clock + n_level) + [False] * n_level
    has_column = [True] * n_clock + [False] * n_level + [True] * n_level
    found = [Product(MODEL, j, True, False, ()) for j in range(FIRST)]
    for k, (row, column) in enumerate(zip(has_row, has_column, strict=True)):
        found += [Product(FIRST + k, j, row, column, ()) for j in range(FIRST)]
        for m in range(k + 1 if with_normal else 0):
            sides = row and has_row[m], column and has_column[m]
            across = (k,) * (row and has_column[m]) + (m,) * (m < k and has_row[m] and column)
            found.append(Product(FIRST + k, FIRST + m, *sides, across))
    return found


def no_sums(products: list[Product], size: int, n_param: int) -> Sums:
    """Sums of nothing on some frames."""
    wide = sum(p.columns + len(p.across) * n_param for p in products)
    tall = sum(p.rows for p in products)
    return Sums(jnp.zeros((tall, size)), jnp.zeros((wide, size)))


def tile_sums(
    products: list[Product],
    planes: tuple[Array, list[Array]],
    weights: tuple[Array, Array],
    row: Float[Array, "slope param time"],
) -> Sums:
    """Sums of one tile. All are products with vectors or matrices: these are vectorised.

    Args:
        products: What to sum.
        planes: The model and its derivatives, see `twotime.gram.pairs.slopes`.
        weights: Weights, and weights times the data.
        row: Rows of the sides, those of the tile.
    """
    value, g = planes
    weight, c2 = weights
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


def add_tile(sums: Sums, first: tuple[Array, Array], tile: Sums) -> Sums:
    """Add the sums of a tile whose rows and columns begin at `first`."""
    return Sums(_added(sums.along, first[0], tile.along), _added(sums.down, first[1], tile.down))


def _added(total: Array, first: Array, part: Array) -> Array:
    here = jax.lax.dynamic_slice_in_dim(total, first, part.shape[1], axis=1)
    return jax.lax.dynamic_update_slice_in_dim(total, here + part, first, axis=1)


def assembled(products: list[Product], sums: Sums, sides: Sides) -> Float[Array, "basis basis"]:
    """The Gram matrix from sums over rows and columns and the sides of the derivatives.

    Without the sums of products of data and 1, which no tile adds.
    """
    row, column = sides.row, sides.column
    n_param = row.shape[-1]
    # Every sum times every side at once: few large products cost less than many small ones.
    by_row, by_column = (
        jnp.moveaxis(jnp.tensordot(sums, side, (1, 1)), 1, 0)
        for sums, side in ((sums.along, row), (sums.down, column))
    )
    plain = jnp.zeros((FIRST, FIRST), row.dtype)
    mixed = jnp.zeros((n_param, FIRST), row.dtype)
    normal = jnp.zeros((n_param, n_param), row.dtype)
    wide = tall = 0
    for product in products:
        k, m = product.left - FIRST, product.right - FIRST
        weights = []
        if product.rows:
            weights.append((sums.along[tall], row, by_row[k, tall]))
            tall += 1
        if product.columns:
            weights.append((sums.down[wide], column, by_column[k, wide]))
            wide += 1
        if k < 0:
            plain = plain.at[product.left, product.right].set(jnp.sum(weights[0][0]))
            continue
        if m < 0:
            mixed = mixed.at[:, product.right].add(sum(by for _, _, by in weights))
            continue
        half = sum((side[k].T @ (x[:, None] * side[m]) for x, side, _ in weights), 0.0)
        half = jnp.where(k == m, 0.5, 1.0) * half
        for slope in product.across:
            # Of ∂_p ∂_q: Σ_i row_k(i) plane column_m(j), and the same with k and m exchanged.
            part = slice(wide, wide + n_param)
            half += by_column[m, part] if slope == k else by_column[k, part].T
            wide += n_param
        normal += half + half.T
    plain = jnp.tril(plain) + jnp.tril(plain, -1).T
    return jnp.block([[plain, mixed.T], [mixed, normal]])
