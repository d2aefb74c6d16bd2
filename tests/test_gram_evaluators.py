import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.data.dataset import TwoTimeData
from twotime.gram import Separable, Tiled, choose_evaluator
from twotime.gram.problem import reduce_gram
from twotime.models.correlation import correlation, correlation_at
from twotime.models.laminar_flow import LaminarFlow
from twotime.models.scaling import Individual
from twotime.models.static import StaticDiffusion
from twotime.models.two_component import TwoComponent

TILED = Tiled()


@eqx.filter_jit
def gram(model, data, params, free, shift=0.0, evaluator=TILED):
    """The Gram matrices by one evaluator."""
    prepared = evaluator.prepare(data, shift)
    return evaluator.gram(model, data, params, free, shift, prepared)


def factored_gram(*settings, **shift):
    return gram(*settings, **shift, evaluator=Separable())


CASES = {
    "static": (StaticDiffusion(), [2000.0, 0.1, 10.0]),
    "laminar": (LaminarFlow(gap=2e6), [2000.0, 0.1, 10.0, 3e-3, 0.1, 0.0, 3.0]),
    "homodyne": (
        LaminarFlow(gap=2e6, shear_convention="homodyne"),
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
    got = gram(model, data, params, free, evaluator=Tiled(tile))
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
    got = gram(model, data, params, (True,) * 7, evaluator=Tiled(32))
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


TWO_131 = pytest.param("two", 131, marks=pytest.mark.long)


@pytest.mark.parametrize(
    ("case", "n"), [("static", 5), ("static", 64), ("static", 70), ("static", 131), TWO_131]
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

    def chosen(model, data, asked="auto", **tile):
        return choose_evaluator(model, data, asked, **tile)[1]

    assert chosen(static, data) == Separable()
    got, evaluator = choose_evaluator(static, masked(diagonal), "auto")
    assert evaluator == Separable() and got.mask is None
    assert chosen(static, masked(hidden)) == Tiled()
    assert chosen(laminar, data) == Tiled()
    for asked in ("factored", "separable", Separable()):
        assert chosen(static, data, asked) == Separable()
    assert chosen(static, data, "tiled", tile=9) == chosen(static, data, Tiled(9)) == Tiled(9)
    assert (Tiled().word, Separable().word) == ("tiled", "factored")
    assert Tiled(9) != Tiled() != Separable()
    nan = TwoTimeData(data.c2.at[0, 1, 4].set(jnp.nan), data.t, data.q, data.phi)
    assert chosen(static, nan) == Tiled()
    with pytest.raises(ValueError, match="LaminarFlow is not a sum of products"):
        chosen(laminar, data, "factored")
    with pytest.raises(ValueError, match="LaminarFlow is not a sum of products"):
        chosen(laminar, data, Separable())
    with pytest.raises(ValueError, match="evaluator is 'fast'"):
        chosen(laminar, data, "fast")


@pytest.mark.parametrize(("case", "evaluator"), [("laminar", Tiled(23)), ("two", Separable())])
def test_rows_without_products_of_derivatives_are_those_of_the_whole(case, evaluator):
    model, params = CASES[case]
    params = jnp.asarray(params)
    data = make_data(model, params)
    free = tuple(k % 3 > 0 for k in range(params.size))

    @jax.jit
    def both(p):
        def rows(free, with_normal):
            shift = jnp.asarray(1.1)
            prepared = evaluator.prepare(data, shift)
            settings = model, data, p, free, shift, prepared
            return evaluator.gram(*settings, with_normal=with_normal)

        return rows(free, True), rows(free, False), rows((False,) * len(free), False)

    whole, some, plain = both(params)
    assert some.shape == (2, 3, 3 + sum(free))
    size = np.sqrt(np.asarray(jnp.diagonal(whole, axis1=1, axis2=2)))
    unit = size[:, :3, None] * size[:, None, :]
    np.testing.assert_allclose(some / unit, whole[:, :3] / unit, atol=1e-12)
    np.testing.assert_allclose(plain, whole[:, :3, :3], rtol=1e-12)


def test_the_reduction_is_that_of_least_squares_with_contrast_and_offset_solved():
    """χ², gradient, matrix, what the scaling follows, and the rounding error, from the pairs."""
    model, params = CASES["static"][0], jnp.asarray(CASES["static"][1])
    data = make_data(model, params, n=20)
    scaling = Individual().scaling(data.phi, -10.0 * jnp.ones(2), 10.0 * jnp.ones(2), lambda: None)
    got = reduce_gram(gram(model, data, params, (True,) * 3), scaling)
    i, j = np.triu_indices(20, 1)
    residuals, jacobians = [], []
    for k in range(2):

        def curve(p, k=k):
            times = data.t[i], data.t[j]
            return correlation_at(model, p, *times, t=data.t, q=data.q, phi=data.phi[k])

        value, slope = np.asarray(curve(params)), np.asarray(jax.jacfwd(curve)(params))
        linear, c2 = np.stack([value, np.ones_like(value)], axis=1), np.asarray(data.c2[k][i, j])
        best = np.linalg.lstsq(linear, c2)[0]
        np.testing.assert_allclose([got.scaling.contrast[k], got.scaling.offset[k]], best)
        taken = np.linalg.lstsq(linear, best[0] * slope)[0]
        projection = jnp.einsum("k,skp->sp", scaling.basis[k], got.projection)
        np.testing.assert_allclose(projection, taken, rtol=1e-7, atol=1e-12)
        residuals.append(c2 - linear @ best)
        jacobians.append(best[0] * slope - linear @ taken)
    residual, jacobian = np.concatenate(residuals), np.concatenate(jacobians)
    normal = jacobian.T @ jacobian
    size = np.sqrt(np.diag(normal))
    np.testing.assert_allclose(got.chi2, residual @ residual, rtol=1e-9)
    np.testing.assert_allclose(got.grad / size, -jacobian.T @ residual / size, atol=1e-9)
    unit = np.outer(size, size)
    np.testing.assert_allclose(got.hessian / unit, normal / unit, atol=1e-9)
    squares = np.sum(np.asarray(data.c2)[:, i, j] ** 2)
    np.testing.assert_allclose(got.noise, 4 * np.finfo(float).eps * squares)
