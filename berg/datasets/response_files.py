"""Responses in files of the formats of the field, read in parts where the format lets one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError, DatasetError, listing
from berg.datasets.epoch_files import open_epochs
from berg.datasets.grayordinates import FACTS, BrainModels, CiftiHeader, header_of, structures_named
from berg.datasets.label_files import chosen_key, hdf5_key, reader_of
from berg.datasets.response_arrays import (
    BLOCK_BYTES,
    DerivedRows,
    MappedRows,
    MaskedRows,
    ResponseArray,
    ScaledRows,
    SpooledRows,
    Units,
    as_rows,
    full_axes,
    unit_axes,
)
from berg.datasets.splits import Indices
from berg.datasets.surface_files import open_surface, structure_of, surface_rows
from berg.datasets.volume_files import CIFTI, VOLUMES, inflated, is_compressed, open_volumes
from berg.stimuli.arrays import (
    HDF5,
    array_keys,
    check_temporary_space,
    npz_names,
    open_npy,
    open_npz,
    open_zarr,
    zarr_array,
)
from berg.system.file_errors import reading
from berg.system.hdf5_files import hdf5_array, open_hdf5

_EPOCHS_AT_ONCE = 64


@dataclass(frozen=True)
class ResponseFile:
    """Responses, and what the file says about them.

    Attributes
    ----------
    rows
        Whose units have the axes `axes`.
    row_axis
        ``stimulus`` or ``presentation``.
    n_repetitions
        Rows per stimulus, where the array has an axis of repetitions.
    coordinates
        Name to axis and labels.
    attributes
        Other facts: the affine and shape of a volume, the sampling interval of epochs.
    unit
        Of the values, where the format fixes it.
    structure
        The part of the brain that vertices are of, such as ``CortexLeft``, if the file says so.
    brain
        Which grayordinate each unit is, of CIFTI.
    """

    rows: ResponseArray
    axes: tuple[str, ...]
    row_axis: str = "presentation"
    n_repetitions: int = 1
    coordinates: dict[str, tuple[str, NDArray[Any]]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    unit: str | None = None
    structure: str | None = None
    brain: BrainModels | None = None


def open_responses(
    path: Path, key: str | None = None, axes: Sequence[str] | None = None, mask: NDArray[Any] | None = None
) -> ResponseFile:
    """The responses in a file; values are read when they are asked for.

    Read in parts: ``.npy``, ``.npz`` that is not compressed, HDF5, zarr, NIfTI, CIFTI and MGH that are not compressed.
    All others are read once, into a temporary file.

    Parameters
    ----------
    path
        ``.npy``, ``.npz``, HDF5, a folder of zarr; ``.nii``, ``.mgh`` (also ``.nii.gz``, ``.mgz``); ``.gii``, with an
        array for each row; ``.dscalar.nii`` and ``.dtseries.nii``, with a map or sample for each row; ``-epo.fif``.
    key
        The array in a file of several; of epochs, the type of the channels; of CIFTI, a structure.
    axes
        Of an array, in its order (see `berg.datasets.response_arrays.as_rows`). None: rows, then units.
    mask
        Of the shape of the units; those that are not 0 are read, in C order.

    Raises
    ------
    MissingFileError, CorruptedFileError, MissingExtraError
    DatasetError
        If the file holds no responses, or others than the axes say.
    """
    reader = reader_of(path, _READERS, _stored, "responses")
    with reading(path):
        found = reader(path, key, axes, mask)
    return found if isinstance(found.rows, MappedRows) else replace(found, rows=_NamedRows(found.rows, path))


@dataclass(frozen=True)
class _NamedRows(DerivedRows):
    """Rows whose file is named if it turns out to be damaged while they are read."""

    path: Path

    def read(self, rows: Indices, units: Units) -> NDArray[np.float32]:
        """See `ResponseArray`."""
        with reading(self.path):
            return self.rows.read(rows, units)


def _of_array(path: Path, array: Any, axes: Sequence[str] | None, mask: NDArray[Any] | None) -> ResponseFile:
    try:
        full = full_axes(axes, len(array.shape))
        rows = as_rows(array, full)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error
    n_repetitions = array.shape[full.index("repetition")] if "repetition" in full else 1
    row_axis = next(axis for axis in full if axis in ("stimulus", "presentation"))
    found = ResponseFile(rows, unit_axes(full), row_axis, n_repetitions)
    return (
        found
        if mask is None
        else replace(found, rows=MaskedRows(rows, _kept(path, mask, rows.shape)), axes=found.axes[-1:])
    )


def _kept(path: Path, mask: NDArray[Any] | None, shape: tuple[int, ...]) -> Indices:
    """The units that are not masked out."""
    if mask is None:
        return np.arange(math.prod(shape))
    if mask.size != math.prod(shape) or np.squeeze(mask).shape != tuple(n for n in shape if n > 1):
        raise DatasetError(f"{path} has units of shape {shape}; the mask has {mask.shape}. They must be the same.")
    kept = np.flatnonzero(np.nan_to_num(mask))
    if not len(kept):
        raise DatasetError(f"The mask of {path} is 0 everywhere.")
    return kept


def _npy(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    return _of_array(path, open_npy(path), axes, mask)


def _npz(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    return _of_array(path, open_npz(path, chosen_key(path, npz_names(path), key)), axes, mask)


def _hdf5(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    file = open_hdf5(path)
    return _of_array(path, hdf5_array(file, hdf5_key(path, file, key)), axes, mask)


def _stored(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    opened = open_zarr(path)
    is_array = hasattr(opened, "shape")
    array = opened if is_array else zarr_array(opened, chosen_key(path, array_keys(opened), key), path)
    return _of_array(path, array, axes, mask)


def _volumes(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    """Volumes (x, y, z, n); MGH files of a surface are (n_vertices, 1, 1, n), CIFTI has rows of grayordinates."""
    with open_volumes(path) as image:
        if hasattr(image, "nifti_header"):
            found = _of_grayordinates(path, image, key, axes)
            return found if mask is None else masked(found, mask, path)
        if path.name.lower().endswith(CIFTI):
            raise CorruptedFileError(f"{path} is called CIFTI, and its header is none of CIFTI-2. Get it again.")
        return _of_volumes(path, image, axes, mask)


def _of_grayordinates(path: Path, image: Any, key: str | None, axes: Any) -> ResponseFile:
    header = header_of(path, image)
    if header.is_labels:
        raise DatasetError(
            f"{path} holds labels. Responses are maps or series (.dscalar.nii, .dtseries.nii); name it under "
            "coordinates, as roi."
        )
    rows = _rows_of_grayordinates(image, header)
    name = unit_axes(axes)[0] if axes else "grayordinate"
    labels = {label: (name, values) for label, values in header.brain.labels.items()}
    found = ResponseFile(rows, (name,), "presentation", 1, labels, _facts(header), header.unit, None, header.brain)
    return found if key is None else _picked(found, structures_named(path, header.brain, key))


def _facts(header: CiftiHeader) -> dict[str, Any]:
    return {**header.brain.facts, **({} if header.step is None else {"series_step": header.step})}


def _rows_of_grayordinates(image: Any, header: CiftiHeader) -> ResponseArray:
    rows = MappedRows(image.dataobj.get_unscaled(), (1 - header.axis,), (header.axis,))
    return ScaledRows(rows, float(image.dataobj.slope), float(image.dataobj.inter))


def masked(found: ResponseFile, mask: NDArray[Any], path: Path) -> ResponseFile:
    """Some of the grayordinates of a CIFTI file: those at which a mask of its units is not 0."""
    return _picked(found, _kept(path, mask, found.rows.shape))


def _picked(found: ResponseFile, kept: Indices) -> ResponseFile:
    assert found.brain is not None
    return replace(
        found,
        rows=MaskedRows(found.rows, kept),
        coordinates={label: (axis, values[kept]) for label, (axis, values) in found.coordinates.items()},
        brain=(brain := found.brain.take(kept)),
        attributes={**{name: own for name, own in found.attributes.items() if name not in FACTS}, **brain.facts},
    )


def _of_volumes(path: Path, image: Any, axes: Any, mask: Any) -> ResponseFile:
    shape = tuple(int(length) for length in image.shape)
    if len(shape) not in (3, 4) or not hasattr(image.dataobj, "get_unscaled"):
        raise DatasetError(f"{path} has the shape {shape}; volumes have (x, y, z, n). Save its .get_fdata() as .npy.")
    kept = _kept(path, mask, shape[:3])
    name = unit_axes(axes or ())[0] if axes else "vertex" if shape[1:3] == (1, 1) else "voxel"
    found = ResponseFile(_rows_of_volumes(path, image, shape, kept), (name,))
    if shape[1:3] == (1, 1):
        return found
    places = {axis: (name, own) for axis, own in zip("ijk", np.unravel_index(kept, shape[:3]), strict=True)}
    facts = {"fmri_affine": image.affine, "volume_shape": shape[:3]}
    return replace(found, coordinates=places, attributes=facts)


def _rows_of_volumes(path: Path, image: Any, shape: tuple[int, ...], kept: Indices) -> ResponseArray:
    n_rows = shape[3] if len(shape) == 4 else 1
    if is_compressed(path):
        check_temporary_space(4 * n_rows * len(kept), path)
        return SpooledRows(n_rows, (len(kept),), lambda: _inflated(path, image, n_rows, kept))
    raw = image.dataobj.get_unscaled().reshape(*shape[:3], n_rows, order="F")
    rows = MappedRows(raw, (3,), (0, 1, 2))
    return MaskedRows(ScaledRows(rows, float(image.dataobj.slope), float(image.dataobj.inter)), kept)


def _inflated(path: Path, image: Any, n_rows: int, kept: Indices) -> Iterator[NDArray[Any]]:
    step = max(1, BLOCK_BYTES // (8 * math.prod(image.shape[:3])))
    with inflated(path, image) as opened:
        for start in range(0, n_rows, step):
            block = np.asarray(opened.dataobj[..., start : start + step] if len(image.shape) == 4 else opened.dataobj)
            by_row = np.moveaxis(block.reshape(*image.shape[:3], -1), -1, 0)
            yield by_row.reshape(len(by_row), -1)[:, kept]


def _surface(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    """One array per row, or one array (n_vertices, n) as FreeSurfer writes time series."""
    image = open_surface(path)
    first = surface_rows(path, image)
    kept = _kept(path, mask, first.shape[1:])
    name = unit_axes(axes or ())[0] if axes else "vertex"
    rows = SpooledRows(len(first), (len(kept),), lambda: iter([surface_rows(path, open_surface(path))[:, kept]]))
    return ResponseFile(rows, (name,), structure=structure_of(image))


_VOLTS = {"eeg", "seeg", "ecog", "dbs"}
_NO_UNITS = (-1, 0)  # FIFF_UNIT_NONE, FIFF_UNIT_UNITLESS
_SENSORS = {**dict.fromkeys(_VOLTS, "V"), "mag": "T", "grad": "T/m"}


def _epochs(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    epochs = open_epochs(path)
    types = np.array(epochs.get_channel_types())
    chosen = np.flatnonzero(np.isin(types, list(_SENSORS)) if key is None else types == key)
    if not len(chosen):
        raise DatasetError(f"{path} has no channels of type {key or listing(_SENSORS)}; it has {listing(set(types))}.")
    names = unit_axes(axes) if axes else ("channel", "time")
    shape = (len(chosen), len(epochs.times))
    rows: ResponseArray = SpooledRows(len(epochs.events), shape, lambda: _epoch_blocks(epochs, chosen))
    units = {_unit_of(epochs.info["chs"][place], types[place]) for place in chosen}
    found = ResponseFile(
        rows,
        names,
        coordinates={
            "channel": (names[0], np.array(epochs.ch_names)[chosen]),
            "time": (names[-1], np.asarray(epochs.times)),
        },
        attributes={"sampling_interval_s": 1 / float(epochs.info["sfreq"])},
        unit=units.pop() if len(units) == 1 else None,
    )
    return (
        found
        if mask is None
        else replace(found, rows=MaskedRows(rows, _kept(path, mask, shape)), axes=("unit",), coordinates={})
    )


def _unit_of(channel: Any, kind: str) -> str | None:
    """The unit of a channel's values; None of numbers that were written without one, such as z-scores."""
    return _SENSORS.get(kind) if int(channel["unit"]) not in _NO_UNITS else None


def _epoch_blocks(epochs: Any, chosen: Indices) -> Iterator[NDArray[Any]]:
    for start in range(0, len(epochs.events), _EPOCHS_AT_ONCE):
        block = epochs[start : start + _EPOCHS_AT_ONCE].get_data(picks=chosen, copy=False, verbose="error")
        yield block.reshape(len(block), -1)


_Reader = Callable[[Path, str | None, Sequence[str] | None, NDArray[Any] | None], ResponseFile]
_READERS: dict[str, _Reader] = {
    ".npy": _npy,
    ".npz": _npz,
    **dict.fromkeys(HDF5, _hdf5),
    **dict.fromkeys(VOLUMES, _volumes),
    ".gii": _surface,
    ".fif": _epochs,
}
