"""The one reduction under every fit: sums of products over the pixels of each angle.

For a pixel t1 < t2 let b = [data, 1, model, ∂model/∂θ_1 … ∂model/∂θ_P]. The Gram matrix
Σ w b bᵀ of an angle holds χ², its gradient and the Gauss-Newton matrix for any contrast and
offset. It is summed tile by tile, so memory does not grow with pixels × parameters; tiles on which
the model is smooth are summed at few of their frames, see `twotime.gram.interpolation`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from twotime.data.dataset import TwoTimeData
from twotime.gram.interpolation import NodeWeights, node_gram, node_weights
from twotime.gram.pairs import (
    FIRST,
    MODEL,
    Sums,
    add_tile,
    assembled,
    channel_sides,
    cut_tile,
    no_sums,
    products_of,
    slopes,
    tile_corners,
    tile_edge,
    tile_pairs,
    tile_sums,
)
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.rates import Scalar

TILE = 128


class DataSums(eqx.Module):
    """Sums over the data alone, the same for any model.

    Attributes:
        moments: Sums over t1 < t2 of products of [data, 1], weighted by 1/sigma².
        nodes: Weights at the nodes of each tile; None where there are few tiles.
    """

    moments: Float[Array, "angle 2 2"]
    nodes: NodeWeights | None


def gram(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    *,
    shift: Scalar = 0.0,
    tile: int = TILE,
    corners: Int[Array, "tile 2"] | None = None,
    sums: DataSums | None = None,
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
        sums: `data_sums` of the same tiles found beforehand; None sums pixel by pixel.
        with_normal: Whether products of derivatives are wanted.

    Returns:
        Sums over t1 < t2 of products of [data, 1, model, derivatives], weighted by 1/sigma²; the
        rows of data, 1 and model alone if not `with_normal`.
    """
    n = data.c2.shape[-1]
    edge = tile_edge(n, tile)
    corners = tile_corners(n, tile) if corners is None else corners
    known = DataSums(data_moments(data, shift), None) if sums is None else sums

    def one_angle(x: tuple[Array, DataSums]) -> Array:
        k, known = x
        channels, sides = channel_sides(model, data, params, free, jnp.asarray(data.phi)[k])
        products, row = products_of(channels, with_normal), sides.row.mT

        def of_pixels(corner: Array) -> Sums:
            cut = cut_tile(data, k, shift, corner, edge)
            planes = slopes(model, tile_pairs(channels, cut.first, edge))
            rows = jax.lax.dynamic_slice_in_dim(row, cut.first[0], edge, axis=2)
            return tile_sums(products, planes, (cut.weight, cut.weight * cut.c2), rows)

        def nothing(_: Array) -> Sums:
            return no_sums(products, edge, row.shape[1])

        def add(sums: Sums, x: tuple[Array, Array]) -> tuple[Sums, None]:
            corner, is_done = x
            first = jnp.minimum(corner, n - edge)
            tile = jax.lax.cond(is_done, nothing, of_pixels, corner)
            return add_tile(sums, (first[0], first[1]), tile), None

        found, done = jnp.zeros(()), jnp.zeros(corners.shape[0], bool)
        if known.nodes is not None:
            found, smooth = node_gram(model, products, channels, sides, known.nodes, edge)
            done = smooth[corners[:, 0] // edge, corners[:, 1] // edge]
        none = no_sums(products, n, row.shape[1])
        found += assembled(products, jax.lax.scan(add, none, (corners, done))[0], sides)
        found = found.at[:MODEL, :MODEL].add(known.moments)
        return found if with_normal else found[:FIRST]

    return jax.lax.map(one_angle, (jnp.arange(data.phi.shape[0]), known))


def data_sums(data: TwoTimeData, shift: Scalar, tile: int = TILE) -> DataSums:
    """Sum up what `gram` needs of the data alone.

    Args:
        data: The data; pixels that are masked or not finite do not count.
        shift: Subtracted from the data, to keep digits.
        tile: Largest edge of a tile [frame].
    """
    n = data.c2.shape[-1]
    edge, corners = tile_edge(n, tile), tile_corners(n, tile)
    # Of fewer tiles most change too much for their nodes, or touch the first frames.
    nodes = node_weights(data, shift, corners, edge) if n > 4 * tile else None
    return DataSums(data_moments(data, shift), nodes)


def data_moments(data: TwoTimeData, shift: Scalar) -> Float[Array, "angle 2 2"]:
    """Sums over t1 < t2 of products of [data, 1], weighted by 1/sigma²; the same for any model.

    Args:
        data: The data; pixels that are masked or not finite do not count.
        shift: Subtracted from the data, to keep digits.
    """

    def of_angle(k: Array) -> Array:
        weight = data.weights(k)
        c2 = jnp.where(weight > 0, jnp.asarray(data.c2)[k] - shift, 0.0)
        count, total, square = (jnp.sum(weight * x) for x in (1.0, c2, c2 * c2))
        return jnp.stack([jnp.stack([square, total]), jnp.stack([total, count])])

    return jax.lax.map(of_angle, jnp.arange(data.phi.shape[0]))
