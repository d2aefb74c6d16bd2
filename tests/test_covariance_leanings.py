"""Leanings of residuals towards faults: what each changes, its noise, and movies with the fault."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_covariance_misfit import MODEL, SPACE, T, speckle, structure

import twotime as tt
from twotime.covariance.leanings import chance_of, of_faults
from twotime.results.judgement import FAULTS, LOOKS

PHI = jnp.array([0.0, 40.0, 80.0])
NAMES = list(FAULTS)


def faulty(name, size, x, age, phi, q):
    """The correlation exp(-x) of a law that has a fault of some size."""
    c = np.exp(-x)
    return {
        "static scattering": ((1 - size) * np.sqrt(c) + size) ** 2,
        "another shape": np.exp(-(x ** (1 - size))),
        "contrast with age": c * (1 + size * age),
        "rates with age": np.exp(-x * (1 - size * age)),
        "rates with direction": np.exp(-x * (1 - size * np.cos(2 * np.deg2rad(phi)))),
        "rates with direction, oblique": np.exp(-x * (1 - size * np.sin(2 * np.deg2rad(phi)))),
        "rates with wavevector": np.exp(-x * q**-size),
    }[name]


def test_a_fault_changes_c2_as_the_law_with_it_does():
    early, late = np.triu_indices(60, 1)
    x = 0.01 + 0.1 * (late - early)
    data = dataclasses.replace(speckle(jax.random.key(0), phi=PHI), q=np.array([0.01, 0.02, 0.03]))
    found = of_faults(jnp.exp(-x), early, late, data, jnp.asarray(1))
    assert len(found) == len(NAMES)
    for name, change in zip(NAMES, found, strict=True):
        at = x, (early + late) / 59 - 1, 40.0, 2.0  # of the first wavevector
        step = (faulty(name, 1e-4, *at) - faulty(name, -1e-4, *at)) / 2e-4
        slope = np.dot(change, step) / np.dot(change, change)
        np.testing.assert_allclose(slope * np.asarray(change), step, atol=1e-6)
        assert slope == pytest.approx(2 if name == "static scattering" else 1, rel=1e-4)


def test_faults_are_finite_where_all_or_nothing_is_correlated():
    data = speckle(jax.random.key(0))
    found = of_faults(
        jnp.array([0.0, 1e-300, 1.0]), jnp.arange(3), jnp.arange(3) + 1, data, jnp.asarray(0)
    )
    assert np.all(np.isfinite(found))


def looked_at(data):
    return tt.fit_nlsq(MODEL, data, SPACE).structure


@pytest.mark.parametrize("movies", [24, pytest.param(200, marks=pytest.mark.statistics)])
@pytest.mark.parametrize("photons", [None, pytest.param(0.2, marks=pytest.mark.statistics)])
def test_noise_leans_by_one_standard_deviation(movies, photons):
    keys = jax.random.split(jax.random.key(1), movies)
    data = [speckle(key, phi=PHI, photons=photons) for key in keys]
    found = np.array([looked_at(x).leanings for x in data])
    known = [name for name, x in zip(NAMES, found.T, strict=True) if np.any(x)]
    assert known == NAMES[:-1]  # one wavevector
    wide = 4 / np.sqrt(2 * movies)
    scatter, mean = found[:, :-1].std(axis=0), found[:, :-1].mean(axis=0)
    assert np.all((scatter > 0.85 - wide) & (scatter < 1.15 + wide)), scatter
    assert np.all(np.abs(mean) < 0.1 + wide * np.sqrt(2)), mean


def test_what_the_fit_follows_is_not_judged():
    found = looked_at(speckle(jax.random.key(2), phi=PHI[:1]))
    unknown = [name for name, x in zip(NAMES, found.leanings, strict=True) if x == 0]
    assert unknown == [name for name in NAMES if "direction" in name or "wavevector" in name]
    assert found.chance == pytest.approx(1 - (1 - min(found.chances)) ** 2)  # of two looks


@pytest.mark.long
def test_a_drift_of_contrast_is_noticed_and_named_before_it_biases_much():
    level = 1 - 0.1 * jnp.linspace(0, 1, T.size)
    named = []
    for key in jax.random.split(jax.random.key(3), 10):
        data = speckle(key, phi=PHI, n_pixels=4000)
        c2 = 1 + (data.c2 - 1) * level[:, None] * level
        found = looked_at(dataclasses.replace(data, c2=c2))
        named.append(not found.is_right and found.fault == "contrast with age")
    assert np.mean(named) >= 0.9


@pytest.mark.long
def test_another_power_of_q_is_noticed_and_named():
    def ring(q, key):
        rate = jnp.array([1e4 * (q / 0.01) ** -0.4, 0.0, 0.0])
        return tt.simulate_speckle(
            MODEL, rate, t=T, q=q, phi=PHI[:1], contrast=0.3, n_pixels=2000, key=key
        )

    keys = jax.random.split(jax.random.key(4), 4)
    data = tt.join(*map(ring, (0.006, 0.008, 0.012, 0.016), keys))
    found = tt.fit_nlsq(MODEL, data, SPACE).structure
    assert not found.is_right and found.fault == "rates with wavevector"
    assert found.place in (found.fault, "frames of all angles") or "lags" in found.place


def test_the_sentence_names_the_fault_where_nothing_else_is_less_likely():
    leanings = np.array([0.5, -1.0, 0.0, 6.0, 0.0, 0.0, 0.0])
    says = {"leanings": leanings, "common": np.asarray(1.0)}
    by_fault = structure(1e-6, chances=np.array([0.3, 1e-7, 0.2]), **says)
    assert by_fault.found_by == "faults" and by_fault.place == "rates with age"
    text = "lean towards rates with age by 6.0 standard deviations. Usual causes: a law that ages"
    assert text in by_fault.sentence and "do not include this misfit" in by_fault.sentence
    assert by_fault.summary()["leanings"]["rates with age"] == 6.0
    by_mean = structure(1e-6, chances=np.array([1e-5, 0.02, 0.2]), **says)
    assert by_mean.found_by == "means" and "mean residual" in by_mean.sentence
    unlikely = structure(1e-6, chances=np.array([2e-4, 1e-9, 0.2]), **says)
    assert unlikely.found_by == "faults"  # of two that are hardly ever noise, the farther one
    assert structure(1e-6).found_by == "means" and len(LOOKS) == 3


def test_the_chance_of_a_leaning_counts_how_many_are_judged():
    one, two = jnp.array([0.0, 2.5, 0.0]), jnp.array([0.0, 2.5, -0.1])
    assert chance_of(one) == pytest.approx(0.012419, rel=1e-4)  # 2 (1 - Φ(2.5))
    assert chance_of(two) == pytest.approx(2 * chance_of(one))
    assert chance_of(jnp.array([0.1, 0.2])) == 1.0
    assert chance_of(jnp.zeros(3)) == 1.0  # where nothing can be judged, nothing is wrong
