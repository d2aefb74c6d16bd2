"""Many fits from one configuration: each wavevector of each file in a folder of its own.

`run` fits one item after the other, so that one compiled program serves all of a shape, and draws
the figures of one while the next is fitted; or several side by side, in processes that it is given.
An item that fails is told and the rest goes on; items whose results are there are not fitted again.
"""

import csv
import dataclasses
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from twotime import workflow
from twotime.config.manager import ConfigManager
from twotime.data import taken
from twotime.data.selection import Selection
from twotime.disk import replacing, write_text
from twotime.errors import ResultError, TwoTimeError
from twotime.models.base import Curve
from twotime.plots import many
from twotime.plots.folder import draw_missing
from twotime.results import load_result, storage
from twotime.results.folder import POSTERIOR, writing

TABLE, RECORD = "table.csv", "batch.json"
_TEXTS = "folder", "converged", "status"
_SCATTERING = ("analyzer_parameters", "scattering")
_FILES = ("experimental_data", "file_path")
_FAULTS = ValueError, RuntimeError, OSError
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Item:
    """One fit of a batch.

    Attributes:
        name: Its folder in the folder of the batch.
        file: Data file.
        q: Wavevector [1/Å]; NaN where the file cannot be read.
        config: Its configuration; None where the file cannot be read.
        fault: Why there is nothing to fit; empty where there is.
    """

    name: str
    file: Path
    q: float
    config: ConfigManager | None
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of an item.

    Attributes:
        item: The item.
        result: Its fit or posterior; None where it failed.
        curves: Functions of time of the result.
        fault: Why it failed; empty where it did not.
    """

    item: Item
    result: Any
    curves: Mapping[str, Curve]
    fault: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it was fitted and converged."""
        return self.result is not None and bool(self.result.converged)


Fitted = Iterator[tuple[Outcome, Future[Outcome]]]
"""Items fitted; the future waits for their figures."""


def is_batch(config: ConfigManager) -> bool:
    """Whether a configuration asks for more than one fit."""
    is_one = isinstance(Selection.from_config(config).q, float)
    several = config.file_mode == "each" and len(config.data_file_paths) > 1
    return several or (config.q_mode == "each" and not is_one)


def items_of(config: ConfigManager) -> list[Item]:
    """The fits that a configuration asks for, from the headers of the files alone.

    Args:
        config: A validated configuration.
    """
    files, found = config.data_file_paths, list[Item]()
    is_each = config.file_mode == "each" and len(files) > 1
    for file in files if is_each else files[:1]:
        prefix = f"{file.stem}/" if is_each else ""
        try:
            here = _with(config, _FILES, str(file.absolute())) if is_each else config
            found += _of_file(here, file, prefix)
        except (TwoTimeError, OSError) as exc:
            found.append(Item(prefix.rstrip("/") or file.stem, file, np.nan, None, str(exc)))
    _check_names([item.name for item in found])
    return found


def _of_file(config: ConfigManager, file: Path, prefix: str) -> list[Item]:
    if config.q_mode == "together":
        return [Item(prefix + "together", file, np.nan, config)]
    items = []
    for ring in taken(file, Selection.from_config(config)).rings:
        one = _with(config, (*_SCATTERING, "wavevector_q"), ring.q)
        items.append(Item(f"{prefix}q_{ring.q:.6g}", file, ring.q, one))
    return items


def _with(config: ConfigManager, path: tuple[str, ...], value: Any) -> ConfigManager:
    """The configuration with another value, without keys that it leaves without effect."""
    changed = config.get_config()
    section = changed
    for name in path[:-1]:
        section = section.setdefault(name, {})
    section[path[-1]] = value
    if path[-1] == "wavevector_q" and value != "all":
        section.pop("q_range", None)
    if path[-1] == "wavevector_q" and isinstance(value, float):
        section.pop("q_mode", None)
    if path == _FILES and section.get("file_mode") == "each":
        del section["file_mode"]
    return ConfigManager.from_dict(changed, base_dir=config.base_dir)


def with_choice(
    config: ConfigManager, q: str | None, *, is_together: bool, files: Sequence[str] = ()
) -> ConfigManager:
    """The configuration with wavevectors and files as the command line names them.

    Args:
        config: A validated configuration.
        q: "all", or wavevectors joined by commas [1/Å]; None leaves those of the configuration.
        is_together: Whether one law is fitted to all of them.
        files: Data files, or patterns of their names, in place of those of the configuration.

    Raises:
        TwoTimeError: If they are no wavevectors.
    """
    if q is not None:
        try:
            values = [float(word) for word in q.split(",")] if q != "all" else q
        except ValueError:
            raise TwoTimeError(
                f"--q is {q!r}; expected all, or wavevectors joined by commas: --q 0.005,0.01."
            ) from None
        is_one = isinstance(values, list) and len(values) == 1 and not is_together
        config = _with(config, (*_SCATTERING, "wavevector_q"), values[0] if is_one else values)
    if is_together:
        config = _with(config, (*_SCATTERING, "q_mode"), "together")
    if files:
        names = [str(Path(name).absolute()) for name in files]
        config = _with(config, _FILES, names if len(names) > 1 else names[0])
    return config


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TwoTimeError(
            f"several items of the batch would have the folder {', '.join(twice)}; expected files "
            "of different names, and wavevectors that differ in six digits; fit them one by one."
        )


def run(
    config: ConfigManager,
    folder: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[Outcome, int, int], None] | None = None,
    pool: Executor | None = None,
) -> list[Outcome]:
    """Fit all items; write a folder for each, a table and figures.

    Args:
        config: A validated configuration.
        folder: Folder of the batch. Where it holds results of the same configuration, items that
            are there are read and the others fitted.
        overwrite: Whether all items are fitted anew.
        progress: Called after every item, with how many are done and how many there are.
        pool: Processes to fit in, side by side, with double precision switched on; None fits here.

    Raises:
        ResultError: If the folder holds something else, or results of another configuration.
        TwoTimeError: If items could not be told from each other by name.
    """
    folder, items = Path(folder), items_of(config)
    _begin(config, folder, overwrite=overwrite)
    fitted = partial(_side_by_side, pool) if pool and len(items) > 1 else _one_by_one
    finished = list[Future[Outcome]]()
    for outcome, drawn in fitted(items, folder, overwrite):
        finished.append(drawn)
        if progress is not None:
            progress(outcome, len(finished), len(items))
    outcomes = [drawn.result() for drawn in finished]
    with writing(folder), replacing(folder / TABLE) as temporary:
        write_text(temporary, table(outcomes))
    found = series(outcomes)
    if found:
        many.save_figures(folder, found)
    return outcomes


def _one_by_one(items: Sequence[Item], folder: Path, overwrite: bool) -> Fitted:
    """Fit items here; the figures of one are drawn while the next is fitted."""
    with ThreadPoolExecutor(1) as pool:
        last: Future[Outcome] | None = None
        for item in items:
            outcome = _outcome(item, folder / item.name, overwrite=overwrite)
            if last is not None:
                last.result()
            last = pool.submit(_drawn, outcome, folder / item.name)
            yield outcome, last


def _side_by_side(pool: Executor, items: Sequence[Item], folder: Path, overwrite: bool) -> Fitted:
    """Fit items in processes; what each says is said here, item by item."""
    level = _log.getEffectiveLevel()
    settings = [(item, folder / item.name, overwrite, level) for item in items]
    waiting = [pool.submit(_elsewhere, *x) for x in settings]
    for item, future in zip(items, waiting, strict=True):
        done, said = Future[Outcome](), list[tuple[str, int, str]]()
        try:
            fault, said = future.result()
        except BrokenExecutor:
            fault = "the process that fitted it was ended, for want of memory perhaps; fit fewer at"
            fault += " a time (--jobs 1)."
        for name, level, text in said:
            logging.getLogger(name).log(level, "%s", text)
        place = folder / item.name
        found = None if fault else load_result(place)
        curves = {} if fault else storage.read_curves(place)
        done.set_result(Outcome(item, found, curves, fault))
        yield done.result(), done


class _Kept(logging.Handler):
    """Keeps messages: the name of the logger, the level and the text of each."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.name, record.levelno, record.getMessage()))


def _elsewhere(
    item: Item, folder: Path, overwrite: bool, level: int
) -> tuple[str, list[tuple[str, int, str]]]:
    """Fit an item and draw its figures, in another process; its fault, and what was said."""
    logger, kept = logging.getLogger("twotime"), _Kept()
    logger.setLevel(level)
    logger.addHandler(kept)
    try:
        return _drawn(_outcome(item, folder, overwrite=overwrite), folder).fault, kept.said
    finally:
        logger.removeHandler(kept)


def _begin(config: ConfigManager, folder: Path, *, overwrite: bool) -> None:
    """Make the folder of a batch, or see that it is one of the same configuration."""
    record = folder / RECORD
    settings = json.loads(json.dumps(storage.plain(config.get_config())))
    if record.exists() and not overwrite:
        if json.loads(record.read_text(encoding="utf-8"))["settings"] != settings:
            raise ResultError(
                f"{folder}: holds a batch of another configuration; choose another folder, or fit "
                "all items anew (--overwrite)."
            )
    elif not record.exists() and folder.exists() and any(folder.iterdir()):
        raise ResultError(
            f"{folder}: holds other files and no batch; expected a new or empty folder."
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(record) as temporary:
            write_text(temporary, json.dumps({"settings": settings}, indent=1))


def _outcome(item: Item, folder: Path, *, overwrite: bool) -> Outcome:
    """The result of an item, read or fitted; its fault where it fails."""
    if item.config is None:
        return Outcome(item, None, {}, item.fault)
    try:
        is_both = item.config.optimization_method == "both"
        last = folder / POSTERIOR if is_both else folder
        if overwrite or not (last / storage.RESULT).exists():
            kept = workflow.kept_run(folder, resume=False, overwrite=True)
            goes_on = not overwrite and kept.exists()
            workflow.without_figures(item.config, folder, overwrite=True, resume=goes_on)
        return Outcome(item, load_result(folder), storage.read_curves(folder))
    except _FAULTS as exc:
        return _failed(item, exc)


def _drawn(done: Outcome, folder: Path) -> Outcome:
    """An outcome with its figures drawn, failed where these cannot be."""
    output = {} if done.item.config is None else done.item.config.section("output")
    try:
        if done.result is not None and output["figures"]:
            draw_missing(folder, output["figure_format"])
    except _FAULTS as exc:
        return _failed(done.item, exc)
    return done


def _failed(item: Item, exc: Exception) -> Outcome:
    _log.error("%s: %s", item.name, exc)
    return Outcome(item, None, {}, " ".join(str(exc).split()))


def to_xarray(folder: str | Path) -> Any:
    """The table of a batch as an xarray Dataset with the coordinates file and q.

    Parameters, their errors (`D0_error`) and reduced_chi2 are numbers, NaN where nothing was
    fitted; converged, folder and status say what became of it. q is as folders are named.

    Args:
        folder: Folder of the batch.

    Raises:
        ResultError: If it holds no table of a batch.
        ModuleNotFoundError: If xarray is not installed.
    """
    xarray = storage.optional("xarray", "to_xarray")
    path = Path(folder) / TABLE
    if not path.exists():
        raise ResultError(f"{folder}: holds no {TABLE}; expected the folder of a batch.")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    files = list(dict.fromkeys(row["file"] for row in rows))
    q = sorted({_place(row) for row in rows if row["q"]})
    variables: dict[str, Any] = {}
    for name in (head for head in rows[0] if head not in ("file", "q")):
        is_text = name in _TEXTS
        values = np.full((len(files), len(q)), "" if is_text else np.nan, object)
        for row in rows:
            here = slice(None) if not row["q"] else q.index(_place(row))
            values[files.index(row["file"]), here] = row[name] if is_text else _number(row[name])
        variables[name] = (("file", "q"), values.astype(str if is_text else float))
    found = xarray.Dataset(variables, {"file": files, "q": ("q", q, {"units": "1/Å"})})
    return found.assign(converged=found["converged"] == "yes")


def _place(row: Mapping[str, str]) -> float:
    return float(f"{float(row['q']):.6g}")


def _number(cell: str) -> float:
    return float(cell) if cell else np.nan


def table(outcomes: Sequence[Outcome]) -> str:
    """A CSV table: a row for each item, with parameters, their errors, and what became of it."""
    first = next((x.result for x in outcomes if x.result is not None), None)
    names = () if first is None else first.names
    heads = ["file", "q", "folder", "converged", "reduced_chi2"]
    heads += [head for name in names for head in (name, f"{name}_error")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*heads, "status"])
    for x in outcomes:
        row = [x.item.file.name, "" if np.isnan(x.item.q) else repr(float(x.item.q)), x.item.name]
        if x.result is None:
            writer.writerow([*row, "no", *[""] * (len(heads) - 4), x.fault])
            continue
        numbers = [getattr(x.result, "reduced_chi2", np.nan)]
        for name in names:
            numbers += [x.result.params[name], x.result.uncertainties[name]]
        cells = [f"{float(number):.10g}" for number in numbers]
        writer.writerow([*row, "yes" if x.result.converged else "no", *cells, x.result.status])
    return out.getvalue()


def series(outcomes: Sequence[Outcome]) -> list[many.Series]:
    """Rates and parameters against the wavevector, of each file with more than one."""
    found = []
    for file in dict.fromkeys(x.item.file for x in outcomes):
        here = [x for x in outcomes if x.item.file == file and x.is_good and x.item.q > 0]
        if len(here) < 2:
            continue
        q = np.array([x.item.q for x in here])
        names, units = here[0].result.names, here[0].result.units
        unit = dict(zip(here[0].result.all_names, units, strict=True))
        values = {}
        for name in here[0].curves:
            if name.startswith("J"):
                middle = [_middle(x.curves[name]) for x in here]
                values[f"Γ ({name})"] = 0.5 * q[:, None] ** 2 * np.array(middle), "1/s"
        for name in names:
            pairs = [(x.result.params[name], x.result.uncertainties[name]) for x in here]
            values[name] = np.array(pairs), unit[name]
        found += [many.Series(file.stem, name, u, q, *x.T) for name, (x, u) in values.items()]
    return found


def _middle(curve: Curve) -> tuple[float, float]:
    """A function in the middle of the record, and its standard deviation."""
    k = len(curve.values) // 2
    if curve.lower is None or curve.upper is None:
        return float(curve.values[k]), np.nan
    return float(curve.values[k]), 0.5 * float(curve.upper[k] - curve.lower[k])
