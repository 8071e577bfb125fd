import numpy as np
import pytest
from scipy import stats

from berg.core.exceptions import InvalidParameterError
from berg.statistics.over_subjects import interval_over_subjects, prevalence_p
from berg.statistics.random_sets import random_sets
from berg.statistics.set_means import permutation_p, set_mean_test


@pytest.mark.parametrize(("n_items", "size"), [(6, 3), (200, 4)])
def test_random_sets_have_no_item_twice_and_every_item_equally_often_at_every_position(n_items, size):
    n = 20_000
    sets = random_sets(n_items, size, n, seed=1)
    assert sets.shape == (n, size)
    assert (np.diff(np.sort(sets), axis=1) > 0).all()
    for column in sets.T:
        counts = np.bincount(column, minlength=n_items)
        assert stats.chisquare(counts).pvalue > 1e-4


def test_the_first_columns_of_random_sets_are_a_smaller_set():
    pairs = random_sets(4, 3, 24_000, seed=0)[:, :2]
    counts = np.unique(pairs, axis=0, return_counts=True)[1]
    assert len(counts) == 12
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(("n_items", "size", "n"), [(3, 4, 1), (3, 0, 1), (3, 2, 0)])
def test_sets_that_cannot_be_are_refused(n_items, size, n):
    with pytest.raises(InvalidParameterError, match="give at least one set"):
        random_sets(n_items, size, n)


def test_prevalence_is_the_binomial_tail():
    assert prevalence_p(1, 3, 0.05) == pytest.approx(1 - 0.95**3)
    np.testing.assert_allclose(prevalence_p(np.array([0, 3]), 3, 0.05), [1.0, 0.05**3])
    assert np.isnan(prevalence_p(0, 0, 0.05))


def test_the_interval_over_two_subjects_is_that_of_the_four_draws_there_are():
    found = interval_over_subjects(np.array([[0.0, np.nan], [1.0, 2.0]]), 20_000, level=0.4)
    np.testing.assert_allclose(found.estimate, [0.5, 2.0])
    assert (found.low[0], found.high[0]) == (0.5, 0.5)  # of 0, 1/2, 1/2, 1
    wide = interval_over_subjects(np.array([[0.0], [1.0]]), 20_000)
    assert (wide.low[0], wide.high[0]) == (0.0, 1.0)
    assert np.isnan(found.low[1])  # one subject has no interval


def test_the_test_of_set_means_is_that_of_scipy():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(12) + np.repeat([0.8, 0.0], 6)
    draws = random_sets(12, 12, 20_000, seed=2)
    for alternative in ("greater", "less", "two-sided"):
        difference, p = set_mean_test(values, np.arange(6), np.arange(6, 12), draws, alternative)
        exact = stats.permutation_test(
            (values[:6], values[6:]), lambda a, b: a.mean() - b.mean(), alternative=alternative, n_resamples=np.inf
        )
        assert difference == pytest.approx(exact.statistic)
        assert p == pytest.approx(exact.pvalue, abs=0.015)


def test_drawing_the_positions_alone_is_the_published_shuffle_of_all_values():
    """Also of sets that share a stimulus, which stays in both."""
    rng = np.random.default_rng(3)
    values, chosen, base = rng.standard_normal(60), np.array([1, 5, 9, 20]), np.array([9, 30, 40])
    _, p = set_mean_test(values, chosen, base, random_sets(60, 7, 20_000, seed=4))
    shuffled = rng.permuted(np.tile(values, (20_000, 1)), axis=1)
    null = shuffled[:, chosen].mean(axis=1) - shuffled[:, base].mean(axis=1)
    assert p == pytest.approx((null >= values[chosen].mean() - values[base].mean()).mean(), abs=0.015)


def test_an_empty_set_has_no_test_and_too_few_columns_are_refused():
    assert np.isnan(set_mean_test(np.ones(3), np.empty(0, int), np.array([1]), np.zeros((1, 3), int))).all()
    with pytest.raises(InvalidParameterError, match="Draw at least as many"):
        set_mean_test(np.ones(3), np.array([0]), np.array([1]), np.zeros((1, 1), int))


def test_ties_count_as_reached():
    assert permutation_p(1.0, np.array([1.0, 1.0 - 1e-14, 0.5]), "greater") == 0.75
    assert np.isnan(permutation_p(np.nan, np.ones(3), "less"))
