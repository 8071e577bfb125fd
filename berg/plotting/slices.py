"""Responses of voxels in slices of the volume, with the regions outlined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.plotting.colours import BACKGROUND, Scale, draw_bar, scale_of
from berg.plotting.page import WIDE, Frame, Sheet, new_sheet, styled
from berg.plotting.region_means import membership
from berg.plotting.shown import Shown, Stimuli, show
from berg.responses.labelled import Labelled, attributes_of
from berg.responses.regions import ROI

N_SLICES = 6
_MARGIN = 3  # voxels around the selected ones
_GAP, _TITLE, _LEGEND = 0.08, 0.2, 0.28  # inches
_COLOURS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c564b", "#7f7f00", "#0072b2")


@dataclass(frozen=True)
class Grid:
    """Voxels in a volume that lies as the head does.

    Attributes
    ----------
    places
        Shape (n_voxels, 3), whole numbers: to the right, to the front, up.
    size
        Of a voxel along these, millimetres.
    heights
        Of each slice from below to above, millimetres.
    """

    places: NDArray[np.intp]
    shape: tuple[int, ...]
    size: NDArray[np.float64]
    heights: NDArray[np.float64]


def has_volume(labelled: Labelled, outputs: dict[str, xr.DataArray]) -> bool:
    """Whether the voxels have places in one volume, and its affine is known."""
    if not {"volume_shape", "fmri_affine"} <= set(attributes_of(labelled)) or len(outputs) != 1:
        return False
    (array,) = outputs.values()
    return "voxel" in array.dims and all(axis in array.coords for axis in "ijk")


def volume(
    labelled: Labelled, stimulus: Stimuli = None, minus: Stimuli = None, *, limits: tuple[float, float] | None = None
) -> Sheet:
    """Responses of voxels in six slices from below to above, the left of the brain on the left, regions outlined.

    Parameters
    ----------
    labelled
        Voxels with the coordinates ``i``, ``j``, ``k``, and the attributes ``volume_shape`` and ``fmri_affine``. Where
        regions overlap, a voxel has the response of the first.
    stimulus, minus
        Which stimuli, by name or pattern; see `berg.plotting.shown.show`.
    limits
        Smallest and largest response of the colour scale.

    Raises
    ------
    InvalidParameterError
        If the voxels have no places in a volume.
    """
    with styled():
        shown = show(labelled, stimulus, minus)
        slices = cut(labelled, shown)
        sheet, frame = new_sheet(slices.height, shown.title, (*shown.facts, SLICE_NOTE))
        draw_slices(sheet, frame, slices, shown, limits)
    return sheet


SLICE_NOTE = "axial slices, left is left"


@dataclass(frozen=True)
class Slices:
    """The part of a volume that is drawn, and how large.

    Attributes
    ----------
    places
        Shape (n_voxels, 3), from the corner of what is drawn.
    shape
        Of a slice, in voxels.
    numbers, heights
        Of the slices, from below to above; in voxels and in millimetres.
    aspect
        Of a voxel: its length to the front by that to the right.
    width
        Of a slice, inches.
    """

    places: NDArray[np.intp]
    shape: NDArray[np.intp]
    numbers: list[int]
    heights: list[float]
    aspect: float
    n_columns: int
    width: float
    values: NDArray[np.float64]
    regions: dict[str, NDArray[np.bool_]]

    @property
    def slice_height(self) -> float:
        """Inches."""
        return (self.width - _GAP) * self.aspect * float(self.shape[1] / self.shape[0])

    @property
    def height(self) -> float:
        """Of all slices and what is written at them, inches."""
        n_rows = -(-len(self.numbers) // self.n_columns)
        return max(n_rows * (self.slice_height + _TITLE), 1.3) + (_LEGEND if self.is_named else 0.1)

    @property
    def is_named(self) -> bool:
        """Whether there are few enough regions for a colour each."""
        return 0 < len(self.regions) <= len(_COLOURS)


def cut(labelled: Labelled, shown: Shown) -> Slices:
    """Choose the slices, and the part of them around the voxels.

    Raises
    ------
    InvalidParameterError
        If the voxels have no places in a volume.
    """
    if not has_volume(labelled, shown.outputs):
        raise InvalidParameterError(
            "These responses have no places in a volume: slices need voxels with i, j, k, and the attributes "
            "volume_shape and fmri_affine. Draw what their labels say:  berg.plotting.draw(labelled)"
        )
    (array,) = shown.outputs.values()
    if array.dims != ("voxel",) or not array.size:
        raise InvalidParameterError("Slices show one response per voxel. Select some voxels, and one time.")
    attributes = attributes_of(labelled)
    shape = tuple(int(length) for length in attributes["volume_shape"])
    places = np.stack([array[axis].values.astype(np.intp) for axis in "ijk"], axis=1)
    grid = as_the_head_lies(places, shape, np.reshape(attributes["fmri_affine"], (4, 4)))
    low = np.maximum(grid.places[:, :2].min(axis=0) - _MARGIN, 0)
    high = np.minimum(grid.places[:, :2].max(axis=0) + _MARGIN, np.array(grid.shape[:2]) - 1)
    numbers = chosen_slices(grid.places[:, 2])
    aspect = float(grid.size[1] / grid.size[0])
    is_wide = (high - low + 1)[0] > aspect * (high - low + 1)[1]
    n_columns = min(3 if is_wide else N_SLICES, len(numbers))
    return Slices(
        grid.places - np.append(low, 0),
        high - low + 1,
        numbers,
        [float(grid.heights[number]) for number in numbers],
        aspect,
        n_columns,
        (WIDE - 1.1) / (3 if is_wide else N_SLICES),
        array.values,
        membership(array[ROI].values) if ROI in array.coords else {},
    )


def as_the_head_lies(places: NDArray[np.intp], shape: tuple[int, ...], affine: NDArray[Any]) -> Grid:
    """Turn and flip the axes of a volume so that they run to the right, to the front and up, as far as they can.

    Each axis of the head takes the axis of the volume that runs along it the most. A volume that was recorded at an
    angle is not resampled.
    """
    matrix = np.asarray(affine, float)[:3, :3]
    sizes = np.linalg.norm(matrix, axis=0)
    order = np.full(3, -1)
    share = np.abs(matrix / sizes)
    for _ in range(3):
        head, own = np.unravel_index(np.argmax(share), share.shape)
        order[head] = own
        share[head], share[:, own] = -1, -1
    flipped = np.array([matrix[head, own] < 0 for head, own in enumerate(order)])
    lengths = np.array(shape)[order]
    turned = np.where(flipped, lengths - 1 - places[:, order], places[:, order])
    up = order[2]
    middle = np.tile(places.mean(axis=0), (shape[up], 1))
    middle[:, up] = np.arange(shape[up])
    heights = middle @ matrix[2] + float(np.asarray(affine)[2, 3])
    return Grid(turned, tuple(int(n) for n in lengths), sizes[order], heights[::-1] if flipped[2] else heights)


def draw_slices(
    sheet: Sheet, frame: Frame, slices: Slices, shown: Shown, limits: tuple[float, float] | None = None
) -> None:
    """Draw the slices at the top of a frame."""
    scale = scale_of([slices.values], shown.label, shown.is_signed, limits)
    per_row = slices.slice_height + _TITLE
    for index, (number, height) in enumerate(zip(slices.numbers, slices.heights, strict=True)):
        row, column = divmod(index, slices.n_columns)
        bottom = frame.height - (row + 1) * per_row
        where = frame.rectangle(0.1 + column * slices.width, bottom, slices.width - _GAP, slices.slice_height)
        axes = sheet.add_axes(where)
        here = slices.places[:, 2] == number
        _draw_slice(axes, slices, here, scale)
        axes.set_title(f"z = {height:.0f} mm".replace("-", "−"), y=1.0, pad=2)
    if slices.is_named:
        _draw_legend(sheet, frame, slices)
    high = min(1.5, slices.height - 0.4)
    left = 0.1 + slices.n_columns * slices.width + 0.1
    bar = sheet.add_axes(frame.rectangle(left, frame.height - high - _TITLE, 0.1, high))
    draw_bar(sheet, bar, scale, inside=True)


def _draw_legend(sheet: Sheet, frame: Frame, slices: Slices) -> None:
    lines = [Line2D([], [], color=colour, linewidth=1.2) for colour in _COLOURS[: len(slices.regions)]]
    names = [name.replace("$", r"\$") for name in slices.regions]
    bottom = (frame.bottom + frame.height - slices.height) / frame.sheet_height
    sheet.legend(
        lines,
        names,
        loc="lower left",
        bbox_to_anchor=(0.1 / frame.width, bottom),
        borderaxespad=0,
        borderpad=0.1,
        ncols=len(slices.regions),
        frameon=False,
    )


def chosen_slices(heights: NDArray[np.intp]) -> list[int]:
    """Six slices that have voxels, evenly from the height that 3 % of the voxels are below to that of 97 %."""
    present = np.unique(heights)
    low, high = np.quantile(heights, [0.03, 0.97])
    wanted = np.linspace(low, high, N_SLICES)
    return sorted({int(present[np.argmin(np.abs(present - height))]) for height in wanted})


def _draw_slice(axes: Axes, slices: Slices, here: NDArray[np.bool_], scale: Scale) -> None:
    picture = np.full(slices.shape, np.nan)
    places = slices.places[here, :2]
    picture[tuple(places[::-1].T)] = slices.values[here][::-1]  # of a voxel that is there twice, the first stays
    options: Any = {"cmap": scale.colour_map, "norm": scale.norm, "interpolation": "nearest"}
    axes.imshow(picture.T, origin="lower", aspect="auto", **options)
    for index, own in enumerate(slices.regions.values()):
        mask = np.zeros(slices.shape, bool)
        mask[tuple(slices.places[here & own, :2].T)] = True
        colour, width = (_COLOURS[index], 1.1) if slices.is_named else ("0.1", 0.5)
        axes.add_collection(LineCollection(list(outline(mask)), colors=colour, linewidths=width), autolim=False)
    axes.set(xticks=[], yticks=[], facecolor=BACKGROUND)
    for spine in axes.spines.values():
        spine.set_visible(False)


def outline(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The edges of pixels between inside and outside, shape (n, 2, 2): (x, y) of both ends; pixel 0 is around 0."""
    padded = np.pad(mask, 1)
    pieces = []
    for axis in (0, 1):
        changes = np.argwhere(np.diff(padded, axis=axis)).astype(float) - 1
        start, end = changes.copy(), changes.copy()
        start[:, axis] += 0.5
        end[:, axis] += 0.5
        start[:, 1 - axis] -= 0.5
        end[:, 1 - axis] += 0.5
        pieces.append(np.stack([start, end], axis=1))
    return np.concatenate(pieces)
