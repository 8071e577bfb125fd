"""The vertices that the models predict: areas of the cortex on fsLR with 32,492 vertices a hemisphere.

The areas are the 180 of each hemisphere of the HCP's multimodal parcellation (Glasser et al. 2016, Nature 536:171-178),
as grayordinates have them: the vertices of the left cortex, those of the right, both without the medial wall.

The table beside this file holds the area of each vertex (1 to 180, 0 on the medial wall) and the grayordinates that
have no value in some data set of MOSAIC, which none of the models predicts. Data were provided in part by the Human
Connectome Project, WU-Minn Consortium (Principal Investigators: David Van Essen and Kamil Ugurbil; 1U54MH091657) funded
by the 16 NIH Institutes and Centers that support the NIH Blueprint for Neuroscience Research; and by the McDonnell
Center for Systems Neuroscience at Washington University.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.weights.safetensors_files import read_metadata, read_safetensors

Indices = NDArray[np.intp]

N_SURFACE = 32_492  # vertices of each hemisphere, the medial wall among them
N_GRAYORDINATES = 91_282  # with the subcortical ones, which follow those of the cortex
STRUCTURES = {"L": "CIFTI_STRUCTURE_CORTEX_LEFT", "R": "CIFTI_STRUCTURE_CORTEX_RIGHT"}
_TABLE = Path(__file__).with_name("glasser_fslr32k.safetensors")


@dataclass(frozen=True)
class Vertices:
    """Vertices of both hemispheres, in ascending order of their grayordinates.

    Attributes
    ----------
    grayordinate
        Shape (n_vertices,), from 0: the index among all grayordinates.
    vertex
        Shape (n_vertices,): the number on the surface of the hemisphere.
    hemisphere
        Shape (n_vertices,), ``L`` or ``R``.
    area
        Shape (n_vertices,), such as ``V1``.
    """

    grayordinate: Indices
    vertex: Indices
    hemisphere: NDArray[np.str_]
    area: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.vertex)

    def labels(self) -> dict[str, Any]:
        """Labels of each vertex; its regions are its area with and without the hemisphere."""
        regions = [f"{side}_{area};{area}" for side, area in zip(self.hemisphere, self.area, strict=True)]
        return {
            "grayordinate": self.grayordinate,
            "structure": np.array([STRUCTURES[side] for side in self.hemisphere]),
            "vertex": self.vertex,
            "hemisphere": self.hemisphere,
            "roi": np.array(regions),
        }

    def regions(self) -> dict[str, Indices]:
        """The vertices, counted from 0, of each area: of each hemisphere, and of both; of which there are any."""
        names, which = np.unique(self.area, return_inverse=True)
        found: dict[str, Indices] = {}
        for number, area in enumerate(names.tolist()):
            inside = np.flatnonzero(which == number)
            found |= {f"{side}_{area}": inside[self.hemisphere[inside] == side] for side in STRUCTURES}
            found[area] = inside
        return {name: indices for name, indices in found.items() if len(indices)}

    def places_of(self, grayordinates: Indices) -> Indices:
        """Which vertices some grayordinates are, ascending; those that are none of these are left out."""
        return np.flatnonzero(np.isin(self.grayordinate, grayordinates))


@lru_cache(maxsize=4)
def vertices_of(areas: tuple[str, ...] | None) -> Vertices:
    """The vertices of some areas, of all if it is None, that have a value in all data sets of MOSAIC.

    >>> visual = vertices_of(("V1", "V2"))
    >>> len(visual), visual.area[:1].tolist(), visual.hemisphere[-1:].tolist(), visual.grayordinate[:3].tolist()
    (2805, ['V1'], ['R'], [53, 54, 55])
    """
    table = read_safetensors(_TABLE)
    names = np.array(read_metadata(_TABLE)["areas"].split())
    each = [_cortex(name, table[side], names) for name, side in (("L", "left"), ("R", "right"))]
    vertex, hemisphere, area = (np.concatenate(parts) for parts in zip(*each, strict=True))
    kept = _kept(area, areas) & ~np.isin(np.arange(len(area)), table["undefined"])
    return Vertices(np.flatnonzero(kept), vertex[kept], hemisphere[kept], area[kept])


def _cortex(name: str, area: NDArray[np.uint8], names: NDArray[np.str_]) -> tuple[Indices, Any, Any]:
    """Vertex, hemisphere and area of the grayordinates of one side."""
    vertex = np.flatnonzero(area)
    return vertex, np.full(len(vertex), name), names[area[vertex].astype(np.intp) - 1]


def _kept(area: NDArray[np.str_], areas: Collection[str] | None) -> NDArray[np.bool_]:
    return np.ones(len(area), bool) if areas is None else np.isin(area, list(areas))


def surface_facts() -> Mapping[str, Any]:
    """What an export needs to know of the surface."""
    return {"surface_vertices": dict.fromkeys(STRUCTURES.values(), N_SURFACE)}
