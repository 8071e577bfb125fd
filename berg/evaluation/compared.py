"""What of a model and of recordings is compared: the same units, and stimuli or moments of them as samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import FROM_STIMULUS, REPETITION, OutputArray
from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.core.selection import resolve_selection
from berg.core.unit_labels import axis_length, coordinates
from berg.datasets.dataset import EncodingDataset
from berg.datasets.matching_files import check_labels_agree
from berg.datasets.recordings import OutputData
from berg.evaluation.accuracy_table import Coordinates
from berg.evaluation.card_units import unit_axes
from berg.models.encoding_model import EncodingModel
from berg.stimuli import stimulus_set
from berg.system.progress import progress_bar

Floats = NDArray[np.floating[Any]]
BATCH = 64  # stimuli that are in memory at a time
BLOCK_UNITS = 16_384  # units whose responses are summed at a time


@dataclass(frozen=True)
class Compared:
    """What of one output is compared.

    Attributes
    ----------
    measured, predicted
        Shape (n_samples, n_units): stimuli, or moments of them.
    repeats
        Shape (n_repeats, n_samples, n_units), read in blocks of units; None if nothing was repeated.
    n_repeats
        Of each stimulus; the harmonic mean.
    coordinates
        Of the units, beyond those that the card names: name -> (axis, values).
    """

    measured: Any
    predicted: Any
    repeats: Any = None
    n_repeats: float = 1.0
    coordinates: Coordinates | None = None


def stimuli_of(dataset: EncodingDataset, split: str) -> NDArray[np.intp]:
    stimuli = dataset.splits.get(split)
    if stimuli is None or not len(stimuli):
        there = [name for name, indices in dataset.splits.items() if len(indices)]
        raise InvalidParameterError(
            f"The data have no stimuli in a split '{split}'.{did_you_mean(split, there)} Splits: {listing(there)}."
        )
    return np.asarray(stimuli, dtype=np.intp)


def check_axes(model: EncodingModel, output: OutputArray, dataset: EncodingDataset) -> None:
    """Raise if data and model do not have the same units."""
    name, data = model.card.model_id, dataset.outputs.get(output.name)
    if data is None:
        raise InvalidParameterError(
            f"{name} has an output '{output.name}'; the data have {listing(dataset.outputs)}. Rename them there."
        )
    axes = output.unit_axes
    if data.axes != axes:
        raise InvalidParameterError(f"Output '{output.name}' of {name} has the axes {axes}; the data have {data.axes}.")
    for axis in unit_axes(model.card, output):
        expected, found = axis_length(model.card, output.name, axis, model.metadata), data.shape[axes.index(axis)]
        if expected != found:
            raise InvalidParameterError(
                f"{name} has {expected:,} positions along '{axis}' of '{output.name}', the data {found:,}. Both must "
                "be of the same subject and region, with all units."
            )
    _check_labels(model, output, data)
    if (
        dataset.sampling_interval_s is not None
        and len(axes) == len(unit_axes(model.card, output))
        and "time" not in axes
    ):
        raise InvalidParameterError(
            f"The stimuli of these data are frames of a sequence, whose responses overlap in time; {name} answers to "
            "each stimulus by itself. Give data with one response per stimulus; berg fit evaluates on sequences."
        )


def _check_labels(model: EncodingModel, output: OutputArray, data: OutputData) -> None:
    """Raise DatasetError if channels, times or voxels of the data stand in another order than the model's."""
    known = coordinates(model.card, output, resolve_selection(model.card, {}, model.metadata), model.metadata)
    for name, (axis, labels) in known.items():
        if name in (axis, "i", "j", "k") and data.coordinates.get(name, ("",))[0] == axis:
            check_labels_agree(name, data.coordinates[name][1], labels, where=model.card.model_id)


def encode(
    model: EncodingModel,
    dataset: EncodingDataset,
    stimuli: NDArray[np.intp],
    batch_size: int | None,
    show_progress: bool | None,
) -> dict[str, Any]:
    """The responses by output, of shape (n_stimuli, ...axes without repetitions)."""
    names = [output.name for output in model.card.outputs]
    parts: dict[str, list[Floats]] = {name: [] for name in names}
    rate = {} if dataset.sampling_rate is None else {"sampling_rate": dataset.sampling_rate}
    with progress_bar(f"encode with {model.card.model_id}", len(stimuli), "stimuli", show_progress) as advance:
        for start in range(0, len(stimuli), BATCH):
            batch = _read(dataset, stimuli[start : start + BATCH], model)
            responses = model.generate_response(batch, batch_size=batch_size, show_progress=False, **rate)
            arrays = responses if isinstance(responses, tuple) else (responses,)
            for output, array in zip(model.card.outputs, arrays, strict=True):
                parts[output.name].append(_over_repetitions(output, array))
            advance(len(batch))
    return {name: np.concatenate(parts.pop(name)) for name in names}


def _read(dataset: EncodingDataset, stimuli: NDArray[np.intp], model: EncodingModel) -> Any:
    """Some stimuli; files of videos as they are, which the model decodes no more of than it takes."""
    if model.expected_input.kind == "video" and stimulus_set.is_files(dataset.stimuli):
        return [dataset.stimuli[index] for index in stimuli]
    return dataset.read_stimuli(stimuli)


def _over_repetitions(output: OutputArray, array: Floats) -> Floats:
    return array.mean(axis=output.axes.index(REPETITION)) if REPETITION in output.axes else array


def compared_of(
    model: EncodingModel, output: OutputArray, dataset: EncodingDataset, stimuli: NDArray[np.intp], predicted: Floats
) -> Compared:
    data = dataset.outputs[output.name]
    indices = [model.indices_of(output.name, axis) for axis in data.axes]
    units = np.ravel_multi_index(np.ix_(*indices), data.shape).ravel()
    shape = predicted.shape[1:]
    in_time = [i for i, axis in enumerate(data.axes) if model.card.axes[axis].length == FROM_STIMULUS]
    counts = np.bincount(dataset.presentations, minlength=int(stimuli.max()) + 1)[stimuli]
    n_repeats = len(counts) / np.sum(1 / np.maximum(counts, 1))
    repeats: Any = _Repeats(data, stimuli, units) if counts.max() > 1 else None
    if repeats is not None and in_time:
        repeats = _moments_as_samples(data.repeats(stimuli, units), shape, in_time, 2)
    return Compared(
        measured=_moments_as_samples(_mean(data, stimuli, units), shape, in_time, 1),
        predicted=_moments_as_samples(predicted.reshape(len(stimuli), -1), shape, in_time, 1),
        repeats=repeats,
        n_repeats=round(float(n_repeats), 6),
        coordinates={
            name: (axis, np.asarray(values)[model.indices_of(output.name, axis)])
            for name, (axis, values) in data.coordinates.items()
            if axis in unit_axes(model.card, output)
        },
    )


def _mean(data: OutputData, stimuli: NDArray[np.intp], units: NDArray[np.intp]) -> Floats:
    """Over repeats, float32; what sums take in float64 is taken for one block of units at a time."""
    mean = np.empty((len(stimuli), len(units)), np.float32)
    for start in range(0, len(units), BLOCK_UNITS):
        block = slice(start, start + BLOCK_UNITS)
        mean[:, block] = data.mean(stimuli, _narrow(units[block]))
    return mean


def _narrow(units: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Neighbouring units as a slice, which is read faster."""
    if len(units) and units[-1] - units[0] + 1 == len(units) and (np.diff(units) == 1).all():
        return slice(int(units[0]), int(units[-1]) + 1)
    return units


def _moments_as_samples(array: Floats, shape: tuple[int, ...], in_time: list[int], n_leading: int) -> Floats:
    """Axes of time behind that of the stimuli, one stimulus after another: (..., n_stimuli * n_times, n_units)."""
    if not in_time:
        return array
    apart = array.reshape(*array.shape[:n_leading], *shape)
    behind: Floats = np.moveaxis(apart, [n_leading + i for i in in_time], range(n_leading, n_leading + len(in_time)))
    n_samples = math.prod(behind.shape[n_leading - 1 : n_leading + len(in_time)])
    return behind.reshape(*array.shape[: n_leading - 1], n_samples, -1)


class _Repeats:
    """Measured repeats of shape (n_repeats, n_stimuli, n_units), of which units are read when they are asked for."""

    dtype = np.dtype(np.float32)

    def __init__(self, data: OutputData, stimuli: NDArray[np.intp], units: NDArray[np.intp]) -> None:
        self.data, self.stimuli, self.units = data, stimuli, units
        self.shape = (len(data.repeats(stimuli, units[:1])), len(stimuli), len(units))

    def __getitem__(self, key: tuple[Any, slice]) -> Floats:
        return self.data.repeats(self.stimuli, _narrow(self.units[key[-1]]))
