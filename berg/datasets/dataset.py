"""Recordings to fit an encoding model to: stimuli, the responses to them, and how they are split."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from berg.core.exceptions import DatasetError, listing
from berg.datasets import response_labels
from berg.datasets.response_arrays import (
    BLOCK_BYTES,
    Floats,
    ResponseArray,
    Units,
    as_rows,
    full_axes,
    n_selected,
    unit_axes,
)
from berg.datasets.splits import (
    SPLITS,
    Indices,
    check_groups_apart,
    checked_splits,
    group_numbers,
    make_splits,
    presentation_indices,
)
from berg.stimuli import stimulus_set

Coordinates = dict[str, tuple[str, NDArray[Any]]]
ALL = slice(None)
FILE_NAME = "dataset.yaml"


class DatasetWarning(UserWarning):
    """Something in a dataset that can be fitted, but perhaps is not meant so."""


@dataclass(frozen=True)
class OutputData:
    """Responses of one output, such as a hemisphere; nothing is read before it is asked for.

    The units are numbered in C order of the axes: unit ``channel * n_times + time`` of ``("channel", "time")``.

    Attributes
    ----------
    rows
        One row per presentation.
    axes
        Of the units, such as ``("vertex",)`` or ``("channel", "time")``.
    unit
        Of the values, such as ``z-scored beta``.
    presentations
        Shape (n_rows,), which stimulus each row is the response to.
    coordinates
        By name, the axis and its labels: ``{"channel": ("channel", array(["Oz", ...]))}``.
    attributes
        Other facts from the file, such as the affine of a volume.
    """

    rows: ResponseArray
    axes: tuple[str, ...]
    unit: str
    presentations: Indices
    coordinates: Coordinates = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape):
            raise DatasetError(f"Responses with the axes {listing(self.axes)} have units of shape {self.shape}.")
        if self.rows.n_rows != len(self.presentations):
            raise DatasetError(
                f"The responses have {self.rows.n_rows:,} rows for {len(self.presentations):,} presentations. There "
                "must be one row per presentation, or, without 'presentations', per stimulus."
            )
        _check_coordinates(self.coordinates, dict(zip(self.axes, self.shape, strict=True)))

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return self.rows.shape

    @property
    def n_units(self) -> int:
        """The product of the lengths."""
        return math.prod(self.shape)

    def mean(self, stimuli: ArrayLike, units: Units = ALL) -> Floats:
        """The mean response to each of these stimuli, over its presentations.

        Parameters
        ----------
        stimuli
            Indices, shape (n_stimuli,).
        units
            A slice, or indices.

        Returns
        -------
        responses
            Shape (n_stimuli, n_units). Missing values (NaN) do not count; where nothing is left there is NaN.
        """
        wanted = np.asarray(stimuli, np.intp)
        sums = np.zeros((len(wanted), n_selected(self.n_units, units)), np.float32)
        counts = np.zeros(len(wanted), np.float32)
        missing: Floats | None = None
        for places, _, values in self._read(wanted, units):
            absent = np.isnan(values)
            if absent.any():
                missing = np.zeros_like(sums) if missing is None else missing
                values[absent] = 0
                _add_rows(missing, places, absent)
            np.add.at(counts, places, 1)
            _add_rows(sums, places, values)
        with np.errstate(invalid="ignore"):  # 0 / 0 where nothing is left
            sums /= counts[:, None] if missing is None else counts[:, None] - missing
        return sums

    def repeats(self, stimuli: ArrayLike, units: Units = ALL) -> Floats:
        """The response to each presentation of these stimuli, in the order in which they were shown.

        Parameters
        ----------
        stimuli
            Indices, shape (n_stimuli,).
        units
            A slice, or indices.

        Returns
        -------
        responses
            Shape (n_repeats, n_stimuli, n_units); n_repeats is that of the stimulus that was shown most often, and
            there is NaN where another has fewer.
        """
        wanted = np.asarray(stimuli, np.intp)
        most = 1 + int(_rows_of(self.presentations, wanted)[2].max(initial=-1))
        found = np.full((most, len(wanted), n_selected(self.n_units, units)), np.nan, np.float32)
        for places, ranks, values in self._read(wanted, units):
            found[ranks, places] = values
        return found

    def _read(self, wanted: Indices, units: Units) -> Iterator[tuple[Indices, Indices, Floats]]:
        """Rows in the order of the file, some at a time.

        Yields the place of each row's stimulus in `wanted`, the number of the repeat, and the responses.
        """
        rows, places, ranks = _rows_of(self.presentations, wanted)
        step = max(1, BLOCK_BYTES // (4 * max(1, n_selected(self.n_units, units))))
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            same, copies = np.unique(rows[block], return_inverse=True)
            values = self.rows.read(same, units)
            yield places[block], ranks[block], values if len(same) == len(copies) else values[copies]


def _add_rows(sums: Floats, places: Indices, rows: NDArray[Any]) -> None:
    """Add each row at its place, which may be the same for several; quicker than `numpy.add.at` for long rows."""
    for place, row in zip(places, rows, strict=True):
        sums[place] += row


def _rows_of(presentations: Indices, wanted: Indices) -> tuple[Indices, Indices, Indices]:
    """Ascending rows of the wanted stimuli, the place of each in `wanted`, and the how manieth repeat it is."""
    order = np.argsort(presentations, kind="stable")
    ascending = presentations[order]
    first, last = (np.searchsorted(ascending, wanted, side) for side in ("left", "right"))
    n_each = last - first
    ranks = np.arange(n_each.sum()) - np.repeat(np.cumsum(n_each) - n_each, n_each)
    places = np.repeat(np.arange(len(wanted)), n_each)
    rows = order[np.repeat(first, n_each) + ranks]
    by_row = np.argsort(rows, kind="stable")
    return rows[by_row], places[by_row], ranks[by_row]


def _check_coordinates(coordinates: Coordinates, lengths: Mapping[str, int]) -> None:
    for name, (axis, labels) in coordinates.items():
        if axis not in lengths:
            raise DatasetError(f"Coordinate '{name}' is along '{axis}'; the axes of the units are {listing(lengths)}.")
        if np.shape(labels) != (lengths[axis],):
            raise DatasetError(
                f"Coordinate '{name}' has shape {np.shape(labels)}; axis '{axis}' has {lengths[axis]:,} places."
            )


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
        Seconds between places of an axis ``time``; without one, between stimuli that are frames of one sequence.
    subject
        Whose responses these are.
    sampling_rate
        Of stimuli that are sounds, hertz.
    name
        Of the dataset, for reports.
    groups
        Shape (n_stimuli,), the number of each stimulus's group: those of one are no independent samples, and stay
        together in splits, folds, permutations and resamples. None where each stands alone.

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
        """The numbers of the groups of these stimuli; None where each of them stands alone."""
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
            Whose responses; not needed where there is one subject alone.

        Raises
        ------
        DatasetError
            Where something in it contradicts something else; it says what, and where.
        MissingFileError
            For a file that is not there.
        MissingExtraError
            Where a format needs a package that is not installed.
        """
        from berg.datasets.folder import open_folder

        return open_folder(Path(folder), subject)

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
            Where something contradicts something else.
        """
        arrays = dict(responses) if isinstance(responses, Mapping) else {"responses": responses}
        checked = stimulus_set.check_stimuli(stimuli)
        found_names = stimulus_set.names_of(checked, names)
        order = None if presentations is None else presentation_indices(presentations, found_names)
        own_axes, own_unit, own_coordinates = (_by_output(given, arrays) for given in (axes, unit, coordinates))
        outputs = {
            name: _output(array, own_axes[name], own_unit[name], own_coordinates[name], order, found_names)
            for name, array in arrays.items()
        }
        return assembled(
            stimuli=checked, names=found_names, outputs=outputs, splits=splits, groups=groups, subject=subject,
            fractions={"test_fraction": test_fraction, "validation_fraction": validation_fraction, "seed": seed},
            sampling_interval_s=sampling_interval_s, sampling_rate=sampling_rate,
        )  # fmt: skip

    @property
    def is_sequence(self) -> bool:
        """Whether the stimuli are frames of one sequence, whose responses overlap in time."""
        return self.sampling_interval_s is not None and not any("time" in data.axes for data in self.outputs.values())

    def read_stimuli(self, indices: ArrayLike) -> NDArray[Any]:
        """Some of the stimuli, in this order: pictures (n, 3, height, width), sounds (n, n_samples).

        Raises
        ------
        StimulusError
            For a damaged file, and for files of different sizes.
        """
        return stimulus_set.read_stimuli(self.stimuli, np.asarray(indices, np.intp))

    def fingerprint_of_stimuli(self, indices: ArrayLike) -> str:
        """A hash of what these stimuli are and of their order, as a key for what is computed from them.

        All of them are read. Names and places on disk do not count.
        """
        return stimulus_set.fingerprint(self.stimuli, np.asarray(indices, np.intp))


def _by_output(given: Any, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """What was given for all outputs alike, or for each by its name."""
    by_name = isinstance(given, Mapping) and set(given) <= set(outputs)
    return {name: given.get(name) if by_name and given else given for name in outputs}


def _output(
    array: Any,
    axes: Sequence[str] | None,
    unit: str | None,
    coordinates: Any,
    order: Indices | None,
    names: Sequence[str],
) -> OutputData:
    given = response_labels.opened(array, axes)
    kept = given.values
    full = full_axes(given.dims if axes is None else axes, len(kept.shape))
    rows = as_rows(kept, full)
    labelled = response_labels.order_of_rows(given, full, names, order)
    axes_of_rows = full if labelled is None else [axis.replace("stimulus", "presentation") for axis in full]
    order = order if labelled is None else labelled
    found = {**response_labels.coordinates_of(given, full), **_with_axes(coordinates or {})}
    return OutputData(
        rows, unit_axes(full), unit or given.unit, order_of_rows(order, axes_of_rows, kept.shape, len(names)), found
    )


def order_of_rows(order: Indices | None, axes: Sequence[str], shape: Sequence[int], n_stimuli: int) -> Indices:
    """Which stimulus each row is the response to.

    Raises
    ------
    DatasetError
        Where there are not as many rows as stimuli or presentations.
    """
    n_repetitions = shape[axes.index("repetition")] if "repetition" in axes else 1
    row_axis = next(axis for axis in axes if axis in ("stimulus", "presentation"))
    n_rows = shape[axes.index(row_axis)]
    if order is not None and row_axis == "stimulus" and n_rows == len(order) == n_stimuli:
        _check_in_order(order)
    rows = np.arange(n_stimuli) if order is None or (row_axis == "stimulus" and n_rows == n_stimuli) else order
    if n_rows != len(rows):
        raise DatasetError(
            f"The responses have {n_rows:,} rows; there are {n_stimuli:,} stimuli"
            + (f" and {len(order):,} presentations" if order is not None else "")
            + ". Rows must be as many as presentations, or without these as stimuli."
        )
    return np.repeat(rows, n_repetitions)


def _check_in_order(order: Indices) -> None:
    """Raise DatasetError if a row per stimulus and a list of presentations of the same length contradict each other."""
    places = np.flatnonzero(order != np.arange(len(order)))
    if len(places):
        raise DatasetError(
            f"The axis 'stimulus' says that row {places[0]:,} is the response to stimulus {places[0]:,}, and "
            f"'presentations' that it is the one to stimulus {order[places[0]]:,}. Call the axis 'presentation' if its "
            "rows are in the order of the presentations, else leave 'presentations' out."
        )


def _with_axes(coordinates: Mapping[str, Any]) -> Coordinates:
    found: Coordinates = {}
    for name, given in coordinates.items():
        axis, labels = given if isinstance(given, tuple) and len(given) == 2 else (name, given)
        found[name] = (axis, np.asarray(labels))
    return found


def assembled(
    *,
    stimuli: Any,
    names: list[str],
    outputs: dict[str, OutputData],
    splits: Mapping[str, Any] | None,
    fractions: Mapping[str, Any],
    groups: Sequence[Any] | NDArray[Any] | None = None,
    sampling_interval_s: float | None = None,
    sampling_rate: int | None = None,
    subject: Any = None,
    name: str = "",
) -> EncodingDataset:
    """The parts of a dataset, put together and held against each other."""
    if not outputs:
        raise DatasetError("There are no responses.")
    first, *others = outputs.values()
    if any(not np.array_equal(first.presentations, other.presentations) for other in others):
        rows = listing(f"{output}: {len(data.presentations):,}" for output, data in outputs.items())
        raise DatasetError(f"The outputs differ in their rows ({rows}); all must be of the same presentations.")
    in_sequence = sampling_interval_s is not None and not any("time" in data.axes for data in outputs.values())
    shown = np.unique(first.presentations)
    numbers = _groups(stimuli, shown, groups, in_sequence, look=splits is None)
    if splits is None:
        own = None if numbers is None else numbers[shown]
        found = make_splits(shown, groups=own, in_sequence=in_sequence, **fractions)
    else:
        found = _shown_alone(checked_splits(splits, names), shown, names)
        if numbers is not None:
            check_groups_apart(found, numbers, names)
    rate = sampling_rate or stimulus_set.sampling_rate_of(stimuli)
    return EncodingDataset(
        stimuli, names, outputs, first.presentations, found, sampling_interval_s, subject, rate, name, numbers
    )


def _groups(stimuli: Any, shown: Indices, groups: Any, in_sequence: bool, look: bool) -> Indices | None:
    """The number of each stimulus's group: of those given, or, to `look` for, the same for identical stimuli."""
    n_stimuli = stimulus_set.n_stimuli(stimuli)
    if groups is not None:
        return group_numbers(groups, n_stimuli)
    if not look or in_sequence or not (stimulus_set.is_files(stimuli) or type(stimuli) is np.ndarray):
        return None
    alike = stimulus_set.identical(stimuli, shown)
    if len(np.unique(alike)) == len(alike):
        return None
    numbers = np.arange(n_stimuli)
    numbers[shown] = shown[alike]
    return numbers


def _shown_alone(splits: dict[str, Indices], shown: Indices, names: Sequence[str]) -> dict[str, Indices]:
    """Splits without the stimuli that were never presented, of which a warning tells."""
    kept = {name: np.intersect1d(indices, shown) for name, indices in splits.items()}
    for name in SPLITS:
        lost = np.setdiff1d(splits[name], shown)
        if len(lost):
            those = listing((names[index] for index in lost), 5)
            warnings.warn(
                f"{len(lost):,} of {len(splits[name]):,} stimuli in the split '{name}' were never presented and are "
                f"left out ({those}).",
                DatasetWarning,
                stacklevel=5,
            )
    if not len(kept["train"]):
        raise DatasetError("No stimulus of the split 'train' was ever presented.")
    return kept
