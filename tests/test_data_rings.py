"""Matrices of several wavevectors in one value, and how they are selected from files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.config.manager import ConfigManager
from twotime.data import Cache, load_cached, load_file
from twotime.data.dataset import TwoTimeData, join, select
from twotime.data.selection import Selection, rings_of
from twotime.data.source import PlacedBin
from twotime.data.write import write_apsu
from twotime.errors import ConfigurationError, DataError

N = 6
T = np.arange(1.0, N + 1)


def some(q, count=2, seed=0, **more) -> TwoTimeData:
    c2 = np.random.default_rng(seed).normal(1.2, 0.1, (count, N, N))
    half = np.triu(c2) + np.swapaxes(np.triu(c2, 1), 1, 2)
    return TwoTimeData(half, T, q, 30.0 * np.arange(count), **more)


def test_matrices_of_equal_wavevector_are_a_ring():
    data = some([0.2, 0.1, 0.2], 3)
    assert (data.rings, data.ring) == ((0, 1, 0),) * 2
    assert data.ring_q.tolist() == [0.2, 0.1]
    assert some(0.1).rings == () and some(0.1).ring == (0, 0)
    at = data.place(jnp.asarray(1))
    assert (float(at["q"]), float(at["phi"])) == (0.1, 30.0)
    assert dataclasses.replace(data, q=0.3).rings == ()
    assert some([0.1, 0.1001, 0.2], 3, rings=(0, 0, 1)).ring_q == pytest.approx([0.10005, 0.2])


def test_traced_wavevectors_need_rings():
    with pytest.raises(ValueError, match=r"rings is \(\) for 2 matrices .* give rings=\(0, 0, 1"):
        jax.eval_shape(lambda q: some(q), jnp.ones(2))
    with pytest.raises(ValueError, match=r"rings is \(0, 2\)"):
        some([0.1, 0.2], rings=(0, 2))
    made = jax.eval_shape(lambda q: some(q, rings=(0, 1)), jnp.ones(2))
    assert made.rings == (0, 1)


def test_join_puts_matrices_of_equal_wavevector_together():
    first, second, again = some(0.1), some(0.2, seed=1), some(0.1, seed=2)
    data = join(first, second, again)
    assert data.q.tolist() == [0.1, 0.1, 0.2, 0.2, 0.1, 0.1]
    assert data.rings == (0, 0, 1, 1, 0, 0) and data.mask is None
    assert np.array_equal(data.c2[2:4], second.c2)
    one = select(data, [2, 3])
    assert one.q.shape == () and float(one.q) == 0.2 and np.array_equal(one.c2, second.c2)
    assert select(data, [3, 0]).rings == (0, 1)
    assert join(first, again).q.shape == ()
    own = some([0.1, 0.1001], rings=(0, 0))
    assert join(own, own, second).rings == (0, 0, 0, 0, 1, 1)


def test_join_keeps_masks_and_sigma():
    mask = np.zeros((2, N, N), bool)
    data = join(some(0.1, mask=mask), some(0.2))
    assert not data.mask[:2].any() and data.mask[2:].all()
    assert join(some(0.1, sigma=0.3), some(0.2, sigma=0.3)).sigma == 0.3
    assert join(some(0.1, sigma=0.3), some(0.2, sigma=0.4)).sigma[:, 0, 0].tolist() == [
        0.3, 0.3, 0.4, 0.4
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (TwoTimeData(np.ones((1, 4, 4)), T[:4], 0.2, [0.0]), "6 frames .* and 4 in number 2"),
        (dataclasses.replace(some(0.2), t=T + 0.1), "times from 1 to 6 s .* from 1.1 to 6.1"),
        (dataclasses.replace(some(0.2), baseline=0.0), "baseline 1 and, in number 2, 0"),
        (some(0.2, sigma=0.1), "sigma for some data"),
        (some(0.2, weight=[1.0, 2.0]), "weights"),
    ],
)
def test_join_refuses_what_differs(other, words):
    with pytest.raises(ValueError, match=words):
        join(some(0.1), other)


def test_weights_of_matrices_multiply_those_of_points():
    data = some([0.1, 0.2], sigma=0.5, weight=[1.0, 3.0])
    upper = np.triu(np.ones((N, N)), 1)
    assert np.array_equal(data.weights(1), 12.0 * upper)
    assert np.array_equal(data.weights(slice(None)), np.stack([4.0 * upper, 12.0 * upper]))
    assert data.weights_at(jnp.asarray(1), jnp.asarray([0]), jnp.asarray([2])).tolist() == [12.0]


def bins(*places):
    return [PlacedBin(q, phi, f"c2_{k}") for k, (q, phi) in enumerate(places)]


def test_bins_whose_own_mean_wavevector_differs_a_little_are_one_ring():
    rng = np.random.default_rng(0)
    own = 0.0054 * (1 + 3e-3 * rng.permutation(12) / 11)
    found = rings_of(bins(*zip(own, 30.0 * np.arange(12), strict=True)), 0.05)
    assert len(found) == 1 and found[0].q == pytest.approx(own.mean())
    assert [b.q for b in found[0].bins] == own.tolist()  # in the order of the file
    assert len(rings_of(bins((0.01, 0), (0.01009, 30)), 0.05)) == 1
    assert len(rings_of(bins((0.01, 0), (0.01011, 30)), 0.05)) == 2
    assert len(rings_of(bins((0.01, 0), (0.01002, 30)), 1e-3)) == 2
    # An angle comes once in a ring, but in repeated measurements.
    assert len(rings_of(bins((0.01, 0), (0.01002, 0.05)), 0.05)) == 2
    assert len(rings_of(bins((0.01, 0), (0.01, 0)), 0.05)) == 1
    assert len(rings_of(bins((0.0, 0), (0.0, 30), (0.01, 0)), 0.05)) == 2


@pytest.fixture
def path(tmp_path):
    """A ring of three angles with wavevectors of their own, one at twice that, one near it."""
    q = [0.01, 0.0201, 0.01001, 0.02, 0.01002, 0.0104]
    phi = [0.0, 0.0, 30.0, 40.0, 60.0, 0.0]
    np.savez(tmp_path / "a.npz", c2=some(0.1, 6).c2, q=q, phi=phi, dt=1.0)
    return tmp_path / "a.npz"


def test_a_ring_is_read_whole_and_what_is_left_out_beside_it_is_named(path):
    data, report = load_file(path, Selection(q=0.01))
    assert data.q.tolist() == [0.01, 0.01001, 0.01002] and data.rings == (0, 0, 0)
    assert report.q == pytest.approx(0.01001) and report.n_angles == 3
    notes = "; ".join(report.notes)
    assert "1 matrix within 0.05 of the selected q left out, at 0.0104 1/Å" in notes
    assert "mean wavevectors of their own, from 0.01 to 0.01002 1/Å" in notes
    data, report = load_file(path, Selection(q=0.01, q_tolerance=1e-6))
    assert data.q == 0.01 and data.phi.tolist() == [0.0]
    assert "2 matrices within 0.01 of the selected q left out" in "; ".join(report.notes)
    with pytest.raises(DataError, match=r"within 1e-06 \(relative\) of q = 0.0102 1/Å; the file"):
        load_file(path, Selection(q=0.0102, q_tolerance=1e-6))


def test_several_wavevectors_are_read_together(path):
    data, report = load_file(path, Selection(q=(0.02, 0.01)))
    assert data.rings == (0, 0, 1, 1, 1) and data.q[:2].tolist() == [0.0201, 0.02]
    assert report.q == pytest.approx((0.02005, 0.01001))
    data, _ = load_file(path, Selection(q=None))
    assert data.rings == (0, 0, 0, 1, 2, 2)
    data, _ = load_file(path, Selection(q=None, q_range=(0.0104, 0.03)))
    assert data.rings == (0, 1, 1)
    with pytest.raises(DataError, match=r"no wavevector from 1 to 2 1/Å; the file holds 0.01001,"):
        load_file(path, Selection(q=None, q_range=(1.0, 2.0)))
    with pytest.raises(DataError, match="no wavevector within 5.00% of q = 0.5"):
        load_file(path, Selection(q=(0.01, 0.5)))


def test_a_cache_keeps_rings(path, tmp_path):
    cache, selection = Cache(tmp_path / "kept"), Selection(q=None)
    data = [load_cached(path, selection, cache)[0] for _ in range(2)]
    assert data[0].rings == data[1].rings == (0, 0, 0, 1, 2, 2)


def test_files_of_several_wavevectors_are_written_and_read_again(tmp_path):
    data = join(some(0.02, 3), select(some(0.01, 3, seed=1), [2, 0]))
    write_apsu(tmp_path / "a.h5", data)
    again, _ = load_file(tmp_path / "a.h5", Selection(q=None))
    assert again.rings == (0, 0, 1, 1, 1) and again.q.tolist() == [0.01] * 2 + [0.02] * 3
    assert again.phi.tolist() == [0.0, 60.0, 0.0, 30.0, 60.0]
    upper = np.triu_indices(N, 1)
    expected = data.c2[[4, 3, 0, 1, 2]][:, *upper].astype(np.float32)
    np.testing.assert_array_equal(again.c2[:, *upper], expected)
    with pytest.raises(DataError, match="same wavevector and angle"):
        write_apsu(tmp_path / "b.h5", join(some(0.01), some(0.01)))


def configured(**scattering) -> ConfigManager:
    return ConfigManager.from_dict(
        {
            "analysis_mode": "static", "experimental_data": {"file_path": "a.h5"},
            "analyzer_parameters": {"scattering": scattering},
        }
    )  # fmt: skip


def test_wavevectors_of_a_configuration():
    def selected(**scattering):
        found = Selection.from_config(configured(**scattering))
        return found.q, found.q_range

    assert selected(wavevector_q=1e-2) == (0.01, None)
    assert selected(wavevector_q=[0.01, 0.02]) == ((0.01, 0.02), None)
    assert selected(wavevector_q="all") == (None, None)
    assert selected(q_range=[0.01, 0.02]) == (None, (0.01, 0.02))
    assert configured(wavevector_q="all", q_mode="together").q_mode == "together"


@pytest.mark.parametrize(
    ("scattering", "words"),
    [
        ({}, "wavevector_q: missing"),
        ({"wavevector_q": "any"}, "wavevector_q: got 'any'; expected a number, a list of numbers,"),
        ({"wavevector_q": [0.1, -1]}, "wavevector_q: got a list of 2; expected a number, a list"),
        ({"wavevector_q": []}, "wavevector_q: got a list of 0; expected a number, a list"),
        ({"q_range": [0.2, 0.1]}, "q_range: got .*low at most high"),
        ({"wavevector_q": 0.1, "q_range": [0.1, 0.2]}, "q_range: has no effect with"),
        ({"wavevector_q": 0.1, "q_mode": "each"}, "q_mode: has no effect with one"),
    ],
)
def test_mistakes_about_wavevectors_are_told(scattering, words):
    with pytest.raises(ConfigurationError, match=words) as caught:
        configured(**scattering)
    assert str(caught.value).count("expected") <= 1


def test_join_is_public():
    assert tt.join is join
