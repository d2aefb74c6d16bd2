"""Coverage of joint fits of 16 wavevectors, and their time beside single fits.

    python benchmarks/many_q.py [sets] [exponent]

Speckle is simulated by NumPy at 16 wavevectors and 3 angles, 200 frames, with a decay of a power of
q (2: diffusion, 1: ballistic); one law is fitted to all, with that power fixed and free. Counted is
how often the truth lies within one and two standard deviations, and how far estimates scatter
compared with their error bars. Times are those of the processor, of compiled fits.
"""

import sys
import time

import jax
import numpy as np

import twotime as tt

jax.config.update("jax_enable_x64", True)

Q = np.geomspace(0.004, 0.012, 16)
PHI = np.array([0.0, 60.0, 120.0])
TIMES = 0.1 * np.arange(1, 201)
PIXELS, MODES, Q_0 = 200, 4, 0.007
TRUTH = np.array([1.2e4, -0.1, 0.0])
SINGLE = 3  # sets of which each wavevector is fitted by itself as well


def measured(rng: np.random.Generator, exponent: float) -> list[tt.TwoTimeData]:
    """Speckle at each wavevector; fewer photons at the larger ones."""
    found = []
    way = TRUTH[0] * TIMES ** (1 + TRUTH[1]) / (1 + TRUTH[1])
    for q in Q:
        decay = 0.5 * Q_0**2 * (q / Q_0) ** exponent * np.abs(way[:, None] - way)
        root = np.linalg.cholesky(np.exp(-decay) + 1e-10 * np.eye(len(TIMES)))
        c2 = []
        for _ in PHI:
            shape = len(TIMES), PIXELS * MODES
            fields = root @ (rng.normal(size=shape) + 1j * rng.normal(size=shape))
            light = np.mean(np.abs(fields.reshape(-1, PIXELS, MODES)) ** 2, axis=2) / 2
            counts = rng.poisson(2.0 * (Q[0] / q) ** 2 * light).astype(float)
            mean = counts.mean(axis=1)
            c2.append(counts @ counts.T / PIXELS / (mean[:, None] * mean))
        found.append(tt.TwoTimeData(np.array(c2), TIMES, q, PHI))
    return found


def fitted(law: tt.StaticDiffusion, data: tt.TwoTimeData) -> tuple[tt.NLSQResult, float]:
    """A fit, and its time [s]."""
    vary = {"D_offset": False} | ({"q_exponent": True} if law.q_reference is not None else {})
    space = tt.ParameterSpace.of(law).with_vary(vary)
    begun = time.process_time()
    fit = jax.block_until_ready(tt.fit_nlsq(law, data, space.with_values({"D0": 1e4, "alpha": 0})))
    return fit, time.process_time() - begun


def main(count: int, exponent: float) -> None:
    """Print coverage and times."""
    laws = {"power fixed": tt.StaticDiffusion("exact")} if exponent == 2 else {}
    laws |= {"power free": tt.StaticDiffusion("exact", q_reference=Q_0)}
    away: dict[str, list] = {name: [] for name in laws}
    seconds: list[tuple[float, float, float]] = []
    for k in range(count):
        parts = measured(np.random.default_rng(k), exponent)
        for name, law in laws.items():
            fit, spent = fitted(law, tt.join(*parts))
            found, bars = (
                np.array([x[n] for n in fit.names]) for x in (fit.params, fit.uncertainties)
            )
            truth = np.append(TRUTH[:2], exponent)[: len(found)]
            away[name].append((found - truth) / bars)
            if name == "power fixed" and 0 < k <= SINGLE:  # the first compiles
                alone = [fitted(law, part) for part in parts]
                total = sum(x for _, x in alone)
                steps = sum(int(fit.n_evaluations) for fit, _ in alone) / len(alone)
                seconds.append((spent, total, total / steps * int(fit.n_evaluations)))
            elif name == "power fixed" and k == 0:
                fitted(law, parts[0])
        if k % 10 == 9 or k == count - 1:
            print(f"{k + 1} sets", flush=True)
            for name, rows in away.items():
                z = np.array(rows)
                print(
                    f"  {name}, D0, alpha[, power]: 68 % covers {np.mean(np.abs(z) < 1, axis=0)}, "
                    f"95 % {np.mean(np.abs(z) < 2, axis=0)}, scatter/error {z.std(axis=0).round(2)}"
                    f", mean {z.mean(axis=0).round(2)}",
                    flush=True,
                )
    for joint, total, same in seconds:
        print(f"joint {joint:.2f} s; {len(Q)} alone {total:.2f} s, at as many steps {same:.2f} s")


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]]
    main(int(given[0]) if given else 100, given[1] if len(given) > 1 else 2.0)
