"""Posteriors of speckle movies against what they should be. Prints tables.

`python benchmarks/posteriors.py [movies] [case ...]`: "prior" (widths under priors of a given
width against the conjugate answer), "bound" (coverage where the fit ends on a bound, the truth
drawn from the prior), "starved" (few photons, no prior given, and one that the data contradict).
"""

import itertools
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import twotime as tt
from twotime.gram import Tiled
from twotime.gram.problem import make_problem
from twotime.models.scaling import Individual
from twotime.sample.coordinates import parameter_coordinates
from twotime.sample.width import linearise

MODEL, LEVELS = tt.StaticDiffusion(), {68: (0.16, 0.84), 95: (0.025, 0.975)}
CHAINS = {"n_chains": 2, "n_warmup": 150, "n_samples": 300}
FRAMES = 100
BOUND = 1050.0
"""Bounds of D_offset [Å²/s]; its robust deviation is about 700."""


def movie(truth, seed, *, pixels, photons=None, q=0.01, contrast=0.25):
    """One movie of a static sample, correlations of some ten frames."""
    return tt.simulate_speckle(
        MODEL, jnp.asarray(truth), t=0.1 * jnp.arange(1, FRAMES + 1), q=q, phi=jnp.zeros(1),
        contrast=contrast, n_pixels=pixels, photons=photons, key=jax.random.key(seed),
    )  # fmt: skip


def space_of(truth, fixed, bounds=None):
    """The registry's space at a truth."""
    space = tt.ParameterSpace(bounds=bounds, registry=tt.REGISTRIES["static"])
    space = space.with_values(dict(zip(space.names, truth, strict=True)))
    return space.with_vary(dict.fromkeys(fixed, False))


def covered(draws, true):
    """Whether the central intervals hold the truth."""
    found = {level: np.quantile(draws, ends) for level, ends in LEVELS.items()}
    return [low < true < high for low, high in found.values()]


class Found(NamedTuple):
    """What movies gave: widths over the conjugate ones, and places in their deviations."""

    ratio: np.ndarray
    place: np.ndarray


def under_priors(movies, widths=(10.0, 1.0, 0.5, 0.1)):
    """D0 and alpha free; a normal prior of D0 as wide as so many robust deviations."""
    truth, found = (1e4, -0.3, 0.0), {k: [] for k in widths}
    for seed in range(movies):
        data, space = movie(truth, seed, pixels=2000), space_of(truth, ["D_offset"])
        fit = tt.fit_nlsq(MODEL, data, space)
        robust, best = fit.uncertainties["D0"], fit.params["D0"]
        for k in widths:
            prior = tt.PriorDistribution.normal(truth[0], k * robust)
            post = tt.fit_cmc(
                MODEL, data, space.with_priors({"D0": prior}), start=fit,
                key=jax.random.key(seed), **CHAINS,
            )  # fmt: skip
            weight = k**2 / (1 + k**2)
            sd, mean = robust * weight**0.5, weight * best + (1 - weight) * truth[0]
            x = post.samples["D0"]
            found[k].append((x.std() / sd, (x.mean() - mean) / sd))
    return {k: Found(*np.array(x).T) for k, x in found.items()}


def held_movies(count):
    """Posteriors of movies whose fits end on a bound of D_offset, with the fit and the truth.

    Bounds are some three deviations wide, and the truth is anywhere within.
    """
    bounds = {"D_offset": (-BOUND, BOUND)}
    for seed in range(20 * count):
        truth = (1e4, -0.5, np.random.default_rng(seed).uniform(-BOUND, BOUND))
        data, space = movie(truth, seed, pixels=1000), space_of(truth, ["alpha"], bounds)
        fit = tt.fit_nlsq(MODEL, data, space)
        if "D_offset" in fit.at_bound:
            key = jax.random.key(seed)
            yield tt.fit_cmc(MODEL, data, space, start=fit, key=key, **CHAINS), fit, truth


def on_bound(movies):
    """Coverage of D0 and D_offset where the fit ends on a bound of D_offset."""
    hits = [
        [covered(post.samples[name], truth[k]) for name, k in (("D0", 0), ("D_offset", 2))]
        for post, _, truth in itertools.islice(held_movies(movies), movies)
    ]
    return dict(zip(("D0", "D_offset"), np.mean(hits, axis=0), strict=True))


def starved(movies):
    """Few photons, D0 = 1e5: no prior, and one of 1000 ± 1000."""
    truth, fixed = (1e5, 0.0, 0.0), ["alpha", "D_offset"]
    bounds, hits, told, shift = {"D0": (100.0, 1e7)}, [], 0, []
    prior = tt.PriorDistribution.truncated_normal(1e3, 1e3, 100.0, 1e7)
    for seed in range(movies):
        data = movie(truth, seed, pixels=2000, photons=0.02, q=0.003)
        space = space_of(truth, fixed, bounds)
        fit = tt.fit_nlsq(MODEL, data, space)
        post = tt.fit_cmc(MODEL, data, space, start=fit, key=jax.random.key(seed), **CHAINS)
        hits.append(covered(post.samples["D0"], truth[0]))
        shift.append(np.log(post.samples["D0"]).mean() - np.log(truth[0]))
        if seed < 15:
            wrong = space.with_values({"D0": 1e3}).with_priors({"D0": prior})
            other = tt.fit_cmc(MODEL, data, wrong, start=fit, key=jax.random.key(seed), **CHAINS)
            told += "prior and data disagree on D0" in other.status
    print(post.status, fit.uncertainties)
    print(other.status)
    return np.mean(hits, axis=0), np.std(shift), told, min(movies, 15)


def scaling(movies):
    """Deviations of contrast and offset from the data alone against their scatter."""
    truth, found = (1e4, -0.3, 0.0), []
    for seed in range(movies):
        data, space = movie(truth, seed, pixels=1000), space_of(truth, ["D_offset"])
        fit = tt.fit_nlsq(MODEL, data, space)
        problem = make_problem(MODEL, data, space, Individual(), Tiled())
        information = linearise(problem, parameter_coordinates(space), fit)
        values = [np.log(fit.params["D0"]), fit.params["alpha"], fit.contrast[0], fit.offset[0]]
        found.append((values, information.deviations))
    values, sd = np.swapaxes(np.array(found, float), 0, 1)
    return values.std(axis=0) / sd.mean(axis=0)


def main():
    movies = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    cases = sys.argv[2:] or ["prior", "bound", "starved", "scaling"]
    if "scaling" in cases:
        print("scatter / reported of log D0, alpha, contrast, offset", scaling(movies).round(2))
    if "prior" in cases:
        for k, x in under_priors(movies).items():
            print(f"prior of {k:g} robust sd: posterior / conjugate sd {x.ratio.mean():.3f} "
                  f"({x.ratio.min():.2f} to {x.ratio.max():.2f}), place off by "
                  f"{x.place.mean():.2f} ± {x.place.std():.2f} sd", flush=True)  # fmt: skip
    if "bound" in cases:
        print("on a bound, 68 and 95 % cover", on_bound(movies), flush=True)
    if "starved" in cases:
        print("starved, 68 and 95 % cover; told", starved(movies), flush=True)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
