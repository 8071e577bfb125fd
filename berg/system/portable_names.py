"""Names of files that come from elsewhere: whether they may be written, here and on any other computer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

MAX_NAME_BYTES = 1000
MAX_PART_BYTES = 200
_FORBIDDEN = '\\:*?"<>|'
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def name_fault(name: str) -> str | None:
    r"""What makes a relative POSIX path unfit for a file below a folder; None if nothing does.

    >>> name_fault("metadata/metadata_subject-01.npy")
    >>> name_fault("metadata/../../x")
    "it leads out of its folder ('..')"
    >>> name_fault("metadata\\x")
    "it has the character '\\\\'"
    """
    odd = [letter for letter in name if letter in _FORBIDDEN or not letter.isprintable()]
    if odd:
        return f"it has the character {odd[0]!r}"
    if name.startswith("/"):
        return "it is absolute"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"it is longer than {MAX_NAME_BYTES} bytes"
    return next((fault for part in name.split("/") if (fault := _part_fault(part))), None)


def _part_fault(part: str) -> str | None:
    if part == "..":
        return "it leads out of its folder ('..')"
    if part in ("", "."):
        return "a part of it is empty"
    if part != part.strip() or part.endswith("."):
        return "a part of it begins or ends with a space, or ends with a dot"
    if len(part.encode()) > MAX_PART_BYTES:
        return f"a part of it is longer than {MAX_PART_BYTES} bytes"
    if part.split(".")[0].strip().casefold() in _DEVICES:
        return f"Windows knows '{part}' as a device"
    return None


def names_clash(names: Iterable[str]) -> tuple[int, str] | None:
    """The index of the first file that cannot lie beside those before it on every computer, and why.

    >>> names_clash(["metadata/a.npy", "metadata/A.npy"])
    (1, "'metadata/a.npy' and 'metadata/A.npy' differ in case alone")
    """
    spellings: dict[str, str] = {}
    files: set[str] = set()
    for index, name in enumerate(names):
        prefixes = _prefixes(name)
        if _key(name) in files and spellings[_key(name)] == name:
            return index, f"'{name}' stands twice"
        for prefix in prefixes:
            if (other := spellings.get(_key(prefix), prefix)) != prefix:
                return index, f"'{other}' and '{prefix}' differ in case alone"
        inside = [prefix for prefix in prefixes[:-1] if _key(prefix) in files]
        if inside or _key(name) in spellings:
            return index, f"'{(*inside, name)[0]}' is a file and a folder"
        spellings.update((_key(prefix), prefix) for prefix in prefixes)
        files.add(_key(name))
    return None


def _prefixes(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _key(name: str) -> str:
    """What two names share that are one on a disk without case (Windows, macOS)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
