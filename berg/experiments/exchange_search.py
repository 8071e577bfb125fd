r"""Exchange search: at each step the best of all swaps of a picture in the set for one outside.

The score of a set is a correlation over its pairs, which follows from five sums over pairs: of x, y, x², y² and xy.
With the columns x(j, b) of the similarity of all pictures j with the members b of the set, a swap of member i for
picture j changes each sum by

.. math:: \Delta = -\sum_{b \ne i} x(i, b) + \sum_b x(j, b) - x(j, i),

so that all (n_pictures - size) * size swaps are scored exactly from columns that are held: no matrix of all pairs of
pictures is needed. After a swap one column is new. The search ends where no swap is better: at a local optimum.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from berg.experiments.pattern_similarity import Floats32, PatternSimilarity
from berg.experiments.set_score import Goal, exact_score, merit
from berg.system.threads import n_cores

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
_ROWS = 1024  # of one block: its arrays stay in the cache of the processor
_LEAST_GAIN = 1e-12


@dataclass(frozen=True)
class FoundSets:
    """What a search ended with, a row for each of its starts.

    Attributes
    ----------
    sets
        Shape (n_starts, size), pictures.
    scores
        Shape (n_starts,), computed anew from the patterns in float64.
    n_steps
        Shape (n_starts,), swaps or generations.
    is_optimum
        Shape (n_starts,): no swap is better (of a genetic search: not known, False).
    """

    sets: Indices
    scores: Floats
    n_steps: Indices
    is_optimum: NDArray[np.bool_]


def exchange_search(
    x: PatternSimilarity,
    y: PatternSimilarity,
    starts: Indices,
    goal: Goal,
    *,
    allowed: NDArray[np.bool_] | None = None,
    max_steps: int = 1000,
    advance: Callable[[int], None] = lambda n: None,
) -> FoundSets:
    """Improve sets by exchanges, until none is better.

    Parameters
    ----------
    starts
        Shape (n_starts, size), none of them twice in a row.
    goal
        ``"align"``: the largest score; ``"disentangle"``: the one nearest to 0.
    allowed
        Shape (n_pictures,): pictures that may come into a set.
    max_steps
        Swaps of each start.
    advance
        Called with the number of starts that have ended.

    Returns
    -------
    found
        Memory beside the patterns: 8 bytes per start, member and picture.
    """
    sets = starts.copy()
    columns = [np.stack([z.columns(own) for own in sets]) for z in (x, y)]  # (n_starts, n_pictures, size)
    may = np.ones(x.n_pictures, bool) if allowed is None else allowed
    n_steps, is_optimum = np.zeros(len(sets), np.intp), np.zeros(len(sets), bool)
    active = np.arange(len(sets)) if max_steps > 0 else np.empty(0, np.intp)
    with ThreadPoolExecutor(n_cores()) as threads:
        while len(active):
            swaps = list(threads.map(lambda at: best_swap(columns[0][at], columns[1][at], sets[at], may, goal), active))
            better = np.array([swap is not None for swap in swaps])
            is_optimum[active[~better]] = True
            taken = np.array([swap for swap in swaps if swap is not None], np.intp).reshape(-1, 2)
            _exchange((x, y), columns, sets, active[better], taken)
            n_steps[active[better]] += 1
            going_on = better & (n_steps[active] < max_steps)
            advance(int((~going_on).sum()))
            active = active[going_on]
    return FoundSets(sets, np.array([exact_score(x, y, own) for own in sets]), n_steps, is_optimum)


def _exchange(
    similarities: tuple[PatternSimilarity, ...], columns: list[Floats32], sets: Indices, at: Indices, taken: Indices
) -> None:
    """Put the pictures of `taken` (picture, position) into the sets, and their columns beside those that stay."""
    if not len(at):
        return
    sets[at, taken[:, 1]] = taken[:, 0]
    for similarity, own in zip(similarities, columns, strict=True):
        own[at, :, taken[:, 1]] = similarity.columns(taken[:, 0]).T


def best_swap(
    x: Floats32, y: Floats32, members: Indices, allowed: NDArray[np.bool_], goal: Goal
) -> tuple[int, int] | None:
    """The picture and the position of the best swap; None if none is better than the set as it is.

    Parameters
    ----------
    x, y
        Shape (n_pictures, size), similarity of all pictures with the members.
    members
        Shape (size,).
    """
    size = len(members)
    sums, kept = _sums(x[members].astype(np.float64), y[members].astype(np.float64))
    best, place = float(merit(_score(sums, size), goal)), None
    best = -np.inf if np.isnan(best) else best
    may = allowed.copy()
    may[members] = False
    block = _Block(size)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, min(start + _ROWS, len(x)))
        at, value = block.best(x[rows], y[rows], kept, may[rows], goal)
        if value > best + _LEAST_GAIN:
            best, place = value, (start + at // size, at % size)
    return place


def _sums(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The five sums over pairs of the set, and shape (5, size) what is left of them without each member."""
    terms = np.stack([x, y, x * x, y * y, x * y])
    terms[:, np.arange(len(x)), np.arange(len(x))] = 0
    own = terms.sum(axis=2)
    sums = own.sum(axis=1) / 2
    return sums, sums[:, None] - own


def _score(sums: Floats, size: int) -> float:
    x, y, xx, yy, xy = map(float, sums)
    n = size * (size - 1) / 2
    squares = (n * xx - x * x) * (n * yy - y * y)
    return float((n * xy - x * y) / np.sqrt(squares)) if squares > 0 else np.nan


class _Block:
    """Scores of all swaps of some rows, in arrays that are used again: new memory would cost more than the sums."""

    def __init__(self, size: int) -> None:
        self.size, self.n, self.ones = size, size * (size - 1) / 2, np.ones(size)
        self.terms, self.sums = np.empty((5, _ROWS, size)), np.empty((5, _ROWS, size))

    def best(self, x: Floats32, y: Floats32, kept: Floats, may: NDArray[np.bool_], goal: Goal) -> tuple[int, float]:
        """The swap with the largest merit, as its number in (n_rows, size), and the merit."""
        values = self._ordered(*self._swapped(x, y, kept), goal)
        values[~may] = -np.inf
        at = int(values.argmax())
        if not np.isfinite(values.flat[at]):  # the similarities of some set do not vary
            np.nan_to_num(values, copy=False, nan=-np.inf, posinf=-np.inf, neginf=-np.inf)
            at = int(values.argmax())
        return at, float(np.copysign(np.sqrt(np.abs(values.flat[at])), values.flat[at]))

    def _swapped(self, x: Floats32, y: Floats32, kept: Floats) -> tuple[Floats, Floats]:
        """The five sums over the pairs of each set after the swap, (5, n_rows, size), and as much memory to work in."""
        terms, sums = self.terms[:, : len(x)], self.sums[:, : len(x)]
        terms[0], terms[1] = x, y
        for to, (one, other) in zip(terms[2:], ((0, 0), (1, 1), (0, 1)), strict=True):
            np.multiply(terms[one], terms[other], out=to)
        for to, term, rest in zip(sums, terms, kept, strict=True):
            np.subtract((term @ self.ones)[:, None], term, out=to)
            to += rest
        return sums, terms

    def _ordered(self, sums: Floats, spare: Floats, goal: Goal) -> Floats:
        """Numbers in the order of the merits: r|r|, or minus r squared; both need no root of each."""
        s_x, s_y, s_xx, s_yy, s_xy = (np.asarray(own) for own in sums)
        np.multiply(s_x, s_y, out=spare[0])
        s_xy *= self.n
        s_xy -= spare[0]
        for total, square, to in ((s_x, s_xx, spare[1]), (s_y, s_yy, spare[2])):
            square *= self.n
            np.multiply(total, total, out=to)
            square -= to
        s_xx *= s_yy
        np.abs(s_xy, out=spare[0])
        if goal == "disentangle":
            np.negative(spare[0], out=s_xy)
        s_xy *= spare[0]
        with np.errstate(invalid="ignore", divide="ignore"):
            s_xy /= s_xx
        return s_xy
