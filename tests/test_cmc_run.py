"""Sampling by configuration: every key takes effect, folders hold what they should."""

import dataclasses
import json
from unittest.mock import Mock

import jax
import numpy as np
import pytest
import yaml
from test_results import make

import twotime as tt
from twotime import scaffold as starting
from twotime import workflow as run
from twotime.errors import ResultError
from twotime.gram import all_devices
from twotime.models.base import Curve
from twotime.plots import posterior as plots
from twotime.plots.fit import COLOURS, save
from twotime.results.cmc import CMCResult, Limits
from twotime.results.storage import Provenance
from twotime.sample.chains import Hmc, Nuts
from twotime.sample.shards import Sharding

CMC = {
    "seed": 7,
    "width_correction": "tempering",
    "sharding": {"n_shards": 3, "shard_strategy": "random", "min_pairs_per_shard": 12},
    "initialization": {"jitter_scale": 0.5, "nlsq_chi2_threshold": 9.0},
    "backend": {"sampler": "hmc"},
    "validation": {"max_r_hat": 1.1, "min_ess": 50, "min_bfmi": 0.2, "max_divergences": 3},
    "combination": {"method": "gaussian"},
    "per_shard_mcmc": {
        "num_warmup": 30, "num_samples": 40, "num_chains": 2, "target_accept_prob": 0.7,
        "max_tree_depth": 6,
    },
}  # fmt: skip
HMC = {
    "step_size": 0.3,
    "num_leapfrog_steps": 4,
    "adapt_step_size": False,
    "adapt_mass_matrix": False,
}


def config(method="both", cmc=CMC, hmc=HMC, **more):
    optimization = {"method": method, "cmc": cmc, "hmc": hmc,
                    "nlsq": {"nlsq_prior_width_factor": 5.0}}  # fmt: skip
    return tt.ConfigManager(
        {
            "analysis_mode": "static",
            "experimental_data": {"file_path": "example.h5"},
            "analyzer_parameters": {"dt": 0.1, "scattering": {"wavevector_q": 0.01}},
            "parameters": {"D_offset": {"value": 0.0, "vary": False}},
            "optimization": optimization,
            "stratification": {"enable": True, "strategy": "lag", "n_strata": 5},
        }
        | more
    )


def test_every_key_of_the_sampling_sections_reaches_the_sampler():
    found = run.sampling_arguments(config())
    assert jax.random.key_data(found.pop("key")).tolist() == [0, 7]
    chains = {
        "n_chains": 2, "n_warmup": 30, "n_samples": 40, "target_accept": 0.7, "step_size": 0.3,
        "adapt_step": False, "adapt_shape": False, "jitter": 0.5,
    }  # fmt: skip
    assert found == {
        "start": None, "sampler": Hmc(**chains, n_leapfrog=4),
        "sharding": Sharding(
            n_shards=3, strategy="random", strata=5, min_points=12, combine="gaussian",
            devices=all_devices(),
        ),
        "limits": Limits(1.1, 50, 0.2, 3, max_reduced_chi2=9.0), "width": "tempering",
        "prior_from_fit": 5.0, "per_angle_mode": "auto", "evaluator": "auto",
    }  # fmt: skip
    nuts = config(cmc=CMC | {"backend": {"sampler": "nuts"}}, hmc={})
    chains |= {"step_size": 0.5, "adapt_step": True, "adapt_shape": True}
    assert run.sampling_arguments(nuts)["sampler"] == Nuts(**chains, max_tree_depth=6)
    assert config("nlsq", CMC | {"enable": "always"}).optimization_method == "both"


def test_a_start_at_the_prior_needs_no_fit():
    found = run.sampling_arguments(
        config(cmc={"initialization": {"method": "prior"}}, hmc={}, stratification={})
    )
    assert found["start"] == "prior" and found["sharding"].strata == 1


def test_kept_runs_are_neither_lost_nor_mixed(tmp_path):
    out = tmp_path / "out"
    assert run.kept_run(out, resume=False, overwrite=False) == tmp_path / "out.run"
    with pytest.raises(ResultError, match="no interrupted run to resume"):
        run.kept_run(out, resume=True, overwrite=False)
    (tmp_path / "out.run").mkdir()
    with pytest.raises(ResultError, match="holds an interrupted run"):
        run.kept_run(out, resume=False, overwrite=False)
    assert run.kept_run(out, resume=True, overwrite=False).exists()
    assert run.kept_run(out, resume=False, overwrite=True).exists()  # until sampling begins
    (tmp_path / "out.run" / "block-000000.npz").write_bytes(b"of whom?")
    with pytest.raises(ResultError, match="blocks without fingerprint.txt"):
        run.kept_run(out, resume=True, overwrite=False)


def posterior(n_shards=3, n_free=3):
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2, 60, n_free)) + np.arange(n_free)
    names = ("D0", "alpha", "D_offset")
    each = np.ones((n_shards, n_free))
    return CMCResult(
        all_names=names, varying=(True,) * n_free, units=("Å²/s", "", "Å²/s"), model="Static",
        per_angle_mode="averaged", evaluator="pixel lists", sampler="nuts",
        scaling_kind="marginal", noise_kind="sampled", combination="importance",
        pareto_k=np.asarray(0.2), ess_weights=np.asarray(500.0), strategy="random",
        width_kind="sandwich", width_text="widened",
        coordinate_names=names, limits=Limits(), excluded=(1,), is_complete=True, draws=draws,
        contrast=0.3 + 0 * draws[..., :2], offset=1 + 0.01 * draws[..., :2],
        noise=np.full((2, 60), 0.1), values=np.median(draws, axis=(0, 1)),
        phi=np.array([0.0, 90.0]), log_density=rng.normal(size=(n_shards, 2, 60)),
        energy=rng.normal(size=(n_shards, 2, 60)), acceptance=each[:, 0] * 0.8,
        tree_depth=each[:, 0] * 3, deepest=each[:, 0] * 0, step=each[:, 0],
        shard_r_hat=each * 1.001, shard_ess_bulk=each * 900, shard_ess_tail=each * 800,
        shard_bfmi=np.ones((n_shards, 2)), shard_divergences=np.array([0.0, 4.0, 0.0]),
        shard_converged=np.array([True, False, True]),
        shard_draws=rng.normal(size=(n_shards, 50, n_free)), disagreement=each * 5.0,
        power=np.asarray(1.0), width_ratio=each[0] * 2, n_points=np.asarray(1e3),
        n_gradients=np.asarray(1e4), seconds=np.asarray(2.0),
    )  # fmt: skip


def test_figures_are_drawn_and_saved(tmp_path):
    post, t = posterior(), np.arange(1.0, 9.0)
    curves = {"J": Curve(t, "Å²/s", "J", "transport", t - 1, t + 1)}
    names = save(tmp_path, plots.figures_of(post, {"t": t}, curves))
    assert names == ("corner.png", "trace.png", "rank.png", "energy.png", "shards.png",
                     "functions.png")  # fmt: skip
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)
    assert len(plots.shards(post).axes) == 3


def test_the_corner_shows_intervals_and_regions_of_everything_sampled():
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(2, 4000, 2)) * [1.0, 10.0] + [5.0, 300.0]
    shared = {"contrast": 0.3 + 0.01 * draws[..., :2], "offset": np.ones((2, 4000, 2))}
    post = dataclasses.replace(
        posterior(n_free=2), all_names=("D0", "alpha"), varying=(True, True), units=("Å²/s", ""),
        coordinate_names=("D0", "alpha"), draws=draws, log_density=np.zeros((3, 2, 4000)),
        energy=np.zeros((3, 2, 4000)), noise=np.ones((2, 4000)),
        values=np.median(draws, axis=(0, 1)),
        **shared,
    )  # fmt: skip
    figure = plots.corner(post)
    axes = {(ax.get_xlabel(), ax.get_ylabel()): ax for ax in figure.axes}
    assert len(figure.axes) == 6  # D0, alpha, contrast; an offset that never moves is no axis
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles[0].startswith("D0\n$4.98^") and "^{+1.0}" in titles[0]
    region = next(ax for (x, y), ax in axes.items() if x == "D0\n[Å²/s]" and y == "contrast")
    assert region.get_xlim()[0] < draws[..., 0].min() < draws[..., 0].max() < region.get_xlim()[1]
    pair = next(ax for (x, y), ax in axes.items() if y == "alpha")
    areas = [_area(path.vertices) for path in pair.collections[-1].get_paths()]
    want = [2 * np.pi * 10 * np.log(1 / (1 - share)) for share in (0.95, 0.68)]
    np.testing.assert_allclose(areas, want, rtol=0.15)


def _area(outline):
    x, y = outline.T
    return 0.5 * abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def test_traces_hold_every_contrast_that_was_sampled():
    own = dataclasses.replace(
        posterior(), per_angle_mode="individual", noise=np.arange(120.0).reshape(2, 60)
    )
    rng = np.random.default_rng(2)
    own = dataclasses.replace(own, contrast=rng.normal(size=(2, 60, 2)))
    figure = plots.trace(own)
    labels = [ax.get_ylabel() for ax in figure.axes]
    colours = [line.get_color() for line in figure.axes[0].lines]
    assert colours == list(COLOURS[: len(colours)])
    assert labels[:3] == ["D0\n[Å²/s]", "alpha", "D_offset\n[Å²/s]"]
    assert {"contrast[0]", "contrast[1]"} < set(labels)


def test_weights_that_cannot_be_trusted_are_told():
    good = posterior()
    assert good.converged and "Pareto k 0.20, effective sample size 500" in good.report()
    bad = {"pareto_k": (0.9, "Pareto k 0.90, limit 0.7"),
           "ess_weights": (20.0, "weights worth 20 draws, limit 400")}  # fmt: skip
    for name, (value, fault) in bad.items():
        post = dataclasses.replace(good, **{name: np.asarray(value)})
        assert not post.converged and fault in post.status


def test_reports_tell_of_shards_that_were_left_out():
    post = posterior()
    assert post.converged and post.divergences == 4
    text = post.report()
    assert (
        "left out" in text
        and "Shards disagree" in text
        and "relative to those for independent" in text
    )
    assert post.status.endswith("shards 1 left out")
    found = post.summary()["parameters"]["D0"]
    low, high = np.quantile(post.samples["D0"], (0.16, 0.84))
    assert (found["q16"], found["q84"]) == (low, high)


@pytest.fixture
def writers(monkeypatch):
    """Writers of fit and posterior that write their names only."""

    def put(folder, name):
        (folder / "result.json").write_text(json.dumps({"kind": "", "fields": {}, "name": name}))

    monkeypatch.setattr(run, "_write_fit", lambda job, data, fit, folder, _: put(folder, job.model))
    monkeypatch.setattr(run, "_write_posterior", lambda job, post, folder: put(folder, job.model))


def a_job(**fields):
    """A job of nothing, by the name of its model."""
    return run.Job(**(dict.fromkeys(run.Job._fields) | {"provenance": Provenance()} | fields))


def named(folder):
    return json.loads((folder / "result.json").read_text())["name"]


def test_fit_and_posterior_replace_an_old_result_together(tmp_path, writers):
    out, kept, fit = tmp_path / "out", tmp_path / "out.run", make()
    job, post = a_job(model="1", method="both", replaces=False), posterior()
    run.write_fit(job, fit, out, 1.0)
    assert named(out) == "1"  # nothing is lost by it
    kept.mkdir()
    run.write_posterior(job, post, out)
    assert named(out / "posterior") == "1" and not kept.exists()
    kept.mkdir()
    job = job._replace(model="2", replaces=True)
    for is_complete, found in ((False, "1"), (True, "2")):
        run.write_fit(job, fit, out, 1.0, overwrite=True)
        assert named(out) == "1"  # a new fit never stands beside an old posterior
        part = dataclasses.replace(post, is_complete=is_complete)
        run.write_posterior(job, part, out, fit=(fit, 1.0), overwrite=True)
        assert named(out) == named(out / "posterior") == found
        assert kept.exists() is not is_complete
    run.write_fit(job._replace(method="nlsq"), fit, out, 1.0, overwrite=True)
    assert not (out / "posterior").exists()


def test_kept_draws_stay_until_the_result_is_in_place(tmp_path, writers, monkeypatch):
    job, kept = a_job(model="1", method="cmc", replaces=False), tmp_path / "out.run"
    kept.mkdir()
    with monkeypatch.context() as full, pytest.raises(ResultError, match="cannot be written"):
        full.setattr("os.fsync", Mock(side_effect=OSError(122, "Disk quota exceeded")))
        run.write_posterior(job, posterior(), tmp_path / "out")
    assert kept.exists()
    run.write_posterior(job, posterior(), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.long
def test_runs_write_fit_and_posterior_and_go_on(tmp_path, monkeypatch):
    path = tmp_path / "run.yaml"
    starting.start("static", path, example=True, full=False, overwrite=False)
    content = yaml.safe_load(path.read_text())
    few = {"num_warmup": 30, "num_samples": 50, "num_chains": 2}
    content["optimization"] = {"method": "both", "cmc": {"per_shard_mcmc": few}}
    path.write_text(yaml.safe_dump(content))
    settings, out = tt.ConfigManager.from_yaml(path), tmp_path / "out"
    job = run.prepare(settings, out)
    fit, seconds = run.fit(job)
    run.write(job, fit, out, seconds)

    def stop(progress):
        if progress.stage == "sampling":
            raise KeyboardInterrupt

    part = run.sample(job, fit, out, progress=stop)
    assert not part.is_complete and (tmp_path / "out.run").is_dir()
    whole = run.sample(job, fit, out, resume=True)
    run.write_posterior(job, whole, out)
    run.draw(job, out)
    assert whole.is_complete and not (tmp_path / "out.run").exists()
    assert isinstance(tt.load_result(out), tt.NLSQResult)
    again = tt.load_result(out / "posterior")
    assert np.array_equal(again.draws, whole.draws)
    assert {"corner.png", "predictive_01.png", "report.md"} <= {
        p.name for p in (out / "posterior").iterdir()
    }
    assert "corner.png" in run.redraw(out / "posterior", tmp_path / "again")
    only = run.run(run.with_method(settings, "cmc"), tmp_path / "only")
    assert np.array_equal(only.draws, whole.draws)
    assert (tmp_path / "only" / "posterior.npz").exists()
