"""The reader of pyXpcsViewer opens a simulated file: `nox -s viewer` installs it."""

import numpy as np
import pytest

from twotime.data.dataset import TwoTimeData
from twotime.data.write import write_apsu

FRAMES, PHI = 20, (-5.0, 40.0, 110.0)


def simulated(path):
    t = 0.1 * np.arange(1, FRAMES + 1)
    decay = np.exp(-np.abs(t[:, None] - t))
    c2 = 1 + np.array([0.1, 0.2, 0.3])[:, None, None] * decay
    write_apsu(path, TwoTimeData(c2, t, 0.0054, np.array(PHI)))
    return path


@pytest.fixture
def viewed(tmp_path):
    module = pytest.importorskip("pyxpcsviewer.core.xpcs_file")
    return module.XpcsFile(str(simulated(tmp_path / "a_results.hdf")))


def test_the_viewer_labels_every_matrix_with_its_angle(viewed):
    labels = viewed.get_twotime_qbin_labels()
    assert [label.split("φ=")[1].split()[0] for label in labels] == ["-5.0", "40.0", "110.0"]
    assert all("q=0.00540" in label for label in labels)


def test_the_viewer_shows_the_matrix_of_a_label(viewed):
    for k, contrast in enumerate((0.1, 0.2, 0.3)):
        shown = viewed.get_twotime_c2(selection=k)
        assert shown["c2_mat"][0, 1] == pytest.approx(1 + contrast * np.exp(-0.1), abs=1e-5)
        assert shown["g2_full"][1] == pytest.approx(1 + contrast * np.exp(-0.1), abs=1e-5)
        assert shown["g2_partial"].shape == (5, FRAMES // 5)
        assert shown["acquire_period"] == pytest.approx(0.1)


def test_the_viewer_highlights_pixels_at_the_angle(viewed):
    """The sector that the viewer marks for a label lies where its own map says that angle is."""
    angles = viewed.qmap.qmap["phi"]
    for k, phi in enumerate(PHI, start=1):
        there = np.deg2rad(angles[viewed.dqmap == k])
        middle = np.rad2deg(np.angle(np.mean(np.exp(1j * there))))
        others = [p for p in PHI if p != phi]
        assert min(abs(middle - other) for other in others) > abs(middle - phi)
    ring = viewed.qmap.qmap["q"][viewed.dqmap > 0]
    assert ring.mean() == pytest.approx(0.0054, rel=0.05)


def test_the_viewer_finds_every_field_it_shows(viewed):
    viewed.get_twotime_maps()
    assert viewed.saxs_2d_log.shape == viewed.mask.shape
    assert np.all(np.isfinite(viewed.saxs_1d["Iq"]))
    assert viewed.Int_t.shape == (2, FRAMES)
    assert viewed.start_time and viewed.X_energy > 1
    assert viewed.Int_t_fft.shape[0] == 2
