"""Responses of cells and electrodes in time: rates, with the sound above them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.plotting.colours import draw_bar, scale_of, wrapped
from berg.plotting.page import Frame, Sheet, new_sheet, styled
from berg.plotting.region_means import has_regions, membership
from berg.plotting.shown import Shown, Stimuli, show
from berg.plotting.time_courses import draw_time_axis
from berg.responses.labelled import Labelled, attributes_of
from berg.responses.regions import ROI

FEW = 6  # so many units have a line each, more are rows of a picture
LINE, ENVELOPE = "#1f4e79", "0.55"
_LEFT, _RIGHT = 0.8, 0.2

Sound = tuple[NDArray[Any], int]


def rate(
    labelled: Labelled,
    stimulus: Stimuli = None,
    minus: Stimuli = None,
    *,
    sound: Sound | None = None,
    limits: tuple[float, float] | None = None,
) -> Sheet:
    """Responses in time of cells or electrodes: a line for each of a few, else a row of a picture, sorted by region.

    Of many units with regions, the mean of each region is drawn below.

    Parameters
    ----------
    labelled
        With an axis of units and the axis time.
    stimulus, minus
        Which stimuli, by name or pattern; see `berg.plotting.shown.show`.
    sound
        Samples, shape (n_samples,), and their sampling rate in hertz: their envelope is drawn above, the root of the
        mean square in each time step of the responses. Times the attribute ``pascals_per_unit`` it is in pascals.
    limits
        Smallest and largest response of the colour scale.

    Raises
    ------
    InvalidParameterError
        If the responses are not of units in time.
    """
    with styled():
        shown = show(labelled, stimulus, minus)
        array = _units_in_time(shown)
        milliseconds = np.round(1000 * array["time"].values.astype(float), 6)
        values = array.values
        is_few = len(values) <= FEW
        above = 0.75 if sound is not None else 0.0
        by_region = not is_few and has_regions({"rate": array})
        high, below = (1.8, 0.0) if is_few else (2.4, 1.2 if by_region else 0.0)
        sheet, frame = new_sheet(above + high + below + 0.55, shown.title, shown.facts)
        if sound is not None:
            top = _axes(sheet, frame, 0.45 + below + high + 0.1, above - 0.2, is_few)
            _draw_envelope(top, sound, milliseconds, attributes_of(labelled))
        axes = _axes(sheet, frame, 0.45 + below, high, is_few)
        if is_few:
            _draw_lines(axes, array, values, milliseconds, shown)
        else:
            _draw_rows(sheet, frame, axes, array, milliseconds, shown, limits)
        draw_time_axis(axes, milliseconds, with_label=not by_region)
        if by_region:
            lower = _axes(sheet, frame, 0.45, below - 0.15, is_few)
            _draw_regions(lower, array, milliseconds, shown)
    return sheet


def envelope(sound: Sound, n_steps: int, step: float) -> NDArray[np.float64]:
    """The root of the mean square of a sound in each of its first time steps of `step` seconds.

    >>> envelope((np.array([3.0, 3.0, 4.0, -4.0]), 2), 2, 1.0)
    array([3., 4.])
    """
    samples, sampling_rate = np.asarray(sound[0], np.float64), sound[1]
    if samples.ndim != 1 or not samples.size:
        raise InvalidParameterError(f"A sound is one row of samples, these have the shape {samples.shape}.")
    step_of = np.floor(np.arange(len(samples)) / (sampling_rate * step) + 1e-9).astype(np.intp)
    inside = step_of < n_steps
    count = np.bincount(step_of[inside], minlength=n_steps)
    power = np.bincount(step_of[inside], samples[inside] ** 2, minlength=n_steps)
    with np.errstate(invalid="ignore"):
        return np.sqrt(power / count)


def _units_in_time(shown: Shown) -> xr.DataArray:
    arrays = list(shown.outputs.values())
    if len(arrays) != 1 or arrays[0].ndim != 2 or "time" not in arrays[0].dims or "time" not in arrays[0].coords:
        held = "; ".join(f"{name} {tuple(map(str, array.dims))}" for name, array in shown.outputs.items())
        raise InvalidParameterError(
            f"These responses ({held}) are not of units in time. Draw what their labels say:  "
            "berg.plotting.draw(labelled)"
        )
    axis = next(axis for axis in arrays[0].dims if axis != "time")
    if not arrays[0].size:
        raise InvalidParameterError("No unit or no time is selected, so there is nothing to draw. Select some.")
    return arrays[0].transpose(axis, "time")


def _axes(sheet: Sheet, frame: Frame, bottom: float, high: float, is_few: bool) -> Axes:
    right = _RIGHT if is_few else 1.0
    return sheet.add_axes(frame.rectangle(_LEFT, bottom, frame.width - _LEFT - right, high))


def _label(axes: Axes, label: str) -> None:
    high = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    axes.set_ylabel(wrapped(label, high), parse_math=False)


def _draw_envelope(axes: Axes, sound: Sound, milliseconds: NDArray[np.float64], attributes: dict[str, Any]) -> None:
    steps = np.diff(milliseconds)
    step = float(np.median(steps)) / 1000 if len(steps) else 1e-3
    first = round(float(milliseconds[0]) / 1000 / step)
    heard = envelope(sound, first + len(milliseconds), step)[first:]
    per_unit = attributes.get("pascals_per_unit")
    axes.fill_between(milliseconds, heard * float(per_unit or 1), color=ENVELOPE, linewidth=0)
    axes.set_ylim(0)
    axes.yaxis.set_major_locator(MaxNLocator(2))
    _label(axes, "sound (Pa)" if per_unit else "sound")
    draw_time_axis(axes, milliseconds, with_label=False)
    axes.tick_params(bottom=False)
    axes.spines["bottom"].set_visible(False)


def _draw_lines(
    axes: Axes, array: xr.DataArray, values: NDArray[np.float64], milliseconds: NDArray[np.float64], shown: Shown
) -> None:
    names = _names(array)
    for index, (name, own) in enumerate(zip(names, values, strict=True)):
        colour = LINE if len(values) == 1 else f"C{index}"
        axes.plot(milliseconds, own, color=colour, linewidth=0.8, label=name.replace("$", r"\$"))
    if len(values) > 1:
        axes.legend(frameon=False, ncols=len(values), loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)
    if shown.is_signed:
        axes.axhline(0, color="0.5", linewidth=0.6, zorder=0)
    else:
        axes.set_ylim(0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    _label(axes, shown.label)


def _draw_rows(
    sheet: Sheet,
    frame: Frame,
    axes: Axes,
    array: xr.DataArray,
    milliseconds: NDArray[np.float64],
    shown: Shown,
    limits: tuple[float, float] | None,
) -> None:
    axis = str(array.dims[0])
    order = np.arange(len(array))
    has = has_regions({"rate": array})
    if has:
        _, first, which = np.unique(array[ROI].values.astype(str), return_index=True, return_inverse=True)
        order = np.argsort(first[which], kind="stable")  # the regions as they come first
    values = array.values[order]
    scale = scale_of([values], shown.label, shown.is_signed, limits)
    half = float(np.median(np.diff(milliseconds))) / 2 if len(milliseconds) > 1 else 0.5
    extent = (milliseconds[0] - half, milliseconds[-1] + half, len(values), 0)
    axes.imshow(values, extent=extent, aspect="auto", cmap=scale.colour_map, norm=scale.norm, interpolation="nearest")
    if has:
        _mark_regions(axes, array[ROI].values.astype(str)[order])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_ylabel("regions" if has else axis, labelpad=3)
    box = axes.get_position()
    bar = sheet.add_axes((1 - 0.85 / frame.width, box.y0 + 0.1 * box.height, 0.1 / frame.width, 0.8 * box.height))
    draw_bar(sheet, bar, scale, inside=True)


def _mark_regions(axes: Axes, labels: NDArray[Any]) -> None:
    """The names of runs of one region, and lines between them."""
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    ends = np.r_[starts[1:], len(labels)]
    axes.set_yticks((starts + ends) / 2, [labels[start] or "none" for start in starts], parse_math=False)
    axes.tick_params(axis="y", length=0)
    for start in starts[1:]:
        axes.axhline(start, color="white", linewidth=0.8)


def _draw_regions(axes: Axes, array: xr.DataArray, milliseconds: NDArray[np.float64], shown: Shown) -> None:
    for index, (name, own) in enumerate(membership(array[ROI].values).items()):
        mean = array.values[own].mean(axis=0)
        axes.plot(milliseconds, mean, color=f"C{index}", label=name.replace("$", r"\$"))
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), borderpad=0.2, handlelength=1.2)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    _label(axes, f"mean ({shown.unit})")
    draw_time_axis(axes, milliseconds)


def _names(array: xr.DataArray) -> list[str]:
    axis = array.dims[0]
    return [str(name) for name in (array[axis].values if axis in array.coords else range(len(array)))]
