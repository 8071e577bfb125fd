"""How much disk, memory and time encoding to a store takes, and whether it fits."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.encoding.space import N_BLOCKS_HELD, check_fits, disk_bytes
from berg.encoding.stream import fill
from berg.encoding.task import Models, Task, block_size, prepare
from berg.encoding.task_store import create
from berg.models.device import device_memory
from berg.responses.store import Compression
from berg.stimuli.readers import Stimuli
from berg.system.memory import free_memory, peak_memory, size_words

_SECONDS = 3.0  # a shorter measurement tells little


@dataclass(frozen=True)
class Estimate:
    """What encoding to a store takes.

    Attributes
    ----------
    disk_bytes
        Of the responses in the store.
    memory_bytes
        The most that this process will have in memory, with all that it has already.
    seconds
        From the first stimulus to the last, on this machine.
    stimuli_per_second
        As measured.
    free_disk_bytes, free_memory_bytes
        What there is now.
    device_memory_bytes, free_device_memory_bytes
        The most that this process will have of the GPU, and can have; None without one.
    """

    disk_bytes: int
    memory_bytes: int
    seconds: float
    stimuli_per_second: float
    free_disk_bytes: int
    free_memory_bytes: int
    device_memory_bytes: int | None = None
    free_device_memory_bytes: int | None = None

    def __str__(self) -> str:
        of_gpu = ""
        if self.device_memory_bytes is not None:
            free = size_words(self.free_device_memory_bytes or 0)
            of_gpu = f"; {size_words(self.device_memory_bytes)} of memory of the GPU ({free} free)"
        return (
            f"{self.seconds / 60:,.1f} minutes at {self.stimuli_per_second:,.1f} stimuli/s; "
            f"{size_words(self.disk_bytes)} on disk ({size_words(self.free_disk_bytes)} free); "
            f"{size_words(self.memory_bytes)} of memory ({size_words(self.free_memory_bytes)} free){of_gpu}"
        )


def estimate(
    models: Models,
    stimulus: Any,
    path: str | Path,
    *,
    n_stimuli: int | None = None,
    sampling_rate: int | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    compression: Compression = "none",
) -> Estimate:
    """What `encode_to_store` would take, measured on some batches that are encoded to the same disk.

    The first batch is not counted; then two, or as many as fill three seconds.

    Parameters
    ----------
    stimulus
        The stimuli, or some of them.
    path
        Where the store is to be.
    n_stimuli
        How many there will be, if `stimulus` has only some of them.

    Raises
    ------
    StorageError, DeviceMemoryError
        If it does not fit; they say what would.

    Examples
    --------
    >>> import numpy as np
    >>> from berg import BERG
    >>> model = BERG().get_encoding_model("fmri-szinte2024-prf_css", device="cpu")
    >>> pictures = np.zeros((32, 3, 64, 64), dtype="uint8")
    >>> estimate(model, pictures, "responses.zarr", n_stimuli=73_000).disk_bytes
    677180504
    """
    store_path = Path(path).expanduser()
    folder = store_path.parent
    if not folder.is_dir():
        raise InvalidParameterError(f"The folder {folder} does not exist. Make it first.")
    task = prepare(models, stimulus, sampling_rate=sampling_rate, batch_size=batch_size, on_damaged="skip")
    total = len(task.names) if n_stimuli is None else n_stimuli
    task = replace(task, block_size=block_size(total, task.batch_size, task.row_bytes))
    n_blocks = -(-total // task.block_size)
    check_fits(task, store_path, compression, n_blocks, workers)
    n_done, seconds, ratio = _measure(task, folder, workers, compression)
    check_fits(task, store_path, compression, n_blocks, workers, ratio)
    on_device = device_memory(task.in_order[0].device) or (None, None)
    held = max(0, N_BLOCKS_HELD * min(total, task.block_size) - n_done) * task.row_bytes
    return Estimate(
        disk_bytes=disk_bytes(task, n_blocks, ratio),
        memory_bytes=peak_memory() + held,
        seconds=total * seconds / n_done,
        stimuli_per_second=n_done / seconds,
        free_disk_bytes=shutil.disk_usage(folder).free,
        free_memory_bytes=free_memory(),
        device_memory_bytes=on_device[0],
        free_device_memory_bytes=on_device[1],
    )


def _measure(task: Task, folder: Path, workers: int | None, compression: Compression) -> tuple[int, float, float]:
    """How many stimuli were encoded in how many seconds, and by how much they were compressed."""
    _encode_some(task, task.batch_size, folder, workers, compression)
    n_stimuli = 2 * task.batch_size
    while True:
        n_done, seconds, ratio = _encode_some(task, n_stimuli, folder, workers, compression)
        if seconds >= _SECONDS or n_done == len(task.names):
            return n_done, seconds, ratio
        n_stimuli = int(n_stimuli * max(1.5, min(8.0, 1.2 * _SECONDS / seconds)))


def _encode_some(
    task: Task, n_stimuli: int, parent: Path, workers: int | None, compression: Compression
) -> tuple[int, float, float]:
    some = replace(task, stimuli=_First(task.stimuli, n_stimuli), names=task.names[:n_stimuli])
    for model in some.in_order:
        model.set_stimuli(some.stimuli)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".estimate-") as folder:
        store = create(Path(folder, "measured.zarr"), some, some.identity(compression), compression)
        began = time.perf_counter()
        fill(store, some, show_progress=False, workers=workers)
        seconds = time.perf_counter() - began
        return len(some.names), seconds, store.stored_bytes() / max(1, store.n_bytes)


class _First:
    """The first few of some stimuli."""

    def __init__(self, stimuli: Stimuli, n_stimuli: int) -> None:
        self.stimuli, self.shape = stimuli, stimuli.shape
        self.n_stimuli = min(n_stimuli, len(stimuli))
        self.is_one_film = getattr(stimuli, "is_one_film", False)

    def __len__(self) -> int:
        return self.n_stimuli

    def read(self, indices: slice) -> NDArray[Any]:
        return self.stimuli.read(indices)
