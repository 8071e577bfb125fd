"""Samples in time: effective numbers beside closed forms, tests and intervals in simulations of known truth."""

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from berg.core.exceptions import InvalidParameterError
from berg.evaluation import (
    SamplesWarning,
    bootstrap_interval,
    chance_ceiling,
    effective_samples,
    interval_in_time,
    ncsnr_ceiling,
    noise_effective_samples,
    permutation_test,
    shift_test,
)

QUIETLY = pytest.mark.filterwarnings("ignore:.*effective samples in time:berg.evaluation.SamplesWarning")


def series(n_samples, n_units, ar, seed=0):
    steps = np.random.default_rng(seed).standard_normal((n_samples + 300, n_units)) * np.sqrt(1 - ar**2)
    return lfilter([1.0], [1.0, -ar], steps, axis=0)[300:]


@pytest.mark.parametrize(("ar", "other"), [(0.0, 0.9), (0.5, 0.5), (0.9, 0.9), (0.9, 0.6)])
def test_effective_samples_are_those_of_bartlett(ar, other):
    found = np.median(effective_samples(series(2000, 200, ar), series(2000, 200, other, 1)))
    assert found == pytest.approx(2000 * (1 - ar * other) / (1 + ar * other), rel=0.07)


@pytest.mark.slow
def test_the_variance_of_r_is_one_by_the_effective_number_for_other_series_too():
    means = [lfilter(np.ones(10), [1.0], series(1000, 1500, 0.0, seed), axis=0)[10:] for seed in (0, 1)]
    r = [stats.pearsonr(m, p)[0] for m, p in zip(*(x.T for x in means), strict=True)]
    found = effective_samples(*means)
    assert 1 / np.var(r) == pytest.approx(np.median(found), rel=0.1)
    assert np.median(found) == pytest.approx(990 / np.sum((1 - np.abs(np.arange(-9, 10)) / 10) ** 2), rel=0.05)


@QUIETLY
@pytest.mark.parametrize(
    ("n", "ar", "most"), [(150, 0.95, 0.05), (400, 0.0, 0.07), (400, 0.9, 0.07), (400, 0.95, 0.07)]
)
def test_independent_series_are_above_chance_as_rarely_as_said(n, ar, most):
    m, p = series(n, 1000, ar), series(n, 1000, ar, 1)
    assert np.mean(shift_test(m, p).p <= 0.05) <= most
    interval = interval_in_time(m, p)
    assert np.mean((interval.low <= 0) & (interval.high >= 0)) >= 0.93


@QUIETLY
def test_intervals_hold_an_r_that_is_not_zero():
    signal, white = series(400, 1000, 0.9), series(400, 1000, 0.0, 1)
    pairs = {
        0.5**0.5: (signal + series(400, 1000, 0.9, 2), signal),
        0.5: (white + series(400, 1000, 0.9, 2), white + series(400, 1000, 0.9, 3)),
    }
    for true, (m, p) in pairs.items():
        interval = interval_in_time(m, p)
        assert np.mean((interval.low <= true) & (interval.high >= true)) >= 0.915


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Neighbouring stimuli:berg.evaluation.SamplesWarning")
def test_intervals_of_r2_in_long_enough_stretches_hold_it_and_of_single_samples_do_not():
    signal = series(2000, 200, 0.9)
    measured = signal + series(2000, 200, 0.9, 1)
    length = int(np.ceil(3 * 2000 / np.median(effective_samples(measured, signal))))
    held = {}
    for block_length in (length, 1):
        interval = bootstrap_interval(measured, signal, "r2", n_resamples=400, block_length=block_length)
        held[block_length] = np.mean((interval.low <= 0.5) & (interval.high >= 0.5))
    assert held[length] >= 0.88
    assert held[1] < 0.6


def test_p_is_the_part_of_shifts_that_do_as_well():
    rng = np.random.default_rng(3)
    m, p = rng.standard_normal((2, 60, 4))
    m[5, 1] = np.nan
    found = shift_test(m, p, alternative="two-sided")
    for unit in range(4):
        own, other = (x[~np.isnan(m[:, unit]), unit] for x in (m, p))
        r = [abs(np.corrcoef(own, np.roll(other, shift))[0, 1]) for shift in range(len(own))]
        assert found.p[unit] == pytest.approx(np.mean(np.array(r) >= r[0] - 1e-12))
        assert abs(found.r[unit]) == pytest.approx(r[0])
    assert (found.p_family >= found.p - 1e-12).all()
    assert found.null_maximum.shape == (59,)


def test_too_few_effective_samples_are_told_and_p_is_that_of_a_t_test():
    walks = np.random.default_rng(0).standard_normal((2, 300, 500)).cumsum(1)
    with pytest.warns(SamplesWarning, match=r"\d+ of 500 units have fewer than 20 effective samples in time"):
        found = shift_test(*walks)
    assert np.mean(found.p <= 0.05) <= 0.05
    assert (found.p_family >= found.p).all()
    trends = np.linspace(0, 1, 120)[:, None] + 0.01 * series(120, 6, 0.0)
    with pytest.warns(SamplesWarning, match="6 of 6 .*p values are those of a t test"):
        assert shift_test(trends, trends[:, ::-1]).p.min() > 0.05
    with pytest.warns(SamplesWarning, match="their intervals are wide"):
        assert (interval_in_time(trends, trends[:, ::-1]).low < 0.9).all()


def test_a_signal_is_found_and_units_without_one_have_none():
    signal = series(800, 3, 0.8)
    measured = np.concatenate([signal + series(800, 3, 0.5, 1), np.zeros((800, 1))], axis=1)
    predicted = np.concatenate([signal, signal[:, :1]], axis=1)
    test, interval = shift_test(measured, predicted), interval_in_time(measured, predicted)
    np.testing.assert_array_equal(test.p, [1 / 800] * 3 + [np.nan])
    assert np.isnan([test.p_family[3], interval.low[3], effective_samples(measured, predicted)[3]]).all()
    assert (interval.low[:3] > 0.5).all()
    perfect = interval_in_time(signal, signal)
    np.testing.assert_allclose([perfect.low, perfect.high], 1.0)


@pytest.mark.parametrize("ar", [0.5, 0.9])
def test_noise_in_time_exceeds_its_chance_ceiling_as_rarely_as_said(ar):
    repeats = np.stack([series(400, 1000, ar, seed) for seed in range(3)])
    ceiling, n_effective = ncsnr_ceiling(repeats), noise_effective_samples(repeats)
    assert np.mean(ceiling > chance_ceiling(400, 3)) > 0.08
    assert np.mean(ceiling > chance_ceiling(n_effective, 3)) <= 0.065
    assert np.median(n_effective) == pytest.approx(400 * (1 - ar**2) / (1 + ar**2), rel=0.15)


def test_smooth_samples_that_are_taken_as_independent_are_told():
    m, p = series(300, 4, 0.9), series(300, 4, 0.9, 1)
    for function in (permutation_test, bootstrap_interval):
        with pytest.warns(SamplesWarning, match=r"300 are worth .* shift_test and interval_in_time.*groups="):
            function(m, p, block_length=15) if function is bootstrap_interval else function(m, p, 20)
    permutation_test(m, p, 20, block_length=60)  # long enough
    permutation_test(series(300, 4, 0.9), series(300, 4, 0.0), 20)  # white predictions are independent


def test_what_cannot_be_is_refused():
    m = series(30, 2, 0.0)
    with pytest.raises(InvalidParameterError, match="alternative='less' is not known"):
        shift_test(m, m, alternative="less")
    with pytest.raises(InvalidParameterError, match="level is 95"):
        interval_in_time(m, m, level=95)
