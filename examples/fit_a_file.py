"""Fit a data file: read, choose a law and its parameters, fit, judge, save."""

# %% A file in the layout of a beamline: here a simulated one
import jax
import numpy as np

import twotime as tt

jax.config.update("jax_enable_x64", True)
made = tt.simulate_speckle(
    tt.StaticDiffusion(),
    {"D0": 2e4, "alpha": -0.3, "D_offset": 0.0},
    t=0.1 * np.arange(1, 61),
    q=0.007,
    phi=np.array([0.0, 90.0]),
    contrast=0.2,
    n_pixels=3000,
    key=jax.random.key(0),
)
tt.write_apsu("measured.h5", made, overwrite=True)

# %% What is in it
print(tt.inspect_file("measured.h5"))

# %% What to read and to fit; the same sections as in a configuration file
config = tt.ConfigManager.from_dict(
    {
        "analysis_mode": "static",
        "experimental_data": {"file_path": "measured.h5"},
        "analyzer_parameters": {"scattering": {"wavevector_q": 0.007}},
        "parameters": {"D_offset": {"value": 0.0, "vary": False}},
    }
)
data, law = tt.load_data(config), tt.build_model(config)
print(data)

# %% Start values from the data, and the fit
(start,) = tt.estimate_starts(law, data, config.space)
fit = tt.fit_nlsq(law, data, start)
print(fit.report())

# %% Numbers, and whether the law describes the data
print(fit.params["alpha"], "±", fit.uncertainties["alpha"])
assert fit.converged and fit.structure.is_right

# %% A folder with all of it; `twotime plot result` draws its figures
fit.save("result", law, data)
assert tt.load_result("result").params == fit.params
