"""The Gram matrix of any model, summed tile by tile.

Memory does not grow with pairs × parameters. Tiles on which the model is smooth are summed at few
of their frames, see `twotime.gram.interpolation`.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from twotime.data.dataset import TwoTimeData
from twotime.gram.interpolation import NodeWeights, node_gram, node_weights
from twotime.gram.pairs import (
    FIRST,
    MODEL,
    ChannelDerivatives,
    Sums,
    assembled,
    channel_slopes,
    cut_tile,
    products_of,
    slopes,
    tile_edge,
    tile_pairs,
    tile_sums,
)
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.rates import Scalar

TILE = 128


class TiledData(eqx.Module):
    """Sums over the data alone, the same for any model.

    Attributes:
        moments: Sums over t1 < t2 of products of [data, 1], weighted by 1/sigma².
        nodes: Weights at the nodes of each tile; None where there are few tiles.
    """

    moments: Float[Array, "angle 2 2"]
    nodes: NodeWeights | None


def tiled_data(data: TwoTimeData, shift: Scalar, tile: int = TILE) -> TiledData:
    """Sum what `tiled_gram` needs of the data alone.

    Args:
        data: The data.
        shift: Subtracted from the data, to keep digits.
        tile: Largest edge of a tile [frame].
    """
    n = data.c2.shape[-1]
    # Of fewer tiles most change too much for their nodes, or touch the first frames.
    nodes = node_weights(data, shift, tile_edge(n, tile)) if n > 4 * tile else None
    return TiledData(data_moments(data, shift), nodes)


def data_moments(data: TwoTimeData, shift: Scalar) -> Float[Array, "angle 2 2"]:
    """Sums over t1 < t2 of products of [data, 1], weighted by 1/sigma²; the same for any model.

    Args:
        data: The data.
        shift: Subtracted from the data, to keep digits.
    """

    def of_angle(k: Array) -> Array:
        weight = data.weights(k)
        c2 = jnp.where(weight > 0, jnp.asarray(data.c2)[k] - shift, 0.0)
        count, total, square = (jnp.sum(weight * x) for x in (1.0, c2, c2 * c2))
        return jnp.stack([jnp.stack([square, total]), jnp.stack([total, count])])

    return jax.lax.map(of_angle, jnp.arange(data.phi.shape[0]))


def tiled_gram(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    shift: Scalar,
    prepared: TiledData,
    corners: Int[Array, "tile 2"],
    tile: int = TILE,
    *,
    with_normal: bool = True,
) -> Float[Array, "angle row basis"]:
    """Gram matrix of each angle; takes any model, mask and sigma.

    Args:
        model: The model.
        data: The data.
        params: All parameters in the order of `model.names`.
        free: Which parameters are differentiated.
        shift: Subtracted from the data, to keep digits.
        prepared: `tiled_data` of the same data and shift.
        corners: First frames of the tiles to sum, where they are not summed at nodes.
        tile: Largest edge of a tile [frame].
        with_normal: Whether products of derivatives are wanted.

    Returns:
        Sums over t1 < t2 of products of [data, 1, model, derivatives], weighted by 1/sigma²; the
        rows of data, 1 and model alone if not `with_normal`.
    """
    n = data.c2.shape[-1]
    edge = tile_edge(n, tile)

    def of_angle(x: tuple[Array, TiledData]) -> Array:
        k, known = x
        phi = jnp.asarray(data.phi)[k]
        channels, changes = channel_slopes(model, data, params, free, phi)
        by, products = ChannelDerivatives.of(changes), products_of(channels, with_normal)

        def of_pairs(corner: Array) -> Sums:
            cut = cut_tile(data, k, shift, corner, edge)
            planes = slopes(model, tile_pairs(channels, cut.first, edge))
            rows = jax.lax.dynamic_slice_in_dim(by.row, cut.first[0], edge, axis=2)
            return tile_sums(products, planes, (cut.weight, cut.weight * cut.c2), rows)

        def add(sums: Sums, x: tuple[Array, Array]) -> tuple[Sums, None]:
            corner, is_done = x
            first = jnp.minimum(corner, n - edge)
            tile = jax.lax.cond(is_done, lambda _: none(edge), of_pairs, corner)
            return sums.add((first[0], first[1]), tile), None

        none = partial(Sums.none, products, n_param=by.row.shape[1])
        found, done = jnp.zeros(()), jnp.zeros(corners.shape[0], bool)
        if known.nodes is not None:
            found, smooth = node_gram(model, products, channels, by, known.nodes, edge)
            done = smooth[corners[:, 0] // edge, corners[:, 1] // edge]
        found += assembled(products, jax.lax.scan(add, none(n), (corners, done))[0], by)
        found = found.at[:MODEL, :MODEL].add(known.moments)
        return found if with_normal else found[:FIRST]

    return jax.lax.map(of_angle, (jnp.arange(data.phi.shape[0]), prepared))
