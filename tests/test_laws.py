"""Every shipped model, and the one of the docs, through every law; wrong models are named."""

import re
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import twotime as tt
from twotime.config.parameter_registry import REGISTRIES
from twotime.models.base import Terms
from twotime.testing import (
    LawBroken,
    angles,
    check_model,
    derivative_errors,
    laws,
    thetas,
    times,
)
from twotime.testing.derivatives import DERIVATIVE, compare

STATIC = {"stationary": {"alpha": 0.0}, "lengths": {"D0": 2, "D_offset": 2}}
FLOW = {
    "stationary": {"alpha": 0.0, "beta": 0.0},
    "lengths": {"D0": 2, "D_offset": 2, "gap": 1},
}
TWO = {
    "stationary": {"alpha_ref": 0.0, "alpha_sample": 0.0, "beta": 0.0, "f1": 0.0},
    "lengths": {
        "D0_ref": 2, "D_offset_ref": 2, "D0_sample": 2, "D_offset_sample": 2, "v0": 1,
        "v_offset": 1,
    },
}  # fmt: skip
EXACT = {"integration": "exact"}
CASES = [
    (tt.StaticDiffusion(), "static", STATIC, ()),
    (tt.StaticDiffusion(**EXACT), "static", STATIC, pytest.mark.slow),
    (tt.LaminarFlow(gap=2e6), "laminar_flow", FLOW, pytest.mark.long),
    (tt.LaminarFlow(gap=2e6, **EXACT), "laminar_flow", FLOW, pytest.mark.long),
    (tt.LaminarFlow(gap=2e6, shear_convention="homodyne"), "laminar_flow", FLOW, pytest.mark.long),
    (tt.TwoComponent(), "two_component", TWO, ()),
    (tt.TwoComponent(**EXACT), "two_component", TWO, pytest.mark.long),
]
MODELS = [pytest.param(*case, marks=mark, id=repr(case[0])) for *case, mark in CASES]


@pytest.mark.parametrize(("model", "mode", "knowledge"), MODELS)
def test_shipped_models_keep_every_law(model, mode, knowledge):
    check_model(model, REGISTRIES[mode], **knowledge)


# Gradients


def draw(space, rng):
    """A point of the box: anywhere, near the start, or close to it; often on a bound."""
    lower, upper, initial, scale = (
        np.asarray(x) for x in (space.lower, space.upper, space.initial, space.scale)
    )
    spread = rng.choice([0.0, 1.0, 0.03])
    if spread == 0:
        is_log = np.asarray(space.log_space)
        low, high = (np.log(np.where(is_log, x, 1.0)) for x in (lower, upper))
        theta = np.where(is_log, np.exp(rng.uniform(low, high)), rng.uniform(lower, upper))
    else:
        theta = np.clip(initial + spread * scale * rng.uniform(-1, 1, len(lower)), lower, upper)
    if rng.uniform() < 0.5:
        k = rng.integers(len(lower))
        theta[k] = (lower, upper)[rng.integers(2)][k]
    return theta


@pytest.mark.parametrize(("model", "mode", "knowledge"), MODELS)
def test_gradients_at_200_points_with_bounds(model, mode, knowledge):
    del knowledge
    space = tt.ParameterSpace.from_registry(model.names, REGISTRIES[mode])
    rng = np.random.default_rng(7)
    errors = []
    for k in range(200):
        theta, q, dt = draw(space, rng), (0.003, 0.02)[k % 2], (0.0125, 0.3)[k // 2 % 2]
        phi, t = np.array([5.0, rng.uniform(-180, 180)]), dt * np.arange(1, 8)
        errors.append(list(derivative_errors(model, space, theta, t=t, q=q, phi=phi).values()))
    errors = np.array(errors)
    worst = np.nanmax(errors, axis=0)
    print(model, {name: f"{e:.0e}" for name, e in zip(model.names, worst, strict=True)})
    assert worst.max() < 1e-6
    assert np.isnan(errors).mean(axis=0).max() <= 0.02  # too steep or a corner for any step


# The strategies


@settings(max_examples=100)
@given(st.data())
def test_strategies_stay_inside_the_domain(data):
    space = tt.ParameterSpace.from_registry(tt.TwoComponent().names, REGISTRIES["two_component"])
    theta = data.draw(thetas(space))
    assert theta.shape == (14,)
    assert (theta >= space.lower).all() and (theta <= space.upper).all()
    t = data.draw(times())
    assert t[0] > 0 and (np.diff(t) > 0).all() and len(t) in (2, 9)
    phi = data.draw(angles((1, 3)))
    assert len(phi) in (1, 3) and (phi > -180).all() and (phi <= 180).all()


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # what checks types does
def test_laws_of_every_kind_are_drawn():
    drawn = set()

    @settings(max_examples=40, derandomize=True, database=None)
    @given(laws())
    def each(law):
        drawn.add(type(law))
        assert tt.ParameterSpace.of(law).names == law.names

    each()
    assert drawn == {tt.StaticDiffusion, tt.LaminarFlow, tt.TwoComponent, tt.Components}


# The model of the docs


@pytest.fixture(scope="module")
def docs():
    """The names that the blocks of docs/models.md define, up to the registry of its own model."""
    text = (Path(__file__).parents[1] / "docs" / "models.md").read_text("utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/models.md", "exec"), names)
        if "registry" in names:
            return names
    raise AssertionError("docs/models.md defines no registry")


def test_model_of_the_docs_keeps_every_law(docs):
    check_model(docs["StretchedAgeing"](), docs["registry"], stationary={"mu": 0.0})
    source = re.search(
        r"^class StretchedAgeing.*?(?=```)",
        (Path(__file__).parents[1] / "docs" / "models.md").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert len(source.group().strip().splitlines()) <= 30


@pytest.mark.slow
def test_model_of_the_docs_is_fitted(docs):
    model, truth = docs["StretchedAgeing"](), {"tau": 4.0, "mu": 0.8, "stretch": 0.7}
    data = tt.simulate_speckle(
        model, jnp.asarray(list(truth.values())), t=0.1 * jnp.arange(1, 61), q=0.003,
        phi=jnp.zeros(1), contrast=0.5, n_pixels=20_000, key=jax.random.key(1),
    )  # fmt: skip
    fit = tt.fit_nlsq(model, data, docs["space"])
    assert fit.converged
    for name, value in truth.items():
        error = float(fit.uncertainties[name])
        assert 0 < error < 0.15 * value
        assert float(fit.params[name]) == pytest.approx(value, abs=4 * error)


# Wrong models


class Decay(tt.AbstractTwoTimeModel):
    """exp(-rate · lag), right; each wrong model below differs from it in one thing."""

    names: tuple[str, ...] = ("rate",)

    def clock(self, rate, times):
        return rate * times

    def value(self, pair):
        return pair.decay[0]

    def channels(self, params, times, *, t, q, phi):
        none = jnp.zeros((0, times.shape[0]), times.dtype)
        return tt.Channels(self.clock(params[0], times)[None], none, none)

    def correlation(self, pair):
        return self.value(pair)


class NotOne(Decay):
    def value(self, pair):
        return 0.9 * pair.decay[0]


class TooLarge(Decay):
    def value(self, pair):
        return 2.0 - pair.decay[0]


class NotFinite(Decay):
    def value(self, pair):
        return jnp.exp(-jnp.sqrt(-jnp.log(pair.decay[0])))


class WrongGradient(Decay):
    def clock(self, rate, times):
        return (0.5 * rate + 0.5 * jax.lax.stop_gradient(rate)) * times


class NotCompiled(Decay):
    def clock(self, rate, times):
        return rate * times if rate > 0 else 0 * times


class ByIndex(Decay):
    def clock(self, rate, times):
        return rate * jnp.arange(1.0, 1 + times.shape[0])


class ByShape(Decay):
    """Another law for the plane than for pairs of times."""

    def value(self, pair):
        return pair.decay[0] ** (0.9 + 0.1 * pair.decay.ndim)


class WrongTerms(Decay):
    @property
    def is_separable(self):
        return True

    def terms(self, channels):
        decay = 2 * channels.decay
        return Terms(jnp.ones_like(decay), decay, 0 * decay, oscillates=(False,))


class WrongField(Decay):
    def field(self, pair):
        return pair.decay[0]


class NotPositive(Decay):
    def field(self, pair):
        return -jnp.sqrt(pair.decay[0]) * jnp.where(pair.decay[0] < 1, 1.0, -1.0)


class Ageing(Decay):
    def clock(self, rate, times):
        return rate * times**2


class NotScaled(Decay):
    gap: float = 3.0

    def clock(self, rate, times):
        return rate * times * self.gap


class Backwards(Decay):
    """A decay clock that runs backwards: pairs see no decay, silently."""

    def clock(self, rate, times):
        return -rate * times


class OnItsTimes(Decay):
    """A clock integrated on the times where it is read, instead of the frames."""

    def clock(self, rate, times):
        speed = rate * jnp.exp(times)
        return jnp.append(0.0, jnp.cumsum(0.5 * jnp.diff(times) * (speed[1:] + speed[:-1])))


class NanInACorner(Decay):
    def clock(self, rate, times):
        return jnp.where(rate < 10.0, rate, jnp.nan) * times


class Jumps(Decay):
    """A parameter that is rounded."""

    def clock(self, rate, times):
        return jnp.floor(rate) * times


class Separable(Decay):
    @property
    def is_separable(self):
        return True

    def terms(self, channels):
        return Terms(
            jnp.ones_like(channels.decay), self.fall(channels), self.turn(channels), (False,)
        )

    def fall(self, channels):
        return channels.decay

    def turn(self, channels):
        return 0 * channels.decay


class StoppedTerms(Separable):
    """Terms without derivatives: a fit by them stays at its start."""

    def fall(self, channels):
        return jax.lax.stop_gradient(channels.decay)


class SilentPhase(Separable):
    """Terms that say no phase but have one."""

    def turn(self, channels):
        return channels.decay


class WrongRank(Decay):
    def channels(self, params, times, *, t, q, phi):
        none = jnp.zeros((0, times.shape[0]), times.dtype)
        decay = (params[0] * times)[None]
        return types.SimpleNamespace(decay=decay[:, 1:], phase=none, level=none)


class Raises(Decay):
    def channels(self, params, times, *, t, q, phi):
        return params[3:].at[()].set(self.nothing)


class ListOfNames(tt.AbstractTwoTimeModel):
    names = ["rate"]  # noqa: RUF012, what is wrong with it

    def channels(self, params, times, *, t, q, phi):
        raise NotImplementedError

    def correlation(self, pair):
        raise NotImplementedError


RATE = REGISTRIES["static"].extended(tt.ParameterInfo("rate", 1.0, 0.1, 10.0, "Rate", "1/s"))


def test_the_right_one_of_the_wrong_models_passes():
    check_model(Decay(), RATE, stationary={}, lengths={})


@pytest.mark.parametrize(
    ("model", "law", "knowledge"),
    [
        (NotOne(), "1 at equal times", {}),
        (TooLarge(), "0 <= C <= 1", {}),
        (NotFinite(), "finite gradients", {}),
        (WrongGradient(), "gradient = finite differences", {}),
        (NotCompiled(), "jit = eager", {}),
        (ByIndex(), "clocks are the same wherever they are read", {}),
        (ByShape(), "pairs = plane", {}),
        (WrongTerms(), "terms = correlation", {}),
        (OnItsTimes(), "clocks are the same wherever they are read", {}),
        (Jumps(), "continuous in each parameter", {"examples": 1}),
        (SilentPhase(), "terms say which of them oscillate", {}),
        (WrongRank(), "channels are rows, a number for each time", {}),
        (Raises(), "channels are rows, a number for each time", {}),
        (WrongField(), "|field|² = C", {}),
        (NotPositive(), "the field's correlation is positive", {}),
        (Ageing(), "constant rates know only t2 - t1", {"stationary": {}}),
        (NotScaled(), "stretching all lengths changes nothing", {"lengths": {"gap": 1}}),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Decay) else None,
)
def test_a_wrong_model_is_told_which_law_it_breaks(model, law, knowledge):
    with pytest.raises(LawBroken) as caught:
        check_model(model, RATE, **knowledge)
    sentence = str(caught.value)
    assert sentence.startswith(f"{type(model).__name__} breaks the law '{law}': ")
    assert sentence.endswith(".") and "rate = " in sentence


def test_names_that_are_no_tuple_are_told():
    with pytest.raises(LawBroken, match="'names are a tuple of words': names is"):
        check_model(ListOfNames(), RATE)


def test_laws_say_their_parameters_themselves():
    with pytest.raises(TypeError, match="has names but no `parameters`"):
        check_model(Decay())


def test_rounding_of_a_stretched_decay_is_no_broken_law():
    """Differences of large clocks, raised to a small power."""
    law = tt.StaticDiffusion(stretched=True, integration="exact")
    space = tt.ParameterSpace.of(law)
    theta = np.array([100.0, -2.0, -1e5, 0.1])
    at = {"t": 0.3 * jnp.arange(1.0, 8.0), "q": jnp.asarray(0.02), "phi": jnp.zeros(2)}
    error, rounding = compare(law, space, theta, at)
    assert np.all(~(error > DERIVATIVE + rounding))
    assert rounding.max() > DERIVATIVE  # which no fixed tolerance would allow


def test_differences_over_many_turns_of_a_fast_shear_are_no_broken_law():
    spline = tt.Spline(knots=2)
    law = tt.LaminarFlow(gap=2e6, transport=spline, shear=spline, stretched=True)
    space = tt.ParameterSpace.of(law)
    # C is 3e-13 between the first frames and turns a million times faster than its parameter.
    theta = np.array([-9.39483, -15.0, 8.16656, 15.0, -10.0, 0.1])
    t, phi = 0.0125 * np.arange(1, 8), np.array([0.0, 1.0])
    errors = derivative_errors(law, space, theta, t=t, q=0.003, phi=phi)
    assert np.isnan(errors["log_gamma_dot"])  # 4e-5 where the largest step was believed
    assert max(x for x in errors.values() if not np.isnan(x)) < 1e-6


def test_space_of_another_model_and_float32_are_refused():
    space = tt.ParameterSpace.from_registry(("D0", "alpha", "D_offset"), REGISTRIES["static"])
    with pytest.raises(ValueError, match="has the parameters D0, .* Decay needs rate"):
        check_model(Decay(), space)
    with jax.enable_x64(False), pytest.raises(ValueError, match="turn on float64"):
        check_model(Decay(), RATE)
