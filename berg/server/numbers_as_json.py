"""Arrays in JSON: lists with null for what is no number, or bytes as base64."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray


def finite(values: NDArray[Any]) -> list[Any]:
    """The values in C order, null for NaN and infinity.

    >>> finite(np.array([[0.5, np.nan]], "float32"))
    [0.5, None]
    """
    flat = np.ravel(values)
    if flat.dtype.kind != "f" or bool(np.isfinite(flat).all()):
        listed: list[Any] = flat.tolist()
        return listed
    masked = flat.astype(object)
    masked[~np.isfinite(flat)] = None
    return list(masked.tolist())


def labels_as_json(values: NDArray[Any]) -> list[Any]:
    """Labels in C order: numbers, truth values, or texts."""
    return finite(values) if values.dtype.kind in "biuf" else [str(value) for value in np.ravel(values)]


def as_base64(values: NDArray[Any], dtype: str = "<f4") -> str:
    """The bytes of an array in C order, as base64.

    >>> as_base64(np.array([1.0]))
    'AACAPw=='
    """
    return base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
