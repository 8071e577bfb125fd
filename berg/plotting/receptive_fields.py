"""Responses of voxels drawn where their receptive fields lie in the visual field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.plotting.colours import BACKGROUND, SIGNED, UNSIGNED, draw_bar, scale_of
from berg.plotting.page import Sheet, new_sheet, styled
from berg.plotting.shown import Shown, Stimuli, show
from berg.responses.labelled import Labelled, attributes_of

COLOURS = UNSIGNED
_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.direction": "out",
}
_EMPTY_FIELD = "#f2f2f2"


def visual_field(
    labelled: Labelled,
    stimulus: Stimuli = None,
    minus: Stimuli = None,
    *,
    picture: NDArray[np.uint8] | None = None,
    width_deg: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Sheet:
    """Responses of voxels, each a dot at the centre of its receptive field.

    Parameters
    ----------
    labelled
        Voxels with the coordinates ``x_deg`` and ``y_deg``.
    stimulus, minus
        Which stimuli, by name or pattern; see `berg.plotting.shown.show`.
    picture
        uint8, shape (height, width, 3) or (3, height, width): drawn beside, and outlined in the visual field.
    width_deg
        How wide the picture is seen; the attribute ``stimulus_width_deg`` of the responses if not given.
    limits
        Smallest and largest response of the colour scale.

    Raises
    ------
    InvalidParameterError
        If the units have no place in the visual field, or nobody says how wide the picture is.
    """
    with styled():
        shown = show(labelled, stimulus, minus)
        array = _with_places(shown)
        scale = scale_of([array.values], shown.label, shown.is_signed, limits)
        high = 3.3
        wide = 7.2 if picture is not None else 4.9
        sheet, frame = new_sheet(high, shown.title, (*shown.facts, *_left_out(array)), width=wide)
        extent = _extent(array)
        side = high - 0.6
        if picture is not None:
            width = _width(labelled, width_deg)
            extent = max(extent, 0.53 * width)
            shape = np.moveaxis(picture, 0, -1) if picture.shape[0] == 3 else picture
            left = sheet.add_axes(frame.rectangle(0.55, 0.5, side, side))
            _draw_picture(left, shape, width, extent, "")
        axes = sheet.add_axes(frame.rectangle(0.55 if picture is None else 1.0 + side, 0.5, side, side))
        plot_visual_field(axes, array, (scale.low, scale.high), extent, scale.colours, 9)
        if picture is not None:
            _outline(axes, shape, width)
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
        box = axes.get_position()
        bar = sheet.add_axes((box.x1 + 0.12 / wide, box.y0 + 0.15 * box.height, 0.11 / wide, 0.7 * box.height))
        draw_bar(sheet, bar, scale, inside=True)
    return sheet


def has_receptive_fields(outputs: Mapping[str, xr.DataArray]) -> bool:
    """Whether there is one output, whose units all have a place in the visual field."""
    return len(outputs) == 1 and all({"x_deg", "y_deg"} <= set(array.coords) for array in outputs.values())


def _with_places(shown: Shown) -> xr.DataArray:
    if not has_receptive_fields(shown.outputs):
        raise InvalidParameterError(
            "These responses have no places in the visual field (coordinates x_deg and y_deg). Draw what their labels "
            "say:  berg.plotting.draw(labelled)"
        )
    (array,) = shown.outputs.values()
    if array.ndim != 1 or not array.size:
        raise InvalidParameterError("The visual field shows one response per voxel. Select some voxels, and one time.")
    return array


def _extent(array: xr.DataArray) -> float:
    """So far from fixation that 99 % of the receptive fields are inside, degrees."""
    return 1.05 * float(np.nanquantile(np.maximum(np.abs(array.x_deg.values), np.abs(array.y_deg.values)), 0.99))


def _left_out(array: xr.DataArray) -> tuple[str, ...]:
    farthest = np.maximum(np.abs(array.x_deg.values), np.abs(array.y_deg.values))
    n_outside = int((farthest > _extent(array)).sum())
    return (f"{n_outside} farther out are not shown",) if n_outside else ()


def _width(labelled: Labelled, width_deg: float | None) -> float:
    known = attributes_of(labelled).get("stimulus_width_deg") if width_deg is None else width_deg
    if known is None:
        raise InvalidParameterError("How wide is the picture seen? Give width_deg, in degrees of visual angle.")
    return float(known)


def plot_visual_field(
    axes: Axes,
    responses: xr.DataArray,
    limits: tuple[float, float],
    extent_deg: float,
    colours: str = COLOURS,
    dot_points: float = 26,
) -> PathCollection:
    """Draw one dot per voxel at the centre of its receptive field, coloured by its response.

    Parameters
    ----------
    responses
        One stimulus: shape (n_voxels,), with the coordinates ``x_deg`` and ``y_deg``.
    limits
        Smallest and largest response of the colour scale.
    extent_deg
        The axes reach this far from fixation, degrees.
    colours
        The name of a colour map. The strongest responses are drawn last.
    dot_points
        The area of a dot, square points.
    """
    there = responses[np.isfinite(responses.values)]
    strongest_last = there[np.argsort(np.abs(there.values), kind="stable")]
    dots = axes.scatter(
        strongest_last.x_deg,
        strongest_last.y_deg,
        c=strongest_last.values,
        s=dot_points,
        cmap=colours,
        vmin=limits[0],
        vmax=limits[1],
        linewidths=0,
        clip_on=True,
    )
    axes.set_facecolor(BACKGROUND if colours == SIGNED else _EMPTY_FIELD)
    _visual_field_axes(axes, extent_deg)
    return dots


def plot_pictures_and_responses(
    pictures: Mapping[str, NDArray[np.uint8]],
    responses: xr.DataArray,
    picture_width_deg: float,
    title: str,
    path: Path,
) -> None:
    """Draw each picture beside its map of responses, and write the figure as PNG.

    Parameters
    ----------
    pictures
        Name -> uint8, shape (height, width, 3); the names are those of the coordinate ``stimulus``.
    responses
        Shape (n_stimuli, n_voxels), with ``x_deg``, ``y_deg`` and the attribute ``units``.
    """
    with matplotlib.rc_context(_STYLE):
        figure = _figure(pictures, responses, picture_width_deg)
        figure.suptitle(title, fontsize=16, x=0.01, ha="left", parse_math=False)
        FigureCanvasAgg(figure).print_figure(path, dpi=150)


def _figure(pictures: Mapping[str, NDArray[np.uint8]], responses: xr.DataArray, width: float) -> Figure:
    n_rows = -(-len(pictures) // 2)
    figure = Figure(figsize=(16, 0.8 + 3.8 * n_rows), layout="constrained")
    panels: Any = figure.subplots(n_rows, 4, squeeze=False).ravel()
    limits = (0.0, float(np.quantile(responses, 0.99)))
    extent = 0.56 * width
    dots = None
    for index, (name, picture) in enumerate(pictures.items()):
        _draw_picture(panels[2 * index], picture, width, extent, name)
        dots = plot_visual_field(panels[2 * index + 1], responses.sel(stimulus=name), limits, extent)
        _outline(panels[2 * index + 1], picture, width)
        panels[2 * index + 1].set_title("predicted responses")
    for panel in panels[2 * len(pictures) :]:
        panel.set_axis_off()
    if dots is not None:
        bar = figure.colorbar(dots, ax=list(panels), shrink=0.7, pad=0.015, extend="max", aspect=30)
        bar.set_label(f"response ({responses.attrs['units']})", parse_math=False)
        bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def _draw_picture(axes: Axes, picture: NDArray[np.uint8], width: float, extent: float, name: str) -> None:
    half_width, half_height = _half_sizes(picture, width)
    axes.imshow(picture, extent=(-half_width, half_width, -half_height, half_height))
    axes.set_title(name, parse_math=False)
    _visual_field_axes(axes, extent)


def _outline(axes: Axes, picture: NDArray[np.uint8], width: float) -> None:
    half_width, half_height = _half_sizes(picture, width)
    x = [-half_width, half_width, half_width, -half_width, -half_width]
    y = [-half_height, -half_height, half_height, half_height, -half_height]
    axes.plot(x, y, color="0.55", linewidth=0.8, linestyle=(0, (4, 3)))


def _half_sizes(picture: NDArray[np.uint8], width: float) -> tuple[float, float]:
    height, columns = picture.shape[:2]
    return width / 2, width / 2 * height / columns


def _visual_field_axes(axes: Axes, extent: float) -> None:
    """Degrees from fixation, which is marked."""
    axes.plot(0, 0, marker="+", color="white", markersize=9, markeredgewidth=2.4)
    axes.plot(0, 0, marker="+", color="black", markersize=8, markeredgewidth=1.2)
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(max(1, round(extent / 2.5))))
    axes.set_xlabel("x (degrees of visual angle)")
    axes.set_ylabel("y (degrees)")
