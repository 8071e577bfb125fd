"""Bootstrap: beside scipy, and how often its intervals hold a known truth."""

import itertools

import numpy as np
import pytest
import sklearn.metrics
from scipy import stats

from berg.core.exceptions import InvalidParameterError
from berg.evaluation import (
    bootstrap_interval,
    pearson_r,
    r2_score,
)
from berg.statistics import bootstrap, unit_blocks


def correlated(n_stimuli, n_units, r=0.0, seed=0):
    rng = np.random.default_rng(seed)
    predicted = rng.standard_normal((n_stimuli, n_units))
    return r * predicted + np.sqrt(1 - r**2) * rng.standard_normal((n_stimuli, n_units)), predicted


REFERENCES = {"r": lambda m, p: stats.pearsonr(m, p).statistic, "r2": sklearn.metrics.r2_score}


class TestBootstrapInterval:
    @pytest.mark.parametrize("metric", REFERENCES)
    @pytest.mark.parametrize("method", ["percentile", "bca"])
    def test_it_is_that_of_scipy_for_the_same_draws(self, metric, method):
        measured, predicted = correlated(25, 3, 0.6)
        measured = 50 + 2 * measured
        predicted = 50 + 2 * predicted
        found = bootstrap_interval(measured, predicted, metric, level=0.9, method=method, n_resamples=300, seed=5)
        np.testing.assert_allclose(
            found.estimate, {"r": pearson_r, "r2": r2_score}[metric](measured, predicted), rtol=1e-10
        )
        for unit in range(3):
            expected = stats.bootstrap(
                (measured[:, unit], predicted[:, unit]),
                REFERENCES[metric],
                paired=True,
                vectorized=False,
                n_resamples=300,
                confidence_level=0.9,
                method=method,
                rng=np.random.default_rng(5),
            ).confidence_interval
            assert found.low[unit] == pytest.approx(expected.low, abs=1e-8)
            assert found.high[unit] == pytest.approx(expected.high, abs=1e-8)

    @pytest.mark.parametrize("metric", REFERENCES)
    def test_missing_stimuli_are_left_out_of_each_draw(self, metric):
        measured, predicted = correlated(25, 2, 0.6)
        measured[[4, 9, 10], 0] = np.nan
        found = bootstrap_interval(measured, predicted, metric, method="percentile", n_resamples=200, seed=5)
        drawn = np.random.default_rng(5).integers(0, 25, (200, 25))
        kept = ~np.isnan(measured[:, 0])
        values = [REFERENCES[metric](*(x[draw[kept[draw]], 0] for x in (measured, predicted))) for draw in drawn]
        np.testing.assert_allclose([found.low[0], found.high[0]], np.quantile(values, [0.025, 0.975]), atol=1e-10)

    def test_the_jackknife_leaves_out_only_what_was_measured(self):
        measured, predicted = correlated(25, 1, 0.6)
        padded = [np.concatenate([x, np.full((3, 1), fill)]) for x, fill in ((measured, np.nan), (predicted, 1.0))]
        terms = [bootstrap._terms(*pair, True, (0.0, 0.0)) for pair in ((measured, predicted), padded)]
        levels = []
        for parts in terms:
            sums = [part.sum(1) for part in parts]
            left_out = bootstrap._r_of_sums(*(total[:, None] - part for total, part in zip(sums, parts, strict=True)))
            left_out = np.where(parts[0] > 0, left_out, np.nan)
            resampled = np.linspace(0.2, 0.8, 50)[None]
            levels.append(bootstrap._corrected_levels(np.array([0.1, 0.9]), np.array([0.55]), resampled, left_out))
        np.testing.assert_allclose(levels[0], levels[1], rtol=1e-10)

    @pytest.mark.parametrize("method", ["percentile", "bca"])
    @pytest.mark.parametrize("metric", REFERENCES)
    def test_nineteen_of_twenty_intervals_hold_the_truth(self, metric, method):
        measured, predicted = correlated(200, 2000, 0.5, seed=15)
        predicted = predicted * 0.5  # the best scale: r2 is then r squared
        found = bootstrap_interval(measured, predicted, metric, method=method, n_resamples=500)
        truth = {"r": 0.5, "r2": 0.25}[metric]
        assert np.mean((found.low <= truth) & (truth <= found.high)) == pytest.approx(0.95, abs=0.02)

    @pytest.mark.parametrize("method", ["percentile", "bca"])
    def test_units_without_variation_have_none_and_perfect_ones_no_width(self, method):
        measured, predicted = correlated(20, 5, 0.5)
        measured[:, 1], predicted[:, 2], measured[:, 3] = 0.1, np.nan, np.nan
        measured[:, 4] = predicted[:, 4]
        found = bootstrap_interval(measured, predicted, method=method, n_resamples=50)
        for values in (found.estimate, found.low, found.high):
            assert np.flatnonzero(np.isnan(values)).tolist() == [1, 2, 3]
            assert values[4] == pytest.approx(1)

    @pytest.mark.parametrize("method", ["percentile", "bca"])
    def test_draws_without_variation_do_not_count(self, method):
        measured, predicted = correlated(4, 2, 0.9, seed=3)
        found = bootstrap_interval(measured, predicted, method=method, n_resamples=2000)
        assert np.isfinite(found.low).all()
        assert (found.low <= found.high).all()

    def test_blocks_and_axes_do_not_matter(self, monkeypatch):
        measured, predicted = correlated(20, 60, 0.2)
        whole = bootstrap_interval(measured, predicted, n_resamples=50)
        monkeypatch.setattr(unit_blocks, "BLOCK_BYTES", 1)
        cut = bootstrap_interval(measured.reshape(20, 12, 5), predicted.reshape(20, 12, 5), n_resamples=50)
        np.testing.assert_allclose(cut.low, whole.low.reshape(12, 5), atol=1e-12)
        np.testing.assert_allclose(cut.high, whole.high.reshape(12, 5), atol=1e-12)

    def test_stretches_are_drawn_together(self):
        counts = bootstrap.resampled_counts(12, 300, block_length=4)
        assert (counts.sum(1) == 12).all()
        starts = np.random.default_rng(0).integers(0, 12, (300, 3))
        expected = np.zeros((300, 12))
        for row, start, step in itertools.product(range(300), range(3), range(4)):
            expected[row, (starts[row, start] + step) % 12] += 1
        np.testing.assert_array_equal(counts, expected)
        assert (bootstrap.resampled_counts(10, 50, block_length=4).sum(1) == 10).all()

    def test_what_cannot_be_is_refused(self):
        pair = correlated(10, 2)
        with pytest.raises(InvalidParameterError, match=r"metric='R' is not known. Allowed: 'r', 'r2'"):
            bootstrap_interval(*pair, "R")
        with pytest.raises(InvalidParameterError, match=r"method='basic' is not known. Allowed: 'percentile', 'bca'"):
            bootstrap_interval(*pair, method="basic")
        with pytest.raises(InvalidParameterError, match=r"level is 95; it must lie between 0 and 1. Try level=0.95"):
            bootstrap_interval(*pair, level=95)
        with pytest.raises(InvalidParameterError, match=r"0 resamples of 10 stimuli.*at least one resample"):
            bootstrap_interval(*pair, n_resamples=0)
        with pytest.raises(InvalidParameterError, match=r"blocks of 11: .*as many as there are stimuli"):
            bootstrap_interval(*pair, block_length=11)
