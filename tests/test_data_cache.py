"""A cache is used for exactly what it is of, and for nothing else."""

import os

import h5py
import numpy as np
import pytest

import twotime.data as cache_module
from twotime.data import Cache, load_cached
from twotime.data.links import files_behind
from twotime.data.selection import PhiFilter, Selection
from twotime.errors import DataError, DataNotFoundError

C2 = np.triu(np.random.default_rng(5).normal(1.2, 0.1, (3, 6, 6)))
WANTED = Selection(q=0.01)


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "a.npz", c2=C2, q=[0.01, 0.01, 0.02], phi=[0.0, 45.0, 0.0], dt=0.5)
    return tmp_path / "a.npz"


@pytest.fixture
def reads(monkeypatch):
    """How often the source is read."""
    count = []
    original = cache_module.load_file
    monkeypatch.setattr(
        cache_module, "load_file", lambda *args: count.append(args) or original(*args)
    )
    return count


def same(one, other):
    return one[1] == other[1] and all(
        np.array_equal(getattr(one[0], name), getattr(other[0], name), equal_nan=True)
        for name in ("c2", "t", "q", "phi", "mask")
    )


@pytest.mark.parametrize("compression", [True, False])
def test_the_second_time_comes_from_the_cache(tmp_path, path, reads, compression):
    cache = Cache(tmp_path / "kept", compression=compression)
    first = load_cached(path, WANTED, cache)
    second = load_cached(path, WANTED, cache)
    assert len(reads) == 1
    assert same(first, second)
    assert len(list((tmp_path / "kept").iterdir())) == 1


@pytest.mark.parametrize(
    "other",
    [
        Selection(q=0.02),
        Selection(q=0.01, end_frame=5),
        Selection(q=0.01, t0=0.0),
        Selection(q=0.01, phi=PhiFilter(include=(45.0,))),
    ],
)
@pytest.mark.parametrize("name", [None, "kept_${wavevector_q}"])
def test_another_selection_is_another_key(tmp_path, path, reads, name, other):
    cache = Cache(tmp_path, name)
    load_cached(path, WANTED, cache)
    data, report = load_cached(path, other, cache)
    assert len(reads) == 2
    assert report.q == other.q


def test_a_changed_source_is_read_again(tmp_path, path, reads):
    cache = Cache(tmp_path / "kept")
    load_cached(path, WANTED, cache)
    np.savez(path, c2=np.triu(C2 + 1), q=[0.01, 0.01, 0.02], phi=[0.0, 45.0, 0.0], dt=0.5)
    os.utime(path, ns=(0, 12345))
    data, _ = load_cached(path, WANTED, cache)
    assert len(reads) == 2
    assert data.c2[0, 0, 1] == C2[0, 0, 1] + 1


def test_the_name_says_the_selection(tmp_path, path):
    cache = Cache(tmp_path / "kept", "c_${wavevector_q}_${start_frame}_${end_frame}")
    load_cached(path, WANTED, cache)
    assert [p.name for p in (tmp_path / "kept").iterdir()] == ["c_0.01_1_-1.npz"]


def test_a_file_that_is_no_cache_is_not_replaced(tmp_path, path):
    content = path.read_bytes()
    with pytest.raises(DataError, match="would replace this file, which is not a cache"):
        load_cached(path, WANTED, Cache(tmp_path, "a.npz"))
    assert path.read_bytes() == content


def test_a_folder_that_takes_no_cache_is_noted(tmp_path, path):
    (tmp_path / "kept").write_text("in the way")
    data, report = load_cached(path, WANTED, Cache(tmp_path / "kept"))
    assert "no cache was written" in report.notes[-1]
    assert data.c2.shape == (2, 6, 6)


def test_a_missing_source_is_missing(tmp_path):
    with pytest.raises(DataNotFoundError, match="no such data file"):
        load_cached(tmp_path / "b.npz", WANTED, Cache(tmp_path))


def test_a_change_behind_a_link_is_noticed(tmp_path, reads):
    """The file itself only links to another, which links to a third."""
    one, two, three = (tmp_path / f"{name}.h5" for name in ("one", "two", "three"))
    with h5py.File(three, "w") as file:
        file["c2"] = C2
    with h5py.File(two, "w") as file:
        layout = h5py.VirtualLayout(C2.shape, float)
        layout[:] = h5py.VirtualSource("three.h5", "c2", C2.shape)
        file.create_virtual_dataset("c2", layout)
    with h5py.File(one, "w") as file:
        file["c2"] = h5py.ExternalLink("two.h5", "/c2")
        file["q"], file["phi"], file["dt"] = [0.01, 0.01, 0.02], [0.0, 45.0, 0.0], 0.5
    assert set(files_behind(one)) >= {str(two), str(three)}
    cache = Cache(tmp_path / "kept")
    load_cached(one, WANTED, cache)
    load_cached(one, WANTED, cache)
    assert len(reads) == 1
    with h5py.File(three, "r+") as file:
        file["c2"][...] = np.triu(C2 + 1)
    os.utime(three, ns=(0, 12345))
    data, _ = load_cached(one, WANTED, cache)
    assert len(reads) == 2 and data.c2[0, 0, 1] == C2[0, 0, 1] + 1


def test_damage_beside_what_is_read_does_not_stop_a_cache(tmp_path, reads):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["c2"], file["q"], file["phi"], file["dt"] = C2, 0.01, [0.0, 45.0, 90.0], 0.5
        file["a"], file["deep/b"] = np.ones(3), np.ones(3)
        file["z"] = h5py.ExternalLink("far.h5", "/c2")
        file["deep/up"] = file["/"]
        places = [h5py.h5o.get_info(file[name].id).addr for name in ("a", "deep/b")]
    with path.open("r+b") as stream:
        for place in places:
            stream.seek(place)
            stream.write(b"\xff" * 64)
    assert str(tmp_path / "far.h5") in files_behind(path)
    cache = Cache(tmp_path / "kept")
    first, second = (load_cached(path, WANTED, cache) for _ in range(2))
    assert len(reads) == 1 and same(first, second)


def test_a_link_as_the_source_is_followed(tmp_path, path, reads):
    np.savez(tmp_path / "b.npz", c2=np.triu(C2 + 1), q=[0.01] * 3, phi=[0.0, 45.0, 90.0], dt=0.5)
    os.utime(tmp_path / "b.npz", ns=(0, 12345))
    link, cache = tmp_path / "link.npz", Cache(tmp_path / "kept")
    for target, n_angles in ((path, 2), (tmp_path / "b.npz", 3)):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert load_cached(link, WANTED, cache)[0].c2.shape[0] == n_angles


def test_a_cache_keeps_the_link_that_it_is_written_to(tmp_path, path):
    (tmp_path / "far").mkdir()
    (tmp_path / "kept.npz").symlink_to("far/real.npz")
    (tmp_path / "far" / ".real.npz.tmp").write_bytes(b"left by a kill")
    load_cached(path, WANTED, Cache(tmp_path, "kept"))
    assert (tmp_path / "kept.npz").is_symlink()
    assert [p.name for p in (tmp_path / "far").iterdir()] == ["real.npz"]
