r"""Whether the mean over one set of stimuli differs from that over another: permutations of stimuli."""

from __future__ import annotations

from typing import Literal

import numpy as np

from berg.core.exceptions import InvalidParameterError
from berg.statistics.groups import Indices
from berg.statistics.options import check_choice
from berg.statistics.p_values import TIE
from berg.statistics.unit_blocks import Floats

Direction = Literal["greater", "less", "two-sided"]
_BLOCK = 2**15


def set_mean_test(
    values: Floats, chosen: Indices, reference: Indices, draws: Indices, alternative: Direction = "greater"
) -> tuple[float, float]:
    r"""Difference of the means over two sets of stimuli, and how often chance does as well.

    Under the null hypothesis any stimulus could have had any response: the responses are shuffled over all stimuli,
    and :math:`p = (b + 1) / (m + 1)` with b shuffles whose difference reaches the observed one (Phipson & Smyth 2010,
    Stat Appl Genet Mol Biol 9:39). Of a shuffle only the stimuli matter that land in the two sets, so that the shuffles
    are given as random sets. Stimuli in both sets stay in both.

    Parameters
    ----------
    values
        Shape (n_stimuli,), one response each.
    chosen, reference
        The two sets, indices into `values`.
    draws
        Shape (n_permutations, at least the number of different stimuli of both sets), from
        `berg.statistics.random_sets.random_sets`.
    alternative
        ``"greater"``: the mean over `chosen` is larger.

    Returns
    -------
    difference, p
        Of one test; NaN where a set is empty.

    Raises
    ------
    InvalidParameterError
        If the draws have too few columns.
    """
    check_choice("alternative", alternative, ("greater", "less", "two-sided"))
    if not len(chosen) or not len(reference):
        return np.nan, np.nan
    members, place = np.unique(np.concatenate([chosen, reference]), return_inverse=True)
    if draws.shape[1] < len(members):
        raise InvalidParameterError(
            f"The two sets have {len(members)} stimuli, and the draws {draws.shape[1]} columns. Draw at least as many."
        )
    weights = np.bincount(place[: len(chosen)], minlength=len(members)) / len(chosen)
    weights -= np.bincount(place[len(chosen) :], minlength=len(members)) / len(reference)
    observed = float(values[members] @ weights)
    null = np.concatenate(
        [values[draws[start : start + _BLOCK, : len(members)]] @ weights for start in range(0, len(draws), _BLOCK)]
    )
    return observed, permutation_p(observed, null, alternative, scale=float(np.abs(values).max()))


def permutation_p(observed: float, null: Floats, alternative: Direction, scale: float = 1.0) -> float:
    """The part of the null, with the observed one among it, that reaches the observed statistic.

    Parameters
    ----------
    scale
        Of the values; what differs by 1e-12 of it is a tie.
    """
    if np.isnan(observed):
        return np.nan
    tie = TIE * scale
    if alternative == "greater":
        reached = null >= observed - tie
    elif alternative == "less":
        reached = null <= observed + tie
    else:
        reached = np.abs(null) >= abs(observed) - tie
    return float((np.count_nonzero(reached) + 1) / (len(null) + 1))
