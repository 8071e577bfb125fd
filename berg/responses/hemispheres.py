"""Responses of cortical grayordinates as those of the vertices of each hemisphere."""

from __future__ import annotations

import numpy as np
import xarray as xr

from berg.responses.formats import is_grayordinates, surface_sizes
from berg.responses.labelled import Labelled, attributes_of, outputs_of

CORTEX = {"lh": "CIFTI_STRUCTURE_CORTEX_LEFT", "rh": "CIFTI_STRUCTURE_CORTEX_RIGHT"}


def is_cortex(labelled: Labelled) -> bool:
    """Whether the units of the one output are vertices of the cortex, told by structure and number."""
    arrays = list(outputs_of(labelled).values())
    if len(arrays) != 1 or not is_grayordinates(labelled):
        return False
    return bool(np.isin(arrays[0]["structure"].values.astype(str), list(CORTEX.values())).all())


def as_hemispheres(labelled: Labelled) -> Labelled:
    """Outputs ``lh`` and ``rh`` with an axis of vertices; responses that are not of cortical vertices as they are."""
    if not is_cortex(labelled):
        return labelled
    (array,) = outputs_of(labelled).values()
    sizes = surface_sizes(attributes_of(labelled))
    parts = {side: _part(array, structure, sizes) for side, structure in CORTEX.items()}
    found = {side: part.rename(side) for side, part in parts.items() if part.size}
    datasets = {side: xr.Dataset({side: part}, attrs=attributes_of(labelled)) for side, part in found.items()}
    return xr.DataTree.from_dict(datasets)


def _part(array: xr.DataArray, structure: str, sizes: dict[str, int]) -> xr.DataArray:
    """The vertices of one hemisphere."""
    (axis,) = array["structure"].dims
    part = array.isel({axis: np.flatnonzero(array["structure"].values.astype(str) == structure)})
    kept = {
        name: (tuple("vertex" if dim == axis else dim for dim in own.dims), own.values)
        for name, own in part.coords.items()
        if name not in (axis, "structure")
    }
    total = {"vertex_total": sizes[structure]} if structure in sizes else {}
    dims = ["vertex" if dim == axis else dim for dim in part.dims]
    return xr.DataArray(part.data, dims=dims, coords=kept, attrs={**array.attrs, **total})
