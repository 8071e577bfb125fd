"""Whether what is to be encoded fits on the disk and into memory."""

from __future__ import annotations

import shutil
from pathlib import Path

from berg.core.exceptions import DeviceMemoryError, StorageError
from berg.encoding.task import Task
from berg.responses.store import Compression
from berg.system.memory import free_memory, size_words

N_BLOCKS_HELD = 3  # one is filled, one waits, one is written
_N_READ_AHEAD = 2  # batches more than there are threads
_COMPRESSED = {"none": 1.0, "zstd": 0.5, "lz4": 0.5}  # the smallest ratio of responses; measured 0.54 to 0.94
_CHECKSUM_BYTES = 4  # after each chunk


def check_fits(
    task: Task,
    path: Path,
    compression: Compression,
    n_blocks: int,
    workers: int | None = None,
    ratio: float | None = None,
) -> None:
    """Raise StorageError or DeviceMemoryError if the disk or the memory is too small for so many blocks.

    Parameters
    ----------
    ratio
        Of compressed to plain bytes. None: the smallest that can be expected.

    Raises
    ------
    StorageError, DeviceMemoryError
        They say what would fit.
    """
    disk, free = disk_bytes(task, n_blocks, ratio or _COMPRESSED[compression]), shutil.disk_usage(path.parent).free
    if disk > free:
        other = ', try compression="zstd" (--compression zstd)' if compression == "none" else ""
        raise StorageError(
            f"The responses need {size_words(disk)} on disk, and {path.parent} has {size_words(free)} free. Make room, "
            f"give a path on another disk, select fewer units (selection=..., --selection){other}."
        )
    memory, free = _buffer_bytes(task, workers), free_memory()
    if memory > free:
        fits = max(1, int(task.batch_size * free / memory))
        fewer = f"Try batch_size={fits} (--batch-size {fits})"
        what = fewer if fits < task.batch_size else "Select fewer units (selection=..., --selection)"
        raise DeviceMemoryError(
            f"{task.batch_size:,} stimuli at a time need {size_words(memory)} of memory, and {size_words(free)} are "
            f"free. {what}."
        )


def disk_bytes(task: Task, n_blocks: int, ratio: float) -> int:
    """Bytes of so many blocks on the disk: responses, the status in each array, and their records in the ledger."""
    responses = task.block_size * (task.row_bytes * ratio + task.n_arrays) + 2 * _CHECKSUM_BYTES * task.n_arrays
    record = 8 * (task.n_arrays + 2 * task.block_size) + _CHECKSUM_BYTES
    return int(n_blocks * (responses + record))


def _buffer_bytes(task: Task, workers: int | None) -> int:
    """Blocks of responses, and batches of stimuli as read and as stacked."""
    ahead = task.n_readers(workers) + _N_READ_AHEAD
    return N_BLOCKS_HELD * task.block_size * task.row_bytes + 2 * ahead * task.batch_size * task.stimulus_bytes
