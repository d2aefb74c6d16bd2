"""The command line: its commands, exit codes, and one sentence for every mistake."""

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from rich.console import Console

import twotime as tt
from twotime import cli
from twotime import workflow as run
from twotime.cli.terminal import follow, listening

FRAMES, PHI, Q, DT = 24, (0.0, 60.0), 0.01, 0.1
CONFIG = {
    "analysis_mode": "static",
    "experimental_data": {"file_path": "data.h5"},
    "analyzer_parameters": {"scattering": {"wavevector_q": Q}},
    "parameters": {"D0": 5.0e3, "alpha": 0.0, "D_offset": {"value": 0.0, "vary": False}},
    "output": {"output_dir": "out"},
}


@pytest.fixture(scope="module")
def data():
    t = jnp.arange(1, FRAMES + 1) * DT
    return tt.simulate(
        tt.StaticDiffusion(), jnp.array([6e3, -0.2, 0.0]), t=t, q=Q, phi=jnp.array(PHI),
        contrast=0.3, offset=1.0, noise=0.005, key=jax.random.key(0),
    )  # fmt: skip


@pytest.fixture
def place(tmp_path, data, monkeypatch):
    """A folder with run.yaml and data.h5, and the way to change them."""
    monkeypatch.chdir(tmp_path)
    tt.write_apsu(tmp_path / "data.h5", data, dt=DT)
    configure()
    return tmp_path


def configure(**sections):
    """Write run.yaml with some keys changed; a dotted name says where."""
    config = json.loads(json.dumps(CONFIG))
    for path, value in sections.items():
        *above, last = path.split("__")
        section = config
        for name in above:
            section = section.setdefault(name, {})
        section[last] = value
    Path("run.yaml").write_text(yaml.safe_dump(config))


def content(folder):
    """Names and bytes of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def truncated():
    raw = Path("data.h5").read_bytes()
    Path("data.h5").write_bytes(raw[: len(raw) // 2])


def text():
    Path("data.h5").write_text("t c2\n0 1\n")


def all_nan():
    with h5py.File("data.h5", "r+") as file:
        for matrix in file["xpcs/twotime/correlation_map"].values():
            matrix[...] = np.nan


def below_a_file():
    Path("taken").write_text("a file, not a folder")
    configure(output__output_dir="taken/out")


def has_a_result():
    Path("out").mkdir()
    Path("out/result.json").write_text('{"kind": "NLSQResult", "fields": {}}')


def has_other_files():
    Path("out").mkdir()
    Path("out/thesis.tex").write_text("precious")


def no_data():
    Path("data.h5").unlink()


def setting(**sections):
    return lambda: configure(**sections)


MISTAKES = {
    "missing file": (no_data, "data.h5.*no such"),
    "truncated HDF5": (truncated, "data.h5.*(truncated|damaged)"),
    "text called h5": (text, "data.h5.*begins with b't c2"),
    "q not in file": (
        setting(analyzer_parameters__scattering__wavevector_q=0.02),
        "q = 0.02.*holds 0.01",
    ),
    "end_frame beyond": (
        setting(analyzer_parameters__end_frame=25),
        "end_frame is 25.*24 frames",
    ),
    "unknown key": (
        setting(analyzer_parameters__start_fram=1),
        "analyzer_parameters.start_fram.*start_frame",
    ),
    "min >= max": (
        setting(parameters__D0={"value": 5e3, "min": 1e4, "max": 1e3}),
        "D0.*min.*max",
    ),
    "value outside bounds": (
        setting(parameters__D0={"value": 5.0, "min": 100.0, "max": 1e5}),
        "D0.*5.*outside",
    ),
    "dt zero": (setting(analyzer_parameters__dt=0.0), "analyzer_parameters.dt"),
    "dt negative": (setting(analyzer_parameters__dt=-0.1), "analyzer_parameters.dt"),
    "dt contradicts": (setting(analyzer_parameters__dt=0.2), "dt is 0.2 s.*0.1 s"),
    "all NaN": (all_nan, "data.h5.*(NaN|usable)"),
    "not writable": (below_a_file, "taken/out.*cannot be written"),
    "holds a result": (has_a_result, "out: already holds a result.*--overwrite"),
    "holds other files": (has_other_files, "out: the folder holds other files"),
    "no log folder": (setting(logging__file="no/log"), "logging.file: .*no/log cannot be written"),
    "no such device": (setting(hardware__device="tpu"), "hardware.device is 'tpu'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_sentence_and_leaves_nothing(place, capsys, mistake):
    spoil, pattern = MISTAKES[mistake]
    spoil()
    before = content(place)
    assert cli.main(["fit", "run.yaml"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert re.search(pattern, err), err
    assert "Traceback" not in err
    assert content(place) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(place, capsys):
    Path("locked").mkdir(mode=0o555)
    assert cli.main(["fit", "run.yaml", "-o", "locked/out"]) == 1
    assert "locked/out: the results folder cannot be written" in capsys.readouterr().err


def test_usage_mistakes_are_exit_1_too(place, capsys):
    for arguments in (["fit"], ["fit", "absent.yaml"], ["fitt"], ["init", "--model", "x"]):
        assert cli.main(arguments) == 1
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1, err


def test_fit_writes_a_result(place, capsys):
    assert cli.main(["fit", "run.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "D0" in out and "converged" in out
    assert "out" in err
    assert {p.name for p in Path("out").iterdir()} == {
        "result.json", "arrays.npz", "report.md", "maps_01.png", "cuts_01.png", "scaling.png",
        "functions.png",
    }  # fmt: skip
    fit = tt.load_result("out")
    assert fit.converged and abs(fit.params["alpha"] + 0.2) < 0.05
    content = json.loads(Path("out/result.json").read_text())
    assert content["source"]["file"] == str(place / "data.h5")
    assert len(content["source"]["sha256"]) == 64
    assert content["settings"]["optimization"]["nlsq"]["per_angle_mode"] == "auto"
    assert content["result"]["parameters"]["D_offset"]["fitted"] is False


def test_overwriting_keeps_what_the_user_put_beside(place):
    assert cli.main(["fit", "run.yaml"]) == 0
    Path("out/notes.txt").write_text("mine")
    Path("out/maps_99.png").write_text("not in the list of files")
    configure(output__save_residuals=False)
    assert cli.main(["fit", "run.yaml", "--overwrite"]) == 0
    assert Path("out/notes.txt").read_text() == "mine"
    assert Path("out/maps_99.png").exists()
    assert not {"c2", "model", "residual"} & set(np.load("out/arrays.npz").files)
    assert [p.name for p in place.iterdir() if p.name.startswith(".")] == []


def test_a_fit_that_does_not_converge_is_exit_2_and_written(place, capsys, monkeypatch):
    def stopped(job, progress):
        result, seconds = fit(job, progress)
        return dataclasses.replace(result, result=tt.RESULTS.nonlinear_max_steps_reached), seconds

    fit = run.fit
    monkeypatch.setattr(run, "fit", stopped)
    assert cli.main(["fit", "run.yaml", "-o", "deep/down"]) == 2
    assert "not converged" in capsys.readouterr().out
    assert "Not converged" in Path("deep/down/report.md").read_text()
    assert not tt.load_result("deep/down").converged


def test_an_interrupt_is_exit_130_and_leaves_nothing(place, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "fit", interrupted)
    before = content(place)
    assert cli.main(["fit", "run.yaml"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert content(place) == before


def test_a_failure_while_writing_leaves_nothing(place, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("twotime.results.storage.write", full)
    before = content(place)
    assert cli.main(["fit", "run.yaml", "-o", "a/b/out"]) == 1
    assert "a/b/out: the results folder cannot be written (No space" in capsys.readouterr().err
    assert content(place) == before


def test_a_fit_is_json_or_silent_if_asked(place, capsys):
    assert cli.main(["fit", "run.yaml", "--json", "--quiet", "--set", "parameters.D0=4e3"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)["fit"]
    assert found["converged"] and found["parameters"]["D0"]["fitted"] and err == ""
    content = json.loads(Path("out/result.json").read_text())
    assert content["settings"]["parameters"]["transport"]["D0"]["value"] == 4e3
    assert cli.main(["report", "out"]) == 0 and Path("out/report.html").exists()
    assert cli.main(["fit", "run.yaml", "--quiet", "--overwrite"]) == 0
    out, err = capsys.readouterr()
    assert out == "wrote out/report.html\n" and err == ""
    assert not Path("out/report.html").exists()  # it was about the old result
    limit = "optimization.nlsq.max_iterations=1"
    assert cli.main(["fit", "run.yaml", "--quiet", "--overwrite", "--set", limit]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("warning: not converged: the step limit was reached")


def test_the_result_is_shown_before_the_figures_are_drawn(place, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("twotime.results.storage.write", full)
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(["fit", "run.yaml"]) == 1
    out = capsys.readouterr().out
    order = [out.index(x) for x in ("D0 ", "Fixed: D_offset", "Contrast", "R²", "Functions of")]
    assert order == sorted(order)
    assert max(map(len, out.split("\n"))) <= 60


class Full(io.RawIOBase):
    """A device without room."""

    def writable(self):
        return True

    def write(self, _):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_cannot_be_shown_changes_no_exit_code(place, monkeypatch, encoding):
    seen, full = io.BytesIO(), io.BufferedWriter(Full())
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(seen, encoding, write_through=True))
    assert cli.main(["fit", "run.yaml"]) == 0
    text = seen.getvalue().decode(encoding)
    assert "D0" in text and "?" in text and "converged" in text
    assert "----" in text and "????" not in text  # lines of tables
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(full, encoding, write_through=True))
    assert cli.main(["fit", "run.yaml", "--overwrite"]) == 0
    monkeypatch.setattr(sys, "stdout", None)  # closed
    assert cli.main(["validate", "run.yaml"]) == 0
    with contextlib.suppress(OSError):
        full.raw.close()


def test_an_interrupt_says_whether_something_was_written(place, capsys, monkeypatch):
    def then_interrupted(*args, **kwargs):
        write(*args, **kwargs)
        raise KeyboardInterrupt

    write = run.write
    monkeypatch.setattr(run, "write", then_interrupted)
    assert cli.main(["fit", "run.yaml"]) == 130
    assert capsys.readouterr().err.endswith("out was written\n")


def test_a_bug_shows_its_traceback(place, monkeypatch):
    def bug(*_, **__):
        return int("x")

    monkeypatch.setattr(run, "prepare", bug)
    with pytest.raises(ValueError, match="invalid literal"):
        cli.main(["fit", "run.yaml"])


def test_plot_draws_again(place, capsys):
    cli.main(["fit", "run.yaml"])
    first = Path("out/maps_01.png").read_bytes()
    Path("out/maps_01.png").unlink()
    assert cli.main(["plot", "out"]) == 0
    assert Path("out/maps_01.png").read_bytes() == first
    assert cli.main(["plot", "out", "-o", "elsewhere"]) == 0
    assert Path("elsewhere/cuts_01.png").exists()
    assert cli.main(["plot", "."]) == 1
    assert "holds no result" in capsys.readouterr().err


def test_points_are_saved_where_that_is_asked_for(place):
    configure(output__save_correlation=True, output__save_residuals=True)
    assert cli.main(["fit", "run.yaml", "--no-figures"]) == 0
    assert not list(Path("out").glob("*.png"))
    arrays = np.load("out/arrays.npz")
    assert arrays["c2"].shape == arrays["model"].shape == arrays["residual"].shape
    assert "png" not in Path("out/report.md").read_text()


def test_an_interrupt_while_drawing_loses_nothing(place, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("twotime.plots.fit.save", interrupted)
        assert cli.main(["fit", "run.yaml", "--format", "svg"]) == 130
    out, err = capsys.readouterr()
    folder = place / "out"
    assert err.endswith(f"{folder} was written; its figures: twotime plot {folder}\n")
    assert "D0" in out
    assert tt.load_result("out").converged
    assert cli.main(["plot", "out", "--format", "svg"]) == 0 and Path("out/maps_01.svg").exists()


@pytest.mark.parametrize("model", ["static", "laminar_flow", "two_component"])
@pytest.mark.parametrize("full", [False, True])
def test_init_writes_a_valid_configuration(tmp_path, monkeypatch, capsys, model, full):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "--model", model, *(["--full"] if full else [])]) == 0
    assert cli.main(["validate", "run.yaml"]) == 0
    assert f"valid; {model}" in capsys.readouterr().out
    assert cli.main(["init"]) == 1
    assert "run.yaml: the file exists" in capsys.readouterr().err


def test_validate_tells_all_mistakes(place, capsys):
    configure(analyzer_parameters__dt=-1.0, output__output_dirr="x")
    assert cli.main(["validate", "run.yaml"]) == 1
    err = capsys.readouterr().err
    assert "2 mistakes" in err and "analyzer_parameters.dt" in err and "output_dir" in err


def test_inspect_says_what_is_in_a_file(place, capsys):
    assert cli.main(["inspect", "data.h5"]) == 0
    out = capsys.readouterr().out
    assert "aps-u" in out and "0.01" in out and "60" in out
    shown = tt.inspect_file("data.h5")
    assert f"{shown!r}\n" == out and out[:20] in shown._repr_html_()


def test_init_for_a_file_whose_name_is_no_text(place, data, capsys):
    name = os.fsdecode(b"\xff\xe9.h5")
    try:
        Path("data.h5").rename(name)
    except OSError:
        pytest.skip("this system has no such names")
    assert cli.main(["init", name, "--model", "static", "-o", "new.yaml"]) == 0
    assert tt.ConfigManager.from_yaml("new.yaml").data_file_path.name == name
    with listening(Console(file=io.StringIO())):
        follow({"level": "INFO", "file": "log.txt", "structured": False}, Path())
        logging.getLogger("twotime").info("read %s", name)
    assert r"read \udcff\udce9.h5" in Path("log.txt").read_text(encoding="utf-8")


def test_g2_writes_a_table_and_a_figure_to_look_at(place, data, capsys):
    assert cli.main(["g2", "data.h5", "--ages", "2"]) == 0
    assert capsys.readouterr().out == "wrote g2.csv\nwrote g2.png\n"
    whole, halves = tt.one_time(tt.load_data(tt.ConfigManager.from_yaml("run.yaml"))), 2
    rows = [line.split(",") for line in Path("g2.csv").read_text().splitlines()]
    assert rows[0][-2:] == ["g2", "error"]
    assert len({tuple(row[2:4]) for row in rows[1:]}) == 1 + halves
    assert float(rows[1][5]) == pytest.approx(float(whole.g2[0, 0, 0]))
    assert Path("g2.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["g2", "run.yaml", "-o", "again.csv", "--q", "0.2"]) == 1
    assert "wavevector_q (--q) to one of" in capsys.readouterr().err
    assert (
        cli.main(["g2", "run.yaml"]) == 1 and "g2.csv: the file exists" in capsys.readouterr().err
    )


def test_simulate_writes_what_inspect_and_fit_read(place, capsys):
    configure(
        analyzer_parameters__dt=DT,
        analyzer_parameters__end_frame=FRAMES,
        analyzer_parameters__scattering__phi_angles=list(PHI),
    )
    assert cli.main(["simulate", "run.yaml", "-o", "data.h5"]) == 1
    assert "data.h5: the file exists" in capsys.readouterr().err
    before = Path("data.h5").read_bytes()
    for options in (["--noise", "0.002"], ["--pixels", "500", "--photons", "2"]):
        assert cli.main(["simulate", "run.yaml", "-o", "data.h5", "--overwrite", *options]) == 0
        assert Path("data.h5").read_bytes() != before
        assert tt.load_data(tt.ConfigManager.from_yaml("run.yaml")).c2.shape == (2, FRAMES, FRAMES)


def test_simulate_says_what_is_missing(place, capsys):
    assert cli.main(["simulate", "run.yaml", "-o", "new.h5"]) == 1
    err = capsys.readouterr().err
    for name in ("dt", "end_frame", "scattering.phi_angles"):
        assert f"analyzer_parameters.{name}: missing" in err
    assert not Path("new.h5").exists()


def test_schema_is_json(capsys):
    assert cli.main(["schema"]) == 0
    assert "analysis_mode" in json.loads(capsys.readouterr().out)["properties"]


def test_messages_follow_the_configuration(place, capsys, monkeypatch):
    def counted(job, progress):
        progress(jnp.asarray(2.0))
        return fit(job)

    fit = run.fit
    configure(logging={"level": "ERROR"})
    assert cli.main(["fit", "run.yaml"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(run, "fit", counted)
    configure(logging={"file": "log.jsonl", "structured": True, "log_convergence": True})
    assert cli.main(["fit", "run.yaml", "--verbose", "--overwrite"]) == 0
    assert "compiled code is kept in" in capsys.readouterr().err
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [x["message"] for x in lines if "evaluation" in x["message"]] == ["evaluation 1: χ² = 4"]
    assert {x["level"] for x in lines} >= {"DEBUG", "INFO"}


def test_compiled_code_is_kept(place):
    kept = place / "kept"
    env = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    env["XDG_CACHE_HOME"] = str(kept)
    code = f"from twotime.cli import main; raise SystemExit(main({['fit', 'run.yaml']!r}))"
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert any(path.stat().st_size > 1e5 for path in kept.glob("twotime/jaxlib-*/programs/*"))


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"twotime {tt.__version__}\n"


@pytest.mark.slow
def test_ctrl_c_stops_a_running_fit(place):
    configure(
        analyzer_parameters__dt=0.01,
        analyzer_parameters__end_frame=500,
        analyzer_parameters__scattering__phi_angles=list(range(10)),
    )
    code = f"""if True:
        import signal
        from twotime.cli import main
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as shells leave it in front
        raise SystemExit(main({["fit", "run.yaml"]!r}))"""
    cli.main(["simulate", "run.yaml", "-o", "data.h5", "--overwrite", "--noise", "0.1"])
    before = content(place)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        assert line.startswith("read "), line
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
        said = process.stderr.read()
        assert (code, said.strip()) == (130, "error: interrupted; nothing was written")
    assert content(place) == before
