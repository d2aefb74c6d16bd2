"""Levenberg-Marquardt inside a box, on Optimistix.

Optimistix's own Levenberg-Marquardt takes residual vectors and no bounds. `BoxLevenbergMarquardt`
takes the cost with its gradient and Gauss-Newton matrix, which is all that the Gram reduction
yields. It is composed of a damped Newton step that stays in a box (`BoxDescent`), a trust region
that knows the rounding error of the cost (`cost_change`), what gradients teach about the part of
the second derivatives that Gauss-Newton leaves out (`Correction`), and a limit on evaluations
without progress (`Patience`). The caller may accelerate steps along a
curved valley.
"""

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int

Number = Float[Array, ""]
Vector = Float[Array, " y"]
Matrix = Float[Array, "y y"]
Flags = Bool[Array, " y"]

_BETTER = 0.3
_PATIENCE = 30
_UNCLEAR = 100.0
"""Changes of the cost up to this many times its rounding error are taken from gradients."""
_TRUST_REGION: Any = optx.ClassicalTrustRegion(high_cutoff=0.25, high_constant=10.0)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Equinox warns where an inherited item gets other words

    class RESULTS(optx.RESULTS):  # type: ignore[misc]
        """How a fit ended."""

        successful = "converged: the projected gradient and the step left are within tolerance"
        nonlinear_max_steps_reached = (
            "not converged: the step limit was reached; raise max_iterations or start nearer"
        )
        stalled = (
            "not converged: no step reduces chi-squared although its gradient is not zero; "
            "try other starts, integration: exact where a rate reaches zero within the record, "
            "or fix parameters that the data do not determine"
        )
        nonfinite = (
            "not converged: chi-squared is not finite at the start; check the start and the data"
        )
        unsettled = (
            "not converged: the weights of the robust loss still change; raise max_iterations, "
            "or loss_scale"
        )
        worse_than_constant = (
            "not converged: the best fit is worse than a constant (R² < 0); check the model, the "
            "baseline of the data, and the bounds of contrast and offset"
        )


def outcome(solution: optx.Solution) -> RESULTS:
    """How `optimistix.minimise` ended with `BoxLevenbergMarquardt`.

    Optimistix's loop takes no results but its own; there the solver calls a stall `stagnation`.
    """
    result = jax.tree.map(lambda x: x.astype(jnp.int32), RESULTS.promote(solution.result))
    return RESULTS.where(result == RESULTS.stagnation, RESULTS.stalled, result)


ENDS = ("successful", "nonlinear_max_steps_reached", "stalled", "nonfinite", "unsettled",
        "worse_than_constant")  # fmt: skip
"""How fits can end: names of `RESULTS`; their places are the numbers in old result folders."""


def places(result: RESULTS) -> Int[Array, "*batch"]:
    """Places of results in `ENDS`."""
    return sum(k * (result == getattr(RESULTS, name)) for k, name in enumerate(ENDS))


def results_at(places: Int[Array | np.ndarray, "*batch"]) -> RESULTS:
    """The results at places of `ENDS`."""
    known = [getattr(RESULTS, name) for name in ENDS]
    if isinstance(places, jax.Array):
        return jax.tree.map(lambda *values: jnp.stack(values)[places], *known)
    return jax.tree.map(lambda *values: jax.device_put(np.stack(values)[places]), *known)


class Quadratic(eqx.Module):
    """Local model of half a weighted sum of squares; its Hessian is that of Gauss and Newton.

    Attributes:
        variance: Variance of a residual: the unit in which gradients are judged.
        noise: Differences of the cost below this are rounding.
        aux: Anything that the caller wants at the solution.
    """

    grad: Vector
    hessian: Matrix
    variance: Number
    noise: Number
    aux: Any


class Optimality(eqx.Module):
    """How far a point is from an optimum inside its box.

    Attributes:
        gradient: Largest projected gradient along one coordinate [standard deviations of that
            coordinate with the others fixed].
        step: Newton step that is left [standard deviations].
        held: Coordinates on a bound with the gradient pointing outwards.
    """

    gradient: Number
    step: Number
    held: Flags


class Proposal(eqx.Module):
    """A step to be accelerated: from `start` straight to `end`, with `held` coordinates in place.

    Attributes:
        end: Where it would end, perhaps outside the box.
        damping: Damping of the step, relative to the largest curvature.
    """

    start: Vector
    end: Vector
    held: Flags
    lower: Vector
    upper: Vector
    damping: Number


class BoxDescent(eqx.Module):
    """Damped Newton steps that leave coordinates on a bound there while the cost rises inwards.

    The set of such coordinates is decided at every point anew.
    """

    lower: Vector
    upper: Vector

    def held(self, y: Vector, grad: Vector) -> Flags:
        """Coordinates on a bound with the gradient pointing outwards."""
        return ((y <= self.lower) & (grad >= 0)) | ((y >= self.upper) & (grad <= 0))

    def idle(self, local: Quadratic, tolerance: float | Number) -> Flags:
        """Coordinates that, by the local model, may cross the box and neither gain nor matter."""
        width, variance = self.upper - self.lower, local.variance
        turned = jnp.sqrt(jnp.diag(local.hessian) / variance) * width
        gain = jnp.abs(local.grad) * width / variance
        return (turned <= tolerance) & (gain <= 0.5 * tolerance**2)

    def optimality(self, y: Vector, local: Quadratic, left_out: Flags | bool = False) -> Optimality:
        """Judge a point by its projected gradient and the Newton step left inside the box."""
        held = self.held(y, local.grad)
        grad, hessian = _released(local.grad, local.hessian, held | left_out)
        deviation = jnp.sqrt(jnp.diag(hessian) * local.variance)
        deviation = jnp.where(deviation > 0, deviation, 1.0)
        scaled = grad / deviation
        matrix = hessian * local.variance / (deviation[:, None] * deviation[None, :])
        matrix = matrix + 1e-10 * jnp.eye(y.shape[0], dtype=y.dtype)
        left = jnp.sqrt(jnp.maximum(scaled @ jnp.linalg.solve(matrix, scaled), 0.0))
        return Optimality(jnp.max(jnp.abs(scaled), initial=0.0), left, held)

    def step(self, grad: Vector, hessian: Matrix, held: Flags, damping: Number) -> Vector:
        """The damped Newton step of the coordinates that are not held, maybe out of the box."""
        grad, hessian = _released(grad, hessian, held)
        # Not by lineax, which refuses to work inside shard_map and pmap.
        damped = hessian + damping * jnp.eye(grad.size, dtype=grad.dtype)
        factor = jax.scipy.linalg.cho_factor(damped)
        return jnp.where(held, 0.0, -jax.scipy.linalg.cho_solve(factor, grad))


def _released(grad: Array, hessian: Array, held: Array) -> tuple[Array, Array]:
    """Gradient and matrix without the held coordinates."""
    out = held[:, None] | held[None, :]
    return jnp.where(held, 0.0, grad), jnp.where(out, 0.0, hessian)


def cost_change(step: Vector, by_cost: Number, before: Quadratic, after: Quadratic) -> Number:
    """Change of the cost by a step: from the gradients at its ends where costs differ by rounding.

    Near an optimum the cost cannot tell a step that gains from one that loses, long before its
    gradient cannot.

    Reference:
        Hager & Zhang, SIAM J. Optim. 16, 170 (2005), sec. 4 (the approximate Wolfe conditions).
    """
    by_gradients = 0.5 * (before.grad + after.grad) @ step
    return jnp.where(jnp.abs(by_cost) <= _UNCLEAR * after.noise, by_gradients, by_cost)


class Correction(eqx.Module):
    """What Gauss-Newton leaves out of the second derivatives, learnt from gradients.

    Attributes:
        matrix: Its estimate.
        in_use: Whether it predicted the change of the cost by the last step better.

    Reference:
        Dennis, Gay & Welsch, ACM TOMS 7, 348 (1981).
    """

    matrix: Matrix
    in_use: Bool[Array, ""]

    def complete(self, hessian: Matrix) -> Matrix:
        """The Gauss-Newton matrix with what it leaves out, made positive, where that is in use."""
        values, vectors = jnp.linalg.eigh(hessian + self.matrix)
        return jnp.where(self.in_use, (vectors * jnp.abs(values)) @ vectors.T, hessian)

    def learn(
        self, step: Array | np.ndarray, change: Array | float, old: Quadratic, new: Quadratic
    ) -> "Correction":
        """The symmetric rank-one update by a step that changed the cost; whether it had helped."""
        missed = change - (old.grad @ step + 0.5 * step @ old.hessian @ step)
        by_gradients = 0.5 * (new.grad - old.grad - old.hessian @ step) @ step
        missed = jnp.where(jnp.abs(missed) <= _UNCLEAR * new.noise, by_gradients, missed)
        extra = 0.5 * step @ self.matrix @ step
        better = jnp.abs(missed - extra) < _BETTER * jnp.abs(missed)
        miss = new.grad - old.grad - new.hessian @ step - self.matrix @ step
        along = miss @ step
        usable = jnp.abs(along) > 1e-8 * jnp.linalg.norm(miss) * jnp.linalg.norm(step)
        update = jnp.outer(miss, miss) / jnp.where(usable, along, 1.0)
        usable &= jnp.all(jnp.isfinite(update))
        return Correction(self.matrix + jnp.where(usable, update, 0.0), better)


class Patience(eqx.Module):
    """For how many evaluations there was no progress.

    At an optimum in a kink (where a rate reaches its floor, say) steps would go on forever, and
    reduce the cost by less than any gradient within tolerance could.

    Attributes:
        mark: Cost at which there was progress last.
        idle: Evaluations since.
    """

    mark: Number
    idle: Int[Array, ""]

    def after(self, cost: Number, enough: Number) -> "Patience":
        """After another evaluation, where reducing the cost by `enough` is progress."""
        progress = self.mark - cost > enough
        return Patience(jnp.where(progress, cost, self.mark), jnp.where(progress, 0, self.idle + 1))

    @property
    def is_over(self) -> Bool[Array, ""]:
        """Whether to give up."""
        return self.idle >= _PATIENCE


class _State(eqx.Module):
    """The best point so far and the next to try.

    Attributes:
        straight: End of the next step before it is accelerated and cut off at the box.
        trial: The next point to try.
        value: Cost at the best point; infinite before the first evaluation.
        unit: Damping that counts as 1.
        local: Local model at the best point.
        search: State of the trust region.
        optimality: How far the best point is from an optimum.
    """

    n_steps: Int[Array, ""]
    straight: Vector
    trial: Vector
    value: Number
    unit: Number
    local: Quadratic
    correction: Correction
    search: Any
    patience: Patience
    optimality: Optimality


class BoxLevenbergMarquardt(optx.AbstractMinimiser):
    """Minimise fn(y, args) -> (cost, Quadratic) inside lower <= y <= upper.

    Attributes:
        lower: Lower bounds.
        upper: Upper bounds.
        tolerance: Converged when gradient and step of `Optimality` are both below it.
        max_steps: Largest number of evaluations: like that of `optimistix.minimise`, which is
            compiled for each number, while this may be an array.
        damping: First damping, relative to the largest curvature at the start.
        accelerate: Called as accelerate(Proposal, args) -> end of the step inside the box, or None.
        report: Called on the host with the cost after every evaluation, or None.
    """

    lower: Vector  # type: ignore[misc]  # optimistix's rtol counts as a default
    upper: Vector  # type: ignore[misc]
    tolerance: float | Number = 3e-2
    max_steps: float | Int[Array, ""] = jnp.inf
    damping: float = 1e-3
    accelerate: Callable[[Proposal, Any], Array] | None = eqx.field(default=None, static=True)
    report: Callable[[Any], None] | None = eqx.field(default=None, static=True)
    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[..., Any] = eqx.field(default=optx.max_norm, static=True)

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        inf = jnp.full((), jnp.inf, f_struct.dtype)
        square = jnp.zeros((y.size, y.size), y.dtype)
        return _State(
            n_steps=jnp.asarray(0),
            straight=y,
            trial=y,
            value=inf,
            unit=jnp.ones_like(inf),
            local=jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), aux_struct),
            correction=Correction(square, jnp.asarray(False)),
            search=_TRUST_REGION.init(y, None),
            patience=Patience(inf, jnp.asarray(0)),
            optimality=Optimality(inf, inf, jnp.zeros(y.shape, bool)),
        )

    def step(self, fn, y, args, options, state, tags):
        value, local = fn(state.trial, args)
        if self.report is not None:
            jax.debug.callback(self.report, value)
        first = state.n_steps == 0
        largest = jnp.max(jnp.diag(local.hessian), initial=0.0)
        unit = jnp.where(first, jnp.maximum(self.damping * largest, 1e-300), state.unit)
        step = state.trial - y
        change = cost_change(step, value - state.value, state.local, local)
        predicted = state.correction.complete(state.local.hessian)
        matrix = lx.MatrixLinearOperator(predicted / unit, lx.positive_semidefinite_tag)
        zero = jnp.zeros_like(unit)
        before = optx.FunctionInfo.EvalGradHessian(zero, state.local.grad / unit, matrix)
        after = optx.FunctionInfo.Eval(change / unit)
        radius, accept, _, search = _TRUST_REGION.step(
            first, y, state.straight, before, after, state.search
        )
        learnt = state.correction.learn(step, change, state.local, local)
        correction = _where(first, state.correction, learnt)
        found = state.trial, value, local
        y, value, local = _where(accept, found, (y, state.value, state.local))
        # Less than this, any gradient within tolerance could gain.
        enough = jnp.maximum(0.1 * self.tolerance**2 * local.variance, local.noise)
        descent = BoxDescent(self.lower, self.upper)
        patience = state.patience.after(value, enough)
        # Not before: a rate that starts below its floor has next to no gradient, and finds out.
        left_out = patience.is_over & descent.idle(local, self.tolerance)
        optimality = descent.optimality(y, local, left_out)
        hessian, held = correction.complete(local.hessian), optimality.held
        straight = y + descent.step(local.grad / unit, hessian / unit, held, 1.0 / radius)
        n_steps = state.n_steps + 1
        if self.accelerate is None:
            trial = jnp.clip(straight, self.lower, self.upper)
        else:
            damping = self.damping / radius
            proposal = Proposal(y, straight, held, self.lower, self.upper, damping)
            trial = self.accelerate(proposal, args)
        best = value, unit, local, correction, search, patience, optimality
        return y, _State(n_steps, straight, trial, *best), local

    def terminate(self, fn, y, args, options, state, tags):
        known, found = optx.RESULTS, state.optimality
        is_done = (found.gradient <= self.tolerance) & (found.step <= self.tolerance)
        is_bad = (state.n_steps > 0) & ~jnp.isfinite(state.value)
        is_last = state.n_steps >= self.max_steps
        result = known.where(is_last, known.nonlinear_max_steps_reached, known.successful)
        result = known.where(state.patience.is_over, known.stagnation, result)
        result = known.where(is_done, known.successful, result)
        result = known.where(is_bad, known.nonfinite, result)
        return is_done | (result != known.successful), result

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        return y, aux, {"optimality": state.optimality}


def _where(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
