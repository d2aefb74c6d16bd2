"""Starts of a fit, read off the data: no value needs to be known beforehand.

The correlation is averaged over bins of equal lag and similar age; on this coarse data
thousands of candidates are compared by their χ², contrast and offset at their best. The best of
one stage of a plan are varied in the next; the last ones, of several families, are refined by a
few descent steps, still on the coarse data. A fit starts where they end.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from twotime.config.parameter_space import ParameterSpace
from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.proposals import Coordinates, Plan, Scene, Stage
from twotime.models.scaling import Individual, resolve_mode
from twotime.start.coarse import (
    AGES,
    CoarseData,
    CoarseProblem,
    coarse_chi2,
    coarse_fit,
    coarse_grain,
    coarse_problem,
    in_chunks,
)

_CHUNK, _FEW_LAGS = 256, 16
_RELATIVES = 2
_SAME, _LIKE, _MARGIN = 1e-5, 1e-3, 5e-3
_ROUNDS, _PARENTS, _TRIED = 4, 2, 44
_GO_ON, _MEMBERS, _FINALISTS, _LEADERS = 12, 4, 4, 2


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
        model: StaticDiffusion, LaminarFlow or TwoComponent, or a model with `proposals`.
        data: The data.
        space: Bounds, and what is given.
        per_angle_mode: As in `fit_nlsq`.
        count: How many starts at most; optima of coarse data before other candidates.

    Raises:
        ValueError: If the model has no `proposals`.
    """
    plan = model.proposals(scene_of(data, space))
    mode = resolve_mode(per_angle_mode, data.phi.shape[0])
    few, many = (
        coarse_problem(model, data, space, mode, points)
        for points in (coarse_grain(data, _FEW_LAGS), coarse_grain(data))
    )
    found: Coordinates = {}
    family = np.zeros(1, int)
    for stage in plan.stages:
        found, family = _expand(found, family, stage.change)
        params = _params(model, space, plan, found)
        order = np.argsort(_score(few, _looked_at(few.points, stage), params), kind="stable")
        if stage is plan.stages[0]:
            kept = _apart(found, stage, order)
            family = np.arange(family.size)
        else:
            kept = _mixed(family, order, stage.keep, _RELATIVES)
        found, family, params = _pick(found, kept), family[kept], params[kept]
    refined = _refined(_Search(space, plan, few, many), params, _ROUNDS + count - 1)
    starts = np.concatenate([refined, params])[:count]
    return [space.with_values(dict(zip(space.names, p.tolist(), strict=True))) for p in starts]


def is_known(space: ParameterSpace) -> np.ndarray:
    """Which parameters are given or do not vary."""
    return (np.asarray(space.given) > 0) | ~np.asarray(space.varying)


def scene_of(data: TwoTimeData, space: ParameterSpace) -> Scene:
    """What a law knows when it proposes starts."""
    ends = zip(space.lower, space.upper, strict=True)
    return Scene(
        names=tuple(space.names),
        t=np.asarray(data.t),
        q=float(np.asarray(data.q)),
        bounds={n: (float(a), float(b)) for n, (a, b) in zip(space.names, ends, strict=True)},
        known={space.names[i]: float(space.initial[i]) for i in np.flatnonzero(is_known(space))},
    )


class _Search(NamedTuple):
    """Coarse fits that refine candidates: to few points for scores, to more for descents."""

    space: ParameterSpace
    plan: Plan
    few: CoarseProblem
    many: CoarseProblem

    def score(self, params: Float[np.ndarray, "candidate param"]) -> np.ndarray:
        return _score(self.few, self.few.points.weight, params)

    def downhill(self, params: Float[np.ndarray, "candidate param"]) -> tuple[Any, Any]:
        free = tuple(int(i) for i in np.flatnonzero(~is_known(self.space)))
        return coarse_fit(self.many, self.space, free, params)


def _refined(
    search: _Search, params: Float[np.ndarray, "candidate param"], rounds: int
) -> Float[np.ndarray, "end param"]:
    """Where candidates, and the alternatives of the best, lead; the likeliest first."""
    found = plain = _led(search, params, np.arange(len(params)), params[:0])
    tried = np.zeros(0)
    for _ in range(rounds):
        ends, chi2 = (x[:rounds] for x in found)
        is_new = np.all(np.abs(chi2[:, None] - tried) > _LIKE * tried, axis=1)
        parents = np.concatenate([ends[is_new], ends])[:_PARENTS]
        tried = np.append(tried, chi2[is_new][:_PARENTS])
        kinds = [kind for end in parents for kind in search.plan.alternatives(end)]
        if not kinds:
            break
        family = np.repeat(np.arange(len(kinds)), [len(kind) for kind in kinds])
        moved = np.where(is_known(search.space), search.space.initial, np.concatenate(kinds))
        moved = np.clip(moved, search.space.lower, search.space.upper)
        kept = _mixed(family, np.argsort(search.score(moved)), _TRIED, -(-_TRIED // len(kinds)))
        new = _led(search, moved[kept], family[kept], found[0][:_LEADERS])
        ends, chi2 = (np.concatenate([old, x]) for old, x in zip(found, new, strict=True))
        order = _distinct(chi2)
        found = ends[order], chi2[order]
    # Of ends that the data hardly tell apart those of plain candidates come first: rates that
    # begin late or end early have a kink, near which fits converge slowly.
    first = plain[0][:1] if np.all(plain[1][:1] <= (1 + _MARGIN) * found[1][:1]) else plain[0][:0]
    return np.concatenate([first, found[0]])


def _led(
    search: _Search,
    params: Float[np.ndarray, "candidate param"],
    family: Int[np.ndarray, " candidate"],
    leaders: Float[np.ndarray, "leader param"],
) -> tuple[Float[np.ndarray, "end param"], Float[np.ndarray, " end"]]:
    """Where candidates lead: after some steps only the likeliest go on, and the leaders."""
    params, chi2 = search.downhill(params)
    kept = _mixed(family, np.argsort(chi2), _GO_ON, _MEMBERS)
    params, chi2 = params[kept], chi2[kept]
    for _ in range(2):
        params, chi2 = search.downhill(params)
    best = np.concatenate([params[np.argsort(chi2)[:_FINALISTS]], leaders])
    for _ in range(4):
        best, cost = search.downhill(best)
    ends, costs = np.concatenate([best, params]), np.concatenate([cost, chi2])
    order = _distinct(costs)
    return ends[order], costs[order]


def _pick(found: Coordinates, which: Any) -> Coordinates:
    return {name: values[which] for name, values in found.items()}


def _apart(found: Coordinates, stage: Stage, order: np.ndarray) -> np.ndarray:
    """The likeliest candidates of a grid of which none is beside another."""
    steps = np.stack([np.searchsorted(grid, found[k]) for k, (_, grid) in stage.change.items()], 1)
    kept: list[int] = []
    free = np.ones(order.size, bool)
    while len(kept) < stage.keep and free[order].any():
        kept.append(int(order[np.argmax(free[order])]))
        free &= np.max(np.abs(steps - steps[kept[-1]]), axis=1) > 1
    return np.asarray(kept)


def _mixed(
    family: Int[np.ndarray, " candidate"], order: np.ndarray, keep: int, members: int
) -> np.ndarray:
    """The likeliest candidates, of no family more than a few."""
    taken: dict[int, int] = {}
    kept = []
    for i in order:
        taken[family[i]] = taken.get(family[i], 0) + 1
        if taken[family[i]] <= members:
            kept.append(i)
        if len(kept) == keep:
            break
    return np.asarray(kept)


def _distinct(chi2: Float[np.ndarray, " end"]) -> np.ndarray:
    """Ends from the likeliest on, each optimum once."""
    order = np.argsort(chi2, kind="stable")
    order = order[np.isfinite(chi2[order])]
    first = np.diff(chi2[order], prepend=-np.inf) > _SAME * chi2[order]
    return order[first]


def _looked_at(points: CoarseData, stage: Stage) -> Float[Array, "angle bin"]:
    """Weights of the coarse data that a stage looks at."""
    span = points.t2.max() - points.t1.min()
    middle = 0.5 * (points.t1 + points.t2) - points.t1.min()
    wanted = points.t2 - points.t1 <= stage.longest * span * (1 + 1e-9)
    if stage.central:
        wanted &= jnp.abs(middle - 0.5 * span) <= 0.5 * span / AGES * (1 + 1e-9)
    return points.weight * wanted


def _expand(
    found: Coordinates,
    family: Int[np.ndarray, " candidate"],
    change: Mapping[str, tuple[str, np.ndarray]],
) -> tuple[Coordinates, Int[np.ndarray, " expanded"]]:
    """Every candidate with every combination of changes, and the family that each is of."""
    grids = np.meshgrid(*(values for _, values in change.values()), indexing="ij")
    n_old = next(iter(found.values())).size if found else 1
    out = {name: np.repeat(values, grids[0].size) for name, values in found.items()}
    for (name, (how, _)), grid in zip(change.items(), grids, strict=True):
        new = np.tile(grid.ravel(), n_old)
        out[name] = new if how == "set" else out[name] * new if how == "times" else out[name] + new
    return out, np.repeat(family, grids[0].size)


def _params(
    model: AbstractTwoTimeModel, space: ParameterSpace, plan: Plan, found: Coordinates
) -> Float[np.ndarray, "candidate param"]:
    """Parameters of candidates: inside the bounds, and as given where they are."""
    n = next(iter(found.values())).size
    values = plan.params(found)
    columns = np.stack([np.broadcast_to(values[name], (n,)) for name in model.names], axis=1)
    known = is_known(space)
    return np.where(known, space.initial, np.clip(columns, space.lower, space.upper))


def _score(
    problem: CoarseProblem,
    weight: Float[Array, "angle bin"],
    params: Float[np.ndarray, "candidate param"],
) -> Float[np.ndarray, " candidate"]:
    """χ² of candidates on the coarse data, contrast and offset at their best."""
    return in_chunks(lambda some: coarse_chi2(problem, weight, some), params, _CHUNK)
