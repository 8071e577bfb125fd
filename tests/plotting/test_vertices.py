"""How many vertices a surface has is read from the labels, never guessed from the vertices that were selected."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from berg.core.exceptions import InvalidParameterError
from berg.plotting import surface


def test_some_vertices_without_the_size_of_their_surface_are_refused():
    vertices = np.arange(8_000, 10_242)  # end where fsaverage5 ends
    labels: dict[str, Any] = {"vertex": vertices}
    labels["stimulus"] = ["a"]
    values = np.ones((1, len(vertices)), np.float32)
    outputs = {name: xr.DataArray(values, labels, ["stimulus", "vertex"]) for name in ("lh", "rh")}
    with pytest.raises(InvalidParameterError, match=r"do not say how many it has.*vertex_total"):
        surface(xr.Dataset(outputs))
