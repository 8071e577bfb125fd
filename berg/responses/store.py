"""Responses on disk, written block by block: a zarr store that can be continued after any interruption.

A store is a folder in zarr format 3 that xarray opens. Each array of responses has its labels beside it, as
`label_responses` makes them, and ``status``, one number per stimulus: 0 missing, 1 encoded, 2 damaged (a
stimulus that could not be read; its row is NaN).

A block of stimuli is one chunk of each array. Its status is written when its responses are on the disk, and their
seal is in the ledger (`berg.responses.blocks`). Chunks appear whole under their name or not at all, so a block is done
exactly when its status says so, and whole exactly when its chunks fit its seals. A store that was written before there
were seals has no ledger; it is read and continued as it is.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.exceptions import (
    CorruptedFileError,
    MissingFileError,
    StoreIncompleteError,
    StoreMismatchError,
    listing,
)
from berg.core.stacklevel import users_stacklevel
from berg.responses.blocks import (
    LEDGER,
    MISSING,
    STATUS,
    Blocks,
    Record,
    Seen,
    damaged_labels,
    read_attributes,
    read_description,
    read_tail,
    reading,
)
from berg.responses.labelled import Labelled, with_texts
from berg.responses.regions import index_regions
from berg.responses.store_frame import IDENTITY, Identity, flush_chunk, remove, write_frame
from berg.responses.store_frame import Compression as Compression
from berg.responses.stored_responses import lazy_responses
from berg.system.durable_file import flush, storage_errors

_KEPT = "What is encoded is kept, and the same call resumes."
_PARTIAL = "*.partial"  # what zarr calls a chunk that it has not renamed yet


class IncompleteStoreWarning(UserWarning):
    """Not all responses of a store are there yet."""


@dataclass(frozen=True)
class StoreReport:
    """What is whole, missing and damaged in a store.

    Attributes
    ----------
    has_checksums
        False for a store that was written before there were any: then only the lengths of files are compared.
    n_missing
        Stimuli that are not encoded yet.
    damaged
        The first and last stimulus of each damaged block.
    damaged_labels
        Files with labels and descriptions that are damaged.
    """

    n_stimuli: int
    has_checksums: bool
    n_missing: int
    damaged: list[tuple[int, int]]
    damaged_labels: list[str]


class ResponseStore:
    """A store that blocks are written to, by one process at a time (`berg.system.locks`).

    Attributes
    ----------
    identity
        Fingerprints of models, stimuli and options. Only the same ones may continue the store (`check_same`).
    block_size
        Stimuli per block; the last block may have fewer.

    Parameters
    ----------
    alone
        False: others write blocks of their own at the same time, and what they have not finished is left to them.
        Then the identity is compared again before each block is written: the store could have been replaced.
    """

    def __init__(self, path: Path, *, alone: bool = True) -> None:
        self.path, self.alone = path, alone
        self.identity = read_identity(path)
        self.block_size: int = self.identity["block_size"]
        self.blocks = Blocks(path, self.identity, "r+")
        self._arrays = self.blocks.arrays
        with suppress(OSError):  # a folder that can only be read
            for left_over in path.rglob(_PARTIAL) if alone else ():
                left_over.unlink()

    @classmethod
    def create(
        cls,
        path: Path,
        labelled: Mapping[str, Labelled],
        identity: Identity,
        block_size: int,
        compression: Compression = "none",
    ) -> ResponseStore:
        """A new store, with labels and without responses; it gets its name when it is whole.

        Parameters
        ----------
        labelled
            Name of a group -> responses with labels; their values are not used. The name "" stands for the root of
            the store.
        identity
            Texts and numbers, nested to any depth.
        """
        with storage_errors(path, _KEPT):
            new = write_frame(path, labelled, identity, block_size, compression)
            new.rename(path)
            flush(path.parent)
        return cls(path)

    @property
    def n_stimuli(self) -> int:
        """How many stimuli the store is for."""
        return self.blocks.n_stimuli

    @property
    def n_bytes(self) -> int:
        """Bytes of all responses on the disk without compression."""
        ending = 4 if self.blocks.ledger else 0
        return sum(array.responses.cdata_shape[0] * (array.chunk_bytes + ending) for array in self._arrays)

    def stored_bytes(self) -> int:
        """Bytes of the responses that are on the disk."""
        folders = (array.folder / array.name / "c" for array in self._arrays)
        return sum(chunk.stat().st_size for folder in folders for chunk in folder.rglob("*") if chunk.is_file())

    def block(self, index: int) -> slice:
        """The stimuli of a block."""
        return self.blocks.stimuli(index)

    def status(self) -> NDArray[np.uint8]:
        """The status of each stimulus in all arrays, shape (n_stimuli,): missing (0), encoded (1) or damaged (2)."""
        return np.concatenate([seen.status for seen in self.blocks.look_at_all()])

    def missing_blocks(self) -> list[int]:
        """The blocks that are not done, in order."""
        return [int(block) for block in np.unique(np.flatnonzero(self.status() == MISSING) // self.block_size)]

    def damaged_blocks(self) -> list[int]:
        """The blocks that are done and not as they were written, in order; reads the whole store."""
        seen = self.blocks.look_at_all(thoroughly=True)
        return [index for index, block in enumerate(seen) if block.state == "damaged"]

    def forget(self, indices: Iterable[int]) -> None:
        """Make blocks missing, so that they are done again."""
        with storage_errors(self.path, _KEPT):
            for index in indices:
                for array in self._arrays:
                    remove(array.status_chunk(index))
                    flush(next(parent for parent in array.status_chunk(index).parents if parent.exists()))
                self._remove_folders(index)

    def _remove_folders(self, index: int) -> None:
        """Remove folders that have the name of a chunk of the block; files are replaced when it is written."""
        chunks = [array.chunk(index) for array in self._arrays]
        for chunk in [*chunks, *([self.blocks.ledger.chunk(index)] if self.blocks.ledger else [])]:
            if chunk.is_dir():
                remove(chunk)

    def encoded_from(self) -> NDArray[np.uint64]:
        """The fingerprints that `write` was given, shape (n_stimuli, 2); 0 for stimuli without any."""
        known = np.zeros((len(self.blocks) * self.block_size, 2), np.uint64)
        with reading(self.path):
            for index in range(len(self.blocks)) if self.blocks.ledger else ():
                record = self.blocks.ledger.read(index)  # type: ignore[union-attr]
                if record is not None:
                    known[index * self.block_size : (index + 1) * self.block_size] = record.stimuli
        return known[: self.n_stimuli]

    def write(
        self,
        index: int,
        responses: Sequence[NDArray[np.float32]],
        status: NDArray[np.uint8],
        encoded_from: NDArray[np.uint64] | None = None,
    ) -> None:
        """Write a block: first all responses and, when they are on the disk, their seals and their status.

        Parameters
        ----------
        responses
            One array per array of the store, shape (stimuli of the block, ...).
        status
            Shape (stimuli of the block,).
        encoded_from
            Shape (stimuli of the block, 2): fingerprints of the stimuli, and of size and time of their files; or 0.
        """
        if not self.alone:
            check_same(self.path, read_identity(self.path), self.identity)
        with storage_errors(self.path, _KEPT):
            for array, values in zip(self._arrays, responses, strict=True):
                array.responses[self.block(index)] = values
                flush_chunk(array.chunk(index), array.folder / array.name)
            self._write_record(index, status, encoded_from)
            for array in self._arrays:
                array.status[self.block(index)] = status
                flush_chunk(array.status_chunk(index), array.folder / STATUS)

    def _write_record(self, index: int, status: NDArray[np.uint8], encoded_from: NDArray[np.uint64] | None) -> None:
        ledger = self.blocks.ledger
        if ledger is None:
            return
        stimuli = np.zeros((self.block_size, 2), np.uint64)
        if encoded_from is not None:
            stimuli[: len(encoded_from)] = encoded_from
        tails = [read_tail(array.chunk(index)) for array in self._arrays]
        seals = [ledger.seal(index, array, tail, status, stimuli) for array, tail in enumerate(tails)]
        ledger.write(index, Record(np.array(seals, np.uint64), stimuli))
        flush_chunk(ledger.chunk(index), ledger.folder / "c")


def open_responses(path: str | Path, incomplete: Literal["raise", "warn"] = "raise") -> Labelled:
    """The responses in a store, read from the disk when they are used.

    Parameters
    ----------
    incomplete
        What to do if stimuli are missing: ``raise``, or ``warn``; then their rows are NaN, and their ``status`` is 0.

    Returns
    -------
    labelled
        A Dataset, or a DataTree for several outputs or several models; as `label_responses` makes them, and with
        the coordinate ``status``.

    Raises
    ------
    StoreIncompleteError
        If stimuli are missing; it says how many.
    CorruptedFileError
        If something is not as it was written; also later, when responses are read.
    MissingFileError, StoreMismatchError, StorageError
        If there is nothing, or something else, or it may not be read.
    """
    store = Path(path)
    identity = read_identity(store)
    _check_labels(store, identity)
    blocks = Blocks(store, identity)
    seen = blocks.look_at_all()
    if blocks.ledger:
        _check_blocks(blocks, seen)
    with reading(store):
        labelled = _open_labelled(blocks, identity, seen)
    n_missing = sum(int((block.status == MISSING).sum()) for block in seen)
    if n_missing:
        words = (
            f"{store} lacks {n_missing:,} of {blocks.n_stimuli:,} stimuli. "
            "To resume, make the call that began it again (the same models, stimuli and options)."
        )
        if incomplete == "raise":
            raise StoreIncompleteError(f'{words} To look at what is there: open_responses(..., incomplete="warn").')
        warnings.warn(words, IncompleteStoreWarning, stacklevel=users_stacklevel())
    return labelled


def _check_labels(store: Path, identity: Identity) -> None:
    if damaged := damaged_labels(store, identity):
        raise CorruptedFileError(
            f"{store}: {len(damaged)} files with labels are not as they were written ({listing(damaged, most=3)}). "
            f"Make the call that began it again: it writes them again, and keeps what is whole."
        )


def _check_blocks(blocks: Blocks, seen: Sequence[Seen]) -> None:
    damaged = [index for index, block in enumerate(seen) if block.state == "damaged"]
    if damaged:
        first = blocks.stimuli(damaged[0])
        raise CorruptedFileError(
            f"{blocks.path}: {len(damaged):,} of {len(blocks):,} blocks are not as they were written, the first with "
            f"the stimuli {first.start:,} to {first.stop - 1:,}. Make the call that began it again: it computes "
            f"these again, and nothing else. All that is damaged:  berg verify {blocks.path}"
        )


def _open_labelled(blocks: Blocks, identity: Identity, seen: Sequence[Seen]) -> Labelled:
    status = np.concatenate([block.status for block in seen])
    groups = [path.rpartition("/")[0] for path in identity["arrays"]]
    datasets = {}
    for number, group in enumerate(groups):
        dataset = xr.open_zarr(blocks.path, group=group or None, chunks=None)
        dataset = dataset.assign_coords({STATUS: ("stimulus", status, dataset[STATUS].attrs)})
        name = blocks.arrays[number].name
        lazy = xr.Variable(dataset[name].dims, lazy_responses(blocks, number, seen), dataset[name].attrs)
        lazy.encoding = dataset[name].encoding
        datasets[group] = index_regions(with_texts(dataset.assign({name: lazy})))
    if groups == [""]:
        datasets[""].attrs.pop(IDENTITY)
        return datasets[""]
    # In their order: xarray's open_datatree sorts by name, from_dict by depth.
    first_level = {group.split("/")[0]: xr.Dataset() for group in groups}
    return xr.DataTree.from_dict(first_level | datasets)


def count_missing(path: Path) -> int:
    """Count the stimuli of a store that are not encoded yet, or lost or damaged as far as the ledger shows."""
    blocks = Blocks(path, read_identity(path))
    missing = [blocks.stimuli(index) for index, seen in enumerate(blocks.look_at_all()) if seen.state != "whole"]
    return sum(stimuli.stop - stimuli.start for stimuli in missing)


def verify_store(path: str | Path) -> StoreReport:
    """Read a whole store, and compare it with its checksums.

    Raises
    ------
    CorruptedFileError
        If the labels are so damaged that the responses cannot be found.
    MissingFileError, StoreMismatchError, StorageError
        As in `open_responses`.
    """
    store = Path(path)
    identity = read_identity(store)
    labels = damaged_labels(store, identity)
    blocks = Blocks(store, identity)
    states = [seen.state for seen in blocks.look_at_all(thoroughly=True)]
    stimuli = [blocks.stimuli(index) for index in range(len(blocks))]
    return StoreReport(
        n_stimuli=blocks.n_stimuli,
        has_checksums=blocks.ledger is not None,
        n_missing=sum(s.stop - s.start for s, state in zip(stimuli, states, strict=True) if state == "missing"),
        damaged=[(s.start, s.stop - 1) for s, state in zip(stimuli, states, strict=True) if state == "damaged"],
        damaged_labels=labels,
    )


def restore_labels(
    path: Path,
    labelled: Mapping[str, Labelled],
    identity: Identity,
    block_size: int,
    compression: Compression = "none",
) -> None:
    """Write labels and descriptions of a store again, as `ResponseStore.create` does; the responses stay."""
    with storage_errors(path, _KEPT):
        new = write_frame(path, labelled, identity, block_size, compression)
        last = new / LEDGER / "zarr.json"  # it has the checksums of the others
        files = sorted(file for file in new.rglob("*") if file.is_file() and file != last)
        for file in [*files, last]:
            target = path / file.relative_to(new)
            remove(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
            flush(target.parent)
        shutil.rmtree(new)


def read_names(path: Path) -> list[Any]:
    """The names of the stimuli of a store."""
    group = read_identity(path)["arrays"][0].rpartition("/")[0]
    with reading(path), xr.open_zarr(path, group=group or None, chunks=None) as dataset:
        names: list[Any] = dataset["stimulus"].values.tolist()
    return names


def read_identity(path: Path) -> dict[str, Any]:
    """The fingerprints of what a store was begun with, and its layout."""
    with reading(path):
        if not path.exists():
            raise MissingFileError(f"There is no store {path}.")
        described = read_description(path)
        found: Any = described["identity"] if described else read_attributes(path).get(IDENTITY)
        has_ledger = (path / LEDGER).exists()
    if found is None and not has_ledger:
        raise StoreMismatchError(f"{path} is not a store of responses. Give another path.")
    if not _is_identity(found):
        raise CorruptedFileError(
            f"What {path} holds is no longer readable: its descriptions (zarr.json) are damaged. Give another path, or "
            "overwrite=True (--overwrite) to replace it."
        )
    identity: dict[str, Any] = found
    return identity


def _is_identity(found: Any) -> bool:
    size, arrays = (found.get("block_size"), found.get("arrays")) if isinstance(found, dict) else (None, None)
    is_size = isinstance(size, int) and not isinstance(size, bool) and size > 0
    return is_size and isinstance(arrays, list) and bool(arrays) and all(isinstance(path, str) for path in arrays)


def check_same(path: Path, found: Identity, wanted: Identity) -> None:
    """Raise StoreMismatchError, with each difference, if a store was begun with something else than what is wanted.

    Compares only the parts that `wanted` has, so that a store can say more.
    """
    there, here = _flat(found), _flat(wanted)
    known = {key.split(".")[0] for key in here}
    differences = [
        f"{key}: {_shown(there.get(key))} there, {_shown(here.get(key))} here"
        for key in dict.fromkeys([*here, *(key for key in there if key.split(".")[0] in known)])
        if there.get(key) != here.get(key)
    ]
    if differences:
        raise StoreMismatchError(
            f"{path} was begun with something else ({'; '.join(differences)}). Give what it was begun with, "
            "another path, or overwrite=True (--overwrite) to replace it."
        )


def remove_store(path: Path) -> None:
    """Remove a store, also a damaged one. Raise StoreMismatchError for anything else."""
    with suppress(CorruptedFileError):
        read_identity(path)
    gone = path.with_name(f".{path.name}.new")
    with storage_errors(path, _KEPT):
        shutil.rmtree(gone, ignore_errors=True)
        path.rename(gone)  # at once: half a store under the name would be taken for a whole one
        shutil.rmtree(gone)


def _flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in nested.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value:,}" if isinstance(value, int) else f"{value!s:.80}"
