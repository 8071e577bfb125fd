"""Accuracy per unit: beside scipy and scikit-learn, and where responses are missing, constant or on disk."""

import h5py
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from berg.core.exceptions import InvalidParameterError
from berg.evaluation import mean_over_repeats, noise_normalised, over_repeats, pearson_r, r2_score
from berg.statistics import unit_blocks


@pytest.fixture
def pair():
    rng = np.random.default_rng(1)
    predicted = rng.standard_normal((37, 50)) * 3 + 100
    return predicted + rng.standard_normal((37, 50)), predicted


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_r_is_that_of_scipy(pair, dtype):
    measured, predicted = (x.astype(dtype) for x in pair)
    expected = stats.pearsonr(measured.astype(float), predicted.astype(float), axis=0).statistic
    np.testing.assert_allclose(pearson_r(measured, predicted), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_r2_is_that_of_scikit_learn_and_not_r_squared(pair, dtype):
    measured, predicted = (x.astype(dtype) for x in pair)
    expected = sklearn.metrics.r2_score(measured.astype(float), predicted.astype(float), multioutput="raw_values")
    found = r2_score(measured, predicted)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.abs(found - pearson_r(measured, predicted) ** 2).max() > 0.01


@pytest.mark.parametrize("metric", [pearson_r, r2_score])
class TestEveryMetric:
    def test_a_missing_response_is_left_out_and_is_not_zero(self, metric, pair):
        measured, predicted = pair
        holed = measured.copy()
        holed[5:9, 0] = holed[20, 1] = np.nan
        found = metric(holed, predicted)
        kept = np.delete(np.arange(37), slice(5, 9))
        assert found[0] == pytest.approx(metric(measured[kept], predicted[kept])[0], abs=1e-12)
        np.testing.assert_allclose(found[2:], metric(measured, predicted)[2:], atol=1e-12)
        assert abs(found[0] - metric(np.nan_to_num(holed), predicted)[0]) > 0.1

    def test_a_missing_prediction_makes_no_unit_look_better(self, metric, pair):
        measured, predicted = (x.copy() for x in pair)
        predicted[3, 0] = predicted[4, 1] = np.nan
        measured[4, 1] = np.nan
        measured[2, 2] = np.inf
        found = metric(measured, predicted)
        assert np.isnan(found[[0, 2]]).all()
        assert np.isfinite(found[[1, 3]]).all()

    @pytest.mark.parametrize("value", [0.0, 0.1, -1e6, 1e-30, np.nan])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_a_unit_that_does_not_vary_has_none(self, metric, pair, value, dtype):
        measured, predicted = (x.astype(dtype) for x in pair)
        measured[:, 7] = value
        assert np.flatnonzero(np.isnan(metric(measured, predicted))).tolist() == [7]

    def test_rounding_is_no_variation(self, metric):
        stimuli = np.arange(50.0)[:, None]
        rounded = np.float32(1000) + np.float32(1e-4) * np.random.default_rng(0).standard_normal((50, 1), np.float32)
        assert 0 < np.ptp(rounded) < 0.001
        assert np.isnan(metric(rounded, stimuli)).all()

    def test_axes_of_units_come_back(self, metric, pair):
        measured, predicted = (x.reshape(37, 5, 10) for x in pair)
        assert metric(measured, predicted).shape == (5, 10)
        assert metric(measured[:, 0, 0], predicted[:, 0, 0]).shape == ()
        np.testing.assert_array_equal(metric(measured, predicted).ravel(), metric(*pair))

    def test_blocks_do_not_matter(self, metric, pair, monkeypatch):
        whole = metric(*pair)
        monkeypatch.setattr(unit_blocks, "BLOCK_BYTES", 1)
        assert len(list(unit_blocks.unit_blocks(37, 50))) == 4
        np.testing.assert_array_equal(metric(*pair), whole)

    def test_arrays_may_lie_on_disk(self, metric, pair, tmp_path):
        np.save(tmp_path / "measured.npy", pair[0])
        with h5py.File(tmp_path / "predicted.h5", "w") as file:
            dataset = file.create_dataset("responses", data=pair[1])
            found = metric(np.load(tmp_path / "measured.npy", mmap_mode="r"), dataset)
        np.testing.assert_array_equal(found, metric(*pair))

    def test_shapes_that_differ_are_refused(self, metric, pair):
        with pytest.raises(InvalidParameterError, match=r"\(37, 50\), predicted ones \(37, 49\).*same"):
            metric(pair[0], pair[1][:, 1:])

    def test_one_stimulus_is_refused(self, metric, pair):
        with pytest.raises(InvalidParameterError, match=r"shape \(1, 50\). At least two stimuli"):
            metric(pair[0][:1], pair[1][:1])


def test_a_constant_prediction_has_an_r2_but_no_r():
    measured = np.arange(5.0)[:, None]
    assert r2_score(measured, np.full((5, 1), 2.0)) == 0
    assert np.isnan(pearson_r(measured, np.full((5, 1), 2.0)))


numbers = arrays(np.float64, (12, 3), elements=st.floats(-100, 100, width=32))


@given(numbers, numbers, st.floats(0.1, 10), st.floats(-50, 50))
def test_r_is_blind_to_mean_and_scale_and_bounds_r2(measured, predicted, scale, shift):
    r, r2 = pearson_r(measured, predicted), r2_score(measured, predicted)
    both = np.isfinite(r) & (measured.std(0) > 1e-3) & (predicted.std(0) > 1e-3)
    moved = pearson_r(scale * measured + shift, -predicted)
    np.testing.assert_allclose(moved[both], -r[both], atol=1e-6)
    assert np.all(np.abs(r[both]) <= 1)
    assert np.all(r2[both] <= r[both] ** 2 + 1e-9)


def test_the_ratio_to_the_ceiling_is_not_cut_and_not_made_up():
    accuracy, ceiling = np.array([0.4, 0.9, 0.05, 0.0, -0.1, np.nan]), np.array([0.8, 0.6, 0.05, 0.0, np.nan, 0.9])
    expected = [0.5, 1.5, np.nan, np.nan, np.nan, np.nan]
    np.testing.assert_allclose(noise_normalised(accuracy, ceiling, min_ceiling=0.2), expected)
    np.testing.assert_allclose(noise_normalised(accuracy, ceiling, np.full(6, 0.7))[:2], [0.5, np.nan])


@pytest.mark.parametrize("least", [0.0, -1.0, np.nan])
def test_a_threshold_of_zero_is_refused(least):
    with pytest.raises(InvalidParameterError, match=r"must be above 0.*Try min_ceiling=chance_ceiling"):
        noise_normalised([0.1], [0.1], least)


class TestRepeats:
    @pytest.fixture
    def repeats(self):
        rng = np.random.default_rng(2)
        signal = rng.standard_normal((30, 4, 5))
        repeats = signal + rng.standard_normal((6, 30, 4, 5))
        repeats[4:, ::3] = np.nan
        repeats[:, 7, 0] = np.nan
        return repeats, signal

    def test_the_mean_is_of_what_was_measured(self, repeats):
        measured = repeats[0]
        expected = measured[:4].mean(0)
        expected[np.arange(30) % 3 > 0] = measured.mean(0)[np.arange(30) % 3 > 0]
        np.testing.assert_allclose(mean_over_repeats(measured), expected, atol=1e-12)
        assert np.isnan(expected[7, 0]).all()

    @pytest.mark.parametrize("metric", [pearson_r, r2_score])
    def test_against_the_mean_and_against_each(self, repeats, metric):
        measured, signal = repeats
        np.testing.assert_allclose(
            over_repeats(measured, signal, metric), metric(mean_over_repeats(measured), signal), atol=1e-12
        )
        expected = np.mean([metric(one, signal) for one in measured], axis=0)
        np.testing.assert_allclose(over_repeats(measured, signal, metric, "each"), expected, atol=1e-12)

    def test_predicted_repeats_are_averaged_whatever_their_order(self, repeats):
        measured, signal = repeats
        predicted = signal + np.random.default_rng(3).standard_normal((4, 30, 4, 5))
        expected = over_repeats(measured, predicted.mean(0))
        np.testing.assert_allclose(over_repeats(measured, predicted), expected, atol=1e-12)
        np.testing.assert_allclose(over_repeats(measured, predicted[::-1]), expected, atol=1e-12)

    def test_another_word_for_against_is_refused(self, repeats):
        with pytest.raises(InvalidParameterError, match=r"against='trials' is not known. Try against='mean'"):
            over_repeats(*repeats, against="trials")

    def test_an_array_without_repeats_is_refused(self):
        with pytest.raises(InvalidParameterError, match=r"shape \(5,\).*\(repeats, stimuli, units\).*swapaxes"):
            mean_over_repeats(np.zeros(5))
