"""Derivatives of models against finite differences, and jumps along their parameters."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.config.parameter_space import ParameterSpace
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.correlation import correlation
from twotime.models.rates import AnyArray, Scalar

Vector = Float[np.ndarray, " _"]
At = dict[str, Array]

DERIVATIVE = 1e-6
# Steps of finite differences as a part of the distance between the bounds.
_STEPS = 0.01 * 8.0 ** -np.arange(9)
# Parameters moved by rounding, and how much worse rounding may be elsewhere.
_NEAR, _ROUNDINGS = 7, 8.0
_DIVISIONS = 9


@eqx.filter_jit
def planes(model: AbstractTwoTimeModel, thetas: Array, at: At) -> Array:
    """C at several parameters."""
    return jax.vmap(lambda theta: correlation(model, theta, **at))(thetas)


@eqx.filter_jit
def slopes(model: AbstractTwoTimeModel, thetas: Array, at: At) -> Array:
    """Derivatives of C at several parameters, these last."""
    one = jax.jacfwd(lambda theta: correlation(model, theta, **at))
    return jax.vmap(one)(thetas)


class Comparison(NamedTuple):
    """Derivatives against finite differences, for each parameter.

    Attributes:
        error: Largest difference, see `derivative_errors`; NaN where nothing settles.
        rounding: What rounding of values and derivatives explains of it, in the same unit.
    """

    error: Vector
    rounding: Vector


def derivative_errors(
    model: AbstractTwoTimeModel,
    space: ParameterSpace,
    theta: Float[AnyArray, " param"],
    *,
    t: Float[AnyArray, " time"],
    q: Scalar,
    phi: Float[AnyArray, " angle"],
) -> dict[str, float]:
    """Compare the derivatives of C with finite differences.

    Differences are central, or one-sided where a bound is near, over a ladder of steps with
    Richardson extrapolation; the step is chosen by the differences alone.

    Args:
        model: The model.
        space: Its parameters with bounds.
        theta: Where to compare.
        t: Frame times [s].
        q: Wavevector [1/Å].
        phi: Detector angles [degree].

    Returns:
        For each parameter the largest difference between the two, over all pairs, relative
        to the largest derivative or, where that is less, to a change of C by 1 between the
        bounds. NaN where no finite difference settles (a corner, or too steep for any step).
    """
    at = {"t": jnp.asarray(t), "q": jnp.asarray(q, float), "phi": jnp.asarray(phi)}
    error, _ = compare(model, space, np.asarray(theta), at)
    return dict(zip(model.names, error.tolist(), strict=True))


def compare(
    model: AbstractTwoTimeModel, space: ParameterSpace, theta: Vector, at: At
) -> Comparison:
    """Compare derivatives with finite differences, and both with themselves a few roundings away.

    Parameters moved by a few units of their last digit change C by its slope and by rounding; the
    rounding, over the step of the finite difference, is what this may be off.
    """
    lower, upper = np.asarray(space.lower), np.asarray(space.upper)
    n = len(theta)
    points, near = _ladder(theta, lower, upper), _nearly(theta)
    thetas = np.concatenate([theta[None], points.reshape(-1, n), near])
    c = np.asarray(planes(model, jnp.asarray(thetas), at)).reshape(len(thetas), -1)
    c, c_near = c[: -len(near)], c[-len(near) :]
    index = np.arange(n)
    # The steps as they were rounded when added.
    a, b = np.moveaxis(points[index, :, :, index] - theta[:, None, None], 2, 0)[..., None]
    f0, (fa, fb) = c[0], np.moveaxis(c[1:].reshape(*points.shape[:3], -1), 2, 0)
    # Slope at 0 of the parabola through 0, a and b; then one step of Richardson.
    difference = (b**2 * (fa - f0) - a**2 * (fb - f0)) / (a * b * (b - a))
    better = (64 * difference[:, 1:] - difference[:, :-1]) / 63
    several = np.asarray(slopes(model, jnp.asarray(np.concatenate([theta[None], near])), at))
    several = np.moveaxis(several.reshape(len(several), -1, n), 2, 1)
    exact, width = several[0], upper - lower
    rounded = np.abs(c_near - f0 - np.einsum("kp,px->kx", near - theta, exact)).max()
    by_step = _ROUNDINGS * rounded / (_STEPS[2:] * width[:, None])
    doubt = _doubt(np.abs(np.diff(better, axis=1)).max(-1), by_step)
    best = doubt.argmin(1)
    error = np.abs(better[index, best + 1] - exact).max(-1)
    unit = np.maximum(1.0, np.abs(exact).max(-1) * width)
    settled = (doubt[index, best] * width <= DERIVATIVE * unit) & (unit < 1 / _STEPS[-1])
    rounding = by_step[index, best] + _ROUNDINGS * np.abs(several[1:] - exact).max((0, 2))
    return Comparison(np.where(settled, error * width / unit, np.nan), rounding * width / unit)


def _doubt(
    change: Float[np.ndarray, "param step"], rounding: Float[np.ndarray, "param step"]
) -> Float[np.ndarray, "param step"]:
    """How far differences change from a step to the next, and more than rounding at smaller ones.

    Differences over many turns of a law that oscillates agree with each other at 0; smaller steps
    tell.
    """
    later = np.maximum(change - rounding, 0.0)[:, ::-1]
    return np.maximum(change, np.maximum.accumulate(later, axis=1)[:, ::-1])


def _nearly(theta: Vector) -> Float[np.ndarray, "near param"]:
    """Parameters a few roundings away."""
    signs = np.random.default_rng(0).integers(-3, 4, (_NEAR, len(theta)))
    return theta * (1.0 + signs * np.finfo(float).eps)


def row_count(n: int) -> int:
    """Rows of parameters that `compare` looks at at once: others take as many, compiled once."""
    return 1 + 2 * len(_STEPS) * n + _NEAR


def corners(space: ParameterSpace, count: int) -> Float[np.ndarray, "{count} param"]:
    """Corners of the bounds: of one parameter, all low, all high, and mixed ones."""
    lower, upper, initial = (np.asarray(x) for x in (space.lower, space.upper, space.initial))
    n = len(lower)
    found = [lower, upper, initial]
    for k in range(n):
        for bound in (lower, upper):
            found.append(np.where(np.arange(n) == k, bound, initial))
    mixed = np.random.default_rng(0).integers(0, 2, (max(count - len(found), 0), n))
    return np.concatenate([np.stack(found), np.where(mixed, upper, lower)])[:count]


def largest_jumps(
    model: AbstractTwoTimeModel, space: ParameterSpace, theta: Vector, at: At
) -> Vector:
    """Largest jump of C along each parameter between its bounds, as far as it can be cornered.

    The interval with the largest change is divided again and again; a continuous law changes less
    and less in it.
    """
    lower, upper = np.asarray(space.lower), np.asarray(space.upper)
    n, parts = len(theta), 2 * len(_STEPS) - 1
    low, high = lower.copy(), upper.copy()
    for _ in range(_DIVISIONS):
        places = low[:, None] + np.linspace(0.0, 1.0, parts + 1) * (high - low)[:, None]
        rows = np.repeat(theta[None], row_count(n), axis=0)
        for k in range(n):
            rows[k * (parts + 1) : (k + 1) * (parts + 1), k] = places[k]
        c = np.asarray(planes(model, jnp.asarray(rows), at)).reshape(len(rows), -1)
        by_place = np.nan_to_num(c[: n * (parts + 1)]).reshape(n, parts + 1, -1)
        jumps = np.abs(np.diff(by_place, axis=1)).max(-1)
        worst = jumps.argmax(1)
        low, high = (places[np.arange(n), worst + side] for side in (0, 1))
    return jumps.max(1)


def _ladder(
    centre: Vector, lower: Vector, upper: Vector
) -> Float[np.ndarray, "param step 2 param"]:
    """Two points per parameter and step, on both sides of the centre or inside of a bound."""
    width = upper - lower
    far = 2 * _STEPS[0] * width
    inward = np.where(centre - lower < far, 1.0, np.where(upper - centre < far, -1.0, 0.0))[:, None]
    factors = np.where(inward == 0, [1.0, -1.0], inward * [1.0, 2.0])
    steps = (_STEPS * width[:, None])[:, :, None] * factors[:, None, :]
    return centre + steps[..., None] * np.eye(len(centre))[:, None, None, :]
