"""Sounds from arrays and files, as a model takes them."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, StimulusError, listing
from berg.core.regular_file import check_regular_file
from berg.stimuli import compressed_sounds
from berg.stimuli.checks import as_array, as_expected, check_stimulus, is_dataset
from berg.stimuli.stimulus_files import check_links, stimulus_files
from berg.stimuli.wav_header import check_whole, sound_alone

_FILTER_SAMPLES, _STEPS = 20, 32  # length of the anti-alias filter in samples of the lower rate, steps in one of them
ENDINGS = {".wav", *compressed_sounds.ENDINGS}
MIN_RATE, MAX_RATE = 1_000, 1_000_000
MAX_CHANNELS = 8  # an array of shape (many, at most so many) is one sound of several channels, not a batch


_UNREADABLE = (  # what comes out of scipy for damaged files
    ValueError,
    TypeError,
    EOFError,
    OSError,
    NameError,
    ArithmeticError,
    LookupError,
    AttributeError,
    struct.error,
)


def sound_files(places: Iterable[Path | str], recursive: bool = False) -> list[Path]:
    """The sounds (.wav, .flac, .mp3, .ogg) among files and folders; a folder stands for its sounds, sorted by name.

    See `berg.stimuli.stimulus_files.stimulus_files`, also for what it raises and warns of.
    """
    return stimulus_files(places, ENDINGS, "sound", recursive)


def open_sounds(
    stimulus: Any, expected: StimulusInput, sampling_rate: Any, check_files: bool
) -> SoundArray | SoundFiles:
    """Sounds in files or in an array; see `berg.stimuli.open.open_stimuli`."""
    files = [stimulus] if isinstance(stimulus, (str, Path)) else stimulus
    if isinstance(files, Sequence) and len(files) and all(isinstance(file, (str, Path)) for file in files):
        listed = sound_files(files)
        if check_files:
            check_links(listed)
        return SoundFiles(listed, expected, sampling_rate)
    return SoundArray(stimulus if is_dataset(stimulus) else as_array(stimulus, expected), expected, sampling_rate)


def read_sounds(files: Sequence[Path | str]) -> NDArray[Any]:
    """Sounds of files as they are, shape (n_sounds, n_samples).

    Raises
    ------
    StimulusError
        If a file is damaged, or if they differ in length or sampling rate.
    """
    sounds = [read_sound(file) for file in files]
    kinds = {(len(samples), rate) for samples, rate in sounds}
    if len(kinds) > 1:
        shown = listing(f"{length:,} samples at {rate:,} Hz" for length, rate in sorted(kinds))
        raise StimulusError(f"The sounds differ in length or sampling rate ({shown}). Bring them to one.")
    return np.stack([samples for samples, _ in sounds])


def read_sound(file: Path | str) -> tuple[NDArray[np.float64], int]:
    """A sound of one channel: .wav, or with the extra ``sound`` .flac, .mp3 and .ogg.

    Returns
    -------
    samples
        Shape (n_samples,); integers as in `as_floats`.
    sampling_rate
        Hertz.

    Raises
    ------
    MissingExtraError
        For a compressed file without soundfile.
    StimulusError
        For a file that is no sound or is damaged, for one that is shorter than its header says (a copy that was
        cut, a recorder that stopped), and for one of several channels.
    """
    check_regular_file(file)
    is_compressed = Path(file).suffix.lower() in compressed_sounds.ENDINGS
    samples, sampling_rate = compressed_sounds.read_compressed(file) if is_compressed else _read_wav(file)
    if samples.ndim != 1:
        raise StimulusError(f"{file} has {samples.shape[1]} channels; this model hears one. Save one of them alone.")
    if not len(samples):
        raise StimulusError(f"{file} holds no sound: it has 0 samples.")
    return as_floats(samples), sampling_rate


def _read_wav(file: Path | str) -> tuple[NDArray[Any], int]:
    from scipy.io import wavfile

    try:
        check_whole(file)
        sampling_rate, samples = wavfile.read(sound_alone(file))
    except StimulusError:
        raise
    except _UNREADABLE as error:
        raise StimulusError(f"{file} is not a .wav file that can be read: {error}") from error
    return np.require(samples, requirements="W"), int(sampling_rate)


def as_floats(samples: NDArray[Any]) -> NDArray[Any]:
    """Samples as floating-point numbers; integers as sound cards mean them, full scale 1.

    >>> as_floats(np.array([-32768, 16384], "int16")).tolist()
    [-1.0, 0.5]
    >>> as_floats(np.array([128, 192], "uint8")).tolist()
    [0.0, 0.5]
    """
    kind = samples.dtype.newbyteorder("=")
    if kind.kind == "f":
        return samples
    if kind == np.uint8:
        return (samples.astype(np.float64) - 128) / 128
    if kind in (np.int16, np.int32):
        return samples.astype(np.float64) / -float(np.iinfo(kind).min)
    raise StimulusError(
        f"The sound is {samples.dtype}; allowed are floating-point numbers, and int16, int32 and uint8 as in .wav "
        'files (full scale is then 1). Try stimulus.astype("int16") if it came from a 16-bit file.'
    )


def resample(samples: NDArray[Any], sampling_rate: int, wanted_rate: int) -> NDArray[Any]:
    """Sounds at another sampling rate, shape (..., n_samples * wanted_rate / sampling_rate, rounded up).

    A sample hears nothing that comes after it: the anti-alias filter is the minimum-phase filter with the amplitudes of
    that of scipy's `resample_poly`, a windowed sinc. It delays a sound by 1.8 samples of the lower of the two rates:
    0.09 ms at 20 kHz, 0.22 ms at 8 kHz.

    >>> click = np.zeros(50)
    >>> click[20] = 1
    >>> np.flatnonzero(resample(click, 10_000, 20_000))[0]  # 20 / 10,000 s are 40 / 20,000 s
    np.int64(40)
    """
    if sampling_rate == wanted_rate:
        return samples
    from scipy.signal import upfirdn

    common = math.gcd(sampling_rate, wanted_rate)
    up, down = wanted_rate // common, sampling_rate // common
    resampled: NDArray[Any] = upfirdn(_anti_alias_filter(up, down), samples.astype(np.float64), up, down, axis=-1)
    return resampled[..., : -(-samples.shape[-1] * up // down)]  # without what the filter rings on


def _anti_alias_filter(up: int, down: int) -> NDArray[np.float64]:
    """The filter at `up` times the rate of the sound, which is `down` times the wanted rate."""
    fine = _minimum_phase_filter()
    times = np.arange(_FILTER_SAMPLES * max(up, down)) / max(up, down)  # samples of the lower rate
    taps = np.interp(times, np.arange(len(fine)) / _STEPS, fine)
    return np.asarray(up * taps / taps.sum())


@lru_cache(maxsize=1)
def _minimum_phase_filter() -> NDArray[np.float64]:
    """A causal low-pass filter up to half the lower rate, in steps of 1 / `_STEPS` samples of that rate."""
    from scipy.signal import firwin, minimum_phase

    symmetric = firwin(_FILTER_SAMPLES * _STEPS + 1, 1 / _STEPS, window=("kaiser", 5.0))
    return np.asarray(minimum_phase(np.convolve(symmetric, symmetric)))  # half of it, with the root of its amplitudes


def check_sampling_rate(sampling_rate: Any, model_rate: int) -> int:
    """The sampling rate of the user's sounds as a whole number of hertz.

    Raises
    ------
    InvalidParameterError
        It says what to type.
    """
    if sampling_rate is None:
        raise InvalidParameterError(
            "The sampling rate of the sound is not known. Give it in hertz, for example sampling_rate=44100 "
            f"(sampling_rate={model_rate} for a sound at the model's own rate)."
        )
    is_number = isinstance(sampling_rate, (int, float, np.integer, np.floating)) and not isinstance(sampling_rate, bool)
    if not is_number or not MIN_RATE <= sampling_rate <= MAX_RATE or sampling_rate != int(sampling_rate):
        raise InvalidParameterError(
            f"sampling_rate must be a whole number of hertz from {MIN_RATE:,} to {MAX_RATE:,}, got {sampling_rate!r}. "
            "For example sampling_rate=44100."
        )
    return int(sampling_rate)


class SoundArray:
    """Sounds in an array, or in anything on disk that has a shape and gives slices."""

    def __init__(self, sounds: Any, expected: StimulusInput, sampling_rate: Any) -> None:
        self.expected, self.model_rate = expected, expected.sampling_rate or 1
        self.sampling_rate = check_sampling_rate(sampling_rate, self.model_rate)
        if not sounds.shape:
            check_stimulus(np.asarray(sounds), expected)  # refuses a single number
        self.sounds = sounds[None] if len(sounds.shape) == 1 else sounds
        _check_channels(self.sounds.shape)
        self.shape = self._read(slice(0, 1)).shape[1:]

    def __len__(self) -> int:
        return len(self.sounds)

    def read(self, places: slice) -> NDArray[Any]:
        return as_expected(self._read(places), self.expected)

    def _read(self, places: slice) -> NDArray[Any]:
        samples = self.sounds[places]
        floats = as_floats(samples) if samples.dtype.kind in "iuf" else samples  # the check names all else
        return resample(check_stimulus(floats, self.expected), self.sampling_rate, self.model_rate)


class SoundFiles:
    """Sounds in files, all equally long."""

    def __init__(self, files: Sequence[Path | str], expected: StimulusInput, sampling_rate: Any) -> None:
        self.files, self.expected, self.given_rate = sound_files(files), expected, sampling_rate
        self.model_rate = expected.sampling_rate or 1
        self.shape = self._read(self.files[0]).shape

    def __len__(self) -> int:
        return len(self.files)

    def read(self, places: slice) -> NDArray[Any]:
        sounds = [self._read(file) for file in self.files[places]]
        for file, sound in zip(self.files[places], sounds, strict=True):
            if sound.shape != self.shape:
                lengths = [n_samples / self.model_rate for n_samples in (len(sound), *self.shape)]
                raise StimulusError(
                    f"{file} lasts {lengths[0]:g} s, {self.files[0]} {lengths[1]:g} s. Encode sounds of different "
                    "lengths one by one, or add silence to the shorter ones (np.pad)."
                )
        return as_expected(np.stack(sounds), self.expected)

    def _read(self, file: Path) -> NDArray[Any]:
        samples, sampling_rate = read_sound(file)
        if self.given_rate not in (None, sampling_rate):
            raise InvalidParameterError(
                f"{file} has a sampling rate of {sampling_rate} Hz, not {self.given_rate!r}. Leave sampling_rate out."
            )
        checked = check_stimulus(samples[None], self.expected)[0]
        return resample(checked, check_sampling_rate(sampling_rate, self.model_rate), self.model_rate)


def _check_channels(shape: tuple[int, ...]) -> None:
    if len(shape) == 2 and shape[1] <= MAX_CHANNELS < shape[0]:
        raise StimulusError(
            f"The sound has shape {shape}, which looks like {shape[1]} channels; this model hears one. Give one "
            "channel, stimulus[:, 0], or sounds as rows, shape (n_stimuli, n_samples)."
        )
