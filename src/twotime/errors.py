"""Errors that a user can fix; each message is one or a few sentences."""

from collections.abc import Iterable


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


class DataError(TwoTimeError):
    """A data file or a selection from it that cannot be used; the message is one sentence."""


class DataNotFoundError(DataError, FileNotFoundError):
    """A data file that does not exist."""


class ResultError(TwoTimeError):
    """A result folder that cannot be written or read; the message is one sentence."""
