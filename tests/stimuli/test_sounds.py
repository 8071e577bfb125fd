"""Sounds from arrays and files: scaled, resampled, refused."""

import re
import struct
import sys
import warnings

import h5py
import numpy as np
import pytest
from scipy.io import wavfile
from scipy.signal import resample_poly

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, MissingExtraError, MissingFileError, StimulusError
from berg.stimuli.open import open_stimuli
from berg.stimuli.sounds import as_floats, read_sound, resample, sound_files

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
    expected = resample(sounds / 32768, 44_100, 20_000).astype("float32")
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


RATES = [(44_100, 20_000), (96_000, 20_000), (16_000, 20_000), (8_000, 20_000), (2_000, 20_000), (1_000, 20_000),
         (22_050, 20_000), (20_000, 8_000), (20_001, 20_000)]  # fmt: skip


@pytest.mark.parametrize(("sampling_rate", "wanted_rate"), RATES)
def test_no_resampled_sample_hears_what_comes_after_it(sampling_rate, wanted_rate):
    one = DRAW.normal(size=sampling_rate // 10)
    other = one.copy()
    changed = sampling_rate // 20
    other[changed:] = DRAW.normal(size=len(one) - changed)
    ours, theirs = (resample(sound, sampling_rate, wanted_rate) for sound in (one, other))
    before = np.arange(len(ours)) * sampling_rate < changed * wanted_rate  # the time of a sample is its number / rate
    np.testing.assert_array_equal(ours[before], theirs[before])
    assert np.abs(ours - theirs)[~before].max() > 0.1
    assert ours.shape == resample_poly(one, wanted_rate, sampling_rate).shape


@pytest.mark.parametrize(("sampling_rate", "wanted_rate"), RATES[:6])
@pytest.mark.parametrize("share", [0.05, 0.125, 0.25])
def test_a_resampled_tone_is_the_tone_1_8_samples_later(share, sampling_rate, wanted_rate):
    lower = min(sampling_rate, wanted_rate)
    resampled = resample(np.sin(2 * np.pi * share * lower * np.arange(sampling_rate) / sampling_rate), sampling_rate,
                         wanted_rate)  # fmt: skip
    seconds = np.arange(wanted_rate) / wanted_rate
    delayed = np.sin(2 * np.pi * share * lower * (seconds - 1.8 / lower))
    kept = slice(wanted_rate // 10, -wanted_rate // 10)
    assert np.abs(resampled - delayed)[kept].max() < 0.15  # 1.76 to 1.87
    assert resampled[kept].std() == pytest.approx(np.sqrt(0.5), rel=0.01)


@pytest.mark.parametrize(("hertz", "at_most"), [(12_000, 0.003), (15_000, 0.001), (20_000, 0.001)])
def test_what_the_lower_rate_cannot_hold_is_filtered_out(hertz, at_most):
    resampled = resample(np.sin(2 * np.pi * hertz * np.arange(44_100) / 44_100), 44_100, 20_000)
    assert resampled[400:-400].std() < at_most


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


PCM = (8000 * np.sin(np.arange(2000) / 10)).astype("<i2").tobytes()


def fmt(channels=1, rate=20_000, frame=2, bits=16, kind=1):
    return struct.pack("<HHLLHH", kind, channels, rate, rate * frame, frame, bits)


def riff(sound=PCM, says=None, whole=None, before=b"", described=None, name=b"RIFF", ds64=b""):
    """A .wav file by hand (RIFF MCI of 1991; ds64 of EBU TECH 3306)."""
    described = fmt() if described is None else described
    body = b"WAVE" + ds64 + b"fmt " + struct.pack("<L", len(described)) + described + before
    body += b"data" + struct.pack("<L", len(sound) if says is None else says) + sound
    return name + struct.pack("<L", len(body) if whole is None else whole) + body


def ds64(n_bytes):
    return b"ds64" + struct.pack("<LQQQL", 28, n_bytes + 72, n_bytes, n_bytes // 2, 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (riff()[:-1600], r"is cut: 0\.06 s of the 0\.1 s that its header says"),
        (riff()[:-1], "is cut"),
        (riff()[:44], r"is cut: 0 s of the 0\.1 s"),
        (riff(says=0, whole=0), "is unfinished: its header says 0 bytes of sound, 4,000 follow.*ffmpeg"),
        (riff(says=2**32 - 1, whole=2**32 - 1), "is cut"),
        (riff(name=b"RF64", says=2**32 - 1, ds64=ds64(4400)), r"is cut: 0\.1 s of the 0\.11 s"),
        (riff(PCM[:-1]), "is cut: its 3,999 bytes of sound are no whole number of 2"),
        (riff(described=fmt(rate=0)), "damaged header: 0 samples per second"),
        (riff(described=fmt(channels=0, frame=0)), "damaged header"),
        (riff(described=fmt(channels=0)), "not a .wav file that can be read"),
        (riff(described=fmt(kind=3, bits=18, frame=2)), "not a .wav file that can be read"),
        (riff(described=fmt(kind=2, bits=4)), "not a .wav file that can be read"),
        (riff(described=b""), "not a .wav file that can be read"),
        (riff(before=b"LIST" + struct.pack("<L", 5) + b"INFOx"), "not a .wav file that can be read: it has no chunk"),
        (riff()[:40], "not a .wav file that can be read: it has no chunk of sound"),
        (riff()[:20], "not a .wav file that can be read: its header ends early"),
        (b"RIFF", "not a .wav file that can be read"),
        (b"", "not a .wav file: it does not begin with RIFF"),
    ],
)
def test_a_wav_file_that_is_cut_or_described_impossibly_is_refused(content, words, tmp_path):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(StimulusError, match=rf"a\.wav .*{words}"):
        read_sound(tmp_path / "a.wav")


@pytest.mark.parametrize(
    "content",
    [
        riff(),
        riff() + b"LIST" + struct.pack("<L", 100) + b"cut",  # what comes after the sound does not matter
        riff(before=b"LIST" + struct.pack("<L", 5) + b"INFOx\0"),
        riff(name=b"RF64", says=2**32 - 1, ds64=ds64(4000)),
    ],
)
def test_a_whole_wav_file_is_read_whatever_stands_around_the_sound(content, tmp_path):
    (tmp_path / "a.wav").write_bytes(content)
    samples, rate = read_sound(tmp_path / "a.wav")
    assert rate == 20_000
    np.testing.assert_array_equal(samples, np.frombuffer(PCM, "<i2") / 32768)


OTHERS = b"bext" + struct.pack("<L", 5) + b"fieldx", b"id3 " + struct.pack("<L", 2) + b"ab"


@pytest.mark.parametrize(
    "content",
    [
        riff(before=OTHERS[0]) + OTHERS[1],
        riff() + b"cu",
        riff(whole=2**20),
        riff(PCM[:-1] + b"x", before=OTHERS[0], name=b"RF64", says=2**32 - 1, ds64=ds64(4000)) + OTHERS[1],
    ],
    ids=["other chunks", "bytes behind", "a size that is too large", "RF64"],
)
def test_chunks_around_the_sound_change_no_sample_and_no_warning_is_forgotten(content, tmp_path):
    """Python forgets which warnings it has shown when `warnings.catch_warnings` is left."""
    (tmp_path / "a.wav").write_bytes(content)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(2):
            warnings.warn("said once", UserWarning, stacklevel=1)
            samples, _ = read_sound(tmp_path / "a.wav")
    assert [str(each.message) for each in shown] == ["said once"]
    np.testing.assert_array_equal(samples[:-1], np.frombuffer(PCM, "<i2")[:-1] / 32768)
    assert samples.flags.writeable


def test_sounds_of_floats_may_be_written_to(tmp_path):
    samples, _ = read_sound(write(tmp_path / "a.wav", np.array([0.5, -0.25], "float32")))
    samples[0] = 0
    assert samples.tolist() == [0, -0.25]


def test_a_model_of_pictures_takes_no_sampling_rate():
    pictures = StimulusInput(shape=["batch_size", 3, "height", "width"], dtype="uint8", range=(0, 255))
    with pytest.raises(InvalidParameterError, match="leave sampling_rate out"):
        open_stimuli(np.zeros((1, 3, 8, 8), "uint8"), pictures, 44_100)


@pytest.fixture(scope="module")
def tone():
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(22_050) / 44_100) * 32767).astype("int16")


@pytest.mark.parametrize(("ending", "error"), [(".flac", 0), (".mp3", 0.01), (".ogg", 0.01)])
def test_compressed_sounds_are_what_went_in(ending, error, tone, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / f"tone{ending}", tone, 44_100)
    samples, sampling_rate = read_sound(tmp_path / f"tone{ending}")
    assert (sampling_rate, len(samples)) == (44_100, len(tone))
    inside = slice(2000, -2000) if error else slice(None)  # coders of this kind ring at both ends
    assert np.abs(samples - tone / 32768)[inside].max() <= error
    assert [file.suffix for file in sound_files([tmp_path])] == [ending]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("ending", [".flac", ".mp3", ".ogg"])
def test_a_cut_compressed_sound_is_refused(ending, share, tone, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / f"tone{ending}"
    soundfile.write(path, tone, 44_100)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(StimulusError, match=rf"tone\{ending} (is cut|is not a sound that can be read)"):
        read_sound(path)


def test_a_compressed_sound_of_two_channels_or_none_is_refused(tone, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "stereo.flac", np.stack([tone, tone], axis=1), 44_100)
    with pytest.raises(StimulusError, match=r"stereo\.flac has 2 channels"):
        read_sound(tmp_path / "stereo.flac")
    (tmp_path / "text.mp3").write_text("no sound at all")
    with pytest.raises(StimulusError, match=r"text\.mp3 is not a sound that can be read"):
        read_sound(tmp_path / "text.mp3")


def test_without_soundfile_a_compressed_sound_says_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.mp3").write_bytes(b"ID3")
    with pytest.raises(MissingExtraError, match=r'pip install "berg\[sound\]"'):
        read_sound(tmp_path / "a.mp3")
