"""The laws that every model keeps: `check_model` names the first that is broken in a sentence."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jaxtyping import Array

from twotime.config.parameter_registry import ParameterRegistry
from twotime.config.parameter_space import ParameterSpace
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.correlation import correlation, correlation_at, field
from twotime.testing.derivatives import (
    DERIVATIVE,
    At,
    Vector,
    compare,
    corners,
    largest_jumps,
    planes,
    row_count,
    slopes,
)
from twotime.testing.strategies import angles, thetas, times

_ROUNDING = 1e-12
# Compiled and eager code round clocks and phases differently; phases reach 1e5 rad.
_RECOMPUTED = 1e-9
_DIFFER = "they differ by {:.1e}"
_JUMP = 1e-3
"""Larger changes of C within a rounding of a parameter are jumps."""
_TIMES = 0.3 * np.arange(1.0, 8.0)


class LawBroken(AssertionError):  # noqa: N818, a verdict, not a mistake of the caller
    """A model breaks a law; the message says which, where, and by how much."""


def check_model(
    model: AbstractTwoTimeModel,
    space: ParameterSpace | ParameterRegistry | None = None,
    *,
    is_bounded: bool = True,
    stationary: Mapping[str, float] | None = None,
    lengths: Mapping[str, int] | None = None,
    examples: int = 25,
) -> None:
    """Put a model through every law, at parameters, times and angles drawn inside its domain.

    The laws: names are a tuple of words; channels are rows of as many numbers as there are times;
    decays do not run backwards; clocks are the same wherever they are read; symmetric in the two
    times; 1 where they are equal; values and derivatives finite, in the corners of the bounds too;
    continuous in each parameter; jit = eager; vmap = loop; pairs = plane; gradient = finite
    differences; and, where they apply, 0 <= C <= 1; `terms` = `correlation`, in values and
    derivatives, with a phase only where they say so; |`field`|² = C with a positive field
    correlation; constant rates know only t2 - t1; stretching all lengths changes nothing.

    Tolerances follow from rounding: parameters moved by a few units of their last digit show how
    large it is.

    Args:
        model: The model.
        space: Its parameters with bounds, or a registry that knows them; left out: those that it
            says itself.
        is_bounded: Whether the model promises 0 <= C <= 1.
        stationary: Values of some parameters at which all rates are constant, such as
            `{"alpha": 0.0}`.
        lengths: Power of a length in the unit of each parameter or number of the model that
            has one, such as `{"D0": 2, "D_offset": 2, "gap": 1}`.
        examples: How many points to try.

    Raises:
        LawBroken: If a law is broken; the sentence names it.
        ValueError: If JAX computes in float32, or the space is not the model's.
    """
    space = _checked_space(model, space)
    _check_shapes(model, space)
    _check_eager(model, space)
    laws: list[Callable[[_Case], None]] = [_clocks_run_forwards, _clocks_are_integrals]
    laws += [_is_symmetric, _is_one_at_equal_times, _is_finite]
    laws += [_is_between_0_and_1] if is_bounded else []
    laws += [_has_one_value_by_every_path, _field_is_root]
    if stationary is not None:
        laws.append(lambda case: _knows_only_the_lag(case, stationary))
    if lengths is not None:
        laws.append(lambda case: _lengths_stretch(case, lengths))
    laws.append(_gradient_is_finite_difference)

    _check_drawn(model, space, laws, examples)
    _check_whole_box(model, space)


def _check_drawn(
    model: AbstractTwoTimeModel,
    space: ParameterSpace,
    laws: list[Callable[["_Case"], None]],
    examples: int,
) -> None:
    """The laws at parameters, times and angles that are drawn."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(thetas(space), times((7,)), angles((2,)), st.sampled_from((0.003, 0.02)))
    def all_laws_hold(theta: Vector, t: Vector, phi: Vector, q: float) -> None:
        at = {"t": jnp.asarray(t), "q": jnp.asarray(q), "phi": jnp.asarray(phi)}
        both = jnp.stack([theta, space.initial])
        rows = jnp.concatenate([both, jnp.repeat(both[1:], 6, axis=0)])
        computed = _evaluate(model, both, at) | {"forward": slopes(model, rows, at)[0]}
        values = jax.tree.map(np.asarray, computed)
        for law in laws:
            law(_Case(model, space, theta, at, values))

    all_laws_hold()


def _checked_space(
    model: AbstractTwoTimeModel, space: ParameterSpace | ParameterRegistry | None
) -> ParameterSpace:
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "check_model compares to 1e-12 and got float32; turn on float64 first: "
            "jax.config.update('jax_enable_x64', True)."
        )
    names = model.names
    is_tuple = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
    if not is_tuple or len(set(names)) < len(names) or not names:
        raise LawBroken(
            f"{type(model).__name__} breaks the law 'names are a tuple of words': names is "
            f'{names!r}; write names: tuple[str, ...] = ("rate", ...), each once.'
        )
    if space is None:
        space = ParameterSpace.of(model)
    if isinstance(space, ParameterRegistry):
        space = ParameterSpace.from_registry(model.names, space)
    if space.names != model.names:
        raise ValueError(
            f"The space has the parameters {', '.join(space.names)}; {type(model).__name__} "
            f"needs {', '.join(model.names)}; use ParameterSpace.from_registry(model.names, ...)."
        )
    return space


class _Case(NamedTuple):
    """A model at one point of its domain, with everything computed there."""

    model: AbstractTwoTimeModel
    space: ParameterSpace
    theta: Vector
    at: At
    values: dict[str, Any]

    def named(self) -> dict[str, float]:
        """The parameters by name."""
        return dict(zip(self.model.names, self.theta.tolist(), strict=True))

    def require(self, law: str, is_kept: bool, got: str) -> None:
        """Raise the sentence of a law that is not kept."""
        if is_kept:
            return
        t, q, phi = map(np.asarray, self.at.values())
        where = ", ".join(f"{name} = {value:g}" for name, value in self.named().items())
        raise LawBroken(
            f"{type(self.model).__name__} breaks the law '{law}': {got}; at {where}, "
            f"q = {q:g} 1/Å, phi = {phi.tolist()} degree, {len(t)} frames "
            f"from {t[0]:g} to {t[-1]:g} s."
        )

    def agree(
        self, law: str, apart: np.ndarray, got: str = _DIFFER, tolerance: float = _RECOMPUTED
    ) -> None:
        """Require that the differences of two results are rounding, and finite."""
        size = np.where(np.isfinite(apart), np.abs(apart), np.inf)
        largest = float(np.max(size, initial=0.0))
        self.require(law, bool(largest <= tolerance), got.format(largest))


def _check_shapes(model: AbstractTwoTimeModel, space: ParameterSpace) -> None:
    """The laws of the arrays that a model returns, before anything is computed from them."""
    law = "channels are rows, a number for each time"
    at = {"t": jnp.asarray(_TIMES), "q": jnp.asarray(0.01), "phi": jnp.zeros(1)}
    case = _Case(model, space, np.asarray(space.initial), at, {})
    one = at | {"phi": jnp.zeros(())}
    for some in (_TIMES, _TIMES[:3]):
        read = jnp.asarray(some)
        try:
            found = jax.eval_shape(lambda x, at=read: _channels(model, x, at, one), case.theta)
        except jax.errors.JAXTypeError:
            return  # not compiled: a law of its own says so
        except Exception as error:  # whatever a law of others raises
            case.require(law, False, f"channels raises {type(error).__name__}: {error}")
        shapes = {name: getattr(found, name).shape for name in ("decay", "phase", "level")}
        for name, shape in shapes.items():
            kept = len(shape) == 2 and shape[1] == len(some)
            case.require(law, kept, f"{name} has the shape {shape} for {len(some)} times")


def _channels(model: AbstractTwoTimeModel, theta: Any, times: Array, one: At) -> Any:
    return model.channels(theta, times, t=one["t"], q=one["q"], phi=one["phi"])


def _check_whole_box(model: AbstractTwoTimeModel, space: ParameterSpace) -> None:
    """The laws 'finite in the corners' and 'continuous in each parameter', between all bounds."""
    at = {"t": jnp.asarray(_TIMES), "q": jnp.asarray(0.01), "phi": jnp.asarray([0.0, 50.0])}
    rows = corners(space, row_count(len(space.names)))
    c = np.asarray(planes(model, jnp.asarray(rows), at))
    by = [slopes(model, jnp.asarray(rows[k : k + 8]), at) for k in range(0, len(rows) - 8, 8)][:6]
    finite = [np.isfinite(x).reshape(len(x), -1).all(1) for x in (c, np.concatenate(by))]
    for what, kept in zip(("C", "a derivative"), finite, strict=True):
        worst = rows[int(np.argmin(kept))]
        case = _Case(model, space, worst, at, {})
        case.require("finite in the corners of the bounds", bool(kept.all()), f"{what} is not")
    for theta in (np.asarray(space.initial), 0.5 * (rows[0] + rows[2]), 0.5 * (rows[1] + rows[2])):
        jumps = largest_jumps(model, space, theta, at)
        bad = [f"{n} by {x:.1e}" for n, x in zip(space.names, jumps, strict=True) if x > _JUMP]
        case = _Case(model, space, theta, at, {})
        case.require("continuous in each parameter", not bad, f"C jumps along {', '.join(bad)}")


def _check_eager(model: AbstractTwoTimeModel, space: ParameterSpace) -> None:
    """The law 'jit = eager', once and with as few frames as there can be."""
    at = {"t": jnp.asarray([0.1, 0.2]), "q": jnp.asarray(0.01), "phi": jnp.zeros(1)}
    theta = jnp.asarray(space.initial)
    case = _Case(model, space, np.asarray(theta), at, {})
    with jax.disable_jit():
        eager = correlation(model, theta, **at)
    try:
        compiled = correlation(model, theta, **at)
    except jax.errors.JAXTypeError as error:
        case.require("jit = eager", False, f"it does not compile ({type(error).__name__})")
        raise
    case.agree("jit = eager", np.subtract(compiled, eager))


@eqx.filter_jit
def _evaluate(model: AbstractTwoTimeModel, thetas: Array, at: At) -> At:
    """What the laws look at, in one compilation; most of it at the first parameters."""
    theta, t, one = thetas[0], at["t"], at | {"phi": at["phi"][0]}

    def plane(params: Array) -> Array:
        return correlation(model, params, **at)

    row, column = np.triu_indices(t.shape[0])
    middle = 0.5 * (t[1:] + t[:-1])
    first, second = jnp.concatenate([t[row], middle]), jnp.concatenate([t[column], t[1:]])
    t1 = jnp.concatenate([first, second, middle])
    t2 = jnp.concatenate([second, first, middle])
    found = correlation_at(model, theta, t1, t2, **one)
    pairs, swapped, equal = jnp.split(found, [first.shape[0], 2 * first.shape[0]])
    values = {
        "loop": jax.lax.map(plane, thetas),
        "batch": jax.vmap(plane)(thetas),
        "pairs": pairs,
        "swapped": swapped,
        "equal": equal,
        "reverse": jax.grad(lambda params: plane(params).sum())(theta),
    }
    values["plane"] = values["loop"][0]
    values["channels"] = channels = _channels(model, theta, t, one)
    values["sparse"] = _channels(model, theta, t[::2], one)
    if model.is_separable:
        terms = model.terms(channels)
        values["silent"] = terms.phase[np.flatnonzero(~np.array(terms.oscillates))]
        values["terms"] = _sum_of_terms(model, theta, one)
        values["terms_slopes"] = jax.jacfwd(lambda x: _sum_of_terms(model, x, one))(theta)
    if type(model).field is not AbstractTwoTimeModel.field:
        values["field"] = field(model, theta, **at)
    return values


def _sum_of_terms(model: AbstractTwoTimeModel, theta: Array, one: At) -> Array:
    """C of one angle from the terms."""
    terms = model.terms(_channels(model, theta, one["t"], one))
    fall = jnp.abs(terms.decay[:, :, None] - terms.decay[:, None, :])
    oscillates = np.array(terms.oscillates)[:, None, None]
    turn = jnp.where(oscillates, terms.phase[:, :, None] - terms.phase[:, None, :], 0.0)
    weight = terms.weight[:, :, None] * terms.weight[:, None, :]
    return (weight * jnp.exp(-fall) * jnp.cos(turn)).sum(0)


def _clocks_run_forwards(case: _Case) -> None:
    decay = case.values["channels"].decay
    back = np.diff(decay, axis=1) < -_RECOMPUTED * np.maximum(1.0, np.abs(decay[:, 1:]))
    which = ", ".join(map(str, np.flatnonzero(back.any(1))))
    got = f"decay clock {which} falls from one frame to the next"
    case.require("decays do not run backwards", not bool(back.any()), got)


def _clocks_are_integrals(case: _Case) -> None:
    """Clocks are integrals on the frames, so that fewer times read the same."""
    law = "clocks are the same wherever they are read"
    whole, sparse = case.values["channels"], case.values["sparse"]
    for name in ("decay", "phase"):
        all_times, some = (np.diff(getattr(x, name)) for x in (whole, sparse))
        n = some.shape[1]
        both = all_times[:, 0 : 2 * n : 2] + all_times[:, 1 : 2 * n : 2]
        size = 1.0 + np.abs(getattr(whole, name)).max(initial=0.0)
        got = f"differences of {name} change by {{:.1e}} when every second time is read"
        got += "; integrate on the frames `t`, not on `times`"
        case.agree(law, both - some, got, _RECOMPUTED * size)
    got = "level changes by {:.1e} when every second time is read"
    case.agree(law, whole.level[:, ::2] - sparse.level, got)


def _is_symmetric(case: _Case) -> None:
    c, got = case.values["plane"], "C(t1, t2) and C(t2, t1) differ by {:.1e}"
    for apart in (c - np.swapaxes(c, 1, 2), case.values["pairs"] - case.values["swapped"]):
        case.agree("symmetric in t1 and t2", apart, got, _ROUNDING)


def _is_one_at_equal_times(case: _Case) -> None:
    tolerance = 4 * float(np.finfo(float).eps)
    for equal in (np.diagonal(case.values["plane"], axis1=1, axis2=2), case.values["equal"]):
        case.agree("1 at equal times", equal - 1, "C(t, t) is off 1 by {:.1e}", tolerance)


def _is_between_0_and_1(case: _Case) -> None:
    c = np.concatenate([case.values["plane"].ravel(), case.values["pairs"]])
    kept = bool(c.min() >= -_ROUNDING and c.max() <= 1 + _ROUNDING)
    case.require("0 <= C <= 1", kept, f"C reaches from {c.min():.15g} to {c.max():.15g}")


def _is_finite(case: _Case) -> None:
    values = case.values
    kept = all(np.isfinite(values[what]).all() for what in ("plane", "pairs"))
    case.require("finite", kept, "C is not finite everywhere")
    finite = np.isfinite(values["forward"]).all((0, 1, 2)) & np.isfinite(values["reverse"])
    bad = ", ".join(n for n, ok in zip(case.model.names, finite, strict=True) if not ok)
    case.require("finite gradients", not bad, f"dC/d({bad}) is not finite everywhere")


def _has_one_value_by_every_path(case: _Case) -> None:
    values, plane = case.values, case.values["plane"][0]
    case.agree("vmap = loop", values["batch"] - values["loop"])
    row, column = np.triu_indices(plane.shape[0])
    got = "the plane and the pairs at the frames' times differ by {:.1e}"
    case.agree("pairs = plane", plane[row, column] - values["pairs"][: len(row)], got)
    case.agree("terms = correlation", values.get("terms", plane) - plane)
    if "terms" in values:
        got = "a term that does not oscillate has a phase of up to {:.1e} rad"
        case.agree("terms say which of them oscillate", values["silent"], got)
        exact, by_terms = values["forward"][0], values["terms_slopes"]
        size = np.maximum(np.abs(exact).max((0, 1)), 1.0 / _widths(case.space))
        got = "their derivatives differ by {:.1e} of the largest"
        case.agree("terms = correlation", (by_terms - exact) / size, got, DERIVATIVE)


def _widths(space: ParameterSpace) -> Vector:
    return np.asarray(space.upper) - np.asarray(space.lower)


def _field_is_root(case: _Case) -> None:
    if "field" in case.values:
        g1 = case.values["field"]
        case.agree("|field|² = C", np.abs(g1) ** 2 - case.values["plane"])
        least = np.linalg.eigvalsh(g1).min()
        got = f"its least eigenvalue is {least:.1e}"
        case.require("the field's correlation is positive", bool(least >= -_RECOMPUTED), got)


def _knows_only_the_lag(case: _Case, stationary: Mapping[str, float]) -> None:
    theta = jnp.asarray([stationary.get(name, x) for name, x in case.named().items()])
    c = np.asarray(planes(case.model, theta[None], case.at)[0])
    got = "C changes by {:.1e} from one frame to the next at one lag"
    apart = c[:, 1:, 1:] - c[:, :-1, :-1]
    case.agree("constant rates know only t2 - t1", apart, got, 10 * _RECOMPUTED)


def _lengths_stretch(case: _Case, lengths: Mapping[str, int]) -> None:
    names, model = case.model.names, case.model
    own = {n: getattr(model, n) * 2.0**power for n, power in lengths.items() if n not in names}
    theta = jnp.asarray(case.theta * 2.0 ** np.array([lengths.get(name, 0) for name in names]))
    at = case.at | {"q": case.at["q"] / 2}
    c = np.asarray(planes(dataclasses.replace(model, **own), theta[None], at)[0])
    got = "C changes by {:.1e} when all lengths are doubled"
    case.agree("stretching all lengths changes nothing", c - case.values["plane"], got)


def _gradient_is_finite_difference(case: _Case) -> None:
    error, rounding = compare(case.model, case.space, case.theta, case.at)
    rows = zip(case.model.names, error, rounding, strict=True)
    bad = {name: x for name, x, allowed in rows if x > DERIVATIVE + allowed}
    got = ", ".join(f"dC/d({name}) is off by {x:.1e}" for name, x in bad.items())
    case.require("gradient = finite differences", not bad, got)
