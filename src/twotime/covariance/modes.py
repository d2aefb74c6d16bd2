"""The size of the noise where a misfit may be in the residuals, and how far noise alone goes.

The noise's size is that of all residuals, in which a misfit would hide itself. What some functions
of lag and age do not follow tells the size of noise alone.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float

from twotime.models.rates import AnyArray

_RIDGE, _LEAST, _MOST_TAKEN = 1e-3, 1e-2, 0.5
_DRAWS = 4000


class Modes(eqx.Module):
    """Sums of the residuals of an angle times functions, along directions of independent noise.

    Attributes:
        root: Sums from amplitudes along the directions, which noise gives the variance 1.
        inverse: Amplitudes from sums.
        noise: Part of the residuals' squares that noise leaves along each, ascending.
        taken: Which are taken away to find the size of the noise: the rest, which follow most of
            it where correlation times are few, hold at least half of it.
    """

    root: Float[Array, "sum sum"]
    inverse: Float[Array, "sum sum"]
    noise: Float[Array, " sum"]
    taken: Bool[Array, " sum"]

    @classmethod
    def of(
        cls,
        normal: Float[Array, "sum sum"],
        covariance: Float[Array, "sum sum"],
        squares: Float[Array, ""],
    ) -> "Modes":
        """The directions.

        Args:
            normal: Sums of products of the functions.
            covariance: Covariance of the sums.
            squares: Sum of squares of the residuals.
        """
        size = jnp.sqrt(jnp.maximum(jnp.diag(normal), 1e-300))
        unit = normal / (size[:, None] * size) + _RIDGE * jnp.eye(size.size)
        lower = jnp.linalg.cholesky(unit)
        scaled = covariance / (size[:, None] * size * squares)
        half = solve_triangular(lower, scaled, lower=True)
        noise, vectors = jnp.linalg.eigh(solve_triangular(lower, half.T, lower=True))
        noise = jnp.maximum(noise, 1e-12)
        deviation = jnp.sqrt(noise * squares)
        root = size[:, None] * (lower @ vectors) * deviation
        inverse = solve_triangular(lower, jnp.diag(1.0 / size), lower=True)
        inverse = (vectors.T @ inverse) / deviation[:, None]
        return cls(root, inverse, noise, jnp.cumsum(noise) <= _MOST_TAKEN)

    def size(
        self, amplitudes: Float[AnyArray, "*draw sum"], squares: AnyArray | float = 1.0
    ) -> Float[Array, "*draw"]:
        """The size of the noise, 1 where it is that of all residuals; at most that.

        Args:
            amplitudes: Amplitudes along the directions.
            squares: Sum of squares of the residuals, 1 as found.
        """
        taken = self.noise * self.taken
        rest = (squares - amplitudes**2 @ taken) / (1.0 - jnp.sum(taken))
        return jnp.clip(rest, _LEAST * squares, squares)

    def heights(self, deviation: Float[Array, " sum"]) -> Float[Array, " draw"]:
        """Largest of the sums in many draws of noise, in deviations of the size found from each.

        Args:
            deviation: Standard deviation of the sums; infinite for those that are not judged.
        """
        count = self.noise.size
        white = np.random.default_rng(0).normal(size=(_DRAWS, count + 1))
        along, other = white[:, :count], white[:, count]
        # What no function follows has modes no larger than those that are taken.
        taken = self.noise * self.taken
        mode = jnp.sum(taken**2) / jnp.maximum(jnp.sum(taken), 1e-300)
        rest = jnp.maximum(1.0 - jnp.sum(self.noise), 0.0)
        # A χ² by Wilson & Hilferty, Proc. Natl. Acad. Sci. 17, 684 (1931).
        part = 2.0 / 9.0 * jnp.minimum(mode / jnp.maximum(rest, 1e-300), 1.0)
        squares = along**2 @ self.noise
        squares += rest * jnp.maximum(1.0 - part + jnp.sqrt(part) * other, 0.0) ** 3
        largest = jnp.max(jnp.abs(along @ self.root.T) / deviation, axis=1)
        return largest / jnp.sqrt(self.size(along, squares))
