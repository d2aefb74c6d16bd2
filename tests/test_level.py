"""The level of the data: baselines, what cannot be fitted, and bounds that follow the data."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from cases import BY_NAME

import twotime as tt
from twotime.config.manager import ConfigManager
from twotime.covariance.misfit import residual_structure
from twotime.data import load_with_report
from twotime.data.dataset import TwoTimeData
from twotime.data.level import baseline_of, check_level, level_of
from twotime.data.scales import space_for
from twotime.errors import DataError

CASE = BY_NAME["static"]
N = 40
T = 0.1 * np.arange(1, N + 1)
LAG = np.abs(np.subtract.outer(np.arange(N), np.arange(N)))


def decaying(tau=5.0, contrast=0.2, noise=0.01, baseline=1.0, n=N):
    """One matrix of a stationary decay with pixel noise."""
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    eps = np.random.default_rng(3).normal(0, noise, (n, n))
    c2 = 1.0 + contrast * np.exp(-lag / tau) + np.triu(eps) + np.triu(eps, 1).T
    c2 = c2 - 1.0 + baseline
    return TwoTimeData(c2[None], 0.1 * np.arange(1, n + 1), 0.01, np.zeros(1), baseline=baseline)


def changed(data, function, baseline=1.0):
    c2 = function(np.asarray(data.c2))
    return dataclasses.replace(data, c2=c2, baseline=np.asarray(baseline))


def space():
    return tt.ParameterSpace(vary={"D_offset": False, "alpha": False}, values={"D_offset": 0.0})


def complaint(data, asked=None, unknown=4):
    asked = space_for(tt.StaticDiffusion(), data, asked or space())
    with pytest.raises(ValueError) as caught:
        check_level(data, asked, unknown)
    return str(caught.value)


def accepts(data, asked=None):
    check_level(data, space_for(tt.StaticDiffusion(), data, asked or space()), 4)
    return True


# Baselines


def test_c2_and_c2_minus_one_are_the_same_fit():
    data = jax.tree.map(np.asarray, CASE.data)
    less = changed(data, lambda c2: c2 - 1.0, baseline=0.0)
    fits = [tt.fit_nlsq(CASE.model, d, CASE.space) for d in (data, less)]
    told = [
        residual_structure(CASE.model, d, CASE.space, f)
        for d, f in zip((data, less), fits, strict=True)
    ]
    one, other = fits
    assert np.allclose(one.values, other.values, rtol=1e-9, atol=0)
    assert np.allclose(one.covariance, other.covariance, rtol=1e-4, atol=0)
    assert np.allclose(one.pixels, other.pixels, rtol=1e-6)
    assert np.allclose(np.asarray(one.offset) - 1, other.offset, rtol=0, atol=1e-9)
    assert np.allclose(one.contrast, other.contrast, rtol=1e-9)
    assert told[0].sentence == told[1].sentence
    assert one.converged and other.converged


@pytest.mark.parametrize(
    ("function", "baseline", "words"),
    [
        (lambda c: c - 1, 1.0, "look like c2 - 1 or g1².*baseline: 0 "),
        (lambda c: c, 0.0, "look like c2; set experimental_data.baseline: 1 "),
        (lambda c: 100 * c, 1.0, "percent.*scaling.offset: {min: 9.*scaling.contrast: {min: 0"),
        (lambda c: 100 * (c - 1), 0.0, "rescaled.*scaling.contrast: {min: 0"),
        (lambda c: 3 * c, 1.0, "rescaled numbers"),
        (lambda c: 0.3 * c, 1.0, "rescaled numbers|baseline: 0"),
        (lambda c: 1.7 * c, 1.0, "rescaled numbers"),
    ],
)
def test_levels_that_no_offset_and_contrast_can_have_are_told_with_the_key(
    function, baseline, words
):
    told = complaint(changed(decaying(), function, baseline))
    assert "on average at a lag of 1 frame" in told
    assert re.search(words, told), told


def test_bounds_that_the_sentence_names_lead_to_a_fit():
    data = changed(decaying(), lambda c: 100 * c)
    asked = space().with_bounds({"offset": (89.4, 111.0), "contrast": (0.0, 33.0)})
    assert accepts(data, asked)


def test_levels_of_ordinary_data_pass():
    for tau, contrast in ((5.0, 0.2), (400.0, 0.9), (0.3, 0.3), (5.0, 0.02)):
        assert accepts(decaying(tau, contrast)), (tau, contrast)
        assert accepts(decaying(tau, contrast, baseline=0.0)), (tau, contrast)


def test_the_baseline_is_the_nearer_one():
    assert baseline_of(level_of(decaying())) == 1.0
    assert baseline_of(level_of(decaying(baseline=0.0))) == 0.0
    assert baseline_of(level_of(changed(decaying(tau=400.0), lambda c: 0.9 * c))) == 1.0


def test_the_level_leaves_masked_and_missing_points_out():
    data = decaying()
    c2 = np.array(data.c2)
    c2[0, :5] = np.nan
    mask = np.ones(c2.shape, bool)
    mask[0, :, 30:] = False
    c2[0, :, 30:] = 1e6
    level = level_of(dataclasses.replace(data, c2=c2, mask=mask))
    assert level.short == pytest.approx(1 + 0.2 * np.exp(-0.2), abs=0.01)
    assert level.long == pytest.approx(1.0, abs=0.02)


# What cannot be fitted


@pytest.mark.parametrize("noise", [0.0, 1e-15, 0.05])
def test_a_matrix_without_a_decay_is_nothing_to_fit(noise):
    told = complaint(decaying(contrast=0.0, noise=noise))
    assert told.startswith("Nothing to fit: c2 is ") and "frame time" in told
    assert "Nothing to fit" in complaint(decaying(tau=np.inf, noise=noise))


def test_a_faint_decay_is_something_to_fit():
    assert accepts(decaying(contrast=1e-6, noise=0.0))
    assert accepts(decaying(contrast=0.02, noise=0.05))
    # Correlations that begin low, as those of an oscillation faster than a frame may.
    c2 = np.where(LAG == 1, 0.9, 1.0)[None]
    assert accepts(dataclasses.replace(decaying(), c2=c2))


def test_fit_refuses_a_constant_and_fewer_points_than_unknowns():
    flat = dataclasses.replace(decaying(), c2=np.ones((1, N, N)))
    with pytest.raises(ValueError, match="Nothing to fit"):
        tt.fit_nlsq(tt.StaticDiffusion(), flat, space())
    three = decaying(n=3)
    with pytest.raises(ValueError, match="3 usable points with t1 < t2 for 3 unknowns"):
        tt.fit_nlsq(tt.StaticDiffusion(), three, space())
    assert "Too few" not in complaint(changed(three, lambda c: 3 * c), unknown=2)


def test_a_fit_that_is_worse_than_a_constant_has_not_converged():
    asked = CASE.space.with_values({"offset": 1.4}).with_vary({"offset": False})
    fit = tt.fit_nlsq(CASE.model, CASE.data, asked)
    assert float(fit.r_squared) < 0
    assert not fit.converged
    assert "worse than a constant" in fit.status


# Files


def config(folder, *, file="a.npy", data="", q=0.01):
    text = (
        "analysis_mode: static\n"
        f"experimental_data: {{file_path: {file}{data}}}\n"
        f"analyzer_parameters: {{dt: 0.1, scattering: {{wavevector_q: {q}}}}}\n"
    )
    (folder / "c.yaml").write_text(text)
    return ConfigManager.from_yaml(folder / "c.yaml")


@pytest.mark.parametrize("key", ["", ", baseline: auto", ", baseline: 0"])
def test_a_file_of_c2_minus_one_is_recognised(tmp_path, key):
    np.save(tmp_path / "a.npy", np.asarray(decaying().c2) - 1)
    data, report = load_with_report(config(tmp_path, data=key))
    assert data.baseline == 0 and report.facts()["baseline"] == 0
    assert any("baseline of c2 is taken as 0" in note for note in report.notes) is ("0" not in key)
    assert np.array_equal(np.triu(data.c2[0], 1), np.triu(np.load(tmp_path / "a.npy")[0], 1))


def test_a_file_of_c2_has_baseline_one_unless_told(tmp_path):
    np.save(tmp_path / "a.npy", np.asarray(decaying().c2))
    data, report = load_with_report(config(tmp_path))
    assert data.baseline == 1 and not any("baseline" in note for note in report.notes)
    data, report = load_with_report(config(tmp_path, data=", baseline: 0"))
    assert data.baseline == 0 and "baseline is 0, but c2 is 1.1" in " ".join(report.notes)
    data, report = load_with_report(config(tmp_path, data=", baseline: 1"))
    assert data.baseline == 1 and "baseline" not in " ".join(report.notes)


def test_the_cache_keeps_the_baseline(tmp_path):
    np.save(tmp_path / "a.npy", np.asarray(decaying().c2) - 1)
    asked = config(tmp_path, data=", cache_file_path: kept")
    assert [load_with_report(asked)[0].baseline for _ in range(2)] == [0, 0]
    assert (
        load_with_report(config(tmp_path, data=", cache_file_path: kept, baseline: 1"))[0].baseline
        == 1
    )


def test_what_an_nxxpcs_file_says_of_its_baseline_must_agree_with_its_numbers(tmp_path):
    from test_data_nxxpcs import nxxpcs

    c2 = np.repeat(np.asarray(decaying().c2), 2, axis=0)
    nxxpcs(tmp_path / "a.nxs", c2 - 1, baseline_reference=0)
    data, report = load_with_report(config(tmp_path, file="a.nxs", q=0.002))
    assert data.baseline == 0 and "the file says so" in report.notes[-1]
    nxxpcs(tmp_path / "a.nxs", c2, baseline_reference=0)
    with pytest.raises(DataError, match="says that its baseline is 0, but c2 is 1.16.*: 1 or 0"):
        load_with_report(config(tmp_path, file="a.nxs", q=0.002))
    asked = config(tmp_path, file="a.nxs", data=", baseline: 1", q=0.002)
    assert load_with_report(asked)[0].baseline == 1


def test_elements_that_were_never_filled_are_masked_and_counted(tmp_path):
    c2 = np.array(decaying().c2[0])
    unfilled = LAG > 16
    np.save(tmp_path / "a.npy", np.where(unfilled, 0.0, c2))
    data, report = load_with_report(config(tmp_path))
    share = np.mean(unfilled[np.triu_indices(N, 1)])
    assert any(f"{share:.2%} of the elements are exactly 0 and were" in x for x in report.notes)
    assert not data.mask[0][unfilled].any() and data.mask[0][(LAG > 0) & ~unfilled].all()
    assert data.baseline == 1


def test_zeros_of_frames_with_hardly_any_photons_stay(tmp_path):
    rng = np.random.default_rng(0)
    c2 = np.triu(rng.poisson(0.7, (N, N)) / 0.7, 1)
    np.save(tmp_path / "a.npy", c2 + c2.T + np.eye(N))
    data, report = load_with_report(config(tmp_path))
    assert data.mask[0][LAG > 0].all()
    assert any("exactly 0 and are taken as data" in note for note in report.notes)


def test_one_zero_is_not_worth_a_note(tmp_path):
    c2 = np.array(decaying(n=60).c2[0])
    c2[3, 50] = c2[50, 3] = 0.0
    np.save(tmp_path / "a.npy", c2)
    assert not any("exactly 0" in note for note in load_with_report(config(tmp_path))[1].notes)


# Bounds that follow the data


def colloid(J=4e8, q=2e-3, dt=1e-4):
    """Brownian motion in water: J as large as this for particles of 10 nm."""
    data = decaying(tau=1 / (q * q * J * dt))
    return dataclasses.replace(data, q=np.asarray(q), t=dt * np.arange(1, N + 1))


def test_bounds_nobody_gave_follow_q_and_times():
    data, model = colloid(), tt.StaticDiffusion()
    slowest, fastest = 0.1 / (4e-6 * 39e-4), 10 / (4e-6 * 1e-4)
    made = space_for(model, data, tt.ParameterSpace(registry=space().registry))
    low, high = made.bounds["D0"]
    assert low == pytest.approx(min(100, slowest * 4e-3)) and high == pytest.approx(fastest / 4e-3)
    assert made.bounds["D_offset"] == (pytest.approx(-fastest), pytest.approx(fastest))
    assert made.values["D0"] == pytest.approx(slowest) and made.values["D_offset"] == 0
    assert made.bounds["alpha"] == (-2, 2) and made.values["alpha"] == 0.5
    assert made.validate() == []
    again = space_for(model, data, made)
    for one, other in zip(jax.tree.leaves(made), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)
    traced = jax.jit(lambda d, s: space_for(model, d, s).lower)(data, space())
    np.testing.assert_allclose(traced, made.lower)


def test_registry_bounds_that_are_wide_enough_stay():
    asked = tt.ParameterSpace(registry=space().registry)
    made = space_for(tt.StaticDiffusion(), decaying(), asked)
    assert made.values == asked.values
    assert made.bounds["D0"][0] < 100 and made.bounds["D0"][1] > 1e5
    assert made.priors["D0"].params["loc"] == 1e3 and made.priors["D0"].params["scale"] == 1e3


def test_what_the_user_gave_stays():
    asked = tt.ParameterSpace(
        values={"D0": 500.0}, bounds={"D0": (200.0, 900.0), "offset": (0.6, 1.2)}
    )
    data = dataclasses.replace(colloid(), baseline=np.asarray(0.0))
    made = space_for(tt.StaticDiffusion(), data, asked)
    assert made.bounds["D0"] == (200, 900) and made.values["D0"] == 500
    assert made.bounds["offset"] == (0.6, 1.2)
    same = tt.ParameterSpace(bounds={"D0": (100.0, 1e5)})
    assert space_for(tt.StaticDiffusion(), data, same).bounds["D0"] == (100, 1e5)


def test_the_offset_follows_the_baseline():
    made = space_for(tt.StaticDiffusion(), decaying(baseline=0.0), space())
    assert made.bounds["offset"] == (-0.5, 0.5) and made.values["offset"] == 0
    assert made.priors["offset"].params == {"loc": 0, "scale": 0.25, "low": -0.5, "high": 0.5}
    assert made.bounds["contrast"] == (0, 1)


@pytest.mark.parametrize("name", ["laminar_flow", "two_component"])
def test_natural_rates_are_those_of_the_correlation(name):
    """At the natural rate 1/s the decay or phase of a second is 1."""
    model = BY_NAME[name].model
    phi = BY_NAME[name].space.values["phi0"]
    for one, rate in model.natural_rates(0.01).items():
        values = dict.fromkeys(model.names, 0.0) | {"f0": 0.5, "phi0": phi, one: 1 / rate}
        params = np.array([values[n] for n in model.names])
        t = np.array([1.0, 2.0])
        channels = model.channels(params, t, t=t, q=0.01, phi=np.asarray(phi))
        clocks = np.concatenate([channels.decay, channels.phase])
        moved = np.max(np.abs(clocks[:, 1] - clocks[:, 0]))
        assert moved == pytest.approx(0.5 if one in HALVES else 1.0, rel=1e-3), one


HALVES = ("D0_ref", "D_offset_ref", "D0_sample", "D_offset_sample")
"""Amplitudes of fields: the correlation decays twice as fast."""


def test_a_colloid_in_water_is_fitted_from_a_space_without_bounds():
    fit = tt.fit_nlsq(tt.StaticDiffusion(), colloid(), tt.ParameterSpace(values={"alpha": 0.0}))
    middle = np.sqrt(1e-4 * 4e-3)
    rate = fit.params["D0"] * middle ** fit.params["alpha"]
    assert fit.converged and fit.names == ("D0", "alpha")
    assert rate == pytest.approx(4e8, rel=0.1)


# What a record cannot show


def stationary(tau, n=N, contrast=0.3, noise=1e-3):
    asked = tt.ParameterSpace(
        values={"D0": 1 / (1e-4 * 0.1 * tau), "alpha": 0.0},
        vary={"alpha": False},
        bounds={"D0": (1e-4, 1e7)},
    )
    return tt.fit_nlsq(tt.StaticDiffusion(), decaying(tau, contrast, noise, n=n), asked)


def test_what_the_record_does_not_show_is_said_with_numbers():
    fast, good, slow = stationary(0.3), stationary(6.0), stationary(100.0)
    assert good.unseen == ()
    (within,), (left,) = fast.unseen, slow.unseen
    assert f"falls to {float(fast.correlation_ends[0, 0]):.2g} within one frame" in within
    assert f"{float(slow.correlation_ends[0, 1]):.2g} of it is left" in left
    assert left[1:] in slow.report() and fast.summary()["unseen"] == fast.unseen
    assert fast.correlation_ends[0] == pytest.approx(
        [np.exp(-1e-5 * fast.params["D0"]), np.exp(-39e-5 * fast.params["D0"])], abs=1e-9
    )


def test_a_rate_without_a_contrast_has_no_error_bar():
    fit = stationary(1e7, contrast=0.5, noise=0.0)
    assert float(fit.contrast[0]) == 0.0
    assert np.isinf(fit.uncertainties["D0"]) and "n/a" in fit.report()
    assert np.isfinite(stationary(100.0).uncertainties["D0"])
