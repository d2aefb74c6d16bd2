r"""Robust losses: least squares whose pixels lose weight as their residuals grow.

Minimised is $\sum s^2 \rho(r^2/s^2)$ over the pixels with t1 < t2, with r the residual in units
of sigma and s = `loss_scale` times the noise level: 1 where the data have a sigma, else
1.4826 times the median of |r| of each angle, found again in every round. Where a loss has the
weight $w = \rho'$, its minimum is that of $\sum w r^2$ at these weights; so weights and fit take
turns until neither changes.

Reference:
    Holland & Welsch, Comm. Statist. A6, 813 (1977); Huber, Robust Statistics (1981).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from twotime.fit.objective import End
from twotime.gram.choose import prepare
from twotime.gram.problem import Problem
from twotime.models.correlation import correlation
from twotime.models.scaling import ScalingSolution
from twotime.solver import RESULTS

Loss = Literal["linear", "soft_l1", "huber"]
_HALVINGS = 50
_NORMAL = 1.4826
_ROUNDING = 1e-12

Plane = Float[Array, "time time"]


class Robust(eqx.Module):
    """A robust loss.

    Attributes:
        scale: Residual from which it departs from the square [noise level].
        kind: "soft_l1" or "huber".
    """

    scale: Float[Array, ""]
    kind: str = eqx.field(static=True)

    def cost(self, u: Plane) -> Plane:
        """Loss of (residual/s)², in units of s²."""
        root = jnp.sqrt(1.0 + u)
        if self.kind == "soft_l1":
            return 2.0 * u / (1.0 + root)
        return jnp.where(u <= 1.0, u, 2.0 * jnp.sqrt(u) - 1.0)

    def weight(self, u: Plane) -> Plane:
        """Its slope: what the pixel counts in least squares."""
        if self.kind == "soft_l1":
            return (1.0 + u) ** -0.5
        return jnp.maximum(u, 1.0) ** -0.5

    def stiffness(self, u: Plane) -> Plane:
        """Half of its second derivative by the residual: what a pixel adds to the curvature."""
        if self.kind == "soft_l1":
            return (1.0 + u) ** -1.5
        return jnp.where(u <= 1.0, 1.0, 0.0)


class Weights(eqx.Module):
    """What a loss makes of the residuals.

    Attributes:
        sigma: Standard deviations that give each pixel its weight.
        noise: Noise level of each angle [sigma, or c2 where there is none].
        cost: The robust sum.
        chi2: Sum of squares of the same residuals.
        total: Sum of squares of the data about the mean of each angle.
        weight: Mean weight of a pixel.
        stiffness: Mean stiffness of a pixel.
    """

    sigma: Float[Array, "angle time time"]
    noise: Float[Array, " angle"]
    cost: Float[Array, ""]
    chi2: Float[Array, ""]
    total: Float[Array, ""]
    weight: Float[Array, ""]
    stiffness: Float[Array, ""]


def make_loss(kind: str, scale: float, evaluator: str) -> Robust | None:
    """The loss that was asked for; None for plain squares.

    Args:
        kind: "linear", "soft_l1" or "huber".
        scale: Residual from which it departs from the square [noise level].
        evaluator: The evaluator that was asked for.

    Raises:
        ValueError: If the loss is unknown, its scale is not positive, or the evaluator cannot
            weigh pixels one by one.
    """
    if kind not in get_args(Loss):
        raise ValueError(f"loss is {kind!r}; expected one of {', '.join(get_args(Loss))}.")
    if kind == "linear":
        return None
    if not isinstance(scale, jax.core.Tracer) and not scale > 0:
        raise ValueError(f"loss_scale is {scale}; expected a positive number of noise levels.")
    if evaluator == "factored":
        raise ValueError(
            f"The factored evaluator cannot be used with loss={kind!r}, which weighs every pixel "
            "by itself; use 'auto' or 'tiled'."
        )
    return Robust(jnp.asarray(scale, float), kind)


def weigh(
    problem: Problem, params: Float[Array, " param"], scaling: ScalingSolution, loss: Robust
) -> Weights:
    """Weights of all pixels at given parameters, contrasts and offsets.

    Args:
        problem: The fit.
        params: All parameters.
        scaling: Contrasts and offsets, the data's shift taken out.
        loss: The loss.
    """

    def one(k: Array) -> tuple[Plane, Array, Array]:
        r, used, sigma = _residual(problem, params, scaling, k)
        noise = jnp.ones(()) if problem.data.sigma is not None else _noise(r, used, problem.shift)
        s = loss.scale * noise
        u = (r / s) ** 2
        w = loss.weight(u)
        c2 = jnp.where(used, (jnp.asarray(problem.data.c2)[k] - problem.shift) / sigma, 0.0)
        one = jnp.where(used, 1.0 / sigma, 0.0)
        total = jnp.sum(c2**2) - jnp.sum(c2 * one) ** 2 / jnp.sum(one**2)
        parts = (s**2 * loss.cost(u), r**2, w, loss.stiffness(u))
        sums = [jnp.sum(jnp.where(used, x, 0.0)) for x in parts]
        return sigma / jnp.sqrt(w), noise, jnp.stack([*sums, total])

    sigma, noise, sums = jax.lax.map(one, jnp.arange(problem.data.phi.shape[0]))
    cost, chi2, weight, stiffness, total = jnp.sum(sums, axis=0)
    count = problem.n_pixels
    return Weights(sigma, noise, cost, chi2, total, weight / count, stiffness / count)


class _Round(eqx.Module):
    """Where the turns of weighing and fitting stand: the last end, and the weights there."""

    end: End
    weights: Weights
    settled: Bool[Array, ""]
    n_steps: Int[Array, ""]


def settle_weights(
    problem: Problem,
    y: Float[Array, " free"],
    loss: Robust,
    descend: Callable[[Problem, Float[Array, " free"]], End],
    tolerance: float,
    max_steps: int,
) -> End:
    """Fit with plain squares, then weigh and fit in turns until neither changes.

    Settled is when a fit with fresh weights has converged and moved no farther than the
    tolerance: then its start was already stationary for the loss itself.

    Args:
        problem: The fit.
        y: Scaled free parameters at the start.
        loss: The loss.
        descend: Fits a problem from a start.
        tolerance: Largest move of a settled round [standard deviations].
        max_steps: No round begins after so many evaluations.
    """

    def running(last: _Round) -> Array:
        more = ~last.settled & (last.n_steps < max_steps)
        return (last.n_steps == 0) | ((last.end.result == RESULTS.successful) & more)

    def one_round(last: _Round) -> _Round:
        end = descend(with_sigma(problem, last.weights.sigma), last.end.y)
        moved = (end.y - last.end.y) * problem.scale
        variance = end.reduced.chi2 / problem.n_pixels
        distance = jnp.sqrt(jnp.maximum(moved @ end.reduced.hessian @ moved, 0.0) / variance)
        # Fresh weights undo part of a step: the whole way left is longer by this ratio.
        distance = distance * last.weights.weight / last.weights.stiffness
        settled = (distance <= tolerance) & (last.n_steps > 0)
        weights = weigh(problem, problem.params(end.y), end.reduced.scaling, loss)
        return _Round(end, weights, settled, last.n_steps + end.n_steps)

    last = jax.lax.while_loop(running, one_round, _before(problem, y, descend))
    end = last.end
    is_open = (end.result == RESULTS.successful) & ~last.settled
    result = RESULTS.where(is_open, RESULTS.unsettled, end.result)
    changed = last.weights.cost, result, last.n_steps
    return eqx.tree_at(lambda e: (e.cost, e.result, e.n_steps), end, changed)


def _before(problem: Problem, y: Array, descend: Callable[[Problem, Array], End]) -> _Round:
    """Before the first round: every pixel counts in full, and there is no end yet."""
    d = problem.data
    sigma = jnp.ones(()) if d.sigma is None else jnp.asarray(d.sigma)
    sigma = jnp.broadcast_to(sigma.astype(y.dtype), d.c2.shape)
    one = jnp.ones((), y.dtype)
    weights = Weights(sigma, jnp.ones(d.phi.shape, y.dtype), *(one,) * 5)
    shape = eqx.filter_eval_shape(descend, with_sigma(problem, sigma), y)
    end = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
    end = eqx.tree_at(lambda e: e.y, end, y)
    return _Round(end, weights, jnp.asarray(False), jnp.zeros_like(end.n_steps))


def with_sigma(problem: Problem, sigma: Float[Array, "angle time time"]) -> Problem:
    """The same fit with a standard deviation for each pixel."""
    return _with_data(problem, sigma=sigma)


def pseudo_problem(
    problem: Problem,
    params: Float[Array, " param"],
    scaling: ScalingSolution,
    loss: Robust,
    found: Weights,
) -> Problem:
    r"""The fit to data of which plain least squares would find the same answer as the loss.

    Residuals become $\psi(r)/\overline{\psi'}$ with $\psi = w r$. The covariance of plain least
    squares on these data is that of the robust fit: the variance of independent pixels becomes
    $\overline{\psi^2}/\overline{\psi'}^2$, while to first order speckle noise common to several
    pixels keeps its covariance.

    Args:
        problem: The fit.
        params: All parameters at the robust optimum.
        scaling: Contrasts and offsets there.
        loss: The loss.
        found: The weights there.

    Reference:
        Huber, Robust Statistics, section 7.6 (1981).
    """

    def one(k: Array) -> Plane:
        r, used, sigma = _residual(problem, params, scaling, k)
        w = loss.weight((r / (loss.scale * found.noise[k])) ** 2)
        c2 = jnp.asarray(problem.data.c2)[k]
        return jnp.where(used, c2 - r * sigma * (1 - w / found.stiffness), c2)

    c2 = jax.lax.map(one, jnp.arange(problem.data.phi.shape[0]))
    return _with_data(problem, c2=c2)


def _with_data(problem: Problem, **changed: Array) -> Problem:
    data = dataclasses.replace(problem.data, **changed)
    prepared = prepare(problem.evaluator, data, problem.shift, problem.tile)
    return dataclasses.replace(problem, data=data, prepared=prepared)


def _residual(
    problem: Problem, params: Array, scaling: ScalingSolution, k: Array
) -> tuple[Plane, Bool[Array, "time time"], Array]:
    """Residuals of an angle [sigma], 0 where they do not count; which count; sigma."""
    d = problem.data
    t, phi = jnp.asarray(d.t), jnp.asarray(d.phi)[k]
    model = correlation(problem.model, params, t=t, q=jnp.asarray(d.q), phi=phi[None])[0]
    c2 = jnp.asarray(d.c2)[k]
    used = d.usable(k)
    sigma = jnp.ones(()) if d.sigma is None else jnp.asarray(d.sigma)
    sigma = sigma[k] if sigma.ndim else sigma
    sigma = jnp.where(used, sigma, 1.0)
    residual = c2 - problem.shift - scaling.offset[k] - scaling.contrast[k] * model
    return jnp.where(used, residual / sigma, 0.0), used, sigma


def _noise(r: Plane, used: Bool[Array, "time time"], shift: Array) -> Float[Array, ""]:
    """1.4826 times the median of |r|, by bisection: sorting takes far longer."""
    size, half = jnp.abs(r), 0.5 * jnp.sum(used)

    def narrow(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        enough = jnp.sum(used & (size <= middle)) >= half
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    median = jax.lax.fori_loop(0, _HALVINGS, narrow, (jnp.zeros(()), jnp.max(size)))[1]
    return jnp.maximum(_NORMAL * median, _ROUNDING * jnp.abs(shift))
