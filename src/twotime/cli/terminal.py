"""What is shown in a terminal: messages, tables, and streams that never fail."""

import codecs
import contextlib
import enum
import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from twotime.report import folded
from twotime.results.storage import describe, plain

CONVERGED, MISTAKE, NOT_CONVERGED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""

_STYLES = {"WARNING": "yellow", "ERROR": "bold red", "DEBUG": "dim"}
_log = logging.getLogger(__name__)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for characters that a stream cannot encode: - for lines, ? for the others."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = error.object[error.start : error.end]
    return "".join("-" if x in "─−" else "?" for x in found), error.end


codecs.register_error("plain", _plain)


class _Stream:
    """A stream that never fails: it writes plainly what it cannot encode, and nothing once full."""

    def __init__(self, stream: Any):
        self._stream, self._is_full = stream or io.StringIO(), False
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(errors="plain")

    def write(self, text: str) -> int:
        """Write as far as possible."""
        with self._unharmed():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what waits, as far as possible."""
        with self._unharmed():
            self._stream.flush()

    @contextlib.contextmanager
    def _unharmed(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            with contextlib.suppress(OSError), open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), self._stream.fileno())  # also what waits in its buffer
            if not (self._is_full or isinstance(exc, BrokenPipeError)):
                self._is_full = True
                _log.warning("the output cannot be written (%s); the rest is left out", exc)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Let no output fail while the block runs: whether it is shown changes no exit code."""
    out, err = _Stream(sys.stdout), _Stream(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):  # type: ignore[type-var]
        try:
            yield
        finally:
            out.flush()
            err.flush()


class Shown(enum.Enum):
    """What is printed of results."""

    TABLES, JSON, NOTHING = range(3)


def show_json(shown: Shown, results: Mapping[str, Any]) -> None:
    """Print results by name as one JSON object, if that is asked for."""
    if shown is Shown.JSON:
        found = {name: plain(result.summary()) for name, result in results.items()}
        print(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))


def show(shown: Shown, result: Any, seconds: float, curves: Mapping[str, Any]) -> None:
    """Print what was found, fitted to the width of the terminal (200 columns without one).

    Where nothing is to be shown, that a result has not converged is a warning.
    """
    if shown is Shown.NOTHING and not result.converged:
        _log.warning("%s", result.status)
    if shown is not Shown.TABLES:
        return
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    width = shutil.get_terminal_size().columns if has_width else 200
    print(describe(result).terminal(curves, width))
    print(folded(f"{result.status}; {seconds:.1f} s", width))


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


def follow(section: Mapping[str, Any], base_dir: Path, *, is_quiet: bool = False) -> None:
    """Set level and log file as the section `logging` of a configuration says."""
    logger = logging.getLogger("twotime")
    logger.setLevel(section["level"])
    if is_quiet:
        for handler in logger.handlers:
            handler.setLevel(logging.WARNING)
    if "file" in section:
        path = base_dir / section["file"]
        try:
            handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
        except OSError as exc:
            raise ValueError(
                f"logging.file: {path} cannot be written ({exc.strerror}); expected a file in an "
                "existing folder; name another one."
            ) from exc
        text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
        handler.setFormatter(_Lines() if section["structured"] else text)
        logger.addHandler(handler)
