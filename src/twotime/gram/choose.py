"""Which evaluator computes the Gram matrix, and by what right."""

import dataclasses
from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from twotime.data.dataset import TwoTimeData
from twotime.gram.devices import over_angles, over_tiles
from twotime.gram.pairs import MODEL, tile_corners, tile_edge
from twotime.gram.separable import Squares, cut_squares, factored_gram
from twotime.gram.tiled import TILE, DataSums, data_sums, gram
from twotime.models.base import AbstractTwoTimeModel

Evaluator = Literal["auto", "tiled", "factored"]
Prepared = Squares | DataSums


def choose_evaluator(
    model: AbstractTwoTimeModel, data: TwoTimeData, asked: str
) -> tuple[TwoTimeData, str]:
    """Resolve "auto" and drop a mask that hides nothing above the diagonal.

    The factored evaluator takes separable models where all pixels with t1 < t2 are finite and
    count alike. Of traced data without a mask it is assumed that they are finite.

    Args:
        model: The model.
        data: The data.
        asked: "auto", "tiled" (any model, mask and sigma) or "factored".

    Returns:
        The data to evaluate on, and "tiled" or "factored".

    Raises:
        ValueError: If the evaluator is unknown or cannot take this model or these data.
    """
    if asked not in get_args(Evaluator):
        raise ValueError(
            f"evaluator is {asked!r}; expected one of {', '.join(get_args(Evaluator))}."
        )
    if asked == "tiled":
        return data, asked
    reason = _obstacle(model, data)
    if asked == "factored" and reason:
        raise ValueError(f"The factored evaluator cannot be used: {reason}; use 'auto' or 'tiled'.")
    if reason:
        return data, "tiled"
    return dataclasses.replace(data, mask=None), "factored"


def prepare(
    evaluator: str, data: TwoTimeData, shift: Float[Array, ""], tile: int = TILE
) -> Prepared:
    """What an evaluator makes of the data alone, once for all evaluations.

    Args:
        evaluator: "tiled" or "factored".
        data: The data.
        shift: Subtracted from the data, to keep digits.
        tile: Largest edge of a tile of the tiled evaluator [frame].
    """
    return cut_squares(data, shift) if evaluator == "factored" else data_sums(data, shift, tile)


def evaluate_gram(
    evaluator: str,
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    params: Float[Array, " param"],
    free: tuple[bool, ...],
    shift: Float[Array, ""],
    tile: int = TILE,
    mesh: Mesh | None = None,
    with_normal: bool = True,
    prepared: Prepared | None = None,
) -> Float[Array, "angle row basis"]:
    """The Gram matrices of `gram`, by a resolved evaluator, on the devices of a mesh.

    Args:
        evaluator: "tiled" or "factored".
        model: The model.
        data: The data.
        params: All parameters in the order of `model.names`.
        free: Which parameters are differentiated.
        shift: Subtracted from the data, to keep digits.
        tile: Largest edge of a tile of the tiled evaluator [frame].
        mesh: Devices that share the angles, or the tiles where there are fewer angles than
            devices (one angle in factored form stays on one); None for one device.
        with_normal: Whether products of derivatives are wanted.
        prepared: What `prepare` makes of the same data and shift; None makes it here.

    Returns:
        As `gram`, on every device.
    """

    def of_angles(shared: Any, part: TwoTimeData, prepared: Any) -> Array:
        model, params, shift = shared
        settings = model, part, params, free
        if evaluator == "factored":
            return factored_gram(*settings, shift=shift, squares=prepared, with_normal=with_normal)
        return gram(*settings, shift=shift, tile=tile, sums=prepared, with_normal=with_normal)

    def of_tiles(shared: Any, corners: Array) -> Array:
        (model, params, shift), data, known = shared
        nodes = known.nodes and known.nodes.of_tiles(corners, tile_edge(n, tile), n)
        return gram(
            model, data, params, free, shift=shift, tile=tile, corners=corners,
            sums=DataSums(jnp.zeros_like(known.moments), nodes), with_normal=with_normal,
        )  # fmt: skip

    n = data.c2.shape[-1]
    shared = model, params, shift
    prepared = prepare(evaluator, data, shift, tile) if prepared is None else prepared
    if mesh is None:
        return of_angles(shared, data, prepared)
    if isinstance(prepared, Squares) or data.phi.shape[0] >= mesh.size:
        return over_angles(mesh, of_angles, shared, data, prepared)
    found = over_tiles(mesh, of_tiles, (shared, data, prepared), tile_corners(n, tile), n)
    return found.at[:, :MODEL, :MODEL].set(prepared.moments)


def _obstacle(model: AbstractTwoTimeModel, data: TwoTimeData) -> str:
    if not model.is_separable:
        return f"{type(model).__name__} is not a sum of products of functions of one time"
    if data.sigma is not None and np.ndim(data.sigma) > 0:
        return "sigma differs from point to point"
    return "" if data.is_complete() else "some points are masked or not finite"
