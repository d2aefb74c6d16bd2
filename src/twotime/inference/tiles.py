"""The pixels of a fit, tile by tile: data, weights, the model and its derivatives.

Per pixel a model depends on few channels at t1 and t2, so its derivatives are planes by these
channels times vectors by the parameters; no derivative by a parameter is formed per pixel.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from twotime.core.models import AbstractTwoTimeModel, Channels, Pixel
from twotime.core.rates import AnyArray, Scalar
from twotime.data.dataset import TwoTimeData

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

    def cut(plane: AnyArray) -> Array:
        return jax.lax.dynamic_slice(plane, (k, first[0], first[1]), (1, size, size))[0]

    dtype = jnp.result_type(data.t)
    # Floating-point numbers, because processors compare few 64-bit integers at once.
    frames = jnp.arange(size, dtype=dtype)
    rows, columns = frames + first[0], frames + first[1]
    rows = jnp.where(rows >= corner[0], rows, jnp.inf)
    columns = jnp.where(columns >= corner[1], columns, -jnp.inf)
    used = rows[:, None] < columns[None, :]
    c2 = cut(data.c2)
    used &= jnp.isfinite(c2)
    if data.mask is not None:
        used &= cut(data.mask)
    weight = jnp.where(used, jnp.ones((), dtype), 0.0)
    if data.sigma is not None:
        sigma = cut(data.sigma) if jnp.ndim(data.sigma) else data.sigma
        weight = jnp.where(used, 1.0 / jnp.where(used, sigma, 1.0).astype(dtype) ** 2, 0.0)
    return Tile((first[0], first[1]), jnp.where(used, c2.astype(dtype) - shift, 0.0), weight)


def tile_pixels(
    channels: Channels,
    first: tuple[Array | int, Array | int],
    size: int,
    continued: Bool[Array, "tile tile"] | None = None,
    dtype: DTypeLike | None = None,
) -> Pixel:
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
    return Pixel(
        decay=jnp.exp(jnp.where(fall <= furthest, fall, 0.0)),
        shift=convert(columns(channels.phase) - rows(channels.phase)),
        sin=product([-early[0], early[1]], late[::-1]),
        cos=product(early, late),
        level1=jnp.broadcast_to(convert(rows(channels.level)), shape),
        level2=jnp.broadcast_to(convert(columns(channels.level)), shape),
    )


def slopes(
    model: AbstractTwoTimeModel, pixel: Pixel
) -> tuple[Float[Array, "*pixel"], list[Float[Array, "*pixel"]]]:
    """The model and its derivatives, in the order of `Sides`.

    By minus the difference of each decay clock, by the difference of each phase clock, and by
    each level at t1 and then at t2.
    """

    def along(part: Any, *tangents: Array) -> Array:
        def at(*values: Array) -> Array:
            return model.pixel(eqx.tree_at(part, pixel, values))

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
    return model.pixel(pixel), found


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
