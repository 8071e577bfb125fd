"""A file mapped into memory, arrays out of its bytes, and the errors that name it.

Mapping costs no memory until a byte is looked at, and no declared length can allocate anything:
what a file claims to hold is compared with the bytes that are there, and refused if they differ.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from berg.core.commands import how_to_get_again
from berg.core.exceptions import CorruptedFileError, MissingFileError, UnsafeFileError

Buffer = bytes | memoryview

MAX_AXES = 32
MAX_LENGTH = 2**40
MAX_SPANNED_BYTES = 2**60
MAX_CODE_POINT = 0x10FFFF


def map_file(path: Path, private: bool = False) -> memoryview:
    """Return the bytes of a file, read from disk when they are looked at.

    The mapping ends when the last view of it is gone. A file that is shortened by somebody else
    in the meantime ends the process (SIGBUS), as with every memory map; replacing is harmless.

    Parameters
    ----------
    private
        May be written to, in memory only; read-only otherwise. The file stays as it is either way.

    Raises
    ------
    MissingFileError
        When there is no such file, or it may not be opened.
    """
    if not path.is_file():
        raise MissingFileError(f"There is no file {path}. {how_to_get_again(path)}")
    try:
        with path.open("rb") as file:
            # An empty file cannot be mapped.
            if not path.stat().st_size:
                return memoryview(b"")
            access = mmap.ACCESS_COPY if private else mmap.ACCESS_READ
            return memoryview(mmap.mmap(file.fileno(), 0, access=access))
    except OSError as error:
        raise MissingFileError(
            f"{path} cannot be opened: {error.strerror}. Look at its owner and rights with:  ls -l {path}"
        ) from error


def corrupted(path: Path, reason: str) -> CorruptedFileError:
    """Return the error for a file that is not what it claims to be."""
    return CorruptedFileError(f"{path} cannot be read: {reason}. {how_to_get_again(path)}")


def unsafe(path: Path, wish: str) -> UnsafeFileError:
    """Return the error for a file that asks for something that only code could do."""
    return UnsafeFileError(
        f"{path} asks for {wish}; nothing of it was run. Weights and metadata hold arrays, "
        "numbers, texts, lists and dicts, and no code. Do not open it with anything else. "
        f"{how_to_get_again(path)}"
    )


def shown(text: str, most: int = 100) -> str:
    r"""Quote a text out of a file, so that it can do nothing to the terminal.

    >>> print(shown("os\x1b.system"))
    'os\x1b.system'
    """
    return ascii(text if len(text) <= most else text[:most] + "...")


def check_shape(path: Path, shape: Sequence[object], n_bytes: int, itemsize: int) -> None:
    """Raise CorruptedFileError unless the shape is one, and these bytes are exactly its own."""
    if len(shape) > MAX_AXES:
        raise corrupted(path, f"it declares an array of {len(shape)} axes; at most {MAX_AXES}")
    lengths = [length for length in shape if type(length) is int and 0 <= length <= MAX_LENGTH]
    if len(lengths) != len(shape):
        raise corrupted(path, f"an axis of an array is not a length in [0, {MAX_LENGTH}]")
    declared = math.prod(lengths) * itemsize
    # numpy and torch multiply the other axes of an empty array, too.
    spanned = math.prod(length for length in lengths if length) * itemsize
    if spanned > MAX_SPANNED_BYTES:
        raise corrupted(path, f"it declares an array of shape {tuple(lengths)}")
    if declared != n_bytes:
        raise corrupted(path, f"it declares {declared} bytes for an array and holds {n_bytes} of them")


def array_from_bytes(
    path: Path, data: Buffer, dtype: np.dtype[Any], shape: Sequence[int], order: Literal["C", "F"]
) -> NDArray[Any]:
    """Return an array over these bytes, without copying them.

    Parameters
    ----------
    data
        Exactly the bytes of the array.
    dtype
        A plain one: numbers, truth values or texts of a fixed length, in either byte order.

    Raises
    ------
    CorruptedFileError
        When the number of bytes does not fit dtype and shape, or they cannot be of this dtype.
    """
    check_shape(path, shape, len(data), dtype.itemsize)
    if not len(data):
        return np.empty(tuple(shape), dtype, order)
    array: NDArray[Any] = np.frombuffer(data, dtype)
    _check_values(path, array)
    return array.reshape(tuple(shape), order=order)


def _check_values(path: Path, array: NDArray[Any]) -> None:
    """Raise CorruptedFileError if bytes are no truth value or no character."""
    if array.dtype.kind == "b" and array.view(np.uint8).max() > 1:
        raise corrupted(path, "an array of truth values holds a byte that is neither 0 nor 1")
    if array.dtype.kind == "U":
        characters = array.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if characters.max() > MAX_CODE_POINT:
            raise corrupted(path, "an array of texts holds a number that is no character")
