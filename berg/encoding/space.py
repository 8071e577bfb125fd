"""Whether what is to be encoded fits on the disk and into memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from berg.core.exceptions import DeviceMemoryError, StorageError

if TYPE_CHECKING:
    from berg.encoding.stream import Task
    from berg.responses.store import Compression

N_BLOCKS_HELD = 3  # one is filled, one waits, one is written
_N_READ_AHEAD = 2  # batches more than there are threads
_KEPT_BYTES = 2**25 - 2**16  # a little less than 32 MiB, above which glibc learns nothing
_COMPRESSED = {"none": 1.0, "zstd": 0.5, "lz4": 0.5}  # of responses, at best; measured 0.54 to 0.94
_CHECKSUM_BYTES = 4  # after each chunk
_CGROUP = Path("/sys/fs/cgroup")


def reuse_freed_memory() -> None:
    """Let memory that was used for one batch be used for the next, where the C library is glibc.

    glibc gives what is freed back to the system, and asks for it anew, unless an array as large was freed before: it
    then keeps twice as much. Without this the built-in model took up to twice the processor's time, as it happened.
    """
    np.empty(_KEPT_BYTES, np.uint8)


def check_fits(
    task: Task,
    path: Path,
    compression: Compression,
    n_blocks: int,
    workers: int | None = None,
    ratio: float | None = None,
) -> None:
    """Nothing, or an error where the disk or the memory is too small for so many blocks.

    Parameters
    ----------
    ratio
        Of compressed to plain bytes. None: the smallest that is to be hoped for.

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


def check_array_memory(shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise DeviceMemoryError where float32 arrays of these shapes do not fit into memory together.

    The system would give them out all the same, and end the process when they are filled.
    """
    needed, free = sum(4 * int(np.prod(shape)) for shape in shapes), free_memory()
    if needed > free:
        raise DeviceMemoryError(
            f"The responses need {size_words(needed)} of memory, and {size_words(free)} are free. Have them written to "
            'the disk while they are computed, with out="NAME.zarr" (--out NAME.zarr), or select fewer units '
            "(selection=..., --selection)."
        )


def free_memory() -> int:
    """Bytes of memory that this process can still have: of the machine, or of its group where that has less."""
    return min([int(psutil.virtual_memory().available), *_group_limits()])


def _group_limits() -> Iterator[int]:
    """What the limits of clusters and containers leave (Linux, version 2 of the control groups)."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").rpartition("::/")[2].strip()
    except OSError:
        return
    group = _CGROUP / own
    for folder in [group, *group.parents]:
        try:
            yield int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
        except (OSError, ValueError):  # no such file, or "max"
            continue


def disk_bytes(task: Task, n_blocks: int, ratio: float) -> int:
    """Bytes of so many blocks on the disk: responses, the status in each array, and what the ledger says of them."""
    responses = task.block_size * (task.row_bytes * ratio + task.n_arrays) + 2 * _CHECKSUM_BYTES * task.n_arrays
    record = 8 * (task.n_arrays + 2 * task.block_size) + _CHECKSUM_BYTES
    return int(n_blocks * (responses + record))


def _buffer_bytes(task: Task, workers: int | None) -> int:
    """Blocks of responses, and batches of stimuli as read and as stacked."""
    stimulus_bytes = int(np.prod(task.stimuli.shape)) * np.dtype(task.in_order[0].expected_input.dtype or "f4").itemsize
    ahead = task.n_readers(workers) + _N_READ_AHEAD
    return N_BLOCKS_HELD * task.block_size * task.row_bytes + 2 * ahead * task.batch_size * stimulus_bytes


def size_words(n_bytes: float) -> str:
    """Bytes in words.

    >>> size_words(2_340_000_000)
    '2.3 GB'
    """
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:,.1f} MB"
