"""Tiles of pairs of frames: data, weights, model and derivatives.

At each pair a model depends on few channels at t1 and t2, so its derivatives are planes by these
channels times vectors by the parameters; no derivative by a parameter is formed for each pair.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from twotime.data.dataset import TwoTimeData, window
from twotime.models.base import AbstractTwoTimeModel, Channels, Pair
from twotime.models.rates import AnyArray, Scalar

STEEPEST = 30.0
"""Largest continued decay below the diagonal: beyond it nothing is smooth, and much overflows."""
DATA, ONE, MODEL, FIRST = 0, 1, 2, 3
"""Rows of a Gram matrix: data, 1, model, and the first derivative."""


class ChannelDerivatives(eqx.Module):
    """Derivatives of the channels by parameters, arranged by how a pair depends on them.

    ∂model/∂θ at (i, j) = Σ_k g_k(i, j) (row_k(i) + column_k(j)), with g from `slopes`: first of
    the clocks, then of the levels at t1 (whose columns are zero) and at t2 (whose rows are).
    """

    row: Float[Array, "slope param time"]
    column: Float[Array, "slope param time"]

    @classmethod
    def of(cls, by: Channels) -> "ChannelDerivatives":
        """Arrange the derivatives that `channel_slopes` returns."""
        none = jnp.zeros_like(by.level)
        row = [by.decay, -by.phase, by.level, none]
        column = [-by.decay, by.phase, none, by.level]
        return cls(*(jnp.swapaxes(jnp.concatenate(x, axis=1), 0, 1) for x in (row, column)))


class Tile(eqx.Module):
    """One tile of one angle: where it begins (moved back inside at the edge), data and weights.

    The data have the shift subtracted; both are 0 where a point does not count or t1 >= t2.
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
    """The pairs of a tile that begins at `first`; below the diagonal they are meaningless.

    Where `continued`, pairs below the diagonal follow the law of those above it. Differences of
    clocks are formed before they are converted to `dtype`.
    """
    size = min(size, channels.level.shape[1])

    def cut(x: AnyArray, k: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, first[k], size, axis=1)

    def rows(x: AnyArray) -> Array:
        return cut(x, 0)[:, :, None]

    def columns(x: AnyArray) -> Array:
        return cut(x, 1)[:, None, :]

    # Sine and cosine of differences as matrix products: compilers do not recompute their factors
    # for each pair.
    waves = jnp.sin(channels.phase), jnp.cos(channels.phase)
    early, late = ([cut(x, k) for x in waves] for k in (0, 1))
    convert = partial(jnp.asarray, dtype=dtype)

    def product(x: list[Array], y: list[Array]) -> Array:
        left, right = (convert(jnp.stack(z, 1)) for z in (x, y))
        planes = [a.T @ b for a, b in zip(left, right, strict=True)]
        return jnp.stack(planes) if planes else fall[:0]

    fall = convert(rows(channels.decay) - columns(channels.decay))
    furthest = 0.0 if continued is None else jnp.where(continued, STEEPEST, 0.0)
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
    model: AbstractTwoTimeModel, pair: Pair
) -> tuple[Float[Array, "*pair"], list[Float[Array, "*pair"]]]:
    """The model and its derivatives, in the order of `ChannelDerivatives`.

    By minus the difference of each decay clock, by the difference of each phase clock, and by
    each level at t1 and then at t2.
    """

    def along(part: Any, *tangents: Array) -> Array:
        def at(*values: Array) -> Array:
            return model.correlation(eqx.tree_at(part, pair, values))

        return jax.jvp(at, part(pair), tangents)[1]

    def only(k: int, x: Array, like: AnyArray) -> Array:
        return jnp.stack([x if i == k else jnp.zeros_like(x) for i in range(like.shape[0])])

    found = [along(lambda p: (p.decay,), only(k, x, pair.decay)) for k, x in enumerate(pair.decay)]
    for k, (sin, cos) in enumerate(zip(pair.sin, pair.cos, strict=True)):
        turn = (only(k, x, pair.sin) for x in (jnp.ones_like(sin), cos, -sin))
        found.append(along(lambda p: (p.shift, p.sin, p.cos), *turn))
    for part in (lambda p: (p.level1,), lambda p: (p.level2,)):
        levels = part(pair)[0]
        found += [along(part, only(k, jnp.ones_like(x), levels)) for k, x in enumerate(levels)]
    return model.correlation(pair), found


def channel_slopes(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    phi: Float[Array, ""],
    directions: Float[Array, "direction free"] | None = None,
) -> tuple[Channels, Channels]:
    """Channels at the frames and, along a first axis, their derivatives along directions.

    Those are directions in the `free` parameters, by default each of these; `phi` is the detector
    angle [degree].
    """
    index = np.flatnonzero(free)

    def at(values: Array) -> Channels:
        return model.channels(params.at[index].set(values), data.t, t=data.t, q=data.q, phi=phi)

    channels, change = jax.linearize(at, params[index])
    directions = jnp.eye(index.size, dtype=params.dtype) if directions is None else directions
    # One direction after the other: compilers would form power laws again for each at once.
    return channels, jax.lax.map(change, directions)
