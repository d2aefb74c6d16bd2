"""How often intervals hold the truth, on speckle simulated from fields.

`python benchmarks/coverage.py` runs every case, which takes a quarter of an hour, or those named;
it keeps what it measured in coverage.json beside it, and draws docs/coverage.png and prints the
table of docs/uncertainty.md from there.
"""

import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import twotime as tt

HERE = Path(__file__).resolve().parent
DT = 0.1


class Case(NamedTuple):
    """What is simulated: the correlation lasts `tau` frames; `noise` takes the place of speckle."""

    model: str
    tau: float
    contrast: float = 0.25
    pixels: int = 500
    photons: float | None = None
    frames: int = 150
    repeats: int = 200
    noise: float | None = None


CASES = {
    "static, 5 frames": Case("static", 5),
    "static, 15 frames": Case("static", 15),
    "laminar, 10 frames": Case("laminar", 10, contrast=0.5),
    "two components, 10 frames": Case("two", 10, contrast=0.5),
    "static, 0.05 photons": Case("static", 10, contrast=0.5, pixels=10_000, photons=0.05),
    "static, 0.5 photons": Case("static", 10, contrast=0.5, pixels=2000, photons=0.5),
    "static, 5 photons": Case("static", 10, contrast=0.5, pixels=1000, photons=5.0),
    "static, no shot noise": Case("static", 10, contrast=0.5, pixels=1000),
    "static, independent pixels": Case("static", 10, noise=0.02),
}


def setting(name, tau, frames):
    """Model, parameters, what is fitted, q, angles, and the functions judged at mid-record."""
    middle = (frames // 2 + 1) * DT
    if name == "static":
        q = 0.01
        values = {"D0": middle**-0.3 / (q**2 * tau * DT), "alpha": 0.3, "D_offset": 0.0}
        return tt.StaticDiffusion(), values, ("D0", "alpha"), q, [0.0], ("J",)
    if name == "laminar":
        q = 0.003
        values = {
            "D0": middle**0.2 / (2 * q**2 * tau * DT), "alpha": -0.2, "D_offset": 0.0,
            "gamma_dot_t0": middle**0.2 * np.pi / (q * 2e6 * tau * DT), "beta": -0.2,
            "gamma_dot_t_offset": 0.0, "phi0": 5.0,
        }  # fmt: skip
        free = ("D0", "alpha", "gamma_dot_t0", "beta", "phi0")
        functions = ("J", "strain", "shear_rate")
        return tt.LaminarFlow(gap=2e6), values, free, q, [0.0, 60.0, 120.0], functions
    q = 0.01
    values = {
        "D0_ref": 0.7 / (q**2 * tau * DT), "alpha_ref": 0.0, "D_offset_ref": 0.0,
        "D0_sample": 1 / (q**2 * tau * DT), "alpha_sample": 0.0, "D_offset_sample": 0.0,
        "v0": 2 * np.pi / (3 * q * tau * DT), "beta": 0.0, "v_offset": 0.0,
        "f0": 0.35, "f1": 0.0, "f2": 0.0, "f3": 0.0, "phi0": 0.0,
    }  # fmt: skip
    free = ("D0_ref", "D0_sample", "v0", "f0")
    functions = ("J_ref", "J_sample", "v", "x_s")
    return tt.TwoComponent(), values, free, q, [0.0], functions


def make_space(values, free):
    def around(name, value):
        if name in ("alpha", "beta"):
            return value - 5, value + 5
        if name == "phi0":
            return value - 60, value + 60
        return (0.0, 0.5) if name == "f0" else (1e-3 * value, 1e3 * value)

    return tt.ParameterSpace(
        values=values,
        vary={name: name in free for name in values},
        bounds={name: around(name, values[name]) for name in free},
    )


class Errors(NamedTuple):
    """Of each converged fit: error and reported deviations of parameters, then of functions."""

    names: tuple[str, ...]
    error: np.ndarray
    robust: np.ndarray
    iid: np.ndarray
    converged: float

    def coverage(self, width, *, iid=False):
        deviation = self.iid if iid else self.robust
        return (np.abs(self.error) < width * deviation).mean(axis=0)

    def ratio(self, *, iid=False):
        """True scatter over the reported deviation."""
        deviation = self.iid if iid else self.robust
        return self.error.std(axis=0) / np.sqrt((deviation**2).mean(axis=0))


def fit_many(case):
    """Simulate and fit a case as often as it says; compiles once."""
    model, values, free, q, angles, functions = setting(case.model, case.tau, case.frames)
    space = make_space(values, free)
    t, phi = jnp.arange(1, case.frames + 1) * DT, jnp.asarray(angles)
    true = jnp.asarray([values[n] for n in model.names])
    place = np.asarray([model.names.index(n) for n in free])
    common = {"t": t, "q": q, "phi": phi, "contrast": case.contrast}

    def judged(x):
        found = model.functions(true.at[place].set(x), t=t)
        at_middle = jnp.stack([found[f].values[case.frames // 2] for f in functions])
        return jnp.concatenate([x, at_middle])

    def simulated(key):
        if case.noise is not None:
            return tt.simulate(model, true, offset=1.0, noise=case.noise, key=key, **common).c2
        speckle = {"n_pixels": case.pixels, "photons": case.photons}
        return tt.simulate_speckle(model, true, key=key, **common, **speckle).c2

    @jax.jit
    def one(key):
        data = tt.TwoTimeData(simulated(key), t, jnp.asarray(q), phi)
        fit = tt.fit_nlsq(model, data, space)
        x = fit.values[place]
        slope = jax.jacfwd(judged)(x)
        variances = [
            jnp.einsum("ip,pq,iq->i", slope, c, slope) for c in (fit.covariance, fit.covariance_iid)
        ]
        converged = fit.result == tt.RESULTS.successful
        return judged(x) - judged(true[place]), *map(jnp.sqrt, variances), converged

    found = jax.lax.map(one, jax.random.split(jax.random.key(1), case.repeats))
    error, robust, iid, good = map(np.asarray, found)
    return Errors((*free, *functions), error[good], robust[good], iid[good], good.mean())


def measured(case):
    """The figures of a case as they are kept."""
    found = fit_many(case)
    return case._asdict() | {
        "names": found.names,
        "converged": found.converged,
        "within_68": found.coverage(1).tolist(),
        "within_95": found.coverage(1.96).tolist(),
        "within_68_iid": found.coverage(1, iid=True).tolist(),
        "within_95_iid": found.coverage(1.96, iid=True).tolist(),
        "scatter_over_reported": found.ratio().tolist(),
        "scatter_over_reported_iid": found.ratio(iid=True).tolist(),
        "robust_over_iid": np.median(found.robust / found.iid, axis=0).tolist(),
    }


HEADS = ("case", "quantity", "68 %", "95 %", "scatter/reported", "68 %, independent",
         "95 %, independent", "scatter/reported, independent")  # fmt: skip


def rows(title, found):
    """Rows of the table of one case."""
    columns = zip(
        found["names"], found["within_68"], found["within_95"], found["scatter_over_reported"],
        found["within_68_iid"], found["within_95_iid"], found["scatter_over_reported_iid"],
        strict=True,
    )  # fmt: skip
    for name, a, b, r, a_iid, b_iid, r_iid in columns:
        shown = f"{a:.0%}", f"{b:.0%}", f"{r:.2f}", f"{a_iid:.0%}", f"{b_iid:.0%}", f"{r_iid:.1f}"
        yield (title, f"`{name}`", *shown)


def table(kept):
    """All cases as a Markdown table."""
    lines = [HEADS, ("---",) * len(HEADS)]
    lines += [row for title in CASES if title in kept for row in rows(title, kept[title])]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(kept, path):
    """Coverage of 68 and 95 % intervals of every case, one point a quantity."""
    from matplotlib.figure import Figure

    shown = [title for title in CASES if title in kept]
    figure = Figure(figsize=(9, 0.45 * len(shown) + 1.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    allowed = {"68": (0.60, 0.76), "95": (0.88, 0.98)}
    for axes, (level, (low, high)) in zip(panels, allowed.items(), strict=True):
        axes.axvspan(low, high, color="#dddddd", label="aim")
        axes.axvline(float(level) / 100, color="black", linewidth=0.8)
        for key, colour, label in (
            (f"within_{level}_iid", "#c8553d", "pixels taken as independent"),
            (f"within_{level}", "#1b6ca8", "reported"),
        ):
            for place, title in enumerate(shown):
                values = kept[title][key]
                name = label if place == 0 else None
                axes.plot(values, np.full(len(values), place), "o", ms=5, alpha=0.7,
                          color=colour, label=name)  # fmt: skip
        axes.set(xlim=(-0.02, 1.02), xlabel=f"{level} % intervals that hold the truth")
    panels[0].set_yticks(range(len(shown)), shown)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=150)


def main(titles):
    """Measure some cases, or all, and renew the figures of the documentation."""
    jax.config.update("jax_enable_x64", True)
    store = HERE / "coverage.json"
    kept = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    for title in titles or CASES:
        begin = time.perf_counter()
        kept[title] = measured(CASES[title])
        print(f"{title}: {time.perf_counter() - begin:.0f} s", flush=True)
        for row in rows(title, kept[title]):
            print("   ", *row[1:], flush=True)
        store.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    draw(kept, HERE.parent / "docs" / "coverage.png")
    print(table(kept))


if __name__ == "__main__":
    main(sys.argv[1:])
