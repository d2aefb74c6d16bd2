"""What a record cannot show, in words: parameters, ends of a decay, how fast a drift is."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from twotime.models.rates import AnyArray

_HALF_TURN = 2.0  # turn per frame from which drifts may be confused [rad]
_WITHIN_A_FRAME, _DECAYED = 0.1, 0.05
"""The decay is too fast if less is left after a frame, too slow if more is left at the end."""
_TAKES_PART = 0.2


def undetermined(
    names: Sequence[str],
    parts: Bool[np.ndarray, "direction free"],
    alone: Bool[np.ndarray, " free"],
) -> tuple[str, ...]:
    """Parameters that the data do not determine.

    Args:
        names: Names of the fitted parameters.
        parts: Which of them take part in each direction along which nothing is determined.
        alone: Which of them have an error far wider than their bounds.
    """
    every = np.asarray(names)
    found = [
        f"the data do not determine {every[part][0]}"
        if part.sum() == 1
        else f"the data do not determine one combination of {', '.join(every[part])}; fix one of "
        "them"
        for part in parts[parts.any(axis=1)]
    ]
    if alone.any():
        found.append(f"the data do not determine {', '.join(every[alone])} within the bounds")
    return tuple(found)


def combined(
    names: Sequence[str],
    values: Float[np.ndarray, " direction"],
    vectors: Float[np.ndarray, "direction free"],
) -> tuple[str, ...]:
    """Combinations of parameters that the data determine poorly.

    Args:
        names: Names of the fitted parameters.
        values: Eigenvalues of the Gauss-Newton matrix scaled to unit diagonal.
        vectors: Their eigenvectors.
    """
    every = np.asarray(names)
    return tuple(
        f"one combination of {', '.join(every[np.abs(vector) > _TAKES_PART])} is poorly "
        f"determined: its error is {value**-0.5:.0f} times that of each with the others fixed"
        for value, vector in zip(values, vectors, strict=True)
    )


def aliases(
    turn_per_frame: Float[AnyArray, " angle"] | None, phi: Float[AnyArray, " angle"]
) -> tuple[str, ...]:
    """Drifts that neighbouring frames cannot tell from the fitted one.

    Args:
        turn_per_frame: Largest turn of the phase in a frame, of each angle [rad]; None if unknown.
        phi: Detector angles [degree].
    """
    turn = np.zeros(1) if turn_per_frame is None else np.asarray(turn_per_frame)
    k = int(np.argmax(turn))
    if turn[k] < _HALF_TURN:
        return ()
    others = [abs(2 * np.pi - turn[k]), 2 * np.pi + turn[k]]
    return (
        f"the drift turns the phase by up to {turn[k]:.3g} rad a frame at φ = "
        f"{float(phi[k]):.4g}°, not far from half a turn (π), where drifts of "
        f"{others[0]:.3g} and {others[1]:.3g} rad a frame look alike: velocities "
        f"{others[0] / turn[k]:.3g} and {others[1] / turn[k]:.3g} times the fitted one; take "
        "shorter frames or a smaller q, or narrow the bounds of the velocity if it is known",
    )


def ends(correlation_ends: Float[AnyArray, "angle 2"] | None) -> tuple[str, ...]:
    """Decays that begin within the first frame or go on after the last.

    Args:
        correlation_ends: Correlation of each angle after a frame and at the end; None if unknown.
    """
    if correlation_ends is None:
        return ()
    within, left = np.asarray(correlation_ends).T
    n_fast, found = int(np.sum(within < _WITHIN_A_FRAME)), []
    if n_fast:
        found.append(
            f"at {n_fast} of {within.size} angles the fitted correlation falls to "
            f"{within.min():.2g} within one frame: what happens in that time is not seen, and "
            "contrast and rate rest on what little is left; take shorter frames or a smaller q"
        )
    if left.min() > _DECAYED:
        found.append(
            f"the record ends before the correlation does: {left.min():.2g} of it is left "
            "between the first and the last frame, so offset, contrast and rate can hardly be "
            "told apart; measure for longer, or fix the offset where it is known"
        )
    return tuple(found)
