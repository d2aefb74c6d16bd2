"""Sampling against what is known exactly: a Gaussian posterior, ranks of the truth, coverage."""

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import twotime as tt
from twotime.gram import choose_evaluator
from twotime.models.scaling import Individual
from twotime.sample.chains import Nuts
from twotime.sample.density import NOISES, make_posterior
from twotime.sample.driver import sample
from twotime.sample.shards import find_shape, stacked

NOISE = 0.3


@final
class Linear(tt.AbstractTwoTimeModel):
    """c2 linear in the parameters: a Gaussian likelihood without approximation."""

    names: tuple[str, ...] = eqx.field(default=("a", "b", "c"), static=True, init=False)

    def channels(self, params, times, *, t, q, phi):
        basis = jnp.stack([jnp.ones_like(times), times - 1.0, jnp.sin(3 * times)])
        none = jnp.zeros((0, times.shape[0]))
        return tt.Channels(none, none, (params @ basis)[None])

    def correlation(self, pair):
        return pair.level1[0] + pair.level2[0]


PRIOR = {"a": (0.3, 0.05), "b": (0.0, 0.1), "c": (0.2, 0.02)}
TRUE = np.array([0.35, 0.1, 0.21])


def linear_case(frames=16, seed=0):
    registry = tt.ParameterRegistry(
        [tt.ParameterInfo(n, loc, -1e3, 1e3, n) for n, (loc, _) in PRIOR.items()]
    ).extended(
        tt.ParameterInfo("contrast", 1.0, 0.0, 2.0, "", is_scaling=True, vary_default=False),
        tt.ParameterInfo("offset", 0.0, -1.0, 2.0, "", is_scaling=True, vary_default=False),
    )
    space = tt.ParameterSpace.from_registry(Linear().names, registry)
    space = space.with_priors({n: tt.PriorDistribution.normal(*p) for n, p in PRIOR.items()})
    t = jnp.arange(1, frames + 1) * 0.125
    clean = tt.simulate(
        Linear(), jnp.asarray(TRUE), t=t, q=0.01, phi=jnp.zeros(1), contrast=1.0, offset=0.0,
        noise=NOISE, key=jax.random.key(seed),
    )  # fmt: skip
    return Linear(), tt.TwoTimeData(clean.c2, t, 0.01, clean.phi, sigma=NOISE), space


def exact_posterior(data):
    """Mean and covariance in closed form."""
    t = np.asarray(data.t)
    i, j = np.triu_indices(len(t), 1)
    basis = np.stack([np.ones_like(t), t - 1.0, np.sin(3 * t)], axis=1)
    design = basis[i] + basis[j]
    centre, width = np.array(list(PRIOR.values())).T
    precision = design.T @ design / NOISE**2 + np.diag(width**-2.0)
    pull = design.T @ np.asarray(data.c2[0])[i, j] / NOISE**2 + centre / width**2
    covariance = np.linalg.inv(precision)
    return covariance @ pull, covariance


def sizes(draws):
    """Effective number of draws for the mean of each quantity."""
    from blackjax.diagnostics import effective_sample_size

    return np.asarray(effective_sample_size(jnp.asarray(draws)))


def errors(n_shards, method, draws_of_shard, post):
    """Variances of the combined mean and covariance over those of one independent draw.

    Shards have sqrt(shards) shares of the information, so their means count sqrt(shards) times;
    weights from draws pull towards shards whose means are off: (m + 1)(1 - 1/shards); what is
    drawn from a Gaussian has its own error. `test_errors_of_combinations` repeats combinations
    to show the same.
    """
    k, m = n_shards, 3
    for_mean, for_covariance = draws_of_shard
    if method == "importance" and k > 1:
        own = 1 / float(post.ess_weights) + 1 / post.draws[..., 0].size
        return own, own
    redrawn = (method == "gaussian" and k > 1) / post.draws[..., 0].size
    mean = (np.sqrt(k) + (m + 1) * (1 - 1 / k)) / for_mean + redrawn
    return mean, (2 - 1 / k) / for_covariance + redrawn / k


def check_gaussian(n_shards, n_warmup, n_samples, limit):
    """Means and covariances of draws against the closed form, in their errors."""
    model, data, space = linear_case()
    mean, covariance = exact_posterior(data)
    deviation = np.sqrt(np.diag(covariance))
    fit, effective = tt.fit_nlsq(model, data, space), None
    for combine in ("consensus", "gaussian", "importance"):
        post = tt.fit_cmc(
            model, data, space, key=jax.random.key(100 + n_shards), start=fit, width="none",
            n_shards=n_shards, combine=combine, n_warmup=n_warmup, n_samples=n_samples,
        )  # fmt: skip
        flat = post.draws.reshape(-1, 3)
        centred = post.draws - mean
        products = centred[..., :, None] * centred[..., None, :]
        if effective is None:  # averages are as correlated as the shards' own draws
            effective = np.minimum(sizes(centred), len(flat)), sizes(products)
        of_mean, of_covariance = errors(n_shards, combine, effective, post)
        z_mean = (flat.mean(axis=0) - mean) / deviation / np.sqrt(of_mean)
        square = np.outer(deviation**2, deviation**2) + covariance**2
        z_covariance = (products.mean(axis=(0, 1)) - covariance) / np.sqrt(square * of_covariance)
        print(f"{n_shards} {combine}: z of means {np.abs(z_mean).max():.2f}, "
              f"of covariances {np.abs(z_covariance).max():.2f}")  # fmt: skip
        assert np.abs(z_mean).max() < limit
        assert np.abs(z_covariance).max() < limit
        if combine == "importance" and n_shards > 1:
            assert post.pareto_k < 0.7 and post.ess_weights > 0.8 * len(flat)


@pytest.mark.statistics
@pytest.mark.parametrize("n_shards", [1, 2, 4, 8, 16])
def test_a_gaussian_posterior_is_found_exactly_from_shards(n_shards):
    check_gaussian(n_shards, 200, 1000, limit=3)


def static_posterior(data, space):
    plain, evaluator = choose_evaluator(tt.StaticDiffusion(), data, "auto")
    return make_posterior(
        tt.StaticDiffusion(), plain, space, Individual(), evaluator,
        scaling="marginal", noise=NOISES["sampled"],
    )  # fmt: skip


def ranks_of_truths(n_truths, n_warmup, n_samples):
    """Part of the draws below the truth: truths from the prior, data from truths."""
    frames, sigma = 16, 0.05
    about = {  # loc, scale, low, high
        "D0": (1e4, 3e3, 1e3, 1e5), "alpha": (-0.3, 0.15, -1.0, 1.0),
        "contrast": (0.3, 0.03, 0.0, 1.0), "offset": (1.0, 0.02, 0.5, 1.5),
    }  # fmt: skip
    space = tt.ParameterSpace.from_config({"analysis_mode": "static"})
    space = space.with_values({"D0": 1e4, "alpha": -0.3, "D_offset": 0.0})
    space = space.with_bounds({"D0": (1e3, 1e5), "alpha": (-1.0, 1.0)})
    space = space.with_vary({"D_offset": False}).with_priors(
        {n: tt.PriorDistribution.truncated_normal(*x) for n, x in about.items()}
    )
    rng = np.random.default_rng(7)
    truth = {
        n: scipy.stats.truncnorm.rvs(
            (low - loc) / scale, (high - loc) / scale, loc, scale, n_truths, random_state=rng
        )
        for n, (loc, scale, low, high) in about.items()
    }
    t = jnp.arange(1, frames + 1) * 0.1
    parts, modes = [], []
    for i, key in enumerate(jax.random.split(jax.random.key(7), n_truths)):
        data = tt.simulate(
            tt.StaticDiffusion(), jnp.asarray([truth["D0"][i], truth["alpha"][i], 0.0]), t=t,
            q=0.01, phi=jnp.zeros(1), contrast=truth["contrast"][i], offset=truth["offset"][i],
            noise=sigma, key=key,
        )  # fmt: skip
        part = static_posterior(tt.TwoTimeData(data.c2, t, data.q, data.phi, sigma=sigma), space)
        parts.append(part)
        modes.append(
            np.asarray(part.coordinates.from_values(np.array([truth["D0"][i], truth["alpha"][i]])))
        )
    root = find_shape(parts[0], modes[0], np.array([0.1, 0.05])).root
    result = sample(
        stacked(parts), np.stack(modes), np.broadcast_to(root, (n_truths, 2, 2)),
        np.zeros((n_truths, 2, 2)), jax.random.key(8),
        Nuts(n_chains=2, n_warmup=n_warmup, n_samples=n_samples),
    )  # fmt: skip
    draws = result.trace.joint[:, :, ::5].reshape(n_truths, -1, 4)
    values = np.asarray(parts[0].coordinates.to_values(jnp.asarray(draws[..., :2])))
    shift = np.array([float(p.source.shift) for p in parts])
    found = {"D0": values[..., 0], "alpha": values[..., 1], "contrast": draws[..., 2],
             "offset": draws[..., 3] + shift[:, None]}  # fmt: skip
    return {n: np.sum(x < truth[n][:, None], axis=1) / (x.shape[1] + 1) for n, x in found.items()}


@pytest.mark.long
def test_ranks_of_few_truths_are_spread():
    for name, rank in ranks_of_truths(12, 60, 60).items():
        assert abs(rank.mean() - 0.5) < 3.5 * (1 / 12 / 12) ** 0.5, name
        assert 0.1 < rank.std() < 0.45, name


@pytest.mark.statistics
def test_ranks_of_the_truth_are_uniform():
    """Simulation-based calibration."""
    n_truths = 208
    for name, rank in ranks_of_truths(n_truths, 120, 160).items():
        counts = np.bincount((rank * 8).astype(int), minlength=8)
        chi2 = np.sum((counts - n_truths / 8) ** 2) / (n_truths / 8)
        p = float(jax.scipy.stats.chi2.sf(chi2, 7))
        print(f"ranks of {name}: {counts.tolist()}, p = {p:.2f}")
        assert p > 0.01


@pytest.mark.statistics
def test_intervals_cover_on_speckle_with_the_width_correction():
    """150 frames with correlations of 10, 500 speckles; shorter records widen the fit's errors."""
    repeats, frames, q = 120, 150, 0.0135
    space = tt.ParameterSpace.from_config({"analysis_mode": "static"})
    truth = {"D0": 1e4, "alpha": -0.3, "D_offset": 0.0}
    space = space.with_values(truth).with_vary({"D_offset": False})
    space = space.with_priors(
        {
            "D0": tt.PriorDistribution.lognormal(np.log(1e4), 2.0),
            "alpha": tt.PriorDistribution.normal(0.0, 2.0),
        }
    )
    model, inside = tt.StaticDiffusion(), {"curvature": [], "none": []}
    for seed in range(repeats):
        data = tt.simulate_speckle(
            model, jnp.asarray(list(truth.values())), t=jnp.arange(1, frames + 1) * 0.1, q=q,
            phi=jnp.zeros(1), contrast=0.3, n_pixels=500, key=jax.random.key(seed),
        )  # fmt: skip
        fit = tt.fit_nlsq(model, data, space)
        for width, hits in inside.items():
            post = tt.fit_cmc(
                model, data, space, key=jax.random.key(seed), start=fit, width=width, n_chains=2,
                n_warmup=60, n_samples=150,
            )  # fmt: skip
            low, high = np.quantile(post.draws, (0.16, 0.84), axis=(0, 1))
            true = np.array([truth["D0"], truth["alpha"]])
            hits.append((low < true) & (true < high))
    covered = {width: np.mean(hits, axis=0) for width, hits in inside.items()}
    print({width: x.round(3).tolist() for width, x in covered.items()})
    assert np.all((covered["curvature"] > 0.60) & (covered["curvature"] < 0.76))
    assert np.all(covered["none"] < 0.3)


def laminar_case():
    values = {
        "D0": 2e3, "alpha": 0.8, "D_offset": 5e3, "gamma_dot_t0": 3e-4, "beta": 0.8,
        "gamma_dot_t_offset": 5e-4, "phi0": 5.0,
    }  # fmt: skip
    space = tt.ParameterSpace.from_config({"analysis_mode": "laminar_flow"}).with_values(values)
    space = space.with_vary(dict.fromkeys(values, True))
    return tt.LaminarFlow(gap=2e6), values, space, 0.003, [0.0, 60.0, 120.0]


def two_component_case():
    values = {
        "D0_ref": 3e3, "alpha_ref": 0.2, "D_offset_ref": 0.0,
        "D0_sample": 1e4, "alpha_sample": -0.2, "D_offset_sample": 0.0,
        "v0": 800.0, "beta": -0.1, "v_offset": 0.0,
        "f0": 0.45, "f1": -0.4, "f2": 0.0, "f3": 0.1, "phi0": 0.0,
    }  # fmt: skip
    fixed = ("f2", "phi0", "D_offset_ref", "D_offset_sample", "v_offset")
    space = tt.ParameterSpace.from_config({"analysis_mode": "two_component"})
    space = space.with_values(values).with_vary({name: name not in fixed for name in values})
    return tt.TwoComponent(), values, space, 0.01, [0.0]


def two_component_free_case():
    values = {
        "D0_ref": 5e2, "alpha_ref": 0.8, "D_offset_ref": 1e3,
        "D0_sample": 2e3, "alpha_sample": 0.8, "D_offset_sample": 3e3,
        "v0": 100.0, "beta": 0.8, "v_offset": 80.0,
        "f0": 0.45, "f1": -0.4, "f2": 0.0, "f3": 0.2, "phi0": 5.0,
    }  # fmt: skip
    space = tt.ParameterSpace.from_config({"analysis_mode": "two_component"})
    space = space.with_values(values).with_vary({name: name != "f2" for name in values})
    return tt.TwoComponent(), values, space, 0.01, [0.0, 40.0, 80.0]


@pytest.mark.statistics
@pytest.mark.parametrize(
    ("case", "noise"),
    [(laminar_case, 0.002), (two_component_case, 0.01), (two_component_free_case, 0.001)],
)
def test_shards_give_what_all_points_give(case, noise):
    model, values, space, q, phi = case()
    space = space.with_priors(space.priors)  # the registry's, given
    data = tt.simulate(
        model, jnp.asarray(list(values.values())), t=jnp.arange(1, 101) * 0.1, q=q,
        phi=jnp.asarray(phi), contrast=0.3, offset=1.0, noise=noise, key=jax.random.key(0),
    )  # fmt: skip
    fit = tt.fit_nlsq(model, data, space)
    # The valley of the free case: at 0.9 one draw in about 100 000 diverges there.
    target = 0.95 if case is two_component_free_case else 0.9
    whole, parts = (
        tt.fit_cmc(
            model, data, space, key=jax.random.key(0), start=fit, n_shards=n, width="none",
            target_accept=target,
        )
        for n in (1, 8)
    )  # fmt: skip
    one, other = (p.draws.reshape(-1, p.draws.shape[-1]) for p in (whole, parts))
    shift = np.abs(other.mean(axis=0) - one.mean(axis=0)) / one.std(axis=0)
    ratio = other.std(axis=0) / one.std(axis=0)
    correlation = np.abs(whole.correlation - parts.correlation)
    print(f"{type(model).__name__}: means within {shift.max():.3f} sd, sds {ratio.min():.3f} to "
          f"{ratio.max():.3f}, correlations within {correlation.max():.3f}; {whole.status}; "
          f"{parts.status}")  # fmt: skip
    assert shift.max() < 0.25
    assert np.abs(ratio - 1).max() < 0.15
    assert correlation.max() < 0.1
    for post in (whole, parts):
        assert max(post.r_hat.values()) < 1.01
        assert post.divergences == 0
