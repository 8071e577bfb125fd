"""Random sets: a few of many, none of them twice."""

from __future__ import annotations

import numpy as np

from berg.core.exceptions import InvalidParameterError
from berg.statistics.groups import Indices, Seed

_ROW_BYTES = 2**26


def random_sets(n_items: int, size: int, n_sets: int, seed: Seed = 0) -> Indices:
    """Draw sets of items without replacement; every ordered set is equally likely.

    The first columns of what comes back are themselves random sets, of a smaller size.

    Returns
    -------
    sets
        Shape (n_sets, size), numbers from 0 to n_items - 1, none of them twice in a row.

    Raises
    ------
    InvalidParameterError
        If a set would have more items than there are.

    Examples
    --------
    >>> random_sets(4, 4, 2, seed=0)
    array([[2, 0, 1, 3],
           [3, 2, 1, 0]])
    """
    if not 1 <= size <= n_items or n_sets < 1:
        raise InvalidParameterError(
            f"{n_sets} sets of {size} out of {n_items}: give at least one set, of 1 to {n_items} items."
        )
    rng = np.random.default_rng(seed)
    if size * size > n_items:
        return _shuffled(n_items, size, n_sets, rng)
    sets = rng.integers(0, n_items, (n_sets, size))
    twice = _with_an_item_twice(sets)
    while len(twice):  # sets drawn again until they have no item twice are uniform among such sets
        sets[twice] = rng.integers(0, n_items, (len(twice), size))
        twice = twice[_with_an_item_twice(sets[twice])]
    return sets


def _with_an_item_twice(sets: Indices) -> Indices:
    step = max(1, _ROW_BYTES // (8 * sets.shape[1]))
    found = [
        start + np.flatnonzero((np.diff(np.sort(sets[start : start + step], axis=1), axis=1) == 0).any(axis=1))
        for start in range(0, len(sets), step)
    ]
    return np.concatenate(found) if found else np.empty(0, np.intp)


def _shuffled(n_items: int, size: int, n_sets: int, rng: np.random.Generator) -> Indices:
    sets, step = np.empty((n_sets, size), np.intp), max(1, _ROW_BYTES // (8 * n_items))
    for start in range(0, n_sets, step):
        n = min(step, n_sets - start)
        sets[start : start + n] = rng.permuted(np.tile(np.arange(n_items), (n, 1)), axis=1)[:, :size]
    return sets
