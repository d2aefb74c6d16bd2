"""Reports: numbers with the digits that their errors allow, tables, and documents of them."""

import dataclasses
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from twotime.config.frames import joined
from twotime.models.base import Curve
from twotime.models.rates import AnyArray
from twotime.results.storage import Provenance
from twotime.tables import Table as Table
from twotime.tables import html_table as html_table
from twotime.tables import text_table as text_table

_UNITS = {
    "wavevector_q": "1/Å",
    "dt": "s",
    "points": "used, with t1 < t2",
    "masked_points": "with t1 < t2",
}


_DROPPED = (
    "start", "bounds", "± if independent, ratio", "meaning", "definition", "ESS", "R-hat",
    "first frame", "last frame",
)  # fmt: skip
"""Columns in the order in which a narrow terminal leaves them out."""


_FIXED = "fixed"


@dataclasses.dataclass(frozen=True)
class Description:
    """Words about a result.

    Attributes:
        title: Its title.
        lead: First sentences, one paragraph each.
        tables: Its tables, the parameters first.
        remarks: Sentences under the tables.
        summary: Returns the findings by name, for other programs to read.
        are_functions_first: Whether functions of time say more than the parameters, which trade.
        quality: How well the data are described, in one line.
    """

    title: str
    lead: tuple[str, ...]
    tables: tuple[Table, ...]
    remarks: tuple[str, ...]
    summary: Callable[[], dict[str, Any]]
    are_functions_first: bool = False
    quality: str = ""

    @property
    def table(self) -> Table:
        """The main table: parameters with their uncertainties."""
        return self.tables[0]

    def main_tables(self, curves: Mapping[str, Curve]) -> tuple[Table, ...]:
        """Parameters and functions of time, what says more first."""
        shown = self.table, *([curve_table(curves)] if curves else [])
        return shown[::-1] if self.are_functions_first else shown

    def short(self) -> str:
        """The title, the state and the main table, as plain text."""
        return "\n".join([self.title, self.lead[0], "", text_table(self.table)])

    def html(self) -> str:
        """The title, the state, the tables and the remarks, for a notebook."""
        parts = [f"<strong>{escape(self.title)}</strong>", f"<p>{escape(self.lead[0])}</p>"]
        parts += [f"<p>{escape(t.title)}</p>{html_table(t)}" for t in self.tables]
        return "".join([*parts, html_list(self.remarks)])

    def terminal(self, curves: Mapping[str, Curve], width: int) -> str:
        """What a terminal of `width` columns shows of a result; no number is ever cut."""
        fixed = [row for row in self.table.rows if _FIXED in row]
        free = tuple(row for row in self.table.rows if _FIXED not in row)
        main = [_titled(self.table._replace(rows=free), width)] if free else []
        if fixed:
            unit = self.table.columns.index("unit")
            values = ", ".join(f"{row[0]} = {row[1]} {row[unit]}".rstrip() for row in fixed)
            main.append(folded(f"Fixed: {values}", width))
        functions = [_titled(curve_table(curves), width)] if curves else []
        scaling = [_titled(table, width) for table in self.tables[1:2]]
        parts = ["\n".join(main), *scaling, folded(self.quality, width)]
        parts = [*functions, *parts] if self.are_functions_first else [*parts, *functions]
        remarks = "\n".join(folded(remark, width) for remark in self.remarks)
        return "\n\n".join(part for part in (*parts, remarks) if part)

    def document(
        self, curves: Mapping[str, Curve], provenance: Provenance | None, figures: tuple[str, ...]
    ) -> str:
        """A report as Markdown that also reads well as plain text.

        Args:
            curves: Functions of time, empty if they are not known.
            provenance: Where the result comes from, if known.
            figures: Names of the figures beside it.
        """
        origin = provenance or Provenance()
        tables = *self.main_tables(curves), *self.tables[1:]
        parts = [f"# {self.title}", *self.lead, *map(markdown_table, tables)]
        parts.append("\n".join(f"* {remark}" for remark in self.remarks))
        facts = dict(origin.source) | dict(origin.metadata)
        if origin.wall_time is not None:
            facts["time for the fit"] = f"{origin.wall_time:.1f} s, compilation included"
        lines = [f"* {name.replace('_', ' ')}: {_fact(name, fact)}" for name, fact in facts.items()]
        lines += [f"* {note}" for note in origin.notes]
        parts += ["## Data", "\n".join(lines)] if lines else []
        parts += ["## Figures", *(f"![{name}]({name})" for name in figures)] if figures else []
        return "\n\n".join(parts) + "\n"


def with_error(value: float, deviation: float | None) -> str:
    """A value with the digits that two digits of its standard deviation allow, three at least.

    Args:
        value: The value.
        deviation: Its standard deviation; None or not finite for none.

    Example:
        >>> with_error(29707.9, 671.4), with_error(-0.28115, 0.01003), with_error(0.5, None)
        ('29710', '-0.281', '0.5')
        >>> with_error(330.2, 1.8e6)
        '330'
    """
    if not (math.isfinite(value) and deviation is not None and 0 < deviation < math.inf):
        return f"{value + 0.0:.6g}"
    size = abs(value) if value else deviation
    digits = max(_place(deviation) + 1, _place(size) + 2)
    if 1e-4 <= size < 1e6:
        return f"{round(value + 0.0, digits):.{max(digits, 0)}f}"
    power = -_place(size)
    return f"{value / 10.0**power:.{max(digits + power, 0)}f}e{power}"


def _place(value: float) -> int:
    """How many digits after the point the first digit of a number stands."""
    return -math.floor(math.log10(value))


def between(value: float, deviation: float | None, lower: float, upper: float) -> str:
    """As `with_error`, with as many digits more as keep the number inside its bounds."""
    texts = with_error(value, deviation), *(f"{value + 0.0:.{n}g}" for n in range(4, 18))
    inside = (text for text in texts if lower <= float(text) <= upper)
    return next(inside, texts[0])


def error_text(deviation: float | None) -> str:
    """A standard deviation in two digits, or why there is none."""
    if deviation is None:
        return _FIXED
    if math.isnan(deviation):
        return "on a bound"
    if math.isinf(deviation):
        return "n/a"
    if deviation == 0:
        return "0"
    digits = _place(deviation) + 1
    if 1e-4 <= deviation < 1e6:
        return f"{round(deviation, digits):.{max(digits, 0)}f}"
    return f"{deviation:.1e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def ratio(deviation: float | None, other: float | None) -> str:
    """The ratio of two standard deviations if both are numbers."""
    if deviation is None or other is None or not (0 < other < math.inf and deviation < math.inf):
        return ""
    return f"{deviation / other:.1f}"


def estimate(value: float, deviation: float) -> str:
    """A value with its standard deviation, both to two digits of the deviation."""
    return f"{with_error(value, deviation)} ± {error_text(deviation)}"


def markdown_table(table: Table) -> str:
    """A table as Markdown with aligned columns."""
    cells = [table.columns, *table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = [map(str.ljust, row, widths) for row in cells]
    lines = ["| " + " | ".join(row) + " |" for row in padded]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([f"**{table.title}**", "", lines[0], rule, *lines[1:]])


def html_list(sentences: Iterable[str]) -> str:
    """Sentences as a list in HTML."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in sentences)}</ul>"


def fitted(table: Table, width: int) -> str:
    """A table as aligned text of at most `width` columns, with every number whole.

    Columns that do not fit are left out, the least needed first; where even that is too wide, each
    row becomes lines of its own.
    """
    columns = [list(column) for column in zip(table.columns, *table.rows, strict=True)]
    kept = [column for column in columns if any(column[1:])]
    for name in ("", *_DROPPED):
        kept = [column for column in kept if column[0] not in name.split(", ")]
        sizes = [max(map(len, column)) for column in kept]
        if sum(sizes) + 2 * (len(sizes) + 1) <= width:
            lines = ["  ".join(map(str.ljust, row, sizes)) for row in zip(*kept, strict=True)]
            rule = "─" * len(lines[0])
            return "\n".join(f"  {line}".rstrip() for line in (lines[0], rule, *lines[1:]))
    heads, *rows = zip(*kept, strict=True)
    return "\n".join(
        folded(f"{row[0]}: " + ", ".join(f"{h} {x}" for h, x in zip(heads[1:], row[1:], strict=True)
                                        if x), width, margin="  ")
        for row in rows
    )  # fmt: skip


def _titled(table: Table, width: int) -> str:
    return f"{folded(table.title, width)}\n{fitted(table, width)}"


def folded(text: str, width: int, margin: str = "") -> str:
    """A text in lines of at most `width` columns, broken at spaces only."""
    lines = textwrap.wrap(
        text, width, initial_indent=margin, subsequent_indent=f"{margin}  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return "\n".join(lines)


def _fact(name: str, fact: Any) -> str:
    if name == "bad_frames":
        return joined(fact) or "none"
    if isinstance(fact, list | tuple):
        between = " to " if name == "frames" else "; "
        return between.join(map(str, fact)) or "none"
    text = f"{fact:.9g}" if isinstance(fact, float) else str(fact)
    return f"{text} {_UNITS[name]}" if name in _UNITS else text


def curve_table(curves: Mapping[str, Curve]) -> Table:
    """Functions of time at the first, middle and last frame."""

    def at(curve: Curve, i: int) -> str:
        value = float(curve.values[i])
        if curve.lower is None or curve.upper is None:
            return with_error(value, None)
        deviation = 0.5 * float(curve.upper[i] - curve.lower[i])
        return estimate(value, deviation)

    rows = []
    for name, curve in curves.items():
        last = len(curve.values) - 1
        shown = [at(curve, i) for i in (0, last // 2, last)]
        rows.append((name, *shown, curve.unit, curve.description))
    heads = ("function", "first frame", "middle", "last frame", "unit", "meaning")
    return Table("Functions of time", heads, tuple(rows))


def extent(phi: AnyArray, rings: tuple[int, ...]) -> str:
    """How many matrices there are, in words."""
    if not any(rings):
        return f"{len(phi)} angles"
    return f"{len(phi)} matrices at {max(rings) + 1} wavevectors"


def by_place(
    title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]], result: Any
) -> Table:
    """A table with a row for each matrix, by angle and, where there are several, wavevector.

    Angles that share contrast and offset have one row.

    Args:
        title: Title of the table.
        heads: Heads of the columns after those of the place.
        rows: Cells of each matrix, its angle first.
        result: A fit or a posterior, which knows wavevectors and rings.
    """
    rings = result.rings
    if result.per_angle_mode == "averaged":
        first = [rings.index(ring) for ring in sorted(set(rings))] or [0]
        rows = [("all", *rows[k][1:]) for k in first]
        q = [np.mean(np.asarray(result.q)[np.asarray(rings) == rings[k]]) for k in first if rings]
    else:
        q = np.asarray(result.q).tolist() if rings else []
    heads = ("φ [degree]", *heads)
    if rings:
        heads = ("q [Å⁻¹]", *heads)
        rows = [(f"{x:.6g}", *row) for x, row in zip(q, rows, strict=True)]
    return Table(title, heads, tuple(rows))


def sentence(text: str) -> str:
    """A text as a sentence, with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."
