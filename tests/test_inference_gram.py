import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.data.dataset import TwoTimeData
from twotime.gram import separable as factored
from twotime.gram import tiled
from twotime.gram.choose import choose_evaluator, evaluate_gram
from twotime.models.correlation import correlation, correlation_at
from twotime.models.laminar_flow import LaminarFlow
from twotime.models.static import StaticDiffusion
from twotime.models.two_component import TwoComponent

factored_gram = eqx.filter_jit(factored.factored_gram)
gram = eqx.filter_jit(tiled.gram)

CASES = {
    "static": (StaticDiffusion(), [2000.0, 0.1, 10.0]),
    "laminar": (LaminarFlow(), [2000.0, 0.1, 10.0, 3e-3, 0.1, 0.0, 3.0]),
    "homodyne": (
        LaminarFlow(shear_convention="homodyne"),
        [2000.0, 0.1, 10.0, 3e-3, 0.1, 0.0, 3.0],
    ),
    "two": (
        TwoComponent(integration="exact"),
        [3e3, 0.1, 10.0, 2e3, 0.1, 20.0, 50.0, 0.1, 1.0, 0.4, 0.01, 0.0, 0.1, 2.0],
    ),
}


def make_data(model, params, n=70, angles=2):
    t = jnp.arange(1, n + 1) * 0.2
    phi = jnp.linspace(0.0, 60.0, angles)
    c = correlation(model, params, t=t, q=0.005, phi=phi)
    noise = 0.01 * jax.random.normal(jax.random.key(0), c.shape)
    return TwoTimeData(1 + 0.3 * c + noise, t, 0.005, phi)


def dense(model, data, params, k, weight=None):
    i, j = np.triu_indices(data.t.shape[0], 1)

    def at(p):
        return correlation_at(model, p, data.t[i], data.t[j], t=data.t, q=data.q, phi=data.phi[k])

    value, jacobian = jax.jit(lambda p: (at(p), jax.jacfwd(at)(p)))(params)
    plain = jnp.stack([data.c2[k][i, j], jnp.ones(i.size), value], axis=1)
    b = jnp.concatenate([plain, jacobian], axis=1)
    w = jnp.ones(i.size) if weight is None else jnp.asarray(weight)[k][i, j]
    return np.asarray((b * w[:, None]).T @ b)


def assert_same(got, want, tolerance=1e-9):
    size = np.sqrt(np.diag(want))
    size = np.where(size > 0, size, 1)
    np.testing.assert_allclose(
        np.asarray(got) / np.outer(size, size), want / np.outer(size, size), atol=tolerance
    )


@pytest.mark.parametrize(
    ("case", "tile"),
    [*((case, 23) for case in CASES), ("laminar", 16), ("laminar", 128)],
)
def test_equals_the_dense_jacobian(case, tile):
    model, params = CASES[case][0], jnp.asarray(CASES[case][1])
    data = make_data(model, params)
    free = (True,) * len(params)
    got = gram(model, data, params, free, tile=tile)
    for k in range(2):
        assert_same(got[k], dense(model, data, params, k))


def test_mask_and_sigma_weigh_pixels_and_nan_does_not_count():
    model, params = CASES["laminar"][0], jnp.asarray(CASES["laminar"][1])
    plain = make_data(model, params)
    rng = np.random.default_rng(0)
    mask = rng.random(plain.c2.shape) > 0.2
    sigma = jnp.asarray(rng.uniform(0.5, 2.0, plain.c2.shape))
    c2 = plain.c2.at[0, 3, 9].set(jnp.nan)
    data = TwoTimeData(c2, plain.t, plain.q, plain.phi, mask=mask, sigma=sigma)
    weight = np.where(mask, 1 / np.asarray(sigma) ** 2, 0.0)
    weight[0, 3, 9] = 0.0
    got = gram(model, data, params, (True,) * 7, tile=32)
    for k in range(2):
        assert_same(got[k], dense(model, plain, params, k, weight))


def test_only_free_parameters_and_the_shift():
    model, params = CASES["laminar"][0], jnp.asarray(CASES["laminar"][1])
    data = make_data(model, params)
    free = (True, False, False, True, False, False, True)
    got = gram(model, data, params, free, shift=1.1)
    moved = TwoTimeData(data.c2 - 1.1, data.t, data.q, data.phi)
    keep = [0, 1, 2, 3, 6, 9]
    assert_same(got[1], dense(model, moved, params, 1)[np.ix_(keep, keep)])


@pytest.mark.parametrize(
    ("case", "n"), [("static", 5), ("static", 64), ("static", 70), ("static", 131), ("two", 131)]
)
def test_factored_equals_tiled(case, n):
    model, params = CASES[case][0], jnp.asarray(CASES[case][1])
    data = make_data(model, params, n=n)
    free = tuple(i != 1 for i in range(len(params)))
    want = gram(model, data, params, free, shift=1.1)
    got = factored_gram(model, data, params, free, shift=1.1)
    for k in range(2):
        assert_same(got[k], np.asarray(want[k]))


@pytest.mark.slow
def test_factored_survives_clocks_that_overflow():
    model, params = CASES["two"][0], jnp.asarray(CASES["two"][1]).at[3].set(1e6).at[0].set(1e6)
    data = make_data(model, params, n=100)
    data = TwoTimeData(data.c2, data.t * 10, data.q, data.phi)
    free = (True,) * 14
    got = factored_gram(model, data, params, free)
    assert np.all(np.isfinite(got))
    assert_same(got[0], np.asarray(gram(model, data, params, free)[0]))


def test_one_sigma_scales_both_evaluators_alike():
    model, params = CASES["static"][0], jnp.asarray(CASES["static"][1])
    plain = make_data(model, params)
    data = TwoTimeData(plain.c2, plain.t, plain.q, plain.phi, sigma=0.1)
    for function in (gram, factored_gram):
        np.testing.assert_allclose(
            function(model, data, params, (True,) * 3),
            100 * function(model, plain, params, (True,) * 3),
            rtol=1e-9,
            atol=1e-9,
        )


def test_auto_takes_the_factored_evaluator_only_where_it_is_right():
    static, laminar = CASES["static"][0], CASES["laminar"][0]
    data = make_data(static, jnp.asarray(CASES["static"][1]), n=12)
    diagonal = ~np.eye(12, dtype=bool)[None].repeat(2, axis=0)
    hidden = diagonal.copy()
    hidden[0, 2, 5] = False

    def masked(mask):
        return TwoTimeData(data.c2, data.t, data.q, data.phi, mask=mask)

    assert choose_evaluator(static, data, "auto")[1] == "factored"
    got, name = choose_evaluator(static, masked(diagonal), "auto")
    assert name == "factored" and got.mask is None
    assert choose_evaluator(static, masked(hidden), "auto")[1] == "tiled"
    assert choose_evaluator(laminar, data, "auto")[1] == "tiled"
    nan = TwoTimeData(data.c2.at[0, 1, 4].set(jnp.nan), data.t, data.q, data.phi)
    assert choose_evaluator(static, nan, "auto")[1] == "tiled"
    with pytest.raises(ValueError, match="LaminarFlow is not a sum of products"):
        choose_evaluator(laminar, data, "factored")
    with pytest.raises(ValueError, match="evaluator is 'fast'"):
        choose_evaluator(laminar, data, "fast")


@pytest.mark.parametrize(("case", "evaluator"), [("laminar", "tiled"), ("two", "factored")])
def test_rows_without_products_of_derivatives_are_those_of_the_whole(case, evaluator):
    model, params = CASES[case]
    params = jnp.asarray(params)
    data = make_data(model, params)
    free = tuple(k % 3 > 0 for k in range(params.size))

    @jax.jit
    def both(p):
        def rows(free, with_normal):
            shift = jnp.asarray(1.1)
            return evaluate_gram(
                evaluator, model, data, p, free, shift, 23, with_normal=with_normal
            )

        return rows(free, True), rows(free, False), rows((False,) * len(free), False)

    whole, some, plain = both(params)
    assert some.shape == (2, 3, 3 + sum(free))
    size = np.sqrt(np.asarray(jnp.diagonal(whole, axis1=1, axis2=2)))
    unit = size[:, :3, None] * size[:, None, :]
    np.testing.assert_allclose(some / unit, whole[:, :3] / unit, atol=1e-12)
    np.testing.assert_allclose(plain, whole[:, :3, :3], rtol=1e-12)
