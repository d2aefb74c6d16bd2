"""One-time correlation g2(τ) of a whole record and of periods of it: for looking, not for fitting.

Error bars are those of the noise of speckle and photons (`twotime.covariance.speckle`), with the
correlation that g2(τ) itself shows and pixels and photons from the scatter about it. Both take the
sample as steady within a period; a fit of the two-time matrices does not.
"""

from itertools import pairwise
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from twotime.compilation import compiled, verb
from twotime.covariance.blocks import single
from twotime.covariance.noise import Link, Moments, moments_of_frames, photon_powers, solve_noise
from twotime.covariance.speckle import of_whole_matrices
from twotime.data.dataset import TwoTimeData
from twotime.models.base import are_known
from twotime.tables import Table, Tabled, number_table

_PER_DECADE = 8
_LONG = 0.7
"""Lags from this part of the period on tell the level without correlation."""
Lags = Int[np.ndarray, " end"]


class OneTime(Tabled, eqx.Module):
    """g2(τ) of each matrix in each period.

    Attributes:
        tau: Mean lag of each group of lags [s].
        g2: Mean correlation; NaN where no point counts.
        error: Its standard deviation by speckle and photon noise.
        periods: Times of the first and the last frame of each period [s].
        q: Wavevector of each matrix [1/Å].
        phi: Angle of each matrix [degree].
    """

    tau: Float[Array, " lag"]
    g2: Float[Array, "period angle lag"]
    error: Float[Array, "period angle lag"]
    periods: Float[np.ndarray, "period 2"]
    q: Float[np.ndarray, " angle"]
    phi: Float[np.ndarray, " angle"]

    def _shown(self) -> Table | None:
        if not are_known(self) or np.ndim(self.g2) != 3:
            return None
        title = f"OneTime: g2 of {len(self.phi)} matrices in {len(self.periods)} periods; the first"
        columns = {"τ [s]": self.tau, "g2": self.g2[0, 0], "±": self.error[0, 0]}
        return number_table(title, columns)

    def to_csv(self) -> str:
        """A table with a row for each matrix, period and lag."""
        lines = ["q,phi,first_time,last_time,tau,g2,error"]
        for p, (first, last) in enumerate(self.periods):
            for k, (q, phi) in enumerate(zip(self.q, self.phi, strict=True)):
                place = f"{q:.9g},{phi:.9g},{first:.9g},{last:.9g}"
                columns = (np.asarray(x) for x in (self.tau, self.g2[p, k], self.error[p, k]))
                lines += [
                    f"{place},{t:.9g},{g:.9g},{e:.9g}" for t, g, e in zip(*columns, strict=True)
                ]
        return "\n".join(lines) + "\n"


@verb
def one_time(data: TwoTimeData, ages: int = 1) -> OneTime:
    """Average c2 over points of equal lag, in the whole record or in periods of equal length.

    Lags are grouped evenly in their logarithm. A period holds the points of which both frames lie
    in it. Work grows with the cube of its frames.

    Args:
        data: The data.
        ages: Number of periods of equal length into which the record is divided.

    Raises:
        ValueError: If periods are shorter than 8 frames.
    """
    n = data.t.shape[0]
    length = n // ages if ages > 0 else 0
    if length < 8:
        raise ValueError(
            f"ages is {ages} for {n} frames; expected a count from 1 with at least 8 frames in "
            "each period."
        )
    starts = np.arange(ages) * length
    count = max(2, int(np.ceil(_PER_DECADE * np.log10(length))))
    ends = np.unique(np.round(np.geomspace(1, length, count + 1)).astype(int))
    found = [_period(data, jnp.asarray(start), length, tuple(ends.tolist())) for start in starts]
    t = np.asarray(data.t, float)
    early, late = np.triu_indices(length, 1)
    group = np.searchsorted(ends, late - early, side="right") - 1
    group = np.minimum(group, len(ends) - 2)
    tau = np.bincount(group, t[late] - t[early]) / np.bincount(group)
    periods = np.stack([t[starts], t[starts + length - 1]], axis=1)
    q = np.broadcast_to(np.asarray(data.q, float), data.phi.shape)
    g2, error = (jnp.stack(x) for x in zip(*found, strict=True))
    return OneTime(jnp.asarray(tau), g2, error, periods, q, np.asarray(data.phi, float))


class _Seen(NamedTuple):
    """Of one matrix in a period: g2, moments of the scatter about it, and its noise (N = 1)."""

    g2: Float[Array, "*angle lag"]
    moments: Moments
    taken: Float[Array, "*angle 3"]
    variance: Float[Array, "*angle 3 lag"]
    weight: Float[Array, "*angle"]


@compiled
def _period(
    data: TwoTimeData, first: Array, length: int, ends: tuple[int, ...]
) -> tuple[Array, Array]:
    """g2 and its standard deviation of each matrix, in `length` frames from `first` on."""
    seen = jax.lax.map(lambda k: _matrix(data, k, first, length, ends), jnp.arange(len(data.phi)))
    inverse_photons, pixels, _ = solve_noise(seen.moments, seen.taken, seen.weight, data.rings)
    powers = photon_powers(inverse_photons, data.rings)
    variance = jnp.sum(seen.variance * powers[:, :, None], axis=1) / pixels[:, None]
    known = jnp.isfinite(seen.g2)
    return seen.g2, jnp.where(known, jnp.sqrt(jnp.maximum(variance, 0.0)), jnp.nan)


def _matrix(data: TwoTimeData, k: Array, first: Array, length: int, ends: tuple[int, ...]) -> _Seen:
    frames = first + jnp.arange(length)
    c2, weight = data.stripes(k, frames)
    c2, weight = c2[:, frames], weight[:, frames]
    lag = np.abs(np.arange(length)[:, None] - np.arange(length))
    low, high = (np.asarray(x)[:, None, None] for x in (ends[:-1], ends[1:]))
    is_last = np.arange(len(ends) - 1)[:, None, None] == len(ends) - 2
    member = jnp.asarray((lag >= low) & ((lag < high) | is_last), c2.dtype)
    total = jnp.einsum("kij,ij->k", member, weight)
    means = jnp.einsum("kij,ij,ij->k", member, weight, c2) / jnp.where(total > 0, total, 1.0)
    middle = np.array([lag[(lag >= a) & (lag < b)].mean() for a, b in pairwise(ends)])
    usable = jnp.where(total > 0, means, means[0])
    curve = jnp.interp(np.log(np.maximum(lag, 1)), np.log(middle), usable)
    long = weight * (lag >= _LONG * length)
    level = jnp.sum(long * c2) / jnp.maximum(jnp.sum(long), 1e-300)
    height = jnp.maximum(usable[0] - level, 1e-12)
    value = jnp.where(lag > 0, jnp.clip((curve - level) / height, 0.0, 1.0), 1.0)
    contrast = jnp.clip(height / data.light_level(level), 1e-6, 1.0)
    link = Link(value, jnp.sqrt(value))
    residual = jnp.where(weight > 0, c2 - curve, 0.0)
    moments = moments_of_frames(residual, weight, link, contrast)
    scores = member * weight / jnp.where(total > 0, total, 1.0)[:, None, None]
    noise = of_whole_matrices(*single((scores, link.value, link.field, contrast)))
    variance = jnp.diagonal(noise.coefficients, axis1=1, axis2=2).astype(c2.dtype)
    taken = variance @ (0.5 * total)
    g2 = jnp.where(total > 0, means, jnp.nan)
    return _Seen(g2, moments, taken, variance, 0.5 * jnp.sum(weight))
