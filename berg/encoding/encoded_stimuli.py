"""Whether stimuli are still those that a store was encoded from: a fingerprint of each, and of its file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import StimulusError, StoreMismatchError, listing
from berg.encoding.task import Task
from berg.responses.blocks import DAMAGED, ENCODED
from berg.responses.store import ResponseStore
from berg.system.progress import progress_bar

AT_LEAST = 64  # stimuli that are compared when a store is continued, or as many as hold so many bytes:
_AT_LEAST_BYTES = 2**26
_BAR_FROM = 1000  # stimuli; comparing so many shows a bar


def fingerprints(stimuli: NDArray[Any]) -> NDArray[np.uint64]:
    """Hash the values of each stimulus, as the network takes them.

    By crc32c, at a hundredth of what hashing files costs: of 4,000 million changes one is not noticed.

    Returns
    -------
    hashes
        Shape (n_stimuli,); never 0.
    """
    rows = np.ascontiguousarray(stimuli).reshape(len(stimuli), -1).view(np.uint8)
    kind = google_crc32c.value(f"{stimuli.dtype.str} {stimuli.shape[1:]}".encode())
    return np.array([1 + google_crc32c.extend(kind, row) for row in rows], np.uint64)


def file_states(files: Sequence[Path] | None, stimuli: slice, n_stimuli: int) -> NDArray[np.uint64]:
    """Hash the size and time of the file of each stimulus.

    Parameters
    ----------
    files
        One per stimulus, or one of all (a video).

    Returns
    -------
    hashes
        One per stimulus of the slice; 0 if it has no file.
    """
    indices = range(*stimuli.indices(n_stimuli))
    if not files or len(files) not in (1, n_stimuli):
        return np.zeros(len(indices), np.uint64)
    if len(files) == 1:
        return np.full(len(indices), _state(files[0]), np.uint64)
    return np.array([_state(files[index]) for index in indices], np.uint64)


def check_stimuli(store: ResponseStore, task: Task, every: bool = False) -> None:
    """Raise StoreMismatchError if stimuli of a store are not those that it was encoded from.

    Compares those whose file has another size or time than it had, and some of the others, chosen at random.

    Parameters
    ----------
    every
        Compare all that are encoded.
    """
    status, known = store.status(), store.encoded_from()
    encoded = np.flatnonzero((status == ENCODED) & (known[:, 0] != 0))
    chosen = encoded if every else _chosen(encoded, known[:, 1], task)
    different = _different(chosen, known[:, 0], task)
    if different:
        names = listing([task.names[index] for index in different], most=5)
        raise StoreMismatchError(
            f"{store.path} holds responses to other stimuli: {len(different):,} of the {len(chosen):,} stimuli that "
            f"were compared are not those that were encoded ({names}). Give the stimuli that it was begun with, "
            "another path, or overwrite=True (--overwrite) to replace it."
        )


def readable_now(store: ResponseStore, task: Task) -> list[int]:
    """The blocks with stimuli that could not be read when they were encoded, and can be read now."""
    damaged = np.flatnonzero(store.status() == DAMAGED)
    readable = [index for index, value in zip(damaged, _read(damaged, task), strict=True) if value]
    return sorted({int(index) // store.block_size for index in readable})


def _chosen(encoded: NDArray[np.intp], states: NDArray[np.uint64], task: Task) -> NDArray[np.intp]:
    now = file_states(task.files, slice(0, len(task.names)), len(task.names))
    changed = encoded[now[encoded] != states[encoded]]
    number = min(len(encoded), max(AT_LEAST, _AT_LEAST_BYTES // max(1, task.stimulus_bytes)))
    some = np.random.default_rng().choice(encoded, number, replace=False)
    return np.union1d(changed, some)


def _different(chosen: NDArray[np.intp], known: NDArray[np.uint64], task: Task) -> list[int]:
    return [int(index) for index, value in zip(chosen, _read(chosen, task), strict=True) if value != known[index]]


def _read(indices: NDArray[np.intp], task: Task) -> list[int]:
    """The fingerprints of some stimuli, read one by one; 0 for one that cannot be read."""
    show = None if len(indices) >= _BAR_FROM else False
    hashes = []
    with (
        progress_bar("comparing stimuli", len(indices), "stimuli", show) as advance,
        ThreadPoolExecutor(task.n_readers(None)) as readers,
    ):
        for value in readers.map(lambda index: _fingerprint(int(index), task), indices):
            hashes.append(value)
            advance(1)
    return hashes


def _fingerprint(index: int, task: Task) -> int:
    try:
        return int(fingerprints(task.stimuli.read(slice(index, index + 1)))[0])
    except StimulusError:
        return 0


def _state(file: Path) -> int:
    try:
        state = os.stat(file)
    except OSError:  # it is read later, which says what is wrong
        return 1
    return 1 + int(google_crc32c.value(f"{state.st_size} {state.st_mtime_ns}".encode()))
