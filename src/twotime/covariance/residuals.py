"""Error bars from the residuals of a fit, frame by frame, whatever the noise of frames is.

The score of a frame is the sum of residuals times derivatives over its row and column: what the
fit would change by without it. Their sum of squares, with products of frames whose scores belong
together, is the jackknife's covariance of a fit: right for noise that frames have as a whole (an
unsteady beam), on the safe side for that of speckle. Andrews, Econometrica 59, 817 (1991), chooses
how far frames belong together.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


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
    """Frames over which scores belong together, at least one and at most a sixth of the record."""
    n = scores.shape[1]
    size = jnp.sum(scores**2, axis=1, keepdims=True)
    scaled = scores / jnp.sqrt(jnp.where(size > 0, size, 1.0))
    shared = jnp.sum(scaled[:, 1:] * scaled[:, :-1]) / jnp.maximum(jnp.sum(scaled**2), 1e-300)
    shared = jnp.clip(shared, 0.0, 0.99)
    strength = 4 * shared**2 / ((1 - shared) * (1 + shared)) ** 2
    return jnp.clip(jnp.round(1.1447 * (strength * n) ** (1 / 3)), 1, max(n // 6, 1)).astype(int)
