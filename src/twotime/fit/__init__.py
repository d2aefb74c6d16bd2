"""Least squares: a pure function from model, data and space to a result.

Contrast and offset of each angle are solved in closed form inside their bounds at every step.
Bounds of the parameters are an active set: an optimum on a bound is found and flagged. A start on
a bound, where it could stick, is first moved off it (`twotime.start`).

`fit_sequential` fits angle by angle; `profile` shows intervals that are not symmetric.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from twotime.compilation import check_is_outside, compiled, verb
from twotime.config.parameter_registry import ParameterRegistry
from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData, select
from twotime.data.level import check_level, check_points
from twotime.data.scales import check_names, space_for
from twotime.fit import geodesic, implicit, robust
from twotime.fit.labels import ends_of_starts
from twotime.fit.result import IsFinal, Known, Starts, make_result, with_derivatives
from twotime.fit.rounds import always, in_rounds, of_round
from twotime.gram import Evaluator, choose_evaluator, device_mesh, fetch, place
from twotime.gram.evaluator import TILE, meshes_in_words
from twotime.gram.problem import Problem, make_problem
from twotime.models.arguments import axes
from twotime.models.base import AbstractTwoTimeModel, are_known, floating, is_concrete
from twotime.models.rates import AnyArray, Scalar
from twotime.models.scaling import Individual, resolve_mode
from twotime.results.judgement import UNCERTAINTIES, without_derivatives
from twotime.results.nlsq import NLSQResult
from twotime.results.sequential import SequentialResult
from twotime.solver import BoxLevenbergMarquardt
from twotime.start import make_starts, off_bounds
from twotime.tables import Table, Tabled, number_table


@verb
def fit_nlsq(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    *,
    per_angle_mode: str | Individual = "auto",
    evaluator: str | Evaluator = "auto",
    loss: str | robust.AbstractLoss = "linear",
    loss_scale: Scalar = 1.0,
    starts: int | Float[AnyArray, "start param"] = 1,
    key: Key[Array, ""] | None = None,
    tile: int = TILE,
    devices: Sequence[Any] | None = None,
    max_steps: int = 300,
    tolerance: Scalar = 3e-2,
    priors: bool = False,
    judge: bool = True,
    uncertainty: str = "auto",
    throw: bool = False,
    progress: Callable[[Any], None] | None = None,
) -> NLSQResult:
    """Fit a model to two-time data by least squares over the points with t1 < t2.

    Pure: works under `jit` and `vmap`; `values`, `contrast`, `offset`, `chi2` have derivatives.

    Args:
        model: The model.
        data: The data.
        space: Start, bounds and which parameters vary.
        per_angle_mode: "individual", "averaged", "constant", "fourier", or "auto": as data agree.
        evaluator: "tiled", "factored" (faster, separable models on complete data), or "auto".
        loss: "linear" for squares; "soft_l1" or "huber" limit outliers; or one of `fit.robust`.
        loss_scale: Residual at which a robust loss departs from the square [noise level].
        starts: How many, with that of the space, or the starts themselves; the best end counts.
        key: Randomness of further starts.
        tile: Largest edge of a tile of the tiled evaluator [frame].
        devices: Devices that share the work, the same in all processes; None takes the default.
        max_steps: Largest number of evaluations, for each start.
        tolerance: Converged when gradient and step left are below it [standard deviations].
        priors: Let the priors of the space count as residuals: a maximum a posteriori estimate.
        judge: Hold the residuals against what noise leaves (`structure` of the result).
        uncertainty: From the noise of "speckle", from "residuals", or "auto": as these are judged.
        throw: Raise if the fit does not converge.
        progress: Called on the host with half of chi2 after every evaluation.

    Raises:
        ValueError: If a value cannot be used, float64 is off, or names do not match.
        RuntimeError: If `throw` and the fit did not converge.
        TypeError: If a fit that finds weights of rings is differentiated; it says what to give.
    """
    check_names(model, space)
    mode = resolve_mode(per_angle_mode, data.ring)
    space = check_inputs(model, data, space, mode)
    kind, chosen = _uncertainty(uncertainty), robust.make_loss(loss, loss_scale, evaluator, priors)
    data, evaluator = choose_evaluator(model, data, chosen.evaluated_by(evaluator), tile)
    points = make_starts(model, data, space, mode, starts, key)
    space, mesh = alike(space, priors), device_mesh(devices)
    data, (model, space, points, chosen) = place(mesh, data, (model, space, points, chosen))
    settings = mode, evaluator, mesh, *_limits(max_steps, tolerance), progress, judge, priors
    return _or_raise(fetch(mesh, _fit(data, model, space, points, chosen, *settings, kind)), throw)


def _uncertainty(word: str) -> str:
    words = "auto", *UNCERTAINTIES
    if word not in words:
        raise ValueError(f"uncertainty is {word!r}; expected one of {', '.join(words)}.")
    return word


def _limits(max_steps: int, tolerance: Scalar) -> tuple[Array, Array]:
    """Both as arrays: a fit is compiled once for all of them."""
    return jnp.asarray(max_steps, int), jnp.asarray(floating(tolerance))


def _or_raise(result: NLSQResult, throw: bool) -> NLSQResult:
    is_good = result.converged
    if throw and not is_concrete(is_good):
        sentence = "A fit did not converge; its `result` says how it ended where throw=False."
        return eqx.error_if(result, ~is_good, sentence)
    if throw and not is_good:
        raise RuntimeError(result.status)
    return result


@meshes_in_words()
@compiled
def _fit(
    data: TwoTimeData,
    model: AbstractTwoTimeModel,
    space: ParameterSpace,
    starts: Float[Array, "start param"],
    loss: robust.AbstractLoss,
    mode: Individual,
    evaluator: Evaluator,
    mesh: Mesh | None,
    max_steps: Int[Array, ""],
    tolerance: Float[Array, ""],
    progress: Callable[[Any], None] | None,
    is_judged: bool,
    with_priors: bool,
    uncertainty: str,
) -> NLSQResult:
    index = np.flatnonzero(space.varying)
    lower, upper = (jnp.asarray(b)[index] for b in (space.lower, space.upper))
    set_up = make_problem(model, data, space, mode, evaluator, mesh, with_priors=with_priors)
    given = implicit.Given(set_up, lower, upper, loss)
    # The search itself has no derivatives; `implicit` gives them to its result.
    fixed, starts = implicit.constant((given, starts))
    problem, loss = fixed.problem, fixed.loss
    solver = BoxLevenbergMarquardt(
        lower=fixed.lower / problem.scale,
        upper=fixed.upper / problem.scale,
        tolerance=tolerance,
        max_steps=max_steps,
        accelerate=geodesic.accelerate,
        report=progress,
    )
    log_space = np.asarray(space.log_space)[index]

    def search(problem: Problem, begin: Starts, is_final: IsFinal) -> tuple[NLSQResult, Known]:
        def from_start(start: Array) -> robust.End:
            y = off_bounds(problem, start, fixed.lower, fixed.upper, log_space) / problem.scale
            return loss.minimise(problem, solver, y)

        ends = ends_of_starts(problem, from_start, begin)
        return make_result(problem, space, starts, ends, loss, is_judged, uncertainty, is_final)

    is_weighed = loss.scale is None and _is_weighed(data)
    if not (mode.is_decided or is_weighed):
        result, known = search(problem, starts, always)
        return with_derivatives(result, known.size, given)
    result, size = in_rounds(search, problem, starts, is_weighed)
    weight = implicit.weights_of_rings(result.weight, given) if is_weighed else None
    final = of_round(given.problem, result.is_shared, weight)
    given = eqx.tree_at(lambda g: g.problem, given, final)
    return with_derivatives(result, size, given)


def _is_weighed(data: TwoTimeData) -> bool:
    """Whether a fit finds how much the rings of its data count."""
    return len(set(data.rings)) > 1 and data.sigma is None and data.weight is None


def check_inputs(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, mode: Individual
) -> ParameterSpace:
    """Refuse what a fit or a sampler cannot use; values are checked only where they are known.

    Args:
        model: The model.
        data: The data.
        space: The space as written.
        mode: How contrast and offset are shared between angles.

    Returns:
        The space for these data, see `space_for`.

    Raises:
        ValueError: If a value cannot be used, or the data cannot be fitted.
    """
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise ValueError(
            "Fitting needs float64, which JAX has switched off; call "
            'jax.config.update("jax_enable_x64", True) first, or set JAX_ENABLE_X64=1.'
        )
    check_names(model, space)
    if not any(space.varying):
        raise ValueError(
            "Every parameter of the space is fixed; a fit needs at least one with vary: true."
        )
    if not is_concrete(*jax.tree.leaves((model, data, space))):
        return space_for(model, data, space)
    with jax.ensure_compile_time_eval():  # known values stay known where something else is traced
        return _checked(model, data, space, mode)


def alike(space: ParameterSpace, with_priors: bool) -> ParameterSpace:
    """The same fit in a space of the one structure that fits are compiled for.

    Priors that do not count are left out, and numbers that a registry leaves open are written out.
    """

    def parts(space: ParameterSpace) -> list[Any]:
        own = [x for info in space.registry.infos for x in (info.prior_mean, info.prior_std)]
        return [*own, *space.own_priors]

    registry = ParameterRegistry(space.registry.infos)  # without the word of a configuration
    space = eqx.tree_at(lambda s: s.registry, space, registry)
    numbers = [x for i in registry.infos for x in (i.prior_location, i.prior_scale)]
    own = space.own_priors if with_priors else (None,) * len(space.own_priors)
    return eqx.tree_at(parts, space, [*numbers, *own], is_leaf=lambda x: x is None)


def _checked(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, mode: Individual
) -> ParameterSpace:
    axes(data.t, data.q, data.phi)
    if data.t.size < 2:
        raise ValueError("t holds one time; a fit needs two frames at least; select more frames.")
    check_points(data)
    space = space_for(model, data, space)
    x, low, high = (np.asarray(a) for a in (space.initial, space.lower, space.upper))
    for i in np.flatnonzero(np.asarray(space.varying) & ~((low <= x) & (x <= high))):
        raise ValueError(
            f"Parameter {space.names[i]!r} starts at {x[i]:g}, outside its bounds "
            f"[{low[i]:g}, {high[i]:g}] {space.units[i]}; move the value or the bounds."
        )
    n_scaling = 0 if mode.is_frozen else mode.basis(jnp.asarray(data.phi)).shape[1]
    check_level(data, space, sum(space.varying) + n_scaling * sum(space.scaling_varying))
    return space


@verb
def fit_sequential(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    *,
    throw: bool = False,
    **settings: Any,
) -> SequentialResult:
    """Fit every angle by itself, in the order of the data.

    The first angle starts as `fit_nlsq` would; each later one starts at the end of the last that
    converged, or like the first if none did. Every angle has parameters of its own, which shows
    whether a law holds at all angles alike; one angle alone may not determine all of them (the
    shear rate and phi0 of laminar flow, say), and its result says so.

    Args:
        model: The model.
        data: The data.
        space: Start, bounds and which parameters vary.
        throw: Raise if an angle does not converge.
        settings: Further arguments of `fit_nlsq`.

    Returns:
        The fits of the angles.

    Raises:
        ValueError: If the settings cannot be used for one angle alone, and as `fit_nlsq`.
        RuntimeError: If `throw` and an angle did not converge.
    """
    check_names(model, space)
    check_is_outside(
        "fit_sequential", (model, data, space),
        "The traceable part is fit_nlsq on `twotime.fit.one_angle(data, k)`.",
    )  # fmt: skip
    if resolve_mode(settings.get("per_angle_mode", "auto"), (0,)).is_series:
        raise ValueError(
            "per_angle_mode is 'fourier', a series over the angles; angles fitted one after the "
            "other have none; use 'auto'."
        )
    fits: list[NLSQResult] = []
    for k in range(data.phi.shape[0]):
        ends = [fit.values for fit in fits if fit.converged]
        start = {"starts": jnp.asarray(ends[-1])[None]} if ends else {}
        fits.append(fit_nlsq(model, one_angle(data, k), space, **settings | start))
    result = SequentialResult(tuple(fits))
    if throw and not result.converged:
        raise RuntimeError(result.status)
    return result


def one_angle(data: TwoTimeData, k: int) -> TwoTimeData:
    """The data of one angle alone."""
    return select(data, (k,))


class Profile(Tabled, eqx.Module):
    """The best fit with one parameter fixed at each of some values.

    Attributes:
        values: Values of the parameter.
        chi2: Smallest chi-squared at each.
        height: Its rise above the fit's, in units in which 1 and 4 bound the 68 and 95 %
            intervals: the correlation of the noise is taken into account.
    """

    values: Float[Array, " value"]
    chi2: Float[Array, " value"]
    height: Float[Array, " value"]

    def _shown(self) -> Table | None:
        if not are_known(self) or np.ndim(self.values) != 1:
            return None
        columns = {"value": self.values, "χ²": self.chi2, "rise [of one deviation]": self.height}
        return number_table("Profile of one parameter", columns)


@verb
def profile(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    fit: NLSQResult,
    name: str,
    values: Float[AnyArray, " value"],
) -> Profile:
    """Profile chi-squared along one parameter: the others are fitted anew at each value.

    Args:
        model: The model.
        data: The data.
        space: The space that was fitted.
        fit: The result.
        name: The parameter.
        values: Where to fix it.

    Raises:
        ValueError: If the parameter was not fitted, or the loss was not that of squares.
        TypeError: If derivatives by what was fitted are taken: error bars have none.
    """
    check_names(model, space)
    if name not in fit.names:
        raise ValueError(
            f"Parameter {name!r} was not fitted; expected one of {', '.join(fit.names)}."
        )
    if fit.loss != "linear":
        raise ValueError(
            f"The fit minimised the loss {fit.loss!r}; a profile is that of chi-squared. Profile a "
            "fit with loss='linear'."
        )
    place, free = fit.all_names.index(name), fit.names.index(name)
    fixed = space.with_vary({name: False})
    weighed = data if fit.weight is None else dataclasses.replace(data, weight=fit.weight)

    def at(value: Array) -> Array:
        start = fit.values.at[place].set(value)
        here = fixed.with_values(dict(zip(fixed.names, start, strict=True)))
        settings: Any = {"per_angle_mode": fit.per_angle_mode, "judge": False}
        return fit_nlsq(model, weighed, here, **settings).chi2

    chi2 = jax.lax.map(at, jnp.asarray(values))
    variance = fit.reduced_chi2 if data.sigma is None else 1.0
    inflation: Any = fit.covariance[free, free] / fit.covariance_iid[free, free]
    inflation = without_derivatives(inflation, fit.values)
    return Profile(jnp.asarray(values), chi2, (chi2 - fit.chi2) / (variance * inflation))
