"""g2 of a data file from the command line."""

import dataclasses
import logging
from pathlib import Path

from twotime import scaffold
from twotime.cli.files import checked_data, is_configuration, settings_of
from twotime.covariance.one_time import one_time
from twotime.data import load_file
from twotime.data.dataset import TwoTimeData
from twotime.data.selection import Selection
from twotime.disk import replacing, write_text
from twotime.plots.fit import save
from twotime.plots.one_time import g2

_log = logging.getLogger(__name__)


def write_g2(
    file: Path, q: float | None, ages: int, output: Path, *, overwrite: bool
) -> tuple[Path, Path]:
    """Write g2 of a data file, or of the first of a configuration, as table and figure.

    Args:
        file: The file.
        q: Wavevector [1/Å]; None takes all of the file, or those of the configuration.
        ages: Periods into which the record is divided as well, where more than one.
        output: The table; the figure is beside it.
        overwrite: Whether existing files may be replaced.

    Returns:
        The table and the figure.
    """
    figure = output.with_suffix(".png")
    for path in (output, figure):
        scaffold.check_new(path, overwrite=overwrite)
    data = _selected(file, q)
    found = [one_time(data, count) for count in dict.fromkeys((1, ages))]
    head, *_ = (tables := [x.to_csv() for x in found])[0].splitlines(keepends=True)
    rows = "".join(table.removeprefix(head) for table in tables)
    with replacing(output) as temporary:
        write_text(temporary, head + rows)
    save(figure.parent, {figure.stem: lambda: g2(found)})
    return output, figure


def _selected(file: Path, q: float | None) -> TwoTimeData:
    if is_configuration(file):
        config = settings_of(file)
        path, selection = config.data_file_path, Selection.from_config(config)
    else:
        path, selection = checked_data(file), Selection(q=None)
    data, report = load_file(path, selection if q is None else dataclasses.replace(selection, q=q))
    for note in report.notes:
        _log.warning("%s", note)
    return data
