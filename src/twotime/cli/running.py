"""Long work shown while it runs, and ended by Ctrl-C."""

import contextlib
import contextvars
import itertools
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, SupportsFloat, TypeVar

from rich import progress as bars
from rich.console import Console

T = TypeVar("T")
WORKER = "twotime-fit"
_log = logging.getLogger(__name__)


def _bar(console: Console, *columns: Any, is_shown: bool = True) -> bars.Progress:
    is_hidden = not (is_shown and console.is_terminal)
    return bars.Progress(*columns, console=console, transient=True, disable=is_hidden)


@contextlib.contextmanager
def phase(console: Console, name: str) -> Iterator[None]:
    """Show what is done, with a clock, while it is done."""
    text = bars.TextColumn("{task.description}")
    with _bar(console, bars.SpinnerColumn(), text, bars.TimeElapsedColumn()) as bar:
        bar.add_task(name)
        yield


@contextlib.contextmanager
def counted(console: Console, name: str) -> Iterator[Callable[[str], None]]:
    """Show what is done and how much of it per second; gives a function to call for each item."""
    columns = bars.SpinnerColumn(), bars.TextColumn("{task.description}"), bars.TimeElapsedColumn()
    with _bar(console, *columns) as bar:
        task, begun, count = bar.add_task(name), time.perf_counter(), itertools.count()

        def next_item(item: str) -> None:
            rate = next(count) / (time.perf_counter() - begun)
            bar.update(task, description=f"{name} {item} ({rate:.2g}/s)")

        yield next_item


@contextlib.contextmanager
def fit_progress(console: Console, is_counted: bool, is_logged: bool) -> Iterator[Any]:
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
def sampling_progress(console: Console, stop: threading.Event, is_shown: bool) -> Iterator[Any]:
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


def interruptible(work: Callable[[], T], stop: threading.Event | None = None) -> T:
    """Run a function in a thread, so that Ctrl-C is noticed while compiled code runs.

    The first Ctrl-C sets `stop`, for work that then ends by itself; None leaves at once.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()  # what this thread claims, that one does, too

    def body() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as exc:  # not swallowed: `result` raises it in the main thread
            future.set_exception(exc)

    threading.Thread(target=body, name=WORKER, daemon=True).start()
    try:
        return future.result()
    except KeyboardInterrupt:
        if stop is None or future.done():
            raise
        stop.set()
        _log.warning("sampling stops after this block of draws; press Ctrl-C again to quit now")
        return future.result()


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Take SIGTERM, with which batch systems end a job, as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
