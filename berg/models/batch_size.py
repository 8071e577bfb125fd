"""How many stimuli are encoded together.

On a CPU that is what the class of the model says. A GPU has 2 to 30 times the rate with more, and how many depends on
the card, the network, the units and the precision: so a few sizes are tried, which takes about a second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from berg.core.exceptions import DeviceMemoryError, InvalidParameterError
from berg.models.batches import Encoder, respond

LARGEST = 512
"""Stimuli. More are no faster (measured with ViT-B/32 on an H200), and wait longer for the first result."""
MAX_RESPONSE_BYTES = 3 * 2**27
"""Of a batch: several are in pinned memory at a time."""
SLOWER = 0.98
"""A size is too large if it has less than this share of the best rate so far."""

Rate = Callable[[int], float]
"""Stimuli encoded together -> stimuli per second; raises DeviceMemoryError if so many do not fit."""

_found: WeakKeyDictionary[torch.nn.Module, dict[tuple[Any, ...], int]] = WeakKeyDictionary()


def common_batch_size(
    models: Sequence[Encoder], batch_size: int | None, n_stimuli: int, shape: tuple[int, ...], dtype: str | None
) -> int:
    """How many stimuli are encoded together: the number given, or what suits the models and their device.

    Parameters
    ----------
    n_stimuli, shape, dtype
        The stimuli; shape without the first axis.

    Raises
    ------
    InvalidParameterError
        If `batch_size` is not a whole number from 1.
    """
    if batch_size is not None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
            raise InvalidParameterError(f"batch_size must be a whole number from 1, got {batch_size!r}.")
        return int(batch_size)
    stated = min(model.batch_size for model in models)
    devices = {model.device for model in models}
    is_text = models[0].expected_input.kind == "text"  # whose rows mean nothing without it
    if is_text or len(devices) > 1 or devices.pop().type != "cuda" or n_stimuli <= 2 * stated:
        return stated
    return _calibrated(models, stated, n_stimuli, shape, dtype)


def _calibrated(
    models: Sequence[Encoder], stated: int, n_stimuli: int, shape: tuple[int, ...], dtype: str | None
) -> int:
    """The size that was found before for these models and stimuli, or is found now."""
    row_bytes = 4 * sum(int(np.prod(output)) for model in models for output in model.response_shapes())
    most = min(LARGEST, n_stimuli, max(stated, MAX_RESPONSE_BYTES // max(row_bytes, 1)))
    first, *others = [module for model in models for module in model.loaded_modules()]
    found = _found.setdefault(first, {})
    key = (tuple(map(id, others)), shape, dtype, most)
    if key not in found:
        found[key] = fastest(stated, most, lambda size: _rate(models, size, shape, dtype))
    return found[key]


def fastest(stated: int, most: int, rate: Rate) -> int:
    """The largest size, of `stated` and its doubles up to `most`, that is not slower than a smaller one."""
    size, best = stated, 0.0
    chosen = stated
    while size <= most:
        try:
            measured = rate(size)
        except DeviceMemoryError:
            break
        if measured < SLOWER * best:
            break
        chosen, best = size, max(best, measured)
        size *= 2
    return chosen


def _rate(models: Sequence[Encoder], size: int, shape: tuple[int, ...], dtype: str | None) -> float:
    device = models[0].device
    stimuli = torch.zeros((size, *shape), dtype=getattr(torch, dtype or "float32"), device=device)

    def encode() -> None:
        for _ in respond(models, stimuli):
            pass

    encode()  # the first time, libraries choose their kernels
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    n_times = max(2, 256 // size)
    began.record()
    for _ in range(n_times):
        encode()
    ended.record()
    ended.synchronize()
    if torch.cuda.mem_get_info(device)[0] < torch.cuda.memory_reserved(device) // 4:
        raise DeviceMemoryError("There would be little memory left beside the batches that wait.")
    return float(n_times * size / (began.elapsed_time(ended) / 1000))
