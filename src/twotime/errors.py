"""Errors that a user can fix; each message is one or a few sentences."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

Path = tuple[str, ...]
"""Way to a key of the configuration: names of the sections, and of the key."""


class TwoTimeError(ValueError):
    """Base of all errors that a user can fix."""


class ConfigurationError(TwoTimeError):
    """Raised when a configuration is invalid; holds all its mistakes at once.

    Attributes:
        problems: One sentence for each mistake, each naming the path of the key.
    """

    def __init__(self, problems: str | Iterable[str], source: str = "configuration"):
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        if len(self.problems) == 1:
            message = f"{source}: {self.problems[0]}"
        else:
            listed = "\n".join(f"  {problem}" for problem in self.problems)
            message = f"{source}: {len(self.problems)} mistakes\n{listed}"
        super().__init__(message)


@dataclasses.dataclass
class Mistakes:
    """Mistakes and remarks collected so far, and the keys that are known to be wrong.

    Attributes:
        problems: One sentence for each mistake.
        remarks: One sentence for each noteworthy thing that is no mistake.
        wrong: Paths with a mistake, so that no other rule is applied to them.
        written: How the file spells a path, where it differs.
    """

    problems: list[str] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    wrong: set[Path] = dataclasses.field(default_factory=set)
    written: dict[Path, str] = dataclasses.field(default_factory=dict)

    def add(self, path: Path, *sentences: str) -> None:
        """Note mistakes at a key."""
        for sentence in sentences:
            problem = f"{self.spell(path)}: {sentence}"
            if problem not in self.problems:
                self.problems.append(problem)
            self.wrong.add(path)

    def remark(self, path: Path, sentence: str) -> None:
        """Note something about a key that is no mistake."""
        self.remarks.append(f"{self.spell(path)}: {sentence}")

    def spelled(self, path: Path, written: Path) -> None:
        """Note how the file spells a path."""
        if written != path:
            self.written[path] = ".".join(written)

    def spell(self, path: Path) -> str:
        """The path as the file spells it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.written:
                return ".".join((self.written[path[:length]], *path[length:]))
        return ".".join(path)

    def is_wrong(self, path: Path) -> bool:
        """Whether a mistake is known at the key, above it or below it."""
        return any(bad[: len(path)] == path[: len(bad)] for bad in self.wrong)


def show(value: Any) -> str:
    """A value as a sentence quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) > 10**15:
        return "a whole number of more than 15 digits"
    return str(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


class DataError(TwoTimeError):
    """A data file or a selection from it that cannot be used; the message is one sentence."""


class DataNotFoundError(DataError, FileNotFoundError):
    """A data file that does not exist."""


class ResultError(TwoTimeError):
    """A result folder that cannot be written or read; the message is one sentence."""
