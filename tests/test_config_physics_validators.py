"""Physical sense of parameter values, rule by rule."""

import re

import numpy as np
import pytest

from twotime.config.parameter_manager import validate_parameters
from twotime.config.parameter_registry import REGISTRIES
from twotime.models import findings

T = np.linspace(0.1, 10.0, 100)
# changed values, mode, severity, words; one row on each side of every limit
RULES = [
    ({"D0_ref": -1.0, "D_offset_ref": 10.0}, "two_component", "error", "D0_ref = -1 is negative"),
    ({"D0_sample": 2e5}, "two_component", "warning", "D0_sample = 200000 .* above 1e5"),
    ({"alpha_ref": -1.6}, "two_component", "warning", "alpha_ref = -1.6 is below -1.5"),
    ({"alpha_ref": 1.1}, "two_component", "info", "alpha_ref = 1.1 is above 1"),
    ({"alpha": 2.5}, "static", "warning", "alpha = 2.5 is beyond 2"),
    ({"alpha": -2.5}, "static", "warning", "alpha = -2.5 is beyond 2"),
    ({"v0": -3.0}, "two_component", "warning", "v0 = -3 .* is negative"),
    ({"v0": 1.1e3}, "two_component", "info", "v0 = 1100 .* above 1e3"),
    ({"beta": 2.1}, "two_component", "warning", "beta = 2.1 is beyond 2"),
    ({"beta": -2.1}, "laminar_flow", "warning", "beta = -2.1 is beyond 2"),
    ({"f0": 1.1}, "two_component", "error", r"f0 = 1.1 is outside \[0, 1\]"),
    ({"f3": -0.1}, "two_component", "error", r"f3 = -0.1 is outside \[0, 1\]"),
    ({"f1": -5.5}, "two_component", "warning", "f1 = -5.5 1/s is beyond 5"),
    ({"f0": 0.6, "f3": 0.5}, "two_component", "error", r"f0 \+ f3 = 1.1 is above 1"),
    ({"f1": 0.5}, "two_component", "warning", "sample fraction reaches .* in the frames"),
    ({"D_offset": 600.0}, "static", "warning", "D_offset / D0 = 0.6 is above 0.5"),
    ({"D_offset": -5e3}, "static", "error", r"J\(t\) = .* must be positive"),
    ({"contrast": 0.0}, "static", "error", r"contrast = 0 is outside \(0, 1\]"),
    ({"contrast": 1.1}, "static", "error", "contrast = 1.1 is outside"),
    ({"contrast": 0.05}, "static", "warning", "contrast = 0.05 is below 0.1"),
    ({"offset": 0.0}, "static", "error", "offset = 0 is not positive"),
]
HARMLESS = [
    ({"D0_ref": 1e5, "v0": 1e3, "f1": 0.0, "f0": 0.5, "f3": 0.5}, "two_component"),
    ({"alpha": -1.5}, "static"),
    ({"alpha": 1.0, "D_offset": 500.0, "contrast": 0.1}, "static"),
    ({"beta": 2.0, "contrast": 1.0}, "laminar_flow"),
]


def values_of(mode, changes):
    return REGISTRIES[mode].get_defaults() | changes


@pytest.mark.parametrize(("changes", "mode", "severity", "words"), RULES)
def test_each_rule(changes, mode, severity, words):
    found = findings(values_of(mode, changes), T)
    assert any(level == severity for level, _ in found)
    result = validate_parameters(values_of(mode, changes), "info", T)
    by_level = {"error": result.errors, "warning": result.warnings, "info": result.infos}
    assert len([text for text in by_level[severity] if re.search(words, text)]) == 1
    assert result.is_valid == (severity != "error" and not result.errors)


@pytest.mark.parametrize(("changes", "mode"), HARMLESS)
def test_nothing_is_said_on_the_limit(changes, mode):
    assert findings(values_of(mode, changes), T) == []


@pytest.mark.parametrize("mode", REGISTRIES)
def test_defaults_are_harmless(mode):
    assert findings(REGISTRIES[mode].get_defaults(), T) == []


def test_severity_level_filters():
    values = values_of("two_component", {"f0": 1.1, "v0": 1.1e3, "f1": 5.5, "f3": 0.0})
    levels = {level: validate_parameters(values, level) for level in ("error", "warning", "info")}
    counts = {k: (len(r.errors), len(r.warnings), len(r.infos)) for k, r in levels.items()}
    assert counts == {"error": (2, 0, 0), "warning": (2, 1, 0), "info": (2, 1, 1)}
    assert not any(result.is_valid for result in levels.values())
    with pytest.raises(ValueError, match="error, warning, info; got 'warn'"):
        validate_parameters(values, "warn")


def test_divergence_at_time_zero():
    values = values_of("static", {"alpha": -1.2})
    assert any("diverges" in text for _, text in findings(values, np.array([0.0, 0.1])))
    assert not any("diverges" in text for _, text in findings(values, np.array([0.1, 0.2])))
    assert not any("diverges" in text for _, text in findings(values))
    on_limit = values_of("static", {"alpha": -1.0})
    assert not any("diverges" in text for _, text in findings(on_limit, np.array([0.0, 0.1])))


def test_transport_is_looked_at_in_all_frames():
    values = values_of("static", {"alpha": -0.5, "D_offset": -400.0})
    result = validate_parameters(values, "error", T)
    assert "at t = 10 s" in result.errors[0]
    assert validate_parameters(values, "error", T[:20]).is_valid
    assert validate_parameters(values, "error").is_valid


def test_huge_numbers_do_not_warn():
    findings(values_of("static", {"alpha": 300.0}), np.array([1e3, 1e6]))
    findings(values_of("two_component", {"f1": 10.0, "f2": -1e4}), T)
