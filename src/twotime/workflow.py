"""A configuration in, a result folder out.

`run` does everything; `prepare`, `fit`, `write`, `sample` and `write_posterior` are its steps, for
programs that need to do something in between. Also available as `twotime.run`.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from twotime.arguments import fit_arguments as fit_arguments
from twotime.arguments import sampling_arguments as sampling_arguments
from twotime.config.manager import ConfigManager, build_model
from twotime.config.parameter_space import ParameterSpace
from twotime.covariance.bands import functions_of_time as functions_of_time
from twotime.data import LoadReport, load_with_report
from twotime.data.dataset import TwoTimeData
from twotime.disk import remove
from twotime.errors import ResultError
from twotime.fit import check_inputs, fit_nlsq, fit_sequential, one_angle
from twotime.gram import all_devices
from twotime.models.base import AbstractTwoTimeModel, Curve
from twotime.models.scaling import resolve_mode
from twotime.plots import fit as fit_plots
from twotime.plots import posterior as posterior_plots
from twotime.plots.folder import draw_missing
from twotime.plots.folder import redraw as redraw
from twotime.results import storage
from twotime.results.cmc import CMCResult
from twotime.results.folder import (
    POSTERIOR,
    RESULT,
    claim,
    clear,
    new_folder,
    place_of,
    writing,
)
from twotime.results.nlsq import NLSQResult, fitted_arrays
from twotime.results.sequential import SequentialResult, angle_folders
from twotime.results.shown import shown_arrays
from twotime.results.storage import Provenance
from twotime.sample.cmc import fit_cmc
from twotime.sample.driver import Progress, check_mark
from twotime.start import estimate_starts
from twotime.start.units import unit_notes

Fit = NLSQResult | SequentialResult

_log = logging.getLogger(__name__)


class Job(NamedTuple):
    """Everything that a fit needs, and where it comes from.

    Attributes:
        model: The model.
        data: The data.
        space: Start, bounds and which parameters vary.
        arguments: Settings of `fit_nlsq`.
        provenance: Settings and facts about the data.
        saved: Names of the arrays of points that are saved.
        figures: Format of the figures; None draws none.
        method: "nlsq", "cmc" or "both".
        sampling: Settings of `fit_cmc`; None where nothing is sampled.
        is_sequential: Whether angles are fitted one after the other.
        replaces: Whether the folder holds an old result. It stays until all of the new one, fit and
            posterior, is complete.
    """

    model: AbstractTwoTimeModel
    data: TwoTimeData
    space: ParameterSpace
    arguments: Mapping[str, Any]
    provenance: Provenance
    saved: tuple[str, ...]
    figures: str | None
    method: str
    sampling: Mapping[str, Any] | None
    is_sequential: bool = False
    replaces: bool = False


def run(
    config: ConfigManager,
    folder: str | Path | None = None,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Callable[[Any], None] | None = None,
) -> Fit | CMCResult:
    """Load, fit, sample and write as a configuration says.

    With optimization.method "both" the fit is in the folder and the posterior in its subfolder
    `posterior`; with "cmc" the posterior alone is in the folder.

    Args:
        config: A validated configuration.
        folder: Folder of the results; None takes `output.output_dir` of the configuration.
        overwrite: Whether an existing result may be replaced.
        resume: Whether interrupted sampling is to be resumed.
        progress: Called with half of chi2 after every evaluation of the model.

    Returns:
        The fit, or the posterior if one was sampled. It is written whether it converged or not.

    Raises:
        DataError: If the data file is damaged or does not hold what is selected.
        ResultError: If the folder cannot be written, or holds what may not be replaced.
        ValueError: If float64 is off, or the data cannot be fitted.
    """
    folder = config.output_dir if folder is None else Path(folder)
    with claim(folder, overwrite=overwrite):
        how: Any = {"overwrite": overwrite, "resume": resume, "progress": progress}
        job, result = without_figures(config, folder, **how)
        draw(job, folder)
        return result


def without_figures(
    config: ConfigManager,
    folder: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Callable[[Any], None] | None = None,
) -> tuple[Job, Any]:
    """What `run` does but for the figures; returns the job, and the fit or posterior.

    Arguments and errors are those of `run`.
    """
    with claim(folder, overwrite=overwrite):
        job = prepare(config, folder, overwrite=overwrite, resume=resume)
        result: Any = None
        seconds = 0.0
        if needs_fit(job):
            result, seconds = fit(job, progress)
            write_fit(job, result, folder, seconds, overwrite=overwrite)
        if job.sampling is not None:
            post = sample(job, result, folder, overwrite=overwrite, resume=resume)
            write_posterior(job, post, folder, fit=(result, seconds), overwrite=overwrite)
            result = post
        return job, result


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


def prepare(
    config: ConfigManager, folder: Path, *, overwrite: bool = False, resume: bool = False
) -> Job:
    """Check the settings and the folder, read the data, build the model.

    Args:
        config: A validated configuration.
        folder: Folder for the results.
        overwrite: Whether an existing result may be replaced.
        resume: Whether interrupted sampling is to be resumed.

    Raises:
        DataError: If the data file is damaged or does not hold what is selected.
        ResultError: If the folder cannot be written, or holds what may not be replaced.
        ValueError: If the data cannot be fitted.
    """
    with claim(folder, overwrite=overwrite):
        replaces = (folder / RESULT).exists()
        if config.optimization_method != "nlsq":
            clear(place_of(kept_run(folder, resume=resume, overwrite=overwrite)).part)
    if resume and config.optimization_method == "nlsq":
        raise ResultError("Nothing is sampled, so there is nothing to resume; leave out --resume.")
    for remark in config.warnings:
        _log.warning("%s", remark)
    data, report = load_with_report(config)
    model, method = build_model(config), config.optimization_method
    doubts = unit_notes(model, data, config.space)
    report = dataclasses.replace(report, notes=(*report.notes, *doubts))
    for note in report.notes:
        _log.warning("%s", note)
    _log.info("read %s: %d angles, %d frames", report.path, data.c2.shape[0], data.c2.shape[1])
    mode = resolve_mode(config.nlsq_config["per_angle_mode"], data.ring)
    space = check_inputs(model, data, config.space, mode)
    space, starts = _starts(model, data, space, config)
    output, sequential = config.section("output"), config.section("sequential")
    saved = ("c2", "model", "mask", "sigma") if output["save_correlation"] else ()
    return Job(
        model=model,
        data=data,
        space=space,
        arguments=fit_arguments(config) | starts,
        provenance=_provenance(config, report),
        saved=(*saved, "residual") if output["save_residuals"] else saved,
        figures=output["figure_format"] if output["figures"] else None,
        method=method,
        sampling=None if method == "nlsq" else sampling_arguments(config),
        is_sequential=sequential["enable"],
        replaces=replaces,
    )


def _starts(
    model: AbstractTwoTimeModel, data: TwoTimeData, space: ParameterSpace, config: ConfigManager
) -> tuple[ParameterSpace, dict[str, Any]]:
    """The space at its first start, and the arguments of `fit_nlsq` for the starts."""
    nlsq = config.nlsq_config
    count = nlsq["multistart_n"] if nlsq["multistart"] else 1
    estimated = np.asarray(space.varying)
    if nlsq["start"] == "auto":
        estimated = estimated & (np.asarray(space.given) == 0)
    if nlsq["start"] == "values" or not estimated.any():
        return space, {"starts": count, "key": jax.random.key(nlsq["seed"])}
    unknown = np.append(estimated, [False, False])
    free = eqx.tree_at(lambda s: s.own_values, space, np.where(unknown, 0.0, 1.0))
    mode = nlsq["per_angle_mode"]
    starts = estimate_starts(model, data, free, per_angle_mode=mode, count=count)
    _log.info("starts estimated from the data: %s", ", ".join(np.array(space.names)[estimated]))
    return starts[0], {"starts": np.stack([s.initial for s in starts])}


def _provenance(config: ConfigManager, report: LoadReport) -> Provenance:
    used = {"method": config.optimization_method, "nlsq": config.nlsq_config}
    if config.optimization_method != "nlsq":
        used |= {"cmc": config.get_cmc_config(), "hmc": config.section("optimization.hmc")}
    sections = {name: config.section(name) for name in ("model", "output")}
    is_named = "law" not in sections["model"]
    word = {"analysis_mode": config.analysis_mode} if is_named else {}
    named = {**word, **sections, "optimization": used}
    settings = config.get_config() | named
    notes = (*report.notes, *config.warnings)
    return Provenance(settings, report.facts(), notes, config.section("metadata"))


def needs_fit(job: Job) -> bool:
    """Whether a job begins with a least-squares fit."""
    return job.sampling is None or job.method == "both" or job.sampling["start"] is None


def fit(job: Job, progress: Callable[[Any], None] | None = None) -> tuple[Fit, float]:
    """Fit a job on all devices; returns the result and the time, compilation included [s].

    Args:
        job: What to fit.
        progress: Called with half of chi2 after every evaluation of the model. The fit is then
            compiled separately, so leave it out if it is not shown.
    """
    begun = time.perf_counter()
    verb = fit_sequential if job.is_sequential else fit_nlsq
    devices = all_devices() if len(all_devices()) > 1 else None
    options = {"devices": devices, "progress": progress, **job.arguments}
    result = jax.block_until_ready(verb(job.model, job.data, job.space, **options))
    return result, time.perf_counter() - begun


def write_fit(
    job: Job, result: Fit, folder: Path, seconds: float, *, overwrite: bool = False
) -> None:
    """Write a fit, unless its posterior is to follow and to replace an old result with it.

    Arguments and errors are those of `write`.
    """
    if job.method == "nlsq" or (job.method == "both" and not job.replaces):
        write(job, result, folder, seconds, overwrite=overwrite)


def write(
    job: Job,
    result: Fit,
    folder: Path,
    seconds: float,
    *,
    post: CMCResult | None = None,
    overwrite: bool = False,
) -> None:
    """Write result.json, arrays.npz and report.md, all of them or nothing; `draw` adds figures.

    Angles that were fitted one after the other have a folder each, with an overview of all.

    Args:
        job: What was fitted.
        result: The result.
        folder: Folder of the results.
        seconds: Time the fit took [s].
        post: Its posterior, for the subfolder `posterior`.
        overwrite: Whether an existing result may be replaced.

    Raises:
        ResultError: If the folder cannot be written, or holds what may not be replaced.
    """
    timed = dataclasses.replace(job.provenance, wall_time=seconds)
    with new_folder(folder, overwrite=overwrite) as temporary:
        if isinstance(result, NLSQResult):
            _write_fit(job, job.data, result, temporary, timed)
        else:
            names = angle_folders(result)
            for k, (name, one) in enumerate(zip(names, result.fits, strict=True)):
                (temporary / name).mkdir()
                _write_fit(job, one_angle(job.data, k), one, temporary / name, timed)
            storage.write(temporary, result, provenance=timed)
        if post is not None:
            (temporary / POSTERIOR).mkdir()
            _write_posterior(job, post, temporary / POSTERIOR)
    _log.info("wrote %s", folder)


def _write_fit(
    job: Job, data: TwoTimeData, result: NLSQResult, folder: Path, provenance: Provenance
) -> None:
    arrays, curves = shown_arrays(result, job.model, data), curves_of(job, result)
    figures = _names(job, fit_plots.figures_of(result, arrays, curves))
    if job.saved:
        every = fitted_arrays(result, job.model, data)
        arrays |= {name: every[name] for name in job.saved if name in every}
    given: Any = {"curves": curves, "provenance": provenance, "figures": figures}
    storage.write(folder, result, arrays=arrays, **given)


def _names(job: Job, figures: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the files of figures, which are drawn into the folder once it is in place."""
    return () if job.figures is None else tuple(f"{name}.{job.figures}" for name in figures)


def curves_of(job: Job, result: Fit | CMCResult) -> dict[str, Curve]:
    """Functions of time of a result with bands; empty for angles fitted one after the other."""
    if isinstance(result, SequentialResult):
        return {}
    return functions_of_time(result, job.model, job.data.t)


def sample(
    job: Job,
    result: NLSQResult | None,
    folder: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> CMCResult:
    """Sample the posterior of a job; draws are kept in `folder`.run until sampling is complete.

    Args:
        job: What to sample.
        result: The fit to start from; None for chains that start at draws of the prior.
        folder: Folder for the results.
        overwrite: Whether an interrupted run may be deleted.
        resume: Whether to resume it.
        progress: Called after every block of draws.

    Raises:
        ResultError: If there is an interrupted run that may not be deleted, or none to resume.
    """
    assert job.sampling is not None
    kept = kept_run(folder, resume=resume, overwrite=overwrite)
    if kept.exists() and not resume:
        remove(kept, place_of(kept).part)
    settings = {**job.sampling, "start": job.sampling["start"] or result, "checkpoint": kept}
    settings |= {"resume": resume, "progress": progress}
    return fit_cmc(job.model, job.data, job.space, **settings)


def kept_run(folder: Path, *, resume: bool, overwrite: bool) -> Path:
    """The folder for the draws of a run until its result is in place.

    Raises:
        ResultError: If there is an interrupted run that may not be deleted, or none to resume.
    """
    kept = folder.parent / f"{folder.name}.run"
    if resume and not kept.exists():
        raise ResultError(f"{kept}: there is no interrupted run to resume; leave out --resume.")
    if resume:
        check_mark(kept)
    elif kept.exists() and not overwrite:
        ways = "resume it (--resume) or delete it (--overwrite)"
        raise ResultError(f"{kept}: holds an interrupted run; {ways}.")
    return kept


def write_posterior(
    job: Job,
    post: CMCResult,
    folder: Path,
    *,
    fit: tuple[Fit, float] | None = None,
    overwrite: bool = False,
) -> None:
    """Write result.json, posterior.npz and report.md, all of them or nothing; `draw` adds figures.

    With method "both" it is the subfolder `posterior` of the fit. An old result is replaced by fit
    and posterior together, and stays if sampling was interrupted. The kept draws of a complete
    run are removed in the end.

    Args:
        job: What was sampled.
        post: The posterior.
        folder: Folder of the results.
        fit: The fit and the time it took [s]; needed where both replace an old result.
        overwrite: Whether an existing result may be replaced.

    Raises:
        ResultError: If the folder cannot be written, or holds what may not be replaced.
    """
    if job.replaces and not post.is_complete:
        _log.warning("%s: the old result stays, as sampling was interrupted (--resume)", folder)
        return
    if job.method == "both" and job.replaces:
        assert fit is not None
        result, seconds = fit
        write(job, result, folder, seconds, post=post, overwrite=overwrite)
    else:
        target = folder / POSTERIOR if job.method == "both" else folder
        with new_folder(target, overwrite=overwrite) as temporary:
            _write_posterior(job, post, temporary)
        _log.info("wrote %s", target)
    kept = kept_run(folder, resume=False, overwrite=True)
    if post.is_complete and kept.exists() and jax.process_index() == 0:
        with writing(kept):
            remove(kept, place_of(kept).part)


def _write_posterior(job: Job, post: CMCResult, folder: Path) -> None:
    curves = curves_of(job, post)
    origin = dataclasses.replace(job.provenance, wall_time=float(post.seconds))
    arrays = posterior_plots.predicted(post, job.model, job.data)
    figures = _names(job, posterior_plots.figures_of(post, arrays, curves))
    given: Any = {"curves": curves, "provenance": origin, "figures": figures}
    storage.write(folder, post, arrays=arrays, **given)


def draw(
    job: Job, folder: Path, drawn: Callable[[str], None] = lambda name: None
) -> tuple[str, ...]:
    """Draw the figures of the results of a job that are in place; see `draw_missing`."""
    return () if job.figures is None else draw_missing(folder, job.figures, drawn)
