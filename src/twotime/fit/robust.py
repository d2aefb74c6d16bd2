r"""What a fit minimises: squares, or a loss under which large residuals lose their weight.

A robust fit minimises $\sum s^2 \rho(r^2/s^2)$ over the points with t1 < t2, with r the residual
in units of sigma and s = `loss_scale` times the noise level: 1 where the data have a sigma, else
1.4826 times the median of |r| of each angle, found again in every round. Where a loss has the
weight $w = \rho'$, its minimum is that of $\sum w r^2$ at these weights; so weights and fit take
turns until neither changes.

Reference:
    Holland & Welsch, Comm. Statist. A6, 813 (1977); Huber, Robust Statistics (1981).
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int

from twotime.gram import Evaluator, Separable
from twotime.gram.pairs import DATA, ONE
from twotime.gram.problem import Problem, Reduced, evaluate
from twotime.models.base import Params, is_concrete
from twotime.models.correlation import correlation
from twotime.models.rates import Scalar
from twotime.solver import RESULTS, BoxLevenbergMarquardt, Optimality, outcome

_HALVINGS = 50
_NORMAL = 1.4826
_ROUNDING = 1e-12

Number = Float[Array, ""]
Plane = Float[Array, "time time"]
Used = Bool[Array, "time time"]
Free = Float[Array, " free"]
Each = Float[Array, " angle"]


class End(eqx.Module):
    """Where a start led to.

    Attributes:
        y: Scaled free parameters.
        grams: Gram matrices there.
        reduced: Their reduction.
        cost: What was minimised, in units of chi-squared.
        result: How the solver ended.
        optimality: Its judgement of the point.
        n_evaluations: Evaluations.
    """

    y: Float[Array, "*start free"]
    grams: Float[Array, "*start angle basis basis"]
    reduced: Reduced
    cost: Float[Array, "*start"]
    result: RESULTS
    optimality: Optimality
    n_evaluations: Int[Array, "*start"]


def descend(problem: Problem, solver: BoxLevenbergMarquardt, y: Free) -> End:
    """Minimise chi-squared from scaled free parameters."""
    found = optx.minimise(evaluate, solver, y, problem, has_aux=True, max_steps=None, throw=False)
    grams, reduced = found.aux.aux
    optimality, n_evaluations = found.stats["optimality"], jnp.asarray(found.stats["num_steps"])
    result = outcome(found)
    cost = problem.penalised(reduced.chi2, found.value * problem.scale)
    return End(found.value, grams, reduced, cost, result, optimality, n_evaluations)


class Equivalent(eqx.Module):
    """The fit of plain squares whose covariance is that of a fit, and sums of its residuals.

    Attributes:
        problem: The fit of plain squares.
        grams: Gram matrices at the optimum.
        reduced: Their reduction.
        variance: Variance of an independent point.
        chi2: Sum of squares of the data's residuals.
        total: Sum of squares of the data about the mean of each angle.
        noise: Noise level of each angle to which a robust loss refers.
    """

    problem: Problem
    grams: Float[Array, "angle basis basis"]
    reduced: Reduced
    variance: Number
    chi2: Number
    total: Number
    noise: Float[Array, " angle"] | None


def _number(value: Any) -> Any:
    """A number of the one type that fits are compiled for; NumPy's conversion compiles nothing."""
    return value if isinstance(value, jax.core.Tracer) else jnp.asarray(np.asarray(value, float))


class AbstractLoss(eqx.Module):
    """A loss of residuals.

    Attributes:
        word: The configuration's word.
        scale: Residual at which it departs from the square [noise level]; None if it does not.
    """

    word: eqx.AbstractClassVar[str]
    scale: eqx.AbstractVar[Number | None]

    @abstractmethod
    def minimise(self, problem: Problem, solver: BoxLevenbergMarquardt, y: Free) -> End:
        """Minimise the loss from scaled free parameters with a solver of squares."""

    @abstractmethod
    def equivalent(self, problem: Problem, end: End, dof: Array) -> Equivalent:
        """The fit of plain squares with the covariance of this one at its optimum."""

    def evaluated_by(self, asked: str | Evaluator) -> str | Evaluator:
        """What computes the sums: tiles, where every point has a weight of its own."""
        return asked if self.scale is None else "tiled"


class Squares(AbstractLoss):
    """Plain least squares."""

    word: ClassVar[str] = "linear"
    scale: None = eqx.field(default=None, init=False)

    def minimise(self, problem, solver, y):
        return descend(problem, solver, y)

    def equivalent(self, problem, end, dof):
        grams, reduced = end.grams, end.reduced
        mean = grams[:, DATA, ONE] / grams[:, ONE, ONE]
        total = jnp.sum(grams[:, DATA, DATA] - mean * grams[:, DATA, ONE])
        variance = reduced.chi2 / dof if problem.data.sigma is None else jnp.ones(())
        return Equivalent(problem, grams, reduced, variance, reduced.chi2, total, None)


class Weights(eqx.Module):
    """Weights of the residuals under a robust loss, and sums over the points.

    Attributes:
        sigma: Standard deviations that give each point its weight.
        noise: Noise level of each angle [sigma, or c2 where there is none].
        cost: The robust sum.
        chi2: Sum of squares of the same residuals.
        total: Sum of squares of the data about the mean of each angle.
        weight: Mean weight of a point.
        stiffness: Mean stiffness of a point.
    """

    sigma: Float[Array, "angle time time"]
    noise: Float[Array, " angle"]
    cost: Number
    chi2: Number
    total: Number
    weight: Number
    stiffness: Number


_Round = tuple[End, Weights, Bool[Array, ""]]
"""The end of a round of weighing and fitting, the weights there, and whether these are settled."""


class AbstractRobust(AbstractLoss):
    """A loss that grows less than the square, minimised by weights."""

    scale: Number = eqx.field(converter=_number)

    @abstractmethod
    def cost(self, u: Plane) -> Plane:
        """Loss of (residual/s)², in units of s²."""

    @abstractmethod
    def weight(self, u: Plane) -> Plane:
        """Its slope: the weight of the point in least squares."""

    @abstractmethod
    def stiffness(self, u: Plane) -> Plane:
        """Half of its second derivative by the residual: the point's part of the curvature."""

    def weigh(self, problem: Problem, params: Params, contrast: Each, offset: Each) -> Weights:
        """Weights of all points at given parameters, contrasts and offsets (less the shift)."""

        def one(k: Array) -> tuple[Plane, Array, Array]:
            r, used, sigma = _residual(problem, params, contrast[k], offset[k], k)
            noise = _noise(r, used, problem.shift) if problem.data.sigma is None else jnp.ones(())
            s = self.scale * noise
            u = (r / s) ** 2
            w = self.weight(u)
            c2 = jnp.where(used, (jnp.asarray(problem.data.c2)[k] - problem.shift) / sigma, 0.0)
            one = jnp.where(used, 1.0 / sigma, 0.0)
            total = jnp.sum(c2**2) - jnp.sum(c2 * one) ** 2 / jnp.sum(one**2)
            parts = (s**2 * self.cost(u), r**2, w, self.stiffness(u))
            sums = [jnp.sum(jnp.where(used, x, 0.0)) for x in parts]
            return sigma / jnp.sqrt(w), noise, jnp.stack([*sums, total])

        sigma, noise, sums = jax.lax.map(one, jnp.arange(problem.data.phi.shape[0]))
        cost, chi2, weight, stiffness, total = jnp.sum(sums, axis=0)
        count = problem.n_points
        return Weights(sigma, noise, cost, chi2, total, weight / count, stiffness / count)

    def minimise(self, problem, solver, y):
        """Fit with plain squares, then weigh and fit in turns until neither changes.

        Settled is when a fit with fresh weights has converged and moved no farther than the
        tolerance: then its start was already stationary for the loss itself. No round begins
        after the largest number of evaluations.
        """

        def running(last: _Round) -> Array:
            end, _, settled = last
            more = ~settled & (end.n_evaluations < solver.max_steps)
            return (end.n_evaluations == 0) | ((end.result == RESULTS.successful) & more)

        def one_round(last: _Round) -> _Round:
            before, weights, _ = last
            end = descend(problem.with_data(sigma=weights.sigma), solver, before.y)
            moved = (end.y - before.y) * problem.scale
            variance = end.reduced.chi2 / problem.n_points
            distance = jnp.sqrt(jnp.maximum(moved @ end.reduced.hessian @ moved, 0.0) / variance)
            # Fresh weights undo part of a step: the whole way left is longer by this ratio.
            distance = distance * weights.weight / weights.stiffness
            scaling = end.reduced.scaling
            at = problem.params(end.y), scaling.contrast, scaling.offset
            weights = self.weigh(problem, *at)
            total = before.n_evaluations + end.n_evaluations
            end = eqx.tree_at(lambda e: e.n_evaluations, end, total)
            return end, weights, (distance <= solver.tolerance) & (before.n_evaluations > 0)

        # Before the first round every point counts in full, and there is no end yet. It is one of
        # the loop: compiled once, it costs half of what two would.
        d, one = problem.data, jnp.ones((), y.dtype)
        sigma = jnp.ones(()) if d.sigma is None else jnp.asarray(d.sigma)
        sigma = jnp.broadcast_to(sigma.astype(y.dtype), d.c2.shape)
        weights = Weights(sigma, jnp.ones(d.phi.shape, y.dtype), *(one,) * 5)
        shape = eqx.filter_eval_shape(descend, problem.with_data(sigma=sigma), solver, y)
        end = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)
        first = eqx.tree_at(lambda e: e.y, end, y), weights, jnp.asarray(False)
        end, weights, settled = jax.lax.while_loop(running, one_round, first)
        is_open = (end.result == RESULTS.successful) & ~settled
        result = RESULTS.where(is_open, RESULTS.unsettled, end.result)
        return eqx.tree_at(lambda e: (e.cost, e.result), end, (weights.cost, result))

    def equivalent(self, problem, end, dof):
        r"""The fit to data in which residuals are $\psi(r)/\overline{\psi'}$ with $\psi = w r$.

        The variance of independent points becomes $\overline{\psi^2}/\overline{\psi'}^2$, while to
        first order speckle noise common to several points keeps its covariance.

        Reference:
            Huber, Robust Statistics, section 7.6 (1981).
        """
        scaling = end.reduced.scaling
        params, contrast, offset = problem.params(end.y), scaling.contrast, scaling.offset
        found = self.weigh(problem, params, contrast, offset)

        def one(k: Array) -> Plane:
            r, used, sigma = _residual(problem, params, contrast[k], offset[k], k)
            w = self.weight((r / (self.scale * found.noise[k])) ** 2)
            c2 = jnp.asarray(problem.data.c2)[k]
            return jnp.where(used, c2 - r * sigma * (1 - w / found.stiffness), c2)

        c2 = jax.lax.map(one, jnp.arange(problem.data.phi.shape[0]))
        pseudo = problem.with_data(c2=c2)
        grams, reduced = evaluate(end.y, pseudo)[1].aux
        variance = reduced.chi2 / dof
        return Equivalent(pseudo, grams, reduced, variance, found.chi2, found.total, found.noise)


class SoftL1(AbstractRobust):
    """The smooth mean of square and modulus, 2 s² (√(1 + r²/s²) - 1)."""

    word: ClassVar[str] = "soft_l1"

    def cost(self, u):
        return 2.0 * u / (1.0 + jnp.sqrt(1.0 + u))

    def weight(self, u):
        return (1.0 + u) ** -0.5

    def stiffness(self, u):
        return (1.0 + u) ** -1.5


class Huber(AbstractRobust):
    """The square up to s, the modulus beyond."""

    word: ClassVar[str] = "huber"

    def cost(self, u):
        return jnp.where(u <= 1.0, u, 2.0 * jnp.sqrt(u) - 1.0)

    def weight(self, u):
        return jnp.maximum(u, 1.0) ** -0.5

    def stiffness(self, u):
        return jnp.where(u <= 1.0, 1.0, 0.0)


LOSSES: dict[str, Any] = {loss.word: loss for loss in (Squares, SoftL1, Huber)}


def make_loss(
    loss: str | AbstractLoss, scale: Scalar, evaluator: str | Evaluator, has_priors: bool = False
) -> AbstractLoss:
    """The loss for a word, and a scale in noise levels; a loss passes."""
    if not isinstance(loss, AbstractLoss):
        if loss not in LOSSES:
            raise ValueError(f"loss is {loss!r}; expected one of {', '.join(LOSSES)}.")
        loss = Squares() if loss == Squares.word else LOSSES[loss](jnp.asarray(scale, float))
    if loss.scale is None:
        return loss
    if is_concrete(loss.scale) and not loss.scale > 0:
        raise ValueError(f"loss_scale is {loss.scale}; expected a positive number of noise levels.")
    if evaluator in ("factored", "separable") or isinstance(evaluator, Separable):
        raise ValueError(
            f"The factored evaluator cannot be used with loss={loss.word!r}, which weighs every "
            "point separately; use 'auto' or 'tiled'."
        )
    if has_priors:
        raise ValueError(
            f"priors=True with loss={loss.word!r}: priors and robust losses are not combined; "
            "use loss='linear'."
        )
    return loss


def _residual(
    problem: Problem, params: Params, contrast: Number, offset: Number, k: Array
) -> tuple[Plane, Used, Array]:
    """Residuals of an angle [sigma], 0 where they do not count; which count; sigma."""
    d = problem.data
    t, at = jnp.asarray(d.t), d.place(k)
    model = correlation(problem.model, params, t=t, q=at["q"], phi=at["phi"][None])[0]
    c2 = jnp.asarray(d.c2)[k]
    used = jnp.asarray(d.usable(k))
    sigma = jnp.ones(()) if d.sigma is None else jnp.asarray(d.sigma)
    sigma = sigma[k] if sigma.ndim else sigma
    sigma = jnp.where(used, sigma, 1.0)
    residual = c2 - problem.shift - offset - contrast * model
    return jnp.where(used, residual / sigma, 0.0), used, sigma


def _noise(r: Plane, used: Used, shift: Array) -> Number:
    """1.4826 times the median of |r|, by bisection: sorting takes far longer.

    Its derivative is that of the residual that is the median.
    """
    size, half = jnp.abs(jax.lax.stop_gradient(r)), 0.5 * jnp.sum(used)

    def narrow(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        enough = jnp.sum(used & (size <= middle)) >= half
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    median = jax.lax.fori_loop(0, _HALVINGS, narrow, (jnp.zeros(()), jnp.max(size)))[1]
    nearest = jnp.argmin(jnp.where(used, jnp.abs(size - median), jnp.inf))
    own = jnp.abs(r.reshape(-1)[nearest])
    median = median + own - jax.lax.stop_gradient(own)
    return jnp.maximum(_NORMAL * median, _ROUNDING * jnp.abs(shift))
