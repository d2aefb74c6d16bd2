"""What tests of sampling share: a posterior known exactly, small data, and runs elsewhere.

As a script, `python sampling.py FOLDER` is one of two processes (RANK, PORT), or alone on the
devices of XLA_FLAGS; it writes draws to FOLDER.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import twotime as tt
from twotime.sample.chains import Nuts
from twotime.sample.driver import Checkpoint, sample

VALUES = {"D0": 1e4, "alpha": -0.3, "D_offset": 0.0}
FEW = {"n_chains": 2, "n_warmup": 60, "n_samples": 100}


class Normal(eqx.Module):
    """Two coordinates with a Gaussian density, and a third that is integrated out."""

    mean: jax.Array
    precision: jax.Array

    def log_density(self, v):
        return -0.5 * (v - self.mean) @ self.precision @ (v - self.mean)

    def complete(self, v, key):
        return jnp.append(v, jax.random.normal(key))


def normals(n_shards):
    """Posteriors of several shards, stacked."""
    scale = jnp.arange(1.0, n_shards + 1)
    precision = jnp.array([[1.5, 0.5], [0.5, 0.7]])
    return Normal(scale[:, None] * jnp.array([1.0, -2.0]), precision / scale[:, None, None])


def drawn(n_shards=1, n_chains=4, n_warmup=20, n_samples=30, start=0.0, **kwargs):
    """Draws of `normals`."""
    names = {"sampler", "adapt_step", "adapt_shape", "max_tree_depth"} & kwargs.keys()
    fields = {name: kwargs.pop(name) for name in names}
    kind = fields.pop("sampler", Nuts)
    sampler = kind(n_chains=n_chains, n_warmup=n_warmup, n_samples=n_samples, **fields)
    return sample(
        normals(n_shards),
        np.zeros((n_shards, 2)),
        np.broadcast_to(np.eye(2), (n_shards, 2, 2)),
        np.full((n_shards, n_chains, 2), start),
        jax.random.key(7),
        sampler,
        **kwargs,
    )


def static_case(frames=16, angles=1, noise=0.02, sigma=None):
    """A model, data and a space with two free parameters."""
    model = tt.StaticDiffusion()
    data = tt.simulate(
        model, np.asarray(list(VALUES.values())), t=0.1 * np.arange(1, frames + 1), q=0.01,
        phi=50.0 * np.arange(angles), contrast=0.3, offset=1.0, noise=noise,
        key=jax.random.key(0),
    )  # fmt: skip
    data = tt.TwoTimeData(data.c2, data.t, data.q, data.phi, sigma=sigma)
    space = tt.ParameterSpace.from_config({"analysis_mode": "static"}).with_values(VALUES)
    space = space.with_priors({"D0": tt.PriorDistribution.truncated_normal(1e4, 1e4, 100, 1e5)})
    return model, data, space.with_vary({"D_offset": False})


def elsewhere(*arguments, devices=1, **environment):
    """This file run by another process."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        env=os.environ | {"XLA_FLAGS": flags} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process):
    """Wait for a process to end well; what it printed."""
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, out + err
    return out


def on_devices(folder):
    """Draws on one to four devices; prints how many of them draw, and whether bits are equal."""
    from twotime.sample import chains

    program, busy = chains.draw_block, {}

    def counted(*args):
        n_draws = args[-2][3]
        working = np.flatnonzero(np.asarray(n_draws))
        busy.setdefault("devices", set()).update(working.tolist())
        busy["jaxpr"] = "shard_map" in str(program.trace(*args).jaxpr)
        return program(*args)

    chains.draw_block = counted
    for n_shards, n_chains, n_devices in ((5, 2, 4), (1, 4, 4), (3, 2, 2)):
        one = drawn(n_shards, n_chains)
        busy.clear()
        many = drawn(n_shards, n_chains, devices=jax.devices()[:n_devices])
        same = all(np.array_equal(a, b) for a, b in zip(one.trace, many.trace, strict=True))
        print(n_shards, n_chains, n_devices, len(busy["devices"]), busy["jaxpr"], same)


def slowly(folder):
    """A run that is meant to be killed."""

    def told(progress):
        print(progress.done, flush=True)
        time.sleep(0.1)

    drawn(n_samples=100, saver=Checkpoint(folder / "kept", "run", resume=False), progress=told)


def as_process(folder):
    """A run with a new checkpoint, stopped and resumed, beside another process."""
    from twotime.errors import ResultError

    def stop(progress):
        if progress.stage == "sampling":
            raise KeyboardInterrupt

    def kept(identity, resume):
        return Checkpoint(folder / "kept", identity, resume=resume)

    part = drawn(3, 2, devices=jax.devices(), saver=kept("run", False), progress=stop)
    assert not part.is_complete
    for identity, resume in (("run", False), ("other", True)):
        try:
            kept(identity, resume)
        except ResultError as error:
            print(error)
    whole = drawn(3, 2, devices=jax.devices(), saver=kept("run", True))
    np.save(folder / f"rank{jax.process_index()}.npy", whole.trace.joint)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    if "RANK" in os.environ:
        address, rank = f"localhost:{os.environ['PORT']}", int(os.environ["RANK"])
        jax.distributed.initialize(address, num_processes=2, process_id=rank)
        as_process(Path(sys.argv[1]))
    elif "SLOW" in os.environ:
        slowly(Path(sys.argv[1]))
    else:
        on_devices(Path(sys.argv[1]))
