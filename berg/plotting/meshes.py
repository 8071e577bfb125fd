"""Surfaces of the cortex, and how values on a finer surface come to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, MissingExtraError

HEMISPHERES = {"lh": "left", "rh": "right"}
FSAVERAGE5 = 10_242
Points = NDArray[np.float32]
Faces = NDArray[np.int32]


@dataclass(frozen=True)
class Mesh:
    """One hemisphere.

    Attributes
    ----------
    inflated
        Shape (n_vertices, 3): x to the right, y to the front, z up.
    faces
        Shape (n_faces, 3), numbers of vertices; anticlockwise as seen from outside.
    flat, flat_faces
        Shape (n_vertices, 2), the back of the brain towards the other hemisphere and its top up; the faces, without
        those that were cut. None if there is no flat map.
    sulci
        Shape (n_vertices,), sulcal depth: above 0 in sulci, below on gyri. None if unknown.
    """

    inflated: Points
    faces: Faces
    flat: Points | None = None
    flat_faces: Faces | None = None
    sulci: Points | None = None

    @property
    def n_vertices(self) -> int:
        """How many vertices the mesh has."""
        return len(self.inflated)


Meshes = Mapping[str, Mesh]


@cache
def fsaverage5() -> dict[str, Mesh]:
    """The left and the right hemisphere of fsaverage5, 10,242 vertices each, from nilearn's files."""
    found = find_spec("nilearn")  # finds the folder, imports nothing: nilearn itself would take seconds
    if found is None or not found.submodule_search_locations:
        raise _missing("nilearn, whose files have the mesh of fsaverage5,")
    folder = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "fsaverage5"
    return {
        name: read_mesh(
            name, folder / f"infl_{side}.gii.gz", folder / f"flat_{side}.gii.gz", folder / f"sulc_{side}.gii.gz"
        )
        for name, side in HEMISPHERES.items()
    }


def read_mesh(
    hemisphere: str, inflated: Path | str, flat: Path | str | None = None, sulci: Path | str | None = None
) -> Mesh:
    """One hemisphere from GIFTI files (.surf.gii, .shape.gii).

    Parameters
    ----------
    hemisphere
        ``"lh"`` or ``"rh"``.
    inflated
        The surface to draw from the sides: inflated, or pial.
    flat
        The flat map; it is turned upright.
    sulci
        Sulcal depth of each vertex, above 0 in sulci.

    Raises
    ------
    InvalidParameterError
        If the files are not of the same vertices.
    """
    points, faces = _surface(inflated)
    flat_points, flat_faces = (None, None) if flat is None else _surface(flat)
    depth = None if sulci is None else _arrays(sulci)[0].astype(np.float32)
    for path, values in ((flat, flat_points), (sulci, depth)):
        if values is not None and len(values) != len(points):
            raise InvalidParameterError(
                f"{path} has {len(values):,} vertices, {inflated} has {len(points):,}. Give files of one surface."
            )
    if flat_points is not None and flat_faces is not None:
        flat_points = upright(flat_points[:, :2], points, flat_faces, hemisphere)
    for array in (points, faces, flat_points, flat_faces, depth):
        if array is not None:
            array.setflags(write=False)  # meshes are kept: what others write into them would be drawn ever after
    return Mesh(points, faces, flat_points, flat_faces, depth)


def upright(flat: Points, inflated: Points, faces: Faces, hemisphere: str) -> Points:
    """A flat map turned such that its top is up, and its back towards the other hemisphere.

    Flat maps come at any angle. This is the rotation (no reflection, so that left and right stay) that brings the flat
    coordinates of all vertices on it nearest to their heights and to how far in front they are (Kabsch 1976).
    """
    on_map = np.unique(faces)
    outwards = -1.0 if hemisphere == "lh" else 1.0
    wanted = np.stack([outwards * inflated[on_map, 1], inflated[on_map, 2]], axis=1).astype(np.float64)
    middle = flat[on_map].mean(axis=0, dtype=np.float64)
    left, _, right = np.linalg.svd((flat[on_map] - middle).T @ (wanted - wanted.mean(axis=0)))
    turn = left @ np.diag([1.0, np.sign(np.linalg.det(left @ right))]) @ right
    return np.asarray((flat - middle) @ turn, np.float32)


def _surface(path: Path | str) -> tuple[Points, Faces]:
    arrays = _arrays(path)
    if len(arrays) < 2 or arrays[0].ndim != 2 or arrays[0].shape[1] != 3:
        raise InvalidParameterError(f"{path} is no surface: it needs points and triangles. Give a .surf.gii file.")
    return arrays[0].astype(np.float32), arrays[1].astype(np.int32)


def _arrays(path: Path | str) -> list[NDArray[Any]]:
    try:
        import nibabel
    except ImportError as error:
        raise _missing("nibabel, which reads surfaces,") from error
    if not Path(path).is_file():
        raise InvalidParameterError(f"There is no file {path}.")
    image: Any = nibabel.load(path)
    return [array.data for array in image.darrays]


def _missing(what: str) -> MissingExtraError:
    return MissingExtraError(f'This figure needs {what} which is not installed. Type:  pip install "berg[plot]"')


# From fsaverage to fsaverage5


def mean_over_neighbours(values: NDArray[Any], faces: Faces) -> NDArray[np.float64]:
    """Values on fsaverage or fsaverage6 at the vertices of fsaverage5, as means over their neighbours.

    fsaverage is fsaverage5 with each triangle divided into four, twice. A vertex of fsaverage5 weighs the vertices
    around it by 1 at itself, falling linearly to 0 at the next vertices of fsaverage5 (the transpose of linear
    interpolation), among those that are not NaN. One is NaN if these have less than half of the weight: the border of a
    region stays where it is.

    Parameters
    ----------
    values
        Shape (40962,) or (163842,); NaN where there is none.
    faces
        Of fsaverage5, in its order.

    Returns
    -------
    means
        Shape (10242,).
    """
    present = np.isfinite(values)
    sums = np.stack([np.where(present, values, 0.0), present, np.ones(len(values))], axis=1)
    levels: list[Faces] = []
    n_vertices, current = int(faces.max()) + 1, faces
    while n_vertices < len(values):
        parents, current = divide(current, n_vertices)
        levels.append(parents)
        n_vertices += len(parents)
    for parents in reversed(levels):  # each new vertex gives half of its weight to both ends of its edge
        n_old = len(sums) - len(parents)
        coarse = sums[:n_old].copy()
        for end in (0, 1):
            for column in range(3):
                coarse[:, column] += np.bincount(parents[:, end], sums[n_old:, column], n_old) / 2
        sums = coarse
    total, weight, whole = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight >= 0.5 * whole, total / weight, np.nan)


def divide(faces: Faces, n_vertices: int) -> tuple[Faces, Faces]:
    """Each triangle into four, in the order in which FreeSurfer numbers the vertices of fsaverage.

    Returns
    -------
    parents, faces
        Shape (n_new, 2): the ends of the edge that each new vertex halves; shape (4 * n_faces, 3).
    """
    edges = np.sort(faces[:, [[2, 0], [1, 2], [0, 1]]].reshape(-1, 2), axis=1)
    keys = edges[:, 0].astype(np.int64) * n_vertices + edges[:, 1]
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    number = np.empty(len(first), np.int32)
    number[np.argsort(first)] = np.arange(len(first))  # an edge is numbered when it is met for the first time
    last_first, second_last, first_second = (n_vertices + number[which]).reshape(-1, 3).T
    a, b, c = faces.T
    corners = np.stack([a, first_second, last_first], axis=1)
    others = [[last_first, second_last, c], [first_second, second_last, last_first], [first_second, b, second_last]]
    rest = np.stack([np.stack(corner, axis=1) for corner in others], axis=1).reshape(-1, 3)
    return edges[np.sort(first)], np.concatenate([corners, rest]).astype(np.int32)
