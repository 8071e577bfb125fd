r"""Scores of random sets, with all subjects, without each, and of each alone: what sets are tested against.

All of them follow from inner products. With the similarities :math:`x_s, y_s` of the pairs of a set in each subject
(less their mean over the pairs), every sum that a correlation needs, of :math:`\sum_s x_s`, of
:math:`\sum_s x_s - x_t` or of :math:`x_t`, is a sum of entries of one matrix of :math:`x_s \cdot x_t`,
:math:`x_s \cdot y_t` and :math:`y_s \cdot y_t`. So the pairs are looked at once, not once for each correlation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from berg.experiments.finished_parts import FinishedParts
from berg.experiments.pattern_similarity import PatternSimilarity
from berg.system.progress import progress_bar
from berg.system.threads import Threads, n_cores

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Regions = tuple[PatternSimilarity, PatternSimilarity]
_AT_ONCE = 64
"""Sets that are scored together: their patterns (64 x 50 x 500 x 4 bytes) stay in the cache of the processor."""
_PART = "random sets"


@dataclass(frozen=True)
class NullSets:
    """Random sets, shape (n_null, size), and their scores of each fold and of each subject, (n, n_null)."""

    sets: Indices
    train: Floats
    test: Floats

    def baseline(self, fold: int) -> Indices:
        """The set whose score is nearest to the mean."""
        own = self.train[fold]
        return np.sort(self.sets[int(np.nanargmin(np.abs(own - np.nanmean(own))))])


def score_null_sets(
    regions: Regions, is_tested: bool, sets: Indices, finished: FinishedParts, show_progress: bool | None
) -> NullSets:
    """Score sets; what was scored before an interruption is taken from `finished`.

    Parameters
    ----------
    is_tested
        Whether scores without each subject, and of each alone, are wanted too.
    sets
        Shape (n_null, size), pictures.
    """
    n_subjects = len(regions[0].subjects) * is_tested
    scores = np.full((1 + 2 * n_subjects, len(sets)), np.nan)
    first = 0
    if (kept := finished.get(_PART)) is not None:
        first = kept["scores"].shape[1]
        scores[:, :first] = kept["scores"]

    def score(part: slice) -> slice:
        scores[:, part] = scores_of_folds(regions, sets[part], is_tested)
        return part

    parts = (slice(start, min(start + _AT_ONCE, len(sets))) for start in range(first, len(sets), _AT_ONCE))
    with progress_bar("Random sets", len(sets), "sets", show_progress) as advance, Threads(n_cores()) as threads:
        advance(first)
        for part in threads.map_ahead(score, parts):
            advance(part.stop - part.start)
            if finished.is_due or (part.stop == len(sets) and finished.path is not None):
                finished.put(_PART, {"scores": scores[:, : part.stop]})
    return NullSets(sets, scores[: 1 + n_subjects], scores[1 + n_subjects :])


def scores_of_folds(regions: Regions, sets: Indices, is_tested: bool) -> Floats:
    """Scores with all subjects, without each, and of each alone: shape (1 + 2 * n_subjects, n_sets)."""
    n_subjects = len(regions[0].subjects)
    once = np.eye(n_subjects)
    folds = np.concatenate([np.ones((1, n_subjects)), 1 - once, once]) if is_tested else np.ones((1, n_subjects))
    products = _products_of_pairs(regions, sets).reshape(len(sets), 2, n_subjects, 2, n_subjects)
    # of each fold: the products of the sums over its subjects, x with x, y with y, x with y
    xx, yy, xy = (
        np.einsum("fs,nst,ft->fn", folds, products[:, one, :, other], folds, optimize=True)
        for one, other in ((0, 0), (1, 1), (0, 1))
    )
    squares = xx * yy
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(xy / np.sqrt(np.where(squares > 0, squares, np.nan)))


def _products_of_pairs(regions: Regions, sets: Indices) -> Floats:
    """Sums over the pairs of each set of the products of similarities less their mean: (n_sets, 2 n, 2 n)."""
    n_pairs = sets.shape[1] * (sets.shape[1] - 1) // 2
    subjects = [rows for region in regions for rows in region.subjects]
    pairs = np.empty((len(sets), len(subjects), n_pairs))
    for number, rows in enumerate(subjects):
        pairs[:, number] = PatternSimilarity((rows,)).pairs(sets)
    pairs -= pairs.mean(axis=2, keepdims=True)
    return np.asarray(pairs @ pairs.transpose(0, 2, 1))
