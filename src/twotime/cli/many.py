"""Many fits from the command line: each wavevector of each file."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from twotime import batch
from twotime.cli.machine import set_up
from twotime.cli.running import interruptible
from twotime.config.manager import ConfigManager

_MOST = 4  # fits side by side where nobody says how many: each takes a gigabyte
_log = logging.getLogger(__name__)


def fit_all(settings: ConfigManager, folder: Path, *, overwrite: bool, jobs: int | None) -> bool:
    """Fit all items of a batch and tell of each; returns whether all converged."""
    is_ended = threading.Event()

    def tell(done: batch.Outcome, count: int, total: int) -> None:
        if is_ended.is_set():
            return
        state = done.fault or done.result.status
        _log.info("%d of %d, %s: %s", count, total, done.item.name, state)

    device = settings.section("hardware")["device"]
    with _processes(jobs or _side_by_side(), device, is_ended) as pool:
        run = partial(batch.run, overwrite=overwrite, progress=tell, pool=pool)
        outcomes = interruptible(lambda: run(settings, folder))
    failed = [x for x in outcomes if x.result is None]
    loose = sum(x.result is not None and not x.is_good for x in outcomes)
    print(f"{len(outcomes)} fits in {folder}: {len(failed)} failed, {loose} not converged")
    for x in failed:
        print(f"failed: {x.item.name}: {x.fault}")
    return all(x.is_good for x in outcomes)


def _side_by_side() -> int:
    """How many fits run side by side: one for each core up to four, one on an accelerator."""
    import jax

    if jax.default_backend() != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, _MOST)


@contextmanager
def _processes(count: int, device: str, is_ended: threading.Event) -> Iterator[Executor | None]:
    """Processes to fit in, None for one; they end where this one is interrupted or ends."""
    if count == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _begin, (device,)) as pool:
        try:
            yield pool
        except BaseException:
            is_ended.set()
            for child in multiprocessing.active_children():
                child.kill()
            raise


def _begin(device: str) -> None:
    """Set up a process that fits: Ctrl-C is for the one that began it, whose end is its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    set_up(device)
