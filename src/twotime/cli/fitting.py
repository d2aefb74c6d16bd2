"""One fit of the command line: shown while it runs, written, then drawn."""

import threading
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from twotime import workflow
from twotime.cli.running import counted, fit_progress, interruptible, phase, sampling_progress
from twotime.cli.terminal import CONVERGED, INTERRUPTED, NOT_CONVERGED, Shown, show, show_json
from twotime.config.manager import ConfigManager

_COUNTED = 2e7  # points of c2 from which evaluations are shown, by code that cannot be cached


class Run(NamedTuple):
    """What `twotime fit` is to do, see `workflow`, and how it shows it."""

    job: Any
    folder: Path
    settings: ConfigManager
    console: Console
    shown: Shown
    verbose: bool
    overwrite: bool
    resume: bool


def fit_one(run: Run) -> int:
    """Fit or sample, show and write what was found; gives the exit code."""
    job, folder, settings, console = run.job, run.folder, run.settings, run.console
    results: dict[str, Any] = {}
    result: Any = None
    seconds, is_logged = 0.0, settings.section("logging")["log_convergence"]
    if workflow.needs_fit(job):
        is_counted = run.verbose or job.data.c2.size > _COUNTED
        with fit_progress(console, is_counted, is_logged) as progress:
            result, seconds = interruptible(lambda: workflow.fit(job, progress))
        results["fit"] = result
        show(run.shown, result, seconds, workflow.curves_of(job, result))
        with phase(console, "writing"):
            workflow.write_fit(job, result, folder, seconds, overwrite=run.overwrite)
        _draw(run)
    if job.sampling is None:
        show_json(run.shown, results)
        return CONVERGED if result.converged else NOT_CONVERGED
    stop, is_shown = threading.Event(), settings.get_cmc_config()["backend"]["progress_bar"]
    with sampling_progress(console, stop, is_shown) as progress:
        again = {"overwrite": run.overwrite, "resume": run.resume, "progress": progress}
        post = interruptible(lambda: workflow.sample(job, result, folder, **again), stop)
    show(run.shown, post, float(post.seconds), workflow.curves_of(job, post))
    show_json(run.shown, results | {"posterior": post})
    with phase(console, "writing"):
        done = result, seconds
        workflow.write_posterior(job, post, folder, fit=done, overwrite=run.overwrite)
    _draw(run)
    if not post.is_complete:
        return INTERRUPTED
    return CONVERGED if post.converged else NOT_CONVERGED


def _draw(run: Run) -> None:
    """Draw the figures of a result that is in place, so that Ctrl-C loses nothing but these."""
    if run.job.figures is None or not run.folder.exists():
        return
    with counted(run.console, "drawing") as drawn:
        try:
            interruptible(lambda: workflow.draw(run.job, run.folder, drawn))
        except KeyboardInterrupt:
            again = f"{run.folder} was written; its figures: twotime plot {run.folder}"
            raise KeyboardInterrupt(again) from None
