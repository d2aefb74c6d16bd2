"""Tables of texts, as plain text and HTML: what values show of themselves in a notebook."""

from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple

LINES = 36
"""Lines of a table that are printed: with title and rest, a value takes no more than 40."""


class Table(NamedTuple):
    """A table of texts: what it shows, the heads of its columns, and its rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def number_table(title: str, columns: Mapping[str, Any]) -> Table:
    """A table of numbers with six digits, and texts; columns are of the same length."""
    cells = [
        [x if isinstance(x, str) else f"{float(x):.6g}" for x in column]
        for column in columns.values()
    ]
    return Table(title, tuple(columns), tuple(zip(*cells, strict=True)))


def text_table(table: Table) -> str:
    """A table as plain text with aligned columns, without its title."""
    cells = [table.columns, *table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def html_table(table: Table) -> str:
    """A table as HTML."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def titled_html(table: Table) -> str:
    """A table as HTML under its title."""
    return f"<strong>{escape(table.title)}</strong>{html_table(table)}"


class Tabled:
    """A value that shows a title and a table of its numbers where it is printed."""

    def _shown(self) -> Table | None:
        """What is shown; None where numbers are not known: the structure is shown then."""
        raise NotImplementedError

    def __repr__(self) -> str:
        table = self._shown()
        if table is None:
            return super().__repr__()
        lines = text_table(table).split("\n")
        if len(lines) > LINES:
            left = len(lines) - LINES
            lines = [*lines[:LINES], f"… and {left} rows more"]
        return "\n".join([table.title, "", *lines])

    def _repr_html_(self) -> str | None:
        table = self._shown()
        if table is None:
            return None
        return titled_html(table)
