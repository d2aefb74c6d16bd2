"""The pipeline in Python: the steps behind `twotime fit`; the command line has its own tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_results import make

import twotime as tt
from twotime import workflow as run

CONFIG = {
    "analysis_mode": "static",
    "experimental_data": {"file_path": "data.h5"},
    "analyzer_parameters": {"scattering": {"wavevector_q": 0.01}},
}


def test_functions_of_time_carry_the_covariance():
    model, t = tt.LaminarFlow(gap=2e6), np.linspace(0.5, 5.0, 10)
    free = jnp.array([1e4, -0.2, 1e-3, 0.3])
    root = jnp.diag(jnp.array([100.0, 0.01, 1e-5, 0.02])) @ jnp.array(
        [[1.0, 0, 0, 0], [-0.9, 0.4, 0, 0], [0, 0, 1.0, 0], [0.1, 0, -0.8, 0.5]]
    )
    fit = make(
        all_names=model.names,
        varying=(True, True, False, True, True, False, False),
        units=("",) * 7,
        values=jnp.array([1e4, -0.2, 0.0, 1e-3, 0.3, 0.0, 0.0]),
        lower=jnp.zeros(7),
        upper=jnp.ones(7),
        start=jnp.ones(7),
        covariance=root @ root.T,
        covariance_iid=jnp.zeros((4, 4)),
        held=jnp.zeros(4, bool),
        eigenvalues=jnp.ones(4),
        eigenvectors=jnp.eye(4),
    )
    curves = run.functions_of_time(fit, model, t)
    assert list(curves) == ["J", "D", "shear_rate", "strain"]
    draws = free + jax.random.normal(jax.random.key(1), (20_000, 4)) @ root.T
    for name, scale, power in (("J", 0, 1), ("shear_rate", 2, 3)):
        values = draws[:, [scale]] * t ** draws[:, [power]]
        width = curves[name].upper - curves[name].lower
        np.testing.assert_allclose(width, 2 * values.std(axis=0), rtol=0.03)
        np.testing.assert_allclose(curves[name].values, free[scale] * t ** free[power])
    assert curves["strain"].upper[0] == 0 and curves["J"].unit == "Å²/s"
    text = fit.report(curves)
    assert "**Functions of time**" in text and "| strain     | 0 ± 0 " in text


def test_a_model_without_functions_has_none():
    class Own(tt.AbstractTwoTimeModel):
        """A law of its own that says no functions of time."""

        names: tuple[str, ...] = ("a", "b", "c", "d")

        def channels(self, params, times, *, t, q, phi):
            raise NotImplementedError

        def correlation(self, pair):
            raise NotImplementedError

    assert run.functions_of_time(make(), Own(), np.ones(3)) == {}


def test_the_method_can_be_chosen_elsewhere(tmp_path):
    config = tt.ConfigManager.from_dict(
        CONFIG | {"optimization": {"method": "cmc"}}, base_dir=tmp_path
    )
    chosen = run.with_method(config, "nlsq")
    assert chosen.optimization_method == "nlsq" and chosen.output_dir == config.output_dir


def prepared(tmp_path, **sections):
    """The job of a configuration, on simulated data."""
    model, t = tt.StaticDiffusion(), np.arange(1, 41) * 0.1
    data = tt.simulate(
        model,
        jnp.array([9e3, -0.4, 0.0]),
        t=t,
        q=0.01,
        phi=np.array([0.0, 40.0]),
        contrast=0.3,
        offset=1.0,
        noise=0.01,
        key=jax.random.key(0),
    )
    tt.write_apsu(tmp_path / "data.h5", data, overwrite=True)
    config = tt.ConfigManager.from_dict(CONFIG | sections, base_dir=tmp_path)
    return run.prepare(config, tmp_path / "out")


@pytest.mark.slow
def test_values_that_nobody_gave_are_estimated(tmp_path):
    job = prepared(tmp_path, parameters={"alpha": {"value": 0.3}})
    values = dict(zip(job.space.names, job.space.initial, strict=True))
    assert values["alpha"] == 0.3 and values["D0"] != CONFIG.get("D0", 1e3)
    nlsq = {"nlsq": {"start": "data", "multistart": True, "multistart_n": 3}}
    job = prepared(tmp_path, parameters={"alpha": {"value": 0.3}}, optimization=nlsq)
    assert job.space.initial[1] != 0.3 and job.arguments["starts"].shape == (3, 3)
    job = prepared(tmp_path, optimization={"nlsq": {"start": "values"}})
    assert job.space.initial.tolist() == [1e3, 0.5, 0.0] and job.arguments["starts"] == 1


@pytest.mark.long
def test_streaming_takes_tiles_of_the_given_size(tmp_path):
    job = prepared(tmp_path, streaming={"enable": True, "chunk_size": 16})
    result, _ = run.fit(job)
    assert result.evaluator == "tiled" and result.converged
    whole, _ = run.fit(prepared(tmp_path))
    assert whole.evaluator == "factored"
    np.testing.assert_allclose(result.values, whole.values, rtol=1e-4)


@pytest.mark.long
def test_a_robust_loss_is_run_and_recorded(tmp_path):
    nlsq = {"nlsq": {"loss": "huber", "loss_scale": 1.5}}
    result, _ = run.fit(prepared(tmp_path, optimization=nlsq))
    assert result.converged and result.loss == "huber" and result.evaluator == "tiled"
    assert float(result.loss_scale) == 1.5


@pytest.mark.long
def test_angles_one_after_the_other_have_folders_of_their_own(tmp_path):
    settings = {"enable": True, "max_iterations": 40, "convergence_threshold": 1e-4}
    job = prepared(tmp_path, sequential=settings)
    assert job.arguments["max_steps"] == 40 and job.arguments["tolerance"] == 1e-4
    result, seconds = run.fit(job)
    assert result.converged and len(result.fits) == 2
    run.write(job, result, tmp_path / "out", seconds)
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["angle_1", "angle_2", "report.md", "result.json"]
    assert "angle_2/maps_01.png" in run.draw(job, tmp_path / "out")
    assert run.draw(job, tmp_path / "out") == ()  # they are there
    assert (tmp_path / "out" / "angle_2" / "maps_01.png").exists()
    back = tt.load_result(tmp_path / "out")
    assert [f.params for f in back.fits] == [f.params for f in result.fits]
    assert "angle_1/cuts_01.png" in run.redraw(tmp_path / "out", tmp_path / "again")
    assert (tmp_path / "again" / "angle_1" / "cuts_01.png").exists()


def test_every_key_of_the_fit_sections_reaches_the_fit():
    nlsq = {
        "loss": "huber", "loss_scale": 2.5, "max_iterations": 77, "tolerance": 1e-6,
        "per_angle_mode": "averaged", "evaluator": "tiled", "uncertainty": "residuals",
    }  # fmt: skip
    sections = {"optimization": {"nlsq": nlsq}, "streaming": {"enable": True, "chunk_size": 32}}
    assert run.fit_arguments(tt.ConfigManager.from_dict(CONFIG | sections)) == {
        "loss": "huber", "loss_scale": 2.5, "max_steps": 77, "tolerance": 1e-6,
        "per_angle_mode": "averaged", "evaluator": "tiled", "tile": 32, "priors": False,
        "uncertainty": "residuals",
    }  # fmt: skip
    alone = {"enable": True, "max_iterations": 40, "convergence_threshold": 1e-4}
    found = run.fit_arguments(tt.ConfigManager.from_dict(CONFIG | {"sequential": alone}))
    assert (found["max_steps"], found["tolerance"]) == (40, 1e-4)


def test_resume_needs_sampling(tmp_path):
    config = tt.ConfigManager.from_dict(CONFIG, base_dir=tmp_path)
    with pytest.raises(tt.ResultError, match="nothing to resume; leave out --resume"):
        run.prepare(config, tmp_path / "out", resume=True)
    with pytest.raises(tt.ResultError, match="no interrupted run to resume"):
        run.prepare(run.with_method(config, "cmc"), tmp_path / "out", resume=True)
