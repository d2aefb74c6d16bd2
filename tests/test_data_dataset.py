"""The data value keeps what it is given and refuses what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twotime.data.dataset import TwoTimeData

C2 = np.ones((2, 3, 3), np.float32)


def test_arrays_are_kept_as_they_come():
    mask = np.ones(C2.shape, bool)
    data = TwoTimeData(C2, [0.0, 1.0, 2.0], 0.01, [0, 90], mask=mask, sigma=0.1)
    assert data.c2 is C2
    assert data.mask is mask
    assert data.t.dtype == data.phi.dtype == data.q.dtype == data.sigma.dtype == np.float64


def test_everything_is_a_leaf_that_vmap_can_batch():
    data = TwoTimeData(C2, np.arange(3.0), 0.01, np.zeros(2))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), data)
    assert jax.vmap(lambda one: one.q * one.c2.sum())(many).tolist() == pytest.approx([0.18, 0.72])
    assert len(jax.tree.leaves(data)) == 4


def test_jit_builds_it_from_tracers():
    build = jax.jit(lambda c2, q: TwoTimeData(c2, jnp.arange(3.0), q, jnp.zeros(2)))
    assert build(C2, 0.01).c2.dtype == jnp.float32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"c2": np.ones((3, 3))}, "c2 has shape"),
        ({"c2": np.ones((2, 3, 4))}, "c2 has shape"),
        ({"t": np.arange(4.0)}, "t has shape"),
        ({"q": np.ones(2)}, "q has shape"),
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
