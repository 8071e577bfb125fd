"""Sounds from arrays and files: scaled, resampled, refused."""

import re

import h5py
import numpy as np
import pytest
from scipy.io import wavfile
from scipy.signal import resample_poly

from berg.core.exceptions import InvalidParameterError, MissingFileError, StimulusError
from berg.core.model_card import StimulusInput
from berg.features.sounds import as_floats, read_sound, resample, sound_files
from berg.features.stimuli import open_stimuli

TAKEN = StimulusInput(
    shape=["batch_size", "n_samples"], dtype="float32", range=(-20, 20), unit="pascals", sampling_rate=20_000
)
DRAW = np.random.default_rng(0)


def read(sound, sampling_rate=20_000):
    stimuli = open_stimuli(sound, TAKEN, sampling_rate)
    found = stimuli.read(slice(0, len(stimuli)))
    assert stimuli.shape == found.shape[1:]
    assert found.dtype == np.float32
    return found


def write(path, samples, sampling_rate=20_000):
    wavfile.write(path, sampling_rate, samples)
    return path


def test_one_sound_is_a_batch_of_one():
    sound = DRAW.normal(size=1000).astype("float32")
    np.testing.assert_array_equal(read(sound), sound[None])


@pytest.mark.parametrize(
    ("samples", "floats"),
    [
        (np.array([-32768, 0, 16384, 32767], "int16"), [-1, 0, 0.5, 32767 / 32768]),
        (np.array([-(2**31), 0, 2**30], "int32"), [-1, 0, 0.5]),
        (np.array([0, 128, 255], "uint8"), [-1, 0, 127 / 128]),
        (np.array([0.25, -3.0], "float32"), [0.25, -3.0]),
        (np.array([-32768, 8192], ">i2"), [-1, 0.25]),
    ],
)
def test_integers_are_scaled_as_sound_cards_mean_them(samples, floats):
    np.testing.assert_array_equal(as_floats(samples), floats)


def test_all_ways_to_give_a_sound_give_the_same(tmp_path):
    sounds = (0.3 * DRAW.normal(size=(3, 4410)) * 32767).clip(-32768, 32767).astype("int16")
    expected = resample_poly(sounds / 32768, 200, 441, axis=1).astype("float32")
    assert expected.shape == (3, 2000)
    files = [write(tmp_path / f"{name}.wav", sound, 44_100) for name, sound in zip("abc", sounds, strict=True)]
    np.save(tmp_path / "sounds.npy", sounds)
    with h5py.File(tmp_path / "sounds.h5", "w") as file:
        file["sounds"] = sounds
        for given, sampling_rate in (
            (sounds, 44_100),
            (sounds, np.float64(44_100)),
            (list(sounds), 44_100),
            (np.load(tmp_path / "sounds.npy", mmap_mode="r"), 44_100),
            (file["sounds"], 44_100),
            (files, None),
            (tmp_path, None),
            ([str(name) for name in files], 44_100),
        ):
            np.testing.assert_allclose(read(given, sampling_rate), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_every_kind_of_wav_file_is_read(dtype, tmp_path):
    floats = 0.5 * np.sin(np.arange(400) / 7)
    scale, offset = {"uint8": (127, 128), "int16": (32767, 0), "int32": (2**31 - 1, 0)}.get(dtype, (1, 0))
    samples, sampling_rate = read_sound(write(tmp_path / "a.wav", (floats * scale + offset).astype(dtype), 8000))
    assert sampling_rate == 8000
    np.testing.assert_allclose(samples, floats, atol=0.02 if dtype == "uint8" else 1e-4)


def test_a_resampled_tone_is_the_tone():
    seconds_from, seconds_to = np.arange(44_100) / 44_100, np.arange(20_000) / 20_000
    resampled = resample(np.sin(2 * np.pi * 2500 * seconds_from), 44_100, 20_000)
    assert resampled.shape == (20_000,)
    np.testing.assert_allclose(resampled[200:-200], np.sin(2 * np.pi * 2500 * seconds_to)[200:-200], atol=0.01)


def test_a_folder_stands_for_its_sounds_by_name(tmp_path):
    for name in ("b.wav", "a.WAV"):
        write(tmp_path / name, np.zeros(10, "int16"))
    (tmp_path / "notes.txt").write_text("no sound")
    assert [file.name for file in sound_files([tmp_path])] == ["a.WAV", "b.wav"]


@pytest.mark.parametrize("sampling_rate", [0, -1, 44.1, "44100", True, float("nan"), float("inf"), 1e9, 22050.5])
def test_a_sampling_rate_that_no_sound_has_is_refused(sampling_rate):
    with pytest.raises(InvalidParameterError, match=re.escape("For example sampling_rate=44100")):
        read(np.zeros(1000), sampling_rate)


def test_a_missing_sampling_rate_is_named_with_what_to_type():
    with pytest.raises(InvalidParameterError, match=r"sampling_rate=44100.*sampling_rate=20000"):
        read(np.zeros(1000), None)


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (np.zeros((1000, 2)), r"looks like 2 channels.*stimulus\[:, 0\]"),
        (np.full(1000, np.nan), "NaN or infinite"),
        (np.full((1, 1000), np.inf), "NaN or infinite"),
        (np.zeros(1000, complex), "not real numbers"),
        (np.array(["a"] * 1000), "not real numbers"),
        (np.zeros((2, 3, 1000)), "3 axes"),
        (np.zeros(1000, "int64"), r"int64; allowed are .*astype\(\"int16\"\)"),
        (np.zeros(1000, bool), "bool"),
        (np.full(1000, 12000.0), "Divide by full scale"),
        (np.zeros(0), "empty"),
        (1.5, "single number"),
        ([np.zeros(1000), np.zeros(900)], "different shapes"),
    ],
)
def test_what_is_no_sound_is_refused_with_its_reason(sound, words):
    with pytest.raises(StimulusError, match=words):
        read(sound)


def test_files_that_do_not_fit_are_refused_with_their_name(tmp_path):
    good = write(tmp_path / "good.wav", np.zeros(1000, "int16"))
    stereo = write(tmp_path / "stereo.wav", np.zeros((1000, 2), "int16"))
    long = write(tmp_path / "long.wav", np.zeros(2000, "int16"))
    empty = write(tmp_path / "empty.wav", np.zeros(0, "int16"))
    (tmp_path / "text.wav").write_text("no sound at all")
    with pytest.raises(StimulusError, match=r"stereo\.wav has 2 channels"):
        read([stereo], None)
    with pytest.raises(StimulusError, match=r"long\.wav lasts 0\.1 s, .*good\.wav 0\.05 s.*one by one"):
        read([good, long], None)
    with pytest.raises(StimulusError, match=r"empty\.wav holds no sound"):
        read([empty], None)
    with pytest.raises(StimulusError, match=r"text\.wav is not a \.wav file"):
        read([tmp_path / "text.wav"], None)
    with pytest.raises(InvalidParameterError, match=r"sampling rate of 20000 Hz, not 44100"):
        read([good], 44_100)
    with pytest.raises(MissingFileError, match="no file or folder"):
        read([tmp_path / "gone.wav"], None)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(MissingFileError, match="holds no sound"):
        read(tmp_path / "nothing", None)


def test_a_model_of_pictures_takes_no_sampling_rate():
    pictures = StimulusInput(shape=["batch_size", 3, "height", "width"], dtype="uint8", range=(0, 255))
    with pytest.raises(InvalidParameterError, match="leave sampling_rate out"):
        open_stimuli(np.zeros((1, 3, 8, 8), "uint8"), pictures, 44_100)
