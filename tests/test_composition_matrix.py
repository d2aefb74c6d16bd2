"""Every verb under every transformation: equal to the plain call, or refused in its sentence.

The table is printed (`pytest -s`). What compiles long is under all fourteen only in
`nox -s strict`.
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_composition import LAW, PHI, TRUTH, Q, T, data, fit, space  # noqa: F401

import twotime as tt
from twotime.testing import check_composable
from twotime.testing.composable import TRANSFORMATIONS

KEY = jax.random.key(0)
SETTINGS = {"judge": False, "per_angle_mode": "individual", "tolerance": 1e-9}


def simulated(q, offset):
    one = {"t": T, "q": q, "phi": PHI, "contrast": 0.3, "key": KEY}
    return (
        tt.simulate(LAW, TRUTH, offset=offset, noise=0.1, **one).c2,
        tt.simulate_speckle(LAW, TRUTH, n_pixels=9, **one).c2,
    )


def fitted(q, c2, **settings):
    start = tt.ParameterSpace.of(LAW).with_values({"D_offset": 0.0}).with_vary({"D_offset": False})
    there = tt.TwoTimeData(c2, T, q, PHI)
    found = tt.fit_nlsq(LAW, there, start, **SETTINGS | settings)
    return found.values[:1] / 2e4, found.contrast, found.chi2


VERBS = {
    "correlation": (lambda q: tt.correlation(LAW, TRUTH, t=T, q=q, phi=PHI), (Q,)),
    "correlation_at": (
        lambda q: tt.correlation_at(LAW, TRUTH, T[:3], T[3:6], t=T, q=q, phi=0.0), (Q,)
    ),
    "simulate": (simulated, (Q, 1.0)),
    "prior": (
        lambda m: tt.PriorDistribution.truncated_normal(m, 0.5, 0.0, 9.0).log_prob(T[:9]), (1.0,)
    ),
}  # fmt: skip
HOST = {
    "fit_cmc": lambda d, s: tt.fit_cmc(LAW, d, s, key=KEY),
    "log_density": lambda d, s: tt.log_density(LAW, d, s),
    "estimate_starts": lambda d, s: tt.estimate_starts(LAW, d, s),
    "fit_sequential": lambda d, s: tt.fit_sequential(LAW, d, s),
}


def show(name, table):
    print(f"\n{name}")
    for transformation, cell in table.items():
        print(f"  {transformation:12} {cell}")


LONG = [pytest.param(name, marks=pytest.mark.statistics) for name in ("simulate", "prior")]


@pytest.mark.parametrize("name", ["correlation", "correlation_at", *LONG])
def test_verbs_compose_with_every_transformation(name):
    verb, args = VERBS[name]
    table = check_composable(verb, args)
    show(name, table)
    assert table == dict.fromkeys(TRANSFORMATIONS, "equal")


@pytest.mark.parametrize("name", HOST)
def test_host_verbs_are_refused_in_one_sentence_everywhere(name, data, space):  # noqa: F811
    def verb(q):
        return HOST[name](tt.TwoTimeData(data.c2, T, q, PHI), space)

    table = {}
    for transformation, transformed in TRANSFORMATIONS.items():
        with pytest.raises(TypeError, match=f"{name} decides on the host") as found:
            transformed(verb, (jnp.asarray(Q),))
        table[transformation] = str(found.value)
    show(name, table)


@pytest.mark.slow
def test_fits_compose_with_batches_of_compiled_loops(data):  # noqa: F811
    args = (Q, data.c2)
    assert check_composable(fitted, args, only=["jit of vmap"]) == {"jit of vmap": "equal"}


@pytest.mark.statistics
@pytest.mark.parametrize("loss", ["linear", "soft_l1"])
def test_fits_compose_with_every_transformation(loss, data):  # noqa: F811
    table = check_composable(lambda q, c2: fitted(q, c2, loss=loss), (Q, data.c2))
    show(f"fit_nlsq, {loss}", table)
    assert table == dict.fromkeys(TRANSFORMATIONS, "equal")


@pytest.mark.statistics
def test_judgement_and_bands_compose(data, space, fit):  # noqa: F811
    def found(q):
        there = tt.TwoTimeData(data.c2, T, q, PHI)
        bands = tt.delta_bands(LAW, fit, T)
        return tt.residual_structure(LAW, there, space, fit).by_lag, bands["J"].upper * q

    only = ["jit", "vmap", "vmap of jit", "jit of vmap", "scan", "cond", "checkpoint"]
    table = check_composable(found, (Q,), only=[*only, "shard_map", "pmap", "export"])
    show("residual_structure, delta_bands", table)
    assert set(table.values()) == {"equal"}


@pytest.mark.statistics
def test_sixteen_wavevectors_in_one_call_are_as_sixteen_calls_and_faster(data, space):  # noqa: F811
    @eqx.filter_jit
    def one(q):
        return tt.fit_nlsq(LAW, tt.TwoTimeData(data.c2, T, q, PHI), space, **SETTINGS).values

    def seconds(call):
        jax.block_until_ready(call())
        begun = time.perf_counter()
        for _ in range(5):
            jax.block_until_ready(call())
        return (time.perf_counter() - begun) / 5

    wavevectors = jnp.linspace(0.004, 0.006, 16)
    many = eqx.filter_jit(eqx.filter_vmap(one))
    together = np.asarray(many(wavevectors))
    np.testing.assert_allclose(together, [one(q) for q in wavevectors], rtol=1e-9)

    def single(q):
        return tt.fit_nlsq(LAW, tt.TwoTimeData(data.c2, T, q, PHI), space, **SETTINGS).values

    ratio = seconds(lambda: many(wavevectors)) / seconds(lambda: [single(q) for q in wavevectors])
    print(f"\n16 wavevectors together take {ratio:.2f} of the time of 16 calls")
    assert ratio < 1 / 3
