"""The measured two-time correlation as a value."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

AnyArray = Array | np.ndarray
Index = int | slice | Int[Array, ""]
Corner = tuple[Any, Any] | Array
Sigma = Float[AnyArray, ""] | Float[AnyArray, "angle time time"] | None


def _array(value: object) -> AnyArray | None:
    """Arrays, tracers and None as they come, everything else as a float64 NumPy array."""
    if value is None or isinstance(value, jax.Array | np.ndarray):
        return value
    return np.asarray(value, dtype=np.float64)


class TwoTimeData(eqx.Module):
    r"""Two-time correlation at one wavevector: $c_2(\phi, t_1, t_2)$ and its axes.

    Symmetric in its last two axes. A point of c2 is a pair of frames; only points with t1 < t2
    are ever fitted (see `usable`), so neither the diagonal (shot noise) nor the lower half carries
    information. Arrays are kept as they are: nothing is copied to a device and no precision is
    changed. Masked points may hold any number, NaN included.

    Attributes:
        c2: Correlation.
        t: Time of each frame [s].
        q: Wavevector [1/Å].
        phi: Detector angle of each matrix [degree].
        mask: True where a point is used; None uses all.
        sigma: Standard deviation of a point, one number or one per point; None if not known.
        baseline: What c2 is by definition where the intensities are uncorrelated: 1, or 0 where
            the numbers are c2 - 1. A fit's offset is near it.

    Raises:
        ValueError: If the shapes do not fit each other.
    """

    c2: Float[AnyArray, "angle time time"] = eqx.field(converter=_array)
    t: Float[AnyArray, " time"] = eqx.field(converter=_array)
    q: Float[AnyArray, ""] = eqx.field(converter=_array)
    phi: Float[AnyArray, " angle"] = eqx.field(converter=_array)
    mask: Bool[AnyArray, "angle time time"] | None = eqx.field(converter=_array, default=None)
    sigma: Sigma = eqx.field(converter=_array, default=None)
    baseline: Float[AnyArray, ""] = eqx.field(converter=_array, default=1.0)

    def __check_init__(self) -> None:
        shape = self.c2.shape
        if len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(
                f"c2 has shape {shape}; expected (angle, time, time); "
                "one matrix needs a leading axis: c2[None]."
            )
        for name, wanted in (("t", shape[1:2]), ("q", ()), ("phi", shape[:1])):
            got = getattr(self, name).shape
            if got != wanted:
                raise ValueError(
                    f"{name} has shape {got}; expected {wanted} for c2 of shape {shape}; "
                    "give one time per frame, one angle per matrix and one q."
                )
        if self.mask is not None and (self.mask.shape != shape or self.mask.dtype != bool):
            raise ValueError(
                f"mask is {self.mask.dtype} of shape {self.mask.shape}; expected bool of shape "
                f"{shape}, True where a point is used."
            )
        if self.sigma is not None and self.sigma.shape not in ((), shape):
            got = self.sigma.shape
            raise ValueError(f"sigma has shape {got}; expected one number or shape {shape}.")

    def light_level(self, offset: Any) -> Any:
        """The offset that c2 would have with its baseline at 1: the product of mean intensities."""
        return offset + (1.0 - self.baseline)

    def usable(
        self, k: Index, first: Corner = (0, 0), size: int | None = None
    ) -> Bool[AnyArray, "*matrix row column"]:
        """Which points of matrix `k` count: t1 < t2, finite, and not masked.

        Every other module asks this function. Traceable, with a traced `k` and `first`; a NumPy
        array where the data are NumPy arrays and `k` is not a JAX array.

        Args:
            k: Position of the matrix, or a slice of positions (not with a window).
            first: First frames (t1, t2) of a square window.
            size: Edge of the window [frame]; None takes the whole matrix.
        """
        on_host = size is None and _is_host(k, self.c2, self.mask)
        xp: Any = np if on_host else jnp
        # Floating-point numbers, because CPUs compare few 64-bit integers at once.
        frames = xp.arange(size or self.c2.shape[-1], dtype=jnp.result_type(self.t))
        rows, columns = (frames + corner for corner in (first if size else (0, 0)))
        used = (rows[:, None] < columns) & xp.isfinite(window(self.c2, k, first, size))
        return used if self.mask is None else used & window(self.mask, k, first, size)

    def weights(
        self, k: Index, first: Corner = (0, 0), size: int | None = None
    ) -> Float[AnyArray, "*matrix row column"]:
        """Weights of the points of matrix `k`: 0 where not `usable`, else 1 or 1/sigma².

        Example:
            >>> data = TwoTimeData(np.ones((1, 2, 2)), np.arange(2.0), 0.01, np.zeros(1), sigma=0.5)
            >>> data.weights(0).tolist()
            [[0.0, 4.0], [0.0, 0.0]]
        """
        used = self.usable(k, first, size)
        xp: Any = np if isinstance(used, np.ndarray) and _is_host(self.sigma) else jnp
        dtype = jnp.result_type(self.t)
        if self.sigma is None:
            return xp.where(used, xp.ones((), dtype), 0.0)
        sigma = window(self.sigma, k, first, size) if self.sigma.ndim else self.sigma
        return xp.where(used, 1.0 / xp.where(used, sigma, 1.0).astype(dtype) ** 2, 0.0)

    def weights_at(
        self, k: Index, early: Int[Array, "*point"], late: Int[Array, "*point"]
    ) -> Float[Array, "*point"]:
        """Weights of single points of matrix `k`, by their frames, early < late; see `weights`."""
        return self._weights_by(lambda x: jnp.asarray(x)[k, early, late], early < late)

    def stripes(
        self, k: Index, frames: Int[Array, " row"]
    ) -> tuple[Float[Array, "row time"], Float[Array, "row time"]]:
        """c2 of matrix `k` between some frames and all, and its weights; see `weights_at`."""
        others = jnp.arange(self.c2.shape[-1])
        is_row = frames[:, None] <= others

        def read(x: AnyArray) -> Array:
            plane = jnp.asarray(x)[k]
            return jnp.where(is_row, plane[frames], plane[:, frames].T)

        weight = self._weights_by(read, frames[:, None] != others)
        return jnp.where(weight > 0, read(self.c2), 0.0).astype(weight.dtype), weight

    def _weights_by(self, read: Callable[[AnyArray], Array], apart: Array) -> Array:
        """The rule of `usable` and `weights` for points that `read` takes from an array."""
        used = apart & jnp.isfinite(read(self.c2))
        if self.mask is not None:
            used = used & read(self.mask)
        sigma = jnp.ones(()) if self.sigma is None else jnp.asarray(self.sigma)
        sigma = jnp.where(used, read(sigma) if sigma.ndim else sigma, 1.0)
        return jnp.where(used, 1.0 / sigma.astype(self.t.dtype) ** 2, 0.0)

    def is_complete(self) -> bool:
        """Whether all points with t1 < t2 count; traced c2 counts as finite, traced mask not."""
        if isinstance(self.mask, jax.core.Tracer):
            return False
        is_known = not isinstance(self.c2, jax.core.Tracer)
        c2 = np.asarray(self.c2) if is_known else np.broadcast_to(0.0, self.c2.shape)
        mask = None if self.mask is None else np.asarray(self.mask)
        zeros = np.zeros(c2.shape[1]), np.zeros(()), np.zeros(c2.shape[0])
        known = TwoTimeData(c2, *zeros, mask)
        count = c2.shape[1] * (c2.shape[1] - 1) // 2
        return all(np.count_nonzero(known.usable(k)) == count for k in range(c2.shape[0]))


def window(planes: AnyArray, k: Index, first: Corner, size: int | None) -> AnyArray:
    """Cut matrix `k`, or a square window of it, out of arrays (angle, time, time)."""
    if size is None:
        return planes[k] if _is_host(k, planes) else jnp.asarray(planes)[k]
    corner: Any = k, first[0], first[1]
    return jax.lax.dynamic_slice(planes, corner, (1, size, size))[0]


def _is_host(*values: object) -> bool:
    return not any(isinstance(value, jax.Array) for value in values)
