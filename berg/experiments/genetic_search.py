"""The published genetic search for sets of pictures, in arrays of whole generations.

Each generation has the parents, five mutants of each (with 2, 10, 25, 50 and 75 % of their pictures replaced), and as
many new random sets as both together; the best are the next parents. There is no crossover. The rules are those of
relational neural control (Gifford et al.), the random numbers are not.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from berg.experiments.exchange_search import FoundSets
from berg.experiments.pattern_similarity import PatternSimilarity, Similarity
from berg.experiments.set_score import Goal, exact_score, merit, scores
from berg.statistics.random_sets import random_sets

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
REPLACED = (0.02, 0.1, 0.25, 0.5, 0.75)
_DENSE_BYTES = 2**29


def genetic_search(
    x: PatternSimilarity,
    y: PatternSimilarity,
    starts: Indices,
    goal: Goal,
    *,
    allowed: NDArray[np.bool_] | None = None,
    generations: int = 2000,
    n_sets: int = 200,
    seed: int = 0,
    advance: Callable[[int], None] = lambda n: None,
    history: list[float] | None = None,
) -> FoundSets:
    """Search from each start, which is one of the first parents.

    Parameters
    ----------
    starts
        Shape (n_starts, size).
    n_sets
        Parents that a generation keeps.
    advance
        Called with 1 after each start.
    history
        The best score after each generation is appended to it.
    """
    pool = np.arange(x.n_pictures) if allowed is None else np.flatnonzero(allowed)
    quick = _quick(x), _quick(y)
    found = []
    for number, start in enumerate(starts):
        rng = np.random.default_rng([seed, number])
        found.append(_evolved(*quick, start, pool, goal, generations, n_sets, rng, history))
        advance(1)
    sets = np.array(found)
    n_steps = np.full(len(sets), generations)
    return FoundSets(sets, np.array([exact_score(x, y, own) for own in sets]), n_steps, np.zeros(len(sets), bool))


def _quick(similarity: PatternSimilarity) -> Similarity:
    """The matrix of all pairs where it is small: looking them up is faster than computing them."""
    return similarity.dense() if 4 * similarity.n_pictures**2 <= _DENSE_BYTES else similarity


def _evolved(
    x: Similarity,
    y: Similarity,
    start: Indices,
    pool: Indices,
    goal: Goal,
    generations: int,
    n_sets: int,
    rng: np.random.Generator,
    history: list[float] | None,
) -> Indices:
    size = len(start)
    parents = np.concatenate([start[None], pool[random_sets(len(pool), size, n_sets - 1, rng)]])
    fitness = _fitness(x, y, parents, goal)
    for _ in range(generations):
        mutants = np.concatenate([mutated(parents, max(1, round(size * part)), pool, rng) for part in REPLACED])
        fresh = pool[random_sets(len(pool), size, len(parents) + len(mutants), rng)]
        new = np.concatenate([mutants, fresh])
        everyone, merits = np.concatenate([parents, new]), np.concatenate([fitness, _fitness(x, y, new, goal)])
        best = np.argsort(-merits, kind="stable")[:n_sets]
        parents, fitness = everyone[best], merits[best]
        if history is not None:
            history.append(float(fitness[0]))
    own: Indices = parents[0]
    return own


def _fitness(x: Similarity, y: Similarity, sets: Indices, goal: Goal) -> Floats:
    merits: Floats = merit(scores(x, y, sets), goal)
    return np.asarray(np.nan_to_num(merits, nan=-np.inf, neginf=-np.inf))


def mutated(parents: Indices, n_replaced: int, pool: Indices, rng: np.random.Generator) -> Indices:
    """The parents, each with some of its pictures replaced by others that it does not have."""
    size = parents.shape[1]
    n_replaced = min(n_replaced, len(pool) - size)
    if n_replaced < 1:
        return parents.copy()
    few = 4 * n_replaced * size > len(pool)  # draws would rarely be without a picture of the parent
    new = _drawn_of_few(parents, n_replaced, pool, rng) if few else _drawn(parents, n_replaced, pool, rng)
    children = parents.copy()
    np.put_along_axis(children, random_sets(size, n_replaced, len(parents), rng), new, axis=1)
    return children


def _drawn(parents: Indices, n: int, pool: Indices, rng: np.random.Generator) -> Indices:
    """Pictures that are not in the parent, drawn again until they are not."""
    drawn, again = np.empty((len(parents), n), np.intp), np.arange(len(parents))
    while len(again):
        drawn[again] = pool[random_sets(len(pool), n, len(again), rng)]
        again = again[(drawn[again][:, :, None] == parents[again][:, None, :]).any(axis=(1, 2))]
    return drawn


def _drawn_of_few(parents: Indices, n: int, pool: Indices, rng: np.random.Generator) -> Indices:
    """The same for a small pool: the first pictures of a random order of those that are left."""
    order = pool[random_sets(len(pool), len(pool), len(parents), rng)]
    is_left = ~(order[:, :, None] == parents[:, None, :]).any(axis=2)
    return np.array([own[left][:n] for own, left in zip(order, is_left, strict=True)], np.intp)
