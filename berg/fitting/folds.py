"""Which samples are left out in each fold of a cross-validation."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import InvalidParameterError
from berg.statistics.groups import Groups, group_folds, group_numbers

log = logging.getLogger(__name__)


Folds = Sequence[NDArray[np.intp]]


def split_folds(n_samples: int, n_folds: int, seed: int | None = 0, groups: Groups | None = None) -> Folds:
    """The left-out samples of each fold.

    Parameters
    ----------
    seed
        Samples are shuffled; None: neighbours stay together, as samples in time must.
    groups
        A label per sample: those of one, such as near-copies, are in one fold.

    Examples
    --------
    >>> split_folds(5, 2, seed=None)
    [array([0, 1, 2]), array([3, 4])]
    """
    if groups is not None:
        return group_folds(group_numbers(groups, n_samples), n_folds, seed)
    order = np.arange(n_samples) if seed is None else np.random.default_rng(seed).permutation(n_samples)
    return [np.sort(part) for part in np.array_split(order, n_folds)]


def checked_folds(folds: int | Folds, n_samples: int, groups: Groups | None) -> Folds:
    if not isinstance(folds, int):
        return folds
    if groups is not None:
        return split_folds(n_samples, folds, groups=groups)
    if not 2 <= folds <= n_samples // 2:
        raise InvalidParameterError(
            f"{folds} folds of {n_samples:,} samples; a fold needs two samples, and there must be two folds. "
            f"Choose 2 to {max(2, n_samples // 2):,}."
        )
    return split_folds(n_samples, folds)


def splits_of_samples(
    samples: NDArray[np.intp], folds: Folds, groups: NDArray[np.intp] | None
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Where the kept and the left-out samples of each fold are among those that are there."""
    left_out = [np.isin(samples, fold) for fold in folds]
    usable = [each for each in left_out if each.any() and not each.all()]
    if not usable:  # all that is there is in one fold
        own = None if groups is None else groups[samples]
        n_folds = len(folds) if own is None else min(len(folds), len(np.unique(own)))
        if n_folds < 2:
            log.warning("targets were measured in one group of stimuli: their penalty is chosen within it")
            own, n_folds = None, len(folds)
        usable = [np.isin(np.arange(len(samples)), fold) for fold in split_folds(len(samples), n_folds, None, own)]
    return [(np.flatnonzero(~each), np.flatnonzero(each)) for each in usable]
