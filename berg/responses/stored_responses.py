"""Responses in a store, read from the disk when they are looked at, and refused if they are not what was written."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.codecs import Crc32cCodec

from berg.core.exceptions import CorruptedFileError
from berg.responses.blocks import Blocks, reading

_N_READERS = min(8, 2 * (os.cpu_count() or 1))


def lazy_responses(blocks: Blocks, place: int) -> Any:
    """An array of a store as xarray takes it: nothing is read before it is looked at.

    Parameters
    ----------
    place
        The number of the array in the store.
    """
    lazy: Any = indexing.LazilyIndexedArray(_StoredResponses(blocks, place))
    cached: Any = indexing.MemoryCachedArray  # xarray has no types for it
    return cached(indexing.CopyOnWriteArray(lazy))  # as xarray.open_zarr has it


class _StoredResponses(BackendArray):
    """Shape (n_stimuli, ...); rows of stimuli that are not encoded are NaN."""

    def __init__(self, blocks: Blocks, place: int) -> None:
        self.blocks, self.place, self.array = blocks, place, blocks.arrays[place]
        self.shape = self.array.responses.shape
        self.dtype = self.array.responses.dtype
        self.is_plain = all(isinstance(codec, Crc32cCodec) for codec in self.array.responses.compressors)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """The rows and columns of an index with one entry, a number, slice or array, per axis."""
        rows = np.arange(self.shape[0])[key[0]]
        wanted = np.atleast_1d(rows)
        found = np.empty((len(wanted), *self._rest(key)), self.dtype)
        indices = np.unique(wanted // self.blocks.block_size).tolist()
        with reading(self.blocks.path), ThreadPoolExecutor(_N_READERS) as readers:
            list(readers.map(lambda index: self._read_block(index, wanted, key[1:], found), indices))
        return found if rows.ndim else found[0]

    def _rest(self, key: tuple[Any, ...]) -> tuple[int, ...]:
        chosen = (np.arange(length)[part] for length, part in zip(self.shape[1:], key[1:], strict=True))
        return tuple(len(indices) for indices in chosen if indices.ndim)

    def _read_block(self, index: int, wanted: NDArray[np.intp], rest: tuple[Any, ...], found: NDArray[Any]) -> None:
        """Put the rows of a block that are wanted to where they belong."""
        stimuli = self.blocks.stimuli(index)
        (places,) = np.nonzero((wanted >= stimuli.start) & (wanted < stimuli.stop))
        whole = slice(int(places[0]), int(places[-1]) + 1)
        if np.array_equal(wanted[places], np.arange(stimuli.start, stimuli.stop)) and _are_all(rest, self.shape[1:]):
            self._read_into(index, found[whole])  # all of the block, side by side
            return
        rows = np.empty((stimuli.stop - stimuli.start, *self.shape[1:]), self.dtype)
        self._read_into(index, rows)
        found[places] = _outer(rows[wanted[places] - stimuli.start], rest)

    def _read_into(self, index: int, rows: NDArray[Any]) -> None:
        state = self.blocks.check_array(self.place, index)
        if state == "damaged":
            raise self._damaged(index)
        file = self.array.chunk(index)
        if state == "missing" or not file.exists():  # the seal says that there is none, since all of it is NaN
            rows[...] = np.nan
        elif self.is_plain:
            self._read_plain(index, file, rows)
        else:
            try:
                rows[...] = self.array.responses[self.blocks.stimuli(index)]
            except (ValueError, RuntimeError) as error:  # of a checksum, of what uncompresses
                raise self._damaged(index) from error

    def _read_plain(self, index: int, file: Path, rows: NDArray[Any]) -> None:
        """Read bytes to where they belong, which is faster than zarr's way by what the checksum costs."""
        length = self.array.chunk_bytes - rows.nbytes  # of the rows after the last stimulus
        values = rows.reshape(-1).view(np.uint8)
        with file.open("rb") as opened:
            n_read = opened.readinto(values.data) if rows.size else 0
            after = opened.read()
        if n_read != rows.nbytes or len(after) != length + (4 if self.blocks.ledger else 0):
            raise self._damaged(index)
        if self.blocks.ledger:
            value = google_crc32c.extend(google_crc32c.value(values), after[:-4])
            if value.to_bytes(4, "little") != after[-4:]:
                raise self._damaged(index)

    def _damaged(self, index: int) -> CorruptedFileError:
        stimuli = self.blocks.stimuli(index)
        return CorruptedFileError(
            f"{self.array.chunk(index)}, with the responses to the stimuli {stimuli.start:,} to {stimuli.stop - 1:,}, "
            "is not as it was written. Make the call that began the store once more: it computes these again, and "
            f"nothing else. All that is damaged:  berg verify {self.blocks.path}"
        )


def _are_all(key: tuple[Any, ...], shape: tuple[int, ...]) -> bool:
    return all(isinstance(part, slice) and part.indices(n) == (0, n, 1) for part, n in zip(key, shape, strict=True))


def _outer(rows: NDArray[Any], key: tuple[Any, ...]) -> NDArray[Any]:
    """Apply an index to each axis after the first by itself; from the last, for numbers take axes away."""
    for axis in range(len(key), 0, -1):
        rows = rows[(slice(None),) * axis + (key[axis - 1],)]
    return rows
