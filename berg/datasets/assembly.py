"""The parts of a dataset, made from arrays or from files, put together and held against each other."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.exceptions import DatasetError, listing
from berg.core.stacklevel import users_stacklevel
from berg.datasets import response_labels
from berg.datasets.recordings import Coordinates, OutputData, order_of_rows
from berg.datasets.response_arrays import as_rows, full_axes, unit_axes
from berg.datasets.splits import SPLITS, Indices, check_groups_apart, checked_splits, group_numbers, make_splits
from berg.stimuli import stimulus_set


class DatasetWarning(UserWarning):
    """Something in a dataset that can be fitted, but perhaps is not meant so."""


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
) -> dict[str, Any]:
    """The attributes of an `EncodingDataset`, held against each other; `splits` are made if there are none."""
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
    return {
        "stimuli": stimuli, "stimulus_names": names, "outputs": outputs, "presentations": first.presentations,
        "splits": found, "sampling_interval_s": sampling_interval_s, "subject": subject, "sampling_rate": rate,
        "name": name, "groups": numbers,
    }  # fmt: skip


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
                stacklevel=users_stacklevel(),
            )
    if not len(kept["train"]):
        raise DatasetError("No stimulus of the split 'train' was ever presented.")
    return kept


def outputs_of_arrays(
    responses: Any, axes: Any, unit: Any, coordinates: Any, order: Indices | None, names: Sequence[str]
) -> dict[str, OutputData]:
    """Each output of one array or several; axes, unit and coordinates are of all outputs, or of each by its name."""
    arrays = dict(responses) if isinstance(responses, Mapping) else {"responses": responses}
    own_axes, own_unit, own_coordinates = (_by_output(given, arrays) for given in (axes, unit, coordinates))
    return {
        name: _output(array, own_axes[name], own_unit[name], own_coordinates[name], order, names)
        for name, array in arrays.items()
    }


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


def _with_axes(coordinates: Mapping[str, Any]) -> Coordinates:
    found: Coordinates = {}
    for name, given in coordinates.items():
        axis, labels = given if isinstance(given, tuple) and len(given) == 2 else (name, given)
        found[name] = (axis, np.asarray(labels))
    return found
