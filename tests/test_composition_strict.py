"""Hosts with strict settings: verbs give the same numbers under each.

Settings that change what JAX compiles, and so compile everything again, are left to
`nox -s strict`.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_composition import LAW, PHI, SETTINGS, TRUTH, Q, T, data, space  # noqa: F401

import twotime as tt

KEY, PLACE = jax.random.key(0), jnp.asarray(Q)
HOSTS = {
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "transfer guard": lambda: jax.transfer_guard("disallow"),
    "debug_nans": lambda: jax.debug_nans(True),
    "tracer leaks": jax.checking_leaks,
    "enable_checks": lambda: jax.enable_checks(True),
    "custom PRNG": lambda: jax.enable_custom_prng(True),
}
COMPILING = ("debug_nans", "tracer leaks", "enable_checks")
VERBS = {
    "correlation": lambda d, s: tt.correlation(LAW, TRUTH, t=T, q=Q, phi=PHI),
    "correlation_at": lambda d, s: tt.correlation_at(
        LAW, TRUTH, T[:2], T[2:4], t=T, q=Q, phi=PHI[0]
    ),
    "simulate_speckle": lambda d, s: (
        tt.simulate_speckle(LAW, TRUTH, t=T, q=Q, phi=PHI, contrast=0.3, n_pixels=9, key=KEY).c2
    ),
    "estimate_starts": lambda d, s: (
        tt.estimate_starts(LAW, d, tt.ParameterSpace.of(LAW))[0].initial
    ),
    "fit": lambda d, s: tt.fit_nlsq(LAW, d, s, starts=2, key=KEY, **SETTINGS).values,
    "robust fit": lambda d, s: tt.fit_nlsq(LAW, d, s, loss="huber", **SETTINGS).values,
    "uncertainties": lambda d, s: [*tt.fit_nlsq(LAW, d, s, **SETTINGS).uncertainties.values()],
    "prior": lambda d, s: tt.PriorDistribution.truncated_normal(0.0, 1.0, -1.0, 2.0).log_prob(T),
    "fit_cmc": lambda d, s: (
        tt.fit_cmc(LAW, d, s, key=KEY, n_chains=1, n_warmup=10, n_samples=10).draws
    ),
}
SLOW = ("fit_cmc", "estimate_starts", "robust fit")


@pytest.fixture(scope="module")
def plain(data, space):  # noqa: F811
    found = {}
    yield lambda name: found.setdefault(name, np.asarray(VERBS[name](data, space)))


def cases():
    for host in HOSTS:
        for verb in VERBS:
            is_long = host in COMPILING or verb in SLOW
            yield pytest.param(host, verb, marks=pytest.mark.statistics if is_long else ())


@pytest.mark.parametrize(("host", "verb"), list(cases()))
def test_verbs_give_the_same_in_strict_hosts(host, verb, plain, data, space):  # noqa: F811
    want = plain(verb)
    with HOSTS[host]():
        got = VERBS[verb](data, space)
    np.testing.assert_allclose(np.asarray(got), want, rtol=1e-12)


@pytest.mark.statistics
@pytest.mark.parametrize("host", HOSTS)
def test_gradients_of_fits_pass_in_strict_hosts(host, data, space):  # noqa: F811
    def at(q):
        return tt.fit_nlsq(LAW, tt.TwoTimeData(data.c2, T, q, PHI), space, **SETTINGS).values[0]

    with HOSTS[host](), contextlib.nullcontext():
        slope = jax.jit(jax.grad(at))(PLACE)
    assert float(slope) == pytest.approx(-2 * float(at(PLACE)) / Q, rel=1e-3)
