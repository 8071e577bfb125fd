"""Responses with their labels, as xarray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError

_NOT_THESE = (
    "These metadata do not label these responses; give both values that "
    "berg.encode(..., return_metadata=True) returned."
)

Labelled = xr.Dataset | xr.DataTree


def label_responses(
    responses: NDArray[np.float32] | tuple[NDArray[np.float32], ...],
    metadata: Mapping[str, Any],
    stimuli: Sequence[str] | None = None,
) -> Labelled:
    """Responses with dimensions, coordinates and units.

    Parameters
    ----------
    responses
        What `encode` returned: one array, or a tuple in the order of the card.
    metadata
        The metadata that `encode` returned with it.
    stimuli
        One name per stimulus; their numbers where not given.

    Returns
    -------
    labelled
        A Dataset with one variable; for several outputs a DataTree with one Dataset each.
    """
    arrays = responses if isinstance(responses, tuple) else (responses,)
    labels = metadata.get("responses")
    if not labels or len(labels) != len(arrays):
        raise InvalidParameterError(_NOT_THESE)
    names = list(range(len(arrays[0]))) if stimuli is None else list(stimuli)
    if len(names) != len(arrays[0]):
        raise InvalidParameterError(f"{len(names)} names were given for {len(arrays[0])} stimuli.")
    attributes = {name: _storable(value) for name, value in metadata.get("model", {}).items()}
    datasets = {
        name: _dataset(name, array, label, names, attributes)
        for (name, label), array in zip(labels.items(), arrays, strict=True)
    }
    if len(datasets) == 1:
        return next(iter(datasets.values()))
    return xr.DataTree.from_dict(datasets)


def _storable(value: Any) -> Any:
    """A text, number or list of them: what an attribute in a NetCDF file can hold."""
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, (str, int, float, list, np.ndarray)) else repr(value)


def _dataset(
    name: str,
    array: NDArray[np.float32],
    label: Mapping[str, Any],
    stimuli: Sequence[Any],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    coordinates = {"stimulus": ("stimulus", stimuli), **label["coordinates"]}
    try:
        values = xr.DataArray(array, dims=label["axes"], coords=coordinates, attrs={"units": label["unit"]})
    except ValueError as error:
        raise InvalidParameterError(_NOT_THESE) from error
    return xr.Dataset({name: values}, attrs=dict(attributes))
