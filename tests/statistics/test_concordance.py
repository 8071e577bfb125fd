"""Kendall's tau-a of values that count several times, beside scipy's and the definition."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from berg.statistics import concordance
from berg.statistics.concordance import paired_tau_a, tau_a

RNG = np.random.default_rng(0)
TIMES = RNG.integers(1, 5, 60)
WITHOUT_TIES = np.stack([RNG.permutation(60) for _ in range(4)]).astype(float)
WITH_TIES = RNG.integers(0, 6, (3, 60)).astype(float)


def by_definition(a, b):
    signs = np.sign(np.subtract.outer(a, a)) * np.sign(np.subtract.outer(b, b))
    return signs.sum() / (len(a) * (len(a) - 1))


@pytest.mark.parametrize("of_a_sort", [0, 10**9], ids=["sorted", "signs"])
@pytest.mark.parametrize("scale", [1, 2**40], ids=["float32", "float64"])
def test_tau_a_is_that_of_the_repeated_values(of_a_sort, scale, monkeypatch):
    monkeypatch.setattr(concordance, "_OF_A_SORT", of_a_sort)
    monkeypatch.setattr(concordance, "_BLOCK", 7 * 60 * 16)  # 16 rows of signs at once
    first, second = scale * WITHOUT_TIES, np.concatenate([WITH_TIES, np.ones((1, 60))])
    wanted = [[by_definition(np.repeat(a, TIMES), np.repeat(b, TIMES)) for b in second] for a in first]
    np.testing.assert_allclose(tau_a(first, second, TIMES.astype(float)), wanted, atol=1e-14)
    np.testing.assert_allclose(paired_tau_a(first, second, TIMES.astype(float)), np.diagonal(wanted), atol=1e-14)


def test_without_ties_and_repeats_it_is_scipys_tau():
    once = np.ones(60)
    wanted = [[kendalltau(a, b).statistic for b in WITHOUT_TIES] for a in WITHOUT_TIES]
    np.testing.assert_allclose(tau_a(WITHOUT_TIES, WITHOUT_TIES, once), wanted, atol=1e-14)
