"""Checks of the arguments that laws are evaluated at: one sentence for each mistake."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from twotime.models.base import AbstractTwoTimeModel, floating, is_concrete


def parameters_of(model: AbstractTwoTimeModel, params: Any) -> Any:
    """The array of a law's parameters, in its order; given as such or by name.

    Raises:
        ValueError: If names or numbers are missing or too many.
    """
    names, law = model.names, type(model).__name__
    if isinstance(params, Mapping):
        wrong = [*(n for n in params if n not in names), *(n for n in names if n not in params)]
        if wrong:
            raise ValueError(
                f"{law} has the parameters {', '.join(names)}; of those given by name "
                f"{', '.join(map(str, wrong))} is missing or unknown."
            )
        return jnp.stack([jnp.asarray(params[name], float) for name in names])
    params = floating(params)
    if params.shape != (len(names),):
        raise ValueError(
            f"{law} has {len(names)} parameters, {', '.join(names)}; got an array of shape "
            f"{params.shape}; give one number for each in this order."
        )
    return params


def axes_of_matrices(t: Any, q: Any, phi: Any) -> tuple[Any, Any, Any]:
    """As `axes`, of matrices with an angle each.

    Raises:
        ValueError: If there is not one angle, and one wavevector or one in all, for each.
    """
    found = axes(t, q, phi)
    shape = found[2].shape
    if len(shape) != 1 or found[1].shape not in ((), shape):
        raise ValueError(
            f"phi has shape {shape} and q {found[1].shape}; expected one angle for each matrix "
            "[degree], phi=[0.0] for one, and one wavevector or one for each [1/Å]."
        )
    return found


def axes(t: Any, q: Any, phi: Any) -> tuple[Any, Any, Any]:
    """Times, wavevectors and angles as floating-point numbers, checked where they are known.

    Returns:
        The three, with the wavevectors and angles in the precision of the times.

    Raises:
        ValueError: If they cannot be used.
    """
    t, phi = floating(t), floating(phi)
    found = t, jnp.asarray(q, t.dtype), phi.astype(t.dtype)
    if is_concrete(q) and not np.all(np.asarray(q) > 0):
        raise ValueError(f"q must be positive [1/Å]; got {np.asarray(q)}.")
    if not is_concrete(t):
        return found
    times = np.asarray(t)
    is_right = times.ndim == 1 and np.isfinite(times).all() and (np.diff(times) > 0).all()
    if not is_right or (times.size and times[0] < 0):
        raise ValueError(
            f"t must be finite, increasing times from 0 on [s]; got {times[:3]}…; sort the "
            "frames, check dt and t0."
        )
    return found
