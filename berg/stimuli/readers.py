"""One reader for each kind of stimulus, by the word that a card has for it (``input.kind``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput, StimulusKind
from berg.stimuli import images, sounds, text_stimuli, video_stimuli
from berg.stimuli.image_stimuli import open_images


class Stimuli(Protocol):
    """Stimuli in an order, of which any slice can be read."""

    shape: tuple[int, ...]
    """Of one stimulus, as it is read."""

    def __len__(self) -> int: ...

    def read(self, indices: slice, /) -> NDArray[Any]:
        """The stimuli at these indices, checked, in the dtype of the card."""
        ...


class Open(Protocol):
    """Stimuli from whatever the user has, as `berg.stimuli.open.open_stimuli` describes it."""

    def __call__(self, stimulus: Any, expected: StimulusInput, sampling_rate: Any, check_files: bool) -> Stimuli: ...


class ListFiles(Protocol):
    """The files of this kind among files and folders, in their order."""

    def __call__(self, places: Iterable[Path | str], /, recursive: bool = False) -> list[Path]: ...


class ReadFiles(Protocol):
    """Some files as one array, as they are: first axis the stimuli."""

    def __call__(self, files: Sequence[Any], /) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Reader:
    """What is done with stimuli of one kind.

    Attributes
    ----------
    name
        What messages call several of them.
    endings
        Of files, in lower case.
    """

    name: str
    endings: frozenset[str]
    open: Open
    list_files: ListFiles
    read_files: ReadFiles


READERS: Mapping[StimulusKind, Reader] = {
    "image": Reader("pictures", frozenset(images.ENDINGS), open_images, images.image_files, images.load_images),
    "sound": Reader("sounds", frozenset(sounds.ENDINGS), sounds.open_sounds, sounds.sound_files, sounds.read_sounds),
    "video": Reader(
        "videos",
        frozenset(video_stimuli.ENDINGS),
        video_stimuli.open_videos,
        video_stimuli.video_files,
        video_stimuli.read_videos,
    ),
    # No endings: a folder is never taken for one of texts, beside whose pictures lists and tables often lie.
    "text": Reader("texts", frozenset(), text_stimuli.open_texts, text_stimuli.text_files, text_stimuli.read_texts),
}


def reader_of(kind: StimulusKind) -> Reader:
    """The reader of a kind of stimulus."""
    return READERS[kind]


def kind_of_file(file: Any) -> StimulusKind:
    """The kind of stimulus that a file is by its ending; image, if no kind has that ending.

    >>> kind_of_file("a.WAV"), kind_of_file("a.png"), kind_of_file("a")
    ('sound', 'image', 'image')
    """
    ending = Path(file).suffix.lower() if isinstance(file, (str, Path)) else ""
    found = (kind for kind, reader in READERS.items() if ending in reader.endings)
    return next(found, "image")
