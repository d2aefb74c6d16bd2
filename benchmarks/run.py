"""Time and memory of least-squares fits, beside a plain NumPy and SciPy script.

    python benchmarks/run.py [--quick] [--without-scipy] [-o results.json]

Prints tables and writes JSON. Ratios are of numbers from one run on one machine.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """A problem: model, angles, frames, and how many parameters are free (None: all)."""

    name: str
    mode: str
    angles: int
    frames: int
    free: int | None = None


MODES = ("two_component", "laminar_flow")
ITERATIONS = [
    *(Case(f"{m} 1 x {n}", m, 1, n) for m in MODES for n in (100, 200, 500, 1000, 2000, 4000)),
    *(Case(f"{m} {k} x 400", m, k, 400) for m in MODES for k in (1, 3, 10, 30)),
    *(Case(f"{m} 1 x 1000, {k} free", m, 1, 1000, k) for m in MODES for k in (1, 3, 7)),
]
FITS = [
    Case("two components 1 x 100", "two_component", 1, 100),
    Case("two components 3 x 1000", "two_component", 3, 1000),
    Case("laminar flow 10 x 400", "laminar_flow", 10, 400),
    Case("laminar flow 23 x 1000", "laminar_flow", 23, 1000),
]
SPAN, Q, GAP, NOISE = 10.0, 0.005, 2.0e6, 0.01
TRUTH = {
    "two_component": [3e3, 0.1, 100.0, 6e3, -0.1, 50.0, 300.0, 0.2, 2.0, 0.4, 0.02, 0.0, 0.1, 2.0],
    "laminar_flow": [8e3, 0.2, 100.0, 4e-4, 0.2, 1e-5, 3.0],
}
FIXED = {"two_component": ("f2",), "laminar_flow": ()}


def frame_times(case: Case) -> np.ndarray:
    """Times of a case's frames [s]; every case spans the same time."""
    return SPAN / case.frames * np.arange(1, case.frames + 1)


def start_of(case: Case) -> np.ndarray:
    """A start 20 % off in turn up and down; the velocity 1.5 rad of accumulated phase off."""
    truth = np.array(TRUTH[case.mode])
    start = truth * np.where(np.arange(truth.size) % 2, 0.8, 1.2)
    if case.mode == "two_component":
        start[6] = truth[6] + 1.5 / (Q * SPAN)
        start[7] = truth[7]
    return start


def problem(case: Case, c2: np.ndarray | None = None) -> tuple[Any, Any, Any]:
    """Model, data and space of a case; `c2` are its data where they are there already."""
    import jax
    import jax.numpy as jnp

    import twotime as tt

    model = tt.TwoComponent() if case.mode == "two_component" else tt.LaminarFlow(gap=GAP)
    t, phi = frame_times(case), np.linspace(0.0, 80.0, case.angles)
    if c2 is None:
        data = tt.simulate(
            model, jnp.array(TRUTH[case.mode]), t=t, q=Q, phi=phi, contrast=0.3, offset=1.0,
            noise=NOISE, key=jax.random.key(0),
        )  # fmt: skip
    else:
        data = tt.TwoTimeData(c2, t, Q, phi)
    space = tt.ParameterSpace.from_config({"analysis_mode": case.mode})
    free = [name for name in space.names if name not in FIXED[case.mode]][: case.free]
    space = space.with_vary({name: name in free for name in space.names})
    return model, data, space.with_values(dict(zip(space.names, start_of(case), strict=True)))


def best_time(call: Callable[[], Any], repeats: int = 50) -> float:
    """Shortest of several times [s]; the first call, which compiles, does not count."""
    call()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times)


def iteration(case: Case) -> dict[str, Any]:
    """One Gauss-Newton iteration in passes over the data, and the error bars in iterations.

    Compiled as fits are, see `twotime.compilation`.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from twotime.compilation import compiled
    from twotime.covariance import LinearisedFit, speckle_covariance
    from twotime.gram import choose_evaluator
    from twotime.gram.problem import evaluate, make_problem

    model, data, space = problem(case)
    data, evaluator = choose_evaluator(model, data, "auto")
    set_up = eqx.filter_jit(make_problem)(model, data, space, "individual", evaluator)
    y = set_up.start[np.flatnonzero(set_up.varying)] / set_up.scale
    step = compiled(evaluate)
    one_pass = jax.jit(lambda x: jnp.sum(x * x))
    c2 = jnp.asarray(data.c2)
    passed = best_time(lambda: one_pass(c2).block_until_ready())
    took = best_time(lambda: jax.block_until_ready(step(y, set_up)))
    at_truth = jnp.asarray(TRUTH[case.mode])[np.flatnonzero(set_up.varying)] / set_up.scale
    grams, reduced = step(at_truth, set_up)[1].aux
    inverse = jnp.linalg.pinv(reduced.hessian)
    found = LinearisedFit(set_up, set_up.params(at_truth), grams, reduced, inverse)
    covariance = compiled(speckle_covariance)
    error_bars = best_time(lambda: jax.block_until_ready(covariance(found)))
    return {
        "case": case.name,
        "evaluator": evaluator.word,
        "iteration_ms": 1e3 * took,
        "pass_ms": 1e3 * passed,
        "ratio": took / passed,
        "error_bars_in_iterations": error_bars / took,
        "ns_per_pixel": 1e9 * took / (case.angles * case.frames * (case.frames - 1) / 2),
    }


def cold_fit(case: Case, folder: str) -> dict[str, float]:
    """First and second fit of a fresh process, and its peak memory; data are read from a file."""
    code = f"import run; run.report_cold({tuple(case)!r}, {folder!r})"
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    return json.loads(out.stdout.splitlines()[-1])


def report_cold(case: tuple[Any, ...], folder: str) -> None:
    """Body of the fresh process."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    import twotime as tt

    model, data, space = problem(Case(*case), np.load(f"{folder}/c2.npy"))
    before = peak_gb()
    begun = time.perf_counter()
    fit = jax.block_until_ready(tt.fit_nlsq(model, data, space, per_angle_mode="individual"))
    cold = time.perf_counter() - begun
    warm = best_time(
        lambda: jax.block_until_ready(tt.fit_nlsq(model, data, space, per_angle_mode="individual")),
        3,
    )
    peak = peak_gb()
    print(
        json.dumps(
            {
                "cold_s": cold, "warm_s": warm, "peak_gb": peak,
                "before_gb": before, "data_gb": data.c2.size * 8 / 2**30,
                "chi2": float(fit.chi2), "evaluations": int(fit.n_evaluations),
                "converged": fit.converged,
            }
        )
    )  # fmt: skip


def peak_gb() -> float:
    """Most memory this process has used [GiB], from Linux: other counts include its parent's."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def scipy_fit(case: Case) -> dict[str, float]:
    """The same fit as a script: NumPy residuals, scaling projected out, finite differences."""
    from scipy.optimize import least_squares

    _, data, space = problem(case)
    t, phi = np.asarray(data.t), np.asarray(data.phi)
    i, j = np.triu_indices(t.size, 1)
    c2 = np.asarray(data.c2)[:, i, j]
    free = np.flatnonzero(space.varying)
    law = two_component if case.mode == "two_component" else laminar_flow

    def residual(x: np.ndarray) -> np.ndarray:
        params = np.array(space.initial)
        params[free] = x
        planes = zip(c2, phi, strict=True)
        return np.concatenate([_projected(y, law(params, t, i, j, a)) for y, a in planes])

    x0 = np.asarray(space.initial)[free]
    begun = time.perf_counter()
    found = least_squares(
        residual, x0, bounds=(space.lower[free], space.upper[free]),
        x_scale=np.maximum(np.abs(x0), 1e-2), method="trf",
    )  # fmt: skip
    return {"scipy_s": time.perf_counter() - begun, "scipy_chi2": 2 * float(found.cost)}


def _projected(y: np.ndarray, m: np.ndarray) -> np.ndarray:
    centred = m - m.mean()
    contrast = centred @ y / (centred @ centred)
    return y - y.mean() - contrast * centred


def _clock(t: np.ndarray, rate: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(0.5 * np.diff(t) * (rate[1:] + rate[:-1]))])


def laminar_flow(
    p: np.ndarray, t: np.ndarray, i: np.ndarray, j: np.ndarray, phi: float
) -> np.ndarray:
    """The law of `twotime.LaminarFlow`, pixel by pixel."""
    decay = Q**2 * _clock(t, np.maximum(p[0] * t ** p[1] + p[2], 1e-10))
    phase = 0.5 * Q * GAP * np.cos(np.deg2rad(phi - p[6])) * _clock(t, p[3] * t ** p[4] + p[5])
    return np.exp(decay[i] - decay[j]) * np.sinc((phase[j] - phase[i]) / np.pi) ** 2


def two_component(
    p: np.ndarray, t: np.ndarray, i: np.ndarray, j: np.ndarray, phi: float
) -> np.ndarray:
    """The law of `twotime.TwoComponent`, pixel by pixel."""
    reference, sample = (
        0.5 * Q**2 * _clock(t, np.maximum(p[k] * t ** p[k + 1] + p[k + 2], 1e-10)) for k in (0, 3)
    )
    path = Q * np.cos(np.deg2rad(phi - p[13])) * _clock(t, p[6] * t ** p[7] + p[8])
    x = np.clip(p[9] * np.exp(p[10] * (t - p[11])) + p[12], 0.0, 1.0)
    r = (1 - x[i]) * (1 - x[j]) * np.exp(reference[i] - reference[j])
    s = x[i] * x[j] * np.exp(sample[i] - sample[j])
    norm = (x**2 + (1 - x) ** 2)[i] * (x**2 + (1 - x) ** 2)[j]
    return (r * r + s * s + 2 * r * s * np.cos(path[j] - path[i])) / norm


def fit_row(case: Case, *, with_scipy: bool) -> dict[str, Any]:
    """Cold, cached and warm fit of a case, and the script's."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/c2.npy", np.asarray(problem(case)[1].c2))
        first, again = cold_fit(case, folder), cold_fit(case, folder)
    row = {"case": case.name, **first, "cached_s": again["cold_s"]}
    row["cached_peak_gb"] = again["peak_gb"]
    if with_scipy:
        row |= scipy_fit(case)
        row["faster"] = row["scipy_s"] / row["warm_s"]
        row["chi2_ratio"] = row["chi2"] / row["scipy_chi2"]
    return row


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows as a table."""
    if not rows:
        return
    heads = list(rows[0])
    cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
    widths = [max(len(h), *(len(c[k]) for c in cells)) for k, h in enumerate(heads)]
    for line in (heads, *cells):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
    print(flush=True)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small cases alone")
    parser.add_argument("--without-scipy", action="store_true", help="leave the script out")
    parser.add_argument("-o", "--output", default="benchmarks/results.json")
    chosen = parser.parse_args()
    import jax

    jax.config.update("jax_enable_x64", True)
    cases = [c for c in ITERATIONS if c.frames <= 200] if chosen.quick else ITERATIONS
    iterations = [iteration(case) for case in cases]
    show(iterations)
    fits = []
    for case in FITS[::2] if chosen.quick else FITS:
        fits.append(fit_row(case, with_scipy=not chosen.without_scipy))
        show(fits[-1:])
    machine = {
        "device": str(jax.devices()[0]), "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(), "jax": jax.__version__,
    }  # fmt: skip
    content = {"machine": machine, "iterations": iterations, "fits": fits}
    Path(chosen.output).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
