"""Arrays of many units, read and worked on a block of units at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.statistics.array_kinds import Array, read

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

BLOCK_BYTES = 2**24
"""Of one float64 array of one block; about ten such arrays are held at a time."""
CACHE_BYTES = 2**20
"""The same, for what goes over a block many times: its arrays stay near the processor."""


def check_paired(measured: Array, predicted: Array) -> None:
    """Raise unless both have the same shape, with at least two stimuli."""
    shape = np.shape(measured)
    if shape != np.shape(predicted):
        raise InvalidParameterError(
            f"Measured responses have shape {shape}, predicted ones {np.shape(predicted)}. Both need the same: "
            "stimuli first, then units. Repeats of the measurement go through berg.evaluation.over_repeats."
        )
    if not shape or shape[0] < 2:
        raise InvalidParameterError(
            f"Responses have shape {shape}. At least two stimuli are needed, on the first axis; "
            "responses of a single stimulus cannot be correlated."
        )


def check_repeats(repeats: Array, least: int, what: str = "repeats") -> None:
    """Raise unless an array begins with the axes (repeats, stimuli), with at least so many repeats."""
    shape = np.shape(repeats)
    if len(shape) < 2 or shape[0] < least or shape[1] < 2:
        raise InvalidParameterError(
            f"An array of shape {shape} was given; this takes ({what}, stimuli, units), with at least {least} {what} "
            "and 2 stimuli. Where stimuli come first: numpy.swapaxes(array, 0, 1)."
        )


def as_units(array: Array, n_leading: int = 1) -> Array:
    """Flatten the axes of the units into the last, leaving alone what has one already."""
    shape = np.shape(array)
    if len(shape) == n_leading + 1:
        return array
    return read(array[...]).reshape(*shape[:n_leading], -1)


def unit_blocks(n_rows: int, n_units: int, block_bytes: int | None = None) -> Iterator[slice]:
    """Slices of units, each of at most `block_bytes` with `n_rows` float64 a unit (and of at least 16 units)."""
    width = max(16, (block_bytes or BLOCK_BYTES) // (8 * max(n_rows, 1)))
    return (slice(start, min(start + width, n_units)) for start in range(0, n_units, width))


def read_units(array: Array, units: slice) -> Floats:
    """One block as float64; shape (..., n_units of the block)."""
    return read(array[..., units]).astype(np.float64, copy=False)


def by_pattern(present: Mask) -> Iterable[tuple[Mask, NDArray[np.intp] | slice]]:
    """Units that miss the same stimuli, together: which stimuli they have, and which units they are."""
    if present.all():
        return [(present[:, 0], slice(None))]
    patterns, which = np.unique(present, axis=1, return_inverse=True)
    return [(patterns[:, i], np.flatnonzero(which == i)) for i in range(patterns.shape[1])]


def rounding(array: Array) -> float:
    """Spread below this part of a unit's mean is taken for rounding: ten units in the last place of its dtype."""
    dtype = np.dtype(getattr(array, "dtype", np.float64))
    return 10 * float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)
