"""How well a model predicts recordings: encoded as a user would, compared unit by unit.

A model predicts the expected response to a stimulus, and is compared with the mean over its measured repeats. Of a
model that predicts several repetitions (the published EEG models) their mean is compared. Along an axis of time that
is as long as the stimulus, every moment is a sample.

Tests and intervals take as independent what is: stimuli; their groups where the dataset has some; all moments of a
stimulus together where there are 20 stimuli or more; and of fewer the effective number of moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from berg.core.card_schema import OutputArray
from berg.core.exceptions import InvalidParameterError, listing
from berg.core.layout import ModelId
from berg.datasets.dataset import EncodingDataset
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
from berg.evaluation.accuracy_table import Accuracy, accuracy_table, join_outputs, write_accuracy
from berg.evaluation.card_units import unit_axes, unit_coordinates
from berg.evaluation.compared import Compared, Floats, check_axes, compared_of, encode, stimuli_of
from berg.evaluation.independence import IN_TIME, Resampling, independent
from berg.evaluation.known_accuracy import accuracy_file
from berg.models.encoding_model import EncodingModel
from berg.statistics.groups import Groups, group_numbers
from berg.weights import manifest
from berg.weights.download import update_manifest

N_SPLIT_HALVES = 20


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
        Samples in a row that are resampled together; None: what the data allow. That is the groups of the dataset if
        it has any; else each stimulus; of 20 or more stimuli whose every moment is a sample, each with all its
        moments; of fewer, moments: p by circular shifts and intervals by the effective number of samples.
    seed
        Of the resamples.
    batch_size
        How many stimuli the model computes together.
    show_progress
        None: a bar if standard error is a terminal.

    Returns
    -------
    accuracy
        See `berg.evaluation.accuracy_table`. Ceilings are there where stimuli were repeated. The attribute
        ``resampled`` says what was taken as independent, ``n_groups`` how many groups there were.

    Raises
    ------
    InvalidParameterError
        If there is no such split, or model and data have other outputs, axes or lengths.
    """
    stimuli = stimuli_of(dataset, split)
    for output in model.card.outputs:
        check_axes(model, output, dataset)
    predicted = encode(model, dataset, stimuli, batch_size, show_progress)
    compared = {
        output.name: compared_of(model, output, dataset, stimuli, predicted.pop(output.name))
        for output in model.card.outputs
    }
    lengths = {name: len(own.predicted) for name, own in compared.items()}
    resampling = Resampling(permutations, bootstrap, seed, show_progress)
    resampling = independent(resampling, dataset.groups_of(stimuli), len(stimuli), lengths, block_length)
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
    resampling = Resampling(permutations, bootstrap, seed, show_progress, has_moments=in_time)
    numbers = None if groups is None else group_numbers(groups, n_samples)
    if in_time and numbers is None and block_length is None:
        resampling = replace(resampling, in_time=True, what=IN_TIME)
    else:
        resampling = independent(resampling, numbers, n_samples, lengths, block_length)
    return _evaluate(model, compared, split, n_samples, resampling)


def write_evaluation(model: EncodingModel, accuracy: Accuracy, split: str, out: Path | None = None) -> Path:
    """Write a table beside the model's weights, with its figures in the card there and its hash in the manifest.

    Parameters
    ----------
    out
        Another file; card and manifest then stay as they are.

    Raises
    ------
    InvalidParameterError
        If a table beside the weights would not be of all units, or not of the test split, or would lie in an
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
    """Raise if the table of this evaluation is not the one that travels with the weights."""
    card = model.card
    of_units = [key for key in model.selection if card.select[key].kind != "file"]
    if card.files is None or card.files.store != "berg_dir":
        reason = f"{card.model_id} lies in an installed package"
    elif ModelId.parse(card.model_id).folder(str(model.berg_dir)).is_dir() and not of_units and split == "test":
        return
    else:
        reason = f"The table beside the weights is of all units and of the split 'test', not of {of_units or split}"
    raise InvalidParameterError(f"{reason}. Say where the table goes:  --out accuracy.nc (in Python out=...)")


def _evaluate(
    model: EncodingModel, compared: Mapping[str, Compared], split: str, n_stimuli: int, how: Resampling
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


def _ceilings(own: Compared, how: Resampling) -> dict[str, Floats]:
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


def _independent_noise(own: Compared, how: Resampling) -> Any:
    """How many independent samples the noise of the mean over repeats is worth: a number, or one per unit."""
    n_samples = len(own.predicted)
    if how.has_moments:
        return noise_effective_samples(own.repeats)
    return n_samples if how.n_groups is None else max(2, how.n_groups)


def _interval(name: str, own: Compared, how: Resampling) -> dict[str, Floats]:
    if not how.bootstrap:
        return {}
    if how.in_time:
        interval = interval_in_time(own.measured, own.predicted)
        n_effective = effective_samples(own.measured, own.predicted)
        return {"r_low": interval.low, "r_high": interval.high, "n_effective": n_effective}
    options = how.options | how.units_of(name)
    interval = bootstrap_interval(own.measured, own.predicted, n_resamples=how.bootstrap, **options)
    return {"r_low": interval.low, "r_high": interval.high}


def _p_values(compared: Mapping[str, Compared], how: Resampling) -> dict[str, dict[str, Floats]]:
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


def _test(name: str, own: Compared, how: Resampling) -> PermutationTest:
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
