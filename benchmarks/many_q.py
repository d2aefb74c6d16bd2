"""Coverage of joint fits of several wavevectors, and their time beside single fits.

    python benchmarks/many_q.py [sets]

Speckle is simulated at several wavevectors and angles; one law is fitted to all. Counted is how
often the truth lies within one and two standard deviations, and how far estimates scatter compared
with their error bars; the same for each wavevector by itself. Times are those of compiled fits.
"""

import sys
import time

import jax
import numpy as np

import twotime as tt

jax.config.update("jax_enable_x64", True)

Q = np.geomspace(0.004, 0.012, 8)
PHI = np.array([0.0, 60.0, 120.0])
TIMES = 0.1 * np.arange(1, 101)
MODEL, TRUTH = tt.StaticDiffusion(), np.array([1.2e4, -0.1, 0.0])


def measured(key: jax.Array) -> list[tt.TwoTimeData]:
    """Speckle at each wavevector; fewer photons at the larger ones."""
    return [
        tt.simulate_speckle(
            MODEL, TRUTH, t=TIMES, q=q, phi=PHI, contrast=0.25, n_pixels=300,
            photons=2.0 * (Q[0] / q) ** 2, key=jax.random.fold_in(key, k),
        )
        for k, q in enumerate(Q)
    ]  # fmt: skip


def main(count: int) -> None:
    """Print coverage and times."""
    space = tt.ParameterSpace.from_config({"analysis_mode": "static"})
    space = space.with_vary({"D_offset": False}).with_values({"D0": 1e4, "alpha": 0.0})
    away: dict[str, list[list[float]]] = {"joint": [], "largest q alone": []}
    width = {name: np.zeros(2) for name in away}
    seconds = np.zeros(3)
    for k in range(count):
        parts = measured(jax.random.key(k))
        begun = time.perf_counter()
        joint = jax.block_until_ready(tt.fit_nlsq(MODEL, tt.join(*parts), space))
        middle = time.perf_counter()
        alone = [jax.block_until_ready(tt.fit_nlsq(MODEL, part, space)) for part in parts]
        if k:  # the first compiles
            steps = sum(int(fit.n_evaluations) for fit in alone) / len(alone)
            per_step = (time.perf_counter() - middle) / steps
            seconds += (
                middle - begun,
                time.perf_counter() - middle,
                per_step * int(joint.n_evaluations),
            )
        for name, fit in (("joint", joint), ("largest q alone", alone[-1])):
            bars = np.array([fit.uncertainties[n] for n in fit.names])
            found = np.array([fit.params[n] for n in fit.names])
            away[name].append(((found - TRUTH[:2]) / bars).tolist())
            width[name] += bars / count
    for name, rows in away.items():
        z = np.array(rows)
        print(
            f"{name}: 68 % covers {np.mean(np.abs(z) < 1, axis=0)}, 95 % "
            f"{np.mean(np.abs(z) < 2, axis=0)}, scatter/error {z.std(axis=0).round(2)}, mean "
            f"{z.mean(axis=0).round(2)}, errors {width[name]}"
        )
    one = seconds / max(count - 1, 1)
    print(
        f"joint fit {one[0]:.2f} s; all {len(Q)} alone {one[1]:.2f} s, at as many steps "
        f"{one[2]:.2f} s"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
