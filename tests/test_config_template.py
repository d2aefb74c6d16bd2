"""Templates: valid as they stand, short, and off the truth they are fitted to."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from twotime.config.files import parse_yaml, template, truth
from twotime.config.keys import fields, walk
from twotime.config.manager import ConfigManager
from twotime.config.parameter_names import ANALYSIS_MODES
from twotime.config.types import HeterodyneConfig, ParametersConfig

OLDER = sorted((Path(__file__).parent / "data" / "configurations").glob("*.yaml"))
modes = pytest.mark.parametrize("mode", ANALYSIS_MODES)


def load(text):
    return ConfigManager.from_dict(parse_yaml(text.encode(), "template"))


@modes
def test_short_ones_are_short_and_valid(mode):
    text = template(mode)
    config = load(text)
    assert config.analysis_mode == mode and config.warnings == ()
    assert len(text.splitlines()) <= 50
    assert config.data_file_path.name == "example.h5"


@modes
def test_every_yaml_reader_reads_the_same(mode):
    for text in (template(mode), template(mode, full=True), truth(mode)):
        assert yaml.safe_load(text) == parse_yaml(text.encode(), "template")


@modes
def test_full_ones_say_the_same_and_hold_every_key(mode):
    text = template(mode, full=True)
    full, short = load(text), load(template(mode))
    assert full.space.values == short.space.values and full.space.vary == short.space.vary
    assert full.space.bounds == short.space.bounds
    for section in ("analyzer_parameters.scattering", "optimization.nlsq", "output", "model"):
        assert full.section(section) == short.section(section)
    assert full.get_cmc_config() == short.get_cmc_config()
    assert (full.start_frame, full.end_frame, full.gap) == (1, -1, short.gap)
    older = {"initial_parameters", "analysis", "temporal", "scattering", "parameters"}
    groups = set(fields(ParametersConfig))
    shown = {line.lstrip("# ").split(":")[0] for line in text.splitlines()}
    for path, field in walk(HeterodyneConfig):
        if path[0] in older or groups & set(path) or field.refused:
            continue
        assert path[-1] in shown, path


@modes
def test_every_comment_of_the_full_one_is_a_key_that_could_stand(mode):
    """A key shown as a comment is one without default or without effect, never unknown."""
    lines = template(mode, full=True).splitlines()
    assert max(len(line) for line in lines) <= 100
    assert any(line.strip() == "# dt:" for line in lines)


@modes
def test_starts_are_off_the_truth_and_inside_the_bounds(mode):
    start, true = load(template(mode)).space, load(truth(mode)).space
    assert start.validate() == [] and true.validate() == []
    for name in start.names:
        low, high = start.bounds[name]
        assert low <= true.values[name] <= high
        if start.vary[name]:
            assert start.values[name] != true.values[name], name
        else:
            assert start.values[name] == true.values[name], name
    assert all(start.given)


@modes
def test_truths_can_be_simulated_from(mode):
    config = load(truth(mode))
    assert config.dt > 0 and config.time_length == 120
    assert len(config.phi_angles) in (3, 4) and np.isfinite(config.wavevector_q)
    assert config.get_parameter_value("scaling", "contrast") == 0.3


def test_unknown_mode():
    with pytest.raises(ValueError, match="did you mean 'static'"):
        template("statics")
    with pytest.raises(KeyError, match="no analysis mode 'x'"):
        truth("x")


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_templates_of_version_0_1_read_as_before(path):
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    config = ConfigManager.from_yaml(path)
    assert config.analysis_mode == written["analysis_mode"] and config.warnings == ()
    groups = written["parameters"]
    named = {**groups, **{n: e for group in groups.values() if isinstance(group, dict)
                          for n, e in group.items() if n in config.space.values}}  # fmt: skip
    found = 0
    for name, value in config.space.values.items():
        entry = named.get(name)
        if entry is not None:
            entry = entry if isinstance(entry, dict) else {"value": entry}
            usual = config.space.registry[name].vary_default
            assert value == entry["value"] and config.space.vary[name] is entry.get("vary", usual)
            found += 1
    assert found >= 3
