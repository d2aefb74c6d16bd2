"""Gram matrices: the one reduction under fits, posteriors and error bars.

For a pair of frames t1 < t2 let b = [data, 1, model, ∂model/∂θ_1 … ∂model/∂θ_P]. The Gram matrix
Σ w b bᵀ of an angle holds χ², its gradient and the Gauss-Newton matrix for any contrast and
offset. Two evaluators compute it: `Tiled` for any model and data, `Separable` for models that are
sums of products.
"""

import dataclasses

import numpy as np

from twotime.data.dataset import TwoTimeData
from twotime.gram.evaluator import TILE, AbstractEvaluator, all_devices, device_mesh, fetch, place
from twotime.gram.separable import Separable, SeparableData
from twotime.gram.tiled import Tiled, TiledData
from twotime.models.base import AbstractTwoTimeModel

__all__ = ["Evaluator", "Prepared", "Separable", "Tiled", "all_devices", "choose_evaluator",
           "device_mesh", "fetch", "place"]  # fmt: skip

Evaluator = Tiled | Separable
Prepared = TiledData | SeparableData


def choose_evaluator(
    model: AbstractTwoTimeModel, data: TwoTimeData, asked: str | Evaluator, tile: int = TILE
) -> tuple[TwoTimeData, Evaluator]:
    """Turn a word into an evaluator, and drop a mask that hides nothing above the diagonal.

    `Separable` takes separable models where all points with t1 < t2 are finite and count alike. Of
    traced data without a mask it is assumed that they are finite.

    Args:
        model: The model.
        data: The data.
        asked: "auto", "tiled" (any model, mask and sigma), "factored" or "separable"; or an
            evaluator.
        tile: Largest edge of a tile [frame], where a word is given.

    Returns:
        The data to evaluate on, and the evaluator.

    Raises:
        ValueError: If the evaluator is unknown or cannot take this model or these data.
    """
    words = ("auto", "tiled", "factored", "separable")
    if not isinstance(asked, AbstractEvaluator) and asked not in words:
        raise ValueError(f"evaluator is {asked!r}; expected one of {', '.join(words)}.")
    if asked == "tiled" or isinstance(asked, Tiled):
        return data, asked if isinstance(asked, Tiled) else Tiled(tile)
    obstacle = _obstacle(model, data)
    if obstacle and asked == "auto":
        return data, Tiled(tile)
    if obstacle:
        raise ValueError(
            f"The factored evaluator cannot be used: {obstacle}; use 'auto' or 'tiled'."
        )
    found = asked if isinstance(asked, Separable) else Separable(tile)
    return dataclasses.replace(data, mask=None), found


def _obstacle(model: AbstractTwoTimeModel, data: TwoTimeData) -> str:
    if not model.is_separable:
        return f"{type(model).__name__} is not a sum of products of functions of one time"
    if data.sigma is not None and np.ndim(data.sigma) > 0:
        return "sigma differs from point to point"
    return "" if data.is_complete() else "some points are masked or not finite"
