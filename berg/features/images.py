"""Pictures from files, as a model takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from berg.core.exceptions import InvalidParameterError, MissingFileError, StimulusError

FIT = Literal["center_crop", "squash", "pad"]
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm"}


def image_files(places: Iterable[Path | str]) -> list[Path]:
    """The picture files among files and folders; a folder stands for its pictures, sorted by name.

    Raises
    ------
    MissingFileError
        For a path that is not there, and for a folder without a picture.
    """
    files: list[Path] = []
    for place in map(Path, places):
        if place.is_dir():
            found = sorted(file for file in place.iterdir() if file.suffix.lower() in ENDINGS and file.is_file())
            if not found:
                raise MissingFileError(f"{place} holds no picture ({', '.join(sorted(ENDINGS))}).")
            files += found
        elif place.is_file():
            files.append(place)
        else:
            raise MissingFileError(f"There is no file or folder {place}.")
    if not files:
        raise MissingFileError("No pictures were given.")
    return files


def load_images(
    files: Sequence[Path | str | Image.Image], size: int | None = None, fit: FIT = "center_crop"
) -> NDArray[np.uint8]:
    """Pictures as one array.

    Parameters
    ----------
    files
        Paths of picture files (see `image_files` for folders), or PIL images.
    size
        Height and width in pixels that all are brought to (PIL, bicubic, antialiased). None: as they
        are, which needs them to be of one size.
    fit
        What is done to a picture that is not square: ``center_crop`` cuts the longer side,
        ``squash`` changes its proportions, ``pad`` adds mid-grey to the shorter side.

    Returns
    -------
    images
        uint8, shape (n_images, 3, height, width), in the order of the files.

    Raises
    ------
    StimulusError
        For a file that is no picture, and for pictures of different sizes without `size`.
    """
    if fit not in get_args(FIT):
        raise InvalidParameterError(f"fit is '{fit}'. Allowed: {', '.join(get_args(FIT))}.")
    if size is not None and size < 1:
        raise InvalidParameterError(f"size must be a number of pixels from 1, got {size}.")
    pictures = [_sized(_upright(file), size, fit) for file in files]
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        other = next(index for index, picture in enumerate(pictures) if picture.shape != pictures[0].shape)
        raise StimulusError(
            f"The pictures have different sizes ({_size(pictures[0])} in {files[0]}, {_size(pictures[other])} "
            f"in {files[other]}). Bring them to one with size=224 (on the command line --size 224)."
        )
    return np.stack(pictures).transpose(0, 3, 1, 2)


def _upright(file: Path | str | Image.Image) -> Image.Image:
    """The picture as the camera meant it: upright, and without alpha (laid on mid-grey)."""
    try:
        opening = nullcontext(file) if isinstance(file, Image.Image) else Image.open(file)
        with opening as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
    except _UNREADABLE as error:
        raise StimulusError(f"{file} is not a picture that can be read: {error}") from error
    if picture.mode.startswith("I") or picture.mode == "F":
        raise StimulusError(f"{file} has more than 8 bits per channel; convert it to 8 bits first.")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        grey = Image.new("RGBA", picture.size, (128, 128, 128, 255))
        picture = Image.alpha_composite(grey, picture)
    return picture.convert("RGB")


def _sized(picture: Image.Image, size: int | None, fit: FIT) -> NDArray[np.uint8]:
    if size is not None:
        target = (size, size)
        if fit == "center_crop":
            picture = ImageOps.fit(picture, target, Image.Resampling.BICUBIC)
        elif fit == "pad":
            picture = ImageOps.pad(picture, target, Image.Resampling.BICUBIC, color=(128, 128, 128))
        else:
            picture = picture.resize(target, Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _size(picture: NDArray[np.uint8]) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"
