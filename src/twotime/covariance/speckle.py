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
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from twotime.models.rates import Scalar

Field = Complex[Array | np.ndarray, "time time"] | Float[Array | np.ndarray, "time time"]
Plane = Float[Array | np.ndarray, "time time"]


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
    weights: Float[Array, "score time time"],
    g: Field,
    contrast: Scalar,
    correlation: Plane | None = None,
) -> ScoreCovariance:
    r"""Covariance of $\sum_{ij} W_{ij}\varepsilon_{ij}$ over speckle and photons.

    Exact but for one of the three cycles of κ4, the one that visits the pixels of both scores in
    turn: it is no product of matrices and is taken equal to the mean of the other two. Standard
    deviations are right to 3 % at β = 0.25, and 4 % too small on average (at most 7 %) at β = 1.

    Args:
        weights: W of each score, symmetric; a pixel of the triangle is shared by its two places.
        g: Field correlation.
        contrast: Speckle contrast β.
        correlation: Mean of |g|², where it is not |g|² because g is a mean over frames.

    Reference:
        Cumulants of Gaussian fields: Isserlis, Biometrika 12, 134 (1918).
    """
    b, g, G = jnp.asarray(contrast), jnp.asarray(g), _correlation(g, correlation)
    through = weights @ G
    mean = jnp.diagonal(through, axis1=1, axis2=2)
    chain = _chain(weights, g)
    parts = (g.real, g.imag)[: len(chain)]
    loops = jnp.asarray(sum(x * y for x, y in zip(chain, parts, strict=True)))
    cycles = sum(
        sign * inner(part, part.mT) for sign, part in zip((1.0, -1.0), chain, strict=False)
    )
    with_mean = jnp.sum(loops, axis=1) @ mean.T
    light = 2 * b**2 * inner(through, through.mT)
    light += b**3 * (6 * cycles - 4 * (with_mean + with_mean.T) + 4 * mean @ G @ mean.T)
    one_photon = 4 * inner(b * through + 2 * b**2 * loops, weights) - 4 * b**2 * mean @ mean.T
    two_photons = 2 * inner(weights * (1 + b * G), weights)
    return ScoreCovariance(jnp.stack([light, one_photon, two_photons]))


def _chain(weights: Float[Array, "score time time"], g: Array) -> tuple[Array, ...]:
    """Parts of (W ∘ g) g of each score, apart: compilers for CPUs have no fast complex product."""
    if not jnp.iscomplexobj(g):
        return ((weights * g) @ g,)
    n, beside = g.shape[0], jnp.concatenate([g.real, g.imag], axis=1)
    x, y = (weights * g.real) @ beside, (weights * g.imag) @ beside
    return x[..., :n] - y[..., n:], x[..., n:] + y[..., :n]


def inner(
    x: Float[Array, "score time time"], y: Float[Array, "score time time"]
) -> Float[Array, "score score"]:
    """Sums over all pixels of products of planes."""
    return x.reshape(x.shape[0], -1) @ y.reshape(y.shape[0], -1).T


def _correlation(g: Field, correlation: Plane | None) -> Array:
    return jnp.asarray(jnp.abs(g) ** 2 if correlation is None else correlation)


def row_covariance(
    g: Field, contrast: Scalar, lag: int, correlation: Plane | None = None
) -> Float[Array, "3 time column"]:
    """Covariance of pixels (i, j) and (i, j + lag), as coefficients of 1, 1/n̄ and 1/n̄² (N = 1).

    Args:
        g: Field correlation; its diagonal is below 1 where frames were averaged.
        contrast: Speckle contrast β.
        lag: Distance of the two pixels in frames; 0 for their variance. Pixels on the diagonal
            are meaningless.
        correlation: Mean of |g|², where it is not |g|² because g is a mean over frames.
    """
    b, full = contrast, _correlation(g, correlation)
    n = full.shape[0] - lag
    near, later, G, far = g[:, :n], g[:, lag:], full[:, :n], full[:, lag:]
    own, strength = jnp.real(jnp.diagonal(g))[:, None], jnp.diagonal(full)[:, None]
    between, link = jnp.diagonal(later[:n])[None], jnp.diagonal(far[:n])[None]
    loop = jnp.real(near * between * jnp.conj(later))
    product = G * far
    light = b**2 * (strength * link + product)
    light += b**3 * (
        4 * own * loop
        + 2 * product
        - 4 * own * product
        - 2 * loop * (G + far)
        + product * (strength + G + far + link)
    )
    one_photon = b * link + 2 * b**2 * loop - b**2 * product
    # The photons of t2 are common to both only where they are the same pixel.
    same = float(lag == 0)
    one_photon += same * (b * strength + 2 * b**2 * own * G - b**2 * product)
    return jnp.stack([light, one_photon, same * (1 + b * G)])
