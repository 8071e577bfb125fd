r"""Codes that evolve: a search that needs responses alone, no gradient.

The search of Ponce et al. (2019, Cell 177:999; XDream): of each generation the best quarter stays; the others
are children of two codes that are drawn with probability :math:`\mathrm{softmax}(z / 2)` of their z-scored
scores, a quarter of the genes from the second parent; a quarter of the genes is changed by normal noise of
standard deviation 0.75.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
KEPT, FROM_SECOND, MUTATED, MUTATION_SD, TEMPERATURE = 0.25, 0.25, 0.25, 0.75, 0.5


@dataclass(frozen=True)
class Population:
    """Codes of a generation, shape (population, code_size), with their scores, and the best score of each so far."""

    codes: Floats
    scores: Floats
    curve: list[float] = field(default_factory=list)


def evolve(
    score: Callable[[Floats], Floats],
    first: Population,
    n_generations: int,
    rng: np.random.Generator,
    patience: int | None = None,
    advance: Callable[[int], None] = lambda n: None,
    keep: Callable[[Population, bool], None] = lambda population, is_over: None,
) -> Population:
    """The last generation, in which the best code that was met has stayed.

    Parameters
    ----------
    score
        From codes (n, code_size) to their scores (n,); higher is better. Asked once for every new code.
    first
        The first generation, or one to go on from.
    patience
        Stop after so many generations without a better one; None: never.
    keep
        Called with each generation, and whether it is the last one.
    """
    codes, scores = first.codes, first.scores
    curve = first.curve or [float(scores.max())]
    advance(len(curve) - 1)
    while not (is_over := _is_over(curve, n_generations, patience)):
        keep(Population(codes, scores, curve), is_over)
        advance(1)
        codes, scores = _next(codes, scores, score, rng)
        curve = [*curve, float(scores.max())]
    advance(n_generations - len(curve) + 1)
    last = Population(codes, scores, curve)
    keep(last, True)
    return last


def _is_over(curve: list[float], n_generations: int, patience: int | None) -> bool:
    is_stuck = patience is not None and len(curve) > patience and curve[-1] <= curve[-1 - patience]
    return is_stuck or len(curve) >= n_generations


def _next(
    codes: Floats, scores: Floats, score: Callable[[Floats], Floats], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    n = len(codes)
    best = np.argsort(-scores, kind="stable")[: max(1, round(KEPT * n))]
    chances = _chances(scores)
    parents = np.array([rng.choice(n, 2, replace=False, p=chances) for _ in range(n - len(best))])
    from_second = rng.random((len(parents), codes.shape[1])) < FROM_SECOND
    children = np.where(from_second, codes[parents[:, 1]], codes[parents[:, 0]])
    is_changed = rng.random(children.shape) < MUTATED
    children = children + is_changed * rng.normal(0, MUTATION_SD, children.shape)
    return np.concatenate([codes[best], children]), np.concatenate([scores[best], score(children)])


def _chances(scores: Floats) -> Floats:
    """Softmax of the z-scores, a little for every code."""
    spread = scores.std()
    z = (scores - scores.mean()) / (spread if spread > 0 else 1.0)
    weights = np.exp(TEMPERATURE * (z - z.max())) + 1e-9
    return np.asarray(weights / weights.sum())
