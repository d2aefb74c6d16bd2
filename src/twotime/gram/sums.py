"""Sums of products of data, model and derivatives over tiles, and the Gram matrix from them."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from twotime.gram.pairs import DATA, FIRST, MODEL, ChannelDerivatives
from twotime.models.base import Channels


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
