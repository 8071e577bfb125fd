"""Responses in time: a line per sensor, with maps of the head at the peaks."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from berg.plotting.colours import draw_bar, scale_of, wrapped
from berg.plotting.page import Frame, Sheet, in_ms, new_sheet, styled
from berg.plotting.scalp import HeadMap, draw_head, draw_outline
from berg.plotting.sensor_responses import SensorResponses, sensor_responses
from berg.plotting.sensors import HEAD, Places, Positions
from berg.plotting.shown import Stimuli
from berg.responses.labelled import Labelled

N_PEAKS = 3
NAMED = 6  # so many lines have a legend
_APART_MS = 30.0
_PER_MAP = 1.4  # inches
_LEFT, _RIGHT = 0.8, 0.2


def time_course(
    labelled: Labelled, stimulus: Stimuli = None, minus: Stimuli = None, *, positions: Positions | None = None
) -> Sheet:
    """A line per channel over time, coloured by place on the head if known; a few channels are named.

    The strip below is the mean noise ceiling over channels, if the labels have one, in their unit.

    Parameters
    ----------
    labelled
        With the axes channel and time.
    stimulus, minus
        Which stimuli, by name or pattern; see `berg.plotting.shown.show`.
    positions
        As in `berg.plotting.topomap`.

    Raises
    ------
    InvalidParameterError
        If the responses are not of channels in time.
    """
    with styled():
        responses = sensor_responses(labelled, stimulus, minus, positions, with_places=positions is not None)
        high = 2.0
        strip = _strip_height(responses)
        sheet, frame = new_sheet(
            high + strip + 0.5, responses.shown.title, (*responses.facts, *responses.ceiling_notes)
        )
        _draw_lines_and_strip(sheet, frame, responses, high, strip)
    return sheet


def joint(
    labelled: Labelled,
    stimulus: Stimuli = None,
    minus: Stimuli = None,
    *,
    positions: Positions | None = None,
    limits: tuple[float, float] | None = None,
) -> Sheet:
    """A line per sensor, maps of the head at the three largest peaks of global field power, the ceiling below.

    Global field power is the standard deviation over sensors at each time. The strip is the mean noise ceiling over
    sensors, if the labels have one, in their unit.

    Parameters
    ----------
    labelled, stimulus, minus, positions, limits
        As in `berg.plotting.topomap`.

    Raises
    ------
    InvalidParameterError, MissingExtraError
        As `berg.plotting.topomap`.
    """
    with styled():
        responses = sensor_responses(labelled, stimulus, minus, positions)
        responses.check_places()
        maps, high, strip = 1.45, 1.75, _strip_height(responses)
        sheet, frame = new_sheet(
            maps + high + strip + 0.6, responses.shown.title, (*responses.facts, *responses.ceiling_notes)
        )
        lines = _draw_lines_and_strip(sheet, frame, responses, high, strip)
        _draw_maps(sheet, frame, responses, lines, limits)
    return sheet


def peaks(power: NDArray[np.float64], milliseconds: NDArray[np.float64]) -> list[int]:
    """The largest local maxima, three at most, at least 30 ms apart, in the order of time."""
    padded = np.pad(np.nan_to_num(power), 1, constant_values=-np.inf)
    is_peak = (padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:])
    chosen: list[int] = []
    for index in sorted(np.flatnonzero(is_peak), key=lambda one: -power[one]):
        if all(abs(milliseconds[index] - milliseconds[other]) >= _APART_MS for other in chosen):
            chosen.append(int(index))
    return sorted(chosen[:N_PEAKS])


def place_colours(places: Places) -> dict[str, NDArray[np.float64]]:
    """A colour for each place: red to the right, green to the front, blue to the left and back, darker outside."""
    found = {}
    for name, place in places.items():
        x, y = np.clip(place / HEAD, -1, 1)
        found[name] = np.clip([0.5 + 0.45 * x, 0.42 + 0.36 * y, 0.5 - 0.32 * x - 0.2 * y], 0, 0.92)
    return found


def draw_time_axis(axes: Axes, milliseconds: NDArray[np.float64], with_label: bool = True) -> None:
    """From the first time point to the last, in milliseconds, the beginning of the stimulus marked."""
    first, last = float(milliseconds[0]), float(milliseconds[-1])
    axes.set_xlim(first, last if last > first else first + 1)
    if first < 0 < last:
        axes.axvline(0, color="0.5", linewidth=0.6, linestyle=(0, (3, 2)), zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    if with_label:
        axes.set_xlabel("time (ms)")
    else:
        axes.tick_params(labelbottom=False)


def _strip_height(responses: SensorResponses) -> float:
    return 0.0 if responses.ceiling is None else 0.62


def _draw_lines_and_strip(sheet: Sheet, frame: Frame, responses: SensorResponses, high: float, strip: float) -> Axes:
    wide = frame.width - _LEFT - _RIGHT
    lines = sheet.add_axes(frame.rectangle(_LEFT, 0.4 + strip, wide, high))
    _draw_lines(lines, responses)
    draw_time_axis(lines, responses.milliseconds, with_label=responses.ceiling is None)
    if responses.ceiling is not None:
        below = sheet.add_axes(frame.rectangle(_LEFT, 0.4, wide, strip - 0.17))
        below.fill_between(responses.milliseconds, responses.ceiling, color="0.75", linewidth=0)
        below.set_ylim(0, max(float(np.nanmax(responses.ceiling)) * 1.1, 1e-9))
        below.yaxis.set_major_locator(MaxNLocator(2))
        below.set_ylabel("noise\nceiling", labelpad=6)
        draw_time_axis(below, responses.milliseconds)
    return lines


def _draw_lines(axes: Axes, responses: SensorResponses) -> None:
    colours: dict[str, Any] = dict(place_colours(responses.places))
    is_few = len(responses.names) <= NAMED
    for index, (name, values) in enumerate(zip(responses.names, responses.values, strict=True)):
        colour = f"C{index}" if is_few else colours.get(name, "0.45")
        width, marker = 1.2 if is_few else 0.6, "o" if len(values) == 1 else None
        label = name.replace("$", r"\$")
        axes.plot(responses.milliseconds, values, color=colour, linewidth=width, marker=marker, label=label)
    axes.axhline(0, color="0.5", linewidth=0.6, zorder=0)
    high = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    axes.set_ylabel(wrapped(responses.shown.label, high), parse_math=False)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if is_few:
        axes.legend(frameon=False, ncols=len(responses.names), loc="lower right", bbox_to_anchor=(1, 1), borderpad=0)


def _draw_key(key: Axes, places: Places) -> None:
    """A small head, with a dot in the colour of each sensor's line."""
    draw_outline(key)
    for line in key.lines:
        line.set_linewidth(0.5)
    points, colours = np.stack(list(places.values())), list(place_colours(places).values())
    key.scatter(points[:, 0], points[:, 1], c=np.stack(colours), s=4, linewidths=0)
    reach = 1.2 * max(HEAD, float(np.abs(points).max()))
    key.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    key.set_axis_off()
    key.set_title("lines by place", size=7, y=1.0, pad=1)


def _draw_maps(
    sheet: Sheet, frame: Frame, responses: SensorResponses, lines: Axes, limits: tuple[float, float] | None
) -> None:
    points = peaks(responses.field_power(), responses.milliseconds)
    values = responses.placed()[:, points]
    scale = scale_of([values], responses.shown.label, responses.is_signed, limits)
    head = HeadMap(np.stack(list(responses.places.values())))
    side, bottom = 1.12, frame.height - 1.3
    middle = _LEFT + (frame.width - _LEFT - _RIGHT) / 2
    for index, (point, picture) in enumerate(zip(points, head.pictures(values), strict=True)):
        left = middle + (index - len(points) / 2) * _PER_MAP + (_PER_MAP - side) / 2
        axes = sheet.add_axes(frame.rectangle(left, bottom, side, side))
        draw_head(axes, head, picture, scale, values[:, index])
        time = responses.milliseconds[point]
        axes.set_title(in_ms(time), y=1.0, pad=1)
        lines.axvline(time, color="0.3", linewidth=0.5, zorder=0)
        line = ConnectionPatch(
            (time, 1), (0.5, 0.0), lines.get_xaxis_transform(), axes.transAxes, color="0.3", linewidth=0.5
        )
        sheet.add_artist(line)
    if len(responses.names) > NAMED:
        _draw_key(sheet.add_axes(frame.rectangle(_LEFT - 0.25, bottom + 0.1, 0.8, 0.8)), responses.places)
    bar = sheet.add_axes(frame.rectangle(frame.width - 1.14, bottom + 0.06, 0.1, side - 0.1))
    draw_bar(sheet, bar, scale, inside=True)
