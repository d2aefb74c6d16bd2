"""Sums of products of planes over rows and columns of tiles, and the Gram matrix made of them.

With ∂model = Σ_k g_k(i, j) (row_k(i) + column_k(j)) a sum over pixels of a product of two planes
g needs only the sums of its rows and columns, and its product with one side. These are kept for
every frame, and meet the sides once all tiles are in.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from twotime.core.models import Channels
from twotime.inference.tiles import Sides

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
        planes: The model and its derivatives, see `twotime.inference.tiles.slopes`.
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
