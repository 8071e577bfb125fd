"""Batches of stimuli: computed once by all models of a call, and in parts where the device has too little memory."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import DeviceMemoryError, InvalidParameterError
from berg.system.memory import release_pages

if TYPE_CHECKING:
    from berg.models.encoding_model import EncodingModel


class SmallerBatchWarning(UserWarning):
    """The device had too little memory for a batch, which was computed in parts."""


_COMMON = ("kind", "shape", "dtype", "range", "sampling_rate")


def common_input(models: Sequence[EncodingModel]) -> StimulusInput:
    """What all the models take."""
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


def encode_batch(
    models: Sequence[EncodingModel],
    batch: torch.Tensor,
    places: slice,
    arrays: Sequence[Sequence[NDArray[np.float32]]],
    at_once: int,
) -> int:
    """Compute one batch and write it to its place; gives how many stimuli the device has the memory for at once."""
    start = 0
    while start < len(batch):
        part = slice(start, min(start + at_once, len(batch)))
        try:
            _encode_part(models, batch[part], slice(places.start + part.start, places.start + part.stop), arrays)
        except DeviceMemoryError as error:
            n_stimuli = part.stop - part.start
            if n_stimuli == 1:
                raise
            _warn_of_memory(str(error), at_once := n_stimuli // 2)
        else:
            start = part.stop
            continue
        _free_memory(models)  # here, because the error keeps hold of what was computed
    return at_once


def _encode_part(
    models: Sequence[EncodingModel], batch: torch.Tensor, places: slice, arrays: Sequence[Sequence[NDArray[np.float32]]]
) -> None:
    """Compute some stimuli at once and write them to their place; nothing of it outlives the call."""
    computed: dict[int, Any] = {}
    for model, own in zip(models, arrays, strict=True):
        features, readout = model.loaded_modules()
        words = f"{model.device} has too little memory for {len(batch)} stimuli at once. "
        fewer = f"Try batch_size={len(batch) // 2}" if len(batch) > 1 else "Select fewer units (selection=...)"
        # no_grad, not inference_mode: what a module keeps may be used in predict()
        with typed_memory_error(f"{words}{fewer}."), torch.no_grad():
            if id(features) not in computed:
                computed[id(features)] = features(batch.to(model.device))
            responses = model.in_window(readout(computed[id(features)]), batch.shape[-1])
        for array, response in zip(own, responses, strict=True):
            _write(array, places, response.reshape(len(batch), *array.shape[1:]))
            release_pages(array)


def _warn_of_memory(words: str, at_once: int) -> None:
    warnings.warn(
        f"{words.partition('. ')[0]}. Going on with {at_once} at once; batch_size={at_once} (--batch-size {at_once}) "
        "does so from the start.",
        SmallerBatchWarning,
        stacklevel=4,
    )


def _free_memory(models: Sequence[EncodingModel]) -> None:
    gc.collect()
    if any(model.device.type == "cuda" for model in models):
        torch.cuda.empty_cache()


def _write(array: Any, places: slice, responses: torch.Tensor) -> None:
    if isinstance(array, np.ndarray) and min(array.strides, default=0) >= 0:  # in one step, on all cores
        torch.from_numpy(array[places]).copy_(responses)
    else:  # a dataset, of which a slice would be a copy
        array[places] = responses.float().cpu().numpy()


@contextmanager
def typed_memory_error(words: str) -> Iterator[None]:
    """PyTorch's errors for too little memory, of which those of the CPU and of Apple's GPUs have no class."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and not any(part in str(error) for part in ("can't allocate memory", "out of memory")):
            raise
        raise DeviceMemoryError(words) from error


def batch_slices(n_stimuli: int, size: int) -> Iterator[slice]:
    """Neighbouring stimuli, `size` at a time; the last may be fewer."""
    for start in range(0, n_stimuli, size):
        yield slice(start, min(start + size, n_stimuli))
