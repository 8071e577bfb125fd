"""How far two sets of responses are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Sequence[NDArray[Any]]


def relative(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference over the largest absolute value; infinite if the shapes, or the NaN, differ.

    >>> relative(np.array([1.0, 2.1]), np.array([1.0, 2.0]))  # doctest: +ELLIPSIS
    0.05...
    """
    return _over(one, other, lambda array: float(np.abs(array).max()))


def in_sd(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The largest difference in standard deviations of the second."""
    return _over(one, other, lambda array: float(array.std()))


def disagreements(
    what: str,
    ones: Arrays,
    others: Arrays,
    tolerance: float,
    measure: Callable[[NDArray[Any], NDArray[Any]], float] = relative,
) -> Iterator[str]:
    """A sentence for each array that differs from its counterpart by more than the tolerance."""
    if len(ones) != len(others):
        yield f"{what}: {len(ones)} arrays instead of {len(others)}"
        return
    for index, (one, other) in enumerate(zip(ones, others, strict=True)):
        if one.shape != other.shape:
            yield f"{what}: array {index} has shape {one.shape} instead of {other.shape}"
        elif not (distance := measure(one, other)) <= tolerance:
            yield f"{what}: array {index} differs by {distance:.2g} ({measure.__name__}; at most {tolerance:g})"


def _over(one: NDArray[Any], other: NDArray[Any], scale: Callable[[NDArray[Any]], float]) -> float:
    first, second = np.asarray(one, float), np.asarray(other, float)
    if first.shape != second.shape:
        return np.inf
    if not first.size or np.array_equal(first, second, equal_nan=True):
        return 0.0
    unit = scale(second) or 1.0
    distance = float(np.abs(first - second).max()) / unit
    return np.inf if np.isnan(distance) else distance
