"""The functions of time behind the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.models.laminar_flow import peclet

T = jnp.asarray([0.5, 1.0, 1.5, 2.0])


def test_transport_and_diffusion():
    found = tt.StaticDiffusion().functions(jnp.asarray([100.0, 0.5, 10.0]), t=T)
    np.testing.assert_allclose(found["J"].values, 100 * np.sqrt(T) + 10, rtol=1e-14)
    np.testing.assert_allclose(found["D"].values, found["J"].values / 2, rtol=1e-15)
    assert {name: function.unit for name, function in found.items()} == {"J": "Å²/s", "D": "Å²/s"}


@pytest.mark.parametrize("integration", ["trapezoid", "exact"])
def test_strain_starts_at_the_first_frame(integration):
    params = jnp.asarray([100.0, 0.5, 10.0, 0.02, 1.0, 0.01, 3.0])
    found = tt.LaminarFlow(gap=2e6, integration=integration).functions(params, t=T)
    np.testing.assert_allclose(found["shear_rate"].values, 0.02 * T + 0.01, rtol=1e-14)
    expected = 0.01 * (T**2 - 0.25) + 0.01 * (T - 0.5)
    np.testing.assert_allclose(found["strain"].values, expected, rtol=1e-12, atol=1e-15)
    assert found["strain"].unit == "" and found["shear_rate"].unit == "1/s"


def test_two_components():
    params = jnp.asarray([1e3, 0.0, 5.0, 2e3, 1.0, 0.0, -40.0, 0.0, 10.0, 0.3, 0.1, 0.5, 0.2, 0.0])
    found = tt.TwoComponent().functions(params, t=T)
    np.testing.assert_allclose(found["J_ref"].values, 1005.0)
    np.testing.assert_allclose(found["D_sample"].values, 1e3 * T)
    np.testing.assert_allclose(found["v"].values, -30.0)
    np.testing.assert_allclose(found["displacement"].values, -30.0 * (T - 0.5), atol=1e-12)
    np.testing.assert_allclose(found["x_s"].values, 0.3 * np.exp(0.1 * (T - 0.5)) + 0.2)
    assert found["v"].unit == "Å/s" and found["displacement"].unit == "Å"


def test_bands_follow_by_vmap_and_by_derivatives():
    model, draws = tt.StaticDiffusion(), jnp.asarray([[100.0, 0.5, 10.0], [90.0, 0.6, 0.0]])
    band = jax.vmap(lambda params: model.functions(params, t=T))(draws)
    assert band["J"].values.shape == (2, 4) and band["J"].symbol == "J"
    slopes = jax.jacfwd(lambda params: model.functions(params, t=T)["J"].values)(draws[0])
    np.testing.assert_allclose(slopes[:, 2], 1.0)


def test_first_frame_at_zero_is_finite():
    found = tt.StaticDiffusion().functions(jnp.asarray([100.0, -1.5, 0.0]), t=T - 0.5)
    np.testing.assert_allclose(found["J"].values[0], 100 * 0.25**-1.5)


def test_a_model_that_defines_none_has_none():
    class Own(tt.AbstractTwoTimeModel):
        names: tuple[str, ...] = ("rate",)

        def channels(self, params, times, *, t, q, phi):
            raise NotImplementedError

        def correlation(self, pair):
            raise NotImplementedError

    assert Own().functions(jnp.ones(1), t=T) == {}


def test_peclet():
    assert peclet(jnp.asarray(0.1), jnp.asarray(2.0), 10.0) == pytest.approx(5.0)
