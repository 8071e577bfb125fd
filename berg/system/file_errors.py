"""Errors of reading a file that others wrote: ours, and with the name of the file."""

from __future__ import annotations

import csv
import os
import struct
import traceback
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.parsers.expat import ExpatError

from berg.core.exceptions import BERGError, CorruptedFileError, MissingExtraError, MissingFileError
from berg.core.regular_file import check_regular_file
from berg.system.memory import size_words

# What readers raise at a byte that they did not expect. MemoryError is not among them: sizes are checked first.
DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, EOFError,
    RuntimeError, SyntaxError, csv.Error, struct.error, zlib.error, zipfile.BadZipFile, ExpatError,
)  # fmt: skip

MOST_COMPRESSED = 2000
"""How many times smaller than its values a file can be; deflate reaches 1,032 at most."""
SMALL_BYTES = 2**26
"""Of values that are read without a look at how much of them the file holds."""


@contextmanager
def reading(path: Path, what: str = "read") -> Iterator[None]:
    """What goes wrong with a file is an error of ours that names it.

    Parameters
    ----------
    what
        What the file is wanted for: ``read``, ``opened as an array``.

    Raises
    ------
    CorruptedFileError
        In place of any error of a library that reads files.
    MissingExtraError
        In place of ImportError.
    """
    try:
        yield
    except BERGError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f'{path.name} needs {error.name or error}, which is not installed. Type:  pip install "berg[export]"'
        ) from error
    except DAMAGE as error:
        raise _damaged(path, what, error) from error
    except Exception as error:  # some libraries raise errors of their own, or a bare Exception
        asks_too_much = isinstance(error, MemoryError) and path.is_file() and path.stat().st_size < SMALL_BYTES
        if _raised_here(error) and not asks_too_much:
            raise
        raise _damaged(path, what, error) from error


def _raised_here(error: Exception) -> bool:
    """Whether it is a mistake of this package, rather than of a library at a byte that it did not expect."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "berg"


def _damaged(path: Path, what: str, error: Exception) -> CorruptedFileError:
    said = str(error).strip().rstrip(".")[:500] or type(error).__name__
    return CorruptedFileError(f"{path} cannot be {what}: {said}.")


def check_readable(path: Path) -> None:
    """Raise if there is no such file or folder, or it is a pipe or a device, which would be waited for for ever.

    Raises
    ------
    MissingFileError, InvalidParameterError
    """
    try:
        os.stat(path)
    except OSError as error:
        raise MissingFileError(f"There is no file {path}.") from error
    except ValueError as error:
        raise MissingFileError(f"{str(path)!r} is no name of a file: {error}.") from error
    check_regular_file(path)


def check_declared_size(path: Path, n_bytes: int, n_stored: int, name: str = "") -> None:
    """Raise if a file says that it holds more than so few bytes can be, before memory is asked for.

    Parameters
    ----------
    n_bytes
        Of the values, as the file says.
    n_stored
        That are in the file for them, perhaps compressed.

    Raises
    ------
    CorruptedFileError
    """
    if n_bytes > SMALL_BYTES and n_bytes > MOST_COMPRESSED * n_stored:
        raise CorruptedFileError(
            f"{path} cannot be read: {name or 'it'} should hold {size_words(n_bytes)}, and {n_stored:,} bytes are "
            "there for them. It was never filled, or is damaged; write the array again."
        )
