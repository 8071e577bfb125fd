"""Responses of sensors or electrodes in time, ready to be drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.plotting.sensors import Places, Positions, check_known, places_on_head
from berg.plotting.shown import Shown, Stimuli, show
from berg.responses.labelled import Labelled, attributes_of

_GRADIOMETER = re.compile(r"(MEG ?\d{3})[23]")


@dataclass(frozen=True)
class SensorResponses:
    """One response in time per sensor.

    Attributes
    ----------
    values
        Shape (n_sensors, n_times).
    milliseconds
        Shape (n_times,).
    places
        Those that are known; see `berg.plotting.sensors.places_on_head`.
    ceiling
        The mean noise ceiling over sensors, shape (n_times,); None if the labels have none.
    notes, ceiling_notes
        For the line below a figure; the latter if the ceiling is drawn.
    """

    shown: Shown
    values: NDArray[np.float64]
    names: list[str]
    milliseconds: NDArray[np.float64]
    places: Places
    ceiling: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
    ceiling_notes: tuple[str, ...] = ()

    @property
    def is_signed(self) -> bool:
        """Whether below 0 is as meaningful as above."""
        return self.shown.is_signed

    @property
    def facts(self) -> tuple[str, ...]:
        """For the line below a figure, with the sensors that have no place."""
        unknown = [name for name in self.names if name not in self.places]
        if not unknown or not self.places:
            return (*self.shown.facts, *self.notes)
        words = f"{len(unknown)} without a known place are not in the maps: {', '.join(unknown[:6])}"
        return (*self.shown.facts, *self.notes, words + (" …" if len(unknown) > 6 else ""))

    def check_places(self) -> None:
        """Raise InvalidParameterError if no map of the head can be drawn."""
        check_known(self.places, self.names)

    def placed(self) -> NDArray[np.float64]:
        """The responses of the sensors that have a place, in the order of the places; shape (n_placed, n_times)."""
        number = {name: index for index, name in enumerate(self.names)}
        return self.values[[number[name] for name in self.places]]

    def time_points(self, seconds: Sequence[float]) -> list[int]:
        """The time points nearest to times.

        Raises
        ------
        InvalidParameterError
            For a time outside of the responses.
        """
        wanted = 1000 * np.asarray(seconds, float)
        first, last = self.milliseconds[0], self.milliseconds[-1]
        slack = 0.5 * (last - first) / max(1, len(self.milliseconds) - 1) + 1e-6
        outside = wanted[(wanted < first - slack) | (wanted > last + slack)]
        if outside.size:
            raise InvalidParameterError(
                f"The responses have no {outside[0]:g} ms: they are from {first:g} to {last:g} ms. Give times in "
                "seconds, such as times=[0.1, 0.2]."
            )
        return [int(np.argmin(np.abs(self.milliseconds - time))) for time in wanted]

    def field_power(self) -> NDArray[np.float64]:
        """Global field power, the standard deviation over sensors at each time (Lehmann & Skrandies 1980)."""
        return np.nanstd(self.values, axis=0) if np.isfinite(self.values).any() else np.zeros(self.values.shape[1])


def sensor_responses(
    labelled: Labelled,
    stimulus: Stimuli = None,
    minus: Stimuli = None,
    positions: Positions | None = None,
    with_places: bool = True,
) -> SensorResponses:
    """Responses of sensors in time.

    Pairs of planar gradiometers (unit T/m) have one place each: both become the root of their mean square.

    Raises
    ------
    InvalidParameterError
        If the responses are not of channels in time.
    """
    shown = show(labelled, stimulus, minus)
    array = only_array(shown, "channel")
    modality = str(attributes_of(labelled).get("model_id", "")).split("-")[0]
    names = [str(name) for name in array["channel"].values]
    values = array.transpose("channel", "time").values
    ceiling, ceiling_notes = _ceiling(array)
    milliseconds = np.round(1000 * array["time"].values.astype(float), 3)
    responses = SensorResponses(shown, values, names, milliseconds, {}, ceiling, ceiling_notes=ceiling_notes)
    if shown.unit == "fT/cm":
        responses = _paired(responses)
    if not with_places:
        return responses
    return replace(responses, places=places_on_head(modality, responses.names, positions))


def only_array(shown: Shown, axis: str) -> xr.DataArray:
    """The one output, with one axis of units and one of time."""
    arrays = list(shown.outputs.values())
    if len(arrays) != 1 or set(arrays[0].dims) != {axis, "time"} or not {axis, "time"} <= set(arrays[0].coords):
        held = "; ".join(f"{name} {tuple(map(str, array.dims))}" for name, array in shown.outputs.items())
        raise InvalidParameterError(
            f"These responses ({held}) are not of the axes {axis} and time, each with its labels. Draw what their "
            "labels say:  berg.plotting.draw(labelled)"
        )
    if not all(arrays[0].sizes.values()):
        raise InvalidParameterError("No channel or no time is selected, so there is nothing to draw. Select some.")
    return arrays[0]


def _ceiling(array: xr.DataArray) -> tuple[NDArray[np.float64] | None, tuple[str, ...]]:
    """The mean noise ceiling over sensors at each time, and its unit in words."""
    if "noise_ceiling" not in array.coords or set(array["noise_ceiling"].dims) != {"channel", "time"}:
        return None, ()
    ceiling = array["noise_ceiling"].transpose("channel", "time").values.astype(np.float64)
    present = np.isfinite(ceiling)
    if not present.any():
        return None, ()
    with np.errstate(invalid="ignore"):
        mean = np.where(present, ceiling, 0).sum(axis=0) / present.sum(axis=0)
    unit = array["noise_ceiling"].attrs.get("units", "the unit of the labels")
    return mean, (f"noise ceiling: mean over channels, in {unit}",)


def _paired(responses: SensorResponses) -> SensorResponses:
    pairs: dict[str, list[int]] = {}
    for index, name in enumerate(responses.names):
        if found := _GRADIOMETER.fullmatch(name):
            pairs.setdefault(found[1], []).append(index)
    if not pairs or any(len(own) != 2 for own in pairs.values()) or 2 * len(pairs) != len(responses.names):
        return responses
    rms = np.stack([np.sqrt((responses.values[own] ** 2).mean(axis=0)) for own in pairs.values()])
    names = [responses.names[first] for first, _ in pairs.values()]
    note = "gradiometers: root mean square of each pair"
    shown = replace(responses.shown, quantity=f"{responses.shown.quantity}, root mean square", is_signed=False)
    return replace(responses, shown=shown, values=rms, names=names, notes=(*responses.notes, note))
