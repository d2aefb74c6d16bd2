"""Least squares: a pure function from model, data and space to a result."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int, Key

from twotime.config.parameter_space import ParameterSpace
from twotime.core.models import AbstractTwoTimeModel
from twotime.core.rates import AnyArray
from twotime.core.scaling import Scaling, ScalingSolution, resolve_mode
from twotime.data.dataset import TwoTimeData
from twotime.inference import uncertainty
from twotime.inference.bend import bend
from twotime.inference.evaluators import choose_evaluator
from twotime.inference.gram import DATA, ONE, TILE
from twotime.inference.problem import Problem, Reduced, evaluate, make_problem
from twotime.inference.sandwich import SPECKLE, speckle_meat
from twotime.inference.solver import BoxLevenbergMarquardt, Optimality
from twotime.inference.starts import spread_starts
from twotime.results import NLSQResult


def fit_nlsq(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    *,
    per_angle_mode: str = "auto",
    evaluator: str = "auto",
    starts: int | Float[AnyArray, "start param"] = 1,
    key: Key[Array, ""] | None = None,
    tile: int = TILE,
    max_steps: int = 300,
    tolerance: float = 1e-2,
    throw: bool = False,
    progress: Callable[[Any], None] | None = None,
) -> NLSQResult:
    """Fit a model to two-time data by least squares over the pixels with t1 < t2.

    Contrast and offset of each angle are solved in closed form inside their bounds at every
    step. Bounds of the parameters are an active set: a start on a bound leaves it if chi-squared
    falls inwards. Pure: `jax.jit` and `jax.vmap` work over the leaves of data and space.

    Args:
        model: The model.
        data: The data; masked and non-finite pixels do not count.
        space: Start, bounds and which parameters vary.
        per_angle_mode: "individual", "averaged", "constant", "fourier" or "auto".
        evaluator: "tiled" takes any model, mask and sigma; "factored" takes separable models on
            complete data and is faster; "auto" is factored where that is possible. The result
            says which it was.
        starts: How many starts, the space's own among them; or the starts themselves. The end
            with the smallest chi-squared is the result, which lists all ends.
        key: Source of randomness for more than one start.
        tile: Edge of a tile of the tiled evaluator [frame].
        max_steps: Largest number of evaluations of the model, for each start.
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
    data, evaluator = choose_evaluator(model, data, evaluator)
    points = _make_starts(model, data, space, mode, starts, key)
    result = _fit(model, data, space, points, mode, evaluator, tile, max_steps, tolerance, progress)
    if throw and not result.converged:
        raise RuntimeError(result.status)
    return result


def _make_starts(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    mode: str,
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
        used = np.isfinite(data.c2[k])
        if data.mask is not None:
            used = used & np.asarray(data.mask[k])
        if not np.triu(used, 1).any():
            raise ValueError(
                f"The matrix at phi = {phi:g} degree has no usable pixel with t1 < t2 (all are "
                "masked or not finite); leave this angle out with phi_filtering."
            )


@eqx.filter_jit
def _fit(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    starts: Float[Array, "start param"],
    mode: str,
    evaluator: str,
    tile: int,
    max_steps: int,
    tolerance: float,
    progress: Callable[[Any], None] | None,
) -> NLSQResult:
    problem = make_problem(model, data, space, mode, evaluator, tile)
    index = np.flatnonzero(space.varying)
    lower, upper = (jnp.asarray(b)[index] / problem.scale for b in (space.lower, space.upper))
    solver = BoxLevenbergMarquardt(
        lower=lower, upper=upper, tolerance=tolerance, bend=bend, report=progress
    )

    def from_start(start: Array) -> End:
        solution = optx.minimise(
            evaluate,
            solver,
            start[index] / problem.scale,
            problem,
            has_aux=True,
            max_steps=max_steps,
            throw=False,
        )
        stats = solution.stats
        return End(
            y=solution.value,
            grams=solution.aux.aux[0],
            reduced=solution.aux.aux[1],
            code=stats["code"],
            optimality=stats["optimality"],
            n_steps=stats["num_steps"],
        )

    ends = jax.lax.map(from_start, starts)
    return _result(problem, space, starts, ends)


class End(eqx.Module):
    """Where a start led to.

    Attributes:
        y: Scaled free parameters.
        grams: Gram matrices there.
        reduced: Their reduction.
        code: Why the solver stopped.
        optimality: Its judgement of the point.
        n_steps: Evaluations.
    """

    y: Float[Array, "*start free"]
    grams: Float[Array, "*start angle basis basis"]
    reduced: Reduced
    code: Int[Array, "*start"]
    optimality: Optimality
    n_steps: Int[Array, "*start"]


def _scaling_at_bound(scaling: Scaling, solution: ScalingSolution) -> Bool[Array, "angle 2"]:
    values = jnp.stack([solution.contrast, solution.offset], axis=1)
    lower, upper = scaling.lower[:1], scaling.upper[:1]
    near = jnp.minimum(values - lower, upper - values) <= 1e-6 * (upper - lower)
    return near & (lower < upper)


def _total(grams: Float[Array, "angle basis basis"]) -> Float[Array, ""]:
    """Sum of squares of the data about each angle's mean."""
    mean = grams[:, DATA, ONE] / grams[:, ONE, ONE]
    return jnp.sum(grams[:, DATA, DATA] - mean * grams[:, DATA, ONE])


def _result(
    problem: Problem, space: ParameterSpace, starts: Float[Array, "start param"], ends: End
) -> NLSQResult:
    chi2 = jnp.where(jnp.isfinite(ends.reduced.chi2), ends.reduced.chi2, jnp.inf)
    best = jnp.argmin(chi2)
    end = jax.tree.map(lambda x: x[best], ends)
    reduced, held = end.reduced, end.optimality.held
    n_scaling = jnp.sum(reduced.scaling.free)
    dof = problem.n_pixels - jnp.sum(~held) - n_scaling
    variance = reduced.chi2 / dof if problem.data.sigma is None else 1.0
    values, vectors, scale = uncertainty.spectrum(reduced.hessian, held)
    inverse = uncertainty.inverse(values, vectors, scale, held)
    params = problem.params(end.y)
    meat, noise = speckle_meat(problem, params, end.grams, reduced, inverse)
    return NLSQResult(
        all_names=tuple(space.names),
        varying=problem.varying,
        units=tuple(space.units),
        model=type(problem.model).__name__,
        per_angle_mode=problem.scaling.mode,
        evaluator=problem.evaluator,
        uncertainty_kind=SPECKLE,
        values=params,
        lower=jnp.asarray(space.lower),
        upper=jnp.asarray(space.upper),
        start=jnp.where(jnp.asarray(problem.varying), starts[best], problem.start),
        phi=jnp.asarray(problem.data.phi),
        contrast=reduced.scaling.contrast,
        offset=reduced.scaling.offset + problem.shift,
        scaling_at_bound=_scaling_at_bound(problem.scaling, reduced.scaling),
        chi2=reduced.chi2,
        n_pixels=problem.n_pixels,
        dof=dof,
        total=_total(end.grams),
        covariance=inverse @ meat @ inverse,
        covariance_iid=variance * inverse,
        held=held,
        eigenvalues=values,
        eigenvectors=vectors,
        code=end.code,
        gradient=end.optimality.gradient,
        step=end.optimality.step,
        n_steps=end.n_steps,
        starts=starts,
        ends=jax.vmap(problem.params)(ends.y),
        ends_chi2=chi2,
        ends_code=ends.code,
        pixels=noise.pixels,
        photons=noise.photons,
    )
