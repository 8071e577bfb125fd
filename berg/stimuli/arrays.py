"""Stimuli in files of arrays (.npy, HDF5, zarr), of which any slice can be read and nothing else is."""

from __future__ import annotations

import os
import re
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError, MissingFileError, StorageError, listing
from berg.system.file_errors import MOST_COMPRESSED, SMALL_BYTES, check_declared_size, check_readable, reading
from berg.system.hdf5_files import ReversedArray, array_names, has_array, hdf5_array, open_hdf5
from berg.system.memory import size_words

HDF5 = (".h5", ".hdf5", ".hdf", ".mat")


_MOST_ARRAYS = 10_000  # in a zarr group, in which links of the file system may lead round in circles


class ArrayPart:
    """Some of an array on disk; pictures with the colour last, as in NSD's brick, get it first.

    Parameters
    ----------
    array
        A memory map, a dataset of h5py, an array of zarr.
    start, stop
        Places along its first axis.
    path
        Its file, for errors while reading.
    """

    def __init__(self, array: Any, start: int = 0, stop: int | None = None, path: Path | None = None) -> None:
        if not len(array.shape):
            raise InvalidParameterError(f"{path or 'The array'} holds one number, not an axis of stimuli.")
        n_all = array.shape[0]
        if not 0 <= start < (stop := n_all if stop is None else stop) <= n_all:
            raise InvalidParameterError(f"There is no range {start}:{stop} of {n_all:,} stimuli.")
        self.array, self.start, self.path = array, start, path
        self.dtype = array.dtype
        self.colour_last = len(array.shape) == 4 and array.shape[-1] == 3 and array.shape[1] != 3
        rest = (array.shape[3], *array.shape[1:3]) if self.colour_last else array.shape[1:]
        self.shape = (stop - start, *rest)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, places: slice) -> NDArray[Any]:
        """The stimuli at these indices.

        Raises
        ------
        CorruptedFileError
            If the file is damaged there.
        """
        first, last, step = places.indices(len(self))
        with reading(self.path or Path("the array")):
            found = np.asarray(self.array[self.start + first : self.start + max(first, last) : step])
        return np.moveaxis(found, -1, 1) if self.colour_last else found


def open_array(path: Path | str, dataset: str | None = None, places: str | None = None) -> ArrayPart:
    """An array on disk, as stimuli.

    Parameters
    ----------
    path
        A .npy file, an HDF5 file (.h5, .hdf5, .mat of version 7.3), or a zarr array or group.
    dataset
        Its name in an HDF5 file or zarr group; not needed if there is one alone.
    places
        Some of it, such as ``0:1000``.

    Raises
    ------
    MissingFileError, CorruptedFileError, InvalidParameterError
    UnsafeFileError
        If the values lie in another file.
    """
    file = Path(path)
    if not file.exists():
        raise MissingFileError(f"{file} does not exist.")
    check_readable(file)
    with reading(file, "opened as an array"):
        array = _open(file, dataset)
        if np.dtype(array.dtype).kind not in "biuf":
            raise InvalidParameterError(f"{file} holds {array.dtype}; stimuli are real numbers.")
    chosen = places_of(places)
    return ArrayPart(array, chosen.start or 0, chosen.stop, file)


def _open(file: Path, dataset: str | None) -> Any:
    ending = file.suffix.lower()
    if file.is_dir():
        opened = open_zarr(file)
        return opened if hasattr(opened, "shape") else zarr_array(opened, _chosen(opened, dataset, file), file)
    if ending == ".npy":
        return open_npy(file)
    if ending in HDF5:
        opened = open_hdf5(file)
        return _pictures_first(hdf5_array(opened, _chosen(opened, dataset, file)))
    raise InvalidParameterError(f"{file} is no .npy, HDF5 ({', '.join(HDF5)}) or zarr array.")


def _pictures_first(array: Any) -> Any:
    """Pictures of MATLAB (height, width, 3, n), which is how MATLAB stacks them, as (n, height, width, 3)."""
    if not isinstance(array, ReversedArray) or len(array.shape) != 4:
        return array
    return _LastFirst(array) if array.shape[2] == 3 and 3 not in (array.shape[1], array.shape[3]) else array


class _LastFirst:
    """An array whose last axis comes first."""

    def __init__(self, array: Any) -> None:
        self.array, self.dtype = array, array.dtype
        self.shape = (array.shape[-1], *array.shape[:-1])

    def __getitem__(self, places: slice) -> NDArray[Any]:
        return np.moveaxis(np.asarray(self.array[..., places]), -1, 0)


def _chosen(group: Any, name: str | None, file: Path) -> str:
    names = list(array_keys(group))
    if name is None and len(names) == 1:
        return names[0]
    if name is None or not (name in names or (hasattr(group, "filename") and has_array(group, name))):
        raise InvalidParameterError(f"{file} holds {listing(names) or 'no array'}; say which with dataset='NAME'.")
    return name


def array_keys(group: Any) -> list[str]:
    """The names of all arrays in an HDF5 file or zarr group, those in groups too (``a/b``)."""
    return array_names(group) if hasattr(group, "filename") else list(_zarr_names(group, [0]))


def _zarr_names(group: Any, count: list[int], above: str = "") -> Iterator[str]:
    for name in group:
        count[0] += 1
        if count[0] > _MOST_ARRAYS:
            raise ValueError(f"it holds more than {_MOST_ARRAYS:,} arrays and groups")
        below = group[name]
        if hasattr(below, "shape"):
            yield f"{above}{name}"
        else:
            yield from _zarr_names(below, count, f"{above}{name}/")


def open_npy(path: Path) -> NDArray[Any]:
    """The array of a .npy file, mapped; no pickles.

    Raises ValueError, or what the reader of numpy raises, if the file is no such array or holds less than it says.
    """
    array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return array


def open_npz(path: Path, name: str) -> NDArray[Any]:
    """An array of an .npz file, mapped where it lies; if it is compressed, in a temporary file.

    Parameters
    ----------
    name
        Of the array, without ``.npy``.

    Raises
    ------
    CorruptedFileError
        If it says to hold more than the file can.
    StorageError
        If it does not fit on the disk of temporary files.
    """
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        check_declared_size(path, info.file_size, min(info.compress_size, path.stat().st_size), f"'{name}'")
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            return _mapped_member(path, info)
        check_temporary_space(info.file_size, path)
        with archive.open(info) as member, TemporaryFile() as file:
            shutil.copyfileobj(member, file, 2**20)
            file.seek(0)
            return _mapped_npy(file)


def npz_names(path: Path) -> list[str]:
    """The names of the arrays in an .npz file."""
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _mapped_member(path: Path, info: zipfile.ZipInfo) -> NDArray[Any]:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        *_, n_name, n_extra = struct.unpack("<4s5H3L2H", file.read(30))  # a zip file's local header
        file.seek(n_name + n_extra, 1)
        return _mapped_npy(file, file.tell() + info.file_size)


def _mapped_npy(file: IO[bytes], end: int | None = None) -> NDArray[Any]:
    """The array that begins here, and ends before `end`, if others follow it."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if dtype.hasobject:  # pointers of a program that is gone
        raise ValueError("it holds objects of Python, which only running code from it could bring back")
    begin = file.tell()
    array: NDArray[Any] = np.memmap(file, dtype, "r", begin, shape, "F" if by_columns else "C")
    if end is not None and begin + array.nbytes > end:
        raise ValueError(f"its header says that {array.nbytes:,} bytes follow, and {end - begin:,} do")
    return array


def check_temporary_space(n_bytes: int, path: Path) -> None:
    """Raise StorageError if so much does not fit on the disk of temporary files."""
    free = shutil.disk_usage(gettempdir()).free
    if n_bytes > free:
        raise StorageError(
            f"{path} takes {size_words(n_bytes)} in a temporary file, and {gettempdir()} has {size_words(free)} "
            "left. Set TMPDIR to a folder with more room."
        )


def open_zarr(path: Path) -> Any:
    """The array or group of zarr in a folder.

    Raises CorruptedFileError if an array says to hold more than the folder can.
    """
    import zarr

    opened = zarr.open(path, mode="r")
    if isinstance(opened, zarr.Array):
        _check_zarr_size(opened, path)
    return opened


def zarr_array(group: Any, name: str, path: Path) -> Any:
    """An array of a group, of whose size the folder holds enough."""
    array = group[name]
    _check_zarr_size(array, path / name)
    return array


def _check_zarr_size(array: Any, path: Path) -> None:
    n_bytes, n_stored = int(array.dtype.itemsize) * int(np.prod(array.shape, dtype=object)), 0
    if n_bytes <= SMALL_BYTES:
        return
    for folder, _, files in os.walk(path):
        n_stored += sum((Path(folder) / file).stat().st_size for file in files)
        if n_bytes <= MOST_COMPRESSED * n_stored:
            return
    check_declared_size(path, n_bytes, n_stored)


def places_of(text: str | None) -> slice:
    """A range of stimuli, written START:STOP; either may be missing.

    >>> places_of("0:1000"), places_of("5:"), places_of(None)
    (slice(0, 1000, None), slice(5, None, None), slice(0, None, None))
    """
    start, colon, stop = (":" if text is None else text).partition(":")
    if not colon or not all(re.fullmatch(" *[0-9]{0,18} *", part) for part in (start, stop)):
        raise InvalidParameterError(f"'{text}' is no range of stimuli; write START:STOP, such as 0:1000.")
    return slice(int(start) if start.strip() else 0, int(stop) if stop.strip() else None)
