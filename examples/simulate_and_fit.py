"""Simulate a sheared suspension with the noise of real speckle, fit it, and compare."""

import jax
import jax.numpy as jnp

import twotime as tt

jax.config.update("jax_enable_x64", True)

model = tt.LaminarFlow(gap=2.0e6, integration="exact")
truth = {"D0": 1.2e4, "alpha": -0.2, "gamma_dot_t0": 5e-4, "phi0": 4.0}

registry = tt.config.parameter_registry.REGISTRIES["laminar_flow"]
space = tt.ParameterSpace.from_registry(model.names, registry).with_values(
    truth | {"D_offset": 0.0, "beta": 0.0, "gamma_dot_t_offset": 0.0}
)
data = tt.simulate_speckle(
    model,
    jnp.asarray(space.initial),
    t=jnp.arange(1, 101) * 0.1,
    q=0.005,
    phi=jnp.array([-45.0, 0.0, 45.0, 90.0]),
    contrast=0.25,
    n_pixels=5000,
    key=jax.random.key(0),
)

start = space.with_values({"D0": 2.0e4, "alpha": 0.0, "gamma_dot_t0": 3e-4, "phi0": 0.0})
fixed = {"D_offset": False, "beta": False, "gamma_dot_t_offset": False}
fit = tt.fit_nlsq(model, data, start.with_vary(fixed))

print(fit.status)
for name, value in truth.items():
    print(f"{name:14s} true {value:10.4g}   fitted {fit.params[name]:10.4g}")
