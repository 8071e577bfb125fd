"""Features in time, against plain loops, scipy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.interpolate import interp1d
from sklearn.preprocessing import StandardScaler

from berg.core.exceptions import InvalidParameterError
from berg.features.in_time import Moments, delayed, lanczos, trimmed, volume_times, zscored


def lanczos_loop(values, events, times, cutoff, lobes):
    """The sum of weight times value, one pair at a time."""
    resampled = np.zeros((len(times), values.shape[1]))
    for row, time in enumerate(times):
        for value, event in zip(values, events, strict=True):
            d = (time - event) * cutoff
            if d == 0:
                weight = 1.0
            elif abs(d) < lobes:
                weight = lobes * np.sin(np.pi * d) * np.sin(np.pi * d / lobes) / (np.pi * d) ** 2
            else:
                weight = 0.0
            resampled[row] += weight * value
    return resampled


@pytest.mark.parametrize("lobes", [1, 3])
def test_lanczos_is_the_weighted_sum_of_a_loop(lobes):
    rng = np.random.default_rng(0)
    events, values = np.sort(rng.uniform(5, 60, 150)), rng.normal(size=(150, 4))
    times = events[0] + 2.0 * np.arange(31)
    found = lanczos(*map(torch.from_numpy, (values, events, times)), 0.5, lobes)
    np.testing.assert_allclose(found, lanczos_loop(values, events, times, 0.5, lobes), atol=1e-12)


def test_lanczos_gives_the_same_in_blocks_and_for_events_out_of_order():
    rng = np.random.default_rng(1)
    events, values = rng.uniform(0, 1200, 900), rng.normal(size=(900, 2))
    times = 1.5 * np.arange(800)  # more rows than are held at once
    found = lanczos(*map(torch.from_numpy, (values, events, times)), 1 / 1.5)
    rows = [0, 255, 256, 600, 799]
    np.testing.assert_allclose(found[rows], lanczos_loop(values, events, times[rows], 1 / 1.5, 3), atol=1e-12)


def test_normalised_lanczos_keeps_a_constant_and_an_unnormalised_one_does_not():
    events, times = torch.rand(200, generator=torch.Generator().manual_seed(0)) * 50, torch.arange(5.0, 45.0, 2)
    ones = torch.ones(200, 1)
    torch.testing.assert_close(lanczos(ones, events, times, 0.5, normalised=True), torch.ones(len(times), 1))
    assert lanczos(ones, events, times, 0.5).mean() > 4  # eight events per volume


def test_lanczos_of_a_slow_sampled_signal_is_the_signal():
    sampled, between = np.arange(0, 100, 1.0), np.arange(10, 90, 0.37)
    signal = np.sin(2 * np.pi * sampled / 25)[:, None]
    found = lanczos(*map(torch.from_numpy, (signal, sampled, between)), 1.0, normalised=True)
    expected = interp1d(sampled, signal, kind="cubic", axis=0)(between)
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_volumes_that_no_event_is_near_are_zero():
    found = lanczos(torch.ones(1, 3), torch.tensor([0.0]), torch.tensor([0.0, 7.0]), 0.5, normalised=True)
    assert found.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert lanczos(torch.ones(0, 3), torch.zeros(0), torch.zeros(2), 0.5).tolist() == [[0] * 3] * 2


@pytest.mark.parametrize(("first", "end", "n"), [(0.3, 8.3, 4), (0.3, 8.31, 5), (0.0, 0.1, 1), (1.0, 1.0, 0)])
def test_volumes_begin_with_the_first_and_end_before_the_end(first, end, n):
    times = volume_times(first, end, 2.0)
    assert times.tolist() == [first + 2 * k for k in range(n)]


def test_zscores_are_those_of_scikit_learn_also_far_from_zero():
    values = 1e4 + np.random.default_rng(0).normal(size=(700, 5))
    values[:, 2] = 3.0
    expected = StandardScaler().fit_transform(values)
    np.testing.assert_allclose(zscored(torch.from_numpy(values)), expected, atol=1e-9)


def test_a_feature_that_hardly_varies_is_centred_only():
    values = torch.tensor([[1.0], [1.0 + 1e-12]], dtype=torch.float64)
    assert zscored(values).abs().max() < 1e-11


def test_moments_of_parts_are_those_of_the_whole():
    values = torch.from_numpy(np.random.default_rng(2).normal(5, 3, (100, 4)))
    moments = Moments(4)
    for part in values.split([1, 0, 30, 69]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, values.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.scale, values.numpy().std(0), rtol=1e-12)


def test_delays_put_zeros_in_front_and_one_delay_after_another():
    values = np.random.default_rng(3).normal(size=(6, 2))
    found = delayed(torch.from_numpy(values), [1, 2, 9])
    for block, delay in enumerate([1, 2, 9]):
        for time in range(6):
            expected = values[time - delay] if time >= delay else np.zeros(2)
            np.testing.assert_array_equal(found[time, 2 * block : 2 * block + 2], expected)


def test_trimming_cuts_both_ends():
    assert trimmed(torch.arange(10), 3, 2).tolist() == [3, 4, 5, 6, 7]
    assert trimmed(torch.arange(3)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: trimmed(torch.ones(15, 1), 10, 5), "15 volumes cannot lose 10 at the start and 5 at the end"),
        (lambda: delayed(torch.ones(5, 1), []), r"whole volumes, 0 or more, got \[\]"),
        (lambda: delayed(torch.ones(5, 1), [-1]), r"0 or more, got \[-1\]"),
        (lambda: lanczos(torch.ones(5, 1), torch.ones(4), torch.ones(2), 0.5), "4 times of events"),
        (lambda: lanczos(torch.ones(5, 1), torch.ones(5), torch.ones(2), 0.0), "cutoff above 0 Hz"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(InvalidParameterError, match=words):
        wrong()
