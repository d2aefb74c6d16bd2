"""Command line: each command calls one function of the library and shows what it returns.

Exit codes: 0 done (a fit converged), 1 error (one message, nothing is written), 2 a fit did not
converge (its results are written and marked), 130 interrupted.
"""

import functools
import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from twotime.cli.machine import set_up
from twotime.cli.running import (
    WORKER,
    fit_progress,
    interruptible,
    sampling_progress,
    terminable,
)
from twotime.cli.terminal import follow, listening, show, streams
from twotime.config.manager import ConfigManager
from twotime.config.parameter_names import ANALYSIS_MODES, DEFAULT_MODE
from twotime.data.readers import inspect_file
from twotime.errors import TwoTimeError
from twotime.results.storage import __version__

# Commands import what loads Matplotlib or Pydantic, so that help appears without delay.

CONVERGED, MISTAKE, NOT_CONVERGED, INTERRUPTED = 0, 1, 2, 130

COUNTED = 2e7  # points of c2 from which evaluations are shown, by code that cannot be cached

FILE = click.Path(path_type=Path)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing files.")

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        arguments: The words after the program's name; None takes them from the process.
    """
    with streams():
        console = Console(stderr=True)
        with listening(console), terminable():
            return _run(arguments, console)


def _run(arguments: Sequence[str] | None, console: Console) -> int:
    try:
        code = twotime.main(arguments, "twotime", standalone_mode=False, obj=console)
        return code if isinstance(code, int) else CONVERGED
    except click.ClickException as exc:
        _log.error("%s", exc.format_message().replace("\n", " "))
        return MISTAKE
    except (KeyboardInterrupt, click.Abort) as exc:
        said = str(exc.__cause__ or exc)  # Click raises Abort from a KeyboardInterrupt
        _log.error("interrupted; %s", said or "nothing was written")
        if any(thread.name == WORKER for thread in threading.enumerate()):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)  # compiled code that runs ends only with the process
        return INTERRUPTED
    except (ValueError, TypeError, OSError) as exc:
        if not _is_a_sentence(exc):
            raise
        _log.debug("%s", traceback.format_exc())
        _log.error("%s", exc)
        return MISTAKE


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="twotime %(version)s")
def twotime() -> None:
    """Fit two-time X-ray photon correlation data (XPCS)."""


@twotime.command()
@click.option("--model", default=DEFAULT_MODE, type=click.Choice(ANALYSIS_MODES), show_default=True)
@click.option("-o", "--output", default="run.yaml", type=FILE, show_default=True)
@click.option("--example", is_flag=True, help="Also simulate a data file to try it on.")
@click.option("--full", is_flag=True, help="Include every key.")
@OVERWRITE
def init(model: str, output: Path, **options: Any) -> None:
    """Write a commented configuration to start from."""
    from twotime import scaffold

    if options["example"]:
        set_up("auto")
    for path in scaffold.start(model, output, **options):
        print(f"wrote {path}")
    print(f"next: twotime fit {output}")


@twotime.command()
@click.argument("config", type=FILE)
def validate(config: Path) -> None:
    """Check a configuration and report all errors at once."""
    valid = ConfigManager.from_yaml(config)
    for remark in valid.warnings:
        _log.warning("%s", remark)
    varying = ", ".join(valid.space.varying_names)
    print(f"{config}: valid; {valid.analysis_mode}, fits {varying}")


@twotime.command()
@click.argument("file", type=FILE)
def inspect(file: Path) -> None:
    """Show layout, q, angles, frames and dt of a data file."""
    print(inspect_file(file))


@twotime.command()
@click.argument("config", type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="Data file to write.")
@click.option("--pixels", default=10_000, type=click.IntRange(min=1), show_default=True,
              help="Number of detector pixels averaged per angle.")  # fmt: skip
@click.option("--photons", type=click.FloatRange(min=0, min_open=True),
              help="Mean counts per pixel and frame; default: no shot noise.")  # fmt: skip
@click.option("--noise", type=click.FloatRange(min=0),
              help="Standard deviation of independent noise, instead of speckle.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Seed of the random numbers.")
@OVERWRITE
def simulate(config: Path, output: Path, **options: Any) -> None:
    """Simulate a data file from a configuration."""
    from twotime import scaffold

    set_up("auto")
    scaffold.simulate_file(config, output, **options)
    print(f"wrote {output}")


@twotime.command()
@click.argument("config", type=FILE)
@click.option("-o", "--output", type=FILE, help="Folder for the results.")
@click.option("--method", type=click.Choice(["nlsq", "cmc", "both"]),
              help="Use this method instead of optimization.method.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace an existing result.")
@click.option("--resume", is_flag=True, help="Resume interrupted sampling.")
@click.option("-v", "--verbose", is_flag=True, help="Show more detail.")
@click.pass_obj
def fit(
    console: Console,
    config: Path,
    output: Path | None,
    method: str | None,
    overwrite: bool,
    resume: bool,
    verbose: bool,
) -> int:
    """Fit or sample, and write results, figures and a report."""
    from twotime import workflow

    settings = ConfigManager.from_yaml(config)
    if method is not None:
        settings = workflow.with_method(settings, method)
    logs = settings.section("logging") | ({"level": "DEBUG"} if verbose else {})
    follow(logs, settings.base_dir)
    set_up(settings.section("hardware")["device"])
    folder, overwrite = output or settings.output_dir, overwrite or resume
    before = _written(folder)
    try:
        with workflow.claim(folder, overwrite=overwrite):
            job = workflow.prepare(settings, folder, overwrite=overwrite, resume=resume)
            return _fit(job, folder, settings, console, verbose, overwrite, resume)
    except KeyboardInterrupt:
        is_new = _written(folder) != before
        raise KeyboardInterrupt(f"{folder} was written" if is_new else "") from None


def _written(folder: Path) -> Any:
    """What changes when something is written into a folder."""
    paths = [path for path in (folder, folder / "posterior") if path.exists()]
    return [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]


def _fit(
    job: Any,
    folder: Path,
    settings: ConfigManager,
    console: Console,
    verbose: bool,
    overwrite: bool,
    resume: bool,
) -> int:
    from twotime import workflow

    result: Any = None
    seconds, is_logged = 0.0, settings.section("logging")["log_convergence"]
    if workflow.needs_fit(job):
        is_counted = verbose or job.data.c2.size > COUNTED
        with fit_progress(console, is_counted, is_logged) as progress:
            result, seconds = interruptible(lambda: workflow.fit(job, progress))
        show(result, seconds, workflow.curves_of(job, result))
        workflow.write_fit(job, result, folder, seconds, overwrite=overwrite)
    if job.sampling is None:
        return CONVERGED if result.converged else NOT_CONVERGED
    stop, is_shown = threading.Event(), settings.get_cmc_config()["backend"]["progress_bar"]
    with sampling_progress(console, stop, is_shown) as progress:
        sample = functools.partial(workflow.sample, overwrite=overwrite, resume=resume)
        post = interruptible(lambda: sample(job, result, folder, progress=progress), stop)
    show(post, float(post.seconds), workflow.curves_of(job, post))
    workflow.write_posterior(job, post, folder, fit=(result, seconds), overwrite=overwrite)
    if not post.is_complete:
        return INTERRUPTED
    return CONVERGED if post.converged else NOT_CONVERGED


@twotime.command()
@click.argument("folder", type=FILE)
@click.option("-o", "--output", type=FILE, help="Write the figures to another folder.")
def plot(folder: Path, output: Path | None) -> None:
    """Draw the figures of saved results again."""
    from twotime import workflow

    set_up("auto")
    for name in workflow.redraw(folder, output):
        print(f"wrote {(output or folder) / name}")


@twotime.command()
def schema() -> None:
    """Print the JSON schema of the configuration, for editors."""
    from twotime.config.files import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _is_a_sentence(exc: BaseException) -> bool:
    """Whether an error was raised by the package itself, or is a refusal of the system."""
    if isinstance(exc, TwoTimeError | OSError):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    is_own = frames[-1].f_globals.get("__name__", "").startswith("twotime.")
    return is_own and "\n" not in str(exc)
