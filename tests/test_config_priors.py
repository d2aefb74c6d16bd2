"""The seven priors: density, moments, derivatives, and what is wrong with their numbers."""

import importlib.util
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats as st
from hypothesis import given
from hypothesis import strategies as hs

from twotime.config.parameter_registry import REGISTRIES
from twotime.config.parameter_space import ParameterSpace
from twotime.config.priors import FAMILIES, PriorDistribution, PriorType, has_mass, prior_faults

P = PriorDistribution
PRIORS = {
    "uniform": (P.uniform(-2.0, 5.0), st.uniform(-2, 7)),
    "normal": (P.normal(1.5, 0.3), st.norm(1.5, 0.3)),
    "truncated_normal": (
        P.truncated_normal(1.0, 2.0, 0.0, 10.0),
        st.truncnorm(-0.5, 4.5, 1, 2),
    ),
    "truncated_normal at its bound": (
        P.truncated_normal(0.0, 0.5, 0.0, 1.0),
        st.truncnorm(0, 2, 0, 0.5),
    ),
    "truncated_normal in its tail": (
        P.truncated_normal(0.0, 1.0, 4.0, 9.0),
        st.truncnorm(4, 9, 0, 1),
    ),
    "lognormal": (P.lognormal(0.5, 0.8), st.lognorm(0.8, scale=np.exp(0.5))),
    "halfnormal": (P.halfnormal(3.0), st.halfnorm(scale=3)),
    "exponential": (P.exponential(0.25), st.expon(scale=4)),
    "beta_scaled": (P.beta_scaled(-1.0, 3.0, 2.5, 1.5), st.beta(2.5, 1.5, -1, 4)),
    "beta_scaled, narrow": (P.beta_scaled(0.0, 2.0, 12.0, 9.0), st.beta(12, 9, 0, 2)),
    "beta_scaled, steep": (P.beta_scaled(0.0, 1.0, 0.9, 40.0), st.beta(0.9, 40)),
}
each = pytest.mark.parametrize("name", PRIORS)


def points(reference, n=101):
    """Quantiles from one tail to the other."""
    return reference.ppf(np.linspace(1e-6, 1 - 1e-6, n))


@each
def test_log_prob_equals_scipy(name):
    prior, reference = PRIORS[name]
    x = points(reference)
    np.testing.assert_allclose(prior.log_prob(x), reference.logpdf(x), rtol=1e-10, atol=1e-10)


@each
def test_integrates_to_one(name):
    prior, reference = PRIORS[name]
    x = np.unique(
        np.concatenate([points(reference, 41), np.clip(prior.support, *_ends(reference))])
    )
    density = jax.jit(lambda x: jnp.exp(prior.log_prob(x)))
    nodes, weights = np.polynomial.legendre.leggauss(40)
    halves, centres = np.diff(x) / 2, (x[1:] + x[:-1]) / 2
    grid = centres[:, None] + halves[:, None] * nodes
    total = float(np.sum(halves[:, None] * weights * np.asarray(density(grid))))
    assert total == pytest.approx(1, abs=3e-6 if "steep" not in name else 2e-4)


def _ends(reference):
    return reference.ppf([1e-12, 1 - 1e-12])


def test_integrates_to_one_by_adaptive_quadrature():
    prior = P.truncated_normal(1e4, 1e4, 100.0, 1e6)
    total, _ = scipy.integrate.quad(lambda x: float(jnp.exp(prior.log_prob(x))), 100, 2e5)
    assert total == pytest.approx(1, abs=1e-7)


@each
def test_moments(name):
    prior, reference = PRIORS[name]
    assert float(prior.mean) == pytest.approx(reference.mean(), rel=1e-10)
    assert float(prior.std) == pytest.approx(reference.std(), rel=1e-8)


@each
def test_gradients_are_finite_at_and_near_bounds(name):
    prior, reference = PRIORS[name]
    low, high = prior.support
    inside = [float(x) for x in points(reference, 5)]
    ends = [e for e in (low, high) if np.isfinite(e)]
    near = [float(np.nextafter(e, inside[2])) for e in ends]
    for x in [*inside, *ends, *near]:
        value, slope = jax.value_and_grad(prior.log_prob)(x)
        assert np.isfinite(value) and np.isfinite(slope), x


@jax.jit
def slopes_of(prior, x):
    """Derivatives of all that a prior says, by its numbers."""

    def all_of_it(p):
        return jnp.stack([p.log_prob(x), p.mean, p.std])

    return jax.jacrev(all_of_it)(prior).numbers


@each
def test_gradients_by_the_numbers_are_finite(name):
    prior, _ = PRIORS[name]
    slopes = slopes_of(prior, float(prior.mean))
    assert slopes.shape == (3, len(prior.params)) and np.isfinite(slopes).all()


@each
def test_outside_the_support(name):
    prior, _ = PRIORS[name]
    low, high = prior.support
    for end, step in ((low, -1.0), (high, 1.0)):
        if np.isfinite(end):
            assert prior.log_prob(end + step) == -np.inf
            assert jax.grad(prior.log_prob)(end + step) == 0


@each
def test_tree_of_numbers(name):
    prior, _ = PRIORS[name]
    copy = P(prior.prior_type, prior.params)
    assert jax.tree.structure(copy) == jax.tree.structure(prior)
    np.testing.assert_array_equal(copy.numbers, prior.numbers)
    assert isinstance(prior.numbers, np.ndarray) and prior.numbers.dtype == np.float64
    twice = jax.tree.map(lambda *x: jnp.stack(x), prior, copy)
    np.testing.assert_allclose(jax.vmap(lambda p: p.mean)(twice), [prior.mean] * 2)
    calls = []
    log_prob = jax.jit(lambda p, x: (calls.append(1), p.log_prob(x))[1])
    log_prob(prior, 1.0)
    log_prob(jax.tree.map(lambda n: n * 1.01, prior), 1.0)
    assert len(calls) == 1


@pytest.mark.parametrize("mode", REGISTRIES)
def test_beta_keeps_mean_and_std_of_every_default(mode):
    space = ParameterSpace(registry=REGISTRIES[mode])
    beta = space.convert_to_beta_priors()
    for name, prior in space.priors.items():
        params = prior.params
        a, b = ((params[end] - params["loc"]) / params["scale"] for end in ("low", "high"))
        reference = st.truncnorm(a, b, params["loc"], params["scale"])
        converted = beta.priors[name]
        assert converted.prior_type is PriorType.BETA_SCALED
        assert converted.support == space.bounds[name]
        assert float(converted.mean) == pytest.approx(reference.mean(), rel=1e-6, abs=1e-9), name
        assert float(converted.std) == pytest.approx(reference.std(), rel=1e-6), name


@given(
    loc=hs.floats(-3, 4), scale=hs.floats(0.1, 10), low=hs.floats(-1, 0), width=hs.floats(0.5, 2)
)
def test_beta_conversion_anywhere(loc, scale, low, width):
    prior = P.truncated_normal(loc, scale, low, low + width)
    beta = prior.as_beta()
    assert float(beta.mean) == pytest.approx(float(prior.mean), rel=1e-6, abs=1e-9)
    assert float(beta.std) == pytest.approx(float(prior.std), rel=1e-6)


def test_only_an_interval_becomes_beta():
    with pytest.raises(TypeError, match="needs an interval; got normal"):
        P.normal(0.0, 1.0).as_beta()
    assert P.uniform(0.0, 1.0).as_beta().params["concentration1"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "params", "words"),
    [
        ("normal", {"loc": 0}, "needs 'scale'"),
        ("normal", {"loc": 0, "scal": 1}, "did you mean 'scale'"),
        ("normal", {"loc": 0, "scale": 0}, "needs scale > 0; got 0"),
        ("normal", {"loc": np.nan, "scale": 1}, "finite loc"),
        ("uniform", {"low": 2, "high": 1}, "low < high; got 2 and 1"),
        ("exponential", {"rate": -1}, "rate > 0"),
        ("beta_scaled", {"low": 0, "high": 1, "concentration1": 0, "concentration2": 1}, "> 0"),
        ("uniform", {}, "needs 'low'"),
    ],
)
def test_wrong_numbers_are_refused(kind, params, words):
    with pytest.raises(ValueError, match=words):
        P(kind, params)
    assert prior_faults(PriorType(kind), params)


@pytest.mark.parametrize(
    ("prior", "low", "high", "expected"),
    [
        (P.normal(0.0, 1.0), 5.0, 9.0, True),
        (P.normal(0.0, 1.0), 50.0, 90.0, False),
        (P.truncated_normal(0.0, 1.0, 0.0, 1.0), 2.0, 3.0, False),
        (P.uniform(0.0, 1.0), 0.5, 9.0, True),
        (P.uniform(0.0, 1.0), 1.0, 9.0, False),
        (P.halfnormal(1.0), -5.0, -1.0, False),
        (P.halfnormal(1.0), 40.0, 50.0, False),
        (P.exponential(1.0), 10.0, 20.0, True),
        (P.exponential(1.0), 1000.0, 2000.0, False),
        (P.lognormal(0.0, 1.0), 1e3, 1e4, True),
        (P.lognormal(0.0, 0.1), 1e3, 1e4, False),
        (P.beta_scaled(0.0, 1.0, 2.0, 2.0), -1.0, 0.5, True),
    ],
)
def test_mass_in_an_interval(prior, low, high, expected):
    assert has_mass(prior, low, high) is expected


def test_numpyro_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="'v0' cannot become .* pip install numpyro"):
        P.normal(0.0, 1.0).to_numpyro("v0")


@each
def test_numpyro_where_it_is_there(name, monkeypatch):
    """The right class gets the right numbers; the classes themselves are not needed."""
    made = {}

    def maker(kind):
        return lambda *args, **kwargs: made.setdefault(kind, (args, kwargs))

    names = "Uniform Normal TruncatedNormal LogNormal HalfNormal Exponential Beta".split()
    module = types.SimpleNamespace(
        **{kind: maker(kind) for kind in names},
        TransformedDistribution=maker("TransformedDistribution"),
        transforms=types.SimpleNamespace(AffineTransform=maker("AffineTransform")),
        constraints=types.SimpleNamespace(unit_interval="unit interval"),
    )
    monkeypatch.setitem(sys.modules, "numpyro.distributions", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    prior, _ = PRIORS[name]
    prior.to_numpyro("v0")
    kind = prior.prior_type.value
    if kind == "beta_scaled":
        assert made["Beta"][0] == (prior.params["concentration1"], prior.params["concentration2"])
        low, width = prior.support[0], _width(prior)
        want = {"loc": low, "scale": width, "domain": "unit interval"}
        assert made["AffineTransform"][1] == want
    else:
        (key,) = made
        assert key.lower() == kind.replace("_", "") and made[key][1] == prior.params


def _width(prior):
    return prior.support[1] - prior.support[0]


@pytest.mark.skipif(importlib.util.find_spec("numpyro") is None, reason="needs numpyro")
@each
def test_numpyro_has_the_same_density(name):
    prior, reference = PRIORS[name]
    x = points(reference)
    ours, theirs = prior.log_prob(x), prior.to_numpyro("x").log_prob(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_every_family_has_a_constructor():
    assert set(FAMILIES) == set(PriorType)
    for kind in PriorType:
        assert callable(getattr(P, kind.value))


def test_float32_values_stay_float32():
    prior = P.truncated_normal(0.0, 1.0, -1.0, 2.0)
    x = jnp.float32(0.5)
    assert prior.log_prob(x).dtype == jnp.float32
    assert float(prior.log_prob(x)) == pytest.approx(float(prior.log_prob(0.5)), rel=1e-5)
