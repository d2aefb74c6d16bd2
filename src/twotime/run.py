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

from twotime import folders, storage
from twotime.config.errors import ConfigurationError
from twotime.config.findings import lookup
from twotime.config.manager import ConfigManager
from twotime.config.parameter_space import ParameterSpace
from twotime.core.build import build_model
from twotime.core.models import AbstractTwoTimeModel
from twotime.data.dataset import TwoTimeData
from twotime.data.load import load_with_report
from twotime.data.prepare import LoadReport
from twotime.inference.bands import Band, delta_bands
from twotime.inference.nlsq import fit_nlsq
from twotime.report import Curve, Provenance
from twotime.results import NLSQResult, fitted_arrays, load_result

_log = logging.getLogger(__name__)

_RUNS: Mapping[tuple[str, ...], tuple[Any, ...]] = {
    ("optimization", "method"): ("nlsq",),
    ("optimization", "cmc", "enable"): ("auto", "never"),
    ("optimization", "nlsq", "multistart"): (False,),
    ("optimization", "nlsq", "start"): ("auto", "values"),
    ("optimization", "nlsq", "loss"): ("linear",),
    ("streaming", "enable"): (False,),
    ("sequential", "enable"): (False,),
}
"""Settings of which this version runs some values only."""


class Job(NamedTuple):
    """All that a fit needs, and where it comes from.

    Attributes:
        model: The model.
        data: The data.
        space: Start, bounds and which parameters vary.
        arguments: Settings of `fit_nlsq`.
        provenance: Settings and facts about the data.
        unsaved: Names of the arrays that are not to be saved.
    """

    model: AbstractTwoTimeModel
    data: TwoTimeData
    space: ParameterSpace
    arguments: Mapping[str, Any]
    provenance: Provenance
    unsaved: tuple[str, ...]


def run(
    config: ConfigManager,
    folder: str | Path | None = None,
    *,
    overwrite: bool = False,
    progress: Callable[[Any], None] | None = None,
) -> NLSQResult:
    """Load, fit and write what a configuration asks for.

    Args:
        config: A validated configuration.
        folder: Folder of the results; None takes `output.output_dir` of the configuration.
        overwrite: Whether a result that is there may be replaced.
        progress: Called with half of chi2 after every evaluation of the model.

    Returns:
        The result, which is in the folder whether it converged or not.

    Raises:
        ConfigurationError: If this version cannot run a setting.
        DataError: If the data file is damaged or does not hold what is asked for.
        ResultError: If the folder cannot be written, or holds what may not be replaced.
        ValueError: If float64 is off, or the data cannot be fitted.
    """
    folder = config.output_dir if folder is None else Path(folder)
    job = prepare(config, folder, overwrite=overwrite)
    result, seconds = fit(job, progress)
    write(job, result, folder, seconds, overwrite=overwrite)
    return result


def prepare(config: ConfigManager, folder: Path, *, overwrite: bool = False) -> Job:
    """Check the settings and the folder, read the data, build the model.

    Args:
        config: A validated configuration.
        folder: Folder that the results are meant for.
        overwrite: Whether a result that is there may be replaced.

    Raises:
        ConfigurationError: If this version cannot run a setting.
        DataError: If the data file is damaged or does not hold what is asked for.
        ResultError: If the folder cannot be written, or holds what may not be replaced.
    """
    check_runs(config)
    folders.check_folder(folder, overwrite=overwrite)
    for remark in config.warnings:
        _log.warning("%s", remark)
    data, account = load_with_report(config)
    for note in account.notes:
        _log.warning("%s", note)
    _log.info("read %s: %d angles, %d frames", account.path, data.c2.shape[0], data.c2.shape[1])
    nlsq, output = config.nlsq_config, config.section("output")
    wanted = {"c2": output["save_correlation"], "residual": output["save_residuals"]}
    wanted["model"] = wanted["c2"]
    arguments = {
        "per_angle_mode": nlsq["per_angle_mode"],
        "evaluator": nlsq["evaluator"],
        "max_steps": nlsq["max_iterations"],
        "tolerance": nlsq["tolerance"],
    }
    return Job(
        model=build_model(config),
        data=data,
        space=config.space,
        arguments=arguments,
        provenance=_provenance(config, account),
        unsaved=tuple(name for name, is_wanted in wanted.items() if not is_wanted),
    )


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


def check_runs(config: ConfigManager) -> None:
    """Refuse settings that the configuration knows and this version cannot run.

    Raises:
        ConfigurationError: If there are any; all are told at once.
    """
    written = config.get_config()
    asked = {path: lookup(written, path) for path in _RUNS}
    problems = [
        f"{'.'.join(path)}: {asked[path]!r} cannot be run by this version of twotime; "
        f"expected {' or '.join(str(value) for value in values)}."
        for path, values in _RUNS.items()
        if asked[path] is not None and asked[path] not in values
    ]
    if problems:
        raise ConfigurationError(problems)


def fit(job: Job, progress: Callable[[Any], None] | None = None) -> tuple[NLSQResult, float]:
    """Fit a job; returns the result and the time it took, compilation included [s].

    Args:
        job: What to fit.
        progress: Called with half of chi2 after every evaluation of the model. It makes XLA
            compile the fit anew, so leave it out where nobody looks.
    """
    begun = time.perf_counter()
    result = fit_nlsq(job.model, job.data, job.space, progress=progress, **job.arguments)
    result = jax.block_until_ready(result)
    return result, time.perf_counter() - begun


def write(
    job: Job, result: NLSQResult, folder: Path, seconds: float, *, overwrite: bool = False
) -> None:
    """Write result.json, arrays.npz, report.md and figures, all of them or nothing.

    Args:
        job: What was fitted.
        result: The result.
        folder: Folder of the results.
        seconds: Time the fit took [s].
        overwrite: Whether a result that is there may be replaced.

    Raises:
        ResultError: If the folder cannot be written, or holds what may not be replaced.
    """
    from twotime import plots

    provenance = dataclasses.replace(job.provenance, wall_time=seconds)
    arrays = fitted_arrays(result, job.model, job.data)
    curves = functions_of_time(result, job.model, job.data.t)
    kept = {name: array for name, array in arrays.items() if name not in job.unsaved}
    with folders.new_folder(folder, overwrite=overwrite) as temporary:
        figures = plots.save_figures(temporary, result, arrays, curves)
        storage.write_result(temporary, result, kept, curves, provenance, figures)
    _log.info("wrote %s", folder)


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
    curves = {}
    for name, band in _bands(model, result, jnp.asarray(t)):
        values, lower, upper = map(np.asarray, (band.values, band.lower, band.upper))
        curves[name] = Curve(values, lower, upper, band.unit, band.symbol, band.description)
    return curves


@eqx.filter_jit
def _bands(model: AbstractTwoTimeModel, result: NLSQResult, t: Array) -> list[tuple[str, Band]]:
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
    from twotime import plots

    folder = Path(folder)
    result, arrays = load_result(folder), storage.read_arrays(folder)
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
        "pixels": account.n_pixels,
        "masked_pixels": account.n_masked,
    }
    settings = config.get_config()
    settings["analysis_mode"] = config.analysis_mode
    settings["model"] = config.section("model")
    settings["output"] = config.section("output")
    settings["optimization"] = {"method": config.optimization_method, "nlsq": config.nlsq_config}
    return Provenance(
        settings=settings,
        source=source,
        notes=(*account.notes, *config.warnings),
        metadata=config.section("metadata"),
    )
