"""Pictures and plain arrays as stimuli, read batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, StimulusError
from berg.stimuli.checks import as_expected, check_stimulus, is_dataset
from berg.stimuli.images import image_files, load_images
from berg.stimuli.stimulus_files import check_links
from berg.system.memory import release_pages


def open_images(
    stimulus: Any, expected: StimulusInput, sampling_rate: Any, check_files: bool
) -> ImageArray | ImageDataset | ImageFiles:
    """Pictures in files or of PIL, or an array of anything that is no sound; see `berg.stimuli.open.open_stimuli`."""
    if sampling_rate is not None:
        raise InvalidParameterError("This model takes no sounds; leave sampling_rate out.")
    pictures = [stimulus] if _is_picture(stimulus) else stimulus
    if isinstance(pictures, Sequence) and len(pictures) and all(_is_picture(item) for item in pictures):
        in_memory = any(isinstance(item, Image.Image) for item in pictures)
        listed = pictures if in_memory else image_files(pictures)
        if check_files:
            check_links(item for item in listed if not isinstance(item, Image.Image))
        return ImageFiles(listed, expected)
    if is_dataset(stimulus):
        if check_files:
            check_links(getattr(stimulus, "files", ()))
        return ImageDataset(stimulus, expected)
    return ImageArray(check_stimulus(stimulus, expected), expected)


def _is_picture(item: Any) -> bool:
    return isinstance(item, (str, Path, Image.Image))


class ImageArray:
    """An array in memory."""

    def __init__(self, array: NDArray[Any], expected: StimulusInput) -> None:
        self.array, self.expected, self.shape = array, expected, array.shape[1:]

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: slice) -> NDArray[Any]:
        return as_expected(self.array[indices], self.expected)


class ImageDataset:
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

    def read(self, indices: slice) -> NDArray[Any]:
        release_pages(self.dataset)
        return as_expected(check_stimulus(self.dataset[indices], self.expected), self.expected)


class ImageFiles:
    """Picture files or PIL images, all of one size. Several threads may read files, but not PIL images."""

    def __init__(self, pictures: Sequence[Any], expected: StimulusInput) -> None:
        self.pictures, self.expected = pictures, expected
        self.are_files = not any(isinstance(item, Image.Image) for item in pictures)
        self.shape = check_stimulus(load_images(pictures[:1]), expected).shape[1:]

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, indices: slice) -> NDArray[Any]:
        batch = load_images(self.pictures[indices])
        if batch.shape[1:] != self.shape:
            raise StimulusError(
                f"Pictures {indices.start} to {indices.stop - 1} are {batch.shape[3]} x {batch.shape[2]} pixels, the "
                f"first is {self.shape[2]} x {self.shape[1]}. Bring them to one size with load_images(..., size=224) "
                "(--size 224)."
            )
        return as_expected(batch, self.expected)
