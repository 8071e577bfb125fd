"""Responses in files of the formats of the field, read in parts where the format lets one."""

from __future__ import annotations

import math
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, MissingFileError, listing
from berg.features.arrays import HDF5
from berg.fitting.label_files import array_keys, chosen_key, reading
from berg.fitting.response_arrays import (
    BLOCK_BYTES,
    MappedRows,
    MaskedRows,
    ResponseArray,
    ScaledRows,
    SpooledRows,
    as_rows,
    full_axes,
    unit_axes,
)
from berg.fitting.splits import Indices
from berg.fitting.volume_files import VOLUMES, is_compressed, open_volumes

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
    """

    rows: ResponseArray
    axes: tuple[str, ...]
    row_axis: str = "presentation"
    n_repetitions: int = 1
    coordinates: dict[str, tuple[str, NDArray[Any]]] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    unit: str | None = None


def open_responses(
    path: Path, key: str | None = None, axes: Sequence[str] | None = None, mask: NDArray[Any] | None = None
) -> ResponseFile:
    """The responses in a file; values are read when they are asked for.

    Read in parts: ``.npy``, ``.npz`` that is not compressed, HDF5, zarr, NIfTI and MGH that are not compressed.
    All others are read once, into a temporary file.

    Parameters
    ----------
    path
        ``.npy``, ``.npz``, HDF5, a folder of zarr; ``.nii``, ``.mgh`` (also ``.nii.gz``, ``.mgz``); ``.gii``, with an
        array for each row; ``-epo.fif``.
    key
        The array in a file of several; of epochs, the type of the channels.
    axes
        Of an array, in its order (see `berg.fitting.response_arrays.as_rows`). None: rows, then units.
    mask
        Of the shape of the units; those that are not 0 are read, in C order.

    Raises
    ------
    MissingFileError, CorruptedFileError, MissingExtraError
    DatasetError
        Where the file holds no responses, or others than the axes say.
    """
    if not path.exists():
        raise MissingFileError(f"There is no file {path}.")
    reader = next((read for ending, read in _READERS.items() if path.name.lower().endswith(ending)), None)
    if reader is None and path.is_dir():
        reader = _stored
    if reader is None:
        raise DatasetError(f"{path} cannot be read as responses. Known are {listing(_READERS, 30)} and zarr.")
    with reading(path):
        return reader(path, key, axes, mask)


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
    return _of_array(path, np.load(path, mmap_mode="r", allow_pickle=False), axes, mask)


def _npz(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(_member(path, archive, key))
        if info.compress_type == zipfile.ZIP_STORED:
            array = _mapped_member(path, info)
        else:
            with archive.open(info) as member, TemporaryFile() as file:
                shutil.copyfileobj(member, file, 2**20)
                file.seek(0)
                array = _mapped_npy(file)
    return _of_array(path, array, axes, mask)


def _mapped_member(path: Path, info: zipfile.ZipInfo) -> NDArray[Any]:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        *_, n_name, n_extra = struct.unpack("<4s5H3L2H", file.read(30))  # a zip file's local header
        file.seek(n_name + n_extra, 1)
        return _mapped_npy(file)


def _member(path: Path, archive: zipfile.ZipFile, key: str | None) -> str:
    names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    return chosen_key(path, names, key) + ".npy"


def _mapped_npy(file: IO[bytes]) -> NDArray[Any]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    return np.memmap(file, dtype, "r", file.tell(), shape, "F" if by_columns else "C")


def _hdf5(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    import h5py

    file = h5py.File(path, "r")
    return _of_array(path, file[chosen_key(path, array_keys(file), key)], axes, mask)


def _stored(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    import zarr

    opened: Any = zarr.open(path, mode="r")
    array = opened if isinstance(opened, zarr.Array) else opened[chosen_key(path, array_keys(opened), key)]
    return _of_array(path, array, axes, mask)


def _volumes(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    """Volumes (x, y, z, n); MGH files of a surface are (n_vertices, 1, 1, n)."""
    with open_volumes(path) as image:
        return _of_volumes(path, image, axes, mask)


def _of_volumes(path: Path, image: Any, axes: Any, mask: Any) -> ResponseFile:
    shape = tuple(int(length) for length in image.shape)
    if len(shape) not in (3, 4) or not hasattr(image.dataobj, "get_unscaled"):  # CIFTI has one axis of units
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
        return SpooledRows(n_rows, (len(kept),), lambda: _inflated(image, n_rows, kept))
    raw = image.dataobj.get_unscaled().reshape(*shape[:3], n_rows, order="F")
    rows = MappedRows(raw, (3,), (0, 1, 2))
    return MaskedRows(ScaledRows(rows, float(image.dataobj.slope), float(image.dataobj.inter)), kept)


def _inflated(image: Any, n_rows: int, kept: Indices) -> Iterator[NDArray[Any]]:
    step = max(1, BLOCK_BYTES // (8 * math.prod(image.shape[:3])))
    for start in range(0, n_rows, step):
        block = np.asarray(image.dataobj[..., start : start + step] if len(image.shape) == 4 else image.dataobj)
        by_row = np.moveaxis(block.reshape(*image.shape[:3], -1), -1, 0)
        yield by_row.reshape(len(by_row), -1)[:, kept]


def _surface(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    """One array per row, or one array (n_vertices, n) as FreeSurfer writes time series."""
    first = _gifti_rows(path)
    kept = _kept(path, mask, first.shape[1:])
    name = unit_axes(axes or ())[0] if axes else "vertex"
    return ResponseFile(SpooledRows(len(first), (len(kept),), lambda: iter([_gifti_rows(path)[:, kept]])), (name,))


def _gifti_rows(path: Path) -> NDArray[Any]:
    import nibabel

    arrays = [own.data for own in nibabel.load(path).darrays]
    if len(arrays) == 1 and arrays[0].ndim == 2:
        return np.asarray(arrays[0]).T
    lengths = {own.shape for own in arrays}
    if len(lengths) != 1 or any(own.ndim != 1 for own in arrays):
        raise DatasetError(f"{path} holds {len(arrays)} arrays of the shapes {listing(lengths)}; rows are all alike.")
    return np.stack(arrays)


_VOLTS = {"eeg", "seeg", "ecog", "dbs"}
_SENSORS = {**dict.fromkeys(_VOLTS, "V"), "mag": "T", "grad": "T/m"}


def _epochs(path: Path, key: str | None, axes: Any, mask: Any) -> ResponseFile:
    import mne

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of pandas, in mne
        epochs = mne.read_epochs(path, preload=False, verbose="error")
    types = np.array(epochs.get_channel_types())
    chosen = np.flatnonzero(np.isin(types, list(_SENSORS)) if key is None else types == key)
    if not len(chosen):
        raise DatasetError(f"{path} has no channels of type {key or listing(_SENSORS)}; it has {listing(set(types))}.")
    names = unit_axes(axes) if axes else ("channel", "time")
    shape = (len(chosen), len(epochs.times))
    rows: ResponseArray = SpooledRows(len(epochs.events), shape, lambda: _epoch_blocks(epochs, chosen))
    units = {_SENSORS[own] for own in types[chosen] if own in _SENSORS}
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
