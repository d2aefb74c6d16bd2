"""Hypothesis strategies that stay inside the domain of models."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jaxtyping import Float

from twotime.config.parameter_space import ParameterSpace
from twotime.config.priors import PriorDistribution, PriorType
from twotime.data.dataset import TwoTimeData
from twotime.models.base import AbstractTwoTimeModel, ParameterInfo
from twotime.models.components import Component, Components
from twotime.models.correlation import correlation
from twotime.models.forms import AbstractForm, Constant, Exponential, PowerLaw, Spline
from twotime.models.fractions import ExponentialFractions, Simplex
from twotime.models.laminar_flow import LaminarFlow
from twotime.models.static import StaticDiffusion
from twotime.models.two_component import TwoComponent

Vector = Float[np.ndarray, " _"]


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


def parameters(names: Sequence[str] = ("rate", "size")) -> st.SearchStrategy[ParameterInfo]:
    """Draw what a law says of a parameter: bounds, a default between them, a prior."""

    def one(name: str, low: float, width: float, places: tuple[float, float], log: bool) -> Any:
        low = max(low, 1e-3) if log else low
        at = [low + place * width for place in places]
        return ParameterInfo(
            name, at[0], low, low + width, "Drawn", group="drawn", log_space=log,
            prior_mean=at[1], prior_std=0.5 * width,
        )  # fmt: skip

    unit = st.floats(0.0, 1.0)
    size = st.floats(0.01, 1e4)
    ends = st.floats(-1e3, 1e3), size, st.tuples(unit, unit), st.booleans()
    return st.builds(one, st.sampled_from(names), *ends)


def priors(info: ParameterInfo) -> st.SearchStrategy[PriorDistribution]:
    """Draw a prior that has mass between the bounds of a parameter."""
    low, high = float(info.min_bound), float(info.max_bound)
    numbers = st.floats(low, high), st.floats(0.05, 1.0)

    def normal(loc: float, part: float) -> PriorDistribution:
        return PriorDistribution(PriorType.NORMAL, {"loc": loc, "scale": part * (high - low)})

    def cut(loc: float, part: float) -> PriorDistribution:
        ends = {"low": low, "high": high, "loc": loc, "scale": part * (high - low)}
        return PriorDistribution(PriorType.TRUNCATED_NORMAL, ends)

    uniform = PriorDistribution(PriorType.UNIFORM, {"low": low, "high": high})
    return st.one_of(st.just(uniform), st.builds(normal, *numbers), st.builds(cut, *numbers))


@st.composite
def spaces(draw: Any, law: AbstractTwoTimeModel) -> ParameterSpace:
    """Draw a space of a law: values inside the bounds, flags, some priors."""
    space = ParameterSpace.of(law)
    values = dict(zip(space.names, draw(thetas(space)).tolist(), strict=True))
    flags = draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    vary = dict(zip(space.names, [True, *flags[1:]], strict=True))
    given = {n: draw(priors(space.registry[n])) for n in space.names if draw(st.booleans())}
    return ParameterSpace(values, vary, priors=given, base=space)


@st.composite
def data(draw: Any, law: AbstractTwoTimeModel, noise: float = 0.01) -> TwoTimeData:
    """Draw data of a law: typical parameters, times and angles, with independent noise."""
    space = ParameterSpace.of(law)
    theta, t, phi = draw(thetas(space)), draw(times((9,))), draw(angles((2,)))
    c = np.asarray(correlation(law, theta, t=jnp.asarray(t), q=0.005, phi=jnp.asarray(phi)))
    white = np.random.default_rng(draw(st.integers(0, 999))).normal(size=c.shape)
    white = (white + np.swapaxes(white, 1, 2)) / np.sqrt(2.0)
    c2 = 1.0 + draw(st.floats(0.05, 0.9)) * c + noise * white
    return TwoTimeData(jnp.asarray(c2), jnp.asarray(t), jnp.asarray(0.005), jnp.asarray(phi))


@st.composite
def configs(draw: Any, law: AbstractTwoTimeModel) -> dict[str, Any]:
    """Draw a configuration of a law, whole and valid."""
    config = draw(spaces(law)).to_config(law)
    config.setdefault("analyzer_parameters", {})["scattering"] = {
        "wavevector_q": draw(st.floats(1e-4, 0.5))
    }
    config["analyzer_parameters"]["dt"] = draw(st.floats(1e-3, 10.0))
    return config | {"experimental_data": {"file_path": "data.h5"}}


def forms() -> st.SearchStrategy[AbstractForm]:
    """Draw a form of a rate."""
    kinds = st.sampled_from(("monotone", "cubic")), st.sampled_from(("linear", "log"))
    splines = st.builds(Spline, st.integers(2, 6), *kinds)
    return st.one_of(st.just(PowerLaw()), st.just(Constant()), st.just(Exponential()), splines)


def laws() -> st.SearchStrategy[AbstractTwoTimeModel]:
    """Draw a law: one that is composed of drawn parts."""
    common = {
        "integration": st.sampled_from(("trapezoid", "exact")),
        "stretched": st.booleans(),
        "q_reference": st.sampled_from((None, 0.01)),
    }
    still = st.just(Component("still", None))
    moving = st.builds(Component, st.just("a"), forms(), forms())
    sheared = st.builds(Component, st.just("b"), forms(), st.none(), forms())
    members = st.one_of(*(st.tuples(*x) for x in ((still, moving), (still, moving, sheared))))
    gap = st.sampled_from((2e5, 2e6))
    shares = st.one_of(st.just(ExponentialFractions()), st.builds(Simplex, st.integers(1, 3)))
    return st.one_of(
        st.builds(StaticDiffusion, transport=forms(), **common),
        st.builds(LaminarFlow, gap=gap, transport=forms(), shear=forms(), **common),
        st.builds(
            TwoComponent, reference=forms(), sample=forms(), velocity=forms(), fractions=shares,
            **common,
        ),
        st.builds(Components, members, st.builds(Simplex, st.integers(1, 3)), **common),
    )  # fmt: skip
