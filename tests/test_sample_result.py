"""Diagnostics against limits, draws made into a result, and predictions."""

import dataclasses

import numpy as np
import pytest
from sampling import FEW, static_case

import twotime as tt
from twotime.results.cmc import Limits
from twotime.sample.chains import Trace
from twotime.sample.result import Convergence, converged_shards, convergence


def chains(position, energy, divergent, depth):
    none = np.zeros(position.shape[:3])
    return Trace(position, position, none, energy, divergent, depth, none, none)


def test_diagnostics_tell_good_chains_from_bad():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(1, 4, 500, 1))
    apart = good + np.arange(4)[None, :, None, None]
    energy, zero = rng.normal(size=(1, 4, 500)), np.zeros((1, 4, 500))
    fine = convergence(chains(good, energy, zero, zero), 10)
    bad = convergence(chains(apart, np.cumsum(energy, axis=2), zero + 1, zero + 10), 10)
    assert fine.r_hat[0, 0] < 1.01 < 1.5 < bad.r_hat[0, 0]
    assert fine.ess_bulk[0, 0] > 1500 > 50 > bad.ess_bulk[0, 0]
    assert fine.bfmi.min() > 1.5 and bad.bfmi.max() < 0.1
    assert bad.divergences[0] == 2000 and bad.deepest[0] == 1 and fine.deepest[0] == 0
    assert converged_shards(fine, Limits()).tolist() == [True]
    assert converged_shards(bad, Limits()).tolist() == [False]


GOOD = {"r_hat": 1.009, "ess_bulk": 401.0, "ess_tail": 401.0, "bfmi": 0.31, "divergences": 0.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [("r_hat", 1.011), ("r_hat", np.nan), ("ess_bulk", 399.0), ("ess_tail", 399.0),
     ("bfmi", 0.29), ("divergences", 1.0)],
)  # fmt: skip
def test_each_default_limit_decides_for_its_shard(name, value):
    """Two shards, of which the second breaks one limit in one coordinate."""
    numbers = {key: np.full((2, 2), x) for key, x in GOOD.items()}
    numbers["divergences"] = np.zeros(2)
    numbers[name][1, ...] = value if name == "divergences" else [GOOD[name], value]
    found = Convergence(**numbers, deepest=np.zeros(2))
    assert converged_shards(found, Limits()).tolist() == [True, False]


def test_default_limits_of_weights():
    assert (Limits().max_pareto_k, Limits().max_reduced_chi2) == (0.7, None)


@pytest.mark.long
def test_posteriors_at_another_optimum_or_against_a_prior_say_so(post):
    """Three standard deviations, and one chance in a hundred of all priors together."""
    good = dataclasses.replace(post, shard_converged=np.array([True]))
    for misplaced, agrees in ((4.4, True), (4.6, False)):
        found = dataclasses.replace(good, misplaced=np.asarray(misplaced))
        assert found.converged == agrees == found.status.startswith("converged")
    one = np.ones(2)
    for chance, is_told in ((0.004, True), (0.006, False)):
        found = dataclasses.replace(
            good, prior_names=("D0", "noise"), prior_means=one, prior_deviations=one,
            prior_chances=np.array([chance, 0.5]), data_estimates=4 * one, data_errors=one,
        )  # fmt: skip
        assert found.converged and ("3.0 prior deviations above" in found.status) == is_told


@pytest.mark.long
def test_predictions_cover_the_data(post):
    from twotime.sample.result import predictive

    model, data, _ = static_case(24)
    mean, deviation = predictive(post, model, data, 50)
    early, late = np.triu_indices(24, 1)
    pull = ((np.asarray(data.c2) - mean) / deviation)[0, early, late]
    assert pull.std() == pytest.approx(1.0, abs=0.12)
    assert deviation.min() >= 0.9 * post.noise.mean()
    known = dataclasses.replace(data, sigma=np.asarray(0.5))
    assert predictive(post, model, known, 50)[1].min() >= 0.5
    with pytest.raises(ValueError, match="n_draws"):
        predictive(post, model, data, 0)


@pytest.fixture(scope="module")
def post():
    import jax

    case = static_case(24)
    return tt.fit_cmc(*case, key=jax.random.key(1), width="none", **FEW)
