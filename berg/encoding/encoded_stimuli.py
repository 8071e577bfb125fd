"""Whether stimuli are still those that a store was encoded from: a fingerprint of each, and of its file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import StimulusError, StoreMismatchError, listing
from berg.responses.blocks import DAMAGED, ENCODED
from berg.responses.store import ResponseStore
from berg.system.progress import progress_bar

if TYPE_CHECKING:
    from berg.encoding.stream import Task

AT_LEAST = 64  # stimuli that are looked at when a store is gone on with, and as many more as hold so many bytes:
_AT_LEAST_BYTES = 2**26
_TOLD_FROM = 1000  # stimuli; so many are looked at with a bar


def fingerprints(stimuli: NDArray[Any]) -> NDArray[np.uint64]:
    """Shape (n_stimuli,): a hash of the values of each, as the network takes them; never 0.

    Their crc32c, at a hundredth of what hashing files costs: of 4,000 million changes one is not noticed.
    """
    rows = np.ascontiguousarray(stimuli).reshape(len(stimuli), -1).view(np.uint8)
    kind = google_crc32c.value(f"{stimuli.dtype.str} {stimuli.shape[1:]}".encode())
    return np.array([1 + google_crc32c.extend(kind, row) for row in rows], np.uint64)


def file_states(files: Sequence[Path] | None, places: slice, n_stimuli: int) -> NDArray[np.uint64]:
    """Shape (number of places,): size and time of the file of each stimulus, hashed; 0 if it has none.

    Parameters
    ----------
    files
        One per stimulus, or one of all (a video).
    """
    numbers = range(*places.indices(n_stimuli))
    if not files or len(files) not in (1, n_stimuli):
        return np.zeros(len(numbers), np.uint64)
    if len(files) == 1:
        return np.full(len(numbers), _state(files[0]), np.uint64)
    return np.array([_state(files[number]) for number in numbers], np.uint64)


def check_stimuli(store: ResponseStore, task: Task, every: bool = False) -> None:
    """Raise StoreMismatchError if stimuli of a store are not those that it was encoded from.

    Looked at are those whose file has another size or time than then, and some of the others, chosen by chance.

    Parameters
    ----------
    every
        Look at all that are encoded.
    """
    status, known = store.status(), store.encoded_from()
    encoded = np.flatnonzero((status == ENCODED) & (known[:, 0] != 0))
    chosen = encoded if every else _chosen(encoded, known[:, 1], task)
    different = _different(chosen, known[:, 0], task)
    if different:
        names = listing([task.names[place] for place in different], most=5)
        raise StoreMismatchError(
            f"{store.path} holds responses of something else: {len(different):,} of the {len(chosen):,} stimuli that "
            f"were looked at are not those that were encoded ({names}). Give what it was begun with, another path, or "
            "overwrite=True (--overwrite) to begin anew."
        )


def readable_now(store: ResponseStore, task: Task) -> list[int]:
    """The blocks with stimuli that could not be read when they were encoded, and can be read now."""
    damaged = np.flatnonzero(store.status() == DAMAGED)
    readable = [place for place, value in zip(damaged, _read(damaged, task), strict=True) if value]
    return sorted({int(place) // store.block_size for place in readable})


def _chosen(encoded: NDArray[np.intp], states: NDArray[np.uint64], task: Task) -> NDArray[np.intp]:
    now = file_states(task.files, slice(0, len(task.names)), len(task.names))
    changed = encoded[now[encoded] != states[encoded]]
    row_bytes = max(
        1, int(np.prod(task.stimuli.shape)) * np.dtype(task.in_order[0].expected_input.dtype or "f4").itemsize
    )
    number = min(len(encoded), max(AT_LEAST, _AT_LEAST_BYTES // row_bytes))
    some = np.random.default_rng().choice(encoded, number, replace=False)
    return np.union1d(changed, some)


def _different(chosen: NDArray[np.intp], known: NDArray[np.uint64], task: Task) -> list[int]:
    return [int(place) for place, value in zip(chosen, _read(chosen, task), strict=True) if value != known[place]]


def _read(places: NDArray[np.intp], task: Task) -> list[int]:
    """The fingerprint of each of some stimuli, read one by one; 0 if it cannot be read."""
    show = None if len(places) >= _TOLD_FROM else False
    with (
        progress_bar("looking at stimuli", len(places), "stimuli", show) as advance,
        ThreadPoolExecutor(task.n_readers(None)) as readers,
    ):
        found = []
        for value in readers.map(lambda place: _fingerprint(int(place), task), places):
            found.append(value)
            advance(1)
    return found


def _fingerprint(place: int, task: Task) -> int:
    try:
        return int(fingerprints(task.stimuli.read(slice(place, place + 1)))[0])
    except StimulusError:
        return 0


def _state(file: Path) -> int:
    try:
        state = os.stat(file)
    except OSError:  # it is read later, which says what is wrong
        return 1
    return 1 + int(google_crc32c.value(f"{state.st_size} {state.st_mtime_ns}".encode()))
