"""The one reduction under every fit: sums of products over the pixels of each angle.

For a pixel t1 < t2 let b = [data, 1, model, ∂model/∂θ_1 … ∂model/∂θ_P]. The Gram matrix
Σ w b bᵀ of an angle holds χ², its gradient and the Gauss-Newton matrix for any contrast and
offset. It is summed tile by tile, so memory does not grow with pixels × parameters.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.core.models import AbstractTwoTimeModel, Channels, Pixel
from twotime.core.rates import AnyArray, Scalar
from twotime.data.dataset import TwoTimeData

DATA, ONE, MODEL, FIRST = 0, 1, 2, 3
TILE = 128


class Sides(eqx.Module):
    """Derivatives of the channels, arranged by how a pixel depends on them.

    ∂model/∂θ at (i, j) = Σ_k g_k(i, j) (row_k(i) + column_k(j)), with g from `_slopes`.
    """

    row: Float[Array, "slope time param"]
    column: Float[Array, "slope time param"]


def gram(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    *,
    shift: Scalar = 0.0,
    tile: int = TILE,
) -> Float[Array, "angle basis basis"]:
    """Gram matrix of each angle, tile by tile; takes any model, mask and sigma.

    Args:
        model: The model.
        data: The data; pixels that are masked or not finite do not count.
        params: All parameters in the order of `model.names`.
        free: Which parameters are differentiated.
        shift: Subtracted from the data, to keep digits.
        tile: Edge of a tile in frames.

    Returns:
        Sums over t1 < t2 of products of [data, 1, model, derivatives], weighted by 1/sigma².
    """

    def one_angle(k: Array) -> Array:
        channels, sides = channel_sides(model, data, params, free, jnp.asarray(data.phi)[k])

        def accumulate(total: Array, corner: Array) -> tuple[Array, None]:
            return total + _tile_gram(model, data, channels, sides, k, shift, corner, tile), None

        n_basis = FIRST + sum(free)
        start = jnp.zeros((n_basis, n_basis), params.dtype)
        return jax.lax.scan(accumulate, start, tile_corners(data.c2.shape[-1], tile))[0]

    return jax.lax.map(one_angle, jnp.arange(data.phi.shape[0]))


def channel_sides(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    phi: Float[Array, ""],
) -> tuple[Channels, Sides]:
    """Channels of one angle and their derivatives by the free parameters."""
    index = jnp.asarray([i for i, f in enumerate(free) if f], int)

    def of_free(values: Array) -> tuple[Channels, Channels]:
        channels = model.channels(params.at[index].set(values), data.t, t=data.t, q=data.q, phi=phi)
        return channels, channels

    slopes, channels = jax.jacfwd(of_free, has_aux=True)(params[index])
    clock = jnp.concatenate([slopes.decay, slopes.phase])
    none = jnp.zeros_like(slopes.level)
    return channels, Sides(
        row=jnp.concatenate([-clock, slopes.level, none]),
        column=jnp.concatenate([clock, none, slopes.level]),
    )


def tile_corners(n_frames: int, tile: int) -> Array:
    """First frames (t1, t2) of the tiles that cover t1 < t2."""
    starts = range(0, n_frames, tile)
    return jnp.asarray([(i, j) for i in starts for j in starts if i <= j])


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


def cut_tile(data: TwoTimeData, k: Array, shift: Scalar, corner: Array, size: int) -> Tile:
    """Cut a tile of angle `k` out of the data."""
    n = data.c2.shape[-1]
    size = min(size, n)
    first = jnp.minimum(corner, n - size)

    def cut(plane: AnyArray) -> Array:
        return jax.lax.dynamic_slice(plane, (k, first[0], first[1]), (1, size, size))[0]

    rows, columns = first[:, None] + jnp.arange(size)
    own = (rows >= corner[0])[:, None] & (columns >= corner[1])[None, :]
    used = own & (rows[:, None] < columns[None, :])
    c2 = cut(data.c2)
    used &= jnp.isfinite(c2)
    if data.mask is not None:
        used &= cut(data.mask)
    dtype = jnp.result_type(data.t)
    weight = used.astype(dtype)
    if data.sigma is not None:
        sigma = cut(data.sigma) if jnp.ndim(data.sigma) else data.sigma
        weight = jnp.where(used, 1.0 / jnp.where(used, sigma, 1.0).astype(dtype) ** 2, 0.0)
    return Tile((first[0], first[1]), jnp.where(used, c2.astype(dtype) - shift, 0.0), weight)


def tile_pixels(channels: Channels, tile: Tile) -> Pixel:
    """Pixels of a tile; below the diagonal they are finite and meaningless."""
    size = tile.c2.shape[0]

    def rows(x: AnyArray) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, tile.first[0], size, axis=1)[:, :, None]

    def columns(x: AnyArray) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, tile.first[1], size, axis=1)[:, None, :]

    phase1, phase2 = rows(channels.phase), columns(channels.phase)
    sin1, cos1, sin2, cos2 = (
        rows(jnp.sin(channels.phase)),
        rows(jnp.cos(channels.phase)),
        columns(jnp.sin(channels.phase)),
        columns(jnp.cos(channels.phase)),
    )
    shape = (channels.level.shape[0], size, size)
    return Pixel(
        decay=jnp.exp(jnp.minimum(rows(channels.decay) - columns(channels.decay), 0.0)),
        shift=phase2 - phase1,
        sin=sin2 * cos1 - cos2 * sin1,
        cos=cos2 * cos1 + sin2 * sin1,
        level1=jnp.broadcast_to(rows(channels.level), shape),
        level2=jnp.broadcast_to(columns(channels.level), shape),
    )


def slopes(
    model: AbstractTwoTimeModel, pixel: Pixel
) -> tuple[Float[Array, "*pixel"], Float[Array, "slope *pixel"]]:
    """Model and its derivatives by each clock difference and by each level at t1 and t2."""
    value, pull_back = jax.vjp(model.pixel, pixel)
    (by,) = pull_back(jnp.ones_like(value))
    return value, jnp.concatenate(
        [
            -pixel.decay * by.decay,
            by.shift + pixel.cos * by.sin - pixel.sin * by.cos,
            by.level1,
            by.level2,
        ]
    )


def _tile_gram(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    channels: Channels,
    sides: Sides,
    k: Array,
    shift: Scalar,
    corner: Array,
    size: int,
) -> Float[Array, "basis basis"]:
    tile = cut_tile(data, k, shift, corner, size)
    value, g = _formed(slopes(model, _formed(tile_pixels(channels, tile))))
    n = tile.c2.shape[0]
    row = jax.lax.dynamic_slice_in_dim(sides.row, tile.first[0], n, axis=1)
    column = jax.lax.dynamic_slice_in_dim(sides.column, tile.first[1], n, axis=1)
    plain = jnp.stack([tile.c2, jnp.ones_like(value), value])
    weighted = _formed(plain * tile.weight)
    corner_block = jnp.stack([jnp.stack([jnp.vdot(x, y) for y in weighted]) for x in plain])
    mixed = _mixed(weighted, g, row, column)
    normal = _normal(g, tile.weight, row, column)
    return jnp.block([[corner_block, mixed], [mixed.T, normal]])


def _formed(planes: Any) -> Any:
    """Planes that compilers form once, not once more inside every sum over them."""
    return jax.lax.optimization_barrier(planes)


def _sums(plane: Array) -> tuple[Array, Array]:
    """Sums of each row and of each column, as products because these are vectorised."""
    ones = jnp.ones(plane.shape[0], plane.dtype)
    return plane @ ones, ones @ plane


def _mixed(weighted: Array, g: Array, row: Array, column: Array) -> Float[Array, "3 param"]:
    """Sums of (data, 1, model) times the derivatives; a loop, to be compiled but once."""

    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        v, k = pair
        of_row, of_column = _sums(_formed(weighted[v] * g[k]))
        return total.at[v].add(of_row @ row[k] + of_column @ column[k]), None

    v, k = np.indices((FIRST, g.shape[0])).reshape(2, -1)
    start = jnp.zeros((FIRST, row.shape[-1]), row.dtype)
    return jax.lax.scan(add, start, (jnp.asarray(v), jnp.asarray(k)))[0]


def _normal(g: Array, weight: Array, row: Array, column: Array) -> Float[Array, "param param"]:
    """Sums of products of derivatives, without forming any of them per pixel."""

    def add(total: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
        k, m = pair
        plane = _formed(g[k] * g[m] * weight)
        of_row, of_column = _sums(plane)
        half = row[k].T @ (of_row[:, None] * row[m] + plane @ column[m])
        half += column[k].T @ (of_column[:, None] * column[m] + (row[m].T @ plane).T)
        half = jnp.where(k == m, 0.5, 1.0) * half
        return total + half + half.T, None

    k, m = np.tril_indices(g.shape[0])
    start = jnp.zeros((row.shape[-1],) * 2, row.dtype)
    return jax.lax.scan(add, start, (jnp.asarray(k), jnp.asarray(m)))[0]
