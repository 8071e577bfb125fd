"""Small tables as text and as HTML, for objects that show themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def text_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns under headings; no line ends with spaces.

    >>> print(text_table(["model", "r"], [["a-b-c", 0.5]]))
    model  r
    a-b-c  0.5
    """
    cells = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def html_table(headings: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> str:
    """The same as HTML, every text in it escaped.

    >>> html_table(["<r>"], [[1]])
    '<table><thead><tr><th>&lt;r&gt;</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    lines = (f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    caption = f"<caption>{escape(title)}</caption>" if title else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
