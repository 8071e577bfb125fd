"""Recordings of events in time, run by run: words with their times, and a response for each volume.

A volume is a stimulus of the dataset: its number in the run, and the hash of what happened in the run. So whatever
speaks of stimuli holds for volumes: splits, folds, missing responses, groups (the runs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, did_you_mean, listing
from berg.datasets.splits import SPLITS, Indices
from berg.stimuli.text_files import load_words
from berg.stimuli.text_stimuli import TextStimuli
from berg.stimuli.texts import Words


@dataclass(frozen=True)
class Run:
    """What happened in a run.

    Attributes
    ----------
    name
        Such as that of a story.
    words
        With onsets in seconds from the first volume; negative for what came before it.
    n_volumes
        How many were recorded.
    """

    name: str
    words: Words
    n_volumes: int


class RunVolumes:
    """The volumes of all runs, one run after another, as an array of numbers and hashes.

    Parameters
    ----------
    runs
        In the order of the responses.
    """

    dtype = np.dtype(np.int64)

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = tuple(runs)
        parts = [TextStimuli(run.words, run.n_volumes) for run in runs]
        self.rows = np.concatenate([part.read(slice(None)) for part in parts])
        self.texts = parts  # a language model finds the words by their hash as long as they are held

    @property
    def shape(self) -> tuple[int, int]:
        """Volumes of all runs, and 2: number in the run, hash of the words."""
        return len(self.rows), 2

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Any) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.rows[places]
        return found

    @property
    def names(self) -> list[str]:
        """Such as ``story 12``: the run, and the number of the volume from 0."""
        return [f"{run.name} {volume}" for run in self.runs for volume in range(run.n_volumes)]

    @property
    def run_of(self) -> Indices:
        """The number of the run of each volume."""
        return np.repeat(np.arange(len(self.runs)), [run.n_volumes for run in self.runs])

    def kept(self, trimmed: tuple[int, int]) -> Indices:
        """The volumes that are left when some are trimmed at the start and at the end of each run."""
        lengths = [run.n_volumes for run in self.runs]
        place = self.rows[:, 0]
        return np.flatnonzero((place >= trimmed[0]) & (place < np.repeat(lengths, lengths) - trimmed[1]))


def event_run(name: str, file: Path, n_volumes: int, first_volume_s: float) -> Run:
    """A run whose words are in a file; see `berg.stimuli.text_files.load_words`.

    Raises
    ------
    DatasetError
        If the words have no times.
    """
    words = load_words(file)
    if words.onsets is None:
        raise DatasetError(f"{file} has no onsets, which say when each word was heard. Give a file with them.")
    return Run(name, Words(words.words, words.onsets - first_volume_s, words.durations), n_volumes)


def splits_of_runs(
    volumes: RunVolumes, given: Mapping[str, Sequence[str] | None], trimmed: tuple[int, int]
) -> dict[str, Indices]:
    """Splits of whole runs, without the volumes that are trimmed.

    Parameters
    ----------
    given
        The names of the runs of each split; runs of none are trained on.
    trimmed
        Volumes at the start and at the end of each run.

    Raises
    ------
    DatasetError
        For a run that is not there, or is in two splits, and for none to fit to.
    """
    names = [run.name for run in volumes.runs]
    listed = {split: [str(name) for name in own] for split, own in given.items() if own is not None}
    of: dict[str, str] = {}
    for split in SPLITS:
        for name in listed.get(split, ()):
            if name not in names:
                raise DatasetError(
                    f"The split '{split}' names the run '{name}', which is not there.{did_you_mean(name, names)} Runs: "
                    f"{listing(names)}."
                )
            if of.setdefault(name, split) != split:
                raise DatasetError(f"The run '{name}' is in '{of[name]}' and in '{split}'. Take it out of one.")
    rest = "train" if not listed.get("train") else ""
    kept = volumes.kept(trimmed)
    marks = np.array([of.get(name, rest) for name in names])[volumes.run_of[kept]]
    found = {split: kept[marks == split] for split in SPLITS}
    if not len(found["train"]):
        raise DatasetError("No run is left to fit to. Give fewer runs under test and validation.")
    return found
