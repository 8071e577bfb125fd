r"""Codes that evolve: a search that needs responses alone, no gradient.

The search of Ponce et al. (2019, Cell 177:999; XDream): of each generation the best quarter stays; the others
are children of two codes that are drawn with probability :math:`\mathrm{softmax}(z / 2)` of their z-scored
scores, a quarter of the genes from the second parent; a quarter of the genes is changed by normal noise of
standard deviation 0.75.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
KEPT, FROM_SECOND, MUTATED, MUTATION_SD, TEMPERATURE = 0.25, 0.25, 0.25, 0.75, 0.5


def evolve(
    score: Callable[[Floats], Floats],
    first: Floats,
    n_generations: int,
    rng: np.random.Generator,
    patience: int | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[Floats, list[float]]:
    """The best code that was met, and the best score of each generation.

    Parameters
    ----------
    score
        From codes (n, code_size) to their scores (n,); higher is better. Asked once for every new code.
    first
        The first generation, shape (population, code_size).
    patience
        Stop after so many generations without a better one; None: never.
    """
    codes, scores = first, score(first)
    curve = [float(scores.max())]
    for _ in range(n_generations - 1):
        advance(1)
        codes, scores = _next(codes, scores, score, rng)
        curve.append(float(scores.max()))
        if patience is not None and len(curve) > patience and curve[-1] <= curve[-1 - patience]:
            break
    advance(n_generations - len(curve) + 1)
    return codes[int(np.argmax(scores))], curve


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
