"""Starts of a fit, read off the data: no value needs to be known beforehand.

The correlation is averaged over groups of equal lag and similar age; on these few hundred
numbers thousands of candidates are compared by their χ², contrast and offset at their best.
Candidates differ in what the data show directly: rates in the middle of the record instead of
amplitudes at t = 1 s, accumulated phase instead of velocity. The best of one stage are refined
in the next; the last ones are where fits start.
"""

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from twotime.config.parameter_space import ParameterSpace
from twotime.core.correlation import correlation_at
from twotime.core.models import AbstractTwoTimeModel, LaminarFlow, StaticDiffusion, TwoComponent
from twotime.core.scaling import Scaling, make_scaling, resolve_mode, solve_scaling
from twotime.data.dataset import TwoTimeData

_LAGS, _AGES, _GRID, _CHUNK, _DRAWS = 32, 9, 128, 256, 64

Coordinates = Mapping[str, np.ndarray]


class Groups(eqx.Module):
    """Correlation averaged over pixels of equal lag and similar age.

    Attributes:
        t1: Earlier time of the group's mean pixel [s].
        t2: Its later time [s].
        c2: Mean correlation, 0 where no pixel is usable.
        weight: Number of usable pixels.
    """

    t1: Float[Array, " pair"]
    t2: Float[Array, " pair"]
    c2: Float[Array, "angle pair"]
    weight: Float[Array, "angle pair"]


class Stage(NamedTuple):
    """One round of candidates.

    Attributes:
        change: Coordinate -> (how, values): "set" replaces, "times" multiplies, "plus" adds.
        keep: How many candidates go on.
        longest: Longest lag looked at, as a share of the record.
        central: Whether only pixels about the middle of the record are looked at.
    """

    change: Mapping[str, tuple[str, np.ndarray]]
    keep: int
    longest: float = 1.0
    central: bool = False


class Plan(NamedTuple):
    """How the start of a model is searched.

    Attributes:
        stages: Rounds of candidates.
        params: Coordinates -> parameters in the order of `model.names`.
    """

    stages: tuple[Stage, ...]
    params: Callable[[Coordinates], dict[str, Any]]


def estimate_starts(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    *,
    per_angle_mode: str = "auto",
    count: int = 1,
) -> list[ParameterSpace]:
    """Spaces that start where the data suggest, the likeliest first.

    Parameters that are given in the space or do not vary stay at their values.

    Args:
        model: StaticDiffusion, LaminarFlow or TwoComponent, or a model registered with `plan`.
        data: The data.
        space: Bounds, and what is given.
        per_angle_mode: As in `fit_nlsq`.
        count: How many starts at most, each from another corner of the first stage.

    Raises:
        ValueError: If there is no plan for this model.
    """
    groups = group(data)
    search = plan(model, data, space)
    scaling = _scaling(data, space, resolve_mode(per_angle_mode, data.phi.shape[0]))

    def ranked(found: Coordinates, stage: Stage) -> tuple[Coordinates, np.ndarray]:
        params = _params(model, space, search, found)
        chi2 = _score(model, data, groups, scaling, _looked_at(groups, stage), params)
        order = np.argsort(chi2, kind="stable")
        return _pick(found, order), params[order]

    first, *later = search.stages
    found, params = ranked(_expand({}, first.change), first)
    starts = []
    for beam in _beams(found, first, count):
        beam = _pick(beam, slice(first.keep))
        for stage in later:
            beam, params = ranked(_expand(beam, stage.change), stage)
            beam = _pick(beam, slice(stage.keep))
        starts.append(params[0])
    return [space.with_values(dict(zip(space.names, p.tolist(), strict=True))) for p in starts]


def _pick(found: Coordinates, which: Any) -> Coordinates:
    return {name: values[which] for name, values in found.items()}


def _beams(found: Coordinates, stage: Stage, count: int) -> list[Coordinates]:
    """All candidates; for further starts those about the likeliest that is nowhere near before."""
    steps = np.stack([np.searchsorted(grid, found[k]) for k, (_, grid) in stage.change.items()], 1)
    beams, free, seed = [found], np.ones(len(steps), bool), steps[0]
    while len(beams) < count:
        free &= np.max(np.abs(steps - seed), axis=1) > 1
        if not free.any():
            break
        seed = steps[np.argmax(free)]
        beams.append(_pick(found, free & (np.max(np.abs(steps - seed), axis=1) <= 1)))
    return beams


@singledispatch
def plan(model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace) -> Plan:
    """How to search the start of a fit; a model of one's own registers its plan.

    Args:
        model: The model.
        data: The data.
        space: Bounds, and what is given.

    Raises:
        ValueError: If there is none for this model.
    """
    raise ValueError(
        f"No way to estimate a start from the data is known for {type(model).__name__}; give "
        "values, or register a plan with twotime.inference.starts.plan.register."
    )


@eqx.filter_jit
def group(data: TwoTimeData) -> Groups:
    """Average the usable pixels with t1 < t2 over groups of equal lag and similar age."""
    c2, t = jnp.asarray(data.c2), jnp.asarray(data.t)
    used = jnp.isfinite(c2) if data.mask is None else jnp.isfinite(c2) & data.mask
    n = t.shape[0]
    times, mean, weight = [], [], []
    for lag in np.unique(np.round(np.geomspace(1, n - 1, _LAGS)).astype(int)):
        age = np.minimum(
            ((np.arange(n - lag) + 0.5 * lag) * _AGES / (n - 1)).astype(int), _AGES - 1
        )
        ages, place = np.unique(age, return_inverse=True)
        member = place == np.arange(ages.size)[:, None]
        counted = jnp.diagonal(used, lag, 1, 2)
        values = jnp.where(counted, jnp.diagonal(c2, lag, 1, 2), 0.0)
        count = counted @ member.T.astype(float)
        mean.append(values @ member.T / jnp.maximum(count, 1.0))
        weight.append(count)
        first = member @ np.arange(n - lag) / member.sum(1)
        times.append(np.stack([first, first + lag]))
    t1, t2 = jnp.interp(np.concatenate(times, axis=1), np.arange(n), t)
    return Groups(t1, t2, jnp.concatenate(mean, axis=1), jnp.concatenate(weight, axis=1))


def _looked_at(groups: Groups, stage: Stage) -> Float[Array, "angle pair"]:
    """Weights of the groups that a stage looks at."""
    span = groups.t2.max() - groups.t1.min()
    middle = 0.5 * (groups.t1 + groups.t2) - groups.t1.min()
    wanted = groups.t2 - groups.t1 <= stage.longest * span * (1 + 1e-9)
    if stage.central:
        wanted &= jnp.abs(middle - 0.5 * span) <= 0.5 * span / _AGES * (1 + 1e-9)
    return groups.weight * wanted


def _expand(found: Coordinates, change: Mapping[str, tuple[str, np.ndarray]]) -> Coordinates:
    """Every candidate with every combination of changes."""
    grids = np.meshgrid(*(values for _, values in change.values()), indexing="ij")
    n_old = next(iter(found.values())).size if found else 1
    out = {name: np.repeat(values, grids[0].size) for name, values in found.items()}
    for (name, (how, _)), grid in zip(change.items(), grids, strict=True):
        new = np.tile(grid.ravel(), n_old)
        out[name] = new if how == "set" else out[name] * new if how == "times" else out[name] + new
    return out


def _params(
    model: AbstractTwoTimeModel, space: ParameterSpace, search: Plan, found: Coordinates
) -> Float[np.ndarray, "candidate param"]:
    """Parameters of candidates: inside the bounds, and as given where they are."""
    n = next(iter(found.values())).size
    values = search.params(found)
    columns = np.stack([np.broadcast_to(values[name], (n,)) for name in model.names], axis=1)
    known = _known(space)
    return np.where(known, space.initial, np.clip(columns, space.lower, space.upper))


def _scaling(data: TwoTimeData, space: ParameterSpace, mode: str) -> Scaling:
    """The scaling of a fit; what "constant" would freeze is free here."""
    vary = np.asarray(space.scaling_varying)
    lower = jnp.where(vary, space.scaling_lower, space.scaling_initial)
    upper = jnp.where(vary, space.scaling_upper, space.scaling_initial)
    mode = "individual" if mode == "constant" else mode
    return make_scaling(mode, jnp.asarray(data.phi), lower, upper)


def _known(space: ParameterSpace) -> np.ndarray:
    return (np.asarray(space.given) > 0) | ~np.asarray(space.varying)


def _score(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    groups: Groups,
    scaling: Scaling,
    weight: Float[Array, "angle pair"],
    params: Float[np.ndarray, "candidate param"],
) -> Float[np.ndarray, " candidate"]:
    """χ² of candidates on the groups, contrast and offset at their best."""
    fill = -len(params) % _CHUNK
    padded = np.concatenate([params, np.repeat(params[-1:], fill, axis=0)])
    pieces = padded.reshape(-1, _CHUNK, padded.shape[1])
    found = [_chi2(model, data, groups, scaling, weight, jnp.asarray(p)) for p in pieces]
    return np.concatenate([np.asarray(x) for x in found])[: len(params)]


@eqx.filter_jit
def _chi2(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    groups: Groups,
    scaling: Scaling,
    weight: Float[Array, "angle pair"],
    params: Float[Array, "candidate param"],
) -> Float[Array, " candidate"]:
    c2, phi, n = groups.c2, jnp.asarray(data.phi), data.t.shape[0]
    grid = jnp.asarray(data.t)[np.unique(np.linspace(0, n - 1, _GRID).astype(int))]

    def one(p: Array) -> Array:
        def curve(angle: Array) -> Array:
            return correlation_at(model, p, groups.t1, groups.t2, t=grid, q=data.q, phi=angle)

        value = jax.vmap(curve)(phi)
        basis = jnp.stack([c2, jnp.ones_like(c2), value], axis=1)
        moments = jnp.einsum("aip,ap,ajp->aij", basis, weight, basis)
        solution = solve_scaling(moments, scaling)
        ones = jnp.ones_like(solution.offset)
        combine = jnp.stack([ones, -solution.offset, -solution.contrast], axis=1)
        found = jnp.einsum("ai,aij,aj->", combine, moments, combine)
        return jnp.where(jnp.isfinite(found), found, jnp.inf)

    return jax.vmap(one)(params)


def spread_starts(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: ParameterSpace,
    mode: str,
    count: int,
    key: Key[Array, ""],
) -> Float[Array, "start param"]:
    """The space's own start and the likeliest of a Latin hypercube over its bounds; traceable.

    Amplitudes that the space calls logarithmic are spread in their logarithm.

    Args:
        model: The model.
        data: The data.
        space: Start, bounds and which parameters vary.
        mode: `per_angle_mode`, resolved.
        count: How many starts.
        key: Source of randomness.

    Reference:
        McKay, Beckman & Conover, Technometrics 21, 239 (1979).
    """
    draws, n = _DRAWS * count, len(space.names)
    places = jax.vmap(lambda k: jax.random.permutation(k, draws))(jax.random.split(key, n)).T
    low, high = jnp.asarray(space.lower), jnp.asarray(space.upper)
    log = jnp.asarray(space.log_space) & (low > 0)
    low, high = (jnp.where(log, jnp.log(jnp.where(log, x, 1.0)), x) for x in (low, high))
    inside = low + (high - low) * (places + jax.random.uniform(key, places.shape)) / draws
    inside = jnp.where(log, jnp.exp(inside), inside)
    initial = jnp.asarray(space.initial)
    candidates = jnp.where(jnp.asarray(space.varying), inside, initial)
    groups = group(data)
    scaling = _scaling(data, space, mode)
    chi2 = _chi2(model, data, groups, scaling, groups.weight, candidates)
    best = jnp.argsort(chi2)[: count - 1]
    return jnp.concatenate([initial[None], candidates[best]])


@plan.register
def _(model: StaticDiffusion, data: TwoTimeData, space: ParameterSpace) -> Plan:
    del model
    scene = _Scene(data, space)
    first = Stage({"J": ("set", scene.decays(40)), "alpha": ("set", np.zeros(1))}, 12)
    second = Stage(
        {
            "J": ("times", np.geomspace(0.6, 1.6, 5)),
            "alpha": ("plus", np.linspace(-1.6, 1.6, 17)),
            "share": ("set", np.array([0.0, 0.3, 0.6])),
        },
        8,
    )

    def params(c: Coordinates) -> dict[str, Any]:
        return scene.power("D0", "alpha", "D_offset", c["J"], c["alpha"], c.get("share", 0.0))

    return Plan((first, second), params)


@plan.register
def _(model: LaminarFlow, data: TwoTimeData, space: ParameterSpace) -> Plan:
    scene = _Scene(data, space)
    per_rate = abs(0.5 * float(scene.q) * float(model.gap)) * scene.span
    if model.shear_convention == "homodyne":
        per_rate /= np.pi
    phase = np.geomspace(0.3, 0.5 * np.pi * scene.frames, 36)
    stages = (
        Stage(
            {
                "J": ("set", scene.decays(20)),
                "rate": ("set", phase / per_rate),
                "phi0": ("set", scene.directions(5)),
                "alpha": ("set", np.zeros(1)),
                "beta": ("set", np.zeros(1)),
            },
            16,
        ),
        Stage(
            {
                "J": ("times", np.geomspace(0.7, 1.4, 3)),
                "rate": ("times", np.geomspace(0.8, 1.25, 3)),
                "alpha": ("plus", np.linspace(-1.2, 1.2, 9)),
                "beta": ("plus", np.linspace(-1.2, 1.2, 9)),
            },
            16,
        ),
        Stage(
            {
                "rate": ("times", np.geomspace(0.92, 1.09, 5)),
                "beta": ("plus", np.linspace(-0.15, 0.15, 5)),
                "alpha": ("plus", np.linspace(-0.15, 0.15, 3)),
                "phi0": ("plus", np.linspace(-2.0, 2.0, 5)),
            },
            8,
        ),
    )

    def params(c: Coordinates) -> dict[str, Any]:
        return {
            **scene.power("D0", "alpha", "D_offset", c["J"], c["alpha"]),
            **scene.power("gamma_dot_t0", "beta", "gamma_dot_t_offset", c["rate"], c["beta"]),
            "phi0": c["phi0"],
        }

    return Plan(stages, params)


@plan.register
def _(model: TwoComponent, data: TwoTimeData, space: ParameterSpace) -> Plan:
    del model
    scene = _Scene(data, space)
    per_velocity = float(scene.q) * scene.span
    radian = 1.0 / per_velocity
    none = np.zeros(1)
    stages = (
        Stage(
            {
                "J_ref": ("set", scene.decays(9)),
                "J_sample": ("set", scene.decays(9)),
                "v": ("set", np.arange(0.0, 120.0, 2.0) * radian),
                "f": ("set", np.array([0.2, 0.4, 0.6, 0.8])),
                "phi0": ("set", none),
                "alpha_ref": ("set", none),
                "alpha_sample": ("set", none),
                "beta": ("set", none),
                "f1": ("set", none),
            },
            24,
            longest=0.34,
            central=True,
        ),
        Stage(
            {
                "beta": ("plus", np.linspace(-2.0, 2.0, 101)),
                "v": ("plus", np.linspace(-1.5, 1.5, 4) * radian),
            },
            16,
            longest=0.34,
        ),
        Stage(
            {
                "alpha_ref": ("plus", np.linspace(-1.0, 1.0, 5)),
                "alpha_sample": ("plus", np.linspace(-1.0, 1.0, 5)),
                "f": ("plus", np.linspace(-0.15, 0.15, 5)),
                "f1": ("plus", np.linspace(-1.0, 1.0, 5) / scene.span),
            },
            12,
        ),
        Stage(
            {
                "J_ref": ("times", np.geomspace(0.6, 1.6, 3)),
                "J_sample": ("times", np.geomspace(0.6, 1.6, 3)),
                "v": ("plus", np.linspace(-0.8, 0.8, 5) * radian),
                "beta": ("plus", np.linspace(-0.03, 0.03, 3)),
                "phi0": ("plus", scene.directions(3)),
            },
            8,
        ),
    )

    def params(c: Coordinates) -> dict[str, Any]:
        f1, f2, f3 = (scene.known.get(name, value) for name, value in (
            ("f1", c["f1"]), ("f2", scene.middle), ("f3", 0.0),
        ))  # fmt: skip
        growth = np.exp(np.clip(f1 * (scene.middle - f2), -50.0, 50.0))
        return {
            **scene.power("D0_ref", "alpha_ref", "D_offset_ref", c["J_ref"], c["alpha_ref"]),
            **scene.power(
                "D0_sample", "alpha_sample", "D_offset_sample", c["J_sample"], c["alpha_sample"]
            ),
            **scene.power("v0", "beta", "v_offset", c["v"], c["beta"]),
            "f0": (c["f"] - f3) / growth,
            "f1": c["f1"],
            "f2": f2,
            "f3": f3,
            "phi0": c["phi0"],
        }

    return Plan(stages, params)


class _Scene:
    """What candidates are measured in: the record, the wavevector, and what is known."""

    def __init__(self, data: TwoTimeData, space: ParameterSpace) -> None:
        t = np.asarray(data.t)
        self.q = np.asarray(data.q)
        self.frames = t.size
        self.span = float(t[-1] - t[0])
        self.middle = float(0.5 * (t[0] + t[-1]))
        known = _known(space)
        self.known = {
            name: float(value)
            for name, value, is_known in zip(space.names, space.initial, known, strict=True)
            if is_known
        }
        place = space.names.index("phi0") if "phi0" in space.names else None
        self.phi0 = (0.0, 0.0) if place is None else (space.lower[place], space.upper[place])

    def decays(self, count: int) -> np.ndarray:
        """Transport that decays C to 1/e within 0.7 frames up to five records [Å²/s]."""
        step = self.span / (self.frames - 1)
        return np.geomspace(1.0 / (5 * self.span), 1.0 / (0.7 * step), count) / float(self.q) ** 2

    def directions(self, count: int) -> np.ndarray:
        """Angles that cover the bounds of phi0 [degree]."""
        low, high = (float(x) for x in self.phi0)
        return np.linspace(low, high, 2 * count + 1)[1::2]

    def power(
        self, amplitude: str, exponent: str, offset: str, rate: Any, slope: Any, share: Any = 0.0
    ) -> dict[str, Any]:
        """A power law with offset from its value in the middle of the record."""
        slope = self.known.get(exponent, slope)
        constant = self.known.get(offset, share * rate)
        return {
            amplitude: (rate - constant) / self.middle**slope,
            exponent: slope,
            offset: constant,
        }
