"""Odd and repeated frames are named by number and key, and nothing else is."""

import jax
import numpy as np
import pytest

import twotime as tt
from twotime import workflow
from twotime.config.frames import expand, joined
from twotime.data import load_with_report, stripes
from twotime.data.dataset import TwoTimeData
from twotime.errors import ConfigurationError, DataError

PIXELS, MODES = 1000, 4
NONE = np.zeros(120, bool)


def movie(frames, tau, seed, spoil=lambda light, rng: None, alpha=0.0, angles=1):
    """Speckle correlated over pixels, its decay time proportional to t^-alpha [frame]."""
    rng, c2 = np.random.default_rng(seed), []
    keep = np.exp(-0.5 * (2 * np.arange(1.0, frames) / frames) ** alpha / tau)
    for _ in range(angles):
        white = rng.normal(size=(2, frames, PIXELS * MODES)).view()
        field = np.empty(white.shape[1:], complex)
        field[0] = white[0, 0] + 1j * white[1, 0]
        for i, g in enumerate(keep, start=1):
            step = white[0, i] + 1j * white[1, i]
            field[i] = g * field[i - 1] + np.sqrt(1 - g**2) * step
        light = np.square(np.abs(field)).reshape(frames, PIXELS, MODES).mean(-1)
        spoil(light, rng)
        mean = light.mean(1)
        c2.append(light @ light.T / PIXELS / np.outer(mean, mean))
    t = np.arange(1.0, frames + 1)
    return TwoTimeData(np.array(c2), t, 0.01, np.arange(float(angles)))


def no_beam(*frames):
    def spoil(light, rng):
        light[list(frames)] = 1e-3 * (1 + 0.1 * rng.normal(size=(len(frames), PIXELS)))

    return spoil


def flash(*frames):
    def spoil(light, rng):
        light[list(frames)] += 3 * light.mean()

    return spoil


def twice(*frames):
    def spoil(light, rng):
        for i in frames:
            light[i] = light[i - 1]

    return spoil


def found(flags):
    return tuple(np.flatnonzero(flags).tolist())


INSIDE = (40,), (40, 41, 43), tuple(range(50, 70))
AT_ENDS = (0, 1), (119,)


@pytest.mark.parametrize("spoil", [no_beam, flash])
@pytest.mark.parametrize(
    ("tau", "frames"), [*((2.0, f) for f in INSIDE), *((100.0, f) for f in (*INSIDE, *AT_ENDS))]
)
def test_odd_frames_are_found_and_no_others(spoil, tau, frames):
    assert found(stripes.odd_frames(movie(120, tau, 3, spoil(*frames)), NONE)) == frames


@pytest.mark.parametrize("tau", [1.0, 50.0])
@pytest.mark.parametrize("frames", [(40,), (7, 80, 81), tuple(range(50, 75))])
def test_repeated_frames_are_found_and_no_others(tau, frames):
    data = movie(120, tau, 4, twice(*frames))
    assert found(stripes.repeated_frames(data)) == frames
    assert found(stripes.odd_frames(data, stripes.repeated_frames(data))) == ()


@pytest.mark.parametrize("alpha", [-1.5, 0.5])
@pytest.mark.parametrize("tau", [0.5, 3.0, 30.0, 500.0])
def test_right_movies_have_neither(alpha, tau):
    for seed in range(2):
        data = movie(100, tau, seed, alpha=alpha, angles=1 + seed % 2)
        assert stripes.stripe_notes(data, 1) == ()


def smooth(contrast, clock, noise, seed=0):
    """Data with independent noise; contrast of each frame and what decays to it are given."""
    white = np.triu(np.random.default_rng(seed).normal(0, noise, (clock.size,) * 2), 1)
    decay = np.exp(-np.abs(clock[:, None] - clock))
    c2 = 1 + np.sqrt(np.outer(contrast, contrast)) * decay + white + white.T
    return TwoTimeData(c2[None], np.arange(1.0, clock.size + 1), 0.01, np.zeros(1))


def test_independent_noise_is_told_from_stripes():
    contrast = np.full(120, 0.2)
    for seed in range(4):
        data = smooth(contrast, np.arange(120) / 4, 0.2, seed)
        assert found(stripes.odd_frames(data, NONE)) == ()
    contrast[60] = 0.0
    data = smooth(contrast, np.arange(120) / 20, 0.06)
    assert found(stripes.odd_frames(data, NONE)) == (60,)


def test_what_changes_slowly_is_no_odd_frame():
    frames = np.arange(120.0)
    dip = 0.25 * (1 - 0.9 * np.exp(-(((frames - 60) / 4) ** 2)))
    assert found(stripes.odd_frames(smooth(dip, frames / 100, 1e-3), NONE)) == ()
    # J ~ 1/t^2: the first frame decays four times faster than the second.
    ageing = smooth(np.full(120, 0.25), -1 / (frames + 1), 1e-3)
    assert found(stripes.odd_frames(ageing, NONE)) == ()


def test_data_without_noise_or_without_decay_have_neither():
    t = np.arange(1.0, 61)
    model, phi = tt.StaticDiffusion(), np.zeros(1)
    for params in ((1e4, 0.0, 0.0), (1e4, -0.9, 0.0), (1e-3, 0.0, 0.0)):
        data = tt.simulate(
            model, np.asarray(params), t=t, q=0.003, phi=phi, contrast=0.3, offset=1.0, noise=0.0,
            key=jax.random.key(0),
        )  # fmt: skip
        host = TwoTimeData(*map(np.asarray, (data.c2, data.t, data.q, data.phi)))
        assert stripes.stripe_notes(host, 1) == ()
    ones = TwoTimeData(np.ones((1, 60, 60)), t, 0.01, phi)
    assert stripes.stripe_notes(ones, 1) == ()


def test_a_sample_that_jumps_has_no_odd_frames():
    data = movie(120, 30.0, 5)
    c2 = np.array(data.c2)
    part = np.digitize(np.arange(120), [50, 75])
    c2[:, part[:, None] != part] = 1.0
    jumps = TwoTimeData(
        c2 + np.random.default_rng(0).normal(0, 1e-3, c2.shape), data.t, 0.01, [0.0]
    )
    assert found(stripes.odd_frames(jumps, NONE)) == ()


def test_masked_frames_are_not_told_again():
    data = movie(120, 10.0, 3, no_beam(40, 41))
    mask = np.ones((1, 120, 120), bool)
    mask[:, 40:42] = mask[:, :, 40:42] = False
    masked = TwoTimeData(data.c2, data.t, data.q, data.phi, mask=mask)
    assert stripes.stripe_notes(masked, 1) == ()


def test_the_note_names_frames_as_the_configuration_counts_them_and_the_key():
    (note,) = stripes.stripe_notes(movie(120, 10.0, 3, no_beam(40, 41, 60)), 11)
    assert note.startswith("frames 51-52, 71 do not correlate")
    assert note.endswith("set analyzer_parameters.bad_frames: [51-52, 71]")
    (note,) = stripes.stripe_notes(movie(120, 10.0, 3, twice(40)), 1)
    assert note.startswith("frames 41 repeat the image")


def test_frames_are_written_as_they_are_read():
    assert expand(["41-45", 3, 7, " 9 - 10"]) == (3, 7, 9, 10, 41, 42, 43, 44, 45)
    assert joined(expand(["41-45", 3, 7, "9-10"])) == "3, 7, 9-10, 41-45"
    assert joined([]) == ""
    for wrong, why in (
        ([0], "got 0; expected frames counted from 1"),
        (["5-3"], "got '5-3'"),
        (["0-3"], "got '0-3'"),
        (["x"], "got 'x'"),
        ([4, "3-6"], "4 is listed twice"),
        (["1-999999999"], "more than 1000000 frames"),
    ):
        with pytest.raises(ValueError, match=why):
            expand(wrong)


def config(path, frames, **more):
    return tt.ConfigManager.from_dict(
        {
            "analysis_mode": "static",
            "experimental_data": {"file_path": str(path)},
            "analyzer_parameters": {
                "scattering": {"wavevector_q": 0.01}, "bad_frames": frames, **more
            },
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([0], "got 0"),
        ([3, "2-4"], "3 is listed twice"),
        ([1.5], r"at \[0\] got 1.5; expected a frame"),
    ],
)
def test_wrong_frames_are_one_mistake(frames, why):
    with pytest.raises(ConfigurationError, match=f"analyzer_parameters.bad_frames: {why}") as error:
        config("a.npz", frames)
    assert len(error.value.problems) == 1


def test_bad_frames_do_not_count(tmp_path):
    data = movie(60, 10.0, 3, no_beam(40, 41, 50))
    path = tmp_path / "a.npz"
    np.savez(path, c2=np.array(data.c2), q=0.01, phi=[0.0], dt=0.1)
    _, report = load_with_report(config(path, []))
    assert "bad_frames: [41-42, 51]" in report.notes[-1] and report.bad_frames == ()
    masked, report = load_with_report(config(path, ["41-42", 51]))
    used = np.ones((60, 60), bool)
    used[[40, 41, 50]] = used[:, [40, 41, 50]] = False
    assert np.array_equal(masked.usable(0), np.triu(used, 1))
    assert report.notes == () and report.facts()["bad_frames"] == (41, 42, 51)
    assert report.n_points == 57 * 56 // 2 and report.n_points + report.n_masked == 60 * 59 // 2
    part, report = load_with_report(config(path, [2, "41-42", 51], start_frame=42))
    assert report.bad_frames == (42, 51) and not part.usable(0)[0].any()
    with pytest.raises(DataError, match="bad_frames lists 61 but the file has 60 frames"):
        load_with_report(config(path, ["59-61"]))


@pytest.mark.long
def test_the_case_of_five_frames_without_beam(shared, tmp_path):
    case = shared / "data" / "cases" / "bad_frames.h5"
    _, report = load_with_report(config(case, []))
    assert any("bad_frames: [21-23, 56, 81]" in note for note in report.notes)
    asked = config(case, ["21-23", 56, 81]).get_config()
    fixed = {name: {"value": 0.0, "vary": False} for name in ("alpha", "D_offset")}
    run = tt.ConfigManager.from_dict(asked | {"parameters": {"transport": fixed}})
    fit = workflow.run(run, tmp_path / "results")
    assert abs(fit.params["D0"] - 1e4) < 2.5 * fit.uncertainties["D0"]
    assert fit.uncertainties["D0"] < 400
    assert "bad frames: 21-23, 56, 81" in (tmp_path / "results" / "report.md").read_text()
