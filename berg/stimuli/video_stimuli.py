"""Videos as stimuli, each one stimulus: of every one the same number of frames is taken, evenly spaced."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import BERGError, InvalidParameterError, StimulusError, listing
from berg.stimuli.checks import as_array, as_expected, check_stimulus, is_dataset
from berg.stimuli.films import FilmArray, Films, OneFilm, open_films
from berg.stimuli.stimulus_files import check_links
from berg.stimuli.video_files import ENDINGS as ENDINGS
from berg.stimuli.video_files import video_files as video_files
from berg.stimuli.videos import VideoFrames, video_size
from berg.system.memory import release_pages


def open_videos(
    stimulus: Any, expected: StimulusInput, sampling_rate: Any, check_files: bool
) -> VideoArray | Clips | OneFilm | Films | FilmArray:
    """Videos in files, of `berg.load_video`, or in an array; see `berg.stimuli.open.open_stimuli`."""
    if sampling_rate is not None:
        raise InvalidParameterError("This model takes no sounds; leave sampling_rate out.")
    if expected.frame_rate is not None:
        return open_films(stimulus, expected, check_files)
    clips = [stimulus] if _is_clip(stimulus) else stimulus
    if isinstance(clips, Sequence) and len(clips) and all(map(_is_clip, clips)):
        are_files = not any(isinstance(clip, VideoFrames) for clip in clips)
        listed = video_files(clips) if are_files else clips
        if check_files:
            check_links(clip for clip in listed if not isinstance(clip, VideoFrames))
        return Clips(listed, expected)
    return VideoArray(stimulus if is_dataset(stimulus) else as_array(stimulus, expected), expected)


def read_videos(files: Sequence[Path | str]) -> NDArray[np.uint8]:
    """Videos with all of their frames, shape (n_videos, n_frames, 3, height, width).

    Raises
    ------
    StimulusError
        For a damaged file, and if they differ in size or number of frames.
    """
    videos = [VideoFrames(file) for file in files]
    if len(shapes := {video.shape for video in videos}) > 1:
        raise StimulusError(
            f"The videos differ in size or number of frames ({listing(sorted(shapes))}: frames, 3, height, width). "
            "Bring them to one."
        )
    return np.stack([video[:] for video in videos])


def frame_indices(n_frames: int, n_taken: int) -> NDArray[np.intp]:
    """Which frames of a video are taken: evenly spaced from the first to the last, rounded down.

    >>> frame_indices(90, 14).tolist()
    [0, 6, 13, 20, 27, 34, 41, 47, 54, 61, 68, 75, 82, 89]

    Raises
    ------
    StimulusError
        If the video has fewer.
    """
    if n_frames < n_taken:
        raise StimulusError(
            f"A video of {n_frames} frames is too short: this model takes {n_taken} of each, evenly. Give longer "
            f"videos, or repeat their last frame: np.concatenate([videos, videos[:, -1:].repeat("
            f"{n_taken - n_frames}, axis=1)], axis=1)"
        )
    return np.linspace(0, n_frames - 1, n_taken, dtype=int)


def _is_clip(item: Any) -> bool:
    return isinstance(item, (str, Path, VideoFrames))


class VideoArray:
    """An array in memory or on disk, shape (n_videos, n_frames, 3, height, width)."""

    def __init__(self, array: Any, expected: StimulusInput) -> None:
        self.array, self.expected = array, expected
        in_memory = not is_dataset(array)
        # What is on the disk is checked when it is read; its shape and dtype are at once.
        check_stimulus(array if in_memory or not len(array.shape) else array[:1], expected)
        n_frames = array.shape[1]
        self.frames = frame_indices(n_frames, expected.n_frames or n_frames)
        self.shape = (len(self.frames), *array.shape[2:])

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def read(self, indices: slice) -> NDArray[Any]:
        """The taken frames of some videos."""
        release_pages(self.array)
        taken = np.asarray(self.array[indices][:, self.frames])
        return as_expected(check_stimulus(taken, self.expected), self.expected)


SIZE_CHANNEL = 3
"""The channel that says how large a video is, in an array of videos of several sizes; see `padded`."""


def padded(clips: Sequence[NDArray[np.uint8]], height: int, width: int) -> NDArray[np.uint8]:
    """Videos of several sizes as one array, each in its upper left corner.

    Returns
    -------
    array
        Shape (n_videos, n_frames, 4, height, width); the fourth channel begins with the height and the width of the
        video, two bytes each. `berg.features.video_transforms` brings each of them to the size of the network.
    """
    array = np.zeros((len(clips), len(clips[0]), SIZE_CHANNEL + 1, height, width), np.uint8)
    for whole, clip in zip(array, clips, strict=True):
        whole[:, :SIZE_CHANNEL, : clip.shape[2], : clip.shape[3]] = clip
        whole[0, SIZE_CHANNEL].reshape(-1)[:4] = np.array(clip.shape[2:], "<u2").view(np.uint8)
    return array


class Clips:
    """Video files, or some frames of them (`berg.load_video`); decoded is only what is taken.

    If they are of several sizes, they are read as `padded` says.
    """

    def __init__(self, clips: Sequence[Any], expected: StimulusInput) -> None:
        if expected.n_frames is None:
            raise StimulusError("The card does not say how many frames are taken of a video (input.n_frames).")
        self.clips, self.expected, self.n_frames = clips, expected, expected.n_frames
        self.are_files = True  # several may be read at a time
        first = check_stimulus(self._read_one(0)[None], expected).shape[1:]
        sizes = {first[-2:], *_sizes(clips)}
        self.are_padded = len(sizes) > 1
        largest = tuple(max(size[axis] for size in sizes) for axis in (0, 1))
        self.shape = (first[0], SIZE_CHANNEL + 1, *largest) if self.are_padded else first

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, indices: slice) -> NDArray[Any]:
        """The taken frames of some videos."""
        clips = [self._read_one(index) for index in range(*indices.indices(len(self)))]
        if self.are_padded:
            for clip in clips:
                check_stimulus(clip[None], self.expected)
            return padded(clips, *self.shape[2:])
        return as_expected(np.stack(clips), self.expected)

    def _read_one(self, index: int) -> NDArray[np.uint8]:
        clip = self.clips[index]
        video = clip if isinstance(clip, VideoFrames) else VideoFrames(clip)
        try:
            frames = frame_indices(len(video), self.n_frames)
        except StimulusError as error:
            raise StimulusError(f"{video.path}: {error}") from error
        return np.concatenate([video[frame : frame + 1] for frame in frames])


def _sizes(clips: Sequence[Any]) -> set[tuple[int, int]]:
    """Heights and widths of videos; a file that cannot be opened is told of when it is read."""
    with ThreadPoolExecutor(8) as readers:
        found = readers.map(_size_or_none, clips)
        return {size for size in found if size is not None}


def _size_or_none(clip: Any) -> tuple[int, int] | None:
    if isinstance(clip, VideoFrames):
        return clip.shape[2], clip.shape[3]
    try:
        return video_size(clip)
    except (BERGError, OSError):
        return None
