"""The pipeline in Python: the steps behind `twotime fit`; the command line has its own tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_results import make

import twotime as tt
from twotime import run

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

        def pixel(self, pixel):
            raise NotImplementedError

    assert run.functions_of_time(make(), Own(), np.ones(3)) == {}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"method": "cmc"}, "optimization.method: 'cmc'"),
        ({"method": "both"}, "optimization.method: 'both'"),
        ({"nlsq": {"multistart": True}}, "multistart: True"),
        ({"nlsq": {"loss": "soft_l1"}}, "loss: 'soft_l1'"),
        ({"nlsq": {"start": "data"}}, "start: 'data'"),
    ],
)
def test_what_this_version_cannot_run_is_refused(section, words):
    config = tt.ConfigManager.from_dict(CONFIG | {"optimization": section})
    with pytest.raises(tt.ConfigurationError, match=words):
        run.check_runs(config)


def test_the_method_can_be_chosen_elsewhere(tmp_path):
    config = tt.ConfigManager.from_dict(
        CONFIG | {"optimization": {"method": "cmc"}}, base_dir=tmp_path
    )
    chosen = run.with_method(config, "nlsq")
    run.check_runs(chosen)
    assert chosen.optimization_method == "nlsq" and chosen.output_dir == config.output_dir
