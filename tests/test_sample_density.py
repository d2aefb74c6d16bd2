"""Log densities: exact gradients, the same from planes and lists, integrals in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import static_case

import twotime as tt
from twotime.gram import choose_evaluator
from twotime.models.scaling import Fourier, Frozen, Individual
from twotime.sample.coordinates import (
    choose_scaling,
    leans,
    normal_prior,
    parameter_coordinates,
)
from twotime.sample.density import NOISES, make_posterior
from twotime.sample.shards import listed

FRAMES = 16


def posterior(scaling="marginal", noise="sampled", space=None, **kwargs):
    model, data, usual = static_case(FRAMES, noise=0.03, **kwargs)
    plain, evaluator = choose_evaluator(model, data, "auto")
    return make_posterior(
        model, plain, space or usual, Individual(), evaluator, scaling=scaling, noise=NOISES[noise]
    )


def position(p, seed=0):
    n, m, k = p.sizes
    rng = np.random.default_rng(seed)
    z = np.array([0.3, 0.1]) + 0.05 * rng.normal(size=2)
    scaling = np.concatenate([np.full(m // 2, -0.8), np.zeros(m - m // 2)])
    return jnp.asarray(np.concatenate([z, scaling, np.full(k, -3.4)]))


@pytest.mark.parametrize(
    ("scaling", "noise"),
    [("marginal", "sampled"), ("sampled", "sampled"), ("sampled", "marginal")],
)
def test_gradients_are_those_of_differences_and_of_lists_of_points(scaling, noise):
    p = posterior(scaling, noise)
    density = eqx.filter_jit(lambda p, v: jax.value_and_grad(p.log_density)(v))
    v = position(p)
    value, slope = density(p, v)
    step = 1e-5
    ends = [[float(density(p, v.at[i].add(s * step))[0]) for s in (1, -1)] for i in range(len(v))]
    expected = np.array([(high - low) / (2 * step) for high, low in ends])
    assert np.allclose(slope, expected, rtol=1e-6, atol=1e-3)
    other, other_slope = density(listed(p), v)
    assert float(other) == pytest.approx(float(value), rel=1e-12)
    assert np.allclose(other_slope, slope, rtol=1e-8, atol=1e-8)


def test_contrast_and_offset_are_integrated_exactly():
    """The closed form against a sum over a grid of contrasts and offsets."""
    marginal = posterior("marginal")
    model, data, _ = static_case(FRAMES, noise=0.03)
    log_noise, scale = -3.4, np.array([1.0, 1.0])  # no prior: as wide as the bounds
    c, o = np.meshgrid(np.linspace(0.1, 0.9, 1601), np.linspace(0.4, 1.3, 1801), indexing="ij")
    i, j = np.triu_indices(FRAMES, 1)
    points = np.asarray(data.c2[0])[i, j]

    def by_hand(z):
        params = jnp.append(marginal.coordinates.to_values(z), 0.0)
        m = np.asarray(tt.correlation(model, params, t=data.t, q=data.q, phi=data.phi))[0, i, j]
        chi2 = points @ points - 2 * c * (points @ m) - 2 * o * points.sum() + c**2 * (m @ m)
        chi2 += 2 * c * o * m.sum() + o**2 * len(points)
        log = -0.5 * chi2 * np.exp(-2 * log_noise)
        log -= 0.5 * ((c - 0.5) / scale[0]) ** 2 + 0.5 * ((o - 1.0) / scale[1]) ** 2
        return np.log(np.sum(np.exp(log - log.max()))) + log.max()

    places = [jnp.asarray([0.3, 0.1]), jnp.asarray([0.42, 0.02])]
    found = [float(marginal.log_density(jnp.append(z, log_noise))) for z in places]
    prior = [float(marginal.coordinates.log_prior(z)) for z in places]
    assert (found[0] - prior[0]) - (found[1] - prior[1]) == pytest.approx(
        by_hand(places[0]) - by_hand(places[1]), abs=1e-6
    )


def test_the_noise_is_integrated_exactly():
    """The closed form against a sum over a grid of noise levels, prior 1/noise."""
    marginal, sampled = posterior("sampled", "marginal"), posterior("sampled", "sampled")
    log_noise = jnp.linspace(-4.5, -2.0, 4001)

    def by_hand(v):
        each = jax.vmap(lambda x: sampled.log_density(jnp.append(v, x)))(log_noise)
        return jax.scipy.special.logsumexp(each)

    places = [position(marginal, seed) for seed in (0, 1)]
    found = [float(marginal.log_density(v)) for v in places]
    expected = [float(by_hand(v)) for v in places]
    assert found[0] - found[1] == pytest.approx(expected[0] - expected[1], rel=1e-6)


def test_a_noise_integrated_out_needs_no_free_contrast():
    """With contrast and offset known, chi-squared alone determines the noise."""
    _, _, space = static_case()
    known = space.with_values({"contrast": 0.3, "offset": 1.0})
    known = known.with_vary({"contrast": False, "offset": False})
    p = posterior("marginal", "marginal", space=known)
    places = [position(p, seed) for seed in (0, 1)]
    assert p.sizes == (2, 0, 0)
    chi2 = [float(p.system(v).chi2(jnp.zeros(0))) for v in places]
    prior = [float(p.coordinates.log_prior(v)) for v in places]
    found = [float(p.log_density(v)) for v in places]
    half = 0.5 * FRAMES * (FRAMES - 1) / 2
    expected = prior[0] - prior[1] - half * np.log(chi2[0] / chi2[1])
    assert found[0] - found[1] == pytest.approx(expected, rel=1e-9)
    log_noise = float(p.complete(places[0], jax.random.key(0))[-1])
    assert log_noise == pytest.approx(0.5 * np.log(chi2[0] / (2 * half)), abs=0.3)


def test_what_was_integrated_out_is_drawn_from_its_conditional():
    p = posterior("marginal")
    v = position(p)
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = np.asarray(jax.vmap(lambda k: p.complete(v, k))(keys))
    assert np.all(draws[:, :2] == np.asarray(v[:2])) and np.all(draws[:, -1] == float(v[2]))
    system = p.system(v[:2])
    precision = np.asarray(system.normal) * np.exp(6.8) + np.diag(np.asarray(p.scaling.precision))
    covariance = np.linalg.inv(precision)
    assert np.allclose(np.cov(draws[:, 2:4].T), covariance, rtol=0.1, atol=1e-8)


def test_noise_integrated_out_is_drawn_from_its_conditional():
    p = posterior("sampled", "marginal")
    v = position(p)
    keys = jax.random.split(jax.random.key(0), 4000)
    log_noise = np.asarray(jax.vmap(lambda k: p.complete(v, k))(keys))[:, -1]
    chi2 = float(p.system(v[:2]).chi2(p.scaling.values(v[2:])))
    count = float(p.source.n_points)
    assert np.exp(-2 * log_noise).mean() == pytest.approx(count / chi2, rel=0.01)
    assert log_noise.std() == pytest.approx((2 * count) ** -0.5, rel=0.05)


def test_powers_of_prior_and_likelihood_multiply_to_the_posterior():
    p = posterior("sampled", "sampled")
    v = position(p)
    parts = eqx.tree_at(lambda q: (q.share, q.power), p, (jnp.asarray(0.25), jnp.asarray(0.25)))
    assert float(4 * parts.log_density(v)) == pytest.approx(float(p.log_density(v)), rel=1e-12)
    prior = p.coordinates.log_prior(v[:2]) + p.scaling.sampled.log_prior(v[2:4])
    part = eqx.tree_at(lambda q: q.share, p, jnp.asarray(0.25))
    assert float(p.log_density(v) - part.log_density(v)) == pytest.approx(float(0.75 * prior))


def test_known_sigma_fixes_the_noise():
    p = posterior("marginal", sigma=0.03)
    assert p.noise.word == "known" and p.sizes == (2, 0, 0)
    assert p.complete(position(p), jax.random.key(0)).shape == (4,)


def test_coordinates_go_there_and_back_and_carry_the_prior():
    space = static_case()[2]
    coordinates = parameter_coordinates(space)
    values = jnp.asarray([2e4, -1.2])
    z = coordinates.from_values(values)
    assert np.allclose(coordinates.to_values(z), values, rtol=1e-12)
    slope = jax.jacfwd(coordinates.to_values)(z)
    assert np.allclose(np.diag(slope), coordinates.slope(z))
    space = space.with_priors({"alpha": tt.PriorDistribution.normal(0.0, 0.5)})
    coordinates = parameter_coordinates(space)
    prior = sum(
        float(space.priors[n].log_prob(x)) for n, x in zip(("D0", "alpha"), values, strict=True)
    )
    expected = prior + float(jnp.log(jnp.diag(slope)).sum())
    assert float(coordinates.log_prior(z)) == pytest.approx(expected, rel=1e-12)
    assert np.isfinite(np.asarray(coordinates.from_values(np.array([100.0, 2.0])))).all()


def test_priors_decide_how_contrast_and_offset_are_treated():
    space = static_case()[2]

    def chosen(space, mode=Individual(), asked="auto", near=False):  # noqa: B008
        return choose_scaling(space, mode, asked, leans=near)

    assert chosen(space) == "marginal" and chosen(space, near=True) == "sampled"
    flat = space.with_priors({"contrast": tt.PriorDistribution.uniform(0.0, 1.0)})
    assert chosen(flat) == "sampled" and chosen(flat, Frozen()) == "marginal"
    with pytest.raises(ValueError, match="contrast has a uniform prior"):
        chosen(flat, asked="marginal")
    with pytest.raises(ValueError, match="fourier"):
        chosen(space, Fourier(), "sampled")
    with pytest.raises(ValueError, match="expected 'auto'"):
        chosen(space, asked="some")
    with pytest.raises(ValueError, match="no closed form"):
        posterior("marginal", "marginal")


def test_bounds_count_where_contrast_or_offset_may_reach_them():
    """Five deviations of data and prior together, within bounds and the prior's support."""
    space = static_case()[2]

    def near(contrast, sd, space=space):
        return leans(space, ("contrast",), np.array([contrast]), np.array([sd]))

    assert not near(0.3, 0.05) and near(0.3, 0.07) and near(0.97, 0.01) and near(0.3, np.inf)
    tight = space.with_priors({"contrast": tt.PriorDistribution.normal(0.3, 0.05)})
    assert not near(0.3, 0.07, tight)
    cut = space.with_priors({"contrast": tt.PriorDistribution.truncated_normal(0.3, 1, 0.28, 1)})
    assert near(0.3, 0.01, cut) and not near(0.4, 0.01, cut)


def test_parameters_without_a_prior_are_uniform_between_their_bounds():
    """In the logarithm for an amplitude: the density of log D0 and of alpha is flat."""
    space = tt.ParameterSpace(registry=tt.REGISTRIES["static"]).with_vary({"D_offset": False})
    coordinates = parameter_coordinates(space)
    assert coordinates.priors == (None, None)
    z = jnp.asarray([[-2.0, 0.3], [0.4, 3.0]])
    values = jax.vmap(coordinates.to_values)(z)
    by_s = [jnp.log(jnp.diag(jax.jacfwd(coordinates.to_logarithms)(x))).sum() for x in z]
    found = [coordinates.log_prior(x) for x in z]
    assert float(found[0] - found[1]) == pytest.approx(float(by_s[0] - by_s[1]), rel=1e-12)
    assert np.all((values[:, 0] > 100) & (values[:, 0] < 1e5))
    given = space.with_priors({"alpha": tt.PriorDistribution.normal(0.0, 0.1)})
    assert parameter_coordinates(given).priors[0] is None


def test_contrast_without_a_prior_is_integrated_as_wide_as_its_bounds():
    space = static_case()[2].with_bounds({"contrast": (0.1, 0.5)})
    assert normal_prior(space, "contrast") == (pytest.approx(0.3), pytest.approx(0.4))
    given = space.with_priors({"contrast": tt.PriorDistribution.normal(0.2, 0.01)})
    assert normal_prior(given, "contrast") == (0.2, 0.01)
