"""Whether a store that is continued holds the numbers that are computed now."""

from __future__ import annotations

import numpy as np

from berg.core.exceptions import StimulusError, StoreMismatchError
from berg.encoding.reading import read_batch
from berg.encoding.task import Task
from berg.models.batches import Batch, batch_slices, encode_batches, response_arrays
from berg.responses.blocks import ENCODED
from berg.responses.store import ResponseStore

CLOSE = 1e-3
"""Of the standard deviation of the batch: far more than other hardware does in float32, far less than other code."""
CLOSE_IN_HALF = 5e-2
"""In half precision, where other hardware rounds elsewhere."""


def check_numbers(store: ResponseStore, task: Task) -> None:
    """Encode the first batch of the first complete block again, and compare it with what the store holds.

    A store says which model, weights and options it is of, but the code of this package may have changed since.

    Raises
    ------
    StoreMismatchError
        If the numbers are not the same.
    """
    rows = _first_batch(store, task)
    if rows is None or (task.is_in_sequence and rows.start):  # a frame needs all those before it
        return
    try:
        batch = read_batch(task, rows)
    except StimulusError:  # it says so when its turn comes
        return
    arrays = [response_arrays(model, len(batch.values)) for model in task.in_order]
    for _ in encode_batches(
        task.in_order, [Batch(batch.values, slice(0, len(batch.values)), lambda: arrays)], task.batch_size
    ):
        pass
    computed = [array for outputs in arrays for array in outputs]
    close = max(CLOSE if model.precision == "float32" else CLOSE_IN_HALF for model in task.in_order)
    whole = np.setdiff1d(np.arange(len(batch.values)), batch.damaged)
    for stored, now in zip(store.blocks.arrays, computed, strict=True):
        then = np.asarray(stored.responses[rows])
        off = float(np.max(np.abs(then[whole] - now[whole]), initial=0)) / max(float(np.std(now[whole])), 1e-30)
        if off > close:
            raise StoreMismatchError(
                f"{store.path} holds other numbers than are computed now: its first responses differ by {off:.2g} of "
                "their standard deviation. It was begun with another version of this package, of PyTorch or of the "
                "model's code. Continue with that version, or begin again with overwrite=True (--overwrite)."
            )


def _first_batch(store: ResponseStore, task: Task) -> slice | None:
    """The first batch of the first block that is encoded; None if no block is, or none is missing."""
    missing = set(store.missing_blocks())
    complete = [index for index in range(len(store.blocks)) if index not in missing]
    if not missing or not complete:
        return None
    stimuli = store.block(complete[0])
    if not (store.status()[stimuli] == ENCODED).any():
        return None
    return next(batch_slices(stimuli.stop - stimuli.start, task.batch_size, first=stimuli.start))
