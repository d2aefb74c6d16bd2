"""Runs: the same draws in blocks, after a kill, and on any number of devices and processes."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.errors import ResultError
from twotime.sample import diagnostics
from twotime.sample.chains import BLOCK, Settings, make_plan
from twotime.sample.checkpoint import Checkpoint
from twotime.sample.cmc import fit_cmc
from twotime.sample.devices import even_part

# What every process below does: a small posterior in shards, its draws to a file.
RUN = """
import os, sys, time
import jax
jax.config.update("jax_enable_x64", True)
if os.environ.get("PORT"):
    jax.distributed.initialize(
        "localhost:" + os.environ["PORT"], num_processes=2, process_id=int(os.environ["RANK"]))
import jax.numpy as jnp, numpy as np, twotime as tt
t = jnp.arange(1, 21) * 0.1
data = tt.simulate(tt.StaticDiffusion(), jnp.asarray([1e4, -0.3, 0.0]), t=t, q=0.01,
    phi=jnp.zeros(1), contrast=0.3, offset=1.0, noise=0.02, key=jax.random.key(0))
space = tt.ParameterSpace.from_config({"analysis_mode": "static"})
space = space.with_values({"D0": 1e4, "alpha": -0.3, "D_offset": 0.0}).with_vary(
    {"D_offset": False})
space = space.with_priors({"D0": tt.PriorDistribution.truncated_normal(1e4, 5e3, 100., 1e5)})
folder, shards = sys.argv[1], int(sys.argv[2])
def slow(progress):
    if os.environ.get("SLOW"):
        print(progress.done, flush=True); time.sleep(0.3)
post = tt.fit_cmc(tt.StaticDiffusion(), data, space, key=jax.random.key(5), n_shards=shards,
    n_chains=4, n_warmup=60, n_samples=60, width="none", devices=jax.devices(),
    checkpoint=folder + "/kept" if shards == 2 and not os.environ.get("PORT") else None,
    resume=os.path.exists(folder + "/kept"), progress=slow)
np.save(folder + f"/{os.environ.get('NAME', 'draws')}.npy", post.draws)
"""


def start(folder, shards=2, devices=1, **environment):
    env = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), str(shards)],
        env=env | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, out + err


@pytest.mark.slow
def test_a_killed_run_that_goes_on_gives_the_same_draws(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    finish(start(whole))
    process = start(killed, SLOW="1")
    while int(process.stdout.readline()) < 80:  # in the middle of sampling
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "draws.npy").exists()
    finish(start(killed))
    assert np.array_equal(np.load(whole / "draws.npy"), np.load(killed / "draws.npy"))


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 4])
def test_devices_and_processes_do_not_change_the_draws(tmp_path, shards):
    finish(start(tmp_path, shards, 1, NAME="one"))
    finish(start(tmp_path, shards, 2, NAME="two"))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    pair = [
        start(tmp_path, shards, 1, PORT=port, RANK=rank, NAME=f"process{rank}")
        for rank in ("0", "1")
    ]
    for process in pair:
        finish(process)
    one = np.load(tmp_path / "one.npy")
    for name in ("two", "process0", "process1"):
        other = np.load(tmp_path / f"{name}.npy")
        print(shards, name, np.abs(other / one - 1).max())
        assert np.allclose(other, one, rtol=1e-8, atol=0)


def test_devices_divide_the_groups_of_chains_evenly():
    asked = ((1, 16), (2, 16), (2, 2), (8, 4), (3, 8), (8, 3))
    assert [even_part(*numbers) for numbers in asked] == [1, 2, 2, 4, 2, 3]


def test_plans_make_all_draws_in_blocks():
    for n_warmup, n_samples in ((10, 10), (500, 1000), (61, 77)):
        plan = make_plan(Settings(n_warmup=n_warmup, n_samples=n_samples))
        assert sum(p.n_draws for p in plan if p.is_warmup) == n_warmup
        assert sum(p.n_draws for p in plan if not p.is_warmup) == n_samples
        assert max(p.n_draws for p in plan) <= BLOCK and min(p.n_draws for p in plan) > 0
        assert sum(p.ends_window for p in plan) == 3


def small(**kwargs):
    t = jnp.arange(1, 17) * 0.1
    data = tt.simulate(
        tt.StaticDiffusion(), jnp.asarray([1e4, -0.3, 0.0]), t=t, q=0.01, phi=jnp.zeros(1),
        contrast=0.3, offset=1.0, noise=0.02, key=jax.random.key(0),
    )  # fmt: skip
    space = tt.ParameterSpace.from_config({"analysis_mode": "static"})
    space = space.with_values({"D0": 1e4, "alpha": -0.3, "D_offset": 0.0})
    space = space.with_vary({"D_offset": False})
    options = {"n_chains": 2, "n_warmup": 20, "n_samples": 40, "width": "none"} | kwargs
    return fit_cmc(tt.StaticDiffusion(), data, space, key=jax.random.key(3), **options)


@pytest.mark.slow
def test_interrupted_sampling_keeps_what_was_drawn_and_goes_on(tmp_path):
    told = []

    def stop(progress):
        told.append(progress)
        if progress.stage == "sampling":
            raise KeyboardInterrupt

    part = small(checkpoint=tmp_path / "run", progress=stop)
    assert not part.is_complete and not part.converged and part.draws.shape[:2] == (2, BLOCK)
    assert "interrupted after 25 draws" in part.status
    assert told[-1].done == 45 and told[-1].total == 60 and told[-1].seconds_left >= 0
    with pytest.raises(ResultError, match="already keeps a run"):
        small(checkpoint=tmp_path / "run")
    with pytest.raises(ResultError, match="other data, settings or key"):
        small(checkpoint=tmp_path / "run", resume=True, target_accept=0.7)
    rest = small(checkpoint=tmp_path / "run", resume=True)
    whole = small()
    assert rest.is_complete
    assert np.array_equal(rest.draws, whole.draws)
    assert np.array_equal(part.draws, whole.draws[:, :BLOCK])


@pytest.mark.slow
def test_an_interrupt_before_any_draw_is_passed_on():
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(progress=stop)


def test_an_unfinished_file_is_not_a_block(tmp_path):
    kept = Checkpoint(tmp_path, {"a": np.ones(3)}, resume=False)
    (tmp_path / ".block-000000.npz.123").write_bytes(b"half")
    assert kept.load() == []


def test_diagnostics_tell_good_chains_from_bad():
    rng = np.random.default_rng(0)
    good = rng.normal(size=(1, 4, 500, 1))
    apart = good + np.arange(4)[None, :, None, None]
    energy, zero = rng.normal(size=(1, 4, 500)), np.zeros((1, 4, 500))
    fine = diagnostics.convergence(good, energy, zero, zero, 10)
    bad = diagnostics.convergence(apart, np.cumsum(energy, axis=2), zero + 1, zero + 10, 10)
    assert fine.r_hat[0, 0] < 1.01 < 1.5 < bad.r_hat[0, 0]
    assert fine.ess_bulk[0, 0] > 1500 > 50 > bad.ess_bulk[0, 0]
    assert fine.bfmi.min() > 1.5 and bad.bfmi.max() < 0.1
    assert bad.divergences[0] == 2000 and bad.deepest[0] == 1
    limits = (1.01, 400, 0.3, 0)
    assert diagnostics.converged_shards(fine, *limits).tolist() == [True]
    assert diagnostics.converged_shards(bad, *limits).tolist() == [False]


def test_blackjax_is_not_loaded_before_it_is_needed():
    code = "import sys, twotime as tt; tt.fit_cmc; print(int('blackjax' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
