"""The sheet that a figure is drawn on: size, title, the line below, and the file."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from berg.core.exceptions import InvalidParameterError

WIDE = 7.2  # inches: two columns of a journal
ENDINGS = (".png", ".svg", ".pdf")
DPI = 300
STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.0,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "berg",
}
"""Sizes in points for a figure as wide as a page; text in SVG and PDF stays text."""

_TITLE, _LINE, _MARGIN = 0.3, 0.125, 0.08  # inches
_TITLE_LINE = 0.17
_FOOTER_POINTS, _LETTERS_PER_INCH = 6, 23
_TITLE_FONT: Any = {"size": 10, "weight": "bold"}


class Sheet(Figure):
    """A figure that notebooks show as it is, also without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            FigureCanvasAgg(self).print_figure(buffer, dpi=150, format="png")
        return buffer.getvalue()


@dataclass(frozen=True)
class Frame:
    """The part of a sheet between title and footer, in inches from below."""

    width: float
    height: float
    bottom: float
    sheet_height: float

    def rectangle(self, left: float, bottom: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Inches inside the frame as fractions of the sheet, as matplotlib takes them."""
        up = self.bottom + bottom
        return left / self.width, up / self.sheet_height, width / self.width, height / self.sheet_height


@contextmanager
def styled() -> Iterator[None]:
    """Our style, for what is drawn inside."""
    with matplotlib.rc_context(STYLE):
        yield


def new_sheet(
    height: float, title: str, facts: Sequence[str], width: float = WIDE, layout: str | None = None
) -> tuple[Sheet, Frame]:
    """A sheet with its title on top, in as many lines as it needs, and the facts below; `height` inches are free."""
    letters = int(_LETTERS_PER_INCH * (width - 2 * _MARGIN))
    lines = textwrap.wrap("  ·  ".join(facts), letters, break_long_words=True)
    below = _LINE * len(lines) + 1.5 * _MARGIN
    title_lines = _title_lines(title, width - 2 * _MARGIN)
    sheet_height = height + below + _TITLE + _TITLE_LINE * (len(title_lines) - 1)
    sheet = Sheet(figsize=(width, sheet_height), dpi=100, layout=layout)  # type: ignore[arg-type]
    left = _MARGIN / width
    on_top: Any = {"va": "top", "linespacing": 1.2, "parse_math": False}
    sheet.text(left, 1 - _MARGIN / sheet_height, "\n".join(title_lines), **_TITLE_FONT, **on_top)
    small: Any = {"size": _FOOTER_POINTS, "va": "bottom", "color": "0.35", "parse_math": False}
    sheet.text(left, _MARGIN / 2 / sheet_height, "\n".join(lines), linespacing=1.25, **small)
    if engine := sheet.get_layout_engine():
        engine.set(rect=(0, below / sheet_height, 1, height / sheet_height))  # type: ignore[call-arg]
    return sheet, Frame(width, height, below, sheet_height)


def _title_lines(title: str, room: float) -> list[str]:
    """The title in lines that fit into so many inches."""
    font = FontProperties(**_TITLE_FONT)
    for letters in range(int(13 * room), 10, -1):
        lines = textwrap.wrap(title, letters)
        widths = [text_to_path.get_text_width_height_descent(line, font, False)[0] for line in lines]
        if max(widths, default=0) <= 72 * room:
            break
    return lines


def in_ms(milliseconds: float) -> str:
    """A time with its unit.

    >>> in_ms(-100.0)
    '−100 ms'
    """
    return f"{milliseconds:g} ms".replace("-", "−")


def save(figure: Figure, path: Path | str) -> Path:
    """Write a figure as .png (300 dots per inch), .svg or .pdf, whose text stays text.

    Raises
    ------
    InvalidParameterError
        For another ending, and a folder that is not there.
    """
    target = Path(path)
    check_figure_file(target)
    options = {".svg": {"metadata": {"Date": None}}, ".pdf": {"metadata": {"CreationDate": None}}}
    with styled():
        figure.savefig(target, dpi=DPI, **options.get(target.suffix.lower(), {}))  # type: ignore[arg-type]
    return target


def check_figure_file(path: Path) -> None:
    """Raise InvalidParameterError if `save` could not write such a file."""
    if path.suffix.lower() not in ENDINGS:
        raise InvalidParameterError(f"'{path.name}' must end in one of {', '.join(ENDINGS)}.")
    if not path.absolute().parent.is_dir():
        raise InvalidParameterError(f"The folder {path.parent} does not exist. Make it first.")
