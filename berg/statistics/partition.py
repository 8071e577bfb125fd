r"""What several sets of predictors explain alone and together: from r2 of all their subsets to unique and shared parts.

With k sets there are :math:`2^k - 1` subsets and as many parts. The part of a set A of predictors, what exactly those
have in common and no other has, is

.. math:: C(A) = \sum_{B \subseteq A} (-1)^{|B| + 1} R^2(B \cup \bar A), \qquad R^2(\emptyset) = 0

so that all parts add up to r2 of all predictors, and those that name a set to r2 of that set alone. Parts may be
negative: if predictors explain more together than the sum of each (suppression), or, cross-validated, by noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from berg.core.exceptions import InvalidParameterError
from berg.statistics.unit_blocks import Floats

Subset = tuple[int, ...]
MOST = 4


def subsets(n_sets: int) -> list[Subset]:
    """The subsets of so many sets that are not empty, small ones first.

    >>> subsets(2)
    [(0,), (1,), (0, 1)]
    """
    if not 1 < n_sets <= MOST:
        raise InvalidParameterError(f"{n_sets} sets of predictors were given; variance is parted among 2 to {MOST}.")
    return [chosen for size in range(1, n_sets + 1) for chosen in itertools.combinations(range(n_sets), size)]


def shared_parts(r2: Any) -> Floats:
    """Unique and shared parts from r2 of all subsets.

    Parameters
    ----------
    r2
        Shape (n_subsets, ...), in the order of `subsets`.

    Returns
    -------
    parts
        The same shape and order: of one set what it alone explains, of several what they share and no other has.

    Examples
    --------
    >>> shared_parts([0.3, 0.4, 0.5]).round(6)  # of the first, of the second, of both together
    array([0.1, 0.2, 0.2])
    """
    r2 = np.asarray(r2, np.float64)
    n_sets = (len(r2) + 1).bit_length() - 1
    chosen = subsets(n_sets)
    if len(chosen) != len(r2):
        raise InvalidParameterError(f"{len(r2)} values of r2 were given; it takes 3, 7 or 15, one per subset.")
    return np.asarray(np.tensordot(_signs(chosen, n_sets), r2, 1))


def product_measure(measured: Any, predicted: Any) -> Floats:
    r"""The part of r2 that each of some predictions that are added up has, by the product measure.

    .. math:: R^2_b = \frac{\sum_s (2 y_s \hat y_{bs} - \hat y_{bs} \sum_c \hat y_{cs})}{\sum_s y_s^2}

    (Dupré la Tour et al. 2022, NeuroImage 264:119728, as himalaya's ``r2_score_split``). Parts add up to r2 of the sum
    of all predictions; one may be negative.

    Parameters
    ----------
    measured
        Shape (n_stimuli, n_units), mean 0 over stimuli.
    predicted
        Shape (n_parts, n_stimuli, n_units).

    Returns
    -------
    r2
        Shape (n_parts, n_units); NaN where nothing varies.
    """
    measured, predicted = np.asarray(measured, np.float64), np.asarray(predicted, np.float64)
    together = 2 * measured - predicted.sum(0)
    variance = (measured**2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(variance > 0, np.einsum("psu,su->pu", predicted, together) / variance, np.nan))


def r2_of_subsets(correlations: Any) -> Floats:
    r"""In-sample r2 of least squares, with an intercept, of one variable on all subsets of others.

    .. math:: R^2_S = r_S^T R_{SS}^{-1} r_S

    Parameters
    ----------
    correlations
        Shape (..., 1 + n_sets, 1 + n_sets), of the variable and then the predictors.

    Returns
    -------
    r2
        Shape (n_subsets, ...), in the order of `subsets`.
    """
    correlations = np.asarray(correlations, np.float64)
    with_target, among = correlations[..., 0, 1:], correlations[..., 1:, 1:]
    found = []
    for chosen in subsets(correlations.shape[-1] - 1):
        own = with_target[..., chosen]
        inverse = np.linalg.pinv(among[..., np.ix_(chosen, chosen)[0], np.ix_(chosen, chosen)[1]], hermitian=True)
        found.append(np.einsum("...i,...ij,...j->...", own, inverse, own))
    return np.stack(found)


def names_of_subsets(names: Sequence[str], shared: str = " + ") -> list[str]:
    """The subsets in words.

    >>> names_of_subsets(["a", "b"])
    ['a', 'b', 'a + b']
    """
    return [shared.join(names[index] for index in chosen) for chosen in subsets(len(names))]


def _signs(chosen: list[Subset], n_sets: int) -> Floats:
    """How often r2 of each subset (columns) is counted in each part (rows)."""
    place = {subset: index for index, subset in enumerate(chosen)}
    table = np.zeros((len(chosen), len(chosen)))
    for row, part in enumerate(chosen):
        others = set(range(n_sets)) - set(part)
        for size in range(len(part) + 1):
            for taken in itertools.combinations(part, size):
                if union := tuple(sorted({*taken, *others})):
                    table[row, place[union]] = (-1.0) ** (size + 1)
    return table
