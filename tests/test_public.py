"""The public face: names, silence on import, and what is loaded only when asked for."""

import ast
import builtins
import dis
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import twotime as tt

NAMES = {
    "AbstractTwoTimeModel", "Channels", "ConfigManager", "ConfigurationError", "DataError",
    "CMCResult", "LaminarFlow", "NLSQResult", "REGISTRIES", "TwoTimeError",
    "ParameterInfo", "ParameterManager", "ParameterRegistry",
    "ParameterSpace", "Pair", "PriorDistribution", "RESULTS", "ResultError", "SequentialResult",
    "StaticDiffusion", "Component", "Components", "Constant", "Exponential",
    "ExponentialFractions", "compare", "PowerLaw", "Simplex", "Spline", "find_law", "law_config",
    "TwoComponent", "TwoTimeData", "build_model", "correlation", "correlation_at",
    "delta_bands", "draw_bands", "estimate_starts", "fit_nlsq", "fit_sequential",
    "LogDensity", "log_density", "known_noise_covariance", "optimum", "profile", "read_counts",
    "residual_structure",
    "Consensus", "Gaussian", "Hmc", "Importance", "Limits", "Nuts", "Sharding", "fit_cmc",
    "OneTime", "average", "inspect_file", "join", "one_time", "load_data", "load_result", "unstack",
    "simulate", "simulate_speckle", "write_apsu",
}  # fmt: skip


def in_a_new_process(code):
    """Run code in a fresh interpreter; returns what it prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_public_names():
    found = {name for name, value in vars(tt).items() if not name.startswith("_")}
    public = {name for name in found if not inspect.ismodule(getattr(tt, name))}
    assert public == NAMES


@pytest.mark.parametrize("name", sorted(NAMES - {"REGISTRIES"}))
def test_every_public_name_is_documented(name):
    assert inspect.getdoc(getattr(tt, name))


def test_the_package_file_holds_imports_and_the_names_that_are_loaded_late():
    tree = ast.parse(Path(tt.__file__).read_text(encoding="utf-8"))
    kinds = [type(node).__name__ for node in tree.body[1:]]
    assert set(kinds[:-4]) == {"ImportFrom"}
    assert kinds[-4:] == ["If", "Assign", "FunctionDef", "FunctionDef"]


def test_dir_lists_what_is_loaded_late():
    found = in_a_new_process("import json, twotime; print(json.dumps(dir(twotime)))")
    assert NAMES | {"plots", "run", "testing", "core", "config"} <= set(found)
    assert tt.fit_cmc is tt.sample.cmc.fit_cmc and tt.run is tt.workflow
    assert (Path(tt.__file__).parent / "py.typed").exists()


def test_every_error_of_the_package_is_a_twotime_error():
    for error in (tt.ConfigurationError, tt.DataError, tt.ResultError):
        assert issubclass(error, tt.TwoTimeError) and issubclass(error, ValueError)


def test_importing_changes_nothing():
    found = in_a_new_process(
        "import os, sys, json, jax\n"
        "state = lambda: (dict(os.environ), {k: str(v) for k, v in jax.config.values.items()})\n"
        "before = state(); import twotime\n"
        "heavy = ['matplotlib', 'blackjax', 'hypothesis', 'pydantic', 'h5py', 'rich', 'click']\n"
        "print(json.dumps([state() == before, [m for m in heavy if m in sys.modules]]))"
    )
    assert found == [True, []]


def test_importing_does_not_initialise_xla():
    found = in_a_new_process(
        "import socket, json, jax, twotime\n"
        "with socket.socket() as s: s.bind(('localhost', 0)); port = s.getsockname()[1]\n"
        "jax.distributed.initialize(f'localhost:{port}', num_processes=1, process_id=0)\n"
        "print(json.dumps(jax.process_count()))"
    )
    assert found == 1


def test_rooms_are_there_without_being_imported():
    assert tt.plots.maps and tt.run.prepare and tt.testing.check_model
    assert tt.core.jax_backend and tt.config.parameter_manager
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tt.nothing


def test_fitting_asks_for_float64_in_a_sentence():
    found = in_a_new_process(
        "import json, numpy as np, twotime as tt\n"
        "t = np.arange(1., 5.); data = tt.TwoTimeData(np.ones((1, 4, 4)), t, 0.01, [0.])\n"
        "space = tt.ParameterSpace.from_config({'analysis_mode': 'static'})\n"
        "try: tt.fit_nlsq(tt.StaticDiffusion(), data, space)\n"
        "except ValueError as error: print(json.dumps(str(error)))"
    )
    assert "jax_enable_x64" in found


def codes(code):
    """A compiled module or function, and the functions in it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from codes(inner)


def test_functions_use_names_that_their_modules_have():
    """Shapes in annotations look like names to checkers, which therefore do not look for these."""
    missing = set()
    for info in pkgutil.walk_packages(tt.__path__, "twotime."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        source = Path(module.__file__).read_text(encoding="utf-8")
        for code in codes(compile(source, module.__file__, "exec")):
            used = {x.argval for x in dis.get_instructions(code) if x.opname == "LOAD_GLOBAL"}
            missing |= {
                f"{info.name}: {x}" for x in used - vars(module).keys() - vars(builtins).keys()
            }
    assert missing <= {"twotime.disk: msvcrt"}  # of Windows alone
