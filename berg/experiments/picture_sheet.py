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
    n_fit = int((frame.width - _LEFT) / (PICTURE + 0.03))
    for number, (name, chosen) in enumerate(rows.items()):
        bottom = (PICTURE + 0.04) * (len(rows) - 1 - number)
        for place, index in enumerate(chosen[chosen >= 0][:n_fit]):
            left = _LEFT + place * (PICTURE + 0.03)
            axes = sheet.add_axes(frame.rectangle(left, bottom, PICTURE, PICTURE), label=f"picture {int(index)}")
            _draw(axes, read_stimuli(given, np.array([index]))[0])
        y = (frame.bottom + bottom + PICTURE / 2) / frame.sheet_height
        sheet.text(0.08 / frame.width, y, name, size=7, va="center", parse_math=False)


def _draw(axes: Axes, picture: NDArray[Any]) -> None:
    shown = np.moveaxis(picture, 0, -1)
    shown = shown if shown.dtype == np.uint8 else np.clip(shown, 0, 255).astype(np.uint8)
    axes.imshow(shown.squeeze(-1) if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
