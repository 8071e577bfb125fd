r"""Linear centred kernel alignment (CKA): how alike two representations are, by their products between stimuli."""

from __future__ import annotations

from typing import Any

import numpy as np

from berg.core.exceptions import InvalidParameterError
from berg.statistics.dissimilarity import check_finite
from berg.statistics.unit_blocks import Floats


def linear_cka(first: Any, second: Any) -> float:
    r"""Unbiased linear CKA of two representations of the same stimuli.

    .. math:: \mathrm{CKA} = \frac{H(X X^T, Y Y^T)}{\sqrt{H(X X^T, X X^T)\, H(Y Y^T, Y Y^T)}}

    with the unbiased estimator H of the Hilbert-Schmidt independence criterion (Song et al. 2012, J Mach Learn Res
    13:1393, equation 5), in which a stimulus is never multiplied with itself. The biased one grows towards 1 with the
    number of units, whatever they do. No turn, shift or scale of either changes it; unrelated ones give 0 on average,
    so that it can be below 0.

    Parameters
    ----------
    first, second
        Shape (n_stimuli, n_units), the units of each its own.

    Returns
    -------
    cka
        At most about 1; NaN if H of one with itself is not above 0, that is, if it has no structure to be found.

    Raises
    ------
    InvalidParameterError
        Fewer than four stimuli, different numbers of them, values that are not finite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> patterns = rng.standard_normal((50, 10_000))
    >>> round(linear_cka(patterns, 3 * patterns[:, ::-1] + 1), 6)
    1.0
    >>> abs(linear_cka(patterns, rng.standard_normal((50, 10_000)))) < 0.3
    True
    """
    one, other = (_centred(np.asarray(patterns, np.float64)) for patterns in (first, second))
    return cka_of_products(one @ one.T, other @ other.T)


def cka_of_products(first: Floats, second: Floats) -> float:
    """`linear_cka` from the products of the stimuli's patterns, each of shape (n_stimuli, n_stimuli)."""
    if first.shape != second.shape or len(first) < 4:
        raise InvalidParameterError(
            f"Representations of {len(first)} and {len(second)} stimuli were given; CKA needs the same stimuli, at "
            "least 4."
        )
    both, one, other = (_hsic(*pair) for pair in ((first, second), (first, first), (second, second)))
    return float(both / np.sqrt(one * other)) if one > 0 and other > 0 else float("nan")


def _centred(patterns: Floats) -> Floats:
    if patterns.ndim != 2:
        raise InvalidParameterError(f"Patterns have shape {patterns.shape}; they must be (stimuli, units).")
    return np.asarray(check_finite(patterns) - patterns.mean(0))  # no digits are lost to a common pattern


def _hsic(first: Floats, second: Floats) -> float:
    n = len(first)
    one, other = first - np.diag(np.diag(first)), second - np.diag(np.diag(second))
    trace = np.einsum("ij,ij->", one, other)
    totals = one.sum() * other.sum() / ((n - 1) * (n - 2))
    rows = 2 / (n - 2) * (one.sum(0) @ other.sum(0))
    return float((trace + totals - rows) / (n * (n - 3)))
