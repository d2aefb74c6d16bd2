"""Mistakes that people make, and the answer that each gets: one sentence that says what to do."""

import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
import yaml
from cases import BY_NAME

import twotime as tt
from twotime import cli
from twotime.data import load_with_report
from twotime.data.level import check_points

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
    "a gap with its unit": (
        changed(("static", "laminar_flow"),
                ("  scattering:", "  geometry: {stator_rotor_gap: 0.1 mm}\n  scattering:")),
        r"run.yaml: analyzer_parameters.geometry.stator_rotor_gap: got '0.1 mm'; expected .*Å",
    ),
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
    "words too many": ("fit flow run.yaml", 1,
                       r"extra argument \(run.yaml\); expected twotime fit \[OPTIONS\] CONFIG"),
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

LAG = np.abs(np.subtract.outer(np.arange(24.0), np.arange(24.0)))
DECAY = 1 + 0.3 * np.exp(-LAG / 5)


def array(values, **others):
    """Named arrays in data.npz: matrices of one wavevector."""
    count = len(np.atleast_1d(values))
    axes = {"q": [0.01] * count, "phi": np.arange(count) * 45.0, "dt": 0.5}
    return lambda: np.savez("data.npz", c2=values, **axes | others)


def bare(values):
    """An array without a name in data.npy."""
    return lambda: np.save("data.npy", values, allow_pickle=True)


def written(name, content):
    return lambda: Path(name).write_bytes(content)


SELECT = "scattering:\n    wavevector_q: 0.01"
FROM_NPY = "{scattering: {wavevector_q: 0.01, phi_angles: [0.0]}, dt: 0.5}"
NO_ANGLES = "{scattering: {wavevector_q: 0.01}, dt: 0.5}"
NO_DT = "{scattering: {wavevector_q: 0.01, phi_angles: [0.0]}}"
NAN = np.full_like(DECAY, np.nan)
LOPSIDED = DECAY + np.tril(LAG) * np.arange(24)

# What `fit` says of data: the file, how it is made, analyzer_parameters, and the answer.
DATA = {
    "csv": ("data.csv", written("data.csv", b"1.3, 1.2"), "", "data.csv: this is not a two-time"),
    "empty": ("data.npz", written("data.npz", b""), "", "data.npz: this file is empty"),
    "truncated": ("data.npz", written("data.npz", b"PK\3\4 and no more"), "", "is truncated"),
    "pickled": ("data.npy", bare(np.array([DECAY, None], object)), FROM_NPY, "pickled objects"),
    "complex": ("data.npy", bare(DECAY + 0j), FROM_NPY, "complex128; expected real numbers"),
    "rectangular": ("data.npy", bare(DECAY[:, :20]), FROM_NPY, r"shape \(24, 20\); expected"),
    "one axis": ("data.npy", bare(DECAY[0]), FROM_NPY, r"shape \(24,\); expected"),
    "four axes": ("data.npy", bare(DECAY[None, None]), FROM_NPY, r"shape \(1, 1, 24, 24\)"),
    "no angles": ("data.npy", bare(np.stack([DECAY] * 3)), NO_ANGLES,
                  "angles of its 3 matrices and .*phi_angles gives none; expected one per matrix"),
    "too few angles": ("data.npy", bare(np.stack([DECAY] * 3)), FROM_NPY, "phi_angles gives 1;"),
    "no dt": ("data.npy", bare(DECAY), NO_DT, "time between frames; set analyzer_parameters.dt"),
    "another dt": ("data.npz", array([DECAY]), "{scattering: {wavevector_q: 0.01}, dt: 0.7}",
                   "dt is 0.7 s in the configuration and 0.5 s in the file"),
    "another q": ("data.npz", array([DECAY]), "{scattering: {wavevector_q: 0.5}}",
                  "no wavevector within 5.00% of q = 0.5 1/Å; the file holds 0.01"),
    "only NaN": ("data.npz", array([NAN]), "", "no usable point.*; check the file"),
    "one of two NaN": ("data.npz", array([DECAY, NAN]), "", "phi = 45 .*leave this angle out"),
    "not symmetric": ("data.npz", array([LOPSIDED]), "", "its halves differ by up to"),
    "percent": ("data.npz", array([100 * DECAY]), "", "look like percent; .*scaling.offset: {min"),
    "all ones": ("data.npz", array([np.ones_like(DECAY)]), "", "Nothing to fit: c2 is 1 on"),
    "beyond the end": ("data.npz", array([DECAY]), "{scattering: {wavevector_q: 0.01}, "
                       "end_frame: 25}", "end_frame is 25 but the file has 24 frames"),
    "two frames": ("data.npz", array([DECAY]), "{scattering: {wavevector_q: 0.01}, "
                   "start_frame: 20, end_frame: 21}", "Too few data: 1 usable .* 4 unknowns"),
    "three points": ("data.npz", array([DECAY]), "{scattering: {wavevector_q: 0.01}, "
                     "start_frame: 20, end_frame: 22}", "Too few data: 3 usable .* 4 unknowns"),
    "nothing in it": ("empty.h5", lambda: h5py.File("empty.h5", "w").close(), "", "holds nothing"),
    "a folder": (".", lambda: None, "", "expected a data file, got a folder"),
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


def test_what_a_configuration_selects_is_looked_for_in_the_file(place, capsys):
    selects = {"wavevector_q=0.05": "no wavevector within .* the file holds 0.01, 0.02",
               "start_frame=99": "frames 99 to 9 "}  # fmt: skip
    for key, told in selects.items():
        section = "analyzer_parameters." + ("scattering." if "q" in key else "")
        out, err = answer(capsys, ["validate", "run.yaml", "--set", section + key], 0)
        assert "valid; static" in out and re.search(f"warning: .*data.npz: {told}", err), err
    Path("data.npz").unlink()
    assert "data.npz: there is no such data file" in answer(capsys, ["validate", "run.yaml"], 0)[1]


@pytest.mark.parametrize("mistake", COMMANDS)
def test_a_mistake_on_the_command_line_is_named(place, capsys, mistake):
    line, code, told = COMMANDS[mistake]
    before = {p.name for p in place.iterdir()}
    out, err = answer(capsys, line.split(), code)
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    assert re.search(told, err), err
    assert {p.name for p in place.iterdir()} == before


@pytest.mark.parametrize("mistake", DATA)
def test_a_mistake_in_the_data_is_named_before_a_fit(place, capsys, mistake):
    file, make, section, told = DATA[mistake]
    make()
    text = changed(("data.npz", file))
    config = yaml.safe_load(text)
    if section:
        config["analyzer_parameters"] = yaml.safe_load(section)
    Path("run.yaml").write_text(yaml.safe_dump(config))
    out, err = answer(capsys, ["fit", "run.yaml"], 1)
    assert out == "" and re.search(f"^error: .*{told}", err, re.MULTILINE), err
    assert not Path("results").exists()


@pytest.mark.parametrize("values", [DECAY - 1, np.exp(-LAG / 5)], ids=["c2 - 1", "g1"])
def test_numbers_near_0_are_recognised_with_the_key_that_says_so(place, capsys, values):
    array([values])()
    _, report = load_with_report(tt.ConfigManager.from_yaml("run.yaml"))
    assert any("taken as 0" in x and "experimental_data.baseline" in x for x in report.notes)


@pytest.mark.parametrize(("q", "notes"), [(0.0100003, 0), (0.0103, 1)])
def test_a_wavevector_is_remarked_upon_from_one_percent(place, q, notes):
    array([DECAY])()
    Path("run.yaml").write_text(changed(("0.01", str(q))))
    _, report = load_with_report(tt.ConfigManager.from_yaml("run.yaml"))
    assert len(report.notes) == notes


def test_what_is_estimated_from_the_data_is_worth_no_warning(place, capsys):
    Path("run.yaml").write_text(parameters("{D_offset: {value: 2.0e3, vary: false}}"))
    assert answer(capsys, ["validate", "run.yaml"], 0)[1] == ""
    given = "D0: 1.0e3, alpha: 0.0, D_offset: {value: 2.0e3, vary: false}"
    Path("run.yaml").write_text(parameters(f"{{{given}}}"))
    assert "D_offset / D0 = 2 is above 0.5" in answer(capsys, ["validate", "run.yaml"], 0)[1]


def test_a_platform_that_is_not_there_is_one_sentence(place):
    done = subprocess.run(
        [sys.executable, "-m", "twotime", "doctor"], text=True, capture_output=True,
        env=os.environ | {"JAX_PLATFORMS": "cuda"},
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: JAX_PLATFORMS is 'cuda', which JAX does not find here")


CASE = BY_NAME["static"]
LAW, MADE, SPACE, KEY = CASE.model, CASE.data, CASE.space, jax.random.key(0)
AXES = {"t": MADE.t, "q": 0.01, "phi": [0.0]}
NOISE = {"contrast": 0.3, "offset": 1.0, "noise": 0.01, "key": KEY}


def fitted(**changes):
    return tt.fit_nlsq(LAW, dataclasses.replace(MADE, **changes), SPACE)


SAMPLED = functools.partial(tt.fit_cmc, LAW, MADE, SPACE, key=jax.random.key(0))
# Calls from Python and the sentence that each raises.
CALLS = {
    "too few parameters": (lambda: tt.correlation(LAW, [2e4, 0.0], **AXES),
                           "has 3 parameters, D0, alpha, D_offset; got an array of shape .2,"),
    "nine parameters": (lambda: tt.correlation(tt.LaminarFlow(gap=2e6), np.ones(9), **AXES),
                        "LaminarFlow has 7 parameters"),
    "an angle that is no list": (lambda: tt.correlation(LAW, CASE.truth, **AXES | {"phi": 0.0}),
                                 r"phi has shape \(\) .*phi=\[0.0\] for one"),
    "a q too many": (lambda: tt.correlation(LAW, CASE.truth, **AXES | {"q": [0.01, 0.02]}),
                     r"q \(2,\); expected one angle for each matrix"),
    "times that are no pairs": (
        lambda: tt.correlation_at(LAW, CASE.truth, 0.1, 0.2, **AXES | {"phi": 0.0}),
        r"t1 and t2 have shapes \(\) and \(\); expected \(pair,\) both"),
    "a class for a law": (lambda: tt.correlation(tt.StaticDiffusion, CASE.truth, **AXES),
                          r"model is the class StaticDiffusion; .*; write StaticDiffusion\("),
    "no gap": (lambda: tt.LaminarFlow(), r"gap of the shear cell is missing \[Å\]; .*gap=2e6"),
    "a negative gap": (lambda: tt.LaminarFlow(gap=-1.0), r"gap must be positive \[Å\]; got -1"),
    "a negative q": (lambda: fitted(q=-0.01), r"q must be positive \[1/Å\]; got -0.01"),
    "not symmetric": (lambda: fitted(c2=np.asarray(MADE.c2) + 0.1 * np.tril(np.ones((40, 40)))),
                      r"c2 of matrix 0 is not symmetric: .* at \(\d+, \d+\); expected the same"),
    "a complex c2": (lambda: fitted(c2=np.asarray(MADE.c2) + 0j), "type complex128; expected real"),
    "a negative sigma": (lambda: fitted(sigma=-1.0), "sigma is -1 at a used point of phi = 0"),
    "times backwards": (lambda: fitted(t=MADE.t[::-1]), "t must be finite, increasing times"),
    "one frame": (lambda: fitted(c2=MADE.c2[:, :1, :1], t=MADE.t[:1]), "t holds one time"),
    "c2 - 1": (lambda: fitted(c2=MADE.c2 - 1), r"look like c2 - 1 .*TwoTimeData\(..., baseline=0"),
    "another order": (lambda: tt.fit_nlsq(MADE, LAW, SPACE),
                      "fit_nlsq: model is TwoTimeData; expected AbstractTwoTimeModel; see help"),
    "angles in another order": (lambda: tt.fit_sequential(MADE, LAW, SPACE),
                                "model is TwoTimeData; expected AbstractTwoTimeModel"),
    "a profile in another order": (lambda: tt.profile(MADE, LAW, SPACE, None, "D0", [1.0]),
                                   "model is TwoTimeData; expected AbstractTwoTimeModel"),
    "a dictionary for the space": (lambda: tt.fit_nlsq(LAW, MADE, {"D0": 1e4}),
                                   "space is dict; expected ParameterSpace"),
    "a word for a number": (lambda: tt.fit_nlsq(LAW, MADE, SPACE, max_steps="many"),
                            "max_steps is 'many'; expected a whole number"),
    "a word for a flag": (lambda: tt.fit_nlsq(LAW, MADE, SPACE, judge="no"),
                          "judge is 'no'; expected True or False"),
    "a number for a word": (lambda: tt.fit_nlsq(LAW, MADE, SPACE, uncertainty=1),
                            "uncertainty is 1; expected a word"),
    "a list of what varies": (lambda: SPACE.with_vary(["D0"]),
                              "with_vary: vary is list; expected a mapping from names"),
    "a file for data": (lambda: tt.one_time("data.h5"), "data is 'data.h5'; expected TwoTimeData"),
    "a space for a fit": (lambda: tt.delta_bands(LAW, SPACE, MADE.t),
                          "fit is ParameterSpace; expected NLSQResult"),
    "data for arrays": (lambda: tt.plots.maps(MADE), "arrays is TwoTimeData; expected a mapping"),
    "data for a fit": (lambda: tt.plots.scaling(MADE), "fit is TwoTimeData; expected NLSQResult"),
    "a number for the key": (lambda: tt.fit_nlsq(LAW, MADE, SPACE, starts=3, key=0),
                             r"key is 0; expected a random key: jax.random.key\(0\)"),
    "the same in a simulation": (lambda: tt.simulate(LAW, CASE.truth, **AXES | NOISE | {"key": 0}),
                                 "key is 0; expected a random key"),
    "negative noise": (lambda: tt.simulate(LAW, CASE.truth, **AXES | NOISE | {"noise": -1.0}),
                       "noise is -1.0; expected standard deviations"),
    "a path for a configuration": (lambda: tt.load_data("run.yaml"),
                                   r"load_data got str; expected a ConfigManager: .*from_yaml"),
    "sections for a configuration": (lambda: tt.build_model({"analysis_mode": "static"}),
                                     "build_model got dict; expected a ConfigManager"),
    "fits without names": (lambda: tt.compare([1, 2]), "compare got list; expected fits by name"),
    "a word for a count of draws": (lambda: SAMPLED(n_samples="many"),
                                    "Nuts: n_samples is 'many'; expected a whole number"),
    "a part of a shard": (lambda: SAMPLED(n_shards=1.5),
                          "Sharding: n_shards is 1.5; expected a whole number"),
    "a word for a limit": (lambda: SAMPLED(max_reduced_chi2="small"),
                           "Limits: max_reduced_chi2 is 'small'; expected numbers or None"),
    "a list of data": (lambda: tt.join([MADE, MADE]), r"join got list; .*join\(one, another\)"),
}  # fmt: skip


def answers_to_calls():
    """What each call raises, by its name."""
    found = {}
    for name, (call, _) in CALLS.items():
        try:
            found[name] = f"no error: {call()}"
        except (TypeError, ValueError) as error:
            found[name] = str(error)
    return found


@pytest.fixture(scope="module")
def answers():
    """The same from a process of its own, in which types are not checked at each call."""
    code = "import json, test_mistakes as here; print(json.dumps(here.answers_to_calls()))"
    env = os.environ | {"JAX_ENABLE_X64": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        text=True,
        capture_output=True,
        env=env,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mistake", CALLS)
def test_a_mistake_in_a_call_is_one_sentence(answers, mistake):
    assert re.search(CALLS[mistake][1], answers[mistake]) and "\n" not in answers[mistake]


def test_starts_of_a_space_with_every_value_are_that_space():
    (found,) = tt.estimate_starts(LAW, MADE, SPACE)
    assert found.values == SPACE.values


def test_frames_that_are_not_symmetric_are_seen_in_the_middle_of_a_matrix():
    c2 = np.array(MADE.c2)
    c2[1, 18:21, 25] += 0.1
    with pytest.raises(ValueError, match="c2 of matrix 1 is not symmetric: .* at frames .18, 25."):
        check_points(dataclasses.replace(MADE, c2=c2))


def test_halves_of_which_one_is_empty_or_masked_may_differ():
    c2, below = np.asarray(MADE.c2), np.tril(np.ones((40, 40), bool), -1)
    for empty in (0.0, np.nan):
        check_points(dataclasses.replace(MADE, c2=np.where(below, empty, c2)))
    mask = np.broadcast_to(~below, c2.shape)
    check_points(dataclasses.replace(MADE, c2=c2 + below, mask=mask))
    check_points(dataclasses.replace(MADE, sigma=np.where(np.eye(40) > 0, 0.0, np.ones(c2.shape))))


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
    answer(capsys, ["init", "data.npz", "-o", "shear.yaml", "--model", "laminar_flow"], 0)
    _, err = answer(capsys, ["validate", "shear.yaml"], 1)
    assert err.count("\n") == 1 and "laminar_flow needs the gap of the shear cell" in err
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
