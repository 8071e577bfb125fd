"""What the units of an axis are called: coordinates and regions, from the metadata."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
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
SPACE = "space"  # what the metadata of a fitted model say of the files that it was fitted to
OPTIONAL = "?"  # at the end of a place that need not be there


def look_up(metadata: Metadata, place: str, output: str = "") -> Any:
    """What the metadata holds at a dotted place such as ``fmri.{output}_ncsnr``.

    Of several places, with ``|`` between, the first that is there. A number as a step is a column of an array, or, of
    the mask of a volume, one of i, j, k of its voxels, k counting fastest (the order of ``volume[mask]``), and
    ``names[numbers]`` are the names with these numbers; of numbers that are none of a name, empty ones.

    >>> look_up({"b": {"names": ["V1", "V4"], "of": np.array([1, 0, 2])}}, "a|b.names[b.of]").tolist()
    ['V4', 'V1', '']
    """
    first, *earlier = place.format(output=output).removesuffix(OPTIONAL).split("|")
    try:
        return _at_place(metadata, first)
    except CorruptedFileError:
        for other in earlier:
            with suppress(CorruptedFileError):
                return _at_place(metadata, other)
        raise


def _at_place(metadata: Metadata, place: str) -> Any:
    if place.endswith("]"):
        names, _, numbers = place.removesuffix("]").partition("[")
        return _named(place, _at_place(metadata, names), _at_place(metadata, numbers))
    value: Any = metadata
    for step in place.split("."):
        if step.isdecimal() and isinstance(value, np.ndarray) and value.ndim == 2 and int(step) < value.shape[1]:
            value = value[:, int(step)]
        elif step in ("0", "1", "2") and isinstance(value, np.ndarray) and value.ndim == 3:  # the mask of a volume
            value = np.argwhere(value)[:, int(step)]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            raise CorruptedFileError(f"The metadata have no '{place}' (missing: '{step}').")
    return value


def _named(place: str, names: Any, numbers: Any) -> NDArray[np.str_]:
    """The names with these numbers, one for each."""
    which = np.asarray(numbers)
    if which.ndim != 1 or which.dtype.kind not in "iuf" or not np.array_equal(which, np.round(which)):
        raise CorruptedFileError(f"The metadata at '{place}' do not give each unit the whole number of a name.")
    labels = np.array([*map(str, names), ""])
    return labels[np.where((which >= 0) & (which < len(names)), which, len(names)).astype(np.intp)]


def axis_length(card: ModelCard, output: str, axis: str, metadata: Metadata) -> int:
    """How many positions an axis has before anything is selected."""
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
    if isinstance(places, tuple) and len(places) != 1 and any(np.ndim(part) for part in places):
        raise CorruptedFileError(
            f"ROI {name} of the metadata is {len(places)} lists of indices, not one list of units. Get the file again."
        )
    array = _whole_numbers(places, name)
    is_twice = len(array) > 2 and bool(np.isin(array, (0, 1)).all())  # a list of indices names none twice
    if not (array.dtype == bool or is_twice):
        return array.astype(np.intp)
    if len(array) != length:
        raise CorruptedFileError(
            f"The mask of ROI {name} in the metadata has {len(array):,} values for {length:,} units."
        )
    return np.flatnonzero(array)


def _whole_numbers(places: Any, name: str) -> NDArray[Any]:
    """The numbers of a region in one row, also of what `numpy.where` returns: one array in a tuple."""
    try:
        array = np.asarray(places).ravel()
    except ValueError:  # lists of different lengths
        array = np.array([None])
    is_whole = array.dtype.kind in "biu" or (
        array.dtype.kind == "f" and np.isfinite(array).all() and np.array_equal(array, np.round(array))
    )
    if array.size and not is_whole:
        raise CorruptedFileError(
            f"The units of ROI {name} in the metadata are not given as whole numbers. Get the file again."
        )
    return array


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
                values = in_seconds(card, axis, values) if name == TIME else values
                selected = values[indices[output.name, axis]]
                found[name] = (axis, _to_microseconds(selected) if name == TIME else selected)
    return found | _of_several_axes(card, output, indices, metadata)


def in_seconds(card: ModelCard, axis: str, times: NDArray[Any]) -> NDArray[Any]:
    """Times in seconds, of a file that has seconds or milliseconds; the step in the card tells which.

    Raises
    ------
    CorruptedFileError
        If the times have another step.
    """
    step = card.axes[axis].time_step
    if step is None or len(times) < 2:
        return times
    found = np.diff(times.astype(np.float64))
    for factor in (1, 1e-3):
        if np.allclose(factor * found, step, rtol=0.01):
            return factor * times.astype(np.float64)
    raise CorruptedFileError(
        f"The times in the metadata are {found.min():g} to {found.max():g} apart; those of {card.model_id} are "
        f"{step:g} s apart, in seconds or milliseconds. Get the file again."
    )


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
        if values is not None and values.shape == lengths[::-1] != lengths:
            values = values.T  # time first
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


def volume_shape(card: ModelCard, metadata: Metadata) -> dict[str, Any]:
    """The smallest volume that holds all voxels, if the card says where their indices i, j, k stand; or nothing.

    If i, j, k are those of a mask, the shape of the mask, and ``fmri_affine`` if it stands beside it (16 numbers, row
    by row, to millimetres).
    """
    for output in card.outputs:
        for axis in output.axes[1:]:
            places = [card.axes[axis].coordinates.get(index) for index in "ijk"]
            if None not in places:
                found = _volume_of_mask(metadata, str(places[0]))
                return _smallest_volume(metadata, places, output.name) if found is None else found
    return {}


def _volume_of_mask(metadata: Metadata, place: str) -> dict[str, Any] | None:
    """Shape and affine of the mask whose voxels have their i at this place; None if it is not of a mask."""
    mask_place, _, step = place.removesuffix(OPTIONAL).rpartition(".")
    try:
        mask = look_up(metadata, mask_place)
    except CorruptedFileError:
        return {} if place.endswith(OPTIONAL) else None
    if step != "0" or np.ndim(mask) != 3:
        return None
    with suppress(CorruptedFileError):
        affine = np.asarray(look_up(metadata, f"{mask_place}_affine"))
        if affine.shape == (4, 4) and affine.dtype.kind in "iuf":
            return {"volume_shape": list(np.shape(mask)), "fmri_affine": affine.astype(float).ravel().tolist()}
    return {"volume_shape": list(np.shape(mask))}


def _smallest_volume(metadata: Metadata, places: list[str | None], output: str) -> dict[str, Any]:
    return {"volume_shape": [int(list_at(str(place), output, metadata).max()) + 1 for place in places]}


def space_attributes(metadata: Metadata) -> dict[str, Any]:
    """Where fitted units lie, as texts and numbers that a file can hold; nothing if the recordings did not say.

    Returns
    -------
    attributes
        ``volume_shape`` and ``fmri_affine`` (16 numbers, row by row) of voxels, and ``surface_vertices`` of CIFTI: how
        many vertices each structure has in all.

    Examples
    --------
    >>> space_attributes({"space": {"surface_vertices": {"CIFTI_STRUCTURE_CORTEX_LEFT": 32492}}})
    {'surface_vertices': 'CIFTI_STRUCTURE_CORTEX_LEFT 32492'}
    """
    space, found = metadata.get(SPACE), dict[str, Any]()
    if not isinstance(space, Mapping):
        return found
    shape, affine = (np.ravel(space.get(name, ())) for name in ("volume_shape", "fmri_affine"))
    if shape.shape == (3,) and affine.shape == (16,):
        found = {"volume_shape": [int(length) for length in shape], "fmri_affine": [float(value) for value in affine]}
    if surfaces := space.get("surface_vertices"):
        found["surface_vertices"] = "; ".join(f"{name} {count}" for name, count in surfaces.items())
    return found


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
        values = in_seconds(card, axis, list_at(place, output.name, metadata)) if place else np.empty(0)
        if values.dtype.kind == "f" and len(values) > 1:
            step = float(values[-1] - values[0]) / (len(values) - 1)
            if step and np.allclose(np.diff(values), step, rtol=0.01):
                found[f"{axis}_step"] = step
    return found
