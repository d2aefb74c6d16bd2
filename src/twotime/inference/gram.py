"""The one reduction under every fit: sums of products over the pixels of each angle.

For a pixel t1 < t2 let b = [data, 1, model, ∂model/∂θ_1 … ∂model/∂θ_P]. The Gram matrix
Σ w b bᵀ of an angle holds χ², its gradient and the Gauss-Newton matrix for any contrast and
offset. It is summed tile by tile, so memory does not grow with pixels × parameters.

With ∂model = Σ_k g_k(i, j) (row_k(i) + column_k(j)) a sum over pixels of a product of two planes
g needs only the sums of its rows and columns, and its product with one side. These are kept for
every frame, and meet the sides once all tiles are in.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from twotime.core.models import AbstractTwoTimeModel, Channels
from twotime.core.rates import Scalar
from twotime.data.dataset import TwoTimeData
from twotime.inference.tiles import (
    Sides,
    Tile,
    channel_sides,
    cut_tile,
    slopes,
    tile_corners,
    tile_pixels,
)

DATA, ONE, MODEL, FIRST = 0, 1, 2, 3
TILE = 128


def gram(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    *,
    shift: Scalar = 0.0,
    tile: int = TILE,
    corners: Int[Array, "tile 2"] | None = None,
    with_normal: bool = True,
) -> Float[Array, "angle row basis"]:
    """Gram matrix of each angle, tile by tile; takes any model, mask and sigma.

    Args:
        model: The model.
        data: The data; pixels that are masked or not finite do not count.
        params: All parameters in the order of `model.names`.
        free: Which parameters are differentiated.
        shift: Subtracted from the data, to keep digits.
        tile: Edge of a tile in frames.
        corners: First frames of the tiles to sum; None takes all.
        with_normal: Whether products of derivatives are wanted.

    Returns:
        Sums over t1 < t2 of products of [data, 1, model, derivatives], weighted by 1/sigma²; the
        rows of data, 1 and model alone if not `with_normal`.
    """
    n = data.c2.shape[-1]
    corners = tile_corners(n, tile) if corners is None else corners

    def one_angle(k: Array) -> Array:
        channels, sides = channel_sides(model, data, params, free, jnp.asarray(data.phi)[k])
        products = _products(channels, with_normal)

        def add_tile(sums: list[_Sums], corner: Array) -> tuple[list[_Sums], None]:
            cut = cut_tile(data, k, shift, corner, tile)
            value, g = slopes(model, tile_pixels(channels, cut.first, tile))
            return _add_tile(products, sums, cut, value, g, sides.column), None

        start = [_no_sums(product, sides.row) for product in products]
        gram = _assembled(products, jax.lax.scan(add_tile, start, corners)[0], sides)
        return gram if with_normal else gram[:FIRST]

    return jax.lax.map(one_angle, jnp.arange(data.phi.shape[0]))


class _Product(NamedTuple):
    """Two members of [data, 1, model, slopes…] and the sums that their product needs.

    Attributes:
        left: The one that takes the weight.
        right: The other, not behind it.
        rows: Whether the sum over each row is needed.
        columns: Whether the sum over each column is.
        across: Slopes whose columns are summed along each row.
    """

    left: int
    right: int
    rows: bool
    columns: bool
    across: tuple[int, ...]


class _Sums(eqx.Module):
    rows: Float[Array, " time"] | None
    columns: Float[Array, " time"] | None
    across: Float[Array, "time wide"] | None


def _products(channels: Channels, with_normal: bool) -> list[_Product]:
    """The products in the Gram matrix. Clocks have rows and columns, levels one of them."""
    n_clock, n_level = channels.decay.shape[0] + channels.phase.shape[0], channels.level.shape[0]
    has_row = [True] * (n_clock + n_level) + [False] * n_level
    has_column = [True] * n_clock + [False] * n_level + [True] * n_level
    found = [_Product(i, j, True, False, ()) for i in range(FIRST) for j in range(i + 1)]
    for k, (row, column) in enumerate(zip(has_row, has_column, strict=True)):
        found += [_Product(FIRST + k, j, row, column, ()) for j in range(FIRST)]
        for m in range(k + 1 if with_normal else 0):
            sides = row and has_row[m], column and has_column[m]
            across = (m,) * (row and has_column[m]) + (k,) * (m < k and has_row[m] and column)
            found.append(_Product(FIRST + k, FIRST + m, *sides, across))
    return found


def _no_sums(product: _Product, side: Float[Array, "slope time param"]) -> _Sums:
    _, n, n_param = side.shape
    none, width = jnp.zeros(n, side.dtype), len(product.across) * n_param
    across = jnp.zeros((n, width), side.dtype) if product.across else None
    return _Sums(none if product.rows else None, none if product.columns else None, across)


def _add_tile(
    products: list[_Product],
    sums: list[_Sums],
    tile: Tile,
    value: Array,
    g: list[Array],
    column: Float[Array, "slope time param"],
) -> list[_Sums]:
    """Add a tile. All sums are products with vectors or matrices, because these are vectorised."""
    early, late = tile.first
    one = jnp.ones(value.shape[0], value.dtype)
    column = jax.lax.dynamic_slice_in_dim(column, late, value.shape[0], axis=1)
    basis = [tile.c2, None, value, *g]
    weighted = [tile.weight if b is None else b * tile.weight for b in basis]

    def add(product: _Product, old: _Sums) -> _Sums:
        right = basis[product.right]
        plane = weighted[product.left] if right is None else weighted[product.left] * right
        rows, columns, across = old.rows, old.columns, old.across
        if rows is not None:
            rows = _added(rows, early, plane @ one)
        if columns is not None:
            columns = _added(columns, late, one @ plane)
        if across is not None:
            beside = jnp.concatenate([column[k] for k in product.across], axis=1)
            across = _added(across, early, plane @ beside)
        return _Sums(rows, columns, across)

    return [add(*each) for each in zip(products, sums, strict=True)]


def _added(total: Array, first: Array, part: Array) -> Array:
    here = jax.lax.dynamic_slice_in_dim(total, first, part.shape[0])
    return jax.lax.dynamic_update_slice_in_dim(total, here + part, first, axis=0)


def _assembled(
    products: list[_Product], sums: list[_Sums], sides: Sides
) -> Float[Array, "basis basis"]:
    """The Gram matrix from the sums over rows and columns and the sides of the derivatives."""
    row, column = sides.row, sides.column
    n_param = row.shape[-1]
    plain = jnp.zeros((FIRST, FIRST), row.dtype)
    mixed = jnp.zeros((n_param, FIRST), row.dtype)
    normal = jnp.zeros((n_param, n_param), row.dtype)
    for product, s in zip(products, sums, strict=True):
        k, m = product.left - FIRST, product.right - FIRST
        if k < 0:
            plain = plain.at[product.left, product.right].set(jnp.sum(jnp.asarray(s.rows)))
            continue
        sums_of = [(x, y) for x, y in ((s.rows, row), (s.columns, column)) if x is not None]
        if m < 0:
            mixed = mixed.at[:, product.right].add(sum(x @ side[k] for x, side in sums_of))
            continue
        half = sum((side[k].T @ (x[:, None] * side[m]) for x, side in sums_of), 0.0)
        half = jnp.where(k == m, 0.5, 1.0) * half
        parts = [] if s.across is None else jnp.split(s.across, len(product.across), axis=1)
        for slope, part in zip(product.across, parts, strict=True):
            # Of ∂_p ∂_q: row_k(i) Σ_j plane column_m(j), and the same with k and m exchanged.
            half += row[k].T @ part if slope == m else (row[m].T @ part).T
        normal += half + half.T
    plain = jnp.tril(plain) + jnp.tril(plain, -1).T
    return jnp.block([[plain, mixed.T], [mixed, normal]])
