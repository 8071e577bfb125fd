"""Permutations: beside scipy, and how often they are wrong in simulations with known truth."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from berg.core.exceptions import InvalidParameterError
from berg.evaluation import (
    SamplesWarning,
    max_statistic_p,
    pearson_r,
    permutation_test,
)
from berg.statistics import permutation


def correlated(n_stimuli, n_units, r=0.0, seed=0):
    rng = np.random.default_rng(seed)
    predicted = rng.standard_normal((n_stimuli, n_units))
    return r * predicted + np.sqrt(1 - r**2) * rng.standard_normal((n_stimuli, n_units)), predicted


def statistic(x, y):
    return stats.pearsonr(x, y).statistic


class TestPermutationTest:
    @pytest.mark.parametrize("alternative", ["greater", "two-sided"])
    def test_few_stimuli_are_tested_exactly_as_by_scipy(self, alternative):
        measured, predicted = correlated(6, 4, 0.5)
        found = permutation_test(measured, predicted, math.factorial(6), alternative=alternative)
        assert len(found.null_maximum) == math.factorial(6) - 1
        measure = statistic if alternative == "greater" else lambda x, y: abs(statistic(x, y))
        for unit in range(4):
            expected = stats.permutation_test(
                (predicted[:, unit],),
                lambda moved, fixed=measured[:, unit]: measure(moved, fixed),
                vectorized=False,
                permutation_type="pairings",
                n_resamples=np.inf,
                alternative="greater",
            )
            assert found.p[unit] == pytest.approx(expected.pvalue, abs=1e-12)

    def test_equal_values_count_as_reached(self):
        measured = np.array([[0.1], [0.1], [0.1], [0.7]])  # 3 stimuli of 4 may be exchanged
        assert permutation_test(measured, measured * 3, 23).p == pytest.approx([6 / 24])

    @pytest.mark.parametrize("alternative", ["greater", "two-sided"])
    def test_random_orders_are_counted_as_in_a_loop(self, alternative):
        measured, predicted = correlated(20, 7, 0.2)
        found = permutation_test(measured, predicted, 50, alternative=alternative, seed=3)
        orders = permutation.permuted_orders(20, 50, seed=3)
        null = np.array([stats.pearsonr(measured, predicted[order], axis=0).statistic for order in orders])
        r = stats.pearsonr(measured, predicted, axis=0).statistic
        if alternative == "two-sided":
            null, r = np.abs(null), np.abs(r)
        np.testing.assert_allclose(found.p, ((null >= r).sum(0) + 1) / 51, rtol=1e-12)
        np.testing.assert_allclose(found.null_maximum, null.max(1), atol=1e-12)
        np.testing.assert_allclose(found.p_family, ((null.max(1)[:, None] >= r).sum(0) + 1) / 51, rtol=1e-12)
        np.testing.assert_array_equal(found.r, pearson_r(measured, predicted))

    def test_missing_stimuli_are_taken_out_of_each_order(self):
        measured, predicted = correlated(20, 5, 0.2)
        measured[[3, 8], 0] = measured[11, 2] = np.nan
        measured[[3, 8], 4] = np.nan
        found = permutation_test(measured, predicted, 60, seed=3)
        null = np.empty((60, 5))
        for (i, order), unit in itertools.product(enumerate(permutation.permuted_orders(20, 60, seed=3)), range(5)):
            kept = ~np.isnan(measured[:, unit])
            own = order[kept[order]]
            null[i, unit] = statistic(measured[kept, unit], predicted[own, unit])
        np.testing.assert_allclose(found.p, ((null >= found.r).sum(0) + 1) / 61, rtol=1e-12)
        np.testing.assert_allclose(found.null_maximum, null.max(1), atol=1e-12)

    def test_few_stimuli_with_gaps_are_tested_exactly(self):
        measured, predicted = correlated(7, 2, 0.5)
        measured[2, 0] = np.nan
        kept = [0, 1, 3, 4, 5, 6]
        found = permutation_test(measured, predicted, math.factorial(7)).p[0]
        assert found == pytest.approx(permutation_test(measured[kept], predicted[kept], 719).p[0], abs=1e-12)

    def test_a_unit_that_does_not_vary_is_not_tested(self):
        measured, predicted = correlated(20, 4, 0.5)
        measured[:, 1], predicted[:, 2], measured[:, 3] = 0.1, 7.0, np.nan
        found = permutation_test(measured, predicted, 30)
        for values in (found.r, found.p, found.p_family, found.p_false_discovery):
            assert np.flatnonzero(np.isnan(values)).tolist() == [1, 2, 3]
        alone = permutation_test(measured[:, :1], predicted[:, :1], 30)
        np.testing.assert_allclose(found.null_maximum, alone.null_maximum, atol=1e-12)

    def test_blocks_threads_and_axes_do_not_matter(self, monkeypatch):
        measured, predicted = correlated(20, 60, 0.2)
        whole = permutation_test(measured, predicted, 40, n_threads=1)
        monkeypatch.setattr(permutation, "CACHE_BYTES", 1)
        cut = permutation_test(measured.reshape(20, 12, 5), predicted.reshape(20, 12, 5), 40, n_threads=3)
        np.testing.assert_array_equal(cut.p, whole.p.reshape(12, 5))
        np.testing.assert_array_equal(cut.p_family, whole.p_family.reshape(12, 5))
        np.testing.assert_allclose(cut.null_maximum, whole.null_maximum, atol=1e-14)

    def test_two_tests_of_one_seed_are_corrected_together(self):
        measured, predicted = correlated(20, 8, 0.2)
        both = permutation_test(measured, predicted, 40)
        left, right = (permutation_test(measured[:, part], predicted[:, part], 40) for part in (slice(3), slice(3, 8)))
        joint = max_statistic_p(left.r, np.maximum(left.null_maximum, right.null_maximum))
        np.testing.assert_array_equal(joint, both.p_family[:3])

    @pytest.mark.parametrize("draw", ["normal", "heavy-tailed"])
    @pytest.mark.parametrize("alternative", ["greater", "two-sided"])
    def test_five_in_a_hundred_units_without_signal_are_false_positives(self, draw, alternative):
        rng = np.random.default_rng(11)
        shape = (2, 40, 20_000)
        measured, predicted = rng.standard_normal(shape) if draw == "normal" else rng.standard_t(2, shape)
        found = permutation_test(measured, predicted, 199, alternative=alternative)
        assert np.mean(found.p <= 0.05) == pytest.approx(0.05, abs=0.01)

    @pytest.mark.slow
    def test_five_in_a_hundred_families_have_any_false_positive(self):
        rng = np.random.default_rng(12)
        n_families, hits, uncorrected = 1500, 0, 0
        for _ in range(n_families):
            shared = rng.standard_normal((12, 1))
            measured, predicted = rng.standard_normal((2, 12, 8)) + shared * [[[0.0]], [[1.0]]]
            found = permutation_test(measured, predicted, 99, seed=rng, n_threads=1)
            hits += (found.p_family <= 0.05).any()
            uncorrected += (found.p <= 0.05).any()
        assert hits / n_families == pytest.approx(0.05, abs=0.01)
        assert uncorrected / n_families > 0.15

    def test_signal_is_found(self):
        found = permutation_test(*correlated(100, 50, 0.6), 999)
        np.testing.assert_array_equal(found.p_family, 0.001)

    def test_stretches_stay_together(self):
        orders = permutation.permuted_orders(10, 200, block_length=3)
        assert (np.sort(orders, axis=1) == np.arange(10)).all()
        pairs = np.argsort(orders, axis=1)  # where each stimulus went
        inside = [i for i in range(9) if i % 3 < 2]
        assert (np.diff(pairs, axis=1)[:, inside] == 1).all()
        assert len(np.unique(orders, axis=0)) == math.factorial(4) - 1

    def test_stretches_hold_the_error_rate_of_slow_responses(self):
        rng = np.random.default_rng(13)
        innovations = rng.standard_normal((2, 600, 3000))
        for frame in range(1, 600):
            innovations[:, frame] += 0.8 * innovations[:, frame - 1]
        measured, predicted = innovations
        with pytest.warns(SamplesWarning, match="Neighbouring stimuli are alike.*shift_test"):
            naive = np.mean(permutation_test(measured, predicted, 99).p <= 0.05)
        stretches = np.mean(permutation_test(measured, predicted, 99, block_length=30).p <= 0.05)
        assert naive > 0.15
        assert stretches == pytest.approx(0.05, abs=0.02)

    def test_what_cannot_be_is_refused(self):
        pair = correlated(10, 2)
        with pytest.raises(InvalidParameterError, match=r"alternative='less' is not known. Allowed: 'greater'"):
            permutation_test(*pair, alternative="less")
        with pytest.raises(InvalidParameterError, match=r"0 permutations of 10 stimuli.*Try n_permutations=1000"):
            permutation_test(*pair, 0)
        with pytest.raises(InvalidParameterError, match=r"in blocks of 10: .* two blocks are needed"):
            permutation_test(*pair, block_length=10)
        with pytest.raises(InvalidParameterError, match=r"block_length is 0; it must be at least 1"):
            permutation_test(*pair, block_length=0)
        with pytest.raises(InvalidParameterError, match=r"\(10, 2\), predicted ones \(9, 2\)"):
            permutation_test(pair[0], pair[1][1:])
