"""Widths of a posterior whose likelihood took the pixels as independent, put right.

`temper` flattens the likelihood by one number before sampling; `open_faced` maps draws after it,
which also gets the correlations right. Both need the fit's two covariances.
"""

import jax.numpy as jnp
from jaxtyping import Float

from twotime.core.rates import AnyArray

Covariance = Float[AnyArray, "free free"]


def temper_power(naive: Covariance, robust: Covariance) -> Float[AnyArray, ""]:
    """Power of the likelihood that gives the posterior the volume of the robust covariance.

    Args:
        naive: Covariance from independent pixels.
        robust: Covariance to be matched; both positive definite.

    Returns:
        (det naive / det robust)^(1/n): the ratio of robust to naive information.
    """
    ratio = jnp.linalg.slogdet(naive)[1] - jnp.linalg.slogdet(robust)[1]
    return jnp.exp(ratio / naive.shape[0])


def open_faced_map(naive: Covariance, robust: Covariance) -> Float[AnyArray, "free free"]:
    """Linear map of deviations from the mode that turns the naive covariance into the robust.

    With Q the naive information and P = Q robust Q, the map is Q⁻¹ P^½ Q^½ (symmetric roots, in
    units of the naive standard deviations).

    Args:
        naive: Covariance from independent pixels.
        robust: Covariance to be matched; both positive definite.

    Reference:
        Shaby, Bayesian Analysis 9, 585 (2014).
    """
    size = jnp.sqrt(jnp.diag(naive))
    unit = size[:, None] * size[None, :]
    q = jnp.linalg.inv(naive / unit)
    p = q @ (robust / unit) @ q
    linear = (naive / unit) @ _root(p) @ _root(q)
    return size[:, None] * linear / size[None, :]


def open_faced(
    draws: Float[AnyArray, "*draw free"],
    mode: Float[AnyArray, " free"],
    naive: Covariance,
    robust: Covariance,
) -> Float[AnyArray, "*draw free"]:
    """Widen draws of a naive posterior about its mode.

    Args:
        draws: Draws of the free parameters, in any coordinates.
        mode: The mode in the same coordinates.
        naive: Covariance from independent pixels there.
        robust: Robust covariance there.
    """
    return mode + (draws - mode) @ open_faced_map(naive, robust).T


def _root(matrix: Covariance) -> Covariance:
    values, vectors = jnp.linalg.eigh(0.5 * (matrix + matrix.T))
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))) @ vectors.T
