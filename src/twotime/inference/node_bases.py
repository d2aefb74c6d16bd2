"""The nodes of tiles: few frames that hold every polynomial, and what they stand for.

Rates are powers of the time, so in the first tile every early frame is a node, and polynomials go
through the late ones alone: it is two blocks of frames, every other tile is one.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

GROUP = 3
"""Blocks come in multiples of it."""
_PLACES = 32


class Basis(NamedTuple):
    """Nodes of a block of frames, counted from the first frame of its tile.

    Attributes:
        frames: The nodes.
        lagrange: Values at all frames of the tile from those at the nodes; 0 outside the block.
        tail: What makes the last two Chebyshev coefficients; 0 where every frame is a node.
    """

    frames: Int[np.ndarray, " node"]
    lagrange: Float[np.ndarray, "frame node"]
    tail: Float[np.ndarray, "node 2"]


@functools.cache
def bases_of(edge: int) -> tuple[list[Basis], Basis]:
    """Bases of the first tile, its early frames and its late ones, and that of any other."""
    nodes = chebyshev_nodes(edge)
    count, other = nodes.size, _polynomials(nodes, edge)
    width = edge - count
    # Polynomials through nearly all frames would lose digits.
    if width < 1.1 * count:
        return [other], other
    early = Basis(np.arange(count), np.eye(edge, count), np.zeros((count, 2)))
    late = _polynomials(chebyshev_nodes(width, count), width)
    lagrange = np.concatenate([np.zeros((count, count)), late.lagrange])
    return [early, Basis(count + late.frames, lagrange, late.tail)], other


def _polynomials(nodes: Int[np.ndarray, " node"], width: int) -> Basis:
    def chebyshev(frames: np.ndarray) -> np.ndarray:
        return np.polynomial.chebyshev.chebvander(2 * frames / (width - 1) - 1, nodes.size - 1)

    coefficients = np.linalg.inv(chebyshev(nodes))
    return Basis(nodes, chebyshev(np.arange(width)) @ coefficients, coefficients[-2:].T)


def chebyshev_nodes(width: int, count: int | None = None) -> Int[np.ndarray, " node"]:
    """Frames near the extrema of a Chebyshev polynomial; `count` of them, if that is given."""
    for places in [_PLACES] if count is None else range(count, width * width):
        angles = np.linspace(0.0, np.pi, places)
        nodes = np.unique(np.round(0.5 * (width - 1) * (1 - np.cos(angles))).astype(int))
        if nodes.size == (count or nodes.size):
            return nodes
    raise AssertionError(f"{width} frames have no {count} nodes")


def tile_starts(n_frames: int, edge: int) -> Int[np.ndarray, " tile"]:
    """First frame of each tile; the last is moved back inside."""
    return np.minimum(edge * np.arange(-(-n_frames // edge)), n_frames - edge)


def node_count(edge: int) -> int:
    """How many nodes every block has."""
    return bases_of(edge)[1].frames.size


def blocks_of(n_frames: int, edge: int) -> tuple[Int[np.ndarray, " block"], list[Basis]]:
    """The tile of every block of frames, and its basis; copies of the last fill up a group."""
    first, other = bases_of(edge)
    n_tiles = -(-n_frames // edge)
    tiles = np.concatenate([np.zeros(len(first), int), np.arange(1, n_tiles)])
    tiles = np.pad(tiles, (0, -tiles.size % GROUP), mode="edge")
    return tiles, first + [other] * (tiles.size - len(first))


def node_frames(n_frames: int, edge: int) -> Int[np.ndarray, " node"]:
    """The nodes of all blocks, one after the other."""
    tiles, bases = blocks_of(n_frames, edge)
    starts = tile_starts(n_frames, edge)
    return np.concatenate([starts[k] + b.frames for k, b in zip(tiles, bases, strict=True)])


def node_tails(n_frames: int, edge: int) -> Float[np.ndarray, "block place 2"]:
    """What makes the last two Chebyshev coefficients of values at the nodes of each block."""
    return np.stack([basis.tail for basis in blocks_of(n_frames, edge)[1]])


class NodeCounts(NamedTuple):
    """What the nodes of blocks stand for where all pixels t1 < t2 count alike.

    Attributes:
        frames: Frames for which each node stands.
        pixels: Pixels of the block itself for which each pair of nodes stands.
    """

    frames: Float[np.ndarray, "block node"]
    pixels: Float[np.ndarray, "block node node"]


@functools.cache
def node_counts(n_frames: int, edge: int) -> NodeCounts:
    """Count frames and pixels of each block at its nodes; a frame of two tiles is of the first."""
    tiles, bases = blocks_of(n_frames, edge)
    frames = tile_starts(n_frames, edge)[tiles][:, None] + np.arange(edge)
    is_copy = np.arange(tiles.size) >= tiles.max() + len(bases_of(edge)[0])
    own = (frames >= edge * tiles[:, None]) & ~is_copy[:, None]
    lagrange = own[:, :, None] * np.stack([basis.lagrange for basis in bases])
    later = np.triu(np.ones((edge, edge)), 1)
    return NodeCounts(lagrange.sum(1), np.swapaxes(lagrange, 1, 2) @ later @ lagrange)
