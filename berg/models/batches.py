"""The one way to encode: batches of stimuli, each computed once for all models of a call.

    stimuli -> features (shared by the models that have the same) -> responses -> arrays, or files on the disk

A call, a store and the workers of a cluster all take it, so that they return the same numbers.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import DeviceMemoryError, InvalidParameterError, listing
from berg.core.stacklevel import users_stacklevel
from berg.system.memory import check_array_memory, release_pages

Arrays = Sequence[Sequence[NDArray[np.float32]]]
"""For each model, one array per output, shape (n_stimuli, ...)."""


class SmallerBatchWarning(UserWarning):
    """The device had too little memory for a batch, which was computed in parts."""


_COMMON = ("kind", "shape", "dtype", "range", "sampling_rate")


class Encoder(Protocol):
    """What a model offers to those who encode with it; `berg.models.encoding_model.EncodingModel` does."""

    batch_size: ClassVar[int]

    @property
    def device(self) -> torch.device:
        """Where it computes."""

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


@dataclass(frozen=True)
class Batch:
    """Stimuli that are encoded together, and where their responses go.

    Attributes
    ----------
    stimuli
        Shape (n_stimuli, ...), as `berg.stimuli.open.Stimuli.read` returns them.
    rows
        The rows of the arrays that the responses are written to.
    arrays
        Also datasets of h5py or zarr.
    """

    stimuli: NDArray[Any]
    rows: slice
    arrays: Arrays


BatchT = TypeVar("BatchT", bound=Batch)


def encode_batches(models: Sequence[Encoder], batches: Iterable[BatchT], batch_size: int) -> Iterator[BatchT]:
    """Encode batches and write their responses; yields each batch, in order, when its responses are written.

    The device may have too little memory for a batch. Then half of it is computed at once, and so on; the batches
    after it are computed in parts of the size that fitted.

    Parameters
    ----------
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
    largest = batch_size
    for batch in batches:
        largest = _encode_batch(models, batch, largest)
        yield batch


def _encode_batch(models: Sequence[Encoder], batch: Batch, largest: int) -> int:
    """Encode a batch in parts of `largest` stimuli, or fewer; returns the size of part that fits on the device."""
    stimuli, start = torch.from_numpy(batch.stimuli), 0
    while start < len(stimuli):
        stop = min(start + largest, len(stimuli))
        rows = slice(batch.rows.start + start, batch.rows.start + stop)
        try:
            _encode_part(models, stimuli[start:stop], rows, batch.arrays)
        except DeviceMemoryError as error:
            if stop - start == 1:
                raise
            largest = (stop - start) // 2
            _warn_of_memory(str(error), largest)
        else:
            start = stop
            continue
        _free_memory(models)  # after the except block: the error holds what was computed
    return largest


def _encode_part(models: Sequence[Encoder], stimuli: torch.Tensor, rows: slice, arrays: Arrays) -> None:
    """Encode some stimuli at once and write their responses; nothing of it stays in memory."""
    computed: dict[int, Any] = {}
    for model, outputs in zip(models, arrays, strict=True):
        features, readout = model.loaded_modules()
        too_many = f"{model.device} has too little memory for {len(stimuli)} stimuli at once. "
        fewer = f"Try batch_size={len(stimuli) // 2}" if len(stimuli) > 1 else "Select fewer units (selection=...)"
        # no_grad, not inference_mode: what a module keeps may be used in predict()
        with typed_memory_error(f"{too_many}{fewer}."), torch.no_grad():
            if id(features) not in computed:
                computed[id(features)] = features(stimuli.to(model.device))
            responses = model.in_window(readout(computed[id(features)]), stimuli.shape[-1])
        for output, response in zip(outputs, responses, strict=True):
            _write(output, rows, response.reshape(len(stimuli), *output.shape[1:]))
            release_pages(output)


def _write(array: Any, rows: slice, responses: torch.Tensor) -> None:
    if isinstance(array, np.ndarray) and min(array.strides, default=0) >= 0:  # in one step, on all cores
        torch.from_numpy(array[rows]).copy_(responses)
    else:  # a dataset, of which a slice would be a copy
        array[rows] = responses.float().cpu().numpy()


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


def common_batch_size(models: Sequence[Encoder], batch_size: int | None) -> int:
    """How many stimuli are encoded together: the number given, or the smallest of those of the models."""
    if batch_size is None:
        return min(model.batch_size for model in models)
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise InvalidParameterError(f"batch_size must be a whole number from 1, got {batch_size!r}.")
    return int(batch_size)


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
