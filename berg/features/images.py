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
from berg.features.stimulus_files import file_names, stimulus_files

FIT = Literal["center_crop", "squash", "pad"]
Picture = Path | str | Image.Image
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm"}


def image_files(places: Iterable[Path | str]) -> list[Path]:
    """The picture files among files and folders; a folder stands for its pictures, sorted by name.

    See `berg.features.stimulus_files.stimulus_files`, also for what it raises and warns of.
    """
    files = stimulus_files(places, ENDINGS, "picture")
    if not files:
        raise MissingFileError("No pictures were given.")
    return files


def load_images(
    files: Picture | Sequence[Picture], size: int | None = None, fit: FIT = "center_crop"
) -> NDArray[np.uint8]:
    """Pictures as one array, as models take them.

    A picture is turned upright as its EXIF data say. Grey becomes three equal channels, palettes and CMYK become
    RGB, 16 bits are scaled to 8 (65,535 becomes 255), of an animation the first frame is taken, and what is
    transparent lets mid-grey (128) through. Colour profiles are not applied: the numbers are taken for sRGB.

    Parameters
    ----------
    files
        A folder (its pictures in the order of their names), a picture file, a PIL image, or a list of these.
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
    MissingFileError
        For a path that is not there, and for a folder without a picture.
    StimulusError
        For a file that is no picture or is damaged, for one with 32 bits per channel, whose range nothing tells,
        and for pictures of different sizes without `size`; it names the file.

    Examples
    --------
    >>> from PIL import Image
    >>> load_images([Image.new("RGB", (640, 480)), Image.new("L", (300, 400))], size=224).shape
    (2, 3, 224, 224)
    """
    check_sizing(size, fit)
    pictures = _pictures(files)
    first = sized(_upright(pictures[0]), size, fit)
    images = np.empty((len(pictures), 3, *first.shape[:2]), np.uint8)
    for index, picture in enumerate(pictures):
        image = sized(_upright(picture), size, fit) if index else first
        if image.shape != first.shape:
            raise StimulusError(
                f"The pictures have different sizes ({_size(first)} in {pictures[0]}, {_size(image)} in {picture}). "
                "Bring them to one with size=224 (on the command line --size 224)."
            )
        images[index] = image.transpose(2, 0, 1)
    return images


def check_sizing(size: int | None, fit: str) -> None:
    """Raise InvalidParameterError where pictures cannot be brought to such a size in such a way."""
    if fit not in get_args(FIT):
        raise InvalidParameterError(f"fit is '{fit}'. Allowed: {', '.join(get_args(FIT))}.")
    if size is not None and size < 1:
        raise InvalidParameterError(f"size must be a number of pixels from 1, got {size}.")


def _pictures(given: Picture | Sequence[Picture]) -> list[Path | Image.Image]:
    """Files and PIL images in their order, a folder replaced by its pictures."""
    places = [given] if isinstance(given, (str, Path, Image.Image)) else list(given)
    found: list[Path | Image.Image] = []
    for place in places:
        found += [place] if isinstance(place, Image.Image) else image_files([place])
    return found or list(image_files([]))


def _upright(file: Path | str | Image.Image) -> Image.Image:
    """The picture as the camera meant it: upright, in 8 bits, and without alpha (laid on mid-grey)."""
    try:
        opening = nullcontext(file) if isinstance(file, Image.Image) else Image.open(file)
        with opening as opened:
            opened.load()
            picture = _in_8_bits(ImageOps.exif_transpose(opened), opened.format)
    except _UNREADABLE as error:
        raise StimulusError(f"{file} is not a picture that can be read: {error}") from error
    if picture.mode in ("I", "F"):
        raise StimulusError(
            f"{file} has 32 bits per channel, and its white is not known; convert it to 8 or 16 bits first."
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        grey = Image.new("RGBA", picture.size, (128, 128, 128, 255))
        picture = Image.alpha_composite(grey, picture)
    return picture.convert("RGB")


def _in_8_bits(picture: Image.Image, file_format: str | None) -> Image.Image:
    """Grey of 16 bits scaled to 8; PIL does so with colours when it opens them, and would clip grey."""
    in_32 = picture.mode == "I" and file_format in ("PNG", "PPM")  # these two have no more than 16
    if not picture.mode.startswith("I;16") and not in_32:
        return picture
    values = np.asarray(picture, np.int64)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if "transparency" in picture.info:
        grey.putalpha(Image.fromarray(255 * (values != picture.info["transparency"]).astype(np.uint8)))
    return grey


def sized(picture: Image.Image, size: int | None, fit: FIT) -> NDArray[np.uint8]:
    """A picture brought to a size, shape (height, width, 3); None leaves it as it is."""
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


class ResizedPictures:
    """Picture files brought to one size when they are read; any slice of them, as `load_images` gives it.

    Parameters
    ----------
    files, size, fit
        As in `load_images`.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: Path | str | Sequence[Path | str], size: int, fit: FIT = "center_crop") -> None:
        check_sizing(size, fit)
        self.files = image_files([files] if isinstance(files, (str, Path)) else files)
        self.size, self.fit = size, fit
        self.shape = (len(self.files), 3, size, size)

    @property
    def names(self) -> list[str]:
        """Of the files."""
        return file_names(self.files)

    @property
    def read_as(self) -> str:
        """What is done to the pictures."""
        return f"size {self.size}, {self.fit}"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, places: slice) -> NDArray[np.uint8]:
        """The pictures at these places."""
        return load_images(self.files[places], self.size, self.fit)
