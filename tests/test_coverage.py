"""Whether intervals hold the truth: small versions of benchmarks/coverage.py, and a known file."""

import importlib.util
import json
import re
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks/coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_few_fits_scatter_about_as_much_as_they_report(benchmark):
    """A smoke of the statistics below: independent points would report a third at most."""
    found = benchmark.fit_many(benchmark.CASES["static, 15 frames"]._replace(repeats=16))
    assert found.converged > 0.9
    assert 0.6 < np.median(found.ratio()) < 1.6
    assert np.median(found.ratio(iid=True)) > 2


@pytest.mark.statistics
@pytest.mark.parametrize(
    ("title", "repeats"),
    [("static, 15 frames", 150), ("laminar, 10 frames", 60), ("two components, 10 frames", 100)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(benchmark, title, repeats):
    case = benchmark.CASES[title]._replace(repeats=repeats)
    found = benchmark.fit_many(case)
    low, high, iid = found.coverage(1), found.coverage(1.96), found.coverage(1, iid=True)
    print(f"{title}: 68 % {low}, 95 % {high}, 68 % as if independent {iid}")
    # 60-76 and 88-98 %, widened by two standard deviations of so few repeats.
    spread = 2 * np.sqrt(0.68 * 0.32 / repeats)
    assert found.converged > 0.95
    assert np.all((low > 0.60 - spread) & (low < 0.76 + spread))
    assert np.all(high > 0.88 - spread)
    assert 0.60 < low.mean() < 0.76
    assert 0.88 < high.mean() < 0.98
    assert iid.max() < 0.4


@pytest.mark.statistics
@pytest.mark.parametrize(
    "title", ["static, 0.05 photons", "static, 0.5 photons", "static, no shot noise"]
)
def test_scatter_equals_what_is_reported_from_few_photons_to_none(benchmark, title):
    case = benchmark.CASES[title]
    case = case._replace(repeats=100)
    ratio = benchmark.fit_many(case).ratio()
    print(title, ratio)
    # 0.85-1.2, widened by the 7 % that a standard deviation from 100 repeats is uncertain by.
    assert np.all((ratio > 0.78) & (ratio < 1.28))
    assert 0.85 < np.median(ratio) < 1.2


@pytest.mark.statistics
def test_both_figures_agree_where_pixels_are_independent(benchmark):
    case = benchmark.CASES["static, independent pixels"]._replace(repeats=40)
    found = benchmark.fit_many(case)
    np.testing.assert_allclose(np.median(found.robust / found.iid, axis=0), 1.0, atol=0.15)


def test_the_documented_figures_are_those_measured(benchmark):
    kept = json.loads((ROOT / "benchmarks/coverage.json").read_text(encoding="utf-8"))
    assert set(kept) == set(benchmark.CASES)
    page = (ROOT / "docs/uncertainty.md").read_text(encoding="utf-8")
    assert benchmark.table(kept) in page
    for title, case in benchmark.CASES.items():
        assert kept[title].items() >= case._asdict().items()
    for name in set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", page)):
        assert (ROOT / "docs" / name).exists()


def known_files(shared):
    """Truth and data of both q of the file whose truth is known."""
    truth = json.loads((shared / "data/laminar_truth.json").read_text())
    par, bins = truth["par"], np.asarray(truth["natural_bins"])
    own_names = ("D0", "alpha", "D_offset", "gamma_dot_0", "beta", "gamma_dot_offset", "phi0")
    values = dict(zip(tt.LaminarFlow(gap=2e6).names, (par[k] for k in own_names), strict=True))
    with h5py.File(shared / "data/laminar_boost_corr_results.hdf") as file:
        maps = file["xpcs/twotime/correlation_map"]
        planes = np.stack([maps[f"c2_{k + 1:05d}"][()] for k in range(bins.size)]).astype(float)
    t = np.arange(planes.shape[1]) * truth["dt"] + truth["t_first"]
    for k, q in enumerate(truth["q"]):
        own = bins // 12 == k
        phi = np.asarray(truth["phi_deg"])[bins[own] % 12]
        yield values, tt.TwoTimeData(planes[own], t, q, phi)


@pytest.mark.long
def test_the_truth_of_a_known_file_lies_within_its_error_bars(shared):
    model, missed = tt.LaminarFlow(gap=2e6), []
    for values, data in known_files(shared):
        space = tt.ParameterSpace(values=values, vary=dict.fromkeys(values, True))
        fit = tt.fit_nlsq(model, data, space, per_angle_mode="individual")
        middle = data.t.size // 2
        true = model.functions(jnp.asarray(list(values.values())), t=jnp.asarray(data.t))
        error = fit.params["phi0"] - values["phi0"]
        robust = {"phi0": error / fit.uncertainties["phi0"]}
        independent = {"phi0": error / fit.uncertainties_iid["phi0"]}
        for name in ("J", "strain"):
            for iid, found in ((False, robust), (True, independent)):
                band = tt.delta_bands(model, fit, jnp.asarray(data.t), iid=iid)[name]
                deviation = 0.5 * (band.upper - band.lower)[middle]
                found[name] = float((band.values - true[name].values)[middle] / deviation)
        print(f"q = {float(data.q):.5f} 1/Å, deviations: {robust}, as if independent {independent}")
        assert max(map(abs, robust.values())) < 2.5
        missed.append(max(map(abs, independent.values())))
    assert min(missed) > 2.5
