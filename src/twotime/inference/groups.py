"""A few hundred numbers that stand for the data while starts are searched."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.config.parameter_space import ParameterSpace
from twotime.core.compilation import compiled
from twotime.core.correlation import correlation_at
from twotime.core.models import AbstractTwoTimeModel
from twotime.core.scaling import Scaling, make_scaling, solve_scaling
from twotime.data.dataset import TwoTimeData

AGES = 9
LAGS, _GRID = 32, 128
_EARLY = (0.01, 0.025, 0.05)  # power laws and fractions change most at the beginning


class Groups(eqx.Module):
    """Correlation averaged over pixels of equal lag and similar age.

    Attributes:
        t1: Earlier time of the group's mean pixel [s].
        t2: Its later time [s].
        c2: Mean correlation, 0 where no pixel is usable.
        weight: Number of usable pixels.
    """

    t1: Float[Array, " pair"]
    t2: Float[Array, " pair"]
    c2: Float[Array, "angle pair"]
    weight: Float[Array, "angle pair"]


@compiled
def group(data: TwoTimeData, lags: int = LAGS) -> Groups:
    """Average the usable pixels with t1 < t2 over groups of equal lag and similar age.

    Args:
        data: The data.
        lags: How many lags, spaced evenly in their logarithm.
    """
    c2, t = jnp.asarray(data.c2), jnp.asarray(data.t)
    used = jnp.isfinite(c2) if data.mask is None else jnp.isfinite(c2) & data.mask
    n = t.shape[0]
    edges = (n - 1) * np.concatenate([_EARLY, np.arange(1, AGES) / AGES])
    times, mean, weight = [], [], []
    for lag in np.unique(np.round(np.geomspace(1, n - 1, lags)).astype(int)):
        age = np.searchsorted(edges, np.arange(n - lag), side="right")
        ages, place = np.unique(age, return_inverse=True)
        member = place == np.arange(ages.size)[:, None]
        counted = jnp.diagonal(used, lag, 1, 2)
        values = jnp.where(counted, jnp.diagonal(c2, lag, 1, 2), 0.0)
        count = counted @ member.T.astype(float)
        mean.append(values @ member.T / jnp.maximum(count, 1.0))
        weight.append(count)
        first = member @ np.arange(n - lag) / member.sum(1)
        times.append(np.stack([first, first + lag]))
    t1, t2 = jnp.interp(np.concatenate(times, axis=1), np.arange(n), t)
    return Groups(t1, t2, jnp.concatenate(mean, axis=1), jnp.concatenate(weight, axis=1))


def free_scaling(data: TwoTimeData, space: ParameterSpace, mode: str) -> Scaling:
    """The scaling of a fit; what "constant" would freeze is free here."""
    vary = np.asarray(space.scaling_varying)
    lower = jnp.where(vary, space.scaling_lower, space.scaling_initial)
    upper = jnp.where(vary, space.scaling_upper, space.scaling_initial)
    mode = "individual" if mode == "constant" else mode
    return make_scaling(mode, jnp.asarray(data.phi), lower, upper)


def curves(
    model: AbstractTwoTimeModel, data: TwoTimeData, groups: Groups, params: Float[Array, " param"]
) -> Float[Array, "angle pair"]:
    """The model at the groups, its rates integrated on a grid of few frames."""
    n = data.t.shape[0]
    grid = jnp.asarray(data.t)[np.unique(np.linspace(0, n - 1, _GRID).astype(int))]

    def one(phi: Array) -> Array:
        return correlation_at(model, params, groups.t1, groups.t2, t=grid, q=data.q, phi=phi)

    return jax.vmap(one)(jnp.asarray(data.phi))


@compiled
def groups_chi2(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    groups: Groups,
    scaling: Scaling,
    weight: Float[Array, "angle pair"],
    params: Float[Array, "candidate param"],
) -> Float[Array, " candidate"]:
    """χ² of candidates on the groups, contrast and offset at their best."""

    def one(p: Array) -> Array:
        value = curves(model, data, groups, p)
        basis = jnp.stack([groups.c2, jnp.ones_like(groups.c2), value], axis=1)
        moments = jnp.einsum("aip,ap,ajp->aij", basis, weight, basis)
        solution = solve_scaling(moments, scaling)
        ones = jnp.ones_like(solution.offset)
        combine = jnp.stack([ones, -solution.offset, -solution.contrast], axis=1)
        found = jnp.einsum("ai,aij,aj->", combine, moments, combine)
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    return jax.vmap(one)(params)
