"""Sound level: tones whose level has a closed form, and a loop over bins in numpy."""

import numpy as np
import pytest
import torch

from berg.families.ln_renewal.features import REFERENCE_PA, hann_window, sound_level_above_floor

RATE, BIN = 20_000, 10


def tone(frequency, amplitude=1.0, n_samples=4000):
    return amplitude * torch.sin(2 * torch.pi * frequency * torch.arange(n_samples, dtype=torch.float64) / RATE)


def level(pressure, n_window=80, floor_db=35.0):
    return sound_level_above_floor(pressure[None], hann_window(n_window), BIN, floor_db)[0] + floor_db


@pytest.mark.parametrize("frequency", [1000.0, 2500.0, 5123.0, 9000.0])
@pytest.mark.parametrize("db_spl", [50.0, 76.0, 94.0])
def test_the_level_of_a_tone_is_that_of_its_root_mean_square(frequency, db_spl):
    amplitude = np.sqrt(2) * 20e-6 * 10 ** (db_spl / 20)
    steady = level(tone(frequency, amplitude), floor_db=0.0)[20:]
    np.testing.assert_allclose(steady, db_spl, atol=0.15)


def test_silence_and_a_constant_pressure_lie_on_the_floor():
    np.testing.assert_allclose(level(torch.zeros(400).double()), 35)
    constant = level(torch.full((400,), 1e-3, dtype=torch.float64))
    np.testing.assert_allclose(constant[8:], 35, atol=1e-4)


def test_every_bin_is_the_weighted_variance_of_the_samples_up_to_its_end():
    draw = np.random.default_rng(0)
    pressure, window = draw.normal(0, 0.1, 333), np.hanning(82)[1:-1]
    window /= window.sum()
    padded = np.concatenate([np.zeros(70), pressure])
    expected = []
    for end in range(BIN, 331, BIN):
        heard = padded[end + 70 - 80 : end + 70]
        variance = window @ (heard - window @ heard) ** 2
        expected.append(10 * np.log10(variance / REFERENCE_PA**2 + 10**3.5))
    ours = level(torch.from_numpy(pressure))
    assert len(ours) == 33
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


def test_a_bin_does_not_hear_what_comes_after_it():
    before = tone(2500)
    after = before.clone()
    after[2000:] += torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(level(before)[:200], level(after)[:200])
    assert not torch.equal(level(before)[200:], level(after)[200:])
