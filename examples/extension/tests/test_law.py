"""The law keeps what every law keeps, and every tool of twotime takes it."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import yaml
from ageing_glass import StretchedAgeing
from hypothesis import given, settings

import twotime as tt
from twotime.config.files import json_schema
from twotime.models.laws import find_law
from twotime.testing import check_model, configs, thetas

LAW = StretchedAgeing()
SPACE = tt.ParameterSpace.of(LAW)


def test_it_keeps_every_law():
    check_model(LAW, stationary={"mu": 0.0})


@settings(max_examples=20, deadline=None)
@given(thetas(SPACE))
def test_it_relaxes_on_and_on(theta):
    t = 0.1 * jnp.arange(1.0, 8.0)
    c = np.asarray(tt.correlation(LAW, theta, t=t, q=0.01, phi=jnp.zeros(1)))[0]
    assert np.all(np.diff(c[0]) <= 1e-12)


@settings(max_examples=20, deadline=None)
@given(configs(LAW))
def test_its_configurations_are_read(config):
    read = tt.ConfigManager.from_dict(config)
    assert tt.build_model(read).names == LAW.names


def test_it_has_a_word_and_a_path():
    assert find_law("ageing_glass") is StretchedAgeing
    assert find_law("ageing_glass.StretchedAgeing") is StretchedAgeing
    assert '"tau"' in str(json_schema("ageing_glass")).replace("'", '"')


def test_the_run_of_the_folder_is_valid():
    path = Path(__file__).parents[1] / "run.yaml"
    config = tt.ConfigManager.from_dict(yaml.safe_load(path.read_text()))
    assert isinstance(tt.build_model(config), StretchedAgeing)
    assert config.space.bounds["stretch"] == (0.4, 1.5)


def test_it_is_fitted_sampled_reported_and_loaded(run):
    written = yaml.safe_load(run.read_text())
    written["parameters"] = {}  # the start comes from the data
    chains = {"num_warmup": 100, "num_samples": 100, "num_chains": 2}
    written["optimization"] = {"method": "both", "cmc": {"per_shard_mcmc": chains}}
    config = tt.ConfigManager.from_dict(written, base_dir=run.parent)
    out = run.parent / "out"
    post = tt.run.run(config, out)
    fit, again = tt.load_result(out), tt.load_result(out / "posterior")
    assert fit.converged and fit.model == "ageing_glass.StretchedAgeing"
    assert find_law(fit.model) is StretchedAgeing
    for name, true in {"tau": 4.0, "mu": 0.8, "stretch": 0.7}.items():
        assert abs(fit.params[name] - true) < 4 * fit.uncertainties[name]
        assert np.array_equal(again.samples[name], post.samples[name])
    report = (out / "report.md").read_text()
    assert "Relaxation time" in report and "ageing_glass" in report
    assert any(file.suffix == ".png" for file in out.iterdir())
