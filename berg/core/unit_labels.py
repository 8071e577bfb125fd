"""What the units of an axis are called: coordinates and regions, from the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import FROM_STIMULUS, OutputArray
from berg.core.exceptions import CorruptedFileError, InvalidParameterError
from berg.core.model_card import ModelCard

Indices = NDArray[np.intp]
Metadata = Mapping[str, Any]
AxisKey = tuple[str, str]  # output, axis
Coordinate = tuple[str | tuple[str, ...], NDArray[Any]]
TIME = "time"  # the coordinate in seconds
OPTIONAL = "?"  # at the end of a place that need not be there


def look_up(metadata: Metadata, place: str, output: str = "") -> Any:
    """What the metadata holds at a dotted place such as ``fmri.{output}_ncsnr``."""
    value: Any = metadata
    whole = place.format(output=output).removesuffix(OPTIONAL)
    for step in whole.split("."):
        if not isinstance(value, Mapping) or step not in value:
            raise CorruptedFileError(f"The metadata have no '{whole}' (missing: '{step}').")
        value = value[step]
    return value


def axis_length(card: ModelCard, output: str, axis: str, metadata: Metadata) -> int:
    """How many places an axis has before anything is selected."""
    described = card.axes[axis]
    if isinstance(described.length, str):
        raise InvalidParameterError(f"Axis '{axis}' of {card.model_id} is as long as the stimulus; encode one first.")
    if described.length is not None:
        return described.length
    place = next(iter(described.coordinates.values()))
    return len(list_at(place, output, metadata))


def list_at(place: str, output: str, metadata: Metadata, dtype: type | None = None) -> NDArray[Any]:
    found = look_up(metadata, place, output)
    try:
        values = np.asarray(found, dtype)
    except (TypeError, ValueError) as error:
        raise CorruptedFileError(f"The metadata at '{place}' are not one value per unit: {error}.") from error
    if values.ndim == 0:
        raise CorruptedFileError(f"The metadata at '{place}' are not one value per unit: {found!r:.60}.")
    return values


def as_indices(places: Any, length: int, name: str) -> Indices:
    """The units of a region, given as indices or as a mask, of booleans or of 0 and 1."""
    array = np.asarray(places).ravel()
    is_twice = len(array) > 2 and bool(np.isin(array, (0, 1)).all())  # a list of indices names none twice
    if not (array.dtype == bool or is_twice):
        return array.astype(np.intp)
    if len(array) != length:
        raise CorruptedFileError(
            f"The mask of ROI {name} in the metadata has {len(array):,} values for {length:,} units."
        )
    return np.flatnonzero(array)


def coordinates(
    card: ModelCard, output: OutputArray, indices: Mapping[AxisKey, Indices], metadata: Metadata
) -> dict[str, Coordinate]:
    """The coordinates of the returned units: name -> (axis, or several axes, and values in the order of the columns).

    Those of an axis that is as long as the stimulus are the times in seconds; without indices there are none.
    """
    found: dict[str, Coordinate] = {}
    for axis in output.axes[1:]:
        if (rate := card.axes[axis].sampling_rate) and (output.name, axis) in indices:
            found[axis] = (axis, indices[output.name, axis] / rate)
        length = axis_length(card, output.name, axis, metadata) if card.axes[axis].coordinates else 0
        for name, place in card.axes[axis].coordinates.items():
            values = _values_at(place, output.name, metadata, length)
            if values is not None:
                selected = values[indices[output.name, axis]]
                found[name] = (axis, _to_microseconds(selected) if name == TIME else selected)
    return found | _of_several_axes(card, output, indices, metadata)


def _to_microseconds(seconds: NDArray[Any]) -> NDArray[Any]:
    """Seconds that are what they are called: slice(0.1, 0.2) would leave out 0.09999999999999998."""
    return np.round(seconds.astype(np.float64), 6) if seconds.dtype.kind == "f" else seconds


def _of_several_axes(
    card: ModelCard, output: OutputArray, indices: Mapping[AxisKey, Indices], metadata: Metadata
) -> dict[str, Coordinate]:
    found: dict[str, Coordinate] = {}
    for name, place in output.coordinates.items():
        values = _values_at(place, output.name, metadata)
        axes = tuple(output.axes[len(output.axes) - (0 if values is None else values.ndim) :])
        lengths = tuple(axis_length(card, output.name, axis, metadata) for axis in axes if axis != "stimulus")
        if values is not None and values.shape == lengths:
            found[name] = (axes, values[np.ix_(*(indices[output.name, axis] for axis in axes))])
        elif not place.endswith(OPTIONAL):
            raise CorruptedFileError(f"The metadata at '{place}' do not have one value per unit of {output.name}.")
    return found


def _values_at(place: str, output: str, metadata: Metadata, length: int | None = None) -> NDArray[Any] | None:
    """The values at a place, in the order of the whole axis; None if they may be missing, and are."""
    try:
        found = look_up(metadata, place, output)
        if isinstance(found, Mapping) and length is not None:
            return region_labels(found, length)
        values = list_at(place, output, metadata)
        if length is not None and values.shape != (length,):
            n_values = " x ".join(f"{n:,}" for n in values.shape)
            raise CorruptedFileError(f"The metadata at '{place}' have {n_values} values for {length:,} units.")
        return values
    except CorruptedFileError:
        if place.endswith(OPTIONAL):
            return None
        raise


def region_labels(regions: Mapping[str, Any], n_units: int) -> NDArray[np.str_]:
    """The names of each unit's regions, with semicolons between; empty if it is in none.

    Parameters
    ----------
    regions
        Name -> indices of its units, or a mask.

    Raises
    ------
    CorruptedFileError
        If they are neither.

    Examples
    --------
    >>> region_labels({"V1": [0, 1], "early": [1]}, 3).tolist()
    ['V1', 'V1;early', '']
    """
    labels = np.full(n_units, "", dtype=object)
    for name, places in regions.items():
        if np.asarray(places).dtype.kind not in "biu" and np.size(places):
            raise CorruptedFileError(f"The units of region '{name}' are not given as whole numbers.")
        units = as_indices(places, n_units, str(name))
        if units.size and not (units.min() >= 0 and units.max() < n_units):
            raise CorruptedFileError(f"The metadata place ROI {name} outside the {n_units:,} units.")
        labels[units] = [f"{label};{name}" if label else str(name) for label in labels[units]]
    return labels.astype(str)


def axis_attributes(card: ModelCard, output: OutputArray, metadata: Metadata) -> dict[str, float]:
    """What a selection cannot tell of the whole axes: their lengths, and the step from one time to the next."""
    found: dict[str, float] = {}
    for axis in output.axes[1:]:
        if rate := card.axes[axis].sampling_rate:
            found[f"{axis}_step"] = 1 / rate
        if card.axes[axis].length == FROM_STIMULUS:
            continue
        found[f"{axis}_total"] = axis_length(card, output.name, axis, metadata)
        place = card.axes[axis].coordinates.get(axis)
        values = list_at(place, output.name, metadata) if place else np.empty(0)
        if values.dtype.kind == "f" and len(values) > 1:
            step = float(values[-1] - values[0]) / (len(values) - 1)
            if step and np.allclose(np.diff(values), step, rtol=0.01):
                found[f"{axis}_step"] = step
    return found
