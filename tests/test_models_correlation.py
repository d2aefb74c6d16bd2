"""The plane and the pairs, by one path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.models.correlation import field

Q = 0.003
T = jnp.asarray(0.1 * np.arange(1, 9))
PHI = jnp.asarray([10.0, 65.0])
FLOW = jnp.asarray([2e4, 0.3, 1e3, 1e-3, -0.4, 2e-4, 6.0])
EXACT = tt.LaminarFlow(gap=2e6, integration="exact")


def test_plane_is_symmetric_with_the_angles_in_order():
    c = tt.correlation(EXACT, FLOW, t=T, q=Q, phi=PHI)
    assert c.shape == (2, 8, 8)
    assert (c == jnp.swapaxes(c, 1, 2)).all()
    for k in range(2):
        alone = tt.correlation(EXACT, FLOW, t=T, q=Q, phi=PHI[k : k + 1])[0]
        np.testing.assert_allclose(c[k], alone, rtol=1e-13)


@pytest.mark.parametrize("integration", ["trapezoid", "exact"])
def test_pairs_are_the_plane_in_either_order(integration):
    model = tt.LaminarFlow(gap=2e6, integration=integration)
    c = tt.correlation(model, FLOW, t=T, q=Q, phi=PHI)[1]
    row, column = np.indices((8, 8)).reshape(2, -1)
    pairs = tt.correlation_at(model, FLOW, T[row], T[column], t=T, q=Q, phi=PHI[1])
    np.testing.assert_allclose(pairs, c[row, column], rtol=1e-12)
    assert (pairs[row == column] == 1.0).all()


def test_between_frames_exact_pairs_do_not_know_the_grid():
    t1, t2 = jnp.asarray([0.13, 0.4, 0.71]), jnp.asarray([0.77, 0.101, 0.71])
    coarse = tt.correlation_at(EXACT, FLOW, t1, t2, t=T, q=Q, phi=20.0)
    fine = tt.correlation_at(EXACT, FLOW, t1, t2, t=jnp.linspace(0.05, 1.0, 77), q=Q, phi=20.0)
    np.testing.assert_allclose(coarse, fine, rtol=1e-12)
    assert coarse[2] == 1.0


def test_trapezoid_between_frames_goes_along_the_line():
    model, theta = tt.StaticDiffusion(), jnp.asarray([1e4, 1.0, 0.0])  # J is a line itself
    c = tt.correlation_at(model, theta, T[:1], T[:1] + 0.234, t=T, q=Q, phi=0.0)
    expected = np.exp(-(Q**2) * 0.5e4 * (0.334**2 - 0.1**2))
    np.testing.assert_allclose(c, expected, rtol=1e-12)


def test_compiled_differentiated_and_mapped_over_anything():
    def total(theta, q, phi, gap):
        model = tt.LaminarFlow(gap=gap)
        return tt.correlation(model, theta, t=T, q=q, phi=phi).sum()

    arguments = FLOW, jnp.asarray(Q), PHI, jnp.asarray(2e6)
    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(*arguments)
    for k, (x, slope) in enumerate(zip(arguments, gradients, strict=True)):
        assert np.isfinite(slope).all()
        step = 1e-6 * (1 + jnp.abs(x)) if k != 1 else 1e-9
        up, down = ([*arguments[:k], x + s, *arguments[k + 1 :]] for s in (step, -step))
        if x.ndim == 0:
            difference = float((total(*up) - total(*down)) / (2 * step))
            assert float(slope) == pytest.approx(difference, rel=1e-5)
    qs = jnp.asarray([0.002, 0.004])
    mapped = jax.vmap(lambda q: tt.correlation(EXACT, FLOW, t=T, q=q, phi=PHI))(qs)
    loop = [tt.correlation(EXACT, FLOW, t=T, q=float(q), phi=PHI) for q in qs]
    np.testing.assert_allclose(mapped, np.stack(loop), rtol=1e-12)


def test_pairs_keep_float32():
    single = [jnp.asarray(x, jnp.float32) for x in (FLOW, T)]
    pairs = tt.correlation_at(
        EXACT, single[0], single[1], single[1][::-1], t=single[1], q=Q, phi=9.0
    )
    double = tt.correlation_at(EXACT, FLOW, T, T[::-1], t=T, q=Q, phi=9.0)
    assert pairs.dtype == jnp.float32
    np.testing.assert_allclose(pairs, double, atol=1e-4)


def test_field_turns_with_the_later_time():
    """<E*(t1) E(t2)> of scatterers moving along q at v turns by q v (t2 - t1)."""
    theta = jnp.asarray([0.0, 0, 0, 0, 0, 0, 700.0, 0, 0, 0, 0, 0, 1.0, 0.0])
    g1 = field(tt.TwoComponent(), theta, t=T, q=Q, phi=jnp.zeros(1))[0]
    expected = np.exp(1j * Q * 700.0 * (T[None, :] - T[:, None]))
    np.testing.assert_allclose(g1, expected, atol=1e-9)


def test_a_model_without_a_field_says_so():
    class NoField(tt.AbstractTwoTimeModel):
        names: tuple[str, ...] = ("rate",)

        def channels(self, params, times, *, t, q, phi):
            clock, none = params[0] * times, jnp.zeros((0, times.shape[0]))
            return tt.Channels(clock[None], none, none)

        def correlation(self, pair):
            return pair.decay[0]

    model, theta = NoField(), jnp.ones(1)
    np.testing.assert_allclose(
        tt.correlation(model, theta, t=T, q=Q, phi=PHI)[0, 0], np.exp(T[0] - T), rtol=1e-13
    )
    with pytest.raises(TypeError, match="NoField has no field correlation"):
        field(model, theta, t=T, q=Q, phi=PHI)
    with pytest.raises(TypeError, match="NoField is not a sum of products"):
        model.terms(model.channels(theta, T, t=T, q=Q, phi=0.0))
