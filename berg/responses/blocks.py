"""The blocks of a store of responses on the disk, and whether they are as they were written.

Every chunk ends with its crc32c, which zarr checks as well. The ledger, a zarr group beside the labels, keeps a record
of each block: a seal per array, and two fingerprints per stimulus. A seal is a hash of the checksum of the chunk, of
the status and the stimuli of the block, of its index, and of the identity of the store. A chunk that is lost, cut,
changed, or of another block or another store does not fit its seal. The ledger also has the checksums of
all other files, which hold labels and descriptions.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec

from berg.core.exceptions import BERGError, CorruptedFileError, StorageError

LEDGER = "berg_ledger"
STATUS = "status"
CHECKSUMS = "checksums"  # in the identity of a store that has them
MISSING, ENCODED, DAMAGED = 0, 1, 2
State = Literal["missing", "whole", "damaged"]
_RECORDS = "blocks"
_N_READERS = 8  # threads: many small files, and a disk on a network has a long delay rather than a low speed
# What zarr, its codecs and JSON raise for files that have changed; RecursionError is a RuntimeError.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError, EOFError)


@dataclass(frozen=True)
class Record:
    """The entry of a block in the ledger.

    Attributes
    ----------
    seals
        Shape (n_arrays,).
    stimuli
        Shape (block_size, 2): a hash of each stimulus, and one of the size and time of its file; 0 if there is none.
    """

    seals: NDArray[np.uint64]
    stimuli: NDArray[np.uint64]


@dataclass(frozen=True)
class Seen:
    """The state of a block on the disk.

    Attributes
    ----------
    status
        Shape (stimuli of the block,), of all arrays: 0 for stimuli that are missing or damaged in one of them.
    tails
        The checksum of the chunk of each array, if it fits its seal; none without chunks, or without checksums.
    """

    state: State
    status: NDArray[np.uint8]
    tails: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class StoredArray:
    """One array of responses, and its status."""

    responses: zarr.Array[Any]
    status: zarr.Array[Any]
    folder: Path

    @property
    def name(self) -> str:
        """The name of the responses."""
        return self.responses.name.split("/")[-1]

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a block in memory."""
        return int(np.prod(self.responses.chunks)) * self.responses.dtype.itemsize

    def chunk(self, index: int) -> Path:
        """The file with the responses of a block."""
        key = self.responses.metadata.encode_chunk_key((index,) + (0,) * (self.responses.ndim - 1))
        return self.folder / self.name / key

    def status_chunk(self, index: int) -> Path:
        """The file with the status of a block."""
        return self.folder / STATUS / self.status.metadata.encode_chunk_key((index,))


class Ledger:
    """The records of a store.

    Parameters
    ----------
    identity
        The identity of the store, as it is written in it.
    """

    def __init__(self, store: Path, identity: Mapping[str, Any]) -> None:
        self.folder = store / LEDGER / _RECORDS
        self.n_arrays, self.block_size = len(identity["arrays"]), int(identity["block_size"])
        self.stamp = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).digest()

    @property
    def record_length(self) -> int:
        """Numbers in a record."""
        return self.n_arrays + 2 * self.block_size

    @cached_property
    def array(self) -> zarr.Array[Any]:
        """All records, one after the other."""
        return zarr.open_array(self.folder, mode="r+")

    def chunk(self, index: int) -> Path:
        """The file with the record of a block."""
        return self.folder / "c" / str(index)

    def read(self, index: int) -> Record | None:
        """The record of a block, or None if it is lost or damaged."""
        content = read_checked(self.chunk(index))
        if content is None or len(content) != 8 * self.record_length:
            return None
        numbers = np.frombuffer(content, "<u8").astype(np.uint64)
        return Record(numbers[: self.n_arrays], numbers[self.n_arrays :].reshape(-1, 2))

    def write(self, index: int, record: Record) -> None:
        """Write the record of a block."""
        numbers = np.concatenate([record.seals, record.stimuli.ravel()])
        self.array[index * self.record_length : (index + 1) * self.record_length] = numbers

    def seal(
        self, index: int, array: int, tail: bytes, status: NDArray[np.uint8], stimuli: NDArray[np.uint64]
    ) -> np.uint64:
        """The seal of a chunk that ends with `tail`; with b"" if there is no chunk, because all in it is NaN."""
        digest = hashlib.blake2b(self.stamp, digest_size=8)
        digest.update(f"{index} {array} {tail.hex()} ".encode() + status.tobytes() + stimuli.astype("<u8").tobytes())
        return np.uint64(int.from_bytes(digest.digest(), "little"))


class Blocks:
    """The blocks of a store, read and checked file by file.

    Parameters
    ----------
    identity
        As `berg.responses.store.read_identity` returns it.
    mode
        Of zarr: ``r``, or ``r+`` to write as well.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], mode: Literal["r", "r+"] = "r") -> None:
        self.path = path
        with reading(path):
            root = zarr.open_group(path, mode=mode, use_consolidated=False)
            self.arrays = [_open_array(root, path, array) for array in identity["arrays"]]
            self.n_stimuli = int(self.arrays[0].responses.shape[0])
        self.block_size = int(identity["block_size"])
        self.ledger = Ledger(path, identity) if CHECKSUMS in identity else None

    def __len__(self) -> int:
        return -(-self.n_stimuli // self.block_size)

    def stimuli(self, index: int) -> slice:
        """The stimuli of a block."""
        return slice(index * self.block_size, min((index + 1) * self.block_size, self.n_stimuli))

    def look(self, index: int, *, thoroughly: bool = False) -> Seen:
        """Whether a block is there and as it was written.

        Parameters
        ----------
        thoroughly
            Read the responses, too; else only their checksums are compared with the ledger. In a store without
            checksums only files of a wrong length are found.
        """
        stimuli = self.stimuli(index)
        nothing = np.zeros(stimuli.stop - stimuli.start, np.uint8)
        statuses = [status for array in self.arrays if (status := self._status(array, index)) is not None]
        if len(statuses) < len(self.arrays):
            return Seen("damaged", nothing)
        status = in_all_arrays(statuses)
        if (status == MISSING).any():
            return Seen("missing", status)
        if self.ledger is None:
            fits = all(map(self._has_its_length, self.arrays, statuses, [index] * len(statuses)))
            return Seen("whole" if fits else "damaged", status)
        record, tails = self.ledger.read(index), tuple(read_tail(array.chunk(index)) for array in self.arrays)
        if record is None:
            return Seen("damaged", nothing)
        seals = [
            self.ledger.seal(index, number, tail, own, record.stimuli)
            for number, (tail, own) in enumerate(zip(tails, statuses, strict=True))
        ]
        if not np.array_equal(seals, record.seals) or (thoroughly and not self._fit_their_checksums(index, tails)):
            return Seen("damaged", nothing)
        return Seen("whole", status, tails)

    def look_at_all(self, *, thoroughly: bool = False) -> list[Seen]:
        """Look at each block, in order."""
        with reading(self.path), ThreadPoolExecutor(_N_READERS) as readers:
            return list(readers.map(lambda index: self.look(index, thoroughly=thoroughly), range(len(self))))

    def _fit_their_checksums(self, index: int, tails: tuple[bytes, ...]) -> bool:
        return all(
            not tail or read_checked(array.chunk(index)) is not None
            for array, tail in zip(self.arrays, tails, strict=True)
        )

    def _status(self, array: StoredArray, index: int) -> NDArray[np.uint8] | None:
        """The status of a block, or None if it is damaged."""
        stimuli = self.stimuli(index)
        n_stimuli, file = stimuli.stop - stimuli.start, array.status_chunk(index)
        content = read_checked(file) if self.ledger else _content(file)
        if content is None:
            return None if file.exists() else np.zeros(n_stimuli, np.uint8)
        status = np.frombuffer(content, np.uint8)
        if len(status) != self.block_size or (status > DAMAGED).any():
            return None
        return status[:n_stimuli]

    def _has_its_length(self, array: StoredArray, status: NDArray[np.uint8], index: int) -> bool:
        """Whether a chunk without a checksum has the length that was written; one of nothing but NaN has no file."""
        file = array.chunk(index)
        if not file.exists():
            return not array.responses.size or bool((status == DAMAGED).all())
        size = file.stat().st_size
        return size > 0 if array.responses.compressors else size == array.chunk_bytes


def in_all_arrays(statuses: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The status of stimuli in all arrays: missing if they are missing in one of them."""
    stacked = np.array(statuses, np.uint8)
    return np.where((stacked == MISSING).any(axis=0), MISSING, stacked.max(axis=0)).astype(np.uint8)


def create_ledger(store: Path, identity: Mapping[str, Any], n_stimuli: int) -> None:
    """Write the ledger of a store that has labels and no responses: the checksums of all files, and no records."""
    ledger = Ledger(store, identity)
    zarr.create_group(store / LEDGER)
    zarr.create_array(
        ledger.folder,
        shape=(-(-n_stimuli // ledger.block_size) * ledger.record_length,),
        chunks=(ledger.record_length,),
        dtype="uint64",
        compressors=Crc32cCodec(),
        fill_value=0,
        dimension_names=["number"],
    )
    own = store / LEDGER / "zarr.json"
    files = sorted(file for file in store.rglob("*") if file.is_file() and file != own)
    described = {
        "identity": dict(identity),
        "files": {file.relative_to(store).as_posix(): google_crc32c.value(file.read_bytes()) for file in files},
    }
    zarr.open_group(store / LEDGER, mode="r+").update_attributes(
        {LEDGER: {**described, "crc32c": google_crc32c.value(_canonical(described))}}
    )


def read_description(store: Path) -> dict[str, Any] | None:
    """The identity of a store and the checksums of its files, from the ledger; None if that is damaged."""
    described = read_attributes(store / LEDGER).get(LEDGER)
    if not isinstance(described, dict):
        return None
    expected = described.pop("crc32c", None)
    whole = google_crc32c.value(_canonical(described)) == expected and isinstance(described.get("identity"), dict)
    return described if whole else None


def damaged_labels(store: Path, identity: Mapping[str, Any]) -> list[str]:
    """The files with labels and descriptions that are not as they were written; none in a store without checksums."""
    if CHECKSUMS not in identity:
        return []
    with reading(store):
        described = read_description(store)
        if described is None:
            return [f"{LEDGER}/zarr.json"]
        return [name for name, value in described["files"].items() if _crc_of_file(store / name) != value]


def read_attributes(folder: Path) -> dict[str, Any]:
    """The attributes of a group, from its ``zarr.json``; none if it cannot be read."""
    try:
        attributes = json.loads((folder / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, *_UNREADABLE):
        return {}
    return attributes if isinstance(attributes, dict) else {}


def read_checked(file: Path) -> bytes | None:
    """A chunk without its checksum, or None if it is not there or does not fit its checksum."""
    content = _content(file)
    if content is None or len(content) < 4 or checksum(np.frombuffer(content, np.uint8)[:-4]) != content[-4:]:
        return None
    return content[:-4]


def read_tail(file: Path) -> bytes:
    """The last four bytes of a file, the checksum of a chunk; none if it is not there."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - 4))
            return opened.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return b""


def checksum(content: NDArray[np.uint8]) -> bytes:
    """The crc32c of bytes, as zarr's codec writes it after them."""
    return int(google_crc32c.value(content)).to_bytes(4, "little")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise CorruptedFileError for a damaged store, and StorageError for one that may not be read."""
    try:
        yield
    except BERGError:
        raise
    except (FileNotFoundError, *_UNREADABLE) as error:
        raise CorruptedFileError(
            f"{path} is damaged ({type(error).__name__}: {error!s:.200}). See what is whole with:  berg verify {path}"
        ) from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror or error}. Look at its owner and rights with:  ls -ld {path}"
        ) from error


def _open_array(root: zarr.Group, path: Path, array: str) -> StoredArray:
    group, _, name = array.rpartition("/")
    responses, status = root[f"{group}/{name}".strip("/")], root[f"{group}/{STATUS}".strip("/")]
    if not isinstance(responses, zarr.Array) or not isinstance(status, zarr.Array):
        raise CorruptedFileError(f"{path} has no responses at '{array}'. Replace it with overwrite=True (--overwrite).")
    return StoredArray(responses, status, path / group.strip("/"))


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _crc_of_file(file: Path) -> int | None:
    content = _content(file)
    return None if content is None else int(google_crc32c.value(content))


def _canonical(described: Mapping[str, Any]) -> bytes:
    return json.dumps(described, sort_keys=True).encode()
