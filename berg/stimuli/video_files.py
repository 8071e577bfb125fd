"""Which files are videos."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from berg.stimuli.stimulus_files import stimulus_files

ENDINGS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"}


def video_files(places: Iterable[Path | str], recursive: bool = False) -> list[Path]:
    """The videos among files and folders; a folder stands for its videos, sorted by name.

    See `berg.stimuli.stimulus_files.stimulus_files`, also for what it raises and warns of.
    """
    return stimulus_files(places, ENDINGS, "video", recursive)
