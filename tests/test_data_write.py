"""What is written in the APS-U layout is read back the same."""

import h5py
import numpy as np
import pytest

from twotime.data import load_file
from twotime.data.dataset import TwoTimeData
from twotime.data.detector import PIXEL, detector_for, one_time
from twotime.data.selection import Selection
from twotime.data.write import write_apsu
from twotime.errors import DataError

_NOISE = np.random.default_rng(2).normal(1.2, 0.1, (3, 5, 5))
C2 = np.triu(_NOISE) + np.swapaxes(np.triu(_NOISE, 1), 1, 2)


def make(t, mask=None):
    return TwoTimeData(C2, t, 0.0123, [0.0, 60.0, 120.0], mask=mask)


@pytest.mark.parametrize("first", [1, 8])
def test_round_trip(tmp_path, first):
    data = make(0.1 * np.arange(first, first + 5))
    write_apsu(tmp_path / "a.h5", data)
    back, report = load_file(tmp_path / "a.h5", Selection(q=0.0123))
    assert report.layout == "aps-u"
    assert np.array_equal(back.c2, C2.astype(np.float32))
    assert back.phi.tolist() == [0.0, 60.0, 120.0]
    assert back.q == 0.0123
    assert back.t == pytest.approx(data.t)


def test_the_index_mapping_matters_and_only_halves_are_stored(tmp_path):
    write_apsu(tmp_path / "a.h5", make(np.arange(1.0, 6.0)))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["xpcs/qmap/dynamic_index_mapping"][()].tolist() == [1, 2, 3]
        node = file["xpcs/twotime/correlation_map/c2_00002"]
        assert (node.dtype, node.compression) == (np.float32, "lzf")
        assert not np.tril(node[()], -1).any()


def test_masked_pixels_come_back_masked(tmp_path):
    mask = np.ones(C2.shape, bool)
    mask[1, 0, 3] = mask[1, 3, 0] = False
    write_apsu(tmp_path / "a.h5", make(np.arange(1.0, 6.0), mask))
    back, report = load_file(tmp_path / "a.h5", Selection(q=0.0123))
    assert report.n_masked == 1
    assert not back.mask[1, 0, 3]


@pytest.mark.parametrize("first", [0.0, 2.5])
def test_another_time_origin_is_given_again(tmp_path, first):
    write_apsu(tmp_path / "a.h5", make(first + np.arange(5.0)))
    back, _ = load_file(tmp_path / "a.h5", Selection(q=0.0123, t0=first))
    assert back.t == pytest.approx(first + np.arange(5.0))


def test_an_existing_file_is_kept_unless_told(tmp_path):
    data = make(np.arange(1.0, 6.0))
    write_apsu(tmp_path / "a.h5", data)
    with pytest.raises(DataError, match="the file exists"):
        write_apsu(tmp_path / "a.h5", data)
    write_apsu(tmp_path / "a.h5", data, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_unequal_steps_do_not_fit_the_layout(tmp_path):
    with pytest.raises(DataError, match="1 to 2 s apart"):
        write_apsu(tmp_path / "a.h5", make([1.0, 2.0, 3.0, 4.0, 6.0]))
    with pytest.raises(DataError, match="expected equal steps of dt = 0.5 s"):
        write_apsu(tmp_path / "a.h5", make(np.arange(5.0)), dt=0.5)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        write_apsu(tmp_path / "no" / "a.h5", make(np.arange(1.0, 6.0)))


def test_the_detector_shows_every_angle_where_it_is():
    """Angles turn anticlockwise from the right; rows count downwards."""
    q, phi = np.array([0.002, 0.004]), np.arange(0.0, 360.0, 45.0)
    place = np.delete(np.arange(16), [2, 9])  # two places have no pixels
    detector = detector_for(q, phi, place)
    row, column = np.indices(detector.regions.shape) - detector.centre
    per_pixel = PIXEL / detector.distance
    for number, at in enumerate(place, start=1):
        here = detector.regions == number
        middle = np.mean(column[here] - 1j * row[here])
        apart = np.rad2deg(np.angle(middle * np.exp(-1j * np.deg2rad(phi[at % 8]))))
        assert abs(apart) < 5
        sine = np.sin(np.arctan(np.hypot(row, column)[here] * per_pixel))
        seen = 2 * np.pi * detector.energy / 12.398 * sine.mean()
        assert seen == pytest.approx(q[at // 8], rel=0.12)
    assert np.unique(detector.regions).tolist() == list(range(15))


def test_one_time_results_are_means_over_pairs():
    c2 = np.triu(np.arange(16.0).reshape(1, 4, 4))
    c2[0, 0, 1] = np.nan
    assert one_time(c2)[:, 0].tolist() == [7.5, 8.5, 4.5, 3.0]
