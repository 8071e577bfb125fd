"""Rows of pictures below a figure: what a set consists of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.plotting.page import Frame, Sheet
from berg.stimuli.stimulus_set import check_stimuli, n_stimuli, read_stimuli

PICTURE = 0.5  # inches
_LEFT = 0.85


def pictures_height(rows: Mapping[str, NDArray[np.int64]], pictures: Any) -> float:
    """Inches that rows of pictures take; none without pictures."""
    return 0.0 if pictures is None else (PICTURE + 0.04) * len(rows) + 0.1


def draw_pictures(
    sheet: Sheet, frame: Frame, rows: Mapping[str, NDArray[np.int64]], pictures: Any, n_expected: int
) -> None:
    """Draw pictures at the bottom of a frame, a row for each name, as many as fit.

    Parameters
    ----------
    rows
        Indices of pictures; -1 is none.
    pictures
        All of them: an array (n_pictures, 3, height, width), a folder, or a list of files.

    Raises
    ------
    InvalidParameterError
        If there are not `n_expected` pictures.
    """
    given = check_stimuli(pictures)
    if n_stimuli(given) != n_expected:
        raise InvalidParameterError(
            f"There are {n_stimuli(given):,} pictures, and the result is of {n_expected:,}. Give all pictures that the "
            "responses are to, in their order."
        )
    step, high = PICTURE + 0.03, (PICTURE + 0.04) * len(rows)
    axes = sheet.add_axes(frame.rectangle(_LEFT, 0, frame.width - _LEFT, high), label="pictures")
    axes.set_axis_off()
    for number, (name, chosen) in enumerate(rows.items()):
        bottom = (PICTURE + 0.04) * (len(rows) - 1 - number)
        for place, index in enumerate(chosen[chosen >= 0][: int((frame.width - _LEFT) / step)]):
            _draw(axes, read_stimuli(given, np.array([index]))[0], place * step, bottom)
        y = (frame.bottom + bottom + PICTURE / 2) / frame.sheet_height
        sheet.text(0.08 / frame.width, y, name, size=7, va="center", parse_math=False)
    axes.set_xlim(0, frame.width - _LEFT)
    axes.set_ylim(0, high)


def _draw(axes: Axes, picture: NDArray[Any], left: float, bottom: float) -> None:
    """A picture in a square, its longer side as long as the square."""
    shown = np.moveaxis(picture, 0, -1)
    shown = shown if shown.dtype == np.uint8 else np.clip(shown, 0, 255).astype(np.uint8)
    height, width = (PICTURE * length / max(shown.shape[:2]) for length in shown.shape[:2])
    edges = (left, left + width, bottom, bottom + height)
    grey = shown.shape[-1] == 1
    axes.imshow(shown.squeeze(-1) if grey else shown, cmap="gray", vmin=0, vmax=255, extent=edges, aspect="auto")
