"""Squares cut from the photographs that come with scikit-image: a small set of natural pictures, always there.

Six photographs are few: what is measured with their squares holds for photographs roughly. Give your own pictures
wherever a reference counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from berg.core.exceptions import InvalidParameterError

NAMES = ("astronaut", "camera", "chelsea", "coffee", "motorcycle", "rocket")


def photograph(name: str) -> NDArray[np.uint8]:
    """One of them, shape (height, width, 3)."""
    from skimage import data

    find: Any = getattr(data, "stereo_motorcycle" if name == "motorcycle" else name)
    picture = find()[0] if name == "motorcycle" else find()
    return np.asarray(Image.fromarray(picture).convert("RGB"))


def squares(n: int, pixels: int, seed: int = 0, names: tuple[str, ...] = NAMES) -> NDArray[np.uint8]:
    """Squares from random places of the photographs in turn, mirrored by chance.

    Parameters
    ----------
    pixels
        Along each side; the squares are half as wide as the photograph is high, or wider.
    names
        Of the photographs.

    Returns
    -------
    pictures
        Shape (n, 3, pixels, pixels).

    Examples
    --------
    >>> squares(3, 32).shape
    (3, 3, 32, 32)
    """
    if n < 1 or pixels < 1:
        raise InvalidParameterError(f"There are no {n} squares of {pixels} pixels. Give numbers from 1 on.")
    rng = np.random.default_rng(seed)
    photographs = [photograph(name) for name in names]
    found = [_square(photographs[number % len(photographs)], pixels, rng) for number in range(n)]
    return np.stack(found).transpose(0, 3, 1, 2)


def _square(picture: NDArray[np.uint8], pixels: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    side = int(min(height, width) * rng.uniform(0.5, 1))
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    square = Image.fromarray(picture[top : top + side, left : left + side])
    resized = np.asarray(square.resize((pixels, pixels), Image.Resampling.BICUBIC))
    return resized[:, ::-1] if rng.random() < 0.5 else resized
