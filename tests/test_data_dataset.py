"""The data value keeps what it is given and refuses what does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.data.dataset import TwoTimeData

C2 = np.ones((2, 3, 3), np.float32)


def test_arrays_are_kept_as_they_come():
    mask = np.ones(C2.shape, bool)
    data = TwoTimeData(C2, [0.0, 1.0, 2.0], 0.01, [0, 90], mask=mask, sigma=0.1)
    assert np.shares_memory(data.c2, C2) and data.c2.dtype == C2.dtype
    assert C2.flags.writeable and not data.c2.flags.writeable
    assert np.shares_memory(data.mask, mask)
    assert data.t.dtype == data.phi.dtype == data.q.dtype == data.sigma.dtype == np.float64


def test_everything_is_a_leaf_that_vmap_can_batch():
    data = TwoTimeData(C2, np.arange(3.0), 0.01, np.zeros(2))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), data)
    assert jax.vmap(lambda one: one.q * one.c2.sum())(many).tolist() == pytest.approx([0.18, 0.72])
    assert len(jax.tree.leaves(data)) == 5


def test_jit_builds_it_from_tracers():
    build = jax.jit(lambda c2, q: TwoTimeData(c2, jnp.arange(3.0), q, jnp.zeros(2)))
    assert build(C2, 0.01).c2.dtype == jnp.float32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"c2": np.ones((3, 3))}, "c2 has shape"),
        ({"c2": np.ones((2, 3, 4))}, "c2 has shape"),
        ({"t": np.arange(4.0)}, "t has shape"),
        ({"q": np.ones(3)}, "q has shape"),
        ({"phi": np.zeros(3)}, "phi has shape"),
        ({"mask": np.ones((2, 3, 3))}, "mask is float64"),
        ({"mask": np.ones((3, 3), bool)}, "mask is bool"),
        ({"sigma": np.ones(2)}, "sigma has shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes, words):
    given = {"c2": C2, "t": np.arange(3.0), "q": 0.01, "phi": np.zeros(2)} | changes
    with pytest.raises(ValueError, match=words):
        TwoTimeData(**given)


def untidy(sigma=None) -> TwoTimeData:
    rng = np.random.default_rng(3)
    c2 = rng.normal(size=(2, 7, 7))
    c2[0, 1, 4], c2[1, 0, 1] = np.nan, np.inf
    mask = rng.random(c2.shape) > 0.3
    sigma = 0.1 + rng.random(c2.shape) if sigma == "each" else sigma
    return TwoTimeData(c2, np.arange(7.0), 0.01, np.zeros(2), mask, sigma)


def test_points_count_that_are_finite_unmasked_and_above_the_diagonal():
    data = untidy()
    for k, i, j in np.ndindex(2, 7, 7):
        counts = i < j and np.isfinite(data.c2[k, i, j]) and data.mask[k, i, j]
        assert data.usable(k)[i, j] == counts == data.weights(k)[i, j]


@pytest.mark.parametrize("sigma", [None, 0.5, "each"])
def test_weights_are_inverse_variances_of_usable_points(sigma):
    data = untidy(sigma)
    sd = np.broadcast_to(1.0 if data.sigma is None else data.sigma, data.c2.shape)
    np.testing.assert_array_equal(data.weights(1), np.where(data.usable(1), 1 / sd[1] ** 2, 0.0))


@pytest.mark.parametrize("sigma", [None, 0.5, "each"])
def test_weights_are_the_same_traced_cut_and_for_all_matrices(sigma):
    data = untidy(sigma)
    whole = [data.weights(k) for k in range(2)]
    assert all(isinstance(plane, np.ndarray) for plane in whole)
    traced = jax.jit(jax.vmap(lambda k, d: d.weights(k), in_axes=(0, None)))
    np.testing.assert_array_equal(traced(jnp.arange(2), jax.tree.map(jnp.asarray, data)), whole)
    np.testing.assert_array_equal(data.weights(slice(None)), whole)
    window = jax.jit(lambda k, first: data.weights(k, first, 3))(1, jnp.asarray([1, 2]))
    np.testing.assert_array_equal(window, whole[1][1:4, 2:5])


def test_data_are_complete_where_every_point_above_the_diagonal_counts():
    c2 = np.where(np.eye(4, dtype=bool), np.nan, 1.0)[None]
    data = TwoTimeData(c2, np.arange(4.0), 0.01, np.zeros(1), ~np.eye(4, dtype=bool)[None])
    assert data.is_complete()
    c2[0, 1, 2] = np.nan
    assert not data.is_complete()
    assert jax.jit(lambda c2: dataclasses.replace(data, c2=c2).is_complete())(c2)
    assert not jax.jit(lambda mask: dataclasses.replace(data, mask=mask).is_complete())(data.mask)


@pytest.mark.parametrize("kind", ["plain", "masked", "one sigma", "sigma of each"])
def test_single_points_and_stripes_have_the_weights_of_the_matrix(kind):
    rng = np.random.default_rng(0)
    c2 = rng.normal(size=(2, 9, 9))
    c2[1, 2, 5] = np.nan
    given = {
        "masked": {"mask": rng.uniform(size=(2, 9, 9)) > 0.3},
        "one sigma": {"sigma": 0.5},
        "sigma of each": {"sigma": rng.uniform(0.5, 2.0, (2, 9, 9))},
    }.get(kind, {})
    data = TwoTimeData(c2, np.arange(9.0), 0.01, np.zeros(2), **given)
    above = np.asarray(data.weights(1))
    rows, columns = (jnp.asarray(x) for x in np.indices((9, 9)))
    np.testing.assert_array_equal(data.weights_at(1, rows, columns), above)
    frames = jnp.array([7, 2, 0])
    values, weight = data.stripes(1, frames)
    np.testing.assert_array_equal(weight, (above + above.T)[frames])
    kept = np.where(above > 0, c2[1], 0.0)
    np.testing.assert_array_equal(values, (kept + kept.T)[frames])
