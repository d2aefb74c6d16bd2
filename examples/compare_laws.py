"""Compare laws of the same data: which describes them with the fewest parameters."""

# %% A sheared suspension, with the noise of real speckle
import jax
import numpy as np

import twotime as tt

jax.config.update("jax_enable_x64", True)
flow = tt.LaminarFlow(gap=2.0e6)
truth = {"D0": 2e4, "alpha": 0.0, "D_offset": 0.0, "gamma_dot_t0": 4e-4, "beta": 0.0}
data = tt.simulate_speckle(
    flow,
    truth | {"gamma_dot_t_offset": 0.0, "phi0": 4.0},
    t=0.1 * np.arange(1, 61),
    q=0.005,
    phi=np.array([0.0, 45.0, 90.0]),
    contrast=0.25,
    n_pixels=5000,
    key=jax.random.key(0),
)

# %% Fit each law; parameters of little effect on a short record are fixed at 0
FIXED = ("D_offset", "beta", "gamma_dot_t_offset")
fits = {}
for name, law in {"diffusion alone": tt.StaticDiffusion(), "with shear": flow}.items():
    space = tt.ParameterSpace.of(law)
    here = [parameter for parameter in FIXED if parameter in law.names]
    space = space.with_values(dict.fromkeys(here, 0.0)).with_vary(dict.fromkeys(here, False))
    (start,) = tt.estimate_starts(law, data, space)
    fits[name] = tt.fit_nlsq(law, data, start)

# %% Side by side: the smallest AIC first, and whether the residuals are what noise leaves
table = tt.compare(fits)
print(table)
assert next(iter(table.rows)) == "with shear"
