"""Epochs in FIF files of MNE-Python.

A FIF file is a chain of tags: kind, type, size and the place of the next tag, four bytes each, big-endian, then the
data. A directory may list them. A file that was split names its next part (tags of the kind 118).
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from berg.core.exceptions import CorruptedFileError, UnsafeFileError

_TAG = struct.Struct(">iiii")
_DIRECTORY, _FILE_NUMBER, _FILE_NAME, _ENTRIES = 101, 117, 118, 32  # three kinds of tags, a type of data
_NO_DIRECTORY = -1


def open_epochs(path: Path) -> Any:
    """The epochs of mne, none of them read.

    Raises
    ------
    UnsafeFileError
        If a part of them lies in another folder.
    CorruptedFileError
        If the file leads back to itself. What mne raises for other damage is left as it is.
    """
    import mne

    _check_parts(path, set())
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of pandas, in mne
        return mne.read_epochs(path, preload=False, verbose="error")


def _check_parts(path: Path, seen: set[Path]) -> None:
    """Raise if a file, or one that goes on with it, does not end, or lies elsewhere."""
    while path.is_file():
        if path.resolve() in seen:
            raise CorruptedFileError(f"{path} is named as a part that follows itself. Copy or save the epochs again.")
        seen.add(path.resolve())
        names = _next_names(path)
        elsewhere = [name for name in names if name != Path(name).name or "\\" in name or name in ("", "..")]
        if elsewhere:
            raise UnsafeFileError(
                f"{path} goes on in '{elsewhere[0]}', which is not in its folder. Files that read files elsewhere are "
                "refused; nothing of it was opened. Put all parts into one folder, and save the epochs again."
            )
        if len(set(names)) > 1:
            raise CorruptedFileError(f"{path} names several next parts. Save the epochs again.")
        if not names:
            return
        path = path.parent / names[0]


def _next_names(path: Path) -> list[str]:
    with path.open("rb") as file:
        tags = [*_chain(file, path), *_listed(file)]
        names = [_text(file, place, size) for kind, place, size in tags if kind == _FILE_NAME]
        if not names and any(kind == _FILE_NUMBER for kind, _, _ in tags):
            raise CorruptedFileError(f"{path} has a next part without a name. Save the epochs again.")
    return names


def _chain(file: IO[bytes], path: Path) -> Iterator[tuple[int, int, int]]:
    """Kind, place of the data, and size of each tag, from the beginning of the file."""
    place = 0
    while True:
        file.seek(place)
        head = file.read(_TAG.size)
        if len(head) < _TAG.size:
            return
        kind, _, size, following = _TAG.unpack(head)
        yield kind, place + _TAG.size, size
        after = place + _TAG.size + size if following == 0 else following
        if following < 0:
            return
        if after <= place:
            raise CorruptedFileError(f"{path} cannot be read: its tags lead back to the beginning. Copy it again.")
        place = after


def _listed(file: IO[bytes]) -> Iterator[tuple[int, int, int]]:
    """The same of the tags in the directory, if there is one, which may list others."""
    file.seek(0)
    first = file.read(2 * _TAG.size + 24)
    if len(first) < 2 * _TAG.size + 24:
        return
    kind, _, _, _ = _TAG.unpack_from(first, _TAG.size + 20)
    (place,) = struct.unpack_from(">i", first, 2 * _TAG.size + 20)
    if kind != _DIRECTORY or place <= 0:
        return
    file.seek(place)
    head = file.read(_TAG.size)
    if len(head) < _TAG.size or _TAG.unpack(head)[1] != _ENTRIES:
        return
    entries = file.read(max(0, _TAG.unpack(head)[2]))
    for kind, _, size, at in _TAG.iter_unpack(entries[: len(entries) // _TAG.size * _TAG.size]):
        yield kind, at + _TAG.size, size


def _text(file: IO[bytes], place: int, size: int) -> str:
    """The text of a tag; its own head, not the directory's, says how long it is."""
    file.seek(max(0, place - _TAG.size))
    head = file.read(_TAG.size)
    size = _TAG.unpack(head)[2] if len(head) == _TAG.size else size
    return file.read(min(max(0, size), 4096)).decode("latin-1")
