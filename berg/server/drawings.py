"""What can be drawn of responses, and what a drawing needs beside them: `berg.server.contract.Drawing`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from berg.core.exceptions import InvalidParameterError, MissingExtraError
from berg.core.model_card import ModelCard
from berg.plotting.receptive_fields import has_receptive_fields
from berg.plotting.region_means import has_regions, region_means
from berg.plotting.sensors import FEWEST, places_on_head
from berg.plotting.vertices import is_on_surface, on_meshes
from berg.responses.labelled import Labelled, attributes_of, outputs_of
from berg.server.contract import Drawing, DrawingKind, Hemisphere, Numbers, Region
from berg.server.numbers_as_json import as_base64, finite

MESH = "fsaverage5"
_SENSORS = ("eeg", "meg")


def drawings_of_card(card: ModelCard) -> list[DrawingKind]:
    """What a card says that can be drawn of its responses, the best first."""
    axes = {axis for output in card.outputs for axis in output.axes}
    coordinates = {name for axis in axes if axis in card.axes for name in card.axes[axis].coordinates}
    found: list[DrawingKind] = []
    if "vertex" in axes and {output.name for output in card.outputs} <= {"lh", "rh"}:
        found.append("cortex")
    if {"x_deg", "y_deg"} <= coordinates:
        found.append("visual_field")
    if "time" in axes:
        found.append("scalp" if "channel" in axes and card.modality in _SENSORS else "rate")
    if "roi" in coordinates and "time" not in axes:
        found.append("bars")
    return found


def drawings_of(labelled: Labelled, numbers: Numbers) -> list[Drawing]:
    """What can be drawn of responses, the best first; a drawing whose package is missing is left out."""
    arrays = outputs_of(labelled)
    in_time = any("time" in array.dims for array in arrays.values())
    found: list[Drawing] = []
    if is_on_surface(arrays) and not in_time:
        found += _cortex(arrays, numbers)
    if has_receptive_fields(arrays) and not in_time:
        width = attributes_of(labelled).get("stimulus_width_deg")
        found += [Drawing(kind="visual_field", output=name, width_deg=width) for name in arrays]
    if in_time:
        found += [_in_time(labelled, name, array) for name, array in arrays.items() if "time" in array.dims]
    if has_regions(arrays) and not in_time:
        found.append(_bars(labelled))
    return found


def _cortex(arrays: dict[str, xr.DataArray], numbers: Numbers) -> Iterator[Drawing]:
    n_stimuli = next(iter(arrays.values())).sizes["stimulus"]
    rows: dict[str, list[Any]] = {}
    note = ""
    try:
        for index in range(n_stimuli):
            one = {name: _without_repetitions(array.isel(stimulus=index, drop=True)) for name, array in arrays.items()}
            _, values, note = on_meshes(one, None)
            for name, own in values.items():
                rows.setdefault(name, []).append(own.astype(np.float32))
    except (InvalidParameterError, MissingExtraError):  # too few vertices, another surface, no nilearn
        return
    hemispheres = {}
    for hemisphere, maps in rows.items():
        stacked = np.stack(maps)
        is_listed = numbers == "list"
        hemispheres[hemisphere] = Hemisphere(
            values=finite(stacked) if is_listed else None,
            values_base64=None if is_listed else as_base64(stacked),
            shape=list(stacked.shape),
        )
    yield Drawing(kind="cortex", mesh=MESH, hemispheres=hemispheres, note=note)


def _without_repetitions(array: xr.DataArray) -> xr.DataArray:
    return array.mean("repetition", keep_attrs=True) if "repetition" in array.dims else array


def _in_time(labelled: Labelled, name: str, array: xr.DataArray) -> Drawing:
    modality = str(attributes_of(labelled).get("model_id", "")).split("-")[0]
    if modality not in _SENSORS or "channel" not in array.dims:
        return Drawing(kind="rate", output=name)
    names = [str(channel) for channel in array["channel"].values]
    try:
        places = places_on_head(modality, names)
    except MissingExtraError as error:
        return Drawing(kind="time_course", output=name, note=str(error))
    if len(places) < FEWEST:
        return Drawing(kind="time_course", output=name)
    x, y = ([float(places[own][axis]) if own in places else None for own in names] for axis in (0, 1))
    return Drawing(kind="scalp", output=name, x=x, y=y)


def _bars(labelled: Labelled) -> Drawing:
    means = region_means(labelled)
    regions = [
        Region(
            name=name,
            n_units=int(means.n_units[index]),
            mean=finite(means.responses[:, index]),
            accuracy=None if means.accuracy is None else _number(means.accuracy[index]),
            ceiling=None if means.ceiling is None else _number(means.ceiling[index]),
        )
        for index, name in enumerate(means.names)
    ]
    note = "the noise ceiling has no unit and is not drawn" if means.ceiling_is_unknown else ""
    return Drawing(kind="bars", regions=regions, note=note)


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
