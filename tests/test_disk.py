"""Files: replaced as a whole, under a lock that dies with its process."""

import os
import subprocess
import sys

import pytest

from twotime.disk import locked, replacing


def test_a_file_that_is_not_on_the_disk_replaces_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(122, "Disk quota exceeded")

    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="quota"), replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_lock_excludes_and_dies_with_its_process(tmp_path):
    path = tmp_path / "lock"
    code = f"""if True:
        import pathlib, time
        from twotime.disk import locked
        with locked(pathlib.Path({str(path)!r})):
            print(1, flush=True)
            time.sleep(60)"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(BlockingIOError), locked(path):
            raise AssertionError
        other.kill()
        other.wait()
    with locked(path) as has_locks:
        assert has_locks and path.exists()
    assert not path.exists()
