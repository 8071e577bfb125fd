"""JSON that keeps what Python has and JSON does not: arrays with their dtype, tuples, NaN, keys that are no texts.

An object with the one key ``__array__``, ``__tuple__`` or ``__dict__`` stands for one of these. Nothing that is read
can name a class or run code.

>>> import numpy as np
>>> parse_tagged(write_tagged({"axis": ("voxel", np.arange(2, dtype="int8"))}))
{'axis': ('voxel', array([0, 1], dtype=int8))}
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from berg.core.exceptions import InvalidParameterError

_ARRAY, _TEXTS, _TUPLE, _DICT, _FLOAT = "__array__", "__texts__", "__tuple__", "__dict__", "__float__"
_TAGS = (_ARRAY, _TEXTS, _TUPLE, _DICT, _FLOAT)
_KINDS = "biufUS"


def write_tagged(value: Any) -> str:
    """A value as a text; `parse_tagged` gives it back."""
    return json.dumps(tagged(value), allow_nan=False)


def parse_tagged(text: str | bytes) -> Any:
    """What `write_tagged` made a text of.

    Raises
    ------
    InvalidParameterError
        If it is no such text.
    """
    try:
        return untagged(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise InvalidParameterError(f"This is not JSON that can be read: {error}") from error


def tagged(value: Any) -> Any:
    """The value in what JSON has."""
    if isinstance(value, np.ndarray):
        return _tagged_array(value)
    if isinstance(value, np.generic):
        return _tagged_array(np.asarray(value))
    if isinstance(value, float) and not np.isfinite(value):
        return {_FLOAT: repr(value)}
    if isinstance(value, tuple):
        return {_TUPLE: [tagged(item) for item in value]}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and not (len(value) == 1 and next(iter(value)) in _TAGS):
            return {key: tagged(item) for key, item in value.items()}
        return {_DICT: [[tagged(key), tagged(item)] for key, item in value.items()]}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def untagged(value: Any) -> Any:
    """The value that `tagged` made this of.

    Raises
    ------
    InvalidParameterError
        For a tag whose content is not what it says.
    """
    if isinstance(value, list):
        return [untagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value)) if len(value) == 1 else None
    if tag not in _TAGS:
        return {key: untagged(item) for key, item in value.items()}
    try:
        return _untagged(tag, value[tag])
    except (TypeError, ValueError, KeyError, OverflowError, binascii.Error) as error:
        raise InvalidParameterError(f"What stands under {tag} cannot be read: {error}") from error


def _untagged(tag: str, content: Any) -> Any:
    if tag == _TUPLE:
        return tuple(untagged(item) for item in content)
    if tag == _DICT:
        return {untagged(key): untagged(item) for key, item in content}
    if tag == _FLOAT:
        return float(content)
    if tag == _TEXTS:
        return np.array(content["values"], dtype=object).reshape(content["shape"])
    dtype = np.dtype(str(content["dtype"]))
    if dtype.kind not in _KINDS:
        raise ValueError(f"arrays of {dtype} are not sent")
    array = np.frombuffer(base64.b64decode(content["base64"], validate=True), dtype)
    shaped = array.reshape([int(length) for length in content["shape"]]).copy()
    return shaped if shaped.ndim or not content.get("scalar") else shaped[()]


def _tagged_array(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    if array.dtype.kind == "O":  # of texts, as labels are
        return {_TEXTS: {"shape": list(array.shape), "values": [str(item) for item in array.ravel()]}}
    if array.dtype.kind not in _KINDS:
        return {_TEXTS: {"shape": list(array.shape), "values": [str(item) for item in array.ravel().tolist()]}}
    bytes_of = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    dtype = array.dtype.str
    return {_ARRAY: {"dtype": dtype, "shape": list(array.shape), "scalar": array.ndim == 0, "base64": bytes_of}}
