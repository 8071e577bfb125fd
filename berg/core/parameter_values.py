"""Check one value against what a card says of it; without NumPy, so that cards are read quickly.

What NumPy made is recognised all the same: such a value cannot be here unless NumPy is imported.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Collection, Mapping
from typing import Any

from berg.core.card_schema import Parameter
from berg.core.exceptions import InvalidParameterError, did_you_mean, listing

_TYPES: dict[str, tuple[type, ...]] = {
    "int": (numbers.Integral,), "integer": (numbers.Integral,),
    "float": (numbers.Real,), "number": (numbers.Real,),
    "str": (str,), "string": (str,),
    "bool": (bool,), "boolean": (bool,),
    "list": (list, tuple), "tuple": (list, tuple),
    "array": (list, tuple), "numpy.ndarray": (list, tuple),
    "dict": (Mapping,),
}  # fmt: skip
_ALSO_ARRAYS = ("list", "array", "numpy.ndarray")


def validate_value(value: Any, parameter: Parameter, name: str) -> Any:
    """One value checked against what its card says of it; `name` is what errors call it."""
    value = _as_python(value)
    if parameter.earlier_values and isinstance(value, (str, int)):
        value = parameter.earlier_values.get(value, value)
    allowed = parameter.allowed
    if parameter.several and allowed is not None:
        return _one_or_several(value, allowed, name)
    if not _has_type(value, parameter.type):
        hint = hint_of_type(value, allowed or [parameter.example])
        raise InvalidParameterError(f"{name} must be {parameter.type}, got {kind_of(value)} {value!r:.60}.{hint}")
    for item in _items(value) if allowed is not None else ():
        if not is_one_of(item, allowed or ()):
            hint = did_you_mean(item, allowed or ())
            raise InvalidParameterError(f"{name} is {item!r:.60}.{hint} Allowed: {listing(allowed or (), most=40)}.")
    if isinstance(value, numbers.Real) and not _within(value, parameter):
        unit = f" {parameter.unit}" if parameter.unit else ""
        raise InvalidParameterError(
            f"{name} is {value}; it must lie in [{parameter.minimum}, {parameter.maximum}]{unit}."
        )
    return value


ALL = "all"
"""Stands for all values of a parameter that takes several."""


def _one_or_several(value: Any, allowed: list[Any], name: str) -> Any:
    """A value that is allowed, a list of them, each once, or all of them for `ALL`."""
    given = [_as_python(item) for item in _items(value)]
    if len(given) == 1 and isinstance(given[0], str) and given[0] == ALL:
        return list(allowed)
    for item in given:
        if not any(type(item) is type(each) and item == each for each in allowed):
            hint = hint_of_type(item, allowed) or did_you_mean(item, allowed)
            few = listing(allowed, most=40)
            raise InvalidParameterError(f"{name} is {item!r:.60}.{hint} Allowed: {few}; a list of them, or 'all'.")
    if not given or len(set(given)) < len(given):
        reason = "an empty list" if not given else f"a list that names something twice: {listing(given)}"
        raise InvalidParameterError(f"{name} is {reason}. Give each once, or 'all'.")
    return given[0] if len(given) == 1 else given


def is_one_of(value: Any, allowed: Collection[Any]) -> bool:
    """Whether a value is among those allowed; an array never is."""
    try:
        return bool(value in allowed)
    except (ValueError, RuntimeError):  # an array or a tensor, which compares item by item
        return False


def kind_of(value: Any) -> str:
    """What a value is, for messages."""
    return f"{value.dtype} array of shape {value.shape}" if _is_array(value) else type(value).__name__


def hint_of_type(value: Any, allowed: Collection[Any]) -> str:
    """'1' where 1 is meant, or the other way round."""
    twin = next((item for item in allowed if item is not None and str(item) == str(value)), None)
    return "" if twin is None or type(twin) is type(value) else f" Try {twin!r} ({type(twin).__name__})."


def _as_python(value: Any) -> Any:
    """A number or text of NumPy as one of Python."""
    numpy = sys.modules.get("numpy")
    return value.item() if numpy is not None and isinstance(value, numpy.generic) else value


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _has_type(value: Any, described: str) -> bool:
    words = described.lower().replace("|", " or ").replace("/", " or ").replace(",", " or ").split(" or ")
    names = [word.split("[")[0].split(" of ")[0].strip() for word in words]
    if any(name not in _TYPES for name in names):  # 'any', or words of the author's own
        return True
    if _is_array(value):
        return any(name in _ALSO_ARRAYS for name in names)
    allowed = [_TYPES[name] for name in names]
    return any(isinstance(value, types) and (not isinstance(value, bool) or bool in types) for types in allowed)


def _items(value: Any) -> list[Any]:
    if _is_array(value):
        items: list[Any] = value.ravel().tolist()
        return items
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _within(value: Any, parameter: Parameter) -> bool:
    low = -math.inf if parameter.minimum is None else parameter.minimum
    high = math.inf if parameter.maximum is None else parameter.maximum
    return bool(low <= value <= high)  # NaN is outside
