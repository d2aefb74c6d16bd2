"""The Gram matrix of any model, summed tile by tile.

Memory does not grow with pairs × parameters. Tiles on which the model is smooth are summed at few
of their frames, see `twotime.gram.interpolation`.
"""

from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from twotime.data.dataset import TwoTimeData
from twotime.gram import pairs
from twotime.gram.evaluator import AbstractEvaluator, share_out
from twotime.gram.interpolation import NodeWeights, node_gram, of_many_tiles
from twotime.models.rates import Scalar


class TiledData(eqx.Module):
    """Sums over the data alone, the same for any model.

    Attributes:
        moments: Sums over t1 < t2 of products of [data, 1], weighted by 1/sigma².
        nodes: Weights at the nodes of each tile; None where there are few tiles.
    """

    moments: Float[Array, "angle 2 2"]
    nodes: NodeWeights | None


def data_moments(data: TwoTimeData, shift: Scalar) -> Float[Array, "angle 2 2"]:
    """Sums over t1 < t2 of products of [data, 1], weighted by 1/sigma²; the same for any model."""

    def of_angle(k: Array) -> Array:
        _, count, total, square = pairs.data_sums(data, k, shift)
        return jnp.stack([jnp.stack([square, total]), jnp.stack([total, count])])

    return jax.lax.map(of_angle, jnp.arange(data.phi.shape[0]))


class Tiled(AbstractEvaluator):
    """Any model, mask and sigma: sums tile by tile."""

    word: ClassVar[str] = "tiled"

    def prepare(self, data: TwoTimeData, shift: Scalar) -> TiledData:
        return TiledData(data_moments(data, shift), of_many_tiles(data, shift, self.tile))

    def _on_one(
        self, model, data, params, free, shift, prepared, with_normal, corners=None
    ) -> Array:
        """Sum the tiles at some corners, all if not given, and those that are summed at nodes."""
        n = data.c2.shape[-1]
        edge = pairs.tile_edge(n, self.tile)
        corners = pairs.tile_corners(n, self.tile) if corners is None else corners

        def of_angle(x: tuple[Array, TiledData]) -> Array:
            k, known = x
            channels, changes = pairs.channel_slopes(model, data, params, free, k)
            by, products = (
                pairs.ChannelDerivatives.of(changes),
                pairs.products_of(channels, with_normal),
            )

            def of_pairs(corner: Array) -> pairs.Sums:
                cut = pairs.cut_tile(data, k, shift, corner, edge)
                planes = pairs.slopes(model, pairs.tile_pairs(channels, cut.first, edge))
                rows = jax.lax.dynamic_slice_in_dim(by.row, cut.first[0], edge, axis=2)
                return pairs.tile_sums(products, planes, (cut.weight, cut.weight * cut.c2), rows)

            def add(total: pairs.Sums, x: tuple[Array, Array]) -> tuple[pairs.Sums, None]:
                corner, is_done = x
                first = jnp.minimum(corner, n - edge)
                tile = jax.lax.cond(is_done, lambda _: none(edge), of_pairs, corner)
                return total.add((first[0], first[1]), tile), None

            none = partial(pairs.Sums.none, products, n_param=by.row.shape[1])
            found, done = jnp.zeros(()), jnp.zeros(corners.shape[0], bool)
            if known.nodes is not None:
                found, smooth = node_gram(model, products, channels, by, known.nodes, edge)
                done = smooth[corners[:, 0] // edge, corners[:, 1] // edge]
            found += pairs.assembled(products, jax.lax.scan(add, none(n), (corners, done))[0], by)
            found = found.at[: pairs.MODEL, : pairs.MODEL].add(known.moments)
            return found if with_normal else found[: pairs.FIRST]

        return jax.lax.map(of_angle, (jnp.arange(data.phi.shape[0]), prepared))

    def _on_mesh(self, mesh, model, data, params, free, shift, prepared, with_normal) -> Array:
        if data.phi.shape[0] >= mesh.size:
            at = model, data, params, free, shift, prepared, with_normal
            return super()._on_mesh(mesh, *at)
        n = data.c2.shape[-1]
        corners = pairs.tile_corners(n, self.tile)
        # Tiles behind the last frame, where there is nothing, make the shares equal.
        fill = jnp.full((-corners.shape[0] % mesh.size, 2), n, corners.dtype)

        def share(corners: Array, whole: tuple) -> Array:
            model, data, params, shift, prepared = whole
            # What is summed at nodes and of the data alone counts once, with the first tile.
            is_first = jnp.any(jnp.all(corners == 0, axis=1))
            prepared = jax.tree.map(lambda x: jnp.where(is_first, x, 0.0), prepared)
            at = model, data, params, free, shift, prepared, with_normal
            return self._on_one(*at, corners)[None]

        corners = jnp.concatenate([corners, fill])
        return share_out(mesh, share, corners, (model, data, params, shift, prepared)).sum(axis=0)
