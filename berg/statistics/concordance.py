r"""Kendall's tau-a between samples in which each value counts some times, exactly.

.. math::
    \tau_a = \frac{\sum_{p < q} w_p w_q \, \mathrm{sgn}(a_p - a_q) \, \mathrm{sgn}(b_p - b_q)}{n (n - 1) / 2},
    \quad n = \sum_p w_p

The sum is a matrix product of signs, a block of rows at a time, in which each value that was drawn stands once and not
as often as it was drawn. It is of the order of the square of their number: of many values, or of few comparisons,
scipy's merge sort is faster, which is taken then.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from berg.statistics.unit_blocks import Floats

_BLOCK = 2**20  # signs of a block
_EXACT = 2**24  # integers below it are exact in float32
_OF_A_SORT = 20  # signs that are made in the time in which a sort moves one value by one level


def tau_a(first: Floats, second: Floats, weight: Floats) -> Floats:
    """Each of some samples with each of others.

    Parameters
    ----------
    first, second
        Shape (n_first, n_values) and (n_second, n_values): integers in the order of the values, such as twice their
        ranks.
    weight
        Shape (n_values,): how often each value was drawn, at least once.

    Returns
    -------
    tau
        Shape (n_first, n_second); 0 for a sample whose values are all the same.

    Examples
    --------
    >>> tau_a(np.array([[1.0, 2, 3]]), np.array([[1.0, 3, 2], [5, 5, 5]]), np.ones(3))
    array([[0.33333333, 0.        ]])
    """
    n = weight.sum()
    n_signs = len(weight) ** 2 / 2 * (len(first) + len(second))
    if n_signs < _OF_A_SORT * len(first) * len(second) * n * np.log2(n + 1):
        return np.asarray(_of_signs(first, second, weight) / (n * (n - 1) / 2))
    times = weight.astype(np.intp)
    a, b = np.repeat(first, times, axis=1), np.repeat(second, times, axis=1)
    return np.array([[_by_sorting(one, other) for other in b] for one in a])


def paired_tau_a(first: Floats, second: Floats, weight: Floats) -> Floats:
    """The first of some samples with the first of others, and so on; shape (n,)."""
    n = weight.sum()
    if len(weight) ** 2 / 2 * 2 < _OF_A_SORT * n * np.log2(n + 1):
        return np.asarray(np.diagonal(_of_signs(first, second, weight)) / (n * (n - 1) / 2))
    times = weight.astype(np.intp)
    return np.array([_by_sorting(np.repeat(a, times), np.repeat(b, times)) for a, b in zip(first, second, strict=True)])


def _of_signs(first: Floats, second: Floats, weight: Floats) -> Floats:
    """Weighted sums of products of signs over all pairs p > q; shape (n_first, n_second)."""
    largest = max(np.abs(first).max(), np.abs(second).max())
    n, total = len(weight), np.zeros((len(first), len(second)))
    joint = np.concatenate([first, second])
    step = max(1, _BLOCK // (len(joint) * n))
    is_exact = max(2 * largest, step * weight.max() * weight.sum()) < _EXACT
    kind: Any = np.float32 if is_exact else np.float64
    values, own = joint.astype(kind), weight.astype(kind)
    memory = np.empty(len(joint) * step * n, kind)
    for start in range(0, n, step):
        stop = min(start + step, n)
        shape = (len(joint), stop - start, stop)
        signs = memory[: math.prod(shape)].reshape(shape)
        np.subtract(values[:, start:stop, None], values[:, None, :stop], out=signs)
        np.clip(signs, -1, 1, out=signs)
        products = own[start:stop, None] * own[:stop]
        products[:, start:] = np.tril(products[:, start:], -1)  # of two rows of the block only once
        signs[len(first) :] *= products
        flat = signs.reshape(len(joint), -1)
        total += flat[: len(first)] @ flat[len(first) :].T
    return total


def _by_sorting(first: Floats, second: Floats) -> float:
    n = len(first) * (len(first) - 1) / 2
    untied = [n - _n_tied(values) for values in (first, second)]
    if min(untied) <= 0:
        return 0.0
    tau_b = kendalltau(first, second, method="asymptotic").statistic
    return float(tau_b * np.sqrt(untied[0] * untied[1]) / n)


def _n_tied(values: Floats) -> float:
    counts = np.unique(values, return_counts=True)[1]
    return float((counts * (counts - 1) / 2).sum())
