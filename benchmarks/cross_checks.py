"""Two covariances to check the default with: dyadic scores of frames, and a jackknife of angles.

The dyadic sandwich takes the noise from the residuals alone and so knows no speckle. With the few
tens of correlation times of a usual record it is noisy and, because the fit has already followed
the noise, too small. Use it to find noise that speckle does not explain.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime.compilation import compiled
from twotime.covariance import LinearisedFit
from twotime.gram.evaluator import TILE
from twotime.gram.pairs import (
    ChannelDerivatives,
    channel_slopes,
    cut_tile,
    slopes,
    tile_corners,
    tile_edge,
    tile_pairs,
)
from twotime.gram.problem import Problem, Reduced, reduce_gram
from twotime.models.correlation import pairs

Scores = Float[Array, "angle time free"]
Covariance = Float[Array, "free free"]
Grams = Float[Array, "angle basis basis"]
_WINDOW = 2.0
"""Longest lag, in correlation times."""


def frame_scores(problem: Problem, params: Float[Array, " param"], reduced: Reduced) -> Scores:
    """Score of every frame: weighted derivative times residual, summed over its pixels.

    Contrast and offset are projected out. One pass over the data; memory frames times parameters.

    Args:
        problem: The fit.
        params: All parameters at the optimum.
        reduced: The Gram matrices there, reduced.
    """
    n = problem.data.t.shape[0]
    edge = tile_edge(n, TILE)

    def one(k: Array) -> Array:
        channels, by = channel_slopes(problem.model, problem.data, params, problem.varying, k)
        sides = ChannelDerivatives.of(by)
        contrast, offset = reduced.scaling.contrast[k], reduced.scaling.offset[k]
        taken = jnp.einsum("k,skp->sp", problem.scaling.basis[k], reduced.projection)

        def add(total: Array, corner: Array) -> tuple[Array, None]:
            tile = cut_tile(problem.data, k, problem.shift, corner, edge)
            value, planes = slopes(problem.model, tile_pairs(channels, tile.first, edge))
            g = jnp.stack(planes)
            pull = tile.weight * (tile.c2 - contrast * value - offset)
            rows, columns = _tile_scores(pull, value, g, sides, tile.first, contrast, taken)
            local = jnp.arange(value.shape[0])
            total = total.at[tile.first[0] + local].add(rows)
            return total.at[tile.first[1] + local].add(columns), None

        start = jnp.zeros((n, reduced.grad.size))
        return jax.lax.scan(add, start, tile_corners(n, TILE))[0]

    return jax.lax.map(one, jnp.arange(problem.data.phi.shape[0]))


def _tile_scores(
    pull: Array,
    value: Array,
    g: Array,
    sides: ChannelDerivatives,
    first: tuple[Array, Array],
    contrast: Array,
    projection: Float[Array, "2 free"],
) -> tuple[Array, Array]:
    """What a tile adds to the scores of its row frames and of its column frames."""
    size = value.shape[0]
    row = jax.lax.dynamic_slice_in_dim(sides.row, first[0], size, axis=2)
    column = jax.lax.dynamic_slice_in_dim(sides.column, first[1], size, axis=2)
    slope = contrast * pull * g
    by_row = jnp.einsum("ki,kpi->ip", slope.sum(2), row) + jnp.einsum("kij,kpj->ip", slope, column)
    by_column = jnp.einsum("kij,kpi->jp", slope, row) + jnp.einsum(
        "kj,kpj->jp", slope.sum(1), column
    )
    weighted = jnp.stack([pull * value, pull])
    by_row -= jnp.einsum("si,sp->ip", weighted.sum(2), projection)
    by_column -= jnp.einsum("sj,sp->jp", weighted.sum(1), projection)
    return by_row, by_column


def correlation_times(problem: Problem, params: Float[Array, " param"]) -> Float[Array, " angle"]:
    """Frames in which the fitted correlation decays: the integral of C over lags.

    Args:
        problem: The fit.
        params: All parameters.
    """
    d = problem.data
    n = d.t.shape[0]

    def one(phi: Array) -> Array:
        channels = problem.model.channels(params, d.t, t=d.t, q=d.q, phi=phi)
        step = -(-n // 256)
        coarse = jax.tree.map(lambda x: x[:, ::step], channels)
        value = problem.model.correlation(pairs(coarse))
        return 0.5 * step * jnp.mean(jnp.sum(value, axis=1))

    return jax.lax.map(one, jnp.asarray(d.phi))


def dyadic_meat(
    scores: Scores,
    windows: Float[Array, " angle"],
    *,
    shared_frames: bool = False,
) -> Float[Array, "free free"]:
    """Covariance of the scores from themselves, frames up to a lag apart taken as dependent.

    Args:
        scores: See `frame_scores`.
        windows: Longest lag of each angle [frames]; Bartlett's taper falls to zero there.
        shared_frames: Whether the angles share the noise of a frame (a beam that flickers): scores
            are then summed over the angles first. Otherwise angles are independent.

    Reference:
        Fafchamps & Gubert, J. Dev. Econ. 83, 326 (2007); Newey & West, Econometrica 55, 703 (1987).
    """
    if shared_frames:
        scores, windows = scores.sum(axis=0, keepdims=True), jnp.max(windows, keepdims=True)
    n = scores.shape[1]
    lag = jnp.abs(jnp.arange(n)[:, None] - jnp.arange(n)[None, :])

    def one(pair: tuple[Array, Array]) -> Array:
        s, window = pair
        return s.T @ (jnp.maximum(1.0 - lag / jnp.maximum(window, 1.0), 0.0) @ s)

    return jnp.sum(jax.lax.map(one, (scores, windows)), axis=0)


def jackknife_angles(problem: Problem, grams: Grams) -> Float[Array, "free free"]:
    """Covariance from leaving out one angle at a time, one Gauss-Newton step each.

    Needs no pass over the data. The angles must be independent and several times as many as the
    parameters.

    Args:
        problem: The fit.
        grams: Gram matrices at the optimum.
    """
    n = grams.shape[0]

    def without(k: Array) -> Array:
        kept = jnp.where(jnp.arange(n) == k, 0.0, 1.0)[:, None, None]
        reduced = reduce_gram(grams * kept, problem.scaling)
        return -jnp.linalg.solve(reduced.hessian, reduced.grad)

    steps = jax.lax.map(without, jnp.arange(n))
    spread = steps - steps.mean(axis=0)
    return (n - 1) / n * spread.T @ spread


@compiled
def dyadic_covariance(
    at: LinearisedFit, *, shared_frames: bool = False, windows: Float[Array, " angle"] | None = None
) -> Covariance:
    """Covariance of the fit by the dyadic sandwich of its frames' scores.

    Args:
        at: The optimum.
        shared_frames: Whether the angles share the noise of a frame.
        windows: Longest lag of each angle [frames]; left out, twice the correlation time of the
            fitted correlation.
    """
    if windows is None:
        windows = _WINDOW * correlation_times(at.problem, at.params)
    scores = frame_scores(at.problem, at.params, at.reduced)
    meat = dyadic_meat(scores, windows, shared_frames=shared_frames)
    return at.inverse @ meat @ at.inverse


def jackknife_covariance(at: LinearisedFit) -> Covariance:
    """Covariance of the fit from leaving out one angle at a time.

    Args:
        at: The optimum.

    Raises:
        ValueError: If there are fewer than three angles.
    """
    n_angles = np.shape(at.grams)[0]
    if n_angles < 3:
        raise ValueError(
            f"The jackknife leaves out one angle at a time; got {n_angles}; expected at least 3."
        )
    return jackknife_angles(at.problem, at.grams)
