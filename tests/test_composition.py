"""Composition: what hosts that call twotime from their own JAX programs met, one test each.

Entries that no transformation is about are in `test_composition_entries`.
"""

import dataclasses
import importlib.util
import logging
import tomllib
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import twotime as tt
from twotime.config.priors import PriorType

KEY = jax.random.key(0)
T, PHI, Q = np.arange(1, 17) * 0.6, np.array([0.0, 50.0]), 0.005
LAW, TRUTH = tt.StaticDiffusion(), np.array([2e4, -0.3, 0.0])
SETTINGS = {"judge": False, "per_angle_mode": "individual"}


@pytest.fixture(scope="module")
def data():
    found = tt.simulate(
        LAW, TRUTH, t=T, q=Q, phi=PHI,
        contrast=0.3, offset=1.0, noise=0.02, key=jax.random.key(3),
    )  # fmt: skip
    return jax.tree.map(np.asarray, found)


@pytest.fixture(scope="module")
def space():
    start = tt.ParameterSpace.of(LAW).with_values({"D0": 1.5e4, "alpha": -0.2, "D_offset": 0.0})
    return start.with_vary({"D_offset": False})


@pytest.fixture(scope="module")
def fit(data, space):
    return tt.fit_nlsq(LAW, data, space, **SETTINGS)


@pytest.fixture(scope="module")
def several(data, space):
    """Fits of two wavevectors by one vmapped call, of which each is one alone."""
    one = eqx.filter_jit(lambda q: tt.fit_nlsq(LAW, at(data, q), space, **SETTINGS))
    return eqx.filter_vmap(one)(jnp.asarray([Q, 1.2 * Q]))


def at(data, q):
    return dataclasses.replace(data, q=q)


@pytest.mark.long
def test_entry_01_second_derivatives_of_fits_are_differences_of_the_gradient(data, space):
    """Through the whole fit, by the wavevector and along a change of the data."""
    turned = np.cos(1.3 * (T[:, None] + T)) * np.ones((PHI.size, 1, 1))

    def found(x):
        moved = dataclasses.replace(data, q=Q * (1 + x[0]), c2=data.c2 + x[1] * turned)
        return tt.fit_nlsq(LAW, moved, space, tolerance=1e-9, **SETTINGS).values[0] / TRUTH[0]

    def twice(x):
        slope = jax.grad(found)(x)
        return slope, slope

    both = jax.jit(jax.jacfwd(twice, has_aux=True))
    second, slope = both(jnp.zeros(2))
    assert second[0, 0] == pytest.approx(-3 * float(slope[0]), rel=1e-5)  # D0 goes as 1/q²
    for k, step in enumerate((1e-4, 1e-4)):
        ends = [both(jnp.asarray(s * step * np.eye(2)[k]))[1] for s in (1, -1)]
        want = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(second[:, k], want, atol=1e-5 * np.max(np.abs(want)))


def test_entry_02_integer_times_are_floats(data, space):
    t, phi = np.arange(1, 17), np.array([0, 50])
    want = tt.correlation(LAW, TRUTH, t=t.astype(float), q=Q, phi=PHI)
    for times in (t, jnp.asarray(t)):
        np.testing.assert_array_equal(tt.correlation(LAW, TRUTH, t=times, q=Q, phi=phi), want)
        pairs = tt.correlation_at(LAW, TRUTH, times[:1], times[2:3], t=times, q=Q, phi=0)
        np.testing.assert_allclose(pairs[0], want[0, 0, 2], rtol=1e-12)
    one = {"t": t, "q": Q, "phi": phi, "contrast": 0.3, "key": jax.random.key(0)}
    drawn = tt.simulate(LAW, TRUTH.astype(int), offset=1, noise=0, **one)
    assert drawn.t.dtype == drawn.q.dtype == float and drawn.q == Q
    assert tt.simulate_speckle(LAW, TRUTH, n_pixels=9, **one).c2.dtype == float
    whole = tt.TwoTimeData(np.ones((2, 16, 16), int), t, 1, phi, sigma=np.asarray(1))
    assert {x.dtype for x in jax.tree.leaves(whole)} == {np.dtype(float)}


@pytest.mark.parametrize(
    "array",
    [
        lambda d, s: s.initial,
        lambda d, s: s.with_bounds({"D0": (1.0, 1e6)}).initial,
        lambda d, s: s.with_values({"D0": 1.0}).all_values,
        lambda d, s: s.with_registry(s.registry).all_lower,
        lambda d, s: tt.PriorDistribution.normal(0.0, 1.0).numbers,
        lambda d, s: d.c2,
        lambda d, s: d.t,
    ],
)
def test_entry_07_arrays_of_frozen_values_cannot_be_written_into(array, data, space):
    with pytest.raises(ValueError, match="read-only"):
        array(data, space)[0] = 7.0
    assert space.get_initial_array().flags.writeable  # a copy, the caller's


@pytest.mark.slow
def test_entry_09_a_fit_may_close_over_data_of_jax(data, space, fit):
    held = jax.tree.map(jnp.asarray, data)
    settings = SETTINGS | {"starts": 2, "throw": True}
    found = jax.jit(lambda key: tt.fit_nlsq(LAW, held, space, key=key, **settings).values)
    np.testing.assert_allclose(found(jax.random.key(0))[:2], fit.values[:2], rtol=1e-3)


def test_entry_10_fits_on_meshes_work_or_say_what_they_need(data, space, fit):
    def one(c2, **settings):
        there = dataclasses.replace(data, c2=c2[0])
        return tt.fit_nlsq(LAW, there, space, **SETTINGS, **settings).values[None]

    share, c2 = PartitionSpec("one"), jnp.asarray(data.c2)[None]
    auto = jax.make_mesh((1,), ("one",), axis_types=(AxisType.Auto,))
    specs = {"mesh": auto, "in_specs": share, "out_specs": share}
    with pytest.raises(ValueError, match="needs check_vma=False"):
        jax.shard_map(one, **specs)(c2)
    with pytest.raises(ValueError, match="devices were given inside"):
        everywhere = jax.devices()[:1]
        jax.shard_map(lambda x: one(x, devices=everywhere), **specs, check_vma=False)(c2)
    explicit = jax.make_mesh((1,), ("one",))
    batch = jax.device_put(c2[None], NamedSharding(explicit, share))
    with pytest.raises(ValueError, match="axis_types=.*Auto"):
        jax.vmap(one)(batch)
    with jax.set_mesh(explicit):
        found = tt.fit_nlsq(LAW, data, space, **SETTINGS)
    np.testing.assert_allclose(found.values, fit.values, rtol=1e-12)


@pytest.mark.skipif(importlib.util.find_spec("numpyro") is None, reason="needs NumPyro")
@pytest.mark.parametrize("kind", PriorType)
def test_entry_11_priors_become_numpyro_distributions_where_they_are_traced(kind):
    from twotime.config.priors import FAMILIES

    numbers = {"low": 1.0, "high": 3.0, "loc": 1.5, "scale": 0.5, "rate": 0.7}
    numbers |= {"concentration1": 2.0, "concentration2": 3.0}
    one = tt.PriorDistribution(kind, {n: numbers[n] for n in FAMILIES[kind].names})
    assert one.to_numpyro("x").support(jnp.asarray(1.7))
    assert one.family.support != "interval" or not one.to_numpyro("x").support(jnp.asarray(3.5))
    at = jnp.asarray(1.7)
    found = jax.jit(lambda p, x: p.to_numpyro("x").log_prob(x))(one, at)
    np.testing.assert_allclose(found, one.log_prob(1.7), rtol=1e-10)
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), one)
    many = jax.vmap(lambda p: p.to_numpyro("x").log_prob(at))(stacked)
    np.testing.assert_allclose(many, found, rtol=1e-12)


def test_entry_11_priors_are_built_in_batches():
    many = tt.PriorDistribution.normal(np.arange(3.0), np.ones(3))
    each = jax.vmap(lambda p: p.log_prob(1.0))(many)
    np.testing.assert_allclose(each, jax.scipy.stats.norm.logpdf(np.arange(3.0) - 1), rtol=1e-12)
    with pytest.raises(ValueError, match="needs scale > 0"):
        tt.PriorDistribution.normal(np.zeros(2), np.array([1.0, -1.0]))


def test_entry_12_the_extra_of_arviz_brings_what_netcdf_needs():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    needed = " ".join(project["optional-dependencies"]["posterior"])
    assert "arviz" in needed and "h5netcdf" in needed


def test_entry_13_the_law_of_the_docs_has_no_strings_as_leaves():
    text = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    block = next(b for b in text.split("```python\n") if "class StretchedAgeing" in b)
    names = {"tt": tt, "jnp": jnp}
    exec(block.split("```")[0], names)
    law = names["StretchedAgeing"]()
    assert not jax.tree.leaves(law) and len(law.names) == 3


@pytest.mark.parametrize(
    ("verb", "instead"),
    [
        (lambda d, s: tt.fit_cmc(LAW, d, s, key=jax.random.key(0)), "tt.log_density"),
        (lambda d, s: tt.log_density(LAW, d, s), "density it returns"),
        (lambda d, s: tt.estimate_starts(LAW, d, s), "fit_nlsq"),
        (lambda d, s: tt.fit_sequential(LAW, d, s), "one_angle"),
        (lambda d, s: s.with_values({"D0": d.q}).validate(), "before it is traced"),
    ],
)
def test_entry_14_host_verbs_say_what_their_traceable_part_is_called(verb, instead, data, space):
    for transformed in (jax.jit, jax.vmap, jax.jacfwd):
        with pytest.raises(TypeError, match=f"(?s)decides on the host.*{instead}"):
            transformed(lambda q: verb(at(data, q.sum()), space))(jnp.full(1, Q))


@pytest.mark.slow
def test_entry_14_results_are_read_under_trace_and_in_batches(several, fit, data, space):
    names = ("params", "uncertainties", "uncertainties_iid", "converged", "correlation")
    for k, one in enumerate(tt.unstack(several)):
        assert one.params == several[k].params and isinstance(one.params["D0"], float)
        for name in names:
            stacked, single = getattr(several, name), getattr(one, name)
            same = jax.tree.map(lambda many, x, k=k: np.allclose(many[k], x), stacked, single)
            assert all(jax.tree.leaves(same)), name
    np.testing.assert_allclose(several[0].values, fit.values, rtol=1e-9)
    assert several[1].status.startswith("converged")
    again = jax.tree.map(lambda *x: jnp.stack(x), *tt.unstack(several))
    assert eqx.tree_equal(again, several)

    @jax.jit
    def read(fit):
        with pytest.raises(TypeError, match="traced by JAX: return it"):
            fit.report()
        return {name: getattr(fit, name) for name in names}

    found = read(fit)
    assert found["params"]["D0"] == fit.params["D0"] and bool(found["converged"])
    assert found["uncertainties"]["D0"] == pytest.approx(fit.uncertainties["D0"], rel=1e-12)
    np.testing.assert_allclose(found["correlation"], fit.correlation, rtol=1e-12)
    for name in ("status", "at_bound", "optima", "null_directions", "unseen", "sloppy_directions"):
        with pytest.raises(TypeError, match=r"several stacked: take one with fit\[i\]"):
            getattr(several, name)
    with pytest.raises(TypeError, match="one fit already"):
        fit[0]
    with pytest.raises(ValueError, match="unstack got arrays with first axes"):
        tt.unstack(data)


@pytest.mark.long
def test_error_bars_refuse_derivatives_where_these_are_asked_for(data, space, fit):
    """Silence would be zero; without derivatives, or of the values alone, nothing is refused."""
    verbs = (
        lambda fit: fit.uncertainties["D0"],
        lambda fit: fit.scaling_uncertainties["offset"][0],
        lambda fit: tt.delta_bands(LAW, fit, T)["J"].upper[0],
        lambda fit: tt.profile(LAW, data, space, fit, "D0", fit.values[:1]).height[0],
    )

    @jax.jit
    def one(q):
        return tt.fit_nlsq(LAW, at(data, q), space, **SETTINGS)

    for verb in verbs:
        for transformed in (jax.grad, jax.jacfwd, lambda f: jax.grad(jax.jit(f))):
            with pytest.raises(TypeError, match=r"no derivatives.*stop_gradient\(fit\)"):
                jax.eval_shape(transformed(lambda q, verb=verb: verb(one(q))), Q)

    def ratio(q):
        found = one(q)
        known = jax.lax.stop_gradient(found).uncertainties["D0"]
        return found.values[0] / known, known

    slope, known = jax.grad(ratio, has_aux=True)(Q)
    assert float(known) == pytest.approx(fit.uncertainties["D0"], rel=1e-9)
    assert float(slope) == pytest.approx(-2 * fit.params["D0"] / (Q * float(known)), rel=1e-3)
    jax.eval_shape(jax.jacfwd(lambda q: eqx.filter(one(q), eqx.is_inexact_array)), Q)
    # As a function of a fit, error bars have derivatives.
    by = jax.grad(lambda c: dataclasses.replace(fit, covariance=c).uncertainties["D0"])
    assert by(fit.covariance)[0, 0] == pytest.approx(0.5 / fit.uncertainties["D0"])


def test_joint_fits_that_find_weights_of_rings_refuse_derivatives(data, space):
    def found(q, **given):
        there = tt.TwoTimeData(data.c2, T, q * np.array([1.0, 1.2]), PHI, rings=(0, 1), **given)
        return tt.fit_nlsq(LAW, there, space, **SETTINGS).values[0]

    for transformed in (jax.grad, jax.jacfwd):
        with pytest.raises(TypeError, match="finds how much each ring counts.*weight=fit.weight"):
            jax.eval_shape(transformed(found), Q)
    jax.eval_shape(jax.grad(lambda q: found(q, weight=np.ones(2))), Q)


def changes(data, space):
    """Fits that differ in numbers alone, after one of them."""
    normal, replace = tt.PriorDistribution.normal, dataclasses.replace
    law, other = LAW, tt.ParameterSpace.from_config({"analysis_mode": "static"})

    def numbers(**given):
        registry = space.registry.extended(replace(space.registry["D0"], **given))
        return tt.ParameterSpace(registry=registry, vary={"D_offset": False})

    return [
        (law, at(data, 0.006), space, {}),
        (law, at(data, jnp.asarray(0.006)), space, {}),
        (law, jax.tree.map(jnp.asarray, data), space, {}),
        (law, replace(data, c2=jnp.asarray(data.c2)), space, {}),
        (law, replace(data, t=np.arange(1, 17)), space, {}),
        (law, replace(data, phi=np.array([3, 4])), space, {}),
        (law, replace(data, c2=data.c2 - 1, baseline=0.0), space, {}),
        (law, data, space.with_values({"D0": 1.6e4}), {}),
        (law, data, space.with_values({"D0": jnp.asarray(1.6e4)}), {}),
        (law, data, space.with_bounds({"D0": (10.0, 1e6)}), {}),
        (law, data, space.with_bounds({"D0": (-10.0, 1e6)}), {}),
        (law, data, space.with_priors({"D0": normal(1e4, 1e3)}), {}),
        (law, data, space.with_priors({"D0": normal(jnp.asarray(2e4), 1e3)}), {}),
        (law, data, numbers(default=2e3), {}),
        (law, data, numbers(prior_mean=2e3, prior_std=10.0), {}),
        (law, data, numbers(prior_mean=None, prior_std=None), {}),
        (law, data, space, {"tolerance": 1e-3}),
        (law, data, space, {"tolerance": jnp.asarray(1e-3)}),
        (law, data, space, {"max_steps": 50}),
        (tt.StaticDiffusion(), data, other.with_vary({"D_offset": False}), {}),
    ]


class Counter(logging.Handler):
    """Counts compilations of whole fits."""

    count = 0

    def emit(self, record):
        self.count += "Finished XLA compilation of jit(_fit)" in record.getMessage()


def test_entry_16_numbers_never_compile_a_fit_again(data, space, fit):
    counter, told = Counter(), logging.getLogger("jax._src.dispatch")
    with jax.log_compiles():
        told.addHandler(counter)
        propagates, told.propagate = told.propagate, False
        try:
            many = changes(data, space)
            for law, there, start, settings in many:
                tt.fit_nlsq(law, there, start, **SETTINGS, **settings)
            assert len(many) == 20 and counter.count == 0
            tt.fit_nlsq(LAW, data, space.with_vary({"alpha": False}), **SETTINGS)
            assert counter.count == 1  # another choice does, so the count counts
        finally:
            told.removeHandler(counter)
            told.propagate = propagates


@pytest.mark.long
def test_the_density_is_what_fit_cmc_samples(data, space, fit):
    density = tt.log_density(LAW, data, space, start=fit)
    post = tt.fit_cmc(
        LAW, data, space, key=jax.random.key(0), start=fit, n_chains=1, n_warmup=10, n_samples=10
    )
    params = {n: post.samples[n][0] for n in post.names} | {"noise": post.noise[0]}
    assert density.names == post.coordinate_names == ("D0", "alpha", "noise")
    found = jax.vmap(lambda p: density(density.from_params(p)))(params)
    np.testing.assert_allclose(found, post.log_density[0, 0], rtol=1e-9)
    back = density.to_params(density.start)
    assert float(back["D0"]) == pytest.approx(fit.params["D0"], rel=1e-9)
    np.testing.assert_allclose(density.from_params(back), density.start, rtol=1e-9, atol=1e-12)
    # The likelihood alone: uniform priors add what the change of coordinates does.
    change = density.posterior.coordinates.log_prior(density.start[:2])
    whole = density.log_likelihood(back) + change
    assert float(whole) == pytest.approx(float(density(density.start)), rel=1e-12)
    with pytest.raises(ValueError, match="of those given noise is missing"):
        density.log_likelihood({"D0": 1e4, "alpha": 0.0})
    sampler = tt.Nuts(n_chains=1, n_warmup=10, n_samples=10)

    def sample(key):
        return density.sample(key, sampler)

    for call in (sample, jax.jit(sample)):
        drawn, facts = call(KEY)
        np.testing.assert_allclose(drawn["D0"], post.samples["D0"].reshape(1, 10), rtol=1e-6)
        np.testing.assert_allclose(facts.log_density, post.log_density[0], rtol=1e-6)


@pytest.mark.long
def test_densities_of_several_data_are_sampled_by_one_call(data, space):
    """Stacked, over as many keys: each as by itself; draws have no derivatives."""
    sampler, keys = tt.Nuts(n_chains=2, n_warmup=10, n_samples=10), jax.random.split(KEY, 2)
    densities = [tt.log_density(LAW, at(data, q), space) for q in (Q, 1.2 * Q)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *densities)
    many, _ = jax.jit(jax.vmap(lambda d, k: d.sample(k, sampler)))(stacked, keys)
    for i, density in enumerate(densities):
        one, _ = density.sample(keys[i], sampler)
        assert one["D0"].shape == (2, 10)
        np.testing.assert_allclose(many["D0"][i], one["D0"], rtol=1e-6)
    with pytest.raises(TypeError, match=r"Draws have no derivatives.*stop_gradient\(density\)"):
        eqx.filter_grad(lambda d: d.sample(KEY, sampler)[0]["D0"].sum())(densities[0])
