"""Responses of vertices on the inflated cortex and on the flat map, over the sulci."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, TriMesh
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.plotting.colours import Scale, draw_bar, scale_of
from berg.plotting.meshes import HEMISPHERES, Faces, Mesh, Meshes
from berg.plotting.page import Sheet, new_sheet, styled
from berg.plotting.shown import Stimuli, show
from berg.plotting.vertices import on_meshes
from berg.responses.hemispheres import as_hemispheres
from berg.responses.labelled import Labelled

VIEWS = ("lateral", "medial", "ventral", "dorsal")
FLAT = "flat"
_WIDTHS = {"lateral": 1.0, "medial": 1.0, "ventral": 0.7, "dorsal": 0.7, FLAT: 1.2}
_DARK, _PALE = 0.62, 0.86  # greys of sulci and gyri
_SULCI: Any = {"colors": "0.25", "linewidths": 0.3}
_OUTLINE: Any = {"colors": "0.45", "linewidths": 1.0}
_CELL = 5.0  # millimetres, larger than a face
_UP, _FRONT = np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0])

Limits = tuple[float, float] | None


def surface(
    labelled: Labelled,
    stimulus: Stimuli = None,
    minus: Stimuli = None,
    *,
    mesh: Meshes | None = None,
    limits: Limits = None,
) -> Sheet:
    """Responses of vertices: both hemispheres from the side, from the middle, from below, and flat.

    Lines are the borders of sulci (depth 0); vertices without a response show the sulci alone. The colours are those of
    the bar: nothing is shaded over them.

    Parameters
    ----------
    labelled
        With outputs ``lh`` and ``rh`` on fsaverage, fsaverage6, fsaverage5 or, with its mesh, any other surface; or
        cortical grayordinates. Of several subjects the mean is drawn; ``labelled.sel(subject=...)`` is one of them.
    stimulus, minus
        Which stimuli, by name or pattern; see `berg.plotting.shown.show`.
    mesh
        ``{"lh": ..., "rh": ...}`` of `berg.plotting.read_mesh`, for surfaces that are not on board.
    limits
        Smallest and largest response of the colour scale; by default the 99th percentile of all panels together.

    Raises
    ------
    InvalidParameterError
        If the responses are not of vertices, have no mesh, or are too few to be seen.
    MissingExtraError
        Without nilearn, whose files have the mesh.
    """
    with styled():
        shown = show(as_hemispheres(labelled), stimulus, minus)
        meshes, values, note = on_meshes(shown.outputs, mesh)
        has_flat = all(own.flat is not None for own in meshes.values())
        views = ["lateral", "medial", "ventral", *([FLAT] if has_flat else [])]
        scale = scale_of(values.values(), shown.label, shown.is_signed, limits)
        sheet, frame = new_sheet(3.2, shown.title, (*shown.facts, *([note] if note else [])))
        widths = np.array([_WIDTHS[view] for view in views])
        widths *= (frame.width - 1.0) / widths.sum()
        high, gap = 1.4, 0.19
        for row, name in enumerate(HEMISPHERES):
            for column, view in enumerate(views):
                left, bottom = 0.05 + widths[:column].sum(), frame.height - (row + 1) * (high + gap)
                axes = sheet.add_axes(frame.rectangle(left, bottom, widths[column] - 0.06, high))
                draw_view(axes, meshes[name], values[name], scale, view, name)
                axes.set_title(f"{HEMISPHERES[name]}, {view}", y=1.0, pad=3)
        bar = sheet.add_axes(frame.rectangle(frame.width - 0.78, 0.7, 0.11, frame.height - 1.5))
        draw_bar(sheet, bar, scale, inside=True)
    return sheet


def flatmap(
    labelled: Labelled,
    stimulus: Stimuli = None,
    minus: Stimuli = None,
    *,
    mesh: Meshes | None = None,
    limits: Limits = None,
) -> Sheet:
    """Responses of vertices on the flat maps of both hemispheres.

    The top of the brain is up; the backs of the hemispheres meet in the middle.

    Parameters
    ----------
    labelled, stimulus, minus, mesh, limits
        As in `surface`.

    Raises
    ------
    InvalidParameterError, MissingExtraError
        As `surface`; also if the mesh has no flat map.
    """
    with styled():
        shown = show(as_hemispheres(labelled), stimulus, minus)
        meshes, values, note = on_meshes(shown.outputs, mesh)
        scale = scale_of(values.values(), shown.label, shown.is_signed, limits)
        sheet, frame = new_sheet(2.9, shown.title, (*shown.facts, *([note] if note else [])))
        wide = (frame.width - 0.95) / 2
        for column, name in enumerate(HEMISPHERES):
            axes = sheet.add_axes(frame.rectangle(0.06 + column * wide, 0.05, 0.97 * wide, frame.height - 0.25))
            draw_view(axes, meshes[name], values[name], scale, FLAT, name)
            axes.set_title(HEMISPHERES[name], y=1.0, pad=2)
        bar = sheet.add_axes(frame.rectangle(frame.width - 0.78, 0.5, 0.11, frame.height - 1.1))
        draw_bar(sheet, bar, scale, inside=True)
    return sheet


def draw_view(axes: Axes, mesh: Mesh, values: NDArray[np.float64], scale: Scale, view: str, hemisphere: str) -> TriMesh:
    """Draw one hemisphere from one side, or flat.

    Parameters
    ----------
    values
        Shape (n_vertices,); NaN is background.
    view
        lateral, medial, ventral, dorsal or flat.
    """
    points, faces = seen_from(mesh, view, hemisphere)
    page = points[:, :2]
    colours = np.where(np.isfinite(values)[:, None], scale.rgba(values), greys(mesh))
    drawn = TriMesh(Triangulation(page[:, 0], page[:, 1], faces), rasterized=True, zorder=1)
    drawn.set_facecolor(colours)  # type: ignore[arg-type]
    _add_lines(axes, page[border(faces)], zorder=0.5, **_OUTLINE)  # under the faces: the outline of all stays
    axes.add_collection(drawn, autolim=False)
    if mesh.sulci is not None:
        covered = np.isfinite(values)[faces].all(axis=1) & in_front(points, faces)
        _add_lines(axes, zero_lines(page, faces[covered], mesh.sulci), zorder=2, **_SULCI)
    _fit(axes, page[np.unique(faces)])
    return drawn


def _add_lines(axes: Axes, pieces: NDArray[np.float64], **options: Any) -> None:
    axes.add_collection(LineCollection(pieces, rasterized=True, **options), autolim=False)  # type: ignore[arg-type]


def seen_from(mesh: Mesh, view: str, hemisphere: str) -> tuple[NDArray[np.float64], Faces]:
    """Where the vertices lie on the page, and the faces that are seen, the nearest last.

    Returns
    -------
    points, faces
        Shape (n_vertices, 3): to the right, up, and away from the eye; shape (n_seen, 3).
    """
    if view == FLAT:
        if mesh.flat is None or mesh.flat_faces is None:
            raise InvalidParameterError("This mesh has no flat map. Give read_mesh(..., flat=FILE), or draw surface().")
        return np.pad(mesh.flat.astype(np.float64), ((0, 0), (0, 1))), mesh.flat_faces
    towards, up = _camera(view, hemisphere)
    points = mesh.inflated.astype(np.float64) @ np.stack([np.cross(towards, up), up, towards], axis=1)
    a, b, c = points[mesh.faces][..., :2].transpose(1, 2, 0)
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    seen = np.flatnonzero(area > 0)  # anticlockwise on the page
    depth = points[mesh.faces[seen], 2].mean(axis=1)
    return points, mesh.faces[seen[np.argsort(-depth)]]


def in_front(points: NDArray[np.float64], faces: Faces) -> NDArray[np.bool_]:
    """Whether no other face lies between a face and the eye, by the nearest face in each cell of a grid."""
    middles = points[faces].mean(axis=1)
    cells = np.floor((middles[:, :2] - middles[:, :2].min(axis=0)) / _CELL).astype(np.intp)
    number = cells[:, 0] * (cells[:, 1].max() + 1) + cells[:, 1]
    nearest = np.full(number.max() + 1, np.inf)
    np.minimum.at(nearest, number, middles[:, 2])
    return np.asarray(middles[:, 2] <= nearest[number] + 2 * _CELL)


def _camera(view: str, hemisphere: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where one looks to, and what is up."""
    to_the_middle = np.array([1.0 if hemisphere == "lh" else -1.0, 0.0, 0.0])
    cameras = {
        "lateral": (to_the_middle, _UP),
        "medial": (-to_the_middle, _UP),
        "ventral": (_UP, _FRONT),
        "dorsal": (-_UP, _FRONT),
    }
    if view not in cameras:
        raise InvalidParameterError(f"There is no view '{view}'. The views: {', '.join((*cameras, FLAT))}.")
    return cameras[view]


def greys(mesh: Mesh) -> NDArray[np.float64]:
    """Sulci dark, gyri pale, shape (n_vertices, 4)."""
    depth = np.zeros(mesh.n_vertices) if mesh.sulci is None else np.clip(mesh.sulci / 0.4, -1, 1)
    grey = _PALE + (_DARK - _PALE) * (depth + 1) / 2
    return np.stack([grey, grey, grey, np.ones_like(grey)], axis=1)


def zero_lines(points: NDArray[np.float64], faces: Faces, depth: NDArray[Any]) -> NDArray[np.float64]:
    """Where a linear function on triangles is 0: a piece of line in each that has both signs, shape (n, 2, 2)."""
    sign = depth[faces] > 0
    mixed = sign.any(axis=1) & ~sign.all(axis=1)
    corners, signs = faces[mixed], sign[mixed]
    alone = np.argmax(signs == (signs.sum(axis=1) == 1)[:, None], axis=1)  # the corner whose sign no other has
    rows = np.arange(len(corners))
    apex = corners[rows, alone]
    ends = []
    for step in (1, 2):
        other = corners[rows, (alone + step) % 3]
        share = (depth[apex] / (depth[apex] - depth[other]))[:, None]
        ends.append(points[apex] + share * (points[other] - points[apex]))
    return np.stack(ends, axis=1)


def border(faces: Faces) -> Faces:
    """The edges that belong to one face alone, shape (n, 2)."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1).astype(np.int64)
    keys, counts = np.unique(edges[:, 0] << 32 | edges[:, 1], return_counts=True)
    single = keys[counts == 1]
    return np.stack([single >> 32, single & 0xFFFFFFFF], axis=1).astype(np.int32)


def _fit(axes: Axes, points: NDArray[np.float64]) -> None:
    """Limits with the points in the middle, one millimetre as long up as it is across."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, size = (low + high) / 2, 1.02 * (high - low)
    box = axes.get_position()
    room = np.array([box.width, box.height]) * axes.figure.get_size_inches()  # type: ignore[union-attr]
    half = room * (size / room).max() / 2
    axes.set(xlim=(middle[0] - half[0], middle[0] + half[0]), ylim=(middle[1] - half[1], middle[1] + half[1]))
    axes.set_axis_off()
