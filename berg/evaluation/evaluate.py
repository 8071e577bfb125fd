"""How well a model predicts recordings: encoded as a user would, compared unit by unit.

A model predicts the expected response to a stimulus, and is compared with the mean over its measured repeats. Of a
model that predicts several repetitions (the published EEG models) their mean is compared. Along an axis of time that
is as long as the stimulus, every moment is a sample.

Tests and intervals take as independent what is: stimuli; their groups where the dataset has some; all moments of a
stimulus together where there are 20 stimuli or more; and of fewer the effective number of moments.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from berg.core.card_schema import FROM_STIMULUS, REPETITION, OutputArray
from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.core.layout import ModelId
from berg.core.selection import resolve_selection
from berg.core.unit_labels import axis_length, coordinates
from berg.datasets.dataset import EncodingDataset, OutputData
from berg.datasets.matching_files import check_labels_agree
from berg.evaluation import (
    PermutationTest,
    benjamini_hochberg,
    bootstrap_interval,
    chance_ceiling,
    effective_samples,
    interval_in_time,
    leave_one_repeat_out,
    max_statistic_p,
    ncsnr_ceiling,
    noise_effective_samples,
    noise_normalised,
    pearson_r,
    permutation_test,
    r2_score,
    shift_test,
    split_half_ceiling,
)
from berg.evaluation.accuracy_summary import fill_performance
from berg.evaluation.accuracy_table import Accuracy, Coordinates, accuracy_table, join_outputs, write_accuracy
from berg.evaluation.card_units import unit_axes, unit_coordinates
from berg.evaluation.known_accuracy import accuracy_file
from berg.models.encoding_model import EncodingModel
from berg.statistics.groups import FEW, Groups, SamplesWarning, group_numbers
from berg.system.progress import progress_bar
from berg.weights import manifest
from berg.weights.download import update_manifest

Floats = NDArray[np.floating[Any]]

BATCH = 64  # stimuli that are in memory at a time
BLOCK_UNITS = 16_384  # units whose responses are summed at a time
N_SPLIT_HALVES = 20
IN_TIME = "moments in time: p by circular shifts, intervals by the effective number of samples"


@dataclass(frozen=True)
class Compared:
    """What of one output is compared.

    Attributes
    ----------
    measured, predicted
        Shape (n_samples, n_units): stimuli, or moments of them.
    repeats
        Shape (n_repeats, n_samples, n_units), read in blocks of units; None where nothing was repeated.
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


@dataclass(frozen=True)
class _Resampling:
    """What is resampled how often.

    Attributes
    ----------
    groups
        Shape (n_samples of an output,) by output: what is moved and drawn as a whole; None where each stands alone.
    in_time
        Samples follow each other in time, in stimuli too few to be drawn.
    has_moments
        Samples are moments of stimuli, so that noise too may be correlated from one to the next.
    what
        In words.
    """

    permutations: int
    bootstrap: int
    seed: int
    show_progress: bool | None
    block_length: int = 1
    groups: Mapping[str, NDArray[np.intp]] | None = None
    in_time: bool = False
    has_moments: bool = False
    what: str = "stimuli"

    @property
    def n_groups(self) -> int | None:
        """How many; None where there are none."""
        return None if self.groups is None else len(np.unique(next(iter(self.groups.values()))))

    @property
    def options(self) -> dict[str, Any]:
        return {"seed": self.seed, "show_progress": self.show_progress}

    def units_of(self, output: str) -> dict[str, Any]:
        """What permutation_test and bootstrap_interval must know of this output."""
        return {"block_length": self.block_length} if self.groups is None else {"groups": self.groups[output]}


def evaluate_model(
    model: EncodingModel,
    dataset: EncodingDataset,
    split: str = "test",
    *,
    permutations: int = 0,
    bootstrap: int = 1000,
    block_length: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    show_progress: bool | None = None,
) -> Accuracy:
    """Encode the stimuli of a split, and compare with what was measured.

    Parameters
    ----------
    model
        Loaded; with a selection, only those units are compared.
    dataset
        Recordings of the same subject, with all units of the model.
    split
        One of the dataset's; the fit must not have seen it.
    permutations, bootstrap
        How many resamples for p values and for intervals; 0 for none.
    block_length
        Samples in a row that are resampled together; None: what the data allow. That is the groups of the dataset where
        it has them; else each stimulus; of 20 or more stimuli whose every moment is a sample, each with all its
        moments; of fewer, moments: p by circular shifts and intervals by the effective number of samples.
    seed
        Of the resamples.
    batch_size
        How many stimuli the model computes together.
    show_progress
        None: a bar where standard error is a terminal.

    Returns
    -------
    accuracy
        See `berg.evaluation.accuracy_table`. Ceilings are there where stimuli were repeated. The attribute
        ``resampled`` says what was taken as independent, ``n_groups`` how many groups there were.

    Raises
    ------
    InvalidParameterError
        Where there is no such split, or model and data have other outputs, axes or lengths.
    """
    stimuli = _stimuli_of(dataset, split)
    for output in model.card.outputs:
        _check_axes(model, output, dataset)
    predicted = _encode(model, dataset, stimuli, batch_size, show_progress)
    compared = {
        output.name: _compared(model, output, dataset, stimuli, predicted.pop(output.name))
        for output in model.card.outputs
    }
    lengths = {name: len(own.predicted) for name, own in compared.items()}
    resampling = _Resampling(permutations, bootstrap, seed, show_progress)
    resampling = _independent(resampling, dataset.groups_of(stimuli), len(stimuli), lengths, block_length)
    return _evaluate(model, compared, split, len(stimuli), resampling)


def evaluate_responses(
    model: EncodingModel,
    pairs: Mapping[str, tuple[Floats, Floats]],
    *,
    split: str,
    permutations: int = 0,
    bootstrap: int = 1000,
    block_length: int | None = None,
    in_time: bool = False,
    groups: Groups | None = None,
    seed: int = 0,
    show_progress: bool | None = None,
) -> Accuracy:
    """As `evaluate_model`, of measured and predicted responses that are there already.

    Parameters
    ----------
    pairs
        By output: measured and predicted, each of shape (n_samples, n_units).
    split
        What they are of, such as ``two-fold over sweeps``.
    block_length
        Samples in a row that are resampled together; None: what the two below say.
    in_time
        Samples follow each other in time.
    groups
        Shape (n_samples,), a label for each: those of one are resampled together.
    """
    compared = {name: Compared(measured, predicted) for name, (measured, predicted) in pairs.items()}
    if missing := [output.name for output in model.card.outputs if output.name not in compared]:
        raise InvalidParameterError(f"Responses of {listing(missing)} are missing; given: {listing(compared)}.")
    n_samples = min(len(own.predicted) for own in compared.values())
    lengths = {name: len(own.predicted) for name, own in compared.items()}
    resampling = _Resampling(permutations, bootstrap, seed, show_progress, has_moments=in_time)
    numbers = None if groups is None else group_numbers(groups, n_samples)
    if in_time and numbers is None and block_length is None:
        resampling = replace(resampling, in_time=True, what=IN_TIME)
    else:
        resampling = _independent(resampling, numbers, n_samples, lengths, block_length)
    return _evaluate(model, compared, split, n_samples, resampling)


def _independent(
    how: _Resampling,
    groups: NDArray[np.intp] | None,
    n_stimuli: int,
    lengths: Mapping[str, int],
    block_length: int | None,
) -> _Resampling:
    """With what is independent: stretches that were asked for, groups, stimuli, or moments in time."""
    has_moments = how.has_moments or min(lengths.values()) > n_stimuli
    if block_length is not None:
        if groups is not None and block_length > 1:
            raise InvalidParameterError(
                f"block_length={block_length} was given, and the data have groups, which are resampled as a whole. "
                "Leave block_length out."
            )
        if groups is None:
            what = "stimuli" if block_length == 1 else f"stretches of {block_length} samples"
            return replace(how, block_length=block_length, has_moments=has_moments, what=what)
    own = groups
    if own is None and has_moments and n_stimuli >= FEW:
        own = np.arange(n_stimuli)
    if own is None:
        return replace(how, in_time=has_moments, has_moments=has_moments, what=IN_TIME if has_moments else "stimuli")
    repeated = {name: np.repeat(own, length // n_stimuli) for name, length in lengths.items()}
    what = "stimuli, each with all its moments" if groups is None else "groups of stimuli"
    how = replace(how, groups=repeated, has_moments=has_moments, what=what)
    return _without_resamples(how) if how.n_groups == 1 else how


def _without_resamples(how: _Resampling) -> _Resampling:
    if how.permutations or how.bootstrap:
        warnings.warn(
            "All stimuli that are compared are of one group: there is one independent sample, and there will be no p "
            "values and no intervals. Put several groups into the split.",
            SamplesWarning,
            stacklevel=4,
        )
    return replace(how, permutations=0, bootstrap=0)


def write_evaluation(model: EncodingModel, accuracy: Accuracy, split: str, out: Path | None = None) -> Path:
    """Write a table beside the model's weights, with its figures in the card there and its hash in the manifest.

    Parameters
    ----------
    out
        Another file; card and manifest then stay as they are.

    Raises
    ------
    InvalidParameterError
        Where a table beside the weights would not be of all units, or not of the test split, or would lie in an
        installed package; `out` is then needed.
    """
    if out is not None:
        write_accuracy(out, accuracy)
        return out
    check_belongs_beside_weights(model, split)
    path = accuracy_file(model.card, model.berg_dir, model.file_values)
    folder, card = path.parent.parent, path.parent.parent / f"{model.card.model_id}.yaml"
    write_accuracy(path, accuracy)
    if card.is_file():
        fill_performance(card, accuracy, keep=True)
    recorded = manifest.recorded_files(folder)
    entries = [manifest.entry_of(file, folder) for file in [path] + [card] * (card.name in recorded)]
    update_manifest(Path(str(model.berg_dir)), model.card.model_id, entries)
    return path


def check_belongs_beside_weights(model: EncodingModel, split: str) -> None:
    """Raise where the table of this evaluation is not the one that travels with the weights."""
    card = model.card
    of_units = [key for key in model.selection if card.select[key].kind != "file"]
    if card.files is None or card.files.store != "berg_dir":
        reason = f"{card.model_id} lies in an installed package"
    elif ModelId.parse(card.model_id).folder(str(model.berg_dir)).is_dir() and not of_units and split == "test":
        return
    else:
        reason = f"The table beside the weights is of all units and of the split 'test', not of {of_units or split}"
    raise InvalidParameterError(f"{reason}. Say where the table goes:  --out accuracy.nc (in Python out=...)")


def _stimuli_of(dataset: EncodingDataset, split: str) -> NDArray[np.intp]:
    stimuli = dataset.splits.get(split)
    if stimuli is None or not len(stimuli):
        there = [name for name, indices in dataset.splits.items() if len(indices)]
        raise InvalidParameterError(
            f"The data have no stimuli in a split '{split}'.{did_you_mean(split, there)} Splits: {listing(there)}."
        )
    return np.asarray(stimuli, dtype=np.intp)


def _check_axes(model: EncodingModel, output: OutputArray, dataset: EncodingDataset) -> None:
    """Raise where data and model do not have the same units."""
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
                f"{name} has {expected:,} places along '{axis}' of '{output.name}', the data {found:,}. Both must be "
                "of the same subject and region, with all units."
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


def _encode(
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
            batch = dataset.read_stimuli(stimuli[start : start + BATCH])
            responses = model.generate_response(batch, batch_size=batch_size, show_progress=False, **rate)
            arrays = responses if isinstance(responses, tuple) else (responses,)
            for output, array in zip(model.card.outputs, arrays, strict=True):
                parts[output.name].append(_over_repetitions(output, array))
            advance(len(batch))
    return {name: np.concatenate(parts.pop(name)) for name in names}


def _over_repetitions(output: OutputArray, array: Floats) -> Floats:
    return array.mean(axis=output.axes.index(REPETITION)) if REPETITION in output.axes else array


def _compared(
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


def _evaluate(
    model: EncodingModel, compared: Mapping[str, Compared], split: str, n_stimuli: int, how: _Resampling
) -> Accuracy:
    values = {
        name: {**_accuracy(own), **_ceilings(own, how), **_interval(name, own, how)} for name, own in compared.items()
    }
    for name, p_values in _p_values(compared, how).items():
        values[name] |= p_values
    attributes = {
        **{name: value for name, value in model.attributes().items() if name not in ("licence", "citation")},
        "split": split,
        "n_stimuli": n_stimuli,
        "compared": "prediction (mean over predicted repetitions) with the mean over measured repeats",
        "permutations": how.permutations,
        "bootstrap": how.bootstrap,
        "resampled": how.what,
        **({"n_groups": how.n_groups} if how.groups is not None else {}),
        **({"block_length": how.block_length} if how.block_length > 1 else {}),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    return join_outputs(
        {
            output.name: _table(model, output, compared[output.name], values[output.name], attributes)
            for output in model.card.outputs
        }
    )


def _accuracy(own: Compared) -> dict[str, Floats]:
    return {"r": pearson_r(own.measured, own.predicted), "r2": r2_score(own.measured, own.predicted)}


def _ceilings(own: Compared, how: _Resampling) -> dict[str, Floats]:
    """By all estimators that repeats of one subject allow, and r as a part of the first."""
    if own.repeats is None or own.n_repeats <= 1:
        return {}
    bounds, ceiling = leave_one_repeat_out(own.repeats), ncsnr_ceiling(own.repeats)
    least = chance_ceiling(_independent_noise(own, how), own.n_repeats)
    return {
        "noise_ceiling": ceiling,
        "noise_ceiling_split_half": split_half_ceiling(
            own.repeats, N_SPLIT_HALVES, seed=how.seed, show_progress=how.show_progress
        ),
        "repeat_ceiling_low": bounds.lower,
        "repeat_ceiling_high": bounds.upper,
        "noise_normalised": noise_normalised(pearson_r(own.measured, own.predicted), ceiling, least),
    }


def _independent_noise(own: Compared, how: _Resampling) -> Any:
    """How many independent samples the noise of the mean over repeats is worth: a number, or one per unit."""
    n_samples = len(own.predicted)
    if how.has_moments:
        return noise_effective_samples(own.repeats)
    return n_samples if how.n_groups is None else max(2, how.n_groups)


def _interval(name: str, own: Compared, how: _Resampling) -> dict[str, Floats]:
    if not how.bootstrap:
        return {}
    if how.in_time:
        interval = interval_in_time(own.measured, own.predicted)
        n_effective = effective_samples(own.measured, own.predicted)
        return {"r_low": interval.low, "r_high": interval.high, "n_effective": n_effective}
    options = how.options | how.units_of(name)
    interval = bootstrap_interval(own.measured, own.predicted, n_resamples=how.bootstrap, **options)
    return {"r_low": interval.low, "r_high": interval.high}


def _p_values(compared: Mapping[str, Compared], how: _Resampling) -> dict[str, dict[str, Floats]]:
    """P by itself, and corrected for the units of all outputs together."""
    if not how.permutations:
        return {}
    tests = {name: _test(name, own, how) for name, own in compared.items()}
    lengths = np.cumsum([test.p.size for test in tests.values()])[:-1]
    corrected = np.split(benjamini_hochberg(np.concatenate([test.p for test in tests.values()])), lengths)
    family = _family(tests)
    return {
        name: {"p": test.p, "p_false_discovery": own, "p_family": family[name]}
        for (name, test), own in zip(tests.items(), corrected, strict=True)
    }


def _test(name: str, own: Compared, how: _Resampling) -> PermutationTest:
    if how.in_time:
        return shift_test(own.measured, own.predicted, show_progress=how.show_progress)
    return permutation_test(own.measured, own.predicted, how.permutations, **how.options, **how.units_of(name))


def _family(tests: Mapping[str, PermutationTest]) -> dict[str, Floats]:
    """P of each unit, corrected for those of all outputs: by the largest of all where they were permuted alike."""
    if len({len(test.null_maximum) for test in tests.values()}) > 1:
        return {name: np.minimum(1.0, len(tests) * test.p_family) for name, test in tests.items()}
    largest = np.max([test.null_maximum for test in tests.values()], axis=0)
    return {name: np.fmax(max_statistic_p(test.r, largest), test.p_family) for name, test in tests.items()}


def _table(
    model: EncodingModel,
    output: OutputArray,
    own: Compared,
    values: Mapping[str, Floats],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    lengths = {axis: len(model.indices_of(output.name, axis)) for axis in unit_axes(model.card, output)}
    named = unit_coordinates(model.card, output, model.indices, model.metadata)
    given = {**attributes, **({"n_repeats": own.n_repeats} if own.repeats is not None else {})}
    return accuracy_table(values, lengths, {**(own.coordinates or {}), **named}, given)
