"""Arguments of `fit_nlsq` and `fit_cmc` in a configuration."""

from typing import Any

import jax

from twotime.config.manager import ConfigManager
from twotime.gram import all_devices
from twotime.results.cmc import Limits
from twotime.sample.chains import Hmc, Nuts
from twotime.sample.shards import Sharding


def fit_arguments(config: ConfigManager) -> dict[str, Any]:
    """Arguments of `fit_nlsq` in a configuration, without the starts."""
    nlsq, streaming = config.nlsq_config, config.section("streaming")
    sequential = config.section("sequential")
    alone = sequential if sequential["enable"] else {}
    return {
        "per_angle_mode": nlsq["per_angle_mode"],
        "evaluator": "tiled" if streaming["enable"] else nlsq["evaluator"],
        "loss": nlsq["loss"],
        "loss_scale": nlsq["loss_scale"],
        "priors": nlsq["priors"],
        "uncertainty": nlsq["uncertainty"],
        "max_steps": alone.get("max_iterations", nlsq["max_iterations"]),
        "tolerance": alone.get("convergence_threshold", nlsq["tolerance"]),
        "tile": streaming["chunk_size"],
    }


def sampling_arguments(config: ConfigManager) -> dict[str, Any]:
    """Arguments of `fit_cmc` in a configuration, without the fit to start from."""
    cmc, hmc = config.get_cmc_config(), config.section("optimization.hmc")
    mcmc, dealt, begin = (cmc[name] for name in ("per_shard_mcmc", "sharding", "initialization"))
    nlsq, strata = config.nlsq_config, config.section("stratification")
    chains = {
        "n_chains": mcmc["num_chains"],
        "n_warmup": mcmc["num_warmup"],
        "n_samples": mcmc["num_samples"],
        "target_accept": mcmc["target_accept_prob"],
        "step_size": hmc["step_size"],
        "adapt_step": hmc["adapt_step_size"],
        "adapt_shape": hmc["adapt_mass_matrix"],
        "jitter": begin["jitter_scale"],
    }
    by_lag = strata["enable"] and strata["strategy"] == "lag"
    return {
        "key": jax.random.key(cmc["seed"]),
        "start": "prior" if begin["method"] == "prior" else None,
        "sampler": Hmc(**chains, n_leapfrog=hmc["num_leapfrog_steps"])
        if cmc["backend"]["sampler"] == "hmc"
        else Nuts(**chains, max_tree_depth=mcmc["max_tree_depth"]),
        "sharding": Sharding(
            n_shards=dealt["n_shards"],
            strategy=dealt["shard_strategy"],
            strata=strata["n_strata"] if by_lag else 1,
            min_points=dealt["min_pairs_per_shard"],
            combine=cmc["combination"]["method"],
            devices=all_devices(),
        ),
        "limits": Limits(**cmc["validation"], max_reduced_chi2=begin.get("nlsq_chi2_threshold")),
        "width": cmc["width_correction"],
        "prior_from_fit": nlsq.get("nlsq_prior_width_factor"),
        "per_angle_mode": nlsq["per_angle_mode"],
        "evaluator": nlsq["evaluator"],
    }
