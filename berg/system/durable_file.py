"""Files and folders that are whole and on the disk before they have their name."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from berg.core.exceptions import BERGError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into; it takes the name when all is written and flushed, and is removed otherwise.

    Raises
    ------
    StorageError
        If the disk refuses it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with storage_errors(path):
            with temporary.open("x+b") as file:  # HDF5 reads what it has written
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path, kept: str = "") -> Iterator[None]:
    """Turn what the disk refuses into a StorageError that says what to do.

    Parameters
    ----------
    kept
        A sentence about what is not lost when the disk is full.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, BERGError):
            raise
        if error.errno in _FULL:
            what = f"{kept} Make room on that disk (or raise your quota), and try again.".lstrip()
        elif error.errno in _DENIED or path.parent.is_dir():
            what = f"Look at its owner and rights with:  ls -ld {path.parent}"
        else:
            what = f"Is {path.parent} a folder?"
        raise StorageError(f"{path} cannot be written: {error.strerror or error}. {what}") from error


def flush(path: Path) -> None:
    """Wait until a file is on the disk, or the names in a folder."""
    if os.name != "posix":  # Windows flushes names by itself, and files only through a writer
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
