r"""P values: of permutation tests, of a whole family of units, and corrected for false discoveries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from berg.core.exceptions import InvalidParameterError
from berg.statistics.array_kinds import Array, plain, read
from berg.statistics.unit_blocks import Floats

TIE = 1e-12
"""Correlations that differ by less are the same number, rounded."""


@dataclass(frozen=True)
class PermutationTest:
    """Pearson r and how often chance does as well.

    Attributes
    ----------
    r
        Shape (...units).
    p
        Shape (...units), of each unit by itself; not corrected. NaN where r is.
    p_family
        Shape (...units), corrected for all units of the test by the maximum statistic.
    null_maximum
        Shape (n_permutations,), the largest statistic of all units in each permutation. Two tests with the same seed,
        stimuli and number of permutations (two hemispheres, say) are corrected together by
        ``max_statistic_p(r, np.maximum(left.null_maximum, right.null_maximum))``.
    """

    r: Floats
    p: Floats
    p_family: Floats
    null_maximum: Floats

    @property
    def p_false_discovery(self) -> Floats:
        """Shape (...units), `p` corrected by `benjamini_hochberg`."""
        return benjamini_hochberg(self.p)


def max_statistic_p(statistic: Array, null_maximum: Floats) -> Floats:
    r"""P values that hold for a whole family of units: the probability of any false positive is at most p.

    .. math:: p_u = \frac{\#\{k : \max_v T_v^{(k)} \ge T_u\} + 1}{m + 1}

    (Nichols & Holmes 2002, Hum Brain Mapp 15:1).

    Parameters
    ----------
    statistic
        Shape (...units), the observed one: r, or \|r\| for a two-sided test.
    null_maximum
        Shape (n_permutations,), of the largest of all units.

    Returns
    -------
    p
        Shape (...units); NaN where the statistic is.
    """
    observed = read(plain(statistic)[...]).astype(np.float64)
    ordered = np.sort(read(plain(null_maximum)[...]))
    reached = len(ordered) - np.searchsorted(ordered, observed - TIE, side="left")
    return np.where(np.isnan(observed), np.nan, (reached + 1) / (len(ordered) + 1))


def benjamini_hochberg(p: Array) -> Floats:
    r"""P values adjusted so that those below q hold a part of at most q false discoveries.

    .. math:: \tilde p_{(i)} = \min_{j \ge i} \min\left(1, \frac{n}{j} p_{(j)}\right)

    (Benjamini & Hochberg 1995, J R Stat Soc B 57:289), for units that are independent or positively dependent.

    Parameters
    ----------
    p
        Shape (...units), all tests of the family; NaN is no test.

    Returns
    -------
    adjusted
        Shape (...units), NaN where `p` is.

    Raises
    ------
    InvalidParameterError
        A p value below 0 or above 1.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, 0.03, float("nan")])
    array([0.03, 0.04, 0.04,  nan])
    """
    p = read(plain(p)[...]).astype(np.float64)
    tested = p[~np.isnan(p)]
    if np.any((tested < 0) | (tested > 1)):
        raise InvalidParameterError(
            f"P values lie between {tested.min()} and {tested.max()}; they must be probabilities, from 0 to 1. "
            "Try permutation_test(measured, predicted).p."
        )
    order = np.argsort(tested)
    scaled = tested[order] * len(tested) / np.arange(1, len(tested) + 1)
    adjusted = np.full(p.shape, np.nan)
    values = np.empty(len(tested))
    values[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    adjusted[~np.isnan(p)] = values
    return adjusted
