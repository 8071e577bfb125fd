"""What a client sends, from bytes to stimuli: checked against the limits by the heads of the files, then read.

Files lie in a folder of their own under names that the server gives, for as long as they are read. The names that a
client gives are labels, and stand in messages; they never name a file here, and nothing is fetched.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import BERGError, InvalidParameterError, StimulusError, listing
from berg.server.limits import Limits, n_bytes_of
from berg.stimuli.arrays import ArrayPart, open_array
from berg.stimuli.compressed_sounds import ENDINGS as COMPRESSED
from berg.stimuli.compressed_sounds import compressed_facts
from berg.stimuli.images import FIT, check_sizing, load_images, picture_size
from berg.stimuli.open import open_stimuli
from berg.stimuli.readers import reader_of
from berg.stimuli.videos import video_facts
from berg.stimuli.wav_header import wav_facts

ARRAY = ".npy"
_LONGEST_NAME = 200
_AT_ONCE = 64  # stimuli of a job in memory at a time
_ENDING_OF_TYPE = {  # of what has no name: a picture from the clipboard, a recording of the microphone
    "image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "image/gif": ".gif", "image/bmp": ".bmp",
    "image/tiff": ".tif", "audio/wav": ".wav", "audio/x-wav": ".wav", "audio/flac": ".flac", "audio/mpeg": ".mp3",
    "audio/ogg": ".ogg", "video/mp4": ".mp4", "video/webm": ".webm",
}  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class Upload:
    """One file as it came: its label, and its bytes."""

    name: str
    content_type: str
    content: IO[bytes]


@dataclass(frozen=True)
class Received:
    """Stimuli that can be encoded, and what they are called.

    Attributes
    ----------
    stimuli
        Shape (n_stimuli, ...), in the dtype of the card.
    """

    stimuli: NDArray[Any]
    names: list[Any]
    sampling_rate: int | None


def shown_name(given: str | None) -> str:
    """The name of a file as a label: without folders and control characters, and not too long.

    >>> shown_name("../../etc/face.png"), shown_name("C:\\\\photos\\\\a.png"), shown_name(None)
    ('face.png', 'a.png', 'stimulus')
    """
    bare = PurePosixPath(_CONTROL.sub("", given or "").replace("\\", "/")).name
    return bare[-_LONGEST_NAME:] or "stimulus"


def receive(
    uploads: Sequence[Upload],
    expected: StimulusInput,
    limits: Limits,
    *,
    size: int | None = None,
    fit: FIT | None = None,
    sampling_rate: int | None = None,
    names: Sequence[str] | None = None,
) -> Received:
    """The stimuli in what a client sent.

    Raises
    ------
    TooLargeError, StimulusError, InvalidParameterError, CorruptedFileError
        With the name that the client gave.
    """
    if not uploads:
        raise StimulusError("No stimuli were given. Send at least one file in the field 'stimulus'.")
    limits.check_number(len(uploads))
    with stored(uploads, expected) as files:
        stimuli = read_files(files, expected, limits, size, fit, sampling_rate)
    labels = list(names) if names is not None else _names(uploads, files, len(stimuli))
    if len(labels) != len(stimuli):
        raise InvalidParameterError(f"{len(labels):,} names were given for {len(stimuli):,} stimuli.")
    return Received(stimuli, labels, expected.sampling_rate)


@contextmanager
def stored(uploads: Sequence[Upload], expected: StimulusInput) -> Iterator[list[Path]]:
    """The files of a request, in a folder that is gone afterwards; errors have the names that the client gave."""
    endings = [ending_of(upload, expected) for upload in uploads]
    with TemporaryDirectory(prefix="berg-stimuli-") as folder:
        files = [Path(folder) / f"{index:06d}{ending}" for index, ending in enumerate(endings)]
        for upload, file in zip(uploads, files, strict=True):
            write_upload(upload, file)
        with named_by_client(folder, dict(zip(files, (upload.name for upload in uploads), strict=True))):
            yield files


def write_upload(upload: Upload, file: Path) -> None:
    """Write the bytes of an upload to a file."""
    upload.content.seek(0)
    with file.open("xb") as opened:
        shutil.copyfileobj(upload.content, opened, 2**20)


@contextmanager
def named_by_client(folder: Path | str, names: dict[Path, str]) -> Iterator[None]:
    """Errors that are raised inside name files as the client does."""
    try:
        yield
    except BERGError as error:
        text = str(error)
        for file, name in names.items():
            text = text.replace(str(file), name).replace(file.name, name)
        raise type(error)(text.replace(f"{folder}/", "")) from error


def ending_of(upload: Upload, expected: StimulusInput) -> str:
    """The ending of a file among those that the model's kind of stimulus may have.

    Raises
    ------
    StimulusError
        For any other.
    """
    reader = reader_of(expected.kind)
    ending = PurePosixPath(upload.name).suffix.lower()
    ending = ending or _ENDING_OF_TYPE.get(upload.content_type.partition(";")[0].strip().lower(), "")
    if ending not in reader.endings and ending != ARRAY:
        raise StimulusError(
            f"{upload.name} is no file that this model takes: it takes {reader.name} "
            f"({listing(sorted(reader.endings))}), or an array ({ARRAY})."
        )
    return ending


def read_files(
    files: Sequence[Path],
    expected: StimulusInput,
    limits: Limits,
    size: int | None = None,
    fit: FIT | None = None,
    sampling_rate: int | None = None,
) -> NDArray[Any]:
    """The stimuli in some files, or in one array, as the model takes them.

    Raises
    ------
    TooLargeError, StimulusError, InvalidParameterError, CorruptedFileError
    """
    check_options(expected, size, fit)
    if any(file.suffix == ARRAY for file in files):
        return _read_array(files, expected, limits, size, sampling_rate)
    if expected.kind == "image":
        return _read_pictures(files, expected, limits, size, fit)
    check = _check_sound if expected.kind == "sound" else _check_video
    for file in files:
        check(file, limits)
    opened = open_stimuli(list(files), expected, sampling_rate)
    limits.check_decoded(len(opened) * int(np.prod(opened.shape, dtype=object)) * _itemsize(expected))
    return opened.read(slice(0, len(opened)))


def check_options(expected: StimulusInput, size: int | None, fit: FIT | None) -> None:
    """Raise InvalidParameterError for a size of what is no picture, and for a way to fit without a size."""
    if size is None and fit is not None:
        raise InvalidParameterError(f"fit='{fit}' is how pictures are brought to a size; give that too: size=224.")
    if size is not None and expected.kind != "image":
        raise InvalidParameterError(f"size={size} is for pictures; this model takes {reader_of(expected.kind).name}.")
    check_sizing(size, fit or "center_crop")


def check_files(
    files: Sequence[Path],
    expected: StimulusInput,
    limits: Limits,
    size: int | None = None,
    fit: FIT | None = None,
    sampling_rate: int | None = None,
) -> int:
    """The number of stimuli in files that are read later, batch by batch; only their heads are read.

    Raises
    ------
    TooLargeError, StimulusError, InvalidParameterError, CorruptedFileError
    """
    check_options(expected, size, fit)
    if not files:
        raise StimulusError("No stimuli were given. Send at least one file in the field 'stimulus'.")
    if any(file.suffix == ARRAY for file in files):
        array = _checked_array(files, expected, limits, size, sampling_rate)
        return len(array)
    if expected.kind == "image":
        largest = max(_picture_values(file, limits, size) for file in files)
        limits.check_decoded(min(len(files), _AT_ONCE) * largest * _itemsize(expected))
    else:
        check = _check_sound if expected.kind == "sound" else _check_video
        for file in files:
            check(file, limits)
    return len(files)


def _picture_values(file: Path, limits: Limits, size: int | None) -> int:
    """How many numbers a picture is at its final size."""
    width, height = picture_size(file)
    limits.check_pixels(width, height, str(file))
    return 3 * (width * height if size is None else size**2)


def _read_pictures(
    files: Sequence[Path], expected: StimulusInput, limits: Limits, size: int | None, fit: FIT | None
) -> NDArray[Any]:
    n_values = sum(_picture_values(file, limits, size) for file in files)
    if size is not None:
        limits.check_pixels(size, size, "A picture of this size")
    limits.check_decoded(n_values * _itemsize(expected))
    pictures = load_images(list(files), size, fit or "center_crop")
    opened = open_stimuli(pictures, expected)
    return opened.read(slice(0, len(opened)))


def _read_array(
    files: Sequence[Path], expected: StimulusInput, limits: Limits, size: int | None, sampling_rate: int | None
) -> NDArray[Any]:
    array = _checked_array(files, expected, limits, size, sampling_rate)
    limits.check_number(len(array))
    limits.check_decoded(n_bytes_of(array) // array.dtype.itemsize * _itemsize(expected))
    opened = open_stimuli(np.array(array[0 : len(array)]), expected, sampling_rate)
    limits.check_number(len(opened))
    return opened.read(slice(0, len(opened)))


def _checked_array(
    files: Sequence[Path], expected: StimulusInput, limits: Limits, size: int | None, sampling_rate: int | None
) -> ArrayPart:
    if len(files) > 1:
        raise StimulusError(f"{len(files):,} files were given, arrays among them. Give one array, or files of stimuli.")
    if size is not None:
        raise InvalidParameterError(f"size={size} is for pictures in files. Bring an array to its size before.")
    array = open_array(files[0])
    is_picture = expected.kind == "image" and len(array.shape) >= 3
    if is_picture or (expected.kind == "video" and len(array.shape) >= 3):
        limits.check_pixels(array.shape[-1], array.shape[-2], str(files[0]))
    if expected.kind == "sound":
        limits.check_seconds(
            array.shape[-1] / max(float(sampling_rate or expected.sampling_rate or 1), 1), str(files[0])
        )
    return array


def _check_sound(file: Path, limits: Limits) -> None:
    n_samples, rate = compressed_facts(file) if file.suffix in COMPRESSED else wav_facts(file)
    limits.check_samples(n_samples, str(file))
    limits.check_seconds(n_samples / max(rate, 1), str(file))


def _check_video(file: Path, limits: Limits) -> None:
    facts = video_facts(file)
    limits.check_pixels(facts.width, facts.height, str(file))
    limits.check_frames(facts.n_frames, str(file))
    limits.check_seconds(facts.seconds, str(file))


def _itemsize(expected: StimulusInput) -> int:
    return np.dtype(expected.dtype or "float32").itemsize


def _names(uploads: Sequence[Upload], files: Sequence[Path], n_stimuli: int) -> list[Any]:
    """The names of the files, or the numbers of the rows of an array."""
    if any(file.suffix == ARRAY for file in files):
        return list(range(n_stimuli))
    return [upload.name for upload in uploads]
