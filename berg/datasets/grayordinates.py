"""Grayordinates, the vertices and voxels of CIFTI-2 files: their brain models, and maps of their labels."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError, DatasetError, listing
from berg.system.file_errors import check_readable, reading

Indices = NDArray[np.intp]

FACTS = ("surface_vertices", "volume_shape", "fmri_affine")
"""What an export of units needs beside their labels: the keys of `BrainModels.facts`."""

_HEADER_BYTES = 540  # of NIfTI-2
_INTENTS = range(3000, 3100)  # of CIFTI-2
_EXTENSION = 32  # of a NIfTI header: the XML of CIFTI
_PREFIX = "CIFTI_STRUCTURE_"
_BRAIN, _SERIES, _LABELS = (f"CIFTI_INDEX_TYPE_{kind}" for kind in ("BRAIN_MODELS", "SERIES", "LABELS"))
_ROWS = (_SERIES, _LABELS, "CIFTI_INDEX_TYPE_SCALARS")
_MILLIMETRE = -3  # as a power of ten of metres
UNLABELLED = "???"
"""The name that Connectome Workbench gives to what is in no region."""


@dataclass(frozen=True)
class BrainModels:
    """Grayordinates, in the order of a file.

    Attributes
    ----------
    structures
        Shape (n,), such as ``CIFTI_STRUCTURE_CORTEX_LEFT``.
    vertices
        Shape (n,), on the surface of the structure; -1 of a voxel.
    voxels
        Shape (n, 3), indices i, j, k; -1 of a vertex.
    n_vertices
        Of the whole surface of each structure that has one, the medial wall included.
    volume_shape, affine
        Of the volume that voxels count in, in millimetres; None if there are no voxels.
    """

    structures: NDArray[np.str_]
    vertices: Indices
    voxels: Indices
    n_vertices: Mapping[str, int]
    volume_shape: tuple[int, ...] | None = None
    affine: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.vertices)

    def __str__(self) -> str:
        """How many there are, in all and of each structure.

        >>> one = BrainModels(np.array(["CIFTI_STRUCTURE_CORTEX_LEFT"] * 2), np.arange(2), np.full((2, 3), -1), {})
        >>> str(one)
        '2 grayordinates (CORTEX_LEFT 2)'
        """
        names, counts = np.unique(self.structures, return_counts=True)
        each = (f"{name.removeprefix(_PREFIX)} {count:,}" for name, count in zip(names, counts, strict=True))
        return f"{len(self):,} grayordinates ({listing(each, 3)})"

    def named(self, index: int) -> str:
        """One of them, in words."""
        name = self.structures[index].removeprefix(_PREFIX)
        if self.vertices[index] >= 0:
            return f"vertex {self.vertices[index]} of {name}"
        return f"voxel {tuple(self.voxels[index].tolist())} of {name}"

    def take(self, indices: Indices) -> BrainModels:
        """Some of them, in this order."""
        return replace(
            self,
            structures=self.structures[indices],
            vertices=self.vertices[indices],
            voxels=self.voxels[indices],
        )

    @property
    def labels(self) -> dict[str, NDArray[Any]]:
        """Labels of the units by name; those of vertices, and of voxels, only if there are any."""
        found: dict[str, NDArray[Any]] = {"structure": self.structures}
        if (self.vertices >= 0).any():
            found["vertex"] = self.vertices
        if (self.vertices < 0).any():
            found |= dict(zip("ijk", self.voxels.T, strict=True))
        return found

    @property
    def facts(self) -> dict[str, Any]:
        """What an export needs beside the labels: sizes of surfaces, shape and affine of the volume."""
        kept = {name: count for name, count in self.n_vertices.items() if name in self.structures}
        found: dict[str, Any] = {"surface_vertices": kept} if kept else {}
        if (self.vertices < 0).any():
            found |= {"volume_shape": self.volume_shape, "fmri_affine": self.affine}
        return found


def places_in(wanted: BrainModels, found: BrainModels) -> Indices:
    """Where each grayordinate of `wanted` stands in `found`, shape (len(wanted),); -1 if it is not there.

    >>> one = BrainModels(np.array(["L", "L", "R"]), np.array([0, 7, 7]), np.full((3, 3), -1), {})
    >>> places_in(one, one.take(np.array([2, 1]))).tolist()
    [-1, 1, 0]
    """
    codes = {name: code for code, name in enumerate(np.union1d(wanted.structures, found.structures).tolist())}
    rows = np.concatenate([_numbers(own, codes) for own in (found, wanted)])
    _, same = np.unique(rows, axis=0, return_inverse=True)
    place = np.full(same.max(initial=-1) + 1, -1, np.intp)
    place[same.ravel()[: len(found)]] = np.arange(len(found))
    return place[same.ravel()[len(found) :]]


def _numbers(brain: BrainModels, codes: Mapping[str, int]) -> Indices:
    """Shape (n, 5): two grayordinates are the same if their rows are."""
    names, of_each = np.unique(brain.structures, return_inverse=True)
    structure = np.array([codes[name] for name in names.tolist()], np.intp)[of_each]
    return np.column_stack([structure, brain.vertices, brain.voxels])


# Files


@dataclass(frozen=True)
class CiftiHeader:
    """What the header of a CIFTI-2 file says.

    Attributes
    ----------
    brain
        The grayordinates.
    axis
        Of the values along which they lie; the other one is that of the rows.
    rows
        nibabel's axis of the rows: scalars (names), series (a step of time), or labels (names and tables).
    """

    brain: BrainModels
    axis: int
    rows: Any

    @property
    def n_rows(self) -> int:
        """How many maps or samples there are."""
        return len(self.rows)

    @property
    def is_labels(self) -> bool:
        """Whether the values are the numbers of labels."""
        return hasattr(self.rows, "label")

    @property
    def names(self) -> list[str]:
        """Of the maps; none of a series."""
        return [str(name) for name in getattr(self.rows, "name", [])]

    @property
    def step(self) -> tuple[float, str] | None:
        """Between the rows of a series, and its unit; None of maps."""
        return (float(self.rows.step), str(self.rows.unit)) if hasattr(self.rows, "step") else None

    @property
    def unit(self) -> str | None:
        """Of the values, if every map has the same one in its metadata, as files that this package writes have it."""
        metas = [dict(meta or {}) for meta in getattr(self.rows, "meta", [])]
        units = {str(meta.get("Unit", "")).strip() for meta in metas}
        return units.pop() or None if len(units) == 1 else None


def is_cifti(path: Path) -> bool:
    """Whether a file is CIFTI-2 by what its header says, whatever its name.

    Raises
    ------
    MissingFileError, CorruptedFileError
    """
    import nibabel

    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return False
    check_readable(path)
    opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with reading(path), opened(path, "rb") as file:
        block = file.read(_HEADER_BYTES)
    if len(block) < _HEADER_BYTES or not nibabel.Nifti2Header.may_contain_header(block):
        return False
    return int(nibabel.Nifti2Header(block, check=False)["intent_code"]) in _INTENTS


def check_declared(path: Path) -> None:
    """Raise if the brain models are said to be of more grayordinates than there are values: nibabel would ask for
    memory for all of them.

    Raises
    ------
    CorruptedFileError
    DatasetError
        If the file is compressed, which CIFTI never is.
    """
    import nibabel
    from nibabel import cifti2  # noqa: F401  nibabel reads the extension if this is there

    if path.suffix.lower() == ".gz":
        raise DatasetError(
            f"{path} is CIFTI that was compressed, which other programs do not read. Type:  gunzip {path}"
        )
    with path.open("rb") as file:
        header = nibabel.Nifti2Header.from_fileobj(file, check=False)
    most = max(int(length) for length in header["dim"][1:])
    for extension in header.extensions:
        if extension.get_code() == _EXTENSION:
            for mapping in extension.get_content().matrix:
                n_declared = sum(abs(int(own.index_count)) for own in mapping.brain_models)
                if n_declared > most:
                    raise CorruptedFileError(
                        f"{path} says that it has {n_declared:,} grayordinates, and no more than {most:,} values in a "
                        "row. It is damaged; get it again."
                    )


def header_of(path: Path, image: Any) -> CiftiHeader:
    """What the header of an opened file says.

    Raises
    ------
    DatasetError
        If its rows are no maps, samples or labels of grayordinates.
    CorruptedFileError
        If the brain models are not those of the values, or name what cannot be.
    """
    matrix, shape = image.header.matrix, tuple(image.shape)
    kinds = [matrix.get_index_map(axis).indices_map_to_data_type for axis in matrix.mapped_indices]
    if len(shape) != 2 or sorted(matrix.mapped_indices) != [0, 1] or kinds.count(_BRAIN) != 1:
        words = listing(str(kind).removeprefix("CIFTI_INDEX_TYPE_").lower() for kind in kinds)
        raise DatasetError(
            f"{path} has the axes {words}. Read are maps, series and labels of grayordinates (.dscalar.nii, "
            ".dtseries.nii, .dlabel.nii). Save the values as .npy, and name their labels under coordinates."
        )
    axis = next(axis for axis in (0, 1) if matrix.get_index_map(axis).indices_map_to_data_type == _BRAIN)
    if matrix.get_index_map(1 - axis).indices_map_to_data_type not in _ROWS:
        raise DatasetError(f"{path} has parcels in place of maps. Write maps of grayordinates (.dscalar.nii).")
    brain = _brain_models(path, matrix.get_index_map(axis), shape[axis])
    found = CiftiHeader(brain, axis, image.header.get_axis(1 - axis))
    if found.n_rows != shape[1 - axis]:
        raise CorruptedFileError(
            f"{path} names {found.n_rows:,} maps or samples, and holds {shape[1 - axis]:,}. Get it again."
        )
    return found


def _brain_models(path: Path, mapping: Any, length: int) -> BrainModels:
    from nibabel.cifti2 import cifti2_axes

    models = list(mapping.brain_models)
    ends = np.cumsum([0, *(int(own.index_count) for own in models)])
    if [int(own.index_offset) for own in models] != ends[:-1].tolist() or ends[-1] != length:
        raise CorruptedFileError(
            f"{path} has brain models of {ends[-1]:,} grayordinates, and {length:,} values in a row. Get it again."
        )
    axis = cifti2_axes.from_index_mapping(mapping)
    has_voxels = bool((axis.vertex < 0).any())
    shape = tuple(int(size) for size in axis.volume_shape) if has_voxels else None
    found = BrainModels(
        np.array([str(name) for name in axis.name]),
        axis.vertex.astype(np.intp),
        axis.voxel.astype(np.intp),
        {str(name): int(count) for name, count in axis.nvertices.items()},
        shape,
        _in_millimetres(mapping.volume) if has_voxels else None,
    )
    _check_places(path, found)
    return found


def _in_millimetres(volume: Any) -> NDArray[np.float64]:
    """The affine of a volume, whose file may count in metres or in other powers of ten of them."""
    transform = volume.transformation_matrix_voxel_indices_ijk_to_xyz
    affine = np.array(transform.matrix, np.float64)
    affine[:3] *= 10.0 ** (int(transform.meter_exponent) - _MILLIMETRE)
    return affine


def _check_places(path: Path, brain: BrainModels) -> None:
    """Raise CorruptedFileError for a vertex or voxel that is nowhere, or there twice."""
    of_surface = np.array([brain.n_vertices.get(name, 0) for name in brain.structures.tolist()], np.intp)
    is_vertex = np.isin(brain.structures, list(brain.n_vertices))
    volume = brain.volume_shape or (0, 0, 0)
    fits = np.where(
        is_vertex,
        (brain.vertices >= 0) & (brain.vertices < of_surface),
        ((brain.voxels >= 0) & (brain.voxels < np.array(volume))).all(1),
    )
    if not fits.all():
        wrong = int(np.flatnonzero(~fits)[0])
        sizes = f"its surfaces have {listing(f'{count:,} vertices' for count in brain.n_vertices.values())}"
        raise CorruptedFileError(f"{path} has {brain.named(wrong)}; {sizes}, its volume {volume}. Get it again.")
    places = places_in(brain, brain)
    if not np.array_equal(places, np.arange(len(brain))):
        twice = int(np.flatnonzero(places != np.arange(len(brain)))[0])
        raise CorruptedFileError(f"{path} has {brain.named(twice)} twice. Get it again.")


def values_of_map(path: Path, header: CiftiHeader, values: Any, index: int) -> NDArray[Any]:
    """One map's value of each grayordinate; of labels their names, empty if they are of no region.

    Parameters
    ----------
    values
        As nibabel gives them, in the file's order of axes; only those of the map are read.
    """
    own = np.asarray(values[index] if header.axis == 1 else values[:, index])
    if not header.is_labels:
        return own
    names = {int(key): str(name) for key, (name, _) in header.rows.label[index].items()}
    if own.dtype.kind == "f" and not np.array_equal(own, np.round(own)):
        raise DatasetError(f"{path} has a table of labels, and values that are not whole numbers.")
    numbers, of_each = np.unique(own.astype(np.int64), return_inverse=True)
    unknown = [number for number in numbers.tolist() if number and number not in names]
    if unknown:
        raise CorruptedFileError(f"{path} has the labels {listing(unknown)}, which its table does not name.")
    texts = [names.get(number, "") for number in numbers.tolist()]
    return np.array(["" if text == UNLABELLED else text for text in texts], str)[of_each.ravel()]


def structures_named(path: Path, brain: BrainModels, key: str) -> Indices:
    """The grayordinates of one structure, which may be written without ``CIFTI_STRUCTURE_``.

    Raises
    ------
    DatasetError
        If the file has no such structure.
    """
    kept = np.flatnonzero(np.isin(brain.structures, [key, f"{_PREFIX}{key}"]))
    if not len(kept):
        known = [name.removeprefix(_PREFIX) for name in dict.fromkeys(brain.structures.tolist())]
        raise DatasetError(f"{path} has no structure '{key}'. Its structures: {listing(known, 30)}.")
    return kept
