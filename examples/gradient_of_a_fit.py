"""Derivatives of a fit: how its result follows the data, by the implicit function theorem."""

# %% A fit as a function of the data
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import twotime as tt

jax.config.update("jax_enable_x64", True)
law, t = tt.StaticDiffusion(), 0.2 * np.arange(1, 25)
data = tt.simulate(
    law,
    {"D0": 2e4, "alpha": -0.2, "D_offset": 0.0},
    t=t,
    q=0.005,
    phi=np.array([0.0]),
    contrast=0.3,
    offset=1.0,
    noise=0.01,
    key=jax.random.key(0),
)
space = tt.ParameterSpace.of(law).with_values({"D0": 1.5e4, "alpha": 0.0, "D_offset": 0.0})
space = space.with_vary({"D_offset": False})


def log_rate(c2):
    """Logarithm of the fitted D0."""
    here = dataclasses.replace(data, c2=c2)
    return jnp.log(tt.fit_nlsq(law, here, space, judge=False, tolerance=1e-6).values[0])


# %% Which points of the matrix move the rate, and by how much
slope = jax.grad(log_rate)(jnp.asarray(data.c2))[0]
early, late = np.unravel_index(np.argmax(np.abs(slope)), slope.shape)
print(f"D0 follows c2 most between the frames at {t[early]:.2g} and {t[late]:.2g} s")

# %% The derivative is that of a fit of changed data
step = 1e-5 * np.eye(24, k=2)[None]
change = (log_rate(data.c2 + step) - log_rate(data.c2 - step)) / 2
assert np.isclose(change, np.sum(slope * step), rtol=1e-3)
