"""Mistakes that people make, and the answer that each gets: one sentence that says what to do."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from twotime import cli

GOOD = """\
analysis_mode: static
experimental_data: {file_path: data.npz}
analyzer_parameters:
  scattering:
    wavevector_q: 0.01
parameters: {D0: 5.0e3}
"""


def changed(*pairs):
    """The good configuration with texts replaced."""
    text = GOOD
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


def parameters(text):
    return changed(("{D0: 5.0e3}", text))


def analyzer(text):
    return changed(("  scattering:", f"  {text}\n  scattering:"))


VALUES = {"D0": 5e3, "alpha": 0, "contrast": 0.3, "offset": 1}
FIXED = ", ".join(f"{name}: {{value: {x}, vary: false}}" for name, x in VALUES.items())

# What `validate` says of a configuration.
CONFIGURATIONS = {
    "tab": (changed(("  scattering", "\tscattering")), "line 4 is indented with a tab"),
    "tab further in": (changed(("    wave", "\t\twave")), "line 5 is .* a tab; use spaces"),
    "no space": (changed(("q: 0.01", "q:0.01")), "after the colon of .wavevector_q"),
    "no space at top": (changed(("mode: ", "mode:")), "line 1: a space is missing"),
    "q a level up": (
        changed(("  scattering:\n    wave", "  wave")),
        "wavevector_q: there is no such key here; it belongs to analyzer_parameters.scattering",
    ),
    "nlsq at the top": (GOOD + "nlsq: {}\n", "nlsq: .*belongs to optimization"),
    "dt in the wrong section": (
        changed(("data.npz}", "data.npz, dt: 0.1}")), "data.dt: .*belongs to analyzer_parameters",
    ),
    "level in output": (GOOD + "output: {level: INFO}\n", "output.level: .*belongs to logging"),
    "everything fixed": (parameters("{" + FIXED + "}"), "every parameter is fixed.*vary: true"),
    "offset 0": (
        parameters("{offset: {value: 0.0, min: -1.0, max: 1.0}}"), "for c2 - 1 set baseline: 0",
    ),
    "old configuration of homodyne": (
        GOOD + "initial_parameters: {values: [1.0]}\noptimization: {mcmc: {n: 1}}\n",
        "values|twotime migrate",
    ),
    "typo in a key": (analyzer("start_fram: 1"), "start_fram: .*did you mean 'start_frame'"),
    "typo in a section": (changed(("analyzer_parameters", "analyser_parameters")), "did you mean"),
    "typo in a parameter": (parameters("{D: 5.0e3}"), "parameters.D: .*no parameter of this name"),
    "typo in the mode": (changed(("static", "statik")), "did you mean 'static'"),
    "parameter of another law": (parameters("{v0: 5.0}"), "analysis_mode: two_component"),
    "q as a list of text": (changed(("q: 0.01", "q: [small]")), "wavevector_q: got a list of 1"),
    "q as text": (changed(("q: 0.01", "q: small")), "wavevector_q: got 'small'"),
    "q as yes": (changed(("q: 0.01", "q: true")), "wavevector_q: got true"),
    "q with a comma": (changed(("q: 0.01", "q: 0,01")), "wavevector_q: got '0,01'"),
    "value outside its bounds": (
        parameters("{D0: {value: 5.0, min: 10.0, max: 20.0}}"), "D0.*5.*outside",
    ),
    "min above max": (parameters("{D0: {value: 15.0, min: 20.0, max: 10.0}}"), "D0.*min.*max"),
    "only min": (parameters("{D0: {value: 15.0, min: 20.0}}"), "D0.*(max|both)"),
    "dt as text": (analyzer("dt: fast"), "dt: got 'fast'"),
    "dt negative": (analyzer("dt: -0.1"), "dt: got -0.1"),
    "dt zero": (analyzer("dt: 0"), "dt: got 0"),
    "dt not a number": (analyzer("dt: .nan"), "dt"),
    "start 0": (analyzer("start_frame: 0"), "start_frame"),
    "start after end": (analyzer("{start_frame: 9, end_frame: 3}"[1:-1].replace(", ", "\n  ")),
                        "(start|end)_frame"),
    "empty": ("", "the file is empty"),
    "comments only": ("# nothing\n", "the file is empty"),
    "twice the same key": (GOOD + "analysis_mode: static\n", "'analysis_mode' is given twice"),
    "false as text": (
        parameters("{D0: {value: 5.0e3, vary: 'false'}}"), "vary: got 'false'",
    ),
    "a brace that stays open": (GOOD + "output: {a: 1\n", "not valid YAML"),
    "unknown method": (GOOD + "optimization: {method: mcmc}\n", "method: got 'mcmc'"),
    "nothing given": ("analysis_mode: static\n", "missing"),
}  # fmt: skip

# What other command lines say, and the exit code.
COMMANDS = {
    "data as configuration": ("fit data.npz", 1, "this is a data file .npz.*twotime init data.npz"),
    "data to validate": ("validate data.h5", 1, "this is a data file .HDF5.*twotime inspect data"),
    "configuration to inspect": ("inspect run.yaml", 1, "configuration, not a data file.*validate"),
    "nothing to inspect": ("inspect nothere.h5", 1, "nothere.h5: no such file"),
    "nothing to validate": ("validate nothere.yaml", 1, "nothere.yaml: cannot be read: No"),
    "folder to validate": ("validate .", 1, "this is a folder"),
    "folder to inspect": ("inspect .", 1, "expected a data file, got a folder"),
    "configuration to plot": ("plot run.yaml", 1, "holds no result"),
    "nothing to plot": ("plot nothere", 1, "nothere: holds no result"),
    "unknown command": ("fitt run.yaml", 1, "No such command 'fitt'"),
    "unknown option": ("fit run.yaml --methd nlsq", 1, "No such option.*--method"),
    "no argument": ("fit", 1, "Missing argument 'CONFIG'"),
    "photons with noise": ("simulate run.yaml -o a.h5 --noise 0.01 --photons 1", 1,
                           "--photons has no effect with --noise"),
    "pixels with noise": ("simulate run.yaml -o a.h5 --noise 0.01 --pixels 9", 1,
                          "--pixels has no effect with --noise"),
    "resume without sampling": ("fit run.yaml --resume", 1, "Nothing is sampled.*--resume"),
    "resume without a run": ("fit run.yaml --resume --method cmc", 1, "no interrupted run to"),
    "quiet and verbose": ("fit run.yaml --quiet --verbose", 1, "contradict each other"),
    "set without a value": ("validate run.yaml --set parameters.D0", 1, "expected KEY=VALUE"),
    "set an unknown key": ("validate run.yaml --set output.dir=a", 1, "output.dir: there is"),
    "set below a value": ("validate run.yaml --set analysis_mode.a=1", 1, "mode is no section"),
    "set a wrong value": ("validate run.yaml --set analyzer_parameters.dt=-1", 1, "dt: got -1"),
    "q without data": ("init --q 0.01", 1, "init DATA --q Q"),
    "example with data": ("init data.npz --example -o a.yaml", 1, "--example has no effect"),
    "init on what exists": ("init data.npz", 1, "run.yaml: the file exists.*--overwrite"),
    "init of a configuration": ("init run.yaml -o a.yaml", 1, "configuration, not a data file"),
    "q that is not there": ("init data.npz --q 0.5 -o a.yaml", 1, "near q = 0.5.*0.01, 0.02"),
    "migrate our own": ("migrate run.yaml -o a.yaml", 1, "not recognised as a configuration of"),
    "unknown shell": ("completion csh", 1, "'csh' is not one of"),
    "negative noise": ("simulate run.yaml -o a.h5 --noise -1", 1, "--noise"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    c2 = 1 + 0.3 * np.exp(-np.abs(np.subtract.outer(np.arange(9.0), np.arange(9.0))))
    np.savez("data.npz", c2=np.stack([c2] * 3), q=[0.01, 0.01, 0.02], phi=[0.0, 45.0, 0.0], dt=0.5)
    with h5py.File("data.h5", "w") as file:
        file["c2"] = c2
    Path("run.yaml").write_text(GOOD)
    return tmp_path


def answer(capsys, arguments, code):
    assert cli.main(arguments) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return out, err


def test_the_configuration_without_a_mistake_is_valid(place, capsys):
    out, err = answer(capsys, ["validate", "run.yaml"], 0)
    assert out == "run.yaml: valid; static, fits D0, alpha, contrast, offset\n" and err == ""


@pytest.mark.parametrize("mistake", CONFIGURATIONS)
def test_a_mistake_in_a_configuration_is_named(place, capsys, mistake):
    text, told = CONFIGURATIONS[mistake]
    Path("run.yaml").write_text(text)
    out, err = answer(capsys, ["validate", "run.yaml"], 1)
    assert out == "" and err.startswith("error: run.yaml: ") and re.search(told, err), err


@pytest.mark.parametrize("mistake", COMMANDS)
def test_a_mistake_on_the_command_line_is_named(place, capsys, mistake):
    line, code, told = COMMANDS[mistake]
    before = {p.name for p in place.iterdir()}
    out, err = answer(capsys, line.split(), code)
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    assert re.search(told, err), err
    assert {p.name for p in place.iterdir()} == before


def test_hdf5_as_the_format_means_any(place, capsys):
    Path("run.yaml").write_text(changed(("data.npz}", "data.h5, file_format: HDF5}")))
    answer(capsys, ["validate", "run.yaml"], 0)


def test_without_a_command_there_is_help(capsys):
    out, err = answer(capsys, [], 0)
    assert "Examples:" in out and "fit run.yaml" in out and err == ""


@pytest.mark.parametrize("name", sorted(cli.twotime.commands))
def test_every_help_has_examples_that_are_understood(capsys, name):
    out, _ = answer(capsys, [name, "--help"], 0)
    lines = re.findall(rf"^    twotime ({name}.*?)(?: >.*)?$", out, re.MULTILINE)
    assert lines
    for line in lines:
        command = cli.twotime.commands[name]
        command.make_context(name, line.split()[1:])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_for_the_shell(capsys, shell):
    out, _ = answer(capsys, ["completion", shell], 0)
    assert "_TWOTIME_COMPLETE" in out and f"{shell}_complete" in out


def test_set_changes_what_the_file_says(place, capsys):
    changes = ["parameters.D0.max=1e6", "parameters.D0.min=10", "analysis_mode=laminar_flow",
               "analyzer_parameters.geometry.stator_rotor_gap=2e6"]  # fmt: skip
    arguments = [word for change in changes for word in ("--set", change)]
    out, _ = answer(capsys, ["validate", "run.yaml", *arguments], 0)
    assert "valid; laminar_flow" in out and Path("run.yaml").read_text() == GOOD
    settings = cli.settings_of(Path("run.yaml"), changes)
    entry = settings.get_config()["parameters"]["transport"]["D0"]
    assert entry == {"value": 5e3, "min": 10, "max": 1e6}
    Path("run.json").write_text(json.dumps(yaml.safe_load(changed(("5.0e3", "5.0e+3")))))
    answer(capsys, ["validate", "run.json", "--set", "parameters.alpha=-0.1"], 0)


def test_a_configuration_for_a_data_file_is_ready(place, capsys):
    out, _ = answer(
        capsys, ["init", "data.npz", "--q", "0.0201", "-o", "a.yaml", "--model", "static"], 0
    )
    assert "next: twotime fit a.yaml" in out and "missing" not in out
    text = Path("a.yaml").read_text()
    assert "#   q = 0.01 1/Å, phi = 0 45" in text and "wavevector_q: 0.02 " in text
    assert "# dt: 0.5" in text and "file_path: data.npz" in text
    assert re.search("# .*c2 is 1.* on average", text)
    answer(capsys, ["validate", "a.yaml"], 0)


def test_what_a_data_file_does_not_give_is_named(place, capsys):
    np.save("bare.npy", np.ones((3, 6, 6)))
    out, _ = answer(capsys, ["init", "bare.npy", "-o", "deep.yaml"], 0)
    missing = re.findall(r"missing: (\S+),", out)
    assert missing == [
        "analyzer_parameters.dt", "analyzer_parameters.scattering.wavevector_q",
        "analyzer_parameters.scattering.phi_angles",
    ]  # fmt: skip
    assert "next: twotime validate deep.yaml" in out
    _, err = answer(capsys, ["validate", "deep.yaml"], 1)
    assert "wavevector_q: missing" in err


def test_a_changed_key_does_not_hide_what_the_file_is(place, capsys):
    Path("empty.yaml").write_text("")
    _, err = answer(capsys, ["validate", "empty.yaml", "--set", "analysis_mode=static"], 1)
    assert "the file is empty" in err
    Path("old.yaml").write_text(
        "metadata: {config_version: 2.6.0}\nparameter_space: {model: static}"
    )
    _, err = answer(capsys, ["validate", "old.yaml", "--set", "analysis_mode=static"], 1)
    assert "a configuration of homodyne" in err and "twotime migrate old.yaml" in err
