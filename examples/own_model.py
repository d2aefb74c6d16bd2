"""A model of your own: its parameters, channels for each frame, and the correlation of a pair.

Stretched relaxation: C = exp(-2 (t2^b - t1^b)/tau^b), whose clock is a function of time, so that
everything else (plane, pairs, fit, derivatives) follows.
"""

import jax
import jax.numpy as jnp

import twotime as tt
from twotime.config.parameter_registry import REGISTRIES

jax.config.update("jax_enable_x64", True)


class Stretched(tt.AbstractTwoTimeModel):
    """Relaxation with a stretched clock; `tau` [s], `stretch`."""

    parameters = (
        tt.ParameterInfo("tau", 1.0, 1e-3, 1e3, "Relaxation time", unit="s", log_space=True),
        tt.ParameterInfo("stretch", 1.0, 0.2, 3.0, "Stretching exponent"),
    )

    def channels(self, params, times, *, t, q, phi):
        tau, stretch = params
        clock = 2 * (times / tau) ** stretch
        none = jnp.zeros((0, times.shape[0]))
        return tt.Channels(clock[None], none, none)

    def correlation(self, pair):
        return pair.decay[0]

    def field(self, pair):  # its square is `correlation`: the noise of speckle follows from it
        return jnp.sqrt(pair.decay[0])


model = Stretched()
registry = REGISTRIES["static"].extended(*model.parameters)
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
