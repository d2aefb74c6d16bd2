"""The laws that every model keeps, and hypothesis strategies that stay inside its domain.

`check_model(MyModel(), space)` puts a model through all laws; the first broken one is named in
a sentence. The strategies `thetas`, `times` and `angles` serve tests of your own. Needs
hypothesis and float64.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jaxtyping import Array, Float

from twotime.config.parameter_registry import ParameterRegistry
from twotime.config.parameter_space import ParameterSpace
from twotime.models.base import AbstractTwoTimeModel
from twotime.models.correlation import correlation, correlation_at, field
from twotime.models.rates import AnyArray, Scalar

__all__ = ["LawBroken", "angles", "check_model", "derivative_errors", "thetas", "times"]

Vector = Float[np.ndarray, " _"]
At = dict[str, Array]

_ROUNDING = 1e-12
# Compiled and eager code round clocks and phases differently; phases reach 1e5 rad.
_RECOMPUTED = 1e-9
_DERIVATIVE = 1e-6
_DIFFER = "they differ by {:.1e}"
# Steps of finite differences as a part of the distance between the bounds.
_STEPS = 0.01 * 8.0 ** -np.arange(9)


class LawBroken(AssertionError):  # noqa: N818, a verdict, not a mistake of the caller
    """A model breaks a law; the message says which, where, and by how much."""


def thetas(space: ParameterSpace) -> st.SearchStrategy[Vector]:
    """Draw parameters of a space inside its bounds, which are drawn too.

    One half comes from the whole box (logarithmic where the space says so), the other from the
    neighbourhood of the initial values, where most models are less trivial.
    """
    lower, upper, initial, scale = (
        np.asarray(x) for x in (space.lower, space.upper, space.initial, space.scale)
    )
    is_log = np.asarray(space.log_space, bool)
    low, high = np.log(np.where(is_log, lower, 1.0)), np.log(np.where(is_log, upper, 1.0))
    n = len(space.names)

    def place(units: Any, spread: float | None) -> Vector:
        unit = np.array(units)
        if spread is None:
            box = lower + unit * (upper - lower)
            box = np.where(is_log, np.exp(low + unit * (high - low)), box)
        else:
            box = initial + (2 * unit - 1) * spread * scale
        return np.clip(box, lower, upper)

    units = st.lists(st.floats(0.0, 1.0), min_size=n, max_size=n)
    return st.builds(place, units, st.sampled_from([None, 1.0, None, 0.03]))


def times(
    lengths: Sequence[int] = (2, 9), steps: Sequence[float] = (0.0125, 0.3)
) -> st.SearchStrategy[Vector]:
    """Draw the times of equally spaced frames [s], the first later than 0.

    Lengths come from a short list, because every new length compiles anew.
    """
    grids = st.tuples(st.sampled_from(lengths), st.sampled_from(steps), st.sampled_from((1, 4)))
    return grids.map(lambda drawn: (np.arange(drawn[0]) + drawn[2]) * drawn[1])


def angles(numbers: Sequence[int] = (2,)) -> st.SearchStrategy[Vector]:
    """Draw detector angles [degree] in (-180, 180]."""
    one = st.integers(-179, 180).map(float)
    lists = [st.lists(one, min_size=n, max_size=n, unique=True) for n in numbers]
    return st.one_of(lists).map(np.array)


def check_model(
    model: AbstractTwoTimeModel,
    space: ParameterSpace | ParameterRegistry,
    *,
    is_bounded: bool = True,
    stationary: Mapping[str, float] | None = None,
    lengths: Mapping[str, int] | None = None,
    examples: int = 25,
) -> None:
    """Put a model through every law, at parameters, times and angles drawn inside its domain.

    The laws: symmetric in the two times; 1 where they are equal; values and derivatives
    finite; jit = eager; vmap = loop; pairs = plane; gradient = finite differences; and, where
    they apply, 0 <= C <= 1; `terms` = `correlation`; |`field`|² = C with a positive field
    correlation; constant rates know only t2 - t1; stretching all lengths changes nothing.

    Args:
        model: The model.
        space: Its parameters with bounds, or a registry that knows them.
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
    _check_eager(model, space)
    laws: list[Callable[[_Case], None]] = [_is_symmetric, _is_one_at_equal_times, _is_finite]
    laws += [_is_between_0_and_1] if is_bounded else []
    laws += [_has_one_value_by_every_path, _field_is_root]
    if stationary is not None:
        laws.append(lambda case: _knows_only_the_lag(case, stationary))
    if lengths is not None:
        laws.append(lambda case: _lengths_stretch(case, lengths))
    laws.append(_gradient_is_finite_difference)

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
        computed = _evaluate(model, both, at) | {"forward": _slopes(model, both[0], at)}
        values = {name: np.asarray(value) for name, value in computed.items()}
        for law in laws:
            law(_Case(model, space, theta, at, values))

    all_laws_hold()


def _checked_space(
    model: AbstractTwoTimeModel, space: ParameterSpace | ParameterRegistry
) -> ParameterSpace:
    if jnp.result_type(float) != jnp.float64:
        raise ValueError(
            "check_model compares to 1e-12 and got float32; turn on float64 first: "
            "jax.config.update('jax_enable_x64', True)."
        )
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
    values: dict[str, np.ndarray]

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
        self.require(law, largest <= tolerance, got.format(largest))


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
    if model.is_separable:
        terms = model.terms(model.channels(theta, t, **one))
        fall = jnp.abs(terms.decay[:, :, None] - terms.decay[:, None, :])
        oscillates = np.array(terms.oscillates)[:, None, None]
        turn = jnp.where(oscillates, terms.phase[:, :, None] - terms.phase[:, None, :], 0.0)
        weight = terms.weight[:, :, None] * terms.weight[:, None, :]
        values["terms"] = (weight * jnp.exp(-fall) * jnp.cos(turn)).sum(0)
    if type(model).field is not AbstractTwoTimeModel.field:
        values["field"] = field(model, theta, **at)
    return values


@eqx.filter_jit
def _planes(model: AbstractTwoTimeModel, thetas: Array, at: At) -> Array:
    return jax.vmap(lambda theta: correlation(model, theta, **at))(thetas)


@eqx.filter_jit
def _slopes(model: AbstractTwoTimeModel, theta: Array, at: At) -> Array:
    return jax.jacfwd(lambda theta: correlation(model, theta, **at))(theta)


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


def _field_is_root(case: _Case) -> None:
    if "field" in case.values:
        g1 = case.values["field"]
        case.agree("|field|² = C", np.abs(g1) ** 2 - case.values["plane"])
        least = np.linalg.eigvalsh(g1).min()
        got = f"its least eigenvalue is {least:.1e}"
        case.require("the field's correlation is positive", bool(least >= -_RECOMPUTED), got)


def _knows_only_the_lag(case: _Case, stationary: Mapping[str, float]) -> None:
    theta = jnp.asarray([stationary.get(name, x) for name, x in case.named().items()])
    c = np.asarray(_planes(case.model, theta[None], case.at)[0])
    got = "C changes by {:.1e} from one frame to the next at one lag"
    apart = c[:, 1:, 1:] - c[:, :-1, :-1]
    case.agree("constant rates know only t2 - t1", apart, got, 10 * _RECOMPUTED)


def _lengths_stretch(case: _Case, lengths: Mapping[str, int]) -> None:
    names, model = case.model.names, case.model
    own = {n: getattr(model, n) * 2.0**power for n, power in lengths.items() if n not in names}
    theta = jnp.asarray(case.theta * 2.0 ** np.array([lengths.get(name, 0) for name in names]))
    at = case.at | {"q": case.at["q"] / 2}
    c = np.asarray(_planes(dataclasses.replace(model, **own), theta[None], at)[0])
    got = "C changes by {:.1e} when all lengths are doubled"
    case.agree("stretching all lengths changes nothing", c - case.values["plane"], got)


def _gradient_is_finite_difference(case: _Case) -> None:
    errors = derivative_errors(case.model, case.space, case.theta, **case.at)
    bad = {name: error for name, error in errors.items() if error > _DERIVATIVE}
    got = ", ".join(f"dC/d({name}) is off by {error:.1e}" for name, error in bad.items())
    case.require("gradient = finite differences", not bad, got)


def derivative_errors(
    model: AbstractTwoTimeModel,
    space: ParameterSpace,
    theta: Float[AnyArray, " param"],
    *,
    t: Float[AnyArray, " time"],
    q: Scalar,
    phi: Float[AnyArray, " angle"],
) -> dict[str, float]:
    """Compare the derivatives of C with finite differences.

    Differences are central, or one-sided where a bound is near, over a ladder of steps with
    Richardson extrapolation; the step is chosen by the differences alone.

    Args:
        model: The model.
        space: Its parameters with bounds.
        theta: Where to compare.
        t: Frame times [s].
        q: Wavevector [1/Å].
        phi: Detector angles [degree].

    Returns:
        For each parameter the largest difference between the two, over all pairs, relative
        to the largest derivative or, where that is less, to a change of C by 1 between the
        bounds. NaN where no finite difference settles (a corner, or too steep for any step).
    """
    at = {"t": jnp.asarray(t), "q": jnp.asarray(q, float), "phi": jnp.asarray(phi)}
    theta, lower, upper = (np.asarray(x) for x in (theta, space.lower, space.upper))
    n = len(theta)
    points = _ladder(theta, lower, upper)
    thetas = np.concatenate([theta[None], points.reshape(-1, n)])
    c = np.asarray(_planes(model, jnp.asarray(thetas), at)).reshape(len(thetas), -1)
    index = np.arange(n)
    # The steps as they were rounded when added.
    a, b = np.moveaxis(points[index, :, :, index] - theta[:, None, None], 2, 0)[..., None]
    f0, (fa, fb) = c[0], np.moveaxis(c[1:].reshape(*points.shape[:3], -1), 2, 0)
    # Slope at 0 of the parabola through 0, a and b; then one step of Richardson.
    difference = (b**2 * (fa - f0) - a**2 * (fb - f0)) / (a * b * (b - a))
    better = (64 * difference[:, 1:] - difference[:, :-1]) / 63
    doubt = np.abs(np.diff(better, axis=1)).max(-1)
    best = doubt.argmin(1)
    exact = np.asarray(_slopes(model, jnp.asarray(theta), at)).reshape(-1, n).T
    width = upper - lower
    error = np.abs(better[index, best + 1] - exact).max(-1)
    unit = np.maximum(1.0, np.abs(exact).max(-1) * width)
    settled = (doubt[index, best] * width <= _DERIVATIVE * unit) & (unit < 1 / _STEPS[-1])
    errors = np.where(settled, error * width / unit, np.nan)
    return dict(zip(model.names, errors.tolist(), strict=True))


def _ladder(
    centre: Vector, lower: Vector, upper: Vector
) -> Float[np.ndarray, "param step 2 param"]:
    """Two points per parameter and step, on both sides of the centre or inside of a bound."""
    width = upper - lower
    far = 2 * _STEPS[0] * width
    inward = np.where(centre - lower < far, 1.0, np.where(upper - centre < far, -1.0, 0.0))[:, None]
    factors = np.where(inward == 0, [1.0, -1.0], inward * [1.0, 2.0])
    steps = (_STEPS * width[:, None])[:, :, None] * factors[:, None, :]
    return centre + steps[..., None] * np.eye(len(centre))[:, None, None, :]
