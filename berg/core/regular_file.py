"""Input that is a file, and no pipe or device, which would be waited for, or never end.

In core, and not in system, because cards are read with it.
"""

from __future__ import annotations

import stat
from pathlib import Path

from berg.core.exceptions import InvalidParameterError, MissingFileError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


_DESCRIPTIONS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")  # of a folder that is a zarr store


def check_regular_file(path: Path | str) -> None:
    """Raise InvalidParameterError if something at a path is neither a file nor a folder.

    Opening a pipe waits until somebody writes into it, and reading a device may never end. Of a folder, the files that
    describe a zarr store are looked at, too. What is not there, or may not be looked at, passes: who opens it says so.
    """
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        for name in _DESCRIPTIONS:
            check_regular_file(Path(path) / name)
    elif (kind := _KINDS.get(stat.S_IFMT(mode))) is not None:
        advice = f" first, and give that:  cat {path} > FILE" if kind == "a named pipe" else ", and give that."
        raise InvalidParameterError(
            f"{path} is {kind}; what is read must be a file or a folder. Write what comes out of it into a file{advice}"
        )


def read_start(path: Path, n_bytes: int, what: str) -> bytes:
    """The first bytes of a file, all of them if it has no more.

    Parameters
    ----------
    what
        What messages call it: ``The manifest``.

    Raises
    ------
    MissingFileError
        If it cannot be opened.
    InvalidParameterError
        If it is a pipe or a device.
    """
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            return file.read(n_bytes)
    except OSError as error:
        raise MissingFileError(f"{what} {path} cannot be read: {error.strerror}.") from error


def _mode(path: Path | str) -> int:
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError):  # ValueError: a name with a NUL
        return 0
