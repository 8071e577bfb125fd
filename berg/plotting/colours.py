"""Colour scales: which colours stand for which responses, and the bar that says so."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError

SIGNED, UNSIGNED = "RdBu_r", "magma"
QUANTILE = 0.99
BACKGROUND = "0.82"
_LETTERS_PER_INCH, _HIGH = 16, 2.0  # of labels; of a bar beside several axes, inches
Extend = Literal["neither", "min", "max", "both"]


@dataclass(frozen=True)
class Scale:
    """Colours for the responses from `low` to `high`; those outside have the colours of the ends.

    Attributes
    ----------
    label
        Quantity and unit, as the bar has them.
    extend
        The ends beyond which there are responses; the bar has a triangle there.
    """

    low: float
    high: float
    colours: str
    label: str
    extend: Extend

    @property
    def norm(self) -> Normalize:
        """From responses to [0, 1]."""
        return Normalize(self.low, self.high)

    @property
    def colour_map(self) -> Colormap:
        """From [0, 1] to colours; NaN is background."""
        return matplotlib.colormaps[self.colours].with_extremes(bad=BACKGROUND)

    def rgba(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The colours of responses, shape (..., 4)."""
        return np.asarray(self.colour_map(self.norm(np.ma.masked_invalid(values))))


def scale_of(
    panels: Iterable[NDArray[Any]], label: str, is_signed: bool, limits: tuple[float, float] | None = None
) -> Scale:
    """One scale for all panels of a figure.

    Signed responses: symmetric about 0, to the 99th percentile of the absolute responses of all panels together.
    Others: from 0 to the 99th percentile. With `limits`, these.

    Raises
    ------
    InvalidParameterError
        If no panel has a response, or the limits are none.
    """
    values = np.concatenate([np.ravel(panel) for panel in panels])
    values = values[np.isfinite(values)].astype(np.float64)
    if not values.size:
        raise InvalidParameterError("There is nothing to draw: all responses are NaN. Select others.")
    low, high = _limits(values, is_signed) if limits is None else map(float, limits)
    if not low < high:
        raise InvalidParameterError(f"limits={limits}: give two numbers, the smaller one first.")
    below, above = bool((values < low).any()), bool((values > high).any())
    ends: dict[tuple[bool, bool], Extend] = {(True, True): "both", (True, False): "min", (False, True): "max"}
    return Scale(low, high, SIGNED if is_signed else UNSIGNED, label, ends.get((below, above), "neither"))


def _limits(values: NDArray[np.float64], is_signed: bool) -> tuple[float, float]:
    high = float(np.quantile(np.abs(values), QUANTILE)) or float(np.abs(values).max()) or 1.0
    return (-high if is_signed else 0.0), high


def wrapped(label: str, inches: float) -> str:
    """A label in as many lines as it takes along an axis so long."""
    letters = max(int(_LETTERS_PER_INCH * inches), *map(len, label.split()))
    quantity, bracket, unit = label.partition(" (")
    parts = [quantity, f"({unit}"] if bracket and len(label) > letters else [label]
    return "\n".join(line for part in parts for line in textwrap.wrap(part, letters))


def draw_bar(
    figure: Figure | Any, axes: Axes | list[Axes], scale: Scale, inside: bool = False, **options: Any
) -> Colorbar:
    """The bar of a scale, with quantity and unit.

    Parameters
    ----------
    axes
        Those that the bar takes its room from; with `inside`, the one that it fills.
    """
    where: Any = {"cax": axes} if inside else {"ax": axes}
    high = axes.get_position().height * figure.get_figheight() if isinstance(axes, Axes) else _HIGH
    drawn = ScalarMappable(scale.norm, scale.colour_map)
    bar: Colorbar = figure.colorbar(drawn, extend=scale.extend, **where, **options)
    bar.set_label(wrapped(scale.label, high), parse_math=False)
    bar.ax.set_label("<colorbar>")  # as matplotlib names those that it makes itself
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.locator = MaxNLocator(4, symmetric=scale.low == -scale.high)
    bar.update_ticks()
    return bar
