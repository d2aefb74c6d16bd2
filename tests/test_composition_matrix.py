"""Every verb under every transformation: equal to the plain call, or refused in its sentence.

The table is printed (`pytest -s`). What compiles long is under all fourteen only in
`nox -s strict`. Export is by way of bytes only where flatbuffers is installed.
"""

import dataclasses
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_composition import LAW, PHI, TRUTH, Q, T, data, fit, space  # noqa: F401

import twotime as tt
from twotime.testing import check_composable
from twotime.testing.composable import DERIVATIVES, TRANSFORMATIONS

KEY = jax.random.key(0)
SETTINGS = {"judge": False, "per_angle_mode": "individual", "tolerance": 1e-9}
FEW = tt.Nuts(n_chains=1, n_warmup=10, n_samples=10)


def simulated(q, offset):
    one = {"t": T, "q": q, "phi": PHI, "contrast": 0.3, "key": KEY}
    return (
        tt.simulate(LAW, TRUTH, offset=offset, noise=0.1, **one).c2,
        tt.simulate_speckle(LAW, TRUTH, n_pixels=9, **one).c2,
    )


def fitted(q, c2, rings=(), weight=None, **settings):
    start = tt.ParameterSpace.of(LAW).with_values({"D_offset": 0.0}).with_vary({"D_offset": False})
    there = tt.TwoTimeData(c2, T, q, PHI, rings=rings, weight=weight)
    return there, start, tt.fit_nlsq(LAW, there, start, **SETTINGS | settings)


def answer(*args, **settings):
    found = fitted(*args, **settings)[2]
    return found.values[:1] / 2e4, found.contrast, found.chi2


def of_two_wavevectors(q, c2, weight=None):
    return answer(jnp.stack([jnp.asarray(Q), q]), c2, rings=(0, 1), weight=weight)


def profiled(q, c2):
    there, start, found = fitted(q, c2)
    return tt.profile(LAW, there, start, found, "D0", np.array([1e4, 4e4])).height


def banded(q, c2):
    return tt.delta_bands(LAW, fitted(q, c2)[2], T)["J"].upper


VERBS = {
    "correlation": (lambda q: tt.correlation(LAW, TRUTH, t=T, q=q, phi=PHI), (Q,)),
    "correlation_at": (
        lambda q: tt.correlation_at(LAW, TRUTH, T[:3], T[3:6], t=T, q=q, phi=0.0), (Q,)
    ),
    "simulate": (simulated, (Q, 1.0)),
    "prior": (
        lambda m: tt.PriorDistribution.truncated_normal(m, 0.5, 0.0, 9.0).log_prob(T[:9]), (1.0,)
    ),
    "draw_bands": (
        lambda d: tt.draw_bands(LAW, d * TRUTH * np.array([[0.9], [1.0], [1.2]]), T)["J"].upper,
        (1.1,),
    ),
}  # fmt: skip
FITS = {
    "fit_nlsq": answer,
    "fit_nlsq, soft_l1": lambda q, c2: answer(q, c2, loss="soft_l1"),
    "fit_nlsq, two wavevectors": of_two_wavevectors,
    "fit_nlsq, two weighed wavevectors": lambda q, c2: of_two_wavevectors(
        q, c2, weight=np.array([1.1, 0.9])
    ),
    "profile": profiled,
    "delta_bands": banded,
}
REFUSED = {
    "fit_nlsq, two wavevectors": "A fit that finds how much each ring counts",
    "profile": "Error bars of a fit",
    "delta_bands": "Error bars of a fit",
}
"""What the sentence says by which a derivative is refused."""
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


def check(name, verb, args, refused="", cells=(), tolerance=1e-10):
    """Every cell is equal; those of the cells that are named, refused in the sentence."""
    table = check_composable(verb, args, tolerance=tolerance)
    show(name, table)
    for transformation, cell in table.items():
        assert cell.startswith(refused) if transformation in cells else cell == "equal"


LONG = [
    pytest.param(name, marks=pytest.mark.statistics) for name in ("simulate", "prior", "draw_bands")
]


@pytest.mark.parametrize("name", ["correlation", "correlation_at", *LONG])
def test_verbs_compose_with_every_transformation(name):
    verb, args = VERBS[name]
    check(name, verb, args)


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


@pytest.mark.long
def test_fits_compose_with_batches_of_compiled_loops(data):  # noqa: F811
    args = (Q, data.c2)
    assert check_composable(answer, args, only=["jit of vmap"]) == {"jit of vmap": "equal"}


@pytest.mark.statistics
@pytest.mark.parametrize("name", FITS)
def test_fits_compose_with_every_transformation(name, data):  # noqa: F811
    refused = REFUSED.get(name, "")
    # The size of the noise, on which heights of a profile rest, amplifies rounding a million times.
    tolerance = 1e-9 if name == "profile" else 1e-10
    check(name, FITS[name], (Q, data.c2), refused, DERIVATIVES if refused else (), tolerance)


@pytest.mark.statistics
def test_judgement_composes_with_every_transformation(data, space, fit):  # noqa: F811
    def judged(q, c2):
        return tt.residual_structure(LAW, tt.TwoTimeData(c2, T, q, PHI), space, fit).by_lag

    check("residual_structure", judged, (Q, data.c2))


@pytest.fixture(scope="module")
def density(data, space, fit):  # noqa: F811
    return tt.log_density(LAW, data, space, start=fit)


@pytest.mark.statistics
def test_the_density_composes_with_every_transformation(density):
    def found(z):
        params = density.to_params(z)
        return density(z), density.from_params(params), density.log_likelihood(params)

    check("log_density(...)", found, (density.start,))


@pytest.mark.statistics
def test_draws_compose_and_have_no_derivatives(density):
    def drawn(x):
        shape = density.shape._replace(mode=density.shape.mode + x)
        return dataclasses.replace(density, shape=shape).sample(KEY, FEW)[0]["D0"]

    check("log_density(...).sample", drawn, (0.01,), "Draws have no derivatives", DERIVATIVES)


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
