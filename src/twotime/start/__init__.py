"""Starts of a fit, read off the data: no value needs to be known beforehand.

The correlation is averaged over bins of equal lag and similar age; on this coarse data
thousands of candidates are compared by their χ², contrast and offset at their best. The best of
one stage of a plan are varied in the next; the last ones, of several families, are refined by a
few descent steps, still on the coarse data. A fit starts where they end.

Starts on a bound are moved off it: there a parameter may have no slope at all although the optimum
is elsewhere. The correlation depends on the square of a fraction near 0 and 1, and on a fraction
that is clipped not at all. A search that judges by slopes would stay, and call it converged.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from twotime.compilation import check_is_outside, verb
from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData, on_device
from twotime.data.scales import check_names, space_for
from twotime.gram.pairs import channel_slopes
from twotime.gram.problem import Problem
from twotime.models.base import AbstractTwoTimeModel, Params
from twotime.models.proposals import Coordinates, Plan, Scene, Stage, Typical
from twotime.models.rates import AnyArray
from twotime.models.scaling import Individual, resolve_mode
from twotime.start import coarse
from twotime.start.coarse import Candidates, Costs, coarse_chi2, coarse_grain, coarse_problem

Free = Float[Array, " free"]

_DRAWS = 64
_INWARDS = 1e-3
_NO_EFFECT = 1e-3


def make_starts(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    mode: Individual,
    starts: int | Float[AnyArray, "start param"],
    key: Key[Array, ""] | None,
) -> Float[Array, "start param"]:
    """Where the fits begin: given starts, or as many as are asked for; traceable.

    These are the space's own and the likeliest of a Latin hypercube over its bounds, spread in
    the logarithm where the space says so.

    Reference:
        McKay, Beckman & Conover, Technometrics 21, 239 (1979).
    """
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
    draws, n = _DRAWS * starts, len(space.names)
    places = jax.vmap(lambda k: jax.random.permutation(k, draws))(jax.random.split(key, n)).T
    low, high = jnp.asarray(space.lower), jnp.asarray(space.upper)
    log = jnp.asarray(space.log_space) & (low > 0)
    low, high = (jnp.where(log, jnp.log(jnp.where(log, x, 1.0)), x) for x in (low, high))
    inside = low + (high - low) * (places + jax.random.uniform(key, places.shape)) / draws
    inside = jnp.where(log, jnp.exp(inside), inside)
    initial = jnp.asarray(space.initial)
    candidates = jnp.where(jnp.asarray(space.varying), inside, initial)
    coarse = coarse_problem(model, data, space, mode, coarse_grain(data))
    chi2 = coarse_chi2(coarse, candidates)
    best = jnp.argsort(chi2)[: starts - 1]
    return jnp.concatenate([initial[None], candidates[best]])


def off_bounds(
    problem: Problem, start: Params, lower: Free, upper: Free, log_space: Bool[np.ndarray, " free"]
) -> Free:
    """Free parameters at a start, off their bounds.

    What lies on a bound moves inwards by a thousandth of its width; to the middle of the bounds
    if it moves no channel of the model there, in the logarithm where `log_space` says so.
    Everything else stays, off plateaus.
    """
    moved = problem.model.off_plateau(start, jnp.asarray(problem.data.t))
    start = jnp.where(np.asarray(problem.varying), moved, start)
    values = jnp.clip(start[np.flatnonzero(problem.varying)], lower, upper)
    reach = jnp.minimum(problem.scale, upper - lower)

    def effect(k: Array) -> Array:
        settings = problem.model, problem.data, start, problem.varying, k
        _, by = channel_slopes(*settings, jnp.diag(reach))
        largest = [jnp.max(jnp.abs(x), axis=(1, 2), initial=0.0) for x in jax.tree.leaves(by)]
        return jnp.max(jnp.stack(largest), axis=0)

    strongest = jnp.max(jax.vmap(effect)(jnp.arange(problem.data.phi.shape[0])), axis=0)
    is_log = jnp.asarray(log_space) & (lower > 0)
    product = jnp.where(is_log, lower * upper, 1.0)
    middle = jnp.where(is_log, jnp.sqrt(product), 0.5 * (lower + upper))
    inwards = jnp.clip(values, lower + _INWARDS * reach, upper - _INWARDS * reach)
    moved = jnp.where(strongest < _NO_EFFECT, middle, inwards)
    return jnp.where((values <= lower) | (values >= upper), moved, values)


def is_known(space: ParameterSpace) -> np.ndarray:
    """Which parameters are given or do not vary."""
    return (np.asarray(space.given) > 0) | ~np.asarray(space.varying)


def scene_of(data: TwoTimeData, space: ParameterSpace) -> Scene:
    """What a law knows when it proposes starts."""
    ends = zip(np.asarray(space.lower).tolist(), np.asarray(space.upper).tolist(), strict=True)
    bounds = dict(zip(space.names, ends, strict=True))
    known = {space.names[i]: float(space.initial[i]) for i in np.flatnonzero(is_known(space))}
    infos = (space.registry[name] for name in space.names)
    typical = {
        info.name: Typical(float(info.prior_location), float(info.prior_scale), is_log, info.unit)
        for info, is_log in zip(infos, space.log_space, strict=True)
    }
    t, q = np.asarray(data.t), float(np.exp(np.mean(np.log(np.asarray(data.q)))))
    return Scene(tuple(space.names), t, q, bounds, known, typical)


Ends = tuple[Candidates, Costs]

_CHUNK, _FEW_LAGS, _RELATIVES = 256, 16, 2
_SAME, _LIKE, _MARGIN = 1e-5, 1e-3, 5e-3
_ROUNDS, _PARENTS, _TRIED = 4, 2, 44
_GO_ON, _MEMBERS, _FINALISTS, _LEADERS = 24, 4, 8, 2
_CLEARLY = 0.8


@verb
def estimate_starts(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    *,
    per_angle_mode: str | Individual = "auto",
    count: int = 1,
) -> list[ParameterSpace]:
    """Spaces that start where the data suggest, the likeliest first.

    Parameters that are given in the space or do not vary stay at their values.

    Args:
        model: The model; its `proposals` say what is tried.
        data: The data.
        space: Bounds, and what is given.
        per_angle_mode: As in `fit_nlsq`.
        count: How many starts at most; optima of coarse data before other candidates.
    """
    check_names(model, space)
    check_is_outside(
        "estimate_starts", (model, data, space),
        "The traceable part is fit_nlsq, whose `starts` may be an array.",
    )  # fmt: skip
    space = space_for(model, data, space)
    if is_known(space).all():
        return [space]
    plan = model.proposals(scene_of(data, space))
    mode = resolve_mode(per_angle_mode, data.ring)
    problem = partial(coarse.coarse_problem, model, data, space, mode)
    held = on_device(data)
    few, many = (problem(coarse.coarse_grain(held, lags)) for lags in (_FEW_LAGS, coarse.LAGS))
    search = _Search(space, plan, few, many)
    params = search.likeliest(plan.stages)
    starts = np.concatenate([search.refined(params, _ROUNDS + count - 1), params])
    for stages in plan.faster:
        starts = search.faster(stages, starts)
    values = (dict(zip(space.names, p.tolist(), strict=True)) for p in starts[:count])
    return [space.with_values(p) for p in values]


class _Search(NamedTuple):
    """Coarse fits that refine candidates: to few points for scores, to more for descents."""

    space: ParameterSpace
    plan: Plan
    few: coarse.CoarseProblem
    many: coarse.CoarseProblem

    def inside(self, params: Candidates) -> Candidates:
        """Candidates inside the bounds, and as given where they are."""
        space = self.space
        return np.where(is_known(space), space.initial, np.clip(params, space.lower, space.upper))

    def looking(self, stage: Stage) -> coarse.CoarseProblem:
        """The coarse data that a stage looks at."""
        return coarse.looking(self.few, stage.longest, central=stage.central)

    def likeliest(self, stages: tuple[Stage, ...]) -> Candidates:
        """The likeliest candidates after some stages."""
        found: Coordinates = {}
        family = np.zeros(1, int)
        for stage in stages:
            found, family = _expand(found, family, stage)
            values = dict(zip(self.space.names, self.space.initial, strict=True))
            values |= self.plan.params(found)  # what is not proposed starts at its value
            columns = [np.broadcast_to(values[name], family.shape) for name in self.space.names]
            params = self.inside(np.stack(columns, axis=1))
            order = np.argsort(score(self.looking(stage), params), kind="stable")
            if stage is stages[0]:
                kept = _apart(found, stage, order)
                family = np.arange(family.size)
            else:
                kept = _mixed(family, order, stage.keep, _RELATIVES)
            found = {name: values[kept] for name, values in found.items()}
            family, params = family[kept], params[kept]
        return params

    def faster(self, stages: tuple[Stage, ...], starts: Candidates) -> Candidates:
        """Starts after those of other stages that explain the lags they look at better, if any.

        What beats within a bin of ages is lost in its mean, so longer lags are left out.
        """
        first, best = self.looking(stages[0]), self.likeliest(stages[:1])[:1]
        if score(first, best)[0] >= score(first, starts[:1])[0]:
            return starts
        params = self.likeliest(stages)
        short = self._replace(many=coarse.looking(self.many, stages[0].longest, central=False))
        ends, chi2 = short.led(params, np.arange(len(params)), params[:0])
        is_better = chi2[0] < _CLEARLY * score(short.many, starts[:1])[0]
        return np.concatenate([ends, starts]) if is_better else starts

    def refined(self, params: Candidates, rounds: int) -> Candidates:
        """Where candidates, and the alternatives of the best, lead; the likeliest first."""
        found = plain = self.led(params, np.arange(len(params)), params[:0])
        tried = np.zeros(0)
        for _ in range(rounds):
            ends, chi2 = found[0][:rounds], found[1][:rounds]
            is_new = np.all(np.abs(chi2[:, None] - tried) > _LIKE * tried, axis=1)
            parents = np.concatenate([ends[is_new], ends])[:_PARENTS]
            tried = np.append(tried, chi2[is_new][:_PARENTS])
            kinds = [kind for end in parents for kind in self.plan.alternatives(end)]
            if not kinds:
                break
            family = np.repeat(np.arange(len(kinds)), [len(kind) for kind in kinds])
            moved = self.inside(np.concatenate(kinds))
            order = np.argsort(score(self.few, moved))
            kept = _mixed(family, order, _TRIED, -(-_TRIED // len(kinds)))
            new, costs = self.led(moved[kept], family[kept], found[0][:_LEADERS])
            found = _distinct(np.concatenate([found[0], new]), np.concatenate([found[1], costs]))
        # Of ends that the data hardly tell apart those of plain candidates come first: rates that
        # begin late or end early have a kink, near which fits converge slowly.
        is_as_good = np.all(plain[1][:1] <= (1 + _MARGIN) * found[1][:1])
        return np.concatenate([plain[0][:1], found[0]]) if is_as_good else found[0]

    def led(self, params: Candidates, family: np.ndarray, leaders: Candidates) -> Ends:
        """Where candidates lead: after some steps only the likeliest go on, and the leaders."""
        free = tuple(np.flatnonzero(~is_known(self.space)).tolist())
        downhill = partial(coarse.coarse_fit, self.many, self.space, free)
        params, chi2 = downhill(params)
        params = params[_mixed(family, np.argsort(chi2), _GO_ON, _MEMBERS)]
        for _ in range(2):
            params, chi2 = downhill(params)
        best = np.concatenate([params[np.argsort(chi2)[:_FINALISTS]], leaders])
        for _ in range(4):
            best, cost = downhill(best)
        return _distinct(np.concatenate([best, params]), np.concatenate([cost, chi2]))


def score(problem: coarse.CoarseProblem, params: Candidates) -> Costs:
    """χ² of candidates on coarse data, contrast and offset at their best."""
    return coarse.in_chunks(partial(coarse.coarse_chi2, problem), params, _CHUNK)


def _apart(found: Coordinates, stage: Stage, order: np.ndarray) -> np.ndarray:
    """The likeliest candidates of a grid of which none is beside another."""
    steps = np.stack([np.searchsorted(grid, found[k]) for k, (_, grid) in stage.change.items()], 1)
    kept: list[int] = []
    free = np.ones(order.size, bool)
    while len(kept) < stage.keep and free[order].any():
        kept.append(int(order[np.argmax(free[order])]))
        free &= np.max(np.abs(steps - steps[kept[-1]]), axis=1) > 1
    return np.asarray(kept)


def _mixed(family: np.ndarray, order: np.ndarray, keep: int, members: int) -> np.ndarray:
    """The likeliest candidates, of no family more than a few."""
    kept: list[int] = []
    for i in order:
        if len(kept) < keep and np.sum(family[kept] == family[i]) < members:
            kept.append(int(i))
    return np.asarray(kept)


def _distinct(ends: Candidates, chi2: Costs) -> Ends:
    """Ends from the likeliest on, each optimum once."""
    order = np.argsort(chi2, kind="stable")
    order = order[np.isfinite(chi2[order])]
    order = order[np.diff(chi2[order], prepend=-np.inf) > _SAME * chi2[order]]
    return ends[order], chi2[order]


def _expand(found: Coordinates, family: np.ndarray, stage: Stage) -> tuple[Coordinates, np.ndarray]:
    """Every candidate with every combination of changes, and the family that each is of."""
    grids = np.meshgrid(*(values for _, values in stage.change.values()), indexing="ij")
    out = {name: np.repeat(values, grids[0].size) for name, values in found.items()}
    for (name, (how, _)), grid in zip(stage.change.items(), grids, strict=True):
        new = np.tile(grid.ravel(), family.size)
        out[name] = new if how == "set" else out[name] * new if how == "times" else out[name] + new
    return out, np.repeat(family, grids[0].size)
