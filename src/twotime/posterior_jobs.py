"""Sampling as part of the main job: what a configuration asks of `fit_cmc`, and its files."""

import dataclasses
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from twotime.config.manager import ConfigManager
from twotime.covariance.bands import draw_bands
from twotime.data.dataset import TwoTimeData
from twotime.gram.devices import all_devices
from twotime.models.base import AbstractTwoTimeModel, Curve
from twotime.results import storage as folders
from twotime.results.cmc import CMCResult, Limits
from twotime.results.nlsq import NLSQResult
from twotime.results.storage import Provenance
from twotime.sample.cmc import fit_cmc
from twotime.sample.driver import Progress

_log = logging.getLogger(__name__)
_BAND_DRAWS = 400


def sampling_arguments(config: ConfigManager) -> dict[str, Any]:
    """Arguments of `fit_cmc` that a configuration asks for, those of the fit left out.

    Args:
        config: A validated configuration.
    """
    cmc, hmc = config.get_cmc_config(), config.section("optimization.hmc")
    mcmc, sharding, begin = (cmc[name] for name in ("per_shard_mcmc", "sharding", "initialization"))
    nlsq, strata = config.nlsq_config, config.section("stratification")
    by_lag = strata["enable"] and strata["strategy"] == "lag"
    return {
        "key": jax.random.key(cmc["seed"]),
        "n_shards": sharding["n_shards"],
        "strategy": sharding["shard_strategy"],
        "min_pixels": sharding["min_pairs_per_shard"],
        "n_strata": strata["n_strata"] if by_lag else 1,
        "n_chains": mcmc["num_chains"],
        "n_warmup": mcmc["num_warmup"],
        "n_samples": mcmc["num_samples"],
        "target_accept": mcmc["target_accept_prob"],
        "max_tree_depth": mcmc["max_tree_depth"],
        "sampler": cmc["backend"]["sampler"],
        "step_size": hmc["step_size"],
        "n_leapfrog": hmc["num_leapfrog_steps"],
        "adapt_step": hmc["adapt_step_size"],
        "adapt_shape": hmc["adapt_mass_matrix"],
        "combine": cmc["combination"]["method"],
        "width": cmc["width_correction"],
        "start": "prior" if begin["method"] == "prior" else None,
        "jitter": begin["jitter_scale"],
        "max_reduced_chi2": begin.get("nlsq_chi2_threshold"),
        "prior_from_fit": nlsq.get("nlsq_prior_width_factor"),
        "limits": Limits(**cmc["validation"]),
        "per_angle_mode": nlsq["per_angle_mode"],
        "evaluator": nlsq["evaluator"],
    }


def run_folder(folder: Path) -> Path:
    """Where a run is kept while it goes on: beside the folder of its results."""
    return folder.parent / f"{folder.name}.run"


def kept_run(folder: Path, *, resume: bool, overwrite: bool) -> Path:
    """The folder for the blocks of a run, empty unless the run is resumed.

    Args:
        folder: Folder of the results.
        resume: Whether a run that is kept there goes on.
        overwrite: Whether it may be thrown away.

    Raises:
        ResultError: If there is none to go on with, or one that may not be thrown away.
    """
    kept = run_folder(folder)
    if resume and not kept.exists():
        raise folders.ResultError(f"{kept}: keeps no run to go on with; start without --resume.")
    if kept.exists() and not resume:
        if not overwrite:
            raise folders.ResultError(
                f"{kept}: keeps a run that did not end; go on with it (--resume), or throw it "
                "away (--overwrite)."
            )
        shutil.rmtree(kept)
    return kept


def sample_job(
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    space: Any,
    arguments: Mapping[str, Any],
    fit: NLSQResult | None,
    kept: Path,
    progress: Callable[[Progress], None] | None,
) -> CMCResult:
    """Sample what a job asks for.

    Args:
        model: The model.
        data: The data.
        space: Bounds, priors and what varies.
        arguments: What `sampling_arguments` gave.
        fit: The fit to start from; None for chains that start at draws of the prior.
        kept: Folder that keeps the run until it has ended.
        progress: Called after every block of draws.
    """
    chosen = dict(arguments)
    if fit is not None:
        chosen["start"] = fit
    post = fit_cmc(
        model, data, space, **chosen, devices=all_devices(), checkpoint=kept,
        resume=kept.exists(), progress=progress,
    )  # fmt: skip
    if post.is_complete:
        shutil.rmtree(kept)
    return post


def write_sampling(
    post: CMCResult,
    model: AbstractTwoTimeModel,
    data: TwoTimeData,
    folder: Path,
    provenance: Provenance,
    *,
    overwrite: bool,
) -> None:
    """Write result.json, posterior.npz, report.md and figures, all of them or nothing.

    Args:
        post: The posterior.
        model: The model.
        data: The data.
        folder: Folder of the results.
        provenance: Where it comes from.
        overwrite: Whether a result that is there may be replaced.

    Raises:
        ResultError: If the folder cannot be written, or holds what may not be replaced.
    """
    from twotime.plots import posterior as plots

    curves = posterior_functions(post, model, data.t)
    where = dataclasses.replace(provenance, wall_time=float(post.seconds))
    with folders.new_folder(folder, overwrite=overwrite) as temporary:
        figures = plots.save_figures(temporary, post, curves, np.asarray(data.t))
        maps = plots.save_predictive(temporary, post, model, data)
        folders.write(
            temporary, post, arrays={"t": np.asarray(data.t)}, curves=curves, provenance=where,
            figures=(*figures, *maps),
        )  # fmt: skip
    _log.info("wrote %s", folder)


def redraw_posterior(folder: Path, post: CMCResult, target: Path) -> tuple[str, ...]:
    """Draw the figures of a saved posterior again, but those that need the data.

    Args:
        folder: The folder that holds it.
        post: The posterior.
        target: Folder for the figures.
    """
    from twotime.plots import posterior as plots

    curves, t = folders.read_curves(folder), folders.read_arrays(folder).get("t", np.zeros(0))
    with folders.writing(target):
        target.mkdir(parents=True, exist_ok=True)
        return plots.save_figures(target, post, curves, t)


def posterior_functions(
    post: CMCResult, model: AbstractTwoTimeModel, t: Float[np.ndarray | jax.Array, " time"]
) -> dict[str, Curve]:
    """The functions that the parameters stand for: medians with 68 % bands of the draws.

    Args:
        post: The posterior.
        model: The model.
        t: Frame times [s].
    """
    draws = post.all_draws()
    chosen = np.unique(np.linspace(0, len(draws) - 1, min(_BAND_DRAWS, len(draws))).astype(int))
    bands = draw_bands(model, jnp.asarray(draws[chosen]), jnp.asarray(t))
    return jax.tree.map(np.asarray, bands)
