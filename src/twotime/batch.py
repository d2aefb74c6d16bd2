"""Many fits from one configuration: each wavevector of each file in a folder of its own.

`run` fits one item after the other, so that one compiled program serves all of a shape. An item
that fails is told and the rest goes on; items whose results are there are not fitted again.
"""

import csv
import dataclasses
import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from twotime import workflow
from twotime.config.manager import ConfigManager
from twotime.data.containers import about
from twotime.data.readers import open_source
from twotime.data.selection import Selection, select_rings
from twotime.disk import replacing
from twotime.errors import ResultError, TwoTimeError
from twotime.models.base import Curve
from twotime.plots import many
from twotime.results import load_result, storage
from twotime.results.folder import writing

TABLE, RECORD = "table.csv", "batch.json"
_SCATTERING = ("analyzer_parameters", "scattering")
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


def is_batch(config: ConfigManager, files: Sequence[Path] = ()) -> bool:
    """Whether a configuration asks for more than one fit."""
    is_one = isinstance(Selection.from_config(config).q, float)
    return len(files) > 1 or (config.q_mode == "each" and not is_one)


def items_of(config: ConfigManager, files: Sequence[Path] = ()) -> list[Item]:
    """The fits that a configuration asks for, from the headers of the files alone.

    Args:
        config: A validated configuration.
        files: Data files in place of that of the configuration.
    """
    found = []
    for file in files or (config.data_file_path,):
        prefix = f"{file.stem}/" if len(files) > 1 else ""
        here = _with(config, ("experimental_data", "file_path"), str(file.absolute()))
        try:
            found += _of_file(here, file, prefix)
        except (TwoTimeError, OSError) as exc:
            found.append(Item(prefix.rstrip("/") or file.stem, file, np.nan, None, str(exc)))
    _check_names([item.name for item in found])
    return found


def _of_file(config: ConfigManager, file: Path, prefix: str) -> list[Item]:
    if config.q_mode == "together":
        return [Item(prefix + "together", file, np.nan, config)]
    selection = Selection.from_config(config)
    source = open_source(file, angle_last=selection.roi_axis == "last")
    with about(file):
        rings, _ = select_rings(source, selection)
    items = []
    for ring in rings:
        one = _with(config, (*_SCATTERING, "wavevector_q"), ring.q)
        items.append(Item(f"{prefix}q_{ring.q:.6g}", file, ring.q, one))
    return items


def _with(config: ConfigManager, path: tuple[str, ...], value: Any) -> ConfigManager:
    """The configuration with another value; one wavevector makes the keys about several void."""
    changed = config.get_config()
    section = changed
    for name in path[:-1]:
        section = section.setdefault(name, {})
    section[path[-1]] = value
    if path[-1] == "wavevector_q" and value != "all":
        section.pop("q_range", None)
    if path[-1] == "wavevector_q" and isinstance(value, float):
        section.pop("q_mode", None)
    return ConfigManager.from_dict(changed, base_dir=config.base_dir)


def with_choice(
    config: ConfigManager, q: str | None, *, is_together: bool, file: Path | None = None
) -> ConfigManager:
    """The configuration with wavevectors as the command line names them.

    Args:
        config: A validated configuration.
        q: "all", or wavevectors joined by commas [1/Å]; None leaves those of the configuration.
        is_together: Whether one law is fitted to all of them.
        file: Data file in place of that of the configuration.

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
    if file is not None:
        config = _with(config, ("experimental_data", "file_path"), str(file.absolute()))
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
    files: Sequence[Path] = (),
    *,
    overwrite: bool = False,
    progress: Callable[[Outcome, int, int], None] | None = None,
) -> list[Outcome]:
    """Fit all items; write a folder for each, a table and figures.

    Args:
        config: A validated configuration.
        folder: Folder of the batch. Where it holds results of the same configuration, items that
            are there are read and the others fitted.
        files: Data files in place of that of the configuration.
        overwrite: Whether all items are fitted anew.
        progress: Called after every item, with how many are done and how many there are.

    Raises:
        ResultError: If the folder holds something else, or results of another configuration.
        TwoTimeError: If items could not be told from each other by name.
    """
    folder, items = Path(folder), items_of(config, files)
    _begin(config, folder, overwrite=overwrite)
    outcomes = []
    for count, item in enumerate(items, start=1):
        outcomes.append(_outcome(item, folder / item.name, overwrite=overwrite))
        if progress is not None:
            progress(outcomes[-1], count, len(items))
    with writing(folder), replacing(folder / TABLE) as temporary:
        temporary.write_text(table(outcomes), encoding="utf-8")
    found = series(outcomes)
    if found:
        many.save_figures(folder, found)
    return outcomes


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
            temporary.write_text(json.dumps({"settings": settings}, indent=1), encoding="utf-8")


def _outcome(item: Item, folder: Path, *, overwrite: bool) -> Outcome:
    """The result of an item, read or fitted; its fault where it fails."""
    if item.config is None:
        return Outcome(item, None, {}, item.fault)
    try:
        if overwrite or not (folder / storage.RESULT).exists():
            workflow.run(item.config, folder, overwrite=True)
        return Outcome(item, load_result(folder), storage.read_curves(folder))
    except (ValueError, RuntimeError, OSError) as exc:
        _log.error("%s: %s", item.name, exc)
        return Outcome(item, None, {}, " ".join(str(exc).split()))


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
