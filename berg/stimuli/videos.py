"""Frames of a video as stimuli, decoded when they are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from berg.core.exceptions import InvalidParameterError, MissingExtraError, MissingFileError, StimulusError
from berg.core.regular_file import check_regular_file
from berg.stimuli.images import FIT, check_sizing, sized

if TYPE_CHECKING:
    import av

ALL = slice(None)

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,asf,ogg,gif,apng,mxf,"
    "nut,dv,rm,yuv4mpegpipe"
)
"""What a video file may be, by FFmpeg's names and whatever its own. FFmpeg knows others that read other files or the
network: a list of files (concat) called ``clip.mp4`` would show them."""


def load_video(path: Path | str, size: int | None = None, fit: FIT = "center_crop", places: slice = ALL) -> VideoFrames:
    """The frames of a video, as models take pictures; see `VideoFrames`, which has the same parameters.

    Examples
    --------
    >>> from berg import BERG, load_video
    >>> video = load_video("clip.mp4", size=224)  # doctest: +SKIP
    >>> responses = BERG().encode("fmri-szinte2024-prf_css", video, out="clip.zarr")  # doctest: +SKIP
    >>> responses.sel(stimulus=slice(2.0, 3.0))  # seconds  # doctest: +SKIP
    """
    return VideoFrames(path, size, fit, places)


class VideoFrames:
    """The frames of a video: an array that decodes what is asked for, and holds nothing.

    Frames are turned upright as the file says; their pixels are taken for square, and colours become RGB as
    FFmpeg does it. Any of `CONTAINERS` will do. The first video in the file is taken, sound is not.

    Parameters
    ----------
    path
        The file.
    size, fit
        As in `load_images`; frames of one video have one size already, so None leaves them as they are.
    places
        Some of the frames: ``slice(0, 1000)``, or ``slice(None, None, 5)`` for every fifth.

    Attributes
    ----------
    shape
        (n_frames, 3, height, width)
    dtype
        uint8
    times
        Shape (n_frames,): when each frame is shown, in seconds after the first of the video. The responses have
        them as the coordinate ``stimulus``.

    Raises
    ------
    MissingExtraError
        Without PyAV.
    MissingFileError, StimulusError
        For a file that is not there, or is no video.

    Examples
    --------
    >>> video = VideoFrames("clip.mp4", places=slice(0, 250))  # doctest: +SKIP
    >>> video[10:12].shape  # doctest: +SKIP
    (2, 3, 720, 1280)
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self, path: Path | str, size: int | None = None, fit: FIT = "center_crop", places: slice = ALL
    ) -> None:
        check_sizing(size, fit)
        self.path, self.size, self.fit = Path(path), size, fit
        if not self.path.is_file():
            check_regular_file(path)
            raise MissingFileError(f"There is no file {path}.")
        self._reader = _Reader(self.path)
        seconds = (self._reader.stamps - self._reader.stamps[0]) * self._reader.tick
        self._places = np.arange(len(seconds))[places]
        if not len(self._places):
            raise InvalidParameterError(f"There is no frame at {places} of the {len(seconds):,} of {path}.")
        self.times: NDArray[np.float64] = seconds[self._places]
        self.shape = (len(self._places), 3, *self._picture(self._reader.first()).shape[:2])

    @property
    def files(self) -> list[Path]:
        """What it is read from."""
        return [self.path]

    @property
    def names(self) -> list[float]:
        """The times of the frames, in seconds."""
        found: list[float] = self.times.tolist()
        return found

    @property
    def read_as(self) -> str:
        """Which frames, and what is done to them."""
        first, last = self._places[0], self._places[-1]
        return f"frames {first} to {last}, size {self.size or 'as it is'}, {self.fit}"

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, places: slice) -> NDArray[np.uint8]:
        """The frames at these indices, shape (n, 3, height, width).

        Raises
        ------
        StimulusError
            For a frame that cannot be decoded.
        """
        if not isinstance(places, slice):
            raise InvalidParameterError(f"Frames are read by slices, got {places!r:.60}. Try video[3:4].")
        chosen = self._places[places]
        frames = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for row, place in enumerate(chosen):
            picture = self._picture(self._reader.frame(int(place)))
            if picture.shape[:2] != self.shape[2:]:
                raise StimulusError(f"The frames of {self.path} have different sizes. Bring them to one with size=224.")
            frames[row] = picture.transpose(2, 0, 1)
        return frames

    def _picture(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return frame if self.size is None else sized(Image.fromarray(frame), self.size, self.fit)


@dataclass(frozen=True)
class VideoFacts:
    """Size of the frames in pixels, their number, and the seconds from the first to the last."""

    width: int
    height: int
    n_frames: int
    seconds: float


def video_facts(path: Path | str) -> VideoFacts:
    """What a video file says of itself; no frame is decoded.

    Raises
    ------
    MissingExtraError, StimulusError
        As `load_video`.
    """
    stamps, _, tick = _stamps(Path(path))
    with _errors(Path(path)), _opened(Path(path)) as opened:
        context = opened.streams.video[0].codec_context
        return VideoFacts(context.width, context.height, len(stamps), float(stamps[-1] - stamps[0]) * tick)


class _Reader:
    """A file, and where in it the decoder stands; one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.Lock()
        self.stamps, self.key_stamps, self.tick = _stamps(path)
        self.opened: av.container.InputContainer | None = None
        self.decoded: Iterator[av.VideoFrame] = iter(())
        self.next = -1  # the index of the frame that the decoder gives next; -1 if nobody knows

    def first(self) -> NDArray[np.uint8]:
        """The first frame that can be decoded."""
        with self.lock, _errors(self.path):
            self._seek(None)
            frame = next(self.decoded, None)
            self.next = -1
            if frame is None:
                raise StimulusError(f"{self.path} has no frame that can be decoded.")
            return _upright(frame)

    def frame(self, place: int) -> NDArray[np.uint8]:
        """One frame, as RGB, shape (height, width, 3)."""
        stamp = int(self.stamps[place])
        with self.lock, _errors(self.path):
            found = self._decode_to(stamp) if self._is_ahead(place) else None
            for start in (stamp, None) if found is None else ():  # not in every file can be sought
                self._seek(start)
                if (found := self._decode_to(stamp)) is not None:
                    break
            self.next = place + 1 if found is not None else -1
        if found is None:
            seconds = (stamp - self.stamps[0]) * self.tick
            raise StimulusError(f"Frame {place:,} of {self.path}, at {seconds:.3f} s, cannot be decoded.")
        return found

    def _is_ahead(self, place: int) -> bool:
        """Whether decoding on is the shortest way to a frame."""
        if not 0 <= self.next <= place:
            return False
        between = np.searchsorted(self.key_stamps, self.stamps[[self.next, place]], side="right")
        return bool(between[0] == between[1])

    def _seek(self, stamp: int | None) -> None:
        """Let the decoder begin at the key frame before a frame, or anew."""
        if self.opened is None or stamp is None:
            self.opened = _opened(self.path)
            self.opened.streams.video[0].thread_type = "AUTO"
        video = self.opened.streams.video[0]
        if stamp is not None:
            self.opened.seek(stamp, stream=video)
        self.decoded = self.opened.decode(video)

    def _decode_to(self, stamp: int) -> NDArray[np.uint8] | None:
        for frame in self.decoded:
            if frame.pts is not None and frame.pts >= stamp:
                return _upright(frame) if frame.pts == stamp else None
        return None


def video_size(path: Path | str) -> tuple[int, int]:
    """Height and width of a video, upright; its first frame is decoded.

    Raises
    ------
    StimulusError
        If it is no video.
    """
    check_regular_file(path)
    with _errors(Path(path)), _opened(Path(path)) as opened:
        if not opened.streams.video:
            raise StimulusError(f"{path} holds no video.")
        first = next(opened.decode(opened.streams.video[0]), None)
        if first is None:
            raise StimulusError(f"{path} has no frame that can be decoded.")
        height, width = int(first.height), int(first.width)
        return (width, height) if round(first.rotation / 90) % 2 else (height, width)


def _stamps(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """When each frame and each key frame is shown, in ticks, in order, and how long a tick is in seconds.

    Only the packets are read: a film of an hour takes seconds.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('Videos need PyAV, which is not installed. Type:  pip install "berg[video]"') from error
    with _errors(path), _opened(path) as opened:
        if not opened.streams.video:
            raise StimulusError(f"{path} holds no video.")
        video = opened.streams.video[0]
        shown = [packet for packet in opened.demux(video) if packet.size and not packet.is_discard]
        stamps = {packet.pts: packet.is_keyframe for packet in shown}
        if not stamps or None in stamps or video.time_base is None:
            raise StimulusError(
                f"{path} does not tell when its frames are shown. Convert it:  ffmpeg -i {path.name} {path.stem}.mp4"
            )
        keys = [stamp for stamp, is_key in stamps.items() if is_key]
        return np.sort(list(stamps)), np.sort(np.array(keys, np.int64)), float(video.time_base)


def _opened(path: Path) -> av.container.InputContainer:
    """A video file, of which FFmpeg reads nothing but that file."""
    import av

    only = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
    return av.open(f"file:{path}", options=only)  # without file: a name with a colon would be an address


def _upright(frame: Any) -> NDArray[np.uint8]:
    rgb = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return np.rot90(rgb, round(frame.rotation / 90))


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    import av

    try:
        yield
    except av.FFmpegError as error:
        raise StimulusError(f"{path} is not a video that can be read: {error}.") from error
