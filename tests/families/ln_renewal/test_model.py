"""The built-in receptor against a forward computation of our own in numpy, from the weights file up."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.numpy import load_file, save_file
from scipy.io import wavfile

import berg
from berg import BERG
from berg.core import model_registry
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, StimulusError, StimulusWarning
from berg.responses.labelled import label_responses
from berg.responses.save import save_responses
from berg.stimuli.sounds import resample

MODEL = "ephys-rokem2006-ln_renewal"
FOLDER = (
    Path(berg.__file__).parent
    / "models/built_in/encoding_models/modality-ephys/train_dataset-rokem2006/model-ln_renewal"
)
RATE = 20_000


def load(**parameters: Any) -> Any:
    return BERG().get_encoding_model(MODEL, device="cpu", **parameters)


def encode(sound: Any, sampling_rate: int | None = RATE, **parameters: Any) -> np.ndarray:
    return np.asarray(BERG().encode(load(**parameters), sound, sampling_rate=sampling_rate))


def noise(n_seconds: float = 0.5, n_sounds: int = 1, rate: int = RATE, seed: int = 0, delay_s: float = 0) -> np.ndarray:
    """Tones of 2.5 kHz with slow random amplitudes, about 60 dB SPL; shape (n_sounds, n_samples)."""
    draw, n_samples = np.random.default_rng(seed), round(n_seconds * rate)
    seconds = np.arange(n_samples) / rate - delay_s
    phases, frequencies = draw.uniform(0, 6.28, (n_sounds, 40, 1)), draw.uniform(2, 200, (n_sounds, 40, 1))
    db = 6 / np.sqrt(20) * np.cos(2 * np.pi * frequencies * seconds + phases).sum(1)
    return 0.028 * 10 ** (db / 20) * np.sin(2 * np.pi * 2500 * seconds)


def forward(sound: np.ndarray) -> np.ndarray:
    """The rate of one sound, by loops over bins; shape (n_bins,)."""
    weights = {name: values.astype(float) for name, values in load_file(next(FOLDER.rglob("*.safetensors"))).items()}
    (filters,), (traces,), (offsets,) = weights["filters"], weights["traces"], weights["offsets"]
    (gains,), (recovery,) = weights["gains"], weights["recovery"]
    window = np.hanning(82)[1:-1]
    window /= window.sum()
    n_bins, padded = len(sound) // 10, np.concatenate([np.zeros(80), sound])
    level = np.empty(n_bins)
    for place in range(n_bins):
        heard = padded[10 * place + 10 : 10 * place + 90]
        level[place] = 10 * np.log10(window @ (heard - window @ heard) ** 2 / 4e-10 + 10**3.5) - 35
    decay, trace = np.exp(-1 / (2000 * weights["trace_s"])), np.zeros(len(weights["trace_s"]))
    ages, rate = np.zeros(len(recovery)), np.empty(n_bins)
    ages[-1] = 1
    for place in range(n_bins):
        if place:
            trace = decay * trace + (1 - decay) * level[place - 1]
        past = np.concatenate([level[:place][::-1], np.zeros(filters.shape[1])])[: filters.shape[1]]
        inputs = filters @ past + traces @ trace + offsets
        drive = inputs[0] + gains @ np.log1p(np.exp(inputs[1:]))
        fired = ages / (1 + np.exp(-drive - recovery))
        rate[place] = 2000 * fired.sum()
        silent = ages - fired
        ages = np.concatenate([[fired.sum()], silent[:-2], [silent[-2] + silent[-1]]])
    return rate


def test_the_rate_is_that_of_a_computation_bin_by_bin() -> None:
    sound = noise()[0]
    ours = encode(sound.astype("float32"))
    assert ours.shape == (1, 1, 1000)
    assert ours.dtype == np.float32
    assert ours.min() >= 0
    assert ours.std() > 50
    np.testing.assert_allclose(ours[0, 0], forward(sound.astype("float32").astype(float)), rtol=2e-3, atol=0.05)


def test_a_batch_is_each_sound_alone() -> None:
    sounds = noise(0.2, 5)
    together = encode(sounds)
    for sound, rate in zip(sounds, together, strict=True):
        np.testing.assert_allclose(encode(sound)[0], rate, rtol=1e-4, atol=1e-3)


def test_what_comes_after_a_time_does_not_change_the_rate_before_it() -> None:
    before = noise(0.4)
    after = before.copy()
    after[:, 4000:] = noise(0.4, seed=1)[:, 4000:]
    ours, theirs = encode(before), encode(after)
    np.testing.assert_array_equal(ours[..., :401], theirs[..., :401])  # bin 400 hears what came before 0.2 s
    assert np.abs(ours[..., 401:] - theirs[..., 401:]).max() > 50


@pytest.mark.parametrize("rate", [1_000, 2_000, 8_000, 44_100, 96_000])
def test_at_no_sampling_rate_does_it_look_ahead(rate: int) -> None:
    draw = np.random.default_rng(0)
    before = 0.02 * draw.normal(size=(1, round(0.4 * rate)))
    after = before.copy()
    after[:, round(0.2 * rate) :] = 0.02 * draw.normal(size=(1, round(0.2 * rate)))
    ours, theirs = encode(before, rate), encode(after, rate)
    np.testing.assert_array_equal(ours[..., :401], theirs[..., :401])  # bin 400 hears what came before 0.2 s
    assert np.abs(ours[..., 401:] - theirs[..., 401:]).max() > 50


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000, 16_000, 22_050])
def test_a_sound_at_another_sampling_rate_gives_nearly_the_same_a_little_later(rate: int) -> None:
    ours = encode(noise(rate=rate), rate)[0, 0]
    later = encode(noise(delay_s=1.8 / min(rate, RATE)))[0, 0]  # what the causal anti-alias filter takes
    assert ours.shape == later.shape
    assert np.corrcoef(ours, later)[0, 1] > 0.999
    assert np.corrcoef(ours, encode(noise())[0, 0])[0, 1] > 0.97


def test_a_window_is_a_slice_of_all_times_with_its_times() -> None:
    sound = noise()
    whole = encode(sound)
    rate, metadata = BERG().encode(
        load(selection={"times": [0.1, 0.25]}), sound, sampling_rate=RATE, return_metadata=True
    )
    np.testing.assert_array_equal(rate, whole[..., 200:501])
    label = metadata["responses"]["rate"]
    assert label["axes"] == ["stimulus", "unit", "time"]
    np.testing.assert_allclose(label["coordinates"]["time"][1], np.arange(200, 501) / 2000)
    np.testing.assert_array_equal(encode(sound, selection={"times": [0.3, None]}), whole[..., 600:])
    model = load(selection={"times": [0.1, 0.25]})
    predicted = model.predict(torch.from_numpy(sound).float())
    np.testing.assert_allclose(predicted, rate, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("times", [[1, 2], [-3, -1]])
def test_a_window_beyond_the_sound_is_refused_with_its_length(times: list[float]) -> None:
    with pytest.raises(InvalidParameterError, match=r"holds no time .*lasts 0\.5 seconds"):
        encode(noise(), selection={"times": times})


@pytest.mark.parametrize("times", [[2, 1], 0.5, ["a", "b"], [0, 1, 2], [float("nan"), 1]])
def test_what_is_no_window_is_refused_before_anything_is_encoded(times: Any) -> None:
    with pytest.raises(InvalidParameterError, match="times"):
        load(selection={"times": times})


def test_saved_responses_have_their_times(tmp_path: Path) -> None:
    rate, metadata = BERG().encode(load(), noise(0.1, 2), sampling_rate=RATE, return_metadata=True)
    save_responses(label_responses(rate, metadata), tmp_path / "rate.nc")
    with xr.open_dataset(tmp_path / "rate.nc", engine="h5netcdf") as saved:
        np.testing.assert_allclose(saved["rate"].time, np.arange(200) / 2000)
        np.testing.assert_array_equal(saved["rate"], rate)
        assert saved["rate"].attrs["units"] == "spikes/s"
        assert saved["rate"].unit.values.tolist() == ["receptor-01"]


def test_metadata_follow_the_sound_that_was_encoded_last() -> None:
    model = load()
    assert "time" not in model.get_metadata()["responses"]["rate"]["coordinates"]
    for n_seconds in (0.2, 0.1):
        model.generate_response(noise(n_seconds), sampling_rate=RATE)
        assert len(model.get_metadata()["responses"]["rate"]["coordinates"]["time"][1]) == n_seconds * 2000


def test_responses_go_into_a_given_array() -> None:
    sounds, out = noise(0.1, 3), np.full((3, 1, 200), -1, np.float32)
    assert load().generate_response(sounds, sampling_rate=RATE, out=out, batch_size=2) is out
    np.testing.assert_allclose(out, encode(sounds), rtol=1e-4, atol=1e-3)


def test_wav_files_give_what_their_samples_give(tmp_path: Path) -> None:
    samples = (noise(0.2, 2, rate=44_100) / 0.2 * 32767).astype("int16")
    for name, sound in zip("ab", samples, strict=True):
        wavfile.write(tmp_path / f"{name}.wav", 44_100, sound)
    calibrated = {"pascals_per_unit": 0.2}
    expected = encode(resample(samples / 32768 * 0.2, 44_100, RATE))
    np.testing.assert_allclose(encode(tmp_path, None, **calibrated), expected, rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(encode(samples, 44_100, **calibrated), expected, rtol=1e-3, atol=0.05)


def test_ten_decibels_more_are_ten_decibels_more_however_they_are_told() -> None:
    sound = noise(0.2)
    np.testing.assert_allclose(encode(sound * 10**0.5), encode(sound, pascals_per_unit=10**0.5), rtol=1e-3, atol=0.01)


def test_silence_is_quiet_and_a_louder_tone_drives_more() -> None:
    tone = np.sqrt(2) * 20e-6 * np.sin(2 * np.pi * 2500 * np.arange(10_000) / RATE)
    steady = [encode(tone * 10 ** (db / 20))[0, 0, -400:].mean() for db in (40, 50, 60, 70)]
    assert np.all(np.diff(steady) > 5)
    assert encode(np.zeros(10_000)).max() < 1
    assert 80 < steady[2] < 150


@pytest.mark.slow
def test_the_gradient_agrees_with_finite_differences_in_float64() -> None:
    model = load(selection={"times": [0.018, 0.0235]})
    sound = torch.from_numpy(noise(0.024)).requires_grad_()
    assert model.predict(sound).shape == (1, 1, 12)
    assert torch.autograd.gradcheck(model.predict, sound, eps=1e-7, rtol=1e-4, atol=1e-2)


def test_a_sound_that_is_too_short_is_told_how_long_it_must_be() -> None:
    with pytest.raises(StimulusError, match=r"300 samples .* needs 480.*np\.pad"):
        encode(np.zeros(300))


def test_a_missing_sampling_rate_says_what_to_type() -> None:
    with pytest.raises(InvalidParameterError, match=re.escape("sampling_rate=44100")):
        encode(noise(), None)


def test_models_of_sounds_and_of_pictures_are_not_encoded_together() -> None:
    pictures = BERG().get_encoding_model("fmri-szinte2024-prf_css", device="cpu")
    with pytest.raises(InvalidParameterError, match="different stimuli"):
        BERG().encode([load(), pictures], noise(), sampling_rate=RATE)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("gains", lambda values: values[:, :1], "fit the others|softplus"),
        ("filters", lambda values: values[0], "3 axes"),
        ("recovery", lambda values: values * np.nan, "finite 'recovery'"),
        ("traces", lambda values: values[..., :1], "'trace_s' has shape"),
    ],
)
def test_damaged_weights_are_named(
    name: str, change: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = load_file(next(FOLDER.rglob("*.safetensors")))
    save_file({**weights, name: np.ascontiguousarray(change(weights[name]))}, tmp_path / "w.safetensors")
    monkeypatch.setattr("berg.weights.model_files.weights_path", lambda *_: tmp_path / "w.safetensors")
    with pytest.raises(CorruptedFileError, match=words):
        load()


def test_the_card_says_what_the_metadata_say() -> None:
    card, metadata = model_registry.get_card(MODEL), BERG().get_model_metadata(MODEL)["encoding_models"]
    assert card.features is not None
    assert card.performance is not None
    assert card.features["window_ms"] == metadata["settings"]["window_ms"]
    assert card.features["floor_db"] == metadata["floor_db"]
    figures = [stimulus["held_out_r_2_ms"] for stimulus in metadata["stimuli"]]
    assert [metric.value for metric in card.performance.metrics[:2]] == pytest.approx(figures, abs=0.005)


def tone(db_spl: float) -> np.ndarray:
    return np.sqrt(2) * 20e-6 * 10 ** (db_spl / 20) * np.sin(2 * np.pi * 2500 * np.arange(4000) / RATE)


@pytest.mark.parametrize(
    ("sounds", "words"),
    [
        ([tone(90)], r"A sound reaches 90 dB SPL; .* from 35 to 76\.4 dB SPL.*extrapolated above.*pascals_per_unit"),
        ([tone(60), tone(77)], "A sound reaches 77 dB SPL"),
        ([tone(34), tone(60)], r"A sound stays below 35 dB SPL; .* takes it for silence.*pascals_per_unit"),
        ([np.zeros(4000)], "A sound stays below 35 dB SPL"),
    ],
)
def test_levels_outside_those_that_were_fitted_are_warned_of(sounds: list[np.ndarray], words: str) -> None:
    with pytest.warns(StimulusWarning, match=words):
        encode(np.stack(sounds))


def test_levels_within_those_that_were_fitted_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(np.stack([tone(36), tone(76), np.concatenate([np.zeros(2000), tone(60)[:2000]])]))
