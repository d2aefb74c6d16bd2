"""Blocks of frames as long as a part of the correlation time, and a model at pairs of their points.

A block holds frames over which the correlation hardly changes, one frame where it falls within a
few: blocks follow the correlation time along the record. Their places are numbers, so that one
compiled program serves all parameters.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

from twotime.gram.pairs import ChannelDerivatives, slopes
from twotime.models.base import AbstractTwoTimeModel, Channels, Pair
from twotime.models.correlation import pairs

WHOLE = 128
"""Largest number of frames that are not taken together."""
TILE = 32
"""Blocks in a tile; pairs of blocks in neighbouring tiles count as close in time."""
GROUPS = 64
"""Groups of blocks on which everything is kept that changes slowly, and least number of blocks."""
_IN_HALF_TIME = 3.0
"""Blocks in the time in which the correlation falls half-way to its smallest value."""
_ANCHORS, _LAGS = 64, 24

Slopes = tuple[Channels, Channels]
"""Channels of an angle and, along a first axis, their derivatives."""


class Span(NamedTuple):
    """Consecutive frames, an array of such: the first of each and how many they are."""

    first: Array
    size: Array

    @property
    def middle(self) -> Array:
        """Mean place of the frames [frame]."""
        return self.first + 0.5 * (self.size - 1.0)

    def at(self, index: Any) -> "Span":
        """Some of them."""
        return Span(self.first[index], self.size[index])

    def pairs_within(self, other: "Span", lag: int) -> Array:
        """How many pairs of a frame of each are at most so many frames apart."""

        def ramp(x: Array) -> Array:
            return 0.5 * jnp.maximum(x, 0.0) * (jnp.maximum(x, 0.0) + 1.0)

        def ahead_by(most: int) -> Array:
            d = most - (other.first - self.first)
            more = ramp(d + self.size - other.size) - ramp(d - other.size)
            return ramp(d + self.size) - ramp(d) - more

        return ahead_by(lag) - ahead_by(-lag - 1)


class Blocks(eqx.Module):
    """Consecutive frames of one angle taken together; behind the last block follow empty ones.

    Attributes:
        first: First frame of each block.
        size: Frames in it.
        group: Group of blocks that it belongs to.
        points: Two places in it whose mean stands for its frames (Gauss's rule) [frame].
        count: Number of blocks that are not empty.
    """

    first: Int[Array, " block"]
    size: Float[Array, " block"]
    group: Int[Array, " block"]
    points: Float[Array, "block 2"]
    count: Int[Array, ""]

    def middles(self) -> Float[Array, " group"]:
        """Mean place of the blocks of each group [block]."""
        place = jnp.arange(self.size.shape[0], dtype=float)
        n_groups, is_block = min(GROUPS, place.size), (place < self.count).astype(float)
        total = jax.ops.segment_sum(place * is_block, self.group, n_groups)
        return total / jnp.maximum(jax.ops.segment_sum(is_block, self.group, n_groups), 1.0)


def half_times(model: AbstractTwoTimeModel, channels: Channels) -> Float[Array, " time"]:
    """Lag at which the correlation has fallen half-way, for each frame [frame].

    Looked for at some frames, later than those of the first half of the record and earlier than
    those of the second.
    """
    n = channels.level.shape[1]
    anchors = np.unique(np.linspace(0, n - 1, min(n, _ANCHORS)).round().astype(int))
    lags = np.unique(np.geomspace(1, max(n // 2, 1), _LAGS).round().astype(int))
    others = anchors[:, None] + np.where(anchors < n // 2, 1, -1)[:, None] * lags
    others = np.clip(others, 0, n - 1)
    first, second = np.minimum(anchors[:, None], others), np.maximum(anchors[:, None], others)
    fall = jnp.pad(model.correlation(pairs(channels, first, second)), ((0, 0), (1, 0)))
    fall = fall.at[:, 0].set(1.0)
    level = 0.5 * (1.0 + fall.min(axis=1, keepdims=True))
    after = jnp.argmax(fall <= level, axis=1)[:, None]
    here, before = (jnp.take_along_axis(fall, k, 1) for k in (after, jnp.maximum(after - 1, 0)))
    steps = jnp.asarray(np.append(0, lags), fall.dtype)
    part = jnp.clip((before - level) / jnp.maximum(before - here, 1e-12), 0.0, 1.0)
    found = steps[after - 1] + part * (steps[after] - steps[after - 1])
    found = jnp.where(after > 0, found, steps[-1])[:, 0]
    return jnp.exp(jnp.interp(jnp.arange(n), anchors, jnp.log(jnp.maximum(found, 1e-3))))


def cut_blocks(model: AbstractTwoTimeModel, channels: Channels) -> Blocks:
    """Cut the frames of an angle into blocks, at least `GROUPS` of them where there are frames."""
    n = channels.level.shape[1]
    n_groups, room = min(GROUPS, n), -(-n // TILE) * TILE
    longest = max(1.0, n / GROUPS)
    speed = 1.0 / jnp.clip(half_times(model, channels) / _IN_HALF_TIME, 1.0, longest)
    # No block is left out, for a frame is at most one block.
    block = jnp.floor(jnp.cumsum(speed) - speed + 1e-9).astype(int)
    count = block[-1] + 1
    ends = jnp.searchsorted(block, jnp.arange(room + 1))
    first, size = ends[:-1], jnp.diff(ends).astype(speed.dtype)
    group = jnp.arange(room) * jnp.minimum(count, n_groups) // count
    middle = first + 0.5 * (size - 1)
    half = 0.5 * jnp.sqrt(jnp.maximum(size**2 - 1, 0.0) / 3.0)
    points = jnp.clip(jnp.stack([middle - half, middle + half], axis=1), 0.0, n - 1.0)
    return Blocks(first, size, jnp.minimum(group, n_groups - 1), points, count)


def read_at(functions: PyTree[Array], places: Float[Array, "*place"]) -> PyTree[Array]:
    """Functions given on the frames (last axis), at places between frames."""

    def read(x: Array) -> Array:
        left = jnp.clip(jnp.floor(places).astype(int), 0, x.shape[-1] - 2)
        part = places - left
        return (1 - part) * x[..., left] + part * x[..., left + 1]

    return jax.tree.map(read, functions)


class Planes(eqx.Module):
    """A model at pairs of times.

    Attributes:
        value: Normalised correlation.
        derivative: Its derivatives along directions in the free parameters.
        field: Field correlation; of a model that does not say it, the real root.
    """

    value: Float[Array, "*pair"]
    derivative: Float[Array, "direction *pair"]
    field: Num[Array, "*pair"]


def pairs_between(
    first: Channels,
    second: Channels,
    ahead: Bool[Array, "*pair"],
    dtype: DTypeLike | None = None,
) -> Pair:
    """Pairs of times from the channels at each, which are broadcast; `ahead` where first <= second.

    Sine and cosine of differences are products, so that few times make many pairs cheaply.
    Differences of clocks are formed before they are converted to `dtype`.
    """

    def convert(x: Any) -> Array:
        return jnp.asarray(x, dtype)

    (sin1, cos1), (sin2, cos2) = (
        (convert(jnp.sin(x.phase)), convert(jnp.cos(x.phase))) for x in (first, second)
    )
    sin, shift = sin2 * cos1 - cos2 * sin1, convert(second.phase - first.phase)
    shape = jnp.broadcast_shapes(first.level.shape, second.level.shape)
    level1, level2 = (jnp.broadcast_to(convert(x.level), shape) for x in (first, second))
    return Pair(
        decay=jnp.exp(-jnp.abs(convert(second.decay - first.decay))),
        shift=jnp.where(ahead, shift, -shift),
        sin=jnp.where(ahead, sin, -sin),
        cos=cos2 * cos1 + sin2 * sin1,
        level1=jnp.where(ahead, level1, level2),
        level2=jnp.where(ahead, level2, level1),
    )


def field_of(
    model: AbstractTwoTimeModel, pair: Pair, value: Array, ahead: Bool[Array, "*pair"]
) -> Num[Array, "*pair"]:
    """Field correlation of pairs in either order; the real root where a model does not say it."""
    has_field = type(model).field is not AbstractTwoTimeModel.field
    field = model.field(pair) if has_field else jnp.sqrt(jnp.maximum(value, 0.0))
    return jnp.where(ahead, field, jnp.conj(field))


def planes_between(
    model: AbstractTwoTimeModel,
    first: Slopes,
    second: Slopes,
    ahead: Bool[Array, "*pair"],
    dtype: DTypeLike | None = None,
) -> Planes:
    """A model and its derivatives at pairs of times in either order.

    Args:
        model: The model.
        first: Channels at the first times and their derivatives, to be broadcast.
        second: Channels at the second times and their derivatives.
        ahead: Where the first time is not the later one.
        dtype: Precision of the planes.
    """
    pair = pairs_between(first[0], second[0], ahead, dtype)
    value, along = slopes(model, pair)
    side, other = (
        ChannelDerivatives.of(jax.tree.map(lambda a: jnp.asarray(a, dtype), x[1]))
        for x in (first, second)
    )
    derivative = jnp.zeros((first[1].level.shape[0], *value.shape), value.dtype)
    for k, g in enumerate(along):
        early = jnp.where(ahead, side.row[k], side.column[k])
        derivative += g * (early + jnp.where(ahead, other.column[k], other.row[k]))
    return Planes(value, derivative, field_of(model, pair, value, ahead))


def pooled(x: Array) -> Array:
    """Means over the two points of each block, of rows and columns."""
    return x.reshape(*x.shape[:-2], x.shape[-2] // 2, 2, x.shape[-1] // 2, 2).mean((-3, -1))


def pooled_planes(
    model: AbstractTwoTimeModel, first: Slopes, second: Slopes, ahead: Bool[Array, "row column"]
) -> Planes:
    """Means of `planes_between` over the two points of each block.

    Args:
        model: The model.
        first: Channels at the points of some blocks and their derivatives.
        second: Channels at the points of others and their derivatives.
        ahead: Where the first time is not the later one.
    """
    wide, tall = (jax.tree.map(put, x) for put, x in ((_as_rows, first), (_as_columns, second)))
    pair = pairs_between(wide[0], tall[0], ahead)
    value, along = slopes(model, pair)
    (rows, columns), shape = ahead.shape, (-1, ahead.shape[0] // 2, 2, ahead.shape[1] // 2, 2)
    planes = jnp.stack(along)
    planes = jnp.concatenate([jnp.where(ahead, planes, 0.0), jnp.where(ahead, 0.0, planes)])
    planes = planes.reshape(shape)
    side, other = (ChannelDerivatives.of(x[1]) for x in (first, second))
    # First the mean over columns, then the sum with what belongs to rows; and the reverse.
    left = jnp.concatenate([side.row, side.column]).reshape(-1, side.row.shape[1], rows // 2, 2)
    right = jnp.concatenate([other.column, other.row])
    right = right.reshape(-1, side.row.shape[1], columns // 2, 2)
    derivative = jnp.einsum("kiaj,kpia->pij", planes.mean(4), left) / 2
    derivative += jnp.einsum("kijb,kpjb->pij", planes.mean(2), right) / 2
    return Planes(pooled(value), derivative, pooled(field_of(model, pair, value, ahead)))


def _as_rows(x: Array) -> Array:
    return x[..., :, None]


def _as_columns(x: Array) -> Array:
    return x[..., None, :]


def single(x: PyTree[Array]) -> PyTree[Array]:
    """Arrays in single precision."""
    return jax.tree.map(
        lambda a: jnp.asarray(a).astype(jnp.complex64 if jnp.iscomplexobj(a) else jnp.float32), x
    )
