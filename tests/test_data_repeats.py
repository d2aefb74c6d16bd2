"""Repeats of a measurement: their mean, and several files of a configuration as one value."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import twotime as tt
from twotime.config.manager import ConfigManager
from twotime.data import load_with_report
from twotime.data.dataset import TwoTimeData
from twotime.errors import ConfigurationError, DataError

N = 24
T = 0.1 * np.arange(1.0, N + 1)
TRUTH = 1 + 0.2 * np.exp(-np.abs(T[:, None] - T))


def repeat(noise, seed, **more) -> TwoTimeData:
    white = np.triu(np.random.default_rng(seed).normal(0, noise, (2, N, N)), 1)
    return TwoTimeData(TRUTH + white + np.swapaxes(white, 1, 2), T, 0.01, [0.0, 45.0], **more)


def test_a_mean_of_repeats_weighs_each_by_its_noise():
    noise = np.array([0.01, 0.01, 0.03, 0.05])
    parts = [repeat(s, k) for k, s in enumerate(noise)]
    mean = tt.average(*parts)
    upper = np.triu_indices(N, 1)
    weights = noise**-2 / np.sum(noise**-2)
    best = np.sum([w * p.c2 for w, p in zip(weights, parts, strict=True)], axis=0)
    scatter = np.std((mean.c2 - TRUTH)[:, *upper])
    assert scatter == pytest.approx(np.std((best - TRUTH)[:, *upper]), rel=0.03)
    assert scatter < 0.8 * np.std((np.mean([p.c2 for p in parts], axis=0) - TRUTH)[:, *upper])
    np.testing.assert_array_equal(mean.c2, np.swapaxes(mean.c2, 1, 2))
    two = tt.average(parts[0], parts[3])  # a difference does not say whose noise it is
    np.testing.assert_allclose(two.c2[:, *upper], (parts[0].c2 + parts[3].c2)[:, *upper] / 2)


def test_a_repeat_without_noise_does_not_count_alone():
    parts = [repeat(0.0, 0), repeat(0.02, 1), repeat(0.02, 2)]
    mean = tt.average(*parts).c2 - TRUTH
    # At least a tenth of the mean noise is taken: weights are 15, 1 and 1.
    other = np.sum([p.c2 - TRUTH for p in parts[1:]], axis=0)
    upper = np.triu_indices(N, 1)
    factor = np.sum((mean * other)[:, *upper]) / np.sum(other[:, *upper] ** 2)
    assert factor == pytest.approx(1 / 17, rel=0.1)


def test_a_mean_of_repeats_has_their_sigma_and_the_points_of_all():
    mask = np.ones((2, N, N), bool)
    mask[0, 3] = mask[0, :, 3] = False
    one, other = repeat(0.1, 0, sigma=0.3, mask=mask), repeat(0.1, 1, sigma=0.4)
    mean = tt.average(one, other)
    assert np.array_equal(mean.usable(slice(None)), one.usable(slice(None)))
    assert mean.sigma[1, 0, 5] == pytest.approx((0.3**-2 + 0.4**-2) ** -0.5)
    share = 0.3**-2 / (0.3**-2 + 0.4**-2)
    expected = share * one.c2[1, 2, 7] + (1 - share) * other.c2[1, 2, 7]
    assert mean.c2[1, 2, 7] == mean.c2[1, 7, 2] == pytest.approx(expected)


def test_other_matrices_are_no_repeat():
    one = repeat(0.1, 0)
    for change in ({"phi": np.array([0.0, 50.0])}, {"q": np.asarray(0.011)}):
        with pytest.raises(ValueError, match=r"number 2 the matrices \(q, phi\) .* of the first"):
            tt.average(one, dataclasses.replace(one, **change))
    with pytest.raises(ValueError, match="average got times from"):
        tt.average(one, dataclasses.replace(one, t=2 * T))
    with pytest.raises(ValueError, match="average got no data"):
        tt.average()
    opposite = dataclasses.replace(one, phi=np.array([-180.0, 45.0]))
    tt.average(opposite, dataclasses.replace(one, phi=np.array([180.0, 45.0])))


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k in range(3):
        x = repeat(0.01, k)
        np.savez(f"scan_{k}.npz", c2=x.c2, t=T, q=0.01, phi=x.phi)


def configuration(mode=None, path="scan_*.npz") -> ConfigManager:
    data = {"file_path": path} | ({} if mode is None else {"file_mode": mode})
    scattering = {"analyzer_parameters": {"scattering": {"wavevector_q": 0.01}}}
    return ConfigManager.from_dict(
        {"analysis_mode": "static", "experimental_data": data, **scattering}
    )


def test_files_of_a_configuration_are_fitted_together_or_averaged(files):
    names = [path.name for path in configuration().data_file_paths]
    assert names == ["scan_0.npz", "scan_1.npz", "scan_2.npz"]
    together, report = load_with_report(configuration("together"))
    assert together.phi.tolist() == [0.0, 45.0] * 3 and together.q.shape == ()
    assert (report.n_angles, report.n_points, report.n_masked) == (6, 6 * N * (N - 1) // 2, 0)
    assert report.notes == ("3 files are fitted together",)
    assert "scan_0.npz, " in report.path and len(report.sha256.split(", ")) == 3
    mean, report = load_with_report(configuration("average"))
    upper = np.triu_indices(N, 1)
    np.testing.assert_allclose(
        mean.c2[:, *upper], tt.average(*(repeat(0.01, k) for k in range(3))).c2[:, *upper]
    )
    assert report.n_points == 2 * N * (N - 1) // 2 and report.notes == ("3 files are averaged",)


def test_files_each_to_be_fitted_are_no_single_value(files):
    with pytest.raises(ConfigurationError, match="3 files, each .* file_mode: together or average"):
        load_with_report(configuration())
    x = repeat(0.01, 0)
    np.savez("scan_1.npz", c2=x.c2, t=2 * T, q=0.01, phi=x.phi)
    with pytest.raises(DataError, match="scan_0.npz and 2 more: average got times"):
        load_with_report(configuration("average"))


@pytest.mark.parametrize("mode", ["average", "together"])
def test_a_copy_is_no_repeat(files, mode):
    Path("scan_2.npz").unlink()
    Path("scan_2.npz").symlink_to("scan_0.npz")
    with pytest.raises(DataError, match="scan_2.npz: holds the same bytes as .*scan_0.npz"):
        load_with_report(configuration(mode))


def test_paths_and_patterns(files):
    assert configuration(path="none_*.h5").data_file_path.name == "none_*.h5"
    Path("odd[1].npz").touch()  # a name is no pattern where there is such a file
    twice = configuration(path=["odd[1].npz", "scan_0.npz", "scan_*.npz"])
    assert [p.name for p in twice.data_file_paths[:3]] == ["odd[1].npz", "scan_0.npz", "scan_1.npz"]
    assert len(twice.data_file_paths) == 4
    with pytest.raises(ConfigurationError, match="file_mode.* no effect with one file_path"):
        configuration("average", "scan_0.npz")
