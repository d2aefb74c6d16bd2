"""Sample the posterior of a fit, and use its draws."""

# %% Data and a fit to start from
import jax
import numpy as np

import twotime as tt

jax.config.update("jax_enable_x64", True)
law, t = tt.StaticDiffusion(), 0.1 * np.arange(1, 41)
data = tt.simulate_speckle(
    law,
    {"D0": 2e4, "alpha": -0.3, "D_offset": 0.0},
    t=t,
    q=0.007,
    phi=np.array([0.0]),
    contrast=0.3,
    n_pixels=2000,
    key=jax.random.key(0),
)
space = tt.ParameterSpace.of(law).with_values({"D_offset": 0.0}).with_vary({"D_offset": False})
(start,) = tt.estimate_starts(law, data, space)
fit = tt.fit_nlsq(law, data, start)

# %% Four chains; converged means that they agree and moved freely
post = tt.fit_cmc(law, data, start, key=jax.random.key(1), start=fit, n_warmup=200, n_samples=300)
print(post)
assert post.converged

# %% Anything computed from the parameters has a distribution: J 2 s after the start
J = post.samples["D0"] * 2.0 ** post.samples["alpha"]
print("J at 2 s:", np.quantile(J, [0.16, 0.5, 0.84]).round(), "Å²/s")

# %% Each pair of parameters
tt.plots.corner(post).savefig("corner.pdf")
