"""Least squares: a pure function from model, data and space to a result."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from twotime.compilation import compiled
from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.fit.feasible import off_bounds
from twotime.fit.geodesic import bend
from twotime.fit.implicit import Given, constant
from twotime.fit.objective import End, descend
from twotime.fit.result import make_result
from twotime.fit.robust import Robust, make_loss, settle_weights
from twotime.gram.choose import choose_evaluator
from twotime.gram.devices import device_mesh, fetch, place
from twotime.gram.problem import Problem, make_problem
from twotime.gram.tiled import TILE
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.rates import AnyArray
from twotime.models.scaling import Individual, resolve_mode
from twotime.results.nlsq import NLSQResult
from twotime.solver import BoxLevenbergMarquardt
from twotime.start.search import spread_starts


def fit_nlsq(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    *,
    per_angle_mode: str | Individual = "auto",
    evaluator: str = "auto",
    loss: str = "linear",
    loss_scale: float = 1.0,
    starts: int | Float[AnyArray, "start param"] = 1,
    key: Key[Array, ""] | None = None,
    tile: int = TILE,
    devices: Sequence[Any] | None = None,
    max_steps: int = 300,
    tolerance: float = 3e-2,
    throw: bool = False,
    progress: Callable[[Any], None] | None = None,
) -> NLSQResult:
    """Fit a model to two-time data by least squares over the pixels with t1 < t2.

    Contrast and offset of each angle are solved in closed form inside their bounds at every
    step. Bounds of the parameters are an active set: an optimum on a bound is found and flagged.
    A start on a bound, where it could stick, is first moved off it (see `inside`).

    Pure: `jax.jit` and `jax.vmap` work over the leaves of data and space.
    `values`, `contrast`, `offset` and `chi2` of the result can be differentiated by the leaves
    of model, data and space (forwards and backwards); the tighter the tolerance, the more exact.

    Args:
        model: The model.
        data: The data; masked and non-finite pixels do not count.
        space: Start, bounds and which parameters vary.
        per_angle_mode: "individual", "averaged", "constant", "fourier" or "auto", or an object of
            `twotime.models.scaling`.
        evaluator: "tiled" takes any model, mask and sigma; "factored" takes separable models on
            complete data and is faster; "auto" is factored where that is possible. The result
            says which it was.
        loss: "linear" for squares; "soft_l1" or "huber" bound what an outlier counts. These
            weigh every pixel by itself: the tiled evaluator, and memory for one more copy of c2
            in float64.
        loss_scale: Residual from which a robust loss departs from the square [noise level: sigma
            where the data have one, else 1.4826 times the median size of an angle's residuals].
        starts: How many starts, the space's own among them; or the starts themselves. The end
            with the smallest chi-squared is the result, which lists all ends.
        key: Source of randomness for more than one start.
        tile: Largest edge of a tile of the tiled evaluator [frame].
        devices: Devices that share the angles, or the tiles where these are more (as
            `jax.devices()`); None takes the default device. With several processes each passes
            the same arguments and gets the same result.
        max_steps: Largest number of evaluations of the model, for each start. With a robust loss
            no further round of weights begins after so many.
        tolerance: Converged when the projected gradient and the step left are both below it
            [standard deviations of the parameters, pixels taken as independent].
        throw: Raise if the fit does not converge.
        progress: Called on the host with half of chi2 after every evaluation.

    Returns:
        The result; `status` says how it ended.

    Raises:
        ValueError: If float64 is off, names do not match, or a value cannot be used.
        RuntimeError: If `throw` and the fit did not converge.

    Reference:
        Variable projection: Golub & Pereyra, Inverse Problems 19, R1 (2003).
    """
    check_inputs(model, data, space)
    mode = resolve_mode(per_angle_mode, data.phi.shape[0])
    robust = make_loss(loss, loss_scale, evaluator)
    data, evaluator = choose_evaluator(model, data, "tiled" if robust else evaluator)
    points = _make_starts(model, data, space, mode, starts, key)
    mesh = device_mesh(devices)
    data, (model, space, points, robust) = place(mesh, data, (model, space, points, robust))
    limits = jnp.asarray(max_steps), jnp.asarray(tolerance, float)
    settings = mode, evaluator, tile, mesh, *limits, progress
    result = fetch(mesh, _fit(data, model, space, points, robust, *settings))
    if throw and not result.converged:
        raise RuntimeError(result.status)
    return result


def _make_starts(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    mode: Individual,
    starts: int | Float[AnyArray, "start param"],
    key: Key[Array, ""] | None,
) -> Float[Array, "start param"]:
    if not isinstance(starts, int):
        if starts.ndim != 2 or starts.shape[0] < 1 or starts.shape[1] != len(space.names):
            raise ValueError(
                f"starts has shape {starts.shape}; expected (start, {len(space.names)}), with the "
                "parameters in the order of the space."
            )
        return jnp.clip(jnp.asarray(starts), space.lower, space.upper)
    if starts < 1:
        raise ValueError(f"starts is {starts}; expected at least 1.")
    if starts == 1:
        return jnp.asarray(space.initial)[None]
    if key is None:
        raise ValueError(
            f"starts is {starts} but key is missing; give key=jax.random.key(0), from which the "
            "starts are drawn."
        )
    return spread_starts(model, data, space, mode, starts, key)


def check_inputs(model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace) -> None:
    """Refuse what a fit or a sampler cannot use; values are checked only where they are known."""
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError(
            "Fitting needs float64, which JAX has switched off; call "
            'jax.config.update("jax_enable_x64", True) first, or set JAX_ENABLE_X64=1.'
        )
    if tuple(space.names) != tuple(model.names):
        raise ValueError(
            f"The space holds {', '.join(space.names)}; {type(model).__name__} needs "
            f"{', '.join(model.names)} in this order; build it from the same analysis_mode."
        )
    if not any(space.varying):
        raise ValueError(
            "Every parameter of the space is fixed; a fit needs at least one with vary: true."
        )
    _check_values(data, space)


def _check_values(data: TwoTimeData, space: ParameterSpace) -> None:
    leaves = jax.tree.leaves((data, space))
    if any(isinstance(x, jax.core.Tracer) for x in leaves):
        return
    t = np.asarray(data.t)
    if t.size < 2 or not np.all(np.diff(t) > 0) or not np.isfinite(t).all() or t[0] < 0:
        raise ValueError(
            f"t must be at least two finite, increasing times from 0 on [s]; got {t[:3]}…; "
            "check dt and t0."
        )
    varying = np.asarray(space.varying)
    x, low, high = (np.asarray(a) for a in (space.initial, space.lower, space.upper))
    for i in np.flatnonzero(varying & ~((low <= x) & (x <= high))):
        raise ValueError(
            f"Parameter {space.names[i]!r} starts at {x[i]:g}, outside its bounds "
            f"[{low[i]:g}, {high[i]:g}] {space.units[i]}; move the value or the bounds."
        )
    for k, phi in enumerate(np.asarray(data.phi)):
        if not data.usable(k).any():
            raise ValueError(
                f"The matrix at phi = {phi:g} degree has no usable pixel with t1 < t2 (all are "
                "masked or not finite); leave this angle out with phi_filtering."
            )


@compiled
def _fit(
    data: TwoTimeData,
    model: AbstractTwoTimeModel,
    space: ParameterSpace,
    starts: Float[Array, "start param"],
    loss: Robust | None,
    mode: Individual,
    evaluator: str,
    tile: int,
    mesh: Mesh | None,
    max_steps: Int[Array, ""],
    tolerance: Float[Array, ""],
    progress: Callable[[Any], None] | None,
) -> NLSQResult:
    given = make_problem(model, data, space, mode, evaluator, tile, mesh)
    index = np.flatnonzero(space.varying)
    bounds = Given(given, *(jnp.asarray(b)[index] for b in (space.lower, space.upper)))
    # The search itself has no derivatives; `implicit` gives them to what it found.
    problem, fixed, points, loss = constant((given, bounds, starts, loss))
    solver = BoxLevenbergMarquardt(
        lower=fixed.lower / problem.scale,
        upper=fixed.upper / problem.scale,
        tolerance=tolerance,
        max_steps=max_steps,
        bend=bend,
        report=progress,
    )

    log_space = np.asarray(space.log_space)[index]

    def solve(problem: Problem, y: Array) -> End:
        return descend(problem, solver, y)

    def from_start(start: Array) -> End:
        y = off_bounds(problem, start, fixed.lower, fixed.upper, log_space) / problem.scale
        if loss is None:
            return solve(problem, y)
        return settle_weights(problem, y, loss, solve, tolerance, max_steps)

    ends = jax.lax.map(from_start, points)
    return make_result(problem, bounds, space, points, ends, loss)
