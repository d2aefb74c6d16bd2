"""Runs: the same draws in blocks, after a kill, and on any number of devices and processes."""

import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from sampling import drawn, elsewhere

from twotime.errors import ResultError
from twotime.sample.chains import BLOCK, Nuts, State
from twotime.sample.driver import Checkpoint, fingerprint, slots


@pytest.mark.parametrize("n_devices", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize(("n_groups", "size"), [(1, 2), (5, 1), (4, 2), (2, 4)])
def test_every_chain_runs_once_in_its_own_lane(n_groups, size, n_devices):
    chains, is_new = slots(n_groups, size, n_devices)
    assert chains.shape == (*is_new.shape, size) and chains.shape[1] == n_devices
    own = is_new[..., None] & (chains % size == np.arange(size))
    assert sorted(chains[own]) == list(range(n_groups * size))
    assert np.all(chains // size == chains[..., :1] // size)  # a device needs one shard a call
    groups = n_groups * min(size, max(1, n_devices // n_groups))
    assert len(is_new) == -(-groups // n_devices) and is_new.sum() == groups
    assert is_new.any(axis=0).sum() == min(n_devices, groups)


def test_devices_of_no_use_and_none_are_dropped(monkeypatch):
    with pytest.raises(ValueError, match="none twice"):
        drawn(2, 4, devices=jax.devices() * 2)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="Not each of the 2 processes"):
        drawn()


def test_interrupted_sampling_keeps_what_was_drawn_and_goes_on(tmp_path):
    told = []

    def stop(progress):
        told.append(progress)
        if progress.stage == "sampling":
            raise KeyboardInterrupt

    part = drawn(saver=Checkpoint(tmp_path, "run", resume=False), progress=stop)
    assert not part.is_complete and part.trace.position.shape[:3] == (1, 4, BLOCK)
    assert told[-1].done == 20 + BLOCK and told[-1].total == 50 and told[-1].seconds_left >= 0
    with pytest.raises(ResultError, match="already keeps a run"):
        Checkpoint(tmp_path, "run", resume=False)
    with pytest.raises(ResultError, match="other data, settings or key"):
        Checkpoint(tmp_path, "other", resume=True)
    rest = drawn(saver=Checkpoint(tmp_path, "run", resume=True))
    whole = drawn()
    assert rest.is_complete
    assert np.array_equal(rest.trace.joint, whole.trace.joint)
    assert np.array_equal(part.trace.joint, whole.trace.joint[:, :, :BLOCK])


def test_an_interrupt_before_any_draw_is_passed_on():
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn(progress=stop)


def test_a_density_that_is_not_finite_at_a_start_is_refused():
    with pytest.raises(ValueError, match="zero or not finite where a chain starts"):
        drawn(start=np.inf)


def test_an_unfinished_file_is_not_a_block(tmp_path):
    kept = Checkpoint(tmp_path, {"a": np.ones(3)}, resume=False)
    (tmp_path / ".block-000000.npz.123").write_bytes(b"half")
    assert kept.load() == []


def blocks(folder, count):
    kept = Checkpoint(folder, "run", resume=True)
    state = State(*np.ones((len(State._fields), 2)))
    for index in range(count):
        kept.save(index, state._replace(position=np.full(2, index)), None)
    return kept


@pytest.mark.parametrize("spoil", ["truncate", "flip", "empty", "missing"])
def test_damaged_blocks_are_dropped_to_the_last_whole_one(tmp_path, caplog, spoil):
    kept = blocks(tmp_path, 4)
    assert [state.position[0] for state, _ in kept.load()] == [0, 1, 2, 3]
    path = tmp_path / "block-000002.npz"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 3] ^= 0xFF
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncate": raw[:100], "flip": raw, "empty": b""}[spoil])
    assert [state.position[0] for state, _ in kept.load()] == [0, 1]
    assert "block-000002.npz is damaged or missing" in caplog.text
    assert sorted(p.name for p in tmp_path.glob("block*")) == [
        "block-000000.npz", "block-000001.npz",
    ]  # fmt: skip


def test_any_flipped_byte_of_a_block_is_noticed_or_of_no_effect(tmp_path):
    kept = blocks(tmp_path, 1)
    path = tmp_path / "block-000000.npz"
    raw = path.read_bytes()
    for place in range(0, len(raw), 7):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :])
        found = kept.load()
        assert found == [] or all(np.array_equal(x, [0, 0]) for x in found[0][0][:1])


def test_blocks_without_their_mark_are_refused(tmp_path):
    blocks(tmp_path, 1)
    (tmp_path / "fingerprint.txt").unlink()
    for resume in (False, True):
        with pytest.raises(ResultError, match="keeps blocks without fingerprint.txt"):
            Checkpoint(tmp_path, "run", resume=resume)
    assert (tmp_path / "block-000000.npz").exists()


def test_blocks_of_an_earlier_version_are_not_gone_on_with(tmp_path):
    blocks(tmp_path, 1)
    mark = tmp_path / "fingerprint.txt"
    assert mark.read_text().startswith("blocks of form 2: ")
    mark.write_text(mark.read_text().partition(": ")[2])  # as they had it
    with pytest.raises(ResultError, match="or of another version"):
        Checkpoint(tmp_path, "run", resume=True)


def test_fingerprints_tell_values_shapes_types_and_keys_apart():
    key = jax.random.key(0)
    marks = [fingerprint(x) for x in (
        (np.ones(2), key), (np.ones(2), jax.random.key(1)), (np.ones(2, np.float32), key),
        (np.ones((1, 2)), key), (np.array([1.0, 2.0]), key), (Nuts(), key), (Nuts(n_chains=2), key),
    )]  # fmt: skip
    assert len(set(marks)) == len(marks)
    assert fingerprint((np.ones(2), key)) == marks[0]


@pytest.mark.slow
def test_a_killed_run_that_goes_on_gives_the_same_draws(tmp_path):
    killed = elsewhere(tmp_path, SLOW="1")
    while int(killed.stdout.readline()) < 45:  # in the middle of sampling
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    blocks = len(list(tmp_path.glob("kept/block*")))
    assert blocks > 5
    rest = drawn(n_samples=100, saver=Checkpoint(tmp_path / "kept", "run", resume=True))
    assert np.array_equal(rest.trace.joint, drawn(n_samples=100).trace.joint)


def test_blackjax_is_not_loaded_before_it_is_needed():
    code = "import sys, twotime as tt; tt.fit_cmc; print(int('blackjax' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
