"""Command line: each command calls one function of the library and shows what it returns.

Exit codes: 0 done (a fit converged), 1 error (one message, nothing is written), 2 a fit did not
converge (its results are written and marked), 130 interrupted.
"""

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
from click.shell_completion import get_completion_class
from rich.console import Console

from twotime.cli.files import checked_data, settings_of
from twotime.cli.machine import set_up
from twotime.cli.running import WORKER, interruptible, phase, terminable
from twotime.cli.terminal import (
    CONVERGED,
    INTERRUPTED,
    MISTAKE,
    NOT_CONVERGED,
    Shown,
    follow,
    listening,
    streams,
)
from twotime.config.parameter_names import ANALYSIS_MODES, DEFAULT_MODE
from twotime.data import taken
from twotime.data.inspect import inspect_file
from twotime.data.selection import Selection
from twotime.errors import ConfigurationError, DataError, TwoTimeError
from twotime.results.storage import __version__

# Commands import what loads Matplotlib or Pydantic, so that help appears without delay.

FILE = click.Path(path_type=Path)
_LAW = f"{', '.join(ANALYSIS_MODES)}, or an import path (package.module.Class)."
NOTHING_VARIES = (
    "every parameter is fixed, so there is nothing to fit; give at least one `vary: true`."
)
CHANGES = click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE",
    help="Use another value of a key; may be repeated.",
)  # fmt: skip
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing files.")

FORMAT = click.option("--format", "figure_format", type=click.Choice(["png", "pdf", "svg"]),
                      help="Format of the figures; default: png.")  # fmt: skip

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        arguments: The words after the program's name; None takes them from the process. Where they
            are given, a batch starts no processes unless they ask for some: those would run the
            calling program again.
    """
    with streams():
        console = Console(stderr=True)
        with listening(console), terminable():
            return _run(arguments, console)


def _run(arguments: Sequence[str] | None, console: Console) -> int:
    try:
        defaults = {} if arguments is None else {"fit": {"jobs": 1}}
        options: Any = {"standalone_mode": False, "obj": console, "default_map": defaults}
        code = twotime.main(arguments, "twotime", **options)
        return code if isinstance(code, int) else CONVERGED
    except click.ClickException as exc:
        _log.error("%s", _said(exc))
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


def _said(error: click.ClickException) -> str:
    """One sentence; one about words too many ends with what a command takes."""
    sentence, context = error.format_message().replace("\n", " "), getattr(error, "ctx", None)
    if context is None or "unexpected extra argument" not in sentence:
        return sentence
    return f"{sentence}; expected {context.get_usage().removeprefix('Usage: ')}."


def _examples(*lines: str) -> str:
    """Examples under the help of a command."""
    return "\n".join(("\b", "Examples:", *(f"  twotime {line}" for line in lines)))


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
    epilog=_examples(
        "init --example", "fit run.yaml", "init data.h5 -o mine.yaml", "fit mine.yaml"
    ),
)
@click.version_option(__version__, message="twotime %(version)s")
@click.pass_context
def twotime(context: click.Context) -> None:
    """Fit two-time X-ray photon correlation data (XPCS)."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@twotime.command(
    epilog=_examples(
        "init --example", "init --model laminar_flow -o flow.yaml", "init data.h5 --q 0.0054"
    )
)
@click.argument("data", type=FILE, required=False)
@click.option("--q", type=float, help="Wavevector of DATA to select [1/Å]; default: its first.")
@click.option("--model", default=DEFAULT_MODE, show_default=True, metavar="LAW", help=_LAW)
@click.option("-o", "--output", default="run.yaml", type=FILE, show_default=True)
@click.option("--example", is_flag=True, help="Also simulate a data file to try it on.")
@click.option("--full", is_flag=True, help="Include every key.")
@OVERWRITE
def init(data: Path | None, q: float | None, model: str, output: Path, **options: Any) -> None:
    """Write a commented configuration to start from, for a DATA file if one is named."""
    from twotime import scaffold

    if data is None and q is not None:
        raise click.UsageError("--q selects from a data file; name the file: init DATA --q Q.")
    if data is not None:
        for name in ("example", "full"):
            if options[name]:
                raise click.UsageError(f"--{name} has no effect on a configuration for {data}.")
        _init_for(checked_data(data), output, model, q, options["overwrite"])
        return
    if options["example"]:
        set_up("auto")
    for path in scaffold.start(model, output, **options):
        print(f"wrote {path}")
    print(f"next: twotime fit {output}")


def _init_for(data: Path, output: Path, model: str, q: float | None, overwrite: bool) -> None:
    from twotime.cli.starting import configuration_for

    missing = configuration_for(data, output, model, q=q, overwrite=overwrite)
    print(f"wrote {output}")
    for key in missing:
        print(f"missing: {key}, which the file does not give; fill it in")
    print(f"next: twotime {'validate' if missing else 'fit'} {output}")


@twotime.command(epilog=_examples("validate run.yaml", "validate run.yaml --set parameters.D0=2e4"))
@click.argument("config", type=FILE)
@CHANGES
def validate(config: Path, changes: Sequence[str]) -> None:
    """Check a configuration; warn where the data file does not hold what it selects."""
    valid = settings_of(config, changes)
    for remark in valid.warnings:
        _log.warning("%s", remark)
    varying = ", ".join(valid.space.varying_names)
    if not varying:
        raise ConfigurationError(NOTHING_VARIES, str(config))
    for path in valid.data_file_paths:
        try:
            taken(path, Selection.from_config(valid))
        except DataError as exc:  # the file may be about to be written
            _log.warning("%s", exc)
    print(f"{config}: valid; {valid.analysis_mode}, fits {varying}")


@twotime.command(epilog=_examples("inspect data.h5"))
@click.argument("file", type=FILE)
def inspect(file: Path) -> None:
    """Show layout, q, angles, frames and dt of a data file, and what each matrix is like."""
    print(inspect_file(checked_data(file)))


@twotime.command(
    epilog=_examples("g2 data.h5", "g2 data.h5 --q 0.0054 --ages 3 -o look.csv", "g2 run.yaml")
)
@click.argument("file", type=FILE)
@click.option("--q", type=float, help="Wavevector [1/Å]; default: all, or that of a configuration.")
@click.option("--ages", default=1, show_default=True, type=click.IntRange(min=1),
              help="Also divide the record into so many periods.")  # fmt: skip
@click.option("-o", "--output", default="g2.csv", type=FILE, show_default=True)
@OVERWRITE
def g2(file: Path, q: float | None, ages: int, output: Path, overwrite: bool) -> None:
    """Write c2 averaged over equal lags (one-time g2) as a table and a figure, to look at.

    FILE is a data file or a configuration. It takes the sample as steady in each period, so
    parameters come from a fit of the two-time matrices, not from g2.
    """
    from twotime.cli.looking import write_g2

    set_up("auto")
    for path in write_g2(file, q, ages, output, overwrite=overwrite):
        print(f"wrote {path}")


@twotime.command(epilog=_examples("migrate old.yaml", "migrate old.yaml -o new.yaml"))
@click.argument("old", type=FILE)
@click.option("-o", "--output", default="run.yaml", type=FILE, show_default=True)
@click.option("--shear-convention", default="published", show_default=True,
              type=click.Choice(["published", "homodyne"]),
              help="Divide shear rates by 2.22, or keep them and the old law.")  # fmt: skip
@OVERWRITE
def migrate(old: Path, output: Path, shear_convention: str, overwrite: bool) -> None:
    """Write a configuration of homodyne, heterodyne or xpcsjax anew."""
    from twotime import scaffold
    from twotime.config.migrate import migrate as migrated
    from twotime.disk import replacing, write_text

    scaffold.check_new(output, overwrite=overwrite)
    found = migrated(old, target=output, shear_convention=shear_convention)
    with replacing(output) as temporary:
        write_text(temporary, found.text)
    for note in found.notes:
        _log.warning("%s", note)
    print(
        f"wrote {output}, from a configuration of {found.program}\nnext: twotime validate {output}"
    )


@twotime.command(
    epilog=_examples("simulate run.yaml -o data.h5", "simulate run.yaml -o data.h5 --noise 0.01")
)
@click.argument("config", type=FILE)
@click.option("-o", "--output", required=True, type=FILE, help="Data file to write.")
@click.option("--pixels", default=10_000, type=click.IntRange(min=1), show_default=True,
              help="Number of detector pixels averaged per angle.")  # fmt: skip
@click.option("--photons", type=click.FloatRange(min=0, min_open=True),
              help="Mean counts per pixel and frame; default: no shot noise.")  # fmt: skip
@click.option("--noise", type=click.FloatRange(min=0),
              help="Standard deviation of independent noise, instead of speckle.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Seed of the random numbers.")
@CHANGES
@OVERWRITE
@click.pass_context
def simulate(
    context: click.Context, config: Path, output: Path, changes: Sequence[str], **options: Any
) -> None:
    """Simulate a data file from a configuration."""
    from twotime import scaffold

    given = click.core.ParameterSource.COMMANDLINE
    for name in ("pixels", "photons"):
        if options["noise"] is not None and context.get_parameter_source(name) is given:
            raise click.UsageError(
                f"--{name} has no effect with --noise, which replaces speckle; leave one out."
            )
    set_up("auto")
    scaffold.simulate_file(settings_of(config, changes), output, **options)
    print(f"wrote {output}")


@twotime.command(
    epilog=_examples(
        "fit run.yaml", "fit run.yaml -o out --overwrite", "fit run.yaml --method both",
        "fit run.yaml --set parameters.D0.max=1e9", "fit run.yaml --json > fit.json",
        "fit run.yaml --q all -o rings", "fit run.yaml --data 'scan_*.h5' -o scans",
    )
)  # fmt: skip
@click.argument("config", type=FILE)
@click.option("-o", "--output", type=FILE, help="Folder for the results.")
@click.option("--method", type=click.Choice(["nlsq", "cmc", "both"]),
              help="Use this method instead of optimization.method.")  # fmt: skip
@click.option("--q", help="Wavevectors instead of wavevector_q: all, or numbers joined by commas.")
@click.option("--together", is_flag=True, help="Fit one law to all wavevectors.")
@click.option("--data", multiple=True, help="Data file or pattern ('scan_*.h5'); may be repeated.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Fits of several side by side; default: one for each core, 4 at most.",
)
@click.option("--no-figures", is_flag=True, help="Draw none (output.figures: false).")
@FORMAT
@click.option("--overwrite", is_flag=True, help="Replace an existing result.")
@click.option("--resume", is_flag=True, help="Resume interrupted sampling.")
@CHANGES
@click.option("-q", "--quiet", is_flag=True, help="Show warnings and errors only.")
@click.option("--json", "is_json", is_flag=True, help="Print the result as JSON, not as tables.")
@click.option("-v", "--verbose", is_flag=True, help="Show more detail.")
@click.pass_obj
def fit(
    console: Console,
    config: Path,
    output: Path | None,
    method: str | None,
    changes: Sequence[str],
    **options: Any,
) -> int:
    """Fit or sample, and write results, figures and a report.

    Several wavevectors or files have a folder each, with a table of all; a second call fits what
    is missing.
    """
    from twotime import batch, workflow
    from twotime.cli.fitting import Run, fit_one
    from twotime.cli.many import fit_all

    quiet, verbose, resume = (options[name] for name in ("quiet", "verbose", "resume"))
    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose contradict each other; leave one out.")
    if options["no_figures"]:
        changes = *changes, "output.figures=false"
    if options["figure_format"] is not None:
        changes = *changes, f"output.figure_format={options['figure_format']}"
    choice = {"is_together": options["together"], "files": options["data"]}
    settings = batch.with_choice(settings_of(config, changes), options["q"], **choice)
    if method is not None:
        settings = workflow.with_method(settings, method)
    logs = settings.section("logging") | ({"level": "DEBUG"} if verbose else {})
    follow(logs, settings.base_dir, is_quiet=quiet)
    set_up(settings.section("hardware")["device"])
    if batch.is_batch(settings):
        for name in ("resume", "is_json"):
            if options[name]:
                raise click.UsageError(f"--{name.removeprefix('is_')} has no effect on many fits.")
        folder = output or settings.output_dir
        is_good = fit_all(settings, folder, overwrite=options["overwrite"], jobs=options["jobs"])
        return CONVERGED if is_good else NOT_CONVERGED
    given = click.get_current_context().get_parameter_source("jobs")
    if given is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError("--jobs has no effect on one fit; see --q and --data.")
    folder, overwrite = output or settings.output_dir, options["overwrite"] or resume
    shown = Shown.JSON if options["is_json"] else Shown.NOTHING if quiet else Shown.TABLES
    before = _written(folder)
    try:
        with workflow.claim(folder, overwrite=overwrite):
            with phase(console, "reading"):
                begin = {"overwrite": overwrite, "resume": resume}
                job = interruptible(lambda: workflow.prepare(settings, folder, **begin))
            run = Run(job, folder, settings, console, shown, verbose, overwrite, resume)
            return fit_one(run)
    except KeyboardInterrupt as exc:
        is_new = _written(folder) != before
        said = str(exc) or (f"{folder} was written" if is_new else "")
        raise KeyboardInterrupt(said) from None


def _written(folder: Path) -> Any:
    """What changes when something is written into a folder."""
    paths = [path for path in (folder, folder / "posterior") if path.exists()]
    return [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]


@twotime.command(epilog=_examples("plot out", "plot out -o figures --format pdf"))
@click.argument("folder", type=FILE)
@click.option("-o", "--output", type=FILE, help="Write the figures to another folder.")
@FORMAT
def plot(folder: Path, output: Path | None, figure_format: str | None) -> None:
    """Draw the figures of saved results again."""
    from twotime import workflow

    set_up("auto")
    for name in workflow.redraw(folder, output, format=figure_format or "png"):
        print(f"wrote {(output or folder) / name}")


@twotime.command(epilog=_examples("report out", "report out -o share/fit.html"))
@click.argument("folder", type=FILE)
@click.option("-o", "--output", type=FILE, help="File to write; default: FOLDER/report.html.")
def report(folder: Path, output: Path | None) -> None:
    """Write one self-contained page of HTML about a saved result."""
    from twotime.report.page import write_page

    set_up("auto")
    print(f"wrote {write_page(folder, output)}")


@twotime.command(epilog=_examples("schema > twotime.schema.json"))
@click.option("--model", metavar="LAW", help=f"With the keys and parameters of a law: {_LAW}")
def schema(model: str | None) -> None:
    """Print the JSON schema of the configuration, for editors."""
    from twotime.config.files import json_schema

    print(json.dumps(json_schema(model), indent=2, ensure_ascii=False))


@twotime.command(epilog=_examples("doctor"))
def doctor() -> int:
    """Show versions, devices, precision, threads and cache, and run a small fit of known truth."""
    from twotime.cli.doctor import examine, self_test

    set_up("auto")
    for name, fact in examine():
        print(f"{name + ':':15}{fact}")
    is_good, said = self_test()
    print(f"{'self-test:':15}{said}")
    return CONVERGED if is_good else MISTAKE


@twotime.command(
    epilog=_examples(
        "completion bash >> ~/.bashrc", "completion zsh >> ~/.zshrc",
        "completion fish > ~/.config/fish/completions/twotime.fish",
    )
)  # fmt: skip
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands and options in a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(twotime, {}, "twotime", "_TWOTIME_COMPLETE")
    print(script.source_template % script.source_vars())


def _is_a_sentence(exc: BaseException) -> bool:
    """Whether an error was raised by the package itself, or is a refusal of the system."""
    if isinstance(exc, TwoTimeError | OSError):
        return True
    frames = [frame for frame, _ in traceback.walk_tb(exc.__traceback__)]
    is_own = frames[-1].f_globals.get("__name__", "").startswith("twotime.")
    return is_own and "\n" not in str(exc)
