"""One law for matrices of several wavevectors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BY_NAME, TIMES, Q

import twotime as tt
from twotime.covariance.noise import Moments, photon_powers, solve_noise
from twotime.gram import Separable, Tiled
from twotime.models.scaling import Averaged, Fourier, Individual, resolve_mode
from twotime.plots import fit as figures
from twotime.report.nlsq import remarks, scaling_table
from twotime.results.judgement import where
from twotime.sample import shards
from twotime.sample.density import SampledNoise, make_posterior

CASE = BY_NAME["static"]
OTHER_Q, CONTRASTS, NOISES = 1.5 * Q, (0.3, 0.2), (0.01, 0.002)


@pytest.fixture(scope="module")
def parts() -> list[tt.TwoTimeData]:
    """Two wavevectors with contrasts and noise of their own, the second five times as quiet."""
    return [
        tt.simulate(
            CASE.model, np.asarray(CASE.truth), t=TIMES, q=q, phi=np.asarray(CASE.phi),
            contrast=contrast, offset=1.0, noise=noise, key=jax.random.key(k),
        )
        for k, (q, contrast, noise) in enumerate(zip((Q, OTHER_Q), CONTRASTS, NOISES, strict=True))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def data(parts) -> tt.TwoTimeData:
    return tt.join(*parts)


@pytest.fixture(scope="module")
def fit(data) -> tt.NLSQResult:
    return tt.fit_nlsq(CASE.model, data, CASE.space, per_angle_mode="averaged")


def test_simulation_and_correlation_take_a_wavevector_for_each_matrix(parts):
    phi = np.asarray(CASE.phi)
    at = {"t": TIMES, "q": np.repeat([Q, OTHER_Q], 2), "phi": np.tile(phi, 2)}
    found = tt.correlation(CASE.model, np.asarray(CASE.truth), **at)
    for k, q in enumerate((Q, OTHER_Q)):
        alone = tt.correlation(CASE.model, np.asarray(CASE.truth), t=TIMES, q=q, phi=phi)
        np.testing.assert_array_equal(found[2 * k : 2 * k + 2], alone)
    speckle = tt.simulate_speckle(
        CASE.model, np.asarray(CASE.truth), contrast=0.5, n_pixels=2, key=jax.random.key(0), **at
    )
    assert speckle.rings == (0, 0, 1, 1)


@pytest.mark.parametrize("evaluator", [Tiled(8), Separable(8)], ids=["tiled", "factored"])
def test_gram_matrices_are_those_of_each_wavevector_alone(parts, data, evaluator):
    weight = np.array([1.0, 1.0, 4.0, 4.0])
    params, free, shift = jnp.asarray(CASE.truth), (True, True, False), jnp.asarray(1.0)

    @jax.jit
    def grams(some: tt.TwoTimeData):
        return evaluator.gram(CASE.model, some, params, free, shift, evaluator.prepare(some, shift))

    alone = np.concatenate([grams(part) for part in parts])
    together = grams(dataclasses.replace(data, weight=weight))
    np.testing.assert_allclose(together, weight[:, None, None] * alone, rtol=1e-12)


def test_rings_are_weighed_by_their_noise(fit):
    assert fit.converged and fit.rings == (0, 0, 1, 1)
    ratio = float(fit.weight[2] / fit.weight[0])
    assert ratio == pytest.approx((NOISES[0] / NOISES[1]) ** 2, rel=0.3)
    assert fit.weight[0] == fit.weight[1] and np.mean(fit.weight) == pytest.approx(1.0)
    assert np.unique(np.asarray(fit.contrast)) == pytest.approx(sorted(CONTRASTS), abs=3e-3)
    for name in fit.names:
        assert abs(fit.params[name] - CASE.value(name)) < 3 * fit.uncertainties[name]


def test_a_joint_fit_is_the_product_of_single_ones(parts, fit):
    alone = [tt.fit_nlsq(CASE.model, part, CASE.space, per_angle_mode="averaged") for part in parts]
    information = [np.linalg.inv(one.covariance) for one in alone]
    covariance = np.linalg.inv(sum(information))
    values = covariance @ sum(
        i @ np.asarray(one.values)[:2] for i, one in zip(information, alone, strict=True)
    )
    deviation = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(values - np.asarray(fit.values)[:2]) < 0.2 * deviation)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.covariance)), deviation, rtol=0.1)
    smallest = np.min([list(one.uncertainties.values()) for one in alone], axis=0)
    assert np.all(np.array(list(fit.uncertainties.values())) < smallest)


def test_what_is_known_of_a_joint_fit_is_reduced_with_its_weights(data, fit):
    again = tt.optimum(CASE.model, data, CASE.space, fit)
    assert float(again.reduced.chi2) == pytest.approx(float(fit.chi2), rel=1e-9)


def test_one_ring_with_wavevectors_of_its_own_is_fitted_as_one_wavevector():
    alone = tt.fit_nlsq(CASE.model, CASE.data, CASE.space, per_angle_mode="averaged")
    own = dataclasses.replace(CASE.data, q=np.array([Q, Q]), rings=(0, 0))
    found = tt.fit_nlsq(CASE.model, own, CASE.space, per_angle_mode="averaged")
    assert found.weight is None and found.photons.shape == ()
    np.testing.assert_allclose(found.values, alone.values, rtol=1e-9)
    np.testing.assert_allclose(found.covariance, alone.covariance, rtol=1e-6)


def test_modes_share_contrast_and_offset_within_rings():
    phi, rings = jnp.asarray([0.0, 0.0, 60.0, 60.0]), (0, 1, 0, 1)
    both = np.array([[1.0, 0.0], [0.0, 1.0]] * 2)
    assert np.array_equal(resolve_mode("averaged", rings).basis(phi), both)
    assert np.array_equal(Averaged().basis(phi), np.ones((4, 1)))
    own = resolve_mode("individual", rings).scaling(phi, jnp.zeros(2), jnp.ones(2))
    shared = own.shared(jnp.asarray(True))
    assert np.array_equal(shared.basis, np.hstack([both, np.zeros((4, 2))]))
    assert np.asarray(shared.upper).tolist() == [[1.0, 1.0]] * 2 + [[0.0, 0.0]] * 2
    assert np.array_equal(own.shared(jnp.asarray(False)).basis, np.eye(4))
    series = resolve_mode("fourier", rings)
    assert series.basis(phi).shape == (4, 10)
    assert np.array_equal(series.basis(phi)[:, [0, 5]], both)
    alone = Fourier().basis(phi[1::2])
    np.testing.assert_allclose(np.asarray(series.basis(phi))[1::2, 5:], alone)
    assert series.waves(10).tolist() == ([False] + [True] * 4) * 2


def test_the_data_decide_from_three_angles_of_a_ring_on():
    assert resolve_mode("auto", (0, 0, 1, 1)) == Individual((0, 0, 1, 1))
    assert resolve_mode("auto", (0, 0, 0, 1)).is_decided
    assert not resolve_mode("auto", (0, 0)).is_decided and resolve_mode("auto", (0,) * 3).is_decided


def test_photons_are_counted_for_each_ring():
    rng = np.random.default_rng(0)

    def some(n):
        # Neighbours share half of what squares have, and less where there are more photons.
        expected = np.stack([np.ones(n), np.full(n, 2.0), np.ones(n)], axis=1)
        beside = np.stack([np.full(n, 0.9), np.full(n, 0.5), np.zeros(n)], axis=1)
        squares = rng.uniform(1, 2, n)
        return squares, 0.4 * squares, expected, beside, np.ones(n)

    one, two = some(2), some(3)
    two = (two[0], 0.7 * two[0], *two[2:])
    joined = [jnp.concatenate(x) for x in zip(one, two, strict=True)]
    rings = (0, 0, 1, 1, 1)
    none = [jnp.zeros((n, 3)) for n in (2, 3, 5)]
    found = solve_noise(Moments(*joined), none[2], jnp.ones(5), rings)
    for k, (alone, n) in enumerate(((one, 2), (two, 3))):
        moments = Moments(*map(jnp.asarray, alone))
        inverse, pixels, left = solve_noise(moments, none[k], jnp.ones(n), ())
        assert inverse.shape == () and found[0][k] == pytest.approx(float(inverse), rel=1e-12)
        here = np.asarray(rings) == k
        np.testing.assert_allclose(found[1][here], pixels)
        np.testing.assert_allclose(found[2][here], left)
    assert found[0][0] > found[0][1] > 0
    powers = photon_powers(jnp.asarray([0.0, 2.0]), (1, 0))
    assert powers.tolist() == [[1.0, 2.0, 4.0], [1.0, 0.0, 0.0]]


def test_the_posterior_of_listed_points_is_that_of_the_planes(data, fit):
    weighed = dataclasses.replace(data, weight=np.asarray(fit.weight))
    mode = resolve_mode("averaged", data.ring)
    made = make_posterior(
        CASE.model, weighed, CASE.space, mode, Tiled(), scaling="marginal", noise=SampledNoise()
    )
    place, _ = shards.position_of_fit(made, fit)
    both = [jax.jit(lambda p, x: p.log_density(x))(p, place) for p in (made, shards.listed(made))]
    assert float(both[0]) == pytest.approx(float(both[1]), rel=1e-10)
    sampled = make_posterior(
        CASE.model, weighed, CASE.space, mode, Tiled(), scaling="sampled", noise=SampledNoise()
    )
    place, _ = shards.position_of_fit(sampled, fit)
    n = len(fit.names)
    found = sampled.scaling.sampled.to_values(jnp.asarray(place[n : n + 4]))
    expected = [*np.asarray(fit.contrast)[[0, 2]], *np.asarray(fit.offset)[[0, 2]]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_words_and_figures_say_which_wavevector(data, fit):
    table = scaling_table(fit)
    assert [row[:2] for row in table.rows] == [("0.005", "all"), ("0.0075", "all")]
    assert "least squares on 4 matrices at 2 wavevectors" in fit.report()
    assert any("relative weights:" in line and "(q = 0.0075)" in line for line in remarks(fit))
    assert where(fit.q, fit.phi, 3) == "q = 0.0075 Å⁻¹, φ = 90°"
    assert where(jnp.asarray(0.01), fit.phi, 3) == "φ = 90°"
    assert fit.summary()["wavevector_q"].shape == (4,)
    arrays = {"q": np.asarray(data.q), "phi": np.asarray(data.phi)}
    assert figures._place(arrays, 2) == "q = 0.0075 Å⁻¹, φ = 0°"
    lines = [line for line in figures.scaling(fit).axes[0].lines if line.get_linestyle() == "-"]
    assert [len(line.get_xdata()) for line in lines] == [2, 2]
    words = [text.get_text() for text in figures.scaling(fit).axes[0].texts]
    assert words == [" q = 0.005 Å⁻¹", " q = 0.0075 Å⁻¹"]


def test_a_joint_fit_is_saved_and_read_again(tmp_path, fit):
    fit.save(tmp_path / "a")
    again = tt.load_result(tmp_path / "a")
    assert again.rings == fit.rings and again.weight.tolist() == fit.weight.tolist()
    assert again.q.tolist() == fit.q.tolist()
