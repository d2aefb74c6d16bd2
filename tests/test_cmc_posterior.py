"""Log densities: exact gradients, the same from planes and lists, integrals in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.gram.choose import choose_evaluator
from twotime.sample.coordinates import parameter_coordinates
from twotime.sample.shards import listed
from twotime.sample.target import choose_scaling, make_posterior

FRAMES = 24


def static_case(sigma=None, phi=(0.0,)):
    t = jnp.arange(1, FRAMES + 1) * 0.1
    model, values = tt.StaticDiffusion(), {"D0": 1e4, "alpha": -0.3, "D_offset": 0.0}
    data = tt.simulate(
        model, jnp.asarray(list(values.values())), t=t, q=0.01, phi=jnp.asarray(phi),
        contrast=0.3, offset=1.0, noise=0.03, key=jax.random.key(1),
    )  # fmt: skip
    if sigma is not None:
        data = tt.TwoTimeData(data.c2, t, data.q, data.phi, sigma=sigma)
    space = tt.ParameterSpace.from_config({"analysis_mode": "static"}).with_values(values)
    return model, data, space.with_vary({"D_offset": False})


def posterior(scaling="marginal", noise="sampled", mode="individual", **kwargs):
    model, data, space = static_case(**kwargs)
    plain, evaluator = choose_evaluator(model, data, "auto")
    return make_posterior(model, plain, space, mode, evaluator, scaling=scaling, noise=noise)


def position(p, seed=0):
    n, m, k = p.sizes
    rng = np.random.default_rng(seed)
    z = np.array([0.3, 0.1]) + 0.05 * rng.normal(size=2)
    scaling = np.concatenate([np.full(m // 2, -0.8), np.zeros(m - m // 2)])
    return jnp.asarray(np.concatenate([z, scaling, np.full(k, -3.4)]))


CASES = [("marginal", "sampled"), ("sampled", "sampled"), ("sampled", "marginal")]


@pytest.mark.parametrize(("scaling", "noise"), CASES)
def test_gradients_are_those_of_differences_and_of_lists_of_pixels(scaling, noise):
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
    model, data, space = static_case()
    log_noise, scale = -3.4, np.array([0.25, 0.25])
    c, o = np.meshgrid(np.linspace(0.1, 0.9, 1601), np.linspace(0.4, 1.3, 1801), indexing="ij")
    i, j = np.triu_indices(FRAMES, 1)
    pixels = np.asarray(data.c2[0])[i, j]

    def by_hand(z):
        params = marginal.params(z)
        m = np.asarray(tt.correlation(model, params, t=data.t, q=data.q, phi=data.phi))[0, i, j]
        d = pixels
        chi2 = d @ d - 2 * c * (d @ m) - 2 * o * d.sum() + c**2 * (m @ m)
        chi2 += 2 * c * o * m.sum() + o**2 * len(d)
        log = -0.5 * chi2 * np.exp(-2 * log_noise)
        log -= 0.5 * ((c - 0.5) / scale[0]) ** 2 + 0.5 * ((o - 1.0) / scale[1]) ** 2
        return np.log(np.sum(np.exp(log - log.max()))) + log.max()

    places = [jnp.asarray([0.3, 0.1]), jnp.asarray([0.42, 0.02])]
    found = [float(marginal.log_density(jnp.append(z, log_noise))) for z in places]
    prior = [float(marginal.coordinates.log_prior(z)) for z in places]
    assert (found[0] - prior[0]) - (found[1] - prior[1]) == pytest.approx(
        by_hand(places[0]) - by_hand(places[1]), abs=1e-6
    )


def test_what_was_integrated_out_is_drawn_from_its_conditional():
    p = posterior("marginal")
    v = position(p)
    draws = np.asarray(
        jax.vmap(lambda k: p.complete(v, k))(jax.random.split(jax.random.key(0), 4000))
    )
    assert np.all(draws[:, :2] == np.asarray(v[:2])) and np.all(draws[:, -1] == float(v[2]))
    system = p._system(v[:2])
    precision = np.asarray(system.normal) * np.exp(6.8) + np.diag(np.asarray(p.scaling.precision))
    covariance = np.linalg.inv(precision)
    assert np.allclose(np.cov(draws[:, 2:4].T), covariance, rtol=0.1, atol=1e-8)


def test_noise_integrated_out_is_drawn_from_its_conditional():
    p = posterior("sampled", "marginal")
    v = position(p)
    keys = jax.random.split(jax.random.key(0), 4000)
    log_noise = np.asarray(jax.vmap(lambda k: p.complete(v, k))(keys))[:, -1]
    chi2 = float(p._system(v[:2]).chi2(p.scaling.sampled.to_values(v[2:]) - p.scaling.shift))
    count = float(p.source.n_pixels)
    assert np.exp(-2 * log_noise).mean() == pytest.approx(count / chi2, rel=0.01)
    assert log_noise.std() == pytest.approx((2 * count) ** -0.5, rel=0.05)


def test_shares_of_the_prior_multiply_to_the_prior():
    p = posterior("sampled", "sampled")
    v = position(p)
    parts = eqx.tree_at(lambda q: (q.share, q.power), p, (jnp.asarray(0.25), jnp.asarray(0.25)))
    assert float(4 * parts.log_density(v)) == pytest.approx(float(p.log_density(v)), rel=1e-12)


def test_known_sigma_fixes_the_noise():
    p = posterior("marginal", sigma=0.03)
    assert p.noise == "known" and p.sizes == (2, 0, 0)
    assert p.complete(position(p), jax.random.key(0)).shape == (4,)


def test_coordinates_go_there_and_back_and_carry_the_prior():
    space = static_case()[2]
    coordinates = parameter_coordinates(space)
    values = jnp.asarray([2e4, -1.2])
    z = coordinates.from_values(values)
    assert np.allclose(coordinates.to_values(z), values, rtol=1e-12)
    slope = jax.jacfwd(coordinates.to_values)(z)
    assert np.allclose(np.diag(slope), coordinates.slope(z))
    prior = sum(
        float(space.priors[n].log_prob(x)) for n, x in zip(("D0", "alpha"), values, strict=True)
    )
    expected = prior + float(jnp.log(jnp.diag(slope)).sum())
    assert float(coordinates.log_prior(z)) == pytest.approx(expected, rel=1e-12)
    assert np.isfinite(np.asarray(coordinates.from_values(np.array([100.0, 2.0])))).all()


def test_priors_decide_how_contrast_and_offset_are_treated():
    space = static_case()[2]
    assert choose_scaling(space, None, "individual", "auto") == "marginal"
    flat = space.with_priors({"contrast": tt.PriorDistribution.uniform(0.0, 1.0)})
    assert choose_scaling(flat, None, "individual", "auto") == "sampled"
    assert choose_scaling(flat, None, "constant", "auto") == "marginal"
    with pytest.raises(ValueError, match="contrast has a uniform prior"):
        choose_scaling(flat, None, "individual", "marginal")
    with pytest.raises(ValueError, match="fourier"):
        choose_scaling(space, None, "fourier", "sampled")
    with pytest.raises(ValueError, match="expected 'auto'"):
        choose_scaling(space, None, "individual", "some")
    with pytest.raises(ValueError, match="no closed form"):
        posterior("marginal", "marginal")
