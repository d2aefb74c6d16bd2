"""Covariance of a least-squares fit, and what the data do not determine."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from twotime.results.nlsq import null_directions


def spectrum(
    hessian: Float[Array, "free free"], held: Bool[Array, " free"]
) -> tuple[Float[Array, " free"], Float[Array, "free free"], Float[Array, " free"]]:
    """Eigenvalues and eigenvectors of the Gauss-Newton matrix scaled to unit diagonal.

    Args:
        hessian: Gauss-Newton matrix, with contrast and offset projected out.
        held: Parameters on a bound; their rows are taken out and get eigenvalue -1.

    Returns:
        Eigenvalues ascending, eigenvectors as columns, and the scale of each parameter (the
        root of the diagonal).
    """
    scale = jnp.sqrt(jnp.maximum(jnp.diag(hessian), 0.0))
    scale = jnp.where(scale > 0, scale, 1.0)
    out = held[:, None] | held[None, :]
    scaled = jnp.where(out, 0.0, hessian / (scale[:, None] * scale[None, :]))
    values, vectors = jnp.linalg.eigh(scaled - jnp.diag(held.astype(hessian.dtype)))
    return values, vectors, scale


def inverse(
    eigenvalues: Float[Array, " free"],
    eigenvectors: Float[Array, "free free"],
    scale: Float[Array, " free"],
    held: Bool[Array, " free"],
) -> Float[Array, "free free"]:
    """Inverse of the Gauss-Newton matrix from its `spectrum`, without null and held directions."""
    null = null_directions(eigenvalues, held)
    used = ~null & (eigenvalues > -0.5)
    weights = jnp.where(used, 1.0 / jnp.where(used, eigenvalues, 1.0), 0.0)
    whitened = eigenvectors / scale[:, None]
    return (whitened * weights) @ whitened.T
