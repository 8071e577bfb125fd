"""Stimuli in files of arrays (.npy, HDF5, zarr), of which any slice can be read and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError, InvalidParameterError, MissingFileError, listing
from berg.core.regular_file import check_regular_file

HDF5 = (".h5", ".hdf5", ".hdf", ".mat")


class ArrayPart:
    """Some of an array on disk; pictures with the colour last, as in NSD's brick, get it first.

    Parameters
    ----------
    array
        A memory map, a dataset of h5py, an array of zarr.
    start, stop
        Places along its first axis.
    """

    def __init__(self, array: Any, start: int = 0, stop: int | None = None) -> None:
        n_all = array.shape[0]
        if not 0 <= start < (stop := n_all if stop is None else stop) <= n_all:
            raise InvalidParameterError(f"There is no range {start}:{stop} of {n_all:,} stimuli.")
        self.array, self.start = array, start
        self.dtype = array.dtype
        self.colour_last = len(array.shape) == 4 and array.shape[-1] == 3 and array.shape[1] != 3
        rest = (array.shape[3], *array.shape[1:3]) if self.colour_last else array.shape[1:]
        self.shape = (stop - start, *rest)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, places: slice) -> NDArray[Any]:
        """The stimuli at these places."""
        first, last, step = places.indices(len(self))
        found = np.asarray(self.array[self.start + first : self.start + max(first, last) : step])
        return np.moveaxis(found, -1, 1) if self.colour_last else found


def open_array(path: Path | str, dataset: str | None = None, places: str | None = None) -> ArrayPart:
    """An array on disk, as stimuli.

    Parameters
    ----------
    path
        A .npy file, an HDF5 file (.h5, .hdf5, .mat of version 7.3), or a zarr array or group.
    dataset
        Its name in an HDF5 file or zarr group; not needed where there is one alone.
    places
        Some of it, such as ``0:1000``.

    Raises
    ------
    MissingFileError, CorruptedFileError, InvalidParameterError
    """
    file = Path(path)
    if not file.exists():
        raise MissingFileError(f"{file} does not exist.")
    check_regular_file(file)
    try:
        array = _open(file, dataset)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidParameterError):
            raise
        raise CorruptedFileError(f"{file} cannot be opened as an array: {error}.") from error
    chosen = places_of(places)
    return ArrayPart(array, chosen.start or 0, chosen.stop)


def _open(file: Path, dataset: str | None) -> Any:
    if file.suffix == ".npy":
        return np.load(file, mmap_mode="r", allow_pickle=False)
    if file.suffix in HDF5:
        import h5py

        return _dataset_in(h5py.File(file, "r"), dataset, h5py.Dataset, file)
    if file.is_dir():
        import zarr

        opened = zarr.open(file, mode="r")
        return opened if isinstance(opened, zarr.Array) else _dataset_in(opened, dataset, zarr.Array, file)
    raise InvalidParameterError(f"{file} is no .npy, HDF5 ({', '.join(HDF5)}) or zarr array.")


def _dataset_in(group: Any, name: str | None, kind: type, file: Path) -> Any:
    names = [key for key in group if isinstance(group[key], kind)]
    chosen = names[0] if name is None and len(names) == 1 else name
    if chosen is None or chosen not in group or not isinstance(group[chosen], kind):
        raise InvalidParameterError(f"{file} holds {listing(names) or 'no array'}; say which with dataset='NAME'.")
    return group[chosen]


def places_of(text: str | None) -> slice:
    """A range of stimuli, written START:STOP; either may be missing.

    >>> places_of("0:1000"), places_of("5:"), places_of(None)
    (slice(0, 1000, None), slice(5, None, None), slice(0, None, None))
    """
    start, colon, stop = (":" if text is None else text).partition(":")
    if not colon or not all(re.fullmatch(" *[0-9]{0,18} *", part) for part in (start, stop)):
        raise InvalidParameterError(f"'{text}' is no range of stimuli; write START:STOP, such as 0:1000.")
    return slice(int(start) if start.strip() else 0, int(stop) if stop.strip() else None)
