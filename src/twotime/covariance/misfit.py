"""Whether residuals are noise: means by lag and by age against what speckle allows, in words.

Means of groups of points, of some lags or of some frames, are taken over all data. Their covariance
is that of scores: the noise of the group, less what the fit takes out of it through parameters,
contrast and offset. The largest of all means, in its standard deviations, is held against the
largest that noise alone brings about: 1 in 100 right fits is called wrong, however many groups
and angles are looked at.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.compilation import compiled
from twotime.config.parameter_space import ParameterSpace
from twotime.covariance import (
    AngleOfFit,
    LinearisedFit,
    angle_of_fit,
    optimum,
    scores_of,
    unit_directions,
)
from twotime.covariance.blocks import Planes, planes_between
from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.rates import AnyArray
from twotime.results.nlsq import NLSQResult

_GROUPS = 12
_ROWS = 256
_DRAWS = 4000
FALSE_ALARMS = 0.01
"""Part of the fits of right models that are said not to describe the data."""


class Structure(eqx.Module):
    """Mean residuals of groups of points, and how far noise alone would move them.

    Attributes:
        lag: First lag of each group of lags [s].
        by_lag: Mean residual of each angle at these lags.
        lag_deviation: Standard deviation that the noise gives it.
        age: First time of each group of frames [s].
        by_age: Mean residual of each angle in the rows and columns of these frames (stripes).
        age_deviation: Standard deviation that the noise gives it.
        phi: Detector angles [degree].
        neighbours: Correlation of residuals one frame apart in a row, of each angle.
        chance: Probability that noise alone leaves a mean as far from zero as the largest.
        share: Variance of the means by lag beyond their noise, as part of the variance of the
            fitted correlation by lag.
    """

    lag: Float[AnyArray, " group"]
    by_lag: Float[AnyArray, "angle group"]
    lag_deviation: Float[AnyArray, "angle group"]
    age: Float[AnyArray, " period"]
    by_age: Float[AnyArray, "angle period"]
    age_deviation: Float[AnyArray, "angle period"]
    phi: Float[AnyArray, " angle"]
    neighbours: Float[AnyArray, " angle"]
    chance: Float[AnyArray, ""]
    share: Float[AnyArray, ""]

    @property
    def deviations(self) -> tuple[np.ndarray, np.ndarray]:
        """Means by lag and by age [standard deviations]."""
        by_lag, by_age = self.by_lag / self.lag_deviation, self.by_age / self.age_deviation
        return np.abs(by_lag), np.abs(by_age)

    @property
    def worst(self) -> tuple[float, float]:
        """Largest mean by lag and by age [standard deviations]."""
        by_lag, by_age = self.deviations
        return float(by_lag.max()), float(by_age.max())

    @property
    def is_right(self) -> bool:
        """Whether the residuals are such as noise leaves them."""
        return bool(self.chance >= FALSE_ALARMS)

    @property
    def place(self) -> str:
        """Where the largest mean residual is, in words."""
        lags, ages = self.deviations
        is_lag = lags.max() >= ages.max()
        found, starts, kind = (
            (lags, self.lag, "lags") if is_lag else (ages, self.age, "frames (stripes)")
        )
        k, group = np.unravel_index(np.argmax(found), found.shape)
        return f"{kind} from {float(starts[group]):.3g} s on, φ = {float(self.phi[k]):g}°"

    @property
    def sentence(self) -> str:
        """What the residuals say about the model."""
        lags, ages = self.worst
        if self.is_right:
            return (
                f"the residuals are no larger than noise explains (lags within {lags:.1f}, frames "
                f"within {ages:.1f} standard deviations)"
            )
        cause = (
            "a law that does not hold, or static scattering"
            if lags >= ages
            else "bad frames, a drift of the beam, or a law that does not hold"
        )
        return (
            f"the model does not describe the data: the mean residual is {max(lags, ages):.1f} "
            f"standard deviations of the noise from zero ({self.place}); {self.share:.2%} of the "
            f"signal's variance is left. Usual causes: {cause}. The error bars do not include this "
            "misfit"
        )


@compiled
def residual_structure(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, fit: NLSQResult
) -> Structure:
    """Average the residuals of a fit by lag and by age and compare with the noise.

    Args:
        model: The model that was fitted.
        data: The data that were fitted.
        space: The space that was fitted.
        fit: The result.
    """
    at = optimum(model, data, space, fit)
    root, n = unit_directions(at.inverse), data.t.shape[0]
    n_free, angles = root.shape[1], jnp.arange(data.phi.shape[0])
    lags, ages = _lags(n), np.unique(np.linspace(0, n, _GROUPS + 1).astype(int))
    n_groups = lags.size + ages.size - 2
    powers = (1.0 / fit.photons) ** jnp.arange(3)
    # What an angle's own contrast and offset follow where angles share them.
    own = jnp.sum(at.reduced.scaling.free) / (2 * angles.size)

    def one(k: Array) -> tuple[Array, Array, tuple[Array, Array], Array, Array]:
        angle = angle_of_fit(at, root, k)
        weight, (mean, signal, taken), neighbours = _means(at, angle, k, lags, ages)

        def jacobian(planes: Planes, first: Array, second: Array) -> Array:
            group = _membership(first, second, lags, ages)
            scaled = group / weight[:, None, None]
            return jnp.concatenate([scaled, angle.jacobian(planes)])

        scores = scores_of(at, angle, k, jacobian)[0]
        covariance = jnp.einsum("k,kpq->pq", powers, scores.coefficients)
        covariance = covariance * data.light_level(fit.offset[k]) ** 2 / fit.pixels[k]
        taken = taken * jnp.append(jnp.ones(n_free), jnp.full(2, own))
        left = jnp.concatenate([jnp.eye(n_groups), -taken], axis=1)
        of_theta = covariance[n_groups : n_groups + n_free, n_groups : n_groups + n_free]
        covariance = left @ covariance @ left.T
        return mean, covariance, (taken[:, :n_free], of_theta), signal, neighbours

    mean, covariance, (taken, of_theta), signal, neighbours = jax.lax.map(one, angles)
    others = jnp.sum(of_theta, axis=0) - of_theta
    covariance = covariance + jnp.einsum("agp,apq,ahq->agh", taken, others, taken)
    variance = jnp.diagonal(covariance, axis1=1, axis2=2)
    # A group without usable points has no deviation and cannot be judged.
    deviation = jnp.where(variance > 0, jnp.sqrt(jnp.maximum(variance, 0.0)), jnp.inf)
    chance = _chance(jnp.max(jnp.abs(mean) / deviation), covariance, deviation)
    n_lags, t = lags.size - 1, jnp.asarray(data.t)
    squares = mean[:, :n_lags] ** 2 - jnp.where(jnp.isinf(deviation), 0, deviation)[:, :n_lags] ** 2
    share = jnp.maximum(jnp.mean(squares), 0.0) / jnp.mean(jnp.var(signal[:, :n_lags], axis=1))
    return Structure(
        lag=t[lags[:-1]] - t[0], by_lag=mean[:, :n_lags], lag_deviation=deviation[:, :n_lags],
        age=t[ages[:-1]], by_age=mean[:, n_lags:], age_deviation=deviation[:, n_lags:],
        phi=jnp.asarray(data.phi), neighbours=neighbours, chance=chance, share=share,
    )  # fmt: skip


def _lags(n_frames: int) -> np.ndarray:
    """Ends of the groups of lags [frame], spaced evenly in their logarithm."""
    return np.unique(np.round(np.geomspace(1, n_frames, _GROUPS + 1)).astype(int))


def _membership(
    first: Array, second: Array, lags: np.ndarray, ages: np.ndarray
) -> Float[Array, "group *pair"]:
    """How much each pair of frames counts in each group of lags, then of ages."""
    lag = jnp.abs(first - second)
    by_lag = [(lag >= low) & (lag < high) for low, high in zip(lags[:-1], lags[1:], strict=True)]
    by_age = [
        0.5 * ((x >= low) & (x < high)) + 0.5 * ((y >= low) & (y < high))
        for low, high in zip(ages[:-1], ages[1:], strict=True)
        for x, y in [(first, second)]
    ]
    return jnp.stack([*(x.astype(float) for x in by_lag), *by_age])


def _means(
    at: LinearisedFit, angle: AngleOfFit, k: Array, lags: np.ndarray, ages: np.ndarray
) -> tuple[Array, tuple[Array, Array, Array], Array]:
    """Weight of each group; its means of residual, fitted signal and the scores' derivatives.

    Then the correlation of residuals one frame apart.
    """
    data, n = at.problem.data, at.problem.data.t.shape[0]
    contrast, offset = angle.scaling

    def of_rows(first: Array) -> tuple[Array, Array]:
        rows = first + jnp.arange(min(_ROWS, n))
        early, late = jnp.broadcast_arrays(jnp.minimum(rows, n - 1)[:, None], jnp.arange(n))
        weight = data.weights_at(k, early, late)  # 0 in rows beyond the last frame
        earlier = jax.tree.map(lambda x: x[..., jnp.minimum(rows, n - 1), None], angle.slopes)
        later = jax.tree.map(lambda x: x[..., None, :], angle.slopes)
        planes = planes_between(at.problem.model, earlier, later, early <= late)
        fitted = contrast * planes.value
        c2 = jnp.asarray(data.c2)[k, early, late] - at.problem.shift
        residual = jnp.where(weight > 0, c2 - fitted - offset, 0.0)
        kinds = [jnp.ones_like(fitted), residual, fitted, *angle.jacobian(planes)]
        group = _membership(early, late, lags, ages) * weight
        flat = group.reshape(group.shape[0], -1)
        beside = jnp.stack([jnp.sum(residual[:, 1:] * residual[:, :-1]), jnp.sum(residual**2)])
        return flat @ jnp.stack(kinds).reshape(len(kinds), -1).T, beside

    sums, beside = jax.lax.map(of_rows, jnp.arange(0, n, _ROWS))
    sums, beside = jnp.sum(sums, axis=0), jnp.sum(beside, axis=0)
    weight = jnp.maximum(sums[:, 0], 1e-300)
    means = sums[:, 1:] / weight[:, None]
    neighbours = beside[0] / jnp.maximum(beside[1], 1e-300)
    return weight, (means[:, 0], means[:, 1], means[:, 2:]), neighbours


def _chance(
    largest: Array, covariance: Float[Array, "angle g g"], deviation: Float[Array, "angle g"]
) -> Array:
    """Probability that the largest mean of all angles is larger than this one by noise alone."""
    known = jnp.isfinite(deviation)
    unit = jnp.where(known, deviation, 1.0)
    correlation = covariance / (unit[:, :, None] * unit[:, None, :])
    correlation = jnp.where(known[:, :, None] & known[:, None, :], correlation, 0.0)
    values, vectors = jnp.linalg.eigh(correlation)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[:, None, :]
    white = jax.random.normal(jax.random.key(0), (_DRAWS, deviation.shape[1]), correlation.dtype)
    heights = jnp.max(jnp.abs(jnp.einsum("agh,dh->adg", root, white)), axis=2)
    # Angles are independent but for what they share through the parameters.
    below = (jnp.sum(heights < largest, axis=1) + 1) / (_DRAWS + 1)
    return 1.0 - jnp.prod(below)
