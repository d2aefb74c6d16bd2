"""How often the judgement of residuals is wrong, and how often it notices a model that is.

    python benchmarks/judgement.py [--movies 22] [--only alarms|power] [-o judgement.json]

False alarms: fits of the law that made the speckle. Power: five faults of several sizes, each with
the largest bias of a parameter in its error bars and how often the fault was noticed. What the file
already holds is not repeated.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import twotime as tt

jax.config.update("jax_enable_x64", True)

DT, Q, GAP, TAU = 0.1, 0.01, 2e5, 6  # TAU: correlation time [frame]
D0 = 1 / (Q**2 * TAU * DT)
SPEED = 1 / (Q * 4 * DT)  # a phase of 1 in four frames
LAWS: dict[str, tuple[Any, dict[str, float], tuple[str, ...]]] = {
    "static": (tt.StaticDiffusion(), {"D0": D0, "alpha": 0, "D_offset": 0}, ("D0", "alpha")),
    "laminar flow": (
        tt.LaminarFlow(gap=GAP),
        {"D0": D0, "alpha": 0, "D_offset": 0, "gamma_dot_t0": 2 * SPEED / GAP, "beta": 0,
         "gamma_dot_t_offset": 0, "phi0": 0},
        ("D0", "gamma_dot_t0"),
    ),
    "two components": (
        tt.TwoComponent(),
        {"D0_ref": 0.1 * D0, "alpha_ref": 0, "D_offset_ref": 0, "D0_sample": D0, "alpha_sample": 0,
         "D_offset_sample": 0, "v0": 0.5 * SPEED, "beta": 0, "v_offset": 0, "f0": 0.6, "f1": 0,
         "f2": 0, "f3": 0, "phi0": 0},
        ("D0_ref", "D0_sample", "v0", "f0"),
    ),
}  # fmt: skip
Change = Callable[[jax.Array], jax.Array]


def space_of(law: str) -> tt.ParameterSpace:
    """The space of a law at its truth, with wide bounds."""
    _, truth, free = LAWS[law]
    return tt.ParameterSpace(
        values=truth,
        vary={name: name in free for name in truth},
        bounds={name: (1e-3 * truth[name], 1e3 * truth[name]) for name in free if truth[name] > 1},
    )


def judged(
    made: str,
    fitted: str,
    frames: int,
    angles: int,
    movies: int,
    change: Change,
    mode: str = "auto",
    truth: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Fits of one law to movies of another, changed: how many are judged wrong, their bias."""
    law, numbers, _ = LAWS[made]
    model, asked, free = LAWS[fitted]
    params = jnp.array(list((numbers | (truth or {})).values()))
    t, phi = jnp.arange(1, frames + 1) * DT, jnp.linspace(0, 80, angles)
    space = space_of(fitted)

    @eqx.filter_jit
    def one(key: jax.Array) -> tuple[jax.Array, ...]:
        data = tt.simulate_speckle(
            law, params, t=t, q=Q, phi=phi, contrast=0.25, n_pixels=1000, key=key
        )
        data = eqx.tree_at(lambda d: d.c2, data, change(data.c2))
        fit = tt.fit_nlsq(model, data, space, per_angle_mode=mode)
        deviation = jnp.sqrt(jnp.diag(fit.covariance))
        index = np.array([i for i, name in enumerate(asked) if name in free])
        bias = (fit.values[index] - jnp.array([asked[n] for n in asked if n in free])) / deviation
        shared = jnp.asarray(True) if fit.is_shared is None else fit.is_shared
        return fit.structure.chance, bias, shared

    keys = jax.random.split(jax.random.key(frames + angles), movies)
    chance, bias, shared = map(np.asarray, zip(*(one(key) for key in keys), strict=True))
    return {
        "movies": movies,
        "called_wrong": int(np.sum(chance < 0.01)),
        "largest_bias": float(np.max(np.abs(np.median(bias, axis=0)))),
        "shared": float(np.mean(shared)),
        "chance_quantiles": np.quantile(chance, [0.01, 0.1, 0.5]).tolist(),
    }


def false_alarms(movies: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Fits of right laws."""
    return {
        f"right: {law}, {frames} frames, {angles} angles": lambda a=(law, law, frames, angles): (
            judged(*a, movies, lambda c2: c2)
        )
        for law in LAWS
        for frames in (60, 200, 1000)
        for angles in (1, 10)
    }


def faults(movies: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Fits of wrong laws or changed data, each at several sizes."""
    frames, angles = 200, 3
    along = jnp.linspace(0, 1, frames)
    at, cells = (frames, angles, movies), {}
    for size in (0.02, 0.05, 0.1, 0.2):

        def drift(c2: jax.Array, size: float = size) -> jax.Array:
            level = 1 - size * along
            return 1 + (c2 - 1) * level[:, None] * level

        def by_angle(c2: jax.Array, size: float = size) -> jax.Array:
            return 1 + (c2 - 1) * jnp.linspace(1 + size, 1 - size, angles)[:, None, None]

        still = {"D0_ref": 1e-9, "v0": 1e-9, "f0": 1 - size}
        cells |= {
            f"drift of contrast by {size:.0%}": lambda c=drift: judged("static", "static", *at, c),
            f"contrast by angle ±{size:.0%}, averaged": lambda c=by_angle: judged(
                "static", "static", *at, c, "averaged"
            ),
            f"contrast by angle ±{size:.0%}, auto": lambda c=by_angle: judged(
                "static", "static", *at, c
            ),
            f"static scattering {size:.0%}": lambda p=still: judged(
                "two components", "static", *at, lambda c2: c2, truth=p
            ),
            f"shear {5 * size:g} of diffusion": lambda s=size: judged(
                "laminar flow", "static", *at, lambda c2: c2,
                truth={"gamma_dot_t0": 5 * s * 2 * SPEED / GAP},
            ),
            f"one component for two, {size:.0%}": lambda s=size: judged(
                "two components", "static", *at, lambda c2: c2, truth={"v0": 1e-9, "f0": 1 - s}
            ),
        }  # fmt: skip
    return cells


def main() -> None:
    """Run the cells that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--movies", type=int, default=22)
    parser.add_argument("--only", choices=["alarms", "power"])
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/judgement.json"))
    asked = parser.parse_args()
    found = json.loads(asked.output.read_text()) if asked.output.exists() else {}
    cells = {} if asked.only == "power" else false_alarms(asked.movies)
    cells |= {} if asked.only == "alarms" else faults(asked.movies)
    for name, run in cells.items():
        if name not in found:
            found[name] = run()
            asked.output.write_text(json.dumps(found, indent=1) + "\n")
        print(name, found[name], flush=True)


if __name__ == "__main__":
    main()
