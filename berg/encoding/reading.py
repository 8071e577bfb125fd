"""The stimuli of a task, read batch by batch by threads, ahead of the network that encodes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import StimulusError
from berg.encoding.encoded_stimuli import file_states, fingerprints
from berg.encoding.task import Task


@dataclass(frozen=True)
class ReadBatch:
    """Neighbouring stimuli as they were read.

    Attributes
    ----------
    values
        Shape (n_stimuli, ...); zeros for those that could not be read.
    damaged
        The indices, in the batch, of those that could not be read.
    fingerprints
        Shape (n_stimuli, 2), as `berg.responses.store.ResponseStore.write` takes them.
    """

    values: NDArray[Any]
    damaged: list[int]
    fingerprints: NDArray[np.uint64]


def read_batch(task: Task, indices: slice) -> ReadBatch:
    """Read some stimuli of a task.

    Raises
    ------
    StimulusError
        If one cannot be read and is not to be skipped; with its name.
    """
    states = file_states(task.files, indices, len(task.names))  # before: a file that changes meanwhile is noticed
    values, damaged = _read_values(task, indices)
    hashes = fingerprints(values)
    hashes[damaged] = 0
    return ReadBatch(values, damaged, np.stack([hashes, states], axis=1))


def _read_values(task: Task, indices: slice) -> tuple[NDArray[Any], list[int]]:
    try:
        return task.stimuli.read(indices), []
    except StimulusError:
        rows = [_read_one(task, index) for index in range(indices.start, indices.stop)]
    readable = [row for row in rows if row is not None]
    dtype = readable[0].dtype if readable else np.dtype(task.in_order[0].expected_input.dtype or "float32")
    values = np.zeros((len(rows), *task.stimuli.shape), dtype)
    values[[number for number, row in enumerate(rows) if row is not None]] = readable or 0
    return values, [number for number, row in enumerate(rows) if row is None]


def _read_one(task: Task, index: int) -> NDArray[Any] | None:
    """One stimulus, or None if it is damaged and to be skipped; one of another size is not damaged, but a mistake."""
    try:
        row: NDArray[Any] = task.stimuli.read(slice(index, index + 1))[0]
        return row
    except StimulusError as error:
        is_damaged = not _can_be_opened(task, index)
        if is_damaged and task.on_damaged == "skip":
            return None
        hint = ' Fix it, or give on_damaged="skip" (--on-damaged skip) to leave it out.' if is_damaged else ""
        raise StimulusError(
            f"Stimulus '{task.names[index]}' (number {index:,} of {len(task.names):,}, from 0): {error}{hint} "
            "What is encoded already is kept."
        ) from error


def _can_be_opened(task: Task, index: int) -> bool:
    try:
        return task.open_one is not None and len(task.open_one(index)) == 1
    except StimulusError:
        return False
