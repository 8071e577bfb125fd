"""Maps of the head: responses of sensors, interpolated between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from numpy.typing import NDArray

from berg.plotting.colours import Scale, draw_bar, scale_of
from berg.plotting.page import Sheet, in_ms, new_sheet, styled
from berg.plotting.sensor_responses import SensorResponses, sensor_responses
from berg.plotting.sensors import HEAD, Places, Positions
from berg.plotting.shown import Stimuli
from berg.responses.labelled import Labelled

N_PIXELS = 120  # along each side of a map
_N_MAPS = 10
_AROUND = 1.08  # a map reaches so much beyond the outermost sensor
_PER_ROW = 5
_N_EDGE, _EDGE = 24, 1.05


class HeadMap:
    """The linear map from responses of sensors to the pixels of a picture of the head.

    The picture is the thin-plate spline through the responses (Duchon 1977): the smoothest surface that has at each
    sensor the response of that sensor. Points around the map have the mean of the three nearest sensors, weighed by
    1 / distance, so that nothing grows where there is no sensor. All of it is linear in the responses: one matrix
    serves all times.
    """

    def __init__(self, places: NDArray[np.float64], n_pixels: int = N_PIXELS) -> None:
        self.places = places
        self.radius = max(HEAD, _AROUND * float(np.linalg.norm(places, axis=1).max()))
        steps = self.radius * np.linspace(-1, 1, n_pixels)
        self.grid = np.stack(np.meshgrid(steps, steps), axis=-1)
        self._inside = np.linalg.norm(self.grid, axis=-1) <= self.radius * (1 + 3 / n_pixels)
        self._weights: dict[bytes, NDArray[np.float64]] = {}

    def pictures(self, responses: NDArray[Any]) -> NDArray[np.float64]:
        """The pictures of responses.

        Parameters
        ----------
        responses
            Shape (n_sensors, n_times); sensors that are NaN are left out of the picture of that time.

        Returns
        -------
        pictures
            Shape (n_times, n_pixels, n_pixels), from below to above; NaN outside of the head.
        """
        pictures = np.full((responses.shape[1], *self._inside.shape), np.nan)
        present = np.isfinite(responses)
        for own in np.unique(present, axis=1).T:
            times = (present == own[:, None]).all(axis=0)
            if own.sum() >= 3:
                pictures[np.ix_(times, *map(np.arange, self._inside.shape))] = self._draw(responses[own][:, times], own)
        return pictures

    def _draw(self, responses: NDArray[Any], present: NDArray[np.bool_]) -> NDArray[np.float64]:
        pictures = np.full((responses.shape[1], *self._inside.shape), np.nan)
        pictures[:, self._inside] = (self._matrix(present) @ responses).T
        return pictures

    def _matrix(self, present: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Shape (n_pixels inside, n_sensors present)."""
        from scipy.interpolate import RBFInterpolator

        key = present.tobytes()
        if key not in self._weights:
            places, own = self.places[present], np.eye(present.sum())
            around, shares = self._edge(places)
            spline = RBFInterpolator(np.vstack([places, around]), np.vstack([own, shares]), kernel="thin_plate_spline")
            self._weights[key] = spline(self.grid[self._inside])
        return self._weights[key]

    def _edge(self, places: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points around the map, and the share that each sensor has in the response of each."""
        angles = np.linspace(0, 2 * np.pi, _N_EDGE, endpoint=False)
        around = _EDGE * self.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        distances = np.linalg.norm(around[:, None] - places, axis=2)
        nearest = np.argsort(distances, axis=1)[:, :3]
        shares = np.zeros_like(distances)
        np.put_along_axis(shares, nearest, 1 / np.take_along_axis(distances, nearest, axis=1), axis=1)
        return around, shares / shares.sum(axis=1, keepdims=True)


def topomap(
    labelled: Labelled,
    stimulus: Stimuli = None,
    minus: Stimuli = None,
    *,
    times: Sequence[float] | None = None,
    positions: Positions | None = None,
    limits: tuple[float, float] | None = None,
) -> Sheet:
    """Responses of EEG or MEG sensors on the head, at several times, with one scale.

    Parameters
    ----------
    labelled
        With the axes channel and time.
    stimulus, minus
        Which stimuli, by name or pattern; see `berg.plotting.shown.show`.
    times
        In seconds, each drawn at the nearest time point; ten from the first to the last if not given.
    positions
        Name -> position in metres of channels that the 10-05 system and MNE's MEG layouts do not know; see
        `berg.plotting.sensors.places_on_head`.
    limits
        Smallest and largest response of the colour scale.

    Raises
    ------
    InvalidParameterError
        If the responses are not of sensors in time, or the places of too many are unknown.
    MissingExtraError
        Without MNE.
    """
    with styled():
        responses = sensor_responses(labelled, stimulus, minus, positions)
        responses.check_places()
        points = responses.time_points(times if times is not None else _evenly(responses))
        values = responses.placed()[:, points]
        scale = scale_of([values], responses.shown.label, responses.is_signed, limits)
        n_rows = -(-len(points) // _PER_ROW)
        sheet, frame = new_sheet(1.5 * n_rows, responses.shown.title, responses.facts)
        wide = (frame.width - 1.25) / min(len(points), _PER_ROW)
        side = min(wide, 1.3)
        head, pictures = _pictures(responses.places, values)
        for index, (point, picture) in enumerate(zip(points, pictures, strict=True)):
            row, column = divmod(index, _PER_ROW)
            bottom = frame.height - (row + 1) * 1.5 + 0.05
            axes = sheet.add_axes(frame.rectangle(0.1 + column * side, bottom, side, 1.28))
            draw_head(axes, head, picture, scale, values[:, index])
            axes.set_title(in_ms(responses.milliseconds[point]), y=1.0, pad=1)
        left = 0.25 + side * min(len(points), _PER_ROW)
        high = min(1.6, 0.75 * frame.height)
        bar = sheet.add_axes(frame.rectangle(left, (frame.height - high) / 2, 0.11, high))
        draw_bar(sheet, bar, scale, inside=True)
    return sheet


def _evenly(responses: SensorResponses) -> list[float]:
    points = np.unique(np.linspace(0, len(responses.milliseconds) - 1, _N_MAPS).round().astype(int))
    return [float(responses.milliseconds[point]) / 1000 for point in points]


def _pictures(places: Places, values: NDArray[Any]) -> tuple[HeadMap, NDArray[np.float64]]:
    head = HeadMap(np.stack(list(places.values())))
    return head, head.pictures(values)


def draw_head(
    axes: Axes, head: HeadMap, picture: NDArray[np.float64], scale: Scale, values: NDArray[Any] | None = None
) -> None:
    """Draw one map: the picture, the outline of the head, and a dot at each sensor (hollow if it is NaN)."""
    radius = head.radius
    half_pixel = radius / (len(picture) - 1)
    edge = radius + half_pixel
    drawn = axes.imshow(
        picture,
        origin="lower",
        extent=(-edge, edge, -edge, edge),
        cmap=scale.colour_map,
        norm=scale.norm,
        interpolation="bilinear",
        interpolation_stage="data",
    )
    drawn.set_clip_path(Circle((0, 0), radius, transform=axes.transData))
    draw_outline(axes)
    present = np.ones(len(head.places), bool) if values is None else np.isfinite(values)
    axes.plot(*head.places[present].T, ".", color="black", markersize=1.2, markeredgewidth=0)
    axes.plot(*head.places[~present].T, "o", color="0.4", markersize=1.8, markeredgewidth=0.4, fillstyle="none")
    reach = max(radius, 1.15 * HEAD) * 1.03
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set_axis_off()


def draw_outline(axes: Axes) -> None:
    """Head, nose and ears, from above."""
    angles = np.linspace(0, 2 * np.pi, 120)
    line: Any = {"color": "0.15", "linewidth": 0.8, "solid_capstyle": "round"}
    axes.plot(HEAD * np.cos(angles), HEAD * np.sin(angles), **line)
    nose = np.array([[-0.14, 0.99], [0.0, 1.14], [0.14, 0.99]])
    axes.plot(*(HEAD * nose.T), **line)
    ear = np.linspace(-np.pi / 2, np.pi / 2, 20)
    for side in (-1, 1):
        axes.plot(side * HEAD * (0.985 + 0.085 * np.cos(ear)), 0.2 * HEAD * np.sin(ear), **line)
