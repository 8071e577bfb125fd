"""Pictures from files, as a model takes them."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from berg.core.exceptions import InvalidParameterError, MissingFileError, StimulusError, StimulusWarning
from berg.core.regular_file import check_regular_file
from berg.core.stacklevel import users_stacklevel
from berg.stimuli.stimulus_files import file_names, stimulus_files

FIT = Literal["center_crop", "squash", "pad"]
Picture = Path | str | Image.Image
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What a picture file may be, whatever its name. PIL knows others that start programs or read other files: PostScript
called ``a.png`` would start Ghostscript."""

UNREADABLE = (  # what comes out of PIL for damaged files
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    AssertionError,
    RuntimeError,
    UserWarning,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_UPRIGHT = {  # by the orientation in the EXIF data
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS, _PHOTOMETRIC, _ORIENTATION, _PLANES, _COLOUR_MAP = 258, 262, 274, 284, 320  # tags of TIFF and EXIF
_SAMPLE_FORMAT, _SIGNED, _WHITE_IS_ZERO, _SEPARATE = 339, 2, 0, 2
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm"}


def image_files(places: Iterable[Path | str], recursive: bool = False) -> list[Path]:
    """The picture files among files and folders; a folder stands for its pictures, sorted by name.

    See `berg.stimuli.stimulus_files.stimulus_files`, also for what it raises and warns of.
    """
    files = stimulus_files(places, ENDINGS, "picture", recursive)
    if not files:
        raise MissingFileError("No pictures were given.")
    return files


def load_images(
    files: Picture | Sequence[Picture], size: int | None = None, fit: FIT = "center_crop", *, recursive: bool = False
) -> NDArray[np.uint8]:
    """Pictures as one array, as models take them.

    Files are opened as one of `FORMATS`, whatever their name. A picture is turned upright as its EXIF data say. Grey
    becomes three equal channels, palettes and CMYK become RGB, 12 and 16 bits are scaled to 8 (65,535 becomes 255;
    of a TIFF of 12 bits 4,095), white is 255 also if a file calls it 0, of an animation the first frame is taken,
    and what is transparent lets mid-grey (128) through. Colour profiles are not applied: the numbers are taken for
    sRGB.

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
    recursive
        Take the pictures in the folders of a folder too.

    Returns
    -------
    images
        uint8, shape (n_images, 3, height, width), in the order of the files.

    Raises
    ------
    MissingFileError
        For a path that is not there, and for a folder without a picture.
    StimulusError
        For a file that is no picture or is damaged, for one with 32 bits per channel, whose range nothing tells, for
        a TIFF of 16 bits whose channels lie each by itself, which PIL reads wrongly, and for pictures of different
        sizes without `size`; it names the file.

    Examples
    --------
    >>> from PIL import Image
    >>> load_images([Image.new("RGB", (640, 480)), Image.new("L", (300, 400))], size=224).shape
    (2, 3, 224, 224)
    """
    check_sizing(size, fit)
    pictures = _pictures(files, recursive)
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
    """Raise InvalidParameterError if pictures cannot be brought to such a size in such a way."""
    if fit not in get_args(FIT):
        raise InvalidParameterError(f"fit is '{fit}'. Allowed: {', '.join(get_args(FIT))}.")
    if size is not None and size < 1:
        raise InvalidParameterError(f"size must be a number of pixels from 1, got {size}.")


def _pictures(given: Picture | Sequence[Picture], recursive: bool) -> list[Path | Image.Image]:
    """Files and PIL images in their order, a folder replaced by its pictures."""
    places = [given] if isinstance(given, (str, Path, Image.Image)) else list(given)
    found: list[Path | Image.Image] = []
    for place in places:
        if not isinstance(place, (str, Path, Image.Image)):
            raise InvalidParameterError(
                f"load_images takes files, folders and PIL images, got {type(place).__name__}. A model takes an array "
                "as it is; a single picture as PIL.Image.fromarray(array), shape (height, width, 3), uint8."
            )
        found += [place] if isinstance(place, Image.Image) else image_files([place], recursive)
    return found or list(image_files([]))


def open_picture(file: Path | str) -> Image.Image:
    """A picture file, opened by PIL as one of `FORMATS`; raises one of `UNREADABLE`."""
    return Image.open(file, formats=FORMATS)


def picture_size(file: Path | str) -> tuple[int, int]:
    """Width and height of a picture in pixels, upright; only the head of the file is read.

    Raises
    ------
    StimulusError
        For a file that is no picture.
    """
    try:
        with open_picture(file) as opened:
            width, height = opened.size
            is_turned = not isinstance(opened, TiffImageFile) and _orientation(opened) >= 5  # PIL has turned TIFFs
    except UNREADABLE as error:
        raise _unreadable(file, error) from error
    return (height, width) if is_turned else (width, height)


def _unreadable(file: object, error: BaseException) -> StimulusError:
    return StimulusError(f"{file} is not a picture that can be read: {error}")


def _upright(file: Path | str | Image.Image) -> Image.Image:
    """The picture as the camera meant it: upright, in 8 bits, and without alpha (laid on mid-grey)."""
    if not isinstance(file, Image.Image):
        check_regular_file(file)
    try:
        with nullcontext(file) if isinstance(file, Image.Image) else open_picture(file) as opened:
            _check_kind(file, opened)
            _load(opened)
            turn = _UPRIGHT.get(_orientation(opened))
            picture = _in_8_bits(_with_its_colours(opened))
            picture = picture if turn is None else picture.transpose(turn)
            return _on_grey(picture).convert("RGB")
    except StimulusError:
        raise
    except MemoryError as error:
        raise StimulusError(
            f"{file} says that it has so many pixels that they do not fit into memory. If it is not damaged, make it "
            "smaller first."
        ) from error
    except UNREADABLE as error:
        raise _unreadable(file, error) from error


def _on_grey(picture: Image.Image) -> Image.Image:
    """The picture laid on mid-grey, which shows through what is transparent; that is told once."""
    if not picture.has_transparency_data:
        return picture
    picture = picture.convert("RGBA")
    if picture.getchannel("A").getextrema() != (255, 255):
        warnings.warn(
            "Pictures have transparent parts, through which mid-grey (128) shows. For another background lay them on "
            "it first, and save them without transparency.",
            StimulusWarning,
            stacklevel=users_stacklevel(),
        )
    return Image.alpha_composite(Image.new("RGBA", picture.size, (128, 128, 128, 255)), picture)


def _load(picture: Image.Image) -> None:
    """Decode a picture."""
    if not isinstance(picture, TiffImageFile):
        picture.load()
        return
    # Of a file with a name PIL maps the pixels into memory, and garbles those of a TIFF that must be turned by 90
    # degrees (Pillow 13.0: rows as long as columns).
    name, picture.filename = picture.filename, ""
    try:
        picture.load()
    finally:
        picture.filename = name


def _check_kind(file: object, picture: Image.Image) -> None:
    """Raise StimulusError for what PIL would read by starting a program, or read wrongly."""
    if picture.format == "EPS" and getattr(picture, "tile", None):
        raise StimulusError(f"{file} is PostScript, not a picture of pixels. Save it as PNG first.")
    tags = _tags(picture)
    if tags.get(_BITS, (8,))[0] < 32 and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise StimulusError(f"{file} has signed numbers, and its black and white are not known; save it unsigned.")
    if picture.mode in ("I", "F") and not _has_16_bits(picture):
        raise StimulusError(
            f"{file} has 32 bits per channel, and its white is not known; convert it to 8 or 16 bits first."
        )
    if tags.get(_PLANES) == _SEPARATE and max(tags.get(_BITS, (8,))) > 8:
        raise StimulusError(
            f"{file} has {max(tags[_BITS])} bits per channel with each channel by itself (planar), which PIL reads "
            "wrongly. Save it with the channels of each pixel together, or in 8 bits."
        )


def _tags(picture: Image.Image) -> Mapping[int, Any]:
    """The tags of a TIFF, none for other pictures."""
    return picture.tag_v2 if isinstance(picture, TiffImageFile) else {}


def _orientation(picture: Image.Image) -> int:
    """The orientation in the EXIF data, 1 (upright) if they have none or cannot be read."""
    try:
        found = picture.getexif().get(_ORIENTATION, 1)
    except UNREADABLE:
        return 1
    return found if isinstance(found, int) else 1


def _with_its_colours(picture: Image.Image) -> Image.Image:
    """A palette of 8 bits in a TIFF, in which 16 are the rule, which PIL takes for black."""
    colours = np.array(_tags(picture).get(_COLOUR_MAP, ()), np.int64)  # all red, all green, all blue
    if picture.mode == "P" and len(colours) and colours.max() < 256:
        picture.putpalette(colours.reshape(3, -1).T.astype(np.uint8).tobytes())
    return picture


def _has_16_bits(picture: Image.Image) -> bool:
    """Whether grey has more than 8 bits, but no more than 16."""
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))


def _in_8_bits(picture: Image.Image) -> Image.Image:
    """Grey of 12 or 16 bits scaled to 8; PIL does so with colours when it opens them, and would clip grey."""
    if not _has_16_bits(picture):
        return picture
    tags = _tags(picture)
    white = 4095 if tuple(tags.get(_BITS, ())) == (12,) else 65_535
    values = np.asarray(picture, np.int64)
    scaled = ((values * 255 + white // 2) // white).astype(np.uint8)
    grey = Image.fromarray(255 - scaled if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else scaled)
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


def resized(stimulus: Any, size: int | None, fit: FIT | None) -> Any:
    """The stimuli of a model, pictures brought to one size: files when they are read, pictures of PIL at once.

    Raises
    ------
    InvalidParameterError
        For anything else than files and pictures of PIL, and for a way to fit without a size.
    """
    if size is None:
        if fit is not None:
            raise InvalidParameterError(f"fit='{fit}' is how pictures are brought to a size; give that too: size=224.")
        return stimulus
    given = [stimulus] if isinstance(stimulus, (str, Path, Image.Image)) else stimulus
    listed = list(given) if isinstance(given, (list, tuple)) else []
    if listed and all(isinstance(item, (str, Path)) for item in listed):
        return ResizedPictures(listed, size, fit or "center_crop")
    if listed and all(isinstance(item, (str, Path, Image.Image)) for item in listed):
        return load_images(listed, size, fit or "center_crop")
    raise InvalidParameterError(
        f"size={size} is for pictures in files and for PIL images, got {type(stimulus).__name__}. Bring an array to "
        "its size before, for example with torch.nn.functional.interpolate."
    )


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
        """The pictures at these indices."""
        return load_images(self.files[places], self.size, self.fit)
