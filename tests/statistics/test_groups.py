"""Groups of near-copies: moved, drawn and left out as a whole."""

import itertools

import numpy as np
import pytest
import sklearn.model_selection
from scipy import stats

from berg.core.exceptions import InvalidParameterError
from berg.evaluation import (
    SamplesWarning,
    bootstrap_interval,
    ncsnr_ceiling,
    pearson_r,
    permutation_test,
    split_half_ceiling,
)
from berg.statistics.groups import group_folds, group_numbers


def near_copies(sizes, n_units, seed):
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((len(sizes), n_units))
    return np.repeat(own, sizes, axis=0) + 0.1 * rng.standard_normal((sum(sizes), n_units))


@pytest.mark.parametrize("sizes", [[5] * 20, [*range(1, 11)] * 2])
def test_near_copies_without_anything_in_common_are_no_discovery(sizes):
    m, p = near_copies(sizes, 800, 0), near_copies(sizes, 800, 1)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.warns(SamplesWarning, match="Neighbouring stimuli are alike.*give groups"):
        assert np.mean(permutation_test(m, p, 199).p <= 0.05) > 0.2
    assert np.mean(permutation_test(m, p, 199, groups=groups).p <= 0.05) <= 0.07
    for method in ("bca", "percentile"):
        interval = bootstrap_interval(m, p, n_resamples=300, groups=groups, method=method)
        assert np.mean((interval.low <= 0) & (interval.high >= 0)) >= 0.92


@pytest.mark.filterwarnings("ignore:.*fewer than 20:berg.evaluation.SamplesWarning")
def test_all_orders_of_equal_groups_are_taken():
    rng = np.random.default_rng(2)
    m, p = rng.standard_normal((2, 8, 3))
    groups = np.array([0, 1, 0, 1, 2, 3, 2, 3])  # need not stand together
    found = permutation_test(m, p, 23, groups=groups)
    places = [np.flatnonzero(groups == group) for group in range(4)]
    for unit in range(3):
        null = []
        for order in itertools.permutations(range(4)):
            moved = np.empty(8)
            for place, other in zip(places, order, strict=True):
                moved[place] = p[places[other], unit]
            null.append(np.corrcoef(m[:, unit], moved)[0, 1])
        assert found.p[unit] == pytest.approx(np.mean(np.array(null) >= null[0] - 1e-12))


@pytest.mark.filterwarnings("ignore:.*fewer than 20:berg.evaluation.SamplesWarning")
def test_unequal_groups_change_the_sign_of_what_they_add():
    rng = np.random.default_rng(3)
    m, p = rng.standard_normal((2, 9, 2))
    groups = np.repeat([0, 1, 2, 3], [1, 2, 3, 3])
    found = permutation_test(m, p, 15, groups=groups)
    for unit in range(2):
        products = stats.zscore(m[:, unit]) * stats.zscore(p[:, unit]) / 9
        added = np.bincount(groups, products)
        null = [np.dot(signs, added) for signs in itertools.product((1, -1), repeat=4)]
        assert found.p[unit] == pytest.approx(np.mean(np.array(null) >= null[0] - 1e-12))


def test_a_unit_that_misses_part_of_a_group_is_tested_by_signs():
    sizes = [4] * 25
    m, p = near_copies(sizes, 400, 0), near_copies(sizes, 400, 1)
    m[2], m[8:12] = np.nan, np.nan
    found = permutation_test(m, p, 199, groups=np.repeat(np.arange(25), 4))
    assert np.mean(found.p <= 0.05) <= 0.075
    m[:2], m[3] = np.nan, np.nan  # now whole groups are missing
    found = permutation_test(m, p, 199, groups=np.repeat(np.arange(25), 4))
    assert np.mean(found.p <= 0.05) <= 0.075


def test_each_alone_is_no_group_and_labels_may_be_anything():
    rng = np.random.default_rng(4)
    m, p = rng.standard_normal((2, 30, 2))
    alone = bootstrap_interval(m, p, n_resamples=50, groups=[f"s{i}" for i in range(30)])
    np.testing.assert_array_equal(alone.low, bootstrap_interval(m, p, n_resamples=50).low)
    assert group_numbers(["1", 1, "1", "01", "1 "], 5).tolist() == [0, 1, 0, 2, 3]
    assert group_numbers(np.array(["b", "a", "b"]), 3).tolist() == [0, 1, 0]


def test_bootstrap_is_that_of_group_sums():
    """Groups of copies, but for nothing: as many independent samples as there are groups."""
    rng = np.random.default_rng(5)
    m, p = rng.standard_normal((2, 25, 3))
    groups = np.repeat(np.arange(25), 4)
    copies = bootstrap_interval(m[groups], p[groups], n_resamples=200, groups=groups, seed=1)
    single = bootstrap_interval(m, p, n_resamples=200, seed=1)
    np.testing.assert_allclose(copies.estimate, single.estimate)
    assert (copies.high - copies.low > single.high - single.low).all()  # by Student's t
    assert (copies.high - copies.low < 1.3 * (single.high - single.low)).all()


def test_ceilings_are_what_the_true_model_reaches_among_near_copies():
    """They are of the stimuli at hand: groups change how far they may be from those of others, not where they are."""
    signal = near_copies([10] * 10, 600, 0)
    repeats = signal + np.random.default_rng(1).standard_normal((3, 100, 600))
    reached = pearson_r(repeats.mean(0), signal).mean()
    assert ncsnr_ceiling(repeats).mean() == pytest.approx(reached, abs=0.01)
    assert split_half_ceiling(repeats, 10).mean() == pytest.approx(reached, abs=0.01)


@pytest.mark.parametrize("seed", [0, None])
def test_folds_hold_whole_groups_and_are_of_one_size(seed):
    numbers = np.repeat(np.arange(30), np.random.default_rng(0).integers(1, 8, 30))
    folds = group_folds(numbers, 5, seed)
    assert np.sort(np.concatenate(folds)).tolist() == list(range(len(numbers)))
    assert sum(len(np.unique(numbers[fold])) for fold in folds) == 30
    theirs = [len(test) for _, test in sklearn.model_selection.GroupKFold(5).split(numbers, groups=numbers)]
    ours = [len(fold) for fold in folds]
    assert np.ptp(ours) <= (np.ptp(theirs) + 1 if seed == 0 else 8)
    if seed is None:
        assert all((np.diff(fold) == 1).all() for fold in folds)
    assert [len(fold) for fold in group_folds(np.arange(5), 5, seed)] == [1] * 5


def test_what_cannot_be_is_refused():
    m = np.random.default_rng(0).standard_normal((30, 2))
    groups = np.repeat(np.arange(3), 10)
    with pytest.raises(InvalidParameterError, match="29 labels of groups for 30 stimuli"):
        permutation_test(m, m, groups=np.arange(29))
    with pytest.raises(InvalidParameterError, match="All 30 stimuli are in one group"):
        bootstrap_interval(m, m, groups=[0] * 30)
    with pytest.raises(InvalidParameterError, match="Both groups and block_length=5"):
        permutation_test(m, m, groups=groups, block_length=5)
    with pytest.raises(InvalidParameterError, match="1 labels of groups are missing"):
        permutation_test(m, m, groups=[*groups[:-1], None])
    with pytest.raises(InvalidParameterError, match=r"5 folds of 3 groups.*Choose 2 to 3 folds"):
        group_folds(groups, 5)
    with pytest.warns(SamplesWarning, match="30 stimuli are in 3 groups, fewer than 20"):
        permutation_test(m, m, 5, groups=groups)
