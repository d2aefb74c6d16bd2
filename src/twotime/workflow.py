"""The main job as functions: a configuration in, a result folder out.

`run` does it all; `prepare`, `fit` and `write` are its steps, for callers that want to stand
between them.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from twotime import posterior_jobs as posterior_run
from twotime.compilation import compiled
from twotime.config.manager import ConfigManager, build_model
from twotime.config.parameter_space import ParameterSpace
from twotime.covariance.bands import delta_bands
from twotime.covariance.misfit import residual_structure
from twotime.data import LoadReport, load_with_report
from twotime.data.dataset import TwoTimeData
from twotime.fit.nlsq import fit_nlsq
from twotime.fit.sequential import fit_sequential, one_angle
from twotime.gram.devices import all_devices
from twotime.models.base import AbstractTwoTimeModel, Curve
from twotime.results import load_result, storage
from twotime.results import storage as folders
from twotime.results.cmc import CMCResult
from twotime.results.nlsq import NLSQResult, SequentialResult, angle_folders, fitted_arrays
from twotime.results.storage import Provenance
from twotime.start.search import estimate_starts

_log = logging.getLogger(__name__)


class Job(NamedTuple):
    """All that a fit needs, and where it comes from.

    Attributes:
        model: The model.
        data: The data.
        space: Start, bounds and which parameters vary.
        arguments: Settings of `fit_nlsq`.
        provenance: Settings and facts about the data.
        unsaved: Names of the arrays that are not to be saved.
        method: "nlsq", "cmc" or "both".
        sampling: Settings of `fit_cmc`; None where nothing is sampled.
        is_sequential: Whether angles are fitted one after the other.
    """

    model: AbstractTwoTimeModel
    data: TwoTimeData
    space: ParameterSpace
    arguments: Mapping[str, Any]
    provenance: Provenance
    unsaved: tuple[str, ...]
    method: str
    sampling: Mapping[str, Any] | None
    is_sequential: bool = False


def run(
    config: ConfigManager,
    folder: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[Any], None] | None = None,
) -> NLSQResult | SequentialResult | CMCResult:
    """Load, fit, sample and write what a configuration asks for.

    With optimization.method "both" the fit is in the folder and the posterior in its subfolder
    `posterior`; with "cmc" the posterior alone is in the folder.

    Args:
        config: A validated configuration.
        folder: Folder of the results; None takes `output.output_dir` of the configuration.
        overwrite: Whether a result that is there may be replaced.
        progress: Called with half of chi2 after every evaluation of the model.

    Returns:
        The result, which is in the folder whether it converged or not; the posterior where one
        was sampled.

    Raises:
        DataError: If the data file is damaged or does not hold what is asked for.
        ResultError: If the folder cannot be written, or holds what may not be replaced.
        ValueError: If float64 is off, or the data cannot be fitted.
    """
    folder = config.output_dir if folder is None else Path(folder)
    job = prepare(config, folder, overwrite=overwrite)
    result = None
    if needs_fit(job):
        result, seconds = fit(job, progress)
        if job.method != "cmc":
            write(job, result, folder, seconds, overwrite=overwrite)
    if job.sampling is None:
        assert result is not None
        return result
    assert not isinstance(result, SequentialResult)  # the configuration refuses the two together
    post = sample(job, result, folder, overwrite=overwrite)
    write_posterior(job, post, folder, overwrite=overwrite)
    return post


def needs_fit(job: Job) -> bool:
    """Whether a job begins with a least-squares fit."""
    return job.sampling is None or job.method == "both" or job.sampling["start"] is None


def sample(
    job: Job,
    result: NLSQResult | None,
    folder: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Callable[[Any], None] | None = None,
) -> CMCResult:
    """Sample the posterior of a job; blocks of draws are kept beside the folder until it ends.

    Args:
        job: What to sample.
        result: The fit it starts from; None for chains that start at draws of the prior.
        folder: Folder that the results are meant for.
        overwrite: Whether a run that did not end may be thrown away.
        resume: Whether it goes on.
        progress: Called after every block of draws.

    Raises:
        ResultError: If a run is kept that may not be thrown away, or none to go on with.
    """
    assert job.sampling is not None
    start = None if job.sampling["start"] == "prior" else result
    kept = posterior_run.kept_run(folder, resume=resume, overwrite=overwrite)
    return posterior_run.sample_job(
        job.model, job.data, job.space, job.sampling, start, kept, progress
    )


def write_posterior(job: Job, post: CMCResult, folder: Path, *, overwrite: bool = False) -> None:
    """Write a posterior with its figures: into the folder, or beside a fit into its subfolder.

    Args:
        job: What was sampled.
        post: The posterior.
        folder: Folder of the results.
        overwrite: Whether a result that is there may be replaced.

    Raises:
        ResultError: If the folder cannot be written, or holds what may not be replaced.
    """
    target = folder if job.method == "cmc" else folder / "posterior"
    posterior_run.write_sampling(
        post, job.model, job.data, target, job.provenance, overwrite=overwrite
    )


def prepare(config: ConfigManager, folder: Path, *, overwrite: bool = False) -> Job:
    """Check the settings and the folder, read the data, build the model.

    Args:
        config: A validated configuration.
        folder: Folder that the results are meant for.
        overwrite: Whether a result that is there may be replaced.

    Raises:
        DataError: If the data file is damaged or does not hold what is asked for.
        ResultError: If the folder cannot be written, or holds what may not be replaced.
    """
    folders.check_folder(folder, overwrite=overwrite)
    for remark in config.warnings:
        _log.warning("%s", remark)
    data, account = load_with_report(config)
    for note in account.notes:
        _log.warning("%s", note)
    _log.info("read %s: %d angles, %d frames", account.path, data.c2.shape[0], data.c2.shape[1])
    nlsq, output = config.nlsq_config, config.section("output")
    streaming = config.section("streaming")
    wanted = {"c2": output["save_correlation"], "residual": output["save_residuals"]}
    wanted["model"] = wanted["c2"]
    arguments = {
        "per_angle_mode": nlsq["per_angle_mode"],
        "evaluator": nlsq["evaluator"],
        "loss": nlsq["loss"],
        "loss_scale": nlsq["loss_scale"],
        "max_steps": nlsq["max_iterations"],
        "tolerance": nlsq["tolerance"],
        "tile": streaming["chunk_size"],
    }
    if streaming["enable"]:
        arguments["evaluator"] = "tiled"
    sequential = config.section("sequential")
    if sequential["enable"]:
        arguments["max_steps"] = sequential.get("max_iterations", nlsq["max_iterations"])
        arguments["tolerance"] = sequential.get("convergence_threshold", nlsq["tolerance"])
    model = build_model(config)
    space, starts = _starts(model, data, config)
    return Job(
        model=model,
        data=data,
        space=space,
        arguments=arguments | starts,
        provenance=_provenance(config, account),
        unsaved=tuple(name for name, is_wanted in wanted.items() if not is_wanted),
        method=config.optimization_method,
        sampling=(
            None
            if config.optimization_method == "nlsq"
            else posterior_run.sampling_arguments(config)
        ),
        is_sequential=sequential["enable"],
    )


def _starts(
    model: AbstractTwoTimeModel, data: TwoTimeData, config: ConfigManager
) -> tuple[ParameterSpace, dict[str, Any]]:
    """The space at its start, and the settings of `fit_nlsq` that say which starts it takes."""
    nlsq, space = config.nlsq_config, config.space
    count = nlsq["multistart_n"] if nlsq["multistart"] else 1
    wanted = np.asarray(space.varying)
    if nlsq["start"] == "auto":
        wanted = wanted & (np.asarray(space.given) == 0)
    if nlsq["start"] == "values" or not wanted.any():
        return space, {"starts": count, "key": jax.random.key(nlsq["seed"])}
    free = eqx.tree_at(lambda s: s.given, space, np.where(wanted, 0.0, 1.0))
    estimates = estimate_starts(
        model, data, free, per_angle_mode=nlsq["per_angle_mode"], count=count
    )
    names = [name for name, is_wanted in zip(space.names, wanted, strict=True) if is_wanted]
    _log.info("starts estimated from the data: %s", ", ".join(names))
    return estimates[0], {"starts": np.stack([s.initial for s in estimates])}


def with_method(config: ConfigManager, method: str) -> ConfigManager:
    """The configuration with another `optimization.method`.

    Args:
        config: A validated configuration.
        method: "nlsq", "cmc" or "both".

    Raises:
        ConfigurationError: If the method contradicts other settings.
    """
    changed = config.get_config()
    changed.setdefault("optimization", {})["method"] = method
    return ConfigManager(changed, base_dir=config.base_dir)


def fit(
    job: Job, progress: Callable[[Any], None] | None = None
) -> tuple[NLSQResult | SequentialResult, float]:
    """Fit a job on all devices; returns the result and the time, compilation included [s].

    Args:
        job: What to fit.
        progress: Called with half of chi2 after every evaluation of the model. It makes XLA
            compile the fit anew, so leave it out where nobody looks.
    """
    begun = time.perf_counter()
    verb = fit_sequential if job.is_sequential else fit_nlsq
    devices = all_devices() if len(all_devices()) > 1 else None
    result = verb(
        job.model, job.data, job.space, devices=devices, progress=progress, **job.arguments
    )
    result = jax.block_until_ready(result)
    return result, time.perf_counter() - begun


def write(
    job: Job,
    result: NLSQResult | SequentialResult,
    folder: Path,
    seconds: float,
    *,
    overwrite: bool = False,
) -> None:
    """Write result.json, arrays.npz, report.md and figures, all of them or nothing.

    Angles that were fitted one after the other have a folder each, beside an overview of all.

    Args:
        job: What was fitted.
        result: The result.
        folder: Folder of the results.
        seconds: Time the fit took [s].
        overwrite: Whether a result that is there may be replaced.

    Raises:
        ResultError: If the folder cannot be written, or holds what may not be replaced.
    """
    timed = dataclasses.replace(job.provenance, wall_time=seconds)
    with folders.new_folder(folder, overwrite=overwrite) as temporary:
        if isinstance(result, NLSQResult):
            _write_fit(job, job.data, result, temporary, timed)
        else:
            names = angle_folders(result)
            for k, (name, one) in enumerate(zip(names, result.fits, strict=True)):
                (temporary / name).mkdir()
                _write_fit(job, one_angle(job.data, k), one, temporary / name, timed)
            storage.write(temporary, result, provenance=timed)
    _log.info("wrote %s", folder)


def _write_fit(
    job: Job, data: TwoTimeData, result: NLSQResult, folder: Path, provenance: Provenance
) -> None:
    from twotime.plots import fit as plots

    structure = residual_structure(job.model, data, job.space, result)
    provenance = dataclasses.replace(provenance, judgement=structure.sentence)
    arrays = fitted_arrays(result, job.model, data)
    curves = functions_of_time(result, job.model, data.t)
    kept = {name: array for name, array in arrays.items() if name not in job.unsaved}
    figures = plots.save_figures(folder, result, arrays, curves)
    storage.write(
        folder, result, arrays=kept, curves=curves, provenance=provenance, figures=figures
    )


def functions_of_time(
    result: NLSQResult, model: AbstractTwoTimeModel, t: Float[Array | np.ndarray, " time"]
) -> dict[str, Curve]:
    """The functions that a result's parameters stand for, with bands of one standard deviation.

    Args:
        result: The result.
        model: The model that was fitted.
        t: Frame times [s].

    Returns:
        J and strain, velocity or fraction by name; empty for a model that says none.
    """
    found = _bands(model, result, jnp.asarray(t))
    return {name: jax.tree.map(np.asarray, band) for name, band in found}


@compiled
def _bands(model: AbstractTwoTimeModel, result: NLSQResult, t: Array) -> list[tuple[str, Curve]]:
    return list(delta_bands(model, result, t).items())


def redraw(folder: str | Path, into: str | Path | None = None) -> tuple[str, ...]:
    """Draw the figures of a saved result again.

    Args:
        folder: A folder that `twotime fit` wrote.
        into: Folder for the figures, made if need be; None puts them where they were.

    Returns:
        Names of the figures.

    Raises:
        ResultError: If the folder holds no result, or one without its correlation.
    """
    from twotime.plots import fit as plots

    folder = Path(folder)
    result = load_result(folder)
    if isinstance(result, CMCResult):
        target = folder if into is None else Path(into)
        return posterior_run.redraw_posterior(folder, result, target)
    if isinstance(result, SequentialResult):
        target = folder if into is None else Path(into)
        parts = [(name, redraw(folder / name, target / name)) for name in angle_folders(result)]
        return tuple(f"{part}/{name}" for part, names in parts for name in names)
    arrays = storage.read_arrays(folder)
    missing = [name for name in ("t", "q", "c2", "model") if name not in arrays]
    if missing:
        raise folders.ResultError(
            f"{folder}: its {storage.ARRAYS} does not hold {', '.join(missing)}; figures need "
            "them: fit again with output.save_correlation: true."
        )
    arrays.setdefault("residual", arrays["c2"] - arrays["model"])
    target = folder if into is None else Path(into)
    with folders.writing(target):
        target.mkdir(parents=True, exist_ok=True)
        return plots.save_figures(target, result, arrays, storage.read_curves(folder))


def _provenance(config: ConfigManager, account: LoadReport) -> Provenance:
    source = {
        "file": account.path,
        "sha256": account.sha256,
        "layout": account.layout,
        "wavevector_q": account.q,
        "dt": account.dt,
        "frames": account.frames,
        "frames_in_file": account.n_frames_in_file,
        "angles": account.n_angles,
        "empty_bins": account.empty,
        "pixels": account.n_points,
        "masked_pixels": account.n_masked,
    }
    settings = config.get_config()
    settings["analysis_mode"] = config.analysis_mode
    settings["model"] = config.section("model")
    settings["output"] = config.section("output")
    settings["optimization"] = {"method": config.optimization_method, "nlsq": config.nlsq_config}
    if config.optimization_method != "nlsq":
        settings["optimization"]["cmc"] = config.get_cmc_config()
        settings["optimization"]["hmc"] = config.section("optimization.hmc")
    return Provenance(
        settings=settings,
        source=source,
        notes=(*account.notes, *config.warnings),
        metadata=config.section("metadata"),
    )
