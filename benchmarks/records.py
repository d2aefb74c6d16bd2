"""Coverage of intervals for records of any length, on movies made by NumPy alone.

    python benchmarks/records.py [--frames 60,200] [--tau 1,2,5,20,100] [--photons 0.01,0.1,inf]
                                 [--movies 200] [-o records.json]

Static diffusion with D0 and alpha free: a detector pixel is the mean of four Gaussian fields that
decay as exp(-t / 2 tau), frame by frame; photons are drawn from it; c2 is the mean over pixels,
normalised by the mean images. Movies in which no decay is seen are refused and only counted. Cells
that the file already holds are not repeated. Prints the table of docs/uncertainty.md and draws
docs/records.png.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

import twotime as tt

jax.config.update("jax_enable_x64", True)

MODES, Q = 4, 0.01
PIXELS, COUNTS = 1000, 100  # more pixels where a frame would hold fewer photons than this
CONTRAST = 1 / MODES
HERE = Path(__file__).resolve().parent
FEW = 50  # fitted movies below this give no shares


def movie(rng: np.random.Generator, frames: int, tau: float, photons: float) -> np.ndarray:
    """c2 of one movie whose correlation falls by 1/e in `tau` frames."""
    kept = np.exp(-0.5 / tau)
    pixels = round(max(PIXELS, COUNTS / photons))
    light = np.zeros((frames, pixels))
    for _ in range(MODES):
        field = rng.normal(size=(2, pixels))
        for k in range(frames):
            light[k] += (field**2).sum(axis=0) / (2 * MODES)
            field = kept * field + np.sqrt(1 - kept**2) * rng.normal(size=field.shape)
    counts = light if np.isinf(photons) else rng.poisson(photons * light)
    counts = counts / counts.mean(axis=1, keepdims=True)
    return counts @ counts.T / pixels


def cell(frames: int, tau: float, photons: float, movies: int) -> dict[str, object]:
    """Errors of many fits against the intervals and deviations that they report."""
    model, t = tt.StaticDiffusion(), np.arange(1.0, frames + 1)
    true = np.array([1 / (Q**2 * tau), 0.0])
    space = tt.ParameterSpace(
        values={"D0": true[0], "alpha": 0.0, "D_offset": 0.0},
        vary={"D_offset": False},
        bounds={"D0": (1e-3 * true[0], 1e3 * true[0]), "alpha": (-2.0, 2.0)},
    )
    rng = np.random.default_rng([frames, round(100 * tau), 0 if np.isinf(photons) else 1])
    errors, reported, ended, inside = [], [], [], []
    for _ in range(movies):
        c2 = movie(rng, frames, tau, photons)[None]
        try:
            fit = tt.fit_nlsq(model, tt.TwoTimeData(c2, t, Q, np.zeros(1)), space)
        except ValueError as refused:
            if not str(refused).startswith("Nothing to fit"):
                raise
            continue
        errors.append(np.asarray(fit.values)[:2] - true)
        ends = np.array([list(fit.intervals(level).values()) for level in (0.6827, 0.95)])
        inside.append((ends[..., 0] < true) & (true < ends[..., 1]))
        reported.append(np.sqrt(np.diag(np.asarray(fit.covariance))))
        ended.append(bool(fit.converged))
    about = {"frames": frames, "tau": tau, "photons": photons, "movies": movies}
    about |= {"fitted": len(errors)}
    if not errors:
        return about
    error, said = np.array(errors), np.array(reported)
    covered = np.mean(inside, axis=0)
    return about | {
        "converged": float(np.mean(ended)),
        "covered_68": covered[0].tolist(),
        "covered_95": covered[1].tolist(),
        "scatter_over_reported": (error.std(axis=0) / np.sqrt((said**2).mean(axis=0))).tolist(),
    }  # fmt: skip


def table(found: dict[str, dict[str, object]]) -> None:
    """Print the shares of all cells, of D0 and of alpha, as Markdown."""
    print("| frames | τ [frame] | photons | fitted | 68 % | 95 % | scatter/reported |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for x in found.values():
        light = "∞" if np.isinf(x["photons"]) else f"{x['photons']:g}"
        cells = ["–"] * 3
        if x["fitted"] >= FEW:
            shares = x["covered_68"], x["covered_95"]
            cells = [", ".join(f"{value:.0%}" for value in share) for share in shares]
            cells.append(", ".join(f"{value:.2f}" for value in x["scatter_over_reported"]))
        fitted = f"{x['fitted']} of {x['movies']}"
        print("|", " | ".join([str(x["frames"]), f"{x['tau']:g}", light, fitted, *cells]), "|")


def draw(found: dict[str, dict[str, object]]) -> None:
    """Shares of intervals of one deviation that hold the truth, by the length of the record."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    kinds = {np.inf: ("o", "#0072B2", "no shot noise"), 0.1: ("s", "#D55E00", "0.1 photons"),
             0.01: ("^", "#009E73", "0.01 photons")}  # fmt: skip
    for k, (ax, name) in enumerate(zip(axes, ("D0", "alpha"), strict=True)):
        ax.axhspan(0.60, 0.76, color="0.9")
        ax.axhline(0.683, color="0.6", lw=1)
        for photons, (marker, colour, label) in kinds.items():
            of = [x for x in found.values() if x["photons"] == photons and x["fitted"] >= FEW]
            times = [x["frames"] / x["tau"] for x in of]
            shares = [x["covered_68"][k] for x in of]
            ax.semilogx(times, shares, marker, color=colour, mfc="none", label=label)
        ax.set_xlabel("correlation times in the record")
        ax.set_title(name)
    axes[0].set_ylabel("68 % intervals that hold the truth")
    axes[0].set_ylim(0, 1)
    axes[1].legend(loc="lower right")
    figure.savefig(HERE.parent / "docs" / "records.png", dpi=110)


def main() -> None:
    """Run the cells that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        ("frames", "60,200"),
        ("tau", "1,2,5,20,100"),
        ("photons", "0.01,0.1,inf"),
    ):
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--movies", type=int, default=200)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/records.json"))
    asked = parser.parse_args()
    found = json.loads(asked.output.read_text()) if asked.output.exists() else {}
    for frames in map(int, asked.frames.split(",")):
        for tau in map(float, asked.tau.split(",")):
            for photons in map(float, asked.photons.split(",")):
                name = f"{frames} frames, {tau:g} frames of correlation, {photons:g} photons"
                if name not in found:
                    found[name] = cell(frames, tau, photons, asked.movies)
                    asked.output.write_text(json.dumps(found, indent=1) + "\n")
                print(name, found[name], flush=True)
    table(found)
    draw(found)


if __name__ == "__main__":
    main()
