"""The sha256 of a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from berg.core.exceptions import MissingFileError
from berg.system.progress import Advance

CHUNK = 2**20


def hash_file(path: Path, progress: Advance | None = None) -> str:
    """The sha256 of a file in hexadecimal digits; `progress` is told the bytes that were read.

    Raises
    ------
    MissingFileError
        When it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                if progress:
                    progress(len(chunk))
    except OSError as error:
        raise MissingFileError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()
