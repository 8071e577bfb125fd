"""Responses of any size, encoded straight to disk, and continued after any interruption.

    stimuli -> read ahead by threads -> network, batch by batch -> block -> written by a thread

Nothing but the names of the stimuli is kept for all of them. What is on disk is described in
`berg.responses.store`.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import listing
from berg.core.stacklevel import users_stacklevel
from berg.encoding.reading import ReadBatch, read_batch
from berg.encoding.same_numbers import check_numbers
from berg.encoding.space import N_BLOCKS_HELD
from berg.encoding.task import Models, OnDamaged, Task, check_options, prepare
from berg.encoding.task_store import check_folder, open_or_create
from berg.models.batches import Arrays, Batch, batch_slices, encode_batches, response_arrays
from berg.models.encoding_model import EncodingModel
from berg.responses.blocks import DAMAGED, ENCODED
from berg.responses.labelled import Labelled
from berg.responses.store import (
    Compression,
    ResponseStore,
    open_responses,
    read_identity,
    remove_store,
)
from berg.system.interruption import told_if_interrupted
from berg.system.locks import store_lock
from berg.system.progress import progress_bar
from berg.system.threads import Threads


class DamagedStimulusWarning(UserWarning):
    """Stimuli that could not be read were left out."""


def encode_to_store(
    models: Models,
    stimulus: Any,
    path: str | Path,
    *,
    sampling_rate: int | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    on_damaged: OnDamaged = "raise",
    show_progress: bool | None = None,
    workers: int | None = None,
    compression: Compression | None = None,
    stimulus_names: Sequence[str] | None = None,
    verify_stimuli: bool = False,
) -> Labelled:
    """The in silico responses to the stimuli, written to a zarr store while they are computed.

    Memory stays the same at any number of stimuli. After an interruption of any kind the same call resumes, and ends
    with the same bits as without one (on the same machine, with the same number of threads). How many stimuli are
    computed together can change the last bits, so the store keeps that number; fewer are computed together only if
    the device has too little memory, with a SmallerBatchWarning.

    What is in the store already is read and compared with its checksums; what is damaged is computed again, and nothing
    else. A complete store can be in a folder that cannot be written to.

    Parameters
    ----------
    models
        A loaded model; or several, as a list or by names, which get a group each. Features that they share are
        computed once.
    stimulus
        As in `EncodingModel.generate_response`.
    path
        The store, a folder such as ``responses.zarr``.
    sampling_rate
        Of sounds in arrays, hertz.
    batch_size
        How many stimuli are computed together. None: that of the store, or of the models.
    overwrite
        Replace a store that is there already; anything else than a store of responses is refused.
    on_damaged
        What to do with a stimulus that cannot be read: ``raise``, or ``skip``, which leaves a row of NaN whose
        ``status`` is 2, and warns at the end.
    show_progress
        None: a bar if standard error is a terminal.
    workers
        Threads that read stimuli ahead. None: four for files, one for everything else.
    compression
        ``none``; ``zstd`` or ``lz4``, which save about a tenth and are read more slowly. None: that of the
        store, or ``none``.
    stimulus_names
        One per stimulus. None: the names of the files, or numbers.
    verify_stimuli
        Compare all stimuli that are encoded already with what was encoded, not only some of them (those whose files
        have another size or time, and others chosen by chance: as many as hold 64 MB, at least 64).

    Returns
    -------
    labelled
        The responses, read from the store when they are looked at; see `open_responses`.

    Raises
    ------
    StoreMismatchError
        If the store belongs to other models, stimuli or options; it names each difference.
    CorruptedFileError
        If the store is too damaged to be continued.
    StoreBusyError
        If another process writes to the store.
    StorageError, DeviceMemoryError
        Before the start, if the disk or the memory is too small; later, if the disk fills up.
    StimulusError, InvalidParameterError, ModelNotLoadedError

    Warns
    -----
    DamagedStimulusWarning
        With the names of the stimuli that were left out.
    DamagedStoreWarning
        With what is computed again.
    """
    check_options(on_damaged, workers, compression)
    store_path = Path(path).expanduser()
    check_folder(store_path)
    with store_lock(store_path) as held:
        is_there = store_path.exists()
        begun = read_identity(store_path) if is_there and not overwrite else {}
        task = prepare(
            models,
            stimulus,
            sampling_rate=sampling_rate,
            batch_size=begun.get("batch_size") if batch_size is None else batch_size,
            on_damaged=on_damaged,
            stimulus_names=stimulus_names,
        )
        if overwrite and is_there:
            remove_store(store_path)
        codec = compression or begun.get("compression") or "none"
        store = open_or_create(store_path, task, codec, verify_stimuli, held)
        check_numbers(store, task)
        with told_if_interrupted(lambda: _kept(store, store_path)):
            fill(store, task, show_progress, workers)
    warn_of_damaged(store, task.names)
    return open_responses(store_path)


def _kept(store: ResponseStore, path: Path) -> str:
    blocks = [store.block(index) for index in store.missing_blocks()]
    n_kept = store.n_stimuli - sum(stimuli.stop - stimuli.start for stimuli in blocks)
    return f"{n_kept:,} of {store.n_stimuli:,} stimuli are kept in {path}; give the same command again to go on"


def fill(
    store: ResponseStore,
    task: Task,
    show_progress: bool | None = None,
    workers: int | None = None,
    blocks: Sequence[int] | None = None,
) -> None:
    """Encode and write the blocks of a store that are missing, or those that are given."""
    missing = store.missing_blocks() if blocks is None else blocks
    n_missing = sum(stimuli.stop - stimuli.start for stimuli in map(store.block, missing))
    names = listing(sorted({model.get_model_id() for model in task.in_order}), most=2)
    with (
        progress_bar(names, store.n_stimuli, "stimuli", show_progress, done=store.n_stimuli - n_missing) as advance,
        Threads(task.n_readers(workers)) as readers,
        Threads(1) as writer,
    ):
        buffers = _Buffers(task.in_order, store.block_size)
        batches = _batches(store, task, missing, readers, buffers)
        for batch in encode_batches(task.in_order, batches, task.batch_size):
            if not isinstance(batch, _BlockBatch):  # of a block that is there already
                continue
            batch.mark()
            advance(len(batch.stimuli))
            if batch.is_last:
                buffers.free_after(writer.submit(batch.block.write_to, store), batch.block.arrays)
        buffers.wait()


class _Buffers:
    """Arrays for the responses of a block, used again and again: new memory costs more than writing to it does."""

    def __init__(self, models: Sequence[EncodingModel], n_stimuli: int) -> None:
        self.models, self.n_stimuli = models, n_stimuli
        self.free: list[Arrays] = []
        self.being_written: deque[tuple[Future[None], Arrays]] = deque()

    def take(self) -> Arrays:
        """Arrays that nobody needs any more; if all wait to be written, when the first of them is."""
        if not self.free and len(self.being_written) >= N_BLOCKS_HELD - 1:
            self._wait_for_one()
        return self.free.pop() if self.free else [_empty(model, self.n_stimuli) for model in self.models]

    def free_after(self, write: Future[None], arrays: Arrays) -> None:
        """Take arrays back when they are written."""
        self.being_written.append((write, arrays))

    def wait(self) -> None:
        """Wait until everything is written; raise what went wrong."""
        while self.being_written:
            self._wait_for_one()

    def _wait_for_one(self) -> None:
        write, arrays = self.being_written.popleft()
        write.result()
        self.free.append(arrays)


@dataclass(frozen=True)
class _Block:
    """A block that is being encoded: its responses, and what the store keeps of its stimuli."""

    index: int
    buffers: _Buffers
    status: NDArray[np.uint8]
    encoded_from: NDArray[np.uint64]

    @cached_property
    def arrays(self) -> Arrays:
        """For each model, arrays as long as a full block; taken when the first batch of the block is computed."""
        return self.buffers.take()

    def rows(self) -> Arrays:
        """The arrays, as long as this block."""
        return [[array[: len(self.status)] for array in outputs] for outputs in self.arrays]

    def write_to(self, store: ResponseStore) -> None:
        """Write it, when all its batches are encoded."""
        responses = [array for outputs in self.rows() for array in outputs]
        store.write(self.index, responses, self.status, self.encoded_from)


@dataclass(frozen=True)
class _BlockBatch(Batch):
    """A batch of a block."""

    block: _Block
    read: ReadBatch

    @property
    def is_last(self) -> bool:
        """Whether the block is complete with it."""
        return bool(self.rows.stop == len(self.block.status))

    def mark(self) -> None:
        """Note what its stimuli were; those that could not be read get responses of NaN."""
        damaged = [self.rows.start + index for index in self.read.damaged]
        self.block.encoded_from[self.rows] = self.read.fingerprints
        self.block.status[damaged] = DAMAGED
        for outputs in self.block.rows() if damaged else ():
            for array in outputs:
                array[damaged] = np.nan


def _batches(
    store: ResponseStore, task: Task, blocks: Sequence[int], readers: Threads, buffers: _Buffers
) -> Iterator[Batch]:
    """The batches of blocks in order, read ahead; of stimuli that need those before them, these too."""
    before = {index: _not_yet_computed(store, task, blocks, number) for number, index in enumerate(blocks)}
    indices = [
        batch
        for block in blocks
        for part in (before[block], store.block(block))
        for batch in _slices(part, task.batch_size)
    ]
    read = readers.map_ahead(lambda batch: read_batch(task, batch), indices)
    for index in blocks:
        for stimuli in _slices(before[index], task.batch_size):
            yield _to_nowhere(task, next(read).values, stimuli.start)
        n_stimuli = store.block(index).stop - store.block(index).start
        status, encoded_from = np.full(n_stimuli, ENCODED, np.uint8), np.zeros((n_stimuli, 2), np.uint64)
        block = _Block(index, buffers, status, encoded_from)
        for rows in batch_slices(n_stimuli, task.batch_size):
            batch = next(read)
            first = store.block(index).start + rows.start
            yield _BlockBatch(batch.values, rows, block.rows, block, batch, first=first)


def _not_yet_computed(store: ResponseStore, task: Task, blocks: Sequence[int], number: int) -> slice:
    """The stimuli between a block and the one that is computed before it, if they are needed and are not written."""
    start = store.block(blocks[number]).start
    return (
        slice(store.block(blocks[number - 1]).stop if number else 0, start)
        if task.is_in_sequence
        else slice(start, start)
    )


def _to_nowhere(task: Task, stimuli: NDArray[Any], first: int) -> Batch:
    """A batch whose responses are there already; what it does to those after it is needed."""
    arrays = [response_arrays(model, len(stimuli)) for model in task.in_order]
    return Batch(stimuli, slice(0, len(stimuli)), lambda: arrays, first=first)


def _empty(model: EncodingModel, n_stimuli: int) -> list[NDArray[np.float32]]:
    return [np.empty((n_stimuli, *shape), np.float32) for shape in model.response_shapes()]


def _slices(stimuli: slice, size: int) -> Iterator[slice]:
    return batch_slices(stimuli.stop - stimuli.start, size, first=stimuli.start)


def warn_of_damaged(store: ResponseStore, names: Sequence[Any]) -> None:
    """Warn of the stimuli that were left out, by name."""
    damaged = [names[index] for index in np.flatnonzero(store.status() == DAMAGED).tolist()]
    if damaged:
        warnings.warn(
            f"{len(damaged):,} of {len(names):,} stimuli could not be read; their rows are NaN and their status is "
            f"{DAMAGED}: {listing(damaged)}.",
            DamagedStimulusWarning,
            stacklevel=users_stacklevel(),
        )
