"""Bands of the functions behind the parameters, and the profile of chi-squared along one.

`delta_bands` takes a covariance, `draw_bands` draws of a posterior. `profile` shows where a
parameter's interval is not symmetric, as near a bound or for an exponent.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.fit.nlsq import fit_nlsq
from twotime.models.base import AbstractTwoTimeModel, Curve
from twotime.models.derived import derived
from twotime.models.rates import AnyArray
from twotime.results.nlsq import NLSQResult


class Profile(eqx.Module):
    """The best fit with one parameter fixed at each of some values.

    Attributes:
        values: Values of the parameter.
        chi2: Smallest chi-squared at each.
        height: Its rise above the fit's, in units in which 1 and 4 bound the 68 and 95 %
            intervals: the correlation of the noise is taken into account.
    """

    values: Float[Array, " value"]
    chi2: Float[Array, " value"]
    height: Float[Array, " value"]


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
        iid: Whether to take the covariance of independent pixels, for comparison.
    """
    free, t = np.flatnonzero(fit.varying), jnp.asarray(t)
    covariance = fit.covariance_iid if iid else fit.covariance

    def functions(x: Array) -> dict[str, Array]:
        found = derived(model, fit.values.at[free].set(x), t=t)
        return {name: jnp.asarray(function.values) for name, function in found.items()}

    slope = jax.jacfwd(functions)(fit.values[free])
    bands = {}
    for name, function in derived(model, fit.values, t=t).items():
        variance = jnp.einsum("tp,pq,tq->t", slope[name], covariance, slope[name])
        half = width * jnp.sqrt(jnp.maximum(variance, 0.0))
        ends = function.values - half, function.values + half
        bands[name] = _with_band(function, function.values, *ends)
    return bands


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
    found = jax.vmap(lambda p: derived(model, p, t=jnp.asarray(t)))(jnp.asarray(draws))
    return {
        name: _with_band(function, *jnp.quantile(function.values, ends, axis=0))
        for name, function in found.items()
    }


def profile(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    fit: NLSQResult,
    name: str,
    values: Float[AnyArray, " value"],
) -> Profile:
    """Profile chi-squared along one parameter: the others are fitted anew at each value.

    Args:
        model: The model.
        data: The data.
        space: The space that was fitted.
        fit: The result.
        name: The parameter.
        values: Where to fix it.

    Raises:
        ValueError: If the parameter was not fitted, or the loss was not that of squares.
    """
    if name not in fit.names:
        raise ValueError(
            f"Parameter {name!r} was not fitted; expected one of {', '.join(fit.names)}."
        )
    if fit.loss != "linear":
        raise ValueError(
            f"The fit minimised the loss {fit.loss!r}; a profile is that of chi-squared. Profile a "
            "fit with loss='linear'."
        )
    place, free = fit.all_names.index(name), fit.names.index(name)
    fixed = space.with_vary({name: False})

    def at(value: Array) -> Array:
        start = fit.values.at[place].set(value)
        here = eqx.tree_at(lambda s: s.initial, fixed, start)
        again = fit_nlsq(model, data, here, per_angle_mode=fit.per_angle_mode)
        return again.chi2

    chi2 = jax.lax.map(at, jnp.asarray(values))
    variance = fit.reduced_chi2 if data.sigma is None else 1.0
    inflation = fit.covariance[free, free] / fit.covariance_iid[free, free]
    return Profile(jnp.asarray(values), chi2, (chi2 - fit.chi2) / (variance * inflation))


def _with_band(function: Curve, values: Array, lower: Array, upper: Array) -> Curve:
    return dataclasses.replace(function, values=values, lower=lower, upper=upper)
