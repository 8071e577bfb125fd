"""What is in a dataset, and what is wrong with it: all responses are read, and all stimuli hashed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from berg.core.exceptions import StimulusError, listing
from berg.datasets.dataset import EncodingDataset
from berg.datasets.recordings import OutputData
from berg.datasets.response_arrays import BLOCK_BYTES
from berg.datasets.splits import SPLITS
from berg.stimuli import stimulus_set
from berg.stimuli.images import picture_size
from berg.stimuli.readers import kind_of_file
from berg.stimuli.videos import VideoFrames
from berg.system.progress import progress_bar

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Fault:
    """Something that is wrong, or perhaps is.

    Attributes
    ----------
    severity
        With an ``error`` nothing should be fitted; a ``warning`` is to be looked at.
    place
        ``stimuli``, ``splits``, or the name of an output.
    text
        What it is, how many, which, and what to do.
    """

    severity: Literal["error", "warning"]
    place: str
    text: str


@dataclass(frozen=True)
class OutputSummary:
    """What the responses of an output are like.

    Attributes
    ----------
    n_missing, n_infinite
        Values that are NaN, or infinite.
    constant, absent
        Shape (n_units,): units with one value alone, and with none.
    smallest, largest
        Shape (n_units,), NaN where there is none.
    n_rows, n_empty_rows
        Of presentations, and those without any value.
    """

    n_missing: int
    n_infinite: int
    constant: Bools
    absent: Bools
    smallest: NDArray[np.float32]
    largest: NDArray[np.float32]
    n_rows: int
    n_empty_rows: int


@dataclass(frozen=True)
class DatasetSummary:
    """What is in a dataset."""

    dataset: EncodingDataset
    outputs: dict[str, OutputSummary]
    faults: list[Fault]

    @property
    def n_presentations(self) -> NDArray[np.intp]:
        """How often each stimulus was presented, shape (n_stimuli,)."""
        return np.bincount(self.dataset.presentations, minlength=len(self.dataset.stimulus_names))


def check_dataset(dataset: EncodingDataset, show_progress: bool | None = None) -> DatasetSummary:
    """Look at everything in a dataset.

    Found are: responses that are infinite or missing, units that do not vary or were never measured, presentations
    without a response, identical stimuli (an error on both sides of a split), pictures that cannot be opened or are
    of different sizes, stimuli that were never shown, and splits that are empty or of one presentation each.

    Parameters
    ----------
    show_progress
        None: a bar if standard error is a terminal.

    Examples
    --------
    >>> pictures = np.random.default_rng(0).integers(0, 256, (10, 3, 8, 8), "uint8")
    >>> summary = check_dataset(EncodingDataset.from_arrays(pictures, np.ones((10, 2)), unit="beta"))
    >>> [fault.place for fault in summary.faults], summary.faults[0].text
    (['responses', 'splits'], '2 of 2 units do not vary (0, 1). Nothing can be fitted to them.')
    """
    outputs = {name: _summary(data, name, show_progress) for name, data in dataset.outputs.items()}
    faults = [fault for name, own in outputs.items() for fault in _faults_of(name, own, dataset.outputs[name])]
    faults += [*_faults_of_stimuli(dataset, show_progress), *_faults_of_splits(dataset)]
    return DatasetSummary(dataset, outputs, sorted(faults, key=lambda fault: fault.severity))


def _summary(data: OutputData, name: str, show_progress: bool | None) -> OutputSummary:
    n_missing = n_infinite = n_empty = 0
    smallest = np.full(data.n_units, np.inf, np.float32)
    largest = -smallest
    step = max(1, BLOCK_BYTES // (4 * max(1, data.n_units)))
    with progress_bar(f"reading {name}", data.rows.n_rows, "rows", show_progress) as advance:
        for start in range(0, data.rows.n_rows, step):
            block = data.rows.read(np.arange(start, min(start + step, data.rows.n_rows)), slice(None))
            missing, infinite = np.isnan(block), np.isinf(block)
            n_missing, n_infinite = n_missing + int(missing.sum()), n_infinite + int(infinite.sum())
            n_empty += int(missing.all(1).sum())
            missing |= infinite
            np.minimum(smallest, block.min(0, initial=np.inf, where=~missing), out=smallest)
            np.maximum(largest, block.max(0, initial=-np.inf, where=~missing), out=largest)
            advance(len(block))
    absent = smallest > largest
    smallest[absent] = largest[absent] = np.nan
    return OutputSummary(
        n_missing, n_infinite, smallest == largest, absent, smallest, largest, data.rows.n_rows, n_empty
    )


def _faults_of(name: str, own: OutputSummary, data: OutputData) -> Iterator[Fault]:
    n_units, n_values = data.n_units, own.n_rows * data.n_units
    if own.n_infinite:
        yield Fault(
            "error", name, f"{own.n_infinite:,} of {n_values:,} values are infinite. Write NaN where one is missing."
        )
    if own.n_missing:
        share = own.n_missing / n_values
        yield Fault(
            "warning", name, f"{own.n_missing:,} of {n_values:,} values ({share:.1%}) are NaN; they count as missing."
        )
    if own.n_empty_rows:
        yield Fault("warning", name, f"{own.n_empty_rows:,} of {own.n_rows:,} presentations have no value at all.")
    if own.absent.any():
        yield Fault(
            "warning",
            name,
            f"{own.absent.sum():,} of {n_units:,} units have no value at all ({_units(own.absent, data)}).",
        )
    if own.constant.any():
        yield Fault(
            "warning",
            name,
            f"{own.constant.sum():,} of {n_units:,} units do not vary ({_units(own.constant, data)}). Nothing can be "
            "fitted to them.",
        )
    if not data.unit:
        yield Fault("warning", name, "the unit of the responses is not given; write  unit: z-scored beta  or the like.")


def _units(which: Bools, data: OutputData) -> str:
    """Indices of units, and of several axes their labels."""
    chosen = np.flatnonzero(which)
    if len(data.axes) == 1:
        return listing(chosen, 5)
    labels = [_labels(data, axis) for axis in data.axes]
    places = np.transpose(np.unravel_index(chosen[:6], data.shape))
    shown = [" ".join(str(own[place]) for own, place in zip(labels, row, strict=True)) for row in places]
    return ", ".join(shown[:5]) + (", ..." if len(chosen) > 5 else "")


def _labels(data: OutputData, axis: str) -> NDArray[np.generic]:
    of_axis = data.coordinates.get(axis)
    return np.arange(data.shape[data.axes.index(axis)]) if of_axis is None else of_axis[1]


def _faults_of_stimuli(dataset: EncodingDataset, show_progress: bool | None) -> Iterator[Fault]:
    shown = np.unique(dataset.presentations)
    n_not = len(dataset.stimulus_names) - len(shown)
    if n_not:
        yield Fault("warning", "stimuli", f"{n_not:,} of {len(dataset.stimulus_names):,} stimuli were never presented.")
    if stimulus_set.is_files(dataset.stimuli):
        yield from _faults_of_pictures(dataset)
    if not dataset.is_sequence:
        yield from _faults_of_identical(dataset, shown, show_progress)


def _faults_of_pictures(dataset: EncodingDataset) -> Iterator[Fault]:
    sizes: dict[tuple[int, int], int] = {}
    for name, file in zip(dataset.stimulus_names, dataset.stimuli, strict=True):
        if kind_of_file(file) == "video":
            yield from _faults_of_video(name, file)
            continue
        if kind_of_file(file) != "image":
            return
        try:
            size = _size(file)
        except StimulusError as error:
            yield Fault("error", "stimuli", f"{name} cannot be opened: {error}")
        else:
            sizes[size] = sizes.get(size, 0) + 1
    if len(sizes) > 1:
        shown = listing((f"{count:,} of {width} x {height}" for (width, height), count in sizes.items()), 5)
        yield Fault("error", "stimuli", f"the pictures are of {len(sizes)} sizes ({shown}). Bring them to one.")


def _faults_of_video(name: str, file: Any) -> Iterator[Fault]:
    """Videos may differ in size and length; each must have frames that can be decoded."""
    try:
        VideoFrames(file)
    except StimulusError as error:
        yield Fault("error", "stimuli", f"{name} cannot be opened: {error}")


def _size(picture: Any) -> tuple[int, int]:
    """Width and height; of a file, only its head is read."""
    if isinstance(picture, Image.Image):
        return picture.size
    return picture_size(picture)


def _faults_of_identical(
    dataset: EncodingDataset, shown: NDArray[np.intp], show_progress: bool | None
) -> Iterator[Fault]:
    with progress_bar("comparing stimuli", len(shown), "stimuli", show_progress) as advance:
        labels = stimulus_set.identical(dataset.stimuli, shown, advance)
    copies = np.flatnonzero(labels != np.arange(len(labels)))
    if not len(copies):
        return
    pairs = np.column_stack([shown[labels[copies]], shown[copies]])
    split_of = np.full(len(dataset.stimulus_names), -1)
    for number, name in enumerate(SPLITS):
        split_of[dataset.splits[name]] = number
    one, other = split_of[pairs].T
    across = pairs[(one != other) & (one >= 0) & (other >= 0)]
    if len(across):
        yield Fault(
            "error",
            "splits",
            f"{len(across):,} stimuli are the same as one on the other side of a split ({_pairs(across, dataset)}). "
            "Give 'presentations', or 'groups' for the splits.",
        )
    if len(pairs) > len(across):
        yield Fault(
            "warning",
            "stimuli",
            f"{len(pairs):,} stimuli are the same as another ({_pairs(pairs, dataset)}). Repeats belong into "
            "'presentations'.",
        )


def _pairs(pairs: NDArray[np.intp], dataset: EncodingDataset) -> str:
    names = dataset.stimulus_names
    return listing((f"{names[one]} and {names[other]}" for one, other in pairs), 3)


def _faults_of_splits(dataset: EncodingDataset) -> Iterator[Fault]:
    if not len(dataset.splits["test"]):
        yield Fault("warning", "splits", "'test' is empty: how well a model does cannot be said.")
        return
    counts = np.bincount(dataset.presentations, minlength=len(dataset.stimulus_names))[dataset.splits["test"]]
    if counts.max() < 2:
        text = "no stimulus of 'test' was presented twice: there will be no noise ceiling."
        yield Fault("warning", "splits", text)
