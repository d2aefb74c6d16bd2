"""What is left of results, caches and kept draws when their writer is killed, at every step.

`python benchmarks/kills.py [PART ...] [--random 200] [--cli 20]`. A process that writes is ended by
a signal before each of its operations on files, or at random times. Then a reader must find the old
or the new, whole, and the next run must clean up. Then places that cannot be written, and races.
Volumes are mounted for some cells, which needs root; elsewhere these are left out.
"""

import argparse
import contextlib
import functools
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from twotime.data.dataset import TwoTimeData
from twotime.data.write import read_cache, write_cache
from twotime.errors import TwoTimeError
from twotime.results import folder as folders
from twotime.results import load_result
from twotime.sample.chains import State
from twotime.sample.driver import Checkpoint

OPERATIONS = ("mkdir", "rename", "replace", "rmdir", "unlink", "open", "fsync")
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
FILES = {"fit": ("result.json", "arrays.npz", "maps.png"), "posterior": ("result.json", "draws")}
KINDS = ("fit", "posterior", "both", "batch item", "cache", "checkpoint")
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None
ENDED = 3  # exit code of a writer that told why it could not write


def fill(folder: Path, name: str, kind: str) -> None:
    """Write what stands for a result: every file holds the name, result.json comes last."""
    files = FILES["posterior" if kind == "posterior" else "fit"]
    for file in files[1:]:
        (folder / file).write_text(name * 20_000)
    content = {"kind": "NLSQResult", "fields": {}, "files": files, "name": name}
    (folder / files[0]).write_text(json.dumps(content))
    if kind == "both":
        (folder / "posterior").mkdir()
        fill(folder / "posterior", name, "posterior")


def name_of(folder: Path, kind: str) -> str:
    """Name of the result in a folder, which must be whole; "nothing" if there is none."""
    try:
        name = folders.read_result_json(folder)["name"]
    except TwoTimeError as exc:
        return "nothing" if "holds no result" in str(exc) else f"DAMAGED {exc}"
    for file in FILES["posterior" if kind == "posterior" else "fit"][1:]:
        if (folder / file).read_text() != name * 20_000:
            return f"DAMAGED {file}"
    if kind != "both":
        return name
    part = name_of(folder / "posterior", "posterior")
    return name if part == name else f"DAMAGED posterior of {part} beside fit of {name}"


def data(name: str) -> TwoTimeData:
    """Data for a cache, other data for each name."""
    number = float(len(name))
    return TwoTimeData(np.full((1, 8, 8), number), np.arange(1.0, 9.0), 0.01, np.zeros(1))


def place(root: Path, kind: str) -> Path:
    """Where a kind is written."""
    return root / {"batch item": "scan/q_0.01", "cache": "c.npz"}.get(kind, "out")


def write(root: Path, kind: str, name: str) -> None:
    """Write one thing, replacing what is there."""
    path = place(root, kind)
    if kind == "cache":
        write_cache(root / "source", path, "key", data(name), {"name": name}, True)
    elif kind == "checkpoint":
        state = State(*np.full((len(State._fields), 2), float(len(name))))
        Checkpoint(path, "run", resume=True).save(0, state, None)
    else:
        with folders.new_folder(path, overwrite=True) as temporary:
            fill(temporary, name, kind)


def read(root: Path, kind: str) -> str:
    """Name of what a reader finds."""
    path = place(root, kind)
    if kind == "cache":
        held = read_cache(path, "key")
        return "nothing" if held is None else held[1]["name"]
    if kind == "checkpoint":
        found = Checkpoint(path, "run", resume=True).load() if path.exists() else []
        sizes = {float(len(name)): name for name in ("old", "newer")}
        return sizes[float(found[0][0].position[0])] if found else "nothing"
    return name_of(path, kind)


def child(work: Callable[[], None], *, index: int = 0, number: int = 0) -> int:
    """Run a function in a process that a signal ends before its `index`-th operation on files."""
    process = os.fork()
    if process:
        return process
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, signal.default_int_handler)  # as the command line does
    calls = 0

    def counted(original: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls
            calls += 1
            if calls == index:
                os.kill(os.getpid(), number)
            return original(*args, **kwargs)

        return call

    for name in OPERATIONS if index else ():
        setattr(os, name, counted(getattr(os, name)))
    try:
        work()
        os._exit(0)
    except TwoTimeError as exc:
        sys.stdout.write(f"    {exc}\n" if os.environ.get("SAY") else "")
        sys.stdout.flush()
        os._exit(ENDED)
    except BaseException as exc:
        os._exit(130 if isinstance(exc, KeyboardInterrupt) else 99)


def finish(process: int) -> int:
    """Exit code of a child; the negative number of a signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def left(root: Path) -> list[str]:
    """Names that a killed run left below a folder."""
    return [p.name for p in root.rglob(".*") if ".twotime-" in p.name or p.suffix == ".tmp"]


def judged(root: Path, kind: str, allowed: set[str]) -> str:
    """What is wrong after an end, if anything: what a reader finds, and after the next run."""
    found = read(root, kind)
    if found not in allowed:
        return f"found {found}, expected one of {allowed}"
    write(root, kind, "newer")
    if read(root, kind) != "newer":
        return f"the next run gave {read(root, kind)}"
    return f"left {left(root)}" if left(root) else ""


def matrix() -> Iterator[tuple[str, int, list[str]]]:
    """Every kind, with and without an old one, every signal, at every operation."""
    for kind in KINDS:
        for before in ("nothing", "old"):
            for number in SIGNALS:
                wrong, index = [], 0
                while True:
                    index += 1
                    with tempfile.TemporaryDirectory(dir=FAST) as name:
                        root = Path(name)
                        if before == "old":
                            write(root, kind, "old")
                        work = functools.partial(write, root, kind, "newer")
                        code = finish(child(work, index=index, number=number))
                        fault = judged(root, kind, {before, "newer"})
                        if fault or code not in (0, 130, -signal.SIGKILL):
                            wrong.append(f"operation {index}: exit {code}: {fault}")
                    if code == 0:
                        break
                yield f"{kind}, {before} before, {number.name}", index - 1, wrong


def random_kills(count: int) -> Iterator[tuple[str, int, list[str]]]:
    """A process that replaces a result again and again, killed at random times."""
    rng, wrong, found = random.Random(0), [], {}
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        root = Path(name)

        def work() -> None:
            while True:
                write(root, "both", "old")
                write(root, "both", "newer")

        for index in range(count):
            process = child(work)
            time.sleep(rng.uniform(0.0, 0.05) if index else 1.0)
            os.kill(process, signal.SIGKILL)
            finish(process)
            found[what] = found.get(what := read(root, "both"), 0) + 1
            if what not in ("old", "newer"):
                wrong.append(f"kill {index}: {what}")
        yield f"random kills {found}", count, wrong


def cli_kills(count: int) -> Iterator[tuple[str, int, list[str]]]:
    """`twotime fit --overwrite` on an old result, killed at random times after its first line.

    Figures are drawn when the result is in place: `twotime plot` draws what a kill left out.
    """
    rng, wrong, codes, drawn_later = random.Random(1), [], {}, 0
    folders.jax.config.update("jax_enable_x64", True)  # results are restored in it
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        command = [sys.executable, "-m", "twotime"]
        quiet = {"cwd": root, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        subprocess.run([*command, "init", "--example"], **quiet, check=True)
        fit = [*command, "fit", "run.yaml", "-o", "out"]
        subprocess.run(fit, **quiet)
        begun = time.perf_counter()
        subprocess.run([*fit, "--overwrite"], **quiet)
        total = time.perf_counter() - begun
        for index in range(count):
            process = subprocess.Popen([*fit, "--overwrite"], **quiet)
            process.stderr.readline()
            time.sleep(rng.uniform(0.0, total))
            process.send_signal(SIGNALS[index % 3])
            process.communicate()
            codes[process.returncode] = codes.get(process.returncode, 0) + 1
            load_result(root / "out")
            files = [root / "out" / n for n in folders.read_result_json(root / "out")["files"]]
            if any(path.suffix == ".png" and not path.exists() for path in files):
                drawn_later += 1
                subprocess.run([*command, "plot", "out"], **quiet)
            missing = [path.name for path in files if not path.exists()]
            if missing:
                wrong.append(f"kill {index}: {missing} missing")
        subprocess.run([*fit, "--overwrite"], **quiet)
        wrong += [f"left {left(root)}"] if left(root) else []
        yield f"kills of `twotime fit`, exit codes {codes}, {drawn_later} drawn later", count, wrong


@contextlib.contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    """Mount a volume on a folder; needs root."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def refused(root: Path, label: str, allowed: str, work: Callable[[], None]) -> tuple:
    """A cell where writing must fail with one sentence and leave what was there."""
    code = finish(child(work))
    found = name_of(root / "out", "fit")
    fault = [] if (code, found) == (ENDED, allowed) else [f"exit {code}, found {found}"]
    return label, 1, fault + ([f"left {left(root)}"] if left(root) else [])


def places() -> Iterator[tuple[str, int, list[str]]]:
    """Places that are full, read-only, limited, linked across devices, or mounted volumes."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(dir="/dev/shm") as far:
        root = Path(name)

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            write(root, "fit", "newer")

        write(root, "fit", "old")
        yield refused(root, "file size limited (as a quota)", "old", limited)
        linked = root / "linked"
        linked.mkdir()
        (linked / "out").symlink_to(Path(far) / "real")
        fault = [
            finish(child(functools.partial(write, linked, "fit", n))) for n in ("old", "newer")
        ]
        is_good = fault == [0, 0] and (linked / "out").is_symlink()
        is_good = is_good and name_of(Path(far) / "real", "fit") == "newer" and not left(Path(far))
        yield "link to another device", 2, [] if is_good else [f"{fault}, left {left(Path(far))}"]
        if os.geteuid():
            return
        full = root / "full"
        with mounted(full, "-t", "tmpfs", "-o", "size=400k", "tmpfs"):
            write(full, "fit", "old")
            shutil.copy(full / "out" / "maps.png", full / "more")
            shutil.copy(full / "out" / "maps.png", full / "more still")
            yield refused(
                full, "tmpfs full", "old", functools.partial(write, full, "both", "newer")
            )
            subprocess.run(["mount", "-o", "remount,ro", str(full)], check=True)
            yield refused(
                full, "read-only volume", "old", functools.partial(write, full, "fit", "newer")
            )
        target = root / "volume"
        target.mkdir()
        with mounted(target / "out", "-t", "tmpfs", "tmpfs"):
            work = functools.partial(write, target, "fit", "newer")
            yield refused(target, "empty volume as the folder", "nothing", work)
            fill(target / "out", "old", "fit")
            yield refused(target, "volume with an old result as the folder", "old", work)
        bound = root / "bound"
        bound.mkdir()
        with mounted(bound / "out", "--bind", str(root / "out")):
            work = functools.partial(write, bound, "fit", "newer")
            yield refused(bound, "folder bound from the same volume", "old", work)


def race(root: Path, start: float, name: str, pause: float) -> None:
    """One of two runs: it begins at a time and fits for a while."""
    time.sleep(max(0.0, start - time.monotonic()))
    with folders.claim(root / "out", overwrite=False):
        time.sleep(pause)
        with folders.new_folder(root / "out", overwrite=False) as temporary:
            fill(temporary, name, "fit")


def races(count: int = 50) -> Iterator[tuple[str, int, list[str]]]:
    """Two runs that start together into one new folder, without leave to replace."""
    wrong = []
    for index in range(count):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            start = time.monotonic() + 0.01

            pair = [
                child(functools.partial(race, root, start, *entry))
                for entry in (("old", 0.03), ("newer", 0.0))
            ]
            codes = [finish(process) for process in pair]
            winner = ("old", "newer")[codes.index(0)] if 0 in codes else "nobody"
            if sorted(codes) != [0, ENDED] or name_of(root / "out", "fit") != winner or left(root):
                wrong.append(f"race {index}: {codes}, {winner}, left {left(root)}")
    yield "two runs at once", count, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--random", type=int, default=200, help="random kills of a writer")
    parser.add_argument("--cli", type=int, default=20, help="random kills of `twotime fit`")
    names = "matrix", "random", "places", "races", "cli"
    parser.add_argument("parts", nargs="*", choices=[*names, []], help="all if left out")
    options = parser.parse_args()
    folders.jax.process_index = lambda: 0  # children start no backend
    logging.disable()
    warnings.simplefilter("ignore", RuntimeWarning)  # of forks: children run nothing of JAX
    parts = matrix(), random_kills(options.random), places(), races(), cli_kills(options.cli)
    cells = bad = 0
    for name, part in zip(names, parts, strict=True):
        for label, count, wrong in part if name in (options.parts or names) else ():
            cells, bad = cells + count, bad + len(wrong)
            print(f"{label}: {count} cells, {len(wrong)} wrong", flush=True)
            for line in wrong[:5]:
                print(f"    {line}")
    print(f"{cells} cells, {bad} wrong")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
