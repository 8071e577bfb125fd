"""Recordings to fit an encoding model to: stimuli, the responses to them, and how they are split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from berg.core.card_schema import StimulusInput
from berg.core.exceptions import DatasetError, listing
from berg.datasets.assembly import assembled, outputs_of_arrays
from berg.datasets.event_runs import Run, RunVolumes, splits_of_runs
from berg.datasets.folder import read_folder
from berg.datasets.recordings import OutputData
from berg.datasets.splits import Indices, presentation_indices
from berg.stimuli import stimulus_set
from berg.stimuli.texts import Words


@dataclass(frozen=True)
class EncodingDataset:
    """Stimuli, and the responses of one subject to them.

    Attributes
    ----------
    stimuli
        A list of files, or an array, on disk or in memory, with one stimulus per place of its first axis.
    stimulus_names
        One per stimulus.
    outputs
        The responses, by the names of the card's outputs.
    presentations
        Shape (n_presentations,), which stimulus was shown; in the order of the rows of the responses.
    splits
        Indices of stimuli under ``train``, ``validation`` and ``test``; none is in two, some may be in none.
    sampling_interval_s
        Seconds between positions along an axis ``time``; without one, between stimuli that are frames of one sequence.
    subject
        Whose responses these are.
    sampling_rate
        Of stimuli that are sounds, hertz.
    name
        Of the dataset, for reports.
    groups
        Shape (n_stimuli,), the number of each stimulus's group: those of one are no independent samples, and stay
        together in splits, folds, permutations and resamples. None if each stands alone.

    Examples
    --------
    >>> pictures = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), "uint8")
    >>> responses = np.arange(40.0).reshape(20, 2)  # 20 presentations, 2 voxels
    >>> dataset = EncodingDataset.from_arrays(
    ...     pictures, responses, presentations=np.repeat(np.arange(10), 2), axes=("voxel",), unit="z-scored beta"
    ... )
    >>> dataset.outputs["responses"].mean([0, 9])
    array([[ 1.,  2.],
           [37., 38.]], dtype=float32)
    >>> {name: len(indices) for name, indices in dataset.splits.items()}
    {'train': 9, 'validation': 0, 'test': 1}
    """

    stimuli: Any
    stimulus_names: list[str]
    outputs: dict[str, OutputData]
    presentations: Indices
    splits: dict[str, Indices]
    sampling_interval_s: float | None = None
    subject: Any = None
    sampling_rate: int | None = None
    name: str = ""
    groups: Indices | None = None

    def groups_of(self, stimuli: ArrayLike) -> Indices | None:
        """The numbers of the groups of these stimuli; None if each of them stands alone."""
        own = None if self.groups is None else self.groups[np.asarray(stimuli, np.intp)]
        return None if own is None or len(np.unique(own)) == len(own) else own

    @classmethod
    def open(cls, folder: Path | str, subject: Any = None) -> EncodingDataset:
        """The dataset of a folder, as its ``dataset.yaml`` says.

        Parameters
        ----------
        folder
            That of ``dataset.yaml``, or the file itself.
        subject
            Whose responses; not needed if there is one subject alone.

        Raises
        ------
        DatasetError
            If something in it contradicts something else; it says what, and where.
        MissingFileError
            For a file that is not there.
        MissingExtraError
            If a format needs a package that is not installed.
        """
        return cls(**read_folder(Path(folder), subject))

    @classmethod
    def from_arrays(
        cls,
        stimuli: Any,
        responses: Any,
        *,
        presentations: ArrayLike | None = None,
        splits: Mapping[str, Any] | None = None,
        test_fraction: float = 0.1,
        validation_fraction: float = 0.0,
        seed: int = 0,
        groups: Sequence[Any] | NDArray[Any] | None = None,
        names: Iterable[Any] | None = None,
        axes: Any = None,
        coordinates: Mapping[str, Any] | None = None,
        unit: Any = None,
        sampling_interval_s: float | None = None,
        sampling_rate: int | None = None,
        subject: Any = None,
    ) -> EncodingDataset:
        """A dataset of arrays, in memory or on disk.

        Parameters
        ----------
        stimuli
            An array of shape (n_stimuli, ...), a folder, or a list of files or PIL images.
        responses
            An array of shape (n_presentations, ...) or, without `presentations`, (n_stimuli, ...); or a map of the
            names of outputs to such arrays. One array alone is the output ``responses``. Of masked arrays, what is
            masked is missing (NaN). Of xarray and pandas, names of axes, coordinates, unit and the labels of rows,
            which are names of stimuli, are taken where they are not given here.
        presentations
            Shape (n_presentations,): indices of stimuli, or their names.
        splits
            Indices or names of stimuli under ``train``, ``validation``, ``test``. None: drawn by `seed`.
        test_fraction, validation_fraction, seed, groups
            See `berg.datasets.splits.make_splits`; `groups` has one label per stimulus, and holds for the folds, tests
            and intervals of a fit too. Identical stimuli under two names are such a group, but where they lie in an
            array on disk or the splits are given.
        names
            One per stimulus.
        axes
            Of the units, such as ``("channel", "time")``; or a map of outputs to these. Given in full, such as
            ``("stimulus", "repetition", "channel", "time")``, they may stand in any order.
        coordinates
            Name to labels (of the axis of this name), or to ``(axis, labels)``; or a map of outputs to such maps.
        unit
            Of the responses; or a map of outputs to units.
        sampling_interval_s, sampling_rate, subject
            See the attributes.

        Raises
        ------
        DatasetError
            If something contradicts something else.
        """
        checked = stimulus_set.check_stimuli(stimuli)
        found_names = stimulus_set.names_of(checked, names)
        order = None if presentations is None else presentation_indices(presentations, found_names)
        parts = assembled(
            stimuli=checked, names=found_names, splits=splits, groups=groups, subject=subject,
            outputs=outputs_of_arrays(responses, axes, unit, coordinates, order, found_names),
            fractions={"test_fraction": test_fraction, "validation_fraction": validation_fraction, "seed": seed},
            sampling_interval_s=sampling_interval_s, sampling_rate=sampling_rate,
        )  # fmt: skip
        return cls(**parts)

    @classmethod
    def from_runs(
        cls,
        words: Mapping[str, Words],
        responses: Mapping[str, Any],
        *,
        sampling_interval_s: float,
        test: Sequence[str] = (),
        validation: Sequence[str] = (),
        axis: str = "voxel",
        unit: str = "",
        coordinates: Mapping[str, Any] | None = None,
        subject: Any = None,
    ) -> EncodingDataset:
        """A recording in time, run by run: words with their times, and a response for each volume.

        Parameters
        ----------
        words
            By the name of the run, with onsets in seconds from its first volume.
        responses
            By the name of the run, arrays of shape (n_volumes, n_units), cleaned; NaN is missing. They are the output
            ``responses``.
        sampling_interval_s
            Seconds between volumes.
        test, validation
            Names of runs; all others are trained on.
        axis, unit, coordinates
            Of the units; see `from_arrays`.

        Raises
        ------
        DatasetError
            If something contradicts something else.
        """
        if set(words) != set(responses):
            raise DatasetError(f"There are words of the runs {listing(words)} and responses of {listing(responses)}.")
        volumes = RunVolumes([Run(name, own, len(responses[name])) for name, own in words.items()])
        arrays = np.concatenate([np.asarray(responses[name], np.float32) for name in words])
        given = {"test": test, "validation": validation}
        parts = assembled(
            stimuli=volumes, names=volumes.names, splits=splits_of_runs(volumes, given, (0, 0)), fractions={},
            outputs=outputs_of_arrays(arrays, ("stimulus", axis), unit, coordinates, None, volumes.names),
            groups=volumes.run_of, sampling_interval_s=sampling_interval_s, subject=subject,
        )  # fmt: skip
        return cls(**parts)

    @property
    def is_sequence(self) -> bool:
        """Whether the stimuli are frames of one sequence, whose responses overlap in time."""
        return self.sampling_interval_s is not None and not any("time" in data.axes for data in self.outputs.values())

    def read_stimuli(self, indices: ArrayLike) -> NDArray[Any]:
        """Some of the stimuli, in this order: pictures (n, 3, height, width), sounds (n, n_samples), videos with all
        of their frames (n, n_frames, 3, height, width).

        Raises
        ------
        StimulusError
            For a damaged file, and for files of different sizes.
        """
        return stimulus_set.read_stimuli(self.stimuli, np.asarray(indices, np.intp))

    def read_taken(self, indices: ArrayLike, expected: StimulusInput) -> NDArray[Any]:
        """Some of the stimuli as a model takes them: checked, in its dtype, and of videos the frames that it takes.

        Parameters
        ----------
        expected
            The ``input`` of the card.
        """
        return stimulus_set.read_taken(self.stimuli, np.asarray(indices, np.intp), expected)

    def fingerprint_of_stimuli(self, indices: ArrayLike) -> str:
        """A hash of what these stimuli are and of their order, as a key for what is computed from them.

        All of them are read. Names and places on disk do not count.
        """
        return stimulus_set.fingerprint(self.stimuli, np.asarray(indices, np.intp))
