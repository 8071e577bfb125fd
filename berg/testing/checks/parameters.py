"""Checks of parameters: a model takes what its card describes, and nothing else."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from berg.core.card_schema import Parameter
from berg.core.exceptions import InvalidParameterError
from berg.testing.check import Faults, check
from berg.testing.model_under_test import ModelUnderTest
from berg.testing.outcome import NotApplicable
from berg.testing.refusal import Refusal, not_refused, refusal

UNKNOWN = "no_such_name"


@check("Take these in __init__, or take them out of the card.")
def every_parameter_is_taken(model: ModelUnderTest) -> Faults:
    """The class takes every parameter of its card, with the card's example and default."""
    for name, parameter in _of_a_made(model).described.items():
        for value in _distinct([parameter.example, parameter.default]):
            yield from _unless_taken(f"{name}={value!r}", _try(model, name, value))


@check("Take these keys of the selection, or take them out of the card.")
def every_selection_key_is_taken(model: ModelUnderTest) -> Faults:
    """The class takes every selection key of its card, with the card's example."""
    examples = {key: part.example for key, part in _of_a_made(model).card.selection_parameters.items()}
    for key, value in examples.items():
        if value is not None:
            yield from _unless_taken(f"selection {key}={value!r}", _try_selection(model, key, value))


@check("Take every value that the card lists, or take it out of valid_values.")
def valid_values_are_taken(model: ModelUnderTest) -> Faults:
    """The class takes every value that the card lists, whether its files are there or not."""
    _of_a_made(model)
    for name, parameter in model.described.items():
        for value in parameter.allowed or ():
            yield from _unless_taken(f"{name}={value!r}", _try(model, name, value))
    for key, parameter in model.card.selection_parameters.items():
        values = list(parameter.allowed or ())
        if values and "list" in parameter.type and _try_selection(model, key, values) is None:
            continue  # all of them at once
        for value in values:
            yield from _unless_taken(f"selection {key}={value!r}", _try_selection(model, key, value))


@check("Describe these parameters of __init__ in the card.")
def class_has_no_other_parameters(model: ModelUnderTest) -> Faults:
    """The card describes every parameter of the class."""
    described = {"device", "selection", "berg_dir", *model.card.parameters}
    for name, parameter in inspect.signature(model.model_class).parameters.items():
        if name not in described and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            yield f"__init__ takes '{name}', which the card does not describe"


@check("Leave get_supported_parameters as it is inherited, or let it answer from the card.")
def class_reports_its_parameters(model: ModelUnderTest) -> Faults:
    """The class names the parameters of its card when it is asked for them."""
    found = set(model.model_class.get_supported_parameters())
    if found != set(model.card.parameters):
        yield f"get_supported_parameters names {sorted(found)}, the card {sorted(model.card.parameters)}"


@check("Raise InvalidParameterError for what **kwargs holds beyond the card's parameters, or do without **kwargs.")
def unknown_parameters_are_refused(model: ModelUnderTest) -> Faults:
    """A parameter that the card does not describe is refused with InvalidParameterError."""
    _of_a_made(model)
    yield from _unless_refused(f"the parameter {UNKNOWN}=1", _try(model, UNKNOWN, 1))


@check("Call validate_selection_keys(selection, keys) in __init__.")
def unknown_selection_keys_are_refused(model: ModelUnderTest) -> Faults:
    """A selection key that the card does not describe is refused with InvalidParameterError."""
    _with_a_selection(model)
    yield from _unless_refused(f"the selection key '{UNKNOWN}'", _try_selection(model, UNKNOWN, 1))


@check("Call validate_selection_keys(selection, keys) in __init__.")
def selections_that_are_no_dict_are_refused(model: ModelUnderTest) -> Faults:
    """A selection that is a text or a list is refused with InvalidParameterError."""
    _with_a_selection(model)
    for value in ("V1", ["V1"]):
        found = refusal(_make_with, model, value)
        yield from _unless_refused(f"selection={value!r}", found)


@check("Compare with the card's valid_values in __init__ (validate_subject, validate_roi, validate_value).")
def other_values_are_refused(model: ModelUnderTest) -> Faults:
    """A value that is not among the valid ones is refused with InvalidParameterError."""
    for what, found in _of_each(_of_a_made(model), _outside):
        yield from _unless_refused(what, found)


@check("Compare with the card's minimum and maximum in __init__ (validate_value).")
def numbers_out_of_bounds_are_refused(model: ModelUnderTest) -> Faults:
    """A number below the minimum or above the maximum is refused with InvalidParameterError."""
    for what, found in _of_each(_of_a_made(model), _out_of_bounds):
        yield from _unless_refused(what, found)


@check("Check the type in __init__ (validate_value) before the value is used.")
def wrong_types_are_refused(model: ModelUnderTest) -> Faults:
    """A value of a wrong type is refused with InvalidParameterError."""
    for what, found in _of_each(_of_a_made(model), _of_wrong_type):
        yield from _unless_refused(what, found)


@check("Raise InvalidParameterError in __init__ if a required parameter is missing, and name it.")
def missing_parameters_are_refused(model: ModelUnderTest) -> Faults:
    """A required parameter that is not given is refused, by Python itself or with InvalidParameterError."""
    required = [name for name, part in _of_a_made(model).described.items() if part.required and part.default is None]
    for name in required:
        rest = {key: value for key, value in model.parameters.items() if key != name}
        found = refusal(model.make, rest)
        is_pythons = found is not None and found.kind is TypeError and f"'{name}'" in found.text
        if not is_pythons:
            yield from _unless_refused(f"a model without {name}", found)


@check("Raise InvalidParameterError in __init__ if the selection, or a key of it, is required and missing.")
def missing_selections_are_refused(model: ModelUnderTest) -> Faults:
    """A required selection, or key of it, that is not given is refused with InvalidParameterError."""
    selection = _with_a_selection(model).card.parameters["selection"]
    if selection.required:
        yield from _unless_refused("a model without selection", refusal(model.make, selection={}))
    for key in [key for key, part in model.card.selection_parameters.items() if part.required]:
        rest = {other: value for other, value in model.selection.items() if other != key}
        yield from _unless_refused(f"a selection without {key}", refusal(model.make, selection=rest))


@check("Resolve the device with berg.models.device.resolve_device.")
def unknown_devices_are_refused(model: ModelUnderTest) -> Faults:
    """A device that does not exist is refused with one of our errors, at the latest when the model is loaded."""
    if "device" not in model.card.parameters:
        raise NotApplicable("the card has no parameter 'device'")
    _of_a_made(model)
    given = {**model.parameters, "device": UNKNOWN}
    if (fault := not_refused(f"device='{UNKNOWN}'", refusal(lambda: model.load(model.make(given))))) is not None:
        yield fault


def _of_a_made(model: ModelUnderTest) -> ModelUnderTest:
    """The same model; the check is skipped if the model cannot be made with valid parameters."""
    return model.made and model


def _with_a_selection(model: ModelUnderTest) -> ModelUnderTest:
    if "selection" not in model.card.parameters:
        raise NotApplicable("the card has no selection")
    return _of_a_made(model)


def _make_with(model: ModelUnderTest, selection: Any) -> Any:
    return model.model_class(**{**model.parameters, "selection": selection, "berg_dir": model.berg_dir})


def _try(model: ModelUnderTest, name: str, value: Any) -> Refusal | None:
    return refusal(model.make, {**model.parameters, name: value})


def _try_selection(model: ModelUnderTest, key: str, value: Any) -> Refusal | None:
    return refusal(model.make, selection={**model.selection, key: value})


def _unless_taken(what: str, found: Refusal | None) -> Iterator[str]:
    if found is not None and not issubclass(found.kind, FileNotFoundError):
        yield f"{what} ends in {found}"


def _unless_refused(what: str, found: Refusal | None) -> Iterator[str]:
    if (fault := not_refused(what, found, InvalidParameterError)) is not None:
        yield fault


def _of_each(model: ModelUnderTest, values: Any) -> Iterator[tuple[str, Refusal | None]]:
    """Try each parameter and each selection key with the values that `values` makes from its description."""
    for name, parameter in model.described.items():
        for value in values(parameter):
            yield f"{name}={value!r}", _try(model, name, value)
    for key, parameter in model.card.selection_parameters.items():
        for value in values(parameter):
            yield f"selection {key}={value!r}", _try_selection(model, key, value)


def _outside(parameter: Parameter) -> list[Any]:
    allowed = parameter.allowed
    if not allowed:
        return []
    numbers = [value for value in allowed if isinstance(value, (int, float)) and not isinstance(value, bool)]
    other = max(numbers) + 1 if numbers else UNKNOWN
    return [other, [allowed[0], other]] if "list" in parameter.type else [other]


def _out_of_bounds(parameter: Parameter) -> list[Any]:
    bounds = ((parameter.minimum, -1), (parameter.maximum, 1))
    return [type(parameter.example or 0.0)(bound + step) for bound, step in bounds if bound is not None]


def _of_wrong_type(parameter: Parameter) -> list[Any]:
    kinds = parameter.type.lower()
    if "any" in kinds or not any(kind in kinds for kind in ("int", "float", "str", "bool", "list", "dict", "array")):
        return []
    wrong: list[Any] = [["x"] if "dict" in kinds else {"x": 1}]
    return [*wrong, "1"] if not any(kind in kinds for kind in ("str", "dict", "list", "array")) else wrong


def _distinct(values: list[Any]) -> list[Any]:
    return [value for index, value in enumerate(values) if value is not None and value not in values[:index]]
