"""Responses of vertices as values on a mesh that can be drawn."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.plotting.meshes import FSAVERAGE5, HEMISPHERES, Meshes, fsaverage5, mean_over_neighbours
from berg.responses.formats import FSAVERAGE

FEWEST = 10  # vertices of the mesh with a response, fewer of which nobody sees
FSLR = {32_492: "fsLR 32k", 64_984: "fsLR 32k, both hemispheres in one", 163_842: "fsLR 164k"}
_NAMES = dict(zip(FSAVERAGE, ("fsaverage5", "fsaverage6", "fsaverage"), strict=True))

Values = dict[str, NDArray[np.float64]]


def is_on_surface(outputs: dict[str, xr.DataArray]) -> bool:
    """Whether the responses are of numbered vertices of both hemispheres, or of one."""
    return bool(outputs) and all(
        name in HEMISPHERES and "vertex" in array.dims and "vertex" in array.coords for name, array in outputs.items()
    )


def on_meshes(outputs: dict[str, xr.DataArray], meshes: Meshes | None) -> tuple[Meshes, Values, str]:
    """The meshes, a value for each of their vertices (NaN where there is none), and a sentence on how they came there.

    Raises
    ------
    InvalidParameterError
        If the responses are not of vertices, no mesh is there that has them, or too few of it have a response.
    """
    if not is_on_surface(outputs):
        held = "; ".join(f"{name} {tuple(map(str, array.dims))}" for name, array in outputs.items())
        raise InvalidParameterError(
            f"These responses ({held}) are not of vertices: a surface needs outputs lh and rh with the axis vertex. "
            "Draw what their labels say:  berg.plotting.draw(labelled)"
        )
    wholes = {name: _whole(array) for name, array in outputs.items()}
    used = dict(meshes) if meshes is not None else _meshes_of(wholes)
    found = {name: _on_mesh(name, whole, used) for name, whole in wholes.items()}
    values = {name: own for name, (own, _) in found.items()}
    notes = list(dict.fromkeys(note for _, note in found.values() if note))
    _check_enough(wholes, values)
    for name in used.keys() - values.keys():
        values[name] = np.full(used[name].n_vertices, np.nan)
    return used, values, "; ".join(notes)


def _whole(array: xr.DataArray) -> NDArray[np.float64]:
    """A value for every vertex of the surface; NaN for those that were not selected."""
    vertices = array["vertex"].values.astype(np.intp)
    n_vertices = int(array.attrs.get("vertex_total", vertices.max(initial=-1) + 1))
    if "vertex_total" not in array.attrs and len(vertices) < n_vertices:  # the last vertex does not tell the surface
        raise InvalidParameterError(
            "These responses are of some vertices of a surface, and do not say how many it has. Arithmetic of xarray "
            "drops that: work with xr.set_options(keep_attrs=True), or set array.attrs['vertex_total'] = 163842 (that "
            "of fsaverage)."
        )
    if array.dims != ("vertex",):
        raise InvalidParameterError(
            f"A surface has one value per vertex; these responses have the axes {tuple(map(str, array.dims))}. "
            "Select one of the others, such as labelled.sel(time=0.1, method='nearest')."
        )
    whole = np.full(n_vertices, np.nan)
    whole[vertices] = array.values
    return whole


def _meshes_of(wholes: Values) -> Meshes:
    for whole in wholes.values():
        if len(whole) not in FSAVERAGE:
            known = f" (as many as {FSLR[len(whole)]} has)" if len(whole) in FSLR else ""
            raise InvalidParameterError(
                f"These responses are on a surface of {len(whole):,} vertices{known}, whose mesh is not on board: "
                "only that of fsaverage is. Read it from your files, mesh = {name: berg.plotting.read_mesh(name, "
                "inflated, flat, sulci) for both 'lh' and 'rh'}, and give it:  berg.plotting.surface(labelled, "
                "mesh=mesh)   On the command line:  berg plot FILE --mesh LEFT.surf.gii RIGHT.surf.gii"
            )
    return fsaverage5()


def _on_mesh(name: str, whole: NDArray[np.float64], meshes: Meshes) -> tuple[NDArray[np.float64], str]:
    if name not in meshes:
        raise InvalidParameterError(f"The mesh has no hemisphere '{name}'. Give both: mesh={{'lh': ..., 'rh': ...}}.")
    mesh = meshes[name]
    if len(whole) == mesh.n_vertices:
        return whole, ""
    if mesh.n_vertices != FSAVERAGE5 or len(whole) not in FSAVERAGE:
        raise InvalidParameterError(
            f"The mesh of '{name}' has {mesh.n_vertices:,} vertices, the responses are of {len(whole):,}. Give that of "
            "the surface that the model predicts."
        )
    means = mean_over_neighbours(whole, mesh.faces)
    return means, (
        f"{_NAMES[len(whole)]} ({len(whole):,} vertices a hemisphere) shown on fsaverage5 ({FSAVERAGE5:,}), "
        "each the weighted mean over its neighbours"
    )


def _check_enough(wholes: Values, values: Values) -> None:
    n_given = sum(int(np.isfinite(whole).sum()) for whole in wholes.values())
    n_drawn = sum(int(np.isfinite(own).sum()) for own in values.values())
    if n_drawn < FEWEST:
        raise InvalidParameterError(
            f"Too few vertices to be seen on a surface: {n_given:,} have a response, which are {n_drawn} of the mesh "
            f"that is drawn, and it takes {FEWEST}. Select a larger region, or draw means:  "
            "berg.plotting.roi_bars(labelled)"
        )
