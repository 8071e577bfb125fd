"""Sounds in compressed files (.flac, .mp3, .ogg), decoded by libsndfile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import MissingExtraError, StimulusError

ENDINGS = {".flac", ".mp3", ".ogg"}
_LONGEST = 2**40  # samples; libsndfile says more if a file does not say how long it is
_PAGE_BYTES = 27 + 255 + 255 * 255  # the largest page of an Ogg file
_LAST_PAGE = 4  # of the flags of a page


def read_compressed(file: Path | str) -> tuple[NDArray[np.float64], int]:
    """The samples of a compressed file, full scale 1, and its sampling rate in hertz.

    Of a sound in .flac, the bits that went in. In .mp3 and .ogg it comes back changed a little, and an .mp3 without the
    length of the sound in its first frame (the Xing or LAME header) with some 50 ms of silence around it.

    Returns
    -------
    samples, sampling_rate
        Shape (n_samples,), or (n_samples, n_channels) of several channels.

    Raises
    ------
    MissingExtraError
        Without soundfile.
    StimulusError
        For a file that cannot be decoded, or that is shorter than it says: a copy that was cut.
    """
    soundfile = _soundfile()
    try:
        with soundfile.SoundFile(file) as opened:
            n_samples, sampling_rate = opened.frames, opened.samplerate
            samples = np.empty(0) if n_samples > _LONGEST else opened.read(dtype="float64")
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        raise StimulusError(f"{file} is not a sound that can be read: {error}") from error
    if len(samples) < n_samples or (Path(file).suffix.lower() == ".ogg" and not _ends_with_last_page(file)):
        raise StimulusError(
            f"{file} is cut: {len(samples):,} samples of it can be read, and more were written. Copy it again (or, if "
            f"that is all of it, write it anew:  ffmpeg -i {Path(file).name} whole.wav)."
        )
    return samples, int(sampling_rate)


def compressed_facts(file: Path | str) -> tuple[int, int]:
    """How many samples a compressed file says that it holds, of all channels, and its sampling rate.

    Raises
    ------
    MissingExtraError, StimulusError
        As `read_compressed`.
    """
    soundfile = _soundfile()
    try:
        with soundfile.SoundFile(file) as opened:
            return opened.frames * opened.channels, opened.samplerate
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        raise StimulusError(f"{file} is not a sound that can be read: {error}") from error


def _ends_with_last_page(path: Path | str) -> bool:
    """Whether an Ogg file ends with a page that says that it is the last, and that is whole (RFC 3533, section 6)."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _PAGE_BYTES))
        tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:] if start >= 0 else b""
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    n_bytes = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return bool(page[5] & _LAST_PAGE) and len(page) >= n_bytes


def _soundfile() -> Any:
    try:
        import soundfile
    except ImportError as error:
        raise MissingExtraError(
            "Sounds in .flac, .mp3 and .ogg files are read by soundfile, which is not installed. Type:  pip install "
            '"berg[sound]"   (or save them as .wav)'
        ) from error
    return soundfile
