import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import lsq_linear

from twotime.models import scaling


def moments_of(data, model):
    b = np.stack([data, np.ones_like(data), model])
    return jnp.asarray(np.einsum("via,uia->avu", b[..., None], b[..., None]))


@given(seed=st.integers(0, 10_000), low=st.floats(-0.5, 0.5), wide=st.floats(0.01, 1.0))
def test_one_angle_equals_a_bounded_linear_solver(seed, low, wide):
    rng = np.random.default_rng(seed)
    model = rng.uniform(0, 1, 40)
    data = rng.normal(0.3, 1) * model + rng.normal(0.2, 1) + 0.1 * rng.normal(size=40)
    lower, upper = np.array([0.0, low]), np.array([wide, low + wide])
    bounds = jnp.asarray(lower), jnp.asarray(upper)
    got = scaling.Individual().scaling(jnp.zeros(1), *bounds).solve(moments_of(data, model))
    want = lsq_linear(
        np.stack([model, np.ones(40)], axis=1), data, (lower, upper), tol=1e-14, method="bvls"
    ).x
    np.testing.assert_allclose([got.contrast[0], got.offset[0]], want, atol=1e-8)
    inside = (want > lower + 1e-9) & (want < upper - 1e-9)
    assert np.array_equal(np.asarray(got.free[0]), inside)


def test_averaged_shares_one_pair_and_individual_does_not():
    rng = np.random.default_rng(0)
    model = rng.uniform(0, 1, (2, 50))
    data = np.array([[0.2], [0.4]]) * model + 1.0
    m = jnp.concatenate([moments_of(d, c) for d, c in zip(data, model, strict=True)])
    bounds = jnp.asarray([0.0, 0.5]), jnp.asarray([1.0, 1.5])
    own = scaling.Individual().scaling(jnp.zeros(2), *bounds).solve(m)
    np.testing.assert_allclose(own.contrast, [0.2, 0.4], atol=1e-12)
    shared = scaling.Averaged().scaling(jnp.zeros(2), *bounds).solve(m)
    assert shared.contrast[0] == shared.contrast[1]
    assert 0.2 < shared.contrast[0] < 0.4


def test_fourier_recovers_a_smooth_contrast_and_respects_bounds():
    rng = np.random.default_rng(1)
    phi = jnp.arange(0.0, 360.0, 30.0)
    truth = 0.3 + 0.1 * jnp.cos(jnp.deg2rad(phi)) - 0.05 * jnp.sin(2 * jnp.deg2rad(phi))
    model = rng.uniform(0, 1, (12, 60))
    m = jnp.concatenate(
        [moments_of(c * x + 1.0, x) for c, x in zip(np.asarray(truth), model, strict=True)]
    )
    lower, upper = jnp.asarray([0.0, 0.5]), jnp.asarray([1.0, 1.5])
    got = scaling.Fourier().scaling(phi, lower, upper).solve(m)
    np.testing.assert_allclose(got.contrast, truth, atol=1e-9)
    tight = scaling.Fourier().scaling(phi, lower, jnp.asarray([0.35, 1.5]))
    assert np.max(tight.solve(m).contrast) <= 0.35 + 1e-6


def test_frozen_values_stay():
    rng = np.random.default_rng(2)
    model = rng.uniform(0, 1, 30)
    frozen = jnp.asarray([[0.25, 1.1]])
    s = scaling.Frozen().scaling(jnp.zeros(1), jnp.zeros(2), jnp.ones(2), lambda: frozen)
    got = s.solve(moments_of(0.5 * model + 1, model))
    np.testing.assert_allclose([got.contrast[0], got.offset[0]], frozen[0])
    assert not np.any(got.free)


def test_auto_is_decided_by_the_data_from_three_angles_on():
    found = [scaling.resolve_mode("auto", (0,) * n) for n in (1, 2, 3, 9)]
    assert [mode.word for mode in found] == ["individual"] * 2 + ["auto"] * 2
    assert [mode.is_decided for mode in found] == [False] * 2 + [True] * 2
    with pytest.raises(ValueError, match="per_angle_mode is 'both'"):
        scaling.resolve_mode("both", (0,))


@pytest.mark.parametrize("word", ["individual", "averaged", "constant", "fourier"])
def test_words_and_objects_are_the_same(word):
    mode = scaling.resolve_mode(word, (0,) * 5)
    assert mode.word == word and scaling.resolve_mode(mode, (0,)) == mode
    assert mode == type(mode)() and hash(mode) == hash(type(mode)())


def test_quantile_estimate_follows_its_definition():
    t = jnp.arange(60.0)
    c = jnp.exp(-jnp.abs(t[:, None] - t[None, :]) / 4)
    c2 = (1.05 + 0.3 * c)[None].at[:, jnp.arange(60), jnp.arange(60)].set(50.0)
    contrast, offset = scaling.quantile_scaling(c2)[0]
    assert abs(offset - 1.05) < 1e-3
    assert 0.2 < contrast < 0.3
    masked = scaling.quantile_scaling(c2.at[0, 3, 40].set(jnp.nan))
    assert np.all(np.isfinite(jax.device_get(masked)))


def test_quantile_estimate_takes_its_lags_and_levels():
    """By NumPy, on values of which no two lags or percentiles have the same."""
    c2 = 1.0 + np.random.default_rng(3).uniform(0.0, 0.1, (2, 20, 20))
    row, column = np.triu_indices(20, 1)
    c2[:, row, column] += 0.5 - 0.02 * (column - row)
    near, far = np.quantile(column - row, [0.2, 0.8])
    late = c2[:, row, column][:, column - row >= far]
    early = c2[:, row, column][:, column - row <= near]
    offset = np.quantile(late, 0.1, axis=1)
    expected = np.stack([np.quantile(early, 0.9, axis=1) - offset, offset], axis=1)
    np.testing.assert_allclose(scaling.quantile_scaling(jnp.asarray(c2)), expected, rtol=1e-12)
