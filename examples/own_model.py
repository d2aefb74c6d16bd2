"""A model of one's own: names, channels per frame, and the correlation of a pixel.

Stretched relaxation: C = exp(-2 (t2^b - t1^b)/tau^b), whose clock is a function of time, so that
everything else (plane, pairs, fit, derivatives) follows.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

import twotime as tt
from twotime.config.parameter_registry import REGISTRIES

jax.config.update("jax_enable_x64", True)


class Stretched(tt.AbstractTwoTimeModel):
    """Relaxation with a stretched clock; `tau` [s], `stretch`."""

    names: tuple[str, ...] = eqx.field(default=("tau", "stretch"), static=True, init=False)

    def channels(self, params, times, *, t, q, phi):
        tau, stretch = params
        clock = 2 * (times / tau) ** stretch
        none = jnp.zeros((0, times.shape[0]))
        return tt.Channels(clock[None], none, none)

    def correlation(self, pair):
        return pixel.decay[0]

    def field(self, pixel):  # whose square is `pixel`: the noise of speckle follows from it
        return jnp.sqrt(pixel.decay[0])


registry = REGISTRIES["static"].extended(
    tt.ParameterInfo("tau", 1.0, 1e-3, 1e3, "Relaxation time", unit="s", log_space=True),
    tt.ParameterInfo("stretch", 1.0, 0.2, 3.0, "Stretching exponent"),
)
model = Stretched()
space = tt.ParameterSpace.from_registry(model.names, registry)
data = tt.simulate(
    model,
    jnp.array([2.0, 0.7]),
    t=jnp.arange(1, 61) * 0.1,
    q=0.01,
    phi=jnp.array([0.0]),
    contrast=0.3,
    offset=1.0,
    noise=0.01,
    key=jax.random.key(0),
)
fit = tt.fit_nlsq(model, data, space)
print(fit.report())
