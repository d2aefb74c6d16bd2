"""Change one constant or term at a time and see a test fail: `python tests/mutants.py [WORD …]`.

Each row of mutants.md names a file, a text that stands in it once, what it is changed to, and
the test that must notice. The change is made in a copy of the package; words select rows.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| (src/\S+) \| (`+) ?(.+?) ?\2 \| (`+) ?(.*?) ?\4 \| (\S+) \|", re.MULTILINE)


class Mutant(NamedTuple):
    """A change of one place, and the test that must notice it."""

    file: str
    old: str
    new: str
    test: str


def read_mutants(page: Path) -> list[Mutant]:
    """The rows of a page; a text that spans lines has `⏎` where they end."""
    rows = ROW.findall(page.read_text(encoding="utf-8"))
    return [
        Mutant(file, old.replace("⏎", "\n"), new.replace("⏎", "\n"), test)
        for file, _, old, _, new, test in rows
    ]


def outcome(mutant: Mutant, folder: Path) -> str:
    """Say "killed", "survived", or why the row cannot be tried."""
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        return f"text stands {source.count(mutant.old)} times in the file"
    copy = folder / "src"
    shutil.copytree(ROOT / "src", copy, dirs_exist_ok=True)
    (folder / mutant.file).write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", mutant.test]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    (folder / mutant.file).write_text(source, encoding="utf-8")
    if done.returncode in (0, 1):
        return "killed" if done.returncode else "survived"
    return done.stdout.strip().splitlines()[-1]


def main(words: list[str]) -> int:
    """Try the mutants whose row holds one of the words (all where there is none)."""
    chosen = [m for m in read_mutants(ROOT / "tests" / "mutants.md")
              if not words or any(w in " ".join(m) for w in words)]  # fmt: skip
    killed = 0
    with tempfile.TemporaryDirectory() as folder:
        for mutant in chosen:
            found = outcome(mutant, Path(folder))
            killed += found == "killed"
            print(f"{found:10} {mutant.file}: {mutant.old!r} -> {mutant.new!r}", flush=True)
    print(f"{killed} of {len(chosen)} mutants killed")
    return 0 if killed == len(chosen) > 0 else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
