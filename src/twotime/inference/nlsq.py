"""Least squares: a pure function from model, data and space to a result."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float

from twotime.config.parameter_space import ParameterSpace
from twotime.core.models import AbstractTwoTimeModel
from twotime.core.scaling import Scaling, ScalingSolution, resolve_mode
from twotime.data.dataset import TwoTimeData
from twotime.inference import uncertainty
from twotime.inference.bend import bend
from twotime.inference.evaluators import choose_evaluator
from twotime.inference.gram import DATA, ONE
from twotime.inference.problem import Problem, evaluate, make_problem
from twotime.inference.sandwich import SPECKLE, speckle_meat
from twotime.inference.solver import BoxLevenbergMarquardt
from twotime.results import NLSQResult


def fit_nlsq(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    *,
    per_angle_mode: str = "auto",
    evaluator: str = "auto",
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
        max_steps: Largest number of evaluations of the model.
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
    result = _fit(model, data, space, mode, evaluator, max_steps, tolerance, progress)
    if throw and not result.converged:
        raise RuntimeError(result.status)
    return result


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
    mode: str,
    evaluator: str,
    max_steps: int,
    tolerance: float,
    progress: Callable[[Any], None] | None,
) -> NLSQResult:
    problem = make_problem(model, data, space, mode, evaluator)
    index = np.flatnonzero(space.varying)
    lower, upper = (jnp.asarray(b)[index] / problem.scale for b in (space.lower, space.upper))
    solver = BoxLevenbergMarquardt(
        lower=lower, upper=upper, tolerance=tolerance, bend=bend, report=progress
    )
    solution = optx.minimise(
        evaluate,
        solver,
        problem.start[index] / problem.scale,
        problem,
        has_aux=True,
        max_steps=max_steps,
        throw=False,
    )
    return _result(problem, space, solution)


def _scaling_at_bound(scaling: Scaling, solution: ScalingSolution) -> Bool[Array, "angle 2"]:
    values = jnp.stack([solution.contrast, solution.offset], axis=1)
    lower, upper = scaling.lower[:1], scaling.upper[:1]
    near = jnp.minimum(values - lower, upper - values) <= 1e-6 * (upper - lower)
    return near & (lower < upper)


def _total(grams: Float[Array, "angle basis basis"]) -> Float[Array, ""]:
    """Sum of squares of the data about each angle's mean."""
    mean = grams[:, DATA, ONE] / grams[:, ONE, ONE]
    return jnp.sum(grams[:, DATA, DATA] - mean * grams[:, DATA, ONE])


def _result(problem: Problem, space: ParameterSpace, solution: Any) -> NLSQResult:
    grams, reduced = solution.aux.aux
    optimality = solution.stats["optimality"]
    held = optimality.held
    n_scaling = jnp.sum(reduced.scaling.free)
    dof = problem.n_pixels - jnp.sum(~held) - n_scaling
    variance = reduced.chi2 / dof if problem.data.sigma is None else 1.0
    values, vectors, scale = uncertainty.spectrum(reduced.hessian, held)
    inverse = uncertainty.inverse(values, vectors, scale, held)
    params = problem.params(solution.value)
    meat, _ = speckle_meat(problem, params, grams, reduced)
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
        start=problem.start,
        phi=jnp.asarray(problem.data.phi),
        contrast=reduced.scaling.contrast,
        offset=reduced.scaling.offset + problem.shift,
        scaling_at_bound=_scaling_at_bound(problem.scaling, reduced.scaling),
        chi2=reduced.chi2,
        n_pixels=problem.n_pixels,
        dof=dof,
        total=_total(grams),
        covariance=inverse @ meat @ inverse,
        covariance_iid=variance * inverse,
        held=held,
        eigenvalues=values,
        eigenvectors=vectors,
        code=solution.stats["code"],
        gradient=optimality.gradient,
        step=optimality.step,
        n_steps=solution.stats["num_steps"],
    )
