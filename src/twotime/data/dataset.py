"""The measured two-time correlation as a value."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float

AnyArray = Array | np.ndarray


def _array(value: object) -> AnyArray:
    """Arrays and tracers as they come, everything else as a float64 NumPy array."""
    if isinstance(value, jax.Array | np.ndarray):
        return value
    return np.asarray(value, dtype=np.float64)


def _optional(value: object) -> AnyArray | None:
    return None if value is None else _array(value)


class TwoTimeData(eqx.Module):
    r"""Two-time correlation at one wavevector: $c_2(\phi, t_1, t_2)$ and its axes.

    Symmetric in its last two axes; only pixels with t1 < t2 are ever fitted, so neither the
    diagonal (shot noise) nor the lower half carries information. Arrays are kept as they come:
    nothing is copied to a device and no precision is changed. Pixels that are masked may hold
    any number, NaN included.

    Attributes:
        c2: Correlation, baseline usually 1.
        t: Time of each frame [s].
        q: Wavevector [1/Å].
        phi: Detector angle of each matrix [degree].
        mask: True where a pixel is used; None uses all.
        sigma: Standard deviation of a pixel, one number or one per pixel; None if not known.

    Raises:
        ValueError: If the shapes do not fit each other.
    """

    c2: Float[AnyArray, "angle time time"] = eqx.field(converter=_array)
    t: Float[AnyArray, " time"] = eqx.field(converter=_array)
    q: Float[AnyArray, ""] = eqx.field(converter=_array)
    phi: Float[AnyArray, " angle"] = eqx.field(converter=_array)
    mask: Bool[AnyArray, "angle time time"] | None = eqx.field(converter=_optional, default=None)
    sigma: Float[AnyArray, ""] | Float[AnyArray, "angle time time"] | None = eqx.field(
        converter=_optional, default=None
    )

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
                f"{shape}, True where a pixel is used."
            )
        if self.sigma is not None and self.sigma.shape not in ((), shape):
            raise ValueError(
                f"sigma has shape {self.sigma.shape}; expected one number or shape {shape}."
            )
