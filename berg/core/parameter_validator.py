"""Check what the user passes to a model; each function returns the checked value or raises.

These are public: a model class written by hand calls the ones that it needs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from berg.core.card_schema import CardKeys, Parameter
from berg.core.exceptions import InvalidParameterError, did_you_mean, listing
from berg.core.parameter_values import hint_of_type, is_one_of, kind_of, validate_value

__all__ = [
    "get_selected_indices",
    "places_in",
    "validate_binary_array",
    "validate_channels",
    "validate_parameters",
    "validate_roi",
    "validate_selection_keys",
    "validate_subject",
    "validate_timepoints",
    "validate_value",
]


def validate_subject(subject: Any, valid_subjects: Collection[Any]) -> Any:
    """The subject, if it is one of `valid_subjects`.

    >>> validate_subject(1, [1, 2])
    1
    """
    subject = subject.item() if isinstance(subject, np.generic) else subject
    if isinstance(subject, bool) or not is_one_of(subject, valid_subjects):
        raise InvalidParameterError(
            f"Subject must be one of {listing(valid_subjects, most=20)}, got {subject!r}."
            + hint_of_type(subject, valid_subjects)
        )
    return subject


def validate_selection_keys(selection: Any, valid_keys: Iterable[str]) -> Mapping[str, Any]:
    """The selection, if it is a dict whose keys are all in `valid_keys`."""
    keys = list(valid_keys)
    if not isinstance(selection, Mapping):
        example = keys[0] if keys else "roi"
        raise InvalidParameterError(
            f"The selection must be a dict such as {{'{example}': ...}}, got {kind_of(selection)}."
        )
    for key in selection:
        if key not in keys:
            raise InvalidParameterError(
                f"'{key}' is not a selection key.{did_you_mean(key, keys)} Keys: {listing(keys) or 'none'}."
            )
    return selection


def validate_roi(roi: Any, valid_rois: Collection[str]) -> Any:
    """The ROI name (or list of names), if `valid_rois` has it.

    >>> validate_roi("V1", ["V1", "V2"])
    'V1'
    """
    return _validate_names(roi, valid_rois, "ROI")


def validate_channels(channels: Any, valid_channels: Collection[str]) -> Any:
    """The channel name (or list of names), if `valid_channels` has it."""
    return _validate_names(channels, valid_channels, "channel")


def validate_timepoints(timepoints: ArrayLike, n_timepoints: int) -> NDArray[np.bool_]:
    """The 0/1 vector over time points as booleans, shape (n_timepoints,)."""
    return validate_binary_array(timepoints, n_timepoints, "timepoints")


def validate_binary_array(values: ArrayLike, length: int, name: str = "mask") -> NDArray[np.bool_]:
    """A 0/1 vector as booleans.

    Parameters
    ----------
    values
        Shape (length,), of 0 and 1 or of booleans.
    name
        What errors call it.
    """
    array = _array(values, name)
    if array.ndim != 1 or len(array) != length:
        raise InvalidParameterError(
            f"'{name}' must be a 0/1 vector of length {length:,}, got shape {array.shape}."
            + _hint_of_indices(array, length, name)
        )
    if array.dtype == object or array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise InvalidParameterError(
            f"'{name}' must hold only 0 and 1 ({length:,} of them), got {array.dtype} values."
            + _hint_of_indices(array, length, name)
        )
    return array.astype(bool)


def places_in(values: ArrayLike, length: int, name: str = "mask") -> NDArray[np.intp]:
    """The places that a 0/1 vector or a list of places names, in the order given.

    A vector that holds nothing but 0 and 1, and every vector of booleans, is a 0/1 vector and must have the full
    length: one of another length would select other places than were meant. All else must be places: whole numbers
    from 0, each once.

    Parameters
    ----------
    values
        Shape (length,), of 0 and 1 or of booleans; or of any length, places from 0 to length - 1.
    length
        Of the axis.
    name
        What errors call it.

    >>> places_in([0, 1, 0, 1], 4).tolist(), places_in([3, 1], 4).tolist()
    ([1, 3], [3, 1])
    """
    array = _array(values, name)
    if not array.size and array.ndim == 1:
        return np.empty(0, np.intp)
    is_indices = array.ndim == 1 and array.dtype.kind in "iu" and not np.isin(array, (0, 1)).all()
    if not is_indices:
        return np.flatnonzero(validate_binary_array(array, length, name))
    if array.min() < 0 or array.max() >= length:
        wrong = array[(array < 0) | (array >= length)]
        raise InvalidParameterError(
            f"'{name}' names {listing(wrong.tolist(), most=3)}; its places are the whole numbers from 0 to "
            f"{length - 1:,}. Or give a 0/1 vector of length {length:,}."
        )
    if len(np.unique(array)) < len(array):
        raise InvalidParameterError(
            f"'{name}' has {len(array):,} whole numbers, some of them twice. Give each place once, or a 0/1 vector of "
            f"length {length:,}."
        )
    return array.astype(np.intp)


def get_selected_indices(mask: ArrayLike) -> NDArray[np.intp]:
    """The places of the ones in a 0/1 vector.

    >>> get_selected_indices([0, 1, 1]).tolist()
    [1, 2]
    """
    array = _array(mask, "mask")
    return np.flatnonzero(validate_binary_array(array, array.size))


def _array(values: ArrayLike, name: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidParameterError(f"'{name}' must be a 0/1 vector, and its rows differ in length.") from error


def validate_parameters(card: CardKeys, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a model, defaults filled in, each checked against its card.

    ``device`` and ``selection`` are not among them: they have rules of their own.

    Raises
    ------
    InvalidParameterError
        For an unknown name, a missing one, a wrong type or a value that the card does not allow.
    """
    known = card.own_parameters
    given = _by_todays_name(card, given)
    for name in given:
        if name not in known:
            raise InvalidParameterError(
                f"{card.model_id} has no parameter '{name}'.{did_you_mean(name, known)} "
                f"Parameters: {listing([*known, 'selection', 'device'])}."
            )
    return {name: _checked(card.model_id, name, part, given) for name, part in known.items()}


def _by_todays_name(card: CardKeys, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, those with an earlier name under today's."""
    todays = {part.earlier_name: name for name, part in card.own_parameters.items() if part.earlier_name}
    for earlier, name in todays.items():
        if earlier in given and name in given:
            raise InvalidParameterError(f"'{earlier}' is the earlier name of '{name}'. Give one of the two.")
    return {todays.get(name, name): value for name, value in given.items()}


def _checked(model_id: str, name: str, parameter: Parameter, given: Mapping[str, Any]) -> Any:
    if name not in given:
        if parameter.required and parameter.default is None:
            example = parameter.example if parameter.example is not None else (parameter.allowed or ["..."])[0]
            raise InvalidParameterError(
                f"{model_id} needs '{name}' ({parameter.description.strip()}). For example {name}={example!r}."
            )
        return parameter.default
    return validate_value(given[name], parameter, f"'{name}' of {model_id}")


def _validate_names(names: Any, valid: Collection[str], kind: str) -> Any:
    names = names.tolist() if isinstance(names, np.ndarray) else names
    names_list = [names] if isinstance(names, str) else names
    if not isinstance(names_list, (list, tuple)) or not names_list:
        raise InvalidParameterError(f"Give the {kind} as a name or a list of names, got {names!r:.60}.")
    for name in names_list:
        if not isinstance(name, str) or name not in valid:
            raise InvalidParameterError(
                f"There is no {kind} {name!r}.{did_you_mean(name, valid)} {kind}s: {listing(valid, most=80)}."
            )
    return names if isinstance(names, str) else [str(name) for name in names_list]


def _hint_of_indices(array: NDArray[Any], length: int, name: str) -> str:
    integers = array.ndim == 1 and array.dtype.kind in "iu" and array.size
    if not integers or array.min() < 0 or array.max() >= length:
        return ""
    if array.max() <= 1 and len(np.unique(array)) == len(array):
        numbers_meant = listing(array.tolist())
        return f" If the numbers {numbers_meant} are meant: {name} = np.isin(np.arange({length}), [{numbers_meant}])."
    if array.max() <= 1:
        return ""
    return f" These look like indices; try {name} = np.isin(np.arange({length}), indices)."
