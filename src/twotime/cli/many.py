"""Many fits from the command line: each wavevector of each file."""

import logging
from pathlib import Path

from twotime import batch
from twotime.cli.running import interruptible
from twotime.config.manager import ConfigManager

_log = logging.getLogger(__name__)


def fit_all(settings: ConfigManager, folder: Path, *, overwrite: bool) -> bool:
    """Fit all items of a batch and tell of each; returns whether all converged."""

    def tell(done: batch.Outcome, count: int, total: int) -> None:
        state = done.fault or done.result.status
        _log.info("%d of %d, %s: %s", count, total, done.item.name, state)

    outcomes = interruptible(
        lambda: batch.run(settings, folder, overwrite=overwrite, progress=tell)
    )
    failed = [x for x in outcomes if x.result is None]
    loose = sum(x.result is not None and not x.is_good for x in outcomes)
    print(f"{len(outcomes)} fits in {folder}: {len(failed)} failed, {loose} not converged")
    for x in failed:
        print(f"failed: {x.item.name}: {x.fault}")
    return all(x.is_good for x in outcomes)
