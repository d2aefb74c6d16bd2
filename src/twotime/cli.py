"""Command line: every command calls one verb of the library and shows what it returned.

Exit codes: 0 done (a fit converged), 1 a mistake in what was asked, 2 a fit ran but did not
converge (its results are written and marked), 130 interrupted.
"""

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import logging
import os
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, SupportsFloat, TypeVar

import click
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from twotime import console as messages
from twotime import report as words
from twotime.config.parameter_names import ANALYSIS_MODES, DEFAULT_MODE
from twotime.errors import ConfigurationError
from twotime.version import __version__

CONVERGED, MISTAKE, NOT_CONVERGED, INTERRUPTED = 0, 1, 2, 130

COUNTED = 2e7
"""Pixels from which evaluations are counted; that takes a compilation which cannot be kept."""

MODELS = click.Choice(ANALYSIS_MODES)
METHODS = click.Choice(["nlsq", "cmc", "both"])
FILE = click.Path(path_type=Path)

T = TypeVar("T")

_WORKER = "twotime-fit"
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        arguments: What stands behind the program's name; None takes it from the process.
    """
    console = Console(stderr=True)
    with messages.listening(console):
        try:
            code = twotime.main(arguments, "twotime", standalone_mode=False, obj=console)
            return code if isinstance(code, int) else CONVERGED
        except click.ClickException as exc:
            _log.error("%s", exc.format_message().replace("\n", " "))
            return MISTAKE
        except (KeyboardInterrupt, click.Abort):
            _log.error("interrupted; nothing was written")
            return _stopped()
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
@click.option("--model", default=DEFAULT_MODE, type=MODELS, show_default=True)
@click.option("-o", "--output", default="run.yaml", type=FILE, show_default=True)
@click.option("--example", is_flag=True, help="Simulate the data file beside it, to try it on.")
@click.option("--full", is_flag=True, help="Write every key there is.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
def init(model: str, output: Path, example: bool, full: bool, overwrite: bool) -> None:
    """Write a commented configuration to start from."""
    from twotime import scaffold as starting

    if example:
        set_up("auto")
    written = starting.start(model, output, example=example, full=full, overwrite=overwrite)
    for path in written:
        click.echo(f"wrote {path}")
    click.echo(f"next: twotime fit {output}")


@twotime.command()
@click.argument("config", type=FILE)
def validate(config: Path) -> None:
    """Tell every mistake of a configuration at once."""
    from twotime.config.manager import ConfigManager

    valid = ConfigManager.from_yaml(config)
    for remark in valid.warnings:
        _log.warning("%s", remark)
    varying = ", ".join(valid.space.varying_names)
    click.echo(f"{config}: valid; {valid.analysis_mode}, fits {varying}")


@twotime.command()
@click.argument("file", type=FILE)
def inspect(file: Path) -> None:
    """Say what a data file holds: layout, q, angles, frames, dt, empty bins."""
    from twotime.data.readers import inspect_file

    click.echo(inspect_file(file))


@twotime.command()
@click.argument("config", type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="Data file to write.")
@click.option("--pixels", default=10_000, type=click.IntRange(min=1), show_default=True,
              help="Detector pixels per angle that speckle is averaged over.")  # fmt: skip
@click.option("--photons", type=click.FloatRange(min=0, min_open=True),
              help="Mean counts per pixel and frame; left out: no shot noise.")  # fmt: skip
@click.option("--noise", type=click.FloatRange(min=0),
              help="Independent noise of this standard deviation in place of speckle.")  # fmt: skip
@click.option("--seed", default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def simulate(config: Path, output: Path, overwrite: bool, **options: Any) -> None:
    """Write a data file with the parameters of a configuration."""
    from twotime import scaffold as starting

    set_up("auto")
    starting.simulate_file(config, output, overwrite=overwrite, **options)
    click.echo(f"wrote {output}")


@twotime.command()
@click.argument("config", type=FILE)
@click.option("-o", "--output", type=FILE, help="Folder of the results.")
@click.option("--method", type=METHODS, help="In place of optimization.method.")
@click.option("--overwrite", is_flag=True, help="Replace a result that is there.")
@click.option("--resume", is_flag=True, help="Go on with sampling that did not end.")
@click.option("-v", "--verbose", is_flag=True, help="Say more.")
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
    """Fit or sample as a configuration says, and write results, figures and a report."""
    from twotime import workflow as run
    from twotime.config.manager import ConfigManager

    settings = ConfigManager.from_yaml(config)
    if method is not None:
        settings = run.with_method(settings, method)
    said = settings.section("logging")
    messages.follow(said | ({"level": "DEBUG"} if verbose else {}), settings.base_dir)
    set_up(settings.section("hardware")["device"])
    folder = settings.output_dir if output is None else output
    overwrite = overwrite or resume
    job = run.prepare(settings, folder, overwrite=overwrite)
    result = _fit(console, job, folder, overwrite, verbose, said) if run.needs_fit(job) else None
    if job.sampling is None:
        assert result is not None
        return CONVERGED if result.converged else NOT_CONVERGED
    shown = settings.get_cmc_config()["backend"]["progress_bar"]
    return _sample(console, job, result, folder, overwrite, resume, shown)


def _fit(
    console: Console,
    job: Any,
    folder: Path,
    overwrite: bool,
    verbose: bool,
    said: Mapping[str, Any],
) -> Any:
    """Fit, write and show a job; a fit that only serves to sample from is not written."""
    from twotime import workflow as run

    is_counted = verbose or job.data.c2.size > COUNTED
    with _display(console, is_counted=is_counted, is_logged=said["log_convergence"]) as progress:
        result, seconds = _interruptible(lambda: run.fit(job, progress))
    if job.method != "cmc":
        run.write(job, result, folder, seconds, overwrite=overwrite)
    _show(result.table)
    for remark in result.remarks:
        click.echo(remark)
    click.echo(f"{result.status}; {seconds:.1f} s")
    return result


def _sample(
    console: Console,
    job: Any,
    result: Any,
    folder: Path,
    overwrite: bool,
    resume: bool,
    is_shown: bool,
) -> int:
    """Sample, write and show a job; Ctrl-C ends sampling and keeps what was drawn."""
    from twotime import workflow as run

    stop = threading.Event()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    is_hidden = not (is_shown and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=is_hidden) as bar:
        task = bar.add_task("sampling: compiling")

        def progress(step: Any) -> None:
            text = f"{step.stage}: {step.gradients:.0f} gradients/s, {step.divergences} divergences"
            bar.update(task, description=text, completed=step.done, total=step.total)
            _log.debug("%d of %d draws; %s", step.done, step.total, text)
            if stop.is_set():
                raise KeyboardInterrupt

        def work() -> Any:
            return run.sample(
                job, result, folder, overwrite=overwrite, resume=resume, progress=progress
            )

        post = _interruptible(work, stop)
    run.write_posterior(job, post, folder, overwrite=overwrite)
    _show(post.table)
    for remark in post.remarks:
        click.echo(remark)
    click.echo(f"{post.status}; {float(post.seconds):.1f} s")
    if not post.is_complete:
        return INTERRUPTED
    return CONVERGED if post.converged else NOT_CONVERGED


@twotime.command()
@click.argument("folder", type=FILE)
@click.option("-o", "--output", type=FILE, help="Folder for the figures, if not the same.")
def plot(folder: Path, output: Path | None) -> None:
    """Draw the figures of saved results again."""
    from twotime import workflow as run

    set_up("auto")
    for name in run.redraw(folder, output):
        click.echo(f"wrote {(output or folder) / name}")


@twotime.command()
def schema() -> None:
    """Print the JSON schema of configurations, for editors."""
    from twotime.config.template import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def set_up(device: str) -> None:
    """Switch on double precision and a cache of compiled code, and choose the device.

    The library never does this; programs that want the same as the command line call it.

    Args:
        device: "auto", "cpu", "gpu" or "tpu".

    Raises:
        ValueError: If there is no such device.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    cache = jax.config.values["jax_compilation_cache_dir"]
    if cache is None:
        cache = _cache_folder(importlib.metadata.version("jaxlib"))
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    _log.debug("compiled code is kept in %s", cache)
    if device != "auto":
        try:
            jax.config.update("jax_default_device", jax.devices(device)[0])
        except RuntimeError as exc:
            raise ValueError(
                f"hardware.device is {device!r}, which JAX does not find here; expected one it "
                "can use; set auto."
            ) from exc


def _cache_folder(jaxlib: str) -> Path:
    """Folder of compiled code, one for each jaxlib and processor."""
    base = {"win32": "LOCALAPPDATA"}.get(sys.platform, "XDG_CACHE_HOME")
    parent = Path(os.environ.get(base) or Path.home() / ".cache")
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else [platform.processor()]
    wanted = ("model name", "flags", "Features")
    processor = "\n".join(sorted({line for line in lines if line.startswith(wanted)})) or lines[0]
    key = hashlib.sha256(f"{platform.machine()}\n{processor}".encode()).hexdigest()[:12]
    return parent / "twotime" / f"jaxlib-{jaxlib}-{key}"


@contextlib.contextmanager
def _display(
    console: Console, *, is_counted: bool, is_logged: bool
) -> Iterator[Callable[[SupportsFloat], None] | None]:
    """Show that a fit goes on; gives what to call after every evaluation, or None.

    Args:
        console: Where it is shown, if that is a terminal.
        is_counted: Whether evaluations and χ² are shown, not the time alone.
        is_logged: Whether they are messages too.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    count = itertools.count(1)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("fitting")

        def progress(cost: SupportsFloat) -> None:
            text = f"evaluation {next(count)}: χ² = {2 * float(cost):.8g}"
            bar.update(task, description=text)
            if is_logged:
                _log.info("%s", text)

        yield progress if is_logged or (is_counted and console.is_terminal) else None


def _interruptible(work: Callable[[], T], stop: threading.Event | None = None) -> T:
    """Do work in a thread, so that Ctrl-C is heard while compiled code runs.

    Args:
        work: What to do.
        stop: Set by the first Ctrl-C, for work that ends by itself then; None leaves at once.
    """
    future: Future[T] = Future()

    def body() -> None:
        try:
            future.set_result(work())
        except BaseException as exc:  # not swallowed: `result` raises it in the main thread
            future.set_exception(exc)

    threading.Thread(target=body, name=_WORKER, daemon=True).start()
    try:
        return future.result()
    except KeyboardInterrupt:
        if stop is None or future.done():
            raise
        stop.set()
        _log.warning("sampling ends after this block of draws; Ctrl-C again leaves at once")
        return future.result()


def _stopped() -> int:
    """Exit code after Ctrl-C; compiled code that still runs cannot be stopped but by leaving."""
    if any(thread.name == _WORKER for thread in threading.enumerate()):
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    return INTERRUPTED


def _is_a_sentence(exc: BaseException) -> bool:
    """Whether an error was raised by the package itself, or says what the system refused."""
    if isinstance(exc, ConfigurationError | OSError):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    is_own = frames[-1].f_globals.get("__name__", "").startswith("twotime.")
    return is_own and "\n" not in str(exc)


def _show(table: words.Table) -> None:
    """Print a table to the standard output, less some columns where a terminal is narrow."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    for hidden in ((), ("bounds",), ("bounds", "± if independent")):
        shown = _drawn(table, hidden)
        if console.measure(shown).maximum <= console.width:
            break
    console.print(shown)


def _drawn(table: words.Table, hidden: tuple[str, ...]) -> Table:
    drawn = Table(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    kept = [k for k, head in enumerate(table.columns) if head not in hidden]
    for k in kept:
        drawn.add_column(table.columns[k], no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(row[k] for k in kept))
    return drawn
