"""Composition: what hosts met before a transformation came into it, one test for each entry.

The entries about transformations are in `test_composition`.
"""

import contextlib
import importlib.util
import socket
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling import FEW, drawn, elsewhere, finish, static_case
from test_composition import LAW, PHI, TRUTH, Q, T
from test_laws import RATE, Backwards, Decay, NanInACorner, StoppedTerms

import twotime as tt
from twotime.data import LoadReport
from twotime.models.arguments import parameters_of
from twotime.testing import LawBroken, check_model
from twotime.workflow import _provenance


@pytest.mark.long
def test_entry_03_informative_priors_keep_their_part_where_the_width_is_corrected():
    """Precisions of speckle data, wider than those of independent points, and of the prior add."""
    data = tt.simulate_speckle(
        LAW, TRUTH, t=T, q=Q, phi=PHI, contrast=0.3, n_pixels=400, key=jax.random.key(3)
    )
    space = tt.ParameterSpace.of(LAW).with_values({"D_offset": 0.0}).with_vary({"D_offset": False})
    fit = tt.fit_nlsq(LAW, data, space, per_angle_mode="individual", judge=False)
    deviation = 0.5 * fit.uncertainties["alpha"]
    assert deviation > 0.75 * fit.uncertainties_iid["alpha"]  # so the width is corrected
    own = space.with_priors({"alpha": tt.PriorDistribution.normal(fit.params["alpha"], deviation)})
    density = tt.log_density(LAW, data, own, start=fit, per_angle_mode="individual")
    mode, root = density.shape
    slope = jax.jacfwd(lambda z: jnp.stack([*density.to_params(z).values()]))(mode)
    found = np.linalg.norm(slope @ root, axis=1)[:2]
    precision = np.linalg.inv(fit.covariance) + np.diag([0.0, deviation**-2])
    want = np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_allclose(found, want, rtol=0.1)
    assert found[1] < 1.05 * deviation


def broken(law, **knowledge):
    """The sentence about the law that a model breaks."""
    with pytest.raises(LawBroken) as caught:
        check_model(law, RATE, **knowledge)
    return str(caught.value)


def test_entry_04_terms_without_derivatives_break_a_law():
    """A fit by them would stay at its start and call that converged."""
    assert "breaks the law 'terms = correlation'" in broken(StoppedTerms())


@pytest.mark.long
def test_entry_05_a_prior_that_nobody_gave_does_not_decide():
    """D0 = 8e4 with a default prior of 1000 ± 1000, and data that hardly know."""
    model, data, _ = static_case(24, noise=0.3)
    fast = tt.simulate(
        model, np.asarray([8e4, 0.0, 0.0]), t=data.t, q=0.003, phi=data.phi, contrast=0.3,
        offset=1.0, noise=0.3, key=jax.random.key(4),
    )  # fmt: skip
    space = tt.ParameterSpace(registry=tt.REGISTRIES["static"], bounds={"D0": (100.0, 1e7)})
    space = space.with_values({"D0": 8e4, "alpha": 0.0, "D_offset": 0.0})
    space = space.with_vary({"alpha": False, "D_offset": False})
    post = tt.fit_cmc(model, fast, space, key=jax.random.key(1), **FEW)
    low, high = np.quantile(post.samples["D0"], (0.02, 0.98))
    assert low < 8e4 < high
    assert post.prior_names == () and "No prior was given for D0" in post.report()


def test_entry_06_parameters_are_counted_and_may_be_named():
    assert parameters_of(LAW, [1.0, 2.0, 3.0]).tolist() == [1, 2, 3]
    by_name = {"alpha": 2.0, "D0": 1.0, "D_offset": 3.0}
    assert parameters_of(LAW, by_name).tolist() == [1, 2, 3]
    for wrong in ([1.0, 2.0], np.ones((3, 1)), 1.0, jnp.ones(4)):
        with pytest.raises(ValueError, match="has 3 parameters, D0, alpha, D_offset; got an"):
            parameters_of(LAW, wrong)
    with pytest.raises(ValueError, match="by name beta, D_offset is missing or unknown"):
        parameters_of(LAW, {"D0": 1.0, "alpha": 0.0, "beta": 2.0})


@pytest.mark.long
def test_entry_08_two_processes_share_a_new_checkpoint(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    for process in [elsewhere(tmp_path, PORT=port, RANK=rank) for rank in "01"]:
        out = finish(process)
        assert "already keeps a run" in out and "other data, settings or key" in out
    ranks = [np.load(tmp_path / f"rank{rank}.npy") for rank in (0, 1)]
    assert np.array_equal(*ranks)
    assert np.array_equal(ranks[0], drawn(3, 2).trace.joint)


@pytest.mark.long
def test_entry_17_devices_share_the_work_and_change_no_bit(tmp_path):
    lines = finish(elsewhere(tmp_path, devices=4)).split("\n")[:-1]
    assert lines == ["5 2 4 4 True True", "1 4 4 4 True True", "3 2 2 2 True True"]


def test_entry_18_bounds_are_tried_and_decays_do_not_run_backwards():
    assert "'finite in the corners of the bounds'" in broken(NanInACorner(), examples=1)
    assert "'decays do not run backwards'" in broken(Backwards())
    check_model(Decay(), RATE, examples=1)


def test_entry_19_a_session_fits_where_it_was_called(monkeypatch):
    """Nox itself changes to the folder of the project."""
    path = Path(__file__).parents[1] / "noxfile.py"
    pytest.importorskip("nox")
    spec = importlib.util.spec_from_file_location("noxfile", path)
    sessions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sessions)
    places, calls = [""], []

    @contextlib.contextmanager
    def chdir(folder):
        places.append(folder)
        yield
        places.pop()

    session = types.SimpleNamespace(
        posargs=["run.yaml", "-o", "out"], invoked_from="/elsewhere", chdir=chdir,
        install=lambda *_: None, run=lambda *words: calls.append((places[-1], *words)),
        create_tmp=lambda: "tmp",
    )  # fmt: skip
    sessions.fit.func(session)
    assert calls == [("/elsewhere", "twotime", "fit", "run.yaml", "-o", "out")]
    session.posargs = []
    sessions.fit.func(session)
    made, config = calls[1][-1], calls[2][3]
    assert made == config and Path(config).is_absolute() and calls[2][0] == "/elsewhere"


def test_entry_19_runs_with_a_law_of_ones_own_save_its_name():
    config = tt.ConfigManager.from_dict({
        "model": {"law": "test_models_laws.Own"},
        "experimental_data": {"file_path": "x.h5"},
        "analyzer_parameters": {"scattering": {"wavevector_q": 0.01}, "dt": 0.1},
    })  # fmt: skip
    numbers = 0.01, (1, 9), 9, 0.1, 1, (), (), 36, 0, 1.0
    report = LoadReport("x.h5", "", "", *numbers, ())
    saved = _provenance(config, report).settings
    assert saved["model"]["law"] == "test_models_laws.Own" and "analysis_mode" not in saved
