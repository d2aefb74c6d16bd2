"""How a rate goes with the wavevector: q² for diffusion, q for ballistic motion."""

# %% Four wavevectors of a diffusing suspension
import jax
import numpy as np

import twotime as tt

jax.config.update("jax_enable_x64", True)
law, wavevectors = tt.StaticDiffusion(), (0.004, 0.006, 0.009, 0.013)
one_law = {"alpha": 0.0, "D_offset": 0.0}
data = [
    tt.simulate_speckle(
        law,
        {"D0": 2e4} | one_law,
        t=0.1 * np.arange(1, 61),
        q=q,
        phi=np.array([0.0]),
        contrast=0.3,
        n_pixels=3000,
        key=jax.random.key(k),
    )
    for k, q in enumerate(wavevectors)
]

# %% One law for all, with the power of q as a parameter: Γ goes as q to the q_exponent
joined = tt.join(*data)
law = tt.StaticDiffusion(q_reference=0.007)
space = tt.ParameterSpace.of(law).with_values(one_law).with_vary(dict.fromkeys(one_law, False))
(start,) = tt.estimate_starts(law, joined, space.with_vary({"q_exponent": True}))
fit = tt.fit_nlsq(law, joined, start)
exponent, error = fit.params["q_exponent"], fit.uncertainties["q_exponent"]
print(f"exponent of q: {exponent:.3f} ± {error:.3f}")
assert abs(exponent - 2) < 4 * error

# %% The same from fits of each wavevector, which needs no power law: Γ/q² is J/2, which is flat
alone = tt.StaticDiffusion()
space = tt.ParameterSpace.of(alone).with_values(one_law).with_vary(dict.fromkeys(one_law, False))
for q, x in zip(wavevectors, data, strict=True):
    fit = tt.fit_nlsq(alone, x, *tt.estimate_starts(alone, x, space))
    print(f"q = {q} Å⁻¹: D0 = {fit.params['D0']:.4g} ± {fit.uncertainties['D0']:.2g} Å²/s")
