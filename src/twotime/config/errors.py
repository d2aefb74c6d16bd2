"""The error of a configuration that cannot be used."""

from collections.abc import Iterable


class ConfigurationError(ValueError):
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
