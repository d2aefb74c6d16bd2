"""The judgement of residuals: means, their noise, and how often right models are called wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.covariance import misfit
from twotime.covariance.blocks import Span
from twotime.covariance.modes import Modes
from twotime.results.judgement import FALSE_ALARMS, Structure

T, Q, TRUTH = jnp.arange(1, 61) * 0.1, 0.01, jnp.array([1e4, 0.0, 0.0])
MODEL = tt.StaticDiffusion()
SPACE = tt.ParameterSpace(
    values={"D0": 1e4, "alpha": 0.0, "D_offset": 0.0},
    vary={"D_offset": False},
    bounds={"D0": (10.0, 1e7), "alpha": (-2.0, 2.0)},
)
PHI = jnp.array([0.0, 60.0])


def speckle(key, **changes):
    settings = {"contrast": 0.3, "n_pixels": 500, "t": T, "q": Q, "phi": PHI} | changes
    return tt.simulate_speckle(MODEL, TRUTH, key=key, **settings)


def judged(data):
    return tt.residual_structure(MODEL, data, SPACE, tt.fit_nlsq(MODEL, data, SPACE))


def structure(chance=0.5, **changes):
    ones = np.ones((2, 3))
    return dataclasses.replace(
        Structure(
            lag=np.array([0.1, 0.2, 0.4]), by_lag=ones, lag_deviation=ones,
            age=np.array([0.0, 2.0, 4.0]), by_age=ones, age_deviation=ones, phi=np.array([0.0, 60]),
            neighbours=np.zeros(2), chance=np.asarray(chance), share=np.asarray(0.01),
        ),
        **changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("chance", "says"), [(0.02, "no larger than"), (0.005, "does not describe")]
)
def test_a_model_is_wrong_where_noise_would_do_it_once_in_a_hundred_fits(chance, says):
    assert says in structure(chance).sentence


def test_what_frames_of_all_angles_share_is_told_where_it_is_what_noise_does_not_do():
    said = {"common": np.asarray(3.5), "leanings": np.zeros(7)}
    alike = structure(0.001, chances=np.array([0.5, 1.0, 2e-4]), **said)
    assert alike.place == "frames of all angles"
    assert alike.causes.startswith("a beam whose intensity varies")
    far = np.full((2, 3), 9.0)
    known = structure(0.001, chances=np.array([1e-4, 1.0, 2e-4]), by_lag=far, **said)
    assert "9.0 standard deviations" in known.sentence


def test_the_sentence_names_the_place_the_effect_and_usual_causes():
    by_age = np.ones((2, 3))
    by_age[1, 2] = -9.0
    text = structure(1e-4, by_age=by_age).sentence
    assert "9.0 standard deviations" in text and "frames (stripes) from 4 s on, φ = 60°" in text
    assert "1.00% of the signal's variance" in text and "bad_frames" in text
    drift = np.array([[9.0, 1.0, -8.0], [8.0, 0.0, -9.0]])
    assert "a drift of the beam" in structure(1e-4, by_age=drift).sentence
    by_lag = np.ones((2, 3))
    by_lag[:, 1] = 9.0
    text = structure(1e-4, by_lag=by_lag).sentence
    assert "lags from 0.2 s on, φ = 0°" in text and "static scattering" in text
    by_lag[1, 1] = -9.0
    assert "contrast that varies with the angle" in structure(1e-4, by_lag=by_lag).sentence


def noise_of_many_modes(rng, n=400, n_groups=6):
    """Functions of 400 points, and the covariance of points that are noise of 40 modes."""
    functions = rng.normal(size=(n_groups, n))
    root = rng.normal(size=(n, 40)) * np.geomspace(3, 0.3, 40)
    covariance = root @ root.T
    squares = np.trace(covariance)
    modes = Modes.of(*map(jnp.asarray, (functions @ functions.T,
                     functions @ covariance @ functions.T, squares)))  # fmt: skip
    return functions, root, modes, squares


def test_amplitudes_and_sums_are_the_same_and_noise_is_what_functions_follow():
    functions, root, modes, squares = noise_of_many_modes(np.random.default_rng(0))
    np.testing.assert_allclose(modes.root @ modes.inverse, np.eye(6), atol=1e-9)
    covariance = functions @ root @ root.T @ functions.T
    np.testing.assert_allclose(modes.root @ modes.root.T, covariance, rtol=1e-6)
    followed = np.trace(np.linalg.solve(functions @ functions.T, covariance)) / squares
    assert float(jnp.sum(modes.noise)) == pytest.approx(followed, rel=5e-3)
    assert np.all(np.diff(modes.noise) >= 0)


def test_a_misfit_does_not_enlarge_the_noise_by_which_it_is_judged():
    rng = np.random.default_rng(1)
    functions, root, modes, squares = noise_of_many_modes(rng)
    noise = root @ rng.normal(size=40)
    wrong = 5 * np.sqrt(squares / 400) * functions[0]
    for added, largest in ((0 * wrong, 1.0), (wrong, 0.04)):
        residual = noise + added
        total = residual @ residual / squares
        size = float(modes.size(modes.inverse @ (functions @ residual) / np.sqrt(total)))
        assert size <= largest
        assert size * total == pytest.approx(noise @ noise / squares, rel=0.25)


def test_the_largest_mean_of_noise_is_exceeded_as_often_as_is_said():
    rng = np.random.default_rng(2)
    functions, root, modes, squares = noise_of_many_modes(rng)
    deviation = np.sqrt(np.diag(functions @ root @ root.T @ functions.T))
    residual = rng.normal(size=(20_000, 40)) @ root.T
    found = np.sum(residual**2, axis=1) / squares
    sums = residual @ functions.T
    size = modes.size(sums @ modes.inverse.T, found)
    largest = np.max(np.abs(sums) / deviation, axis=1) / np.sqrt(size)
    said = np.asarray(modes.heights(jnp.asarray(deviation)))
    for chance in (0.3, 0.05, 0.01):
        height = np.quantile(said, 1 - chance)
        assert 0.25 * chance < np.mean(largest > height) < 1.3 * chance
    assert FALSE_ALARMS == 0.01  # stated in docs/uncertainty.md


@pytest.mark.parametrize("n", [3, 60, 101])
def test_sums_and_products_of_groups_are_those_of_all_pairs(n):
    groups, rng = misfit.Groups.of(n), np.random.default_rng(0)
    index = np.arange(n)
    frames = Span(jnp.asarray(index), jnp.ones(n))
    member = np.asarray(groups.of_pairs(frames.at((slice(None), None)), frames))
    used = np.triu(np.ones((n, n)), 1)
    np.testing.assert_allclose(groups.products(), np.einsum("gij,hij,ij->gh", member, member, used))
    planes = rng.normal(size=(2, n, n)) * used
    first = n // 3
    found = sum(
        groups.sums(jnp.asarray(planes[:, rows, columns]), (jnp.asarray(start), jnp.asarray(after)))
        for rows, start in ((slice(0, first), 0), (slice(first, n), first))
        for columns, after in ((slice(0, first), 0), (slice(first, n), first))
    )
    np.testing.assert_allclose(found, np.einsum("gij,kij->gk", member, planes), atol=1e-12)


def test_frames_taken_together_count_as_their_pairs_do_on_average():
    groups, index = misfit.Groups.of(60), np.arange(60)
    ends = np.array([0, 1, 2, 4, 7, 12, 20, 33, 60])
    frames = Span(jnp.asarray(index), jnp.ones(60))
    member = np.asarray(groups.of_pairs(frames.at((slice(None), None)), frames))
    spans = Span(jnp.asarray(ends[:-1]), jnp.asarray(np.diff(ends), float))
    found = np.asarray(groups.of_pairs(spans.at((slice(None), None)), spans))
    apart = (index[:, None] != index).astype(float)
    for i, j in np.ndindex(8, 8):
        rows, columns = slice(*ends[i : i + 2]), slice(*ends[j : j + 2])
        pairs = np.maximum(apart[rows, columns].sum(), 1.0)
        want = (member * apart)[:, rows, columns].sum(axis=(1, 2)) / pairs
        lags = groups.lags.size - 1
        np.testing.assert_allclose(found[:lags, i, j], want[:lags], atol=1e-12)
        if i != j:  # a single frame has no pair, but belongs to its period
            np.testing.assert_allclose(found[lags:, i, j], want[lags:], atol=1e-12)


@pytest.mark.parametrize("masked", [pytest.param(False, marks=pytest.mark.long), True])
def test_means_are_those_of_all_points_by_lag_and_by_age(masked):
    rng = np.random.default_rng(1)
    mask = rng.uniform(size=(2, 60, 60)) > 0.3 if masked else None
    data = dataclasses.replace(speckle(jax.random.key(2)), mask=mask)
    fit = tt.fit_nlsq(MODEL, data, SPACE)
    found = tt.residual_structure(MODEL, data, SPACE, fit)
    fitted = tt.correlation(MODEL, fit.values, t=T, q=Q, phi=PHI)
    residual = np.asarray(data.c2) - np.asarray(
        fit.offset[:, None, None] + fit.contrast[:, None, None] * fitted
    )
    used = np.triu(np.ones((60, 60), bool), 1) & (True if mask is None else mask)
    lag = np.arange(60) - np.arange(60)[:, None]
    edges = misfit.Groups.of(60).lags
    for k in range(2):
        for group, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            own = residual[k][np.broadcast_to(used, (2, 60, 60))[k] & (lag >= low) & (lag < high)]
            assert found.by_lag[k, group] == pytest.approx(own.mean(), abs=1e-9)
        weight = np.broadcast_to(used, (2, 60, 60))[k].astype(float)
        stripe = (np.arange(60) // 5 == 3) * 0.5
        weight = weight * (stripe[:, None] + stripe)
        want = np.sum(weight * residual[k]) / np.sum(weight)
        assert found.by_age[k, 3] == pytest.approx(want, abs=1e-9)


@pytest.mark.statistics
@pytest.mark.parametrize("photons", [None, 0.2])
def test_means_scatter_as_is_said(photons):
    data = [speckle(key, photons=photons) for key in jax.random.split(jax.random.key(0), 80)]
    found = [judged(x) for x in data]
    for what, said in (("by_lag", "lag_deviation"), ("by_age", "age_deviation")):
        scatter = np.std([getattr(x, what) for x in found], axis=0)
        said = np.sqrt(np.mean(np.square([getattr(x, said) for x in found]), axis=0))
        ratio = scatter / said
        assert 0.85 < np.median(ratio) < 1.15 and np.all((ratio > 0.6) & (ratio < 1.4))
    assert np.mean([not x.is_right for x in found]) <= 0.05


@pytest.mark.slow
def test_a_wrong_law_is_found_and_its_effect_measured():
    data = speckle(jax.random.key(5), n_pixels=20_000)
    static = dataclasses.replace(data, c2=data.c2 + 0.1 * 0.3)
    assert judged(static).is_right  # an offset is fitted
    lag = jnp.abs(T[:, None] - T)
    wrong = judged(dataclasses.replace(data, c2=data.c2 + 0.2 * jnp.exp(-((lag / 2) ** 2))))
    assert not wrong.is_right and 0 < wrong.share < 0.2
