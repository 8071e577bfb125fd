"""The nested dict of a published ``.npy`` file, whose arrays are checked when they are taken out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import CorruptedFileError

Floats = NDArray[np.floating[Any]]


class PublishedContent:
    """The nested dict of a file, and the sizes that its arrays have in common."""

    def __init__(self, path: Path, content: object) -> None:
        self.path = path
        self.content = content
        self.sizes: dict[str, int] = {}

    def has(self, place: str) -> bool:
        """Whether something stands at a place."""
        return self.value(place) is not None

    def array(self, place: str, axes: tuple[str, ...]) -> Floats:
        """The array at a place; an axis of one letter must have the same length wherever it stands."""
        found = self.value(place)
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.ndim != len(axes):
            raise CorruptedFileError(
                f"{self.path} has no array of {len(axes)} axes at '{place}'; it is not a weights file of this model. "
                "Get it again."
            )
        for axis, length in zip(axes, found.shape, strict=True):
            if self.sizes.setdefault(axis, length) != length:
                raise CorruptedFileError(
                    f"{self.path}: '{place}' has shape {found.shape}, where {self.sizes[axis]} was expected "
                    f"instead of {length}. Get the file again."
                )
        return found

    def value(self, place: str) -> object:
        """What stands at a place; None if nothing does."""
        value = self.content
        for step in place.split("."):
            if not isinstance(value, dict) or step not in value:
                return None
            value = value[step]
        return value
