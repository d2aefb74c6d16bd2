"""Result folders: whatever ends a run, and wherever, the old or the new is in place, whole."""

import contextlib
import json
import os
import threading
from pathlib import Path

import pytest

from twotime.errors import ResultError
from twotime.results.folder import added, claim, new_folder, read_result_json

OPERATIONS = ("mkdir", "rename", "replace", "rmdir", "unlink", "open", "fsync")


class KilledError(BaseException):
    """The end of a process: nothing that it would have done on the disk happens any more."""


@contextlib.contextmanager
def failing(index, error, *, once=False):
    """Let the `index`-th operation on files fail, and all after it unless `once`.

    Gives the operations that were called.
    """
    calls, originals = [], {name: getattr(os, name) for name in OPERATIONS}

    def broken(name):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == index or (len(calls) > index and not once):
                raise error
            return None if name == "fsync" else originals[name](*args, **kwargs)

        return call

    try:
        for name in OPERATIONS:
            setattr(os, name, broken(name))
        yield calls
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def fill(folder, name, parts=("posterior",)):
    """Write what stands for a result, with parts, into an existing folder."""
    (folder / "arrays.npz").write_text(name)
    for part in parts:
        (folder / part).mkdir()
        fill(folder / part, name, ())
    content = {"kind": "NLSQResult", "fields": {}, "files": ["arrays.npz"], "name": name}
    (folder / "result.json").write_text(json.dumps(content))


def whole(folder, parts=("posterior",)):
    """Name of the result in a folder, of which nothing may be missing."""
    name = read_result_json(folder)["name"]
    assert (folder / "arrays.npz").read_text() == name
    for part in parts:
        assert whole(folder / part, ()) == name
    return name


def save(folder, name, *, overwrite=True):
    with new_folder(folder, overwrite=overwrite) as temporary:
        fill(temporary, name)


def fresh(out):
    return set()


def empty(out):
    out.mkdir()
    return set()


def old(out):
    save(out, "old")
    return set()


def with_notes(out):
    save(out, "old")
    (out / "notes.txt").write_text("mine")
    (out / "posterior" / "mine").mkdir()
    (out / "posterior" / "mine" / "a").write_text("mine")
    return {"notes.txt", "posterior/mine/a"}


def behind_a_link(out):
    (out.parent / "far").mkdir()
    save(out.parent / "far" / "real", "old")
    out.symlink_to("far/real")
    return set()


PLACES = {f.__name__: f for f in (fresh, empty, old, with_notes, behind_a_link)}


def left(out):
    """What a run left behind around a folder."""
    real = Path(os.path.realpath(out)).parent
    return {p.name for d in {out.parent, real} for p in d.iterdir()} - {"out", "far", "real"}


ENDS = ("interrupt", "error", "errors")


@pytest.mark.parametrize(
    ("end", "place"),
    [("kill", place) for place in PLACES]
    + [
        (end, place)
        for end in ("interrupt", "error", "errors")
        for place in ("fresh", "with_notes")
    ],
)
def test_kill_matrix(tmp_path, caplog, place, end):
    error = {"kill": KilledError(), "interrupt": KeyboardInterrupt()}
    error |= dict.fromkeys(("error", "errors"), OSError(28, "No space left on device"))
    index, found = 0, set()
    while True:
        index += 1
        out = tmp_path / str(index) / "out"
        out.parent.mkdir()
        mine = PLACES[place](out)
        before = {"nothing"} if place in ("fresh", "empty") else {"old"}
        ended = None
        once = end in ("interrupt", "error")
        with failing(index, error[end], once=once) as calls:
            try:
                save(out, "new")
            except (KilledError, KeyboardInterrupt, ResultError) as exc:
                ended = exc
        caplog.clear()
        assert not once or before == {"nothing"} or out.exists(), (index, calls)
        try:  # what a reader finds, before any other run
            now = whole(out)
        except ResultError:
            now = "nothing"
        assert now in before | {"new"}, (index, calls)
        found.add(now)
        kept = {name for name in left(out) if ".twotime-" not in name}
        if isinstance(ended, ResultError) and kept:
            assert str(out.parent / "out.new") in str(ended) or place == "behind_a_link"
        if kept:  # a complete new result that could not be put in place
            assert kept == {"out.new"} or kept == {"real.new"}
        with claim(out, overwrite=True):  # the next run settles everything
            assert now == "nothing" or whole(out) == now
        assert {name for name in left(out) if name != "out.new" and name != "real.new"} == set()
        assert all((out / name).exists() for name in mine), (index, calls)
        if len(calls) < index:
            break
    assert ended is None and now == "new" and found == before | {"new"} and index > 10


def test_left_overs_of_a_killed_run_are_named(tmp_path, caplog):
    (tmp_path / ".out.twotime-part").mkdir()
    (tmp_path / ".out.twotime-part" / "half").touch()
    save(tmp_path / "out", "new")
    assert f"removed {tmp_path / '.out.twotime-part'}, which a run left" in caplog.text


def test_a_new_result_is_kept_where_the_old_one_came_back(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ResultError, match=r"already holds a result.*complete, in .*out\.new"):
        with new_folder(out, overwrite=False) as temporary:
            fill(temporary, "new")
            out.mkdir()  # by another program, which knows no lock
            fill(out, "other")
    assert whole(out) == "other" and whole(tmp_path / "out.new") == "new"


def test_the_old_result_returns_where_the_new_one_cannot_be_put(tmp_path, monkeypatch):
    out, rename = tmp_path / "out", os.rename

    def refused(source, target):
        if Path(target) == out and Path(source).name.endswith("-new"):
            raise OSError(1, "Operation not permitted")
        rename(source, target)

    save(out, "old")
    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(ResultError, match=r"complete, in .*out\.new"):
        save(out, "new")
    assert whole(out) == "old" and whole(tmp_path / "out.new") == "new"


def test_a_second_run_is_refused_by_the_lock(tmp_path):
    out, refused = tmp_path / "a" / "out", []

    def second():
        for overwrite in (False, True):
            with pytest.raises(ResultError, match="another run is writing into this folder"):
                save(out, "second", overwrite=overwrite)
            refused.append(overwrite)

    with claim(out, overwrite=False):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        save(out, "first", overwrite=False)  # the same run may
    assert refused == [False, True] and whole(out) == "first"
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_a_run_that_is_refused_leaves_no_folders(tmp_path):
    with pytest.raises(RuntimeError), claim(tmp_path / "a" / "b" / "out", overwrite=False):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_names_that_the_new_result_takes_are_not_lost(tmp_path):
    out = tmp_path / "out"
    save(out, "old")
    (out / "figure.png").write_text("mine")
    with new_folder(out, overwrite=True) as temporary:
        fill(temporary, "new")
        (temporary / "figure.png").write_text("new")
    assert (out / "figure.png").read_text() == "new"
    assert (out / "figure.png-2").read_text() == "mine"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda out: (out / "result.json").write_text("{"), "is damaged.*cannot be told"),
        (lambda out: (out / "result.json").write_text('{"kind": 1}'), "is damaged"),
        (lambda out: (out / "posterior" / "result.json").write_text("\0"), "is damaged"),
        (lambda out: (out / "result.json").unlink(), "holds other files and no result"),
    ],
)
def test_damaged_old_results_are_refused_before_the_fit(tmp_path, spoil, told):
    out = tmp_path / "out"
    save(out, "old")
    spoil(out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(ResultError, match=told), claim(out, overwrite=True):
        raise AssertionError("the fit would start")
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_places_that_cannot_be_replaced_are_refused_before_the_fit(tmp_path, monkeypatch):
    out = tmp_path / "out"
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "loop"):
        with (
            pytest.raises(ResultError, match="is no folder"),
            claim(tmp_path / name, overwrite=True),
        ):
            raise AssertionError
    save(out, "old")
    monkeypatch.chdir(out)
    with pytest.raises(ResultError, match="is the working folder"), claim(out, overwrite=True):
        raise AssertionError
    monkeypatch.chdir(tmp_path)
    rename = os.rename

    def busy(source, target):
        if Path(source) == out:
            raise OSError(16, "Device or resource busy")
        rename(source, target)

    monkeypatch.setattr(os, "rename", busy)
    with pytest.raises(ResultError, match="is a mounted volume"), claim(out, overwrite=True):
        raise AssertionError
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(Path, "is_mount", lambda path: path.name == "notes")
    (out / "notes").mkdir()
    with pytest.raises(ResultError, match="notes in it is a mounted volume"):
        save(out, "new")
    monkeypatch.setattr(os, "access", lambda *_: False)
    (out / "notes").rmdir()
    with pytest.raises(ResultError, match="is write-protected"):
        save(out, "new")
    assert whole(out) == "old"


def test_a_dangling_link_leads_to_a_new_folder(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk/new")
    save(tmp_path / "out", "new", overwrite=False)
    assert (tmp_path / "out").is_symlink() and whole(tmp_path / "disk" / "new") == "new"


def test_a_system_without_locks_is_named(tmp_path, caplog, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    save(tmp_path / "out", "new")
    assert "this file system has no locks" in caplog.text and whole(tmp_path / "out") == "new"


def test_added_files_replace_whole_files(tmp_path):
    save(tmp_path / "out", "old")
    with pytest.raises(RuntimeError), added(tmp_path / "out") as temporary:
        (temporary / "a.png").write_text("half")
        raise RuntimeError
    with added(tmp_path / "out") as temporary:
        (temporary / "b.png").write_text("whole")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"result.json", "arrays.npz", "posterior", "b.png"}
