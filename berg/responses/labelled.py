"""Responses with their labels, as xarray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.responses.regions import index_regions

_NOT_THESE = (
    "These metadata do not label these responses; give both values that "
    "berg.encode(..., return_metadata=True) returned."
)

Labelled = xr.Dataset | xr.DataTree
Responses = NDArray[np.float32] | tuple[NDArray[np.float32], ...]


def label_responses(
    responses: Responses,
    metadata: Mapping[str, Any],
    stimuli: Sequence[str] | None = None,
) -> Labelled:
    """Responses with dimensions, coordinates and units.

    Parameters
    ----------
    responses
        As `encode` returned them: one array, or a tuple in the order of the card.
    metadata
        The metadata that `encode` returned with it.
    stimuli
        One name per stimulus; by default their numbers.

    Returns
    -------
    labelled
        A Dataset with one variable; for several outputs a DataTree with one Dataset each. Where units have regions,
        ``sel(roi="V1")`` selects them; of a DataTree, `berg.responses.regions.select`.
    """
    arrays = _as_arrays(responses)
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


def _as_arrays(responses: Any) -> tuple[NDArray[np.float32], ...]:
    """One array for each output; those of subjects by their data sets and names are joined, the subjects as an axis."""
    if isinstance(responses, Mapping):
        each = [array for of_dataset in responses.values() for array in of_dataset.values()]
        return (np.stack(each, axis=1),)
    return responses if isinstance(responses, tuple) else (responses,)


def as_labelled(
    responses: Responses | Labelled, metadata: Mapping[str, Any] | None = None, stimuli: Sequence[str] | None = None
) -> Labelled:
    """Responses that have labels as they are; others with those of `label_responses`."""
    if isinstance(responses, (xr.Dataset, xr.DataTree)):
        return responses
    return label_responses(responses, metadata or {}, stimuli)


def outputs_of(labelled: Labelled) -> dict[str, xr.DataArray]:
    """The outputs by name, in the order of the card."""
    datasets = [labelled] if isinstance(labelled, xr.Dataset) else [node.to_dataset() for node in labelled.leaves]
    return {str(name): array for dataset in datasets for name, array in dataset.data_vars.items()}


def attributes_of(labelled: Labelled) -> dict[str, Any]:
    """The attributes of the model, which are the same for every output."""
    first = labelled if isinstance(labelled, xr.Dataset) else labelled.leaves[0]
    return {str(name): value for name, value in first.attrs.items()}


def _storable(value: Any) -> Any:
    """The value as an attribute of a NetCDF file can hold it: a text, a number, or a list of them."""
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, (str, int, float, list, np.ndarray)) else repr(value)


def _dataset(
    name: str,
    array: NDArray[np.float32],
    label: Mapping[str, Any],
    stimuli: Sequence[Any],
    model: Mapping[str, Any],
) -> xr.Dataset:
    coordinates = {"stimulus": ("stimulus", stimuli), **label["coordinates"]}
    try:
        attributes = {"units": label["unit"], **label.get("attributes", {})}
        values = xr.DataArray(array, dims=label["axes"], coords=coordinates, attrs=attributes)
    except ValueError as error:
        raise InvalidParameterError(_NOT_THESE) from error
    return index_regions(with_texts(xr.Dataset({name: values}, attrs=dict(model))))


def with_texts(labels: xr.Dataset) -> xr.Dataset:
    """The labels with texts as objects of Python.

    Texts of fixed length are not in zarr's specification yet; those that zarr gives, NumPy cannot turn into such.
    """
    texts = [str(name) for name in labels.variables if labels[name].dtype.kind in "UT"]
    return labels.assign_coords({name: labels[name].astype(object) for name in texts})
