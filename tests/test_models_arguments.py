"""Arguments that laws cannot be evaluated at are refused in a sentence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import twotime as tt
from twotime.models.arguments import axes

STATIC = tt.StaticDiffusion()


def test_axes_are_checked():
    t = np.arange(1, 5) * 0.1
    axes(t, 0.01, 0.0)
    for q in (0.0, -0.01, np.nan):
        with pytest.raises(ValueError, match="q must be positive"):
            axes(t, q, 0.0)
    for wrong in (t[::-1], np.zeros(3), t - 1.0, np.array([0.1, np.nan]), np.ones((2, 2))):
        with pytest.raises(ValueError, match="increasing times from 0 on"):
            axes(wrong, 0.01, 0.0)


def test_every_evaluation_checks_them():
    t, phi = jnp.arange(1, 5) * 0.1, jnp.zeros(1)
    with pytest.raises(ValueError, match="has 3 parameters"):
        tt.correlation(STATIC, jnp.asarray([1e4, 0.0]), t=t, q=0.01, phi=phi)
    with pytest.raises(ValueError, match="q must be positive"):
        tt.correlation_at(STATIC, jnp.ones(3), t[:1], t[1:2], t=t, q=0.0, phi=0.0)
    with pytest.raises(ValueError, match="increasing"):
        tt.simulate_speckle(
            STATIC, jnp.ones(3), t=t[::-1], q=0.01, phi=phi, contrast=0.5, n_pixels=2,
            key=jax.random.key(0),
        )  # fmt: skip
