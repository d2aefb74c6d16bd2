"""How often fits that start from the data end where fits started at the truth end.

    python benchmarks/starts.py laminar_flow [-n 100] [--starts 8] [--angles 3] [--frames 100]
    python benchmarks/starts.py two_component --speckle

Random problems: parameters from the middle half of the registry's bounds (amplitudes that the
registry calls logarithmic in their logarithm), the wavevector from 0.001 to 0.02 1/Å, drawn again
until the decay is visible: the mean correlation is above 1/2 between neighbouring frames and
below 1/2 at lags from 60 % of the record on. `--flow` also wants the flow visible: 1 to 150 rad of
phase, and for two components a fraction that is not 0 or 1 for most of the record. Noise 0.02 at
contrast 0.3; no value is given; f2 is fixed, as it only repeats f0.

A fit is good if its chi-squared is at most 0.1 % above that of the fit started at the truth. Of
every fit that says it has converged the projected gradient is computed once more, from residuals
and Jacobian of all pixels. `--speckle` draws two components with speckle noise and 5 to 60 rad of
phase, or as many as `--drifts` says, and counts drifts (displacement over the record) within 1 %.
"""

import argparse
import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import twotime as tt
from twotime.start import estimate_starts

DT, CONTRAST, NOISE, GAP = 0.1, 0.3, 0.02, 2.0e6
TOLERANCE = inspect.signature(tt.fit_nlsq).parameters["tolerance"].default
MODELS = {
    "static": tt.StaticDiffusion(),
    "laminar_flow": tt.LaminarFlow(gap=GAP),
    "two_component": tt.TwoComponent(),
}
FLOW = {tt.LaminarFlow: 3, tt.TwoComponent: 6}


class Bench(NamedTuple):
    """What all problems of a run share."""

    model: Any
    space: tt.ParameterSpace
    t: np.ndarray
    phi: np.ndarray

    @property
    def flow(self) -> int | None:
        """Where the three parameters of the flow begin."""
        return FLOW.get(self.model.__class__)


def set_up(mode: str, phi: np.ndarray, frames: int) -> Bench:
    """Model, space, frame times and angles of a run."""
    space = tt.ParameterSpace.from_config({"analysis_mode": mode})
    space = space.with_vary({name: name != "f2" for name in space.names})
    t = DT * 100 / frames * np.arange(1, frames + 1)
    return Bench(MODELS[mode], space, t, phi)


def path(bench: Bench, params: np.ndarray) -> float:
    """Integral of the absolute rate of the flow over the record."""
    k = bench.flow
    rate = params[k] * bench.t ** params[k + 1] + params[k + 2]
    rate = np.maximum(rate, 0.0) if k == FLOW[tt.LaminarFlow] else rate
    return float(np.trapezoid(np.abs(rate), bench.t))


def middle_half(bench: Bench, rng: np.random.Generator) -> np.ndarray:
    """Parameters from the middle half of their bounds."""
    space = bench.space
    low, high = np.asarray(space.lower), np.asarray(space.upper)
    log = np.asarray(space.log_space) & (low > 0)
    low, high = (np.where(log, np.log(np.where(log, x, 1.0)), x) for x in (low, high))
    drawn = low + (high - low) * rng.uniform(0.25, 0.75, low.size)
    drawn = np.where(log, np.exp(np.where(log, drawn, 0.0)), drawn)
    return np.where(space.varying, drawn, space.initial)


@jax.jit
def _visibility(bench: tuple[Any, ...], params: Any, q: Any) -> tuple[Any, Any]:
    model, t, phi, lag = bench
    c = tt.correlation(model, params, t=t, q=q, phi=phi)
    near, far = lag == 1, lag >= 0.6 * t.shape[0]
    return tuple(jnp.sum(c * pick) / (phi.shape[0] * jnp.sum(pick)) for pick in (near, far))


def draw(bench: Bench, rng: np.random.Generator, *, with_flow: bool) -> tuple[np.ndarray, float]:
    """Parameters and wavevector of a random problem."""
    index = np.arange(bench.t.size)
    facts = (bench.model, bench.t, bench.phi, index[None, :] - index[:, None])
    while True:
        params, q = middle_half(bench, rng), float(np.exp(rng.uniform(*np.log([1e-3, 2e-2]))))
        if with_flow and bench.flow is not None and not _flow_is_visible(bench, params, q):
            continue
        near, far = (float(x) for x in _visibility(facts, params, q))
        if near > 0.5 and far < 0.5:
            return params, q


def _flow_is_visible(bench: Bench, params: np.ndarray, q: float) -> bool:
    factor = 0.5 * q * GAP if bench.flow == FLOW[tt.LaminarFlow] else q
    if not 1 < factor * path(bench, params) < 150:
        return False
    if bench.flow == FLOW[tt.LaminarFlow]:
        return True
    f0, f1, f2, f3 = params[9:13]
    x = f0 * np.exp(np.clip(f1 * (bench.t - f2), -300, 300)) + f3
    return bool(np.mean((x > 0.05) & (x < 0.95)) > 0.5)


def draw_drifting(
    bench: Bench, rng: np.random.Generator, drifts: tuple[float, float]
) -> tuple[np.ndarray, float]:
    """Two components with so many rad of phase, by whatever velocity law."""
    q, span = 0.005, bench.t[-1] - bench.t[0]
    transport = 1.0 / (q**2 * span)
    slow, fast = transport * np.exp(rng.uniform(*np.log([0.2, 2.0]), size=2))
    alpha = rng.uniform(-0.5, 0.5, 2)
    beta, phase = rng.uniform(-0.5, 1.0), np.exp(rng.uniform(*np.log(drifts)))
    f0, f1 = rng.uniform(0.25, 0.75), rng.uniform(-0.05, 0.05)
    middle = 0.5 * (bench.t[0] + bench.t[-1])
    params = np.array([
        slow / middle ** alpha[0], alpha[0], 0.0, fast / middle ** alpha[1], alpha[1], 0.0,
        1.0, beta, 0.0, f0 * np.exp(-f1 * middle), f1, 0.0, 0.0, 0.0,
    ])  # fmt: skip
    params[6] = phase / (q * path(bench, params))
    return params, q


def draw_speckle(
    bench: Bench, params: np.ndarray, q: float, pixels: int, key: Any
) -> tt.TwoTimeData:
    """Speckle in single precision, for which 1e-4 of the light is made white."""
    single = np.float32
    drawn = tt.simulate_speckle(
        bench.model, params.astype(single), t=bench.t.astype(single), q=single(q),
        phi=bench.phi.astype(single), contrast=CONTRAST, n_pixels=pixels, key=key,
    )  # fmt: skip
    c2 = np.asarray(drawn.c2, float)
    # The diagonal is never used.
    return tt.TwoTimeData(c2, bench.t, q, bench.phi, mask=np.ones(c2.shape, bool))


def gradient_left(bench: Bench, data: tt.TwoTimeData, fit: tt.NLSQResult) -> float:
    """Largest projected gradient of a fit in standard deviations, from all pixels one by one."""
    i, j = np.triu_indices(bench.t.size, 1)
    values, slopes = _dense(bench.model, fit.values, data.t, data.q, data.phi)
    c, free = float(fit.contrast[0]), np.flatnonzero(bench.space.varying)
    value = np.asarray(values)[:, i, j].ravel()
    slope = c * np.asarray(slopes)[:, i, j].reshape(-1, len(bench.space.names))[:, free]
    residual = np.asarray(data.c2)[:, i, j].ravel() - float(fit.offset[0]) - c * value
    used = ~np.asarray(fit.scaling_at_bound)[0]
    scaling = np.stack([value, np.ones_like(value)], axis=1)[:, used]
    inner = scaling.T @ residual / np.linalg.norm(scaling, axis=0)
    slope = slope - scaling @ np.linalg.lstsq(scaling, slope, rcond=None)[0]
    gradient, size = -slope.T @ residual, np.linalg.norm(slope, axis=0)
    at, low, high = (np.asarray(x)[free] for x in (fit.values, fit.lower, fit.upper))
    edge = 1e-12 * (high - low)
    outwards = ((at <= low + edge) & (gradient >= 0)) | ((at >= high - edge) & (gradient <= 0))
    deviation = np.sqrt(np.mean(residual**2))
    # What moves c2 by less than the tolerance over its bounds can gain nothing inside them.
    idle = size * (high - low) <= TOLERANCE * deviation
    gradient = np.where(outwards | idle, 0.0, gradient / np.where(idle, 1.0, size))
    return float(np.max(np.abs(np.concatenate([gradient, inner])))) / deviation


@jax.jit
def _dense(model: Any, params: Any, t: Any, q: Any, phi: Any) -> tuple[Any, Any]:
    def plane(p: Any) -> tuple[Any, Any]:
        c = tt.correlation(model, p, t=t, q=q, phi=phi)
        return c, c

    slopes, values = jax.jacfwd(plane, has_aux=True)(params)
    return values, slopes


def one(bench: Bench, seed: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Draw a problem, fit it from the data and from the truth, and compare."""
    rng = np.random.default_rng([seed, len(bench.space.names)])
    key = jax.random.key(seed)
    if chosen.speckle:
        params, q = draw_drifting(bench, rng, chosen.drifts)
        data = draw_speckle(bench, params, q, chosen.pixels, key)
    else:
        params, q = draw(bench, rng, with_flow=chosen.flow)
        data = tt.simulate(
            bench.model, params, t=bench.t, q=q, phi=bench.phi, contrast=CONTRAST, offset=1.0,
            noise=NOISE, key=key,
        )  # fmt: skip
    begun = time.perf_counter()
    starts = estimate_starts(bench.model, data, bench.space, count=chosen.starts)
    between = time.perf_counter()
    points = np.stack([s.initial for s in starts])
    fit = tt.fit_nlsq(
        bench.model, data, starts[0], per_angle_mode="averaged", starts=points, max_steps=300
    )
    done = time.perf_counter()
    truth = bench.space.with_values(dict(zip(bench.space.names, params.tolist(), strict=True)))
    best = tt.fit_nlsq(
        bench.model, data, truth, per_angle_mode="averaged", starts=truth.initial[None]
    )
    row = {
        "seed": seed, "ratio": float(fit.chi2 / best.chi2), "q": q,
        "converged": bool(fit.converged), "steps": int(fit.n_evaluations),
        "best_converged": bool(best.converged), "best_steps": int(best.n_evaluations),
        "gradient": gradient_left(bench, data, fit),
        "start_s": between - begun, "fit_s": done - between,
        "truth": params.tolist(), "start": points[0].tolist(), "fit": fit.values.tolist(),
    }  # fmt: skip
    way = 0.0 if bench.flow is None else path(bench, params)
    if way > 0:
        row["phase"] = q * way * (0.5 * GAP if bench.flow == FLOW[tt.LaminarFlow] else 1.0)
        row["drift"] = path(bench, np.asarray(fit.values)) / way - 1
        row["best_drift"] = path(bench, np.asarray(best.values)) / way - 1
    return row


def tell(bench: Bench, rows: list[dict[str, Any]], chosen: argparse.Namespace) -> dict[str, Any]:
    """Print the counts and the parameters of the failures."""
    bad = [row for row in rows if not row["ratio"] <= 1.001]
    for row in bad:
        print(f"\nseed {row['seed']}: chi2 {row['ratio']:.4f} of that from the truth, "
              f"q {row['q']:.4g} 1/Å", f"phase {row.get('phase', 0.0):.3g} rad")  # fmt: skip
        for name, *values in zip(
            bench.space.names, row["truth"], row["start"], row["fit"], strict=True
        ):
            print(f"  {name:20}", *(f"{value:12.4g}" for value in values))
    false = [r["seed"] for r in rows if r["converged"] and r["gradient"] > 1.1 * TOLERANCE]
    counts = {
        "problems": len(rows),
        "within 0.1 %": len(rows) - len(bad),
        "converged": sum(row["converged"] for row in rows),
        "converged, of the good": sum(r["converged"] for r in rows if r["ratio"] <= 1.001),
        "converged from the truth": sum(row["best_converged"] for row in rows),
        "better than from the truth": sum(row["ratio"] < 0.999 for row in rows),
        "said converged with a gradient": len(false),
        "median s to find starts": float(np.median([row["start_s"] for row in rows])),
        "median s to fit": float(np.median([row["fit_s"] for row in rows])),
    }
    if chosen.speckle:
        for name in ("drift", "best_drift"):
            counts[f"{name} within 1 %"] = sum(abs(row[name]) < 0.01 for row in rows)
    print()
    for name, value in counts.items():
        print(f"{name:32} {value:.3g}" if isinstance(value, float) else f"{name:32} {value}")
    return counts


def main() -> int:
    """Run what the command line asks for; 1 where a fit says converged and is not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("-n", type=int, default=20, help="how many problems")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--angles", type=int, default=3)
    parser.add_argument("--sector", type=float, nargs=2, default=(0.0, 60.0), metavar="DEGREE",
                        help="first and last angle")  # fmt: skip
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--flow", action="store_true", help="problems whose flow is visible")
    parser.add_argument("--speckle", action="store_true", help="speckle noise and a drift")
    parser.add_argument("--drifts", type=float, nargs=2, default=(5.0, 60.0), metavar="RAD",
                        help="smallest and largest of them")  # fmt: skip
    parser.add_argument("--pixels", type=int, default=10_000, help="of the speckle, per angle")
    parser.add_argument("-o", "--output", help="JSON file of all problems")
    chosen = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    bench = set_up(chosen.model, np.linspace(*chosen.sector, chosen.angles), chosen.frames)
    rows = []
    for seed in range(chosen.first, chosen.first + chosen.n):
        rows.append(one(bench, seed, chosen))
        row = rows[-1]
        print(seed, f"{row['ratio']:.5f}", f"steps {row['steps']} ({row['best_steps']})",
              f"gradient {row['gradient']:.1e}", f"{row['start_s']:.2f} + {row['fit_s']:.2f} s",
              f"{row.get('drift', 0.0):+.3f}" if chosen.speckle else "",
              "" if row["converged"] else "not converged", flush=True)  # fmt: skip
    counts = tell(bench, rows, chosen)
    if chosen.output:
        content = {"settings": vars(chosen), "counts": counts, "problems": rows}
        Path(chosen.output).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(counts["said converged with a gradient"] > 0)


if __name__ == "__main__":
    sys.exit(main())
