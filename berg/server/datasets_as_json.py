"""Datasets of xarray as tagged JSON, and back with the same dtypes: a NetCDF file would change those of texts."""

from __future__ import annotations

from typing import Any

import xarray as xr

Dataset = xr.Dataset | xr.DataTree


def dataset_as_values(dataset: Dataset) -> dict[str, Any]:
    """A dataset in what `berg.server.tagged_json.write_tagged` takes."""
    if isinstance(dataset, xr.DataTree):
        return {"tree": {node.path: dataset_as_values(node.to_dataset(inherit=False)) for node in dataset.subtree}}
    parts = {"coords": dataset.coords, "data": dataset.data_vars}
    return {
        "attrs": dict(dataset.attrs),
        **{
            part: [(str(name), tuple(map(str, own.dims)), own.values, dict(own.attrs)) for name, own in held.items()]
            for part, held in parts.items()
        },
    }


def dataset_of_values(values: dict[str, Any]) -> Dataset:
    """The dataset that `dataset_as_values` was given."""
    if "tree" in values:
        return xr.DataTree.from_dict({path: dataset_of_values(own) for path, own in values["tree"].items()})
    coords, data = (
        {name: (dims, array, attrs) for name, dims, array, attrs in values[part]} for part in ("coords", "data")
    )
    return xr.Dataset(data, coords=coords, attrs=values["attrs"])
