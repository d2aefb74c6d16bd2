"""Many fits from the command line: each wavevector of each file."""

import glob
import logging
from collections.abc import Sequence
from pathlib import Path

from twotime import batch
from twotime.cli.running import interruptible
from twotime.config.manager import ConfigManager

_log = logging.getLogger(__name__)


def files_of(patterns: Sequence[str]) -> list[Path]:
    """Files that patterns name, each once; a name that matches nothing stays, to be told of."""
    found = dict[Path, None]()
    for pattern in patterns:
        found |= dict.fromkeys(map(Path, sorted(glob.glob(pattern)) or [pattern]))
    return list(found)


def fit_all(
    settings: ConfigManager, folder: Path, files: Sequence[Path], *, overwrite: bool
) -> bool:
    """Fit all items of a batch and tell of each; returns whether all converged."""

    def tell(done: batch.Outcome, count: int, total: int) -> None:
        state = done.fault or done.result.status
        _log.info("%d of %d, %s: %s", count, total, done.item.name, state)

    outcomes = interruptible(
        lambda: batch.run(settings, folder, files, overwrite=overwrite, progress=tell)
    )
    failed = [x for x in outcomes if x.result is None]
    loose = sum(x.result is not None and not x.is_good for x in outcomes)
    print(f"{len(outcomes)} fits in {folder}: {len(failed)} failed, {loose} not converged")
    for x in failed:
        print(f"failed: {x.item.name}: {x.fault}")
    return all(x.is_good for x in outcomes)
