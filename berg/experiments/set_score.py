r"""The score of a set of pictures: how much two regions agree about which of them are alike.

.. math:: s(S) = r\left(\{x_{ij}\}, \{y_{ij}\}\right)_{i < j \in S}

Pearson's r over all pairs of the set, between the similarities of the patterns in one region (x) and in the other (y).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from berg.experiments.pattern_similarity import PatternSimilarity, Similarity

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Goal = Literal["align", "disentangle"]
GOALS: tuple[Goal, ...] = ("align", "disentangle")


def merit(score: Any, goal: Goal) -> Any:
    """What a search makes large: the score, or how near to 0 it is."""
    return score if goal == "align" else -np.abs(score)


def correlation_of_pairs(x: NDArray[Any], y: NDArray[Any]) -> Floats:
    """Pearson's r along the last axis, in float64; NaN where one does not vary."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    x -= x.mean(axis=-1, keepdims=True)
    y -= y.mean(axis=-1, keepdims=True)
    squares = np.einsum("...p,...p->...", x, x) * np.einsum("...p,...p->...", y, y)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.einsum("...p,...p->...", x, y) / np.sqrt(np.where(squares > 0, squares, np.nan)))


def scores(x: Similarity, y: Similarity, sets: Indices) -> Floats:
    """The score of each set, shape (n_sets,)."""
    return correlation_of_pairs(x.pairs(sets), y.pairs(sets))


def exact_score(x: PatternSimilarity, y: PatternSimilarity, pictures: Indices) -> float:
    """The score of one set from the patterns themselves, summed in float64."""
    return float(correlation_of_pairs(x.exact_pairs(pictures), y.exact_pairs(pictures)))
