"""A configuration for a data file: what the file says is filled in, the rest is named."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from twotime.config.files import template, yaml_text
from twotime.data import load_file
from twotime.data.level import level_of
from twotime.data.readers import open_source
from twotime.data.selection import Selection
from twotime.data.source import TwoTimeFile
from twotime.disk import replacing, write_text
from twotime.errors import DataError
from twotime.models.laws import find_law
from twotime.models.parameters import Setting
from twotime.results.folder import writing
from twotime.scaffold import check_new


def configuration_for(
    data: Path, output: Path, model: str, *, q: float | None = None, overwrite: bool = False
) -> tuple[str, ...]:
    """Write a configuration for a data file; returns what is still missing in it.

    Args:
        data: The data file.
        output: The configuration to write.
        model: Word of a law.
        q: Wavevector to select [1/Å]; None takes the first of the file.
        overwrite: Whether an existing file may be replaced.

    Raises:
        DataError: If the file cannot be read, or does not hold this wavevector.
        ResultError: If the configuration exists and may not be replaced, or cannot be written.
    """
    check_new(output, overwrite=overwrite)
    file = open_source(data)
    found = sorted({b.q for b in file.bins if b.q is not None})
    chosen = q if q is not None or not found else found[0]
    if q is not None and found:
        chosen = float(min(found, key=lambda x: abs(x - q)))
        if abs(chosen - q) > 0.1 * chosen:
            listed = ", ".join(f"{x:.6g}" for x in found)
            raise DataError(f"{data}: holds no matrix near q = {q:g} 1/Å; it holds {listed}.")
    needed = [setting for setting in find_law(model).settings if setting.needed]
    text, missing = _filled(template(model), needed, data, output, file, chosen, found)
    with writing(output), replacing(output) as temporary:
        write_text(temporary, text)
    return missing


def _filled(
    text: str,
    needed: Sequence[Setting],
    data: Path,
    output: Path,
    file: TwoTimeFile,
    q: float | None,
    found: list[float],
) -> tuple[str, tuple[str, ...]]:
    """A template with the facts of a file, and the keys that it does not give.

    Settings that a law needs are never in a file: their examples are left out.
    """
    name = os.path.relpath(data.absolute(), output.absolute().parent)
    law = text.split("# Runs as written")[0]
    missing, facts = [], [f"# {line}" for line in _facts(file, q, found)]
    lines = [*facts, "", *text[text.index("analysis_mode:") :].rstrip().split("\n")]
    is_parameter, by_key = False, {setting.path[-1]: setting for setting in needed}
    for k, line in enumerate(lines):
        margin = line[: len(line) - len(line.lstrip())]
        if line.startswith("  file_path:"):
            lines[k] = f"  file_path: {yaml_text(name)}"
        elif re.match(r"\s*wavevector_q:", line):
            missing += [] if q is not None else ["analyzer_parameters.scattering.wavevector_q"]
            value = "           # 1/Å: not in the file" if q is None else f" {yaml_text(q)}  # 1/Å"
            lines[k] = f"{margin}wavevector_q:{value}"
            if any(b.phi is None for b in file.bins) and len(file.bins) > 1:
                missing.append("analyzer_parameters.scattering.phi_angles")
                lines[k] += f"\n{margin}phi_angles:             # degree: not in the file"
        elif re.match(r"\s*# dt:", line) and file.dt is not None:
            lines[k] = f"{margin}# dt: {yaml_text(file.dt):<22} # s, as in the file"
        elif re.match(r"\s*# dt:", line) and file.times is None:
            missing.append("analyzer_parameters.dt")
            lines[k] = f"{margin}dt:                     # s: not in the file"
        elif (setting := by_key.get(line.strip().partition(":")[0])) is not None:
            missing.append(".".join(setting.path))
            example = f"for example {yaml_text(setting.example)}"
            lines[k] = f"{margin}{setting.path[-1]}:       # {setting.unit}: your own, {example}"
        is_parameter = line.startswith("parameters:") or (is_parameter and line.startswith(" "))
        if is_parameter:  # what is left out starts at estimates from the data
            lines[k] = f"# {line}"
    return law + "\n".join(lines) + "\n", tuple(missing)


def _facts(file: TwoTimeFile, q: float | None, found: list[float]) -> list[str]:
    """What is known of the file, in lines."""
    lines = [f"{file.path.name}: layout {file.layout}, {file.n_frames} frames"]
    for x in found:
        angles = " ".join(f"{b.phi:g}" for b in file.bins if b.q == x and b.phi is not None)
        lines.append(f"  q = {x:.6g} 1/Å, phi = {angles or 'not in the file'}")
    if q is not None and (file.dt is not None or file.times is not None):
        try:
            lines.append(f"{level_of(load_file(file.path, Selection(q=q))[0])}")
        except DataError as exc:
            lines.append(f"the data cannot be read: {exc}")
    return lines
