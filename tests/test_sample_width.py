"""The correction of a posterior's width: its likelihood, on bounds and off, and its words."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import static_case

import twotime as tt
from twotime.gram import Tiled
from twotime.gram.problem import make_problem
from twotime.models.scaling import Averaged, Fourier, Frozen, Individual
from twotime.sample.coordinates import parameter_coordinates
from twotime.sample.density import NOISES, make_posterior
from twotime.sample.shards import Sharding, listed, shard_posteriors
from twotime.sample.width import WIDTHS, Information, linearise

TRUTH = (1e4, -0.3, 0.0)


def speckle(angles=1, frames=40):
    """A movie, and a space with two free parameters."""
    data = tt.simulate_speckle(
        tt.StaticDiffusion(), jnp.asarray(TRUTH), t=0.1 * jnp.arange(1, frames + 1), q=0.01,
        phi=40.0 * jnp.arange(angles), contrast=0.25, n_pixels=2000, key=jax.random.key(3),
    )  # fmt: skip
    space = tt.ParameterSpace(registry=tt.REGISTRIES["static"])
    space = space.with_values(dict(zip(space.names, TRUTH, strict=True)))
    return tt.StaticDiffusion(), data, space.with_vary({"D_offset": False})


def information(case, fit, mode):
    problem = make_problem(*case, mode, Tiled())
    return linearise(problem, parameter_coordinates(case[2]), fit)


def posterior(case, scaling, mode, found):
    p = make_posterior(*case, mode, Tiled(), scaling=scaling, noise=NOISES["sampled"])
    return eqx.tree_at(lambda p: p.adjustment, p, found.adjustment(), is_leaf=lambda x: x is None)


@pytest.fixture(scope="module")
def case():
    return speckle()


@pytest.fixture(scope="module")
def fit(case):
    return tt.fit_nlsq(*case)


@pytest.fixture(scope="module")
def found(case, fit):
    return information(case, fit, Individual())


def test_what_the_data_say_of_parameters_is_the_fit(found, fit):
    """Off bounds, deviations and correlations are those of the fit, D0 by its logarithm."""
    values, sd = fit.params, fit.uncertainties
    expected = [sd["D0"] / values["D0"], sd["alpha"]]
    np.testing.assert_allclose(found.deviations[:2], expected, rtol=1e-4)
    np.testing.assert_allclose(found.centre, [np.log(values["D0"]), values["alpha"]], rtol=1e-12)
    naive = [fit.uncertainties_iid["D0"] / values["D0"], fit.uncertainties_iid["alpha"]]
    np.testing.assert_allclose(
        WIDTHS["curvature"].ratio(found), np.divide(expected, naive), rtol=1e-4
    )
    assert np.all(found.deviations[2:] > 1e-4) and np.all(found.deviations[2:] < 0.05)
    assert np.abs(found.score).max() < 0.1


def test_the_map_turns_the_information_into_the_robust_one(found):
    """CᵀHC = (H⁻¹BH⁻¹)⁻¹; parameters by themselves with the symmetric root in the metric of H."""
    matrix, n = found.adjustment().matrix, 2
    hessian = found.unit.T @ found.unit
    back = np.linalg.inv(found.unit)
    robust = np.linalg.inv(back @ found.spread @ back.T)
    size = np.sqrt(np.diag(robust))
    unit = np.outer(size, size)
    np.testing.assert_allclose(matrix.T @ hessian @ matrix / unit, robust / unit, atol=1e-8)
    assert np.abs(matrix[:n, n:]).max() < 1e-9
    own = np.linalg.inv((back @ back.T)[:n, :n])
    moved = own @ matrix[:n, :n]
    np.testing.assert_allclose(moved, moved.T, rtol=1e-8)
    same = found._replace(spread=np.eye(4)).adjustment()
    np.testing.assert_allclose(same.matrix, np.eye(4), atol=1e-9)


@pytest.mark.parametrize("scaling", ["sampled", "marginal"])
def test_likelihoods_are_as_wide_as_the_error_bars_of_the_fit(scaling, case, fit, found):
    """Curvature of the posterior without priors, at the fit: second order terms are small."""
    p = posterior(case, scaling, Individual(), found)
    p = eqx.tree_at(lambda p: p.share, p, jnp.asarray(1e-12))
    p = eqx.tree_at(lambda p: p.adjustment.pull, p, p.adjustment.pull * 1e12)
    values = jnp.asarray([fit.params["D0"], fit.params["alpha"]])
    z = p.coordinates.from_values(values)
    parts = [z]
    if scaling == "sampled":
        parts.append(p.scaling.sampled.from_values(jnp.asarray([fit.contrast[0], fit.offset[0]])))
    level = 0.5 * jnp.log(fit.chi2 / fit.dof)
    place = jnp.concatenate(parts)
    turn = jax.jit(jax.hessian(lambda v: p.log_density(jnp.append(v, level))))(place)
    covariance = np.linalg.inv(-np.asarray(turn))
    slope = np.asarray(p.coordinates.slope(z)) / np.array([fit.params["D0"], 1.0])
    expected = found.deviations[:2] / slope
    np.testing.assert_allclose(np.sqrt(np.diag(covariance))[:2], expected, rtol=0.06)
    if scaling == "sampled":
        slope = np.asarray(p.scaling.sampled.slope(parts[1]))
        sd = np.sqrt(np.diag(covariance))[2:] * slope
        np.testing.assert_allclose(sd, found.deviations[2:], rtol=0.06)


def quadratic(found: Information, psi):
    """Log likelihood of independent points about the fit, if it is a quadratic form."""
    u = found.unit @ (psi - np.concatenate([found.centre, found.coefficients]))
    return found.score @ u - 0.5 * u @ u


def test_on_a_bound_the_optimum_stays_where_the_data_put_it(found):
    """Score and curvature of the adjusted quadratic: its optimum and its width."""
    score = np.array([3.0, -1.0, 0.5, 2.0])
    held = found._replace(score=score)
    change, centre = held.adjustment(), np.concatenate([found.centre, found.coefficients])

    def adjusted(psi):
        away = psi - centre
        linear = change.pull @ away / held.variance
        return quadratic(held, centre + change.matrix @ away) + linear

    size = np.concatenate([found.deviations])
    optimum = centre + np.linalg.solve(found.unit, score)
    robust = np.linalg.inv(found.unit) @ found.spread @ np.linalg.inv(found.unit).T
    precision = np.linalg.inv(robust)
    rng = np.random.default_rng(0)
    for away in 2 * size * rng.normal(size=(5, 4)):
        expected = -0.5 * away @ precision @ away
        assert adjusted(optimum + away) - adjusted(optimum) == pytest.approx(expected, rel=1e-6)


def test_adjusted_chi2_is_that_of_the_mapped_point(case, found):
    """Less the linear term: the form of contrast and offset against one evaluation there."""
    held = found._replace(score=np.array([3.0, -1.0, 0.5, 2.0]))
    p = posterior(case, "sampled", Individual(), held)
    change, n = held.adjustment(), 2
    centre = np.concatenate([held.centre, held.coefficients])
    psi = centre + 2 * held.deviations * np.array([0.7, -1.0, 0.4, 1.3])
    z = p.coordinates.from_values(jnp.asarray([np.exp(psi[0]), psi[1]]))
    there = centre + change.matrix @ (psi - centre)
    plain = eqx.tree_at(lambda p: p.adjustment, p, None)
    at = plain.coordinates.from_values(jnp.asarray([np.exp(there[0]), there[1]]))
    expected = plain.system(at).chi2(jnp.asarray(there[n:])) - 2 * change.pull @ (psi - centre)
    assert float(p.system(z).chi2(jnp.asarray(psi[n:]))) == pytest.approx(float(expected), rel=1e-9)


def test_offsets_on_a_bound_are_corrected_too(case, fit, found):
    model, data, space = case
    edge = float(fit.offset[0] - 0.1 * found.deviations[3])
    narrow = space.with_bounds({"offset": (0.5, edge)}).with_values({"offset": edge})
    held = tt.fit_nlsq(model, data, narrow)
    assert held.at_bound == ("offset",)
    there = information((model, data, narrow), held, Individual())
    np.testing.assert_allclose(there.deviations, found.deviations, rtol=0.1)


def test_shards_of_an_adjusted_likelihood_multiply_to_it(case, found):
    held = found._replace(score=np.array([3.0, -1.0, 0.5, 2.0]))
    p = posterior(case, "sampled", Individual(), held)
    parts = shard_posteriors(p, Sharding(n_shards=3))
    v = jnp.asarray([0.1, 0.2, -1.0, 0.1, -2.0])
    arrays, static = eqx.partition(parts, eqx.is_array_like)
    each = jax.vmap(lambda a: eqx.combine(a, static).log_density(v))(arrays)
    assert float(each.sum()) == pytest.approx(float(p.log_density(v)), rel=1e-10)
    assert float(listed(p).log_density(v)) == pytest.approx(float(p.log_density(v)), rel=1e-10)


def test_parameters_that_the_fit_holds_on_a_bound_are_corrected_too(case, fit, found):
    """Their deviation is that of wide bounds, their score that of the slope beyond the bound."""
    model, data, space = case
    edge = fit.params["alpha"] - 0.2 * fit.uncertainties["alpha"]
    narrow = space.with_bounds({"alpha": (-2.0, edge)}).with_values({"alpha": edge})
    held = tt.fit_nlsq(model, data, narrow)
    assert held.at_bound == ("alpha",) and np.isnan(held.uncertainties["alpha"])
    there = information((model, data, narrow), held, Individual())
    np.testing.assert_allclose(there.deviations, found.deviations, rtol=0.1)
    psi = np.concatenate([there.centre, there.coefficients])
    optimum = psi + np.linalg.solve(there.unit, there.score)
    assert optimum[1] == pytest.approx(fit.params["alpha"], abs=0.03 * found.deviations[1])


@pytest.mark.parametrize(
    "mode",
    [pytest.param(m, marks=pytest.mark.long) for m in (Averaged(), Frozen())] + [Fourier()],
    ids=lambda m: m.word,
)
def test_every_way_to_share_contrast_and_offset_is_corrected(mode):
    model, data, space = speckle(angles=3, frames=24)
    fit = tt.fit_nlsq(model, data, space, per_angle_mode=mode, uncertainty="speckle")
    found = information((model, data, space), fit, mode)
    expected = [fit.uncertainties["D0"] / fit.params["D0"], fit.uncertainties["alpha"]]
    np.testing.assert_allclose(found.deviations[:2], expected, rtol=1e-4)
    assert len(found.deviations) == 2 + {"averaged": 2, "constant": 0, "fourier": 10}[mode.word]
    assert np.isfinite(found.adjustment().matrix).all()


def test_what_the_data_do_not_determine_is_left_alone():
    """Of two angles a series of five waves determines two combinations."""
    model, data, space = speckle(angles=2, frames=24)
    fit = tt.fit_nlsq(model, data, space, per_angle_mode="fourier")
    found = information((model, data, space), fit, Fourier())
    assert found.is_null.sum() == 6 and np.isinf(found.deviations).any()
    assert np.isfinite(found.deviations[:2]).all()
    null = np.linalg.inv(found.unit)[:, found.is_null]
    np.testing.assert_allclose(found.adjustment().matrix @ null, null, atol=1e-6)


def test_tempering_is_one_power_for_all_directions(found):
    spread = np.diag([4.0, 9.0, 1.0, 1.0])
    wide = found._replace(spread=spread)
    assert WIDTHS["tempering"].changes(wide)["power"] == pytest.approx(1 / 6)
    np.testing.assert_allclose(WIDTHS["tempering"].ratio(wide), 6**0.5)
    narrow = found._replace(spread=spread / 100)
    assert WIDTHS["tempering"].changes(narrow)["power"] == 1.0


def test_variances_far_below_those_of_independent_points_are_not_believed(found):
    tiny = found._replace(spread=1e-6 * np.eye(4)).adjustment()
    np.testing.assert_allclose(tiny.matrix, 10 * np.eye(4), atol=1e-6)


def test_words_and_error_bars_that_are_missing(found):
    assert WIDTHS["sandwich"] is WIDTHS["curvature"] and WIDTHS["none"].changes(found) == {}
    none = found._replace(spread=np.full((4, 4), np.nan))
    for word in ("curvature", "tempering"):
        with pytest.raises(ValueError, match="no finite error bars"):
            WIDTHS[word].changes(none)


def test_independent_points_are_hardly_corrected():
    """Noise of its own at every point: the map is 1 within the error of measuring it."""
    case = static_case(40)
    found = information(case, tt.fit_nlsq(*case), Individual())
    assert np.all(np.abs(WIDTHS["curvature"].ratio(found) - 1) < 0.2)
