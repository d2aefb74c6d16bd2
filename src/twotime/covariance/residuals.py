"""Residuals frame by frame: error bars whatever the noise of frames is, and frames in common.

The score of a frame is the sum of residuals times derivatives over its row and column: what the
fit would change by without it. Their sum of squares, with products of frames whose scores belong
together, is the jackknife's covariance of a fit: right for noise that frames have as a whole (an
unsteady beam), on the safe side for that of speckle. Andrews, Econometrica 59, 817 (1991), chooses
how far frames belong together.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

_TOGETHER = 6
"""Largest part of the record, one over this, over which frames may belong together."""


def jackknife(scores: Float[Array, "direction frame"]) -> Float[Array, "direction direction"]:
    """Covariance of half the sum of the scores of frames, as a jackknife over frames has it.

    Args:
        scores: Score of each frame, along directions in which the Gauss-Newton matrix is 1.
    """
    n = scores.shape[1]
    width = window(scores)
    whole = jnp.pad(jnp.cumsum(scores, axis=1), ((0, 0), (1, 0)))
    # All windows of this many frames, those over the ends of the record among them, weigh products
    # of frames by how many windows hold both: a triangle of lags (Bartlett).
    end = jnp.arange(1, 2 * n)
    sums = whole[:, jnp.minimum(end, n)] - whole[:, jnp.clip(end - width, 0, n)]
    return sums @ sums.T / width


def window(scores: Float[Array, "direction frame"]) -> Array:
    """Frames over which scores belong together, at least one and at most a part of the record."""
    n = scores.shape[1]
    size = jnp.sum(scores**2, axis=1, keepdims=True)
    scaled = scores / jnp.sqrt(jnp.where(size > 0, size, 1.0))
    shared = jnp.sum(scaled[:, 1:] * scaled[:, :-1]) / jnp.maximum(jnp.sum(scaled**2), 1e-300)
    shared = jnp.clip(shared, 0.0, 0.99)
    strength = 4 * shared**2 / ((1 - shared) * (1 + shared)) ** 2
    return jnp.clip(
        jnp.round(1.1447 * (strength * n) ** (1 / 3)), 1, max(n // _TOGETHER, 1)
    ).astype(int)


def common(scores: Float[Array, "angle frame"]) -> Float[Array, ""]:
    """How far frames of different angles are alike [standard deviations]; 0 for one angle.

    The correlation of the scores of frames, summed over all pairs of angles, against what series
    that know nothing of each other would show. Speckle at different angles is independent, the
    intensity of the beam and the age of the sample are not.

    Reference:
        Bartlett, J. R. Stat. Soc. 98, 536 (1935): the variance of the correlation of two series.
    """
    n_angles, n = scores.shape
    scores = scores - jnp.mean(scores, axis=1, keepdims=True)
    size = jnp.sum(scores**2, axis=1, keepdims=True)
    unit = scores / jnp.sqrt(jnp.where(size > 0, size, 1.0))
    lag = jnp.arange(max(n // _TOGETHER, 1) + 1)
    power = jnp.abs(jnp.fft.rfft(unit, 2 * n, axis=1)) ** 2
    own = jnp.fft.irfft(power, axis=1)[:, lag] * jnp.sqrt(jnp.where(lag > 0, 2.0, 1.0) / (n - lag))
    variance = jnp.maximum(_over_pairs(own), n_angles * (n_angles - 1) / (2 * n))
    return _over_pairs(unit) / jnp.sqrt(jnp.maximum(variance, 1.0 / n))


def _over_pairs(series: Float[Array, "angle k"]) -> Float[Array, ""]:
    """Sum of the products of all pairs of series."""
    return 0.5 * (jnp.sum(jnp.sum(series, axis=0) ** 2) - jnp.sum(series**2))
