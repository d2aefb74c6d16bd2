"""Posteriors of speckle movies: small versions of benchmarks/posteriors.py, and it whole."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks/posteriors.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_a_fit_on_a_bound_has_a_posterior_as_wide_as_the_noise(benchmark):
    post, fit, _ = next(benchmark.held_movies(1))
    sd = benchmark.BOUND / 1.5
    assert "D_offset" in fit.at_bound and np.isnan(fit.uncertainties["D_offset"])
    assert 0.2 < post.uncertainties["D_offset"] / sd < 1.0
    low, high = post.draws[..., 1].min(), post.draws[..., 1].max()
    assert -benchmark.BOUND <= low < high <= benchmark.BOUND


@pytest.mark.statistics
def test_posteriors_under_priors_are_as_wide_as_conjugate_ones(benchmark):
    for width, found in benchmark.under_priors(60).items():
        print(width, found.ratio.mean(), found.ratio.std(), found.place.mean(), found.place.std())
        assert found.ratio.mean() == pytest.approx(1.0, abs=0.1)


@pytest.mark.statistics
def test_intervals_of_a_parameter_held_on_a_bound_hold_the_truth(benchmark):
    covered = benchmark.on_bound(60)["D_offset"]
    print(covered)
    assert 0.55 < covered[0] < 0.80 and covered[1] > 0.88


@pytest.mark.statistics
def test_posteriors_of_few_photons_hold_the_truth_and_tell_of_a_wrong_prior(benchmark):
    covered, _, told, asked = benchmark.starved(60)
    print(covered)
    assert 0.55 < covered[0] < 0.82 and covered[1] > 0.88 and told == asked
