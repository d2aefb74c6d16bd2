"""Series of fits: one angle after the other, and one parameter held at each of some values.

`profile` shows where a parameter's interval is not symmetric, as near a bound or for an exponent.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.fit import fit_nlsq
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.rates import AnyArray
from twotime.models.scaling import resolve_mode
from twotime.results.nlsq import NLSQResult, SequentialResult


def fit_sequential(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    *,
    throw: bool = False,
    **settings: Any,
) -> SequentialResult:
    """Fit every angle by itself, in the order of the data.

    The first angle starts as `fit_nlsq` would; each later one starts at the end of the last that
    converged, or like the first if none did. Every angle has parameters of its own, which shows
    whether a law holds at all angles alike; one angle alone may not determine all of them (the
    shear rate and phi0 of laminar flow, say), and its result says so.

    Args:
        model: The model.
        data: The data.
        space: Start, bounds and which parameters vary.
        throw: Raise if an angle does not converge.
        settings: Further arguments of `fit_nlsq`.

    Returns:
        The fits of the angles.

    Raises:
        ValueError: If the settings cannot be used for one angle alone, and as `fit_nlsq`.
        RuntimeError: If `throw` and an angle did not converge.
    """
    if resolve_mode(settings.get("per_angle_mode", "auto"), 1).is_series:
        raise ValueError(
            "per_angle_mode is 'fourier', a series over the angles; angles fitted one after the "
            "other have none; use 'auto'."
        )
    fits: list[NLSQResult] = []
    for k in range(data.phi.shape[0]):
        ends = [fit.values for fit in fits if fit.converged]
        start = {"starts": jnp.asarray(ends[-1])[None]} if ends else {}
        fits.append(fit_nlsq(model, one_angle(data, k), space, **settings | start))
    result = SequentialResult(tuple(fits))
    if throw and not result.converged:
        raise RuntimeError(result.status)
    return result


def one_angle(data: TwoTimeData, k: int) -> TwoTimeData:
    """The data of one angle alone."""

    def cut(x: Any) -> Any:
        return x if x is None or not x.ndim else x[k : k + 1]

    parts = {name: cut(getattr(data, name)) for name in ("c2", "phi", "mask", "sigma")}
    return dataclasses.replace(data, **parts)


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
        here = fixed.with_values(dict(zip(fixed.names, start, strict=True)))
        return fit_nlsq(model, data, here, per_angle_mode=fit.per_angle_mode).chi2

    chi2 = jax.lax.map(at, jnp.asarray(values))
    variance = fit.reduced_chi2 if data.sigma is None else 1.0
    inflation = fit.covariance[free, free] / fit.covariance_iid[free, free]
    return Profile(jnp.asarray(values), chi2, (chi2 - fit.chi2) / (variance * inflation))
