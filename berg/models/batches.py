"""The one way to encode: batches of stimuli, each computed once for all models of a call.

    stimuli -> features (shared by the models that have the same) -> responses -> arrays, or files on the disk

A call, a store and the workers of a cluster all take it, so that they return the same numbers. On a GPU, batches on
their way there, on it and on their way back overlap (`berg.models.lanes`); they are computed in order.
"""

from __future__ import annotations

import gc
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import DeviceMemoryError, InvalidParameterError, listing
from berg.core.stacklevel import users_stacklevel
from berg.features.precision import arithmetic
from berg.models.lanes import Lane, Responses, lane_to
from berg.system.memory import check_array_memory, release_pages
from berg.system.threads import Threads

Arrays = Sequence[Sequence[NDArray[np.float32]]]
"""For each model, one array per output, shape (n_stimuli, ...)."""


class SmallerBatchWarning(UserWarning):
    """The device had too little memory for a batch, which was computed in parts."""


_COMMON = ("kind", "shape", "dtype", "range", "sampling_rate", "n_frames", "frame_rate", "text")


class Encoder(Protocol):
    """What a model offers to those who encode with it; `berg.models.encoding_model.EncodingModel` does."""

    batch_size: ClassVar[int]

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def precision(self) -> str:
        """What it computes with; see `berg.features.precision`."""

    @property
    def expected_input(self) -> StimulusInput:
        """The stimuli that it takes."""

    @classmethod
    def get_model_id(cls) -> str:
        """Its name in messages."""

    def loaded_modules(self) -> tuple[torch.nn.Module, torch.nn.Module]:
        """Stimuli -> features, and features -> responses; raise ModelNotLoadedError if it is not loaded."""

    def in_window(self, responses: Sequence[torch.Tensor], n_samples: int) -> Sequence[torch.Tensor]:
        """The selected part of responses along axes that are as long as the stimulus."""

    def response_shapes(self) -> list[tuple[int, ...]]:
        """The shape of the response to one stimulus, for each output."""


@runtime_checkable
class Remembers(Protocol):
    """Features of stimuli that follow each other, such as the frames of a film; they are computed in order."""

    def begin_at(self, first: int | None) -> None:
        """The number of the next stimulus, told before each batch: 0 begins, None is of no sequence.

        A batch may be asked for again, when it was too large for the memory.
        """


@dataclass(frozen=True)
class Batch:
    """Stimuli that are encoded together, and where their responses go.

    Attributes
    ----------
    stimuli
        Shape (n_stimuli, ...), as `berg.stimuli.readers.Stimuli.read` returns them.
    rows
        The rows of the arrays that the responses are written to.
    open_arrays
        Gives the arrays, also datasets of h5py or zarr; called when the batch is computed.
    first
        The number of its first stimulus among all; None: that of its first row.
    """

    stimuli: NDArray[Any]
    rows: slice
    open_arrays: Callable[[], Arrays]
    first: int | None = field(default=None, kw_only=True)


BatchT = TypeVar("BatchT", bound=Batch)


def encode_batches(models: Sequence[Encoder], batches: Iterable[BatchT], batch_size: int) -> Iterator[BatchT]:
    """Encode batches and write their responses; yields each batch, in order, when its responses are written.

    The device may have too little memory for a batch. Then half of it is computed at once, and so on; the batches
    after it are computed in parts of the size that fitted.

    Parameters
    ----------
    batches
        Asked for before they are computed, on a GPU several ahead.
    batch_size
        Stimuli in the largest batch.

    Raises
    ------
    DeviceMemoryError
        If the device has too little memory for one stimulus.

    Warns
    -----
    SmallerBatchWarning
        Each time that a batch is halved.
    """
    lane, largest = lane_to(model.device for model in models), batch_size
    behind: deque[tuple[BatchT, list[Future[None]]]] = deque()
    with Threads(lane.n_stagers) as stagers, Threads(lane.n_writers) as writers:
        for batch, staged in stagers.map_ahead(lambda batch: (batch, lane.stage(as_tensor(batch.stimuli))), batches):
            writes, largest = _encode_batch(models, batch, staged, largest, lane, writers)
            behind.append((batch, writes))
            while len(behind) > lane.n_behind:
                yield _written(*behind.popleft())
        while behind:
            yield _written(*behind.popleft())


def as_tensor(stimuli: NDArray[Any]) -> torch.Tensor:
    """The stimuli in the same memory, also those that nobody may write to (a memory map)."""
    _take_what_is_read_only()
    return torch.from_numpy(stimuli)


@cache
def _take_what_is_read_only() -> None:
    """Have PyTorch say now that an array is not writable, which it says once.

    Not at each batch: leaving `warnings.catch_warnings` makes Python forget which warnings it has shown.
    """
    read_only = np.zeros(1)
    read_only.flags.writeable = False
    with warnings.catch_warnings(action="ignore"):
        torch.from_numpy(read_only)


def _written(batch: BatchT, writes: Sequence[Future[None]]) -> BatchT:
    for write in writes:
        write.result()
    return batch


def _encode_batch(
    models: Sequence[Encoder], batch: Batch, staged: torch.Tensor, largest: int, lane: Lane, writers: Threads
) -> tuple[list[Future[None]], int]:
    """Encode a batch in parts of `largest` stimuli, or fewer; returns the writes, and the size of part that fits."""
    arrays, writes, start = batch.open_arrays(), [], 0
    first = batch.rows.start if batch.first is None else batch.first
    while start < len(staged):
        stop = min(start + largest, len(staged))
        rows = slice(batch.rows.start + start, batch.rows.start + stop)
        try:
            with _memory_for(models[0], stop - start):
                stimuli = lane.to_device(staged[start:stop])
            each = respond(models, stimuli, first + start)
            for outputs in arrays:  # without a name for the responses: they would stay in memory beside the next
                writes += _write_all(next(each), rows, outputs, lane, writers)
        except DeviceMemoryError as error:
            if stop - start == 1:
                raise
            largest = (stop - start) // 2
            _warn_of_memory(str(error), largest)
        else:
            start = stop
            continue
        _free_memory(models)  # after the except block: the error holds what was computed
    return writes, largest


def respond(models: Sequence[Encoder], stimuli: torch.Tensor, first: int | None = None) -> Iterator[Responses]:
    """The responses of one model after another to stimuli that are encoded at once, shape (n_stimuli, ...).

    Parameters
    ----------
    first
        The number of the first among all stimuli of the call, for features that remember (`Remembers`).

    Raises
    ------
    DeviceMemoryError
        If the device has too little memory for so many.
    """
    features_of: dict[int, Any] = {}
    for model in models:
        features, readout = model.loaded_modules()
        # no_grad, not inference_mode: what a module keeps may be used in predict()
        with _memory_for(model, len(stimuli)), torch.no_grad(), arithmetic(model.precision, model.device):
            if id(features) not in features_of:
                if isinstance(features, Remembers):
                    features.begin_at(first)
                features_of[id(features)] = features(stimuli.to(model.device))
            responses = model.in_window(readout(features_of[id(features)]), stimuli.shape[-1])
        yield responses
        del responses  # they are not to stay in memory beside those of the next model


def _memory_for(model: Encoder, n_stimuli: int) -> AbstractContextManager[None]:
    too_many = f"{model.device} has too little memory for {n_stimuli} stimuli at once. "
    fewer = f"Try batch_size={n_stimuli // 2}" if n_stimuli > 1 else "Select fewer units (selection=...)"
    return typed_memory_error(f"{too_many}{fewer}.")


PIECE_BYTES = 2**26
"""Of responses that one thread writes; a new array is written to for the first time by several, which is faster."""


def _write_all(
    computed: Responses, rows: slice, outputs: Sequence[NDArray[np.float32]], lane: Lane, writers: Threads
) -> list[Future[None]]:
    """Begin to write the responses of a model to some stimuli."""
    with typed_memory_error("There is too little memory for the responses. Select fewer units (selection=...)."):
        wait = lane.to_host(computed)
    n_stimuli = rows.stop - rows.start
    n_bytes = 4 * sum(response.numel() for response in computed)
    size = n_stimuli if writers.n_threads == 0 else max(1, n_stimuli * PIECE_BYTES // max(n_bytes, 1))
    pieces = batch_slices(n_stimuli, size)
    return [writers.submit(_write_piece, wait, piece, rows, outputs) for piece in pieces]


def _write_piece(
    wait: Callable[[], Responses], piece: slice, rows: slice, outputs: Sequence[NDArray[np.float32]]
) -> None:
    """Write the responses to a piece of some stimuli, when they are there."""
    for output, response in zip(outputs, wait(), strict=True):
        shaped = response.reshape(rows.stop - rows.start, *output.shape[1:])[piece]
        _write(output, slice(rows.start + piece.start, rows.start + piece.stop), shaped)
        release_pages(output)


def _write(array: Any, rows: slice, responses: torch.Tensor) -> None:
    if not isinstance(array, np.ndarray):  # a dataset, of which a slice would be a copy
        with _ONE_DATASET_AT_A_TIME:
            array[rows] = responses.float().cpu().numpy()
    elif responses.is_pinned() or min(array.strides, default=0) < 0:
        array[rows] = responses.float().cpu().numpy()
    else:  # in one step, on all cores
        torch.from_numpy(array[rows]).copy_(responses)


_ONE_DATASET_AT_A_TIME = threading.Lock()  # pieces of one chunk of zarr must not be written by two threads


def _warn_of_memory(message: str, n_stimuli: int) -> None:
    warnings.warn(
        f"{message.partition('. ')[0]}. Continuing with {n_stimuli} at once. To start with that, give "
        f"batch_size={n_stimuli} (--batch-size {n_stimuli}).",
        SmallerBatchWarning,
        stacklevel=users_stacklevel(),
    )


def _free_memory(models: Sequence[Encoder]) -> None:
    gc.collect()
    if any(model.device.type == "cuda" for model in models):
        torch.cuda.synchronize()  # what is on its way back is freed when it has arrived
        torch.cuda.empty_cache()


def common_input(models: Sequence[Encoder]) -> StimulusInput:
    """The stimuli that all models take; raise InvalidParameterError if they take different ones, or none is given."""
    if not models:
        raise InvalidParameterError("No models were given.")
    for model in models:
        model.loaded_modules()
    expected = models[0].expected_input
    for model in models[1:]:
        other = model.expected_input
        if any(getattr(other, name) != getattr(expected, name) for name in _COMMON):
            raise InvalidParameterError(
                f"{models[0].get_model_id()} and {model.get_model_id()} take different stimuli; encode with each alone."
            )
    return expected


def response_arrays(model: Encoder, n_stimuli: int, out: Any = None) -> list[NDArray[np.float32]]:
    """The arrays that the responses of a model are written to, one per output: `out`, checked, or new ones."""
    shapes = [(n_stimuli, *shape) for shape in model.response_shapes()]
    if out is None:
        check_array_memory(shapes)
        return [np.empty(shape, np.float32) for shape in shapes]
    arrays = list(out) if isinstance(out, (tuple, list)) else [out]
    given = [(getattr(array, "shape", None), getattr(array, "dtype", None)) for array in arrays]
    if given != [(shape, np.dtype(np.float32)) for shape in shapes]:
        raise InvalidParameterError(
            f"out must be {len(shapes)} float32 array(s) of shape {listing(shapes)}, got {listing(given)}. "
            f'Try np.empty({shapes[0]}, "float32"), or berg.encode(..., out="NAME.zarr").'
        )
    if any(isinstance(array, np.ndarray) and not array.flags.writeable for array in arrays):
        raise InvalidParameterError('out cannot be written to. Open a memory map with mode="r+".')
    return arrays


def batch_slices(n_stimuli: int, size: int, first: int = 0) -> Iterator[slice]:
    """Neighbouring stimuli, `size` at a time; the last slice may have fewer.

    >>> list(batch_slices(5, 3, first=10))
    [slice(10, 13, None), slice(13, 15, None)]
    """
    for start in range(first, first + n_stimuli, size):
        yield slice(start, min(start + size, first + n_stimuli))


@contextmanager
def typed_memory_error(message: str) -> Iterator[None]:
    """Raise DeviceMemoryError if PyTorch has too little memory, also on the CPU and on Apple's GPUs.

    PyTorch has a class of its own for this error on CUDA only.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and not any(part in str(error) for part in ("can't allocate memory", "out of memory")):
            raise
        raise DeviceMemoryError(message) from error
