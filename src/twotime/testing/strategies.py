"""Hypothesis strategies that stay inside the domain of models."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from jaxtyping import Float

from twotime.config.parameter_space import ParameterSpace

Vector = Float[np.ndarray, " _"]


def thetas(space: ParameterSpace) -> st.SearchStrategy[Vector]:
    """Draw parameters of a space inside its bounds, which are drawn too.

    One half comes from the whole box (logarithmic where the space says so), the other from the
    neighbourhood of the initial values, where most models are less trivial.
    """
    lower, upper, initial, scale = (
        np.asarray(x) for x in (space.lower, space.upper, space.initial, space.scale)
    )
    is_log = np.asarray(space.log_space, bool)
    low, high = np.log(np.where(is_log, lower, 1.0)), np.log(np.where(is_log, upper, 1.0))
    n = len(space.names)

    def place(units: Any, spread: float | None) -> Vector:
        unit = np.array(units)
        if spread is None:
            box = lower + unit * (upper - lower)
            box = np.where(is_log, np.exp(low + unit * (high - low)), box)
        else:
            box = initial + (2 * unit - 1) * spread * scale
        return np.clip(box, lower, upper)

    units = st.lists(st.floats(0.0, 1.0), min_size=n, max_size=n)
    return st.builds(place, units, st.sampled_from([None, 1.0, None, 0.03]))


def times(
    lengths: Sequence[int] = (2, 9), steps: Sequence[float] = (0.0125, 0.3)
) -> st.SearchStrategy[Vector]:
    """Draw the times of equally spaced frames [s], the first later than 0.

    Lengths come from a short list, because every new length compiles anew.
    """
    grids = st.tuples(st.sampled_from(lengths), st.sampled_from(steps), st.sampled_from((1, 4)))
    return grids.map(lambda drawn: (np.arange(drawn[0]) + drawn[2]) * drawn[1])


def angles(numbers: Sequence[int] = (2,)) -> st.SearchStrategy[Vector]:
    """Draw detector angles [degree] in (-180, 180]."""
    one = st.integers(-179, 180).map(float)
    lists = [st.lists(one, min_size=n, max_size=n, unique=True) for n in numbers]
    return st.one_of(lists).map(np.array)
