"""Two-time data simulated from a model.

Use `simulate` (independent noise) to test a fit, and `simulate_speckle` (the noise of a real
detector, correlated between points that share a frame) to test error bars.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Key, Num

from twotime.compilation import verb
from twotime.data.dataset import TwoTimeData
from twotime.models.arguments import axes_of_matrices
from twotime.models.base import AbstractTwoTimeModel, floating, is_concrete
from twotime.models.correlation import Given, correlation, field
from twotime.models.rates import AnyArray, GivenTimes, Scalar

Angles = Num[AnyArray, " angle"]
PerAngle = Scalar | Angles

_PIXELS_AT_ONCE = 256
# White part of the field, in units of rounding times frames: without it the covariance of slow
# dynamics, nearly of rank one, has no Cholesky factor (1 fails at 1000 frames, 2 does not).
_JITTER = 4


@verb
def simulate(
    model: AbstractTwoTimeModel,
    params: Given,
    *,
    t: GivenTimes,
    q: PerAngle,
    phi: Angles,
    contrast: PerAngle,
    offset: PerAngle,
    noise: PerAngle,
    key: Key[Array, ""],
) -> TwoTimeData:
    """Draw data with independent Gaussian noise at every point, symmetric in the two times.

    Args:
        model: The model.
        params: Parameters in the order of `model.names`, or by name.
        t: Frame times [s].
        q: Wavevector, one or one per angle [1/Å].
        phi: Detector angles [degree].
        contrast: Factor of the normalised correlation, one or one per angle.
        offset: Baseline, one or one per angle.
        noise: Standard deviation of a point, one or one per angle.
        key: Random key.

    Returns:
        Data without mask and without sigma.

    Raises:
        ValueError: If a number cannot be used.
    """
    t, q, phi = axes_of_matrices(t, q, phi)
    if is_concrete(noise) and not np.all(np.asarray(noise) >= 0):
        raise ValueError(f"noise is {noise}; expected standard deviations, 0 or more.")
    shape = (phi.shape[0], t.shape[0], t.shape[0])
    upper = jnp.triu(jax.random.normal(key, shape, t.dtype))
    white = upper + jnp.swapaxes(jnp.triu(upper, 1), 1, 2)
    c2 = (
        _per_angle(offset, shape)
        + _per_angle(contrast, shape) * correlation(model, params, t=t, q=q, phi=phi)
        + _per_angle(noise, shape) * white
    )
    return TwoTimeData(c2, t, jnp.asarray(q), phi)


@verb
def simulate_speckle(
    model: AbstractTwoTimeModel,
    params: Given,
    *,
    t: GivenTimes,
    q: PerAngle,
    phi: Angles,
    contrast: float,
    n_pixels: int,
    photons: Scalar | None = None,
    key: Key[Array, ""],
) -> TwoTimeData:
    r"""Draw data with the noise of real speckle, from scattered fields.

    Every detector pixel adds the intensities of M independent modes, each a circular complex
    Gaussian field with the model's field correlation over the frames; the intensities are
    correlated over the pixels as at a beamline,
    $c_2 = \langle I_1 I_2\rangle/(\langle I_1\rangle\langle I_2\rangle)$. The mean is
    1 + contrast · C off the diagonal; the diagonal is masked.

    Modes have equal weights where 1/contrast is a whole number, so that the intensity is
    gamma distributed. Otherwise M is 1/contrast rounded up and one mode is weaker than the
    others, which keeps the contrast exact.

    Args:
        model: A model with a field correlation.
        params: Parameters in the order of `model.names`, or by name.
        t: Frame times [s].
        q: Wavevector, one or one per angle [1/Å].
        phi: Detector angles [degree].
        contrast: Speckle contrast β in (0, 1]; a number, because it determines M.
        n_pixels: Independent pixels averaged per angle.
        photons: Mean counts per pixel and frame; None gives noiseless intensities.
        key: Random key.

    Returns:
        Data with the diagonal, and frames without any count, masked.

    Raises:
        ValueError: If `contrast` is not in (0, 1] or `n_pixels` is below 1.
        TypeError: If the model has no field correlation.
    """
    t, q, phi = axes_of_matrices(t, q, phi)
    weights = jnp.asarray(mode_weights(contrast), t.dtype)
    if n_pixels < 1:
        raise ValueError(f"n_pixels is {n_pixels}; expected at least one pixel to average.")
    jitter = _JITTER * t.shape[0] * jnp.finfo(t.dtype).eps * jnp.eye(t.shape[0])
    covariances = field(model, params, t=t, q=q, phi=phi)

    def one_angle(inputs: tuple[Array, Array]) -> Array:
        covariance, angle_key = inputs
        factor = jnp.linalg.cholesky(covariance + jitter.astype(covariance.dtype))
        return _correlate(factor, weights, n_pixels, photons, angle_key)

    c2 = jax.lax.map(one_angle, (covariances, jax.random.split(key, phi.shape[0])))
    mask = jnp.isfinite(c2) & ~jnp.eye(t.shape[0], dtype=bool)
    return TwoTimeData(c2, t, jnp.asarray(q), phi, mask=mask)


def mode_weights(contrast: float) -> Float[np.ndarray, " mode"]:
    r"""Share of each mode in the intensity: they sum to 1, their squares to the contrast.

    Example:
        >>> mode_weights(0.25).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    beta = float(contrast)
    if not 0 < beta <= 1:
        raise ValueError(
            f"contrast is {beta:g}; expected a number in (0, 1], the speckle contrast."
        )
    count = math.ceil(1 / beta - 1e-9)
    # (M-1) a + b = 1 and (M-1) a² + b² = β, with b the weaker one.
    spread = math.sqrt(max(beta * count - 1, 0.0) / max(count - 1, 1))
    strong = (1 + spread) / count
    return np.append(np.full(count - 1, strong), 1 - (count - 1) * strong)


def _correlate(
    factor: Complex[Array, "time time"],
    weights: Float[Array, " mode"],
    n_pixels: int,
    photons: Scalar | None,
    key: Key[Array, ""],
) -> Float[Array, "time time"]:
    """Intensity correlation over pixels, a few at a time so that memory does not grow."""
    frames, modes = factor.shape[0], weights.shape[0]
    at_once = min(n_pixels, _PIXELS_AT_ONCE)
    steps = -(-n_pixels // at_once)

    def counts_of(step: Array) -> Float[Array, "time pixel"]:
        """Intensity of every frame and pixel, its mean 1; or counts with their shot noise."""
        light, shots = jax.random.split(jax.random.fold_in(key, step))
        fields = factor @ jax.random.normal(light, (frames, at_once * modes), factor.dtype)
        power = jnp.square(fields.real) + jnp.square(fields.imag)
        intensity = power.reshape(frames, at_once, modes) @ weights
        if photons is None:
            return intensity
        return jax.random.poisson(shots, photons * intensity).astype(intensity.dtype)

    def add(sums: tuple[Array, Array], step: Array) -> tuple[tuple[Array, Array], None]:
        pair, single = sums
        here = step * at_once + jnp.arange(at_once) < n_pixels
        counts = jnp.where(here, counts_of(step), 0.0)
        return (pair + counts @ counts.T, single + counts.sum(axis=1)), None

    zero = jnp.zeros((frames, frames), weights.dtype), jnp.zeros(frames, weights.dtype)
    (pair, single), _ = jax.lax.scan(add, zero, jnp.arange(steps))
    return n_pixels * pair / (single[:, None] * single[None, :])


def _per_angle(value: PerAngle, shape: tuple[int, int, int]) -> Float[Array, "angle #time #time"]:
    """A value for all angles or one for each, laid along the first axis."""
    return jnp.broadcast_to(floating(value), shape[:1])[:, None, None]
