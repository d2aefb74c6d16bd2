"""Figures of result folders, drawn from what the folders hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twotime.errors import ResultError
from twotime.plots import fit as fit_plots
from twotime.plots import posterior as posterior_plots
from twotime.results import load_result, storage
from twotime.results.folder import RESULT, added, read_result_json, writing
from twotime.results.nlsq import NLSQResult
from twotime.results.sequential import SequentialResult, angle_folders


def redraw(
    folder: str | Path,
    into: str | Path | None = None,
    *,
    format: str = "png",
    drawn: Callable[[str], None] = lambda name: None,
) -> tuple[str, ...]:
    """Draw the figures of a saved result.

    Args:
        folder: A folder that `twotime fit` wrote.
        into: Folder for the figures, created if needed; None draws into the same folder.
        format: "png", "pdf" or "svg".
        drawn: Called with the name of a figure before it is drawn.

    Returns:
        Names of the figures.

    Raises:
        ResultError: If the folder holds no result, or one without what its figures show.
    """
    folder = Path(folder)
    result, target = load_result(folder), folder if into is None else Path(into)
    if isinstance(result, SequentialResult):
        how: Any = {"format": format, "drawn": drawn}
        parts = [(x, redraw(folder / x, target / x, **how)) for x in angle_folders(result)]
        return tuple(f"{part}/{name}" for part, names in parts for name in names)
    arrays, curves = storage.read_arrays(folder), storage.read_curves(folder)
    if isinstance(result, NLSQResult):
        if "shown_c2" not in arrays and not {"t", "q", "c2", "model"} <= set(arrays):
            raise ResultError(
                f"{folder}: its {storage.ARRAYS} does not hold what figures show; fit again."
            )
        if "c2" in arrays and "model" in arrays:
            arrays.setdefault("residual", arrays["c2"] - arrays["model"])
        figures = fit_plots.figures_of(result, arrays, curves)
    else:
        figures = posterior_plots.figures_of(result, arrays, curves)
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
    with added(target) as temporary:
        return fit_plots.save(temporary, figures, format, drawn)


def draw_missing(
    folder: Path, format: str, drawn: Callable[[str], None] = lambda name: None
) -> tuple[str, ...]:
    """Draw the figures that the results in a folder list and that are not there yet.

    Args:
        folder: Folder of the results; those of angles and of the posterior are folders in it.
        format: "png", "pdf" or "svg".
        drawn: Called with the name of a figure before it is drawn.

    Returns:
        Names of the figures.
    """
    names: list[str] = []
    for place in sorted(path.parent for path in folder.rglob(RESULT)):
        listed = [place / name for name in read_result_json(place).get("files", ())]
        figures = [path for path in listed if path.suffix == f".{format}"]
        if not all(path.exists() for path in figures):
            found = redraw(place, format=format, drawn=drawn)
            names += [(place / name).relative_to(folder).as_posix() for name in found]
    return tuple(names)
