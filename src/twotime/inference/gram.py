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
    tile_edge,
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
    moments: Float[Array, "angle 2 2"] | None = None,
    with_normal: bool = True,
) -> Float[Array, "angle row basis"]:
    """Gram matrix of each angle, tile by tile; takes any model, mask and sigma.

    Args:
        model: The model.
        data: The data; pixels that are masked or not finite do not count.
        params: All parameters in the order of `model.names`.
        free: Which parameters are differentiated.
        shift: Subtracted from the data, to keep digits.
        tile: Largest edge of a tile [frame].
        corners: First frames of the tiles to sum; None takes all.
        moments: `data_moments` found beforehand; None finds them here.
        with_normal: Whether products of derivatives are wanted.

    Returns:
        Sums over t1 < t2 of products of [data, 1, model, derivatives], weighted by 1/sigma²; the
        rows of data, 1 and model alone if not `with_normal`.
    """
    n = data.c2.shape[-1]
    edge = tile_edge(n, tile)
    corners = tile_corners(n, tile) if corners is None else corners
    moments = data_moments(data, shift) if moments is None else moments

    def one_angle(k: Array) -> Array:
        channels, sides = channel_sides(model, data, params, free, jnp.asarray(data.phi)[k])
        products, row = _products(channels, with_normal), sides.row.mT

        def add_tile(sums: _Sums, corner: Array) -> tuple[_Sums, None]:
            cut = cut_tile(data, k, shift, corner, edge)
            value, g = slopes(model, tile_pixels(channels, cut.first, edge))
            return _add_tile(products, sums, cut, value, g, row), None

        sums = jax.lax.scan(add_tile, _no_sums(products, sides.row), corners)[0]
        gram = _assembled(products, sums, sides, moments[k])
        return gram if with_normal else gram[:FIRST]

    return jax.lax.map(one_angle, jnp.arange(data.phi.shape[0]))


def data_moments(data: TwoTimeData, shift: Scalar) -> Float[Array, "angle 2 2"]:
    """Sums over t1 < t2 of products of [data, 1], weighted by 1/sigma²; the same for any model.

    Args:
        data: The data; pixels that are masked or not finite do not count.
        shift: Subtracted from the data, to keep digits.
    """
    used = jnp.triu(jnp.ones(data.c2.shape[1:], bool), 1) & jnp.isfinite(data.c2)
    if data.mask is not None:
        used &= data.mask
    sigma = 1.0 if data.sigma is None else jnp.where(used, data.sigma, 1.0)
    weight = jnp.where(used, 1.0 / jnp.asarray(sigma, jnp.result_type(data.t)) ** 2, 0.0)
    c2 = jnp.where(used, data.c2 - shift, 0.0)
    count, total, square = (jnp.sum(weight * x, axis=(1, 2)) for x in (1.0, c2, c2 * c2))
    return jnp.stack([jnp.stack([square, total], -1), jnp.stack([total, count], -1)], -2)


class _Product(NamedTuple):
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


class _Sums(eqx.Module):
    """The sums of all products, one after the other.

    Attributes:
        along: Over each row, of the products that need it.
        down: Over each column: of the product itself if `columns`, then times the rows `across`.
    """

    along: Float[Array, "product time"]
    down: Float[Array, "wide time"]


def _products(channels: Channels, with_normal: bool) -> list[_Product]:
    """The products in the Gram matrix. Clocks have rows and columns, levels one of them."""
    n_clock, n_level = channels.decay.shape[0] + channels.phase.shape[0], channels.level.shape[0]
    has_row = [True] * (n_clock + n_level) + [False] * n_level
    has_column = [True] * n_clock + [False] * n_level + [True] * n_level
    found = [_Product(MODEL, j, True, False, ()) for j in range(FIRST)]
    for k, (row, column) in enumerate(zip(has_row, has_column, strict=True)):
        found += [_Product(FIRST + k, j, row, column, ()) for j in range(FIRST)]
        for m in range(k + 1 if with_normal else 0):
            sides = row and has_row[m], column and has_column[m]
            across = (k,) * (row and has_column[m]) + (m,) * (m < k and has_row[m] and column)
            found.append(_Product(FIRST + k, FIRST + m, *sides, across))
    return found


def _no_sums(products: list[_Product], side: Float[Array, "slope time param"]) -> _Sums:
    _, n, n_param = side.shape
    wide = sum(p.columns + len(p.across) * n_param for p in products)
    tall = sum(p.rows for p in products)
    return _Sums(jnp.zeros((tall, n), side.dtype), jnp.zeros((wide, n), side.dtype))


def _add_tile(
    products: list[_Product],
    sums: _Sums,
    tile: Tile,
    value: Array,
    g: list[Array],
    row: Float[Array, "slope param time"],
) -> _Sums:
    """Add a tile. All sums are products with vectors or matrices, because these are vectorised."""
    early, late = tile.first
    one = jnp.ones((1, value.shape[0]), value.dtype)
    row = jax.lax.dynamic_slice_in_dim(row, early, value.shape[0], axis=2)
    basis = [tile.c2, jnp.ones((), value.dtype), value, *g]
    along, down = [], []
    for product in products:
        plane = basis[product.left] * tile.weight * basis[product.right]
        if product.rows:
            along.append((plane @ one.T).T)
        factors = [one] * product.columns + [row[k] for k in product.across]
        if factors:
            down.append(jnp.concatenate(factors) @ plane)
    return _Sums(
        _added(sums.along, early, jnp.concatenate(along)),
        _added(sums.down, late, jnp.concatenate(down)),
    )


def _added(total: Array, first: Array, part: Array) -> Array:
    here = jax.lax.dynamic_slice_in_dim(total, first, part.shape[1], axis=1)
    return jax.lax.dynamic_update_slice_in_dim(total, here + part, first, axis=1)


def _assembled(
    products: list[_Product], sums: _Sums, sides: Sides, moments: Float[Array, "2 2"]
) -> Float[Array, "basis basis"]:
    """The Gram matrix from the sums over rows and columns and the sides of the derivatives."""
    row, column = sides.row, sides.column
    n_param = row.shape[-1]
    # Every sum times every side at once: few large products cost less than many small ones.
    by_row, by_column = (
        jnp.moveaxis(jnp.tensordot(sums, side, (1, 1)), 1, 0)
        for sums, side in ((sums.along, row), (sums.down, column))
    )
    plain = jnp.zeros((FIRST, FIRST), row.dtype).at[:MODEL, :MODEL].set(moments)
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
