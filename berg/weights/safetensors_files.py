"""Write and read safetensors files.

Layout (https://github.com/huggingface/safetensors): the length of the header as an unsigned 64-bit
number, the header as JSON (name -> dtype, shape, data_offsets), and the bytes of the tensors, in C
order, little-endian, without gaps. The header is checked against the file before anything is
allocated. Reading needs no more than a memory map, so the rows of a large array cost their own
bytes only.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save_file

from berg.core.exceptions import (
    InvalidParameterError,
    MissingExtraError,
    MissingFileError,
    did_you_mean,
    listing,
)
from berg.system.durable_file import flush
from berg.weights.mapped_file import array_from_bytes, check_shape, corrupted, map_file, shown

# Weights have some ten tensors; the reference implementation allows 100 MB.
MAX_HEADER_LENGTH = 2**22
# Silently writes arrays in Fortran order with their axes swapped.
BROKEN_VERSION = "0.8.0"

_DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "|b1"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1"},
}
_COMPARED_BYTES = 2**24
_METADATA = "__metadata__"


@dataclass(frozen=True)
class _Entry:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays to a safetensors file, which is either whole or not there.

    The arrays go to a temporary file in the same folder, are read again and compared bit by bit,
    and only then take the name; a file that had it before stays until then.

    Parameters
    ----------
    tensors
        Arrays of numbers or truth values by name, in any memory order and byte order.
    metadata
        Texts to go with them.

    Raises
    ------
    InvalidParameterError
        When a tensor or the metadata cannot be in a safetensors file.
    MissingFileError
        When there is no such folder.
    MissingExtraError
        When the installed safetensors is 0.8.0, which corrupts arrays.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_safetensors(f"{folder}/w.safetensors", {"coef": np.eye(2, order="F")})
    ...     read_safetensors(f"{folder}/w.safetensors")
    {'coef': array([[1., 0.],
           [0., 1.]])}
    """
    _check_version()
    path = Path(path)
    if not path.parent.is_dir():
        raise MissingFileError(f"There is no folder {path.parent}. Type:  mkdir -p {path.parent}")
    stored = {name: _storable(name, tensor) for name, tensor in tensors.items()}
    _check_metadata(metadata)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        # Made by us, so that its rights follow the umask; safetensors then writes into it.
        temporary.touch(mode=0o666, exist_ok=False)
        save_file(stored, temporary, None if metadata is None else dict(metadata))
        _check_written(temporary, stored)
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def read_safetensors(
    path: str | os.PathLike[str], names: Collection[str] | None = None, mapped: bool = False
) -> dict[str, NDArray[Any]]:
    """Return tensors of a safetensors file as arrays, by name.

    Parameters
    ----------
    names
        The tensors to read; all if it is None.
    mapped
        As parts of the file that are read from disk when they are used, not as arrays of their own.

    Raises
    ------
    MissingFileError
        When there is no such file.
    InvalidParameterError
        When it has no tensor of that name.
    CorruptedFileError
        When the file is not whole, or is no safetensors file of plain numbers.
    """
    path = Path(path)
    data = map_file(path, private=mapped)
    entries = _read_header(path, data)
    views = {name: _view(path, data, entries, name) for name in (entries if names is None else names)}
    return views if mapped else {name: np.array(view) for name, view in views.items()}


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the texts that go with the tensors; an empty dict if there are none.

    Raises
    ------
    MissingFileError, CorruptedFileError
        As in `read_safetensors`.
    """
    path = Path(path)
    data = map_file(path)
    _read_header(path, data)
    metadata: dict[str, str] = _parse_header(path, data)[0].get(_METADATA, {})
    return metadata


def read_rows(path: str | os.PathLike[str], name: str, indices: ArrayLike) -> NDArray[Any]:
    """Return some rows of a tensor, reading no others.

    Parameters
    ----------
    indices
        Shape (n_rows,), whole numbers from 0, in any order and as often as wanted.

    Returns
    -------
    rows
        Shape (n_rows, ...), an array of its own.

    Raises
    ------
    MissingFileError, CorruptedFileError
        As in `read_safetensors`.
    InvalidParameterError
        When there is no such tensor or row.
    """
    path = Path(path)
    data = map_file(path)
    tensor = _view(path, data, _read_header(path, data), name)
    rows = _checked_rows(path, name, tensor, indices)
    if not len(rows):
        return np.empty((0, *tensor.shape[1:]), tensor.dtype)
    first, last = int(rows[0]), int(rows[-1])
    if last - first == len(rows) - 1 and (np.diff(rows) == 1).all():
        return np.array(tensor[first : last + 1])
    # Not take(), which copies the whole of an array that is not aligned.
    chosen: NDArray[Any] = tensor[rows]
    return chosen


def _checked_rows(path: Path, name: str, tensor: NDArray[Any], indices: ArrayLike) -> NDArray[np.integer[Any]]:
    """Return the indices as an array of whole numbers, each of a row."""
    rows = np.asarray(indices)
    if tensor.ndim == 0:
        raise InvalidParameterError(
            f"Tensor {name!r} of {path} is a single number and has no rows. Try read_safetensors(path, [{name!r}])."
        )
    if rows.ndim != 1 or (rows.size and not np.issubdtype(rows.dtype, np.integer)):
        raise InvalidParameterError(
            f"Row indices are {rows.dtype} of shape {rows.shape}; they must be whole numbers of "
            "shape (n_rows,). Try np.flatnonzero(mask)."
        )
    if rows.size and (rows.min() < 0 or rows.max() >= len(tensor)):
        raise InvalidParameterError(
            f"Row indices go from {rows.min()} to {rows.max()}; tensor {name!r} of {path} has "
            f"rows 0 to {len(tensor) - 1}. Choose among those."
        )
    return rows


def _view(path: Path, data: memoryview, entries: Mapping[str, _Entry], name: str) -> NDArray[Any]:
    """Return a tensor as a view of the file."""
    if name not in entries:
        raise InvalidParameterError(
            f"{path} has no tensor {name!r}.{did_you_mean(name, entries)} Its tensors: {listing(entries)}"
        )
    entry = entries[name]
    return array_from_bytes(path, data[entry.start : entry.stop], entry.dtype, entry.shape, "C")


def _read_header(path: Path, data: memoryview) -> dict[str, _Entry]:
    """Return where and what the tensors are, after checking it against the file."""
    header, start = _parse_header(path, data)
    _check_texts(path, header.get(_METADATA, {}))
    entries = {name: _entry(path, name, declared, start) for name, declared in header.items() if name != _METADATA}
    reached = start
    for entry in sorted(entries.values(), key=lambda entry: (entry.start, entry.stop)):
        if entry.start != reached:
            raise corrupted(path, f"its tensors overlap or leave a gap at byte {reached}")
        reached = entry.stop
    if reached != len(data):
        raise corrupted(path, f"its tensors end at byte {reached} and the file at {len(data)}")
    return entries


def _parse_header(path: Path, data: memoryview) -> tuple[dict[str, Any], int]:
    """Return the header as it is, and where the bytes of the tensors begin."""
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER_LENGTH, max(len(data) - 8, 0)) or not length:
        raise corrupted(path, f"its header declares {length} bytes; the file has {len(data)} in all")
    try:
        header = json.loads(bytes(data[8 : 8 + length]), object_pairs_hook=_dict_of_unique)
    # RecursionError: lists in lists. The others are ValueErrors: no UTF-8, no JSON, a name twice.
    except (ValueError, RecursionError) as error:
        raise corrupted(path, f"its header is no JSON: {shown(str(error))}") from error
    if not isinstance(header, dict):
        raise corrupted(path, "its header is no JSON object")
    return header, 8 + length


def _dict_of_unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the dict of a JSON object, refusing a name that is there twice."""
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a name is there twice")
    return unique


def _check_texts(path: Path, metadata: object) -> None:
    """Raise CorruptedFileError unless this is a dict of texts."""
    if not isinstance(metadata, dict) or any(type(text) is not str for text in metadata.values()):
        raise corrupted(path, "its metadata are not texts by name")


def _entry(path: Path, name: str, declared: object, start: int) -> _Entry:
    """Return one tensor of the header, after checking that its bytes are as many as its values."""
    match declared:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(first), int(stop)]}:
            pass
        case _:
            raise corrupted(path, f"tensor {shown(name)} has no dtype, shape and data_offsets")
    if kind not in _DTYPES:
        raise corrupted(path, f"tensor {shown(name)} is of dtype {shown(kind)}; read are {listing(_DTYPES)}")
    dtype = np.dtype(_DTYPES[kind])
    if first < 0:
        raise corrupted(path, f"tensor {shown(name)} begins before the data")
    check_shape(path, shape, stop - first, dtype.itemsize)
    return _Entry(dtype, tuple(shape), start + first, start + stop)


def _check_version() -> None:
    """Raise MissingExtraError under the version that corrupts arrays."""
    if version("safetensors") == BROKEN_VERSION:
        raise MissingExtraError(
            f"safetensors {BROKEN_VERSION} is installed, which writes arrays in Fortran order "
            "wrongly. Any other version is fine; type:  "
            f"pip install 'safetensors!={BROKEN_VERSION}'"
        )


def _storable(name: str, tensor: NDArray[Any]) -> NDArray[Any]:
    """Return a tensor in C order and little-endian."""
    little = tensor.dtype.newbyteorder("<")
    if little not in {np.dtype(dtype) for dtype in _DTYPES.values()} or name == _METADATA:
        raise InvalidParameterError(
            f"Tensor {name!r} of dtype {tensor.dtype} cannot be in a safetensors file; dtypes are "
            f"{listing(_DTYPES)}, and {_METADATA!r} is no name. Try .astype('float32')."
        )
    # ascontiguousarray would give a single number an axis.
    return np.asarray(tensor, dtype=little, order="C")


def _check_metadata(metadata: Mapping[str, str] | None) -> None:
    """Raise InvalidParameterError unless all keys and values are texts."""
    for key, text in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise InvalidParameterError(f"Metadata {key!r}: {text!r} is not a text by name. Try json.dumps(value).")


def _check_written(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise CorruptedFileError unless the file holds exactly these bits."""
    data = map_file(path)
    entries = _read_header(path, data)
    if entries.keys() != tensors.keys():
        raise corrupted(path, "other tensors were written than were given")
    for name, tensor in tensors.items():
        entry = entries[name]
        given = np.frombuffer(tensor.data.cast("B") if tensor.size else b"", np.uint8)
        found = np.frombuffer(data[entry.start : entry.stop], np.uint8)
        same_kind = (entry.dtype, entry.shape) == (tensor.dtype, tensor.shape)
        # Comparing whole arrays would need as much memory again.
        parts = (slice(start, start + _COMPARED_BYTES) for start in range(0, given.size, _COMPARED_BYTES))
        if not same_kind or not all(np.array_equal(given[part], found[part]) for part in parts):
            raise corrupted(path, f"tensor {name!r} was written with other values than were given")
