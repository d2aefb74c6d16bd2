"""The mode of a posterior and its shape there, so that samplers see a round one.

The shape comes from differences of the gradient over half a standard deviation in every
direction, so it knows the curvature of the model and needs no second derivatives. Damped Newton
steps with it find the mode.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from twotime.compilation import compiled
from twotime.config.parameter_space import ParameterSpace
from twotime.sample.density import Posterior

_REACH = 0.5
_STEEPEST, _FLATTEST = 1e4, 0.05
_FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.02, 0.004)
_NEAR = 0.3
_PRIOR_DRAWS = 2000


class Shape(NamedTuple):
    """A Gaussian about the mode.

    Attributes:
        mode: Where the density is largest.
        root: Matrix whose columns are independent directions one standard deviation long.
        log_density: At the mode.
        gradient: Gradient left there [1 / standard deviation].
        n_steps: Newton steps taken.
    """

    mode: Float[np.ndarray, " coordinate"]
    root: Float[np.ndarray, "coordinate coordinate"]
    log_density: float
    gradient: float
    n_steps: int


def find_shape(
    posterior: Posterior,
    start: Float[np.ndarray, " coordinate"],
    width: Float[np.ndarray, " coordinate"],
    max_steps: int = 20,
) -> Shape:
    """Climb to the mode and measure the shape there.

    Args:
        posterior: The density.
        start: Where to begin.
        width: Guess of the standard deviation of each coordinate.
        max_steps: Largest number of Newton steps.

    Raises:
        ValueError: If the density is zero or not finite at the start.
    """
    place, root = np.asarray(start), np.diag(width)
    for step in range(max_steps + 1):
        value, slope, turn = map(
            np.asarray, _local(posterior, jnp.asarray(place), jnp.asarray(root))
        )
        if not np.isfinite(value) or not np.isfinite(turn).all():
            raise ValueError(
                "The posterior is zero or not finite where sampling starts; move the start "
                "inside bounds and priors, or fit the data first."
            )
        curvature, axes = np.linalg.eigh(-0.5 * (turn + turn.T))
        size = np.clip(np.abs(curvature), _FLATTEST, _STEEPEST) ** -0.5
        near = np.linalg.norm(slope) < _NEAR and np.all((curvature > 0.5) & (curvature < 2))
        root = root @ (axes * size)
        if near or step == max_steps:
            return Shape(place, root, float(value), float(np.linalg.norm(slope)), step)
        move = root @ (size * (axes.T @ slope))
        trials = place + np.asarray(_FRACTIONS)[:, None] * move
        heights = np.asarray(_heights(posterior, jnp.asarray(trials)))
        if heights.max() > value:
            place = trials[int(np.argmax(heights))]
    raise AssertionError("unreachable")


def prior_shape(posterior: Posterior, space: ParameterSpace, key: PRNGKeyArray) -> Shape:
    """Mean and spread of the prior, the noise level that of the data about their mean.

    Args:
        posterior: The density.
        space: The priors.
        key: Random key of draws of the prior.
    """
    parts = [(posterior.coordinates, posterior.coordinates.names)]
    sampled = posterior.scaling.sampled
    if sampled is not None:
        parts.append((sampled, sampled.names))
    middle, spread = [], []
    for coordinates, names in parts:
        draws = [
            space.priors[name].sample(jax.random.fold_in(key, 100 + i), (_PRIOR_DRAWS,))
            for i, name in enumerate(names)
        ]
        z = np.asarray(coordinates.from_values(jnp.stack(draws, axis=-1)))
        middle.append(z.mean(axis=0))
        spread.append(z.std(axis=0))
    if posterior.noise == "sampled":
        moments = posterior.source.moments(
            posterior.model, jnp.asarray(posterior.start), posterior.varying
        )
        square, count = (float(jnp.sum(moments[:, i, i])) for i in (0, 1))
        middle.append(np.asarray([0.5 * np.log(square / count)]))
        spread.append(np.asarray([0.1]))
    return Shape(np.concatenate(middle), np.diag(np.concatenate(spread)), 0.0, 0.0, 0)


@compiled
def _local(posterior: Posterior, place: Array, root: Array) -> tuple[Array, Array, Array]:
    """Density, gradient and Hessian in units of the columns of `root`."""

    def of_units(y: Array) -> Array:
        return posterior.log_density(place + root @ y)

    size = place.shape[0]
    steps = _REACH * jnp.concatenate([jnp.zeros((1, size)), jnp.eye(size), -jnp.eye(size)])
    values, slopes = jax.lax.map(jax.value_and_grad(of_units), steps)
    turn = (slopes[1 : size + 1] - slopes[size + 1 :]) / (2 * _REACH)
    return values[0], slopes[0], 0.5 * (turn + turn.T)


@compiled
def _heights(posterior: Posterior, places: Array) -> Array:
    return jax.lax.map(posterior.log_density, places)
