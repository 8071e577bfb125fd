"""Responses in a store, read from the disk when they are used, and refused if they are not as they were written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs.registry import get_codec
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.codecs import BloscCodec, Crc32cCodec

from berg.core.exceptions import CorruptedFileError
from berg.responses.blocks import Blocks, Seen, checksum, reading
from berg.system.threads import n_cores

_PIECE = 2**19  # bytes
_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_N_READERS = min(8, n_cores())


def lazy_responses(blocks: Blocks, number: int, seen: Sequence[Seen]) -> Any:
    """An array of a store as xarray takes it: nothing is read before it is used.

    Parameters
    ----------
    number
        Of the array in the store, from 0.
    seen
        Each block, when the store was opened; what has changed since is refused.
    """
    lazy: Any = indexing.LazilyIndexedArray(_StoredResponses(blocks, number, seen))
    cached: Any = indexing.MemoryCachedArray  # xarray has no types for it
    return cached(indexing.CopyOnWriteArray(lazy))  # as xarray.open_zarr has it


class _StoredResponses(BackendArray):
    """Shape (n_stimuli, ...); rows of stimuli that are not encoded are NaN."""

    def __init__(self, blocks: Blocks, number: int, seen: Sequence[Seen]) -> None:
        self.blocks, self.number, self.array, self.seen = blocks, number, blocks.arrays[number], seen
        self.shape = self.array.responses.shape
        self.dtype = self.array.responses.dtype
        self.compressor = _compressor(self.array.responses)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """The rows and columns of an index with one entry, a number, slice or array, per axis."""
        rows = np.arange(self.shape[0])[key[0]]
        wanted = np.atleast_1d(rows)
        found = np.empty((len(wanted), *self._rest(key)), self.dtype)
        indices = np.unique(wanted // self.blocks.block_size).tolist()

        def read(some: list[int]) -> None:
            for index in some:
                self._read_block(index, wanted, key[1:], found)

        with reading(self.blocks.path):
            if len(indices) < 2:
                read(indices)
            else:
                with ThreadPoolExecutor(_N_READERS) as readers:
                    list(readers.map(read, [indices[first::_N_READERS] for first in range(_N_READERS)]))
        return found if rows.ndim else found[0]

    def _rest(self, key: tuple[Any, ...]) -> tuple[int, ...]:
        chosen = (np.arange(length)[part] for length, part in zip(self.shape[1:], key[1:], strict=True))
        return tuple(len(indices) for indices in chosen if indices.ndim)

    def _read_block(self, index: int, wanted: NDArray[np.intp], rest: tuple[Any, ...], found: NDArray[Any]) -> None:
        """Read the rows of a block that are wanted into the rows of `found` that they belong to."""
        stimuli = self.blocks.stimuli(index)
        (targets,) = np.nonzero((wanted >= stimuli.start) & (wanted < stimuli.stop))
        whole = slice(int(targets[0]), int(targets[-1]) + 1)
        if np.array_equal(wanted[targets], np.arange(stimuli.start, stimuli.stop)) and _are_all(rest, self.shape[1:]):
            self._read_into(index, found[whole])  # all of the block, side by side
            return
        rows = np.empty((stimuli.stop - stimuli.start, *self.shape[1:]), self.dtype)
        self._read_into(index, rows)
        found[targets] = _outer(rows[wanted[targets] - stimuli.start], rest)

    def _read_into(self, index: int, rows: NDArray[Any]) -> None:
        seen, file = self.seen[index], self.array.chunk(index)
        tail = seen.tails[self.number] if seen.tails else None
        # Without checksums, a chunk that is lost cannot be told from one of nothing but NaN.
        if seen.state == "missing" or tail == b"" or (tail is None and not file.exists()):
            rows[...] = np.nan
        elif self.compressor is None:
            self._read_plain(index, file, rows, tail or b"")
        else:
            self._read_compressed(index, file, rows, tail)

    # Both read straight into the rows, which saves more than the checksum costs, compared with zarr's own reading.

    def _read_plain(self, index: int, file: Path, rows: NDArray[Any], tail: bytes) -> None:
        n_after = self.array.chunk_bytes - rows.nbytes  # of the rows after the last stimulus
        try:
            with file.open("rb", buffering=0) as opened:
                n_read, value = _read_checking(opened, rows.reshape(-1).view(np.uint8), bool(tail))
                after = opened.read(n_after + len(tail) + 1) or b""
        except _NO_FILE as error:
            raise self._damaged(index) from error
        if n_read != rows.nbytes or len(after) != n_after + len(tail) or after[n_after:] != tail:
            raise self._damaged(index)
        if tail and google_crc32c.extend(value, after[:n_after]).to_bytes(4, "little") != tail:
            raise self._damaged(index)

    def _read_compressed(self, index: int, file: Path, rows: NDArray[Any], tail: bytes | None) -> None:
        try:
            content = file.read_bytes()
            if tail is not None:
                if content[-4:] != tail or checksum(np.frombuffer(content, np.uint8)[:-4]) != tail:
                    raise self._damaged(index)
                content = content[:-4]
            whole = np.empty(self.array.responses.chunks, self.dtype) if len(rows) < self.blocks.block_size else rows
            get_codec({"id": self.compressor}).decode(content, out=whole)
        except (*_NO_FILE, ValueError, RuntimeError) as error:
            raise self._damaged(index) from error
        if whole is not rows:
            rows[...] = whole[: len(rows)]

    def _damaged(self, index: int) -> CorruptedFileError:
        stimuli = self.blocks.stimuli(index)
        return CorruptedFileError(
            f"{self.array.chunk(index)}, with the responses to the stimuli {stimuli.start:,} to {stimuli.stop - 1:,}, "
            "is not as it was written. Make the call that began the store again: it computes these again, and "
            f"nothing else. All that is damaged:  berg verify {self.blocks.path}"
        )


def _read_checking(opened: io.FileIO, values: NDArray[np.uint8], is_checked: bool) -> tuple[int, int]:
    """Fill an array from a file. Returns how many bytes there were, and their crc32c.

    Reads in pieces that stay in the cache of the processor: twice as fast as reading all into new memory at once.
    """
    piece, n_read, value = np.empty(min(_PIECE, len(values)), np.uint8), 0, 0
    while n_read < len(values) and (n_more := opened.readinto(piece[: len(values) - n_read].data)):
        if is_checked:
            value = google_crc32c.extend(value, piece[:n_more])
        values[n_read : n_read + n_more] = piece[:n_more]
        n_read += n_more
    return n_read, value


def _are_all(key: tuple[Any, ...], shape: tuple[int, ...]) -> bool:
    return all(isinstance(part, slice) and part.indices(n) == (0, n, 1) for part, n in zip(key, shape, strict=True))


def _compressor(responses: zarr.Array[Any]) -> str | None:
    """The compression of an array, by the name that numcodecs has for it."""
    codecs = [codec for codec in responses.compressors if not isinstance(codec, Crc32cCodec)]
    if not codecs:
        return None
    return "blosc" if isinstance(codecs[0], BloscCodec) else "zstd"


def _outer(rows: NDArray[Any], key: tuple[Any, ...]) -> NDArray[Any]:
    """Apply an index to each axis after the first by itself; from the last, because numbers remove axes."""
    for axis in range(len(key), 0, -1):
        rows = rows[(slice(None),) * axis + (key[axis - 1],)]
    return rows
