"""Videos as stimuli, each one stimulus: of every one the same number of frames is taken, evenly spaced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import InvalidParameterError, StimulusError, listing
from berg.stimuli.checks import as_array, as_expected, check_stimulus, is_dataset
from berg.stimuli.films import FilmArray, Films, OneFilm, open_films
from berg.stimuli.stimulus_files import check_links
from berg.stimuli.video_files import ENDINGS as ENDINGS
from berg.stimuli.video_files import video_files as video_files
from berg.stimuli.videos import VideoFrames
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


class Clips:
    """Video files, or some frames of them (`berg.load_video`), all of one size; decoded is only what is taken."""

    def __init__(self, clips: Sequence[Any], expected: StimulusInput) -> None:
        if expected.n_frames is None:
            raise StimulusError("The card does not say how many frames are taken of a video (input.n_frames).")
        self.clips, self.expected, self.n_frames = clips, expected, expected.n_frames
        self.are_files = True  # several may be read at a time
        self.shape = check_stimulus(self._read_one(0)[None], expected).shape[1:]

    def __len__(self) -> int:
        return len(self.clips)

    def read(self, indices: slice) -> NDArray[Any]:
        """The taken frames of some videos."""
        clips = [self._read_one(index) for index in range(*indices.indices(len(self)))]
        for index, clip in enumerate(clips, start=indices.start):
            if clip.shape != self.shape:
                raise StimulusError(
                    f"Video {index:,} is {clip.shape[3]} x {clip.shape[2]} pixels, the first is {self.shape[3]} x "
                    f"{self.shape[2]}. Encode videos of each size in a call of their own, as a list of files."
                )
        return as_expected(np.stack(clips), self.expected)

    def _read_one(self, index: int) -> NDArray[np.uint8]:
        clip = self.clips[index]
        video = clip if isinstance(clip, VideoFrames) else VideoFrames(clip)
        try:
            frames = frame_indices(len(video), self.n_frames)
        except StimulusError as error:
            raise StimulusError(f"{video.path}: {error}") from error
        return np.concatenate([video[frame : frame + 1] for frame in frames])
