r"""Covariance of the pixels of c2 that speckle and photons cause, contracted with a fit.

A detector pixel's intensity x = I/<I> is 1 + δ with the cumulants of 1/β independent modes:
κ2 = β|g_ij|², κ3 = 2β² Re(g_ij g_jk g_ki), κ4 = β³ times the three cyclic terms 2 Re(gggg);
photon counts add independent noise of variance x/n̄. Normalised by the measured means, one
detector pixel adds ε_ij = δ_i δ_j - β G_ij (δ_i + δ_j) to c2, with G = |g|² the model's
correlation, and c2 is the mean over N of them. The covariance of a fit needs only the
variance of Σ W_ij ε_ij with W the weighted derivatives. It is a polynomial in 1/n̄; the terms
that are products of two κ2 are products of matrices, the others are averaged over simulated
intensities.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Key

Plane = Float[Array, "time time"]


class ScoreCovariance(eqx.Module):
    """Covariance of scores as a polynomial in 1/n̄, for one detector pixel (N = 1).

    Attributes:
        coefficients: Of 1, 1/n̄ and 1/n̄².
    """

    coefficients: Float[Array, "3 score score"]

    def at(self, inverse_photons: Float[Array, ""]) -> Float[Array, "score score"]:
        """The covariance at a photon level.

        Args:
            inverse_photons: 1/n̄, with n̄ the mean counts per pixel and frame; 0 is no shot noise.
        """
        powers = inverse_photons ** jnp.arange(3)
        return jnp.einsum("k,kpq->pq", powers, self.coefficients)


def score_covariance(
    weights: Float[Array, "score time time"],
    g: Complex[Array, "time time"] | Float[Array, "time time"],
    contrast: Float[Array, ""],
    key: Key[Array, ""],
    n_draws: int,
) -> ScoreCovariance:
    r"""Covariance of $\sum_{ij} W_{ij}\varepsilon_{ij}$ over speckle and photons.

    Args:
        weights: W of each score, symmetric; a pixel of the triangle is shared by its two places.
        g: Field correlation.
        contrast: Speckle contrast β.
        key: Random key of the simulated intensities.
        n_draws: Simulated intensities; the error of a variance is near 2β/√n_draws of it.

    Reference:
        Cumulants of Gaussian fields: Isserlis, Biometrika 12, 134 (1918).
    """
    correlation = jnp.abs(g) ** 2
    mean = jnp.sum(weights * correlation, axis=2)
    through = weights @ correlation
    pairs = 2 * jnp.einsum("pij,qji->pq", through, through)
    shared = jnp.einsum("pij,qij->pq", through, weights)
    delta = _fluctuations(g, key, n_draws)
    slope = weights @ delta - mean[:, :, None]
    scores = jnp.sum((slope - mean[:, :, None]) * delta, axis=1) - jnp.sum(mean, axis=1)[:, None]
    full_pairs = scores @ scores.T / n_draws
    bright = slope * jnp.sqrt(1 + delta)
    full_shared = jnp.einsum("pik,qik->pq", bright, bright) / n_draws
    b = contrast
    shot = jnp.einsum("pij,qij,ij->pq", weights, weights, 1 + b * correlation)
    return ScoreCovariance(
        jnp.stack(
            [
                b**2 * (1 - b) * pairs + b**3 * full_pairs,
                4 * (b * (1 - b) * shared + b**2 * full_shared),
                2 * shot,
            ]
        )
    )


def _fluctuations(g: Array, key: Key[Array, ""], n_draws: int) -> Float[Array, "time draw"]:
    """Intensity less its mean of one fully coherent mode (β = 1); at most 1 below it."""
    n = g.shape[0]
    jitter = 8 * n * jnp.finfo(jnp.result_type(float)).eps * jnp.eye(n)
    factor = jnp.linalg.cholesky(g + jitter + 0j)
    # Real products: compilers for CPUs have no fast product of complex matrices.
    real, imag = jnp.sqrt(0.5) * jax.random.normal(key, (2, n, n_draws))
    in_phase = factor.real @ real - factor.imag @ imag
    quadrature = factor.real @ imag + factor.imag @ real
    return in_phase**2 + quadrature**2 - jnp.real(jnp.diagonal(g))[:, None]


def pixel_variance(
    g: Complex[Array, "time time"] | Float[Array, "time time"], contrast: Float[Array, ""]
) -> Float[Array, "3 time time"]:
    """Variance of every pixel off the diagonal, as coefficients of 1, 1/n̄ and 1/n̄² (N = 1).

    Args:
        g: Field correlation; its diagonal is below 1 where frames were averaged.
        contrast: Speckle contrast β.
    """
    b = contrast
    G = jnp.abs(g) ** 2
    own = jnp.real(jnp.diagonal(g))
    both = own[:, None] + own[None, :]
    squares = own[:, None] ** 2 + own[None, :] ** 2
    product = own[:, None] * own[None, :]
    light = b**2 * (product**2 + G**2)
    light += b**3 * (4 * product * G + 2 * G**2 - 4 * both * G**2 + G**2 * (squares + 2 * G))
    return jnp.stack([light, b * squares + 2 * b**2 * G * (both - G), 1 + b * G])


def row_covariance(
    g: Complex[Array, "time time"] | Float[Array, "time time"],
    contrast: Float[Array, ""],
    lag: int,
) -> Float[Array, "3 time later"]:
    """Covariance of pixels (i, j) and (i, j + lag), as coefficients of 1, 1/n̄ and 1/n̄² (N = 1).

    Args:
        g: Field correlation; its diagonal is below 1 where frames were averaged.
        contrast: Speckle contrast β.
        lag: Distance of the two pixels in frames; pixels on the diagonal are meaningless.
    """
    b = contrast
    G = jnp.abs(g) ** 2
    near, far = G[:, :-lag], G[:, lag:]
    own = jnp.real(jnp.diagonal(g))[:, None]
    between = jnp.diagonal(g, lag)[None, :]
    link = jnp.abs(between) ** 2
    loop = jnp.real(g[:, :-lag] * between * jnp.conj(g[:, lag:]))
    product = near * far
    light = b**2 * (own**2 * link + product)
    light += b**3 * (
        4 * own * loop
        + 2 * product
        - 4 * own * product
        - 2 * loop * (near + far)
        + product * (own**2 + near + far + link)
    )
    one_photon = b * link + 2 * b**2 * loop - b**2 * product
    return jnp.stack([light, one_photon, jnp.zeros_like(light)])
