"""What a posterior predicts of the data: mean and spread of c2 over draws."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.core.compilation import compiled
from twotime.core.correlation import correlation
from twotime.core.models import AbstractTwoTimeModel
from twotime.data.dataset import TwoTimeData
from twotime.results.cmc import CMCResult


def predictive(
    result: CMCResult, model: AbstractTwoTimeModel, data: TwoTimeData, n_draws: int = 200
) -> tuple[Float[np.ndarray, "angle time time"], Float[np.ndarray, "angle time time"]]:
    """Posterior mean of the fitted c2, and the standard deviation of a pixel's prediction.

    Args:
        result: The posterior.
        model: The model that was sampled.
        data: The data, for their axes and sigma.
        n_draws: Draws to average over, evenly spread.

    Returns:
        Mean, and the deviation from parameters and noise together.

    Raises:
        ValueError: If `n_draws` is not positive.
    """
    if n_draws < 1:
        raise ValueError(f"n_draws is {n_draws}; expected at least 1 draw to predict from.")
    draws = result.all_draws()
    chosen = np.unique(np.linspace(0, len(draws) - 1, min(n_draws, len(draws))).astype(int))
    n_angles = result.contrast.shape[-1]
    contrast, offset = (x.reshape(-1, n_angles)[chosen] for x in (result.contrast, result.offset))
    noise = result.noise.reshape(-1)[chosen]
    mean, square = _moments(model, data, *map(jnp.asarray, (draws[chosen], contrast, offset)))
    spread = np.maximum(np.asarray(square) - np.asarray(mean) ** 2, 0.0)
    if data.sigma is None:
        return np.asarray(mean), np.sqrt(spread + np.mean(noise**2))
    return np.asarray(mean), np.sqrt(spread + np.asarray(data.sigma) ** 2)


@compiled
def _moments(
    model: AbstractTwoTimeModel, data: TwoTimeData, draws: Array, contrast: Array, offset: Array
) -> tuple[Array, Array]:
    t, q, phi = (jnp.asarray(x) for x in (data.t, data.q, data.phi))

    def add(sums: tuple[Array, Array], x: tuple[Array, Array, Array]) -> tuple[Any, None]:
        params, c, o = x
        c2 = c[:, None, None] * correlation(model, params, t=t, q=q, phi=phi) + o[:, None, None]
        return (sums[0] + c2, sums[1] + c2 * c2), None

    blank = jnp.zeros(data.c2.shape)
    sums, _ = jax.lax.scan(add, (blank, blank), (draws, contrast, offset))
    return sums[0] / draws.shape[0], sums[1] / draws.shape[0]
