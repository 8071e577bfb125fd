"""The renewal equation against spike trains counted one by one, and its parts against loops in numpy."""

import itertools

import numpy as np
import pytest
import torch

from berg.families.ln_renewal.readout import exponential_traces, renewal_rate, softplus_drive, weighted_past

DRAW = np.random.default_rng(0)


def test_the_rate_is_the_mean_over_all_spike_trains():
    drive, recovery = DRAW.normal(0, 1, 9), np.array([-5.0, -1.0, 0.3, 0.0])
    expected = np.zeros(9)
    for train in itertools.product((0, 1), repeat=9):
        probability, age = 1.0, 3
        for fired, log_odds in zip(train, drive, strict=True):
            hazard = 1 / (1 + np.exp(-log_odds - recovery[age]))
            probability *= hazard if fired else 1 - hazard
            age = 0 if fired else min(age + 1, 3)
        expected += probability * np.array(train)
    ours = renewal_rate(torch.from_numpy(drive)[None], torch.from_numpy(recovery)[None])[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_a_steady_drive_settles_at_the_inverse_of_the_mean_interval():
    drive, recovery = -2.0, np.concatenate([np.full(6, -50.0), np.linspace(-3, 0, 20)])
    hazard = 1 / (1 + np.exp(-drive - recovery))
    survival = np.concatenate([[1.0], np.cumprod(1 - hazard)])
    mean_interval = survival[:-1].sum() + survival[-1] / hazard[-1]  # geometric beyond the last age
    rate = renewal_rate(torch.full((1, 3000), drive, dtype=torch.float64), torch.from_numpy(recovery)[None])
    assert rate[0, -1].item() == pytest.approx(1 / mean_interval, rel=1e-9)


def test_without_recovery_the_rate_is_the_sigmoid_of_the_drive():
    drive = torch.from_numpy(DRAW.normal(0, 2, (2, 3, 700)))
    torch.testing.assert_close(renewal_rate(drive, torch.zeros(3, 5).double()), torch.sigmoid(drive))


def test_the_rate_does_not_look_ahead_and_is_never_negative():
    drive, recovery = torch.from_numpy(DRAW.normal(0, 30, (1, 600))).float(), torch.randn(1, 40)
    changed = drive.clone()
    changed[:, 300:] = 0
    ours, theirs = renewal_rate(drive, recovery), renewal_rate(changed, recovery)
    assert torch.equal(ours[:, :300], theirs[:, :300])
    assert float(ours.min()) >= 0
    assert float(ours.max()) <= 1 + 1e-5


def test_filters_weigh_the_bins_before():
    level, filters = DRAW.normal(size=(2, 50)), DRAW.normal(size=(3, 7))
    expected = np.zeros((2, 3, 50))
    for place, lag in itertools.product(range(50), range(7)):
        if place - 1 - lag >= 0:
            expected[:, :, place] += filters[:, lag] * level[:, None, place - 1 - lag]
    np.testing.assert_allclose(weighted_past(*map(torch.from_numpy, (level, filters))), expected, atol=1e-12)


def test_traces_are_leaky_integrators_however_long_the_sound():
    level, time_constants = DRAW.normal(size=(2, 1000)), np.array([3.0, 100.0, 6000.0])
    expected, trace = np.zeros((2, 3, 1000)), np.zeros((2, 3))
    decay = np.exp(-1 / time_constants)
    for place in range(1, 1000):
        trace = decay * trace + (1 - decay) * level[:, place - 1, None]
        expected[:, :, place] = trace
    np.testing.assert_allclose(
        exponential_traces(*map(torch.from_numpy, (level, time_constants))), expected, atol=1e-12
    )


def test_the_drive_is_the_linear_part_and_the_weighted_softplus_of_the_others():
    inputs, gains = DRAW.normal(size=(2, 4, 3, 10)), DRAW.normal(size=(4, 2))
    expected = inputs[:, :, 0] + (np.log1p(np.exp(inputs[:, :, 1:])) * gains[:, :, None]).sum(2)
    np.testing.assert_allclose(softplus_drive(*map(torch.from_numpy, (inputs, gains))), expected, rtol=1e-10)
