"""Mistakes of a configuration, collected so that all are told at once."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]


@dataclasses.dataclass
class Findings:
    """The mistakes and remarks found so far, and the keys that are known to be wrong.

    Attributes:
        problems: One sentence for each mistake.
        remarks: One sentence for each thing worth knowing that is no mistake.
        wrong: Paths of keys with a mistake, so that nothing is concluded from them.
        written: How the file spells a path, where it differs.
    """

    problems: list[str] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    wrong: set[Path] = dataclasses.field(default_factory=set)
    written: dict[Path, str] = dataclasses.field(default_factory=dict)

    def add(self, path: Path, sentence: str) -> None:
        """Note a mistake at a key."""
        self.problems.append(f"{self.spell(path)}: {sentence}")
        self.wrong.add(path)

    def remark(self, path: Path, sentence: str) -> None:
        """Note something worth knowing about a key."""
        self.remarks.append(f"{self.spell(path)}: {sentence}")

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
        return f"a whole number of {len(f'{abs(value):x}') * 4} bits"
    return str(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


def lookup(config: Mapping[str, Any], path: Path) -> Any:
    """The value at a path; None where there is none."""
    value: Any = config
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return value


def store(config: dict[str, Any], path: Path, value: Any) -> None:
    """Set the value at a path, making the sections on the way."""
    for name in path[:-1]:
        config = config.setdefault(name, {})
    config[path[-1]] = value


def discard(config: dict[str, Any], path: Path) -> None:
    """Take away the value at a path, and what is left empty above it stays."""
    parent = lookup(config, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)


def entries(config: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Group, name and entry of each parameter in a canonical `parameters` section."""
    for group, names in config.get("parameters", {}).items():
        for name, entry in names.items():
            yield group, name, entry
