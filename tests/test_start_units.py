"""Slips of units are told with the unit; right units are not."""

import dataclasses

import jax
import numpy as np
import pytest

import twotime as tt
from twotime import scaffold
from twotime.data import load_with_report
from twotime.start import units

PHI = np.array([-45.0, 0.0, 45.0, 90.0])


@pytest.fixture(scope="module")
def sheared():
    """Laminar flow with a gap of 0.2 mm, dt 0.1 s, q 0.005 1/Å, flow at 45 degrees."""
    data = tt.simulate(
        tt.LaminarFlow(gap=2e6), np.array([1e4, 0.0, 0.0, 4e-4, 0.0, 0.0, 45.0]),
        t=0.1 * np.arange(1, 81.0), q=0.005, phi=PHI, contrast=0.25, offset=1.0, noise=0.01,
        key=jax.random.key(0),
    )  # fmt: skip
    return tt.TwoTimeData(*map(np.asarray, (data.c2, data.t, data.q, data.phi)))


def space(**values):
    return tt.ParameterSpace.from_config(
        {"analysis_mode": "laminar_flow", "parameters": {"D0": 1.5e4, "alpha": 0.0} | values}
    )


def changed(data, **by):
    parts = {name: np.asarray(getattr(data, name)) * factor for name, factor in by.items()}
    return dataclasses.replace(data, **parts)


def told(data, gap=2e6, **values):
    return units.unit_notes(tt.LaminarFlow(gap=gap), data, space(**values))


@pytest.mark.parametrize(
    ("gap", "unit"), [(200.0, "µm"), (0.2, "mm"), (2e-4, "m"), (0.9, "mm"), (800.0, "µm")]
)
def test_gaps(sheared, gap, unit):
    (note,) = told(sheared, gap)
    assert note.startswith(f"geometry.stator_rotor_gap is {gap:g} Å; the fastest decay would mean")
    assert f"it looks like a gap in {unit}: " in note and note.endswith(" Å")


@pytest.mark.parametrize(
    ("by", "slip"),
    [
        ({"q": 10}, "q in 1/nm: 0.005 1/Å"),
        ({"t": 1e3}, "dt or t in ms: dt = 0.1 s"),
        ({"t": 1e6}, "dt or t in µs: dt = 0.1 s"),
        ({"phi": np.pi / 180}, "they look like radians"),
    ],
)
def test_data_in_other_units(sheared, by, slip):
    (note,) = told(changed(sheared, **by))
    assert slip in note


def test_short_frames_in_milliseconds_are_seen_by_the_transport(sheared):
    fast = changed(sheared, t=1e-2)  # dt = 1 ms, and J = 1e6
    (note,) = told(changed(fast, t=1e3), D0={"value": 1e6, "min": 100, "max": 1e7})
    assert note.startswith("half of the correlation decays in")
    assert note.endswith("it looks like dt or t in ms: dt = 0.001 s")


def test_direction_in_radians(sheared):
    (note,) = told(sheared, phi0={"value": 0.785, "vary": False})
    assert "fastest near 45 degree; it looks like radians: 44.98 degree" in note
    assert told(sheared, phi0={"value": 5.0, "vary": True}) == ()


def test_right_units_have_no_note(sheared):
    assert told(sheared) == ()
    assert units.unit_notes(tt.StaticDiffusion(), sheared, tt.ParameterSpace.from_config(
        {"analysis_mode": "static"})) == ()  # fmt: skip
    narrow = dataclasses.replace(sheared, phi=np.array([-1.5, -0.5, 0.5, 1.5]))
    same = np.broadcast_to(sheared.c2[:1], sheared.c2.shape)
    assert told(dataclasses.replace(narrow, c2=same)) == ()
    water = changed(sheared, t=1e-4, q=0.4)
    free = tt.ParameterSpace.from_config({"analysis_mode": "laminar_flow"})
    assert units.unit_notes(tt.LaminarFlow(gap=2e6), water, free) == ()


def test_a_wavevector_that_is_told_as_large_is_told_once(sheared):
    assert told(changed(sheared, q=100)) == ()


@pytest.mark.parametrize(
    "mode",
    [
        "static",
        *(pytest.param(x, marks=pytest.mark.long) for x in ("laminar_flow", "two_component")),
    ],
)
def test_shipped_examples_have_no_note(mode, tmp_path):
    scaffold.start(mode, tmp_path / "run.yaml", example=True)
    config = tt.ConfigManager.from_yaml(tmp_path / "run.yaml")
    data, report = load_with_report(config)
    found = units.unit_notes(tt.build_model(config), data, config.space)
    assert report.notes + found == ()


def drifting(phase, noise=0.0, left=0.98):
    """Two components of which one turns by a phase per frame."""
    t = 0.1 * np.arange(1, 41.0)
    lag = t - t[:, None]
    wave = 0.1 * left ** np.abs(10 * lag) * np.cos(10 * phase * lag)
    c2 = 1.1 + 0.05 * np.exp(-0.1 * np.abs(lag)) + wave
    c2 = c2 + noise * np.random.default_rng(0).normal(size=c2.shape)
    return tt.TwoTimeData(0.5 * (c2 + c2.T)[None], t, 0.01, np.zeros(1))


def test_a_phase_that_several_velocities_give_is_told_with_them():
    free = tt.ParameterSpace.from_config({"analysis_mode": "two_component"})
    (note,) = units.unit_notes(tt.TwoComponent(), drifting(2.2832), free)
    assert "oscillates by 2.28 rad per frame; 4, 8.57, 10.3… rad would give the same" in note
    assert "the velocity along q is 2283, 4000, 8566, 1.028e+04 Å/s or more" in note
    assert units.unit_notes(tt.TwoComponent(), drifting(1.5), free) == ()
    assert units.unit_notes(tt.TwoComponent(), drifting(2.2832, noise=0.3), free) == ()
    assert units.unit_notes(tt.TwoComponent(), drifting(2.2832, left=0.3), free) == ()
    static = tt.ParameterSpace.from_config({"analysis_mode": "static"})
    assert units.unit_notes(tt.StaticDiffusion(), drifting(2.2832), static) == ()


def test_noise_without_decay_gives_no_note_on_transport():
    noise = np.random.default_rng(0).normal(1.2, 0.01, (1, 50, 50))
    data = tt.TwoTimeData(noise + noise.swapaxes(1, 2), np.arange(1.0, 51), 0.01, np.zeros(1))
    assert np.isnan(units.half_lives(data)).all()
    assert told(data) == ()


def test_an_oscillation_is_not_looked_for_where_a_lag_has_no_point():
    c2 = np.ones((1, 30, 30)) + 0.1 * np.cos(2.0 * np.subtract.outer(np.arange(30), np.arange(30)))
    lag = np.abs(np.subtract.outer(np.arange(30), np.arange(30)))
    data = tt.TwoTimeData(c2, np.arange(1.0, 31), 0.01, np.zeros(1), mask=(lag != 2)[None])
    assert units._oscillation(data, 0) == (0.0, np.inf)
    whole = tt.TwoTimeData(c2, np.arange(1.0, 31), 0.01, np.zeros(1))
    assert units._oscillation(whole, 0)[0] == pytest.approx(2.0)
