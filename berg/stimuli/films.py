"""Films as stimuli, frame by frame and grey, with what the animal did while it saw them.

A model that takes films says so by ``frame_rate`` in the input of its card. One film has frames as rows; several, of
one length, are stacked. A film at another rate or of another size is not taken as it is: `load_film` and `convert_film`
bring it to what the model takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, StimulusError
from berg.stimuli.checks import as_array, as_expected, check_stimulus, is_dataset
from berg.stimuli.images import FIT, check_sizing
from berg.stimuli.stimulus_files import check_links
from berg.stimuli.video_files import video_files
from berg.stimuli.videos import ALL, VideoFrames
from berg.system.memory import release_pages

HEIGHT, WIDTH, RATE = 144, 256, 30
"""Of the films that the mouse model takes: pixels, pixels, and frames per second."""
_SAME_RATE = 5e-4  # 29.97 per second are not 30
_ROUNDING = 2e-3  # seconds that a file may round the time of a frame by


class Film:
    """Grey frames of one film, and eye position and behaviour at each of them.

    Parameters
    ----------
    frames
        Shape (n_frames, height, width), integers in [0, 255]: an array, a memory map, a dataset of h5py or zarr, or
        anything else that is read by slices, such as what `load_film` returns.
    eye_position
        Of the eye, as the model was trained: z-scored. Shape (n_frames, 2), or (2,) for one that does not change. None:
        zeros, the average.
    behaviour
        Pupil radius and treadmill velocity, z-scored; likewise.

    Examples
    --------
    >>> film = Film(np.zeros((90, 144, 256), "uint8"), behaviour=[0.5, 1.0])
    >>> film.shape, film.behaviour.shape
    ((90, 144, 256), (90, 2))
    """

    dtype = np.dtype(np.uint8)
    frames: Any
    eye_position: NDArray[np.float32] | None
    behaviour: NDArray[np.float32] | None

    def __init__(self, frames: Any, eye_position: ArrayLike | None = None, behaviour: ArrayLike | None = None) -> None:
        if isinstance(frames, Film):
            eye_position = frames.eye_position if eye_position is None else eye_position
            behaviour = frames.behaviour if behaviour is None else behaviour
            frames = frames.frames
        if not is_dataset(frames) and not isinstance(frames, np.ndarray):
            frames = np.asarray(frames.detach().cpu() if hasattr(frames, "detach") else frames)
        if len(frames.shape) != 3:
            raise StimulusError(
                f"A film has the shape (n_frames, height, width), got {tuple(frames.shape)}. Colours are made grey, "
                "and sizes and rates changed, with berg.convert_film(frames, frame_rate=25)."
            )
        self.frames = frames
        self.shape: tuple[int, ...] = tuple(map(int, frames.shape))
        self.eye_position = _of_each_frame("eye_position", eye_position, len(self))
        self.behaviour = _of_each_frame("behaviour", behaviour, len(self))

    @property
    def files(self) -> list[Path]:
        """What it is read from; nothing, if it is an array."""
        return list(getattr(self.frames, "files", []))

    @property
    def read_as(self) -> str:
        """What is done to the frames, and whether eye or behaviour are given."""
        given = [name for name in ("eye_position", "behaviour") if getattr(self, name) is not None]
        return ", ".join([getattr(self.frames, "read_as", "frames of a film"), *given])

    @property
    def names(self) -> list[int]:
        """The numbers of the frames."""
        return list(range(len(self)))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: slice) -> NDArray[Any]:
        """Some frames, shape (n, height, width)."""
        return np.asarray(self.frames[places])

    def observed(self, places: slice) -> NDArray[np.float32] | None:
        """Eye position and behaviour at some frames, shape (n, 4); None if neither was given."""
        if self.eye_position is None and self.behaviour is None:
            return None
        nothing = np.zeros((len(self), 2), np.float32)
        both = [nothing if each is None else each for each in (self.eye_position, self.behaviour)]
        return np.concatenate([each[places] for each in both], axis=1)


def _of_each_frame(name: str, values: ArrayLike | None, n_frames: int) -> NDArray[np.float32] | None:
    if values is None:
        return None
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"{name} must be numbers of shape ({n_frames}, 2): {error}.") from error
    if array.shape not in ((n_frames, 2), (2,)) or not np.isfinite(array).all():
        what = f"shape {array.shape}" if array.shape not in ((n_frames, 2), (2,)) else "NaN or infinite values"
        raise InvalidParameterError(
            f"{name} has {what}; this film of {n_frames} frames takes finite numbers of shape ({n_frames}, 2), or (2,) "
            "for the same at all frames."
        )
    return np.ascontiguousarray(np.broadcast_to(array, (n_frames, 2)))


def load_film(
    path: Path | str,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    frame_rate: float = RATE,
    fit: FIT = "center_crop",
    *,
    eye_position: ArrayLike | None = None,
    behaviour: ArrayLike | None = None,
) -> Film:
    """A video file as a film that a model takes: grey, of its size, at its rate; decoded when it is read.

    At each time of the film the frame is taken that the video shows then. Colours become grey as
    0.299 R + 0.587 G + 0.114 B; sizes are changed with PIL, bilinear and antialiased.

    Parameters
    ----------
    size
        Height and width in pixels.
    frame_rate
        Frames per second of the film.
    fit
        How a video of other proportions is brought to `size`: ``center_crop``, ``squash``, or ``pad`` with mid-grey.
    eye_position, behaviour
        As of `Film`, one per frame of the film.

    Raises
    ------
    MissingExtraError, MissingFileError, StimulusError
        As of `berg.load_video`.

    Examples
    --------
    >>> film = load_film("clip.mp4")  # doctest: +SKIP
    >>> film.shape  # doctest: +SKIP
    (300, 144, 256)
    """
    return Film(_Converted(VideoFrames(path), size, frame_rate, fit), eye_position, behaviour)


def convert_film(
    frames: Any,
    frame_rate: float,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    to_rate: float = RATE,
    fit: FIT = "center_crop",
) -> NDArray[np.uint8]:
    """The frames of an array as a film that a model takes: grey, of its size, at its rate.

    Parameters
    ----------
    frames
        One film, shape (n_frames, height, width), (n_frames, 3, height, width) or (n_frames, height, width, 3),
        integers in [0, 255].
    frame_rate
        Frames per second of `frames`.
    size, to_rate, fit
        As ``size``, ``frame_rate`` and ``fit`` of `load_film`.

    Returns
    -------
    film
        uint8, shape (round(n_frames * to_rate / frame_rate), height, width).

    Examples
    --------
    >>> convert_film(np.zeros((50, 3, 72, 128), "uint8"), frame_rate=25).shape
    (60, 144, 256)
    """
    rates = (("frame_rate", frame_rate), ("to_rate", to_rate))
    for name, rate in rates:
        _check_rate(name, rate)
    array = _ArrayFrames(frames, frame_rate)
    return _Converted(array, size, to_rate, fit)[:]


def _check_rate(name: str, rate: Any) -> None:
    is_number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    if not is_number or not 0 < rate <= 1000:
        raise InvalidParameterError(f"{name} must be frames per second, up to 1,000, got {rate!r:.60}. For example 25.")


class _ArrayFrames:
    """Frames in an array, as `VideoFrames` gives those of a file: colours first."""

    read_as = "an array"

    def __init__(self, frames: Any, frame_rate: float) -> None:
        array = frames if is_dataset(frames) else np.asarray(frames)
        shape = tuple(array.shape)
        is_grey, is_first = len(shape) == 3, len(shape) == 4 and shape[1] == 3
        if not (is_grey or is_first or (len(shape) == 4 and shape[3] == 3)) or 0 in shape:
            raise StimulusError(
                f"The film has shape {shape}; allowed are (n_frames, height, width), (n_frames, 3, height, width) and "
                "(n_frames, height, width, 3). Convert several films one by one."
            )
        if np.dtype(array.dtype).kind not in "iu":
            raise StimulusError(
                f"The film is {array.dtype}, and must be integers in [0, 255]. Of numbers in [0, 1]: "
                '(255 * frames).round().astype("uint8").'
            )
        self.array, self.is_last = array, not (is_grey or is_first)
        self.times = np.arange(shape[0]) / frame_rate
        self.last_for = 1 / frame_rate

    def __getitem__(self, places: slice) -> NDArray[np.uint8]:
        frames = np.asarray(self.array[places])
        if frames.dtype != np.uint8:
            if frames.min(initial=0) < 0 or frames.max(initial=0) > 255:
                raise StimulusError(
                    f"The film has values in [{frames.min()}, {frames.max()}]; allowed are integers in [0, 255]."
                )
            frames = frames.astype(np.uint8)
        return frames.transpose(0, 3, 1, 2) if self.is_last else frames


class _Converted:
    """Frames of a video at other times, grey and of one size; each is made when it is read."""

    dtype = np.dtype(np.uint8)

    def __init__(self, video: Any, size: tuple[int, int], frame_rate: float, fit: FIT) -> None:
        check_sizing(1, fit)
        _check_rate("frame_rate", frame_rate)
        if np.shape(size) != (2,) or not all(isinstance(n, (int, np.integer)) and n > 0 for n in size):
            raise InvalidParameterError(f"size must be height and width in pixels, such as (144, 256), got {size!r}.")
        self.video, self.size, self.fit = video, (int(size[0]), int(size[1])), fit
        self.sources = frames_at(video.times, frame_rate, getattr(video, "last_for", None))
        self.shape = (len(self.sources), *self.size)
        self.read_as = f"{video.read_as}; grey, {self.size[0]} x {self.size[1]}, {frame_rate:g} per second, {fit}"

    @property
    def files(self) -> list[Path]:
        """What it is read from."""
        return list(getattr(self.video, "files", []))

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, places: slice) -> NDArray[np.uint8]:
        chosen = self.sources[places]
        frames = np.empty((len(chosen), *self.size), np.uint8)
        for row, source in enumerate(chosen):
            if row and source == chosen[row - 1]:
                frames[row] = frames[row - 1]
            else:
                frames[row] = _fitted(grey(self.video[int(source) : int(source) + 1][0]), self.size, self.fit)
        return frames


def frames_at(times: NDArray[np.float64], frame_rate: float, last_for: float | None = None) -> NDArray[np.intp]:
    """The frames that are shown at the times of a film of another rate.

    Parameters
    ----------
    times
        When each frame is shown, in seconds from the first.
    last_for
        How long the last frame is shown; None: as long as the frames before it, on average.

    >>> frames_at(np.arange(4) / 15, 30).tolist()
    [0, 0, 1, 1, 2, 2, 3, 3]
    """
    seconds = times - times[0]
    if last_for is None:
        last_for = seconds[-1] / (len(seconds) - 1) if len(seconds) > 1 else 1 / frame_rate
    n_frames = max(1, int(np.ceil((seconds[-1] + last_for) * frame_rate - 0.05)))
    shown_at = np.arange(n_frames) / frame_rate
    return np.searchsorted(seconds, shown_at + min(_ROUNDING, last_for / 10), side="right") - 1


def grey(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame without colours: 0.299 R + 0.587 G + 0.114 B, shape (height, width); a grey one as it is."""
    if frame.ndim == 2:
        return frame
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).convert("L"))


def _fitted(frame: NDArray[np.uint8], size: tuple[int, int], fit: FIT) -> NDArray[np.uint8]:
    if frame.shape == size:
        return frame
    picture, target = Image.fromarray(np.ascontiguousarray(frame)), size[::-1]
    if fit == "center_crop":
        return np.asarray(ImageOps.fit(picture, target, Image.Resampling.BILINEAR))
    if fit == "pad":
        return np.asarray(ImageOps.pad(picture, target, Image.Resampling.BILINEAR, color=128))
    return np.asarray(picture.resize(target, Image.Resampling.BILINEAR))


class _GreyVideo:
    """The frames of a video file that has the right size and rate, grey."""

    dtype = np.dtype(np.uint8)

    def __init__(self, video: VideoFrames, expected: StimulusInput) -> None:
        _check_rate_of(video, expected)
        self.video, self.files, self.read_as = video, video.files, f"{video.read_as}; grey"
        self.shape = (video.shape[0], *video.shape[2:])

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, places: slice) -> NDArray[np.uint8]:
        frames = self.video[places]
        return np.stack([grey(frame) for frame in frames]) if len(frames) else np.empty((0, *self.shape[1:]), np.uint8)


def _check_rate_of(video: VideoFrames, expected: StimulusInput) -> None:
    """Raise StimulusError, which says how to convert it, for a video of another size or rate."""
    size, rate = _size(expected), float(expected.frame_rate or RATE)
    seconds = video.times - video.times[0]
    found = (len(seconds) - 1) / seconds[-1] if len(seconds) > 1 else rate
    margin = rate * (_SAME_RATE + _ROUNDING / 2 / max(seconds[-1], 1 / rate))
    is_even = float(np.abs(seconds - np.arange(len(seconds)) / found).max()) < 0.5 / rate
    if tuple(video.shape[2:]) == size and abs(found - rate) <= margin and is_even:
        return
    even = "" if is_even else ", unevenly"
    height, width = video.shape[2:]
    raise StimulusError(
        f"{video.path} has frames of {height} x {width} pixels (height x width), {found:.4g} per second{even}; this "
        f"model takes {size[0]} x {size[1]}, {rate:g} per second. Give berg.load_film({str(video.path)!r}), which "
        f"converts it, or write a file that fits:  ffmpeg -i {video.path.name} -vf "
        f'"scale={size[1]}:{size[0]}:force_original_aspect_ratio=increase,crop={size[1]}:{size[0]},fps={rate:g}" '
        "-crf 10 converted.mp4"
    )


def _size(expected: StimulusInput) -> tuple[int, int]:
    sizes = expected.shape
    if isinstance(sizes, str) or not all(isinstance(size, int) for size in sizes[-2:]):
        raise StimulusError("The card does not say which size the frames of a film have (input.shape).")
    return int(sizes[-2]), int(sizes[-1])


def as_one_film(stimulus: Any, expected: StimulusInput) -> Any:
    """A file that is one film, or frames of a video, as a `Film`; anything else as it is."""
    if expected.frame_rate is None:
        return stimulus
    if isinstance(stimulus, (str, Path)) and not Path(stimulus).is_dir():
        return Film(_GreyVideo(VideoFrames(stimulus), expected))
    return Film(_GreyVideo(stimulus, expected)) if isinstance(stimulus, VideoFrames) else stimulus


def with_observer(stimulus: Any, eye_position: Any, behaviour: Any, expected: StimulusInput) -> Any:
    """A film, or several, with eye position and behaviour: of several films, one each, first axis the films."""
    stimulus = as_one_film(stimulus, expected)
    if (eye_position is None and behaviour is None) or expected.frame_rate is None:
        if eye_position is not None or behaviour is not None:
            raise InvalidParameterError(
                "eye_position and behaviour belong to models that take films, frame by frame, such as that of the "
                "mouse; leave them out."
            )
        return stimulus
    is_list = isinstance(stimulus, (list, tuple)) or len(getattr(stimulus, "shape", ())) == 4
    if not is_list and not isinstance(stimulus, (str, Path)):
        return Film(stimulus, eye_position, behaviour)
    films = video_files([stimulus]) if isinstance(stimulus, (str, Path)) else list(stimulus)
    given = {name: _of_each_film(name, each, films) for name, each in
             (("eye_position", eye_position), ("behaviour", behaviour))}  # fmt: skip
    return [
        Film(as_one_film(film, expected), given["eye_position"][number], given["behaviour"][number])
        for number, film in enumerate(films)
    ]


def _of_each_film(name: str, values: Any, films: Sequence[Any]) -> Sequence[Any]:
    if values is None or np.ndim(values) == 1:
        return [values] * len(films)
    if len(values) != len(films):
        raise InvalidParameterError(
            f"{name} is for {len(values)} films, and there are {len(films)}. Give an array (n_films, n_frames, 2), a "
            "list with one for each, or two numbers for all."
        )
    return list(values)


def open_films(stimulus: Any, expected: StimulusInput, check_files: bool) -> OneFilm | Films | FilmArray:
    """One film, whose stimuli are its frames, or several films of one length; see `berg.stimuli.open.open_stimuli`."""
    stimulus = as_one_film(stimulus, expected)
    if isinstance(stimulus, (str, Path)):  # a folder
        stimulus = video_files([stimulus])
    if isinstance(stimulus, Film):
        return OneFilm(stimulus, expected)
    if isinstance(stimulus, (list, tuple)) and len(stimulus) and all(map(_is_film, stimulus)):
        if check_files:
            check_links(film for film in stimulus if isinstance(film, (str, Path)))
        return Films(stimulus, expected)
    array = stimulus if is_dataset(stimulus) else as_array(stimulus, expected)
    if len(array.shape) == 3:
        return OneFilm(Film(array), expected)
    return FilmArray(array, expected)


def _is_film(item: Any) -> bool:
    return isinstance(item, (str, Path, VideoFrames, Film)) or len(getattr(item, "shape", ())) == 3


class OneFilm:
    """One film, whose frames are the stimuli; they are encoded in order."""

    is_one_film = True

    def __init__(self, film: Film, expected: StimulusInput) -> None:
        _check_frames(film.shape, expected)
        self.film, self.expected = film, expected
        is_observed = film.observed(slice(0, 1)) is not None
        self.shape: tuple[int, ...] = (film.shape[1] + is_observed, film.shape[2])
        in_memory = isinstance(film.frames, np.ndarray) and not isinstance(film.frames, np.memmap)
        check_stimulus((film.frames if in_memory else film[:1])[None], expected)

    def __len__(self) -> int:
        return len(self.film)

    def read(self, indices: slice) -> NDArray[Any]:
        """Some frames, shape (n, height, width), or one row more with what the animal did."""
        release_pages(self.film.frames)
        frames = as_expected(check_stimulus(self.film[indices][None], self.expected)[0], self.expected)
        return with_row(frames, self.film.observed(indices))


def with_row(frames: NDArray[Any], observed: NDArray[np.float32] | None) -> NDArray[Any]:
    """Frames with one more row, whose first 16 bytes are four float32: eye position (2) and behaviour (2)."""
    if observed is None:
        return frames
    whole = np.zeros((len(frames), frames.shape[1] + 1, frames.shape[2]), np.uint8)
    whole[:, :-1] = frames
    whole[:, -1, :16] = np.ascontiguousarray(observed, np.float32).view(np.uint8)
    return whole


class Films:
    """Several films of one length, in files or in memory, each of them one stimulus."""

    def __init__(self, films: Sequence[Any], expected: StimulusInput) -> None:
        self.films, self.expected, self.are_files = films, expected, True
        first = self._film(0)
        _check_frames(first.shape, expected)
        self.is_observed = any(isinstance(f, Film) and f.observed(slice(0, 1)) is not None for f in films)
        self.shape: tuple[int, ...] = (len(first), first.shape[1] + self.is_observed, first.shape[2])

    def __len__(self) -> int:
        return len(self.films)

    def read(self, indices: slice) -> NDArray[Any]:
        """Some films, shape (n, n_frames, height, width)."""
        return np.stack([self._read_one(number) for number in range(*indices.indices(len(self)))])

    def _read_one(self, number: int) -> NDArray[Any]:
        film = self._film(number)
        if len(film) != self.shape[0]:
            raise StimulusError(
                f"Film {number} has {len(film):,} frames, film 0 has {self.shape[0]:,}. Films of different lengths are "
                "encoded one by one: for film in films: berg.encode(model, film)."
            )
        _check_frames(film.shape, self.expected)
        frames = as_expected(check_stimulus(film[:][None], self.expected)[0], self.expected)
        observed = film.observed(ALL) if self.is_observed else None
        return with_row(
            frames, np.zeros((len(film), 4), np.float32) if self.is_observed and observed is None else observed
        )

    def _film(self, number: int) -> Film:
        film = as_one_film(self.films[number], self.expected)
        return film if isinstance(film, Film) else Film(film)


class FilmArray:
    """Films in an array in memory or on disk, shape (n_films, n_frames, height, width)."""

    def __init__(self, array: Any, expected: StimulusInput) -> None:
        self.array, self.expected = array, expected
        shape = tuple(array.shape)
        if len(shape) == 4:
            _check_frames(shape[1:], expected)
        elif len(shape) == 5:
            _check_frames(shape[2:], expected)
        in_memory = not is_dataset(array)
        check_stimulus(array if in_memory or not shape else array[:1], expected)
        self.shape: tuple[int, ...] = shape[1:]

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def read(self, indices: slice) -> NDArray[Any]:
        """Some films."""
        release_pages(self.array)
        return as_expected(check_stimulus(np.asarray(self.array[indices]), self.expected), self.expected)


def _check_frames(shape: tuple[int, ...], expected: StimulusInput) -> None:
    """Raise StimulusError, which says how to convert them, for frames of another size."""
    size = _size(expected)
    if tuple(shape[-2:]) == size and len(shape) == 3 and 0 not in shape:
        return
    if 0 in shape:
        raise StimulusError(f"The film is empty: shape {shape}. Give at least one frame.")
    colours = " and three colours" if 3 in (shape[0], shape[-1]) else ""
    raise StimulusError(
        f"The frames of the film have the shape {shape[1:]}{colours}; this model takes grey frames of "
        f"{size[0]} x {size[1]} pixels (height x width), {expected.frame_rate} per second. Convert it: "
        "berg.convert_film(frames, frame_rate=25), with the rate that it has now, or from a file: berg.load_film(FILE)."
    )
