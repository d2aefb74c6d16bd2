"""Repeats: the mean of one measurement made several times."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from twotime.data.dataset import TwoTimeData, check_alike
from twotime.kinds import checked

_SAME_BIN = 1e-3
"""Relative difference of the wavevectors of one bin in several files."""
_SAME_PHI = 0.1  # [degree]
_LEAST = 0.1  # noise of a file relative to that of all, below which it counts no more


@checked
def average(*data: TwoTimeData) -> TwoTimeData:
    r"""Mean of repeats of a measurement, matrix by matrix, each file weighed by its noise.

    Weights are $1/\sigma^2$ of each point where sigma is given, and the mean has the sigma that
    follows. Else they are inverse to the variance of each file's noise, which pairs of files tell:
    the variance of $c_r - c_s$ is $v_r + v_s$. From three files on the $v_r$ follow; two count
    alike. The noise of a mean is that of the files at another size, which a fit estimates.
    A point counts where it counts in all files.

    Args:
        data: Data in NumPy arrays of the same wavevectors, angles, frame times and baseline.

    Raises:
        ValueError: If there are none, or they do not hold the same.
    """
    if not data:
        raise ValueError("average got no data; expected at least one TwoTimeData.")
    first = data[0]
    for k, other in enumerate(data[1:], start=2):
        check_alike("average", first, other, k)
        _check_bins(first, other, k)
    used = np.all([x.usable(slice(None)) for x in data], axis=0)
    c2 = [np.where(used, np.asarray(x.c2, float), 0.0) for x in data]
    sigma = None
    if first.sigma is None:
        weights: Any = 1 / _noise(c2, used)
        weights = weights / np.sum(weights)
    else:
        deviations = [np.broadcast_to(np.asarray(x.sigma), used.shape) for x in data]
        inverse = np.stack([1 / np.where(used, s, 1.0) ** 2 for s in deviations])
        weights, sigma = inverse / inverse.sum(axis=0), inverse.sum(axis=0) ** -0.5
        sigma = np.where(used, sigma, np.swapaxes(sigma, 1, 2))
    mean = np.sum([w * x for w, x in zip(weights, c2, strict=True)], axis=0)
    mean, mask = (x + np.swapaxes(x, 1, 2) for x in (mean, used))
    return dataclasses.replace(first, c2=mean.astype(first.c2.dtype), mask=mask, sigma=sigma)


def _check_bins(first: TwoTimeData, other: TwoTimeData, k: int) -> None:
    """Refuse other matrices than the first data have."""
    places = [
        (np.broadcast_to(np.asarray(x.q, float), x.phi.shape), np.asarray(x.phi, float))
        for x in (first, other)
    ]
    (q, phi), (also_q, also_phi) = places
    turned = (also_phi - phi + 180) % 360 - 180 if phi.shape == also_phi.shape else np.inf
    if np.any(np.abs(turned) > _SAME_PHI) or np.any(np.abs(also_q - q) > _SAME_BIN * np.abs(q)):
        listed = ", ".join(f"({a:.6g}, {b:g})" for a, b in zip(also_q, also_phi, strict=True))
        raise ValueError(
            f"average got in number {k} the matrices (q, phi) {listed}; expected those of the "
            f"first data, {', '.join(f'({a:.6g}, {b:g})' for a, b in zip(q, phi, strict=True))}; "
            "select what all have."
        )


def _noise(c2: list[np.ndarray], used: np.ndarray) -> Float[np.ndarray, " file"]:
    """Variance of the noise of each of several repeats, up to a factor."""
    count = len(c2)
    if count < 3:
        return np.ones(count)
    apart = np.zeros((count, count))
    for r in range(count):
        for s in range(r):
            apart[r, s] = apart[s, r] = np.mean((c2[r] - c2[s])[used] ** 2)
    total = apart.sum() / (2 * (count - 1))
    own = (apart.sum(axis=1) - total) / (count - 2)
    return np.maximum(own, _LEAST * total / count) if total > 0 else np.ones(count)
