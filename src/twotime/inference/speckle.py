r"""Covariance of the pixels of c2 that speckle and photons cause, contracted with a fit.

A detector pixel's intensity x = I/<I> is 1 + δ with the cumulants of 1/β independent modes:
κ2 = β|g_ij|², κ3 = 2β² Re(g_ij g_jk g_ki), κ4 = β³ times the three cyclic terms 2 Re(gggg);
photon counts add independent noise of variance x/n̄. Normalised by the measured means, one
detector pixel adds ε_ij = δ_i δ_j - β G_ij (δ_i + δ_j) to c2, with G = |g|² the model's
correlation, and c2 is the mean over N of them. The covariance of a fit needs only the
variance of Σ W_ij ε_ij with W the weighted derivatives: a polynomial in 1/n̄ whose coefficients
are traces of products of matrices.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from twotime.core.rates import Scalar

Field = Complex[Array | np.ndarray, "time time"] | Float[Array | np.ndarray, "time time"]


class ScoreCovariance(eqx.Module):
    """Covariance of scores as a polynomial in 1/n̄, for one detector pixel (N = 1).

    Attributes:
        coefficients: Of 1, 1/n̄ and 1/n̄².
    """

    coefficients: Float[Array, "3 score score"]

    def at(self, inverse_photons: Scalar) -> Float[Array, "score score"]:
        """The covariance at a photon level.

        Args:
            inverse_photons: 1/n̄, with n̄ the mean counts per pixel and frame; 0 is no shot noise.
        """
        powers = inverse_photons ** jnp.arange(3)
        return jnp.einsum("k,kpq->pq", powers, self.coefficients)


def score_covariance(
    weights: Float[Array, "score time time"], g: Field, contrast: Scalar
) -> ScoreCovariance:
    r"""Covariance of $\sum_{ij} W_{ij}\varepsilon_{ij}$ over speckle and photons.

    Exact but for one of the three cycles of κ4, the one that visits the pixels of both scores in
    turn: it is no product of matrices and is taken equal to the mean of the other two. Standard
    deviations are right to 3 % at β = 0.25, and 4 % too small on average (at most 7 %) at β = 1.

    Args:
        weights: W of each score, symmetric; a pixel of the triangle is shared by its two places.
        g: Field correlation.
        contrast: Speckle contrast β.

    Reference:
        Cumulants of Gaussian fields: Isserlis, Biometrika 12, 134 (1918).
    """
    b = contrast
    correlation = jnp.abs(g) ** 2
    mean = jnp.sum(weights * correlation, axis=2)
    through = weights @ correlation
    pairs = 2 * jnp.einsum("pij,qji->pq", through, through)
    shared = jnp.einsum("pij,qij->pq", through, weights)
    linked = weights * g
    chain = _product(linked, jnp.asarray(g))
    cycles = 6 * jnp.real(jnp.einsum("pij,qji->pq", chain, chain))
    triangles = jnp.real(jnp.einsum("ki,pik->pk", g, chain))
    with_mean = triangles @ mean.T
    means = mean @ mean.T
    loops = 2 * jnp.real(jnp.einsum("pij,qji->pq", chain, linked))
    light = b**2 * pairs + b**3 * (
        cycles - 4 * (with_mean + with_mean.T) + 4 * mean @ correlation @ mean.T
    )
    one_photon = 4 * (b * shared + b**2 * (loops - means))
    two_photons = 2 * jnp.einsum("pij,qij->pq", weights * (1 + b * correlation), weights)
    return ScoreCovariance(jnp.stack([light, one_photon, two_photons]))


def _product(a: Array, b: Array) -> Array:
    """Matrix product by real products: compilers for CPUs have no fast complex one."""
    if not jnp.iscomplexobj(b):
        return a @ b
    real = a.real @ b.real - a.imag @ b.imag
    return jax.lax.complex(real, a.real @ b.imag + a.imag @ b.real)


def pixel_variance(g: Field, contrast: Scalar) -> Float[Array, "3 time time"]:
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
    g: Field,
    contrast: Scalar,
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
