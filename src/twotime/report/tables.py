"""Results in words: numbers to the digits they deserve, tables, and a document of them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

_UNITS = {
    "wavevector_q": "1/Å",
    "dt": "s",
    "pixels": "with t1 < t2 and usable",
    "masked_pixels": "with t1 < t2",
}


class Table(NamedTuple):
    """A table of texts.

    Attributes:
        title: What it shows.
        columns: Heads of its columns.
        rows: Its rows.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Curve(NamedTuple):
    """A function of time behind a model's parameters, with a band of one standard deviation.

    Attributes:
        values: The function at each frame [unit].
        lower: Lower end of the band.
        upper: Upper end of the band.
        unit: Its unit; empty for pure numbers.
        symbol: Symbol for tables and axes.
        description: What it is.
    """

    values: Float[np.ndarray, " time"]
    lower: Float[np.ndarray, " time"]
    upper: Float[np.ndarray, " time"]
    unit: str
    symbol: str
    description: str


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where a result comes from, for its files.

    Attributes:
        settings: The configuration as used, with its defaults.
        source: Facts about the data: file, checksum, selection, pixels.
        notes: Sentences about the data and the settings that a reader should know.
        metadata: The user's own notes about the experiment.
        wall_time: Time the fit took, compilation included [s].
        judgement: What the residuals say about the model, as a sentence.
    """

    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    wall_time: float | None = None
    judgement: str = ""


def with_error(value: float, deviation: float | None) -> str:
    """A value with the digits that two digits of its standard deviation allow.

    Args:
        value: The value.
        deviation: Its standard deviation; None or not finite for none.

    Example:
        >>> with_error(29707.9, 671.4), with_error(-0.28115, 0.01003), with_error(0.5, None)
        ('29710', '-0.281', '0.5')
    """
    if deviation is None or not math.isfinite(deviation) or deviation <= 0:
        return f"{value:.6g}"
    digits = 1 - math.floor(math.log10(deviation))
    largest = max(abs(value), deviation)
    if 1e-4 <= largest < 1e6:
        return f"{round(value, digits):.{max(digits, 0)}f}"
    power = math.floor(math.log10(largest))
    return f"{value / 10.0**power:.{max(digits + power, 0)}f}e{power}"


def error_text(deviation: float | None) -> str:
    """A standard deviation in two digits, or why there is none."""
    if deviation is None:
        return "fixed"
    if math.isnan(deviation):
        return "on a bound"
    if math.isinf(deviation):
        return "not determined"
    return with_error(deviation, deviation) if deviation else "0"


def markdown_table(table: Table) -> str:
    """A table as Markdown with aligned columns."""
    cells = [table.columns, *table.rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(table.columns))]
    lines = [
        "| " + " | ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([f"**{table.title}**", "", lines[0], rule, *lines[1:]])


def document(
    title: str,
    lead: tuple[str, ...],
    tables: tuple[Table, ...],
    remarks: tuple[str, ...],
    provenance: Provenance | None,
    figures: tuple[str, ...],
) -> str:
    """A report as Markdown that also reads well as plain text.

    Args:
        title: Its title.
        lead: First sentences, one paragraph each.
        tables: Its tables.
        remarks: Sentences under the tables.
        provenance: Where the result comes from, if known.
        figures: Names of the figures beside it.
    """
    parts = [f"# {title}", *lead, *map(markdown_table, tables)]
    parts += ["\n".join(f"* {remark}" for remark in remarks)] if remarks else []
    if provenance is not None:
        parts += _origin(provenance)
    if figures:
        parts += ["## Figures", *(f"![{name}]({name})" for name in figures)]
    return "\n\n".join(parts) + "\n"


def _origin(provenance: Provenance) -> list[str]:
    facts = dict(provenance.source) | dict(provenance.metadata)
    if provenance.wall_time is not None:
        facts["time for the fit"] = f"{provenance.wall_time:.1f} s, compilation included"
    lines = [f"* {name.replace('_', ' ')}: {_fact(name, fact)}" for name, fact in facts.items()]
    lines += [f"* {note}" for note in provenance.notes]
    return ["## Data", "\n".join(lines)] if lines else []


def _fact(name: str, fact: Any) -> str:
    if isinstance(fact, list | tuple):
        between = " to " if name == "frames" else "; "
        return between.join(map(str, fact)) or "none"
    text = f"{fact:.9g}" if isinstance(fact, float) else str(fact)
    return f"{text} {_UNITS[name]}" if name in _UNITS else text


def curve_table(curves: Mapping[str, Curve]) -> Table:
    """Functions of time at the first, middle and last frame."""
    rows = []
    for name, curve in curves.items():
        last = len(curve.values) - 1
        shown = [
            f"{with_error(float(curve.values[i]), deviation)} ± {error_text(deviation)}"
            for i in (0, last // 2, last)
            for deviation in (0.5 * float(curve.upper[i] - curve.lower[i]),)
        ]
        rows.append((name, *shown, curve.unit, curve.description))
    heads = ("function", "first frame", "middle", "last frame", "unit", "meaning")
    return Table("Functions of time", heads, tuple(rows))


def judgements(provenance: Provenance | None) -> tuple[str, ...]:
    """What the residuals say about the model, where that is known."""
    sentence = "" if provenance is None else provenance.judgement
    return (f"{sentence[:1].upper()}{sentence[1:]}.",) if sentence else ()
