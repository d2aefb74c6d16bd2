"""Messages of the command line: which are shown, in what form, and where else they go."""

import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console


class _Terminal(logging.Handler):
    """Shows messages as one line each on a console."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        style = {"WARNING": "yellow", "ERROR": "bold red", "DEBUG": "dim"}.get(record.levelname)
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


class _Lines(logging.Formatter):
    """One JSON object for each message."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "message": record.getMessage(),
        }
        return json.dumps(facts, ensure_ascii=False)


@contextlib.contextmanager
def listening(console: Console) -> Iterator[None]:
    """Show the package's messages from level INFO on a console while the block runs.

    Args:
        console: Where they are shown.
    """
    logger = logging.getLogger("twotime")
    before = logger.level, list(logger.handlers), logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [_Terminal(console)]
    try:
        yield
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.setLevel(before[0])
        logger.handlers, logger.propagate = before[1:]


def follow(section: Mapping[str, Any], base_dir: Path) -> None:
    """Do what the section `logging` of a configuration says.

    Args:
        section: The section with its defaults.
        base_dir: Folder that a relative file starts from.

    Raises:
        ValueError: If the log file cannot be written.
    """
    logger = logging.getLogger("twotime")
    logger.setLevel(section["level"])
    if "file" in section:
        path = base_dir / section["file"]
        try:
            written = logging.FileHandler(path, encoding="utf-8")
        except OSError as exc:
            raise ValueError(
                f"logging.file: {path} cannot be written ({exc.strerror}); expected a file in a "
                "folder that is there; name another one."
            ) from exc
        plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
        written.setFormatter(_Lines() if section["structured"] else plain)
        logger.addHandler(written)
