"""Fits on several devices and in several processes: the same answer, to rounding."""

import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.gram import Tiled, device_mesh

# What every process below does: a fit of one or three angles, on one device and on all of them.
RUN = """
import os, sys
import jax
jax.config.update("jax_enable_x64", True)
if os.environ.get("PORT"):
    jax.distributed.initialize(
        "localhost:" + os.environ["PORT"], num_processes=2, process_id=int(os.environ["RANK"]))
assert jax.device_count() == 2
import jax.numpy as jnp, numpy as np, twotime as tt
t, found = np.arange(1, 42) * 0.1, {}
model, truth, free, angles = {
    "static": (tt.StaticDiffusion(), [9e3, -0.4, 500.0], ("D0", "alpha"), 3),
    "laminar_flow": (tt.LaminarFlow(gap=2e6), [9e3, 0.2, 0.0, 2e-3, 0.3, 0.0, 4.0],
        ("D0", "gamma_dot_t0"), 1),
}[sys.argv[2]]
space = tt.ParameterSpace.from_config({"analysis_mode": sys.argv[2]})
space = space.with_values(dict(zip(model.names, truth)))
space = space.with_vary({n: n in free for n in model.names}).with_values({"D0": 7e3})
data = tt.simulate(model, jnp.asarray(truth), t=t, q=0.005, phi=np.linspace(0.0, 60.0, angles),
    contrast=0.3, offset=1.0, noise=0.01, key=jax.random.key(1))
for where, devices in (("one", None), ("two", jax.devices())):
    fit = tt.fit_nlsq(model, data, space, tile=9, devices=devices, judge=False)
    assert fit.converged, fit.status
    deviations = list(fit.uncertainties.values())
    for what, x in (("values", fit.values), ("contrast", fit.contrast), ("chi2", fit.chi2),
                    ("uncertainties", deviations)):
        found[f"{what} {where}"] = np.asarray(x)
np.savez(sys.argv[1], **found)
"""


def start(law, file, devices=1, **environment):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    env = os.environ | {"XLA_FLAGS": flags}
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(file), law], env=env | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def results(process, file):
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, out + err
    return dict(np.load(file))


def check(found, one):
    for name in [name for name in found if name.endswith("two")]:
        want = one[name.removesuffix("two") + "one"]
        # Error bars are second moments of what the values are, and less well conditioned.
        rtol = 1e-9 if "uncertainties" in name else 1e-10
        np.testing.assert_allclose(found[name], want, rtol=rtol, err_msg=name)


@pytest.mark.long
def test_two_devices_give_the_answer_of_one(tmp_path):
    found = results(start("laminar_flow", tmp_path / "a.npz", 2), tmp_path / "a.npz")
    assert len(found) == 8
    check(found, found)


@pytest.mark.long
def test_two_processes_give_the_answer_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    files = [tmp_path / f"{rank}.npz" for rank in (0, 1)]
    pair = [start("static", file, PORT=port, RANK=str(rank)) for rank, file in enumerate(files)]
    first, second = (results(*pair_of) for pair_of in zip(pair, files, strict=True))
    check(first, first)
    check(second, second)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def problem(angles):
    model, params = tt.LaminarFlow(gap=2e6), jnp.asarray([9e3, 0.2, 0.0, 2e-3, 0.3, 0.0, 4.0])
    data = tt.simulate(
        model, params, t=jnp.arange(1, 31) * 0.1, q=0.005, phi=jnp.linspace(0.0, 60.0, angles),
        contrast=0.3, offset=1.0, noise=0.01, key=jax.random.key(1),
    )  # fmt: skip
    return model, data, params, (True, False, False, True, True, False, True)


@pytest.mark.parametrize("angles", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_mesh_of_one_device_gives_the_same_sums(angles):
    model, data, params, free = problem(angles)
    mask = np.ones(data.c2.shape, bool)
    mask[0, 3:9, 20:30] = False
    data = tt.TwoTimeData(data.c2, data.t, data.q, data.phi, mask=mask, sigma=0.5 + data.c2)
    shift = jnp.asarray(1.0)

    def grams(mesh):
        prepared = Tiled(6).prepare(data, shift)
        return Tiled(6).gram(model, data, params, free, shift, prepared, mesh=mesh)

    want = jax.jit(lambda: grams(None))()
    got = jax.jit(lambda: grams(device_mesh(jax.devices()[:1])))()
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.long
def test_sums_on_named_devices_have_derivatives():
    model, data, params, free = problem(3)

    def total(q, mesh):
        moved = tt.TwoTimeData(data.c2, data.t, q, data.phi)
        shift = jnp.asarray(1.0)
        prepared = Tiled(6).prepare(moved, shift)
        return jnp.sum(Tiled(6).gram(model, moved, params, free, shift, prepared, mesh=mesh))

    mesh = device_mesh(jax.devices()[:1])
    want = jax.jit(jax.grad(lambda q: total(q, None)))(data.q)
    got = jax.jit(jax.grad(lambda q: total(q, mesh)))(data.q)
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_devices_that_cannot_be_used_are_refused_in_a_sentence():
    device = jax.devices()[0]
    for devices in ([], [device, device]):
        with pytest.raises(ValueError, match="expected at least one, and none twice"):
            device_mesh(devices)
    assert device_mesh(None) is None
