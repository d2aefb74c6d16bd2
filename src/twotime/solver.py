"""Levenberg-Marquardt inside a box, from Optimistix's damped Newton step and trust region.

Optimistix's own Levenberg-Marquardt takes residual vectors and no bounds. This minimiser takes
the cost with its gradient and Gauss-Newton matrix instead, which is all that the Gram reduction
yields, and differs in three ways. Every iterate stays in the box: coordinates that press
against a bound are held for one step (an active set, decided anew at each). A step may be bent
by the caller to follow a curved valley. And what the Gauss-Newton matrix leaves out is learnt
from the gradients (as in NL2SOL), and used while it predicts the cost better.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int

RUNNING, CONVERGED, MAX_STEPS, STALLED, NONFINITE, UNSETTLED = -1, 0, 1, 2, 3, 4
_BETTER = 0.3
_PATIENCE = 30
_UNCLEAR = 100.0
"""Changes of the cost up to this many times its rounding error are taken from gradients."""


class Quadratic(eqx.Module):
    """Local model of half a weighted sum of squares, and what the caller wants kept with it.

    Attributes:
        grad: Gradient.
        hessian: Gauss-Newton matrix.
        variance: Variance of a residual: the unit in which gradients are judged.
        noise: Differences of the cost below this are rounding.
        aux: Anything.
    """

    grad: Float[Array, " y"]
    hessian: Float[Array, "y y"]
    variance: Float[Array, ""]
    noise: Float[Array, ""]
    aux: Any


class Optimality(eqx.Module):
    """How far a point is from an optimum inside its box.

    Attributes:
        gradient: Largest projected gradient along one coordinate [standard deviations of that
            coordinate with the others fixed].
        step: Newton step that is left [standard deviations].
        held: Coordinates on a bound with the gradient pointing outwards.
    """

    gradient: Float[Array, ""]
    step: Float[Array, ""]
    held: Bool[Array, " y"]


class Proposal(eqx.Module):
    """A step to be bent: from `start` straight to `end`, with `held` coordinates in place.

    Attributes:
        start: Where the step begins.
        end: Where it would end, perhaps outside the box.
        held: Coordinates that must not move.
        lower: Lower bounds.
        upper: Upper bounds.
        damping: Damping of the step, relative to the largest curvature.
    """

    start: Float[Array, " y"]
    end: Float[Array, " y"]
    held: Bool[Array, " y"]
    lower: Float[Array, " y"]
    upper: Float[Array, " y"]
    damping: Float[Array, ""]


class _State(eqx.Module):
    first: Bool[Array, ""]
    straight: Float[Array, " y"]
    trial: Float[Array, " y"]
    value: Float[Array, ""]
    unit: Float[Array, ""]
    local: Quadratic
    left_out: Float[Array, "y y"]
    use_left_out: Bool[Array, ""]
    search: Any
    mark: Float[Array, ""]
    idle: Int[Array, ""]
    code: Int[Array, ""]
    optimality: Optimality


class BoxLevenbergMarquardt(optx.AbstractMinimiser):
    """Minimise fn(y, args) -> (cost, Quadratic) inside lower <= y <= upper.

    Attributes:
        lower: Lower bounds.
        upper: Upper bounds.
        tolerance: Converged when gradient and step of `Optimality` are both below it.
        damping: First damping, relative to the largest curvature at the start.
        bend: Called as bend(Proposal, args) -> end of the step inside the box, or None.
        report: Called on the host with the cost after every evaluation, or None.

    Reference:
        Dennis, Gay & Welsch, ACM TOMS 7, 348 (1981), for what Gauss-Newton leaves out.
    """

    lower: Float[Array, " y"]  # type: ignore[misc]  # optimistix's rtol counts as a default
    upper: Float[Array, " y"]  # type: ignore[misc]
    tolerance: float = 3e-2
    damping: float = 1e-3
    bend: Callable[[Proposal, Any], Array] | None = eqx.field(default=None, static=True)
    report: Callable[[Any], None] | None = eqx.field(default=None, static=True)
    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[..., Any] = eqx.field(default=optx.max_norm, static=True)

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):
        zero = jnp.zeros((), f_struct.dtype)
        return _State(
            first=jnp.asarray(True),
            straight=y,
            trial=y,
            value=zero + jnp.inf,
            unit=zero + 1.0,
            local=jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), aux_struct),
            left_out=jnp.zeros((y.shape[0],) * 2, y.dtype),
            use_left_out=jnp.asarray(False),
            search=_search().init(y, None),
            mark=zero + jnp.inf,
            idle=jnp.asarray(0),
            code=jnp.asarray(RUNNING),
            optimality=Optimality(zero, zero, jnp.zeros(y.shape, bool)),
        )

    def step(self, fn, y, args, options, state, tags):
        value, local = fn(state.trial, args)
        if self.report is not None:
            jax.debug.callback(self.report, value)
        largest = jnp.max(jnp.diag(local.hessian), initial=0.0)
        unit = jnp.where(state.first, jnp.maximum(self.damping * largest, 1e-300), state.unit)
        change = _change(y, value, local, state)
        radius, accept, _, search = _search().step(
            state.first,
            y,
            state.straight,
            _information(_completed(state.local, state), unit),
            optx.FunctionInfo.Eval(change / unit),
            state.search,
        )
        left_out, use_left_out = _learn(y, change, local, state)
        y, value, local = jax.tree.map(
            lambda new, old: jnp.where(accept, new, old),
            (state.trial, value, local),
            (y, state.value, state.local),
        )
        mark, idle = self._progress(value, local, state)
        state = _State(
            first=jnp.asarray(False),
            straight=y,
            trial=y,
            value=value,
            unit=unit,
            local=local,
            left_out=left_out,
            use_left_out=use_left_out,
            search=search,
            mark=mark,
            idle=idle,
            code=state.code,
            optimality=self.optimality(y, local),
        )
        return y, self._propose(y, state, radius, args), local

    def terminate(self, fn, y, args, options, state, tags):
        return state.code != RUNNING, optx.RESULTS.successful

    def postprocess(self, fn, y, aux, args, options, state, tags, result):
        code = jnp.where(state.code == RUNNING, MAX_STEPS, state.code)
        return y, aux, {"code": code, "optimality": state.optimality}

    def optimality(self, y: Float[Array, " y"], local: Quadratic) -> Optimality:
        """Judge a point by its projected gradient and the Newton step left inside the box."""
        held = ((y <= self.lower) & (local.grad >= 0)) | ((y >= self.upper) & (local.grad <= 0))
        grad, hessian = _released(local, held)
        deviation = jnp.sqrt(jnp.diag(hessian) * local.variance)
        deviation = jnp.where(deviation > 0, deviation, 1.0)
        scaled = grad / deviation
        matrix = hessian * local.variance / (deviation[:, None] * deviation[None, :])
        matrix = matrix + 1e-10 * jnp.eye(y.shape[0], dtype=y.dtype)
        left = jnp.sqrt(jnp.maximum(scaled @ jnp.linalg.solve(matrix, scaled), 0.0))
        return Optimality(jnp.max(jnp.abs(scaled), initial=0.0), left, held)

    def _progress(self, value: Array, local: Quadratic, state: _State) -> tuple[Array, Array]:
        """The cost at which there was progress last, and for how many evaluations there is none.

        At an optimum in a kink (where a rate reaches its floor, say) steps would go on forever,
        and reduce the cost by less than any gradient within tolerance could.
        """
        enough = jnp.maximum(0.1 * self.tolerance**2 * local.variance, local.noise)
        progress = state.first | (state.mark - value > enough)
        return jnp.where(progress, value, state.mark), jnp.where(progress, 0, state.idle + 1)

    def _propose(self, y: Array, state: _State, radius: Array, args: Any) -> _State:
        """Choose the next trial, or stop."""
        held = state.optimality.held
        grad, hessian = _released(_completed(state.local, state), held)
        free = Quadratic(grad, hessian, state.local.variance, state.local.noise, None)
        info = _information(free, state.unit)
        descent: Any = optx.DampedNewtonDescent(lx.Cholesky())
        step, _ = descent.step(radius, descent.query(y, info, descent.init(y, info)))
        straight = y + jnp.where(held, 0.0, step)
        trial = jnp.clip(straight, self.lower, self.upper)
        if self.bend is not None:
            damping = self.damping / radius
            proposal = Proposal(y, straight, held, self.lower, self.upper, damping)
            trial = self.bend(proposal, args)
        found = state.optimality
        done = (found.gradient <= self.tolerance) & (found.step <= self.tolerance)
        moved = jnp.any(jnp.abs(trial - y) > 4 * jnp.finfo(y.dtype).eps * jnp.abs(y))
        goes_on = moved & (state.idle < _PATIENCE)
        code = jnp.where(done, CONVERGED, jnp.where(goes_on, RUNNING, STALLED))
        code = jnp.where(jnp.isfinite(state.value), code, NONFINITE)
        return eqx.tree_at(lambda s: (s.straight, s.trial, s.code), state, (straight, trial, code))


def _search() -> optx.ClassicalTrustRegion:
    return optx.ClassicalTrustRegion(high_cutoff=0.25, high_constant=10.0)


def _information(local: Quadratic, unit: Array) -> Any:
    """The local model in units in which a damping of 1 is the first; cost counted from here."""
    matrix = lx.MatrixLinearOperator(local.hessian / unit, lx.positive_semidefinite_tag)
    return optx.FunctionInfo.EvalGradHessian(jnp.zeros_like(unit), local.grad / unit, matrix)


def _released(local: Quadratic, held: Array) -> tuple[Array, Array]:
    """Gradient and matrix without the held coordinates."""
    grad = jnp.where(held, 0.0, local.grad)
    return grad, jnp.where(held[:, None] | held[None, :], 0.0, local.hessian)


def _completed(local: Quadratic, state: _State) -> Quadratic:
    """The local model with what Gauss-Newton leaves out, where that is in use."""
    values, vectors = jnp.linalg.eigh(local.hessian + state.left_out)
    hessian = jnp.where(state.use_left_out, (vectors * jnp.abs(values)) @ vectors.T, local.hessian)
    return Quadratic(local.grad, hessian, local.variance, local.noise, None)


def _change(y: Array, value: Array, local: Quadratic, state: _State) -> Array:
    """Change of the cost by the last step: from the gradients at its ends where it is rounding.

    Near an optimum the cost cannot tell a step that gains from one that loses, long before its
    gradient cannot.

    Reference:
        Hager & Zhang, SIAM J. Optim. 16, 170 (2005), sec. 4 (the approximate Wolfe conditions).
    """
    by_cost = value - state.value
    by_gradients = 0.5 * (state.local.grad + local.grad) @ (state.trial - y)
    unclear = jnp.abs(by_cost) <= _UNCLEAR * local.noise
    return jnp.where(unclear & ~state.first, by_gradients, by_cost)


def _learn(y: Array, change: Array, local: Quadratic, state: _State) -> tuple[Array, Array]:
    """Symmetric rank-one update from the gradients of the last step, and whether it helped."""
    old, step = state.local, state.trial - y
    missed = change - (old.grad @ step + 0.5 * step @ old.hessian @ step)
    by_gradients = 0.5 * (local.grad - old.grad - old.hessian @ step) @ step
    missed = jnp.where(jnp.abs(missed) <= _UNCLEAR * local.noise, by_gradients, missed)
    extra = 0.5 * step @ state.left_out @ step
    better = jnp.abs(missed - extra) < _BETTER * jnp.abs(missed)
    miss = local.grad - old.grad - local.hessian @ step - state.left_out @ step
    along = miss @ step
    usable = jnp.abs(along) > 1e-8 * jnp.linalg.norm(miss) * jnp.linalg.norm(step)
    update = jnp.outer(miss, miss) / jnp.where(usable, along, 1.0)
    usable &= jnp.all(jnp.isfinite(update)) & ~state.first
    return state.left_out + jnp.where(usable, update, 0.0), better & ~state.first
