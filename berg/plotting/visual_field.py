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

COLOURS = "magma"
_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.direction": "out",
}
_EMPTY_FIELD = "#f2f2f2"


def plot_visual_field(
    axes: Axes, responses: xr.DataArray, limits: tuple[float, float], extent_deg: float
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
    """
    strongest_last = responses.sortby(responses)
    dots = axes.scatter(
        strongest_last.x_deg,
        strongest_last.y_deg,
        c=strongest_last.values,
        s=26,
        cmap=COLOURS,
        vmin=limits[0],
        vmax=limits[1],
        linewidths=0,
        clip_on=True,
    )
    axes.set_facecolor(_EMPTY_FIELD)
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
