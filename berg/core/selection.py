"""The user's selection, the card and the metadata, turned into indices along each axis of each output."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from berg.core.card_schema import FROM_STIMULUS, OutputArray, Parameter, Selector
from berg.core.exceptions import CorruptedFileError, InvalidParameterError, listing
from berg.core.model_card import ModelCard
from berg.core.parameter_validator import (
    places_in,
    validate_channels,
    validate_roi,
    validate_selection_keys,
)
from berg.core.parameter_values import validate_value
from berg.core.stacklevel import users_stacklevel
from berg.core.unit_labels import AxisKey, Indices, Metadata, as_indices, axis_length, list_at, look_up


class EmptySelectionWarning(UserWarning):
    """A selection that names no unit: an array without columns comes back."""


class IgnoredSelectionWarning(UserWarning):
    """A selection key that has no effect beside another."""


def check_selection(card: ModelCard, selection: Mapping[str, Any] | None) -> dict[str, Any]:
    """The selection with its keys and the values that the card lists checked; needs no metadata."""
    parameter = card.parameters.get("selection")
    described = card.selection_parameters
    given = {} if selection is None else validate_selection_keys(selection, card.selection_keys)
    missing = [key for key, part in described.items() if part.required and key not in given]
    if missing or (parameter is not None and parameter.required and not given):
        keys = listing(missing or card.selection_keys)
        raise InvalidParameterError(f"{card.model_id} needs a selection. Its {'missing ' * bool(missing)}keys: {keys}.")
    checked = {key: _checked(key, value, described[key], card.select[key]) for key, value in given.items()}
    return _without_overridden(card, checked)


def _checked(key: str, value: Any, described: Parameter, selector: Selector) -> Any:
    """The value of one key, its aliases replaced by the names in the metadata."""
    if described.allowed is not None:
        described = described.model_copy(update={"valid_values": [*described.allowed, *selector.aliases]})
    return _unaliased(validate_value(value, described, f"selection '{key}'"), selector)


def _without_overridden(card: ModelCard, selection: dict[str, Any]) -> dict[str, Any]:
    for winner in list(selection):
        losers = card.select[winner].overrides if winner in selection else []  # it may have lost itself
        for loser in [key for key in losers if key in selection]:
            warnings.warn(
                f"'{winner}' is selected, so '{loser}' has no effect. Give one of the two.",
                IgnoredSelectionWarning,
                stacklevel=users_stacklevel(),
            )
            del selection[loser]
    return selection


def resolve_selection(card: ModelCard, selection: Mapping[str, Any], metadata: Metadata) -> dict[AxisKey, Indices]:
    """Indices along every axis but the stimuli, for every output, in the order of the returned columns.

    Keys on the same axis are combined as ``combine`` of the axis says; without a key an axis is whole. An axis
    that is as long as the stimulus is left out: see `resolve_times`. What is selected there is checked.
    """
    resolve_times(card, selection, n_samples=0)
    return {
        (output.name, axis): _resolve_axis(card, output, axis, selection, metadata)
        for output in card.outputs
        for axis in output.axes[1:]
        if card.axes[axis].length != FROM_STIMULUS
    }


def resolve_times(card: ModelCard, selection: Mapping[str, Any], n_samples: int) -> dict[AxisKey, Indices]:
    """Indices along the axes that are as long as the stimulus.

    Parameters
    ----------
    n_samples
        Length of the stimulus at the sampling rate of the card's input.
    """
    found = {}
    for output in card.outputs:
        for axis in output.axes[1:]:
            described = card.axes[axis]
            if described.length == FROM_STIMULUS and described.sampling_rate and card.input:
                rate = card.input.sampling_rate or card.input.frame_rate or 1
                n_places = n_samples * described.sampling_rate // rate
                seconds = np.arange(n_places) / described.sampling_rate
                found[output.name, axis] = _within_windows(card, output.name, axis, selection, seconds)
    return found


def _within_windows(
    card: ModelCard, output: str, axis: str, selection: Mapping[str, Any], seconds: NDArray[np.float64]
) -> Indices:
    indices = np.arange(len(seconds))
    for key, value in selection.items():
        selector = card.select[key]
        if selector.axis == axis and selector.output in (None, output):
            low, high = _bounds(key, value)
            indices = indices[(seconds[indices] >= low) & (seconds[indices] <= high)]
    if not len(indices) and len(seconds):
        raise InvalidParameterError(
            f"The selection {dict(selection)!r:.200} holds no {axis} of {card.model_id}: the stimulus lasts "
            f"{len(seconds) / (card.axes[axis].sampling_rate or 1):g} seconds. Give a window within it."
        )
    return indices


def _resolve_axis(
    card: ModelCard, output: OutputArray, axis: str, selection: Mapping[str, Any], metadata: Metadata
) -> Indices:
    length = axis_length(card, output.name, axis, metadata)
    picked: dict[str, Indices] = {}
    for key, value in selection.items():
        selector = card.select[key]
        if selector.axis == axis and selector.output in (None, output.name) and selector.kind != "file":
            picked[key] = _RESOLVERS[selector.kind](key, value, selector, output.name, length, metadata)
    indices = _combined(card, axis, picked) if picked else np.arange(length)
    if not len(indices) and selection:
        warnings.warn(
            f"The selection {dict(selection)!r:.200} holds no {axis} in output '{output.name}' of "
            f"{card.model_id}; that array has no columns.",
            EmptySelectionWarning,
            stacklevel=users_stacklevel(),
        )
    return indices


def _combined(card: ModelCard, axis: str, picked: Mapping[str, Indices]) -> Indices:
    """What several keys pick on one axis, by the rule of the axis."""
    rule = card.axes[axis].combine
    if rule == "sorted_union":
        return np.unique(np.concatenate([*picked.values()]))
    if rule == "concatenation":
        return np.concatenate([picked[key] for key in card.select if key in picked])
    indices = _each_once(next(iter(picked.values())))
    for key, found in picked.items():
        chosen = _each_once(found)
        # these pick in the order that the user gave
        ordered = card.select[key].kind in ("name", "roi") or bool((np.diff(chosen) < 0).any())
        indices = chosen[np.isin(chosen, indices)] if ordered else indices[np.isin(indices, chosen)]
    return indices


def _each_once(indices: Indices) -> Indices:
    """Indices in their order, each where it is first."""
    _, first = np.unique(indices, return_index=True)
    return indices[np.sort(first)]


def _by_name(key: str, value: Any, selector: Selector, output: str, length: int, metadata: Metadata) -> Indices:
    names = [str(name) for name in _column(selector.metadata, output, length, metadata)]
    chosen = _names(validate_channels(value, names))
    if len(set(chosen)) < len(chosen):
        raise InvalidParameterError(f"selection '{key}' names something twice: {listing(chosen)}.")
    return np.array([names.index(name) for name in chosen], dtype=np.intp)


def _by_mask(key: str, value: Any, selector: Selector, output: str, length: int, metadata: Metadata) -> Indices:
    return places_in(value, length, key)


def _by_roi(key: str, value: Any, selector: Selector, output: str, length: int, metadata: Metadata) -> Indices:
    """The units of ROIs in the order given; a unit in two of them comes twice."""
    places = look_up(metadata, str(selector.metadata), output)
    if not isinstance(places, Mapping):  # one label per unit
        labels = _column(selector.metadata, output, length, metadata).astype(str)
        places = {str(label): labels == label for label in np.unique(labels)}
    given = _names(validate_roi(value, list(places)))
    indices = np.concatenate([as_indices(places[name], length, name) for name in given])
    if indices.size and not (indices.min() >= 0 and indices.max() < length):
        raise CorruptedFileError(f"The metadata place ROI {listing(given)} outside the {length:,} units.")
    return indices


def _by_minimum(key: str, value: Any, selector: Selector, output: str, length: int, metadata: Metadata) -> Indices:
    return _between(key, (value, None), selector, output, length, metadata)


def _by_range(key: str, value: Any, selector: Selector, output: str, length: int, metadata: Metadata) -> Indices:
    return _between(key, value, selector, output, length, metadata)


def _bounds(key: str, value: Any) -> tuple[float, float]:
    """The smallest and the largest value of a range; None stands for no bound."""
    bounds = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        raise InvalidParameterError(f"selection '{key}' takes [smallest, largest], got {value!r:.60}.")
    try:
        low = -np.inf if bounds[0] is None else float(bounds[0])
        high = np.inf if bounds[1] is None else float(bounds[1])
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidParameterError(f"selection '{key}' takes numbers, got {bounds!r:.60}.") from error
    if not low <= high:  # NaN too
        raise InvalidParameterError(f"selection '{key}': {low} to {high} is not a range.")
    return low, high


def _between(key: str, bounds: Any, selector: Selector, output: str, length: int, metadata: Metadata) -> Indices:
    low, high = _bounds(key, bounds)
    values = _column(selector.metadata, output, length, metadata, float)
    within = (values >= low) & (values <= high)  # NaN is never within
    if selector.kind == "range":  # 0.2 s is 0.20000000298 in float32
        within |= np.isclose(values, low, 1e-6, 1e-9) | np.isclose(values, high, 1e-6, 1e-9)
    return np.flatnonzero(within)


def _column(place: str | None, output: str, length: int, metadata: Metadata, dtype: type | None = None) -> NDArray[Any]:
    """One value of the metadata per unit."""
    values = list_at(str(place), output, metadata, dtype)
    if values.shape != (length,):
        raise CorruptedFileError(f"The metadata at '{place}' have shape {values.shape}, for {length:,} units.")
    return values


_RESOLVERS = {
    "name": _by_name,
    "mask": _by_mask,
    "roi": _by_roi,
    "minimum": _by_minimum,
    "range": _by_range,
}


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _unaliased(value: Any, selector: Selector) -> Any:
    if isinstance(value, (str, int)):
        return selector.aliases.get(str(value), value)
    if not selector.aliases or not isinstance(value, (list, tuple, np.ndarray)):
        return value
    items = value.ravel().tolist() if isinstance(value, np.ndarray) else value
    return [selector.aliases.get(str(item), item) if isinstance(item, (str, int)) else item for item in items]
