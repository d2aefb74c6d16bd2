"""Command line: each command calls one function of the library and shows what it returns.

Exit codes: 0 done (a fit converged), 1 error (one message, nothing is written), 2 a fit did not
converge (its results are written and marked), 130 interrupted.
"""

import contextlib
import functools
import glob
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
from rich import progress as bars
from rich.console import Console
from rich.table import Table

from twotime.config.manager import ConfigManager
from twotime.config.parameter_names import ANALYSIS_MODES, DEFAULT_MODE
from twotime.data.inspect import inspect_file
from twotime.errors import TwoTimeError
from twotime.results.storage import __version__, describe

# Commands import what loads Matplotlib or Pydantic, so that help appears without delay.

CONVERGED, MISTAKE, NOT_CONVERGED, INTERRUPTED = 0, 1, 2, 130

COUNTED = 2e7  # points of c2 from which evaluations are shown, by code that cannot be cached

FILE = click.Path(path_type=Path)
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing files.")

T = TypeVar("T")
_WORKER = "twotime-fit"
_STYLES = {"WARNING": "yellow", "ERROR": "bold red", "DEBUG": "dim"}
_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        arguments: The words after the program's name; None takes them from the process.
    """
    console = Console(stderr=True)
    with listening(console):
        try:
            code = twotime.main(arguments, "twotime", standalone_mode=False, obj=console)
            return code if isinstance(code, int) else CONVERGED
        except click.ClickException as exc:
            _log.error("%s", exc.format_message().replace("\n", " "))
            return MISTAKE
        except (KeyboardInterrupt, click.Abort):
            _log.error("interrupted; nothing was written")
            if any(thread.name == _WORKER for thread in threading.enumerate()):
                sys.stderr.flush()
                os._exit(INTERRUPTED)  # compiled code that runs ends only with the process
            return INTERRUPTED
        except (ValueError, TypeError, OSError) as exc:
            if not _is_a_sentence(exc):
                raise
            _log.debug("%s", traceback.format_exc())
            _log.error("%s", exc)
            return MISTAKE


_LAW = f"{', '.join(ANALYSIS_MODES)}, or an import path (package.module.Class)."


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="twotime %(version)s")
def twotime() -> None:
    """Fit two-time X-ray photon correlation data (XPCS)."""


@twotime.command()
@click.option("--model", default=DEFAULT_MODE, show_default=True, metavar="LAW", help=_LAW)
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
        click.echo(f"wrote {path}")
    click.echo(f"next: twotime fit {output}")


@twotime.command()
@click.argument("config", type=FILE)
def validate(config: Path) -> None:
    """Check a configuration and report all errors at once."""
    valid = ConfigManager.from_yaml(config)
    for remark in valid.warnings:
        _log.warning("%s", remark)
    varying = ", ".join(valid.space.varying_names)
    click.echo(f"{config}: valid; {valid.analysis_mode}, fits {varying}")


@twotime.command()
@click.argument("file", type=FILE)
def inspect(file: Path) -> None:
    """Show layout, q, angles, frames and dt of a data file, and what each matrix is like."""
    click.echo(inspect_file(file))


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
    click.echo(f"wrote {output}")


@twotime.command()
@click.argument("config", type=FILE)
@click.option("-o", "--output", type=FILE, help="Folder for the results.")
@click.option("--method", type=click.Choice(["nlsq", "cmc", "both"]),
              help="Use this method instead of optimization.method.")  # fmt: skip
@click.option("--q", help="Wavevectors instead of wavevector_q: all, or numbers joined by commas.")
@click.option("--together", is_flag=True, help="Fit one law to all wavevectors.")
@click.option("--data", multiple=True, help="Data file or pattern ('scan_*.h5'); may be repeated.")
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
    **chosen: Any,
) -> int:
    """Fit or sample, and write results, figures and a report.

    Several wavevectors or files have a folder each, with a table of all; a second call fits what
    is missing.
    """
    from twotime import batch, workflow

    settings, files = ConfigManager.from_yaml(config), _files(chosen["data"])
    one = files[0] if len(files) == 1 else None
    settings = batch.with_choice(settings, chosen["q"], is_together=chosen["together"], file=one)
    if method is not None:
        settings = workflow.with_method(settings, method)
    logs = settings.section("logging") | ({"level": "DEBUG"} if verbose else {})
    follow(logs, settings.base_dir)
    set_up(settings.section("hardware")["device"])
    if batch.is_batch(settings, files):
        return _fit_all(settings, output or settings.output_dir, files, overwrite=overwrite)
    folder, overwrite = output or settings.output_dir, overwrite or resume
    job = workflow.prepare(settings, folder, overwrite=overwrite)
    result: Any = None
    if workflow.needs_fit(job):
        is_counted = verbose or job.data.c2.size > COUNTED
        with _fit_progress(console, is_counted, logs["log_convergence"]) as progress:
            result, seconds = _interruptible(lambda: workflow.fit(job, progress))
        if job.method != "cmc":  # there it is only the start of sampling
            workflow.write(job, result, folder, seconds, overwrite=overwrite)
        _show(result, seconds, workflow.curves_of(job, result))
    if job.sampling is None:
        return CONVERGED if result.converged else NOT_CONVERGED
    stop, is_shown = threading.Event(), settings.get_cmc_config()["backend"]["progress_bar"]
    with _sampling_progress(console, stop, is_shown) as progress:
        sample = functools.partial(workflow.sample, overwrite=overwrite, resume=resume)
        post = _interruptible(lambda: sample(job, result, folder, progress=progress), stop)
    workflow.write_posterior(job, post, folder, overwrite=overwrite)
    _show(post, float(post.seconds), workflow.curves_of(job, post))
    if not post.is_complete:
        return INTERRUPTED
    return CONVERGED if post.converged else NOT_CONVERGED


def _files(patterns: Sequence[str]) -> list[Path]:
    """Files that patterns name, each once; a name that matches nothing stays, to be told of."""
    found = dict[Path, None]()
    for pattern in patterns:
        found |= dict.fromkeys(map(Path, sorted(glob.glob(pattern)) or [pattern]))
    return list(found)


def _fit_all(settings: ConfigManager, folder: Path, files: Sequence[Path], **options: Any) -> int:
    """Fit all items of a batch and tell of each."""
    from twotime import batch

    def tell(done: Any, count: int, total: int) -> None:
        state = done.fault or done.result.status
        _log.info("%d of %d, %s: %s", count, total, done.item.name, state)

    outcomes = _interruptible(lambda: batch.run(settings, folder, files, progress=tell, **options))
    failed = [x for x in outcomes if x.result is None]
    loose = sum(x.result is not None and not x.is_good for x in outcomes)
    click.echo(f"{len(outcomes)} fits in {folder}: {len(failed)} failed, {loose} not converged")
    for x in failed:
        click.echo(f"failed: {x.item.name}: {x.fault}")
    return CONVERGED if all(x.is_good for x in outcomes) else NOT_CONVERGED


@twotime.command()
@click.argument("folder", type=FILE)
@click.option("-o", "--output", type=FILE, help="Write the figures to another folder.")
def plot(folder: Path, output: Path | None) -> None:
    """Draw the figures of saved results again."""
    from twotime import workflow

    set_up("auto")
    for name in workflow.redraw(folder, output):
        click.echo(f"wrote {(output or folder) / name}")


@twotime.command()
@click.option("--model", metavar="LAW", help=f"With the keys and parameters of a law: {_LAW}")
def schema(model: str | None) -> None:
    """Print the JSON schema of the configuration, for editors."""
    from twotime.config.files import json_schema

    click.echo(json.dumps(json_schema(model), indent=2, ensure_ascii=False))


def set_up(device: str) -> None:
    """Switch on double precision and a cache of compiled code, and choose the device.

    Importing twotime does not do this; programs that want the same call this function.

    Args:
        device: "auto", "cpu", "gpu" or "tpu".

    Raises:
        ValueError: If there is no such device.
    """
    import jax

    jax.config.update("jax_enable_x64", True)
    cache = jax.config.values["jax_compilation_cache_dir"]
    if cache is None:
        cache = _cache_folder()
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    _log.debug("compiled code is kept in %s", cache)
    if device != "auto":
        try:
            jax.config.update("jax_default_device", jax.devices(device)[0])
        except RuntimeError as exc:
            raise ValueError(
                f"hardware.device is {device!r}, which JAX does not find here; expected a device "
                "of this machine; set auto."
            ) from exc


def _cache_folder() -> Path:
    """Folder of compiled code, one for each jaxlib and CPU."""
    base = {"win32": "LOCALAPPDATA"}.get(sys.platform, "XDG_CACHE_HOME")
    parent = Path(os.environ.get(base) or Path.home() / ".cache")
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else [platform.processor()]
    kept = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    cpu = "\n".join(sorted(kept)) or lines[0]
    key = hashlib.sha256(f"{platform.machine()}\n{cpu}".encode()).hexdigest()[:12]
    return parent / "twotime" / f"jaxlib-{importlib.metadata.version('jaxlib')}-{key}"


def _bar(console: Console, *columns: Any, is_shown: bool = True) -> bars.Progress:
    is_hidden = not (is_shown and console.is_terminal)
    return bars.Progress(*columns, console=console, transient=True, disable=is_hidden)


@contextlib.contextmanager
def _fit_progress(console: Console, is_counted: bool, is_logged: bool) -> Iterator[Any]:
    """Show that a fit is running; gives a function to call after every evaluation, or None.

    Evaluations and χ² are shown if `is_counted` and written as messages if `is_logged`.
    """
    count, text = itertools.count(1), bars.TextColumn("{task.description}")
    with _bar(console, bars.SpinnerColumn(), text, bars.TimeElapsedColumn()) as bar:
        task = bar.add_task("fitting")

        def progress(cost: SupportsFloat) -> None:
            text = f"evaluation {next(count)}: χ² = {2 * float(cost):.8g}"
            bar.update(task, description=text)
            if is_logged:
                _log.info("%s", text)

        yield progress if is_logged or (is_counted and console.is_terminal) else None


@contextlib.contextmanager
def _sampling_progress(console: Console, stop: threading.Event, is_shown: bool) -> Iterator[Any]:
    """Show how far sampling is; the function to call after every block ends it if `stop` is set."""
    columns = bars.TextColumn("{task.description}"), bars.BarColumn(), bars.TimeRemainingColumn()
    with _bar(console, *columns, is_shown=is_shown) as bar:
        task = bar.add_task("sampling: compiling")

        def progress(step: Any) -> None:
            text = f"{step.stage}: {step.gradients:.0f} gradients/s, {step.divergences} divergences"
            bar.update(task, description=text, completed=step.done, total=step.total)
            _log.debug("%d of %d draws; %s", step.done, step.total, text)
            if stop.is_set():
                raise KeyboardInterrupt

        yield progress


def _interruptible(work: Callable[[], T], stop: threading.Event | None = None) -> T:
    """Run a function in a thread, so that Ctrl-C is noticed while compiled code runs.

    The first Ctrl-C sets `stop`, for work that then ends by itself; None leaves at once.
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
        _log.warning("sampling stops after this block of draws; press Ctrl-C again to quit now")
        return future.result()


def _is_a_sentence(exc: BaseException) -> bool:
    """Whether an error was raised by the package itself, or is a refusal of the system."""
    if isinstance(exc, TwoTimeError | OSError):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    is_own = frames[-1].f_globals.get("__name__", "").startswith("twotime.")
    return is_own and "\n" not in str(exc)


def _show(result: Any, seconds: float, curves: Mapping[str, Any]) -> None:
    """Print tables, remarks and status; some columns are left out on a narrow terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    description = describe(result)
    for table in description.main_tables(curves):
        _print_table(console, table)
    for line in (*description.remarks, f"{result.status}; {seconds:.1f} s"):
        click.echo(line)


def _print_table(console: Console, table: Any) -> None:
    for hidden in ((), ("bounds", "meaning"), ("bounds", "meaning", "± if independent")):
        drawn = Table(title=table.title, title_justify="left", title_style="bold")
        drawn.box = box.SIMPLE_HEAD
        kept = [k for k, head in enumerate(table.columns) if head not in hidden]
        for k in kept:
            drawn.add_column(table.columns[k], no_wrap=True)
        for row in table.rows:
            drawn.add_row(*(row[k] for k in kept))
        if console.measure(drawn).maximum <= console.width:
            break
    console.print(drawn)


class _Terminal(logging.Handler):
    """Shows messages as one line each on a console."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        self._console.print(
            f"{level}{record.getMessage()}", style=_STYLES.get(record.levelname), markup=False,
            highlight=False, soft_wrap=True,
        )  # fmt: skip


class _Lines(logging.Formatter):
    """One JSON object for each message."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {"time": self.formatTime(record), "level": record.levelname}
        return json.dumps(facts | {"message": record.getMessage()}, ensure_ascii=False)


@contextlib.contextmanager
def listening(console: Console) -> Iterator[None]:
    """Show the package's messages from level INFO on a console while the block runs."""
    logger = logging.getLogger("twotime")
    before = logger.level, list(logger.handlers), logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate, logger.handlers = False, [_Terminal(console)]
    try:
        yield
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.setLevel(before[0])
        logger.handlers, logger.propagate = before[1:]


def follow(section: Mapping[str, Any], base_dir: Path) -> None:
    """Set level and log file as the section `logging` of a configuration says."""
    logger = logging.getLogger("twotime")
    logger.setLevel(section["level"])
    if "file" in section:
        path = base_dir / section["file"]
        try:
            handler = logging.FileHandler(path, encoding="utf-8")
        except OSError as exc:
            raise ValueError(
                f"logging.file: {path} cannot be written ({exc.strerror}); expected a file in an "
                "existing folder; name another one."
            ) from exc
        text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
        handler.setFormatter(_Lines() if section["structured"] else text)
        logger.addHandler(handler)
