"""Bands of the functions behind the parameters.

`delta_bands` takes the covariance of a fit, `draw_bands` draws of a posterior,
`functions_of_time` either result.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.compilation import compiled, verb
from twotime.models.base import AbstractTwoTimeModel, Curve
from twotime.models.rates import AnyArray
from twotime.results.cmc import CMCResult
from twotime.results.judgement import without_derivatives
from twotime.results.nlsq import NLSQResult

_DRAWS = 400


@verb
def delta_bands(
    model: AbstractTwoTimeModel,
    fit: NLSQResult,
    t: Float[AnyArray, " time"],
    *,
    width: float = 1.0,
    iid: bool = False,
) -> dict[str, Curve]:
    """Bands of J(t), strain(t), v(t), x_s(t) and so on from a fit's covariance.

    Args:
        model: The model that was fitted.
        fit: The result.
        t: Times [s].
        width: Half width of the bands [standard deviations].
        iid: Whether to take the covariance of independent points, for comparison.

    Raises:
        TypeError: If derivatives by what was fitted are taken: a covariance has none.
    """
    free, t = np.flatnonzero(fit.varying), jnp.asarray(t)
    covariance = without_derivatives(fit.covariance_iid if iid else fit.covariance, fit.values)

    def functions(x: Array) -> dict[str, Array]:
        found = model.functions(fit.values.at[free].set(x), t=t)
        return {name: jnp.asarray(function.values) for name, function in found.items()}

    slope = jax.jacfwd(functions)(fit.values[free])
    bands = {}
    for name, function in model.functions(fit.values, t=t).items():
        variance = jnp.einsum("tp,pq,tq->t", slope[name], covariance, slope[name])
        half = width * jnp.sqrt(jnp.maximum(variance, 0.0))
        ends = function.values - half, function.values + half
        bands[name] = _with_band(function, function.values, *ends)
    return bands


@verb
def draw_bands(
    model: AbstractTwoTimeModel,
    draws: Float[AnyArray, "draw param"],
    t: Float[AnyArray, " time"],
    *,
    level: float = 0.68,
) -> dict[str, Curve]:
    """The same bands from draws of all parameters: medians and central intervals.

    Args:
        model: The model.
        draws: Draws of all parameters in the order of `model.names`.
        t: Times [s].
        level: Probability inside the interval.
    """
    ends = jnp.asarray([0.5, 0.5 - level / 2, 0.5 + level / 2])
    found = jax.vmap(lambda p: model.functions(p, t=jnp.asarray(t)))(jnp.asarray(draws))
    return {
        name: _with_band(function, *jnp.quantile(function.values, ends, axis=0))
        for name, function in found.items()
    }


def _with_band(function: Curve, values: AnyArray, lower: AnyArray, upper: AnyArray) -> Curve:
    return dataclasses.replace(function, values=values, lower=lower, upper=upper)


@verb
def functions_of_time(
    result: NLSQResult | CMCResult,
    model: AbstractTwoTimeModel,
    t: Float[Array | np.ndarray, " time"],
) -> dict[str, Curve]:
    """Functions of time that the parameters describe, with bands of one standard deviation.

    Args:
        result: A fit; or a posterior, for medians with 68 % bands of the draws.
        model: The model.
        t: Frame times [s].

    Returns:
        J and strain, velocity or fraction by name; empty for a model that defines none.
    """
    t = jnp.asarray(t)
    if isinstance(result, CMCResult):
        draws = result.all_draws()
        count = min(_DRAWS, len(draws))
        chosen = np.unique(np.linspace(0, len(draws) - 1, count).astype(int))
        bands = draw_bands(model, jnp.asarray(draws[chosen]), t)
    else:
        bands = dict(_delta_bands(model, result, t))
    return {name: jax.tree.map(np.asarray, band) for name, band in bands.items()}


@compiled
def _delta_bands(
    model: AbstractTwoTimeModel, result: NLSQResult, t: Array
) -> list[tuple[str, Curve]]:
    return list(delta_bands(model, result, t).items())
