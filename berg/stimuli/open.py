"""Stimuli of any size, read batch by batch."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, StimulusError
from berg.stimuli.checks import as_array, as_expected, check_stimulus
from berg.stimuli.images import image_files, load_images
from berg.stimuli.sounds import SoundArray, SoundFiles, sound_files
from berg.stimuli.stimulus_files import check_links


class Stimuli(Protocol):
    """Stimuli in an order, of which any slice can be read."""

    shape: tuple[int, ...]
    """Of one stimulus, as it is read."""

    def __len__(self) -> int: ...

    def read(self, places: slice) -> NDArray[Any]:
        """The stimuli at these places, checked, in the dtype of the card."""
        ...


def open_stimuli(
    stimulus: Any, expected: StimulusInput, sampling_rate: Any = None, *, check_files: bool = True
) -> Stimuli:
    """Stimuli from whatever the user has.

    Parameters
    ----------
    stimulus
        An array; a memory map, a dataset of h5py or zarr, or anything else with ``shape`` and slices (such as
        `berg.load_video`), which is read batch by batch; a folder, or a list of files (pictures, sounds) or PIL
        images, likewise.
    expected
        The ``input`` of the card; one with a sampling rate takes sounds, all else is pictures or plain arrays.
    sampling_rate
        Of sounds in arrays, hertz. They are resampled to that of the card.
    check_files
        Refuse links to files that are not there at once; else they are damaged stimuli when they are read.

    Raises
    ------
    StimulusError
        At once for what the shape and dtype tell; for values, an array at once, everything else with the
        batch that holds them.
    MissingFileError
        For a file or folder that is not there, a link to such a file, or a folder without pictures (sounds).
    InvalidParameterError
        For a sampling rate that is missing, that no sound has, or that belongs to no sound.
    """
    if expected.sampling_rate is not None:
        return _open_sounds(stimulus, expected, sampling_rate, check_files)
    if sampling_rate is not None:
        raise InvalidParameterError("This model takes no sounds; leave sampling_rate out.")
    pictures = [stimulus] if _is_picture(stimulus) else stimulus
    if isinstance(pictures, Sequence) and len(pictures) and all(_is_picture(item) for item in pictures):
        in_memory = any(isinstance(item, Image.Image) for item in pictures)
        listed = pictures if in_memory else image_files(pictures)
        if check_files:
            check_links(item for item in listed if not isinstance(item, Image.Image))
        return _Pictures(listed, expected)
    if _is_dataset(stimulus):
        if check_files:
            check_links(getattr(stimulus, "files", ()))
        return _Dataset(stimulus, expected)
    return _Array(check_stimulus(stimulus, expected), expected)


def _open_sounds(stimulus: Any, expected: StimulusInput, sampling_rate: Any, check_files: bool) -> Stimuli:
    files = [stimulus] if isinstance(stimulus, (str, Path)) else stimulus
    if isinstance(files, Sequence) and len(files) and all(isinstance(file, (str, Path)) for file in files):
        listed = sound_files(files)
        if check_files:
            check_links(listed)
        return SoundFiles(listed, expected, sampling_rate)
    return SoundArray(stimulus if _is_dataset(stimulus) else as_array(stimulus, expected), expected, sampling_rate)


class _Array:
    def __init__(self, array: NDArray[Any], expected: StimulusInput) -> None:
        self.array, self.expected, self.shape = array, expected, array.shape[1:]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, places: slice) -> NDArray[Any]:
        return as_expected(self.array[places], self.expected)


class _Dataset:
    """Something on disk that has a shape and gives slices."""

    def __init__(self, dataset: Any, expected: StimulusInput) -> None:
        self.dataset, self.expected, self.shape = dataset, expected, tuple(dataset.shape[1:])
        # The first stimulus shows all that does not depend on the others, without reading them. What decodes
        # pictures says it beforehand, and the first of them may be damaged.
        decodes = hasattr(dataset, "read_as")
        first = np.zeros((1, *self.shape), dataset.dtype) if decodes or not len(dataset.shape) else dataset[:1]
        check_stimulus(first if len(dataset.shape) else np.zeros(()), expected)

    def __len__(self) -> int:
        return int(self.dataset.shape[0])

    def read(self, places: slice) -> NDArray[Any]:
        release_pages(self.dataset)
        return as_expected(check_stimulus(self.dataset[places], self.expected), self.expected)


def release_pages(array: Any) -> None:
    """Let go of what was touched of a memory map; the system keeps it in its cache, outside this process.

    Without it, a map that is read or written from end to end counts as memory of the process, all of it.
    """
    mapped = getattr(array, "_mmap", None)
    # What was written to a private map (mode "c") is nowhere else and would be lost.
    if isinstance(array, np.memmap) and mapped is not None and array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


class _Pictures:
    """Picture files or PIL images, all of one size."""

    def __init__(self, pictures: Sequence[Any], expected: StimulusInput) -> None:
        self.pictures, self.expected = pictures, expected
        self.shape = check_stimulus(load_images(pictures[:1]), expected).shape[1:]

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, places: slice) -> NDArray[Any]:
        batch = load_images(self.pictures[places])
        if batch.shape[1:] != self.shape:
            raise StimulusError(
                f"Pictures {places.start} to {places.stop - 1} are {batch.shape[3]} x {batch.shape[2]} pixels, the "
                f"first is {self.shape[2]} x {self.shape[1]}. Bring them to one size with load_images(..., size=224) "
                "(--size 224)."
            )
        return as_expected(batch, self.expected)


def _is_picture(item: Any) -> bool:
    return isinstance(item, (str, Path, Image.Image))


def _is_dataset(stimulus: Any) -> bool:
    is_array_like = all(hasattr(stimulus, name) for name in ("shape", "dtype", "__getitem__"))
    in_memory = isinstance(stimulus, np.ndarray) and not isinstance(stimulus, np.memmap)
    return is_array_like and not in_memory and not hasattr(stimulus, "detach")
